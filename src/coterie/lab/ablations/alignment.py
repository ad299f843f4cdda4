"""PIA's variants as functions of tensors: its parts one by one, weighted centroids, a soft minimum.

- `alignment_parts` are the three parts of L_A, which can be switched off one by one;
- weights for the items of a centroid, by rarity (`rarity_weights`), recency (`recency_weights`) or
  how often the user had them (`count_weights`), go into it as the values of the histories;
- `nearest_alignment` is for users of several interests: each anchor is a centroid of its own, and
  the near ones count.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from coterie.sparse import SparseRows, gather_sum


class AlignmentParts(NamedTuple):
    """L_A of every user, ``[n_users]`` each; their sum is the published loss."""

    alignment: Tensor
    """‖mu - ē‖²: moves the posterior to the centroid of its user's anchors."""

    shrinkage: Tensor
    """Σ_k exp(logvar_k): makes the posterior narrow."""

    attraction: Tensor
    """mean ‖e_i‖² - ‖ē‖², the scatter of a user's anchors: gathers what is consumed together,
    constant for the encoder.
    """


def alignment_parts(
    mu: Tensor, logvar: Tensor, anchors: Tensor, positives: SparseRows
) -> AlignmentParts:
    """The three parts of `coterie.objectives.alignment.alignment`, whose arguments it takes; the
    values of ``positives``, if it has any, are the weights of the means.
    """
    total = _total_weight(positives, mu.dtype)
    centroid = gather_sum(positives, anchors, positives.values) / total.unsqueeze(1)
    mean_square = (
        gather_sum(positives, anchors.square().sum(dim=1, keepdim=True), positives.values).squeeze(
            1
        )
        / total
    )
    parts = (
        (mu - centroid).square().sum(dim=1),
        logvar.exp().sum(dim=1),
        mean_square - centroid.square().sum(dim=1),
    )
    return AlignmentParts(*(torch.where(positives.counts > 0, part, 0.0) for part in parts))


def nearest_alignment(
    mu: Tensor, logvar: Tensor, anchors: Tensor, positives: SparseRows, temperature: float
) -> Tensor:
    """A soft minimum over a user's anchors in place of the mean, plus the shrinkage: for users of
    several interests.

        L = -T log Σ_i w_i exp(-‖mu - e_i‖² / T) + Σ_k exp(logvar_k),    Σ_i w_i = 1

    As T grows it becomes the published loss (by Jensen's inequality it is never above it); as T
    falls, only the nearest anchor counts: as many centroids as the user has items, and no number of
    them to choose.

    Args:
        mu: ``[n_users, latent_dim]``.
        logvar: ``[n_users, latent_dim]``.
        anchors: ``[n_items, latent_dim]``.
        positives: ``[n_users, n_items]``; their values, if they have any, are the weights w, up to
            a factor.
        temperature: T, above 0, in squared units of the latent space.

    Returns:
        ``[n_users]``; 0 for an empty history. Memory: interactions × latent_dim.

    Example:
        >>> from scipy.sparse import csr_array
        >>> rows = SparseRows.from_csr(csr_array(np.array([[1, 1]])))
        >>> near, far = torch.zeros(1, 2), torch.tensor([[0.0, 0.0], [9.0, 9.0]])
        >>> round(
        ...     nearest_alignment(near, torch.zeros(1, 2), far, rows, 1.0).item() - 2, 3
        ... )  # log 2: half of the weight is far away
        0.693
    """
    row, weight = positives.row, _weights(positives, mu.dtype)
    total = _total_weight(positives, mu.dtype)
    distance = (mu[row] - anchors[positives.indices]).square().sum(dim=1)
    logit = (weight / total[row]).log() - distance / temperature
    highest = torch.full_like(total, -torch.inf).scatter_reduce(0, row, logit.detach(), "amax")
    summed = torch.zeros_like(total).index_add(0, row, (logit - highest[row]).exp())
    per_user = -temperature * (highest + summed.log()) + logvar.exp().sum(dim=1)
    # An empty row is inf - inf: it must not reach the gradient either.
    return torch.where(positives.counts > 0, per_user.nan_to_num(0.0, 0.0, 0.0), 0.0)


def rarity_weights(popularity: np.ndarray, exponent: float) -> np.ndarray:
    """``[n_items]`` float32 weights (training users)^-exponent: what few have tells more of who has
    it.

    Args:
        popularity: ``[n_items]`` training users of each item; an item of none weighs as one of one.
        exponent: 0 gives everybody the same weight, 1 the inverse of the popularity.
    """
    weights: np.ndarray = np.maximum(popularity, 1).astype(np.float64) ** -exponent
    return weights.astype(np.float32)


def recency_weights(timestamps: np.ndarray, indptr: np.ndarray, half_life: float) -> np.ndarray:
    """``[n_interactions]`` float32 weights that halve with every ``half_life`` days before the
    user's last interaction.

    Args:
        timestamps: ``[n_interactions]`` seconds since 1970.
        indptr: ``[n_users + 1]`` where each user's interactions start.
        half_life: In days, above 0.

    Example:
        >>> recency_weights(
        ...     np.array([0, 86400, 172800]), np.array([0, 3, 3]), half_life=1.0
        ... ).tolist()
        [0.25, 0.5, 1.0]
    """
    counts = np.diff(indptr)
    last = np.repeat(
        np.maximum.reduceat(timestamps, indptr[:-1][counts > 0]) if len(timestamps) else timestamps,
        counts[counts > 0],
    )
    # Not below float32's least: a weight of 0 would take an item out of the history.
    weights: np.ndarray = np.maximum(0.5 ** ((last - timestamps) / 86400 / half_life), 1e-30)
    return weights.astype(np.float32)


def count_weights(counts: np.ndarray, exponent: float) -> np.ndarray:
    """``[n_interactions]`` float32 weights count^exponent: what a user comes back to tells more of
    the user.

    Args:
        counts: ``[n_interactions]`` how often the user had the item, at least 1.
        exponent: 0 gives every item the same weight, 1 its count.

    Example:
        >>> count_weights(np.array([1, 4, 9]), exponent=0.5).tolist()
        [1.0, 2.0, 3.0]
    """
    weights: np.ndarray = counts.astype(np.float64) ** exponent
    return weights.astype(np.float32)


def _weights(positives: SparseRows, dtype: torch.dtype) -> Tensor:
    return (
        torch.ones_like(positives.indices, dtype=dtype)
        if positives.values is None
        else positives.values
    )


def _total_weight(positives: SparseRows, dtype: torch.dtype) -> Tensor:
    """``[n_users]`` summed weights; 1 for an empty history, which divides nothing."""
    if positives.values is None:
        return positives.counts.clamp(min=1).to(dtype)
    total = torch.zeros(len(positives), dtype=dtype, device=positives.values.device).index_add(
        0, positives.row, positives.values.to(dtype)
    )
    return torch.where(positives.counts > 0, total, 1.0)
