"""Latent space in the plane: principal components, t-SNE, and maps of several settings laid over
each other.

Numbers only; drawing is the report's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import orthogonal_procrustes
from torch import Tensor

from coterie.errors import ConfigError, DataError, NumericalError

PAPER_COHORTS = (5, 50, 350)
"""Numbers of interactions whose users the paper's maps show."""

FEWEST_USERS = 10
"""With fewer, t-SNE could not tell three neighbours from the rest."""

# From here on t-SNE's repulsion is faster on a grid (by FFT) than on a tree; below, the grid costs
# the same however few users there are.
_GRID_FROM = 2000
# Users no further from their mean than this share of the largest coordinate differ by float32's
# rounding alone.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class PcaMap:
    """The plane in which users differ most. Its unit is that of latent space, where the prior has
    deviation 1.

    Args:
        points: ``[n, 2]`` the users; (0, 0) is their mean.
        shares: ``[2]`` share of the variance along each axis; zeros if there is no variance.
        centre: ``[latent_dim]`` mean of the users.
        axes: ``[latent_dim, 2]`` orthonormal directions.
    """

    points: np.ndarray
    shares: np.ndarray
    centre: np.ndarray
    axes: np.ndarray

    def transform(self, points: Tensor) -> np.ndarray:
        """``[m, 2]``: further latent points ``[m, latent_dim]``, item anchors say, in the same
        plane.
        """
        placed: np.ndarray = (_array(points) - self.centre) @ self.axes
        return placed


@dataclass(frozen=True, eq=False)
class TsneMap:
    """Neighbourhoods in the plane. Distances between groups, and the size of the whole, mean
    nothing.

    Args:
        points: ``[n, 2]`` the users; all zeros if they do not differ.
        perplexity: Number of neighbours, softly counted, that was used.
        centre: ``[latent_dim]`` mean of the users.
        spread: Root mean square of the distance from it.
        embedding: openTSNE's own; None if users do not differ.
    """

    points: np.ndarray
    perplexity: float
    centre: np.ndarray
    spread: float
    embedding: Any

    def transform(self, points: Tensor) -> np.ndarray:
        """``[m, 2]``: further latent points ``[m, latent_dim]``, item anchors say, in the same map,
        each among its nearest users.

        However far those are: a map cannot show that a point is away from everybody.
        """
        more = _array(points)
        if self.embedding is None or len(more) == 0:
            return np.zeros((len(more), 2))
        return np.array(self.embedding.transform((more - self.centre) / self.spread))


@dataclass(frozen=True, eq=False)
class Alignment:
    """Turning, mirroring, scaling and shifting that lay one map over another.

    Args:
        centre: ``[2]`` mean of the map.
        turn: ``[2, 2]`` rotation, with or without reflection.
        scale: Factor of lengths.
        target: ``[2]`` mean of the other map.
        disparity: What no such movement explains, from 0 (the same shape) to 1, the share of
            squares that is left with the best scale.
    """

    centre: np.ndarray
    turn: np.ndarray
    scale: float
    target: np.ndarray
    disparity: float

    def apply(self, points: np.ndarray) -> np.ndarray:
        """``[m, 2]`` points of the map, users or anchors, over the other map."""
        moved: np.ndarray = (points - self.centre) @ self.turn * self.scale + self.target
        return moved


