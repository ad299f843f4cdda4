"""Comparing two evaluations of the same users: is the difference more than chance?

Differences are taken user by user, so what makes a user easy or hard for both models cancels. Of
one run the user is the unit: an interval says what other users would give. Of several it also holds
what other splits and seeds would give.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from coterie.data.ids import IdMap
from coterie.errors import ConfigError, DataError
from coterie.evaluation.cohorts import cohort_members
from coterie.evaluation.inference import spread_between
from coterie.evaluation.metrics import LEGEND, metric_of
from coterie.evaluation.report import EvaluationReport, finite_or_none
from coterie.plain_table import plain_table

FEWEST_FOR_PERCENT = 50
"""Users from which on a relative gain is printed: of fewer it is mostly noise."""

_CELLS_AT_ONCE = 4_000_000
"""Resampled values held at once (32 MB of float64), whatever the numbers of users and resamples."""


@dataclass(frozen=True)
class Difference:
    """What the candidate gains over the reference in one metric. Undefined numbers are NaN here and
    null in JSON.

    What is of all lists together, such as coverage, has neither interval nor p-value: users drawn
    with repetition have fewer different lists between them, so their coverage is lower than that of
    the users drawn from, and a bootstrap would be off to one side.

    Args:
        users: Number of users for whom both sides define the metric.
        candidate_mean: Mean of the candidate.
        reference_mean: Mean of the reference.
        difference: ``candidate_mean - reference_mean``.
        relative_difference: ``difference / reference_mean``; NaN if ``reference_mean`` is 0.
        low: Lower end of the interval of the difference; NaN below two users, and of all lists.
        high: Its upper end.
        p_value: Two-sided: how often chance alone gives a difference as large; NaN without users,
            and of all lists.
        by_run: The difference in each run, NaN in a run without users; empty where interval and
            p-value hold users only.
    """

    users: int
    candidate_mean: float
    reference_mean: float
    difference: float
    relative_difference: float
    low: float
    high: float
    p_value: float
    by_run: tuple[float, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Paired differences between two evaluations, overall and by cohort.

    Args:
        overall: `Difference` by metric name.
        cohorts: The same by cohort name, without what is of all lists; cohorts without users are
            left out.
        confidence: Of the intervals.
        n_resamples: Of the bootstrap and of the sign flips.
        seed: Of both.
        runs: Compared on each side; of one, intervals and p-values hold users only.
    """

    overall: Mapping[str, Difference]
    cohorts: Mapping[str, Mapping[str, Difference]]
    confidence: float
    n_resamples: int
    seed: int
    runs: int = 1

    def to_json(self) -> dict[str, Any]:
        """Everything, with null for what is undefined and each metric's label."""
        cohorts = {name: _as_json(differences) for name, differences in self.cohorts.items()}
        settings = {
            "confidence": self.confidence,
            "n_resamples": self.n_resamples,
            "seed": self.seed,
            "runs": self.runs,
        }
        return {**settings, "metrics": _as_json(self.overall), "cohorts": cohorts}

    def __str__(self) -> str:
        header = [
            "cohort",
            "users",
            "candidate",
            "reference",
            "gain",
            "gain %",
            f"{self.confidence:.0%} interval",
            "p",
        ]
        parts = {"all": self.overall, **self.cohorts}
        tables = [
            f"{metric_of(name).label}\n"
            + plain_table(
                header,
                [
                    [part, *_cells(differences[name])]
                    for part, differences in parts.items()
                    if name in differences
                ],
                [False] + [True] * 7,
            )
            for name in self.overall
        ]
        return "\n\n".join(tables) + f"\n{self._held()}\n{LEGEND}"

    def _held(self) -> str:
        """What the intervals hold."""
        if self.runs == 1:
            return "interval and p: one run, users only"
        by_run = (
            f"{metric_of(name).label} by run: {', '.join(f'{gain:+.4f}' for gain in one.by_run)}"
            for name, one in self.overall.items()
            if one.by_run
        )
        return "\n".join([*by_run, f"interval and p: users and {self.runs} runs"])


