"""The warm start on planted catalogues: rows by id against loops, runs that go on without their
parent, and what is refused.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.config import RunConfig
from coterie.data.dataset import Dataset, Interactions
from coterie.data.ids import IdMap
from coterie.data.split import Part, Split
from coterie.errors import ConfigError, NotFoundError
from coterie.models.ease import EaseConfig
from coterie.models.kinds import SteppedConfig
from coterie.networks.autoencoder import Autoencoder, VariationalAutoencoder
from coterie.networks.recvae import CompositePrior
from coterie.networks.warm_start import Parent
from coterie.running.execution import Execution
from coterie.running.progress import Update
from coterie.show.show import show
from coterie.training.loop import TrainingLoop
from coterie.training.randomness import WEIGHTS, seeded
from coterie.training.run_folder import RunFolder, read_anchors
from coterie.training.run_record import read_history, read_run
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import refit, train
from coterie.training.warm_start import WarmStart
from test_parallel import ROUNDING, ends, torchrun
from test_sparse import sparse
from test_training import DATA, QUICK_DAE, QUICK_REC, QUICK_VAE, config, same_weights

Run = Callable[..., int]

MODELS: dict[str, dict[str, Any]] = {
    "vae": {**QUICK_VAE, "pia": 0.0},
    "vae + pia": QUICK_VAE,
    "dae": {**QUICK_DAE, "hidden_dims": [9]},
    "gated vamp": {**QUICK_VAE, "name": "vamp-vae", "components": 5, "gated": True},
    "recvae": QUICK_REC,
    "linear path": {**QUICK_VAE, "name": "linear-path-vae"},
}
N_NEW, N_DROPPED = 5, 7


def recatalogued(n_new: int, seed: int = 1) -> Dataset:
    """The data set with its columns in another order, some gone and ``n_new`` more among them."""
    rng, x = np.random.default_rng(seed), DATA.interactions
    rows = csr_array((DATA.split.interaction_part + 1, x.indices, x.indptr)).toarray()
    fresh = np.where(rng.random((len(rows), n_new)) < 0.1, Part.TRAIN + 1, 0)
    kept = rng.permutation(DATA.n_items)[N_DROPPED:]
    columns = rng.permutation(len(kept) + n_new)
    parts = np.hstack([rows[:, kept], fresh])[:, columns].astype(np.uint8)
    ids = [*x.items.ids_of(kept), *(1_000_000 + np.arange(n_new))]
    users, items = np.nonzero(parts)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=len(rows)))])
    interactions = Interactions(
        x.users, IdMap.of([int(ids[column]) for column in columns]), indptr, items.astype(np.int32)
    )
    return Dataset(interactions, Split(DATA.split.user_part, parts[users, items] - 1))


NEW, SAME_ITEMS = recatalogued(N_NEW), recatalogued(0)
FACTS = {
    "start": "warm",
    "items_carried": DATA.n_items - N_DROPPED,
    "items_new": N_NEW,
    "items_dropped": N_DROPPED,
}


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of every model."""
    folder = tmp_path_factory.mktemp("parents")
    for name, model in MODELS.items():
        train(DATA, config(model), out=folder / name)
    return folder


def begun(
    name: str, start: WarmStart | Path, data: Dataset = NEW, shrink: float = 1.0, **training: Any
) -> TrainingLoop:
    """Training before its first step."""
    asked = config(MODELS[name], start="warm", shrink=shrink, **training)
    return TrainingLoop(data, asked, Execution("cpu"), warm=WarmStart.of(start))


def logits(network: Autoencoder, histories: csr_array) -> np.ndarray:
    """Without what stands beside the decoder."""
    rows = sparse(histories.toarray() > 0)
    scores: np.ndarray = network.decode(network.point(rows)).detach().numpy()
    return scores


@pytest.mark.parametrize("name", MODELS)
def test_a_plain_copy_scores_shared_items_as_the_parent(name: str, parents: Path) -> None:
    parent = TrainedModel.load(parents / name)
    origin = parent.items.index_of(SAME_ITEMS.items.values)
    histories = SAME_ITEMS.train[:40]
    of_parent = np.zeros((40, parent.n_items))
    of_parent[:, origin] = histories.toarray()
    expected = logits(cast("Autoencoder", parent.network), csr_array(of_parent))[:, origin]
    network = begun(name, parents / name, SAME_ITEMS).step.network
    np.testing.assert_allclose(logits(network, histories), expected, rtol=1e-4, atol=1e-5)


