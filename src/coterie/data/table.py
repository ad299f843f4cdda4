"""Any table of interactions: CSV, TSV, Parquet or JSON lines with columns the user names, local or
through fsspec.
"""

import csv

from coterie.data.delimited import (
    UNREADABLE,
    Layout,
    first_fault,
    identifier,
    literal,
    load_delimited,
    narrow_ids,
    row_rules,
    seconds,
)
from coterie.data.json_lines import is_json_lines, load_json_lines
from coterie.data.log import InteractionLog
from coterie.data.source import open_text
from coterie.errors import SourceError

DELIMITERS = (",", "\t", ";", "|")
BOUNDS = (0.0, 1e9)
"""Of ratings and counts: finite and not negative; a larger count is a time stamp taken for one."""

_WHOLE_TYPES = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "HUGEINT",
)


def read_table(
    log: InteractionLog,
    path: str,
    *,
    user: str = "user_id",
    item: str = "item_id",
    rating: str | None = None,
    timestamp: str | None = None,
) -> None:
    """Reads interactions from named columns; rows without a user or an item are dropped and
    counted.

    Text ids are integers only if every one of them is written as integers are: one ``007`` keeps
    them all text. Parquet columns keep the type they have.

    Args:
        log: Where to.
        path: ``.parquet``, ``.jsonl`` or ``.ndjson``, or delimited text with a header (comma, tab,
            semicolon or bar); text plain or ``.gz``.
        user: Column of user ids; likewise ``item``.
        rating: Column of ratings or counts, 0 to 1e9.
        timestamp: Column of seconds since 1970, or of ISO dates or times (UTC unless they say
            otherwise).

    Raises:
        SourceError: if a column is missing, or at the first line or row with a bad value.
    """
    if path.endswith(".parquet"):
        _load_parquet(log, path, user, item, rating, timestamp)
    elif is_json_lines(path):
        load_json_lines(log, path, user, item, rating, timestamp, BOUNDS)
    else:
        names, delimiter = _header(path, [name for name in (user, item, rating, timestamp) if name])
        layout = Layout(
            names,
            delimiter,
            user,
            item,
            rating,
            timestamp,
            '"',
            header=True,
            whole_ids=False,
            bounds=BOUNDS,
        )
        load_delimited(log, path, layout, drop_missing_ids=True)
    log.counts["rows_read"] = log.n_rows
    log.counts["rows_without_id"] = int(
        log.one("SELECT count(*) FROM log WHERE user_id IS NULL OR item_id IS NULL")[0]
    )
    if log.counts["rows_without_id"]:
        log.connection.execute("DELETE FROM log WHERE user_id IS NULL OR item_id IS NULL")
    if not path.endswith(".parquet"):
        narrow_ids(log, "user_id")
        narrow_ids(log, "item_id")


def header_of(path: str, delimiter: str) -> list[str]:
    """The column names in a delimited file's first line.

    Raises:
        SourceError: if the file is missing, empty or no UTF-8 text.
    """
    with open_text(path) as text:
        line = text.readline().removeprefix("\ufeff")
    if not line.strip():
        raise SourceError(
            "the file must begin with a header line, found none; is it empty?", path, 1
        )
    if "\ufffd" in line:
        raise SourceError(f"the file must be UTF-8 text, found {line[:80]!r}; convert it.", path, 1)
    return next(csv.reader([line], delimiter=delimiter))


def _header(path: str, wanted: list[str]) -> tuple[list[str], str]:
    """Columns and delimiter: the first delimiter that yields all wanted columns."""
    headers = {delimiter: header_of(path, delimiter) for delimiter in DELIMITERS}
    fitting = [
        (names, delimiter) for delimiter, names in headers.items() if set(wanted) <= set(names)
    ]
    if not fitting:
        raise SourceError(_missing(wanted, max(headers.values(), key=len)), path, 1)
    names = fitting[0][0]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SourceError(
            f"every column must have its own name, found {', '.join(repeated)} again; rename one.",
            path,
            1,
        )
    return fitting[0]


def _missing(wanted: list[str], names: list[str]) -> str:
    missing = [name for name in wanted if name not in names]
    return (
        f"the header must hold {', '.join(map(repr, missing))}, found"
        f" {', '.join(map(repr, names))}; name the columns as they are."
    )


def _load_parquet(
    log: InteractionLog, path: str, user: str, item: str, rating: str | None, timestamp: str | None
) -> None:
    log.add_source(path)
    scan = f"read_parquet({literal(path)})"
    try:
        types = {
            name: kind
            for name, kind, *_ in log.connection.execute(
                f"DESCRIBE SELECT * FROM {scan}"
            ).fetchall()
        }
        wanted = [name for name in (user, item, rating, timestamp) if name]
        if not set(wanted) <= set(types):
            raise SourceError(_missing(wanted, list(types)), path)
        log.create(_id_type(path, user, types[user]), _id_type(path, item, types[item]))
        fields = [identifier(user), identifier(item)]
        fields.append(f"TRY_CAST({identifier(rating)} AS DOUBLE)" if rating else "NULL")
        fields.append(_seconds(identifier(timestamp), types[timestamp]) if timestamp else "NULL")
        log.connection.execute(f"INSERT INTO log SELECT {', '.join(fields)}, NULL FROM {scan}")
    except UNREADABLE as error:
        raise SourceError(
            "the file must be whole Parquet with ids that fit 64 bits, found:"
            f" {str(error).splitlines()[0]}.",
            path,
        ) from error
    fault = first_fault(log, row_rules(BOUNDS, rating, timestamp, ids=False))
    if fault is not None:
        row, rule = fault
        raise SourceError(f"{rule}, found otherwise in row {row + 1}; correct or remove it.", path)


def _id_type(path: str, name: str, kind: str) -> str:
    if kind in _WHOLE_TYPES:
        return "BIGINT"
    if kind != "VARCHAR":
        raise SourceError(
            f"ids must be integers or text, found {kind} in column {name!r}; cast the column.", path
        )
    return kind


def _seconds(column: str, kind: str) -> str:
    if kind == "VARCHAR":
        return seconds(column)
    if kind in (*_WHOLE_TYPES, "DOUBLE", "FLOAT"):
        return f"TRY_CAST({column} AS BIGINT)"
    return f"CAST(floor(epoch({column})) AS BIGINT)"
