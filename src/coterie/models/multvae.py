"""Mult-VAE: the variational autoencoder with a multinomial likelihood (Liang et al., WWW 2018)."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from coterie.models.autoencoder import TanhAutoencoder, input_scale
from coterie.models.fields import PositiveInt, Range
from coterie.models.stepped import AlignedConfig
from coterie.sparse import SparseRows


class VAEConfig(AlignedConfig):
    """Architecture and objective of a variational autoencoder with a multinomial likelihood."""

    hidden_dims: tuple[PositiveInt, ...] = Field(
        (600,), description="widths between items and latent space, mirrored in the decoder"
    )
    latent_dim: PositiveInt = Field(200, description="the real dimension of z")
    keep_prob: float = Field(
        0.5,
        gt=0,
        le=1,
        description="probability that an input entry survives masking; 1 = clean input",
    )
    beta: float = Field(0.2, ge=0, description="final weight of the KL")
    anneal_steps: int = Field(1000, ge=0, description="steps over which beta rises linearly from 0")

    SEARCH: ClassVar = {
        "latent_dim": Range(50, 400, log=True),
        "keep_prob": Range(0.3, 0.9),
        "beta": Range(0.05, 1.0, log=True),
        "pia": Range(0.05, 5.0, log=True),
    }


class MultVAEConfig(VAEConfig):
    """A Mult-VAE."""

    name: Literal["mult-vae"] = "mult-vae"


class MultVAE(TanhAutoencoder):
    """I-600-200-600-I by default: q(z given x) = N(mu, diag exp(logvar)), p(x given z) = Mult(n,
    softmax(f(z))).

    Example:
        >>> from scipy.sparse import csr_array
        >>> network = MultVAE(
        ...     4, MultVAEConfig(hidden_dims=(3,), latent_dim=2), torch.Generator().manual_seed(1)
        ... )
        >>> network.score(SparseRows.from_csr(csr_array([[1, 0, 1, 0], [0, 0, 0, 0]]))).shape
        torch.Size([2, 4])
    """

    def __init__(self, n_items: int, config: VAEConfig, generator: torch.Generator) -> None:
        super().__init__(
            n_items, config.hidden_dims, 2 * config.latent_dim, config.latent_dim, generator
        )

    def posterior(self, rows: SparseRows, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each ``[n_users, latent_dim]``, of histories; ``scale`` as in
        `input_scale`, clean by default.
        """
        mu, logvar = self.encode(rows, input_scale(rows.counts) if scale is None else scale).chunk(
            2, dim=1
        )
        return mu, logvar

    def point(self, rows: SparseRows) -> Tensor:
        """The posterior mean."""
        return self.posterior(rows)[0]