def slow_rows(table: np.ndarray, parent: TrainedModel, data: Dataset) -> np.ndarray:
    """The definition, a pair of items in a history at a time."""
    rows, known = np.zeros((data.n_items, table.shape[1])), dict[int, int]()
    for item, one in enumerate(data.items.ids_of(range(data.n_items))):
        if (row := int(parent.items.index_of([one])[0])) >= 0:
            known[item], rows[item] = row, table[row]
    for item in set(range(data.n_items)) - known.keys():
        histories = [set(history) for history in np.split(data.train.indices, data.train.indptr)]
        together = [
            table[known[other]]
            for history in histories
            if item in history
            for other in sorted(history & known.keys())
        ]
        rows[item] = np.mean(together, axis=0)
    return rows


@pytest.mark.parametrize("name", ["vae + pia", "gated vamp", "recvae"])
def test_new_rows_are_the_mean_of_what_they_are_consumed_with(name: str, parents: Path) -> None:
    parent, step = TrainedModel.load(parents / name), begun(name, parents / name).step
    weights, anchors = parent.network.state_dict(), read_anchors(parents / name)
    assert anchors is not None
    assert step.anchors is not None
    for found, table in (
        (step.network.input.weight, weights["input.weight"]),
        (step.network.output.weight, weights["output.weight"]),
        (step.anchors, anchors),
    ):
        expected = slow_rows(table.numpy(), parent, NEW)
        np.testing.assert_allclose(found.detach(), expected, rtol=1e-4, atol=1e-6)


def test_new_biases_lie_on_the_line_through_the_carried_ones(parents: Path) -> None:
    parent = TrainedModel.load(parents / "vae")
    bias = parent.network.state_dict()["output.bias"].numpy()
    origin = parent.items.index_of(NEW.items.values)
    logs = np.log(NEW.train.sum(axis=0))
    slope, level = np.polyfit(logs[origin >= 0], bias[origin[origin >= 0]], 1)
    found = begun("vae", parents / "vae").step.network.output.bias.detach().numpy()
    np.testing.assert_allclose(found[origin < 0], level + slope * logs[origin < 0], rtol=1e-4)
    np.testing.assert_array_equal(found[origin >= 0], bias[origin[origin >= 0]])


ALONE = csr_array([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]])
"""Items 3 and 4 are new and only with each other."""


def planted_parent(features: np.ndarray | None) -> tuple[Parent, Tensor]:
    table = torch.tensor([[1.0, 0.0], [0.0, 4.0], [3.0, 2.0]])
    origin = np.array([2, 0, 1, -1, -1])
    return Parent(cast("Autoencoder", None), origin, ALONE, features=features), table


def test_a_new_item_without_neighbours_is_the_mean_of_all() -> None:
    parent, table = planted_parent(None)
    assert torch.allclose(parent.rows(table)[3:], torch.tensor([[4 / 3, 2.0]] * 2))


def test_a_new_item_without_neighbours_is_like_those_nearest_by_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coterie.networks.warm_start._NEAREST", 1)
    features = np.array([[9.0, 1.0], [-1.0, 0.0], [0.1, 0.3], [1.0, 3.0], [0.0, 0.0]])
    parent, table = planted_parent(features)
    # Of nothing known it is the mean of all, as without features.
    assert torch.allclose(parent.rows(table)[3:], torch.tensor([[0.0, 4.0], [4 / 3, 2.0]]))


