"""EASE's network and its closed form (Steck, WWW 2019)."""

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.errors import NumericalError
from coterie.networks.network import Network
from coterie.networks.onnx_graph import OnnxGraph
from coterie.networks.sweep import blocks, invert_in_place
from coterie.sparse import SparseRows, gather_sum

# 1 - diag M = λ diag P; below this, rounding in M is more than a ten-thousandth of it.
LEAST_REST = 1e-9


class Ease(Network):
    """Scores x B, where B minimises ‖X - X B‖² + λ‖B‖² with a zero diagonal. An item's column may
    then be divided by a power of its popularity.

    Fitting takes 8 bytes × items² and time that grows with items³; where users are fewer than
    items, 8 bytes × users² + 4 bytes × items² and users³. Keeping the weights takes 4 bytes ×
    items²: right up to some tens of thousands of items.

    Args:
        n_items: Size of the catalogue.
        weight: ``[n_items, n_items]`` B; zeros by default, for weights to be loaded.
    """

    weight: Tensor

    def __init__(self, n_items: int, weight: Tensor | None = None) -> None:
        super().__init__()
        self.n_items = n_items
        self.register_buffer("weight", torch.zeros(n_items, n_items) if weight is None else weight)

    @classmethod
    def fit(cls, train: csr_array, l2: float, popularity_exponent: float = 0.0) -> "Ease":
        """Solves for B on a ``[n_users, n_items]`` binary matrix, by its items or, if they are
        fewer, by its users.

        Raises:
            NumericalError: if λ is too small to make the Gram matrix + λI invertible in float64.

        References:
            Steck (2019), equation 8; the division is that of RP3β, Paudel et al. (2017), section 4.
        """
        n_users, n_items = train.shape
        weight = _by_users(train, l2) if n_users < n_items else _by_items(train, l2)
        if popularity_exponent:
            weight /= torch.from_numpy(train.sum(axis=0)).clamp(min=1) ** popularity_exponent
        return cls(n_items, weight)

    def score(self, rows: SparseRows) -> Tensor:
        """``[n_users, n_items]``: the rows of B summed over the history."""
        return gather_sum(rows, self.weight)

    def score_items(self, rows: SparseRows, items: Tensor) -> Tensor:
        """``[n_users, m]``, by the weights between the histories' items and these."""
        local, met = rows.compact()
        return gather_sum(local, self.weight[met[:, None], items])

    def item_vectors(self) -> Tensor:
        """``[n_items, n_items]``: what each item is predicted from, the columns of B."""
        return self.weight.t()

    def add_scores(self, graph: OnnxGraph, **output: str) -> str:
        """Adds the nodes of `score`."""
        return graph.history_sum(self.weight, **output)


def _by_items(train: csr_array, l2: float) -> Tensor:
    """B = I - P diag(1 / diag P), where P = (XᵀX + λI)⁻¹."""
    weight = _inverse_of_gram(csr_array(train.T), l2)
    weight /= -weight.diagonal().copy()
    np.fill_diagonal(weight, 0)
    return _narrowed(weight)


def _by_users(train: csr_array, l2: float) -> Tensor:
    """B = M diag(1 / (1 - diag M)) off its diagonal, where M = Xᵀ(XXᵀ + λI)⁻¹X = I - λP."""
    inverse, by_item = _inverse_of_gram(train, l2), train.tocsc()
    weight = np.empty((train.shape[1], train.shape[1]), np.float32)
    for block in blocks(len(weight)):
        columns = train.T @ (by_item[:, block].T @ inverse).T
        rest = 1 - columns[block].diagonal()
        if rest.min() < LEAST_REST:
            raise _too_small(l2)
        weight[:, block] = columns / rest
    np.fill_diagonal(weight, 0)
    return torch.from_numpy(weight)


def _inverse_of_gram(rows: csr_array, l2: float) -> np.ndarray:
    """(R Rᵀ + λI)⁻¹ for the rows of R, float64."""
    gram = np.empty((rows.shape[0], rows.shape[0]))
    for block in blocks(len(gram)):
        gram[block] = (rows[block] @ rows.T).toarray()
    gram[np.diag_indices_from(gram)] += l2
    if not invert_in_place(torch.from_numpy(gram)):
        raise _too_small(l2)
    return gram


def _narrowed(matrix: np.ndarray) -> Tensor:
    """A square float64 matrix in float32, in the front of its own memory; the rest is given
    back.
    """
    n = len(matrix)
    front = matrix.reshape(-1).view(np.float32)[: n * n].reshape(n, n)
    for block in blocks(n):
        front[block] = matrix[block].astype(np.float32)
    matrix.resize((n * n + 1) // 2, refcheck=False)
    return torch.from_numpy(matrix.view(np.float32)[: n * n].reshape(n, n))


def _too_small(l2: float) -> NumericalError:
    return NumericalError(
        f"XᵀX + l2·I must be positive definite to be inverted, found it is not at l2 = {l2};"
        " raise l2."
    )
