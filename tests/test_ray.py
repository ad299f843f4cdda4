"""Shards scored on Ray are the bytes that this process writes, also when workers are killed."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from coterie.config import RunConfig
from coterie.data.ids import Id, IdMap
from coterie.errors import ArtifactError, ConfigError, CoterieError, Interrupted, NumericalError
from coterie.ranking.approximate import ApproximateIndex
from coterie.running.progress import Update
from coterie.simulation.service import simulate_dataset
from coterie.stream.ray_engine import RayEngine
from coterie.stream.to_folder import recommend_to_folder
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
from scorer_contract import LinearScorer

ray = pytest.importorskip("ray")

TRAINED_ON = simulate_dataset(n_users=261, n_items=50, held_out_users=40, seed=2)
TRAINED_AS: dict[str, Any] = {
    "model": {"name": "mult-vae", "hidden_dims": [16], "latent_dim": 6, "pia": 0.2},
    "training": {"epochs": 2, "batch_size": 45},
}
OPTIONS = {"num_cpus": 2, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, of two logical processors, as a caller may have started it."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Workers import this file to load its models.
        environment.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        ray.init(
            "local", include_dashboard=False, log_to_driver=False, logging_level="error", **OPTIONS
        )
        yield
        ray.shutdown()


@dataclass(frozen=True, eq=False)
class Marking(LinearScorer):
    """Leaves the number of its process, and waits a little in each block."""

    folder: str = ""

    @classmethod
    def load(cls, folder: Path, *, value: float = 0.5) -> "Marking":
        weights = np.random.default_rng(0).integers(-2, 3, (20, 20)).astype(np.float32)
        weights[0, 0] = value
        return cls(weights, IdMap.of(range(20)), np.arange(20), folder=str(folder))

    def score(self, histories: csr_array) -> torch.Tensor:
        (Path(self.folder) / str(os.getpid())).touch()
        time.sleep(0.02)
        return super().score(histories)


def lists(n_users: int) -> dict[Id, list[Id]]:
    rng = np.random.default_rng(1)
    return {user: rng.integers(0, 20, 5).tolist() for user in range(n_users)}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("cluster")
def test_ray_writes_the_same_bytes(tmp_path: Path) -> None:
    data = simulate_dataset(n_users=700, n_items=90, held_out_users=60, seed=1)
    data.save(tmp_path / "data")
    values: dict[str, Any] = {
        "model": {"name": "mult-vae", "hidden_dims": [32], "latent_dim": 8},
        "training": {"epochs": 1, "batch_size": 200},
    }
    train(data, RunConfig.of(values)).save(tmp_path / "model")
    load = partial(TrainedModel.load, tmp_path / "model")
    request: dict[str, Any] = {"k": 20, "shard_users": 100, "block_size": 30, "threads": 1}
    at: list[tuple[float, float | None]] = []
    here = recommend_to_folder(load(), tmp_path / "data", tmp_path / "here", **request)
    there = recommend_to_folder(
        load(),
        tmp_path / "data",
        tmp_path / "there",
        **request,
        engine=RayEngine(load),
        progress=lambda update: at.append((update.done, update.total)),
    )
    assert bytes_of(tmp_path / "there") == bytes_of(tmp_path / "here")
    assert (there.n_users, there.n_rows) == (here.n_users, here.n_rows)
    assert at[0] == (0, data.n_users)
    assert at[-1] == (data.n_users, data.n_users)
    assert at == sorted(at)
    index = ApproximateIndex.build(load(), n_lists=6, n_probed=2)
    index.save(tmp_path / "index")
    load_index = partial(ApproximateIndex.load, tmp_path / "index")
    recommend_to_folder(load(), tmp_path / "data", tmp_path / "near", **request, index=index)
    recommend_to_folder(
        load(),
        tmp_path / "data",
        tmp_path / "there near",
        **request,
        index=index,
        engine=RayEngine(load, load_index),
    )
    assert (
        bytes_of(tmp_path / "there near")
        == bytes_of(tmp_path / "near")
        != bytes_of(tmp_path / "here")
    )
    with pytest.raises(ArtifactError, match="must load the request's index"):
        recommend_to_folder(
            load(),
            tmp_path / "data",
            tmp_path / "without",
            **{**request, "k": 21},
            index=index,
            engine=RayEngine(load),
        )


@pytest.mark.usefixtures("cluster")
def test_killed_workers_lose_and_double_nothing(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    model = Marking.load(marks)
    request: dict[str, Any] = {"k": 5, "shard_users": 20, "block_size": 4}
    killed: list[int] = []

    def kill() -> None:
        while len(killed) < 2:
            for mark in marks.iterdir():
                if int(mark.name) not in killed and int(mark.name) != os.getpid():
                    os.kill(int(mark.name), signal.SIGKILL)
                    killed.append(int(mark.name))
                    break
            time.sleep(0.15)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    engine = RayEngine(partial(Marking.load, marks))
    done = recommend_to_folder(
        model, lists(500), tmp_path / "there", **request, threads=1, engine=engine
    )
    killer.join(10)
    assert len(killed) == 2
    recommend_to_folder(model, lists(500), tmp_path / "here", **request, threads=1)
    assert done.n_users == 500
    assert bytes_of(tmp_path / "there") == bytes_of(tmp_path / "here")


@pytest.mark.usefixtures("cluster")
def test_errors_cross_processes(tmp_path: Path) -> None:
    model = Marking.load(tmp_path)
    with pytest.raises(ArtifactError, match="must load the request's model"):
        recommend_to_folder(
            model,
            lists(9),
            tmp_path / "a",
            engine=RayEngine(partial(Marking.load, tmp_path, value=2.0)),
        )
    broken = partial(Marking.load, tmp_path, value=float("nan"))
    with pytest.raises(NumericalError, match="scores must be finite"):
        recommend_to_folder(broken(), lists(9), tmp_path / "b", engine=RayEngine(broken))


class Fatal(Marking):
    """Ends whatever process scores with it."""

    def score(self, histories: csr_array) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().score(histories)


@pytest.mark.usefixtures("cluster")
def test_shard_that_kills_every_worker_is_given_up(tmp_path: Path) -> None:
    load = partial(Fatal.load, tmp_path)
    with pytest.raises(CoterieError, match="lost 2 times"):
        recommend_to_folder(load(), lists(9), tmp_path / "out", engine=RayEngine(load, retries=1))


@pytest.mark.usefixtures("cluster")
def test_stopped_on_ray_it_goes_on_here(tmp_path: Path) -> None:
    load = partial(Marking.load, tmp_path)

    def stop(update: Update) -> None:
        if update.done >= 40:
            raise Interrupted("enough", 15)

    with pytest.raises(Interrupted):
        recommend_to_folder(
            load(),
            lists(200),
            tmp_path / "out",
            shard_users=20,
            engine=RayEngine(load),
            progress=stop,
        )
    at: list[float] = []
    recommend_to_folder(
        load(),
        lists(200),
        tmp_path / "out",
        shard_users=20,
        progress=lambda update: at.append(update.done),
    )
    assert 20 <= at[0] < 200
    assert at[-1] == 200


def test_ray_that_cannot_be_reached(tmp_path: Path) -> None:
    if ray.is_initialized():
        ray.shutdown()
    load = partial(Marking.load, tmp_path)
    with pytest.raises(ConfigError, match="Ray must be reached or started"):
        recommend_to_folder(
            load(), lists(9), tmp_path / "out", engine=RayEngine(load, address="no address")
        )


def test_ray_of_its_own_is_ended(tmp_path: Path) -> None:
    load = partial(Marking.load, tmp_path)
    with pytest.raises(
        ConfigError, match="at most the 2 threads that Ray has processors for, found 3"
    ):
        recommend_to_folder(
            load(), lists(9), tmp_path / "out", threads=3, engine=RayEngine(load, options=OPTIONS)
        )
    assert not ray.is_initialized()


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
def train_as(rank: int, port: int, out: str) -> dict[str, Any]:
    """One of two processes that train a model together, told of each other by the variables of an
    env:// launch.
    """
    told = {
        "RANK": rank,
        "WORLD_SIZE": 2,
        "LOCAL_RANK": rank,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    with pytest.MonkeyPatch.context() as environment:
        for name, value in told.items():
            environment.setenv(name, str(value))
        return train(
            TRAINED_ON, RunConfig.of(TRAINED_AS), out=out, resume=True
        ).network.state_dict()


@pytest.mark.usefixtures("cluster")
def test_training_starts_under_ray(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one, other = ray.get([train_as.remote(rank, port, str(tmp_path / "run")) for rank in range(2)])
    alone = train(TRAINED_ON, RunConfig.of(TRAINED_AS)).network.state_dict()
    for name, weights in alone.items():
        assert torch.equal(one[name], other[name]), name
        torch.testing.assert_close(one[name], weights, rtol=0, atol=1e-5, msg=name)
