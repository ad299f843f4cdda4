"""Several processes against one: the same draws, so the same history and weights but for the order
of sums.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.errors import ConfigError, ConflictError
from coterie.locks import try_lock
from coterie.models.multdae import MultDAEConfig
from coterie.models.multvae import MultVAEConfig
from coterie.running.execution import Execution
from coterie.running.interrupt import StopRequest
from coterie.running.world import ALONE, World, cuda_of_process, join_world, rank_of_process
from coterie.simulation.service import simulate_dataset
from coterie.training.checkpoint import load_checkpoint
from coterie.training.loop import TrainingLoop
from coterie.training.randomness import NOISE, seeded
from coterie.training.run_folder import RunFolder
from coterie.training.run_record import read_history, read_run
from coterie.training.step import TrainingStep
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
from test_sparse import random_dense, sparse

PATIENCE = 240
"""Seconds for processes that import torch side by side on a busy machine."""

# 181 training users: batches of 45 leave one for the last, so that one of two processes has nobody.
DATA = simulate_dataset(n_users=261, n_items=50, held_out_users=40, seed=2)
QUICK = {"epochs": 4, "batch_size": 45, "learning_rate": 0.01, "metric": "ndcg@10"}
VAE = {"name": "mult-vae", "hidden_dims": [16], "latent_dim": 6, "anneal_steps": 9}
VALUES: dict[str, dict[str, Any]] = {
    "vae": {"model": VAE, "training": {**QUICK, "validate_every": 3}},
    "pia": {"model": {**VAE, "pia": 0.2}, "training": QUICK},
    # Its two large matrices have more than SMALL elements and travel alone.
    "dae": {
        "model": {"name": "mult-dae", "latent_dim": 1500},
        "training": {**QUICK, "epochs": 2, "weight_decay": 0.001},
    },
    "recvae": {
        "model": {"name": "recvae", "hidden_dim": 12, "latent_dim": 6, "pia": 0.2},
        "training": {**QUICK, "epochs": 2},
    },
    "linear path recvae": {
        "model": {"name": "linear-path-recvae", "hidden_dim": 12, "latent_dim": 6, "pia": 0.2},
        "training": {**QUICK, "epochs": 2},
    },
    "linear path": {
        "model": {**VAE, "name": "linear-path-vae", "pia": 0.2},
        "training": {**QUICK, "epochs": 2, "start": "spectral", "average": 0.2, "implicit_slim": 1},
    },
    "vamp prior": {
        "model": {**VAE, "name": "vamp-vae", "components": 7, "gated": True},
        "training": {**QUICK, "epochs": 2},
    },
    "resumed": {"model": {**VAE, "pia": 0.2}, "training": QUICK},
    "popularity": {"model": {"name": "popularity"}},
    "long": {
        "model": {**VAE, "pia": 0.2},
        "training": {**QUICK, "epochs": 60, "batch_size": 20, "patience": 60},
    },
}

ROUNDING = 1e-5
"""Relative in the terms, absolute in the weights. Sums over a batch are taken in another order:
6e-8 of a term, and as much
of a gradient, which some dozens of steps of Adam add up. A user left out, drawn for otherwise or
counted twice is 1e-3 and more.
"""

# A near tie may be broken otherwise, which moves one of 40 users' values.
VALIDATION = 0.01

CHILD = """
import json, os, sys
from pathlib import Path

import numpy as np
import torch.distributed as dist
from safetensors.torch import save_file
from scipy.sparse import csr_array

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.errors import ConfigError
from coterie.models.ease import EaseConfig
from coterie.networks.ease import Ease
from coterie.networks.item_item import ItemItem
from coterie.running.world import World
from coterie.training.trainer import share_state, train

