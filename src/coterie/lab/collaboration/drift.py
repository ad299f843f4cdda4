"""Neighbourhood drift: how far masks move users inside the latent space, and what PIA should take
off it.
"""

import math
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from coterie.errors import ConfigError, NumericalError
from coterie.lab.collaboration.distances import nearest_neighbours
from coterie.lab.collaboration.posteriors import encode_users
from coterie.networks.autoencoder import Autoencoder
from coterie.running.progress import Progress, Update, silent
from coterie.sparse import SparseRows


@dataclass(frozen=True)
class Drift:
    """How the posterior means of users move from mask to mask; distances in units of the latent
    space.
    """

    keep_prob: float
    """Probability that an entry survived a mask."""

    k: int
    """Size of a neighbourhood."""

    n_draws: int
    """Masks drawn of every history."""

    overlap: np.ndarray
    """``[n_users]`` Jaccard overlap of the user's k nearest under two masks, mean over all pairs of
    draws; 1 = no drift.
    """

    clean_overlap: np.ndarray
    """``[n_users]`` Jaccard overlap of the user's k nearest under a mask and for clean histories,
    mean over draws.
    """

    variance: np.ndarray
    """``[n_users]`` variance of mu over masks, summed over dimensions; unbiased."""

    centroid_distance: np.ndarray | None
    """``[n_users]`` distance of mu to the user's centroid, mean over draws; None without centroids.
    """

    within: float
    """Root mean square distance of mu to the user's own mean over masks: the square root of the
    mean ``variance``.
    """

    between: float
    """Root mean square distance between the means of two different users, the noise of ``n_draws``
    masks included.
    """

    ratio: float
    """``within`` over ``between``; NaN if no two users differ, as in a collapsed model."""

    sigma: float
    """Root mean square length of a posterior's own noise, √(Σ σ²), without masks."""

    @property
    def in_sigma(self) -> float:
        """``within`` in units of the posterior's noise: below 1 a mask moves a user less than the
        noise that training adds itself.
        """
        return self.within / self.sigma if self.sigma else math.inf

    @property
    def between_in_sigma(self) -> float:
        """``between`` in units of the noise of two posteriors, √2 ``sigma``."""
        return self.between / (math.sqrt(2) * self.sigma) if self.sigma else math.inf

    def chance_overlap(self) -> float:
        """The Jaccard overlap to expect of k users drawn at random, twice."""
        shared = self.k / (len(self.overlap) - 1)
        return shared / (2 - shared)

    def overlap_interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Of the mean overlap, by its standard error over users."""
        error = float(self.overlap.std()) / math.sqrt(len(self.overlap))
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
        return self.mean_overlap - reach, self.mean_overlap + reach

    @property
    def mean_overlap(self) -> float:
        """``overlap`` over all users; NaN if no two differ, so that nobody is near to anybody."""
        return float(self.overlap.mean()) if self.between else math.nan


def neighbourhood_drift(
    network: Autoencoder,
    rows: SparseRows,
    *,
    keep_prob: float,
    k: int,
    n_draws: int,
    seed: int,
    centroids: Tensor | None = None,
    progress: Progress = silent,
) -> Drift:
    """Encodes users under mask after mask and follows their means and whom they are near to.

    Memory: n_draws × n_users × (latent_dim + k) numbers.

    Args:
        network: A variational autoencoder.
        rows: ``[n_users, n_items]`` clean histories, on the device of the network.
        keep_prob: Probability that an entry survives a mask, in (0, 1]; 1 = no drift.
        k: Size of a neighbourhood, below the number of users. Users left without items by a mask
            are all at one point, and near to each other.
        n_draws: Masks of every history, 2 or more.
        seed: Of the masks.
        centroids: ``[n_users, latent_dim]`` the mean anchor of each user's items, to measure how
            near to it mu stays.
        progress: Called after every draw.

    Raises:
        ConfigError: if ``keep_prob``, ``k`` or ``n_draws`` is out of range, or the network has no
            posterior.
        DataError: if there is no user, or one without items.
        NumericalError: if a posterior is not finite.

    References:
        "On the Mechanisms of Collaborative Learning in VAE Recommenders" (arXiv 2511.06781), on
        neighbourhood drift.

    Example:
        >>> from scipy.sparse import csr_array
        >>> from coterie.models.multvae import MultVAEConfig
        >>> config = MultVAEConfig(hidden_dims=(3,), latent_dim=2)
        >>> network = config.build(4, torch.Generator().manual_seed(1))
        >>> rows = SparseRows.from_csr(csr_array([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 0]]))
        >>> clean = neighbourhood_drift(network, rows, keep_prob=1, k=1, n_draws=2, seed=1)
        >>> clean.overlap.tolist(), clean.within
        ([1.0, 1.0, 1.0], 0.0)
    """
    if n_draws < 2:
        raise ConfigError(
            f"n_draws must be at least 2, found {n_draws}; one mask alone shows no drift."
        )
    users = encode_users(network, rows)
    clean = nearest_neighbours(users.mu, k)[0]
    generator = torch.Generator(clean.device).manual_seed(seed)
    means, neighbours = [], []
    for draw in range(n_draws):
        means.append(encode_users(network, rows, keep_prob=keep_prob, generator=generator).mu)
        neighbours.append(nearest_neighbours(means[-1], k)[0])
        progress(Update("drift", draw + 1, n_draws, "draws"))
    mu = torch.stack(means)
    variance = mu.var(dim=0).sum(dim=1)
    within = math.sqrt(variance.mean())
    # Over pairs of different users the mean of ‖a - b‖² is twice the unbiased variance.
    between = math.sqrt(2 * mu.mean(dim=0).var(dim=0).sum())
    return Drift(
        keep_prob=keep_prob,
        k=k,
        n_draws=n_draws,
        overlap=_mean([_jaccard(one, two) for one, two in combinations(neighbours, 2)]),
        clean_overlap=_mean([_jaccard(one, clean) for one in neighbours]),
        variance=variance.cpu().numpy(),
        centroid_distance=(
            None
            if centroids is None
            else _mean([torch.linalg.vector_norm(one - centroids, dim=1) for one in means])
        ),
        within=within,
        between=between,
        ratio=within / between if between else math.nan,
        sigma=math.sqrt(users.sigma.square().sum(dim=1).mean()),
    )


def implied_tau(variance_without: float, variance_with: float) -> float:
    """τ of the quadratic model, from the variances over masks that it says are in the ratio τ²:
    sqrt(with / without PIA).

    Raises:
        NumericalError: if a variance is not above 0.
    """
    if not (variance_without > 0 and variance_with > 0):
        found = f"{variance_without} without and {variance_with} with PIA"
        raise NumericalError(
            f"variances over masks must be above 0, found {found}; measure with keep_prob below 1,"
            " on a model that did not collapse."
        )
    return math.sqrt(variance_with / variance_without)


def implied_curvature(tau: float, pia: float) -> float:
    """The curvature L with τ = L / (L + 2 λ_A), fitted at λ_A = ``pia`` to predict the others;
    infinite where nothing shrank (τ ≥ 1).
    """
    return 2 * pia * tau / (1 - tau) if tau < 1 else math.inf


def predicted_tau(curvature: float, pia: float) -> float:
    """τ = L / (L + 2 λ_A): by it PIA shrinks the distance of mu to its centroid, and by τ² the
    variance over masks.

    Args:
        curvature: L, above 0.
        pia: λ_A, the weight of the alignment in the objective.

    References:
        "On the Mechanisms of Collaborative Learning in VAE Recommenders" (arXiv 2511.06781), the
        quadratic model of PIA.

    Example:
        >>> curvature = implied_curvature(
        ...     implied_tau(variance_without=4.0, variance_with=1.0), pia=1.0
        ... )
        >>> curvature, predicted_tau(curvature, pia=3.0)
        (2.0, 0.25)
    """
    return 1 / (1 + 2 * pia / curvature)


def _mean(per_user: list[Tensor]) -> np.ndarray:
    mean: np.ndarray = torch.stack(per_user).mean(dim=0).cpu().numpy()
    return mean


def _jaccard(neighbours: Tensor, others: Tensor) -> Tensor:
    """``[n]`` float64 overlap of two ``[n, k]`` sets: sorted together, what both have stands twice
    in a row.
    """
    together = torch.cat([neighbours, others], dim=1).sort(dim=1).values
    shared = (together[:, 1:] == together[:, :-1]).sum(dim=1)
    return shared.double() / (together.shape[1] - shared)
