"""What the configurations of models that are trained in steps share: which part learns when, and
PIA's options.
"""

from typing import Literal, Self, TypeAlias

from pydantic import Field, model_validator

from coterie.errors import ConfigError
from coterie.models.fields import ModelConfig

Part: TypeAlias = Literal["all", "encoder", "decoder"]
PIAPart: TypeAlias = Literal["alignment", "shrinkage", "attraction"]

PIA_PARTS: tuple[PIAPart, ...] = ("alignment", "shrinkage", "attraction")


class SteppedConfig(ModelConfig):
    """A model that is trained in steps."""

    @property
    def passes(self) -> tuple[Part, ...]:
        """What learns in each pass over the users of an epoch."""
        return ("all",)


class AlignedConfig(SteppedConfig):
    """A variational autoencoder, to which PIA can be added; what its options do is told in
    `coterie.objectives.alignment`.
    """

    pia: float = Field(
        0.0, ge=0, description="λ_A, the weight of Personalized Item Alignment; 0 = off"
    )
    pia_parts: tuple[PIAPart, ...] = Field(
        PIA_PARTS, min_length=1, description="which of its three parts are in the loss"
    )
    pia_schedule: Literal["constant", "rise", "fall"] = Field(
        "constant", description="λ_A from 0 to its value, or from there to 0"
    )
    pia_steps: int = Field(0, ge=0, description="steps over which λ_A rises or falls, linearly")
    pia_rarity: float = Field(
        0.0,
        ge=0,
        description="items weigh (training users)^-rarity in the centroid; 0 = all the same",
    )
    pia_half_life: float = Field(
        0.0,
        ge=0,
        description=(
            "days before a user's last interaction at which one weighs half; 0 = all the same"
        ),
    )
    pia_counts: float = Field(
        0.0,
        ge=0,
        description=(
            "items weigh (how often the user had them)^counts in the centroid; 0 = all the same"
        ),
    )
    pia_temperature: float = Field(
        0.0,
        ge=0,
        description="soft minimum over a user's anchors instead of their mean; 0 = the mean",
    )
    pia_anchors: Literal["free", "encoder", "decoder"] = Field(
        "free", description="points of their own, or a projection of item weights"
    )

    @model_validator(mode="after")
    def _no_idle_options(self) -> Self:
        given = sorted(
            name
            for name in self.model_fields_set
            if name.startswith("pia_") and getattr(self, name) != _default(name)
        )
        if self.pia == 0 and given:
            raise ConfigError(
                f"{given[0]} needs pia above 0, found pia = 0; set model.pia, or leave"
                f" {', '.join(given)} out."
            )
        if (self.pia_schedule == "constant") != (self.pia_steps == 0):
            raise ConfigError(
                f"pia_schedule and pia_steps go together, found {self.pia_schedule!r} over"
                f" {self.pia_steps} steps; give the steps of a rise or fall, or neither."
            )
        if self.pia_temperature and set(self.pia_parts) != set(PIA_PARTS):
            raise ConfigError(
                "pia_temperature needs all of pia_parts: a soft minimum does not fall into"
                " alignment and attraction."
            )
        if len(set(self.pia_parts)) != len(self.pia_parts):
            raise ConfigError(
                f"pia_parts must name each part once, found {', '.join(self.pia_parts)}."
            )
        return self


def _default(name: str) -> object:
    return AlignedConfig.model_fields[name].default
