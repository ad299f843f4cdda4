"""EASE: the linear autoencoder with a closed form (Steck, WWW 2019)."""

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_array
from torch import Tensor, nn

from coterie.errors import NumericalError
from coterie.models.fields import ModelConfig, Range
from coterie.sparse import SparseRows, gather_sum

AT_ONCE = 256
# 1 - diag M = λ diag P; below this, rounding in M is more than a ten-thousandth of it.
LEAST_REST = 1e-9


class EaseConfig(ModelConfig):
    """EASE has one number to choose; with a second one it shuns popular items, as RP3β does."""

    name: Literal["ease"] = "ease"
    l2: float = Field(500.0, gt=0, description="λ, added to the diagonal of XᵀX")
    popularity_exponent: float = Field(
        0.0,
        ge=0,
        description="of the popularity that an item's scores are divided by; 0 as published",
    )

    SEARCH: ClassVar = {"l2": Range(10, 10_000, log=True), "popularity_exponent": Range(0, 0.5)}


class Ease(nn.Module):
    """Scores x B, where B minimises ‖X - X B‖² + λ‖B‖² with a zero diagonal. An item's column may
    then be divided by a power of its popularity.

    Fitting takes 8 bytes × items² and time that grows with items³; where users are fewer than
    items, 8 bytes × users² + 4 bytes × items² and users³. Keeping the weights takes 4 bytes ×
    items²: right up to some tens of thousands of items.
    """

    weight: Tensor

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.register_buffer("weight", torch.zeros(n_items, n_items))

    @classmethod
    def fit(cls, train: csr_array, config: EaseConfig) -> "Ease":
        """Solves for B on a ``[n_users, n_items]`` binary matrix: P = (XᵀX + λI)⁻¹, B = I - P
        diag(1 / diag P).

        Where users are fewer, their Gram matrix is inverted instead: P = (I - Xᵀ(XXᵀ + λI)⁻¹X) / λ.

        Raises:
            NumericalError: if λ is too small to make the Gram matrix + λI invertible in float64.

        References:
            Steck (2019), equation 8; the division is that of RP3β, Paudel et al. (2017), section 4.
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
        if config.popularity_exponent:
            popularity = torch.from_numpy(train.sum(axis=0)).clamp(min=1)
            model.weight /= popularity**config.popularity_exponent
        return model

    def score(self, rows: SparseRows) -> Tensor:
        """``[n_users, n_items]``: the rows of B summed over the history."""
        return gather_sum(rows, self.weight)

    def item_vectors(self) -> Tensor:
        """``[n_items, n_items]``: what each item is predicted from, the columns of B."""
        return self.weight.t()


def _inverse(rows: csr_array, l2: float) -> np.ndarray:
    """(R Rᵀ + λI)⁻¹ for the rows of R; its lower triangle only."""
    n = rows.shape[0]
    gram = np.empty((n, n))
    for start in range(0, n, AT_ONCE):
        block = slice(start, start + AT_ONCE)
        gram[block] = (rows[block] @ rows.T).toarray()
    gram[np.diag_indices_from(gram)] += l2
    if not _invert(torch.from_numpy(gram)):
        raise _too_small(l2)
    return gram


def _invert(matrix: Tensor) -> bool:
    """Inverts the lower triangle of a symmetric matrix in place; tells whether it is positive
    definite.

    LAPACK's factorization crashes in SciPy's OpenBLAS from some 16,000 rows on with several
    threads, and torch's is not done in place. So blocks of the diagonal are swept one after the
    other (Goodnight 1979), which is as much work, nearly all of it matrix products.
    """
    n = len(matrix)
    for start in range(0, n, AT_ONCE):
        stop = min(start + AT_ONCE, n)
        block = slice(start, stop)
        root, failed = torch.linalg.cholesky_ex(matrix[block, block])
        if failed:
            return False
        pivot = torch.cholesky_inverse(root)
        column = torch.cat(
            [matrix[block, :start].t(), torch.zeros_like(pivot), matrix[stop:, block]]
        )
        swept = column @ pivot
        for first in range(0, n, AT_ONCE):
            others = slice(first, first + AT_ONCE)
            matrix[first:, others].addmm_(swept[first:], column[others].t(), alpha=-1)
        matrix[block, :start], matrix[stop:, block], matrix[block, block] = (
            swept[:start].t(),
            swept[stop:],
            -pivot,
        )
    matrix.neg_()
    return True


def _too_small(l2: float) -> NumericalError:
    return NumericalError(
        f"XᵀX + l2·I must be positive definite to be inverted, found it is not at l2 = {l2};"
        " raise l2."
    )


def _fill_from_items(weight: np.ndarray, inverse: np.ndarray) -> None:
    """Fills ``weight`` with I - P diag(1 / diag P), P's lower triangle being given; gives P's
    memory back as it goes.
    """
    n_items, diagonal = len(inverse), np.diag(inverse).copy()
    for start in reversed(range(0, n_items, AT_ONCE)):
        stop = min(start + AT_ONCE, n_items)
        block = slice(start, stop)
        # P is symmetric: what its rows hold left of the diagonal, its columns hold above it.
        left, square = inverse[block, :start], np.tril(inverse[block, block])
        weight[block, :start] = left / -diagonal[:start]
        weight[:start, block] = left.T / -diagonal[block]
        weight[block, block] = (square + np.tril(square, -1).T) / -diagonal[block]
        del left
        inverse.resize((start, n_items), refcheck=False)
    np.fill_diagonal(weight, 0)


def _fill_from_users(weight: np.ndarray, inverse: np.ndarray, train: csr_array, l2: float) -> None:
    """Fills ``weight`` with M diag(1 / (1 - diag M)), M = Xᵀ(XXᵀ + λI)⁻¹X, the lower triangle of
    the inverse being given.
    """
    for start in range(0, len(inverse), AT_ONCE):
        block = slice(start, start + AT_ONCE)
        inverse[block, block.stop :] = inverse[block.stop :, block].T
        inverse[block, block] = (
            np.tril(inverse[block, block]) + np.tril(inverse[block, block], -1).T
        )
    by_item = train.tocsc()
    for start in range(0, len(weight), AT_ONCE):
        block = slice(start, start + AT_ONCE)
        columns = train.T @ (by_item[:, block].T @ inverse).T
        rest = 1 - columns[block].diagonal()
        if rest.min() < LEAST_REST:
            raise _too_small(l2)
        weight[:, block] = columns / rest
    np.fill_diagonal(weight, 0)
