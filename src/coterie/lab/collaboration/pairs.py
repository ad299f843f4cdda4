"""Local and global pairs: which users are near in their histories, and which are far but related.

A pair's kind is a fact of the data, never of a model: it is the same in every setting, so settings
can be compared.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy.sparse import csr_array

from coterie.errors import ConfigError, DataError
from coterie.lab.collaboration.masking import pair_overlaps
from coterie.lab.collaboration.resampling import Resamples, with_interval


class PairKind(IntEnum):
    """What two users are to each other. Every pair of distinct users is of exactly one kind."""

    LOCAL = 0
    """Near: alike histories."""
    SUBSET = 1
    """Far, but most of the lighter user's items are in the heavier user's history."""
    LINKED = 2
    """Far and no subset, but near to the same other users."""
    UNRELATED = 3
    """Far, and neither."""
    BETWEEN = 4
    """Neither near nor far."""


GLOBAL = (PairKind.SUBSET, PairKind.LINKED)
"""The kinds that are far but related."""


@dataclass(frozen=True)
class PairRules:
    """What near, far and related mean. Distances are Jaccard's, d / (d + s): 1 for nothing in
    common, 0 for equal histories.

    Args:
        near: Share of all pairs, the closest ones, that count as local.
        far: Share of all pairs that do not count as far.
        subset: Share of the lighter user's items that must be in the heavier user's history.
        neighbours: How many closest users are a user's neighbours.
        linked: How many neighbours two users must have in common.

    Raises:
        ConfigError: if a share is outside [0, 1], near is above far, or a number is not positive.
    """

    near: float = 0.05
    far: float = 0.5
    subset: float = 0.5
    neighbours: int = 20
    linked: int = 2

    def __post_init__(self) -> None:
        if not (
            0 <= self.near <= self.far <= 1
            and 0 < self.subset <= 1
            and min(self.neighbours, self.linked) >= 1
        ):
            raise ConfigError(
                "pair rules need 0 ≤ near ≤ far ≤ 1, subset in (0, 1], and positive numbers of"
                f" neighbours, found {self}; try the defaults, {PairRules()}."
            )


def classify_pairs(
    histories: csr_array, rules: PairRules | None = None, others: csr_array | None = None
) -> np.ndarray:
    """The `PairKind` of every pair of users.

    The distance is Jaccard's and not d alone, which calls any two light users near, and any two
    heavy ones far. A masked pair contracts in the mean if d > 2ρs, which is a Jaccard distance
    above 2ρ / (1 + 2ρ).

    Args:
        histories: ``[n_users, n_items]`` binary, every user with at least one item.
        rules: What near, far and related mean.
        others: ``[n_others, n_items]`` other users, among whom neighbours are sought; None = the
            same ones.

    Returns:
        ``[n_users, n_others]`` int8; symmetric with -1 on the diagonal for the same users.

    Raises:
        DataError: if there are fewer than two users, or one has no items.

    Example:
        >>> twins_and_a_stranger = csr_array([[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1]])
        >>> classify_pairs(twins_and_a_stranger, PairRules(near=0.3)).tolist()
        [[-1, 0, 3], [0, -1, 3], [3, 3, -1]]
    """
    rules, columns = rules or PairRules(), histories if others is None else others
    counts, of_others = _counts(histories), _counts(columns)
    difference, shared = pair_overlaps(histories, columns)
    distance = difference / (difference + shared)
    apart = distance if others is not None else distance + _infinite_diagonal(len(distance))
    near, far = np.quantile(apart[np.isfinite(apart)], [rules.near, rules.far])
    among_others = apart if others is None else _apart(columns)
    neighbours = [_neighbours(one, rules.neighbours) for one in (apart, among_others)]
    contained = shared >= rules.subset * np.minimum.outer(counts, of_others)
    kinds = np.full(distance.shape, PairKind.BETWEEN, dtype=np.int8)
    is_far = distance >= far
    kinds[is_far] = PairKind.UNRELATED
    kinds[is_far & (neighbours[0] @ neighbours[1].T >= rules.linked)] = PairKind.LINKED
    kinds[is_far & contained] = PairKind.SUBSET
    kinds[distance <= near] = PairKind.LOCAL
    kinds[~np.isfinite(apart)] = -1
    return kinds


def _counts(histories: csr_array) -> np.ndarray:
    counts: np.ndarray = np.diff(histories.indptr)
    if len(counts) < 2 or (counts == 0).any():
        raise DataError(
            f"pairs need two users or more, each with an item, found {len(counts)} users,"
            f" {int((counts == 0).sum())} of them without; take others."
        )
    return counts


def _apart(histories: csr_array) -> np.ndarray:
    difference, shared = pair_overlaps(histories, histories)
    distance: np.ndarray = difference / (difference + shared) + _infinite_diagonal(len(shared))
    return distance


def _infinite_diagonal(n: int) -> np.ndarray:
    diagonal: np.ndarray = np.where(np.eye(n, dtype=bool), np.inf, 0.0)
    return diagonal


def _neighbours(apart: np.ndarray, n_neighbours: int) -> np.ndarray:
    """``[n, m]`` one where a column is among the closest of a row; ties go to the lower index,
    strangers are no neighbours.
    """
    closest = np.argsort(apart, axis=1, kind="stable")[:, :n_neighbours]
    is_neighbour = np.zeros(apart.shape, dtype=np.float32)
    np.put_along_axis(is_neighbour, closest, 1, axis=1)
    is_neighbour[apart >= 1] = 0
    return is_neighbour


@dataclass(frozen=True)
class KindDistances:
    """How far apart pairs of each kind are in the latent space, beside all pairs.

    Args:
        resamples: Mean distance of a kind's pairs over that of all pairs, as settings differ in
            scale; NaN without pairs.
            First of the sample itself, then of users drawn anew: ``[1 + n_resamples, n_kinds]``.
    """

    resamples: np.ndarray

    @property
    def relative(self) -> np.ndarray:
        """``[n_kinds]`` those of the sample itself."""
        first: np.ndarray = self.resamples[0]
        return first

    def of(self, kind: PairKind, confidence: float = 0.95) -> tuple[float, float, float]:
        """The relative distance of a kind, and the ends of its percentile bootstrap interval."""
        return with_interval(self.resamples[:, kind], confidence)

    def gain_over(
        self, other: "KindDistances", kind: PairKind, confidence: float = 0.95
    ) -> tuple[float, float, float]:
        """By how much the relative distance of a kind is above ``other``'s of the same users and
        seed, with a paired interval.
        """
        return with_interval(self.resamples[:, kind] - other.resamples[:, kind], confidence)


def distance_by_kind(
    distance: np.ndarray, kinds: np.ndarray, *, n_resamples: int = 1000, seed: int
) -> KindDistances:
    """Mean latent distance of each kind of pair over that of all pairs, with a bootstrap over
    users.

    Args:
        distance: ``[n_users, n_users]`` of any kind; all zeros, as after a collapse, gives NaN.
        kinds: ``[n_users, n_users]`` as `classify_pairs` gives them.
        n_resamples: Of the users.
        seed: Of the resampling.

    Example:
        >>> kinds = np.array([[-1, 0, 3], [0, -1, 3], [3, 3, -1]])
        >>> distance_by_kind(np.array([[0.0, 1, 4], [1, 0, 4], [4, 4, 0]]), kinds, seed=1).relative[
        ...     PairKind.UNRELATED
        ... ].round(3)
        np.float64(1.333)
    """
    drawn = Resamples.draw(distance.shape, n_resamples, seed, same=True)
    sums, counts = (
        drawn.sums(one, kinds, len(PairKind)) for one in (distance, np.ones_like(distance))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = (sums / counts) / (sums.sum(axis=1) / counts.sum(axis=1))[:, None]
    return KindDistances(relative)
