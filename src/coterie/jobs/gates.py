"""What a candidate must hold to become live: each a name, a value, a bound and a verdict."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from statistics import median
from typing import Any

from coterie.evaluation.compare import Comparison, Difference
from coterie.jobs.config import GatesConfig
from coterie.jobs.events import Day
from coterie.plain_table import plain_table


@dataclass(frozen=True)
class Gate:
    """A verdict.

    Args:
        name: Of the gate.
        value: What was found; None where there was nothing to hold it against.
        bound: What it must hold, in words.
        passed: Whether it does.
        about: What the value is, in words.
    """

    name: str
    value: float | None
    bound: str
    passed: bool
    about: str

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.name}: {self.about} must be {self.bound}, found {_number(self.value)}"


def table(gates: Iterable[Gate]) -> str:
    """All of them, for a terminal."""
    rows = [
        [gate.name, _number(gate.value), gate.bound, "passed" if gate.passed else "FAILED"]
        for gate in gates
    ]
    return plain_table(["gate", "value", "must be", ""], rows, [False, True, False, False])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def at_least(name: str, value: float | None, bound: float, about: str) -> Gate:
    """A value that must reach a bound; one that is not there passes."""
    return Gate(name, value, f"at least {bound:g}", value is None or value >= bound, about)


def at_most(name: str, value: float | None, bound: float, about: str) -> Gate:
    """A value that must not pass a bound; one that is not there passes."""
    return Gate(name, value, f"at most {bound:g}", value is None or value <= bound, about)


def within(name: str, value: float | None, bounds: tuple[float, float], about: str) -> Gate:
    """A value that must lie between two bounds; one that is not there passes."""
    passed = value is None or bounds[0] <= value <= bounds[1]
    return Gate(name, value, f"{bounds[0]:g} to {bounds[1]:g}", passed, about)


def volume(days: Sequence[Day], week: Iterable[Any], bounds: tuple[float, float]) -> Gate:
    """The day of a week that is furthest from the same weekday of the four weeks before."""
    events = {one.day: one.n_events for one in days}
    ratios = {}
    for day in week:
        before = [events.get(day - timedelta(weeks=n)) for n in range(1, 5)]
        usual = [count for count in before if count is not None]
        if usual:
            ratios[day] = events.get(day, 0) / median(usual)
    if not ratios:
        return within("volume", None, bounds, "events of a day over those of its weekday before")
    worst = max(ratios, key=lambda day: _distance(ratios[day]))
    about = f"events of {worst} over the median of the same weekday in four weeks"
    return within("volume", ratios[worst], bounds, about)


def _distance(ratio: float) -> float:
    return max(ratio, 1 / ratio if ratio else float("inf"))


def not_inferior(
    name: str, comparisons: Mapping[str, Comparison], metric: str, margin: float
) -> Gate:
    """The lower end of a relative gain, over whichever reference it is lowest."""
    ends = {one: _relative(found.overall[metric], "low") for one, found in comparisons.items()}
    worst = min(ends, key=lambda one: ends[one], default=None)
    about = f"{metric} over {worst or 'a model before'}, relative, lower end of its interval"
    return at_least(name, None if worst is None else ends[worst], -margin, about)


def no_cohort_lost(comparison: Comparison | None, metric: str, margin: float) -> Gate:
    """The cohort that certainly loses most: by the upper end of its relative gain."""
    ends = {
        cohort: _relative(found[metric], "high")
        for cohort, found in (comparison.cohorts if comparison else {}).items()
        if metric in found and found[metric].users >= _LEAST_USERS
    }
    worst = min(ends, key=lambda one: ends[one], default=None)
    about = f"{metric} of users with {worst or 'some'} items over live, relative, upper end"
    return at_least("cohorts", None if worst is None else ends[worst], -margin, about)


_LEAST_USERS = 50


def _relative(difference: Difference, end: str) -> float:
    value: float = getattr(difference, end)
    return value / difference.reference_mean if difference.reference_mean else 0.0


def of_lists(config: GatesConfig, facts: Mapping[str, float | None]) -> list[Gate]:
    """Gates on what the candidate's lists look like."""
    return [
        at_least(
            "distinct",
            facts["distinct"],
            config.distinct,
            "share of a list that another user's has not",
        ),
        at_least("coverage", facts["coverage"], config.coverage, "share of items in some list"),
        at_most(
            "popularity",
            facts["popularity"],
            config.popularity,
            "popularity of lists over that of histories",
        ),
        within("turnover", facts["turnover"], config.turnover, "share of the live lists kept"),
    ]
