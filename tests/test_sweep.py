"""The inverse in place against NumPy's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.networks import sweep
from coterie.networks.sweep import blocks, invert_in_place


def positive_definite(n: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, n + 3))
    matrix: np.ndarray = rows @ rows.T + 0.1 * np.eye(n)
    return matrix


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 999))
def test_it_is_the_inverse_in_the_same_memory_whatever_the_blocks(
    n: int, at_once: int, seed: int
) -> None:
    original = positive_definite(n, seed)
    matrix = torch.from_numpy(original.copy())
    place = matrix.data_ptr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "AT_ONCE", at_once)
        assert invert_in_place(matrix)
    assert matrix.data_ptr() == place
    np.testing.assert_allclose(matrix.numpy(), np.linalg.inv(original), rtol=1e-6, atol=1e-9)
    assert torch.equal(matrix, matrix.t())


def test_only_the_lower_triangle_is_read() -> None:
    original = positive_definite(600, 1)
    matrix = torch.from_numpy(np.tril(original) + np.triu(np.full((600, 600), np.nan), 1))
    assert invert_in_place(matrix)
    np.testing.assert_allclose(matrix.numpy(), np.linalg.inv(original), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("at_once", [1, 2, 10])
def test_what_is_not_positive_definite_is_told(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "AT_ONCE", at_once)
    matrix = torch.diag(torch.tensor([1.0, 2.0, 3.0, -1.0], dtype=torch.float64))
    assert not invert_in_place(matrix)
    assert not invert_in_place(torch.ones(3, 3, dtype=torch.float64))


def test_blocks_are_contiguous_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "AT_ONCE", 4)
    assert [i for block in blocks(10) for i in range(10)[block]] == list(range(10))
    assert list(blocks(0)) == []
