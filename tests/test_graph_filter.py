"""Graph filters against their formulas on dense matrices, and as networks whose sizes are only
known when they are loaded.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.sparse import csr_array

from coterie.config import RunConfig
from coterie.models.graph_filter import BspmConfig, GfCfConfig, GraphFilterModelConfig
from coterie.networks import graph_filter
from coterie.networks.graph_filter import GraphFilter
from coterie.networks.linear_path import LinearPathVAE
from coterie.simulation.service import simulate_dataset
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
from scorer_contract import check_recommender, check_scorer, random_histories
from test_sparse import DEVICES, SHAPES, random_dense, sparse

CONFIGS: list[GraphFilterModelConfig] = [
    GfCfConfig(rank=3, ideal_weight=0.7),
    BspmConfig(rank=3, ideal_weight=0.7, time=1.3, steps=2),
]
DATA = simulate_dataset(n_users=400, n_items=60, held_out_users=60, seed=2)


def parts(x: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """P and Π, in float64 and item × item."""
    of_users, of_items = (np.maximum(x.sum(axis=axis), 1) for axis in (1, 0))
    normal = x / np.sqrt(np.outer(of_users, of_items))
    rows = np.linalg.svd(normal)[2][: min(rank, np.linalg.matrix_rank(normal))]
    ideal: np.ndarray = rows.T @ rows / np.sqrt(of_items)[:, None] * np.sqrt(of_items)
    return normal.T @ normal, ideal


def slow_scores(x: np.ndarray, asked: np.ndarray, config: GraphFilterModelConfig) -> np.ndarray:
    """The filters as the papers write them, Runge–Kutta with its four slopes."""
    p, ideal = parts(x, config.rank)
    y: np.ndarray = asked @ p + config.ideal_weight * asked @ ideal
    if isinstance(config, GfCfConfig):
        return y
    step = config.time / config.steps
    for _ in range(config.steps):
        k1 = -y @ p
        k2 = -(y + step / 2 * k1) @ p
        k3 = -(y + step / 2 * k2) @ p
        k4 = -(y + step * k3) @ p
        y = y + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y


def interactions(n_users: int, n_items: int, seed: int) -> np.ndarray:
    """Someone has nothing and someone everything; an item nobody has."""
    x = random_dense(n_users, n_items, seed)
    if n_items > 1:
        x[:, -1] = 0
    return x


def has_gap(x: np.ndarray, rank: int) -> bool:
    """Whether the leading vectors are well defined: the last one's value stands apart."""
    values = np.append(np.sqrt(np.maximum(np.linalg.eigvalsh(parts(x, 1)[0])[::-1], 0)), 0)
    return bool(
        rank >= len(values) - 1 or values[rank - 1] - values[rank] > 1e-3 or values[rank] < 1e-5
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@settings(max_examples=60, deadline=None)
@given(*SHAPES, st.integers(1, 15))
def test_scores_are_the_papers_formulas(
    device: str,
    config: GraphFilterModelConfig,
    n_users: int,
    n_items: int,
    seed: int,
    rank: int,
) -> None:
    x, asked = interactions(n_users, n_items, seed), random_dense(4, n_items, seed + 1)
    config = config.model_copy(update={"rank": rank})
    assume(has_gap(x, rank))
    scores = config.fit(csr_array(x)).to(device).score(sparse(asked, device))
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores.cpu().numpy(), slow_scores(x, asked, config), atol=1e-5)


def test_many_small_steps_are_the_matrix_exponential() -> None:
    x, asked = interactions(40, 15, 0), random_dense(6, 15, 1)
    blurred = GfCfConfig(rank=5, ideal_weight=0.2).fit(csr_array(x)).score(sparse(asked)).numpy()
    config = BspmConfig(rank=5, ideal_weight=0.2, time=2.5, steps=20)
    found = config.fit(csr_array(x)).score(sparse(asked)).numpy()
    np.testing.assert_allclose(found, blurred @ expm(-2.5 * parts(x, 5)[0]), atol=1e-5)


def test_one_step_leaves_what_the_documentation_says() -> None:
    """One user of everything: P is the projection on the leading vector."""
    x = np.ones((1, 4))
    config = BspmConfig(rank=1, ideal_weight=0.0)
    once, often = (
        config.model_copy(update={"steps": n}).fit(csr_array(x)).score(sparse(x))[0, 0]
        for n in (1, 20)
    )
    assert (round(float(once), 2), round(float(often), 2)) == (0.65, 0.08)


def test_bspm_without_time_is_gf_cf() -> None:
    x, asked = csr_array(interactions(30, 12, 0)), sparse(random_dense(5, 12, 1))
    gf_cf = GfCfConfig(rank=4, ideal_weight=0.3).fit(x)
    bspm = BspmConfig(rank=4, ideal_weight=0.3, time=0.0, steps=3).fit(x)
    assert torch.equal(bspm.score(asked), gf_cf.score(asked))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_training_users_does_not_matter(
    config: GraphFilterModelConfig, seed: int
) -> None:
    x, asked = interactions(25, 12, seed), sparse(random_dense(5, 12, seed + 1))
    order = np.random.default_rng(seed).permutation(len(x))
    one, other = (config.fit(csr_array(rows)).score(asked) for rows in (x, x[order]))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_users", [0, 1, 5, 23])
