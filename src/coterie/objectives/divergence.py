"""Divergences of the posterior from the prior."""

import math

import torch
from torch import Tensor

COMPOSITE_WEIGHTS = (3 / 20, 3 / 4, 1 / 10)
"""Of the standard normal, the earlier posterior and the wide normal, in RecVAE's prior."""

WIDE_LOGVAR = 10.0
"""Logarithm of the variance of the wide normal."""


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


def gaussian_log_density(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """The logarithm of N(z_k; mu_k, exp(logvar_k)) of every dimension, in the common shape of the
    arguments.

    Example:
        >>> round(gaussian_log_density(torch.zeros(1), torch.zeros(1), torch.zeros(1)).item(), 4)
        -0.9189
    """
    return -0.5 * (math.log(2 * math.pi) + logvar + (z - mu).square() * (-logvar).exp())


def composite_log_density(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """RecVAE's composite prior, a mixture in every dimension of N(0, 1), an earlier posterior of
    the same user and N(0, e^10).

    The paper writes the mixture of whole densities; the authors' code, which made their tables and
    is followed here, mixes in every dimension.

    Args:
        z: ``[n_users, latent_dim]``.
        mu: ``[n_users, latent_dim]`` mean of the earlier posterior, from the CLEAN history.
        logvar: ``[n_users, latent_dim]`` its log-variance.

    Returns:
        ``[n_users, latent_dim]``; their sum over dimensions is the logarithm of the prior density.

    References:
        Shenbin et al. (2020), section 3.2.

    Example:
        >>> at_once = composite_log_density(
        ...     torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1)
        ... ).exp()
        >>> round(at_once.item(), 4)  # (3/20 + 3/4) of 0.3989, and a tenth of 0.3989 e^-5
        0.3593
    """
    zero = torch.zeros((), dtype=z.dtype, device=z.device)
    components = ((zero, zero), (mu, logvar), (zero, zero + WIDE_LOGVAR))
    weighted = [
        gaussian_log_density(z, *one) + math.log(w)
        for w, one in zip(COMPOSITE_WEIGHTS, components, strict=True)
    ]
    return torch.stack(weighted).logsumexp(dim=0)


def mixture_log_density(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """The logarithm of a mixture, with equal weights, of K normals with diagonal covariances.

    The squared distances are taken apart into products of matrices, which need no ``[n, K,
    latent_dim]`` array; in float64, as their parts nearly cancel where variances are small.

    Args:
        z: ``[n, latent_dim]``.
        mu: ``[K, latent_dim]`` means.
        logvar: ``[K, latent_dim]`` log-variances.

    Returns:
        ``[n]``, of the type of ``z``.

    References:
        Tomczak and Welling (2018), equation 9.

    Example:
        >>> alone = mixture_log_density(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1))
        >>> round(alone.item(), 4)
        -0.9189
    """
    point, mean, log_variance = z.double(), mu.double(), logvar.double()
    precision = (-log_variance).exp()
    constant = (math.log(2 * math.pi) + log_variance + mean.square() * precision).sum(dim=1)
    crossed = point.square() @ precision.t() - 2 * point @ (mean * precision).t()
    density = (-0.5 * (crossed + constant)).logsumexp(dim=1) - math.log(len(mean))
    return density.to(z.dtype)


def sampled_kl(z: Tensor, mu: Tensor, logvar: Tensor, log_prior: Tensor) -> Tensor:
    """One draw's estimate of KL(q ‖ p): log q(z) - log p(z), a SUM over latent dimensions;
    unbiased, and may be negative.

    Args:
        z: ``[n_users, latent_dim]`` drawn from q, with gradients to its parameters.
        mu: ``[n_users, latent_dim]`` mean of q.
        logvar: ``[n_users, latent_dim]`` log-variance of q.
        log_prior: ``[n_users, latent_dim]`` log p(z) of every dimension.

    Returns:
        ``[n_users]`` in nats.
    """
    return (gaussian_log_density(z, mu, logvar) - log_prior).sum(dim=1)
