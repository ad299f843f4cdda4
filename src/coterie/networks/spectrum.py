"""The spectrum of a matrix of interactions: its normalisation by degrees, and the leading right
singular vectors.

Apart from the networks because several begin with it: graph filters are made of these vectors, an
autoencoder may start from them.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array

# Columns of the sketch beyond the rank.
_OVERSAMPLING = 32
# Singular values below this share of the largest one are rounding errors of float32, and their
# vectors mean nothing.
_LEAST_SHARE = 1e-5


class Spectrum(NamedTuple):
    """The leading part of a singular value decomposition."""

    values: np.ndarray
    """``[k]`` float32 singular values, descending, above 0."""
    vectors: np.ndarray
    """``[n_items, k]`` float32 right singular vectors, orthonormal columns."""


def normalised(train: csr_array) -> csr_array:
    """D_u^-½ R D_i^-½, float32: each one divided by the root of its user's and its item's number of
    ones. Its largest singular value is 1.

    Args:
        train: ``[n_users, n_items]`` binary R; empty rows and columns stay empty.

    Example:
        >>> normalised(csr_array([[1, 1, 0], [0, 1, 0]])).toarray().round(3).tolist()
        [[0.7070000171661377, 0.5, 0.0], [0.0, 0.7070000171661377, 0.0]]
    """
    by_user, by_item = (
        diags_array(1 / np.sqrt(np.maximum(train.sum(axis=axis, dtype=np.float64), 1)))
        for axis in (1, 0)
    )
    return csr_array(by_user @ train @ by_item, dtype=np.float32)


def singular_vectors(
    matrix: csr_array, rank: int, *, seed: int = 0, iterations: int = 7
) -> Spectrum:
    """The leading singular values and right singular vectors, by a randomized method.

    Each vector's entry of the largest magnitude is positive. Memory is 4 bytes × (rows + columns) ×
    (rank + 32), a few times. The vectors of a spectrum that falls slowly are less exact than the
    space that they span together; more iterations make both more exact. Filters rank no better with
    more than seven (decision 14).

    Args:
        matrix: ``[n_users, n_items]``.
        rank: How many, at least 1. Fewer are returned where the matrix has fewer above 0: never
            more than its rows, its columns or its rank, none of a matrix of zeros.
        seed: Of the sketch; equal arguments give equal results.
        iterations: Rounds of power iteration.

    References:
        Halko, Martinsson and Tropp (2011): the sketch by power iteration, section 4.5,
        orthonormal again after every round; the decomposition by algorithm 5.1.

    Example:
        >>> spectrum = singular_vectors(csr_array([[3.0, 0, 0], [0, 0, -2.0]]), rank=5)
        >>> spectrum.values.round(4).tolist()
        [3.0, 2.0]
        >>> (spectrum.vectors.T.round(4) + 0).tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    forth = csr_array(matrix, dtype=np.float32)
    back = csr_array(forth.T)
    rng, width = np.random.default_rng(seed), min(rank + _OVERSAMPLING, *forth.shape)
    sketch = rng.standard_normal((forth.shape[1], width), dtype=np.float32)
    for _ in range(iterations):
        sketch = _basis(back @ (forth @ sketch))
    product = torch.from_numpy(back @ _basis(forth @ sketch))
    vectors, values, _ = (part.numpy() for part in torch.linalg.svd(product, full_matrices=False))
    kept = min(rank, np.count_nonzero(values > _LEAST_SHARE * values.max(initial=0)))
    return Spectrum(values[:kept], _with_signs(vectors[:, :kept]))


def above_chance(train: csr_array, values: np.ndarray, *, seed: int = 0) -> int:
    """How many singular values of the normalised interactions stand out: are above those that the
    same interactions have once items are dealt anew, which keeps how much each user and each item
    has and nothing else.

    Only the first of those is left out: it is 1, whatever there is.

    Args:
        train: ``[n_users, n_items]`` binary interactions.
        values: ``[k]`` their singular values, normalised, descending.
        seed: Of the deal.

    References:
        Horn (1965), parallel analysis.

    Example:
        >>> two_groups = csr_array(np.kron(np.eye(2), np.ones((40, 30))))
        >>> values = singular_vectors(normalised(two_groups), 10).values
        >>> above_chance(two_groups, values)
        2
    """
    dealt = np.random.default_rng(seed).permutation(train.indices)
    by_chance = csr_array((np.ones(len(dealt)), dealt, train.indptr.copy()), shape=train.shape)
    by_chance.sum_duplicates()
    by_chance.data[:] = 1
    chance = singular_vectors(normalised(by_chance), 2).values
    return int(np.count_nonzero(values > chance[1])) if len(chance) > 1 else len(values)


def _basis(columns: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span the same. Torch stays in float32, where NumPy takes four times
    as long in float64.
    """
    basis: np.ndarray = torch.linalg.qr(torch.from_numpy(columns)).Q.numpy()
    return basis


def _with_signs(vectors: np.ndarray) -> np.ndarray:
    """The same columns, the largest magnitude of each positive."""
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[largest, np.arange(vectors.shape[1])])
    return np.ascontiguousarray(vectors * signs)