def compare(
    candidate: EvaluationReport,
    reference: EvaluationReport,
    *,
    seed: int,
    n_resamples: int = 10_000,
    confidence: float = 0.95,
) -> Comparison:
    """Measures what ``candidate`` gains over ``reference`` on the same users, for every metric both
    have. A user for whom a metric is undefined on one side does not count in it.

    The interval is the percentile bootstrap of the mean difference over users. The p-value flips
    the signs of the differences at random, as is just if neither model is better; with N resamples
    it is (1 + flips at least as large) / (1 + N), so never 0.

    Args:
        candidate: What may be better.
        reference: What it is held against, on the same users in any order; its cohorts are used.
        seed: Of the resampling.
        n_resamples: Of the bootstrap and of the sign flips.
        confidence: Of the interval, between 0 and 1.

    Raises:
        ConfigError: if ``n_resamples`` or ``confidence`` cannot be honoured.
        DataError: if the users differ or no metric is common to both.

    References:
        Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 13.3 and chapter 15.

    Example:
        >>> users, n = IdMap.of(range(4)), np.array([9, 9, 60, 60])
        >>> plain = EvaluationReport(users, n, {"ndcg@10": np.array([0.1, 0.2, 0.3, 0.4])})
        >>> pia = EvaluationReport(users, n, {"ndcg@10": np.array([0.3, 0.4, 0.5, 0.6])})
        >>> gain = compare(pia, plain, seed=0).overall["ndcg@10"]
        >>> round(gain.difference, 6), round(gain.low, 6), round(gain.relative_difference, 6)
        (0.2, 0.2, 0.8)
    """
    if n_resamples < 1 or not 0 < confidence < 1:
        raise ConfigError(
            f"n_resamples must be at least 1 and confidence between 0 and 1, found {n_resamples}"
            f" and {confidence}; try 10000 and 0.95."
        )
    names = [name for name in reference.metrics if name in candidate.metrics]
    of_all_lists = _differences_of_all_lists(candidate, reference)
    candidate = candidate.take(_same_users(reference, candidate))
    if not names and not of_all_lists:
        raise DataError(
            f"the reports must share a metric, found {list(candidate.metrics)} and"
            f" {list(reference.metrics)}; evaluate both by the same."
        )
    differences = partial(
        _differences, names=names, seed=seed, n_resamples=n_resamples, confidence=confidence
    )
    cohorts = {
        name: differences(candidate.take(candidate.users.index_of(part.users.values)), part)
        for name, part in reference.cohorts().items()
        if len(part)
    }
    overall = {**differences(candidate, reference), **of_all_lists}
    return Comparison(overall, cohorts, confidence, n_resamples, seed)


def compare_runs(
    candidate: Sequence[EvaluationReport],
    reference: Sequence[EvaluationReport],
    *,
    seed: int,
    n_resamples: int = 10_000,
    confidence: float = 0.95,
    test_to_train: float | None = None,
) -> Comparison:
    """Compares over several runs (seeds, splits) on the pooled users of all of them.

    Run i of both sides must be on the same users; different runs may share users or not. A
    difference is that of the pooled users. Its interval reaches as far as users alone make it
    uncertain (`compare`), or as far as users, splits and seeds do together (`spread_between`),
    whichever is farther: the variance of a few runs is itself uncertain, and may by chance come out
    below what users alone bring. The p-value is the larger of the two likewise.

    Args:
        candidate: One report a run.
        reference: One report a run, in the same order.
        seed: As in `compare`, like the rest.
        n_resamples: As in `compare`.
        confidence: As in `compare`.
        test_to_train: Test users over training users of a split, as in `spread_between`.

    Raises:
        DataError: if the runs do not pair up.

    Example:
        >>> users, n = IdMap.of(range(2)), np.array([9, 9])
        >>> runs = [
        ...     EvaluationReport(users, n, {"ndcg@10": np.array(values)})
        ...     for values in ([0.1, 0.2], [0.3, 0.2], [0.2, 0.5])
        ... ]
        >>> gain = compare_runs(runs[1:], [runs[0]] * 2, seed=0).overall["ndcg@10"]
        >>> [round(one, 2) for one in gain.by_run], round(gain.difference, 2), gain.low < 0
        ([0.1, 0.2], 0.15, True)
    """
    if len(candidate) != len(reference):
        raise DataError(
            f"both sides must have a report for every run, found {len(candidate)} and"
            f" {len(reference)}; drop the unpaired runs."
        )
    places = [_same_users(one, other) for one, other in zip(reference, candidate, strict=True)]
    pooled = pool(reference)
    of_users = compare(
        pool(candidate), pooled, seed=seed, n_resamples=n_resamples, confidence=confidence
    )
    if len(reference) == 1:
        return of_users
    candidate = [one.take(place) for one, place in zip(candidate, places, strict=True)]
    gains = {name: _by_run(candidate, reference, pooled, name) for name in of_users.overall}
    members = cohort_members(pooled.n_interactions, pooled.lower_bounds)
    widened = partial(_over_runs, confidence=confidence, test_to_train=test_to_train)
    return replace(
        of_users,
        overall={name: widened(one, gains[name]) for name, one in of_users.overall.items()},
        cohorts={
            cohort: {
                name: widened(one, gains[name][:, members[cohort]])
                for name, one in differences.items()
            }
            for cohort, differences in of_users.cohorts.items()
        },
        runs=len(reference),
    )


