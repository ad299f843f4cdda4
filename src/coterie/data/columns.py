"""What the values of a column mean: SQL from any type to ids, ratings and seconds, and the rules
that every row must keep to.

DuckDB casts generously (``1.5`` to the integer 2, ``0x1`` to 1, a day as 20200928 to a second of
1970), so each cast here goes by a rule of its own.
"""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import duckdb

from coterie.data.log import InteractionLog
from coterie.data.scan import Column, literal
from coterie.data.table_options import NULL_WORDS, IdType, TimeUnit
from coterie.errors import ConfigError, SourceError

LAST_SECOND = 9_999_999_999
"""The year 2286: a larger time stamp is in milliseconds, or no time stamp."""

FIRST_SECOND = 100_000_000
"""March 1973: a smaller number is a day written as 20200928, a year or a rating."""

WHOLE_NUMBER = "0|-?[1-9][0-9]{0,17}"
"""What a text id must look like to be read as an integer without loss: eighteen digits at most, as
`IdMap.index_of` looks up in text."""

WHOLE_FLOAT = rf"({WHOLE_NUMBER})(\.0+)?"
"""Integers as pandas writes a column that has a missing value."""

_WHOLE_KINDS = (
    "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
    "HUGEINT", "UHUGEINT", '"NULL"',
)  # fmt: skip
"""With that of a column of which nothing is known, as no value is there."""
_FLOAT_KINDS = ("DOUBLE", "FLOAT")
_TEXT_KINDS = ("VARCHAR", "UUID", "ENUM")
_DATE_KINDS = ("DATE", "TIMESTAMP")
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_LARGEST_EXACT_FLOAT = 2**53
_NAMED = "(user_id IS NOT NULL OR item_id IS NOT NULL)"


FIRST_TIME = 315_532_800
"""1980: a log has no earlier times, and milliseconds of 1976 are minutes as 202009281200."""


def is_text_kind(kind: str) -> bool:
    """Whether ids of a column of DuckDB's type ``kind`` are text."""
    return kind.startswith(_TEXT_KINDS)


def id_sql(
    column: Column, path: str, name: str, null_words: Sequence[str] = NULL_WORDS
) -> tuple[str, str]:
    """SQL for ids, and the type of the log's column: ``BIGINT`` or ``VARCHAR``.

    Whole numbers of any type are integers; UUIDs and enumerations are text; blank text, NaN and the
    null words are missing.

    Raises:
        SourceError: if the type cannot be an id.
    """
    sql, kind = column.sql, column.kind
    if is_text_kind(kind):
        words = ", ".join(map(literal, null_words)) or "NULL"
        text = sql if kind == "VARCHAR" else f"CAST({sql} AS VARCHAR)"
        missing = f"{text} IN ({words}) OR trim({text}, ' ') = ''"
        return f"CASE WHEN {missing} THEN NULL ELSE {text} END", "VARCHAR"
    if kind in _WHOLE_KINDS:
        return f"CAST({sql} AS BIGINT)", "BIGINT"
    if kind in _FLOAT_KINDS or kind.startswith("DECIMAL"):
        number = f"CAST({sql} AS DOUBLE)"
        whole = f"{sql} = trunc({sql})"
        if kind in _FLOAT_KINDS:
            whole += f" AND abs({sql}) <= {_LARGEST_EXACT_FLOAT}"
        refusal = f"error('ids must be whole numbers or text, found ' || {sql})"
        return (
            f"CASE WHEN {sql} IS NULL OR isnan({number}) THEN NULL WHEN {whole} THEN"
            f" CAST({sql} AS BIGINT) ELSE {refusal} END",
            "BIGINT",
        )
    raise SourceError(
        f"ids must be whole numbers or text, found {kind} in column {name!r}; cast the column.",
        path,
    )


