"""Sparse item × item weights: against dense formulas, and as a network whose size is only known
when it is loaded.
"""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.linear_model import ElasticNet

from coterie.config import RunConfig
from coterie.data.ids import IdMap
from coterie.data.split import Cases
from coterie.errors import ConfigError
from coterie.evaluation.evaluate import evaluate
from coterie.models.item_item import (
    ItemItemConfig,
    ItemKnnConfig,
    Rp3BetaConfig,
    SlimConfig,
)
from coterie.networks import item_item
from coterie.networks.item_item import ItemItem
from coterie.training.trained_model import TrainedModel
from test_sparse import DEVICES, SHAPES, random_dense, sparse

CONFIGS: list[ItemItemConfig] = [
    ItemKnnConfig(neighbours=5),
    Rp3BetaConfig(neighbours=5),
    SlimConfig(l1=0.5, l2=5),
]
N_ITEMS = 15


def dense(model: ItemItem) -> np.ndarray:
    arrays = (model.values.cpu().numpy(), model.indices.cpu().numpy(), model.indptr.cpu().numpy())
    weight: np.ndarray = csr_array(arrays, shape=(model.n_items, model.n_items)).toarray()
    return weight


def fitted(x: np.ndarray, config: ItemItemConfig) -> np.ndarray:
    return dense(config.fit(csr_array(x.astype(np.float32))))


def cosine(x: np.ndarray, config: ItemKnnConfig) -> np.ndarray:
    """From the second item's users, unweighted, to the first one's, weighted: both orders are one
    without weights.
    """
    weighted = bm25(x) if config.weighting == "bm25" else x
    norms = np.outer(np.linalg.norm(weighted, axis=0), np.linalg.norm(x, axis=0))
    cosines: np.ndarray = weighted.T @ x / (norms + config.shrinkage)
    return cosines


def bm25(x: np.ndarray) -> np.ndarray:
    lengths, n_users = x.sum(axis=1, keepdims=True), x.sum(axis=0)
    weighted: np.ndarray = (
        np.log1p(len(x) / (1 + n_users))
        * x
        * 2.2
        / (x + 1.2 * (0.25 + 0.75 * lengths / lengths.mean()))
    )
    return weighted


def walks(x: np.ndarray, config: Rp3BetaConfig) -> np.ndarray:
    n_u, n_i = np.maximum(x.sum(axis=1), 1), x.sum(axis=0)
    to_user, to_item = (
        x.T * (1 / n_i[:, None]) ** config.alpha,
        x * (1 / n_u[:, None]) ** config.alpha,
    )
    paths: np.ndarray = to_user @ to_item / n_i**config.beta
    return paths


def check_best_of_columns(weight: np.ndarray, full: np.ndarray, k: int) -> None:
    """The k largest of each column, the diagonal counted among them and then left out; ties may go
    either way.
    """
    assert (np.diag(weight) == 0).all()
    for item, (kept, column) in enumerate(zip(weight.T, full.T, strict=True)):
        np.testing.assert_allclose(kept[kept != 0], column[kept != 0], rtol=1e-5)
        best = np.sort(column)[::-1][:k]
        among = np.count_nonzero(best) - np.count_nonzero(kept)
        assert among in (0, 1)
        # What was left out is the diagonal, or nothing.
        whole = np.sort(np.append(kept[kept != 0], [column[item]] * among))[::-1]
        np.testing.assert_allclose(whole, best[best != 0], rtol=1e-5)


@pytest.mark.parametrize("weighting", ["none", "bm25"])
@pytest.mark.parametrize("shrinkage", [0, 3.5])
@pytest.mark.parametrize("k", [1, 6, N_ITEMS, 1000])
def test_item_knn_is_the_cosine_of_the_closest(weighting: str, shrinkage: float, k: int) -> None:
    x = random_dense(60, N_ITEMS, 0)
    config = ItemKnnConfig.model_validate(
        {"neighbours": k, "shrinkage": shrinkage, "weighting": weighting}
    )
    check_best_of_columns(fitted(x, config), cosine(x, config), k)


