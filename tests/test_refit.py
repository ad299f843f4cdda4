"""The last training, on everybody: which model comes of it, what it says of itself, how it stops
and goes on, and that nobody takes it for one that can be measured.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part, Split
from coterie.errors import ConfigError, ConflictError, NotFoundError
from coterie.evaluation.evaluate import evaluate
from coterie.files import read_manifest
from coterie.running.progress import Update
from coterie.simulation.service import simulate_dataset
from coterie.training.artifact import SCHEMA
from coterie.training.run_config import run_config
from coterie.training.run_record import read_history, read_run
from coterie.training.runs import load_run
from coterie.training.tensorboard import tensorboard_events
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import refit, train
from test_resume import times_of

Run = Callable[..., int]

DATA = simulate_dataset(n_users=260, n_items=50, held_out_users=40, seed=2)
VAE = {"name": "mult-vae", "hidden_dims": [16], "latent_dim": 6, "anneal_steps": 9, "pia": 0.2}
OVERFITTING = {"batch_size": 60, "learning_rate": 0.05, "metric": "ndcg@10"}
STEPPED: dict[str, dict[str, Any]] = {
    "vae": {"model": VAE, "training": {**OVERFITTING, "epochs": 12}},
    "dae": {
        "model": {"name": "mult-dae", "latent_dim": 6},
        "training": {**OVERFITTING, "epochs": 8, "seed": 5},
    },
    "recvae": {
        "model": {"name": "recvae", "hidden_dim": 12, "latent_dim": 6},
        "training": {**OVERFITTING, "epochs": 4},
    },
    "linear path recvae": {
        "model": {"name": "linear-path-recvae", "hidden_dim": 12, "latent_dim": 6},
        "training": {**OVERFITTING, "epochs": 4},
    },
    "linear path": {
        "model": {**VAE, "name": "linear-path-vae"},
        "training": {**OVERFITTING, "epochs": 20},
    },
}
CLOSED: dict[str, dict[str, Any]] = {
    "ease": {"model": {"name": "ease", "l2": 20.0}},
    "popularity": {"model": {"name": "popularity"}},
}
VALUES = STEPPED | CLOSED


def everybody(data: Dataset) -> Dataset:
    """The same interactions, all of them for training."""
    parts = (np.zeros(len(part), np.uint8) for part in data.split.arrays.values())
    return Dataset(data.interactions, Split(*parts), data.titles)


def config_of(name: str, **training: Any) -> RunConfig:
    values = VALUES[name]
    return RunConfig.of(
        {**values, "training": {**values["training"], **training}} if training else values
    )


def same_weights(one: TrainedModel, other: TrainedModel) -> bool:
    a, b = one.network.state_dict(), other.network.state_dict()
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def untimed(run: Path) -> list[dict[str, Any]]:
    return [{**entry, "seconds": 0} for entry in read_history(run)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and a refit of each model."""
    folder = tmp_path_factory.mktemp("refits")
    DATA.save(folder / "data")
    data = Dataset.load(folder / "data")
    for name in VALUES:
        train(data, config_of(name), out=folder / name, refit=True)
    return folder


# Which model it is.


@pytest.mark.parametrize("name", STEPPED)
def test_a_refit_is_a_training_of_the_best_epochs_on_everybody(name: str, place: Path) -> None:
    found = TrainedModel.load(place / name)
    best = int(found.provenance["best_epoch"])
    # That of the RecVAEs is the last one; the others' is neither the first nor the last.
    assert 1 < best < VALUES[name]["training"]["epochs"] + name.endswith("recvae")
    # What the run left open and validation chose is the refit's, too.
    chosen = TrainedModel.load(place / name / "validated").config
    expected = train(everybody(DATA), run_config(chosen, epochs=best))
    assert same_weights(found, expected)
    assert found.config == expected.config
    assert found.popularity.tolist() == expected.popularity.tolist()
    assert int(found.popularity.sum()) == len(DATA.interactions.indices)


