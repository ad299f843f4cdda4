"""Faults of a table's rows in words: where, which value, and what to do about it."""

from contextlib import nullcontext

import duckdb

from coterie.data.columns import Rule
from coterie.data.json_lines import in_order, line_of_row
from coterie.data.scan import Scan, is_json_lines
from coterie.data.source import line_of_record
from coterie.data.table_options import TableOptions
from coterie.errors import SourceError

_LONGEST = 120
_REMOVE = "correct or remove it"
_QUOTING = "a quote was opened and not closed: correct it, or switch quoting off (--quote none)"
_WORDS = "say what words mean (--rating-value view=1,buy=3; in Python rating_values), or correct it"
_NEGATIVE = (
    "say which ratings are enough (--min-rating) or which say unlike (--negative-value; in Python"
    " negative_values), or correct it"
)
_UNIT = "correct it, or name the unit of numbers (--timestamp-unit; in Python timestamp_unit)"


def blame(
    database: duckdb.DuckDBPyConnection, scan: Scan, row: int, rule: Rule, options: TableOptions
) -> None:
    """Raises at a row that breaks a rule.

    Args:
        database: That read it.
        scan: Of the table.
        row: 0-based, without a header.
        rule: Which.
        options: What the table's columns are.

    Raises:
        SourceError: always.
    """
    columns = {"user_id": options.user, "item_id": options.item, "rating": options.rating_column}
    name = columns.get(rule.of, options.timestamp_column)
    value = _value(database, scan, row, str(name))
    found = "nothing" if value is None else repr(value[:_LONGEST])
    line = _line(scan, row)
    place = f" in row {row + 1}" if line is None else ""
    advice = _advice(rule, value, options)
    raise SourceError(f"{rule.words}, found {found}{place}; {advice}.", scan.path, line)


def _value(database: duckdb.DuckDBPyConnection, scan: Scan, row: int, name: str) -> str | None:
    """What stands there, by a second reading."""
    column = f"CAST({scan.column(name).sql} AS VARCHAR)"
    with in_order(database, scan.path) if is_json_lines(scan.path) else nullcontext():
        found = database.execute(f"SELECT {column} FROM {scan.sql} LIMIT 1 OFFSET {row}")
        value: str | None = found.fetchall()[0][0]
    return value


def _line(scan: Scan, row: int) -> int | None:
    if scan.delimiter:
        return line_of_record(scan.path, row + scan.header, scan.delimiter, scan.quote)[0]
    return line_of_row(scan.path, row)[0] if is_json_lines(scan.path) else None


def _advice(rule: Rule, value: str | None, options: TableOptions) -> str:
    if rule.of in ("user_id", "item_id"):
        return _QUOTING
    if value is None:
        return _REMOVE
    if rule.of == "timestamp":
        return _UNIT
    try:
        number = float(options.rating_values.get(value, value))
    except ValueError:
        return _WORDS
    return _NEGATIVE if number < 0 else _REMOVE
