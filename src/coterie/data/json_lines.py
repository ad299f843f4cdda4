"""Tables as JSON lines: an object a line, as event logs are often written.

An absent field and a null are the same: missing. Other fields are passed over.
"""

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import duckdb

from coterie.data.scan import Scan, scan_json_lines
from coterie.data.source import compression_of, open_bytes, open_text
from coterie.errors import SourceError


def scan_json_table(path: str, ids: Sequence[str], others: Sequence[str] = ()) -> Scan:
    """Scans the named fields of every line as text.

    Args:
        path: ``.jsonl``, ``.ndjson`` or ``.json``, plain, ``.gz`` or ``.zst``.
        ids: Fields of text or whole numbers; anything else in them is an error of DuckDB's, which
            `refusal` puts into words.
        others: Fields of text, numbers or truth values.
    """
    scan = scan_json_lines(path, dict.fromkeys([*ids, *others], "JSON"))
    texts = ", ".join(
        f"{json_id(f'c{i}') if name in ids else _text(f'c{i}')} AS c{i}"
        for i, name in enumerate(scan.names)
    )
    kinds = ["VARCHAR"] * len(scan.names)
    return replace(scan, sql=f"(SELECT {texts} FROM {scan.sql})", kinds=kinds)


def _text(column: str) -> str:
    return f"({column} ->> '$')"


def json_id(column: str) -> str:
    """SQL for an id as text; an error of DuckDB's where there is no text and no whole number."""
    plain = f"json_type({column}) IN ('VARCHAR', 'BIGINT', 'UBIGINT', 'NULL')"
    # Integers of more than 64 bits are doubles to DuckDB, which keeps their text.
    digits = f"regexp_full_match({_text(column)}, '-?[0-9]+([.]0+)?')"
    whole = f"json_type({column}) = 'DOUBLE' AND {digits}"
    return (
        f"CASE WHEN {plain} OR {whole} THEN {_text(column)} WHEN {column} IS NULL THEN NULL ELSE"
        " error('no id') END"
    )


@contextmanager
def in_order(database: duckdb.DuckDBPyConnection, path: str) -> Iterator[None]:
    """Around the reading of JSON lines: several threads of DuckDB's take a last line that has no
    end before others, now and then.
    """
    if _ends_with_a_line(path):
        yield
        return
    database.execute("SET threads = 1")
    try:
        yield
    finally:
        database.execute("RESET threads")


def _ends_with_a_line(path: str) -> bool:
    if compression_of(path):
        return False
    with open_bytes(path) as file:
        file.seek(max(file.seek(0, io.SEEK_END) - 1, 0))
        return file.read() == b"\n"


def line_of_row(path: str, row: int) -> tuple[int, str]:
    """The 1-based line of a 0-based row, and its text."""
    return next(one for i, one in enumerate(_lines(path)) if i == row)


def first_fields(path: str) -> list[str]:
    """The fields of the first line, as far as Python reads it as DuckDB does."""
    row: Any = None
    with suppress(ValueError):
        row = json.loads(next((text for _, text in _lines(path)), "{}"))
    return list(row) if isinstance(row, dict) else []


def no_field(path: str, name: str) -> SourceError:
    """What to raise where no line has a field."""
    _, text = next(_lines(path))
    return SourceError(
        f"some line must have {name!r}, found {text[:120]!r}; name the fields as they are.", path, 1
    )


def refusal(path: str, ids: Sequence[str], problem: str, lists: Sequence[str] = ()) -> SourceError:
    """Where and why DuckDB could not read the file, by a slow second pass; ``lists`` are fields
    that may hold several ids.
    """
    for number, text in _lines(path):
        wrong = _wrong(text, ids, lists)
        if wrong is not None:
            return SourceError(f"{wrong}, found {text[:120]!r}; correct it.", path, number)
    return SourceError(
        f"the file must be whole JSON lines as UTF-8 text, found: {problem.splitlines()[0]}.", path
    )


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """The lines that are rows, with their 1-based numbers: DuckDB passes blank ones over."""
    with open_text(path) as text:
        for number, line in enumerate(text, start=1):
            if line.strip():
                yield number, line.rstrip("\r\n")


def _wrong(text: str, ids: Sequence[str], lists: Sequence[str]) -> str | None:
    try:
        row: Any = json.loads(text.removeprefix("\ufeff"))
    except ValueError:
        return "every line must be a JSON object as UTF-8 text"
    if "\ufffd" in text or not isinstance(row, dict):
        return "every line must be a JSON object as UTF-8 text"
    for name in (*ids, *lists):
        value = row.get(name)
        if not all(map(_is_id, value if name in lists and isinstance(value, list) else [value])):
            return f"{name!r} must be text or a whole number"
    return None


def _is_id(value: Any) -> bool:
    """Whether a JSON value is text, a whole number or nothing."""
    is_fraction = isinstance(value, float) and not value.is_integer()
    return not is_fraction and not isinstance(value, bool | list | dict)