def rating_sql(column: Column, path: str, name: str, values: Mapping[str, float]) -> str:
    """SQL for ratings or counts; NULL where there is no number.

    Args:
        column: Numbers, truth values, or text of either.
        path: For errors.
        name: Of the column.
        values: What words of the column mean, as in ``{"view": 1, "buy": 3}``.

    Raises:
        SourceError: if the type is no number.
    """
    sql, kind = column.sql, column.kind
    if kind == "VARCHAR" or kind.startswith("ENUM"):
        text = f"CAST({sql} AS VARCHAR)"
        cases = " ".join(
            f"WHEN {literal(word)} THEN {float(value)!r}" for word, value in values.items()
        )
        number = (
            f"coalesce(TRY_CAST({text} AS DOUBLE), CASE lower({text}) WHEN 'true' THEN 1.0 WHEN"
            " 'false' THEN 0.0 END)"
        )
        return f"CASE {text} {cases} ELSE {number} END" if cases else number
    if kind in (*_WHOLE_KINDS, *_FLOAT_KINDS, "BOOLEAN") or kind.startswith("DECIMAL"):
        return f"CAST({sql} AS DOUBLE)"
    raise SourceError(f"ratings must be numbers, found {kind} in column {name!r}; cast it.", path)


def seconds_sql(column: Column, path: str, name: str, unit: TimeUnit = "auto") -> str:
    """SQL for seconds since 1970, rounded down; NULL where there is no time.

    With the unit ``auto`` a number's size tells seconds from milli-, micro- and nanoseconds, which
    do not overlap between 1973 and 2286; eight digits are a day. Text may hold an ISO date or time,
    UTC unless it says otherwise.

    Raises:
        SourceError: if the type holds no time.
    """
    sql, kind = column.sql, column.kind
    if kind.startswith(_DATE_KINDS):
        # DuckDB has no epoch of nanoseconds with a zone, as pandas 2 writes them.
        moment = f"CAST({sql} AS TIMESTAMPTZ)" if kind == "TIMESTAMPTZ_NS" else sql
        return f"CAST(floor(epoch({moment})) AS BIGINT)"
    if kind == "VARCHAR":
        of_text = f"CAST(floor(epoch(TRY_CAST({sql} AS TIMESTAMPTZ))) AS BIGINT)"
        # A cast rounds, and a double would not hold nanoseconds.
        number = (
            f"CASE WHEN contains({sql}, '.') THEN TRY_CAST(floor(TRY_CAST({sql} AS DOUBLE)) AS"
            f" BIGINT) ELSE TRY_CAST({sql} AS BIGINT) END"
        )
        return f"coalesce({_of_number(number, unit)}, {of_text})"
    if kind in _WHOLE_KINDS:
        return _of_number(f"TRY_CAST({sql} AS BIGINT)", unit)
    if kind in _FLOAT_KINDS or kind.startswith("DECIMAL"):
        return _of_number(f"TRY_CAST(floor({sql}) AS BIGINT)", unit)
    raise SourceError(
        f"times must be numbers, dates, times of a date, or text of them, found {kind} in column"
        f" {name!r}; cast it.",
        path,
    )


def _of_number(number: str, unit: TimeUnit) -> str:
    if unit != "auto":
        return f"{number} // {_PER_SECOND[unit]}" if unit != "s" else number
    day = f"epoch(try_strptime(CAST({number} AS VARCHAR), '%Y%m%d'))"
    scaled = " ".join(
        f"WHEN {number} <= {LAST_SECOND * scale} THEN {number} // {scale}"
        for scale in _PER_SECOND.values()
    )
    # Below the first second: the day, or as it is, for the rule of bounds to refuse.
    return (
        f"CASE WHEN {number} < {FIRST_SECOND} THEN coalesce(CAST({day} AS BIGINT), {number})"
        f" {scaled} END"
    )


class Rule(NamedTuple):
    """What must hold in every row of the log.

    Args:
        broken: SQL for the rows that break it.
        words: The rule.
        of: What it is about: a column of the log.
    """

    broken: str
    words: str
    of: str


