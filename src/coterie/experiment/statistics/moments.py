"""Moments of columns of sums per user: all that the statistics of an experiment see."""

from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, eq=False)
class Moments:
    """Number, mean and covariance of k columns over n users.

    Args:
        n: Users.
        mean: ``[k]`` float64.
        covariance: ``[k, k]`` float64, divided by n - 1; zeros where n is below 2.
    """

    n: int
    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, columns: np.ndarray) -> Self:
        """The moments of ``[n, k]`` values.

        Example:
            >>> Moments.of(np.array([[1.0, 2.0], [3.0, 2.0]])).mean.tolist()
            [2.0, 2.0]
        """
        n, k = columns.shape
        mean = columns.mean(axis=0) if n else np.zeros(k)
        apart = columns - mean
        return cls(n, mean, apart.T @ apart / max(1, n - 1))

    def __add__(self, other: "Moments") -> "Moments":
        """Of both groups of users together (Chan, Golub and LeVeque 1979)."""
        n = self.n + other.n
        if not n:
            return self
        gap = other.mean - self.mean
        scatter = sum(one.covariance * max(0, one.n - 1) for one in (self, other))
        scatter = scatter + np.outer(gap, gap) * (self.n * other.n / n)
        return Moments(n, self.mean + gap * (other.n / n), scatter / max(1, n - 1))