@pytest.mark.parametrize("name", CLOSED)
def test_a_refit_of_a_closed_form_is_computed_on_everybody(name: str, place: Path) -> None:
    found, expected = TrainedModel.load(place / name), train(everybody(DATA), config_of(name))
    assert found.fingerprint == expected.fingerprint
    assert found.fingerprint != TrainedModel.load(place / name / "validated").fingerprint
    assert "best_epoch" not in found.provenance


@pytest.mark.parametrize("name", VALUES)
def test_the_validated_run_is_the_run_without_a_refit(
    name: str, place: Path, tmp_path: Path
) -> None:
    plain = train(DATA, config_of(name), out=tmp_path)
    validated = place / name / "validated"
    assert TrainedModel.load(validated).fingerprint == plain.fingerprint
    assert untimed(validated) == untimed(tmp_path)
    assert load_run(validated).dataset == DATA


@pytest.mark.parametrize("name", VALUES)
def test_both_doors_lead_to_the_same_model(name: str, place: Path, tmp_path: Path) -> None:
    again = refit(place / name / "validated", DATA, out=tmp_path)
    assert again.fingerprint == TrainedModel.load(place / name).fingerprint
    assert untimed(tmp_path) == untimed(place / name)
    in_memory = refit(place / name / "validated", DATA), train(DATA, config_of(name), refit=True)
    assert {one.fingerprint for one in in_memory} == {again.fingerprint}


def test_a_given_split_trains_on_what_every_user_hides() -> None:
    parts = np.random.default_rng(0).choice(3, len(DATA.interactions.indices), p=[0.7, 0.15, 0.15])
    split = Split(np.zeros(DATA.n_users, np.uint8), parts.astype(np.uint8))
    model = train(Dataset(DATA.interactions, split), config_of("ease"), refit=True)
    assert same_weights(model, train(everybody(DATA), config_of("ease")))


def test_a_later_data_set_is_trained_on_with_the_epochs_of_the_run(place: Path) -> None:
    later = simulate_dataset(n_users=300, n_items=70, held_out_users=20, seed=3)
    best = int(read_run(place / "vae").provenance["best_epoch"])
    expected = train(everybody(later), config_of("vae", epochs=best))
    for run in (place / "vae" / "validated", place / "vae"):
        model = refit(run, later)
        assert same_weights(model, expected)
        assert model.provenance["train_users"] == 300
        # A refit hands on what it took over.
        for fact in ("best_epoch", "best_validation"):
            assert model.provenance[fact] == read_run(place / "vae").provenance[fact]


def test_schedules_go_by_steps_and_trainings_by_epochs(place: Path) -> None:
    validated, last = read_history(place / "vae" / "validated"), read_history(place / "vae")
    best = last[-1]["epoch"]
    assert best == validated[-1]["best_epoch"]
    # 180 and 260 users in batches of 60.
    assert [entry["step"] for entry in validated[:best]] == [3 * n for n in range(1, best + 1)]
    assert [entry["step"] for entry in last] == [5 * n for n in range(1, best + 1)]
    for entry in (*validated, *last):
        assert entry["beta"] == pytest.approx(0.2 * min(1, entry["step"] / 9))


# What it says.


@pytest.mark.parametrize("name", VALUES)
def test_a_refit_says_what_it_is(name: str, place: Path) -> None:
    validated, last = read_run(place / name / "validated"), read_run(place / name)
    assert validated.identity is not None
    assert last.identity is not None
    taken_over = {
        "refit_of": validated.identity.run_id,
        **{
            fact: validated.provenance[fact]
            for fact in ("best_epoch", "best_validation")
            if fact in validated.provenance
        },
    }
    assert (validated.refit, last.refit) == (None, taken_over)
    steps = {"steps": last.history[-1]["step"]} if last.history else {}
    assert read_manifest(place / name / "model", SCHEMA)["provenance"] == {
        "dataset": everybody(DATA).fingerprint,
        **last.identity.to_json(),
        **taken_over,
        **steps,
        "refit": True,
        "train_users": 260,
        "train_interactions": len(DATA.interactions.indices),
    }
    assert last.environment["dataset"]["folder"] == str((place / "data").resolve())
    assert "refit" not in validated.provenance


