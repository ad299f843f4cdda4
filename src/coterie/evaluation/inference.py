"""What may be concluded from several runs and from many comparisons: how far another split and
seed would move a gain, and p-values that many questions do not make small.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Spread:
    """How far a mean gain over runs is from what other runs would give.

    Args:
        by_run: Mean gain of each run; NaN where none of its users defines the metric.
        standard_error: Of the mean gain, users and runs together.
        degrees: Of freedom, of Student's distribution.
    """

    by_run: tuple[float, ...]
    standard_error: float
    degrees: float

    def half_width(self, confidence: float) -> float:
        """Half of the interval that holds the gain with this probability."""
        return float(stats.t.ppf((1 + confidence) / 2, self.degrees)) * self.standard_error

    def p_value(self, gain: float) -> float:
        """Two-sided, of no gain at all."""
        if not self.standard_error:
            return float(gain == 0)
        return float(2 * stats.t.sf(abs(gain) / self.standard_error, self.degrees))


def spread_between(gains: np.ndarray, test_to_train: float | None = None) -> Spread | None:
    """How far the mean gain of a few runs is from what other runs and users would give.

    Where every run draws its own split, this is Nadeau and Bengio's corrected resampled t: with S²
    the variance of K runs' means, the squared standard error is S² (1/K + n_test / n_train), with K
    - 1 degrees of freedom. S² / K alone, as if runs had nothing in common, is too small.

    Where all runs are measured on the same users (only seeds differ), S² knows nothing of users.
    Then what the runs' means have in common through their users, their mean covariance, is added to
    S² / K, and Satterthwaite's formula gives the degrees of freedom.

    Args:
        gains: ``[n_runs, n_users]`` candidate less reference, NaN where a run has not the user.
        test_to_train: Test users over training users of a split; None takes it from the share of
            test users that two runs have in common, s / (1 - s).

    Returns:
        None where fewer than two runs have users: nothing is then known of other runs.

    References:
        Nadeau and Bengio (2003), Inference for the Generalization Error, Machine Learning 52.
        Satterthwaite (1946), An Approximate Distribution of Estimates of Variance Components.

    Example:
        >>> gains = np.array([[0.2, 0.4, np.nan, np.nan], [np.nan, np.nan, 0.1, 0.3]])
        >>> spread = spread_between(gains, test_to_train=0.1)
        >>> [round(gain, 3) for gain in spread.by_run], round(spread.standard_error, 4)
        ([0.3, 0.2], 0.0548)
    """
    with_users = ~np.isnan(gains).all(axis=1)
    if with_users.sum() < 2:
        return None
    by_run = np.full(len(gains), math.nan)
    by_run[with_users] = np.nanmean(gains[with_users], axis=1)
    return Spread(
        tuple(map(float, by_run)), *_error(gains[with_users], by_run[with_users], test_to_train)
    )


def _error(
    gains: np.ndarray, means: np.ndarray, test_to_train: float | None
) -> tuple[float, float]:
    """Standard error and degrees of freedom."""
    there, between = ~np.isnan(gains), float(means.var(ddof=1))
    if (there == there[0]).all():
        return _error_of_the_same_users(gains[:, there[0]], between)
    correction = _in_common(there) if test_to_train is None else test_to_train
    return math.sqrt(between * (1 / len(gains) + correction)), len(gains) - 1.0


def _error_of_the_same_users(gains: np.ndarray, between: float) -> tuple[float, float]:
    n_runs, n_users = gains.shape
    if n_users < 2:
        return math.sqrt(between / n_runs), n_runs - 1.0
    covariances = np.cov(gains) / n_users
    common = float((covariances.sum() - np.trace(covariances)) / (n_runs**2 - n_runs))
    parts = np.array([between / n_runs, max(common, 0.0)])
    variance, freedom = float(parts.sum()), np.array([n_runs - 1, n_users - 1])
    degrees = variance**2 / float((parts**2 / freedom).sum()) if variance else n_runs - 1.0
    return math.sqrt(variance), degrees


def _in_common(there: np.ndarray) -> float:
    """The correction s / (1 - s) for a share s of users that two runs have in common."""
    one = there.astype(np.float64)
    share = (one @ one.T) / one.sum(axis=1, keepdims=True)
    others = ~np.eye(len(one), dtype=bool)
    common = float(share[others].mean())
    return common / (1 - common)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's p-values: the chance that any of them were as small if all differences were none.

    Args:
        p_values: Of all questions that were asked together.

    Returns:
        In the same order, none above 1 or below what it was.

    References:
        Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.minimum(1, values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(steps)
    return [float(value) for value in adjusted]
