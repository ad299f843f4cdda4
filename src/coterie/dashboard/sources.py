"""What pages read from: a service's folder, or a folder of runs. Nothing here writes.

What is slow to read is kept, by the state of the file that it came from.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from coterie.dashboard.aside import Aside
from coterie.dashboard.exposure import Exposure
from coterie.errors import NotFoundError
from coterie.jobs.config import FILE, Service
from coterie.jobs.titles import Titles, read_titles
from coterie.registry import Registry
from coterie.store import Store, open_store

_Value = TypeVar("_Value")


class Kept:
    """Values by name, each with a mark of what it was read from: another mark is read anew.

    Any number of threads may ask. Two that ask for one name wait for each other, others do not.

    Args:
        most: How many are kept; those that were asked for longest ago go.

    Example:
        >>> kept = Kept(2)
        >>> kept.get("a", 1, lambda: "read"), kept.get("a", 1, lambda: "again")
        ('read', 'read')
        >>> kept.get("a", 2, lambda: "again")
        'again'
    """

    def __init__(self, most: int) -> None:
        self._most, self._values = most, dict[Hashable, tuple[Any, Any]]()
        self._lock, self._reading = threading.Lock(), dict[Hashable, threading.Lock]()

    def get(self, name: Hashable, mark: Any, read: Callable[[], _Value]) -> _Value:
        """The value, read if it is not there or has another mark."""
        with self._lock:
            reading = self._reading.setdefault(name, threading.Lock())
        with reading:
            with self._lock:
                there = self._values.pop(name, None)
                if there is not None and there[0] == mark:
                    self._values[name] = there
                    return there[1]  # type: ignore[no-any-return]
            value = read()
            with self._lock:
                self._values[name] = mark, value
                for old in list(self._values)[: -self._most]:
                    del self._values[old]
                    self._reading.pop(old, None)
        return value


def mark_of(path: str | Path) -> tuple[int, int] | None:
    """What changes when a file does; None if it is not there."""
    try:
        told = os.stat(path)  # noqa: PTH116 – a page asks of hundreds
    except OSError:
        return None
    return told.st_mtime_ns, told.st_size


@dataclass(frozen=True)
class Sources:
    """Where a dashboard looks.

    Args:
        folder: As it was named.
        service: The service, if the folder is one.
        today: As if it were this day, UTC; None: the day that it is.
        kept: What was read while somebody waited.
        aside: What is read beside the pages.
        models: Those in memory, by version.
    """

    folder: Path
    service: Service | None = None
    today: date | None = None
    kept: Kept = field(default_factory=lambda: Kept(64))
    aside: Aside = field(default_factory=lambda: Aside(8))
    models: Aside = field(default_factory=lambda: Aside(3))

    @classmethod
    def of(cls, folder: str | Path, today: date | None = None) -> "Sources":
        """Looks whether a folder is a service.

        Raises:
            NotFoundError: if it is not there.
            ConfigError: if it is a service whose file is wrong.
        """
        path = Path(folder)
        if not path.exists():
            raise NotFoundError(f"{path}: must be there, nothing was found; check the path.")
        is_service = path.name == FILE or (path / FILE).is_file()
        return cls(path, Service.load(path) if is_service else None, today)

    @property
    def name(self) -> str:
        """What the dashboard is of."""
        return self.folder.resolve().name if self.service is None else self.service.config.name

    @property
    def day(self) -> date:
        """Today."""
        return datetime.now(UTC).date() if self.today is None else self.today

    @property
    def of_service(self) -> Service:
        """The service.

        Raises:
            NotFoundError: if there is none.
        """
        if self.service is None:
            raise NotFoundError(
                f"{self.folder}: this page needs a service, and this is a folder of runs; open"
                " a folder with a coterie.toml (coterie init makes one)."
            )
        return self.service

    @property
    def registry(self) -> Registry:
        """The service's models."""
        return Registry(self.of_service.registry)

    @cached_property
    def store(self) -> Store:
        """The service's lists."""
        service = self.of_service
        return open_store(service.place(service.config.store.url))

    @cached_property
    def exposure(self) -> Exposure:
        """How often each title is in somebody's list."""
        return Exposure(lambda: self.store)

    @cached_property
    def database(self) -> duckdb.DuckDBPyConnection:
        """Where days of events are looked into; nothing is kept in it."""
        config: dict[str, Any] = {"memory_limit": "2GB", "temp_directory": tempfile.gettempdir()}
        database = duckdb.connect(config=config)
        database.execute("SET enable_progress_bar = false")
        return database

    @property
    def titles(self) -> Titles:
        """The table of titles, read anew when its file has changed."""
        service = self.of_service
        path = service.config.titles.path
        mark = None if path is None else mark_of(service.place(path))
        return self.kept.get("titles", mark, lambda: read_titles(service))

    def title(self, item: Any) -> str | None:
        """An item's title, if it has one."""
        return self.titles.names.get(str(item))

    def close(self) -> None:
        """Closes what was opened."""
        if "exposure" in vars(self):
            self.exposure.close()
        if "database" in vars(self):
            self.database.close()
        if "store" in vars(self):
            self.store.close()