def test_as_many_items_are_near_as_are_told(parents: Path) -> None:
    rng = np.random.default_rng(1)
    train_rows = csr_array(np.hstack([np.eye(30), np.zeros((30, 1))]))
    features, table = rng.standard_normal((31, 4)), rng.standard_normal((30, 3)).astype(np.float32)
    origin = np.array([*range(30), -1])
    parent = Parent(cast("Autoencoder", None), origin, train_rows, features=features)
    lengths = np.linalg.norm(features, axis=1)
    nearest = np.argsort(-(features[:30] @ features[30]) / lengths[:30])[:10]
    found = parent.rows(torch.from_numpy(table))[30]
    np.testing.assert_allclose(found, table[nearest].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_shrinking_is_between_the_parent_and_a_fresh_draw(name: str, parents: Path) -> None:
    plain, shrunk = (
        dict(begun(name, parents / name, shrink=shrink).step.network.named_parameters())
        for shrink in (1.0, 0.3)
    )
    model = config(MODELS[name]).model
    assert isinstance(model, SteppedConfig)
    drawn = model.build(NEW.n_items, seeded(0, WEIGHTS, 0))
    for key, fresh in drawn.named_parameters():
        torch.testing.assert_close(shrunk[key], 0.3 * plain[key] + 0.7 * fresh)


def test_anchors_begin_where_they_rest_if_the_parent_has_none_to_give(parents: Path) -> None:
    step = begun("vae + pia", parents / "vae + pia" / "model").step
    network = cast("VariationalAutoencoder", step.network)
    mu = network.posterior(sparse(NEW.train.toarray() > 0))[0].detach().numpy()
    weights = NEW.train.toarray() / np.maximum(NEW.train.sum(axis=1), 1)[:, None]
    expected = weights.T @ mu / weights.sum(axis=0)[:, None]
    assert step.anchors is not None
    np.testing.assert_allclose(step.anchors.detach(), expected, rtol=1e-3, atol=1e-6)


def test_recvae_begins_with_the_posterior_that_was_carried_over(parents: Path) -> None:
    step = begun("recvae", parents / "recvae", shrink=0.5).step
    assert isinstance(step.prior, CompositePrior)
    weights = dict(step.network.named_parameters())
    assert all(torch.equal(value, weights[name]) for name, value in step.prior.earlier.items())


def test_a_linear_path_is_fitted_to_the_new_data(parents: Path) -> None:
    path = {"name": "ease", "l2": 20.0}
    model = {**MODELS["linear path"], "path": path, "path_weight": 3.0}
    warm = train(NEW, config(model, epochs=1), warm_from=parents / "linear path")
    expected = train(NEW, RunConfig.of({"model": path})).network.state_dict()["weight"]
    assert torch.equal(warm.network.state_dict()["path.weight"], expected)


def test_beta_goes_on_from_where_the_parents_left_it(tmp_path: Path) -> None:
    asked, steps, model = config({**MODELS["vae"], "anneal_steps": 100}), 0, None
    for week in ("1", "2", "3"):
        model = train(NEW, asked, out=tmp_path / week, warm_from=model)
        history = read_history(tmp_path / week)
        for entry in history:
            assert entry["beta"] == pytest.approx(0.2 * (steps + entry["step"]) / 100)
        steps += history[model.provenance["best_epoch"] - 1]["step"]
        assert model.provenance["steps"] == steps


def test_beta_begins_where_it_ends_if_nobody_knows_where_it_was(
    parents: Path, tmp_path: Path
) -> None:
    parent = TrainedModel.load(parents / "vae")
    told = {name: value for name, value in parent.provenance.items() if name != "steps"}
    asked = config({**MODELS["vae"], "anneal_steps": 1000})
    model = train(NEW, asked, out=tmp_path, warm_from=replace(parent, provenance=told))
    assert {entry["beta"] for entry in read_history(tmp_path)} == {0.2}
    assert model.provenance["steps"] is None


@pytest.mark.parametrize("name", MODELS)
def test_a_run_goes_on_to_the_same_bits_without_its_parent(
    name: str, parents: Path, tmp_path: Path
) -> None:
    asked, parent = config(MODELS[name], epochs=4), tmp_path / "parent"
    shutil.copytree(parents / name, parent)
    whole = train(NEW, asked, warm_from=parent)
    fingerprint = TrainedModel.load(parent).fingerprint
    for epoch in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            # Without a checkpoint but that of the start, then with one of every step.
            train(
                NEW, asked, out=tmp_path / "run", resume=True, warm_from=parent,
                progress=leaving(epoch), checkpoint_seconds=0 if epoch == 2 else 1e9,
            )  # fmt: skip
        shutil.rmtree(parent, ignore_errors=True)
    found = train(NEW, asked, out=tmp_path / "run", resume=True, warm_from=parent)
    assert same_weights(found, whole)
    assert found.provenance.items() >= {**FACTS, "parent": fingerprint}.items()
    assert not same_weights(found, train(NEW, asked))


def leaving(epoch: int) -> Callable[[Update], None]:
    """Leaves after so many epochs."""

    def listen(update: Update) -> None:
        if update.facts.get("epoch") == epoch:
            raise KeyboardInterrupt

    return listen


def test_before_the_first_step_the_start_is_on_disk(parents: Path, tmp_path: Path) -> None:
    asked, warm = config(start="warm"), WarmStart.of(parents / "vae + pia")
    facts = warm.facts(NEW.items)
    with RunFolder(tmp_path, asked, NEW, Execution("cpu"), resume=False, warm=facts) as folder:
        first = TrainingLoop(NEW, asked, Execution("cpu"), folder, warm=warm).step.state()
    with RunFolder(tmp_path, asked, NEW, Execution("cpu"), resume=True) as folder:
        again = TrainingLoop(NEW, asked, Execution("cpu"), folder).step.state()
    assert first.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_a_start_that_was_killed_before_its_checkpoint_needs_the_parent(
    parents: Path, tmp_path: Path
) -> None:
    asked, warm = config(start="warm"), WarmStart.of(parents / "vae + pia")
    facts = warm.facts(NEW.items)
    RunFolder(tmp_path, asked, NEW, Execution("cpu"), resume=False, warm=facts).close()
    with pytest.raises(ConfigError, match="as long as there is no checkpoint"):
        train(NEW, asked, out=tmp_path, resume=True)
    found = train(NEW, asked, out=tmp_path, resume=True, warm_from=warm)
    assert same_weights(found, train(NEW, asked, warm_from=warm))


def test_the_run_and_its_model_name_the_parent(
    parents: Path, tmp_path: Path, run_coterie: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    train(NEW, config(), out=tmp_path / "run", warm_from=parents / "vae + pia")
    parent = TrainedModel.load(parents / "vae + pia")
    told = {"parent": parent.fingerprint, "parent_steps": parent.provenance["steps"]}
    facts = FACTS | told
    record = read_run(tmp_path / "run")
    assert record.warm == facts
    assert record.identity is not None
    assert record.identity.parent == facts["parent"]
    assert record.provenance.items() >= facts.items()
    for place in ("run", "run/model"):
        assert show(tmp_path / place).facts.items() >= facts.items()
    assert run_coterie("show", tmp_path / "run") == 0
    assert "items carried" in capsys.readouterr().out


def test_a_model_in_memory_and_its_folder_start_alike(parents: Path) -> None:
    model = TrainedModel.load(parents / "vae")
    one, other = (
        train(NEW, config(MODELS["vae"]), warm_from=parent)
        for parent in (model, str(parents / "vae" / "model"))
    )
    assert one.fingerprint == other.fingerprint


def test_a_mult_vae_may_go_on_as_one_with_a_linear_path(parents: Path) -> None:
    model = train(NEW, config(MODELS["linear path"], epochs=1), warm_from=parents / "vae")
    assert model.config.model.name == "linear-path-vae"


def test_a_refit_starts_as_its_run_did(parents: Path, tmp_path: Path) -> None:
    asked, parent = config(MODELS["vae"]), parents / "vae"
    both = train(NEW, asked, out=tmp_path, refit=True, warm_from=parent)
    again = refit(tmp_path / "validated", NEW, warm_from=parent)
    assert both.fingerprint == again.fingerprint
    assert again.provenance.items() >= {**FACTS, "refit": True}.items()
    with pytest.raises(ConfigError, match="a warm start needs the trained model"):
        refit(tmp_path / "validated", NEW)
    with pytest.raises(ConfigError, match="must start as its run did, from the model"):
        refit(tmp_path / "validated", NEW, warm_from=parents / "vae + pia")
    with pytest.raises(ConfigError, match="must start as its run did, from none"):
        refit(parent, DATA, warm_from=parent)


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        ({"name": "ease"}, {}, "ease is computed at once from its data and needs none"),
        ({**QUICK_VAE, "hidden_dims": [17]}, {}, "found mult-vae with input.weight 17"),
        ({**QUICK_VAE, "latent_dim": 7}, {}, "found mult-vae with encoder.0.weight 14×16"),
        (QUICK_REC, {}, "the parent's layers: mult-vae with"),
        (QUICK_VAE, {"start": "spectral"}, "training.start must be warm"),
    ],
)
def test_what_does_not_fit_is_refused(
    model: dict[str, Any], fields: dict[str, Any], message: str, parents: Path, tmp_path: Path
) -> None:
    asked = RunConfig.of({"model": model})
    with pytest.raises(ConfigError, match=message):
        train(NEW, asked, out=tmp_path / "run", warm_from=parents / "vae", **fields)
    assert not (tmp_path / "run").exists()


