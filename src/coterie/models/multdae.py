"""Mult-DAE: the denoising autoencoder with a multinomial likelihood (Liang et al., WWW 2018)."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from coterie.models.autoencoder import TanhAutoencoder, input_scale
from coterie.models.fields import PositiveInt, Range
from coterie.models.stepped import SteppedConfig
from coterie.sparse import SparseRows


class MultDAEConfig(SteppedConfig):
    """Architecture and objective of a Mult-DAE: no sampling, no KL; weight decay is the
    optimiser's.
    """

    name: Literal["mult-dae"] = "mult-dae"
    hidden_dims: tuple[PositiveInt, ...] = Field(
        (), description="widths between items and code, mirrored in the decoder"
    )
    latent_dim: PositiveInt = Field(200, description="the dimension of the code")
    keep_prob: float = Field(
        0.5,
        gt=0,
        le=1,
        description="probability that an input entry survives masking; 1 = clean input",
    )

    SEARCH: ClassVar = {"latent_dim": Range(50, 400, log=True), "keep_prob": Range(0.3, 0.9)}


class MultDAE(TanhAutoencoder):
    """I-200-I by default, tanh on the code as on every hidden layer."""

    def __init__(self, n_items: int, config: MultDAEConfig, generator: torch.Generator) -> None:
        super().__init__(
            n_items, config.hidden_dims, config.latent_dim, config.latent_dim, generator
        )

    def code(self, rows: SparseRows, scale: Tensor | None = None) -> Tensor:
        """The code ``[n_users, latent_dim]`` of histories; ``scale`` as in `input_scale`, clean by
        default.
        """
        return torch.tanh(self.encode(rows, input_scale(rows.counts) if scale is None else scale))

    def point(self, rows: SparseRows) -> Tensor:
        """The code."""
        return self.code(rows)
