"""A Mult-VAE whose PIA is one of the variants: its configuration, and the term in training.

What is trained is served as a plain Mult-VAE: no variant changes a score of given weights.
"""

from typing import Literal, Self, TypeAlias

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy.sparse import csr_array
from torch import Tensor, nn

from coterie.config import RunConfig
from coterie.errors import ConfigError
from coterie.lab.ablations.alignment import (
    alignment_parts,
    count_weights,
    nearest_alignment,
    rarity_weights,
    recency_weights,
)
from coterie.models.fields import StrictConfig
from coterie.models.multvae import MultVAEConfig
from coterie.networks.alignment import Alignment, draw_points
from coterie.networks.autoencoder import Autoencoder, SparseLinear
from coterie.objectives.schedules import linear_warm_up
from coterie.sparse import SparseRows

PIAPart: TypeAlias = Literal["alignment", "shrinkage", "attraction"]

PIA_PARTS: tuple[PIAPart, ...] = ("alignment", "shrinkage", "attraction")


class AlignmentVariant(StrictConfig):
    """What is otherwise than in the published loss."""

    parts: tuple[PIAPart, ...] = Field(
        PIA_PARTS, min_length=1, description="which of its three parts are in the loss"
    )
    schedule: Literal["constant", "rise", "fall"] = Field(
        "constant", description="λ_A from 0 to its value, or from there to 0"
    )
    steps: int = Field(0, ge=0, description="steps over which λ_A rises or falls, linearly")
    rarity: float = Field(
        0.0,
        ge=0,
        description="items weigh (training users)^-rarity in the centroid; 0 = all the same",
    )
    half_life: float = Field(
        0.0,
        ge=0,
        description=(
            "days before a user's last interaction at which one weighs half; 0 = all the same"
        ),
    )
    counts: float = Field(
        0.0,
        ge=0,
        description=(
            "items weigh (how often the user had them)^counts in the centroid; 0 = all the same"
        ),
    )
    temperature: float = Field(
        0.0,
        ge=0,
        description="soft minimum over a user's anchors instead of their mean; 0 = the mean",
    )
    activity: float = Field(
        0.0,
        ge=0,
        description=(
            "λ_A times n_u^activity of a user of n_u items: the likelihood is a sum over them,"
            " L_A a mean; 0 = the same for everybody, 1 = a sum, too"
        ),
    )
    anchors: Literal["free", "encoder", "decoder"] = Field(
        "free", description="points of their own, or a projection of item weights"
    )

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        if (self.schedule == "constant") != (self.steps == 0):
            raise ConfigError(
                f"schedule and steps go together, found {self.schedule!r} over {self.steps} steps;"
                " give the steps of a rise or fall, or neither."
            )
        if self.temperature and set(self.parts) != set(PIA_PARTS):
            raise ConfigError(
                "temperature needs all parts: a soft minimum does not fall into alignment and"
                " attraction."
            )
        if len(set(self.parts)) != len(self.parts):
            raise ConfigError(f"parts must name each part once, found {', '.join(self.parts)}.")
        return self


class VariantConfig(MultVAEConfig):
    """A Mult-VAE with a variant of PIA."""

    pia: float = Field(1.0, gt=0, description="λ_A")
    variant: AlignmentVariant = AlignmentVariant()

    def alignment(self, network: Autoencoder, generator: torch.Generator) -> "VariantAlignment":
        """The variant's anchors and term."""
        tied = {"encoder": network.input, "decoder": network.output}.get(self.variant.anchors)
        rows = network.n_items if tied is None else tied.weight.shape[1]
        points = draw_points(rows, self.latent_dim, generator)
        return VariantAlignment(points, self.pia, self.variant, tied)

    def interaction_weights(
        self, train: csr_array, timestamps: np.ndarray | None, counts: np.ndarray | None
    ) -> np.ndarray | None:
        """Those of the centroids.

        Raises:
            ConfigError: if the data set has no times or counts where the variant needs them.
        """
        variant = self.variant
        weights = np.ones(len(train.indices), dtype=np.float32)
        if variant.rarity:
            weights *= rarity_weights(train.sum(axis=0), variant.rarity)[train.indices]
        if variant.half_life:
            if timestamps is None:
                raise ConfigError(
                    "half_life needs times, found none in the data set; prepare a log with"
                    " timestamps, or set it to 0."
                )
            weights *= recency_weights(timestamps, train.indptr, variant.half_life)
        if variant.counts:
            if counts is None:
                raise ConfigError(
                    "counts needs items that users had more than once, found none in the data set;"
                    " set it to 0."
                )
            weights *= count_weights(counts, variant.counts)
        return None if (weights == 1).all() else weights


class AblationConfig(RunConfig):
    """The configuration of a run with a variant."""

    model: VariantConfig = VariantConfig()

    @model_validator(mode="after")
    def _no_sparse_updates_of_tied_anchors(self) -> Self:
        if self.training.sparse_updates and self.model.variant.anchors != "free":
            raise ConfigError(
                "sparse_updates need anchors of their own, found tied ones; set anchors to free or"
                " leave them off."
            )
        return self

    def served(self) -> RunConfig:
        """The same without the variant."""
        shared = self.model.model_dump(include=set(MultVAEConfig.model_fields))
        return RunConfig(model=MultVAEConfig(**shared), training=self.training)


class VariantAlignment(Alignment):
    """PIA's term in a variant.

    Args:
        anchors: ``[n_items, latent_dim]`` initial points, or, where they are tied to a layer, the
            ``[hidden, latent_dim]`` projection of its weights.
        weight: λ_A.
        variant: What is otherwise.
        tied: The layer.
    """

    def __init__(
        self, anchors: Tensor, weight: float, variant: AlignmentVariant, tied: SparseLinear | None
    ) -> None:
        super().__init__(anchors, weight)
        self.variant = variant
        # In a list, as the layer's parameters are the network's.
        self._tied: list[nn.Module] = [] if tied is None else [tied]

    def weight(self, n_steps: int) -> float:
        """λ_A of the schedule."""
        full = super().weight(n_steps)
        risen = linear_warm_up(n_steps, self.variant.steps, full)
        return {"constant": full, "rise": risen, "fall": full - risen}[self.variant.schedule]

    def points(self) -> Tensor:
        """The anchors, or what a layer's weights and the projection make of them."""
        points: Tensor = self.anchors
        for layer in self._tied:
            points = layer.get_parameter("weight") @ points
        return points

    def loss_of(self, mu: Tensor, logvar: Tensor, rows: SparseRows, anchors: Tensor) -> Tensor:
        """The variant of L_A."""
        return self._unweighed(mu, logvar, rows, anchors) * rows.counts**self.variant.activity

    def _unweighed(self, mu: Tensor, logvar: Tensor, rows: SparseRows, anchors: Tensor) -> Tensor:
        if self.variant.temperature:
            return nearest_alignment(mu, logvar, anchors, rows, self.variant.temperature)
        parts = alignment_parts(mu, logvar, anchors, rows)
        chosen = [getattr(parts, name) for name in PIA_PARTS if name in self.variant.parts]
        return torch.stack(chosen).sum(dim=0)
