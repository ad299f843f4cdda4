"""Which network belongs to which configuration: built for training, fitted by its closed form, or empty, for weights to be loaded."""

from typing import TypeAlias

import torch
from scipy.sparse import csr_array

from coterie.config import ClosedFormConfig, ModelsConfig, NetworkConfig
from coterie.models.ease import Ease, EaseConfig
from coterie.models.multdae import MultDAE
from coterie.models.multvae import MultVAE, MultVAEConfig
from coterie.models.popularity import Popularity, PopularityConfig

Network: TypeAlias = MultVAE | MultDAE | Ease | Popularity


def build_network(n_items: int, model: NetworkConfig, generator: torch.Generator | None = None) -> MultVAE | MultDAE:
    """An untrained network, its weights drawn from ``generator``."""
    generator = generator or torch.Generator()
    return MultVAE(n_items, model, generator) if isinstance(model, MultVAEConfig) else MultDAE(n_items, model, generator)


def fit_network(train: csr_array, model: ClosedFormConfig) -> Network:
    """The closed form on a ``[n_users, n_items]`` binary matrix."""
    return Ease.fit(train, model) if isinstance(model, EaseConfig) else Popularity.fit(train, model)


def empty_network(n_items: int, model: ModelsConfig) -> Network:
    """A network of the right kind and size, whose weights are to be loaded."""
    if isinstance(model, EaseConfig):
        return Ease(n_items)
    if isinstance(model, PopularityConfig):
        return Popularity(n_items)
    return build_network(n_items, model)
