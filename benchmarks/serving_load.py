"""How many requests a second one server answers, and how long each waits.

    python benchmarks/serving_load.py --store sqlite
    python benchmarks/serving_load.py --store postgres
    python benchmarks/serving_load.py --fold-in

The server is a process of its own, as ``coterie serve`` starts it; the clients are coroutines of
this one, each with one connection, and share its cores. Look-ups are of random users, 20 items of
100. Fold-in is a Mult-VAE (I-600-200-600-I) with its first weights and histories of 73 items: the
ranking object in this process, which the server leaves alone meanwhile, and the API take turns.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import httpx
import numpy as np
import torch
import uvloop
from publishing import Lists, place

from coterie.config import RunConfig
from coterie.data.ids import IdMap
from coterie.files import write_json
from coterie.lab.bench.turns import machine, random_histories
from coterie.models.multvae import MultVAEConfig
from coterie.plain_table import plain_table
from coterie.registry import Registry
from coterie.store import open_store
from coterie.training.trained_model import TrainedModel

K = 20
BENCH_KEY = "a key for the benchmark"
SERVE = """
import json, sys
from coterie.running.logs import show_logs
from coterie.serving import serve
show_logs(lambda line: print(line, file=sys.stderr, flush=True), as_json=True)
serve(*json.loads(sys.argv[1]), port=0, api_key=sys.argv[2])
"""


class Client(asyncio.Protocol):
    """One connection, on which one request follows the answer to the one before.

    Args:
        requests: Makes them.
        until: When to stop, on `time.perf_counter`.
    """

    def __init__(self, requests: Callable[[], bytes], until: float) -> None:
        self._requests, self._until = requests, until
        self._read = bytearray()
        self.seconds: list[float] = []
        self.failures = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks first."""
        # uvloop's is no subclass of it.
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody should close it but we."""
        if not self.done.done():
            self.failures += 1
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Asks again, once the answer is whole."""
        self._read += data
        head, end, body = self._read.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().split(b"content-length:")[1].split(b"\r")[0]):
            return
        self.seconds.append(time.perf_counter() - self._began)
        self.failures += b" 200 " not in head[:20]
        self._read.clear()
        if time.perf_counter() < self._until:
            self._ask()
        else:
            self.done.set_result(None)
            self._transport.close()

    def _ask(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._requests())


async def ask(
    port: int, requests: Callable[[], bytes], n_clients: int, seconds: float
) -> dict[str, Any]:
    """The figures of some clients that ask for some time."""
    loop, cpu, began = asyncio.get_running_loop(), cpu_seconds(port), time.perf_counter()
    clients = [Client(requests, began + seconds) for _ in range(n_clients)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*(client.done for client in clients))
    took = time.perf_counter() - began
    times = 1000 * np.concatenate([client.seconds for client in clients])
    return {
        "clients": n_clients,
        "requests_per_second": len(times) / took,
        "p50_ms": float(np.percentile(times, 50)),
        "p99_ms": float(np.percentile(times, 99)),
        "server_cpu_ms": 1000 * (cpu_seconds(port) - cpu) / len(times),
        "failures": sum(client.failures for client in clients),
    }


def cpu_seconds(port: int) -> float:
    """Of the server's processor, as its meters say."""
    url = f"http://127.0.0.1:{port}/metrics"
    text = httpx.get(url, headers={"X-API-Key": BENCH_KEY}).text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    return float(lines["process_cpu_seconds_total"])


def look_ups(n_users: int) -> Callable[[], bytes]:
    """Requests for random users' lists."""
    rng = np.random.default_rng(3)
    users: Iterator[int] = iter(rng.integers(n_users, size=1_000_000).tolist())
    head = f"?k={K} HTTP/1.1\r\nhost: x\r\nx-api-key: {BENCH_KEY}\r\n\r\n".encode()
    return lambda: b"GET /recommendations/%d%b" % (next(users), head)


def fold_ins(histories: Iterator[list[int]]) -> Callable[[], bytes]:
    """Requests for lists of histories."""

    def request() -> bytes:
        body = json.dumps({"history": next(histories), "k": 100}).encode()
        head = f"host: x\r\nx-api-key: {BENCH_KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
        return b"POST /recommendations HTTP/1.1\r\n" + head.encode() + body

    return request


