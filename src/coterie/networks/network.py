"""What the rest of the library may ask of a network, and what only some of them can do.

Every network scores. What only some can is a protocol: the rest asks for the capability, never for
the class.
"""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from coterie.networks.onnx_graph import OnnxGraph
from coterie.sparse import SparseRows


class Network(nn.Module, ABC):
    """The weights of a model. Its state dict is what an artifact holds."""

    n_items: int
    """Size of the catalogue."""

    @abstractmethod
    def score(self, rows: SparseRows) -> Tensor:
        """``[n_users, n_items]`` scores of histories; higher is better."""

    def score_items(self, rows: SparseRows, items: Tensor) -> Tensor:
        """``[n_users, m]`` scores of the ``[m]`` int64 items alone: those columns of `score`, up to
        rounding.

        A network for which few columns are less work than all overrides this.
        """
        return self.score(rows)[:, items]

    @abstractmethod
    def item_vectors(self) -> Tensor:
        """``[n_items, dim]`` learned item representations.

        Raises:
            ConfigError: if there are none.
        """


class Judge(Protocol):
    """Validation users, on whom what is not trained is chosen."""

    @property
    def rows(self) -> SparseRows:
        """``[n, n_items]`` histories."""
        ...

    def scores(self, network: Network) -> Tensor:
        """``[n, n_items]`` of the histories."""
        ...

    def value(self, scores: Tensor) -> float:
        """The mean validation metric of ``[n, n_items]`` scores, which are left as they are."""
        ...


@runtime_checkable
class Variational(Protocol):
    """A network that knows a distribution of every user in a latent space."""

    n_items: int

    def posterior(self, rows: SparseRows, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each ``[n_users, latent_dim]``."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Logits ``[n_users, n_items]`` of ``[n_users, latent_dim]`` latent points."""
        ...


@runtime_checkable
class InnerProduct(Protocol):
    """A network whose scores are inner products of few dimensions."""

    def user_factors(self, rows: SparseRows) -> Tensor:
        """``[n_users, dim]``: times `item_factors` they are the scores."""
        ...

    def item_factors(self) -> Tensor:
        """``[n_items, dim]``."""
        ...


@runtime_checkable
class Exportable(Protocol):
    """A network whose scores can be written as an ONNX graph."""

    def add_scores(self, graph: OnnxGraph, **output: str) -> str:
        """Adds the nodes from ``items`` to the scores; returns the last one's name, which
        ``output`` may give.

        Raises:
            ConfigError: if a part of it cannot be exported.
        """
        ...
