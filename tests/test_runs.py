"""Runs, read from their folders: which they are, what they say, and whether they fit a data set."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.errors import ArtifactError, ConfigError, NotFoundError
from coterie.files import read_manifest
from coterie.lab.reproduce.reports import Reports
from coterie.simulation.service import simulate_dataset
from coterie.training.artifact import SCHEMA
from coterie.training.run_record import RunIdentity, read_history, read_run
from coterie.training.runs import load_run
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train

DATA = simulate_dataset(n_users=260, n_items=50, held_out_users=40, seed=2)
VAE = RunConfig.of(
    {
        "model": {"name": "mult-vae", "hidden_dims": [8], "latent_dim": 4},
        "training": {"epochs": 2, "metric": "ndcg@10"},
    }
)
EASE = RunConfig.of({"model": {"name": "ease"}})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and a run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    DATA.save(folder / "data")
    data = Dataset.load(folder / "data")
    train(data, VAE, out=folder / "vae")
    train(data, EASE, out=folder / "ease")
    return folder


# Which run it is.


def test_a_run_has_an_identity_that_its_model_carries(place: Path) -> None:
    for name, config in (("vae", VAE), ("ease", EASE)):
        record = read_run(place / name)
        assert record.identity is not None
        assert (record.config, record.dataset, record.precision) == (
            config,
            DATA.fingerprint,
            "float32",
        )
        assert record.identity.to_json().items() <= record.provenance.items()
        assert record.identity.parent is None
        model = TrainedModel.load(place / name)
        assert model.provenance == record.provenance
        assert record.model is not None
        assert record.model["fingerprint"] == model.fingerprint
    assert [entry["epoch"] for entry in read_run(place / "vae").history] == [1, 2]
    assert read_run(place / "ease").history == ()


def test_models_of_equal_runs_are_equal_and_their_runs_are_not(place: Path, tmp_path: Path) -> None:
    again, alone = train(DATA, VAE, out=tmp_path / "again"), train(DATA, VAE)
    ids = {model.provenance["run_id"] for model in (again, alone)}
    ids.add(read_run(place / "vae").provenance["run_id"])
    assert len(ids) == 3
    weights = "model/weights.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (place / "vae" / weights).read_bytes()
    prints = [model.fingerprint for model in (again, alone, TrainedModel.load(place / "vae"))]
    assert len(set(prints)) == 1


def test_run_ids_sort_by_time() -> None:
    runs = [
        RunIdentity.of(seconds, number) for seconds, number in ((5, 9), (6, 2**32 - 1), (10, 0))
    ]
    assert [run.run_id for run in runs] == sorted(run.run_id for run in runs)
    assert [len(run.run_id) for run in runs] == [25] * 3
    assert runs[0].created == "1970-01-01T00:00:05+00:00"
    for run in runs:
        assert RunIdentity.in_json({"config": {}, **run.to_json()}) == run


@pytest.mark.parametrize(
    "change",
    [
        lambda model: next(model.network.parameters()).mul_(1.001),
        lambda model: model.popularity.__setitem__(0, 999),
    ],
)
def test_what_changes_a_list_changes_the_fingerprint(change: Any) -> None:
    model = train(DATA, VAE)
    before = model.fingerprint
    assert model.fingerprint == before
    with torch.no_grad():
        change(model)
    assert replace(model).fingerprint != before  # what a model has said of itself it keeps


def test_fingerprint_knows_configuration_and_ids() -> None:
    config = {"name": "linear-path-vae", "hidden_dims": [8], "latent_dim": 4}
    made = [
        train(
            DATA,
            RunConfig.of({"model": {**config, **weight}, "training": {"epochs": 1}}),
        )
        for weight in (
            {"path_weight": 1.0},
            {"path_weight": 2.0},
            {"path_weight": 1.0, "path_activity": 0.5},
        )
    ]
    names = [f"item {item}" for item in DATA.items.values.to_pylist()]
    other = TrainedModel(
        made[0].network, made[0].config, type(DATA.items).of(names), None, made[0].popularity
    )
    assert len({model.fingerprint for model in (*made, other)}) == 4


# What it says.


def test_an_unfinished_run_can_be_read(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "vae", tmp_path / "run", ignore=shutil.ignore_patterns("model"))
    with (tmp_path / "run" / "history.jsonl").open("a") as file:
        file.write('{"epoch": 3, "lo')
    record = read_run(tmp_path / "run")
    assert (record.model, record.provenance, len(record.history)) == (None, {}, 2)
    assert record.environment["dataset"]["folder"] == str((place / "data").resolve())


def test_folders_that_are_no_runs_are_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="must be a run folder"):
        read_run(tmp_path / "none")
    with pytest.raises(ArtifactError, match=r"must hold config\.json"):
        read_run(place / "data")
    shutil.copytree(place / "vae", tmp_path / "run")
    for name, text, complaint in (
        ("history.jsonl", '{"epoch": 1}\n{"ep\n{"epoch": 3}\n', "JSON in every line"),
        ("config.json", '{"config": {"model": {"name": "no"}}}', "must be the configuration"),
        ("config.json", "{", r"config\.json in JSON"),
    ):
        (tmp_path / "run" / name).write_text(text)
        with pytest.raises(ArtifactError, match=complaint):
            read_run(tmp_path / "run")
        shutil.copy(place / "vae" / name, tmp_path / "run" / name)
    assert read_history(tmp_path / "none") == []


def test_a_run_of_version_010_has_no_identity_and_loads(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "vae", tmp_path / "run")
    for path in (tmp_path / "run" / "config.json", tmp_path / "run" / "model" / "manifest.json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        values.pop("fingerprint", None)
        for part in (values, values.get("provenance", {})):
            for name in ("run_id", "created", "parent"):
                part.pop(name, None)
        path.write_text(json.dumps(values), encoding="utf-8")
    before = (tmp_path / "run" / "config.json").read_bytes()
    assert read_run(tmp_path / "run").identity is None
    assert load_run(tmp_path / "run").model.fingerprint == load_run(place / "vae").model.fingerprint
    train(Dataset.load(place / "data"), VAE, out=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    # An unfinished one goes on, and is a run from then on.
    shutil.rmtree(tmp_path / "run" / "model")
    model = train(Dataset.load(place / "data"), VAE, out=tmp_path / "run", resume=True)
    assert RunIdentity.in_json(model.provenance) is not None


# Whether it fits.


def test_load_run_finds_the_data_set_or_takes_the_one_given(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "data", tmp_path / "moved")
    for data in (None, place / "data", str(tmp_path / "moved"), DATA):
        run = load_run(place / "vae", data, device="cpu")
        assert run.dataset == DATA
        assert run.model.fingerprint == TrainedModel.load(place / "vae").fingerprint
    assert load_run(place / "vae" / "model", DATA).dataset is DATA
    with pytest.raises(ConfigError, match="must say where its data set is"):
        load_run(place / "vae" / "model")


def test_load_run_refuses_another_data_set(place: Path) -> None:
    with pytest.raises(ConfigError, match="must be used with the data set it was trained on"):
        load_run(place / "vae", DATA.without_validation())


def test_reports_are_of_a_model_not_of_a_file(place: Path, tmp_path: Path) -> None:
    from coterie.data.split import Part  # noqa: PLC0415
    from coterie.evaluation.evaluate import evaluate  # noqa: PLC0415

    run = load_run(place / "ease")
    cases = DATA.cases(Part.TEST)
    report = evaluate(run.model, cases, metrics=["ndcg@10"], user_ids=DATA.users)
    reports = Reports(tmp_path / "reports", ["ndcg@10"])
    shutil.copytree(place / "ease", tmp_path / "ease")
    reports.write(tmp_path / "ease", Part.TEST, report, 1.0)
    # Trained again it is the same model, by another run.
    shutil.rmtree(tmp_path / "ease")
    train(DATA, EASE, out=tmp_path / "ease")
    assert list(reports.read(tmp_path / "ease")) == [Part.TEST]
    shutil.rmtree(tmp_path / "ease")
    train(DATA, RunConfig.of({"model": {"name": "ease", "l2": 7}}), out=tmp_path / "ease")
    assert reports.read(tmp_path / "ease") == {}


def test_a_model_behind_a_link_is_read_from_one_version(place: Path, tmp_path: Path) -> None:
    from coterie.files import point  # noqa: PLC0415

    point(tmp_path / "live", place / "ease" / "model")
    assert TrainedModel.load(tmp_path / "live").config == EASE
    assert read_manifest(tmp_path / "live", SCHEMA)["config"] == EASE.as_json()
    point(tmp_path / "live", place / "vae")
    assert TrainedModel.load(tmp_path / "live").config == VAE
