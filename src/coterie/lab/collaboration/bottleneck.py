"""What passes the bottleneck: how much a latent point tells of its user, and how many dimensions
carry it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from coterie.errors import ConfigError, DataError
from coterie.lab.collaboration.posteriors import Posteriors
from coterie.objectives.divergence import gaussian_kl

ALIVE = 0.01
"""A dimension is alive if its mean varies over users by more than this share of the posterior's own
variance. Burda et al. (2016) ask for as much of a variance of 1, which is that of a posterior that
tells nothing; but PIA, and a larger β, make every posterior narrower than that.
"""

NARROWEST = 1e-30
"""A deviation that underflowed counts as this: 69 nats of KL a dimension, where zero would give
infinity.
"""

NARROWEST_IN_SPREAD = 1e-5
"""The same for mutual information, in units of the dimension's largest mean: below it, float64
cannot tell densities apart.
"""


@dataclass(frozen=True, eq=False)
class Bottleneck:
    """The KL term of the objective and its two parts: mean KL = mutual information + aggregate KL.

    The identity is exact for the users at hand and their mixture. For ALL users, of whom these are
    a sample, the parts are biased, because every user's own posterior is a good part of the
    mixture: information comes out too small, aggregate KL as much too large. Information cannot
    exceed the ceiling log n_users; near it everybody is told apart, and the number says nothing but
    "at least". Hence the second bound, from mixtures without the user's own posterior. The truth
    about all users lies between the two, up to the luck of sample and draws. Compare settings on
    the same users.

    Args:
        n_users: Users in the mixture.
        n_draws: Latent points drawn from each.
        mean_kl_nats: Mean over users of KL(q_u ‖ N(0, I)), in closed form.
        mean_kl_error: Its standard error over users, as are the others.
        kl_by_dimension_nats: ``[latent_dim]`` mean over users; their sum is ``mean_kl_nats``.
        kl_of_means_nats: The part of it that the means' distance from the origin makes, ½‖mu‖².
        kl_of_variances_nats: The rest: ½ Σ (σ² - 1 - log σ²), what narrow posteriors cost.
        information_nats: I(U; Z), estimated without bias for these users. By the luck of the draws
            it may fall a little below 0.
        information_error: Its standard error.
        information_at_most_nats: The upper bound for all users, from mixtures of the others; or
            ``mean_kl_nats``, if that is less.
        ceiling_nats: log n_users, the most that ``information_nats`` can be.
        aggregate_kl_nats: KL(mixture of the posteriors ‖ N(0, I)), as ``mean_kl_nats`` less
            ``information_nats``.
        aggregate_kl_error: Its standard error.
        own_probability: Mean probability of the right user, given a latent point and all
            posteriors: 1 / n_users after a collapse, 1 if everybody is told apart.
        mean_variance: ``[latent_dim]`` variance over users of the posterior mean.
        posterior_variance: ``[latent_dim]`` mean over users of σ².
    """

    n_users: int
    n_draws: int
    mean_kl_nats: float
    mean_kl_error: float
    kl_by_dimension_nats: np.ndarray
    kl_of_means_nats: float
    kl_of_variances_nats: float
    information_nats: float
    information_error: float
    information_at_most_nats: float
    ceiling_nats: float
    aggregate_kl_nats: float
    aggregate_kl_error: float
    own_probability: float
    mean_variance: np.ndarray
    posterior_variance: np.ndarray

    @property
    def activity(self) -> np.ndarray:
        """``[latent_dim]`` variance of the mean over users, in units of the posterior's own: no
        scale of the latent space changes it.
        """
        floor = np.maximum(self.posterior_variance, NARROWEST**2)
        activity: np.ndarray = self.mean_variance / floor
        return activity

    @property
    def n_active(self) -> int:
        """Dimensions that are alive: `activity` above `ALIVE`."""
        return int((self.activity > ALIVE).sum())

    @property
    def capacity_nats(self) -> float:
        """½ Σ log(1 + activity): what as many Gaussian channels could carry. Unlike the information
        it has no ceiling in the number of users.
        """
        return float(0.5 * np.log1p(self.activity).sum())


def measure_bottleneck(
    users: Posteriors, *, n_draws: int, seed: int, block_size: int = 2048
) -> Bottleneck:
    """Measures how much of its user a latent point tells, and how far all latent points together
    are from the prior.

    Time grows with n_draws · n_users² · latent_dim, memory with n_users · latent_dim and
    block_size².

    Args:
        users: The posteriors, which also are the mixture.
        n_draws: Latent points for each user.
        seed: Of the draws.
        block_size: Points and posteriors that meet in memory at once; does not change the draws.

    Raises:
        ConfigError: if a number is below 1.
        DataError: if there are no users.

    References:
        Hoffman and Johnson (2016), "ELBO surgery", for the identity. Poole et al. (2019), "On
        variational bounds of mutual information", for the bounds.

    Example:
        >>> two_groups = Posteriors(
        ...     torch.tensor([[-50.0], [-50.0], [50.0], [50.0]]), torch.ones(4, 1)
        ... )
        >>> found = measure_bottleneck(two_groups, n_draws=10, seed=1)
        >>> round(found.information_nats, 4), round(math.log(2), 4), found.mean_kl_nats
        (0.6931, 0.6931, 1250.0)
    """
    if n_draws < 1 or block_size < 1:
        raise ConfigError(
            f"n_draws and block_size must be at least 1, found {n_draws} and {block_size}; 4 and"
            " 2048 are a good start."
        )
    if len(users) == 0:
        raise DataError(
            "mutual information needs at least one user, found none; pass the posteriors of some."
        )
    kl = _kl_by_dimension(users)
    odds = _log_odds(users, n_draws, seed, block_size)
    own = logsigmoid(odds)
    information = own.mean(dim=0) + math.log(len(users))
    mean_kl, mean_kl_error = _mean_and_error(kl.sum(dim=1))
    information_nats, information_error = _mean_and_error(information)
    ceiling = math.log(len(users))
    aggregate_kl, aggregate_kl_error = _mean_and_error(kl.sum(dim=1) - information)
    variance = users.mu.double().var(dim=0, correction=0)
    of_means = float(0.5 * users.mu.double().square().sum(dim=1).mean())
    return Bottleneck(
        n_users=len(users),
        n_draws=n_draws,
        mean_kl_nats=mean_kl,
        mean_kl_error=mean_kl_error,
        kl_by_dimension_nats=kl.mean(dim=0).cpu().numpy(),
        kl_of_means_nats=of_means,
        kl_of_variances_nats=mean_kl - of_means,
        # A mean of many equal numbers may come out above them, in the last digit.
        information_nats=min(information_nats, ceiling),
        information_error=information_error,
        # One user alone has infinite odds, and the mean KL bounds.
        information_at_most_nats=min(
            mean_kl, float(odds.mean()) + math.log(max(len(users) - 1, 1))
        ),
        ceiling_nats=ceiling,
        aggregate_kl_nats=aggregate_kl,
        aggregate_kl_error=aggregate_kl_error,
        own_probability=float(own.exp().mean()),
        mean_variance=variance.cpu().numpy(),
        posterior_variance=users.sigma.double().square().mean(dim=0).cpu().numpy(),
    )


def _kl_by_dimension(users: Posteriors) -> Tensor:
    """``[n_users, latent_dim]``, their sum over dimensions being KL(q_u ‖ N(0, I))."""
    logvar = 2 * users.sigma.double().clamp(min=NARROWEST).log()
    return gaussian_kl(users.mu.double().reshape(-1, 1), logvar.reshape(-1, 1)).view_as(logvar)


def _mean_and_error(of_users: Tensor) -> tuple[float, float]:
    # Users as a sample of all. That the mixture is of the same sample adds to the error of mutual
    # information in second order only: its influence function is KL(q_u ‖ mixture), the user's own
    # term.
    return float(of_users.mean()), float(of_users.std(correction=0)) / math.sqrt(len(of_users))


def _log_odds(users: Posteriors, n_draws: int, seed: int, block_size: int) -> Tensor:
    """``[n_draws, n_users]`` float64: log odds of the right user against all others, given a point
    drawn from its posterior.
    """
    generator = torch.Generator(users.mu.device).manual_seed(seed)
    users = _in_float64(users)
    components = list(_blocks_of_densities(users, block_size))
    # One draw at a time: the points are then never more than the posteriors themselves.
    return torch.stack(
        [
            _log_odds_of_points(users, users.draw(1, generator)[0], components, block_size)
            for _ in range(n_draws)
        ]
    )


def _in_float64(users: Posteriors) -> Posteriors:
    """The same users around the origin, where squares are smallest, and no narrower than their
    differences can be computed.
    """
    mu = users.mu.double() - users.mu.double().mean(dim=0)
    narrowest = (NARROWEST_IN_SPREAD * mu.abs().amax(dim=0)).clamp(min=NARROWEST)
    return Posteriors(mu, users.sigma.double().maximum(narrowest))


def _blocks_of_densities(users: Posteriors, block_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Log densities as one product: ``[m]`` constants and ``[2 latent_dim, m]`` weights of (z², z),
    without the term all have in common.
    """
    for mu, sigma in zip(
        torch.split(users.mu, block_size), torch.split(users.sigma, block_size), strict=True
    ):
        precision = sigma.square().reciprocal()
        constant = -(0.5 * precision * mu.square() + sigma.log()).sum(dim=1)
        yield constant, torch.cat([-0.5 * precision, precision * mu], dim=1).t()


def _log_odds_of_points(
    users: Posteriors, z: Tensor, components: list[tuple[Tensor, Tensor]], block_size: int
) -> Tensor:
    """``[n_users]``: log q_u(z_u) less the logarithm of the sum of all others' densities at z_u."""
    own = -(0.5 * ((z - users.mu) / users.sigma).square() + users.sigma.log()).sum(dim=1)
    others = []
    for place, points in enumerate(torch.split(z, block_size)):
        features = torch.cat([points.square(), points], dim=1)
        total = own.new_full((len(points),), -math.inf)
        for block, (constant, weights) in enumerate(components):
            log_density = torch.addmm(constant, features, weights)
            if block == place:
                log_density.fill_diagonal_(-math.inf)
            total = total.logaddexp(log_density.logsumexp(dim=1))
        others.append(total)
    return own - torch.cat(others)