def test_progress_and_history_tell_the_stages_apart(tmp_path: Path) -> None:
    updates: list[Update] = []
    train(DATA, config_of("vae"), out=tmp_path, refit=True, progress=updates.append)
    works = [update.work for update in updates]
    assert list(dict.fromkeys(works)) == ["training mult-vae + PIA", "refitting mult-vae + PIA"]
    facts = [dict(update.facts) for update in updates if update.facts]
    histories = read_history(tmp_path / "validated"), read_history(tmp_path)
    assert facts == [*histories[0], *histories[1]]
    assert not any("stage" in entry for entry in histories[0])
    for entry in histories[1]:
        assert entry["stage"] == "refit"
        assert "validation" not in entry


def test_tensorboard_events_of_a_refit_are_apart(tmp_path: Path) -> None:
    with tensorboard_events(tmp_path) as progress:
        train(DATA, config_of("vae"), out=tmp_path, refit=True, progress=progress)
    events = EventAccumulator(str(tmp_path)).Reload()
    for run, tag in ((tmp_path / "validated", "nll"), (tmp_path, "refit/nll")):
        assert [event.value for event in events.Scalars(tag)] == pytest.approx(
            [entry["nll"] for entry in read_history(run)]
        )


# What it refuses.


def test_without_validation_users_nothing_chooses_the_epochs(tmp_path: Path) -> None:
    data, out = DATA.without_validation(), tmp_path / "run"
    with pytest.raises(ConfigError, match="epochs that validation chose, found no validation"):
        train(data, config_of("vae"), out=out, refit=True)
    assert not out.exists()
    train(data, config_of("vae", epochs=1), out=out)
    with pytest.raises(ConfigError, match="epochs that validation chose, found no validation"):
        refit(out, DATA)
    model = train(data, config_of("ease"), refit=True)
    assert same_weights(model, train(everybody(DATA), config_of("ease")))


def test_only_a_finished_run_is_refitted(place: Path, tmp_path: Path) -> None:
    def leave(update: Update) -> None:
        if update.facts:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(DATA, config_of("vae"), out=tmp_path / "run", progress=leave)
    with pytest.raises(NotFoundError, match=r"must have finished before it is refitted"):
        refit(tmp_path / "run", DATA)
    with pytest.raises(NotFoundError, match="must be a run folder"):
        refit(tmp_path / "none", DATA)
    with pytest.raises(ConfigError, match="pass out"):
        refit(place / "vae", DATA, resume=True)


def test_a_refit_and_a_plain_run_keep_out_of_each_others_folder(
    place: Path, tmp_path: Path
) -> None:
    def leave(update: Update) -> None:
        raise KeyboardInterrupt

    plain, half = tmp_path / "plain", tmp_path / "half"
    train(DATA, config_of("ease"), out=plain)
    with pytest.raises(ConflictError, match=r"this holds a run .*--refit-of"):
        train(DATA, config_of("ease"), out=plain, refit=True, resume=True)
    assert not (plain / "validated").exists()
    with pytest.raises(KeyboardInterrupt):
        train(DATA, config_of("vae"), out=half, refit=True, progress=leave)
    with pytest.raises(ConflictError, match="this holds the first part of a refit"):
        train(DATA, config_of("vae"), out=half, resume=True)
    with pytest.raises(ConflictError, match="this holds the first part of a refit"):
        refit(place / "vae", DATA, out=half, resume=True)
    best = read_run(place / "vae").config
    with pytest.raises(ConfigError, match=r"refit\.best_epoch was"):
        train(everybody(DATA), best, out=place / "vae", resume=True)
    with pytest.raises(ConflictError, match="a folder of its own"):
        train(DATA, config_of("vae"), out=place / "vae", refit=True)


