"""Looking a few planned times: group-sequential bounds by a spending function of information.

Whoever looks four times at a 5 % test is wrong in more than 5 % of all cases. A spending function
says how much of the 5 % may have been used by when. Bounds are held against the joint law of the
looks' statistics, which is known: that of a Brownian motion at the looks' information.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from scipy import optimize, special

from coterie.errors import ConfigError
from coterie.experiment.statistics.ratios import Effect

Spending = Literal["obrien-fleming", "pocock"]
"""How alpha is spent: hardly any early, or about evenly."""

LEAST_RISE = 0.002
"""Information that a look adds at least, as a share of what there is then. Less (variances are
estimated, and may rise) is taken as this, which changes alpha by less than a hundredth of it.
"""

FARTHEST = 9.0
"""Standard errors beyond which the law of a statistic is taken as nothing (1e-19)."""

HIGHEST_BOUND = 37.0
"""Beyond it the normal tail is no float; a bound there is infinite."""

NODES = 5.0
"""Nodes of a Gauss–Legendre rule by half the width of what is integrated, in standard deviations of
the next step: the error of a normal density between them is below 1e-12.
"""

NODES_AT_ONCE = 32
"""Their number is a multiple of it, so that few rules are made."""


@dataclass(frozen=True)
class LookOutcome:
    """What one look says.

    Args:
        fraction: Of the planned information that was there.
        statistic: Standard normal where there is no difference.
        bound: What its size must exceed at this look.
        crossed: Whether it does: the arms differ.
        final: Whether nothing of alpha is left: the experiment is over either way.
        effect: With the interval that is valid at this look, whenever the experiment ends (a
            repeated confidence interval).
    """

    fraction: float
    statistic: float
    bound: float
    crossed: bool
    final: bool
    effect: Effect

    @property
    def stop(self) -> bool:
        """Whether to stop now."""
        return self.crossed or self.final


def look(
    effect: Effect,
    fractions: Sequence[float],
    alpha: float = 0.05,
    spending: Spending = "obrien-fleming",
    *,
    last: bool = False,
) -> LookOutcome:
    """Judges the latest of some looks.

    Args:
        effect: At this look.
        fractions: Of the planned information at this look and at all before it, as
            `information_fractions` gives them. A look may come at another time than planned.
        alpha: Two-sided, of all looks together.
        spending: The spending function.
        last: Whether there will be no other look, whatever the information: all is spent.

    References:
        Jennison and Turnbull (1989), Interim Analyses: the Repeated Confidence Interval Approach.

    Example:
        >>> from coterie.experiment.statistics import Moments, compare
        >>> rng = np.random.default_rng(0)
        >>> control, treatment = rng.normal([[1.0, 1.1]] * 800, 1.0).T
        >>> columns = (np.stack([one, np.ones(800)], 1) for one in (treatment, control))
        >>> outcome = look(compare(*map(Moments.of, columns)), [0.4])
        >>> f"{outcome.statistic:.2f} of {outcome.bound:.2f}: {outcome.stop}"
        '2.44 of 3.36: False'
    """
    bound = float(bounds(fractions, alpha, spending, last=last)[-1])
    final = last or bool(fractions[-1] >= 1)
    return outcome(effect, fractions[-1], bound, final=final)


def outcome(effect: Effect, fraction: float, bound: float, *, final: bool) -> LookOutcome:
    """An effect held against a bound of standard normal statistics; both go by their p-values."""
    nominal = 2 * float(special.ndtr(-bound))
    return LookOutcome(
        fraction=fraction,
        statistic=effect.normal_statistic,
        bound=bound,
        crossed=0 < nominal >= effect.p_value,
        final=final,
        effect=effect.at_level(nominal),
    )


def information_fractions(log_errors: Sequence[float], planned_error: float) -> np.ndarray:
    """``[looks]`` float64 information at each look, as a share of the planned one.

    Information is one over the squared standard error of ln(1 + lift). It is not the calendar's:
    most users of a month come in its first week. It never falls here.

    Args:
        log_errors: ``Effect.log_error`` at each look, in order.
        planned_error: The same at the planned end, from `Plan.error`.

    Raises:
        ConfigError: if an error is not above 0.

    Example:
        >>> information_fractions([0.1, 0.07, 0.05], planned_error=0.05).round(2).tolist()
        [0.25, 0.51, 1.0]
    """
    errors = np.asarray(log_errors, float)
    if not (len(errors) and (errors > 0).all() and planned_error > 0):
        raise ConfigError(
            "standard errors must be above 0, and one look there at least; found"
            f" {errors.tolist()}, planned {planned_error}. Look when both arms have outcomes."
        )
    fractions: np.ndarray = np.maximum.accumulate((planned_error / errors) ** 2)
    return fractions


def spent(
    fractions: Sequence[float] | np.ndarray,
    alpha: float = 0.05,
    spending: Spending = "obrien-fleming",
) -> np.ndarray:
    """``[looks]`` float64 alpha that may have been used by then, two-sided.

    O'Brien–Fleming type: 4 - 4 Φ(z(α/4) / √t). Pocock type: α ln(1 + (e - 1) t). From t = 1 on all.

    Args:
        fractions: ``[looks]`` t, shares of the planned information, above 0.
        alpha: Two-sided, of all looks together.
        spending: The spending function.

    References:
        Lan and DeMets (1983), Discrete Sequential Boundaries for Clinical Trials, α₁* and α₂*,
        for each side.

    Example:
        >>> spent([0.25, 0.5, 1.0]).round(5).tolist()
        [1e-05, 0.00305, 0.05]
    """
    t = np.minimum(np.asarray(fractions, float), 1.0)
    if spending == "pocock":
        return np.asarray(alpha * np.log1p((math.e - 1) * t))
    return np.asarray(4 * special.ndtr(special.ndtri(alpha / 4) / np.sqrt(t)))


def bounds(
    fractions: Sequence[float] | np.ndarray,
    alpha: float = 0.05,
    spending: Spending = "obrien-fleming",
    *,
    last: bool = False,
) -> np.ndarray:
    """``[looks]`` float64 critical values of the standard normal statistics, two-sided.

    Each look spends what is due at its information and was not spent before. Bounds of past looks
    do not depend on later ones. A look after the planned information was reached has nothing left:
    its bound is infinite.

    Args:
        fractions: ``[looks]`` shares of the planned information, above 0, not falling.
        alpha: Two-sided, of all looks together.
        spending: The spending function.
        last: Whether the last of these looks ends the experiment and spends all that is left.

    Raises:
        ConfigError: if fractions fall or are not above 0, or ``alpha`` is not between 0 and 1.

    References:
        Armitage, McPherson and Rowe (1969), Repeated Significance Tests on Accumulating Data, for
        the recursion. Lan and DeMets (1983) for the spending.

    Example:
        >>> bounds([0.2, 0.4, 0.6, 0.8, 1.0]).round(3).tolist()
        [4.877, 3.357, 2.68, 2.29, 2.031]
    """
    t = _checked(fractions)
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha must be between 0 and 1; it is {alpha}.")
    by_then = spent(t, alpha, spending)
    if last:
        by_then[-1] = alpha
    path, found = _Path.start(), []
    for (time, after), due in zip(_apart(t), np.diff(by_then, prepend=0.0), strict=True):
        found.append(path.bound(time, due))
        path = path.on(time, found[-1], 0.0, after)
    return np.array(found)


def crossing(
    fractions: Sequence[float] | np.ndarray, critical: Sequence[float] | np.ndarray, drift: float
) -> np.ndarray:
    """``[looks]`` float64 chances that each look is the first to cross its bound, at either side.

    Args:
        fractions: ``[looks]`` shares of the planned information, above 0, not falling.
        critical: ``[looks]`` bounds, of whatever kind.
        drift: Mean of the statistic at the planned information: effect by standard error; 0 where
            the arms do not differ.

    Example:
        >>> fractions = [0.2, 0.4, 0.6, 0.8, 1.0]
        >>> crossing(fractions, bounds(fractions), drift=0.0).sum().round(4).item()
        0.05
        >>> crossing(fractions, bounds(fractions), drift=2.8).sum().round(2).item()
        0.79
    """
    path, found = _Path.start(), []
    for (time, after), bound in zip(_apart(_checked(fractions)), critical, strict=True):
        found.append(path.beyond(time, float(bound), drift))
        path = path.on(time, float(bound), drift, after)
    return np.array(found)


def _checked(fractions: Sequence[float] | np.ndarray) -> np.ndarray:
    t = np.asarray(fractions, float)
    if t.ndim != 1 or not len(t) or t[0] <= 0 or not (np.diff(t) >= 0).all():
        raise ConfigError(
            "information fractions must be above 0 and must not fall; these are"
            f" {t.tolist()}. Take them from information_fractions."
        )
    return t


def _apart(fractions: np.ndarray) -> list[tuple[float, float]]:
    """The fractions, each `LEAST_RISE` above the last one at least, with the next one."""
    times: list[float] = []
    for fraction in fractions.tolist():
        times.append(max(fraction, times[-1] / (1 - LEAST_RISE)) if times else fraction)
    return list(zip(times, [*times[1:], math.inf], strict=True))


@dataclass(frozen=True, eq=False)
class _Path:
    """Where the statistic is, of all that have crossed no bound so far.

    Args:
        time: Information so far.
        at: ``[nodes]`` values of the statistic.
        mass: ``[nodes]`` probability at each; sums to that of not having crossed.
    """

    time: float
    at: np.ndarray
    mass: np.ndarray

    @classmethod
    def start(cls) -> "_Path":
        """Before any information."""
        return cls(0.0, np.zeros(1), np.ones(1))

    def beyond(self, time: float, bound: float, drift: float) -> float:
        """Chance to be beyond a bound at a later time, and not before."""
        mean, spread = self._next(time, drift)
        tails = special.ndtr((-bound - mean) / spread) + special.ndtr((mean - bound) / spread)
        return float(self.mass @ tails)

    def bound(self, time: float, due: float) -> float:
        """The bound that is crossed with a chance of ``due`` where there is no drift."""
        if self.beyond(time, HIGHEST_BOUND, 0.0) >= due:
            return math.inf
        return float(
            optimize.brentq(
                lambda bound: self.beyond(time, bound, 0.0) - due, 0.0, HIGHEST_BOUND, xtol=1e-9
            )
        )

    def on(self, time: float, bound: float, drift: float, after: float) -> "_Path":
        """At a later time, of those within a bound then; fine enough for the time after it."""
        centre = drift * math.sqrt(time)
        low, high = max(-bound, centre - FARTHEST), min(bound, centre + FARTHEST)
        half = max(high - low, 0.0) / 2
        points, weights = _rule(NODES * half / math.sqrt(1 - time / after))
        at = low + half * (1 + points)
        mean, spread = self._next(time, drift)
        steps = (at[:, None] - mean) / spread
        density = np.exp(-0.5 * steps**2) @ self.mass / (spread * math.sqrt(2 * math.pi))
        return _Path(time, at, half * weights * density)

    def _next(self, time: float, drift: float) -> tuple[np.ndarray, float]:
        """``[nodes]`` means of the statistic at a later time, and its standard deviation."""
        more = time - self.time
        mean = (math.sqrt(self.time) * self.at + drift * more) / math.sqrt(time)
        return mean, math.sqrt(more / time)


def _rule(fineness: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [-1, 1], as many at least."""
    return _rule_of((1 + math.ceil(fineness / NODES_AT_ONCE)) * NODES_AT_ONCE)


@cache
def _rule_of(n_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    points, weights = special.roots_legendre(n_nodes)
    return points, weights
