"""A Mult-VAE whose decoder has a second, linear path from item to item: the model of our own."""

from typing import TYPE_CHECKING, ClassVar, Literal

from coterie.models.linear_path import LinearPathConfig
from coterie.models.multvae import MultVAEConfig, VAEConfig

if TYPE_CHECKING:
    import torch

    from coterie.networks.linear_path import LinearPathVAE


class LinearPathVAEConfig(LinearPathConfig, VAEConfig):
    """A Mult-VAE, and the linear path beside its decoder; what is left open of it is chosen on
    validation users.

    Example:
        >>> from coterie.models.ease import EaseConfig
        >>> LinearPathVAEConfig(path=EaseConfig(l2=800), path_weight=37, path_activity=0).path.name
        'ease'
    """

    name: Literal["linear-path-vae"] = "linear-path-vae"

    ALONE: ClassVar = MultVAEConfig

    def build(self, n_items: int, generator: "torch.Generator") -> "LinearPathVAE":
        """An untrained network, its path empty."""
        from coterie.networks.linear_path import LinearPathVAE

        shape = (self.hidden_dims, self.latent_dim)
        return LinearPathVAE(n_items, *shape, generator, **self.beside(n_items))
