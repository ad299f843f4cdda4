import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_array

from coterie.errors import ConfigError, DataError, NumericalError
from coterie.ranking.topk import top_k
from coterie.sparse import SparseRows

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


def brute_force(scores: np.ndarray, k: int, excluded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorts each row by (score descending, index ascending), excluded items dropped; no more
    columns than items.
    """
    k = min(k, scores.shape[1])
    items, values = (
        np.full((len(scores), k), -1),
        np.full((len(scores), k), -np.inf, dtype=np.float32),
    )
    for row, (line, out) in enumerate(zip(scores, excluded, strict=True)):
        order = [item for item in np.lexsort((np.arange(len(line)), -line)) if not out[item]][:k]
        items[row, : len(order)], values[row, : len(order)] = order, line[order]
    return items, values


shapes = st.tuples(st.integers(1, 6), st.integers(1, 12))
few_values = st.sampled_from([-1.5, -0.0, 0.0, 0.25, 3.0])


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    n, n_items = draw(shapes)
    scores = draw(arrays(np.float32, (n, n_items), elements=few_values.map(np.float32)))
    seen = draw(arrays(np.bool_, (n, n_items)))
    allow, deny = draw(arrays(np.bool_, n_items)), draw(arrays(np.bool_, n_items))
    return scores, seen, allow, deny, draw(st.integers(1, 15))


@settings(max_examples=150, deadline=None)
@given(problems())
def test_top_k_is_the_brute_force_order(
    problem: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int],
) -> None:
    scores, seen, allow, deny, k = problem
    items, values = brute_force(scores, k, seen | ~allow | deny)
    best = top_k(
        torch.from_numpy(scores.copy()),
        k,
        seen=csr_array(seen),
        allow=torch.from_numpy(allow),
        deny=torch.from_numpy(deny),
    )
    assert best.items.dtype == torch.int64
    assert best.scores.dtype == torch.float32
    np.testing.assert_array_equal(best.items.numpy(), items)
    np.testing.assert_array_equal(best.scores.numpy(), values)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_values", [2, 50, 100_000])
def test_top_k_of_large_rows_is_the_brute_force_order(device: str, n_values: int) -> None:
    rng = np.random.default_rng(n_values)
    scores = rng.integers(0, n_values, (20, 3000)).astype(np.float32)
    scores[:, ::3] *= -1  # some zeros become -0.0, which ranks as 0.0
    seen = rng.random(scores.shape) < 0.02
    best = top_k(
        torch.tensor(scores, device=device), 100, seen=SparseRows.from_csr(csr_array(seen), device)
    )
    items, values = brute_force(scores, 100, seen)
    np.testing.assert_array_equal(best.items.cpu().numpy(), items)
    np.testing.assert_array_equal(best.scores.cpu().numpy(), values)


def test_top_k_of_equal_scores_is_the_first_items() -> None:
    best = top_k(torch.zeros(3, 5000), 10)
    assert best.items.tolist() == [list(range(10))] * 3


def test_top_k_excludes_in_place() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0]])
    top_k(scores, 1, seen=csr_array(np.array([[0, 0, 1]])))
    assert scores.tolist() == [[1.0, 2.0, -torch.inf]]


def test_top_k_pads_a_row_with_nothing_left() -> None:
    best = top_k(torch.ones(2, 2), 3, seen=csr_array(np.array([[1, 1], [0, 1]])))
    assert best.items.tolist() == [[-1, -1], [0, -1]]
    assert best.scores.tolist() == [[-torch.inf] * 2, [1.0, -torch.inf]]


def test_top_k_of_no_rows_is_empty() -> None:
    assert top_k(torch.zeros(0, 4), 2).items.shape == (0, 2)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_top_k_names_the_rows_that_are_not_finite(bad: float) -> None:
    scores = torch.zeros(5, 4)
    scores[1, 2] = scores[3, 0] = bad
    with pytest.raises(NumericalError, match=r"2 of 5 rows \(first rows: \[1, 3\]\)"):
        top_k(scores, 2)


def test_top_k_refuses_k_below_one_and_seen_of_another_shape() -> None:
    with pytest.raises(ConfigError, match="k must be at least 1, found 0"):
        top_k(torch.zeros(1, 2), 0)
    with pytest.raises(DataError, match=r"\(2, 3\), found \(1, 3\)"):
        top_k(torch.zeros(2, 3), 1, seen=csr_array((1, 3)))
