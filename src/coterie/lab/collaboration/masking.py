"""What random masks do to the distance between two histories: who comes closer and who is pushed
apart.

A pair of binary histories is known by two numbers: d, the items that one of them has and the other
has not, and s, the items that both have. With keep_prob ρ and independent masks the masked
histories are D_h = Bin(d, ρ) + Bin(s, 2ρ(1-ρ)) items apart, two independent binomials; so
everything here is exact, and simulation only checks it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.stats import binom
from torch import Tensor

from coterie.errors import ConfigError, DataError
from coterie.objectives.masking import mask_items
from coterie.sparse import SparseRows

SIMULATED_PAIRS = 50
SIMULATED_DRAWS = 1000


def expected_masked_distance(d: np.ndarray, s: np.ndarray, keep_prob: float) -> np.ndarray:
    """E D_h = ρd + 2ρ(1-ρ)s, in items.

    Args:
        d: Size of the symmetric difference of the clean histories; any shape.
        s: Size of their intersection, of that shape.
        keep_prob: ρ.

    References:
        "On the Mechanisms of Collaborative Learning in VAE Recommenders" (arXiv 2511.06781), on
        masking.
    """
    return keep_prob * np.asarray(d) + 2 * keep_prob * (1 - keep_prob) * np.asarray(s)


def contraction_line(s: np.ndarray, keep_prob: float) -> np.ndarray:
    """The d = 2ρs above which masks bring a pair closer in the mean, and below which they push it
    apart; ρ < 1.

    A pair is below it if the share s/(d+s) that it has in common is above 1/(1+2ρ): a half for ρ =
    0.5.
    """
    return _exact(2 * keep_prob * np.asarray(s))


def contraction_probability(
    d: np.ndarray, s: np.ndarray, keep_prob: float, delta: float = 0.0
) -> np.ndarray:
    """P(D_h ≤ (1-δ)d), exact: masks bring the pair closer by a share δ or more; at δ = 0 an equal
    distance counts.

    With ``s`` = 0 it is that of one mask shared by both histories, Bin(d, ρ), which never pushes
    apart.

    Args:
        d: Size of the symmetric difference; any shape that broadcasts with ``s``.
        s: Size of the intersection.
        keep_prob: ρ in (0, 1].
        delta: δ in [0, 1].

    Raises:
        ConfigError: if ``keep_prob`` or ``delta`` is out of range.

    Example:
        >>> contraction_probability(
        ...     np.array([2]), np.array([0]), 0.5, delta=0.5
        ... )  # at most one of two items is kept
        array([0.75])
    """
    _check(keep_prob, delta)
    return _summed_tail(binom.cdf, d, s, _at_most(d, delta), keep_prob)


def expansion_probability(
    d: np.ndarray, s: np.ndarray, keep_prob: float, delta: float = 0.0
) -> np.ndarray:
    """P(D_h ≥ (1+δ)d), exact: masks push the pair apart by a share δ or more; at δ = 0 an equal
    distance counts, and so 1 for d = 0.

    Arguments and errors are those of `contraction_probability`.

    Example:
        >>> expansion_probability(
        ...     np.array([1]), np.array([1]), 0.5, delta=1.0
        ... )  # both binomials are 1
        array([0.25])
    """
    _check(keep_prob, delta)
    return _summed_tail(binom.sf, d, s, _at_least(d, delta) - 1, keep_prob)


def hoeffding_bounds(
    d: np.ndarray, s: np.ndarray, keep_prob: float, delta: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Hoeffding's upper bounds exp(-2t²/(d+s)) of `contraction_probability` and
    `expansion_probability`, whose arguments it takes.

    t is how far the event lies from the mean; where it does not lie beyond the mean the bound is 1
    and says nothing.
    """
    _check(keep_prob, delta)
    mean, n = (
        expected_masked_distance(d, s, keep_prob),
        np.maximum(np.asarray(d) + np.asarray(s), 1),
    )
    gaps = mean - _at_most(d, delta), _at_least(d, delta) - mean
    below, above = (np.exp(-2 * np.maximum(gap, 0) ** 2 / n) for gap in gaps)
    return below, above


