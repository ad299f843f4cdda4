"""Each day's events, read once into one small file of ours, whatever the source.

A day's file holds what arrived on that day, each row once. It is made anew when its source has
changed, so that a day which was loaded too early is not trained on for ever. A database does not
tell whether it has changed: it is asked again until some days after the day's end.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from coterie.data.log import InteractionLog
from coterie.data.parts import files_of
from coterie.data.read import read_log
from coterie.data.scan import exactly, literal
from coterie.data.source import exists
from coterie.errors import DataError, EmptySourceError, SourceError
from coterie.files import publish_file
from coterie.jobs.config import Service
from coterie.running.progress import Progress, Update, silent
from coterie.stream.history_pairs import write_sorted

_SOURCE = b"coterie.source"


@dataclass(frozen=True)
class Day:
    """A collected day.

    Args:
        day: Its date.
        path: The file: user_id, item_id, timestamp (seconds since 1970, UTC), value.
        n_events: Rows.
        n_users: Users among them.
        n_repeated: Rows of the source that were there twice.
        digest: SHA-256 of its rows: the same rows, whatever file they came in, are the same day.
    """

    day: date
    path: Path
    n_events: int
    n_users: int
    n_repeated: int
    digest: str


def collect(service: Service, days: Iterable[date], progress: Progress = silent) -> list[Day]:
    """Collects days; those without events, or with nothing where they would be, are left out.

    Raises:
        SourceError: at the file and row that cannot be read.
        UnavailableError: if a database cannot be reached.
    """
    days, found = list(days), []
    for number, day in enumerate(days, start=1):
        one = _collect_day(service, day)
        found += [one] if one is not None else []
        progress(Update("collecting", number, len(days), "days"))
    return found


def _collect_day(service: Service, day: date) -> Day | None:
    path = service.work / "days" / f"{day}.parquet"
    try:
        source = _source(service, day)
        if source is not None and not (path.is_file() and _facts(path)["source"] == source):
            _write_day(service, day, path, source)
    except EmptySourceError:
        source = None
    if source is None:
        path.unlink(missing_ok=True)
        return None
    facts = _facts(path)
    return Day(day, path, **{name: facts[name] for name in facts if name != "source"})


def _source(service: Service, day: date) -> str | None:
    """What says whether a day's source, and how it is read, are as when it was; None if there is
    none.
    """
    how = service.config.events.model_dump(mode="json", exclude={"late_days"})
    if service.config.events.query is not None:
        # A time that never comes again: until it is final, an answer is no answer to the next run.
        return json.dumps(how if _is_final(service, day) else [how, datetime.now(UTC).isoformat()])
    path = service.day_path(day)
    if not exists(path):
        return None
    filesystem, _ = fsspec.core.url_to_fs(path)
    marks = [_mark(filesystem.info(file)) for file in files_of(path)]
    return json.dumps([how, marks])


def _is_final(service: Service, day: date) -> bool:
    """Whether what a database says now of a day holds for good."""
    last = day + timedelta(days=service.config.events.late_days)
    return datetime.now(UTC).date() > last


def _mark(info: dict[str, Any]) -> list[str]:
    known = ("size", "mtime", "LastModified", "ETag", "updated", "md5Hash")
    # Not its folder: a service that is moved, or restored from a copy, has read its days.
    file = str(info["name"]).rsplit("/", 1)[-1]
    return [file, *(str(info[name]) for name in known if name in info)]


def _write_day(service: Service, day: date, path: Path, source: str) -> None:
    with read_day(service, day) as log:
        read = log.n_rows
        table = answer(
            log.connection.cursor(),
            "SELECT DISTINCT user_id, item_id, timestamp, rating AS value FROM log"
            " ORDER BY user_id, timestamp, item_id, value",
        )
    facts = {
        "source": source,
        "n_events": len(table),
        "n_users": len(table["user_id"].unique()),
        "n_repeated": read - len(table),
        "digest": _digest(table),
    }
    table = table.replace_schema_metadata({_SOURCE: json.dumps(facts).encode()})
    with publish_file(path) as aside:
        pq.write_table(table, aside)


def _digest(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def read_day(service: Service, day: date) -> InteractionLog:
    """A day's source, read, to be closed.

    Raises:
        SourceError: at the file and row that cannot be read, or if it has no times.
    """
    events = service.config.events
    query = events.query
    for name, date_ in (("day", day), ("next_day", day + timedelta(days=1))):
        # Not format: other braces are SQL's.
        query = query and query.replace(f"{{{name}}}", str(date_))
    log = read_log(
        service.day_path(day),
        "table",
        user_column=events.user_column,
        item_column=events.item_column,
        rating_column=events.value_column,
        timestamp_column=events.timestamp_column,
        timestamp_unit=events.timestamp_unit,
        user_id_type=events.user_id_type,
        item_id_type=events.item_id_type,
        columns=events.columns,
        delimiter=events.delimiter,
        negative_ratings=True,
        query=query,
    )
    if not log.has("timestamp"):
        log.close()
        raise SourceError("every event must have its time, found none; name its column.", str(day))
    return log


def _facts(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((pq.read_schema(path).metadata or {})[_SOURCE])
    return facts


def answer(database: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    """All rows of a query's answer."""
    return pa.RecordBatchReader.from_stream(database.sql(query)).read_all()


