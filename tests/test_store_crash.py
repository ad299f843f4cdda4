"""What a store must live through: publishers that are killed, databases that go away."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from conftest import running
from coterie.errors import CannotWriteError, NotFoundError, UnavailableError
from coterie.store import Store, open_store
from store_contract import check_found, check_whole, leftovers, publish_marked

HERE = Path(__file__).parent
PUBLISHER = """
import sys, time
from itertools import count, islice
from store_contract import catalogue, marked, publish_marked
from coterie.store import open_store

store, wait_after = open_store(sys.argv[1]), int(sys.argv[2])

def waiting(mark):
    tables = marked(mark)
    yield from islice(tables, wait_after)
    print("waits", flush=True)
    time.sleep(600)

if wait_after >= 0:
    store.publish("b", catalogue(2), waiting(2), {"mark": 2})
for mark in count(2):
    publish_marked(store, mark, name="ab"[mark % 2])
    print("published", flush=True)
"""


@contextmanager
def publisher(url: str, wait_after: int = -1) -> Iterator[subprocess.Popen[str]]:
    """Another process that publishes editions a and b for ever, or waits in the middle of b; after
    its first line. It is killed at the end.
    """
    command = [sys.executable, "-c", PUBLISHER, url, str(wait_after)]
    with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("wait_after", [0, 1, 2, 4])
def test_a_publisher_killed_within_leaves_the_old_edition(
    store: Store, store_url: str, wait_after: int
) -> None:
    publish_marked(store, 1, name="a")
    with publisher(store_url, wait_after):
        assert check_whole(store) == 1
    assert [one.name for one in store.editions()] == ["a"]
    assert check_whole(store) == 1
    publish_when_free(store, 3)
    assert check_whole(store) == 3
    assert leftovers(store_url) == 2


def publish_when_free(store: Store, mark: int) -> None:
    """PostgreSQL notices a dead client within moments."""
    for _ in range(100):
        try:
            return publish_marked(store, mark, name="b")
        except Exception as error:
            if "another at work" not in str(error):
                raise
            time.sleep(0.05)
    raise AssertionError("the lock was not let go of")


def test_a_publisher_killed_at_any_moment_leaves_whole_editions(
    store: Store, store_url: str
) -> None:
    """At random moments of publishes of a few milliseconds; the next publish sweeps."""
    rng = random.Random(5)
    publish_marked(store, 1, name="a")
    for kill in range(6):
        with publisher(store_url):
            time.sleep(rng.uniform(0, 0.1))
        live = check_whole(store)
        for one in store.editions():
            mark = one.facts["mark"]
            assert (mark == live) == one.live
            found = store.find(4, edition=one.name)
            assert found is not None
            assert set(found.scores) == {mark}
        publish_when_free(store, 1000 + kill)
        assert check_whole(store) == 1000 + kill
        assert leftovers(store_url) == len(store.editions())


def test_postgres_goes_away_and_comes_back() -> None:
    with TemporaryDirectory(prefix="coterie-postgres-") as place:
        with running(Path(place)) as url:
            store = open_store(url)
            publish_marked(store, 1)
            assert check_whole(store) == 1
        began = time.monotonic()
        for call in (store.editions, lambda: store.find(1), lambda: store.note("daily", "1", {})):
            with pytest.raises(UnavailableError, match="the database must answer in time"):
                call()
        assert time.monotonic() - began < 3
        with running(Path(place)), store:
            assert check_whole(store) == 1
            publish_marked(store, 2)
            assert check_whole(store) == 2


def test_a_postgres_that_hangs_is_not_waited_for(postgres_url: str) -> None:
    """Its connections are open, and nothing answers."""
    with open_store(postgres_url, timeout_seconds=0.5) as store:
        publish_marked(store, 1)
        assert check_found(store, 1) == 1
        for process in sessions(postgres_url):
            os.kill(process, signal.SIGSTOP)
        began = time.monotonic()
        try:
            with pytest.raises(UnavailableError, match="must answer in time"):
                store.find(1)
            assert 0.4 < time.monotonic() - began < 2
            # With another connection.
            assert check_found(store, 1) == 1
        finally:
            for process in sessions(postgres_url):
                os.kill(process, signal.SIGCONT)


def sessions(url: str) -> list[int]:
    """Processes of the server that serve stores in this database."""
    import psycopg  # noqa: PLC0415

    query = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'coterie'"
    )
    with psycopg.connect(url) as connection:
        return [pid for (pid,) in connection.execute(query).fetchall()]


def test_sessions_that_the_server_ends_are_made_anew(postgres_url: str) -> None:
    import psycopg  # noqa: PLC0415

    with (
        open_store(postgres_url) as store,
        closing(psycopg.connect(postgres_url, autocommit=True)) as other,
    ):
        publish_marked(store, 1)
        for _ in range(3):
            assert check_whole(store) == 1
            for process in sessions(postgres_url):
                other.execute("SELECT pg_terminate_backend(%s)", (process,))


def test_a_folder_goes_away_and_comes_back(tmp_path: Path) -> None:
    here, there = tmp_path / "store", tmp_path / "elsewhere"
    with open_store(f"sqlite:///{here}") as store:
        with pytest.raises(NotFoundError):
            store.find(1)
        publish_marked(store, 1)
        assert check_whole(store) == 1
        here.rename(there)
        for call in (lambda: store.find(1), store.editions, lambda: store.prune(0)):
            with pytest.raises(UnavailableError, match="bring the folder back"):
                call()
        there.rename(here)
        assert check_whole(store) == 1


def test_a_folder_restored_from_a_backup_is_read_anew(tmp_path: Path) -> None:
    here, backup = tmp_path / "store", tmp_path / "backup"
    with open_store(f"sqlite:///{here}") as store:
        publish_marked(store, 1)
        store.close()
        shutil.copytree(here, backup)
        publish_marked(store, 2)
        assert check_whole(store) == 2
        shutil.rmtree(here)
        backup.rename(here)
        assert check_whole(store) == 1
        publish_marked(store, 3)
        assert check_whole(store) == 3


FULL = """
import resource, sys
from store_contract import publish_marked
from coterie.errors import CannotWriteError
from coterie.store import open_store

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    publish_marked(open_store(sys.argv[1]), 2)
except CannotWriteError as error:
    print(error)
"""


def test_a_full_disk_leaves_all_as_it_was(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store"
    with open_store(url) as store:
        publish_marked(store, 1)
        command = [sys.executable, "-c", FULL, url]
        done = subprocess.run(command, check=True, cwd=HERE, capture_output=True, text=True)
        assert "make room" in done.stdout
        assert check_whole(store) == 1
        assert leftovers(url) == 1


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with open_store(f"sqlite:///{tmp_path}/store") as store:
        with pytest.raises(CannotWriteError, match="store"):
            publish_marked(store, 1)
        with pytest.raises(CannotWriteError, match="store"):
            store.note("daily", "1", {})
