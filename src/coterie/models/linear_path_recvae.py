"""A RecVAE whose decoder has a second, linear path from item to item."""

from typing import TYPE_CHECKING, ClassVar, Literal

from coterie.models.linear_path import LinearPathConfig
from coterie.models.recvae import RecVAEConfig, SkipVAEConfig

if TYPE_CHECKING:
    import torch

    from coterie.networks.linear_path import LinearPathRecVAE


class LinearPathRecVAEConfig(LinearPathConfig, SkipVAEConfig):
    """A RecVAE, and the linear path beside its decoder; what is left open of it is chosen on
    validation users.

    Example:
        >>> LinearPathRecVAEConfig(gamma=0.0035).path is None  # chosen on validation users
        True
    """

    name: Literal["linear-path-recvae"] = "linear-path-recvae"

    ALONE: ClassVar = RecVAEConfig

    def build(self, n_items: int, generator: "torch.Generator") -> "LinearPathRecVAE":
        """An untrained network, its path empty."""
        from coterie.networks.linear_path import LinearPathRecVAE

        shape = (self.hidden_dim, self.latent_dim)
        return LinearPathRecVAE(n_items, *shape, generator, **self.beside(n_items))
