"""The network of two paths: a Mult-VAE's decoder and a linear one beside it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from coterie.errors import ConfigError
from coterie.networks.multvae import DenseVAE
from coterie.networks.network import Exportable, Network
from coterie.networks.onnx_graph import OnnxGraph
from coterie.sparse import SparseRows


class LinearPathVAE(DenseVAE):
    """Logits f(z) + w · x B: a decoder that is deep in z and linear in x.

    Only paths of graph filters have a diagonal; the others never copy their input. Being a sum of
    two rankers, the scores are no inner product of few dimensions: there are no factors.

    Args:
        n_items: Size of the catalogue.
        hidden_dims: Widths between items and latent space.
        latent_dim: Of z.
        generator: For the initial weights.
        path: The linear model, fitted to the same training data or empty, for weights to be loaded.
        path_weight: w.

    Example:
        >>> from scipy.sparse import csr_array
        >>> from coterie.networks.ease import Ease
        >>> train = csr_array([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 1]])
        >>> generator = torch.Generator().manual_seed(1)
        >>> network = LinearPathVAE(4, (3,), 2, generator, Ease.fit(train, 1.0), path_weight=10)
        >>> rows = SparseRows.from_csr(train)
        >>> logits = network.decode(network.point(rows))
        >>> bool(torch.allclose(network.score(rows), logits + 10 * network.path.score(rows)))
        True
    """

    def __init__(
        self,
        n_items: int,
        hidden_dims: Sequence[int],
        latent_dim: int,
        generator: torch.Generator,
        path: Network,
        path_weight: float,
    ) -> None:
        super().__init__(n_items, hidden_dims, latent_dim, generator)
        self.path = path
        # Not on the device: it is read for every block of users, and copying it would wait.
        self._path_weight = torch.tensor(path_weight, dtype=torch.float64)

    @property
    def path_weight(self) -> float:
        """What the path's scores are multiplied by."""
        return float(self._path_weight)

    @path_weight.setter
    def path_weight(self, value: float) -> None:
        self._path_weight.fill_(value)

    def chosen(self) -> dict[str, Tensor]:
        """The path's weight."""
        return {"path_weight": self._path_weight}

    def score(self, rows: SparseRows) -> Tensor:
        """Logits ``[n_users, n_items]`` of both paths."""
        return super().score(rows).add_(self.path.score(rows), alpha=self.path_weight)

    def add_scores(self, graph: OnnxGraph, **output: str) -> str:
        """Adds the nodes of both paths.

        Raises:
            ConfigError: if the path cannot be exported.
        """
        if not isinstance(self.path, Exportable):
            raise ConfigError(
                "a linear path must be ease to be exported, ONNX has no sparse matrix; found"
                f" {type(self.path).__name__}. Serve it with Coterie."
            )
        logits = super().add_scores(graph)
        path = self.path.add_scores(graph)
        weighed = graph.node("Mul", path, graph.constant(self.path_weight, np.float32))
        return graph.node("Add", logits, weighed, **output)
