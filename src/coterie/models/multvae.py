"""Mult-VAE: the variational autoencoder with a multinomial likelihood (Liang et al., WWW 2018)."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from coterie.models.fields import PositiveInt, SearchRange
from coterie.models.kinds import AlignedConfig

if TYPE_CHECKING:
    import torch

    from coterie.networks.autoencoder import Autoencoder
    from coterie.networks.multvae import MultVAE
    from coterie.networks.prior import Prior


class VAEConfig(AlignedConfig):
    """What Mult-VAE and those made from it share."""

    hidden_dims: tuple[PositiveInt, ...] = Field(
        (600,), description="widths between items and latent space, mirrored in the decoder"
    )
    beta: float = Field(0.2, ge=0, description="final weight of the KL")
    anneal_steps: int = Field(1000, ge=0, description="steps over which beta rises linearly from 0")

    SEARCH: ClassVar = {
        "latent_dim": SearchRange(50, 400, log=True),
        "keep_prob": SearchRange(0.3, 0.9),
        "beta": SearchRange(0.05, 1.0, log=True),
        "pia": SearchRange(0.05, 5.0, log=True),
    }

    @property
    def kl_weight(self) -> float:
        """β, when it has risen."""
        return self.beta

    def prior(self, network: "Autoencoder", generator: "torch.Generator") -> "Prior":
        """N(0, I)."""
        from coterie.networks.prior import StandardNormal

        return StandardNormal(self.beta, self.anneal_steps)


class MultVAEConfig(VAEConfig):
    """A Mult-VAE.

    Example:
        >>> MultVAEConfig(latent_dim=64, pia=0.3).hidden_dims
        (600,)
    """

    name: Literal["mult-vae"] = "mult-vae"

    def build(self, n_items: int, generator: "torch.Generator") -> "MultVAE":
        """An untrained network."""
        from coterie.networks.multvae import MultVAE

        return MultVAE(n_items, self.hidden_dims, self.latent_dim, generator)
