"""The randomized spectrum against dense decompositions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from coterie.networks.spectrum import above_chance, normalised, singular_vectors
from test_sparse import SHAPES, random_dense


def interactions(n_users: int, n_items: int, seed: int) -> csr_array:
    """Where there are several: a user of nothing, one of everything but the last item, which nobody
    has.
    """
    dense = random_dense(n_users, n_items, seed)
    if n_items > 1:
        dense[:, -1] = 0
    return csr_array(dense)


@settings(max_examples=100, deadline=None)
@given(*SHAPES)
def test_normalised_divides_by_the_roots_of_both_degrees(
    n_users: int, n_items: int, seed: int
) -> None:
    train = interactions(n_users, n_items, seed)
    before, dense = train.copy(), train.toarray()
    found = normalised(train)
    degrees = np.outer(dense.sum(axis=1), dense.sum(axis=0))
    expected = np.divide(dense, np.sqrt(degrees), where=dense > 0, out=np.zeros_like(dense))
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)
    assert found.dtype == np.float32
    assert (train != before).nnz == 0


@settings(max_examples=100, deadline=None)
@given(*SHAPES, st.integers(1, 20))
def test_small_matrices_are_decomposed_exactly(
    n_users: int, n_items: int, seed: int, rank: int
) -> None:
    matrix = normalised(interactions(n_users, n_items, seed))
    check_spectrum(matrix, rank, atol=1e-5)


def check_spectrum(matrix: csr_array, rank: int, atol: float) -> None:
    """Values one by one; vectors as the space that those of equal values span."""
    values, vectors = singular_vectors(matrix, rank)
    exact, rows = np.linalg.svd(matrix.toarray().astype(np.float64))[1:]
    n_values = min(rank, int((exact > 1e-5).sum()))
    assert values.shape == (n_values,)
    assert vectors.shape == (matrix.shape[1], n_values)
    assert values.dtype == vectors.dtype == np.float32
    np.testing.assert_allclose(values, exact[:n_values], atol=atol)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(n_values), atol=1e-5)
    apart = [k for k in range(1, n_values + 1) if k == len(exact) or exact[k - 1] - exact[k] > 0.01]
    for k in apart:
        np.testing.assert_allclose(
            vectors[:, :k] @ vectors[:, :k].T, rows[:k].T @ rows[:k], atol=100 * atol
        )
    largest = np.abs(vectors).max(axis=0)
    assert np.array_equal(vectors.max(axis=0, initial=0), largest)


@pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
@pytest.mark.parametrize("rank", [1, 8])
def test_a_sketch_finds_what_leads(shape: tuple[int, int], rank: int) -> None:
    """Tastes above noise: the last of them are hardly apart from it."""
    rng = np.random.default_rng(0)
    tastes = rng.gamma(0.3, size=(shape[0], 8)) @ rng.gamma(0.3, size=(8, shape[1]))
    train = csr_array(rng.random(shape) < np.minimum(0.9, tastes / tastes.mean() / 10))
    check_spectrum(normalised(train), rank, atol=2e-4)


def test_a_matrix_of_less_rank_gives_fewer() -> None:
    rng = np.random.default_rng(0)
    matrix = csr_array(rng.normal(size=(150, 3)) @ rng.normal(size=(3, 120)))
    values, vectors = singular_vectors(matrix, rank=10)
    assert len(values) == 3
    np.testing.assert_allclose(matrix.toarray() @ vectors @ vectors.T, matrix.toarray(), atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (40, 50)])
def test_a_matrix_of_zeros_has_no_vectors(shape: tuple[int, int]) -> None:
    values, vectors = singular_vectors(normalised(csr_array(shape)), rank=2)
    assert values.shape == (0,)
    assert vectors.shape == (shape[1], 0)


def test_the_seed_decides() -> None:
    matrix = normalised(interactions(300, 200, 0))
    one, again, other = (singular_vectors(matrix, 20, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.vectors, again.vectors)
    assert not np.array_equal(one.vectors, other.vectors)


def test_more_iterations_are_more_exact() -> None:
    """Of noise, whose spectrum falls slowly."""
    matrix = normalised(interactions(400, 300, 0))
    exact = np.linalg.svd(matrix.toarray(), compute_uv=False)[:30]
    errors = [
        np.abs(singular_vectors(matrix, 30, iterations=n).values - exact).max() for n in (0, 2, 20)
    ]
    assert errors[0] > 2 * errors[1] > 20 * errors[2]


def in_groups(n_groups: int, share: float, seed: int) -> csr_array:
    """400 users who have ``share`` of the 40 items of their own group and a few of all."""
    rng = np.random.default_rng(seed)
    own = np.arange(400)[:, None] % n_groups == np.arange(40 * n_groups) % n_groups
    return csr_array((rng.random(own.shape) < np.where(own, share, 0.02)).astype(np.float32))


@pytest.mark.parametrize("n_groups", [1, 2, 5, 12])
def test_planted_groups_stand_out_and_nothing_else(n_groups: int) -> None:
    train = in_groups(n_groups, 0.4, seed=n_groups)
    before = train.copy()
    values = singular_vectors(normalised(train), 30).values
    assert above_chance(train, values) == n_groups
    # A matrix made of the same arrays must not change them.
    assert (train != before).nnz == 0
    np.testing.assert_array_equal(train.indptr, before.indptr)


@settings(max_examples=50, deadline=None)
@given(*SHAPES)
def test_any_matrix_has_a_count_that_stands_out(n_users: int, n_items: int, seed: int) -> None:
    train = interactions(n_users, n_items, seed)
    values = singular_vectors(normalised(train), 5).values
    assert 0 <= above_chance(train, values) <= len(values)