def pair_overlaps(users: csr_array, others: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """The d and s of every user with every other.

    Args:
        users: ``[n, n_items]`` histories; only the pattern is read.
        others: ``[m, n_items]``.

    Returns:
        Sizes of the symmetric differences and of the intersections, each ``[n, m]`` int64.

    Example:
        >>> d, s = pair_overlaps(csr_array([[1, 1, 0]]), csr_array([[0, 1, 1], [1, 1, 0]]))
        >>> d.tolist(), s.tolist()
        ([[2, 0]], [[1, 2]])
    """
    one, two = (
        csr_array((np.ones(len(m.indices), np.int64), m.indices, m.indptr), shape=m.shape)
        for m in (users, others)
    )
    s = (one @ two.T).toarray()
    return np.diff(one.indptr)[:, None] + np.diff(two.indptr) - 2 * s, s


def simulate_masked_distance(
    users: SparseRows,
    others: SparseRows,
    keep_prob: float,
    n_draws: int,
    generator: torch.Generator,
) -> np.ndarray:
    """Draws of D_h by masking the histories themselves, each with a mask of its own.

    Args:
        users: ``[n_pairs, n_items]`` clean histories of one side of every pair.
        others: ``[n_pairs, n_items]`` those of the other side.
        keep_prob: ρ in (0, 1].
        n_draws: Masks of each history.
        generator: On the device of the histories.

    Returns:
        ``[n_draws, n_pairs]`` int64, in items.

    Raises:
        ConfigError: if ``keep_prob`` is outside (0, 1].
    """
    draws = [
        _overlaps(*(mask_items(rows, keep_prob, generator) for rows in (users, others)))[0]
        for _ in range(n_draws)
    ]
    return torch.stack(draws).cpu().numpy()


@dataclass(frozen=True)
class MaskingGeometry:
    """What masks of one keep_prob do to the distances of sampled pairs of users."""

    keep_prob: float
    """ρ of the masks."""

    delta: float
    """δ: how large a share of d is counted as coming closer or being pushed apart."""

    pairs: np.ndarray
    """``[n_pairs, 2]`` int64 rows of the two users."""

    d: np.ndarray
    """``[n_pairs]`` int64 items that only one of them has."""

    s: np.ndarray
    """``[n_pairs]`` int64 items that both have."""

    expected: np.ndarray
    """``[n_pairs]`` E D_h in items."""

    contraction: np.ndarray
    """``[n_pairs]`` exact P(D_h ≤ (1-δ)d)."""

    expansion: np.ndarray
    """``[n_pairs]`` exact P(D_h ≥ (1+δ)d)."""

    contraction_bound: np.ndarray
    """``[n_pairs]`` Hoeffding's upper bound of ``contraction``."""

    expansion_bound: np.ndarray
    """``[n_pairs]`` Hoeffding's upper bound of ``expansion``."""

    shared_contraction: np.ndarray
    """``[n_pairs]`` exact P(D_h ≤ (1-δ)d) if one mask served both users, who then are never pushed
    apart.
    """

    simulated: np.ndarray
    """``[at most 50, 2]`` shares of 1,000 drawn masks that met the events of ``contraction`` and
    ``expansion``, for the first pairs.
    """

    share_contracting: float
    """Share of pairs that come closer in the mean."""

    mean_contraction: float
    """Mean of ``contraction``."""

    mean_expansion: float
    """Mean of ``expansion``."""

    simulation_gap: float
    """Mean absolute difference between ``simulated`` and the exact probabilities; says little where
    those are all near 0 or 1.
    """

    simulation_error: float
    """Mean standard error of a simulated share; chance alone makes a gap of about 0.8 of it."""


def masking_geometry(
    histories: csr_array, keep_prob: float, pairs: np.ndarray, *, seed: int, delta: float = 0.0
) -> MaskingGeometry:
    """Tells what masks do to pairs of users.

    Args:
        histories: ``[n_users, n_items]`` clean histories; only the pattern is read.
        keep_prob: ρ in (0, 1].
        pairs: ``[n_pairs, 2]`` int64 rows of histories, as from `random_pairs`.
        seed: Of the simulated masks.
        delta: δ in [0, 1].

    Raises:
        ConfigError: if ``keep_prob`` or ``delta`` is out of range.
        DataError: if there is no pair.

    Example:
        >>> histories = csr_array([[1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [0, 0, 0, 0, 1]])
        >>> found = masking_geometry(histories, 0.5, np.array([[0, 1], [0, 2]]), seed=1)
        >>> found.d.tolist(), found.s.tolist(), found.expected.tolist()
        ([2, 4], [2, 0], [2.0, 2.0])
    """
    _check(keep_prob, delta)
    if len(pairs) == 0:
        raise DataError(
            "the geometry of masks needs at least one pair of users, found none; take more users."
        )
    rows = SparseRows.from_csr(histories)
    users, others = (rows.take(torch.from_numpy(side)) for side in pairs.T.copy())
    d, s = (count.numpy() for count in _overlaps(users, others))
    contraction, expansion = (
        contraction_probability(d, s, keep_prob, delta),
        expansion_probability(d, s, keep_prob, delta),
    )
    contraction_bound, expansion_bound = hoeffding_bounds(d, s, keep_prob, delta)
    simulated = _simulated(users, others, d, keep_prob, delta, torch.Generator().manual_seed(seed))
    exact = np.stack([contraction, expansion], axis=1)[: len(simulated)]
    return MaskingGeometry(
        keep_prob=keep_prob,
        delta=delta,
        pairs=pairs,
        d=d,
        s=s,
        expected=expected_masked_distance(d, s, keep_prob),
        contraction=contraction,
        expansion=expansion,
        contraction_bound=contraction_bound,
        expansion_bound=expansion_bound,
        shared_contraction=contraction_probability(d, np.zeros_like(s), keep_prob, delta),
        simulated=simulated,
        # Clean inputs (ρ = 1) move nobody, whatever their place beside the line.
        share_contracting=(
            float((d > contraction_line(s, keep_prob)).mean()) if keep_prob < 1 else 0.0
        ),
        mean_contraction=float(contraction.mean()),
        mean_expansion=float(expansion.mean()),
        simulation_gap=float(np.abs(simulated - exact).mean()),
        simulation_error=float(np.sqrt(exact * (1 - exact) / SIMULATED_DRAWS).mean()),
    )


def random_pairs(n_users: int, n_pairs: int, seed: int) -> np.ndarray:
    """``[n_pairs, 2]`` int64 pairs of different users, drawn independently: one may come twice.

    Raises:
        DataError: if there are fewer than two users.
    """
    if n_users < 2:
        raise DataError(f"pairs need at least two users, found {n_users}; take more users.")
    rng = np.random.default_rng(seed)
    user = rng.integers(n_users, size=n_pairs)
    return np.stack([user, (user + rng.integers(1, n_users, size=n_pairs)) % n_users], axis=1)


def nearest_pairs(histories: csr_array) -> np.ndarray:
    """``[n_users, 2]`` int64: every user with the one of the most alike history, by Jaccard's
    distance; ties go to the lower row.

    Raises:
        DataError: if there are fewer than two users.
    """
    if histories.shape[0] < 2:
        raise DataError(
            f"pairs need at least two users, found {histories.shape[0]}; take more users."
        )
    d, s = pair_overlaps(histories, histories)
    distance = d / np.maximum(d + s, 1)
    np.fill_diagonal(distance, np.inf)
    return np.stack([np.arange(len(distance)), distance.argmin(axis=1)], axis=1)


def _check(keep_prob: float, delta: float) -> None:
    if not 0 < keep_prob <= 1:
        raise ConfigError(
            f"keep_prob must be in (0, 1], found {keep_prob}; take that of the training."
        )
    if not 0 <= delta <= 1:
        raise ConfigError(
            f"delta must be in [0, 1], found {delta}; 0.1 asks for a tenth of the distance."
        )


def _exact(product: np.ndarray) -> np.ndarray:
    """Without the last digits, in which 2 · 0.29 · 50 falls short of 29."""
    rounded: np.ndarray = np.round(product, 9)
    return rounded


def _at_most(d: np.ndarray, delta: float) -> np.ndarray:
    """The largest integer distance up to (1-δ)d."""
    distance: np.ndarray = np.floor(_exact((1 - delta) * np.asarray(d))).astype(np.int64)
    return distance


def _at_least(d: np.ndarray, delta: float) -> np.ndarray:
    """The smallest integer distance from (1+δ)d on."""
    distance: np.ndarray = np.ceil(_exact((1 + delta) * np.asarray(d))).astype(np.int64)
    return distance


def _summed_tail(
    tail: Callable[[np.ndarray, int, float], np.ndarray],
    d: np.ndarray,
    s: np.ndarray,
    at: np.ndarray,
    keep_prob: float,
) -> np.ndarray:
    """Σ_b P(Bin(s, 2ρ(1-ρ)) = b) · tail(at - b) of Bin(d, ρ); over s, which is the smaller of the
    two in nearly all pairs.
    """
    d, s, at = np.broadcast_arrays(d, s, at)
    distinct, place = np.unique(
        np.stack([d.ravel(), s.ravel(), at.ravel()]), axis=1, return_inverse=True
    )
    sums = []
    for one_d, one_s, one_at in distinct.T:
        b = np.arange(one_s + 1)
        sums.append(
            binom.pmf(b, one_s, 2 * keep_prob * (1 - keep_prob))
            @ tail(one_at - b, one_d, keep_prob)
        )
    # A sum of probabilities that is 1 may come out above it in the last digit.
    summed: np.ndarray = np.minimum(np.array(sums)[place.ravel()], 1.0).reshape(d.shape)
    return summed


def _simulated(
    users: SparseRows,
    others: SparseRows,
    d: np.ndarray,
    keep_prob: float,
    delta: float,
    generator: torch.Generator,
) -> np.ndarray:
    """``[at most SIMULATED_PAIRS, 2]`` shares of masks that bring the first pairs closer, and that
    push them apart.
    """
    d = d[:SIMULATED_PAIRS]
    first = torch.arange(len(d))
    drawn = simulate_masked_distance(
        users.take(first), others.take(first), keep_prob, SIMULATED_DRAWS, generator
    )
    return np.stack(
        [(drawn <= _at_most(d, delta)).mean(axis=0), (drawn >= _at_least(d, delta)).mean(axis=0)],
        axis=1,
    )


def _overlaps(users: SparseRows, others: SparseRows) -> tuple[Tensor, Tensor]:
    """The d and s, each ``[n]``, of every row with the row beside it."""
    one, two = (rows.row * rows.n_items + rows.indices for rows in (users, others))
    s = torch.bincount(users.row[torch.isin(one, two)], minlength=len(users))
    return users.counts + others.counts - 2 * s, s
