"""How probable it is that a treatment is better, with the prior stated."""

import math
from dataclasses import dataclass

from scipy import special

from coterie.errors import ConfigError
from coterie.experiment.statistics.ratios import LARGEST_EXPONENT, Effect


@dataclass(frozen=True)
class Belief:
    """What is believed of a lift, after an experiment.

    Args:
        lift: Median of the lift.
        low: Lower end of the interval that holds it with ``confidence``.
        high: Its upper end.
        better: Probability of a lift above 0.
        beyond_margin: Probability of a lift above ``margin``.
        margin: A lift that would be worth it.
        prior_sd: Standard deviation of ln(1 + lift) before the experiment; infinite for a flat one.
        confidence: Of the interval.
    """

    lift: float
    low: float
    high: float
    better: float
    beyond_margin: float
    margin: float
    prior_sd: float
    confidence: float


def probability_better(
    effect: Effect, prior_sd: float, *, margin: float = 0.0, confidence: float = 0.95
) -> Belief:
    """Belief in a lift, from a normal prior with mean 0 and the estimate with its standard error.

    The prior is one of ln(1 + lift): halving is as likely as doubling, and for small lifts it is
    one of the lift itself. It draws estimates of small experiments toward 0. With a flat prior
    (``math.inf``) the probability is only one minus the one-sided p-value.

    Args:
        effect: Of one look, or of the look at which the experiment ended.
        prior_sd: Of lifts of such experiments, as seen in the past; 0.1 says that two of three lie
            between -10 and +10 %.
        margin: A lift that would be worth it, above -1.
        confidence: Of the interval.

    Returns:
        NaN where the lift has no standard error: a ratio is not above 0, or nobody differs.

    Raises:
        ConfigError: if ``prior_sd``, ``margin`` or ``confidence`` is out of its range.

    References:
        Deng (2015), Objective Bayesian Two Sample Hypothesis Testing for Online Controlled
        Experiments, section 2, for the normal model and where its prior may come from.

    Example:
        >>> import numpy as np
        >>> from coterie.experiment.statistics import Moments, compare
        >>> rng = np.random.default_rng(0)
        >>> control, treatment = rng.normal([[1.0, 1.1]] * 800, 1.0).T
        >>> columns = (np.stack([one, np.ones(800)], 1) for one in (treatment, control))
        >>> effect = compare(*map(Moments.of, columns))
        >>> belief = probability_better(effect, prior_sd=0.1)
        >>> f"{effect.lift:+.1%}, believed {belief.lift:+.1%}, better {belief.better:.1%}"
        '+12.3%, believed +9.9%, better 98.6%'
    """
    if not (prior_sd > 0 and margin > -1 and 0 < confidence < 1):
        raise ConfigError(
            "prior_sd must be above 0, margin above -1 and confidence between 0 and 1; they are"
            f" {prior_sd}, {margin} and {confidence}."
        )
    mean, sd = _posterior(effect, prior_sd)
    half = float(special.ndtri((1 + confidence) / 2)) * sd
    return Belief(
        lift=math.expm1(mean),
        low=math.expm1(mean - half),
        high=math.expm1(min(mean + half, LARGEST_EXPONENT)),
        better=_above(0.0, mean, sd),
        beyond_margin=_above(math.log1p(margin), mean, sd),
        margin=margin,
        prior_sd=prior_sd,
        confidence=confidence,
    )


def _posterior(effect: Effect, prior_sd: float) -> tuple[float, float]:
    """Mean and standard deviation of ln(1 + lift)."""
    if not effect.log_error > 0:
        return math.nan, math.nan
    precision = effect.log_error**-2
    variance = 1 / (precision + prior_sd**-2)
    return variance * precision * math.log1p(effect.lift), math.sqrt(variance)


def _above(threshold: float, mean: float, sd: float) -> float:
    return float(special.ndtr((mean - threshold) / sd))
