"""The inverse of a large symmetric matrix, in place.

Apart from EASE because it is a matter of linear algebra (decision 7): LAPACK's factorization
crashes in SciPy's OpenBLAS from some 16,000 rows on with several threads, and torch's copies the
matrix. So blocks of the diagonal are swept one after the other (Goodnight 1979), which is as much
work, nearly all of it matrix products.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

AT_ONCE = 256
"""Rows of a block."""


def blocks(n: int) -> Iterator[slice]:
    """``n`` things in a row, `AT_ONCE` at a time."""
    for start in range(0, n, AT_ONCE):
        yield slice(start, min(start + AT_ONCE, n))


def invert_in_place(matrix: Tensor) -> bool:
    """Inverts a symmetric positive definite matrix.

    Args:
        matrix: ``[n, n]``, of which the lower triangle is read. It becomes the inverse, both
            triangles.

    Returns:
        Whether it is positive definite; if not, ``matrix`` is left half-swept.

    Example:
        >>> matrix = torch.tensor([[4.0, 2.0], [2.0, 2.0]])
        >>> invert_in_place(matrix), matrix.tolist()
        (True, [[0.5, -0.5], [-0.5, 1.0]])
    """
    for block in blocks(len(matrix)):
        root, failed = torch.linalg.cholesky_ex(matrix[block, block])
        if failed:
            return False
        _sweep(matrix, block, torch.cholesky_inverse(root))
    matrix.neg_()
    _mirror(matrix)
    return True


def _sweep(matrix: Tensor, block: slice, pivot: Tensor) -> None:
    """Takes a block of the diagonal out of the lower triangle; ``pivot`` is its inverse."""
    before, after = slice(0, block.start), slice(block.stop, None)
    column = torch.cat([matrix[block, before].t(), torch.zeros_like(pivot), matrix[after, block]])
    swept = column @ pivot
    for others in blocks(len(matrix)):
        below = slice(others.start, None)
        matrix[below, others].addmm_(swept[below], column[others].t(), alpha=-1)
    matrix[block, before] = swept[before].t()
    matrix[after, block] = swept[after]
    matrix[block, block] = -pivot


def _mirror(matrix: Tensor) -> None:
    """Copies the lower triangle into the upper one."""
    for block in blocks(len(matrix)):
        square = matrix[block, block].tril()
        matrix[block, block] = square + square.tril(-1).t()
        matrix[block, block.stop :] = matrix[block.stop :, block].t()
