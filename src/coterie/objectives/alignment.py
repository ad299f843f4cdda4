"""Personalized Item Alignment (PIA): item anchors pull a user's posterior towards their items."""

import torch
from torch import Tensor

from coterie.sparse import SparseRows, gather_sum


def alignment(mu: Tensor, logvar: Tensor, anchors: Tensor, positives: SparseRows) -> Tensor:
    """L_A of every user: the mean over their items of E_z ‖z - e_i‖², in closed form.

        L_A = ‖mu - ē‖² + Σ_k exp(logvar_k) + (1/n)Σ_i ‖e_i‖² - ‖ē‖²,    ē = mean anchor of the
        user's items

    It moves the posterior to the centroid of its user's anchors, makes it narrow, and gathers what
    is consumed together.

    Beside β·KL(q ‖ N(0, I)) it is a prior of each user's own, learned: with r = 2λ/β,

        β·KL(q ‖ N(0, I)) + λ·L_A = β·KL(q ‖ N(r/(1 + r)·ē, 1/(1 + r)·I)) + λ/(1 + r)·‖ē‖²
                                    + λ·((1/n)Σ_i ‖e_i‖² - ‖ē‖²) + (β·latent_dim/2)·log(1 + r)

    by completing the square; r is its strength.

    Args:
        mu: ``[n_users, latent_dim]`` posterior mean, from the MASKED input.
        logvar: ``[n_users, latent_dim]`` natural logarithm of the posterior variance, from the same
            input.
        anchors: ``[n_items, latent_dim]`` one learnable point per item, used in training only.
        positives: ``[n_users, n_items]`` the CLEAN histories.

    Returns:
        ``[n_users]``, never negative; 0 for an empty history, which has no items to align with.

    References:
        "On the Mechanisms of Collaborative Learning in VAE Recommenders" (arXiv 2511.06781), the
        PIA loss.

    Example:
        >>> from scipy.sparse import csr_array
        >>> rows = SparseRows.from_csr(csr_array([[1, 1]]))
        >>> alignment(
        ...     torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([[3.0, 0.0], [0.0, 4.0]]), rows
        ... ).tolist()
        [14.5]
    """
    n = positives.counts.clamp(min=1).to(mu.dtype)
    centroid = gather_sum(positives, anchors) / n.unsqueeze(1)
    squares = gather_sum(positives, anchors.square().sum(dim=1, keepdim=True)).squeeze(1) / n
    parts = (
        (mu - centroid).square().sum(dim=1),
        logvar.exp().sum(dim=1),
        squares - centroid.square().sum(dim=1),
    )
    return torch.where(positives.counts > 0, torch.stack(parts).sum(dim=0), 0.0)
