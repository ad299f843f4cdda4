"""What the runs of a table say: pooled means, paired comparisons, and the distance to published
values.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from coterie.data.ids import IdMap
from coterie.data.split import Part
from coterie.evaluation.compare import Comparison, Difference, compare_runs, pool
from coterie.evaluation.inference import holm
from coterie.evaluation.report import EvaluationReport, finite_or_none
from coterie.lab.reproduce.definition import Pair, Primary, Published, Row
from coterie.lab.reproduce.runner import Run, Runs

RESAMPLING_SEED = 0
ALL, UNSEEN = "all", "without the users chosen on"
"""Parts of the test users that every comparison has, beside its cohorts."""


@dataclass(frozen=True)
class Beside:
    """A published value, and ours beside it.

    Args:
        row: Its name; None for a model that is not among the rows.
        label: Of the model.
        metric: Name.
        published: The value.
        here: Ours, pooled, where it is among the rows.
        source: Of the published value.
        checked: Whether it was read there; otherwise it is recalled.
    """

    row: str | None
    label: str
    metric: str
    published: float
    here: float | None
    source: str
    checked: bool

    @property
    def difference(self) -> float | None:
        """Ours less theirs."""
        return None if self.here is None else self.here - self.published


class Results:
    """A table's figures, computed from its runs.

    Test users (and validation users) of all runs are pooled: a user of two splits counts once, with
    the average.

    Args:
        runs: From `Runner.run`.
    """

    def __init__(self, runs: Runs) -> None:
        self.runs, self.plan, self.definition = runs, runs.plan, runs.plan.definition

    @cached_property
    def pooled(self) -> Mapping[str, Mapping[Part, EvaluationReport]]:
        """By row and part; validation is left out where there are no validation users."""
        return {
            name: {
                part: pool(reports)
                for part in (Part.VALIDATION, Part.TEST)
                if (reports := self._reports(name, part))
            }
            for name in self.runs.rows
        }

    @property
    def pairs(self) -> list[Pair]:
        """The comparisons between the rows there are."""
        return [
            pair
            for pair in self.definition.pairs
            if {pair.candidate, pair.reference} <= set(self.runs.rows)
        ]

    @cached_property
    def comparisons(self) -> Mapping[str, Comparison]:
        """On test users, by the pair's name."""
        return {pair.name: self._compare(pair, Part.TEST) for pair in self.pairs}

    @cached_property
    def validation_comparisons(self) -> Mapping[str, Comparison]:
        """The pairs of the curves on validation users, by the pair's name."""
        curves = {pair.name for curve in self.definition.curves for pair in curve.pairs}
        return {
            pair.name: self._compare(pair, Part.VALIDATION)
            for pair in self.pairs
            if pair.name in curves and self._validated(pair)
        }

    @cached_property
    def unseen(self) -> Mapping[str, Comparison]:
        """On the test users that no configuration was chosen on; empty where those are unknown."""
        chosen_on = self.runs.chosen_on
        return (
            {}
            if chosen_on is None
            else {pair.name: self._compare(pair, Part.TEST, chosen_on) for pair in self.pairs}
        )

    @property
    def primary(self) -> list[Primary]:
        """The primary comparisons between the rows there are."""
        there = {pair.name for pair in self.pairs}
        return [one for one in self.definition.primary if one.name in there]

    def is_primary(self, name: str) -> bool:
        """Whether a pair is primary by the metric of the comparison tables."""
        metric = self.definition.compare_by
        return any(one.name == name and one.metric == metric for one in self.primary)

    @cached_property
    def corrected(self) -> Mapping[tuple[str, str], float]:
        """Holm's p-values by a pair's name and a part of the test users: of everything that the
        comparison tables show, save what is primary.
        """
        p_values = {
            (name, part): one.p_value
            for name in self.comparisons
            for part, one in self._shown(name).items()
            if not (part == ALL and self.is_primary(name))
        }
        return dict(zip(p_values, holm(list(p_values.values())), strict=True))

    def _shown(self, name: str) -> dict[str, Difference]:
        """What the page shows of a pair, by part; of a curve's only all users."""
        metric, one = self.definition.compare_by, self.comparisons[name]
        parts = {ALL: one.overall[metric]}
        if name in {pair.name for pair in self.definition.comparisons}:
            parts |= {cohort: found[metric] for cohort, found in one.cohorts.items()}
            parts |= {UNSEEN: self.unseen[name].overall[metric]} if name in self.unseen else {}
        return parts

    @property
    def beside(self) -> list[Beside]:
        """Every published value."""
        of_rows = [
            (row.label, row.name, published)
            for row in self.plan.rows
            for published in row.published
        ]
        elsewhere = [
            (one.label, None, published)
            for one in self.definition.elsewhere
            for published in one.published
        ]
        return [
            one
            for label, name, published in [*of_rows, *elsewhere]
            for one in self._beside(label, name, published)
        ]

    def _beside(self, label: str, name: str | None, published: Published) -> list[Beside]:
        return [
            Beside(
                name,
                label,
                metric,
                value,
                None if name is None else self.test(name).mean(metric),
                published.source,
                published.checked,
            )
            for metric, value in published.values.items()
        ]

    def test(self, name: str) -> EvaluationReport:
        """The pooled test users of a row."""
        return self.pooled[name][Part.TEST]

    def validation_mean(self, name: str) -> float | None:
        """The mean that rows are compared by, on pooled validation users, where there are any."""
        report = self.pooled[name].get(Part.VALIDATION)
        return None if report is None else report.mean(self.definition.compare_by)

    def seconds(self, name: str) -> float | None:
        """Mean time of a training, over the runs where it is known."""
        known = [
            run.facts["seconds"] for run in self.runs.rows[name] if run.facts["seconds"] is not None
        ]
        return sum(known) / len(known) if known else None

    def _reports(self, name: str, part: Part) -> list[EvaluationReport]:
        return [run.reports[part] for run in self.runs.rows[name] if part in run.reports]

    def _validated(self, pair: Pair) -> bool:
        return all(
            Part.VALIDATION in self.pooled[name] for name in (pair.candidate, pair.reference)
        )

    def _compare(self, pair: Pair, part: Part, without: IdMap | None = None) -> Comparison:
        sides = [
            [_without(report, without) for report in self._reports(name, part)]
            for name in (pair.candidate, pair.reference)
        ]
        return compare_runs(*sides, seed=RESAMPLING_SEED, test_to_train=self._test_to_train)

    @property
    def _test_to_train(self) -> float | None:
        """Test users over training users of a split that was drawn; None of one that was given."""
        counts = next(iter(self.runs.data.values()))["counts"]
        return float(counts["test_users"] / counts["train_users"]) or None

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        plan = self.plan
        wanted = {
            "seeds": list(plan.seeds),
            "held_out_users": plan.held_out_users,
            "epochs": plan.epochs,
        }
        return {
            "table": plan.name,
            "title": self.definition.title,
            "asked": wanted,
            "data": {str(seed): dict(facts) for seed, facts in self.runs.data.items()},
            "rows": {row.name: self._row_json(row) for row in plan.rows},
            "published": [{**asdict(one), "difference": one.difference} for one in self.beside],
            "primary": [one.model_dump() for one in self.primary],
            "comparisons": {name: one.to_json() for name, one in self.comparisons.items()},
            "corrected": [
                {"comparison": name, "part": part, "p_value": finite_or_none(p)}
                for (name, part), p in self.corrected.items()
            ],
            "without_users_chosen_on": {name: one.to_json() for name, one in self.unseen.items()},
            "validation_comparisons": {
                name: one.to_json() for name, one in self.validation_comparisons.items()
            },
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        pooled = {
            part.name.lower(): report.to_json() for part, report in self.pooled[row.name].items()
        }
        against = [pair.reference for pair in self.pairs if pair.candidate == row.name]
        described = {
            "label": row.label,
            "configuration": row.config,
            "set": row.set,
            "exploratory": row.exploratory,
            "compared_with": against,
        }
        return {
            **described,
            "pooled": pooled,
            "runs": [self._run_json(run) for run in self.runs.rows[row.name]],
        }

    def _run_json(self, run: Run) -> dict[str, Any]:
        means = {
            part.name.lower(): {
                name: {
                    "mean": finite_or_none(report.mean(name)),
                    "standard_error": finite_or_none(report.standard_error(name)),
                }
                for name in report.metrics
            }
            for part, report in run.reports.items()
        }
        fingerprint = self.runs.data[run.seed]["fingerprint"]
        return {
            "seed": run.seed,
            "data": fingerprint,
            "config": run.config.as_json(),
            **means,
            **run.facts,
        }


def _without(report: EvaluationReport, users: IdMap | None) -> EvaluationReport:
    return (
        report
        if users is None
        else report.take(np.flatnonzero(users.index_of(report.users.values) < 0))
    )
