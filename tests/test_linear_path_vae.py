"""A decoder of two paths against the two models it is made of."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from torch import Tensor

from coterie.config import RunConfig
from coterie.data.split import Part, PartName
from coterie.errors import ConfigError
from coterie.evaluation.evaluate import evaluate
from coterie.export import export_onnx
from coterie.models import linear_path as linear_path_module
from coterie.models.ease import EaseConfig
from coterie.models.graph_filter import BspmConfig, GfCfConfig
from coterie.models.item_item import Rp3BetaConfig
from coterie.models.linear_path import choose_path
from coterie.models.linear_path_vae import LinearPathVAEConfig
from coterie.networks.ease import Ease
from coterie.networks.linear_path import LinearPathVAE
from coterie.networks.network import Network
from coterie.networks.path_weight import choose_weight
from coterie.running.progress import Update
from coterie.simulation.service import simulate_dataset
from coterie.sparse import SparseRows
from coterie.training import judge as judge_module
from coterie.training.checkpoint import load_checkpoint, save_checkpoint
from coterie.training.judge import ValidationJudge
from coterie.training.run_record import read_history, read_run
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
from scorer_contract import check_recommender, check_scorer, random_histories
from test_sparse import sparse

DATA = simulate_dataset(n_users=400, n_items=60, held_out_users=60, seed=2)
VAE = {"hidden_dims": [16], "latent_dim": 6, "anneal_steps": 20, "pia": 0.2}
TRAINING = {"epochs": 6, "batch_size": 50, "learning_rate": 0.01, "metric": "ndcg@10"}


def config(name: str = "linear-path-vae", **model: Any) -> RunConfig:
    return RunConfig.of({"model": {**VAE, "name": name, **model}, "training": TRAINING})


def test_scores_are_the_logits_plus_the_weighted_path(tmp_path: Path) -> None:
    model = train(DATA, config(path={"name": "ease", "l2": 20.0}, path_weight=7.0))
    network = model.network
    assert isinstance(network, LinearPathVAE)
    asked = random_histories(9, DATA.n_items, seed=1)
    rows = sparse(asked.toarray())
    ease = EaseConfig(l2=20.0).fit(DATA.train)
    assert isinstance(network.path, Ease)
    assert torch.equal(network.path.weight, ease.weight)
    with torch.no_grad():
        torch.testing.assert_close(
            model.score(asked), network.decode(network.point(rows)) + 7.0 * ease.score(rows)
        )
    check_scorer(model, asked)
    check_recommender(model)
    model.save(tmp_path / "model")
    assert torch.equal(TrainedModel.load(tmp_path / "model").score(asked), model.score(asked))


def test_every_epoch_trains_the_autoencoder_as_without_the_path(tmp_path: Path) -> None:
    train(DATA, config(), out=tmp_path / "two")
    train(DATA, config("mult-vae"), out=tmp_path / "one")
    two, one = (read_history(tmp_path / run) for run in ("two", "one"))
    for of_two, of_one in zip(two, one, strict=True):
        assert (of_two["nll"], of_two["kl"], of_two["pia"]) == (
            of_one["nll"],
            of_one["kl"],
            of_one["pia"],
        )
        assert of_two["validation"] != of_one["validation"]


def test_the_best_epoch_is_judged_by_the_sum() -> None:
    model = train(DATA, config())
    found = evaluate(model, DATA.cases(Part.VALIDATION), metrics=("ndcg@10",)).mean("ndcg@10")
    assert model.provenance["best_validation"] == pytest.approx(found, abs=1e-6)


def test_a_sparse_path_is_added_the_same_saved_and_not_exported(tmp_path: Path) -> None:
    model = train(DATA, config(path={"name": "rp3beta", "neighbours": 20}, path_weight=50.0))
    network, asked = model.network, random_histories(9, DATA.n_items, seed=1)
    assert isinstance(network, LinearPathVAE)
    path, rows = Rp3BetaConfig(neighbours=20).fit(DATA.train), sparse(asked.toarray())
    with torch.no_grad():
        torch.testing.assert_close(
            model.score(asked), network.decode(network.point(rows)) + 50.0 * path.score(rows)
        )
    check_scorer(model, asked)
    model.save(tmp_path / "model")
    assert torch.equal(TrainedModel.load(tmp_path / "model").score(asked), model.score(asked))
    with pytest.raises(ConfigError, match="a linear path must be ease"):
        export_onnx(model, tmp_path / "onnx")


def test_without_weight_the_path_is_not_there() -> None:
    alone, beside = train(DATA, config("mult-vae")), train(DATA, config(path_weight=0.0))
    asked = random_histories(9, DATA.n_items, seed=1)
    torch.testing.assert_close(beside.score(asked), alone.score(asked))


def test_scores_are_no_inner_product() -> None:
    model = train(DATA, config())
    assert not model.has_factors
    with pytest.raises(ConfigError, match="inner products"):
        model.item_factors()
    with pytest.raises(ConfigError, match="inner products"):
        model.user_factors(random_histories(3, DATA.n_items, seed=1))
    assert (
        len(model.recommend({"ann": [int(DATA.items.values[0].as_py())]}, k=3).for_user("ann")) == 3
    )


def test_resume_fits_the_path_again(tmp_path: Path) -> None:
    whole = train(DATA, config())
    with pytest.raises(RuntimeError, match="crash"):
        train(
            DATA, config(), out=tmp_path / "run", progress=_crash_in_epoch_3, checkpoint_seconds=0
        )
    resumed = train(DATA, config(), out=tmp_path / "run", resume=True)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert resumed.config == whole.config


def _crash_in_epoch_3(update: Update) -> None:
    if update.facts.get("epoch") == 3:
        raise RuntimeError("crash")


# What is left open and chosen on validation users.


def value(scorer: Any, part: PartName = "validation") -> float:
    return evaluate(scorer, DATA, part, metrics=["ndcg@10"]).mean("ndcg@10")


class GivenPath(Network):
    """A path whose scores are given, whoever asks."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.n_items, self.given = scores.shape[1], scores

    def score(self, rows: SparseRows) -> Tensor:
        return self.given[: len(rows)]

    def item_vectors(self) -> Tensor:
        raise NotImplementedError


