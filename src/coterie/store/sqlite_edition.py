"""One edition as one SQLite file: written once in bulk, then only read."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pyarrow as pa

from coterie.errors import CannotWriteError, DataError
from coterie.store.contents import Contents, ListKey, PackedList
from coterie.store.packing import PackedLists, Packer
from coterie.store.pool import Pool
from coterie.store.users import Key

# The file is written aside: a crash leaves nothing that matters, and it is flushed at its end.
_FRESH = (
    "PRAGMA page_size = 8192",
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA cache_size = -65536",
)
_TABLES = (
    "CREATE TABLE lists (user_id NOT NULL, row INTEGER NOT NULL, source INTEGER NOT NULL,"
    " items BLOB NOT NULL, scores BLOB NOT NULL)",
    "CREATE TABLE contents (details TEXT NOT NULL, catalogue BLOB NOT NULL)",
)
_KEY = "CREATE UNIQUE INDEX list_key ON lists (user_id, row)"
_TWICE = "SELECT user_id, row FROM lists GROUP BY 1, 2 HAVING count(*) > 1 LIMIT 1"
_THREADS = 64


def write_edition(path: Path, packer: Packer, lists: Iterable[pa.Table]) -> int:
    """Writes a file of lists; their order does not matter.

    Returns:
        Distinct users.

    Raises:
        DataError: if a user has two lists in a card row, or a list breaks a rule.
        CannotWriteError: if SQLite cannot write it.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        try:
            for statement in (*_FRESH, "BEGIN", *_TABLES):
                database.execute(statement)
            for block in packer.pack(lists):
                database.executemany("INSERT INTO lists VALUES (?, ?, ?, ?, ?)", _records(block))
            return _finish(database, packer.contents())
        except sqlite3.OperationalError as error:
            raise CannotWriteError(
                f"{path.parent}: must take the edition's file, found: {error}; make room, or check"
                " the disk."
            ) from error


def _records(block: PackedLists) -> Iterator[tuple[Any, ...]]:
    return zip(
        block.users.to_pylist(),
        block.rows.tolist(),
        block.sources.tolist(),
        block.items.to_pylist(),
        block.scores.to_pylist(),
        strict=True,
    )


def _finish(database: sqlite3.Connection, contents: Contents) -> int:
    try:
        database.execute(_KEY)
    except sqlite3.IntegrityError as error:
        user, row = database.execute(_TWICE).fetchone()
        raise twice(user, contents.rows[row]) from error
    told = (contents.details(), contents.catalogue())
    database.execute("INSERT INTO contents VALUES (?, ?)", told)
    (n_users,) = database.execute("SELECT count(DISTINCT user_id) FROM lists").fetchone()
    database.execute("COMMIT")
    return int(n_users)


def twice(user: int | bytes, row: str) -> DataError:
    """What is raised when a user has two lists in a card row."""
    text = user.decode(errors="replace") if isinstance(user, bytes) else user
    return DataError(
        f"a user must have one list in a card row, found a second one in {row!r} for user"
        f" {text!r:.80}; leave one out."
    )


class EditionFile:
    """A file that is read, on a connection a thread.

    Args:
        path: Of the file, which never changes; it may be removed meanwhile.
        wait_seconds: How long one waits for a connection.

    Raises:
        OSError: if it is not there.
    """

    def __init__(self, path: Path, wait_seconds: float) -> None:
        # No locks are taken on what is immutable.
        self._uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        self._pool = Pool(self._connect, _THREADS, wait_seconds)
        self._held = path.open("rb")

    def lend(self) -> AbstractContextManager[sqlite3.Connection]:
        """A connection for a block."""
        return self._pool.lend()

    def close(self) -> None:
        """Lets go of the file."""
        self._pool.clear()
        # Whoever closes a removed file last waits while the system frees it, 0.1 s for 170 MB.
        # SQLite would hold up every other connection of the process for that long.
        threading.Thread(target=self._held.close).start()

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._uri, uri=True, check_same_thread=False, isolation_level=None)


def read_list(database: sqlite3.Connection, key: ListKey) -> PackedList | None:
    """One list, or None if there is none."""
    found = database.execute(
        "SELECT source, items, scores FROM lists WHERE user_id = ? AND row = ?", key
    ).fetchone()
    return PackedList(*found) if found else None


def read_page(
    database: sqlite3.Connection, row: int, after: Key | None, most: int
) -> list[tuple[Key, bytes]]:
    """Users and packed items of the next lists of a card row, by key."""
    query = "SELECT user_id, items FROM lists WHERE row = ?{} ORDER BY user_id LIMIT ?"
    if after is None:
        return database.execute(query.format(""), (row, most)).fetchall()
    return database.execute(query.format(" AND user_id > ?"), (row, after, most)).fetchall()


def read_contents(database: sqlite3.Connection, place: str) -> Contents:
    """The rest of the edition."""
    details, catalogue = database.execute("SELECT details, catalogue FROM contents").fetchone()
    return Contents.of(details, catalogue, place)