@contextmanager
def serving(store_url: str, registry: Path, *, with_model: bool) -> Iterator[int]:
    """A server's port, once it is ready."""
    command = [sys.executable, "-c", SERVE, json.dumps([store_url, str(registry)]), BENCH_KEY]
    began = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            told = (json.loads(line) for line in process.stderr)
            port = next(one["port"] for one in told if "port" in one)
            sys.stderr.write(f"listening after {time.perf_counter() - began:.2f} s\n")
            if with_model:
                next(one for one in told if "version" in one)
            yield port
        finally:
            process.terminate()


def measure_look_ups(args: argparse.Namespace) -> dict[str, Any]:
    """The store's figures."""
    lists = Lists(args.users, args.items, 100)
    with place(args.store) as url, TemporaryDirectory() as registry:
        with open_store(url) as store:
            store.publish("1", lists.catalogue, lists.tables(), {"version": "1"})
        with serving(url, Path(registry), with_model=False) as port:
            requests = look_ups(args.users)
            uvloop.run(ask(port, requests, 16, 1))
            load = [uvloop.run(ask(port, requests, n, args.seconds)) for n in (1, 16, 64)]
    return {"store": args.store, "users": args.users, "load": load}


def measure_fold_in(args: argparse.Namespace) -> dict[str, Any]:
    """The model's figures, beside the ranking object's own."""
    rows = random_histories(2000, args.items, 73)
    listed = [row.tolist() for row in np.split(rows.indices, rows.indptr[1:-1])]
    model, own, load = untrained(args.items), list[float](), list[dict[str, Any]]()
    with TemporaryDirectory() as folder:
        registry = Path(folder) / "registry"
        register(model, registry)
        with serving(f"sqlite:///{folder}/store", registry, with_model=True) as port:
            recommender = model.recommender(100)
            for number in range(args.rounds):
                turn = iter(listed[number * 97 :] * 100)
                for _ in range(60):
                    began = time.perf_counter()
                    recommender.recommend({0: next(turn)})
                    own.append(1000 * (time.perf_counter() - began))
                load.append(uvloop.run(ask(port, fold_ins(turn), 1, args.seconds / args.rounds)))
            turn = iter(listed * 100)
            many = [uvloop.run(ask(port, fold_ins(turn), n, args.seconds)) for n in (16, 64)]
    one = {name: float(np.median([each[name] for each in load])) for name in load[0]}
    figures = {f"own_p{p}_ms": float(np.percentile(own, p)) for p in (50, 99)}
    return {"items": args.items, **figures, "load": [one, *many]}


def untrained(n_items: int) -> TrainedModel:
    """A Mult-VAE with its first weights."""
    config = MultVAEConfig()
    network = config.build(n_items, torch.Generator().manual_seed(0)).eval()
    titles = tuple(f"Title {item}" for item in range(n_items))
    popularity = np.arange(n_items, dtype=np.int64)
    items = IdMap.of(range(n_items))
    return TrainedModel(network, RunConfig(model=config), items, titles, popularity)


def register(model: TrainedModel, registry: Path) -> None:
    """Makes it the live version."""
    model.save(registry.parent / "model")
    card = {"fingerprint": model.fingerprint}
    Registry(registry).register("1", registry.parent / "model", card, passed=True)
    Registry(registry).promote("1", by="a benchmark")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--fold-in", action="store_true", help="by a model, in place of a store")
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    figures = measure_fold_in(args) if args.fold_in else measure_look_ups(args)
    figures |= machine("cpu")
    names = ["clients", "requests_per_second", "p50_ms", "p99_ms", "server_cpu_ms", "failures"]
    rows = [[f"{one[name]:,.2f}" for name in names] for one in figures["load"]]
    rest = {name: value for name, value in figures.items() if name != "load"}
    sys.stdout.write(plain_table(names, rows) + f"\n{rest}\n")
    if args.json:
        write_json(args.json, figures)


if __name__ == "__main__":
    main()