def with_path(scores: Tensor) -> LinearPathVAE:
    generator = torch.Generator().manual_seed(1)
    path = GivenPath(scores)
    return LinearPathVAE(DATA.n_items, (8,), 4, generator, path=path, path_weight=1.0)


CASES = DATA.cases(Part.VALIDATION)
TO_FIND = torch.from_numpy(CASES.held_out.toarray().astype(np.float32))


def noise(seed: int) -> Tensor:
    return torch.randn(*TO_FIND.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(4))
def test_weight_is_the_best_of_many(seed: int) -> None:
    judge = ValidationJudge(CASES, "ndcg@10", "cpu")
    network = with_path(TO_FIND + 2 * noise(seed))
    with torch.no_grad():
        network.output.bias.add_(noise(seed + 10)[0], alpha=0.3)
        logits = network.decode(network.point(judge.rows))
    choose_weight(network, judge)
    chosen = judge.value(judge.scores(network))
    weights = [0.0, *np.geomspace(1e-4, 1e4, 300)]
    best = max(judge.value(logits + weight * network.path.score(judge.rows)) for weight in weights)
    assert chosen >= best - 0.01
    assert chosen >= judge.value(logits)
    assert chosen >= judge.value(network.path.score(judge.rows))


def test_a_path_that_knows_all_ranks_alone_and_one_that_knows_nothing_not_at_all() -> None:
    judge = ValidationJudge(CASES, "ndcg@10", "cpu")
    knows = with_path(TO_FIND + 1e-3 * noise(1))
    choose_weight(knows, judge)
    assert judge.value(judge.scores(knows)) == 1.0
    against = with_path(-TO_FIND)
    choose_weight(against, judge)
    assert against.path_weight == 0.0
    flat = with_path(torch.zeros_like(TO_FIND))
    choose_weight(flat, judge)
    assert judge.scores(flat).isfinite().all()


def test_judge_is_evaluate_and_takes_fewer_cases_where_they_are_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = train(DATA, EaseConfig(l2=20.0))
    judge = ValidationJudge(CASES, "ndcg@10", "cpu")
    scores = judge.scores(model.network)
    assert judge.value(scores) == pytest.approx(value(model), abs=1e-12)
    assert torch.equal(scores, judge.scores(model.network))
    monkeypatch.setattr(judge_module, "_MOST_SCORES", 7 * DATA.n_items)
    assert len(ValidationJudge(CASES, "ndcg@10", "cpu").rows) == 7


