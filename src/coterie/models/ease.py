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


class EaseConfig(ModelConfig):
    """EASE has one number to choose."""

    name: Literal["ease"] = "ease"
    l2: float = Field(500.0, gt=0, description="λ, added to the diagonal of XᵀX")

    SEARCH: ClassVar = {"l2": Range(10, 10_000, log=True)}


class Ease(nn.Module):
    """Scores x B, where B minimises ‖X - X B‖² + λ‖B‖² with a zero diagonal.

    Memory and time grow with items² and items³: right up to some tens of thousands of items. Fitting takes 8 bytes × items²,
    keeping the weights 4.
    """

    weight: Tensor

    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.register_buffer("weight", torch.zeros(n_items, n_items))

    @classmethod
    def fit(cls, train: csr_array, config: EaseConfig) -> "Ease":
        """Solves for B on a ``[n_users, n_items]`` binary matrix: P = (XᵀX + λI)⁻¹, B = I - P diag(1 / diag P).

        Raises:
            NumericalError: if λ is too small to make XᵀX + λI invertible in float64.

        References:
            Steck (2019), equation 8.
        """
        n_items = train.shape[1]
        # Fortran's order is LAPACK's: everything happens in this one array.
        gram = np.empty((n_items, n_items), order="F")
        by_item = train.tocsc()
        for start in range(0, n_items, COLUMNS_AT_ONCE):
            block = slice(start, start + COLUMNS_AT_ONCE)
            gram[:, block] = (train.T @ by_item[:, block]).toarray()
        gram[np.diag_indices_from(gram)] += config.l2
        gram, failed = linalg.lapack.dpotrf(gram, lower=1, overwrite_a=1)
        if failed:
            raise NumericalError(f"XᵀX + l2·I must be positive definite to be inverted, found it is not at l2 = {config.l2}; raise l2.")
        inverse, _ = linalg.lapack.dpotri(gram, lower=1, overwrite_c=1)
        del gram
        model = cls(0)
        # Not zeros: memory is taken as it is filled, while P gives its own back.
        model.n_items, model.weight = n_items, torch.empty(n_items, n_items)
        _fill_with_weights(model.weight.numpy(), inverse)
        return model

    def score(self, rows: SparseRows) -> Tensor:
        """``[n_users, n_items]``: the rows of B summed over the history."""
        return gather_sum(rows, self.weight)

    def item_vectors(self) -> Tensor:
        """``[n_items, n_items]``: what each item is predicted from, the columns of B."""
        return self.weight.t()


def _fill_with_weights(weight: np.ndarray, inverse: np.ndarray) -> None:
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
