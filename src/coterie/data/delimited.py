"""Delimited text into the log, through DuckDB's parallel CSV reader, with every fault named by its
line.

DuckDB drops bad lines when asked to note them. So every field is read as text and cast here by
stricter rules, and any line noted as bad is an error.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb

from coterie.data.columns import first_fault, rating_sql, row_rules, seconds_sql
from coterie.data.log import InteractionLog
from coterie.data.scan import UNREADABLE, Column, scan_delimited
from coterie.data.source import line_of_record
from coterie.errors import SourceError


@dataclass(frozen=True)
class Layout:
    """How a delimited file of a known format is written, and which of its columns are wanted.

    Args:
        names: Every column, in file order.
        delimiter: Between fields; may be longer than one character.
        quote: Around fields that hold a delimiter; ``""`` if quotes are ordinary characters.
        header: Whether the first line is a header.
        user: Name of the user column; likewise the others, None if there is none.
        whole_ids: Ids must be integers as integers are written; else they stay text.
        bounds: Least and greatest rating or count.
    """

    names: Sequence[str]
    delimiter: str
    user: str
    item: str
    rating: str | None = None
    timestamp: str | None = None
    quote: str = ""
    header: bool = False
    whole_ids: bool = True
    bounds: tuple[float, float] = (0.0, 1e9)


def load_delimited(log: InteractionLog, path: str, layout: Layout) -> None:
    """Fills the log with a delimited file.

    Args:
        log: Where to.
        path: Local path or fsspec URL, plain, ``.gz`` or ``.zst``.
        layout: How it is written.

    Raises:
        SourceError: at the first line that breaks the layout.
    """
    id_type = "BIGINT" if layout.whole_ids else "VARCHAR"
    log.create(id_type, id_type)
    log.add_source(path)
    scan = scan_delimited(
        path, layout.names, layout.delimiter, quote=layout.quote, header=layout.header
    )
    with noting_lines(log.connection, path, layout.delimiter, layout.quote):
        log.connection.execute(f"INSERT INTO log SELECT {_fields(layout, path)} FROM {scan.sql}")
    rules = row_rules(layout.bounds, layout.rating, layout.timestamp, ids=True)
    fault = first_fault(log, rules)
    if fault is not None:
        _refuse_line(path, fault[0] + layout.header, fault[1].words, layout.delimiter, layout.quote)


def _refuse_line(path: str, record: int, rule: str, delimiter: str, quote: str) -> None:
    """Raises at the line of a record (0-based, a header counting as one) that breaks a rule."""
    line, text = line_of_record(path, record, delimiter, quote)
    raise SourceError(f"{rule}, found {text[:120]!r}; correct or remove the line.", path, line)


def _fields(layout: Layout, path: str) -> str:
    places = {name: Column(f"c{i}", "VARCHAR") for i, name in enumerate(layout.names)}
    user, item = (places[name].sql for name in (layout.user, layout.item))
    ids = (_whole(user), _whole(item)) if layout.whole_ids else (user, item)
    rating = rating_sql(places[layout.rating], path, layout.rating, {}) if layout.rating else "NULL"
    time = layout.timestamp
    timestamp = seconds_sql(places[time], path, time, "s") if time else "NULL"
    return f"{', '.join(ids)}, {rating}, {timestamp}, NULL"


def _whole(column: str) -> str:
    number = f"TRY_CAST({column} AS BIGINT)"
    return f"CASE WHEN CAST({number} AS VARCHAR) = {column} THEN {number} END"


@contextmanager
def noting_lines(
    database: duckdb.DuckDBPyConnection, path: str, delimiter: str, quote: str
) -> Iterator[None]:
    """Around the reading of a delimited file: what DuckDB cannot read, and the first line it noted
    as bad, are errors of the source.

    Raises:
        SourceError: at the line.
    """
    try:
        yield
    except UNREADABLE as error:
        first = str(error).splitlines()[0]
        raise SourceError(
            f"the file must be whole, with lines that all end alike, found: {first}; fetch or write"
            " it again.",
            path,
        ) from error
    _refuse_rejects(database, path, delimiter, quote)


def _refuse_rejects(
    database: duckdb.DuckDBPyConnection, path: str, delimiter: str, quote: str
) -> None:
    reject = database.execute(
        "SELECT line, error_message, csv_line FROM reject_errors ORDER BY line, column_idx LIMIT 1"
    ).fetchone()
    if reject:
        line, message, raw = reject
        text = raw.strip("\r\n")
        if quote:
            # DuckDB counts a record as one line, also where a quoted field spans several.
            line, _ = line_of_record(path, line - 1, delimiter, quote, count_blank=True)
        advice = "or name the file's encoding"
        if quote and quote in text:
            advice = "name the file's encoding, or switch quoting off: --quote none"
        raise SourceError(
            f"every line must have the same columns as UTF-8 text, found {text[:120]!r}"
            f" ({message}); correct it, {advice}.",
            path,
            line,
        )