def test_path_is_the_best_alone() -> None:
    judge = ValidationJudge(CASES, "ndcg@10", "cpu")
    chosen = choose_path(DATA.train, judge)
    found = value(train(DATA, chosen))
    others = [GfCfConfig(), BspmConfig()] + [
        EaseConfig(l2=l2, popularity_exponent=exponent)
        for l2 in (500 / 9, 500 / 3, 500, 1500)
        for exponent in (0, 0.1, 0.2)
    ]
    assert found >= max(value(train(DATA, other)) for other in others) - 1e-6


class NearEase:
    """A judge of a known optimum: scores are worth more the nearer they are to EASE's with some
    λ.
    """

    def __init__(self, l2: float) -> None:
        self.rows = SparseRows.from_csr(CASES.fold_in)
        self.best = self.scores(EaseConfig(l2=l2).fit(DATA.train))
        self.asked = 0

    def scores(self, network: Network) -> Tensor:
        return network.score(self.rows)

    def value(self, scores: Tensor) -> float:
        self.asked += 1
        return -float((scores - self.best).square().sum())


@pytest.mark.parametrize("steps", [-3.5, -2, -0.5, 0, 0.5, 1.5, 4])
def test_lambda_is_found_to_half_a_step(steps: float) -> None:
    judge = NearEase(EaseConfig().l2 * 3**steps)
    chosen = choose_path(DATA.train, judge)
    assert isinstance(chosen, EaseConfig)
    assert chosen.l2 == pytest.approx(EaseConfig().l2 * 3**steps)
    assert chosen.popularity_exponent == 0


@pytest.mark.parametrize(("optimum", "fits"), [(0.5, 7), (5e6, 6)])
def test_lambda_stays_within_its_ends(optimum: float, fits: int) -> None:
    judge = NearEase(optimum)
    chosen = choose_path(DATA.train, judge)
    assert isinstance(chosen, EaseConfig)
    assert 5 <= chosen.l2 <= 50_000
    assert judge.asked == 2 + 4 * fits  # two graph filters, four exponents


def test_too_large_a_catalogue_is_no_ease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_path_module, "_MOST_EASE_ITEMS", DATA.n_items - 1)
    chosen = choose_path(DATA.train, ValidationJudge(CASES, "ndcg@10", "cpu"))
    assert isinstance(chosen, (GfCfConfig, BspmConfig))


@pytest.mark.parametrize("model", [{}, {"path": {"name": "ease", "l2": 5.0}}, {"path_weight": 3.0}])
def test_what_is_open_is_not_below_its_parts_and_the_artifact_has_it_closed(
    model: dict[str, Any], tmp_path: Path
) -> None:
    trained = train(DATA, config(**model), out=tmp_path / "run")
    closed = trained.config.model
    assert isinstance(closed, LinearPathVAEConfig)
    assert closed.path is not None
    assert closed.path_weight is not None
    assert closed.path_activity is not None
    assert read_run(tmp_path / "run").config == config(**model)
    network = trained.network
    assert isinstance(network, LinearPathVAE)
    assert (network.path_weight, network.path_activity) == (
        closed.path_weight,
        closed.path_activity,
    )
    found = value(trained)
    assert trained.provenance["best_validation"] == pytest.approx(found, abs=1e-9)
    if "path_weight" not in model:
        assert found >= value(train(DATA, closed.path)) - 1e-9
        network.path_weight = 0.0
        assert found >= value(trained) - 1e-9
    loaded = TrainedModel.load(tmp_path / "run" / "model")
    assert loaded.config == trained.config


def test_weights_of_each_epoch_are_in_the_history_and_the_best_is_kept(tmp_path: Path) -> None:
    trained = train(DATA, config(), out=tmp_path)
    weights = [(one["path_weight"], one["path_activity"]) for one in read_history(tmp_path)]
    network = trained.network
    assert isinstance(network, LinearPathVAE)
    assert (network.path_weight, network.path_activity) == weights[
        trained.provenance["best_epoch"] - 1
    ]
    assert len(set(weights)) > 1


def test_nothing_is_left_open_without_validation_users() -> None:
    everybody = simulate_dataset(n_users=100, n_items=30, held_out_users=0, seed=1)
    with pytest.raises(ConfigError, match=r"no validation users.*set both \(model\.path,"):
        train(everybody, config())
    closed = config(path={"name": "ease"}, path_weight=10.0)
    assert train(everybody, closed).config.model == closed.model