# How it stops and goes on.


class Crash(Exception):
    """What a listener raises after some steps."""


def crash_after(n_steps: int, out: Path) -> bool:
    """Resumes a refit, with a checkpoint after every step, and leaves it after so many; False if it
    ended before.
    """
    left = n_steps

    def count(update: Update) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Crash

    try:
        train(
            DATA,
            config_of("vae"),
            out=out,
            refit=True,
            resume=True,
            progress=count,
            checkpoint_seconds=0,
        )
    except Crash:
        return True
    return False


def assert_as(place: Path, out: Path) -> None:
    """Two refits are the same but for their ids and times."""
    for part in (out, out / "validated"):
        whole = place / part.relative_to(out)
        file = "model/weights.safetensors"
        assert (part / file).read_bytes() == (whole / file).read_bytes()
        assert untimed(part) == untimed(whole)
        assert not (part / "checkpoint.safetensors").exists()
        found, expected = (read_run(one).provenance for one in (part, whole))
        for fact in found.keys() - {"run_id", "created", "refit_of"}:
            assert found[fact] == expected[fact], fact
    last, validated = (read_run(run).provenance for run in (out, out / "validated"))
    assert last["refit_of"] == validated["run_id"]


def test_a_refit_left_at_every_step_ends_as_if_it_had_not_been(place: Path, tmp_path: Path) -> None:
    stages = [0, 0]
    while crash_after(1, tmp_path):
        stages[(tmp_path / "config.json").exists()] += 1
    assert min(stages) > 10
    assert_as(place / "vae", tmp_path)


@pytest.mark.parametrize("n_steps", [0, 5, 48, 50, 53])
def test_a_refit_left_at_a_step_goes_on_from_there(
    n_steps: int, place: Path, tmp_path: Path
) -> None:
    assert crash_after(n_steps, tmp_path)
    assert (tmp_path / "config.json").exists() == (n_steps >= 48)
    assert not crash_after(1000, tmp_path)
    assert_as(place / "vae", tmp_path)


def test_a_finished_refit_is_returned_as_it_is(place: Path) -> None:
    out = place / "vae"
    before = times_of(out)
    model = train(DATA, config_of("vae"), out=out, refit=True, resume=True)
    assert model.fingerprint == TrainedModel.load(out).fingerprint
    assert times_of(out) == before


CHILD = """
import sys
from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.training.trainer import train

data, config, out = sys.argv[1:]
train(
    Dataset.load(data),
    RunConfig.load(config),
    out=out,
    refit=True,
    resume=True,
    checkpoint_seconds=0,
)
"""


def test_sigkill_in_either_stage_changes_nothing(place: Path, tmp_path: Path) -> None:
    # Long enough to be met at work: every step writes a checkpoint.
    values = {**VALUES["vae"], "training": {**OVERFITTING, "epochs": 12, "batch_size": 20}}
    values["training"]["learning_rate"] = 0.003
    config, out = tmp_path / "config.json", tmp_path / "cut"
    config.write_text(json.dumps(values), encoding="utf-8")
    train(DATA, RunConfig.of(values), out=tmp_path / "whole", refit=True)
    command = [sys.executable, "-c", CHILD, str(place / "data"), str(config), str(out)]
    for stage in (out / "validated", out):
        child = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + 60
        while len(read_history(stage)) < 2:
            assert child.poll() is None, "the process ended too early"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        assert child.wait(timeout=60) == -signal.SIGKILL
        assert (stage / "checkpoint.safetensors").exists()
        assert not (stage / "model").exists()
    train(Dataset.load(place / "data"), RunConfig.of(values), out=out, refit=True, resume=True)
    assert_as(tmp_path / "whole", out)


# That nobody measures it unawares.


