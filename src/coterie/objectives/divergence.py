"""Divergences of the posterior from the prior."""

from torch import Tensor


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, diag exp(logvar)) ‖ N(0, I)) of every user: a SUM over latent dimensions.

    Args:
        mu: ``[n_users, latent_dim]``.
        logvar: ``[n_users, latent_dim]`` natural logarithm of the variance.

    Returns:
        ``[n_users]`` in nats, never negative.

    References:
        Kingma and Welling (2014), appendix B.

    Example:
        >>> import torch
        >>> gaussian_kl(torch.ones(1, 3), torch.zeros(1, 3)).tolist()
        [1.5]
    """
    # expm1 keeps the digits that exp(v) - 1 - v loses near v = 0.
    return 0.5 * (mu.square() + logvar.expm1() - logvar).sum(dim=1)
