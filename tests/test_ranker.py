"""The ranker against a sort of all scores: random shapes, ties, empty rows, everything seen,
catalogues in pieces.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from torch import Tensor

from coterie.errors import ConfigError, DataError, NumericalError
from coterie.models.multdae import MultDAEConfig
from coterie.models.multvae import MultVAEConfig
from coterie.networks.multdae import MultDAE
from coterie.networks.multvae import MultVAE
from coterie.ranking import ranker as ranker_module
from coterie.ranking.approximate import ApproximateIndex
from coterie.ranking.ranker import Ranker
from coterie.ranking.topk import best_keys, decode_keys, merge_keys, top_k
from coterie.sparse import SparseRows
from scorer_contract import LinearScorer, random_histories

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


@dataclass(frozen=True, eq=False)
class FactorModel:
    """An inner product of factors; whole numbers, so that sums are exact in any order and ties are
    many.
    """

    projection: Tensor
    items: Tensor

    @classmethod
    def random(cls, n_items: int, dim: int, seed: int, device: str = "cpu") -> "FactorModel":
        generator = torch.Generator().manual_seed(seed)
        draw = [
            torch.randint(-2, 3, (n_items, dim), generator=generator).float().to(device)
            for _ in range(2)
        ]
        return cls(draw[0], draw[1])

    @property
    def n_items(self) -> int:
        return len(self.items)

    def user_factors(self, histories: csr_array) -> Tensor:
        return (
            torch.from_numpy(histories.toarray().astype(np.float32)).to(self.items.device)
            @ self.projection
        )

    def item_factors(self) -> Tensor:
        return self.items

    def score(self, histories: csr_array) -> Tensor:
        return self.user_factors(histories) @ self.items.t()


@dataclass(frozen=True, eq=False)
class NetworkScorer:
    """A network behind the door that a trained model gives it."""

    network: MultVAE

    @property
    def n_items(self) -> int:
        return self.network.n_items

    def score(self, histories: csr_array) -> Tensor:
        with torch.no_grad():
            return self.network.score(SparseRows.from_csr(histories))

    def user_factors(self, histories: csr_array) -> Tensor:
        with torch.no_grad():
            return self.network.user_factors(SparseRows.from_csr(histories))

    def item_factors(self) -> Tensor:
        factors = self.network.item_factors()
        assert factors is not None
        return factors.detach()


def sorted_scores(
    scores: np.ndarray, k: int, excluded: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each row by (score descending, index ascending), excluded items dropped, -1 and -inf where
    none is left; no more columns than items.
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


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(0, 5),
    n_items=st.integers(1, 300),
    k=st.integers(1, 40),
    n_values=st.sampled_from([1, 2, 5, 1000]),
    seed=st.integers(0, 10**6),
)
def test_top_k_is_the_sorted_order(n: int, n_items: int, k: int, n_values: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = (rng.integers(-n_values, n_values, (n, n_items)) / 3).astype(np.float32)
    seen = rng.random((n, n_items)) < rng.choice([0, 0.1, 0.9, 1])
    best = top_k(torch.from_numpy(scores.copy()), k, seen=csr_array(seen))
    items, values = sorted_scores(scores, k, seen)
    np.testing.assert_array_equal(best.items.numpy(), items)
    np.testing.assert_array_equal(best.scores.numpy(), values)


@settings(max_examples=100, deadline=None)
@given(
    n_items=st.integers(2, 200),
    k=st.integers(1, 30),
    cut=st.integers(1, 199),
    seed=st.integers(0, 10**6),
)
def test_pieces_of_a_catalogue_merge_to_the_ranking_of_the_whole(
    n_items: int, k: int, cut: int, seed: int
) -> None:
    scores = torch.from_numpy(
        np.random.default_rng(seed).integers(-3, 3, (4, n_items)).astype(np.float32)
    )
    cut = min(cut, n_items - 1)
    first = best_keys(scores[:, :cut], k)
    floor = decode_keys(first).scores[:, -1] if first.shape[1] == k else None
    whole = merge_keys(
        first,
        best_keys(scores[:, cut:], k, first_item=cut, floor=floor),
        k,
    )
    assert torch.equal(whole, best_keys(scores, k))


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 6),
    n_items=st.integers(1, 120),
    k=st.integers(1, 150),
    at_once=st.integers(1, 400),
    seed=st.integers(0, 999),
)
def test_ranker_of_factors_is_the_sorted_order(
    device: str, n: int, n_items: int, k: int, at_once: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    model = FactorModel.random(n_items, 3, seed, device)
    histories = csr_array((rng.random((n, n_items)) < rng.choice([0, 0.3, 1])).astype(np.float32))
    allow, deny = (
        torch.from_numpy(rng.random(n_items) < 0.9),
        torch.from_numpy(rng.random(n_items) < 0.1),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranker_module, "_SCORES_AT_ONCE", at_once)
        ranker = Ranker(model, k, allow=allow, deny=deny)
        answers = [ranker.rank(histories, seen=histories) for _ in range(2)]
    excluded = (histories.toarray() > 0) | ~allow.numpy() | deny.numpy()
    items, values = sorted_scores(model.score(histories).cpu().numpy(), k, excluded)
    for best in answers:
        np.testing.assert_array_equal(best.items.cpu().numpy(), items)
        np.testing.assert_array_equal(best.scores.cpu().numpy(), values)


def test_ranker_of_any_scorer_is_the_sorted_order() -> None:
    model = LinearScorer.random(50, seed=3, whole=True)
    histories = random_histories(7, 50, seed=4)
    best = Ranker(model, 60).rank(histories, seen=histories)
    items, values = sorted_scores(model.score(histories).numpy(), 60, histories.toarray() > 0)
    np.testing.assert_array_equal(best.items.numpy(), items)
    np.testing.assert_array_equal(best.scores.numpy(), values)


@pytest.mark.parametrize(
    "network",
    [
        MultVAEConfig(hidden_dims=(8,), latent_dim=4).build(40, torch.Generator()),
        MultDAEConfig(latent_dim=4).build(40, torch.Generator()),
    ],
    ids=["mult-vae", "mult-dae"],
)
def test_factors_of_a_network_multiply_to_its_scores(network: MultVAE | MultDAE) -> None:
    rows = SparseRows.from_csr(random_histories(9, 40, seed=5))
    factors = network.item_factors()
    assert factors is not None
    with torch.no_grad():
        torch.testing.assert_close(network.user_factors(rows) @ factors.t(), network.score(rows))


def test_ranker_with_an_index_that_reads_all_lists_is_exact() -> None:
    network = MultVAEConfig(hidden_dims=(8,), latent_dim=4).build(
        200, torch.Generator().manual_seed(1)
    )
    scorer = NetworkScorer(network)
    histories = random_histories(20, 200, seed=2)
    index = ApproximateIndex.build(scorer, n_lists=8, n_probed=8)
    exact, approximate = (
        Ranker(scorer, 30, index=one).rank(histories, seen=histories) for one in (None, index)
    )
    assert torch.equal(approximate.items, exact.items)
    torch.testing.assert_close(approximate.scores, exact.scores)


def test_ranker_refuses_an_index_for_a_scorer_without_factors() -> None:
    network = MultVAEConfig(hidden_dims=(8,), latent_dim=4).build(
        200, torch.Generator().manual_seed(1)
    )
    with pytest.raises(ConfigError, match="needs a scorer with item factors"):
        Ranker(
            LinearScorer.random(200, seed=1),
            5,
            index=ApproximateIndex.build(NetworkScorer(network)),
        )


def test_many_equal_scores_are_ranked_in_little_memory() -> None:
    best = top_k(torch.zeros(64, 40_000), 10)
    assert best.items.tolist() == [list(range(10))] * 64


def test_ranker_refuses_what_it_cannot_rank() -> None:
    model = FactorModel.random(6, 2, seed=0)
    histories = csr_array(np.eye(3, 6, dtype=np.float32))
    with pytest.raises(ConfigError, match="at least 1, found 0"):
        Ranker(model, 0)
    with pytest.raises(DataError, match="shape of the histories"):
        Ranker(model, 1).rank(histories, seen=histories[:2])
    model.items[4] = torch.nan
    with pytest.raises(NumericalError, match="3 of 3 rows"):
        Ranker(model, 1).rank(histories)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_score_that_is_not_finite_is_found(bad: float) -> None:
    scores = torch.zeros(5, 1000)
    scores[3, 777] = bad
    with pytest.raises(NumericalError, match=r"1 of 5 rows \(first rows: \[3\]\)"):
        top_k(scores, 3)


def test_large_finite_scores_whose_sum_overflows_are_no_fault() -> None:
    assert top_k(torch.full((1, 100), 3e38), 1).items.tolist() == [[0]]
