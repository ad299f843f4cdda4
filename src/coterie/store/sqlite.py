"""The embedded back end: a folder with one SQLite file an edition and a control database.

An edition's file is written aside, flushed and renamed, and never changed afterwards. Which
editions there are and which one is live is in the control database alone: a file that it does not
name is rubbish.
"""

import os
import secrets
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from coterie.errors import ArtifactError, ConflictError
from coterie.files import local, publish_file, writing_to
from coterie.locks import file_lock, try_lock
from coterie.store.contents import ListKey, PackedList
from coterie.store.edition import Edition, Note
from coterie.store.packing import Packer
from coterie.store.sqlite_control import Control
from coterie.store.sqlite_edition import (
    EditionFile,
    read_contents,
    read_list,
    read_page,
    write_edition,
)
from coterie.store.store import PAGE, Opened, Store
from coterie.store.users import Key, Kind


class SqliteStore(Store):
    """A store in a folder: ``control.sqlite``, ``editions/``, ``publish.lock``, ``setup.lock``.

    Args:
        folder: Made by the first publish or note.
        timeout_seconds: How long one waits for a lock of the control database.
    """

    def __init__(self, folder: Path, timeout_seconds: float) -> None:
        super().__init__()
        self._folder = local(folder)
        self._editions = self._folder / "editions"
        self._timeout_seconds = timeout_seconds
        self._control = Control(self._folder / "control.sqlite", timeout_seconds)
        self._files: dict[str, EditionFile] = {}

    def __repr__(self) -> str:
        return f"SqliteStore({str(self._folder)!r})"

    def __str__(self) -> str:
        return str(self._folder)

    def editions(self) -> list[Edition]:
        """See `Store.editions`."""
        return self._control.editions()

    def prune(self, keep: int) -> list[str]:
        """See `Store.prune`."""
        gone = self._control.prune(keep)
        self._remove(gone.values())
        return list(gone)

    def notes(self, kind: str, limit: int = 100) -> list[Note]:
        """See `Store.notes`."""
        return self._control.notes(kind, limit)

    def close(self) -> None:
        """See `Store.close`."""
        self._control.close()
        while self._files:
            self._files.popitem()[1].close()

    def _publish(
        self, name: str, facts: str, packer: Packer, lists: Iterable[pa.Table], live: bool
    ) -> None:
        with self._publishing():
            self._set_up()
            self._sweep()
            place = f"{name}-{secrets.token_hex(6)}.sqlite"
            path = self._editions / place
            with publish_file(path) as aside:
                n_users = write_edition(aside, packer, lists)
            _flush_folder(self._editions)
            old = self._control.register(name, place, n_users, facts, live)
            self._remove(filter(None, [old]))

    def _point(self, name: str) -> bool:
        return self._control.point(name)

    def _note(self, kind: str, name: str, values: str) -> None:
        self._set_up()
        self._control.note(kind, name, values)

    def _look_up(
        self, name: str | None, opened: Opened | None, keys: Sequence[ListKey | None]
    ) -> tuple[str | None, list[PackedList | None]]:
        place = self._control.place(name)
        if opened is None or not keys or place != opened.place:
            return place, []
        try:
            with self._file(place).lend() as connection:
                return place, [key and read_list(connection, key) for key in keys]
        except (sqlite3.Error, OSError) as error:
            self._check_present(place, error)
            # Pruned since: the control database says what is there now.
            return "", []

    def _open(self, place: str) -> Opened | None:
        edition = self._control.at(place)
        if edition is None:
            return None
        self._drop_files(place)
        try:
            with self._file(place).lend() as connection:
                return Opened(place, edition, read_contents(connection, place))
        except (sqlite3.Error, OSError) as error:
            self._check_present(place, error)
            return None

    def _page(
        self, place: str, users: Kind, row: int, after: Key | None
    ) -> list[tuple[Key, bytes]]:
        try:
            with self._file(place).lend() as connection:
                return read_page(connection, row, after, PAGE)
        except (sqlite3.Error, OSError) as error:
            self._check_present(place, error)
            raise self._gone() from error

    def _check_present(self, place: str, error: Exception) -> None:
        """Raises, if a file that the control database still names cannot be read."""
        if self._control.at(place) is None:
            return
        path = self._editions / place
        raise ArtifactError(
            f"{path}: must be a whole edition, found: {error}; restore it, point to another edition"
            " or publish this one again."
        ) from error

    def _file(self, place: str) -> EditionFile:
        file = self._files.get(place)
        if file is None:
            made = EditionFile(self._editions / place, self._timeout_seconds)
            file = self._files.setdefault(place, made)
            if file is not made:
                made.close()
        return file

    def _drop_files(self, but: str) -> None:
        kept = {one.place for one in self._opened.values()} | {but}
        for place in set(self._files) - kept:
            self._files.pop(place).close()

    @contextmanager
    def _publishing(self) -> Iterator[None]:
        held = try_lock(self._folder / "publish.lock")
        if held is None:
            raise ConflictError(
                f"{self._folder}: one publisher at a time writes, found another at work; wait until"
                " it is done."
            )
        with held:
            yield

    def _set_up(self) -> None:
        if self._control.exists():
            return
        with writing_to(self._folder):
            self._editions.mkdir(parents=True, exist_ok=True)
            with file_lock(self._folder / "setup.lock"):
                self._control.create(self._editions)
            _flush_folder(self._folder)

    def _sweep(self) -> None:
        """Removes what publishers left that did not come to their end."""
        named = self._control.places()
        self._remove(path.name for path in self._editions.iterdir() if path.name not in named)

    def _remove(self, places: Iterable[str]) -> None:
        for place in places:
            # Where a file in use cannot be removed, a later publish does it.
            with suppress(OSError):
                (self._editions / place).unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """A renamed file's name to the disk; other systems than POSIX have no such call."""
    if sys.platform != "win32":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