def last_day(service: Service, before: date, look_back: int = 400) -> date | None:
    """The last day before a date whose source is there; a database is taken to have it."""
    for n in range(1, look_back + 1):
        day = before - timedelta(days=n)
        if _source(service, day) is not None:
            return day
    return None


def select(days: Sequence[Day]) -> str:
    """SQL that reads some days' files, for DuckDB.

    Raises:
        DataError: if there is none.
    """
    if not days:
        raise DataError(
            "there must be a day with events in the window, found none; check events.path."
        )
    paths = ", ".join(exactly(str(day.path)) for day in days)
    return f"read_parquet([{paths}], union_by_name = true)"


def write_window(
    service: Service, days: Sequence[Day], path: Path, *, until: date | None = None
) -> int:
    """Writes some days' events as one file, each once, by user and time.

    Args:
        service: Whose window and least value hold.
        days: Collected ones.
        path: The Parquet file.
        until: Only what happened before this date; all if None.

    Returns:
        Its rows.

    Raises:
        DataError: if nothing is left.
    """
    query = (
        f"SELECT DISTINCT user_id, item_id, timestamp FROM {_kept(service, days, until)}"
        " ORDER BY user_id, timestamp, item_id"
    )
    with publish_file(path) as aside, _database(path.parent) as database:
        database.execute(f"COPY ({query}) TO {literal(str(aside))} (FORMAT parquet)")
    return _filled(path, days)


def write_histories(service: Service, days: Sequence[Day], path: Path) -> int:
    """Writes what each user has had in some days: a row a user, with a list of items.

    Memory does not grow with the events: they are sorted on the disk that ``path`` is on.

    Args:
        service: Whose least value holds.
        days: Collected ones.
        path: The Parquet file: user_id, in order, and item_ids.

    Returns:
        Its rows.

    Raises:
        DataError: if nothing is left.
    """
    # An item that is there twice counts once when the list is read.
    query = f"SELECT user_id, item_id FROM {_kept(service, days)} ORDER BY ALL"
    with publish_file(path) as aside, _database(path.parent) as database:
        write_sorted(pa.RecordBatchReader.from_stream(database.sql(query)), aside)
    return _filled(path, days)


def _kept(service: Service, days: Sequence[Day], until: date | None = None) -> str:
    """SQL of the events that count."""
    conditions, least = ["true"], service.config.prepare.min_value
    if until is not None:
        conditions.append(f"timestamp < {seconds(until)}")
    if least is not None:
        conditions.append(f"value >= {least}")
    return f"{select(days)} WHERE {' AND '.join(conditions)}"


@contextmanager
def _database(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """One that sorts in bounded memory, and beyond it on the disk of ``folder``."""
    config: dict[str, Any] = {"memory_limit": "2GB", "temp_directory": str(folder)}
    with duckdb.connect(config=config) as database:
        database.execute("SET enable_progress_bar = false")
        yield database


def _filled(path: Path, days: Sequence[Day]) -> int:
    rows = int(pq.read_metadata(path).num_rows)
    if not rows:
        raise DataError(f"{path.name}: must hold events, found none in {len(days)} days.")
    return rows


def seconds(day: date) -> int:
    """Midnight, UTC, when a day begins: seconds since 1970."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
