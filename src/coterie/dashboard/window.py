"""Days of events that a day's lists know: whose they are, and what one user did in them."""

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow.parquet as pq

from coterie.dashboard.sources import Sources, mark_of
from coterie.data.ids import Id
from coterie.data.scan import exactly
from coterie.store.users import user_key


class Watched(NamedTuple):
    """A title in somebody's history.

    Args:
        item_id: The title's.
        last: When it was watched last, seconds since 1970, UTC.
    """

    item_id: Id
    last: int


@dataclass(frozen=True)
class Window:
    """Collected days, as the daily job reads them.

    Args:
        folder: Of the days' files.
        first: The first day.
        until: The first day that is none.
        least: The least value of an event that counts; None: all do.
    """

    folder: Path
    first: date
    until: date
    least: float | None = None

    @classmethod
    def before(cls, sources: Sources, day: date) -> "Window":
        """What the lists of a day know."""
        service = sources.of_service
        prepare = service.config.prepare
        first = day - timedelta(days=prepare.window_days)
        return cls(service.work / "days", first, day, prepare.min_value)

    @cached_property
    def files(self) -> list[Path]:
        """Of the days that are there, oldest first."""
        first, until = self.first.isoformat(), self.until.isoformat()
        found = self.folder.glob("[!.]*.parquet")
        return sorted(path for path in found if first <= path.stem < until)

    @cached_property
    def mark(self) -> tuple[Any, ...]:
        """Another one when a day is."""
        return (self.least, *((path.name, mark_of(path)) for path in self.files))

    @property
    def n_events(self) -> int:
        """Rows of all files."""
        return sum(int(pq.read_metadata(path).num_rows) for path in self.files)

    @property
    def events(self) -> str:
        """SQL of the events that count, for DuckDB; there must be a file."""
        paths = ", ".join(exactly(str(path)) for path in self.files)
        least = "true" if self.least is None else f"value >= {self.least}"
        return f"(FROM read_parquet([{paths}], union_by_name = true) WHERE {least})"

    def history(self, database: duckdb.DuckDBPyConnection, user_id: str) -> list[Watched]:
        """What a user watched, the latest first, each title once.

        Args:
            database: Where it is computed.
            user_id: As text.
        """
        user = self._key(user_id)
        if user is None:
            return []
        query = (
            f"SELECT item_id, max(timestamp) AS last FROM {self.events} WHERE user_id = ?"
            " GROUP BY item_id ORDER BY last DESC, item_id"
        )
        with database.cursor() as cursor:
            found = cursor.execute(query, [user]).fetchall()
        return [Watched(item, int(last)) for item, last in found]

    def _key(self, user_id: str) -> Id | None:
        """The id as the files have it; None if it cannot be there."""
        if not self.files:
            return None
        is_text = str(pq.read_schema(self.files[-1]).field("user_id").type) == "string"
        key = user_id if is_text else user_key(user_id, "int")
        return key if isinstance(key, int | str) else None
