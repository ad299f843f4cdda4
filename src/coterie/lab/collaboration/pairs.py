"""Local and global pairs: which users are near in their histories, which are far but related, and
who helps whom.

A pair's kind is a fact of the data, never of a model: it is the same in every setting, so settings
can be compared.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy.sparse import csr_array

from coterie.errors import ConfigError, DataError
from coterie.lab.collaboration.masking import pair_overlaps


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


def classify_pairs(histories: csr_array, rules: PairRules | None = None) -> np.ndarray:
    """The `PairKind` of every pair of users.

    The distance is Jaccard's and not d alone, which calls any two light users near, and any two
    heavy ones far. A masked pair contracts in the mean if d > 2ρs, which is a Jaccard distance
    above 2ρ / (1 + 2ρ).

    Args:
        histories: ``[n_users, n_items]`` binary, every user with at least one item.
        rules: What near, far and related mean.

    Returns:
        ``[n_users, n_users]`` int8, symmetric; -1 on the diagonal.

    Raises:
        DataError: if there are fewer than two users, or one has no items.

    Example:
        >>> twins_and_a_stranger = csr_array([[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1]])
        >>> classify_pairs(twins_and_a_stranger, PairRules(near=0.3)).tolist()
        [[-1, 0, 3], [0, -1, 3], [3, 3, -1]]
    """
    rules = rules or PairRules()
    n_users, counts = histories.shape[0], np.diff(histories.indptr)
    if n_users < 2 or (counts == 0).any():
        raise DataError(
            f"pairs need two users or more, each with an item, found {n_users} users,"
            f" {int((counts == 0).sum())} of them without; take others."
        )
    difference, shared = pair_overlaps(histories, histories)
    distance = difference / (difference + shared)
    others = ~np.eye(n_users, dtype=bool)
    near, far = np.quantile(distance[others], [rules.near, rules.far])
    contained = shared >= rules.subset * np.minimum.outer(counts, counts)
    kinds = np.full((n_users, n_users), PairKind.BETWEEN, dtype=np.int8)
    is_far = distance >= far
    kinds[is_far] = PairKind.UNRELATED
    kinds[is_far & (_common_neighbours(distance, rules.neighbours) >= rules.linked)] = (
        PairKind.LINKED
    )
    kinds[is_far & contained] = PairKind.SUBSET
    kinds[distance <= near] = PairKind.LOCAL
    kinds[~others] = -1
    return kinds


def _common_neighbours(distance: np.ndarray, n_neighbours: int) -> np.ndarray:
    """How many of their closest other users two users have in common; ties go to the lower index,
    strangers are no neighbours.
    """
    n_users = len(distance)
    apart = distance + np.where(np.eye(n_users, dtype=bool), np.inf, 0)
    closest = np.argsort(apart, axis=1, kind="stable")[:, : min(n_neighbours, n_users - 1)]
    is_neighbour = np.zeros((n_users, n_users), dtype=np.float32)
    np.put_along_axis(is_neighbour, closest, 1, axis=1)
    is_neighbour[distance == 1] = 0
    common: np.ndarray = is_neighbour @ is_neighbour.T
    return common


@dataclass(frozen=True)
class HelpfulTransfer:
    """How helpful transfer, the positive part of <g_u, g_v>, divides among the kinds of pairs.

    Args:
        n_pairs: ``[n_kinds]`` ordered pairs of each kind.
        helpful: ``[n_kinds]`` share of them with a positive transfer; NaN without pairs.
        mean: ``[n_kinds]`` mean transfer, of both signs; NaN without pairs.
        mean_resamples: ``[n_resamples, n_kinds]`` the same with users drawn anew, with replacement:
            for intervals. Equal seeds draw equal users, so that differences between settings are
            paired.
        share: ``[n_kinds]`` share of all helpful transfer; sums to one.
        share_resamples: ``[n_resamples, n_kinds]`` the same with users drawn anew.
    """

    n_pairs: np.ndarray
    helpful: np.ndarray
    mean: np.ndarray
    mean_resamples: np.ndarray
    share: np.ndarray
    share_resamples: np.ndarray

    def share_of(self, *kinds: PairKind, confidence: float = 0.95) -> tuple[float, float, float]:
        """The share of some kinds together, and the ends of its percentile bootstrap interval."""
        return _with_interval(
            self.share[list(kinds)].sum(),
            self.share_resamples[:, list(kinds)].sum(axis=1),
            confidence,
        )

    def mean_of(self, kind: PairKind, confidence: float = 0.95) -> tuple[float, float, float]:
        """The mean transfer of a kind's pairs, and the ends of its percentile bootstrap
        interval.
        """
        return _with_interval(self.mean[kind], self.mean_resamples[:, kind], confidence)

    def gain_over(
        self, other: "HelpfulTransfer", *kinds: PairKind, confidence: float = 0.95
    ) -> tuple[float, float, float]:
        """By how much the share of some kinds is above ``other``'s of the same users and seed, with
        a paired interval.
        """
        resamples = self.share_resamples[:, list(kinds)].sum(axis=1) - other.share_resamples[
            :, list(kinds)
        ].sum(axis=1)
        return _with_interval(
            self.share[list(kinds)].sum() - other.share[list(kinds)].sum(), resamples, confidence
        )


def helpful_transfer(
    transfer: np.ndarray, kinds: np.ndarray, *, n_resamples: int = 1000, seed: int
) -> HelpfulTransfer:
    """Divides helpful transfer among the kinds of pairs, with a bootstrap over users.

    A pair's weight in a resample is the product of the times that its two users were drawn.

    Args:
        transfer: ``[n_users, n_users]`` <g_u, g_v>, or its cosine, by which no user counts more for
            having many items.
        kinds: ``[n_users, n_users]`` as `classify_pairs` gives them.
        n_resamples: Of the users.
        seed: Of the resampling.

    Raises:
        DataError: if the shapes differ or nobody helps anybody.

    Example:
        >>> found = helpful_transfer(
        ...     np.array([[9.0, 3.0], [3.0, 9.0]]), np.array([[-1, 0], [0, -1]]), seed=1
        ... )
        >>> found.share[PairKind.LOCAL], found.helpful[PairKind.LOCAL]
        (np.float64(1.0), np.float64(1.0))
    """
    if (
        transfer.shape != kinds.shape
        or transfer.ndim != 2
        or transfer.shape[0] != transfer.shape[1]
    ):
        raise DataError(
            f"transfer and kinds must be of one square shape, found {transfer.shape} and"
            f" {kinds.shape}."
        )
    is_kind = np.stack([kinds == kind for kind in PairKind])
    n_pairs = is_kind.sum(axis=(1, 2))
    gain = _resampled_sums(transfer.clip(min=0), kinds, n_resamples, seed)
    if not gain[0].sum() > 0:
        raise DataError(
            "shares of helpful transfer need a pair that helps, found none above 0; look at the"
            " transfer itself."
        )
    net, times = (
        _resampled_sums(one, kinds, n_resamples, seed) for one in (transfer, np.ones_like(transfer))
    )
    with np.errstate(invalid="ignore"):
        share, mean = gain / gain.sum(axis=1, keepdims=True), net / times
        return HelpfulTransfer(
            n_pairs=n_pairs,
            helpful=(is_kind & (transfer > 0)).sum(axis=(1, 2)) / n_pairs,
            mean=mean[0],
            mean_resamples=mean[1:],
            share=share[0],
            share_resamples=share[1:],
        )


@dataclass(frozen=True)
class KindDistances:
    """How far apart pairs of each kind are in the latent space, beside all pairs.

    Args:
        relative: ``[n_kinds]`` mean distance of a kind's pairs over that of all pairs: settings
            differ in scale; NaN without pairs.
        relative_resamples: ``[n_resamples, n_kinds]`` the same with users drawn anew, as in
            `HelpfulTransfer`.
    """

    relative: np.ndarray
    relative_resamples: np.ndarray

    def of(self, kind: PairKind, confidence: float = 0.95) -> tuple[float, float, float]:
        """The relative distance of a kind, and the ends of its percentile bootstrap interval."""
        return _with_interval(self.relative[kind], self.relative_resamples[:, kind], confidence)

    def gain_over(
        self, other: "KindDistances", kind: PairKind, confidence: float = 0.95
    ) -> tuple[float, float, float]:
        """By how much the relative distance of a kind is above ``other``'s of the same users and
        seed, with a paired interval.
        """
        resamples = self.relative_resamples[:, kind] - other.relative_resamples[:, kind]
        return _with_interval(self.relative[kind] - other.relative[kind], resamples, confidence)


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
    sums, counts = (
        _resampled_sums(one, kinds, n_resamples, seed) for one in (distance, np.ones_like(distance))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = (sums / counts) / (sums.sum(axis=1) / counts.sum(axis=1))[:, None]
    return KindDistances(relative[0], relative[1:])


def _resampled_sums(
    values: np.ndarray, kinds: np.ndarray, n_resamples: int, seed: int
) -> np.ndarray:
    """``[1 + n_resamples, n_kinds]``: Σ w_u w_v values_uv over the pairs of each kind, first of the
    users themselves (w = 1).
    """
    n_users = len(kinds)
    drawn = np.random.default_rng(seed).multinomial(
        n_users, np.full(n_users, 1 / n_users), size=n_resamples
    )
    times = np.concatenate([np.ones((1, n_users)), drawn])
    return np.stack(
        [((times @ np.where(kinds == kind, values, 0.0)) * times).sum(axis=1) for kind in PairKind],
        axis=1,
    )


def _with_interval(
    value: float, resamples: np.ndarray, confidence: float
) -> tuple[float, float, float]:
    drawn = resamples[~np.isnan(resamples)]
    low, high = (
        np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
        if len(drawn)
        else (np.nan, np.nan)
    )
    return float(value), float(low), float(high)