def _by_run(
    candidate: Sequence[EvaluationReport],
    reference: Sequence[EvaluationReport],
    pooled: EvaluationReport,
    name: str,
) -> np.ndarray:
    """``[n_runs, n_users]`` gains of the pooled users, NaN in runs without them, and of all lists,
    which no user has.
    """
    gains = np.full((len(reference), len(pooled)), math.nan)
    for row, one, other in zip(gains, candidate, reference, strict=True):
        if name in one.metrics and name in other.metrics:
            place = pooled.users.index_of(other.users.values)
            row[place] = one.metrics[name] - other.metrics[name]
    return gains


def _over_runs(
    of_users: Difference, gains: np.ndarray, confidence: float, test_to_train: float | None
) -> Difference:
    """A difference whose interval and p-value hold runs, too."""
    spread = spread_between(gains, test_to_train)
    if spread is None:
        return of_users
    half = spread.half_width(confidence)
    return replace(
        of_users,
        low=float(np.fmin(of_users.low, of_users.difference - half)),
        high=float(np.fmax(of_users.high, of_users.difference + half)),
        p_value=max(of_users.p_value, spread.p_value(of_users.difference)),
        by_run=spread.by_run,
    )


def pool(reports: Sequence[EvaluationReport]) -> EvaluationReport:
    """Joins the reports of several runs into one, each user once with the average over their runs.

    Averaging first keeps the user the unit: five seeds on one user are not five users. Runs that do
    not define a user's metric are left out of the average. The metrics that all runs have are kept,
    what is of all lists as the average over runs, and of a user's numbers of interactions, which
    splits may trim differently, the largest.

    Args:
        reports: One a run; cohorts are those of the first.

    Raises:
        DataError: if there is no report, or their ids are integers in one and strings in another.
    """
    if not reports or len({report.users.are_integers for report in reports}) > 1:
        raise DataError(
            f"pooling needs one or more reports with ids of one type, found {len(reports)} reports;"
            " write the ids alike."
        )
    encoded = pc.dictionary_encode(pa.concat_arrays([report.users.values for report in reports]))
    user, n_users = encoded.indices.to_numpy(), len(encoded.dictionary)
    metrics = {
        name: _averages(user, np.concatenate(values), n_users)
        for name, values in _of_each_run(reports, "metrics").items()
    }
    of_all_lists = {
        name: float(np.mean(values))
        for name, values in _of_each_run(reports, "of_all_lists").items()
    }
    n_interactions = np.zeros(n_users, dtype=np.int64)
    np.maximum.at(
        n_interactions, user, np.concatenate([report.n_interactions for report in reports])
    )
    return EvaluationReport(
        IdMap(encoded.dictionary), n_interactions, metrics, reports[0].lower_bounds, of_all_lists
    )


def _of_each_run(
    reports: Sequence[EvaluationReport], what: Literal["metrics", "of_all_lists"]
) -> dict[str, list[Any]]:
    """One value a run by the names that all runs have."""
    runs = [getattr(report, what) for report in reports]
    return {
        name: [run[name] for run in runs] for name in runs[0] if all(name in run for run in runs)
    }


def _averages(user: np.ndarray, values: np.ndarray, n_users: int) -> np.ndarray:
    """``[n_users]`` mean of the defined values of each user, NaN without one."""
    defined = ~np.isnan(values)
    sums = np.bincount(user[defined], values[defined], n_users)
    with np.errstate(invalid="ignore"):
        averages: np.ndarray = sums / np.bincount(user[defined], minlength=n_users)
    return averages


def _same_users(a: EvaluationReport, b: EvaluationReport) -> np.ndarray:
    """``[n_users]`` where each user of ``a`` stands in ``b``."""
    place = b.users.index_of(a.users.values)
    missing = int((place < 0).sum())
    if missing or len(a) != len(b):
        raise DataError(
            f"both reports must be on the same users, found {len(a)} and {len(b)} with"
            f" {len(a) - missing} in common; evaluate both on the same cases."
        )
    return place


