"""Mult-DAE: the denoising autoencoder with a multinomial likelihood (Liang et al., WWW 2018)."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from coterie.models.fields import PositiveInt, SearchRange
from coterie.models.kinds import SteppedConfig

if TYPE_CHECKING:
    import torch

    from coterie.networks.multdae import MultDAE


class MultDAEConfig(SteppedConfig):
    """A Mult-DAE: no sampling, no KL; weight decay is the optimiser's.

    Example:
        >>> MultDAEConfig(latent_dim=64, hidden_dims=(600,)).keep_prob
        0.5
    """

    name: Literal["mult-dae"] = "mult-dae"
    hidden_dims: tuple[PositiveInt, ...] = Field(
        (), description="widths between items and code, mirrored in the decoder"
    )

    SEARCH: ClassVar = {
        "latent_dim": SearchRange(50, 400, log=True),
        "keep_prob": SearchRange(0.3, 0.9),
    }

    def build(self, n_items: int, generator: "torch.Generator") -> "MultDAE":
        """An untrained network."""
        from coterie.networks.multdae import MultDAE

        return MultDAE(n_items, self.hidden_dims, self.latent_dim, generator)
