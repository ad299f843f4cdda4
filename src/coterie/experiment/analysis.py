"""What an experiment has shown so far: each metric of each arm beside the control, and the verdict.

Whether one may conclude is decided by the primary metric, at the looks that were agreed. All other
figures have intervals of the same caution, and decide nothing.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import cached_property
from typing import Any

import pyarrow as pa

from coterie.errors import ConfigError
from coterie.evaluation.inference import holm
from coterie.experiment.checks import Check, check
from coterie.experiment.definition import ERROR, Experiment, MetricName
from coterie.experiment.guardrails import Guardrail, guard
from coterie.experiment.statistics import (
    Belief,
    Effect,
    LookOutcome,
    compare,
    information_fractions,
    look,
    probability_better,
    watch,
)
from coterie.experiment.sums import Metric, Sums

PRIOR_SD = 0.1
"""Of ln(1 + lift), if nothing else is known: two of three experiments between -10 and +10 %."""

_MEASURES: dict[MetricName, tuple[str, str]] = {
    "clicks-per-view": ("clicks", "views"),
    "clicks-per-user": ("clicks", "view_days"),
    "watch-time": ("watch", "users"),
}

_WORDS: dict[tuple[str, str], str] = {
    ("clicks", "views"): "clicks per card view",
    ("clicks", "view_days"): "clicks per viewing user and day",
    ("watch", "users"): "seconds watched per user",
}


def metric_of(name: MetricName, card: str | None = None) -> Metric:
    """A metric by its name in a definition.

    Example:
        >>> words(metric_of("clicks-per-user", "movie"))
        'movie: clicks per viewing user and day'
    """
    numerator, denominator = _MEASURES[name]
    return Metric(numerator, denominator, card)  # type: ignore[arg-type]


def words(metric: Metric) -> str:
    """A metric for people."""
    what = _WORDS.get((metric.numerator, metric.denominator), metric.name)
    return what if metric.card is None else f"{metric.card}: {what}"


@dataclass(frozen=True)
class Judged:
    """A metric in one arm, beside the control.

    Args:
        metric: Which.
        arm: The treatment.
        effect: As one look at the end would have it, whatever was agreed.
        seen: As the agreed looks allow; None where none of them has come.
        seen_on: The day of the look that it is of: the first that decided, else the latest.
        belief: After that day's data, with the prior that it states.
    """

    metric: Metric
    arm: str
    effect: Effect
    seen: LookOutcome | None
    seen_on: date | None
    belief: Belief

    @property
    def valid(self) -> Effect:
        """With the interval that holds at the agreed looks, if one has come."""
        return self.effect if self.seen is None else self.seen.effect

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "metric": words(self.metric),
            "arm": self.arm,
            "effect": _plain(self.valid),
            "fixed_horizon": _plain(self.effect),
            "look": None if self.seen is None else _plain_look(self.seen),
            "look_on": None if self.seen_on is None else self.seen_on.isoformat(),
            "belief": _plain(self.belief),
        }


@dataclass(frozen=True)
class OfSegment:
    """The primary metric among some of the users.

    Args:
        segment: Their name.
        arm: The treatment.
        effect: As one look would have it.
        p_value: Corrected for all segments and arms (Holm).
    """

    segment: str
    arm: str
    effect: Effect
    p_value: float


@dataclass(frozen=True)
class OfDay:
    """The primary metric until a day.

    Args:
        day: The last that counts.
        arm: The treatment.
        effect: As one look at this day would have it, and no other.
        fraction: Of the planned information; where none was planned, of that of the last day.
    """

    day: date
    arm: str
    effect: Effect
    fraction: float


@dataclass(frozen=True, eq=False)
class Analysis:
    """All that is reported.

    Args:
        definition: What was agreed.
        first: The first day.
        last: The last day that was looked at.
        users: Who count, by arm.
        metrics: The primary first, for each treatment.
        segments: Of the primary metric.
        days: Of the primary metric, one after another.
        checks: What could void it all.
        counts: What became of the events' rows, by kind.
        guardrails: What the metrics do not tell, and the bounds that were agreed.
    """

    definition: Experiment
    first: date
    last: date
    users: dict[str, int]
    metrics: Sequence[Judged]
    segments: Sequence[OfSegment]
    days: Sequence[OfDay]
    checks: Sequence[Check]
    counts: dict[str, dict[str, int]]
    guardrails: Sequence[Guardrail] = ()

    @property
    def n_days(self) -> int:
        """Days that were looked at."""
        return (self.last - self.first).days + 1

    @property
    def alpha(self) -> float:
        """Of each treatment: the agreed one is of all together (Bonferroni)."""
        return self.definition.looks.alpha / (len(self.definition.arms) - 1)

    @property
    def over(self) -> bool:
        """Whether the last planned day is among them."""
        return self.n_days >= self.definition.days

    @property
    def primary(self) -> list[Judged]:
        """The metric that decides, of each treatment."""
        return [one for one in self.metrics if one.metric == primary_of(self.definition)]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "definition": self.definition.model_dump(mode="json"),
            "first": self.first.isoformat(),
            "last": self.last.isoformat(),
            "users": self.users,
            "metrics": [one.to_json() for one in self.metrics],
            "segments": [{**vars(one), "effect": _plain(one.effect)} for one in self.segments],
            "days": [
                {
                    "day": one.day.isoformat(),
                    "arm": one.arm,
                    "effect": _plain(one.effect),
                    "fraction": _finite(one.fraction),
                }
                for one in self.days
            ],
            "checks": [one.to_json() for one in self.checks],
            "guardrails": [one.to_json() for one in self.guardrails],
            "events": self.counts,
        }


def primary_of(definition: Experiment) -> Metric:
    """The metric that decides."""
    return metric_of(definition.metrics.primary, definition.metrics.card)


def metrics_of(definition: Experiment) -> list[Metric]:
    """The primary, then all that are told: by card, and together."""
    by_card = [
        metric_of(name, card)
        for card in (None, *definition.metrics.cards)
        for name in ("clicks-per-view", "clicks-per-user")
    ]
    return list(dict.fromkeys([primary_of(definition), *by_card, metric_of("watch-time")]))


def analyse(
    sums: Sums,
    definition: Experiment,
    *,
    prior_sd: float = PRIOR_SD,
    published: Iterable[Mapping[str, Any]] = (),
    earlier: pa.Table | None = None,
) -> Analysis:
    """Analyses an experiment as far as its sums go.

    Args:
        sums: Of its events, from its first day on; with days before, CUPED is used.
        definition: What was agreed.
        prior_sd: Of ln(1 + lift) before the experiment, for the probability of being better.
        published: Facts of the daily editions, for guardrails.
        earlier: user_id and arm in the experiment before, in the same layer; None if none was.

    Raises:
        ConfigError: if looks before the end were agreed, and no plan says what they are shares of.
    """
    return _Analyser(sums, definition, prior_sd, published, earlier).analysis()


@dataclass(eq=False)
class _Analyser:
    sums: Sums
    definition: Experiment
    prior_sd: float
    published: Iterable[Mapping[str, Any]]
    earlier: pa.Table | None

    def analysis(self) -> Analysis:
        sums = self.sums
        days = [one for arm in self.treatments for one in self._days(arm)]
        metrics = metrics_of(self.definition)
        return Analysis(
            definition=self.definition,
            first=sums.window.first,
            last=sums.window.last,
            users={arm: sums.moments(metrics[0], arm).n for arm in sums.arms.names},
            metrics=[self._judged(one, arm) for one in metrics for arm in self.treatments],
            segments=self._segments(),
            days=days,
            checks=check(sums, earlier=self.earlier),
            counts={kind: counts.to_json() for kind, counts in sums.counts.items()},
            guardrails=guard(sums, self.definition, self.published),
        )

    @property
    def treatments(self) -> list[str]:
        """All arms but the control."""
        return [arm for arm in self.sums.arms.names if arm != self.definition.control]

    @property
    def alpha(self) -> float:
        """Of each treatment, as `Analysis.alpha`."""
        return self.definition.looks.alpha / len(self.treatments)

    def _effect(
        self, metric: Metric, arm: str, segment: str | None = None, until: date | None = None
    ) -> Effect:
        sides = (
            self.sums.moments(metric, one, segment, until) for one in (arm, self.definition.control)
        )
        cuped = bool(self.sums.window.before_days)
        return compare(*sides, confidence=1 - self.alpha, cuped=cuped)

    def _judged(self, metric: Metric, arm: str) -> Judged:
        effect, seen = self._effect(metric, arm), self._seen[arm]
        if seen is not None and metric != self.primary:
            level = seen.effect.confidence
            own = self._effect(metric, arm, until=self._look_day[arm]).at_level(1 - level)
            seen = LookOutcome(
                fraction=seen.fraction,
                statistic=own.normal_statistic,
                bound=seen.bound,
                crossed=bool(own.p_value <= 1 - level),
                final=seen.final,
                effect=own,
            )
        belief = probability_better(effect if seen is None else seen.effect, self.prior_sd)
        return Judged(metric, arm, effect, seen, self._look_day[arm], belief)

    @property
    def primary(self) -> Metric:
        """The metric that decides."""
        return primary_of(self.definition)

    @cached_property
    def _looks(self) -> dict[str, list[tuple[date, LookOutcome]]]:
        """Of each treatment: the looks that have come, with their days."""
        return {arm: list(self._looks_of(arm)) for arm in self.treatments}

    @cached_property
    def _deciding(self) -> dict[str, tuple[date, LookOutcome] | None]:
        """The look that crossed its bound, as what was found then stands; else the latest one."""
        return {arm: self._deciding_of(found) for arm, found in self._looks.items()}

    def _deciding_of(
        self, found: list[tuple[date, LookOutcome]]
    ) -> tuple[date, LookOutcome] | None:
        if not found:
            return None
        crossed = [one for one in found if one[1].crossed]
        if self.definition.looks.kind == "daily":
            # A confidence sequence holds on the last day, too, where it is narrowest.
            day, last = found[-1]
            return day, replace(last, crossed=bool(crossed))
        return crossed[0] if crossed else found[-1]

    @property
    def _seen(self) -> dict[str, LookOutcome | None]:
        return {arm: one and one[1] for arm, one in self._deciding.items()}

    @property
    def _look_day(self) -> dict[str, date | None]:
        return {arm: one and one[0] for arm, one in self._deciding.items()}

    def _looks_of(self, arm: str) -> list[tuple[date, LookOutcome]]:
        looks, last = self.definition.looks, self.definition.days
        days = {"fixed": (last,), "planned": looks.days, "daily": range(1, last + 1)}[looks.kind]
        come = [one for one in self._days(arm) if self._number(one.day) in days]
        found = []
        for n, one in enumerate(come):
            if looks.kind == "daily":
                outcome = watch(one.effect, one.fraction, self.alpha)
            else:
                fractions = [each.fraction for each in come[: n + 1]]
                is_last = self._number(one.day) >= last
                outcome = look(one.effect, fractions, self.alpha, looks.spending, last=is_last)
            found.append((one.day, outcome))
        return found

    def _number(self, day: date) -> int:
        return (day - self.sums.window.first).days + 1

    def _days(self, arm: str) -> list[OfDay]:
        return self._by_day[arm]

    @cached_property
    def _by_day(self) -> dict[str, list[OfDay]]:
        return {arm: self._days_of(arm) for arm in self.treatments}

    def _days_of(self, arm: str) -> list[OfDay]:
        """Those on which both arms have outcomes."""
        effects = {day: self._effect(self.primary, arm, until=day) for day in self.sums.days}
        there = {day: one for day, one in effects.items() if one.log_error > 0}
        fractions = self._fractions([one.log_error for one in there.values()])
        return [
            OfDay(day, arm, effect, fraction)
            for (day, effect), fraction in zip(there.items(), fractions, strict=True)
        ]

    def _fractions(self, errors: list[float]) -> list[float]:
        """Of the planned information; where one looks at the end alone it does not matter."""
        if not errors:
            return []
        planned = self.definition.plan.get(ERROR)
        if planned is not None:
            return list(information_fractions(errors, float(planned)))
        if self.definition.looks.kind == "fixed":
            return list(information_fractions(errors, errors[-1]))
        raise ConfigError(
            f"{self.definition.name}: looks before the end must know how much was planned, there is"
            f" no {ERROR} under [plan]; run coterie experiment plan and keep what it says."
        )

    def _segments(self) -> list[OfSegment]:
        found = [
            (segment, arm, self._effect(self.primary, arm, segment))
            for segment in self.sums.segments
            for arm in self.treatments
        ]
        told = [one for one in found if not math.isnan(one[2].p_value)]
        corrected = holm([effect.p_value for _, _, effect in told])
        return [OfSegment(*one, p) for one, p in zip(told, corrected, strict=True)]


def _plain(one: Effect | Belief) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in asdict(one).items()}


def _plain_look(one: LookOutcome) -> dict[str, Any]:
    values = {name: value for name, value in vars(one).items() if name != "effect"}
    return {name: _finite(value) for name, value in values.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
