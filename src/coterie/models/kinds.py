"""The kinds of model: computed at once, trained in steps, and those steps with PIA.

A kind says what the rest of the library may ask of a configuration, whatever the model.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from coterie.errors import ConfigError
from coterie.models.fields import PositiveInt, StrictConfig

if TYPE_CHECKING:
    import numpy as np
    import torch
    from scipy.sparse import csr_array

    from coterie.networks.alignment import Alignment
    from coterie.networks.autoencoder import Autoencoder
    from coterie.networks.network import Judge, Network
    from coterie.networks.prior import Prior

TrainedPart: TypeAlias = Literal["all", "encoder", "decoder"]
"""What learns in a pass over the users."""


class ModelConfig(StrictConfig):
    """A model: its name, its fields and the network they make."""

    name: str

    @abstractmethod
    def empty(self, n_items: int) -> "Network":
        """A network of the right kind and size, whose weights are to be loaded."""


class ClosedFormConfig(ModelConfig):
    """A model that is computed at once, maybe by a library."""

    @abstractmethod
    def fit(self, train: "csr_array") -> "Network":
        """The network of a ``[n_users, n_items]`` binary matrix."""

    def fit_timed(self, train: "csr_array", timestamps: "np.ndarray | None") -> "Network":
        """The same of a matrix whose ``[n_interactions]`` seconds since 1970 are known, or None:
        most models do not ask.
        """
        return self.fit(train)


class SteppedConfig(ModelConfig):
    """A model that is trained in steps."""

    latent_dim: PositiveInt = Field(200, description="the dimension of z, the latent space")
    keep_prob: float = Field(
        0.5,
        gt=0,
        le=1,
        description="probability that an input entry survives masking; 1 = clean input",
    )

    @property
    def passes(self) -> tuple[TrainedPart, ...]:
        """What learns in each pass over the users of an epoch."""
        return ("all",)

    @abstractmethod
    def build(self, n_items: int, generator: "torch.Generator") -> "Autoencoder":
        """An untrained network, its weights drawn from ``generator``."""

    def empty(self, n_items: int) -> "Autoencoder":
        """A network of the right kind and size, whose weights are to be loaded."""
        import torch

        return self.build(n_items, torch.Generator())

    def prior(self, network: "Autoencoder", generator: "torch.Generator") -> "Prior | None":
        """What the posterior is held against in training; None for a model without a posterior."""
        return None

    def alignment(self, network: "Autoencoder", generator: "torch.Generator") -> "Alignment | None":
        """PIA's anchors and term; None without PIA."""
        return None

    def interaction_weights(
        self,
        train: "csr_array",
        timestamps: "np.ndarray | None",
        counts: "np.ndarray | None",
    ) -> "np.ndarray | None":
        """``[n_interactions]`` float32 weights that go along with the histories to `alignment`;
        None where all weigh the same.

        Args:
            train: ``[n_users, n_items]`` what is trained on.
            timestamps: ``[n_interactions]`` seconds since 1970, where they are known.
            counts: ``[n_interactions]`` how often each was seen; None if each was once.
        """
        return None

    def choose(self, train: "csr_array", judge: "Judge | None") -> Self:
        """The same configuration, what is open in it and can be chosen before training filled in.

        Args:
            train: ``[n_users, n_items]`` what is trained on.
            judge: Of the validation users; None where there are none.
        """
        return self

    def fit_beside(self, network: "Autoencoder", train: "csr_array") -> None:
        """Fits, before the first step, what of the network is not trained in steps."""

    def weigh(self, network: "Autoencoder", judge: "Judge") -> None:
        """Chooses, before each validation, what depends on the weights of the moment."""

    def resolved(self, network: "Autoencoder") -> Self:
        """The same configuration, with what `weigh` chose for the best epoch."""
        return self


RETIRED: dict[str, Any] = {
    "pia_parts": ("alignment", "shrinkage", "attraction"),
    "pia_schedule": "constant",
    "pia_steps": 0,
    "pia_rarity": 0.0,
    "pia_half_life": 0.0,
    "pia_counts": 0.0,
    "pia_temperature": 0.0,
    "pia_anchors": "free",
}
"""Fields of 0.1.0 and the values at which they changed nothing, which its files hold."""


class AlignedConfig(SteppedConfig):
    """A variational autoencoder, to which PIA can be added."""

    pia: float = Field(
        0.0, ge=0, description="λ_A, the weight of Personalized Item Alignment; 0 = off"
    )

    @property
    @abstractmethod
    def kl_weight(self) -> float:
        """The final weight of the divergence from the prior, a user's or an item's of a user."""

    @abstractmethod
    def prior(self, network: "Autoencoder", generator: "torch.Generator") -> "Prior":
        """What the posterior is held against in training."""

    def alignment(self, network: "Autoencoder", generator: "torch.Generator") -> "Alignment | None":
        """PIA's anchors, drawn from ``generator``, and its term; None without PIA."""
        if self.pia == 0:
            return None
        from coterie.networks.alignment import Alignment, draw_points

        return Alignment(draw_points(network.n_items, self.latent_dim, generator), self.pia)

    @model_validator(mode="before")
    @classmethod
    def _without_retired_fields(cls, values: Any) -> Any:
        found = {name for name in RETIRED if isinstance(values, dict) and name in values}
        if not found:
            return values
        used = sorted(name for name in found if _as_tuple(values[name]) != RETIRED[name])
        if used:
            raise ConfigError(
                f"{used[0]} must be absent: this variant of PIA ranked no better beyond chance and"
                f" left the models, found {values[used[0]]!r}. Remove {', '.join(used)}: weights"
                " that were trained with it load without it, and the laboratory trains the variants"
                " (coterie reproduce pia-ablations)."
            )
        return {name: value for name, value in values.items() if name not in found}


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