def pca_map(points: Tensor) -> PcaMap:
    """The two principal components of latent points. Each axis points to where its largest entry is
    positive.

    Args:
        points: ``[n, latent_dim]`` posterior means, of one user at least.

    Raises:
        DataError: if there are no points.
        NumericalError: if one is not finite.

    Example:
        >>> import torch
        >>> found = pca_map(torch.tensor([[0.0, 0.0, 1.0], [3.0, 4.0, 1.0], [6.0, 8.0, 1.0]]))
        >>> (found.points.round(6) + 0.0).tolist(), found.shares.round(6).tolist()
        ([[-5.0, 0.0], [0.0, 0.0], [5.0, 0.0]], [1.0, 0.0])
    """
    users = _array(points)
    if len(users) == 0:
        raise DataError("a map needs at least one user, found none; pass the posteriors of some.")
    centre = _centre(users)
    directions = np.linalg.eigh((users - centre).T @ (users - centre)).eigenvectors[:, :-3:-1]
    axes = np.zeros(
        (len(centre), 2)
    )  # whose second stays empty if there is one latent dimension only
    axes[:, : directions.shape[1]] = directions
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0, -1, 1)
    placed = (users - centre) @ axes
    total = np.square(users - centre).sum()
    return PcaMap(
        placed, np.square(placed).sum(axis=0) / total if total > 0 else np.zeros(2), centre, axes
    )


def tsne_map(
    points: Tensor, *, perplexity: float = 30.0, seed: int, initial: np.ndarray | None = None
) -> TsneMap:
    """t-SNE of latent points by openTSNE, from exact neighbours and in one thread: the same seed
    gives the same bits.

    t-SNE has no scale: users who hardly differ fill as wide a map as any others. So read the active
    units beside it; only users who do not differ at all (within the rounding of float32) are drawn
    as one point.

    Args:
        points: ``[n, latent_dim]`` posterior means.
        perplexity: Number of neighbours, softly counted; (n - 1) / 3 at most is used, and told in
            the result.
        seed: Of the jitter that keeps equal users from starting in one point.
        initial: ``[n, 2]`` map to start from, that of the same users in another setting, so that
            pictures compare; None starts from the principal components. Its scale does not matter.

    Raises:
        ConfigError: if the package openTSNE is missing, perplexity is below 1 or ``initial`` is of
            other users.
        DataError: if there are fewer than 10 users.
        NumericalError: if a point is not finite.

    References:
        Poličar, Stražar and Zupan (2024), openTSNE. Kobak and Berens (2019), for the start.
    """
    library = _library()
    users = _array(points)
    n = len(users)
    if n < FEWEST_USERS:
        raise DataError(
            f"a map by t-SNE needs at least {FEWEST_USERS} users, found {n}; draw the principal"
            " components instead."
        )
    if not perplexity >= 1:
        raise ConfigError(f"perplexity must be at least 1, found {perplexity}; 30 is usual.")
    start = pca_map(points).points if initial is None else initial
    # A start with a NaN would end the process inside openTSNE.
    if start.shape != (n, 2) or not np.isfinite(start).all():
        raise ConfigError(
            f"the initial map must be [{n}, 2] finite numbers, found shape {list(start.shape)};"
            " pass the map of the same users."
        )
    perplexity, centre = min(perplexity, (n - 1) / 3), _centre(users)
    spread = float(np.sqrt(np.square(users - centre).sum(axis=1).mean()))
    if spread <= _ROUNDING * np.abs(users).max():
        return TsneMap(np.zeros((n, 2)), perplexity, centre, spread, None)
    affinities = library.affinity.PerplexityBasedNN(
        (users - centre) / spread, perplexity=perplexity, method="exact"
    )
    optimizer = library.TSNE(negative_gradient_method="bh" if n < _GRID_FROM else "fft")
    embedding = optimizer.fit(affinities=affinities, initialization=_small(start, seed))
    # openTSNE moves the embedding there when it places further points.
    embedding -= (embedding.max(axis=0) + embedding.min(axis=0)) / 2
    return TsneMap(np.array(embedding), perplexity, centre, spread, embedding)


