"""The control database of a folder: which editions there are, which one is live, and the notes.

It keeps a write-ahead log, so readers never wait for a writer. Every change is one transaction.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coterie.errors import CannotWriteError, UnavailableError
from coterie.files import publish_file
from coterie.store.edition import Edition, Note
from coterie.store.pool import Pool

_TABLES = """
PRAGMA journal_mode = WAL;
CREATE TABLE editions (name TEXT PRIMARY KEY, place TEXT NOT NULL UNIQUE, n_users INTEGER NOT NULL,
    published TEXT NOT NULL, facts TEXT NOT NULL);
CREATE TABLE pointer (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), edition TEXT NOT NULL
    REFERENCES editions (name));
CREATE TABLE notes (kind TEXT NOT NULL, name TEXT NOT NULL, noted TEXT NOT NULL,
    told TEXT NOT NULL, PRIMARY KEY (kind, name));
"""
_LIVE = "(SELECT edition FROM pointer)"
_EDITIONS = f"SELECT name, facts, n_users, published, name IS {_LIVE} FROM editions"
_REGISTER = (
    "INSERT INTO editions (name, place, n_users, published, facts) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (name) DO UPDATE SET place = excluded.place, n_users = excluded.n_users,"
    " published = excluded.published, facts = excluded.facts"
)
_POINT = "INSERT OR REPLACE INTO pointer SELECT 1, name FROM editions WHERE name = ?"
_OLD = (
    "SELECT name, place FROM (SELECT * FROM editions ORDER BY name DESC LIMIT -1 OFFSET ?)"
    f" WHERE name IS NOT {_LIVE} ORDER BY name DESC"
)
_THREADS = 64


class Control:
    """The control database at ``path``.

    A file put in its place, as when a backup is restored, is noticed by the next call.

    Args:
        path: Need not be there: then there are no editions.
        timeout_seconds: How long one waits for another's transaction.
    """

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds
        self._pool = Pool(self._connect, _THREADS, timeout_seconds)
        self._inode: tuple[int, int] | None = None

    def exists(self) -> bool:
        """Whether it was created."""
        return self._path.exists()

    def create(self, aside: Path) -> None:
        """Makes it whole, unless it is there."""
        if not self.exists():
            with (
                publish_file(self._path, aside) as part,
                closing(sqlite3.connect(part)) as database,
            ):
                database.executescript(_TABLES)

    def close(self) -> None:
        """Closes every connection."""
        self._pool.clear()

    def place(self, name: str | None) -> str | None:
        """The file of an edition, or of the live one."""
        found = self._ask(f"SELECT place FROM editions WHERE name = coalesce(?, {_LIVE})", name)
        return found[0][0] if found else None

    def at(self, place: str) -> Edition | None:
        """The edition with that file."""
        found = self._ask(f"{_EDITIONS} WHERE place = ?", place)
        return _edition(*found[0]) if found else None

    def editions(self) -> list[Edition]:
        """All, the newest name first."""
        return [_edition(*one) for one in self._ask(f"{_EDITIONS} ORDER BY name DESC")]

    def places(self) -> set[str]:
        """The files that are in use."""
        return {place for (place,) in self._ask("SELECT place FROM editions")}

    def notes(self, kind: str, limit: int) -> list[Note]:
        """The newest names first."""
        query = "SELECT * FROM notes WHERE kind = ? ORDER BY name DESC LIMIT ?"
        return [
            Note(kind, name, json.loads(told), datetime.fromisoformat(noted))
            for kind, name, noted, told in self._ask(query, kind, limit)
        ]

    def note(self, kind: str, name: str, told: str) -> None:
        """Keeps one, or replaces it."""
        with self._change() as database:
            values = (kind, name, _now(), told)
            database.execute("INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)", values)

    def register(self, name: str, place: str, n_users: int, facts: str, live: bool) -> str | None:
        """Shows an edition, live or not, in one transaction; the file that it had before."""
        with self._change() as database:
            old = database.execute("SELECT place FROM editions WHERE name = ?", (name,)).fetchone()
            database.execute(_REGISTER, (name, place, n_users, _now(), facts))
            if live:
                database.execute(_POINT, (name,))
        return old[0] if old else None

    def point(self, name: str) -> bool:
        """Makes an edition live, if it is there."""
        if not self._present():
            return False
        with self._change() as database:
            return database.execute(_POINT, (name,)).rowcount > 0

    def prune(self, keep: int) -> dict[str, str]:
        """Strikes off all but the newest and the live one: their files by name."""
        if not self._present():
            return {}
        with self._change() as database:
            old = dict(database.execute(_OLD, (max(keep, 0),)).fetchall())
            database.executemany("DELETE FROM editions WHERE name = ?", [(name,) for name in old])
        return old

    def _ask(self, query: str, *values: Any) -> list[Any]:
        if not self._present():
            return []
        with self._reaching(), self._pool.lend() as database:
            return database.execute(query, values).fetchall()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        self._present()
        with self._reaching(), self._pool.lend() as database:
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            full = any(word in str(error) for word in ("full", "readonly"))
            kind = CannotWriteError if full else UnavailableError
            raise kind(
                f"{self._path}: must be a database that can be opened, found: {error}; check disk,"
                " rights and room."
            ) from error

    def _present(self) -> bool:
        """Whether there is a file; connections to another one that was there are dropped."""
        try:
            status = os.stat(self._path)  # noqa: PTH116 - on the way of every look-up
        except OSError as error:
            if self._inode is None:
                return False
            raise UnavailableError(
                f"{self._path}: must be there, as it was before, found: {error.strerror}; bring"
                " the folder back."
            ) from error
        inode = (status.st_dev, status.st_ino)
        if inode != self._inode:
            self._inode = inode
            self._pool.clear()
        return True

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=self._timeout_seconds,
            isolation_level=None,
            check_same_thread=False,
        )


def _edition(name: str, facts: str, n_users: int, published: str, live: int) -> Edition:
    return Edition(
        name, json.loads(facts), n_users, datetime.fromisoformat(published), live=bool(live)
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
