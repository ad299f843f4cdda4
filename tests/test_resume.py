"""A run that was stopped or killed, anywhere, ends as if it had not been."""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from coterie.config import RunConfig
from coterie.errors import ArtifactError, ConfigError, ConflictError, Interrupted
from coterie.locks import try_lock
from coterie.running.execution import Execution
from coterie.running.interrupt import StopRequest
from coterie.running.progress import Update
from coterie.simulation.service import simulate_dataset
from coterie.training.checkpoint import Position, load_checkpoint, save_checkpoint
from coterie.training.loop import TrainingLoop
from coterie.training.run_folder import RunFolder
from coterie.training.run_record import read_history, read_run
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train

DATA = simulate_dataset(n_users=260, n_items=50, held_out_users=40, seed=2)
VALUES: dict[str, dict[str, Any]] = {
    "vae": {
        "model": {
            "name": "mult-vae",
            "hidden_dims": [16],
            "latent_dim": 6,
            "anneal_steps": 9,
            "pia": 0.2,
        },
        "training": {
            "epochs": 4,
            "batch_size": 60,
            "learning_rate": 0.01,
            "metric": "ndcg@10",
            "validate_every": 2,
        },
    },
    "sampled": {
        "model": {
            "name": "mult-vae",
            "hidden_dims": [16],
            "latent_dim": 6,
            "anneal_steps": 9,
            "pia": 0.2,
        },
        "training": {
            "epochs": 3,
            "batch_size": 60,
            "metric": "ndcg@10",
            "sampled_items": 9,
            "sparse_updates": True,
        },
    },
    "vamp": {
        "model": {
            "name": "vamp-vae",
            "hidden_dims": [16],
            "latent_dim": 6,
            "anneal_steps": 9,
            "components": 5,
            "pia": 0.2,
        },
        "training": {"epochs": 3, "batch_size": 60, "learning_rate": 0.01, "metric": "ndcg@10"},
    },
    "dae": {
        "model": {"name": "mult-dae", "latent_dim": 6},
        "training": {
            "epochs": 4,
            "batch_size": 60,
            "learning_rate": 0.05,
            "weight_decay": 0.001,
            "metric": "ndcg@10",
        },
    },
    "out of patience": {
        "model": {
            "name": "mult-vae",
            "hidden_dims": [16],
            "latent_dim": 6,
            "keep_prob": 1.0,
            "beta": 0.0,
        },
        "training": {
            "epochs": 40,
            "batch_size": 60,
            "learning_rate": 0.08,
            "metric": "ndcg@10",
            "patience": 1,
        },
    },
    "long": {
        "model": {
            "name": "mult-vae",
            "hidden_dims": [64],
            "latent_dim": 16,
            "anneal_steps": 50,
            "pia": 0.2,
        },
        "training": {
            "epochs": 60,
            "batch_size": 20,
            "learning_rate": 0.002,
            "metric": "ndcg@10",
            "patience": 60,
        },
    },
}

