"""Any table of interactions whose columns are named: delimited text, Parquet, JSON lines, and
whatever hands over Arrow.
"""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa

from coterie.data.blame import blame
from coterie.data.columns import (
    FIRST_TIME,
    first_fault,
    id_sql,
    is_text_kind,
    line_rules,
    rating_sql,
    row_rules,
    seconds_sql,
    settle_ids,
)
from coterie.data.delimited import noting_lines
from coterie.data.json_lines import first_fields, in_order, no_field, refusal, scan_json_table
from coterie.data.log import InteractionLog
from coterie.data.parts import Part, all_files, as_list, scannable
from coterie.data.scan import (
    UNREADABLE,
    Scan,
    find_delimiter,
    find_header,
    is_json_lines,
    is_parquet,
    literal,
    named_by_place,
    scan_delimited,
    scan_parquet,
)
from coterie.data.split import Part as SplitPart
from coterie.data.table_options import TableOptions
from coterie.errors import SourceError

logger = logging.getLogger(__name__)

_LARGEST_RATING = 1e9
"""Or count: a larger one is a time stamp taken for it."""

_HEADER_AGAIN = 255
"""A part that no split has: marks a header that comes again amid the rows."""


def read_table(log: InteractionLog, paths: Sequence[str], options: TableOptions) -> None:
    """Reads interactions from named columns of one file or several; rows without a user or an item
    are dropped and counted, and so are headers that come again amid the rows.

    Args:
        log: Where to.
        paths: Local paths or fsspec URLs of files or folders, all of one format: ``.parquet``,
            ``.jsonl``, ``.ndjson`` or ``.json``, else delimited text; text plain or compressed.
        options: What its columns are, and how it is written.

    Raises:
        SourceError: if a column is missing, or at the first line or row with a bad value.
    """
    scans = _open_all(log, paths, options)
    test = [] if options.test is None else _open_all(log, as_list(options.test), options)
    load_scans(log, scans, options, test)


def _open_all(log: InteractionLog, paths: Sequence[str], options: TableOptions) -> list[Scan]:
    files = all_files(paths, pattern=options.pattern)
    parts = [scannable(file, log.scratch, options.encoding) for file in files]
    log.copies |= {part.path: part.source for part in parts}
    for file in files:
        log.add_source(file)
    return [open_table(log.connection, part, options) for part in parts]


def read_arrow(log: InteractionLog, table: Any, options: TableOptions) -> None:
    """Reads interactions from named columns of an object with the Arrow PyCapsule interface."""
    scan = scan_arrow(log.connection, table, options.wanted, "arrow_table")
    test = []
    if options.test is not None:
        test = [scan_arrow(log.connection, options.test, options.wanted, "arrow_test")]
    load_scans(log, [scan], options, test)


def scan_arrow(
    database: duckdb.DuckDBPyConnection, table: Any, wanted: Sequence[str], name: str
) -> Scan:
    """Scans some columns of an object that hands over a stream of Arrow batches; what is read once
    is kept, in a table of that name.

    Raises:
        SourceError: if a column is missing, or of no type that Arrow and DuckDB know.
    """
    path = type(table).__name__
    try:
        # Closed, so that whoever hands it over has their connection again, also after an error.
        with pa.RecordBatchReader.from_stream(table) as stream:
            Scan("", stream.schema.names, (), path, is_text=False).need(wanted)
            chosen = _some_columns(stream, wanted)
            database.register("arrow_stream", chosen)
            database.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM arrow_stream")
            database.unregister("arrow_stream")
    except (duckdb.NotImplementedException, pa.ArrowException, TypeError, ValueError) as error:
        raise SourceError(
            f"the columns of a table in memory must each have a name and one type, found: {error};"
            " hand over those that are needed, and cast them.",
            path,
        ) from error
    scan = named_by_place(database, name, chosen.schema.names, path)
    others = [name for name in stream.schema.names if name not in wanted]
    return replace(scan, others=[name for name in others if not name.startswith("__index_level_")])


def _some_columns(stream: pa.RecordBatchReader, wanted: Sequence[str]) -> pa.RecordBatchReader:
    """A table may hold columns, not asked for, of types that DuckDB does not know."""
    places = [i for i, name in enumerate(stream.schema.names) if name in wanted]
    schema = pa.schema([stream.schema.field(i) for i in places])
    return pa.RecordBatchReader.from_batches(schema, (batch.select(places) for batch in stream))


def open_table(database: duckdb.DuckDBPyConnection, part: Part, options: TableOptions) -> Scan:
    """The scan of one file, with all columns that are wanted.

    Raises:
        SourceError: if one is missing.
    """
    values = part.partitions() if options.partitions else {}
    wanted = [name for name in options.wanted if name not in values]
    if is_json_lines(part.path):
        ids = [name for name in (options.user, options.item) if name in wanted]
        scan = scan_json_table(part.path, ids, [name for name in wanted if name not in ids])
    elif is_parquet(part.path):
        scan = scan_parquet(database, part.path)
    else:
        scan = _open_delimited(part.path, wanted, options)
    scan.need(wanted)
    return scan.with_constants(values)


def _open_delimited(path: str, wanted: Sequence[str], options: TableOptions) -> Scan:
    if options.columns is not None:
        names = list(options.columns)
        delimiter = options.delimiter or find_delimiter(path, len(names), options.quote)
    else:
        names, delimiter = find_header(path, wanted, options.delimiter, options.quote)
    return scan_delimited(
        path,
        names,
        delimiter,
        quote=options.quote,
        header=options.columns is None,
        null_words=options.null_words or [""],
    )


