"""Titles of items: what a reader of a list wants to see beside an id."""

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coterie.data.columns import WHOLE_FLOAT
from coterie.data.scan import header_of, reader_of
from coterie.data.source import open_bytes, open_text, plain_name
from coterie.errors import SourceError

_NAMES = ("movie_titles", "unique_tracks")
_ID_NAMES = ("item_id", "movieId", "id")


def read_titles(
    path: str | Path,
    item_column: str | None = None,
    title_column: str | None = None,
    quote: str = '"',
) -> dict[str, str]:
    """Reads a title for every item id; an id that comes again keeps its first.

    Titles are text, also those of a film called 1917. Rows without an id or a title are passed
    over.

    Args:
        path: ``movies.csv`` or any delimited text or Parquet with columns of ids and titles;
            MovieLens' ``movies.dat`` and ``u.item``; Netflix's ``movie_titles``; Million Song's
            ``unique_tracks.txt``. The last four may be latin-1.
        item_column: Of a table: column of ids; ``item_id``, ``movieId`` or ``id`` if None.
        title_column: Of a table: column of titles; ``title`` if None.
        quote: Of delimited text with a header: around fields that hold a delimiter; ``""`` if
            quotes are signs like others.

    Returns:
        Title by item id, the id as text.

    Raises:
        NotFoundError: if the file is missing.
        SourceError: at the first line that holds no id and title.
    """
    path = str(path)
    pairs: dict[str, str] = {}
    name = PurePosixPath(plain_name(path)).name
    for item, title in _pairs(path, name, (item_column, title_column), quote):
        pairs.setdefault(item, title)
    if not pairs:
        raise SourceError(
            "the file must hold the title of at least one item, found none; check the path.", path
        )
    return _whole(pairs)


def _whole(titles: dict[str, str]) -> dict[str, str]:
    """Ids as integers are written where all are whole floats, as they are in a log."""
    if not all(re.fullmatch(WHOLE_FLOAT, item) for item in titles):
        return titles
    return {item.partition(".")[0]: title for item, title in titles.items()}


def _pairs(
    path: str, name: str, columns: tuple[str | None, str | None], quote: str
) -> Iterable[tuple[str, str]]:
    if name.endswith((".parquet", ".pq")):
        return _parquet(path, columns)
    if any(columns) or not _is_released(path, name):
        return _columns(path, columns, quote)
    if name.endswith(".dat"):
        return ((item, title) for item, title, *_ in _lines(path, "::", 2))
    if name.endswith(".item"):
        return ((item, title) for item, title, *_ in _lines(path, "|", 2))
    if name.startswith("movie_titles"):
        # Commas in titles are not quoted: the third field is the rest of the line.
        return ((item, title) for item, _, title in _lines(path, ",", 3, at_most=3))
    return (
        (song, f"{artist} – {title}")
        for _, song, artist, title in _lines(path, "<SEP>", 4, at_most=4)
    )


def _is_released(path: str, name: str) -> bool:
    """Whether the file is one of MovieLens', Netflix's or the Million Song Dataset's."""
    if name.endswith(".dat"):
        with open_text(path) as text:
            return "::" in text.readline()
    return name.endswith(".item") or name.startswith(_NAMES)


def _lines(path: str, separator: str, fields: int, at_most: int = 0) -> Iterator[list[str]]:
    for number, line in enumerate(_decoded(path), start=1):
        if not line:
            continue
        parts = line.split(separator, at_most - 1)
        if len(parts) < fields or not parts[0]:
            raise SourceError(
                f"a line must have {fields} fields between {separator!r}, found {line[:120]!r};"
                " correct it.",
                path,
                number,
            )
        yield parts


def _decoded(path: str) -> list[str]:
    """Lines as UTF-8, or else as latin-1, which the older releases are written in."""
    with open_bytes(path) as file:
        raw = file.read()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    # Not splitlines(): it would break a line at latin-1's 0x85.
    return [line.rstrip("\r") for line in text.split("\n")]


def _columns(
    path: str, columns: tuple[str | None, str | None], quote: str
) -> Iterator[tuple[str, str]]:
    headers = {one: header_of(path, one, quote) for one in ",\t;|" if one != quote}
    delimiter = max(headers, key=lambda one: _fits(headers[one], columns))
    names = headers[delimiter]
    item, title = _wanted(path, names, columns)
    with open_text(path, "utf-8-sig") as text:
        rows = reader_of(text, delimiter, quote, strict=True)
        next(rows)
        for row in _whole_rows(rows, path):
            if row and (len(row) != len(names) or "\ufffd" in row[title]):
                raise SourceError(
                    f"a line must have {len(names)} fields of UTF-8 text, found {row}; correct it.",
                    path,
                    rows.line_num,
                )
            if row and row[item] and row[title]:
                yield row[item], row[title]


def _whole_rows(rows: Any, path: str) -> Iterator[list[str]]:
    try:
        yield from rows
    except csv.Error as error:
        raise SourceError(
            f"fields must be quoted by the standard, found: {error}; correct the line, or switch"
            " quoting off: --quote none.",
            path,
            rows.line_num,
        ) from error


def _fits(names: list[str], columns: tuple[str | None, str | None]) -> int:
    """How much of what is wanted a header holds."""
    item, title = columns
    items = (item,) if item else _ID_NAMES
    return bool(set(items) & set(names)) + ((title or "title") in names)


def _wanted(path: str, names: list[str], columns: tuple[str | None, str | None]) -> tuple[int, int]:
    item, title = columns[0], columns[1] or "title"
    items = [name for name in ((item,) if item else _ID_NAMES) if name in names]
    if not items or title not in names:
        wanted = item or "item_id (or movieId)"
        raise SourceError(
            f"the header must hold {wanted} and {title}, found"
            f" {', '.join(names) or 'nothing'}; name the columns as they are.",
            path,
            1,
        )
    return names.index(items[0]), names.index(title)


def _parquet(path: str, columns: tuple[str | None, str | None]) -> Iterator[tuple[str, str]]:
    try:
        with open_bytes(path) as file:
            table = pq.read_table(file)
        item, title = _wanted(path, table.column_names, columns)
        ids, titles = (table.column(place).cast(pa.string()) for place in (item, title))
    except pa.ArrowException as error:
        raise SourceError(
            f"the file must be whole Parquet, ids and titles text or numbers, found: {error};"
            " fetch it again, or cast the column.",
            path,
        ) from error
    rows = zip(ids.to_pylist(), titles.to_pylist(), strict=True)
    return ((item, title) for item, title in rows if item is not None and title is not None)
