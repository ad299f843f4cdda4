"""Mult-DAE's network: dense layers around a code (Liang et al., WWW 2018)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from coterie.networks.autoencoder import DenseAutoencoder, LinearOutput
from coterie.networks.onnx_graph import OnnxGraph
from coterie.sparse import SparseRows


class MultDAE(DenseAutoencoder, LinearOutput):
    """I-200-I by default, tanh on the code as on every hidden layer.

    Args:
        n_items: Size of the catalogue.
        hidden_dims: Widths between items and code.
        latent_dim: Of the code.
        generator: For the initial weights.
    """

    def __init__(
        self, n_items: int, hidden_dims: Sequence[int], latent_dim: int, generator: torch.Generator
    ) -> None:
        super().__init__(n_items, hidden_dims, latent_dim, latent_dim, generator)

    def point(self, rows: SparseRows, scale: Tensor | None = None) -> Tensor:
        """The code ``[n_users, latent_dim]``."""
        return torch.tanh(self.encode(rows, scale))

    def add_scores(self, graph: OnnxGraph, **output: str) -> str:
        """Adds the nodes of `score`."""
        return self.add_decoder(graph, graph.node("Tanh", self.add_code(graph)[0]), **output)