def load_scans(
    log: InteractionLog, scans: Sequence[Scan], options: TableOptions, test: Sequence[Scan] = ()
) -> None:
    """Fills the log with scans one after the other; columns and types may differ between them, and
    ids are text if those of one are.

    Args:
        log: Where to.
        scans: All rows or, where there is a test, those of training.
        options: What their columns are.
        test: Rows that are for the test.
    """
    n_training, scans = len(scans), [*scans, *test]
    kinds = [
        "VARCHAR" if any(is_text_kind(scan.column(name).kind) for scan in scans) else "BIGINT"
        for name in (options.user, options.item)
    ]
    log.create(*kinds)
    for place, scan in enumerate(scans):
        part = None if not test else SplitPart.TRAIN if place < n_training else SplitPart.TEST
        _append(log, scan, options, part)
    _count_losses(log)
    is_text = all(scan.is_text for scan in scans)
    for column, wanted in (("user_id", options.user_id_type), ("item_id", options.item_id_type)):
        settle_ids(log.connection, "log", column, wanted, is_text=is_text)
    log.reading = options.rules() | _written(scans, options)
    if options.timestamp_column and options.timestamp_unit != "auto":
        _note_early_times(log, options)


def _written(scans: Sequence[Scan], options: TableOptions) -> dict[str, Any]:
    """What the manifest tells of how the source was written, found or stated, as JSON values."""
    names = [name for scan in scans for name in _names(scan)]
    others = [name for name in dict.fromkeys(names) if name and name not in options.wanted]
    written: dict[str, Any] = {"columns_not_used": others}
    if options.columns is not None:
        written["columns_in_order"] = list(options.columns)
    if delimiters := list(dict.fromkeys(scan.delimiter for scan in scans if scan.delimiter)):
        written |= {"delimiters": delimiters, "quote": options.quote, "encoding": options.encoding}
    return written


def _names(scan: Scan) -> Sequence[str]:
    return first_fields(scan.path) if is_json_lines(scan.path) else (*scan.names, *scan.others)


def _note_early_times(log: InteractionLog, options: TableOptions) -> None:
    """A unit is taken at its word; but a wrong one puts all times into January 1970."""
    n_early, first = log.one(
        f"SELECT count(*), min(timestamp) FROM log WHERE timestamp < {FIRST_TIME}"
    )
    if n_early:
        logger.warning(
            "%s: %s times are before 1980 by the unit %s that is named, the first in %s; is it"
            " theirs?",
            log.name,
            f"{n_early:,}",
            options.timestamp_unit,
            datetime.fromtimestamp(first, UTC).year,
        )


def _append(log: InteractionLog, scan: Scan, options: TableOptions, part: SplitPart | None) -> None:
    begin = log.n_rows
    fields = _fields(scan, options, "NULL" if part is None else str(int(part)))
    insert = f"INSERT INTO log SELECT {fields} FROM {scan.sql}"
    if scan.delimiter:
        with noting_lines(log.connection, scan.path, scan.delimiter, scan.quote):
            log.connection.execute(insert)
    else:
        _execute(log, insert, scan, options)
    rating, timestamp = options.rating_column, options.timestamp_column
    bounds = (-_LARGEST_RATING if options.negative_ratings else 0.0, _LARGEST_RATING)
    rules = row_rules(bounds, rating, timestamp, ids=False, unit=options.timestamp_unit)
    # A wrong value is told first, as it cannot be meant.
    fault = first_fault(log, rules, begin)
    fault = fault or first_fault(log, line_rules() if scan.quote else [], begin)
    if fault is not None:
        blame(log.connection, scan, fault[0] - begin, fault[1], options)


def _execute(log: InteractionLog, insert: str, scan: Scan, options: TableOptions) -> None:
    ids = (options.user, options.item)
    is_json = is_json_lines(scan.path)
    try:
        with in_order(log.connection, scan.path) if is_json else nullcontext():
            log.connection.execute(insert)
    except UNREADABLE as error:
        if is_json:
            raise refusal(scan.path, ids, str(error)) from error
        raise SourceError(
            f"the rows must be whole, with ids that fit 64 bits, found:"
            f" {str(error).splitlines()[0]}.",
            scan.path,
        ) from error
    if is_json:
        n_rows, *n_found = log.one("SELECT count(*), count(user_id), count(item_id) FROM log")
        for name, found in zip(ids, n_found, strict=True):
            if n_rows and not found:
                raise no_field(scan.path, name)


def _fields(scan: Scan, options: TableOptions, part: str) -> str:
    path, ids = scan.path, list[str]()
    for name in (options.user, options.item):
        ids.append(id_sql(scan.column(name), path, name, options.null_words)[0])
    rating, timestamp = options.rating_column, options.timestamp_column
    values = ["NULL", "NULL", part]
    if rating:
        values[0] = rating_sql(scan.column(rating), path, rating, options.rating_values)
    if timestamp:
        values[1] = seconds_sql(scan.column(timestamp), path, timestamp, options.timestamp_unit)
    if scan.header:
        again = " AND ".join(
            f"{scan.column(name).sql} = {literal(name)}" for name in options.wanted
        )
        ids = [f"CASE WHEN {again} THEN NULL ELSE {one} END" for one in ids]
        values[2] = f"CASE WHEN {again} THEN {_HEADER_AGAIN} ELSE {part} END"
    return ", ".join([*ids, *values])


def _count_losses(log: InteractionLog) -> None:
    again, without, n_rows = log.one(
        f"SELECT count(*) FILTER (part = {_HEADER_AGAIN}), count(*) FILTER (user_id IS NULL OR"
        " item_id IS NULL), count(*) FROM log"
    )
    log.counts["rows_read"] = n_rows - again
    log.counts["rows_without_id"] = without - again
    if again:
        log.counts["repeated_headers"] = again
    if without:
        log.connection.execute("DELETE FROM log WHERE user_id IS NULL OR item_id IS NULL")
