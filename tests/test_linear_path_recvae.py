"""A RecVAE and a linear path against the two models it is made of."""

from pathlib import Path
from typing import Any

import pytest
import torch

from coterie.config import RunConfig
from coterie.data.split import Part
from coterie.evaluation.evaluate import evaluate
from coterie.models.ease import EaseConfig
from coterie.models.linear_path_recvae import LinearPathRecVAEConfig
from coterie.models.recvae import RecVAEConfig
from coterie.networks.linear_path import LinearPathRecVAE
from coterie.networks.network import InnerProduct
from coterie.running.progress import Update
from coterie.simulation.service import simulate_dataset
from coterie.training.run_record import read_history
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
from scorer_contract import check_recommender, check_scorer, random_histories
from test_sparse import sparse

DATA = simulate_dataset(n_users=400, n_items=60, held_out_users=60, seed=2)
RECVAE = {"hidden_dim": 16, "latent_dim": 6, "encoder_epochs": 2, "pia": 0.2}
TRAINING = {"epochs": 4, "batch_size": 50, "learning_rate": 0.01, "metric": "ndcg@10"}
ASKED = random_histories(9, DATA.n_items, seed=1)


def config(name: str = "linear-path-recvae", **model: Any) -> RunConfig:
    return RunConfig.of({"model": {**RECVAE, "name": name, **model}, "training": TRAINING})


def value(scorer: Any) -> float:
    return evaluate(scorer, DATA, "validation", metrics=["ndcg@10"]).mean("ndcg@10")


@pytest.mark.parametrize("activity", [0.0, 0.5])
def test_scores_are_the_logits_plus_the_weighted_path(activity: float, tmp_path: Path) -> None:
    path = {"name": "ease", "l2": 20.0}
    model = train(DATA, config(path=path, path_weight=7.0, path_activity=activity))
    network, rows = model.network, sparse(ASKED.toarray())
    assert isinstance(network, LinearPathRecVAE)
    weight = 7.0 * rows.counts.clamp(min=1).unsqueeze(1) ** activity
    with torch.no_grad():
        ease = EaseConfig(l2=20.0).fit(DATA.train).score(rows)
        logits = network.decode(network.point(rows))
        torch.testing.assert_close(model.score(ASKED), logits + weight * ease)
    assert not isinstance(network, InnerProduct)
    check_scorer(model, ASKED)
    check_recommender(model)
    model.save(tmp_path / "model")
    loaded = TrainedModel.load(tmp_path / "model")
    assert torch.equal(loaded.score(ASKED), model.score(ASKED))
    assert loaded.fingerprint == model.fingerprint


def test_every_epoch_trains_as_recvae_does(tmp_path: Path) -> None:
    train(DATA, config(), out=tmp_path / "two")
    train(DATA, config("recvae"), out=tmp_path / "one")
    two, one = (read_history(tmp_path / run) for run in ("two", "one"))
    terms = ("nll", "kl", "pia", "decoder_nll", "decoder_kl", "gamma", "step")
    for of_two, of_one in zip(two, one, strict=True):
        assert [of_two[name] for name in terms] == [of_one[name] for name in terms]
        assert of_two["validation"] != of_one["validation"]


def test_the_sum_is_judged_is_not_below_its_parts_and_leaves_nothing_open() -> None:
    model = train(DATA, config())
    closed, network, found = model.config.model, model.network, value(model)
    assert model.provenance["best_validation"] == pytest.approx(found, abs=1e-9)
    assert isinstance(closed, LinearPathRecVAEConfig)
    assert isinstance(network, LinearPathRecVAE)
    assert closed.path is not None
    assert None not in (closed.path_weight, closed.path_activity)
    assert found >= value(train(DATA, closed.path)) - 1e-9
    network.path_weight = 0.0
    assert found >= value(model) - 1e-9


def test_resumed_is_uninterrupted(tmp_path: Path) -> None:
    whole = train(DATA, config())
    with pytest.raises(RuntimeError, match="crash"):
        train(DATA, config(), out=tmp_path, progress=_crash_in_epoch_3, checkpoint_seconds=0)
    resumed = train(DATA, config(), out=tmp_path, resume=True)
    assert resumed.config == whole.config
    assert torch.equal(resumed.score(ASKED), whole.score(ASKED))


def _crash_in_epoch_3(update: Update) -> None:
    if update.facts.get("epoch") == 3:
        raise RuntimeError("crash")


def test_the_sum_is_better_than_recvae_on_planted_data() -> None:
    data = simulate_dataset(n_users=900, n_items=120, held_out_users=150, seed=4)
    two, one = (
        evaluate(train(data, config(name)), data.cases(Part.TEST), metrics=["ndcg@10"])
        for name in ("linear-path-recvae", "recvae")
    )
    assert two.mean("ndcg@10") > one.mean("ndcg@10")


def test_fields_are_those_of_recvae_and_of_the_path() -> None:
    found = LinearPathRecVAEConfig.model_fields
    for name, field in RecVAEConfig.model_fields.items():
        if name != "name":
            assert repr(found[name]) == repr(field)
    assert set(found) - set(RecVAEConfig.model_fields) == {"path", "path_weight", "path_activity"}


def test_without_path_it_is_a_recvae() -> None:
    model = LinearPathRecVAEConfig(hidden_dim=9, gamma=0.02, path_weight=3.0)
    assert model.without_path() == RecVAEConfig(hidden_dim=9, gamma=0.02)