def _differences(
    candidate: EvaluationReport,
    reference: EvaluationReport,
    names: Sequence[str],
    seed: int,
    n_resamples: int,
    confidence: float,
) -> dict[str, Difference]:
    """Differences of users already aligned; metrics that the same users define share one draw of
    users and signs.
    """
    if not names:
        return {}
    sides = [np.stack([side.metrics[name] for name in names]) for side in (candidate, reference)]
    defined = ~np.isnan(sides[0] - sides[1])
    differences: dict[str, Difference] = {}
    for users in np.unique(defined, axis=0):
        rows = np.flatnonzero((defined == users).all(axis=1)).tolist()
        pair = [np.compress(users, side[rows], axis=1) for side in sides]
        found = _paired(pair, seed, n_resamples, confidence)
        differences.update(zip([names[row] for row in rows], found, strict=True))
    return {name: differences[name] for name in names}


def _paired(
    sides: Sequence[np.ndarray], seed: int, n_resamples: int, confidence: float
) -> list[Difference]:
    """Of each row of two ``[n_metrics, n_users]`` arrays."""
    candidate, reference = sides
    n_users, gains = candidate.shape[1], candidate - reference
    if not n_users:
        return [_difference(0, math.nan, math.nan, math.nan)] * len(gains)
    low, high = _bootstrap_interval(gains, seed, n_resamples, confidence)
    columns = (
        *(values.mean(axis=1) for values in (candidate, reference, gains)),
        *(low, high, _sign_flip_p_values(gains, seed, n_resamples)),
    )
    return [_difference(n_users, *map(float, row)) for row in zip(*columns, strict=True)]


def _differences_of_all_lists(
    candidate: EvaluationReport, reference: EvaluationReport
) -> dict[str, Difference]:
    pairs = {
        name: (candidate.of_all_lists[name], value)
        for name, value in reference.of_all_lists.items()
        if name in candidate.of_all_lists
    }
    return {
        name: _difference(len(reference), mine, its, mine - its)
        for name, (mine, its) in pairs.items()
    }


def _difference(
    n_users: int,
    candidate: float,
    reference: float,
    gain: float,
    low: float = math.nan,
    high: float = math.nan,
    p_value: float = math.nan,
) -> Difference:
    relative = gain / reference if reference else math.nan
    return Difference(n_users, candidate, reference, gain, relative, low, high, p_value)


def _bootstrap_interval(
    gains: np.ndarray, seed: int, n_resamples: int, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of the mean of each row of ``[n_metrics, n_users]``."""
    if gains.shape[1] < 2:
        undefined = np.full(len(gains), np.nan)
        return undefined, undefined
    interval = stats.bootstrap(
        (gains,),
        np.mean,
        axis=-1,
        vectorized=True,
        n_resamples=n_resamples,
        batch=_batch(gains),
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return interval.low, interval.high


def _sign_flip_p_values(gains: np.ndarray, seed: int, n_resamples: int) -> np.ndarray:
    """``[n_metrics]`` p-values: the sums of a batch of flips are one matrix product, far faster
    than SciPy's test.
    """
    random = np.random.default_rng([seed, 1])
    # Rounding must not tell apart two sums of the same numbers in another order.
    observed = np.abs(gains.sum(axis=1)) * (1 - 1e-12) - 1e-12 * np.abs(gains).sum(axis=1)
    reached = np.ones(len(gains))
    batch = _batch(gains)
    for start in range(0, n_resamples, batch):
        size = min(batch, n_resamples - start)
        signs = 2.0 * random.integers(0, 2, (size, gains.shape[1]), dtype=np.int8) - 1.0
        reached += (np.abs(signs @ gains.T) >= observed).sum(axis=0)
    return reached / (1 + n_resamples)


def _batch(gains: np.ndarray) -> int:
    return max(1, _CELLS_AT_ONCE // gains.size)


def _as_json(differences: Mapping[str, Difference]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "label": metric_of(name).label,
            **{field: _finite(value) for field, value in asdict(one).items()},
        }
        for name, one in differences.items()
    }


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return [finite_or_none(one) for one in value]
    return finite_or_none(value) if isinstance(value, float) else value


def _cells(one: Difference) -> list[str]:
    cells = (
        f"{one.candidate_mean:.4f}",
        f"{one.reference_mean:.4f}",
        f"{one.difference:+.4f}",
        f"{100 * one.relative_difference:+.2f}" if one.users >= FEWEST_FOR_PERCENT else "",
        f"[{one.low:+.4f}, {one.high:+.4f}]",
        f"{one.p_value:.4f}",
    )
    return [str(one.users), *("" if "nan" in cell else cell for cell in cells)]