@pytest.mark.parametrize("name", ["vae", "ease"])
def test_a_refit_is_not_measured_on_its_own_users_unawares(name: str, place: Path) -> None:
    with pytest.raises(ConfigError, match=r"not trained on, this is a refit.*validated.*in.sample"):
        load_run(place / name)
    run = load_run(place / name, in_sample=True)
    assert run.dataset == DATA
    with pytest.raises(ConfigError, match="not trained on, this one is a refit"):
        evaluate(run.model, DATA)
    # Another split of the same interactions is as well known to it.
    other = replace(DATA, split=everybody(DATA).split)
    with pytest.raises(ConfigError, match="this one is a refit"):
        evaluate(run.model, other)
    in_sample = evaluate(run.model, DATA.cases(Part.TEST), metrics=["ndcg@10"]).mean("ndcg@10")
    validated = load_run(place / name / "validated").model
    assert in_sample > evaluate(validated, DATA, metrics=["ndcg@10"]).mean("ndcg@10")


def test_a_refit_is_measured_on_users_of_another_data_set(place: Path) -> None:
    other = simulate_dataset(n_users=150, n_items=50, held_out_users=20, seed=9)
    model = TrainedModel.load(place / "ease")
    assert 0 < evaluate(model, other, metrics=["ndcg@10"]).mean("ndcg@10") < 1
    with pytest.raises(ConfigError, match="another data set"):
        load_run(place / "ease", other, in_sample=True)


# The command line.


def test_train_and_evaluate_by_command(
    place: Path, tmp_path: Path, run_coterie: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "vae.json"
    config.write_text(json.dumps(VALUES["vae"]), encoding="utf-8")
    data, one, other = place / "data", tmp_path / "one", tmp_path / "other"
    assert run_coterie("train", data, "--config", config, "--refit", "--out", one) == 0
    said = capsys.readouterr().out.replace("\n", "")
    assert said.endswith(", refitted on all 260 users")
    assert "best epoch" in said
    of = ["train", data, "--refit-of", one / "validated", "--out", other]
    assert run_coterie(*of, "--json", tmp_path / "refit.json") == 0
    assert json.loads((tmp_path / "refit.json").read_text())["refit"] is True
    prints = {TrainedModel.load(run).fingerprint for run in (one, other, place / "vae")}
    assert len(prints) == 1
    for verb in (["evaluate", one], ["compare", one / "validated", other], ["analyze", one]):
        results = ["--out", tmp_path / "page"] if verb[0] == "analyze" else []
        assert run_coterie(*verb, *results) == 2
        assert "this is a refit on everybody" in capsys.readouterr().err
    for verb in (["evaluate", one], ["compare", one / "validated", other]):
        table = tmp_path / f"{verb[0]}.json"
        assert run_coterie(*verb, "--in-sample", "--json", table) == 0
        assert "a refit, measured on users it was trained on" in capsys.readouterr().out
        assert json.loads(table.read_text())["in_sample"] is True
    assert run_coterie("evaluate", one / "validated", "--json", tmp_path / "e.json") == 0
    assert json.loads((tmp_path / "e.json").read_text())["in_sample"] is False
    assert "refit" not in capsys.readouterr().out
    histories = tmp_path / "h.csv"
    histories.write_text("user_id,item_id\nann,3\n", encoding="utf-8")
    assert run_coterie("recommend", one, "--histories", histories, "--out", tmp_path / "r.csv") == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--refit"], "--refit"),
        (["--seed", "0"], "--seed"),
        (["--pia", "0", "--set", "model.beta=1"], "--pia, --set"),
        (["--model", "ease", "--keep-prob", "0.5"], "--model, --keep-prob"),
    ],
)
def test_refit_of_takes_its_configuration_from_the_run(
    options: list[str],
    named: str,
    place: Path,
    tmp_path: Path,
    run_coterie: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["train", place / "data", "--refit-of", place / "vae", *options]
    assert run_coterie(*asked, "--out", tmp_path / "run") == 2
    assert f"found {named} beside it" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "run").exists()
