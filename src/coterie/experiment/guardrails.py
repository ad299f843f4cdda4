"""What a better metric must not cost: titles that are reached, people who get the fall-back list,
time that a list takes.

A guardrail that is broken is told beside the decision and voids nothing: whether the price is worth
it is for people to say. Each is a figure held against a bound that was agreed, without a test.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy import special

from coterie.experiment.definition import Experiment
from coterie.experiment.sums import Sums

Unit: TypeAlias = Literal["share", "titles", "ms"]

PERCENTILE = 0.95
"""Of latencies."""


@dataclass(frozen=True)
class Guardrail:
    """A figure of a treatment that may not be much worse than the control's.

    Args:
        name: What it is.
        arm: The treatment.
        control: The control's figure.
        treatment: The treatment's.
        bound: Of the treatment's figure: the least for titles, else the most.
        unit: Of all three.

    Example:
        >>> one = Guardrail("fall-back lists", "new", 0.02, 0.05, 0.03, "share")
        >>> one.ok, one.words
        (False, 'Guardrail broken, fall-back lists: 5.0 % with new, at most 3.0 % was agreed.')
    """

    name: str
    arm: str
    control: float
    treatment: float
    bound: float
    unit: Unit

    @property
    def ok(self) -> bool:
        """Whether the treatment keeps within the bound."""
        return self.treatment >= self.bound if self.is_least else self.treatment <= self.bound

    @property
    def is_least(self) -> bool:
        """Whether more is better."""
        return self.unit == "titles"

    @property
    def words(self) -> str:
        """In a sentence."""
        state = "kept" if self.ok else "broken"
        return (
            f"Guardrail {state}, {self.name}: {self.told('treatment')} with {self.arm},"
            f" {self.told('bound')} was agreed."
        )

    def told(self, which: Literal["control", "treatment", "bound"]) -> str:
        """One of its figures for people."""
        value = getattr(self, which)
        figure = {
            "share": f"{100 * value:.1f} %",
            "titles": f"{value:,.0f}",
            "ms": f"{value:,.0f} ms",
        }[self.unit]
        limit = "at least " if self.is_least else "at most "
        return limit + figure if which == "bound" else figure

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "ok": self.ok}


def guard(
    sums: Sums, definition: Experiment, published: Iterable[Mapping[str, Any]] = ()
) -> list[Guardrail]:
    """The guardrails of which something is known, of each treatment.

    - *titles shown*: how many titles are seen, expected in as many views of either arm, as the arm
      with more views has seen more of them. By the arm that is logged with an exposure.
    - *fall-back lists*: the share of users whose list is the fall-back, mean of the days published.
    - *latency*: the 95th percentile of ``latency_ms``, if exposures have it.

    Args:
        sums: Of the events.
        definition: With the bounds that were agreed.
        published: Of each day's edition its facts, as the daily job writes them.
    """
    allowed, control = definition.guardrails, definition.control
    rules: list[tuple[str, Unit, Mapping[str, float], Callable[[float], float]]] = [
        ("titles shown", "titles", titles_shown(sums), lambda one: allowed.titles * one),
        ("fall-back lists", "share", _fallback(definition, published), allowed.fallback.__add__),
        ("latency", "ms", latencies(sums), lambda one: allowed.latency * one),
    ]
    return [
        Guardrail(name, arm, found[control], found[arm], bound(found[control]), unit)
        for name, unit, found, bound in rules
        for arm in sums.arms.names
        if arm != control and {arm, control} <= set(found)
    ]


def titles_shown(sums: Sums) -> dict[str, float]:
    """Of each arm, the titles that are expected in as many views as the arm with fewest has.

    References:
        Hurlbert (1971), The Nonconcept of Species Diversity, for the expectation (rarefaction).
    """
    rows = sums.rows("SELECT arm, sum(n) FROM shown GROUP BY arm, item_id ORDER BY ALL")
    views = {arm: np.array(n) for arm, n in _by_arm(sums, rows).items()}
    fewest = min((int(n.sum()) for n in views.values()), default=0)
    return {arm: expected_titles(n, fewest) for arm, n in views.items()}


def expected_titles(views: np.ndarray, n: int) -> float:
    """How many titles are expected in ``n`` views, drawn from all without putting back.

    Args:
        views: ``[n_titles]`` of each title, above 0.
        n: At most their sum.

    Example:
        >>> round(expected_titles(np.array([1, 1, 2]), 2), 4), expected_titles(np.array([1, 3]), 4)
        (1.8333, 2.0)
    """
    others = views.sum() - views
    may_miss = others >= n
    kept = others[may_miss].astype(np.float64)
    # Of all draws, those without the title: C(others, n) / C(all, n).
    missed = _log_draws(kept, n) - _log_draws(np.float64(views.sum()), n)
    return float(len(views) - np.exp(missed).sum())


def _log_draws(total: Any, n: int) -> Any:
    return special.gammaln(total + 1) - special.gammaln(total - n + 1)


def latencies(sums: Sums) -> dict[str, float]:
    """Of each arm, the 95th percentile of ``latency_ms`` over its views, in whole milliseconds."""
    rows = sums.rows("SELECT arm, ms, sum(n) FROM latencies GROUP BY arm, ms ORDER BY ALL")
    values = _by_arm(sums, [(arm, ms) for arm, ms, _ in rows])
    counts = _by_arm(sums, [(arm, n) for arm, _, n in rows])
    return {arm: _percentile(values[arm], counts[arm]) for arm in values}


def _percentile(values: Sequence[int], counts: Sequence[int]) -> float:
    """The smallest value that so many are not above; values rise."""
    so_far = np.cumsum(counts)
    return float(values[int(np.searchsorted(so_far, PERCENTILE * so_far[-1]))])


def _by_arm(sums: Sums, rows: Iterable[tuple[int, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for arm, value in rows:
        found.setdefault(sums.arms.names[arm], []).append(int(value))
    return found


def _fallback(definition: Experiment, published: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Of each arm, the mean over days of the share of users with the fall-back list."""
    days: dict[str, list[float]] = {}
    for facts in published:
        for one in facts.get("experiments", ()):
            if one["experiment"] == definition.name:
                for arm, looks in one["arms"].items():
                    days.setdefault(arm, []).append(looks["fallback_share"])
    return {arm: float(np.mean(shares)) for arm, shares in days.items()}
