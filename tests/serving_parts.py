"""A registry with models that tell which they are, and servers in processes of their own."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from coterie.config import RunConfig
from coterie.models.popularity import PopularityConfig
from coterie.registry import Registry
from coterie.simulation.service import simulate_dataset
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train

KEY = "a key of sufficient length"

PROGRAM = """
import json
import sys

{before}
from coterie.running.logs import show_logs
from coterie.serving import Limits, serve

given = json.loads(sys.argv[1])
show_logs(lambda line: print(line, file=sys.stderr, flush=True), "debug", as_json=True)
serve(limits=Limits(**given.pop("limits")), port=0, **given)
"""


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Args:
        process: Its own.
        url: Where it listens.
        log: The file of its log, JSON lines.
    """

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def port(self) -> int:
        """Where it listens on the loopback address."""
        return int(self.url.rpartition(":")[2])

    def records(self) -> list[dict[str, Any]]:
        """What it has logged."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def client(self) -> httpx.Client:
        """One that has the key."""
        return httpx.Client(base_url=self.url, headers={"X-API-Key": KEY}, timeout=30)

    def wait_for_model(self, version: str | None = None) -> None:
        """Until a model folds in, or a certain one."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = httpx.get(f"{self.url}/version", headers={"X-API-Key": KEY}).json()["model"]
            if found is not None and version in (None, found):
                return
            time.sleep(0.05)
        raise AssertionError(self.log.read_text(encoding="utf-8"))


@contextmanager
def running_server(
    store_url: str,
    registry: Path | None,
    *,
    before: str = "",
    limits: dict[str, Any] | None = None,
    **options: Any,
) -> Iterator[Server]:
    """A server, which is killed if it still runs in the end."""
    given = {"store_url": store_url, "registry_folder": None if registry is None else str(registry)}
    bounds = {"poll_seconds": 0.05, **(limits or {})}
    told = json.dumps({**given, **options, "limits": bounds})
    folder = Path(store_url.removeprefix("sqlite:///")).parent
    log = (registry.parent if registry is not None else folder) / f"log-{time.monotonic_ns()}"
    command = [sys.executable, "-c", PROGRAM.format(before=before), told]
    with log.open("wb") as errors, subprocess.Popen(command, stderr=errors) as process:
        try:
            yield Server(process, f"http://127.0.0.1:{_port(process, log)}", log)
        finally:
            process.kill()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n") and "port" in (told := json.loads(line)):
                return int(told["port"])
        time.sleep(0.01)
    raise AssertionError(log.read_text(encoding="utf-8"))


@cache
def trained(mark: int, name: str = "ease") -> TrainedModel:
    """A model whose titles tell its mark; its items are 1 to 60."""
    data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
    config = PopularityConfig() if name == "popularity" else RunConfig.of({"model": {"name": name}})
    model = train(data, config)
    titles = tuple(f"{mark}-{item}" for item in range(model.n_items))
    return TrainedModel(model.network, model.config, model.items, titles, model.popularity)


def register(registry: Path, mark: int, name: str = "ease", *, live: bool = True) -> str:
    """Makes version ``v<mark>`` live."""
    model, folder = trained(mark, name), registry.parent / f"model-{mark}-{name}"
    model.save(folder)
    versions = Registry(registry)
    versions.register(f"v{mark}", folder, {"fingerprint": model.fingerprint}, passed=True)
    if live:
        versions.promote(f"v{mark}", by="a test")
    return f"v{mark}"
