"""A Mult-VAE whose decoder has a second, linear path from item to item: the model of our own.

Linear item–item models win on sparse catalogues and large ones, variational autoencoders on dense
ones. Here the two meet in the decoder's logits: f(z) + w · x B. The autoencoder, with PIA, is
trained as it always is; the linear path B is a closed form; which epoch is best is judged by the
sum. Decision 9 says what else was tried.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from coterie.models.ease import EaseConfig
from coterie.models.fields import SearchRange
from coterie.models.graph_filter import GraphFilterModelConfig
from coterie.models.item_item import ItemItemConfig
from coterie.models.multvae import MultVAEConfig, VAEConfig

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_array

    from coterie.networks.autoencoder import Autoencoder
    from coterie.networks.linear_path_vae import LinearPathVAE

PathConfig: TypeAlias = Annotated[
    EaseConfig | ItemItemConfig | GraphFilterModelConfig, Field(discriminator="name")
]
"""What the linear path can be."""


class LinearPathVAEConfig(VAEConfig):
    """A Mult-VAE, and the linear path beside its decoder."""

    name: Literal["linear-path-vae"] = "linear-path-vae"
    path: PathConfig = Field(
        EaseConfig(),
        description=(
            "the linear item–item model: ease, or for large catalogues rp3beta, item-knn, slim,"
            " gf-cf, bspm"
        ),
    )
    path_weight: float = Field(
        10.0,
        ge=0,
        description="w, by which its scores are multiplied before they are added to the logits",
    )

    SEARCH: ClassVar = {**VAEConfig.SEARCH, "path_weight": SearchRange(1, 100, log=True)}

    def build(self, n_items: int, generator: "torch.Generator") -> "LinearPathVAE":
        """An untrained network, its path empty."""
        from coterie.networks.linear_path_vae import LinearPathVAE

        path = self.path.empty(n_items)
        shape = (self.hidden_dims, self.latent_dim)
        return LinearPathVAE(n_items, *shape, generator, path, self.path_weight)

    def fit_beside(self, network: "Autoencoder", train: "csr_array") -> None:
        """Fits the path."""
        network.path = self.path.fit(train).to(network.output.weight.device)

    def without_path(self) -> MultVAEConfig:
        """The autoencoder alone."""
        shared = self.model_dump(include=set(MultVAEConfig.model_fields) - {"name"})
        return MultVAEConfig(**shared)