CHILD = """
import json, sys
from coterie.config import RunConfig
from coterie.simulation.service import simulate_dataset
from coterie.errors import CoterieError
from coterie.training.trainer import train

out, values, checkpoint_seconds = sys.argv[1], json.loads(sys.argv[2]), float(sys.argv[3])
data = simulate_dataset(n_users=260, n_items=50, held_out_users=40, seed=2)
try:
    train(data, RunConfig.of(values), out=out, resume=True, checkpoint_seconds=checkpoint_seconds)
except CoterieError as error:
    print(type(error).__name__, error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@functools.cache
def uninterrupted(name: str) -> tuple[dict[str, Tensor], list[dict[str, Any]], dict[str, Any]]:
    """Weights, history and provenance of a run nothing happened to, without a folder to resume
    from.
    """
    run = TrainingLoop(DATA, RunConfig.of(VALUES[name]), Execution("cpu"))
    history = []
    while not run.finished():
        for batch in run.batches():
            run.advance(*batch)
        history.append(run.close_epoch())
    best, value = run.position.best_epoch, run.position.best_value
    summary = {"best_epoch": best, "best_validation": value, "steps": best * run.n_batches}
    return dict(run.best_network().state_dict()), history, summary


def times_of(folder: Path) -> dict[Path, int | None]:
    """When each file was written; None of locks, which some versions of filelock write to."""
    return {
        path: None if path.suffix == ".lock" else path.stat().st_mtime_ns
        for path in folder.rglob("*")
    }


def assert_as_uninterrupted(name: str, model: TrainedModel, out: Path) -> None:
    weights, history, summary = uninterrupted(name)
    found = model.network.state_dict()
    assert found.keys() == weights.keys()
    for key, value in weights.items():
        assert torch.equal(found[key], value), key
    # Through JSON, as the file went.
    assert untimed(read_history(out)) == untimed(json.loads(json.dumps(history)))
    identity = read_run(out).identity
    assert identity is not None
    assert model.provenance == {"dataset": DATA.fingerprint, **identity.to_json(), **summary}
    assert not (out / "checkpoint.safetensors").exists()


def untimed(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in entry.items() if name != "seconds"} for entry in history
    ]


def resume(name: str, out: Path) -> TrainedModel:
    return train(DATA, RunConfig.of(VALUES[name]), out=out, resume=True)


def crash_after(
    name: str, out: Path, n_steps: int, *, checkpoint: bool, epoch_closed: bool = False
) -> bool:
    """Runs ``n_steps`` steps more as `train` does and leaves the folder as a SIGKILL would; False
    if the run ended before.
    """
    config = RunConfig.of(VALUES[name])
    with RunFolder(out, config, DATA, Execution("cpu"), resume=True) as folder:
        seconds = 0 if checkpoint else 1e9
        run = TrainingLoop(DATA, config, Execution("cpu"), folder, seconds)
        return goes_on(run, n_steps, epoch_closed=epoch_closed)


def goes_on(run: TrainingLoop, n_steps: int, *, epoch_closed: bool) -> bool:
    still = StopRequest(active=False)
    while not run.finished():
        for batch in run.batches():
            if n_steps == 0 and not epoch_closed:
                return True
            run.advance(*batch)
            n_steps -= 1
            run.pause(still)
        run.close_epoch()
        if n_steps <= 0:
            # The history has the epoch's line, the checkpoint knows nothing of it.
            return True
        run.pause(still)
    return False


def test_the_uninterrupted_runs_are_what_they_are_named() -> None:
    assert [len(uninterrupted(name)[1]) for name in ("vae", "dae", "long")] == [4, 4, 60]
    _, history, summary = uninterrupted("out of patience")
    assert len(history) == summary["best_epoch"] + 1 < 40


@pytest.mark.parametrize("name", ["vae", "dae"])
def test_resume_after_a_crash_at_any_step_changes_nothing(name: str, tmp_path: Path) -> None:
    n_crashes = 0
    while crash_after(name, tmp_path / str(n_crashes), n_crashes, checkpoint=True):
        out = tmp_path / str(n_crashes)
        assert (out / "checkpoint.safetensors").exists() == (n_crashes > 0)
        assert_as_uninterrupted(name, resume(name, out), out)
        n_crashes += 1
    assert n_crashes >= 3 * 4


@pytest.mark.parametrize("name", ["vae", "vamp", "dae", "sampled", "out of patience"])
def test_resume_after_a_crash_at_every_step_changes_nothing(name: str, tmp_path: Path) -> None:
    n_crashes = 0
    while crash_after(name, tmp_path, 1, checkpoint=True):
        n_crashes += 1
    assert n_crashes > 8
    assert_as_uninterrupted(name, resume(name, tmp_path), tmp_path)


@pytest.mark.parametrize("n_steps", [1, 4, 9])
def test_resume_after_a_crash_between_history_and_checkpoint_changes_nothing(
    n_steps: int, tmp_path: Path
) -> None:
    assert crash_after("vae", tmp_path, n_steps, checkpoint=True, epoch_closed=True)
    assert_as_uninterrupted("vae", resume("vae", tmp_path), tmp_path)


def test_resume_without_a_checkpoint_starts_anew(tmp_path: Path) -> None:
    assert crash_after("vae", tmp_path, 7, checkpoint=False)
    assert len(read_history(tmp_path)) == 2
    assert not (tmp_path / "checkpoint.safetensors").exists()
    assert_as_uninterrupted("vae", resume("vae", tmp_path), tmp_path)


def test_resume_of_nothing_is_a_run(tmp_path: Path) -> None:
    assert_as_uninterrupted("vae", resume("vae", tmp_path / "new"), tmp_path / "new")


def test_resume_of_a_finished_run_returns_its_model(tmp_path: Path) -> None:
    resume("vae", tmp_path)
    before = times_of(tmp_path)
    assert_as_uninterrupted("vae", resume("vae", tmp_path), tmp_path)
    assert times_of(tmp_path) == before


def test_resume_is_not_disturbed_by_what_a_kill_left_half_written(tmp_path: Path) -> None:
    crash_after("vae", tmp_path, 5, checkpoint=True)
    whole = (tmp_path / "checkpoint.safetensors").read_bytes()
    (tmp_path / ".checkpoint.123.part.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / ".history.123.part.jsonl").write_text('{"epo', encoding="utf-8")
    (tmp_path / ".model.xyz.part").mkdir()
    (tmp_path / ".model.xyz.part" / "weights.safetensors").write_bytes(whole[:100])
    with (tmp_path / "history.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"epoch": 2, "st')
    assert_as_uninterrupted("vae", resume("vae", tmp_path), tmp_path)


@pytest.fixture
def harmless_signals() -> Iterator[list[int]]:
    """Signals that come after the run gave its handlers back are noted and do no harm."""
    late: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: late.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    yield late
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_at_random_moments_change_nothing(
    number: signal.Signals, tmp_path: Path, harmless_signals: list[int]
) -> None:
    delays = random.Random(int(number))
    stops: list[tuple[int, int, bool, bool]] = []
    # A fast machine may finish before the signal, a slow one may not have begun: runs are begun
    # until two were cut.
    for attempt in range(50):
        folder = tmp_path / str(attempt)
        model = run_under_signals(folder, number, delays, stops)
        assert_as_uninterrupted("long", model, folder)
        if len(stops) >= 2:
            break
    assert len(stops) >= 2
    assert set(stops) == {(number, 128 + number, True, True)}


def run_under_signals(
    folder: Path,
    number: signal.Signals,
    delays: random.Random,
    stops: list[tuple[int, int, bool, bool]],
) -> TrainedModel:
    """Resumes a run until it ends, with a signal on its way each time; notes what every stop looked
    like.
    """
    while True:
        timer = threading.Timer(delays.uniform(0.01, 0.15), os.kill, (os.getpid(), number))
        timer.start()
        try:
            return resume("long", folder)
        except Interrupted as stopped:
            stops.append(
                (
                    stopped.signal_number,
                    stopped.exit_code,
                    "--resume" in str(stopped),
                    (folder / "checkpoint.safetensors").exists(),
                )
            )
        finally:
            timer.cancel()
            timer.join()


def test_stop_request_notes_the_first_signal_and_lets_the_second_through(
    harmless_signals: list[int],
) -> None:
    with StopRequest(active=True) as stop:
        signal.raise_signal(signal.SIGTERM)
        assert (stop.signal_number, harmless_signals) == (signal.SIGTERM, [])
        signal.raise_signal(signal.SIGINT)
        assert (stop.signal_number, harmless_signals) == (signal.SIGTERM, [signal.SIGINT])


def test_stop_request_leaves_signals_alone_when_inactive(harmless_signals: list[int]) -> None:
    with StopRequest(active=False) as stop:
        signal.raise_signal(signal.SIGTERM)
    assert (stop.signal_number, harmless_signals) == (None, [signal.SIGTERM])
    with StopRequest(active=True):
        pass
    signal.raise_signal(signal.SIGTERM)
    assert harmless_signals == [signal.SIGTERM] * 2


def test_train_in_another_thread_needs_no_signals(tmp_path: Path) -> None:
    done: list[TrainedModel] = []
    thread = threading.Thread(target=lambda: done.append(resume("vae", tmp_path)))
    thread.start()
    thread.join()
    assert_as_uninterrupted("vae", done[0], tmp_path)


# The same with real processes and real kills.


def start(out: Path, checkpoint_seconds: float) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-c",
        CHILD,
        str(out),
        json.dumps(VALUES["long"]),
        str(checkpoint_seconds),
    ]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def signal_after_change(
    child: subprocess.Popen[str], watched: Path, number: signal.Signals, delay: float
) -> tuple[int, str]:
    """Waits until the child has changed a file, then a moment, and signals; returns exit code and
    standard error.
    """
    before = _state(watched)
    deadline = time.monotonic() + 60
    while _state(watched) == before and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay)
    child.send_signal(number)
    _, complaint = child.communicate(timeout=60)
    return child.returncode, complaint


def _state(path: Path) -> tuple[int, int]:
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else (0, 0)


def test_sigterm_ends_a_process_with_its_own_code_and_a_checkpoint(tmp_path: Path) -> None:
    code, complaint = signal_after_change(
        start(tmp_path, 0.05), tmp_path / "checkpoint.safetensors", signal.SIGTERM, 0.05
    )
    assert code == 143, complaint
    assert complaint.startswith("Interrupted stopped in epoch ")
    assert (tmp_path / "checkpoint.safetensors").exists()
    assert not (tmp_path / "model").exists()
    assert_as_uninterrupted("long", resume("long", tmp_path), tmp_path)


def test_sigkill_again_and_again_changes_nothing(tmp_path: Path) -> None:
    history, checkpoint = tmp_path / "history.jsonl", tmp_path / "checkpoint.safetensors"
    # First before there is any checkpoint, then while one is written every step.
    code, _ = signal_after_change(start(tmp_path, 1e9), history, signal.SIGKILL, 0.05)
    assert code == -signal.SIGKILL
    assert not checkpoint.exists()
    reached = []
    for delay in (0.01, 0.033):
        code, _ = signal_after_change(start(tmp_path, 0), checkpoint, signal.SIGKILL, delay)
        assert code == -signal.SIGKILL
        reached.append(load_checkpoint(checkpoint, "cpu")[0].n_steps)
    assert 0 < reached[0] < reached[1]
    assert_as_uninterrupted("long", resume("long", tmp_path), tmp_path)


def test_a_second_process_is_refused_until_the_first_one_is_gone(tmp_path: Path) -> None:
    checkpoint, unfinished = tmp_path / "checkpoint.safetensors", tmp_path / ".model.x.part"
    with start(tmp_path, 0) as first:
        wait_until(checkpoint.exists, first)
        # It stands still, so that it does not end while a busy machine starts the second.
        first.send_signal(signal.SIGSTOP)
        unfinished.mkdir()
        with pytest.raises(ConflictError, match="only one process may train in a run folder"):
            resume("long", tmp_path)
        second = start(tmp_path, 0)
        _, complaint = second.communicate(timeout=60)
        assert second.returncode == ConflictError.exit_code
        assert complaint.startswith("ConflictError "), complaint
        assert unfinished.exists(), "it may be the first one's"
        assert first.poll() is None
        first.kill()
    begun = read_run(tmp_path)
    assert begun.model is None
    model = resume("long", tmp_path)
    assert not unfinished.exists()
    assert begun.identity == read_run(tmp_path).identity, "it goes on as the run that it was"
    assert_as_uninterrupted("long", model, tmp_path)


def wait_until(happened: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert child.poll() is None, "the process ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_two_threads_do_not_train_in_one_folder(tmp_path: Path) -> None:
    refused = []

    def intrude(update: Update) -> None:
        if update.facts:
            with pytest.raises(ConflictError):
                resume("vae", tmp_path)
            refused.append(True)

    model = train(DATA, RunConfig.of(VALUES["vae"]), out=tmp_path, progress=intrude)
    assert len(refused) == 4
    assert_as_uninterrupted("vae", model, tmp_path)


def test_a_refused_run_frees_its_folder(tmp_path: Path) -> None:
    resume("vae", tmp_path)
    other = RunConfig.of(VALUES["dae"])
    with pytest.raises(ConfigError) as refused:
        train(DATA, other, out=tmp_path, resume=True)
    assert "model.name" in str(refused.value)
    lock = try_lock(tmp_path / "run.lock")
    assert lock is not None
    lock.release()


# The checkpoint file.

STATE = {"network.a": torch.arange(6.0).view(2, 3), "adam.0.step": torch.tensor(4.0)}
BEST = {"a": torch.full((2, 3), 0.1)}
AT = Position(
    epoch=3,
    batch=2,
    n_steps=11,
    sums={"nll": 0.1 + 0.2, "loss": 1e300},
    best_epoch=2,
    best_value=1 / 3,
)


def test_checkpoint_comes_back_exactly(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c.safetensors", AT, STATE, BEST)
    position, state, best = load_checkpoint(tmp_path / "c.safetensors", "cpu")
    assert position == AT
    for found, expected in ((state, STATE), (best, BEST)):
        assert found.keys() == expected.keys()
        assert all(
            torch.equal(found[name], value) and found[name].shape == value.shape
            for name, value in expected.items()
        )


def test_checkpoint_with_any_byte_flipped_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, AT, STATE, BEST)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x01]) + whole[place + 1 :])
        with pytest.raises(ArtifactError, match=r"c\.safetensors"):
            load_checkpoint(path, "cpu")


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_checkpoint_cut_short_is_refused_by_resume(keep: int, tmp_path: Path) -> None:
    crash_after("vae", tmp_path, 2, checkpoint=True)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match="not a whole checkpoint"):
        resume("vae", tmp_path)


def test_resume_refuses_a_damaged_configuration(tmp_path: Path) -> None:
    crash_after("vae", tmp_path, 2, checkpoint=True)
    (tmp_path / "config.json").write_text('{"config": ', encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"config\.json: must be a configuration in JSON"):
        resume("vae", tmp_path)
