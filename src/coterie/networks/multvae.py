"""Mult-VAE's network: dense layers around a Gaussian code (Liang et al., WWW 2018)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from coterie.networks.autoencoder import (
    DenseAutoencoder,
    LinearOutput,
    VariationalAutoencoder,
    narrow,
)
from coterie.networks.onnx_graph import OnnxGraph


class DenseVAE(DenseAutoencoder, VariationalAutoencoder):
    """I-600-200-600-I by default: p(x given z) = Mult(n, softmax(f(z))).

    Args:
        n_items: Size of the catalogue.
        hidden_dims: Widths between items and latent space.
        latent_dim: Of z.
        generator: For the initial weights.
        gated: Gates instead of tanh.
    """

    def __init__(
        self,
        n_items: int,
        hidden_dims: Sequence[int],
        latent_dim: int,
        generator: torch.Generator,
        *,
        gated: bool = False,
    ) -> None:
        super().__init__(n_items, hidden_dims, 2 * latent_dim, latent_dim, generator, gated=gated)

    def carry(self, first: Tensor) -> None:
        """As every dense autoencoder, to a narrow posterior."""
        super().carry(first)
        narrow(self.code_layer)

    def add_scores(self, graph: OnnxGraph, **output: str) -> str:
        """Adds the nodes of `score` at the posterior mean, the first half of the code."""
        code, width = self.add_code(graph)
        return self.add_decoder(graph, graph.columns(code, 0, width // 2), **output)


class MultVAE(DenseVAE, LinearOutput):
    """A `DenseVAE` whose logits are its scores.

    Example:
        >>> from scipy.sparse import csr_array
        >>> from coterie.sparse import SparseRows
        >>> network = MultVAE(4, (3,), 2, torch.Generator().manual_seed(1))
        >>> network.score(SparseRows.from_csr(csr_array([[1, 0, 1, 0], [0, 0, 0, 0]]))).shape
        torch.Size([2, 4])
    """
