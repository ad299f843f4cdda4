"""Sparse rows against the dense matrices they stand for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from coterie.sparse import SparseRows, gather_sum

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
    ),
]


def random_dense(n_rows: int, n_items: int, seed: int, density: float = 0.3) -> np.ndarray:
    """A binary matrix; where there is more than one row, the first is empty and the last is
    full.
    """
    dense = np.random.default_rng(seed).random((n_rows, n_items)) < density
    if n_rows > 1:
        dense[0], dense[-1] = False, True
    return dense.astype(np.float64)


def sparse(dense: np.ndarray, device: str = "cpu") -> SparseRows:
    return SparseRows.from_csr(csr_array(dense), device)


def to_dense(rows: SparseRows) -> np.ndarray:
    dense = np.zeros((len(rows), rows.n_items))
    # Adding, not setting: an entry listed twice must show.
    np.add.at(dense, (rows.row.cpu().numpy(), rows.indices.cpu().numpy()), 1)
    return dense


SHAPES = (st.integers(1, 9), st.integers(1, 13), st.integers(0, 10_000))


@settings(max_examples=50, deadline=None)
@given(*SHAPES)
def test_from_csr_keeps_the_matrix(n_rows: int, n_items: int, seed: int) -> None:
    dense = random_dense(n_rows, n_items, seed)
    rows = sparse(dense)
    assert len(rows) == n_rows
    assert rows.n_items == n_items
    assert rows.counts.tolist() == dense.sum(axis=1).tolist()
    assert rows.row.tolist() == np.nonzero(dense)[0].tolist()
    assert np.array_equal(to_dense(rows), dense)


def test_from_csr_does_not_read_values() -> None:
    assert sparse(np.array([[0.0, 5.0, 0.25]])).indices.tolist() == [1, 2]


@settings(max_examples=50, deadline=None)
@given(*SHAPES, st.data())
def test_take_is_fancy_indexing(n_rows: int, n_items: int, seed: int, data: st.DataObject) -> None:
    dense = random_dense(n_rows, n_items, seed)
    chosen = data.draw(st.lists(st.integers(0, n_rows - 1), max_size=12))
    taken = sparse(dense).take(torch.tensor(chosen, dtype=torch.int64))
    assert len(taken) == len(chosen)
    assert np.array_equal(to_dense(taken), dense[chosen])


@settings(max_examples=50, deadline=None)
@given(*SHAPES)
def test_transposed_is_the_other_way_round(n_rows: int, n_items: int, seed: int) -> None:
    dense = random_dense(n_rows, n_items, seed)
    rows = sparse(dense).weighted(torch.from_numpy(dense.cumsum(axis=0)[np.nonzero(dense)]))
    found = rows.transposed()
    assert np.array_equal(to_dense(found), dense.T)
    assert found.values is not None
    assert found.values.tolist() == dense.cumsum(axis=0).T[np.nonzero(dense.T)].tolist()


@settings(max_examples=50, deadline=None)
@given(*SHAPES)
def test_where_drops_entries_and_keeps_rows(n_rows: int, n_items: int, seed: int) -> None:
    dense = random_dense(n_rows, n_items, seed)
    keep = np.random.default_rng(seed + 1).random(dense.shape) < 0.5
    kept = sparse(dense).where(torch.from_numpy(keep[np.nonzero(dense)]))
    assert len(kept) == n_rows
    assert np.array_equal(to_dense(kept), dense * keep)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("n_rows", "n_items", "dim"), [(1, 1, 1), (7, 20, 3), (40, 33, 8)])
def test_gather_sum_is_the_dense_product(n_rows: int, n_items: int, dim: int, device: str) -> None:
    dense = random_dense(n_rows, n_items, n_rows)
    weight = (
        torch.randn(n_items, dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        .to(device)
        .requires_grad_()
    )
    upstream = torch.randn(
        n_rows, dim, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    ).to(device)
    summed = gather_sum(sparse(dense, device), weight)
    (grad,) = torch.autograd.grad(summed, weight, upstream)
    binary = torch.from_numpy(dense).to(device)
    torch.testing.assert_close(summed, binary @ weight, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grad, binary.t() @ upstream, rtol=1e-12, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(*SHAPES)
def test_gather_sum_has_the_numerical_gradient(n_rows: int, n_items: int, seed: int) -> None:
    rows = sparse(random_dense(n_rows, n_items, seed))
    weight = torch.randn(
        n_items, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: gather_sum(rows, w), (weight,))


@pytest.mark.parametrize("n_rows", [0, 1, 4])
def test_gather_sum_of_rows_without_ones_is_zero(n_rows: int) -> None:
    weight = torch.ones(5, 2, requires_grad=True)
    summed = gather_sum(sparse(np.zeros((n_rows, 5))), weight)
    (grad,) = torch.autograd.grad(summed.sum(), weight)
    assert summed.tolist() == [[0.0, 0.0]] * n_rows
    assert grad.tolist() == [[0.0, 0.0]] * 5


def test_gather_sum_gives_equal_bits_every_time() -> None:
    rows = sparse(random_dense(300, 200, 5))
    generator = torch.Generator().manual_seed(3)
    weight, upstream = (
        torch.randn(200, 48, generator=generator).requires_grad_(),
        torch.randn(300, 48, generator=generator),
    )
    summed = gather_sum(rows, weight)
    (grad,) = torch.autograd.grad(summed, weight, upstream)
    for _ in range(5):
        again = gather_sum(rows, weight)
        assert torch.equal(again, summed)
        assert torch.equal(torch.autograd.grad(again, weight, upstream)[0], grad)


def test_gather_sum_accepts_a_gradient_that_is_not_contiguous() -> None:
    dense = random_dense(6, 9, 1)
    weight = torch.zeros(9, 1, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(gather_sum(sparse(dense), weight).expand(6, 1).sum(), weight)
    assert np.array_equal(grad.numpy()[:, 0], dense.sum(axis=0))