@pytest.mark.parametrize("alpha", [0, 0.4, 1, 1.7])
@pytest.mark.parametrize("beta", [0, 0.3, 1.2])
@pytest.mark.parametrize("k", [1, 6, 1000])
def test_rp3beta_is_a_walk_of_three_steps(alpha: float, beta: float, k: int) -> None:
    x, config = random_dense(60, N_ITEMS, 0), Rp3BetaConfig(neighbours=k, alpha=alpha, beta=beta)
    check_best_of_columns(fitted(x, config), walks(x, config), k)


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize(("l1", "l2"), [(1, 5), (0.1, 2), (4, 0.5)])
def test_slim_is_the_elastic_net_of_each_item_on_the_others(
    l1: float, l2: float, nonnegative: bool
) -> None:
    x, expected = random_dense(80, N_ITEMS, 0), np.zeros((N_ITEMS, N_ITEMS))
    options = {
        "alpha": (l1 + l2) / len(x),
        "l1_ratio": l1 / (l1 + l2),
        "fit_intercept": False,
        "tol": 1e-8,
        "max_iter": 100_000,
    }
    for item in range(N_ITEMS):
        others = np.delete(np.arange(N_ITEMS), item)
        expected[others, item] = (
            ElasticNet(**options, positive=nonnegative).fit(x[:, others], x[:, item]).coef_
        )
    found = fitted(x, SlimConfig(l1=l1, l2=l2, nonnegative=nonnegative))
    # The library stops when no weight moves by more than 1e-4.
    np.testing.assert_allclose(found, expected, atol=1e-3)
    if l1 < 4:
        assert (expected < 0).any() != nonnegative
    assert 0 < np.count_nonzero(found) < N_ITEMS * (N_ITEMS - 1)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_items_and_users_without_interactions_give_no_weights(config: ItemItemConfig) -> None:
    x = random_dense(40, N_ITEMS, 1)
    x[:, 4] = x[7] = 0
    weight = fitted(x, config)
    assert np.isfinite(weight).all()
    assert not weight[4].any()
    assert not weight[:, 4].any()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_fit_is_the_same_with_more_threads_and_changes_no_argument(config: ItemItemConfig) -> None:
    train = csr_array(random_dense(200, 40, 2).astype(np.float32))
    before, threads = train.copy(), torch.get_num_threads()
    one = config.fit(train)
    assert (train != before).nnz == 0
    try:
        torch.set_num_threads(3)
        two = config.fit(train)
    finally:
        torch.set_num_threads(threads)
    # Threads share the random order in which SLIM's weights take turns, so they differ by as much
    # as its solver may.
    np.testing.assert_allclose(
        dense(two), dense(one), rtol=0, atol=1e-3 if isinstance(config, SlimConfig) else 0
    )


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=50, deadline=None)
@given(*SHAPES)
def test_score_is_the_product_with_the_weights(
    device: str, n_users: int, n_items: int, seed: int
) -> None:
    weight = np.random.default_rng(seed).normal(size=(n_items, n_items)) * random_dense(
        n_items, n_items, seed
    )
    model, asked = ItemItem(csr_array(weight)).to(device), random_dense(n_users, n_items, seed + 1)
    scores = model.score(sparse(asked, device))
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores.cpu().numpy(), asked @ weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_users", [0, 1, 16, 17, 100])
def test_score_goes_over_users_in_pieces(n_users: int) -> None:
    rng = np.random.default_rng(n_users)
    weight, asked = rng.integers(-3, 4, (20, 20)), random_dense(n_users, 20, 3)
    scores = ItemItem(csr_array(weight)).score(sparse(asked))
    assert scores.tolist() == (asked @ weight).tolist()


@settings(max_examples=50, deadline=None)
@given(*SHAPES, st.sampled_from([1e-15, 1, 1e9]))
def test_popularity_orders_the_zeros_and_moves_no_score(
    n_users: int, n_items: int, seed: int, scale: float
) -> None:
    rng, asked = np.random.default_rng(seed), sparse(random_dense(n_users, n_items, seed))
    weight = csr_array(scale * rng.normal(size=(n_items, n_items)) * (rng.random(n_items) < 0.2))
    popularity = rng.integers(0, 2**24, n_items)
    plain = ItemItem(weight).score(asked)
    scores = ItemItem(weight, popularity).score(asked)
    known = plain != 0
    assert torch.equal(scores[known], plain[known])
    for line, zero in zip(scores, ~known, strict=True):
        unknown = line[zero]
        assert (unknown >= 0).all()
        assert not len(unknown) or (line[~zero & (line > 0)] > unknown.max()).all()
        order = torch.argsort(unknown, stable=True)
        assert torch.equal(order, torch.argsort(torch.from_numpy(popularity)[zero], stable=True))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_lists_end_by_popularity_in_recommending_and_in_evaluating(config: ItemItemConfig) -> None:
    """Two groups of users and items that never meet: who is of one knows nothing of the other."""
    rng, x = np.random.default_rng(0), np.zeros((400, 30), dtype=np.float32)
    x[:200, :15], x[200:, 15:] = rng.random((2, 200, 15)) < np.linspace(0.1, 0.6, 15)
    network, shown = config.fit(csr_array(x)), [11, 12, 13]
    known = dense(network)[shown].any(axis=0)
    left = np.setdiff1d(np.flatnonzero(~known), shown)
    left = left[np.argsort(-x.sum(axis=0)[left], kind="stable")]
    assert 15 <= len(left) < 27
    config_of_run = RunConfig.of({"model": {"name": config.name}})
    model = TrainedModel(network, config_of_run, IdMap.of(range(30)), None, x.sum(axis=0))
    ranked = [one.item_id for one in model.recommend({"ann": shown}, k=30).for_user("ann")]
    assert ranked[-len(left) :] == left.tolist()
    fold_in = np.tile(np.isin(np.arange(30), shown), (len(left), 1))
    cases = Cases(left, csr_array(fold_in), csr_array(np.eye(30)[left]))
    reciprocal_ranks = evaluate(model, cases, metrics=["mrr@30"]).metrics["mrr@30"]
    ranks = [1 + ranked.index(item) for item in left]
    np.testing.assert_allclose(1 / reciprocal_ranks, ranks, rtol=1e-12)