data, out, runs = Dataset.load(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
rank = int(os.environ["RANK"])

# What is fitted beside the network may differ from process to process, as with several threads.
fit = EaseConfig.fit
EaseConfig.fit = lambda config, train: Ease(train.shape[1], fit(config, train).weight * (1 + rank))

for name, values in runs.items():
    model = train(data, RunConfig.of(values), out=out / name, resume=True)
    assert not dist.is_initialized()
    save_file(model.network.state_dict(), out / f"{name}.{rank}.safetensors")

# A group of the caller's own is used and stays, as under Ray Train.
dist.init_process_group("gloo")

# A library's fit on several threads: not only other weights, but another number of them.
weights = np.triu(np.random.default_rng(rank).integers(0, 2 + rank, (9, 9)), 1)
fitted = ItemItem(csr_array(weights))
share_state(fitted, World(rank, 2))
save_file(fitted.state_dict(), out / f"fitted.{rank}.safetensors")
try:
    train(data, RunConfig.of(runs["vae"] | {"training": {"seed": rank}}), out=out / "different")
except ConfigError as error:
    assert f"must see the same arguments, rank {rank} of 2 sees" in str(error), error
else:
    raise AssertionError("different arguments were accepted")
model = train(data, RunConfig.of(runs["vae"]))
save_file(model.network.state_dict(), out / f"own group.{rank}.safetensors")
assert dist.get_world_size() == 2
dist.destroy_process_group()
"""


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    DATA.save(tmp_path / "data")
    return tmp_path / "data"


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def torchrun(n: int, *command: str) -> subprocess.Popen[str]:
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={n}",
    ]
    return subprocess.Popen(
        [*launcher, *command], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def pair(*command: str) -> list[subprocess.Popen[str]]:
    """Two processes without a launcher, told by their environment alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            stderr=subprocess.PIPE,
            text=True,
            env={**ENVIRONMENT, **told, "RANK": str(rank)},
        )
        for rank in range(2)
    ]


def train_command(data: Path, out: Path, name: str) -> list[str]:
    config = out.with_suffix(".json")
    config.write_text(json.dumps(VALUES[name]), encoding="utf-8")
    return [
        "-m",
        "coterie.cli",
        "train",
        str(data),
        "--out",
        str(out),
        "--config",
        str(config),
        "--checkpoint-seconds",
        "0.1",
    ]


def ends(*processes: subprocess.Popen[str]) -> tuple[list[int], str]:
    """Exit codes and complaints, when all have ended."""
    complaints = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    return [process.returncode for process in processes], "\n".join(complaints)


def wait_for(path: Path, *processes: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes), ends(*processes)
        time.sleep(0.01)


def assert_as_one(name: str, out: Path, weights: dict[str, Tensor], one: Path) -> None:
    """Compares a run with that of one process, made here."""
    alone = train(DATA, RunConfig.of(VALUES[name]), out=one, resume=True)
    expected = alone.network.state_dict()
    assert weights.keys() == expected.keys()
    for key, value in weights.items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=ROUNDING)
    if name == "popularity":
        return
    history, of_one = read_history(out), read_history(one)
    assert len(history) == len(of_one) == VALUES[name]["training"]["epochs"]
    for found, entry in zip(history, of_one, strict=True):
        assert found.keys() == entry.keys()
        for key in entry.keys() - {"seconds", "validation"}:
            assert found[key] == pytest.approx(entry[key], rel=ROUNDING), key
        assert found.get("validation") == pytest.approx(entry.get("validation"), abs=VALIDATION)


def test_two_processes_train_the_model_of_one(data_folder: Path, tmp_path: Path) -> None:
    together, child = tmp_path / "together", tmp_path / "child.py"
    runs = {name: values for name, values in VALUES.items() if name != "long"}
    stop_alone_after(7, "resumed", together / "resumed")
    child.write_text(CHILD, encoding="utf-8")
    codes, complaint = ends(
        torchrun(2, str(child), str(data_folder), str(together), json.dumps(runs))
    )
    assert codes == [0], complaint
    for name in [*runs, "own group", "fitted"]:
        weights, of_other = (
            load_file(together / f"{name}.{rank}.safetensors") for rank in range(2)
        )
        assert all(torch.equal(value, of_other[key]) for key, value in weights.items()), (
            "the processes have drifted apart"
        )
        if name == "fitted":
            continue
        same = "vae" if name == "own group" else name
        assert_as_one(same, together / same, weights, tmp_path / f"one of {name}")
    assert (
        json.loads((together / "pia" / "environment.json").read_text(encoding="utf-8"))["processes"]
        == 2
    )
    files = ["anchors.safetensors", "config.json", "environment.json", "history.jsonl", "model"]
    assert sorted(path.name for path in (together / "pia").iterdir()) == [*files, "run.lock"]