# The weight by a user's activity.


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), weight=st.floats(0, 50), activity=st.floats(-2, 2))
def test_a_users_items_weigh_the_path_as_the_formula_says(
    seed: int, weight: float, activity: float
) -> None:
    x = random_histories(7, 30, seed).toarray()
    x[0] = 0
    ease, generator = Ease.fit(csr_array(x), 3.0), torch.Generator().manual_seed(seed)
    network = LinearPathVAE(
        30, (8,), 4, generator, path=ease, path_weight=weight, path_activity=activity
    )
    with torch.no_grad():
        found, logits = network.score(sparse(x)), network.decode(network.point(sparse(x)))
    n = np.maximum(x.sum(axis=1, keepdims=True), 1).astype(float)
    expected = logits.numpy() + weight * n**activity * (x @ ease.weight.numpy())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5 * n.max() ** 2)
    assert found.isfinite().all()


def test_without_activity_scores_keep_their_bits() -> None:
    rows = sparse(random_histories(7, DATA.n_items, seed=1).toarray())
    path = EaseConfig(l2=20.0).fit(DATA.train)
    generator = torch.Generator().manual_seed(1)
    network = LinearPathVAE(DATA.n_items, (8,), 4, generator, path=path, path_weight=7.3)
    with torch.no_grad():
        expected = network.decode(network.point(rows)).add_(path.score(rows), alpha=7.3)
        assert torch.equal(network.score(rows), expected)


def test_a_given_weight_is_everybodys_unless_its_activity_is_given_too() -> None:
    assert LinearPathVAEConfig().path_activity is None
    assert LinearPathVAEConfig(path_weight=3.0).path_activity == 0.0
    assert LinearPathVAEConfig(path_weight=3.0, path_activity=0.5).path_activity == 0.5
    assert LinearPathVAEConfig(path_activity=0.5).path_weight is None
    with pytest.raises(ConfigError, match="path_activity"):
        config(path_activity=2.1)


COUNTS = torch.from_numpy(CASES.fold_in.sum(axis=1))
HEAVY = COUNTS.gt(COUNTS.median()).unsqueeze(1)


def judged(network: LinearPathVAE, judge: ValidationJudge, activity: float | None) -> float:
    choose_weight(network, judge, activity)
    return judge.value(judge.scores(network))


@pytest.mark.parametrize("heavy", [True, False])
def test_a_path_that_is_right_for_some_users_weighs_more_for_them(heavy: bool) -> None:
    judge = ValidationJudge(CASES, "ndcg@10", "cpu")
    knows = TO_FIND + 0.3 * noise(1)
    network = with_path(torch.where(HEAVY if heavy else ~HEAVY, knows, noise(2)))
    with torch.no_grad():
        network.output.bias.copy_(torch.from_numpy(DATA.train.sum(axis=0)).log1p())
    same = judged(network, judge, 0.0)
    assert network.path_activity == 0.0
    by_activity = judged(network, judge, None)
    assert (network.path_activity > 0) == heavy
    assert by_activity > same + 0.01
    assert judged(network, judge, network.path_activity) >= by_activity - 0.01


@pytest.mark.parametrize("seed", range(6))
def test_activity_is_chosen_only_where_it_is_better(seed: int) -> None:
    judge, network = ValidationJudge(CASES, "ndcg@10", "cpu"), with_path(TO_FIND + 2 * noise(seed))
    same = judged(network, judge, 0.0)
    weight = network.path_weight
    by_activity = judged(network, judge, None)
    assert by_activity >= same
    assert (by_activity > same) == (network.path_activity != 0)
    assert network.path_activity or network.path_weight == weight


def test_a_given_activity_is_kept_and_its_weight_chosen() -> None:
    chosen = train(DATA, config(path_activity=0.4)).config.model
    assert isinstance(chosen, LinearPathVAEConfig)
    assert chosen.path_activity == 0.4
    assert chosen.path_weight is not None
    again = train(DATA, RunConfig(model=chosen, training=config().training))
    assert again.config.model == chosen


def test_a_checkpoint_from_before_there_was_an_activity_goes_on(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="crash"):
        train(DATA, config(), out=tmp_path, progress=_crash_in_epoch_3, checkpoint_seconds=0)
    file = tmp_path / "checkpoint.safetensors"
    position, state, best = load_checkpoint(file, "cpu")
    del best["chosen.path_activity"]
    save_checkpoint(file, position, state, best)
    assert train(DATA, config(), out=tmp_path, resume=True).config.model == (
        train(DATA, config()).config.model
    )
