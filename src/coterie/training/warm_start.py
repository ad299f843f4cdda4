"""From which trained model a run starts: ids on this side, rows and columns in
`coterie.networks.warm_start`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.ids import IdMap
from coterie.errors import ConfigError, NotFoundError
from coterie.files import local
from coterie.models.kinds import SteppedConfig
from coterie.networks.autoencoder import Autoencoder
from coterie.networks.warm_start import Parent
from coterie.training.run_folder import read_anchors
from coterie.training.trained_model import TrainedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class WarmStart:
    """A trained model from whose weights training starts, though the catalogue has changed.

    Items are told by their ids: rows of those that are still there are carried over, those that are
    gone are dropped, new ones begin as the mean of the items they are consumed with. A model is
    enough in most cases; this class adds what may be known beside it.

    Args:
        model: An autoencoder with the layers of the one to be trained.
        anchors: ``[n_items, latent_dim]`` PIA's of the model. Without them they begin where they
            rest with the weights that were carried over.
        features: ``[n_items, d]`` of the items of the NEW data set, in its order, such as genres: a
            new item that nobody consumed with a known one begins as the mean of the ten nearest by
            cosine, without features as the mean of all.

    Raises:
        ConfigError: if the model is no autoencoder, or anchors are not one an item.

    Example:
        >>> from coterie.models.multvae import MultVAEConfig
        >>> from coterie.simulation.service import simulate_dataset
        >>> from coterie.training.trainer import train
        >>> last_week, this_week = (
        ...     simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1, n_niches=n)
        ...     for n in (4, 5)
        ... )
        >>> config = MultVAEConfig(hidden_dims=(20,), latent_dim=8)
        >>> parent = train(last_week, config, epochs=2)
        >>> model = train(this_week, config, epochs=1, warm_from=WarmStart(parent))
        >>> model.provenance["parent"] == parent.fingerprint
        True
    """

    model: TrainedModel
    anchors: Tensor | None = None
    features: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model.network, Autoencoder):
            raise ConfigError(
                "a warm start needs the weights of an autoencoder, found"
                f" {self.model.config.model.name}; start from another model."
            )
        if self.anchors is not None and len(self.anchors) != self.model.n_items:
            raise ConfigError(
                f"anchors must be one for each of the model's {self.model.n_items} items, found"
                f" {len(self.anchors)}; give the model's own, or none."
            )

    @classmethod
    def of(cls, parent: "WarmStart | TrainedModel | str | Path") -> "WarmStart":
        """From whatever names a trained model; a run folder has its anchors, too.

        Raises:
            NotFoundError: if there is no such folder.
            ArtifactError: if there is no model in it, or it is damaged.
            ConfigError: as in the class.
        """
        if isinstance(parent, WarmStart):
            return parent
        if isinstance(parent, TrainedModel):
            return cls(parent)
        if not local(parent).exists():
            raise NotFoundError(
                f"{parent}: a warm start needs a trained model, nothing was found there; check the"
                " path."
            )
        return cls(TrainedModel.load(parent), read_anchors(parent))

    def facts(self, items: IdMap) -> dict[str, Any]:
        """What a run says of its start: JSON values."""
        carried = int((self._origin(items) >= 0).sum())
        return {
            "parent": self.model.fingerprint,
            "start": "warm",
            "items_carried": carried,
            "items_new": len(items) - carried,
            "items_dropped": self.model.n_items - carried,
            "parent_steps": self.n_steps,
        }

    @property
    def n_steps(self) -> int | None:
        """Optimisation steps that the weights have behind them, those of the model's own parents
        included; None if an older version trained it, which did not say.
        """
        steps: int | None = self.model.provenance.get("steps")
        return steps

    def check(self, config: RunConfig, dataset: Dataset) -> None:
        """Checks that the model fits what is to be trained.

        Raises:
            ConfigError: if layers differ, no item is known, or features are not one row an item.
        """
        assert isinstance(config.model, SteppedConfig), "a closed form was refused"
        found, wanted = _layers(self._network), _layers(config.model.empty(1))
        if found != wanted:
            raise ConfigError(
                f"a warm start needs the parent's layers: {self.model.config.model.name} with"
                f" {_told(found, wanted)}, found {config.model.name} with {_told(wanted, found)};"
                " set the fields of [model] as they were then, or start without."
            )
        if not (self._origin(dataset.items) >= 0).any():
            raise ConfigError(
                "a warm start needs items that the parent knows, found none among"
                f" {dataset.n_items}; check that ids are the same, or start without."
            )
        shape = (dataset.n_items,)
        if self.features is not None and (
            self.features.ndim != 2
            or self.features.shape[:1] != shape
            or not np.isfinite(self.features).all()
        ):
            raise ConfigError(
                f"features must be a finite matrix of {dataset.n_items} rows, one an item of the"
                f" data set, found shape {self.features.shape}; give others, or none."
            )

    def parent(self, dataset: Dataset) -> Parent:
        """The weights, and where the items of a data set are in them."""
        origin, facts = self._origin(dataset.items), self.facts(dataset.items)
        log.info("starts %s", in_words(facts))
        return Parent(self._network, origin, dataset.train, self.anchors, self.features)

    @property
    def _network(self) -> Autoencoder:
        return cast("Autoencoder", self.model.network)

    def _origin(self, items: IdMap) -> np.ndarray:
        """``[n_items]`` rows in the model, -1 of new items."""
        return self.model.items.index_of(items.values)


def in_words(facts: Mapping[str, Any]) -> str:
    """What `WarmStart.facts` says.

    Example:
        >>> counts = {"items_carried": 3409, "items_new": 166, "items_dropped": 0}
        >>> in_words({"parent": "1f" * 32, "start": "warm", **counts})
        'warm from 1f1f1f1f1f1f1f1f: 3,409 items carried over, 166 new, 0 dropped'
    """
    carried, new, dropped = (facts[f"items_{what}"] for what in ("carried", "new", "dropped"))
    counts = f"{carried:,} items carried over, {new:,} new, {dropped:,} dropped"
    return f"warm from {facts['parent'][:16]}: {counts}"


def _layers(network: Autoencoder) -> dict[str, tuple[int, ...]]:
    """The shapes of all parameters but for the number of items."""
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    of_items = ("input.weight", "output.weight", "output.bias")
    return {name: shape[1:] if name in of_items else shape for name, shape in shapes.items()}


def _told(layers: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]]) -> str:
    """The first layers that another network has not."""
    different = [name for name, shape in layers.items() if other.get(name) != shape]
    told = [f"{name} {'×'.join(map(str, layers[name]))}" for name in different[:2]]
    return ", ".join(told) or "no other layers"
