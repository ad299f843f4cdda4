"""RecVAE: a deeper encoder, a linear decoder, a composite prior (Shenbin et al., WSDM 2020)."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from coterie.models.fields import PositiveInt, SearchRange
from coterie.models.kinds import AlignedConfig, TrainedPart

if TYPE_CHECKING:
    import torch

    from coterie.networks.autoencoder import Autoencoder
    from coterie.networks.prior import Prior
    from coterie.networks.recvae import RecVAE


class SkipVAEConfig(AlignedConfig):
    """What RecVAE and those made from it share: encoder and decoder learn in turns."""

    hidden_dim: PositiveInt = Field(600, description="width of the encoder's five layers")
    keep_prob: float = Field(
        0.5,
        gt=0,
        le=1,
        description="probability that an input entry survives masking while the encoder learns",
    )
    gamma: float = Field(
        0.005, ge=0, description="weight of the KL for each of a user's items: γ · n_u"
    )
    encoder_epochs: PositiveInt = Field(
        3, description="passes over the users, an epoch, in which the encoder alone learns"
    )
    decoder_epochs: PositiveInt = Field(
        1, description="passes after them in which the decoder alone learns, from clean input"
    )

    SEARCH: ClassVar = {
        "latent_dim": SearchRange(50, 400, log=True),
        "keep_prob": SearchRange(0.3, 0.9),
        "gamma": SearchRange(0.0005, 0.05, log=True),
        "pia": SearchRange(0.05, 5.0, log=True),
    }

    @property
    def passes(self) -> tuple[TrainedPart, ...]:
        """What learns in each pass of an epoch."""
        parts: list[TrainedPart] = ["encoder"] * self.encoder_epochs
        parts += ["decoder"] * self.decoder_epochs
        return tuple(parts)

    @property
    def kl_weight(self) -> float:
        """γ, for each item of a user."""
        return self.gamma

    def prior(self, network: "Autoencoder", generator: "torch.Generator") -> "Prior":
        """A mixture with the posterior of the encoder before the last decoder passes."""
        from coterie.networks.recvae import CompositePrior

        return CompositePrior(network, self.gamma)


class RecVAEConfig(SkipVAEConfig):
    """A RecVAE.

    Example:
        >>> RecVAEConfig(gamma=0.0035).hidden_dim
        600
    """

    name: Literal["recvae"] = "recvae"

    def build(self, n_items: int, generator: "torch.Generator") -> "RecVAE":
        """An untrained network."""
        from coterie.networks.recvae import RecVAE

        return RecVAE(n_items, self.hidden_dim, self.latent_dim, generator)
