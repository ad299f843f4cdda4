"""Intervals over people: the bootstrap that draws users anew, on both sides of a pair.

Pairs that share a user are not independent. So a pair counts as often as its u was drawn times as
often as its v was.
"""

from dataclasses import dataclass

import numpy as np

from coterie.errors import DataError


@dataclass(frozen=True, eq=False)
class Resamples:
    """How often each person was drawn, first the sample itself: once each.

    Args:
        rows: ``[1 + n_resamples, n]``.
        columns: ``[1 + n_resamples, m]``; the same array where both sides are the same people.

    References:
        Owen (2007), "The pigeonhole bootstrap".
    """

    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def draw(cls, shape: tuple[int, ...], n: int, seed: int, *, same: bool) -> "Resamples":
        """Draws ``n`` resamples with replacement; equal seeds draw equal people.

        Args:
            shape: People on either side.
            n: Resamples.
            seed: Of the draws.
            same: Whether both sides are the same people.

        Raises:
            DataError: if the same people differ in number.
        """
        if same and shape[0] != shape[1]:
            raise DataError(
                f"pairs of the same users are a square, found {shape}; say that the sides differ."
            )
        rng = np.random.default_rng(seed)
        rows = _times(rng, shape[0], n)
        return cls(rows, rows if same else _times(rng, shape[1], n))

    def sums(self, values: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
        """``[1 + n_resamples, n_groups]``: Σ w_u w_v values_uv over the pairs of each group.

        Args:
            values: ``[n, m]``.
            groups: ``[n, m]`` the group of each pair, -1 for none.
            n_groups: Groups are 0 to below it.
        """
        return np.stack(
            [
                ((self.rows @ np.where(groups == one, values, 0.0)) * self.columns).sum(axis=1)
                for one in range(n_groups)
            ],
            axis=1,
        )


def _times(rng: np.random.Generator, n_people: int, n: int) -> np.ndarray:
    drawn = rng.multinomial(n_people, np.full(n_people, 1 / n_people), size=n)
    return np.concatenate([np.ones((1, n_people)), drawn])


def with_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """The value and the ends of its percentile interval; NaN where nothing was drawn.

    Args:
        values: ``[1 + n_resamples]``, the value of the sample itself first.
        confidence: Of the interval.

    Example:
        >>> with_interval(np.array([0.5, 0.0, 1.0, 2.0]), confidence=0)
        (0.5, 1.0, 1.0)
    """
    drawn = values[1:][~np.isnan(values[1:])]
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(drawn, ends) if len(drawn) else (np.nan, np.nan)
    return float(values[0]), float(low), float(high)
