"""A Mult-VAE whose prior is learned: a mixture over pseudo-inputs (Kim and Suh, RecSys 2019)."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from coterie.models.fields import PositiveInt, SearchChoice, SearchRange
from coterie.models.multvae import VAEConfig

if TYPE_CHECKING:
    import torch

    from coterie.networks.autoencoder import Autoencoder
    from coterie.networks.multvae import MultVAE
    from coterie.networks.prior import Prior


class VampVAEConfig(VAEConfig):
    """A Mult-VAE with a VampPrior, its layers gated or not.

    One latent space, as in the paper's "Vamp"; its "H+Vamp" has two.

    Example:
        >>> VampVAEConfig(components=100, gated=True, pia=0.3).name
        'vamp-vae'
    """

    name: Literal["vamp-vae"] = "vamp-vae"
    components: PositiveInt = Field(
        200, description="K, pseudo-inputs of the prior; each step encodes them all"
    )
    gated: bool = Field(False, description="gates in place of tanh, as wide: twice the weights")

    SEARCH: ClassVar = {
        **VAEConfig.SEARCH,
        "components": SearchRange(50, 1000, log=True),
        "gated": SearchChoice((False, True)),
    }

    def build(self, n_items: int, generator: "torch.Generator") -> "MultVAE":
        """An untrained network."""
        from coterie.networks.multvae import MultVAE

        return MultVAE(n_items, self.hidden_dims, self.latent_dim, generator, gated=self.gated)

    def prior(self, network: "Autoencoder", generator: "torch.Generator") -> "Prior":
        """The mixture, its pseudo-inputs drawn from ``generator``."""
        from coterie.networks.vamp_prior import VampPrior, draw_pseudo_inputs

        pseudo_inputs = draw_pseudo_inputs(self.components, network.n_items, generator)
        return VampPrior(pseudo_inputs, self.beta, self.anneal_steps)