def stop_alone_after(n_steps: int, name: str, out: Path) -> None:
    """Leaves a checkpoint of one process."""
    config = RunConfig.of(VALUES[name])
    with RunFolder(out, config, DATA, Execution("cpu"), resume=False) as folder:
        take_steps(TrainingLoop(DATA, config, Execution("cpu"), folder, 0), n_steps)


def take_steps(run: TrainingLoop, n_steps: int) -> None:
    while True:
        for batch in run.batches():
            run.advance(*batch)
            run.pause(StopRequest(active=False))
            if run.step.n_steps == n_steps:
                return
        run.close_epoch()


def test_sigterm_to_the_launcher_leaves_a_checkpoint_for_one_process(
    data_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    launcher = torchrun(2, *train_command(data_folder, out, "long"))
    wait_for(out / "checkpoint.safetensors", launcher)
    launcher.send_signal(signal.SIGTERM)
    codes, complaint = ends(launcher)
    assert codes[0] != 0
    assert complaint.count("error: stopped in epoch ") == 2, complaint
    assert 0 < load_checkpoint(out / "checkpoint.safetensors", "cpu")[0].n_steps < 60 * 10
    model = train(DATA, RunConfig.of(VALUES["long"]), out=out, resume=True)
    assert_as_one("long", out, model.network.state_dict(), tmp_path / "one")
    identity = read_run(out).identity
    assert identity is not None
    assert identity.to_json().items() <= model.provenance.items()


def test_a_signal_to_one_process_stops_all_with_its_code(data_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    both = pair(*train_command(data_folder, out, "long"))
    wait_for(out / "checkpoint.safetensors", *both)
    both[1].send_signal(signal.SIGINT)
    codes, complaint = ends(*both)
    assert codes == [130, 130], complaint
    assert complaint.count("go on with --resume") == 2


def test_a_process_that_dies_takes_the_other_along(data_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    both = pair(*train_command(data_folder, out, "long"))
    wait_for(out / "checkpoint.safetensors", *both)
    both[1].kill()
    codes, complaint = ends(*both)
    assert codes[0] > 0, complaint
    assert load_checkpoint(out / "checkpoint.safetensors", "cpu")[0].n_steps > 0


def test_a_folder_in_use_stops_all_processes_at_once(data_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    lock = try_lock(tmp_path / "run" / "run.lock")
    assert lock is not None
    codes, complaint = ends(*pair(*train_command(data_folder, tmp_path / "run", "vae")))
    lock.release()
    assert codes == [ConflictError.exit_code] * 2
    assert "only one process may train in a run folder" in complaint
    assert "the first process must be able to write there" in complaint
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"]


def test_two_processes_refit_the_model_of_one(data_folder: Path, tmp_path: Path) -> None:
    together, one = tmp_path / "together", tmp_path / "one"
    command = [*train_command(data_folder, together, "pia"), "--refit"]
    codes, complaint = ends(torchrun(2, *command))
    assert codes == [0], complaint
    alone = train(DATA, RunConfig.of(VALUES["pia"]), out=one, refit=True)
    found = TrainedModel.load(together)
    for key, value in alone.network.state_dict().items():
        torch.testing.assert_close(found.network.state_dict()[key], value, rtol=0, atol=ROUNDING)
    for fact in ("best_epoch", "train_users", "train_interactions"):
        assert found.provenance[fact] == alone.provenance[fact]
    assert [entry["stage"] for entry in read_history(together)] == ["refit"] * len(
        read_history(one)
    )
    # The other door.
    launched = pair(*refit_command(data_folder, together / "validated", tmp_path / "again"))
    assert ends(*launched)[0] == [0, 0]
    again = TrainedModel.load(tmp_path / "again")
    assert again.fingerprint == found.fingerprint


def refit_command(data: Path, run: Path, out: Path) -> list[str]:
    verb = ["-m", "coterie.cli", "train", str(data), "--out", str(out)]
    return [*verb, "--refit-of", str(run), "--resume"]


def test_one_process_under_a_launcher_is_a_plain_run(data_folder: Path, tmp_path: Path) -> None:
    codes, complaint = ends(torchrun(1, *train_command(data_folder, tmp_path / "run", "pia")))
    assert codes == [0], complaint
    plain = train(Dataset.load(data_folder), RunConfig.of(VALUES["pia"]), out=tmp_path / "plain")
    launched = TrainedModel.load(tmp_path / "run")
    for key, value in plain.network.state_dict().items():
        assert torch.equal(launched.network.state_dict()[key], value)
    untimed = [
        [{**entry, "seconds": 0} for entry in read_history(tmp_path / run)]
        for run in ("run", "plain")
    ]
    assert untimed[0] == untimed[1]


# What needs no second process.


@given(st.integers(0, 50), st.integers(1, 9))
def test_shares_are_contiguous_even_and_complete(n: int, size: int) -> None:
    shares = [World(rank, size).share(n) for rank in range(size)]
    assert [i for share in shares for i in range(n)[share]] == list(range(n))
    lengths = [share.stop - share.start for share in shares]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "model",
    [MultVAEConfig(hidden_dims=(12,), latent_dim=5, pia=0.4), MultDAEConfig(latent_dim=5)],
    ids=["vae+pia", "dae"],
)
def test_losses_and_gradients_of_all_shares_add_up(
    model: MultVAEConfig | MultDAEConfig, size: int
) -> None:
    batch = sparse(random_dense(5, 40, 0))

    def part(world: World) -> tuple[dict[str, Tensor], list[Tensor]]:
        step = TrainingStep(40, model, execution=Execution("cpu", world=world))
        loss, terms = step.objective(batch, model.keep_prob, seeded(0, NOISE, 0), 0)
        parameters = [*step.network.parameters(), *([] if step.anchors is None else [step.anchors])]
        return {"loss": loss.detach(), **terms}, list(torch.autograd.grad(loss, parameters))

    terms, gradients = part(ALONE)
    parts = [part(World(rank, size)) for rank in range(size)]
    for name, value in terms.items():
        torch.testing.assert_close(sum(one[name] for one, _ in parts), value)
    for number, gradient in enumerate(gradients):
        torch.testing.assert_close(sum(one[number] for _, one in parts), gradient)
    if size > 5:
        assert all(not one.any() for one in [*parts[0][0].values(), *parts[0][1]]), (
            "a process without users has something to say"
        )


@pytest.fixture
def launched_as(monkeypatch: pytest.MonkeyPatch) -> Any:
    def launch(**variables: str) -> None:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return launch


def test_join_world_alone_makes_no_group(launched_as: Any) -> None:
    for variables in ({}, {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}):
        launched_as(**variables)
        with join_world("cpu") as world:
            assert world is ALONE
            assert not dist.is_initialized()


def test_a_process_takes_the_device_of_its_local_rank(launched_as: Any) -> None:
    launched_as()
    assert (rank_of_process(), cuda_of_process(8)) == (0, "cuda")
    launched_as(RANK="11", LOCAL_RANK="3")
    assert (rank_of_process(), cuda_of_process(8)) == (11, "cuda:3")
    # As where each process is shown one device.
    assert cuda_of_process(1) == "cuda:0"


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        (
            {"WORLD_SIZE": "2"},
            "found WORLD_SIZE=2 without RANK, MASTER_ADDR, MASTER_PORT; launch with torchrun",
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "here"},
            "found WORLD_SIZE=2 without MASTER_PORT",
        ),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number, found 'two'"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK must be a whole number, found '-1'"),
    ],
)
def test_join_world_refuses_half_a_launch(
    variables: dict[str, str], complaint: str, launched_as: Any
) -> None:
    launched_as(**variables)
    with pytest.raises(ConfigError, match=complaint), join_world("cpu"):
        pass
    assert not dist.is_initialized()


def test_join_world_uses_the_callers_group_and_leaves_it() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        with join_world("cpu") as world:
            assert (world.rank, world.size) == (0, 1)
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()
