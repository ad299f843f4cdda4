"""Days of a log as folders of files, and the titles beside them."""

from collections.abc import Iterable
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from coterie.files import publish_file


def write_days(
    folder: str | Path, titles: pa.Table, arrivals: Iterable[tuple[date, pa.Table]]
) -> None:
    """Writes ``titles.parquet`` and ``events/day=YYYY-MM-DD/events.parquet``, each whole or not at
    all.

    Args:
        folder: Made if it is not there.
        titles: Written first, so that no event has a title that is not in it.
        arrivals: Days and pieces of their rows, days in any order: a piece of a day goes into its
            file at once, so that one piece is in memory.

    Raises:
        CannotWriteError: if there are no rights or there is no room.
    """
    with publish_file(Path(folder) / "titles.parquet") as aside:
        pq.write_table(titles, aside)
    writers: dict[date, pq.ParquetWriter] = {}
    with ExitStack() as files:
        for day, table in arrivals:
            if day not in writers:
                path = Path(folder) / "events" / f"day={day}" / "events.parquet"
                aside = files.enter_context(publish_file(path))
                writers[day] = files.enter_context(pq.ParquetWriter(aside, table.schema))
            writers[day].write_table(table)