def align(points: np.ndarray, reference: np.ndarray, *, rescale: bool = True) -> Alignment:
    """How to lay a map over that of the same users in another setting: orthogonal Procrustes.

    The scale makes both spread alike. The least squares' own would draw a map the smaller the less
    it agrees, which looks like a collapse.

    Args:
        points: ``[n, 2]`` the map.
        reference: ``[n, 2]`` the other.
        rescale: Whether lengths may change. They should not between `pca_map`'s, whose unit means
            something.

    Returns:
        The movement, for users and anchors alike. If either map is one point it only shifts, and
        the disparity is 1.

    Raises:
        DataError: if the maps are not of the same users.

    References:
        Schönemann (1966); `scipy.spatial.procrustes` has the same disparity.

    Example:
        >>> square = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
        >>> mirrored = 3 * square * [-1, 1] + 5
        >>> move = align(mirrored, square)
        >>> (
        ...     (move.apply(mirrored).round(6) + 0.0).tolist(),
        ...     round(move.scale, 6),
        ...     round(move.disparity, 6),
        ... )
        ([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]], 0.333333, 0.0)
    """
    if points.shape != reference.shape or len(points) == 0:
        raise DataError(
            f"maps to align must be of the same users, found {list(points.shape)} and"
            f" {list(reference.shape)}; map the same ones."
        )
    centre, target = _centre(points), _centre(reference)
    size, reference_size = (
        float(np.linalg.norm(one)) for one in (points - centre, reference - target)
    )
    if size == 0 or reference_size == 0:
        return Alignment(centre, np.eye(2), 1.0, target, 1.0)
    turn, agreement = orthogonal_procrustes(
        (points - centre) / size, (reference - target) / reference_size
    )
    return Alignment(
        centre,
        turn,
        reference_size / size if rescale else 1.0,
        target,
        max(0.0, 1 - float(agreement) ** 2),
    )


def cohort_picks(
    n_interactions: np.ndarray, targets: Sequence[int] = PAPER_COHORTS, *, n_each: int
) -> dict[int, np.ndarray]:
    """The users to mark in a map: for each target those whose number of interactions is closest to
    it.

    Closest may be far where nobody is near, and a user may be in two picks where users are few: say
    the picked numbers beside the map.

    Args:
        n_interactions: ``[n_users]``.
        targets: Numbers of interactions.
        n_each: Users to pick for each; all, if there are fewer.

    Returns:
        ``[n_each]`` int64 rows by target, closest first, of equally close ones the lowest row
        first.

    Raises:
        ConfigError: if ``n_each`` is below 1.

    Example:
        >>> {
        ...     target: rows.tolist()
        ...     for target, rows in cohort_picks(np.array([4, 300, 6, 50]), n_each=2).items()
        ... }
        {5: [0, 2], 50: [3, 2], 350: [1, 3]}
    """
    if n_each < 1:
        raise ConfigError(f"n_each must be at least 1, found {n_each}; 100 make a cohort visible.")
    return {
        target: np.argsort(np.abs(n_interactions - target), kind="stable")[:n_each]
        for target in targets
    }


def _array(points: Tensor) -> np.ndarray:
    """In float64 on the processor, and finite."""
    array: np.ndarray = points.detach().cpu().double().numpy()
    if not np.isfinite(array).all():
        raise NumericalError(
            "points of a map must be finite, found NaN or infinity: the weights are damaged or"
            " training diverged; train again."
        )
    return array


def _centre(points: np.ndarray) -> np.ndarray:
    """The mean, without its rounding where all points agree."""
    centre: np.ndarray = np.where(np.ptp(points, axis=0) > 0, points.mean(axis=0), points[0])
    return centre


def _small(start: np.ndarray, seed: int) -> np.ndarray:
    """The start as t-SNE wants it, with deviation 1e-4, and some jitter: points that all start in
    one would end the process, too.
    """
    centred = start - _centre(start)
    jitter = np.random.default_rng(seed).normal(scale=0.01, size=start.shape)
    small: np.ndarray = 1e-4 * (centred / (centred.std() or 1.0) + jitter)
    return small


def _library() -> Any:
    try:
        import openTSNE  # noqa: PLC0415
        import openTSNE.affinity  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "a map by t-SNE needs the package openTSNE; pip install 'coterie[analysis]'."
        ) from error
    return openTSNE
