"""Networks of two paths: an autoencoder's decoder and a linear one beside it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from coterie.errors import ConfigError
from coterie.networks.autoencoder import Autoencoder
from coterie.networks.multvae import DenseVAE
from coterie.networks.network import Exportable, Network
from coterie.networks.onnx_graph import OnnxGraph
from coterie.networks.recvae import SkipVAE
from coterie.sparse import SparseRows


class LinearPath(Autoencoder):
    """What stands before an autoencoder among a class's bases, and adds w · n_u^a · x B to its
    logits: n_u is the number of items in the user's history.

    Only paths of graph filters have a diagonal; the others never copy their input. Being a sum of
    two rankers, the scores are no inner product of few dimensions: there are no factors.

    Args:
        autoencoder: The autoencoder's own arguments.
        path: The linear model, fitted to the same training data or empty, for weights to be loaded.
        path_weight: w.
        path_activity: a; with 0 everybody has the same weight.
    """

    def __init__(
        self,
        *autoencoder: Any,
        path: Network,
        path_weight: float,
        path_activity: float = 0.0,
    ) -> None:
        super().__init__(*autoencoder)
        self.path = path
        # Not on the device: they are read for every block of users, and copying would wait.
        self._path_weight, self._path_activity = (
            torch.tensor(value, dtype=torch.float64) for value in (path_weight, path_activity)
        )

    @property
    def path_weight(self) -> float:
        """w, what the path's scores are multiplied by for a user of one item."""
        return float(self._path_weight)

    @path_weight.setter
    def path_weight(self, value: float) -> None:
        self._path_weight.fill_(value)

    @property
    def path_activity(self) -> float:
        """a, by whose power a user's items change that."""
        return float(self._path_activity)

    @path_activity.setter
    def path_activity(self, value: float) -> None:
        self._path_activity.fill_(value)

    def chosen(self) -> dict[str, Tensor]:
        """The path's weight, and how it follows activity."""
        return {"path_weight": self._path_weight, "path_activity": self._path_activity}

    def score(self, rows: SparseRows) -> Tensor:
        """Logits ``[n_users, n_items]`` of both paths."""
        return self._summed(rows, super().score(rows), self.path.score(rows))

    def score_items(self, rows: SparseRows, items: Tensor) -> Tensor:
        """``[n_users, m]`` of both paths."""
        logits = super().score_items(rows, items)
        return self._summed(rows, logits, self.path.score_items(rows, items))

    def _summed(self, rows: SparseRows, logits: Tensor, path: Tensor) -> Tensor:
        """Both paths' scores of the same items, in the memory of ``logits``."""
        if self.path_activity == 0:
            return logits.add_(path, alpha=self.path_weight)
        return logits.addcmul_(path, by_activity(rows, self.path_activity), value=self.path_weight)

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
        logits = super().add_scores(graph)  # type: ignore[safe-super]  # of the base after this one
        path, weight = self.path.add_scores(graph), graph.constant(self.path_weight, np.float32)
        if self.path_activity:
            power = graph.constant(self.path_activity, np.float32)
            weight = graph.node("Mul", graph.node("Pow", graph.counts, power), weight)
        return graph.node("Add", logits, graph.node("Mul", path, weight), **output)


def by_activity(rows: SparseRows, exponent: float) -> Tensor:
    """``[n_users, 1]`` float32: n_u to the power of ``exponent``, an empty history's being 1.

    Example:
        >>> from scipy.sparse import csr_array
        >>> rows = SparseRows.from_csr(csr_array([[1, 1, 1, 1], [0, 0, 0, 0]]))
        >>> by_activity(rows, 0.5).tolist()
        [[2.0], [1.0]]
    """
    return rows.counts.clamp(min=1).to(torch.float32).pow(exponent).unsqueeze(1)


class LinearPathVAE(LinearPath, DenseVAE):
    """A Mult-VAE's logits and a linear path: f(z) + w · n_u^a · x B.

    Example:
        >>> from scipy.sparse import csr_array
        >>> from coterie.networks.ease import Ease
        >>> train = csr_array([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 1]])
        >>> generator = torch.Generator().manual_seed(1)
        >>> path = Ease.fit(train, 1.0)
        >>> network = LinearPathVAE(4, (3,), 2, generator, path=path, path_weight=10)
        >>> rows = SparseRows.from_csr(train)
        >>> logits = network.decode(network.point(rows))
        >>> bool(torch.allclose(network.score(rows), logits + 10 * path.score(rows)))
        True
    """


class LinearPathRecVAE(LinearPath, SkipVAE):
    """A RecVAE's logits and a linear path: W z + b + w · n_u^a · x B.

    Example:
        >>> from scipy.sparse import csr_array
        >>> from coterie.networks.ease import Ease
        >>> train = csr_array([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 1, 1]])
        >>> generator = torch.Generator().manual_seed(1)
        >>> path = Ease.fit(train, 1.0)
        >>> network = LinearPathRecVAE(4, 3, 2, generator, path=path, path_weight=10)
        >>> rows = SparseRows.from_csr(train)
        >>> logits = network.decode(network.point(rows))
        >>> bool(torch.allclose(network.score(rows), logits + 10 * path.score(rows)))
        True
    """
