"""The interaction log: what a reader read, in a temporary DuckDB database.

The log may be larger than memory; DuckDB keeps it on disk and spills. It lives until
`InteractionLog.close`.
"""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import fsspec

from coterie.data.source import fingerprint, is_url, name_of
from coterie.errors import ConfigError


class InteractionLog:
    """Rows ``log(user_id, item_id, rating, timestamp, part)`` in the order of their files, with
    where they came from.

    ``user_id`` and ``item_id`` are BIGINT or VARCHAR; ``rating`` DOUBLE, ``timestamp`` BIGINT
    (seconds since 1970, UTC) and ``part`` UTINYINT (`coterie.data.split.Part`) are NULL throughout
    where the source has none.

    Args:
        name: Of the source, for the manifest.
        format: One of `coterie.data.read.FORMATS`.
        memory_limit: Of DuckDB, as it writes sizes; what needs more spills to the temporary folder.

    Raises:
        ConfigError: if ``memory_limit`` is no size.

    Example:
        >>> with InteractionLog("hand-made", "table") as log:
        ...     _ = log.connection.execute("INSERT INTO log VALUES (1, 7, 4.5, NULL, NULL)")
        ...     log.n_rows, log.has("rating"), log.has("timestamp")
        (1, True, False)
    """

    def __init__(self, name: str, format: str, memory_limit: str = "3GB") -> None:  # noqa: A002
        self.name = name
        self.format = format
        self.counts: dict[str, int] = {}
        self.reading: dict[str, Any] = {}  # by which rules a table was read, for the manifest
        self.ratings_are_counts = (
            False  # of how often the user had the item; else every row is once
        )
        self.titles: Mapping[str, str] | None = None
        self.copies: dict[str, str] = {}  # what was unpacked or converted, with what it was
        self._folder = tempfile.TemporaryDirectory(prefix="coterie-")
        self.scratch = Path(self._folder.name) / "scratch"
        self.scratch.mkdir()
        self._hashing = ThreadPoolExecutor(max_workers=1)
        self._sources: list[Future[dict[str, Any]]] = []
        try:
            self.connection = duckdb.connect(
                str(Path(self._folder.name) / "log.duckdb"), config={"memory_limit": memory_limit}
            )
        except duckdb.Error as error:
            self._folder.cleanup()
            raise ConfigError(
                f"memory_limit must be a size such as 3GB or 500MiB, found {memory_limit!r}; give"
                " such a size."
            ) from error
        self.connection.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
        self.create("BIGINT", "BIGINT")

    def create(self, user_type: str, item_type: str) -> None:
        """Makes the empty table, in place of one there, with ids of the given types."""
        self.connection.execute(
            f"CREATE OR REPLACE TABLE log(user_id {user_type}, item_id {item_type}, rating DOUBLE,"
            " timestamp BIGINT, part UTINYINT)"
        )

    def add_source(self, *paths: str, name: str | None = None) -> None:
        """Notes a source (of one or more files) and starts hashing it beside the reading."""
        for path in paths[:1]:
            if is_url(path):
                self.connection.register_filesystem(fsspec.core.url_to_fs(path)[0])
        self._sources.append(self._hashing.submit(fingerprint, paths, name or name_of(paths[0])))

    def note_source(self, name: str, content: str) -> None:
        """Notes a source that is no file, by its text."""
        digest = hashlib.sha256(content.encode()).hexdigest()
        entry = {"file": name, "bytes": len(content.encode()), "sha256": digest}
        self._sources.append(self._hashing.submit(lambda: entry))

    @property
    def sources(self) -> list[dict[str, Any]]:
        """``{"file", "bytes", "sha256"}`` of every source; waits until they are hashed."""
        return [source.result() for source in self._sources]

    @property
    def n_rows(self) -> int:
        """Rows in the table."""
        return int(self.one("SELECT count(*) FROM log")[0])

    def has(self, column: str) -> bool:
        """Whether ``rating``, ``timestamp`` or ``part`` is known."""
        return bool(self.one(f"SELECT count({column}) > 0 FROM log")[0])

    def one(self, query: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...]:
        """The first row of a query's answer."""
        row = self.connection.execute(query, list(parameters)).fetchone()
        return row if row is not None else ()

    def close(self) -> None:
        """Removes the temporary database."""
        self._hashing.shutdown(cancel_futures=True)
        self.connection.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
