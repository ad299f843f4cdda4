"""A decoder of two paths against the two models it is made of."""

from pathlib import Path
from typing import Any

import pytest
import torch

from coterie.config import RunConfig
from coterie.data.split import Part
from coterie.errors import ConfigError
from coterie.evaluation.evaluate import evaluate
from coterie.export import export_onnx
from coterie.models.ease import EaseConfig
from coterie.models.item_item import Rp3BetaConfig
from coterie.networks.ease import Ease
from coterie.networks.linear_path_vae import LinearPathVAE
from coterie.running.progress import Update
from coterie.simulation.service import simulate_dataset
from coterie.training.run_record import read_history
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


def _crash_in_epoch_3(update: Update) -> None:
    if update.facts.get("epoch") == 3:
        raise RuntimeError("crash")