def test_a_parent_that_is_no_autoencoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="the weights of an autoencoder, found ease"):
        WarmStart(train(DATA, EaseConfig()))


def test_another_catalogue_altogether_is_refused(parents: Path) -> None:
    others = IdMap.of([f"other {item}" for item in range(DATA.n_items)])
    x = DATA.interactions
    data = Dataset(Interactions(x.users, others, x.indptr, x.indices), DATA.split)
    with pytest.raises(ConfigError, match="items that the parent knows, found none among 50"):
        train(data, config(), warm_from=parents / "vae + pia")


@pytest.mark.parametrize("features", [np.ones((3, 2)), np.ones(50), np.full((50, 2), np.nan)])
def test_features_must_be_of_the_new_items(features: np.ndarray, parents: Path) -> None:
    warm = WarmStart(TrainedModel.load(parents / "vae"), features=features)
    with pytest.raises(ConfigError, match="features must be a finite matrix of"):
        train(NEW, config(MODELS["vae"]), warm_from=warm)


def test_anchors_must_be_the_models_own(parents: Path) -> None:
    with pytest.raises(ConfigError, match="one for each of the model's 50 items, found 3"):
        WarmStart(TrainedModel.load(parents / "vae"), torch.zeros(3, 6))


def test_a_warm_start_without_a_parent_is_refused(tmp_path: Path) -> None:
    for out in (None, tmp_path / "run"):
        with pytest.raises(ConfigError, match="needs the trained model it starts from"):
            train(NEW, config(start="warm"), out=out)
    assert not (tmp_path / "run" / "config.json").exists()
    with pytest.raises(NotFoundError, match="a warm start needs a trained model"):
        train(NEW, config(), warm_from=tmp_path / "none")