def test_a_network_written_without_popularity_loads_and_keeps_its_zeros() -> None:
    """As version 0.1.0 wrote them, fingerprint included."""
    model = ItemItem(csr_array([[0, 2, 0], [0, 0, 0.5], [0, 0, 0]]))
    assert set(model.state_dict()) == {"indptr", "indices", "values"}
    old, new = ItemItem.empty(3), ItemItem.empty(3)
    old.load_state_dict(model.state_dict())
    asked = sparse(np.eye(3))
    assert old.score(asked).tolist() == model.score(asked).tolist()
    model = ItemItem(csr_array((3, 3)), np.array([5, 9, 7]))
    new.load_state_dict(model.state_dict())
    assert new.score(asked).argsort(dim=1, descending=True).tolist() == [[1, 2, 0]] * 3
    with pytest.raises(RuntimeError, match="size mismatch"):
        ItemItem.empty(3).load_state_dict({**model.state_dict(), "popularity": torch.ones(4)})


def test_item_vectors_are_the_columns() -> None:
    model = ItemKnnConfig().fit(csr_array(random_dense(50, 8, 0).astype(np.float32)))
    assert np.array_equal(model.item_vectors().numpy(), dense(model).T)


def test_item_vectors_of_a_large_catalogue_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_item, "_DENSE_ITEMS", 7)
    with pytest.raises(ConfigError, match="at most 7 items, found 8"):
        ItemItem(csr_array((8, 8))).item_vectors()


def test_an_empty_network_takes_as_many_weights_as_it_is_given() -> None:
    rng = np.random.default_rng(0)
    for n_weights in (0, 5, 60):
        model = ItemItem(
            csr_array(
                rng.normal(size=64).reshape(8, 8) * (rng.permutation(64).reshape(8, 8) < n_weights)
            )
        )
        other = ItemItem(csr_array((8, 8)))
        other.load_state_dict(model.state_dict())
        assert np.array_equal(dense(other), dense(model))
        assert other.indices.dtype == other.indptr.dtype == torch.int64


@pytest.mark.parametrize(
    "changed",
    [
        {"indices": torch.tensor([1, 2])},
        {"indices": torch.tensor([1, 2, 3])},
        {"indices": torch.tensor([1, 2, -1])},
        {"indices": torch.tensor([[1, 2, 0]])},
        {"values": torch.ones(4)},
        {"indptr": torch.tensor([0, 2, 3, 4])},
        {"indptr": torch.tensor([0, 3, 2, 3])},
        {"indptr": torch.tensor([1, 1, 2, 3])},
        {"indptr": torch.tensor([0, 3])},
    ],
    ids=str,
)
def test_what_is_no_matrix_is_not_loaded(changed: dict[str, torch.Tensor]) -> None:
    state = {
        "indptr": torch.tensor([0, 2, 3, 3]),
        "indices": torch.tensor([1, 2, 0]),
        "values": torch.ones(3),
    }
    ItemItem(csr_array((3, 3))).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"must be a matrix|size mismatch"):
        ItemItem(csr_array((3, 3))).load_state_dict({**state, **changed})
    with pytest.raises(RuntimeError, match="Missing key"):
        ItemItem(csr_array((3, 3))).load_state_dict({"indptr": state["indptr"]})


def test_a_missing_package_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "irspack", None)
    with pytest.raises(
        ConfigError, match=r"needs? the package irspack; pip install 'coterie\[baselines\]'"
    ):
        SlimConfig().fit(csr_array(np.eye(3)))
