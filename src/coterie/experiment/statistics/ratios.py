"""Two arms held against each other in a ratio of sums, clustered by user.

Views and clicks of one user are not independent; users are. So the ratio is linearised (delta
method), and its variance is that of a mean over users.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from coterie.errors import ConfigError, DataError
from coterie.experiment.statistics.moments import Moments

LARGEST_EXPONENT = 700.0
"""Of what is still a float; an interval beyond says nothing anyway."""


@dataclass(frozen=True)
class Level:
    """A metric in an arm.

    Args:
        n: Number of users.
        value: The ratio, adjusted if CUPED was asked for.
        variance: Of the linearised ratio, per user: the squared standard error is this by ``n``.
    """

    n: int
    value: float
    variance: float

    @property
    def relative(self) -> "Level":
        """Of the logarithm of the value; NaN where the value is not above 0."""
        if self.value <= 0:
            return Level(self.n, math.nan, math.nan)
        return Level(self.n, math.log(self.value), self.variance / self.value**2)


@dataclass(frozen=True)
class Adjustment:
    """What CUPED subtracts: ``coefficient`` times how far an arm was from ``level`` before.

    Args:
        coefficient: Cov(linearised, linearised before) / Var(linearised before), of both arms.
        level: The ratio before, of both arms.
    """

    coefficient: float
    level: float


@dataclass(frozen=True)
class Effect:
    """What the treatment changes in a ratio metric.

    Args:
        control: The ratio among users of the control, adjusted if CUPED was asked for.
        treatment: The same of the treatment.
        difference: ``treatment - control``.
        low: Lower end of its interval.
        high: Its upper end.
        lift: ``treatment / control - 1``; NaN if the control is 0.
        lift_low: Lower end of its interval; NaN unless both ratios are above 0.
        lift_high: Its upper end.
        standard_error: Of the difference.
        statistic: ``difference / standard_error``.
        degrees: Of freedom, by Welch and Satterthwaite.
        p_value: Two-sided, of no difference; of one look at the end.
        n_control: Users of the control.
        n_treatment: Users of the treatment.
        variance_reduction: By how much CUPED made the squared standard error smaller, as a share.
        confidence: Of both intervals, for one look at the end.
        log_error: Standard error of ln(1 + lift), by the delta method.
        log_degrees: Its degrees of freedom.
    """

    control: float
    treatment: float
    difference: float
    low: float
    high: float
    lift: float
    lift_low: float
    lift_high: float
    standard_error: float
    statistic: float
    degrees: float
    p_value: float
    n_control: int
    n_treatment: int
    variance_reduction: float
    confidence: float
    log_error: float
    log_degrees: float

    @property
    def normal_statistic(self) -> float:
        """The statistic as a standard normal one with the same p-value."""
        return math.copysign(-special.ndtri(self.p_value / 2), self.statistic)

    def at_level(self, alpha: float) -> "Effect":
        """The same effect with intervals that miss with probability ``alpha``, and not more."""
        half = _half_width(self.standard_error, self.degrees, alpha)
        log_half = _half_width(self.log_error, self.log_degrees, alpha)
        return replace(
            self,
            low=self.difference - half,
            high=self.difference + half,
            lift_low=(1 + self.lift) * _exp(-log_half) - 1,
            lift_high=(1 + self.lift) * _exp(log_half) - 1,
            confidence=1 - alpha,
        )


def compare(
    treatment: Moments, control: Moments, *, confidence: float = 0.95, cuped: bool = False
) -> Effect:
    """Effect of a treatment on the ratio ΣY / ΣX, by Welch's t on linearised users.

    The interval of the lift is that of ln(treatment / control), so it never goes below -100 %.

    Args:
        treatment: Of (Y, X) or (Y, X, Y before, X before) over the users of the treatment.
        control: The same over the users of the control.
        confidence: Of the intervals, for one look at the end.
        cuped: Whether to subtract what the days before already say. Where they say nothing, nothing
            is subtracted.

    Raises:
        DataError: if an arm has fewer than two users, or its X sums to nothing.
        ConfigError: if ``confidence`` is not between 0 and 1, or CUPED has no columns of before.

    References:
        Deng, Knoblich and Lu (2018), Applying the Delta Method in Metric Analytics, eq. 4.
        Deng, Xu, Kohavi and Walker (2013), Improving the Sensitivity of Online Controlled
        Experiments by Utilizing Pre-Experiment Data (CUPED).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> views = rng.poisson(20, size=(2, 4000)) + 1
        >>> clicks = rng.binomial(views, [[0.10], [0.12]])
        >>> control, treatment = (Moments.of(np.stack(one, 1)) for one in zip(clicks, views))
        >>> effect = compare(treatment, control)
        >>> f"{effect.lift:+.1%} ({effect.lift_low:+.1%} to {effect.lift_high:+.1%})"
        '+20.6% (+17.4% to +24.0%)'
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must be between 0 and 1; it is {confidence}.")
    plain = level(treatment), level(control)
    if not cuped:
        return _effect(*plain, confidence, reduction=0.0)
    pooled = adjustment(treatment + control)
    adjusted = level(treatment, pooled), level(control, pooled)
    before, after = _welch(*plain)[0], _welch(*adjusted)[0]
    return _effect(*adjusted, confidence, reduction=1 - (after / before) ** 2 if before else 0.0)


