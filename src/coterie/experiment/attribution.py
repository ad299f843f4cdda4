"""Which view a click came from: logged exposures, each with the clicks that followed it.

Apart from `sums`, which needs no view of a click: replay and interleaving judge single titles.
"""

from collections.abc import Callable
from datetime import timedelta

import duckdb
import numpy as np
import pyarrow as pa

from coterie.errors import DataError
from coterie.experiment.events import KINDS, EventReader, EventSources, Kind, Window

_KEYS = ("user_id", "card", "item_id")


def read_events(
    sources: EventSources, window: Window, place: Callable[[str], str] = str
) -> dict[Kind, pa.Table]:
    """All events of some days in memory, by the rules of `EventReader`; ids are text.

    Args:
        sources: Where the events are.
        window: Which days; those before are read as well.
        place: What makes of a source's path the one to be opened.

    Raises:
        SourceError: at a source that cannot be read.
    """
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        reader = EventReader(database, sources, window, user_type="VARCHAR", place=place)
        n_days = window.before_days + window.n_days
        days = [window.begins + timedelta(days=n) for n in range(n_days)]
        return {
            kind: pa.concat_tables(
                database.sql(f"FROM {reader.events(kind, day)}").to_arrow_table() for day in days
            )
            for kind in KINDS
        }


def with_clicks(exposures: pa.Table, outcomes: pa.Table) -> pa.Table:
    """Exposures with one column more, ``clicks`` (int64): how many clicks followed each.

    A click belongs to the latest view of its title by its user on its card, at the click's time or
    before. A click without such a view is dropped. Rows are taken as they are: `read_events` drops
    those that are there twice.

    Args:
        exposures: user_id, time, card, item_id, and more.
        outcomes: user_id, time, card, item_id, kind. Times have the type of those of exposures.

    Raises:
        DataError: if a column is missing.

    Example:
        >>> seen = {"user_id": [7, 7], "time": [10, 20], "card": ["home"] * 2, "item_id": [1, 1]}
        >>> done = {"user_id": [7], "time": [25], "card": ["home"], "item_id": [1]}
        >>> outcomes = pa.table({**done, "kind": ["click"]})
        >>> with_clicks(pa.table(seen), outcomes)["clicks"].to_pylist()
        [0, 1]
    """
    need("exposures", exposures, (*_KEYS, "time"))
    need("outcomes", outcomes, (*_KEYS, "time", "kind"))
    places = pa.array(np.arange(exposures.num_rows))
    keys = ", ".join(f"coalesce(CAST({key} AS VARCHAR), '') AS {key}" for key in _KEYS)
    # Of views at one time the first row is the view.
    seen = f"SELECT {keys}, time, min(place) AS place FROM seen GROUP BY ALL"
    clicked = f"SELECT {keys}, time FROM outcomes WHERE kind = 'click'"
    same = " AND ".join(f"c.{key} = s.{key}" for key in _KEYS)
    found = answer(
        f"SELECT place FROM ({clicked}) c ASOF JOIN ({seen}) s ON {same} AND c.time >= s.time",
        seen=exposures.select([*_KEYS, "time"]).append_column("place", places),
        outcomes=outcomes,
    )
    clicks = np.bincount(found["place"].to_numpy(), minlength=exposures.num_rows)
    return exposures.append_column("clicks", pa.array(clicks))


def answer(query: str, **tables: pa.Table) -> pa.Table:
    """What DuckDB answers of some tables, by their names."""
    with duckdb.connect() as database:
        for name, table in tables.items():
            database.register(name, table)
        return database.sql(query).to_arrow_table()


def need(what: str, table: pa.Table, names: tuple[str, ...]) -> None:
    """Checks columns.

    Raises:
        DataError: naming those that are missing.
    """
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise DataError(
            f"{what} must have {', '.join(names)}, found {', '.join(table.column_names)}; add"
            f" {', '.join(missing)}."
        )
