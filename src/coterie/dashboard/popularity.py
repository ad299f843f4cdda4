"""How often each title was watched, day by day."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

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
        return {date.fromisoformat(one.stem): _day(sources, days, one) for one in window.files}

    return sources.aside.get("popularity", window.mark, count)


def _day(sources: Sources, days: Kept, path: Path) -> DayOfTitles:
    first = date.fromisoformat(path.stem)
    events = Window(path.parent, first, first + timedelta(days=1)).events
    return days.get(path.name, mark_of(path), lambda: _read(sources.database, events))


def _read(database: duckdb.DuckDBPyConnection, events: str) -> DayOfTitles:
    query = f"SELECT CAST(item_id AS VARCHAR) AS item, count(*) AS n FROM {events} GROUP BY 1"
    with database.cursor() as cursor:
        table = answer(cursor, query)
    return DayOfTitles(table["item"].combine_chunks(), table["n"].to_numpy())
