"""Influence along distance: how much a step on one user serves another, by how far apart the two
are.
"""

from dataclasses import dataclass

import numpy as np

from coterie.errors import ConfigError, DataError


@dataclass(frozen=True)
class InfluenceCurve:
    """Mean transfer between users in bins of their latent distance, with bootstrap intervals over
    users.

    Arrays are ``[n_bins]`` but for the edges. Bin b holds the pairs of distances above ``edges[b]``
    up to ``edges[b + 1]``; the first one those at ``edges[0]``, too.

    Args:
        edges: ``[n_bins + 1]`` quantiles of the distance.
        distance: Mean distance in the bin.
        pairs: Number of pairs; int64.
        transfer: Mean of <g_u, g_v>.
        transfer_low: Lower end of its interval.
        transfer_high: Upper end.
        cosine: Mean of <g_u, g_v> / (‖g_u‖ ‖g_v‖), which heavy users do not outweigh.
        cosine_low: Lower end of its interval.
        cosine_high: Upper end.
        confidence: Of the intervals.
    """

    edges: np.ndarray
    distance: np.ndarray
    pairs: np.ndarray
    transfer: np.ndarray
    transfer_low: np.ndarray
    transfer_high: np.ndarray
    cosine: np.ndarray
    cosine_low: np.ndarray
    cosine_high: np.ndarray
    confidence: float


def influence_by_distance(
    transfer: np.ndarray,
    distance: np.ndarray,
    norms: np.ndarray,
    other_norms: np.ndarray | None = None,
    *,
    seed: int,
    mask: np.ndarray | None = None,
    n_bins: int = 10,
    n_resamples: int = 1000,
    confidence: float = 0.95,
) -> InfluenceCurve:
    """How transfer depends on latent distance.

    Pairs that share a user are not independent, so the percentile bootstrap resamples users: a pair
    counts as often as its u times as often as its v was drawn. The bins stay those of the sample.

    Args:
        transfer: ``[n, m]`` from `gradient_transfer`.
        distance: ``[n, m]`` between posteriors, any kind.
        norms: ``[n]`` ‖g_u‖.
        other_norms: ``[m]`` ‖g_v‖; None = columns are the same users as rows: no user is paired
            with itself, and a resample has the same users on both sides.
        seed: Of the resampling.
        mask: ``[n, m]`` bool, the pairs to count; None = all.
        n_bins: Quantile bins; fewer where distances tie.
        n_resamples: Of the bootstrap.
        confidence: Of the intervals, between 0 and 1.

    Raises:
        ConfigError: if the bins, the resamples or the confidence cannot be honoured.
        DataError: if no pair is left to count.

    References:
        Owen (2007), "The pigeonhole bootstrap", for resampling rows and columns.

    Example:
        >>> distance = np.abs(np.subtract.outer(np.arange(6.0), np.arange(6.0)))
        >>> curve = influence_by_distance(
        ...     1 / (1 + distance), distance, np.ones(6), seed=0, n_bins=2, n_resamples=50
        ... )
        >>> curve.pairs.tolist(), bool(curve.cosine[0] > curve.cosine[1])
        ([18, 12], True)
    """
    if n_bins < 1 or n_resamples < 1 or not 0 < confidence < 1:
        found = f"{n_bins}, {n_resamples} and {confidence}"
        raise ConfigError(
            "n_bins and n_resamples must be at least 1 and confidence between 0 and 1, found"
            f" {found}; try 10, 1000, 0.95."
        )
    counted = np.ones(transfer.shape, dtype=bool) if mask is None else mask.copy()
    if other_norms is None:
        np.fill_diagonal(counted, False)
    if not counted.any():
        raise DataError(
            "a curve needs at least one pair of users, found none to count; take more users or a"
            " wider mask."
        )
    sizes = np.outer(norms, norms if other_norms is None else other_norms)
    cosine = np.divide(transfer, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    # Edges that are distances themselves leave no bin empty.
    edges = np.unique(
        np.quantile(distance[counted], np.linspace(0, 1, n_bins + 1), method="inverted_cdf")
    )
    edges = edges if len(edges) > 1 else np.repeat(edges, 2)
    place = np.where(counted, np.searchsorted(edges[1:-1], distance), -1)
    users, others = _resamples(transfer.shape, n_resamples, seed, same=other_norms is None)
    tail, bins = 50 * (1 - confidence), []
    for members in (place == b for b in range(len(edges) - 1)):
        times = _weighted_sums(members.astype(np.float64), users, others)
        line = [distance[members].mean(), members.sum()]
        for values in (transfer, cosine):
            sums = _weighted_sums(np.where(members, values, 0), users, others)
            line += [
                values[members].mean(),
                *_percentiles(sums[times > 0] / times[times > 0], tail),
            ]
        bins.append(line)
    middle, pairs, raw, raw_low, raw_high, cos, cos_low, cos_high = np.array(bins).T
    return InfluenceCurve(
        edges,
        middle,
        pairs.astype(np.int64),
        raw,
        raw_low,
        raw_high,
        cos,
        cos_low,
        cos_high,
        confidence,
    )


def _resamples(
    shape: tuple[int, ...], n_resamples: int, seed: int, *, same: bool
) -> tuple[np.ndarray, np.ndarray]:
    """How often each row and each column is drawn, ``[n_resamples, n]`` and ``[n_resamples, m]``
    float64.
    """
    rng = np.random.default_rng(seed)
    users, others = (
        rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(np.float64) for n in shape
    )
    return users, users if same else others


def _weighted_sums(values: np.ndarray, users: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Σ_uv w_u w_v values_uv of every resample: ``[n_resamples]``."""
    sums: np.ndarray = ((users @ values) * others).sum(axis=1)
    return sums


def _percentiles(values: np.ndarray, tail: float) -> tuple[float, float]:
    """The values that leave ``tail`` percent out on either side; NaN if there are none."""
    if len(values) == 0:
        return np.nan, np.nan
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
