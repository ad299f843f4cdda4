"""What to do, in words, from what an experiment has shown."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from coterie.experiment.analysis import Analysis, Judged, words
from coterie.experiment.statistics import Effect

Verdict = Literal["void", "early", "better", "worse", "level", "go-on"]

WARNINGS = frozenset(
    {
        "crossings",
        "dropped rows",
        "one user",
        "users above the cap",
        "viewers by day",
        "views a day",
    }
)
"""Checks whose failure is told and voids nothing: figures are then coarser, or the treatment itself
may have done it, as one that brings people back does to views.
"""

_SURE = 0.9995
"""Beyond it a probability is not told closer."""


@dataclass(frozen=True)
class Decision:
    """Of one treatment.

    Args:
        arm: The treatment.
        verdict: In one word.
        headline: What to do, in a sentence.
        because: What it rests on, a sentence each.
    """

    arm: str
    verdict: Verdict
    headline: str
    because: tuple[str, ...]

    @property
    def is_final(self) -> bool:
        """Whether the experiment may be stopped for it."""
        return self.verdict in ("better", "worse", "level")


def decide(analysis: Analysis) -> list[Decision]:
    """What to do about each treatment."""
    return [_decision(analysis, one) for one in analysis.primary]


def _decision(analysis: Analysis, one: Judged) -> Decision:
    verdict = _verdict(analysis, one)
    control = analysis.definition.control
    headline = {
        "void": "Do not decide by these figures: the experiment itself is in doubt.",
        "early": "Go on. It is too early to look.",
        "better": f"Take {one.arm}: it is better than {control}.",
        "worse": f"Keep {control}: {one.arm} is worse.",
        "level": f"Keep {control}, or choose by cost: no difference was found.",
        "go-on": "Go on. Nothing is decided yet.",
    }[verdict]
    return Decision(one.arm, verdict, headline, tuple(_reasons(analysis, one, verdict)))


def _verdict(analysis: Analysis, one: Judged) -> Verdict:
    if any(check.name not in WARNINGS for check in analysis.checks if not check.ok):
        return "void"
    if one.seen is None:
        return "early"
    if one.seen.crossed:
        return "better" if one.seen.effect.difference > 0 else "worse"
    return "level" if one.seen.final or analysis.over else "go-on"


def _reasons(analysis: Analysis, one: Judged, verdict: Verdict) -> list[str]:
    broken = [check.words for check in analysis.checks if not (check.ok or check.name in WARNINGS)]
    costs = [rail.words for rail in analysis.guardrails if rail.arm == one.arm and not rail.ok]
    what = words(one.metric)
    told = [
        *broken,
        f"{what[0].upper()}{what[1:]}: {change(one.valid)} with {one.arm}.",
        _chance(one),
        *costs,
        _when(analysis, one, verdict),
    ]
    return [sentence for sentence in told if sentence]


def change(effect: Effect) -> str:
    """A lift with its interval.

    Example:
        >>> from coterie.experiment.statistics import Moments, compare
        >>> import numpy as np
        >>> low, high = (Moments.of(np.array([[a, 10.0], [b, 10.0]])) for a, b in [(1, 3), (3, 5)])
        >>> change(compare(high, low, confidence=0.5))
        '+100.0 % (between +22.5 % and +226.6 %)'
    """
    if math.isnan(effect.lift):
        return f"{effect.difference:+.4g} (between {effect.low:+.4g} and {effect.high:+.4g})"
    ends = f"{percent(effect.lift_low)} and {percent(effect.lift_high)}"
    return f"{percent(effect.lift)} (between {ends})"


def percent(lift: float) -> str:
    """A relative lift for people."""
    if not math.isfinite(lift):
        return "anything"
    told = f"{100 * lift:+.1f} %" if abs(lift) < 10 else f"{100 * lift:+,.0f} %"
    return told.replace("-", "−")


def probability(value: float) -> str:
    """A probability for people, never 0 or 100 %."""
    if math.isnan(value):
        return "not known"
    if value > _SURE:
        return "above 99.9 %"
    return "below 0.1 %" if value < 1 - _SURE else f"{100 * value:.1f} %"


def _chance(one: Judged) -> str:
    spread = 100 * one.belief.prior_sd
    return (
        f"The probability that {one.arm} is better is {probability(one.belief.better)}, if two"
        f" of three such changes move it by {spread:g} % or less."
    )


def _when(analysis: Analysis, one: Judged, verdict: Verdict) -> str:
    definition, day = analysis.definition, analysis.n_days
    if verdict not in ("early", "go-on"):
        return f"It was decided by the look on {one.seen_on}." if one.seen_on else ""
    if definition.looks.kind == "daily":
        return f"This is day {day} of {definition.days}; it may be looked at every day."
    to_come = _next(definition.looks.days or (definition.days,), day)
    return f"This is day {day} of {definition.days}; the next look is on day {to_come}."


def _next(days: Sequence[int], day: int) -> int:
    return next((one for one in days if one > day), days[-1])
