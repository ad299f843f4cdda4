"""Popularity: the same ranking for everybody, by number of training users."""

from typing import Literal

import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from coterie.errors import ConfigError
from coterie.models.fields import ModelConfig
from coterie.sparse import SparseRows


class PopularityConfig(ModelConfig):
    """Popularity has nothing to choose."""

    name: Literal["popularity"] = "popularity"


class Popularity(nn.Module):
    """Scores an item by how many training users have it."""

    counts: Tensor

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.register_buffer("counts", torch.zeros(n_items))

    @classmethod
    def fit(cls, train: csr_array, config: PopularityConfig) -> "Popularity":
        """Counts the users of each item of a ``[n_users, n_items]`` binary matrix."""
        model = cls(train.shape[1])
        model.counts.copy_(torch.from_numpy(train.sum(axis=0)))
        return model

    def score(self, rows: SparseRows) -> Tensor:
        """The counts, ``[n_users, n_items]``, whatever the history."""
        return self.counts.expand(len(rows), -1).clone()

    def item_vectors(self) -> Tensor:
        """Refused: popularity learns no representation."""
        raise ConfigError(
            "similar items need learned item vectors, popularity has none; use mult-vae, mult-dae"
            " or ease."
        )