def test_a_run_goes_on_from_its_own_parent_alone(parents: Path, tmp_path: Path) -> None:
    train(NEW, config(MODELS["vae"]), out=tmp_path / "run", warm_from=parents / "vae")
    with pytest.raises(ConfigError, match=r"parent.*warm\.parent was"):
        train(
            NEW, config(MODELS["vae"]), out=tmp_path / "run", resume=True,
            warm_from=parents / "vae + pia",
        )  # fmt: skip


def command(data: Dataset, model: str, folder: Path, *options: object) -> list[str]:
    """``train …`` in a folder."""
    data.save(folder / "data")
    asked = config(MODELS[model]).as_json()
    (folder / "config.json").write_text(json.dumps(asked), encoding="utf-8")
    verb = ["train", folder / "data", "--config", folder / "config.json", *options]
    return list(map(str, verb))


def test_the_command_line_starts_and_goes_on_as_the_library(
    parents: Path, tmp_path: Path, run_coterie: Run
) -> None:
    parent, out = tmp_path / "parent", tmp_path / "run"
    shutil.copytree(parents / "vae", parent)
    asked = command(NEW, "vae", tmp_path, "--set", "training.shrink=0.5", "--warm-from", parent)
    assert run_coterie(*asked, "--out", out, "--refit") == 0
    refitted = ["train", tmp_path / "data", "--refit-of", out / "validated", "--warm-from", parent]
    assert run_coterie(*refitted, "--out", tmp_path / "again") == 0
    expected = train(NEW, config(MODELS["vae"]), shrink=0.5, warm_from=parent, refit=True)
    found = [TrainedModel.load(tmp_path / name).fingerprint for name in ("run", "again")]
    assert found == [expected.fingerprint] * 2
    shutil.rmtree(parent)
    assert run_coterie(*asked, "--out", out, "--refit", "--resume") == 0
    assert run_coterie(*asked, "--out", tmp_path / "other") == NotFoundError.exit_code
    closed = ["train", tmp_path / "data", "--model", "ease", "--warm-from", parents / "vae"]
    assert run_coterie(*closed, "--out", tmp_path / "closed") == ConfigError.exit_code


def test_two_processes_start_as_one(parents: Path, tmp_path: Path) -> None:
    asked = command(NEW, "vae + pia", tmp_path, "--warm-from", parents / "vae + pia")
    codes, complaint = ends(torchrun(2, "-m", "coterie.cli", *asked, "--out", str(tmp_path / "2")))
    assert codes == [0], complaint
    alone = train(NEW, config(), warm_from=parents / "vae + pia").network.state_dict()
    together = TrainedModel.load(tmp_path / "2").network.state_dict()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=0, atol=ROUNDING)
