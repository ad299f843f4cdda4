"""Sparse rows on a device, and their product with a matrix: how histories reach a network.

Apart from models/ and objectives/ because both read it: a batch of histories is never a batch ×
items matrix, only the positions of its ones.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class SparseRows:
    """A binary ``[n_rows, n_items]`` matrix as the positions of its ones.

    Args:
        indices: ``[n_ones]`` int64 column of each one, row after row.
        offsets: ``[n_rows + 1]`` int64 where each row starts and the last ends.
        n_items: Number of columns.
        values: ``[n_ones]`` float32 weights that go along with the ones, where something asks for
            them; None = none.

    Example:
        >>> rows = SparseRows.from_csr(csr_array(np.array([[1, 0, 1], [0, 0, 0]])))
        >>> rows.counts.tolist(), rows.row.tolist()
        ([2, 0], [0, 0])
    """

    indices: Tensor
    offsets: Tensor
    n_items: int
    values: Tensor | None = None

    @classmethod
    def from_csr(cls, matrix: csr_array, device: torch.device | str = "cpu") -> "SparseRows":
        """Moves the pattern of a SciPy CSR to ``device``; its values are not read."""
        indices = torch.from_numpy(matrix.indices.astype(np.int64)).to(device)
        return cls(
            indices, torch.from_numpy(matrix.indptr.astype(np.int64)).to(device), matrix.shape[1]
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Tensor:
        """``[n_rows]`` int64 number of ones in each row."""
        return self.offsets.diff()

    @property
    def row(self) -> Tensor:
        """``[n_ones]`` int64 row of each one."""
        return torch.repeat_interleave(self.counts, output_size=len(self.indices))

    def weighted(self, values: Tensor) -> "SparseRows":
        """The same rows with ``[n_ones]`` weights that go along with the ones."""
        return SparseRows(self.indices, self.offsets, self.n_items, values)

    def take(self, rows: Tensor) -> "SparseRows":
        """The rows at ``[m]`` int64 positions, in that order, gathered on the device."""
        starts, counts = self.offsets[rows], self.counts[rows]
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        n_ones = int(offsets[-1])
        shift = torch.repeat_interleave(starts - offsets[:-1], counts, output_size=n_ones)
        ones = shift + torch.arange(n_ones, device=shift.device)
        return SparseRows(
            self.indices[ones],
            offsets,
            self.n_items,
            None if self.values is None else self.values[ones],
        )

    def compact(self) -> tuple["SparseRows", Tensor]:
        """The same rows over their own columns alone: renumbered from 0, and the ``[n_columns]``
        columns themselves, ascending.
        """
        columns, place = torch.unique(self.indices, return_inverse=True)
        return SparseRows(place, self.offsets, len(columns), self.values), columns

    def columns(self, start: int, stop: int) -> "SparseRows":
        """The same rows over the columns from ``start`` to before ``stop`` alone, which are
        numbered anew from 0.
        """
        if (start, stop) == (0, self.n_items):
            return self
        part = self.where((self.indices >= start) & (self.indices < stop))
        return SparseRows(part.indices - start, part.offsets, stop - start, part.values)

    def transposed(self) -> "SparseRows":
        """A row for each column, its ones in the order of the rows here."""
        order = torch.argsort(self.indices, stable=True)
        ends = torch.bincount(self.indices, minlength=self.n_items).cumsum(0)
        return SparseRows(
            self.row[order],
            torch.cat([ends.new_zeros(1), ends]),
            len(self),
            None if self.values is None else self.values[order],
        )

    def is_sound(self) -> bool:
        """Whether this is a matrix, as what was read from a file may not be: offsets rise from 0 to
        the number of ones, whose columns exist.
        """
        if self.indices.ndim != 1 or self.offsets.ndim != 1 or not len(self.offsets):
            return False
        rises = bool((self.counts >= 0).all()) and int(self.offsets[0]) == 0
        within = bool(((self.indices >= 0) & (self.indices < self.n_items)).all())
        return rises and within and int(self.offsets[-1]) == len(self.indices)

    def where(self, keep: Tensor) -> "SparseRows":
        """The same rows with only the ones where ``keep`` ([n_ones] bool) holds."""
        kept_before = torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.cumsum(0)])
        values = None if self.values is None else self.values[keep]
        return SparseRows(self.indices[keep], kept_before[self.offsets], self.n_items, values)


def gather_sum(rows: SparseRows, weight: Tensor, values: Tensor | None = None) -> Tensor:
    """The product of binary rows with a matrix, by gathering: row u is the sum of ``weight`` over
    u's ones.

    Neither direction makes a batch × items matrix. The gradient is the same gather with the pattern
    transposed, so each of its rows is summed in one order: equal inputs give equal bits on the CPU.

    Args:
        rows: ``[n_rows, n_items]`` binary.
        weight: ``[n_items, dim]``.
        values: ``[n_ones]`` to take the place of the ones, constants of the type of ``weight``.

    Returns:
        ``[n_rows, dim]``; an empty row gives zeros.

    Example:
        >>> rows = SparseRows.from_csr(csr_array(np.array([[1, 0, 1], [0, 0, 0]])))
        >>> gather_sum(rows, torch.tensor([[1.0], [10.0], [100.0]])).tolist()
        [[101.0], [0.0]]
    """
    if not torch.is_grad_enabled():
        return _embedding_bag(rows.indices, weight, rows.offsets, values)
    summed: Tensor = _GatherSum.apply(weight, rows.indices, rows.offsets, values)  # type: ignore[no-untyped-call]
    return summed


class _GatherSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, indices: Tensor, offsets: Tensor, values: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(indices, offsets, values)
        ctx.n_items = len(weight)
        return _embedding_bag(indices, weight, offsets, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        indices, offsets, values = ctx.saved_tensors
        users = SparseRows(indices, offsets, ctx.n_items, values).transposed()
        summed = _embedding_bag(users.indices, grad.contiguous(), users.offsets, users.values)
        return summed, None, None, None


def _embedding_bag(
    indices: Tensor, weight: Tensor, offsets: Tensor, values: Tensor | None
) -> Tensor:
    return functional.embedding_bag(
        indices, weight, offsets, mode="sum", per_sample_weights=values, include_last_offset=True
    )
