"""Popularity's network: a number an item."""

import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.errors import ConfigError
from coterie.networks.network import Network
from coterie.networks.onnx_graph import OnnxGraph
from coterie.sparse import SparseRows


class Popularity(Network):
    """Scores an item by how many training users have it."""

    counts: Tensor

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.register_buffer("counts", torch.zeros(n_items))

    @classmethod
    def fit(cls, train: csr_array) -> "Popularity":
        """Counts the users of each item of a ``[n_users, n_items]`` binary matrix."""
        model = cls(train.shape[1])
        model.counts.copy_(torch.from_numpy(train.sum(axis=0)))
        return model

    def score(self, rows: SparseRows) -> Tensor:
        """The counts, ``[n_users, n_items]``, whatever the history."""
        return self.counts.expand(len(rows), -1).clone()

    def score_items(self, rows: SparseRows, items: Tensor) -> Tensor:
        """``[n_users, m]``: their counts."""
        return self.counts[items].repeat(len(rows), 1)

    def item_vectors(self) -> Tensor:
        """Refused: popularity learns no representation."""
        raise ConfigError(
            "similar items need learned item vectors, popularity has none; use mult-vae, mult-dae"
            " or ease."
        )

    def add_scores(self, graph: OnnxGraph, **output: str) -> str:
        """Adds the nodes of `score`."""
        shape = graph.weight(self.counts), graph.block_shape(self.n_items)
        return graph.node("Expand", *shape, **output)