def test_score_goes_over_users_in_pieces(n_users: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CONFIGS[1].fit(csr_array(interactions(30, 20, 0)))
    rows = sparse(random_dense(n_users, 20, 3))
    whole = model.score(rows)
    assert whole.shape == (n_users, 20)
    monkeypatch.setattr(graph_filter, "_USERS_AT_ONCE", 5)
    torch.testing.assert_close(model.score(rows), whole)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_nothing_comes_of_nothing(config: GraphFilterModelConfig) -> None:
    """No interactions, no history; an item of nobody."""
    assert not config.fit(csr_array((5, 8))).score(sparse(random_dense(3, 8, 0))).any()
    model = config.fit(csr_array(interactions(30, 8, 0)))
    assert not model.score(sparse(np.zeros((2, 8)))).any()
    assert not model.score(sparse(np.eye(8)))[:, -1].any()


def test_fit_changes_no_argument_and_draws_alike_whatever_was_drawn() -> None:
    x = csr_array(random_dense(80, 50, 2).astype(np.float32))
    before = x.copy()
    one = CONFIGS[0].fit(x)
    torch.manual_seed(7)
    assert torch.equal(CONFIGS[0].fit(x).vectors, one.vectors)
    assert (x != before).nnz == 0


def test_item_vectors_are_the_leading_singular_vectors() -> None:
    x = random_dense(50, 12, 0)
    vectors = GfCfConfig(rank=12).fit(csr_array(x)).item_vectors().numpy()
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(12), atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_an_empty_network_takes_what_is_loaded(config: GraphFilterModelConfig) -> None:
    asked = sparse(random_dense(4, 9, 1))
    for n_users in (1, 30):
        model, other = config.fit(csr_array(random_dense(n_users, 9, 0))), config.empty(9)
        state = model.state_dict()
        assert set(state) == {"indptr", "indices", "vectors"}
        other.load_state_dict(state)
        assert torch.equal(other.score(asked), model.score(asked))


@pytest.mark.parametrize(
    "changed",
    [
        {"indices": torch.tensor([1, 2])},
        {"indices": torch.tensor([1, 2, 3])},
        {"indices": torch.tensor([1, 2, -1])},
        {"indices": torch.tensor([[1, 2, 0]])},
        {"indptr": torch.tensor([0, 2, 4])},
        {"indptr": torch.tensor([0, 4, 3])},
        {"indptr": torch.tensor([1, 2, 3])},
        {"indptr": torch.tensor([], dtype=torch.int64)},
        {"indptr": torch.tensor(3)},
        {"vectors": torch.ones(4, 2)},
        {"vectors": torch.ones(3)},
        {"vectors": torch.tensor(1.0)},
    ],
    ids=str,
)
def test_what_is_no_matrix_is_not_loaded(changed: dict[str, torch.Tensor]) -> None:
    state = {
        "indptr": torch.tensor([0, 2, 3]),
        "indices": torch.tensor([1, 2, 0]),
        "vectors": torch.ones(3, 2),
    }
    CONFIGS[0].empty(3).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"must be a matrix|size mismatch"):
        CONFIGS[0].empty(3).load_state_dict({**state, **changed})
    with pytest.raises(RuntimeError, match="Missing key"):
        CONFIGS[0].empty(3).load_state_dict({"indptr": state["indptr"]})


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_a_model_keeps_the_contract_and_comes_back_from_its_folder(
    config: GraphFilterModelConfig, tmp_path: Path
) -> None:
    model = train(DATA, RunConfig(model=config))
    check_scorer(model, random_histories(9, DATA.n_items, seed=1))
    check_recommender(model)
    model.save(tmp_path / "model")
    found, asked = TrainedModel.load(tmp_path / "model"), random_histories(9, DATA.n_items, seed=2)
    assert found.config == model.config
    assert torch.equal(found.score(asked), model.score(asked))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_a_path_beside_the_decoder(config: GraphFilterModelConfig, tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "model": {
            "name": "linear-path-vae",
            "hidden_dims": [16],
            "latent_dim": 6,
            "path": config.model_dump(),
            "path_weight": 5.0,
        },
        "training": {"epochs": 2, "batch_size": 50, "metric": "ndcg@10"},
    }
    model = train(DATA, RunConfig.of(values))
    network, asked = model.network, random_histories(9, DATA.n_items, seed=1)
    assert isinstance(network, LinearPathVAE)
    assert isinstance(network.path, GraphFilter)
    rows = sparse(asked.toarray())
    with torch.no_grad():
        alone = network.decode(network.point(rows))
    torch.testing.assert_close(model.score(asked), alone + 5.0 * config.fit(DATA.train).score(rows))
    model.save(tmp_path / "model")
    assert torch.equal(TrainedModel.load(tmp_path / "model").score(asked), model.score(asked))


@pytest.mark.parametrize("name", ["gf-cf", "bspm"])
def test_the_command_line_trains_and_loads(
    name: str, tmp_path: Path, run_coterie: Callable[..., int]
) -> None:
    DATA.save(tmp_path / "data")
    run = tmp_path / "run"
    assert run_coterie("train", tmp_path / "data", "--model", name, "--out", run) == 0
    expected = train(DATA, RunConfig.of({"model": {"name": name}}))
    asked = random_histories(4, DATA.n_items, seed=1)
    assert torch.equal(TrainedModel.load(run / "model").score(asked), expected.score(asked))