def level(moments: Moments, adjust: Adjustment | None = None) -> Level:
    """A metric's level in an arm, adjusted if there is something to adjust by.

    Args:
        moments: Of (Y, X), and of (Y before, X before) if there is an adjustment.
        adjust: From `adjustment` of both arms together.

    Raises:
        DataError: if there are fewer than two users, or X sums to nothing.
    """
    if moments.n < 2 or moments.mean[1] <= 0:
        raise DataError(
            "an arm must have two users at least, and a mean denominator above 0; this one has"
            f" {moments.n} users, with mean {moments.mean[1]:g}. Wait for more events, or leave the"
            " segment out."
        )
    value, gradient = _linearised(moments, 0)
    if adjust is not None and adjust.coefficient and moments.mean[3] > 0:
        before, before_gradient = _linearised(moments, 2)
        value -= adjust.coefficient * (before - adjust.level)
        gradient = gradient - adjust.coefficient * before_gradient
    return Level(moments.n, value, float(gradient @ moments.covariance @ gradient))


def adjustment(pooled: Moments) -> Adjustment:
    """CUPED's adjustment, from the moments of all arms together.

    Args:
        pooled: Of (Y, X, Y before, X before).

    Raises:
        ConfigError: if the columns of before are not there.
    """
    if pooled.k != 4:
        raise ConfigError(
            "CUPED needs four columns: numerator, denominator, and both in the days before; there"
            f" are {pooled.k}. Read days before the start, or set cuped to false."
        )
    if pooled.mean[3] <= 0:
        return Adjustment(0.0, math.nan)
    _, gradient = _linearised(pooled, 0)
    before, before_gradient = _linearised(pooled, 2)
    variance = float(before_gradient @ pooled.covariance @ before_gradient)
    covariance = float(gradient @ pooled.covariance @ before_gradient)
    return Adjustment(covariance / variance if variance > 0 else 0.0, before)


def sample_ratio(counts: Sequence[int], weights: Sequence[float]) -> float:
    """P-value of the arms' numbers of users being drawn by their weights (Pearson's χ²).

    A small one, below .001, says that assignment or logging is broken: no effect can be believed.
    With fewer than about five expected users in an arm it is only a rough one.

    Args:
        counts: Users of each arm.
        weights: Of each arm, above 0, in any unit.

    Raises:
        ConfigError: if there are fewer than two arms, another number of weights, or no users.

    References:
        Fabijan et al. (2019), Diagnosing Sample Ratio Mismatch in Online Controlled Experiments.

    Example:
        >>> f"{sample_ratio([101_000, 99_000], [0.5, 0.5]):.1e}"
        '7.7e-06'
    """
    found, expected = np.asarray(counts, float), np.asarray(weights, float)
    if found.shape != expected.shape or len(found) < 2 or not (expected > 0).all():
        raise ConfigError(
            "a sample ratio needs two arms at least, and a weight above 0 for each; there are"
            f" {found.tolist()} users and the weights {expected.tolist()}."
        )
    if not found.sum():
        raise ConfigError("a sample ratio needs users; no arm has any.")
    expected = expected * (found.sum() / expected.sum())
    return float(special.chdtrc(len(found) - 1, ((found - expected) ** 2 / expected).sum()))


def _linearised(moments: Moments, at: int) -> tuple[float, np.ndarray]:
    """The ratio of columns ``at`` and ``at + 1``, and its ``[k]`` gradient in their means."""
    numerator, denominator = moments.mean[at : at + 2]
    ratio = numerator / denominator
    gradient = np.zeros(moments.k)
    gradient[at : at + 2] = 1 / denominator, -ratio / denominator
    return float(ratio), gradient


def _effect(treatment: Level, control: Level, confidence: float, reduction: float) -> Effect:
    difference = treatment.value - control.value
    error, degrees = _welch(treatment, control)
    log_error, log_degrees = _welch(treatment.relative, control.relative)
    statistic = difference / error if error else math.copysign(math.inf, difference)
    return Effect(
        control=control.value,
        treatment=treatment.value,
        difference=difference,
        low=math.nan,
        high=math.nan,
        lift=treatment.value / control.value - 1 if control.value else math.nan,
        lift_low=math.nan,
        lift_high=math.nan,
        standard_error=error,
        statistic=statistic if difference else 0.0,
        degrees=degrees,
        p_value=2 * float(special.stdtr(degrees, -abs(statistic))) if difference else 1.0,
        n_control=control.n,
        n_treatment=treatment.n,
        variance_reduction=reduction,
        confidence=confidence,
        log_error=log_error,
        log_degrees=log_degrees,
    ).at_level(1 - confidence)


def _welch(one: Level, other: Level) -> tuple[float, float]:
    """Standard error of a difference, and Satterthwaite's degrees of freedom."""
    parts = one.variance / one.n, other.variance / other.n
    total = sum(parts)
    if not total > 0:
        return total, float(one.n + other.n - 2)
    shares = parts[0] / total, parts[1] / total
    return math.sqrt(total), 1 / (shares[0] ** 2 / (one.n - 1) + shares[1] ** 2 / (other.n - 1))


def _half_width(error: float, degrees: float, alpha: float) -> float:
    if not alpha:
        return math.inf
    return float(-special.stdtrit(degrees, alpha / 2)) * error if error else 0.0


def _exp(exponent: float) -> float:
    return math.exp(min(exponent, LARGEST_EXPONENT))