def row_rules(
    bounds: tuple[float, float],
    rating: str | None,
    timestamp: str | None,
    *,
    ids: bool,
    unit: TimeUnit = "s",
) -> list[Rule]:
    """The rules of ids, where they must be integers, and of ratings and times, where there are any.
    Rows without user and item are of no interest.
    """
    low, high = bounds
    rules = []
    if ids:
        rules += [
            Rule("user_id IS NULL", "the user id must be present and an integer", "user_id"),
            Rule("item_id IS NULL", "the item id must be present and an integer", "item_id"),
        ]
    if rating:
        # NaN is greater than every number to DuckDB, so BETWEEN refuses it too.
        broken = f"{_NAMED} AND coalesce(NOT (rating BETWEEN {low!r} AND {high!r}), true)"
        words = f"{rating!r} must be a number from {low:g} to {high:g}"
        rules.append(Rule(broken, words, "rating"))
    if timestamp:
        first = FIRST_TIME if unit == "auto" else 0
        broken = f"{_NAMED} AND coalesce(NOT (timestamp BETWEEN {first} AND {LAST_SECOND}), true)"
        words = (
            f"{timestamp!r} must be seconds since 1970 (up to {LAST_SECOND}) or an ISO date or time"
            if unit == "s"
            else f"{timestamp!r} must be a time between 1980 and 2286: seconds, milli-, micro- or"
            " nanoseconds since 1970, a day as 20200928, or an ISO date or time"
        )
        rules.append(Rule(broken, words, "timestamp"))
    return rules


def line_rules() -> list[Rule]:
    """Ids of delimited text have no line break: one comes of a quote that was not meant as one."""
    return [
        Rule(f"regexp_matches({one}, '[\r\n]')", f"the {one[:4]} id must be of one line", one)
        for one in ("user_id", "item_id")
    ]


def first_fault(
    log: InteractionLog, rules: Sequence[Rule], begin: int = 0
) -> tuple[int, Rule] | None:
    """The 0-based row, from ``begin`` on, of the first broken rule, and the rule; None if all
    hold.
    """
    if not rules:
        return None
    firsts = log.one(
        "SELECT "
        + ", ".join(f"min(rowid) FILTER ({rule.broken})" for rule in rules)
        + f" FROM log WHERE rowid >= {begin}"
    )
    faults = [(row, rule) for row, rule in zip(firsts, rules, strict=True) if row is not None]
    return min(faults, key=itemgetter(0)) if faults else None


def settle_ids(
    database: duckdb.DuckDBPyConnection, table: str, column: str, wanted: IdType, *, is_text: bool
) -> None:
    """Gives a column of ids its type: text becomes integers if every id is written as one is
    (``007`` is not) or is a whole float (``7.0``), or if that is asked for.

    Args:
        database: With the table, read whole; its ids have no null words any more.
        table: Its name.
        column: ``user_id`` or ``item_id``.
        wanted: ``auto`` is the rule above.
        is_text: Whether the format kept no types, so that ids are what they look like.

    Raises:
        ConfigError: if integers are asked for and an id is none.
    """
    kind = str(_one(database, f"SELECT any_value(typeof({column})) FROM {table}") or "VARCHAR")
    looks = wanted == "integer" or (wanted == "auto" and is_text)
    change = None
    if kind == "VARCHAR" and looks:
        change = _as_integers(database, table, column)
        if change is None and wanted == "integer":
            _refuse_text(database, table, column)
    elif kind != "VARCHAR" and wanted == "text":
        change = "VARCHAR"
    if change is not None:
        database.execute(f"ALTER TABLE {table} ALTER {column} TYPE {change}")


def _as_integers(database: duckdb.DuckDBPyConnection, table: str, column: str) -> str | None:
    """How a column of text is altered where all of it is whole numbers; else None."""
    if not _all(database, table, column, _is_whole_float(column)):
        return None
    # Tried, as the deleted rows that the table still holds are converted as well.
    return f"BIGINT USING TRY_CAST({column} AS BIGINT)"


def _is_whole_float(column: str) -> str:
    return f"regexp_full_match({column}, {literal(WHOLE_FLOAT)})"


def _refuse_text(database: duckdb.DuckDBPyConnection, table: str, column: str) -> None:
    condition = f"{column} IS NOT NULL AND NOT {_is_whole_float(column)}"
    other = _one(database, f"SELECT {column} FROM {table} WHERE {condition} LIMIT 1")
    raise ConfigError(
        f"{column} must be whole numbers of up to 18 digits, as asked for, found {other!r}; read"
        " them as text."
    )


def _all(database: duckdb.DuckDBPyConnection, table: str, column: str, condition: str) -> bool:
    """Whether the condition holds for every id that is there."""
    return bool(_one(database, f"SELECT coalesce(bool_and({condition}), true) FROM {table}"))


def _one(database: duckdb.DuckDBPyConnection, query: str) -> Any:
    return database.execute(query).fetchall()[0][0]
