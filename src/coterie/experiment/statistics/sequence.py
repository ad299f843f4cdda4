"""Looking whenever one likes: a confidence sequence, valid at all days at once.

It costs power: its bound at the planned end is 3.0 where one look has 1.96 and four planned looks
have 2.0. It needs no plan of when to look, and no end.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from coterie.errors import ConfigError
from coterie.experiment.statistics.looks import LookOutcome, outcome
from coterie.experiment.statistics.ratios import Effect


def sequence_bounds(fractions: Sequence[float] | np.ndarray, alpha: float = 0.05) -> np.ndarray:
    """``[looks]`` float64 bounds of the standard normal statistic, all valid at once.

    The Gaussian mixture boundary √((1 + 1/τ) ln((1 + τ)/α²)), with τ in proportion to the
    information and such that the bound is lowest at the planned one. Any number of looks, at any
    times, is wrong with probability ``alpha`` at most where users are many.

    Args:
        fractions: ``[looks]`` shares of the planned information, above 0; beyond 1 it goes on.
        alpha: Two-sided, of all looks together.

    Raises:
        ConfigError: if a fraction is not above 0, or ``alpha`` is not between 0 and 1.

    References:
        Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), Time-uniform Central Limit Theory
        and Asymptotic Confidence Sequences, Theorem 2.2 and the choice of ρ after it.

    Example:
        >>> sequence_bounds([0.1, 0.5, 1.0, 2.0]).round(2).tolist()
        [3.82, 3.08, 3.04, 3.06]
    """
    tau = _tau(fractions, alpha)
    critical: np.ndarray = np.sqrt((1 + 1 / tau) * (np.log1p(tau) - 2 * math.log(alpha)))
    return critical


def always_valid_p(statistic: float, fraction: float, alpha: float = 0.05) -> float:
    """P-value that may be looked at every day: the least ``alpha`` whose bound is reached.

    The boundary is tuned for ``alpha``, and falls to ``alpha`` where `sequence_bounds` is crossed.

    Args:
        statistic: Standard normal where there is no difference.
        fraction: Of the planned information that is there.
        alpha: For which the boundary was tuned.

    Example:
        >>> round(always_valid_p(3.5, fraction=1.0), 4)
        0.0129
    """
    tau = float(_tau([fraction], alpha)[0])
    log_evidence = statistic**2 * tau / (1 + tau) / 2 - math.log1p(tau) / 2
    return math.exp(min(-log_evidence, 0.0))


def watch(effect: Effect, fraction: float, alpha: float = 0.05) -> LookOutcome:
    """Judges one of any number of looks.

    Args:
        effect: At this look.
        fraction: Of the planned information that is there.
        alpha: Two-sided, of all looks together.

    Returns:
        It is never ``final``: whoever likes goes on.

    Example:
        >>> from coterie.experiment.statistics import Moments, compare
        >>> rng = np.random.default_rng(0)
        >>> control, treatment = rng.normal([[1.0, 1.3]] * 800, 1.0).T
        >>> columns = (np.stack([one, np.ones(800)], 1) for one in (treatment, control))
        >>> seen = watch(compare(*map(Moments.of, columns)), fraction=0.4)
        >>> f"{seen.statistic:.2f} of {seen.bound:.2f}: {seen.stop}"
        '6.45 of 3.12: True'
    """
    bound = float(sequence_bounds([fraction], alpha)[0])
    return outcome(effect, fraction, bound, final=False)


def _tau(fractions: Sequence[float] | np.ndarray, alpha: float) -> np.ndarray:
    """``[looks]`` information times ρ²; at the planned one 1 + τ = -W₋₁(-α²/e)."""
    t = np.asarray(fractions, float)
    if not ((t > 0).all() and 0 < alpha < 1):
        raise ConfigError(
            "information fractions must be above 0, and alpha between 0 and 1; they are"
            f" {t.tolist()} and {alpha}."
        )
    at_planned = -float(special.lambertw(-(alpha**2) / math.e, -1).real) - 1
    return t * at_planned
