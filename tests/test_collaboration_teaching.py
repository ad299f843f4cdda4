"""Snapshots, Adam's moments, teaching along training, and what is near: against definitions."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.errors import ArtifactError, ConfigError, DataError
from coterie.lab.collaboration.adam import estimated_second_moments
from coterie.lab.collaboration.along_training import (
    Moment,
    means_at,
    moments,
    reached_by_all,
    trained_at,
)
from coterie.lab.collaboration.exchange import exchange
from coterie.lab.collaboration.leaving_out import groups_to_leave_out, without_users
from coterie.lab.collaboration.losses import drawn_as_trained, whole_objective
from coterie.lab.collaboration.pairs import PairKind
from coterie.lab.collaboration.posteriors import Posteriors
from coterie.lab.collaboration.semantics import (
    capacity,
    history_neighbours,
    recall_of_neighbours,
    semantics,
    width_at,
)
from coterie.lab.collaboration.snapshots import Snapshot, train_with_snapshots
from coterie.lab.collaboration.teaching import WHOLE, Measure, People, teaching
from coterie.models.kinds import AlignedConfig
from coterie.simulation.service import simulate_dataset
from coterie.sparse import SparseRows
from coterie.training.trainer import train

CONFIG = {
    "model": {"name": "mult-vae", "hidden_dims": [12], "latent_dim": 5, "pia": 0.3},
    "training": {"epochs": 5, "batch_size": 50},
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)


@pytest.fixture(scope="module")
def files(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("snapshots")
    return train_with_snapshots(dataset, RunConfig.of(CONFIG), folder)


@pytest.fixture(scope="module")
def people(dataset: Dataset) -> People:
    return People.of(dataset.cases(Part.VALIDATION), dataset.train[:80], n_by_adam=9)


def test_snapshots_are_moments_of_the_training_that_train_does(
    dataset: Dataset, files: list[Path]
) -> None:
    found = [Snapshot.load(file) for file in files]
    assert [one.epoch for one in found[:-1]] == [1, 2, 4]
    assert [one.best for one in found] == [False, False, False, True]
    trained, best = train(dataset, RunConfig.of(CONFIG), device="cpu"), found[-1]
    assert best.epoch == trained.provenance["best_epoch"]
    assert best.quality == trained.provenance["best_validation"]
    for name, value in trained.network.state_dict().items():
        torch.testing.assert_close(best.weights[name], value, rtol=0, atol=0)
    assert best.anchors is not None
    assert set(best.second_moments) == {name for name, _ in trained.network.named_parameters()}
    assert all(bool((one >= 0).all()) for one in best.second_moments.values())
    assert best.hidden_nats is not None
    assert best.hidden_nats < (found[0].hidden_nats or 0)


def test_damaged_or_foreign_snapshots_are_refused(
    files: list[Path], dataset: Dataset, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(files[0].read_bytes()[:100])
    with pytest.raises(ArtifactError, match="not a whole snapshot"):
        Snapshot.load(cut)
    with pytest.raises(ConfigError, match="variational"):
        train_with_snapshots(dataset, RunConfig.of({"model": {"name": "ease"}}), tmp_path)


def test_estimated_moments_of_one_batch_are_the_squares_of_its_gradient(
    dataset: Dataset, files: list[Path]
) -> None:
    """The whole pass in one batch, on the mean path's inputs: autograd's mean gradient, squared."""
    snapshot = Snapshot.load(files[-1])
    network, model = snapshot.network(dataset.n_items).double(), snapshot.config.model
    assert isinstance(model, AlignedConfig)
    assert snapshot.anchors is not None
    anchors = snapshot.anchors.double()
    rows = SparseRows.from_csr(dataset.train[:20])
    objective = whole_objective(model, network, rows, anchors)
    found = estimated_second_moments(
        network, objective, keep_prob=1, batch_size=20, generator=torch.Generator().manual_seed(3)
    )
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(20, generator=generator)
    noise = drawn_as_trained(replace(objective, rows=rows.take(order)), 5, 1, 1, generator).noise
    assert noise is not None
    mu, logvar = network.posterior(rows.take(order))
    z = mu + (logvar / 2).exp() * noise
    x = torch.from_numpy(dataset.train[:20].toarray())[order].double()
    loss = -(x * network.decode(z).log_softmax(dim=1)).sum()
    loss = loss + model.kl_weight * 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()
    for u in range(20):
        apart = ((mu[u] - anchors[x[u] > 0]) ** 2).sum(dim=1).mean() + logvar[u].exp().sum()
        loss = loss + model.pia * apart
    named = dict(network.named_parameters())
    gradients = torch.autograd.grad(loss / 20, list(named.values()))
    for name, gradient in zip(named, gradients, strict=True):
        torch.testing.assert_close(found[name], gradient**2, rtol=1e-6, atol=1e-12)


def test_teaching_divides_the_exchange_that_was_measured(
    dataset: Dataset, files: list[Path], people: People
) -> None:
    trained = trained_at(Snapshot.load(files[-1]), dataset)
    found = teaching(trained, people, n_draws=0, n_resamples=20)
    rows = SparseRows.from_csr(people.others)
    objective = whole_objective(
        trained.model, trained.network, rows, trained.anchors, trained.n_steps
    )
    side = drawn_as_trained(objective, 5, 1, 0, torch.Generator())
    asked = people.asked("cpu")["hidden"]
    whole = exchange(trained.network, asked, side)
    for kind in PairKind:
        of_kind = people.kinds == kind
        if of_kind.any():
            mean = whole.cosine()[of_kind].mean()
            assert found.by_kind[WHOLE].mean_of(kind)[0] == pytest.approx(mean, abs=1e-6)
            nats = whole.transfer()[of_kind].mean()
            assert found.nats.mean_of(kind)[0] == pytest.approx(nats, rel=1e-4)
    matrix = found.cohort_matrix()
    for u, v in np.ndindex(*matrix.shape[:2]):
        pairs = np.outer(people.user_cohort == u, people.other_cohort == v)
        if pairs.any():
            assert matrix[u, v, 0] == pytest.approx(whole.cosine()[pairs].mean(), abs=1e-6)
    adam = found.by_kind[Measure("hidden", "adam", "all")]
    assert adam.n_pairs.sum() == len(people.user_cohort) * 9
    assert found.n_of_cohort.sum(axis=1).tolist() == list(people.kinds.shape)


def test_a_cohort_is_that_of_all_that_is_known(dataset: Dataset, people: People) -> None:
    cases = dataset.cases(Part.VALIDATION)
    counts = np.diff(cases.fold_in.indptr) + np.diff(cases.held_out.indptr)
    for place, name in enumerate(people.cohorts):
        low = int(name.rstrip("+").split("-")[0])
        assert (counts[people.user_cohort == place] >= low).all()


def test_steps_of_a_snapshot_are_where_its_schedule_was(
    dataset: Dataset, files: list[Path]
) -> None:
    batches = -(-dataset.train.shape[0] // 50)
    assert [trained_at(Snapshot.load(file), dataset).n_steps for file in files[:3]] == [
        batches,
        2 * batches,
        4 * batches,
    ]


def test_means_at_equal_loss_lie_between_snapshots(
    dataset: Dataset, files: list[Path], people: People
) -> None:
    found = moments(dataset, files, people, n_draws=2, n_resamples=20)
    losses = [one.hidden_nats for one in found]
    assert losses == sorted(losses, reverse=True)
    kinds = tuple(PairKind)
    means = [one.teaching.by_kind[WHOLE].means(*kinds) for one in found]
    middle = (losses[0] + losses[1]) / 2
    halfway = (means[0] + means[1]) / 2
    np.testing.assert_allclose(means_at(found, middle, WHOLE, *kinds), halfway, rtol=1e-9)
    np.testing.assert_allclose(means_at(found, losses[1], WHOLE, *kinds), means[1], rtol=1e-9)
    assert reached_by_all([found, found[:2]]) == losses[1]
    with pytest.raises(DataError, match="must pass"):
        means_at(found, losses[-1] - 1, WHOLE, *kinds)
    with pytest.raises(DataError, match="must pass"):
        means_at(found, losses[0] + 1, WHOLE, *kinds)
    assert isinstance(found[0], Moment)


# What is near.


def test_nearest_by_history_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(3)
    dense = (rng.random((20, 15)) < 0.4).astype(float)
    dense[:, 0] = 1
    found = history_neighbours(csr_array(dense), 4)
    sets = [set(np.flatnonzero(row)) for row in dense]
    for u, of_user in enumerate(found):
        apart = [1 - len(sets[u] & one) / len(sets[u] | one) for one in sets]
        others = [v for v in np.argsort(apart, kind="stable") if v != u]
        assert of_user.tolist() == others[:4]


def test_recall_is_whole_where_angles_follow_histories_and_chance_where_they_do_not() -> None:
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(10), 10)
    histories = csr_array(np.eye(10)[group])
    nearest = np.array(
        [[v for v in range(100) if group[v] == group[u] and v != u] for u in range(100)]
    )
    points = torch.from_numpy(np.eye(10)[group] * rng.uniform(1, 9, (100, 1)))
    points = points + 1e-3 * torch.from_numpy(rng.normal(size=(100, 10)))
    assert (recall_of_neighbours(points, nearest) == 1).all()
    noise = torch.from_numpy(rng.normal(size=(100, 10)))
    assert recall_of_neighbours(noise, nearest).mean() == pytest.approx(9 / 99, abs=0.05)
    users = Posteriors(points.float(), torch.full((100, 10), 0.1))
    found = semantics(users, histories, 9, seed=1, nats=(0.5, 5.0, 50.0))
    assert found.matched.mean(axis=1).tolist() == sorted(found.matched.mean(axis=1).tolist())


def test_settings_are_matched_whatever_their_scale_and_noise() -> None:
    """The same users in another unit, and with half the noise: equal once they are matched."""
    rng = torch.Generator().manual_seed(1)
    mu, sigma = torch.randn(60, 4, generator=rng), torch.rand(60, 4, generator=rng) + 0.1
    histories = csr_array((np.random.default_rng(1).random((60, 20)) < 0.4).astype(float))
    one, other = Posteriors(mu, sigma), Posteriors(8 * mu, 4 * sigma)
    assert capacity(other) > capacity(one)
    assert capacity(other, width_at(other, 2.0)) == pytest.approx(2.0)
    first, second = (semantics(some, histories, 5, seed=1, nats=(2.0,)) for some in (one, other))
    np.testing.assert_array_equal(first.matched, second.matched)
    with pytest.raises(ConfigError, match="above 0"):
        width_at(one, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="as the other benchmarks")
def test_the_script_trains_measures_and_draws(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "data")
    settings = []
    for name, pia in (("masked", 0.0), ("pia", 0.3)):
        text = f'[model]\nname = "mult-vae"\nhidden_dims = [8]\nlatent_dim = 4\npia = {pia}\n'
        (tmp_path / f"{name}.toml").write_text(text + "[training]\nbatch_size = 50\n")
        settings += ["--setting", f"{name}={tmp_path / name}.toml"]
    script = Path(__file__).parent.parent / "benchmarks" / "transfer_along_training.py"
    options = [
        "--one-unit",
        "--epochs",
        "3",
        "--users",
        "40",
        "--by-adam",
        "3",
        "--resamples",
        "20",
    ]
    files = ["--json", tmp_path / "told.json", "--plot", tmp_path / "told.png"]
    folders = ["--data", tmp_path / "data", "--out", tmp_path / "snapshots"]
    command = [sys.executable, *map(str, [script, *folders, *settings, *options, *files])]
    printed = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
    told = json.loads((tmp_path / "told.json").read_text())
    assert [one["epoch"] for one in told["settings"]["pia"]][:2] == [1, 2]
    assert "net mean cosines" in printed.stdout
    assert ("where all reach" in printed.stdout) == bool(told["at equal loss"])
    assert (tmp_path / "told.png").read_bytes().startswith(b"\x89PNG")


# Leaving users out.


def test_users_that_are_left_out_are_gone_from_training_alone(dataset: Dataset) -> None:
    rows = np.array([0, 7, 200])
    fewer = without_users(dataset, rows)
    kept = np.setdiff1d(np.arange(dataset.train.shape[0]), rows)
    np.testing.assert_array_equal(fewer.train.toarray(), dataset.train[kept].toarray())
    for part in (Part.VALIDATION, Part.TEST):
        before, after = dataset.cases(part), fewer.cases(part)
        np.testing.assert_array_equal(before.fold_in.toarray(), after.fold_in.toarray())
        np.testing.assert_array_equal(before.held_out.toarray(), after.held_out.toarray())
        ids = [
            one.users.ids_of(cases.user_index) for one, cases in ((dataset, before), (fewer, after))
        ]
        assert ids[0] == ids[1]
    with pytest.raises(DataError, match="left to train on"):
        without_users(dataset, np.arange(dataset.train.shape[0]))


def test_groups_to_leave_out_are_matched_in_users_and_in_interactions(dataset: Dataset) -> None:
    groups = groups_to_leave_out(dataset, heavy=25, light=12, seed=3)
    counts = np.diff(dataset.train.indptr)
    assert counts[groups["heavy"]].min() > 25
    assert counts[groups["light"]].max() < 12
    for name in ("heavy", "light"):
        assert len(groups[f"as many as {name}"]) == len(groups[name]) > 0
    total = counts[groups["heavy"]].sum()
    assert 0 <= counts[groups["as much as heavy"]].sum() - total < counts.max()


def test_the_script_leaves_users_out(dataset: Dataset, tmp_path: Path) -> None:
    dataset.save(tmp_path / "data")
    (tmp_path / "m.toml").write_text(
        '[model]\nname = "mult-vae"\nhidden_dims = [8]\nlatent_dim = 4\n'
        "[training]\nepochs = 1\nbatch_size = 50\n"
    )
    script = Path(__file__).parent.parent / "benchmarks" / "leaving_out_users.py"
    options = ["--data", tmp_path / "data", "--setting", f"m={tmp_path / 'm.toml'}"]
    options += ["--heavy", 25, "--light", 12, "--json", tmp_path / "told.json"]
    subprocess.run([sys.executable, *map(str, [script, *options])], check=True, timeout=300)
    told = json.loads((tmp_path / "told.json").read_text())["m"]
    assert set(told["sizes"]) == set(told) - {"sizes"}
