"""Which network belongs to which configuration: built for training, fitted by its closed form, or
empty, for weights to be loaded.
"""

from typing import TypeAlias

import torch
from scipy.sparse import csr_array

from coterie.config import ClosedFormConfig, ModelsConfig, NetworkConfig
from coterie.models.ease import Ease, EaseConfig
from coterie.models.ials import Ials, IalsConfig
from coterie.models.item_item import ItemItem, ItemItemConfig
from coterie.models.linear_path_vae import LinearPathVAE, LinearPathVAEConfig
from coterie.models.multdae import MultDAE, MultDAEConfig
from coterie.models.multvae import MultVAE
from coterie.models.popularity import Popularity, PopularityConfig
from coterie.models.recvae import RecVAE, RecVAEConfig

Network: TypeAlias = (
    MultVAE | MultDAE | RecVAE | LinearPathVAE | Ease | Popularity | ItemItem | Ials
)


def build_network(
    n_items: int, model: NetworkConfig, generator: torch.Generator | None = None
) -> MultVAE | MultDAE | RecVAE:
    """An untrained network, its weights drawn from ``generator``; a linear path is empty."""
    generator = generator or torch.Generator()
    if isinstance(model, MultDAEConfig):
        return MultDAE(n_items, model, generator)
    if isinstance(model, RecVAEConfig):
        return RecVAE(n_items, model, generator)
    if isinstance(model, LinearPathVAEConfig):
        path = (
            Ease(n_items)
            if isinstance(model.path, EaseConfig)
            else ItemItem(csr_array((n_items, n_items)))
        )
        return LinearPathVAE(n_items, model, generator, path)
    return MultVAE(n_items, model, generator)


def fit_network(train: csr_array, model: ClosedFormConfig) -> Network:
    """The closed form on a ``[n_users, n_items]`` binary matrix."""
    if isinstance(model, EaseConfig):
        return Ease.fit(train, model)
    if isinstance(model, PopularityConfig):
        return Popularity.fit(train, model)
    return Ials.fit(train, model) if isinstance(model, IalsConfig) else ItemItem.fit(train, model)


def fit_path(
    network: Network, model: ModelsConfig, train: csr_array, device: torch.device | str
) -> None:
    """Fits the linear path that stands beside a decoder, where the model has one."""
    if isinstance(network, LinearPathVAE) and isinstance(model, LinearPathVAEConfig):
        path = (
            Ease.fit(train, model.path)
            if isinstance(model.path, EaseConfig)
            else ItemItem.fit(train, model.path)
        )
        network.path = path.to(device)


def empty_network(n_items: int, model: ModelsConfig) -> Network:
    """A network of the right kind and size, whose weights are to be loaded."""
    if isinstance(model, EaseConfig):
        return Ease(n_items)
    if isinstance(model, PopularityConfig):
        return Popularity(n_items)
    if isinstance(model, IalsConfig):
        return Ials(n_items, model)
    if isinstance(model, ItemItemConfig):
        return ItemItem(csr_array((n_items, n_items)))
    return build_network(n_items, model)
