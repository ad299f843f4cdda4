"""EASE: the linear autoencoder with a closed form (Steck, WWW 2019)."""

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy import linalg
from scipy.sparse import csr_array
from torch import Tensor, nn

from coterie.errors import NumericalError
from coterie.models.fields import ModelConfig, Range
from coterie.sparse import SparseRows, gather_sum

COLUMNS_AT_ONCE = 1024
# 1 - diag M = λ diag P; below this, rounding in M is more than a ten-thousandth of it.
LEAST_REST = 1e-9


class EaseConfig(ModelConfig):
    """EASE has one number to choose."""

    name: Literal["ease"] = "ease"
    l2: float = Field(500.0, gt=0, description="λ, added to the diagonal of XᵀX")

    SEARCH: ClassVar = {"l2": Range(10, 10_000, log=True)}


class Ease(nn.Module):
    """Scores x B, where B minimises ‖X - X B‖² + λ‖B‖² with a zero diagonal.

    Fitting takes 8 bytes × items² and time that grows with items³; where users are fewer than items, 8 bytes × users² + 4 bytes ×
    items² and users³. Keeping the weights takes 4 bytes × items²: right up to some tens of thousands of items.
    """

    weight: Tensor

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.register_buffer("weight", torch.zeros(n_items, n_items))

    @classmethod
    def fit(cls, train: csr_array, config: EaseConfig) -> "Ease":
        """Solves for B on a ``[n_users, n_items]`` binary matrix: P = (XᵀX + λI)⁻¹, B = I - P diag(1 / diag P).

        Where users are fewer, their Gram matrix is inverted instead: P = (I - Xᵀ(XXᵀ + λI)⁻¹X) / λ.

        Raises:
            NumericalError: if λ is too small to make the Gram matrix + λI invertible in float64.

        References:
            Steck (2019), equation 8.
        """
        n_users, n_items = train.shape
        few_users = n_users < n_items
        inverse = _inverse(train if few_users else csr_array(train.T), config.l2)
        model = cls(0)
        # Not zeros: memory is taken as it is filled, while P gives its own back.
        model.n_items, model.weight = n_items, torch.empty(n_items, n_items)
        if few_users:
            _fill_from_users(model.weight.numpy(), inverse, train, config.l2)
        else:
            _fill_from_items(model.weight.numpy(), inverse)
        return model

    def score(self, rows: SparseRows) -> Tensor:
        """``[n_users, n_items]``: the rows of B summed over the history."""
        return gather_sum(rows, self.weight)

    def item_vectors(self) -> Tensor:
        """``[n_items, n_items]``: what each item is predicted from, the columns of B."""
        return self.weight.t()


def _inverse(rows: csr_array, l2: float) -> np.ndarray:
    """The lower triangle of (R Rᵀ + λI)⁻¹ for the rows of R."""
    n = rows.shape[0]
    # Fortran's order is LAPACK's: everything happens in this one array.
    gram = np.empty((n, n), order="F")
    for start in range(0, n, COLUMNS_AT_ONCE):
        block = slice(start, start + COLUMNS_AT_ONCE)
        gram[:, block] = (rows @ rows[block].T).toarray()
    gram[np.diag_indices_from(gram)] += l2
    gram, failed = linalg.lapack.dpotrf(gram, lower=1, overwrite_a=1)
    if failed:
        raise _too_small(l2)
    inverse: np.ndarray = linalg.lapack.dpotri(gram, lower=1, overwrite_c=1)[0]
    return inverse


def _too_small(l2: float) -> NumericalError:
    return NumericalError(f"XᵀX + l2·I must be positive definite to be inverted, found it is not at l2 = {l2}; raise l2.")


def _fill_from_items(weight: np.ndarray, inverse: np.ndarray) -> None:
    """Fills ``weight`` with I - P diag(1 / diag P), P's lower triangle being given; gives P's memory back as it goes."""
    n_items, diagonal = len(inverse), np.diag(inverse).copy()
    for start in reversed(range(0, n_items, COLUMNS_AT_ONCE)):
        block = slice(start, min(start + COLUMNS_AT_ONCE, n_items))
        # P is symmetric: its column j below the diagonal is its row j beyond it as well.
        below = np.tril(inverse[start:, block])
        weight[start:, block] = below / -diagonal[block]
        weight[block, start:] = below.T / -diagonal[start:]
        square = below[: block.stop - start]
        weight[block, block] = (square + np.tril(square, -1).T) / -diagonal[block]
        inverse.resize((n_items, start), refcheck=False)
    np.fill_diagonal(weight, 0)


def _fill_from_users(weight: np.ndarray, inverse: np.ndarray, train: csr_array, l2: float) -> None:
    """Fills ``weight`` with M diag(1 / (1 - diag M)), M = Xᵀ(XXᵀ + λI)⁻¹X, the lower triangle of the inverse being given."""
    # Transposed in place of copied: rows lie together, and the upper triangle is the one that is known.
    whole, by_item = inverse.T, train.tocsc()
    for start in range(0, len(whole), COLUMNS_AT_ONCE):
        block = slice(start, start + COLUMNS_AT_ONCE)
        whole[block.stop :, block] = whole[block, block.stop :].T
        whole[block, block] = np.triu(whole[block, block]) + np.triu(whole[block, block], 1).T
    for start in range(0, len(weight), COLUMNS_AT_ONCE):
        block = slice(start, start + COLUMNS_AT_ONCE)
        columns = train.T @ (by_item[:, block].T @ whole).T
        rest = 1 - columns[block].diagonal()
        if rest.min() < LEAST_REST:
            raise _too_small(l2)
        weight[:, block] = columns / rest
    np.fill_diagonal(weight, 0)
