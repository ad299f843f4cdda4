"""Number, means and covariances of columns over users: all that statistics see of an experiment.

Moments of disjoint sets of users add up. So days' parts, segments and shards can be summed where
they lie.
"""

from dataclasses import dataclass

import numpy as np

from coterie.errors import DataError


@dataclass(frozen=True, eq=False)
class Moments:
    """Of ``k`` columns over ``n`` users. A metric's columns are (Y, X), or (Y, X, Y before, X
    before): it is the sum of Y over the sum of X.

    Args:
        n: Number of users.
        mean: ``[k]`` float64; zeros without users.
        covariance: ``[k, k]`` float64, divided by ``n - 1``; zeros below two users.

    Raises:
        DataError: if shapes do not fit each other, or a value is not finite.

    References:
        Chan, Golub and LeVeque (1983), Algorithms for Computing the Sample Variance, for the sum.

    Example:
        >>> first = Moments.of(np.array([[1.0, 10.0], [3.0, 10.0]]))
        >>> both = first + Moments.of(np.array([[8.0, 25.0]]))
        >>> both.n, both.mean.tolist(), both.covariance.tolist()
        (3, [4.0, 15.0], [[13.0, 30.0], [30.0, 75.0]])
    """

    n: int
    mean: np.ndarray
    covariance: np.ndarray

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.covariance.shape != (len(self.mean),) * 2:
            raise DataError(
                "moments must be [k] means and [k, k] covariances; these are"
                f" {self.mean.shape} and {self.covariance.shape}."
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise DataError(
                f"moments must be finite; of {self.n} users the means are {self.mean.tolist()}."
                " Look for missing or infinite values in the users' sums."
            )

    @classmethod
    def of(cls, columns: np.ndarray) -> "Moments":
        """Of ``[n, k]`` columns, a row a user."""
        if columns.ndim != 2:
            raise DataError(f"columns must be [users, columns]; these are {columns.shape}.")
        n, k = columns.shape
        if not n:
            return cls(0, np.zeros(k), np.zeros((k, k)))
        mean = columns.mean(axis=0, dtype=np.float64)
        centred = columns - mean
        return cls(n, mean, centred.T @ centred / max(n - 1, 1))

    @property
    def k(self) -> int:
        """Number of columns."""
        return len(self.mean)

    def __add__(self, other: "Moments") -> "Moments":
        """Of both sets of users, which must have nobody in common."""
        if other.k != self.k:
            raise DataError(
                f"moments that are added must have the same columns; these have {self.k} and"
                f" {other.k}."
            )
        n = self.n + other.n
        apart = other.mean - self.mean
        between = np.outer(apart, apart) * (self.n * other.n / max(n, 1))
        squares = self._squares + other._squares + between
        return Moments(n, self.mean + apart * (other.n / max(n, 1)), squares / max(n - 1, 1))

    @property
    def _squares(self) -> np.ndarray:
        squares: np.ndarray = self.covariance * max(self.n - 1, 0)
        return squares
