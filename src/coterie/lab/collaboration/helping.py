"""Help, harm and what is left of both: transfer divided among groups of pairs.

The share of all help (the positive part of transfer) says where help comes from, if there is any.
It cannot say whether there is: near a stationary point, where transfer is noise around zero, half
of all pairs help by luck, and a group whose noise is wider takes a larger share. The net mean is
zero there, and its interval says so. Read it first.
"""

from dataclasses import dataclass

import numpy as np

from coterie.errors import DataError
from coterie.lab.collaboration.pairs import PairKind
from coterie.lab.collaboration.resampling import Resamples, with_interval


@dataclass(frozen=True, eq=False)
class Helping:
    """How transfer divides among groups of pairs, with people drawn anew.

    Arrays of sums are ``[1 + n_resamples, n_groups]``, those of the sample itself first. Equal
    seeds draw equal people, so that differences between settings are paired.

    Args:
        n_pairs: ``[n_groups]`` ordered pairs.
        helpful: ``[n_groups]`` share of them with a positive transfer; NaN without pairs.
        pairs: Sums of ones.
        net: Sums of transfer.
        help: Sums of its positive part.
        harm: Sums of its negative part, turned positive.
    """

    n_pairs: np.ndarray
    helpful: np.ndarray
    pairs: np.ndarray
    net: np.ndarray
    help: np.ndarray
    harm: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """``[n_groups]`` shares of all help; they sum to one."""
        share: np.ndarray = self.help[0] / self.help[0].sum()
        return share

    @property
    def mean(self) -> np.ndarray:
        """``[n_groups]`` net means; NaN without pairs."""
        with np.errstate(invalid="ignore"):
            mean: np.ndarray = self.net[0] / self.pairs[0]
        return mean

    def share_of(self, *groups: int, confidence: float = 0.95) -> tuple[float, float, float]:
        """The share of all help that is of some groups together, and its interval."""
        return with_interval(_share(self.help, groups), confidence)

    def harm_of(self, *groups: int, confidence: float = 0.95) -> tuple[float, float, float]:
        """The share of all harm that is of some groups together, and its interval."""
        return with_interval(_share(self.harm, groups), confidence)

    def mean_of(self, *groups: int, confidence: float = 0.95) -> tuple[float, float, float]:
        """The net mean of the pairs of some groups together, and its interval."""
        return with_interval(self.means(*groups), confidence)

    def gain_over(
        self, other: "Helping", *groups: int, confidence: float = 0.95
    ) -> tuple[float, float, float]:
        """By how much the share of help of some groups is above ``other``'s of the same people and
        seed, with a paired interval.
        """
        return with_interval(_share(self.help, groups) - _share(other.help, groups), confidence)

    def mean_gain_over(
        self, other: "Helping", *groups: int, confidence: float = 0.95
    ) -> tuple[float, float, float]:
        """By how much the net mean of some groups is above ``other``'s, as `gain_over`."""
        return with_interval(self.means(*groups) - other.means(*groups), confidence)

    def means(self, *groups: int) -> np.ndarray:
        """``[1 + n_resamples]`` net means of some groups together, of the sample itself first."""
        at = list(groups)
        with np.errstate(invalid="ignore"):
            means: np.ndarray = self.net[:, at].sum(axis=1) / self.pairs[:, at].sum(axis=1)
        return means


def _share(sums: np.ndarray, groups: tuple[int, ...]) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        share: np.ndarray = sums[:, list(groups)].sum(axis=1) / sums.sum(axis=1)
    return share


def helping(
    transfer: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int,
    n_groups: int = len(PairKind),
    same: bool = True,
    n_resamples: int = 1000,
) -> Helping:
    """Divides transfer among groups of pairs, with a bootstrap over people.

    Args:
        transfer: ``[n, m]`` of u's and v's, or its cosine, by which no user counts more for having
            many items.
        groups: ``[n, m]`` the group of each pair, -1 for none: a `PairKind`, or two cohorts.
        seed: Of the resampling.
        n_groups: Groups are 0 to below it.
        same: Whether u's and v's are the same users; else each side is drawn for itself.
        n_resamples: Of the people.

    Raises:
        DataError: if the shapes differ, or are no square of the same users.

    Example:
        >>> found = helping(
        ...     np.array([[9.0, 3.0], [-1.0, 9.0]]), np.array([[-1, 0], [0, -1]]), seed=1
        ... )
        >>> found.share[PairKind.LOCAL], found.mean[PairKind.LOCAL], found.helpful[PairKind.LOCAL]
        (np.float64(1.0), np.float64(1.0), np.float64(0.5))
    """
    if transfer.shape != groups.shape or transfer.ndim != 2:
        raise DataError(
            f"transfer and groups must be of one shape, found {transfer.shape} and {groups.shape}."
        )
    drawn = Resamples.draw(transfer.shape, n_resamples, seed, same=same)
    parts = (np.ones_like(transfer), transfer, transfer.clip(min=0), (-transfer).clip(min=0))
    pairs, net, gain, loss = (drawn.sums(one, groups, n_groups) for one in parts)
    n_pairs = pairs[0].astype(np.int64)
    above = np.bincount(groups[(groups >= 0) & (transfer > 0)], minlength=n_groups)
    with np.errstate(invalid="ignore"):
        helpful = above / n_pairs
    return Helping(n_pairs, helpful, pairs, net, gain, loss)
