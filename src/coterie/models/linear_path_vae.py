"""A Mult-VAE whose decoder has a second, linear path from item to item: the model of our own.

Linear item–item models win on sparse catalogues and large ones, variational autoencoders on dense
ones. Here the two meet in the decoder's logits: f(z) + w · x B. The autoencoder, with PIA, is
trained as it always is; the linear path B is a closed form; which epoch is best is judged by the
sum. Decision 9 tells what else was tried.
"""

from typing import Annotated, ClassVar, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from coterie.errors import ConfigError
from coterie.models.ease import Ease, EaseConfig
from coterie.models.fields import Range
from coterie.models.item_item import ItemItem, ItemItemConfig
from coterie.models.multvae import MultVAE, VAEConfig
from coterie.sparse import SparseRows

PathConfig: TypeAlias = Annotated[EaseConfig | ItemItemConfig, Field(discriminator="name")]
"""What the linear path can be."""


class LinearPathVAEConfig(VAEConfig):
    """Architecture and objective of a Mult-VAE, and the linear path beside its decoder."""

    name: Literal["linear-path-vae"] = "linear-path-vae"
    path: PathConfig = Field(
        EaseConfig(),
        description=(
            "the linear item–item model: ease, or for large catalogues rp3beta, item-knn, slim"
        ),
    )
    path_weight: float = Field(
        10.0,
        ge=0,
        description="w, by which its scores are multiplied before they are added to the logits",
    )

    SEARCH: ClassVar = {**VAEConfig.SEARCH, "path_weight": Range(1, 100, log=True)}


class LinearPathVAE(MultVAE):
    """Logits f(z) + w · x B: a decoder that is deep in z and linear in x.

    B has no diagonal, so the path never copies its input. Being a sum of two rankers, the scores
    are no inner product of few dimensions: there are no item factors.

    Args:
        n_items: Size of the catalogue.
        config: Architecture, and the weight of the path.
        generator: For the initial weights.
        path: The linear model, fitted to the same training data or empty, for weights to be loaded.

    Example:
        >>> from scipy.sparse import csr_array
        >>> train = csr_array([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 1]])
        >>> config = LinearPathVAEConfig(hidden_dims=(3,), latent_dim=2, path=EaseConfig(l2=1.0))
        >>> network = LinearPathVAE(
        ...     4, config, torch.Generator().manual_seed(1), Ease.fit(train, EaseConfig(l2=1.0))
        ... )
        >>> rows = SparseRows.from_csr(train)
        >>> bool(
        ...     torch.allclose(
        ...         network.score(rows),
        ...         MultVAE.score(network, rows) + 10 * network.path.score(rows),
        ...     )
        ... )
        True
    """

    def __init__(
        self,
        n_items: int,
        config: LinearPathVAEConfig,
        generator: torch.Generator,
        path: Ease | ItemItem,
    ) -> None:
        super().__init__(n_items, config, generator)
        self.path, self.path_weight = path, config.path_weight

    def score(self, rows: SparseRows) -> Tensor:
        """Logits ``[n_users, n_items]`` of both paths."""
        return super().score(rows).add_(self.path.score(rows), alpha=self.path_weight)

    def user_factors(self, rows: SparseRows) -> Tensor:
        """Refused: see `item_factors`.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "user factors need scores that are inner products, linear-path-vae's are sums of two"
            " rankers; use score."
        )

    def item_factors(self) -> None:
        """None: the scores are no inner product of few dimensions."""
        return
