"""How often each title was watched, day by day."""

from dataclasses import dataclass
from datetime import date, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coterie.dashboard.sources import Kept, Sources, mark_of
from coterie.dashboard.window import Window
from coterie.jobs.events import answer

_MOST = 500


@dataclass(frozen=True, eq=False)
class DayOfTitles:
    """A day's events by title.

    Args:
        ids: Item ids as text.
        events: ``[n]`` of each.
    """

    ids: pa.Array
    events: np.ndarray

    def of(self, item_id: str) -> int:
        """Events of a title."""
        place = pc.index(self.ids, pa.scalar(item_id, self.ids.type)).as_py()
        return int(self.events[place]) if place >= 0 else 0


def popularity_of(sources: Sources, n_days: int) -> dict[date, DayOfTitles] | None:
    """The last days' events by title, without those that were not collected; None while they are
    being counted.
    """
    until = sources.day + timedelta(days=1)
    window = Window(sources.of_service.work / "days", until - timedelta(days=n_days), until)
    days = sources.kept.get("days of titles", None, lambda: Kept(_MOST))

    def count() -> dict[date, DayOfTitles]:
        found = {}
        for path in window.files:
            read = Window(window.folder, *_only(path.stem)).events
            one = days.get(
                path.name, mark_of(path), lambda read=read: _read(sources.database, read)
            )
            found[date.fromisoformat(path.stem)] = one
        return found

    return sources.aside.get("popularity", window.mark, count)


def _only(day: str) -> tuple[date, date]:
    first = date.fromisoformat(day)
    return first, first + timedelta(days=1)


def _read(database: duckdb.DuckDBPyConnection, events: str) -> DayOfTitles:
    query = f"SELECT CAST(item_id AS VARCHAR) AS item, count(*) AS n FROM {events} GROUP BY 1"
    with database.cursor() as cursor:
        table = answer(cursor, query)
    return DayOfTitles(table["item"].combine_chunks(), table["n"].to_numpy())
