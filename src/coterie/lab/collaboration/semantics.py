"""Whether the latent space keeps who is like whom: recall of the nearest users by history among
those at the smallest latent angle.

A space that tells more of every user keeps more of it, too. So settings are also compared at
matched information: latent points are blurred by their own posterior's noise, widened or narrowed
until all settings could carry equally much.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional

from coterie.errors import ConfigError
from coterie.lab.collaboration.distances import nearest_neighbours
from coterie.lab.collaboration.masking import pair_overlaps
from coterie.lab.collaboration.posteriors import Posteriors

NATS = (10.0, 20.0, 40.0, 80.0)
"""Capacities at which settings are matched."""

WIDEST = 1e6
"""Times its own width, beyond which a posterior is not blurred."""


def history_neighbours(histories: csr_array, k: int) -> np.ndarray:
    """``[n, k]`` the nearest other users by Jaccard distance; ties go to the lower index.

    Example:
        >>> history_neighbours(csr_array([[1, 1, 0], [1, 1, 1], [0, 0, 1]]), 1).flatten().tolist()
        [1, 0, 1]
    """
    difference, shared = pair_overlaps(histories, histories)
    distance = difference / np.maximum(difference + shared, 1)
    np.fill_diagonal(distance, np.inf)
    nearest: np.ndarray = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return nearest


def recall_of_neighbours(points: Tensor, nearest: np.ndarray) -> np.ndarray:
    """``[n]`` share of a user's nearest by history among as many at the smallest latent angle.

    Args:
        points: ``[n, latent_dim]``.
        nearest: ``[n, k]`` from `history_neighbours`.
    """
    found = nearest_neighbours(functional.normalize(points, dim=1), nearest.shape[1])[0]
    met = found.cpu().numpy()[:, :, None] == nearest[:, None, :]
    recall: np.ndarray = met.any(axis=1).mean(axis=1)
    return recall


@dataclass(frozen=True, eq=False)
class Semantics:
    """Recall of the nearest users by history.

    Args:
        recall: ``[n]`` by the posterior means.
        nats: Capacities of the blurred points.
        matched: ``[n_nats, n]`` recall by points of that capacity; NaN if no two users differ.
    """

    recall: np.ndarray
    nats: tuple[float, ...]
    matched: np.ndarray


def semantics(
    users: Posteriors, histories: csr_array, k: int, *, seed: int, nats: tuple[float, ...] = NATS
) -> Semantics:
    """Measures recall of the k nearest users by history, at the means and at matched information.

    Args:
        users: Posteriors of clean histories.
        histories: Of the same users.
        k: How many are near.
        seed: Of the noise.
        nats: At which capacities.
    """
    nearest = history_neighbours(histories, k)
    generator = torch.Generator(users.mu.device).manual_seed(seed)
    noise = torch.randn(users.mu.shape, generator=generator, device=users.mu.device)
    matched = []
    for one in nats:
        width = width_at(users, one)
        points = users.mu + width * users.sigma * noise
        matched.append(
            np.full(len(users), np.nan)
            if not users.mu.var(dim=0).any()
            else recall_of_neighbours(points, nearest)
        )
    return Semantics(recall_of_neighbours(users.mu, nearest), nats, np.stack(matched))


def capacity(users: Posteriors, width: float = 1.0) -> float:
    """½ Σ log(1 + Var(mu) / (width² mean σ²)), in nats.

    Example:
        >>> users = Posteriors(torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1))
        >>> round(capacity(users), 4), round(capacity(users, 2.0), 4)
        (0.3466, 0.1116)
    """
    variance = users.mu.double().var(dim=0, correction=0)
    noise = (users.sigma.double().square().mean(dim=0) * width**2).clamp(min=1e-300)
    return float(0.5 * (variance / noise).log1p().sum())


def width_at(users: Posteriors, nats: float) -> float:
    """How many times wider than its own the noise must be for a capacity of ``nats``, by
    bisection.

    Raises:
        ConfigError: if ``nats`` is not above 0.

    Example:
        >>> users = Posteriors(torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1))
        >>> round(width_at(users, capacity(users, 2.0)), 4)
        2.0
    """
    if nats <= 0:
        raise ConfigError(f"a capacity to match must be above 0, found {nats}; try {NATS}.")
    low, high = 1 / WIDEST, WIDEST
    for _ in range(100):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if capacity(users, middle) > nats else (low, middle)
    return high
