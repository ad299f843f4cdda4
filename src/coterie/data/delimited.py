"""Delimited text into the log, through DuckDB's parallel CSV reader, with every fault named by its
line.

DuckDB casts generously (``1.5`` to the integer 2, ``0x1`` to 1) and drops bad lines when asked to
note them. So every field is read as text and cast here by stricter rules, and any line noted as bad
is an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from coterie.data.log import InteractionLog
from coterie.data.source import line_of_record
from coterie.errors import SourceError

UNREADABLE = (duckdb.IOException, duckdb.InvalidInputException, duckdb.ConversionException)
"""What DuckDB raises at a damaged file, and not when it lacks memory."""

LAST_SECOND = 9_999_999_999
"""The year 2286: a larger time stamp is in milliseconds, or no time stamp."""


@dataclass(frozen=True)
class Layout:
    """How a delimited file is written, and which of its columns are wanted.

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


def load_delimited(
    log: InteractionLog, path: str, layout: Layout, *, drop_missing_ids: bool = False
) -> None:
    """Appends a delimited file to the log.

    Args:
        log: Where to.
        path: Local path or fsspec URL, plain or ``.gz``.
        layout: How it is written.
        drop_missing_ids: Drops and counts rows without a user or item; else they are an error.

    Raises:
        SourceError: at the first line that breaks the layout.
    """
    id_type = "BIGINT" if layout.whole_ids else "VARCHAR"
    log.create(id_type, id_type)
    log.add_source(path)
    scan = _scan(path, layout)
    try:
        log.connection.execute(f"INSERT INTO log SELECT {_fields(layout)} FROM {scan}")
    except UNREADABLE as error:
        first = str(error).splitlines()[0]
        raise SourceError(
            f"the file must be whole, with lines that all end alike, found: {first}; fetch or write"
            " it again.",
            path,
        ) from error
    refuse_rejects(log, path, layout.quote)
    rules = row_rules(layout.bounds, layout.rating, layout.timestamp, ids=not drop_missing_ids)
    fault = first_fault(log, rules)
    if fault is not None:
        record, rule = fault
        line, text = line_of_record(path, record + layout.header, layout.quote)
        raise SourceError(f"{rule}, found {text[:120]!r}; correct or remove the line.", path, line)


def _scan(path: str, layout: Layout) -> str:
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in layout.names)
    return (
        f"read_csv({literal(path)}, columns = {{{columns}}}, delim = {literal(layout.delimiter)},"
        f" quote = {literal(layout.quote)}, escape = {literal(layout.quote)}, header ="
        f" {layout.header}, auto_detect = false, store_rejects = true, rejects_limit = 1000)"
    )


def _fields(layout: Layout) -> str:
    cast = _whole if layout.whole_ids else identifier
    rating = f"TRY_CAST({identifier(layout.rating)} AS DOUBLE)" if layout.rating else "NULL"
    timestamp = seconds(identifier(layout.timestamp)) if layout.timestamp else "NULL"
    return f"{cast(layout.user)}, {cast(layout.item)}, {rating}, {timestamp}, NULL"


def _whole(column: str) -> str:
    number = f"TRY_CAST({identifier(column)} AS BIGINT)"
    return f"CASE WHEN CAST({number} AS VARCHAR) = {identifier(column)} THEN {number} END"


def identifier(name: str) -> str:
    """A column name as SQL quotes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL quotes it."""
    return "'" + text.replace("'", "''") + "'"


def seconds(text: str) -> str:
    """SQL for seconds since 1970 of a text that holds them, or an ISO date or time (UTC unless it
    says otherwise).
    """
    return (
        f"coalesce(TRY_CAST({text} AS BIGINT), CAST(floor(epoch(TRY_CAST({text} AS TIMESTAMPTZ)))"
        " AS BIGINT))"
    )


def row_rules(
    bounds: tuple[float, float], rating: str | None, timestamp: str | None, *, ids: bool
) -> list[tuple[str, str]]:
    """What must hold in every row of the log: pairs of an SQL condition that breaks the rule, and
    the rule in words.
    """
    low, high = bounds
    rules = []
    if ids:
        rules += [
            ("user_id IS NULL", "the user id must be present and an integer"),
            ("item_id IS NULL", "the item id must be present and an integer"),
        ]
    if rating:
        # NaN is greater than every number to DuckDB, so BETWEEN refuses it too.
        broken = f"coalesce(NOT (rating BETWEEN {low!r} AND {high!r}), true)"
        rules.append((broken, f"{rating!r} must be a number from {low:g} to {high:g}"))
    if timestamp:
        broken = f"coalesce(NOT (timestamp BETWEEN 0 AND {LAST_SECOND}), true)"
        rules.append(
            (
                broken,
                (
                    f"{timestamp!r} must be seconds since 1970 (up to {LAST_SECOND}) or an ISO date"
                    " or time"
                ),
            )
        )
    return rules


def first_fault(log: InteractionLog, rules: Sequence[tuple[str, str]]) -> tuple[int, str] | None:
    """The 0-based row of the first broken rule, and the rule in words; None if all hold."""
    if not rules:
        return None
    firsts = log.one(
        "SELECT " + ", ".join(f"min(rowid) FILTER ({broken})" for broken, _ in rules) + " FROM log"
    )
    faults = [
        (row, words) for row, (_, words) in zip(firsts, rules, strict=True) if row is not None
    ]
    return min(faults) if faults else None


def refuse_rejects(log: InteractionLog, path: str, quote: str = "") -> None:
    """Raises at the first line DuckDB noted as bad while it read ``path``."""
    reject = log.one(
        "SELECT line, error_message, csv_line FROM reject_errors ORDER BY line, column_idx LIMIT 1"
    )
    if reject:
        line, message, raw = reject
        text = raw.strip("\r\n")
        if quote:
            # DuckDB counts a record as one line, also where a quoted field spans several.
            line, _ = line_of_record(path, line - 1, quote, count_blank=True)
        raise SourceError(
            f"every line must have the same columns as UTF-8 text, found {text[:120]!r}"
            f" ({message}); correct it.",
            path,
            line,
        )


def narrow_ids(log: InteractionLog, column: str) -> None:
    """Turns a text id column into integers if every id comes back from an integer as it was:
    ``007`` does not.

    Eighteen digits at most, as `IdMap.index_of` looks up in text.
    """
    round_trip = (
        f"bool_and(coalesce(CAST(TRY_CAST({column} AS BIGINT) AS VARCHAR) = {column} AND"
        f" length(ltrim({column}, '-')) <= 18, false))"
    )
    if log.one(f"SELECT coalesce({round_trip}, false) FROM log")[0]:
        log.connection.execute(f"ALTER TABLE log ALTER {column} TYPE BIGINT")
