"""Titles of items: what a reader of a list wants to see beside an id."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from coterie.data.source import open_bytes, open_text
from coterie.errors import SourceError

_ID_NAMES = ("item_id", "movieId", "id")


def read_titles(path: str | Path) -> dict[str, str]:
    """Reads a title for every item id; an id that comes again keeps its first.

    Args:
        path: ``movies.csv`` or any CSV, TSV or Parquet with ``item_id`` (or ``movieId``) and
            ``title``; MovieLens' ``movies.dat`` and ``u.item``; Netflix's ``movie_titles``; Million
            Song's ``unique_tracks.txt``. The last four may be latin-1.

    Returns:
        Title by item id, the id as text.

    Raises:
        SourceError: if the file is missing, or at the first line that holds no id and title.
    """
    path = str(path)
    pairs: dict[str, str] = {}
    for item, title in _pairs(path, Path(path).name.removesuffix(".gz").lower()):
        pairs.setdefault(item, title)
    if not pairs:
        raise SourceError(
            "the file must hold the title of at least one item, found none; check the path.", path
        )
    return pairs


def _pairs(path: str, name: str) -> Iterable[tuple[str, str]]:
    if name.endswith(".parquet"):
        return _parquet(path)
    if name.endswith(".dat"):
        return ((item, title) for item, title, *_ in _lines(path, "::", 2))
    if name.endswith(".item"):
        return ((item, title) for item, title, *_ in _lines(path, "|", 2))
    if name.startswith("movie_titles"):
        # Commas in titles are not quoted: the third field is the rest of the line.
        return ((item, title) for item, _, title in _lines(path, ",", 3, at_most=3))
    if name.startswith("unique_tracks"):
        return (
            (song, f"{artist} – {title}")
            for _, song, artist, title in _lines(path, "<SEP>", 4, at_most=4)
        )
    return _columns(path)


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


def _columns(path: str) -> Iterator[tuple[str, str]]:
    with open_text(path, "utf-8-sig") as text:
        header = text.readline()
        delimiter = "\t" if "\t" in header else ","
        names = next(csv.reader([header], delimiter=delimiter), [])
        item, title = _wanted(path, names)
        rows = csv.reader(text, delimiter=delimiter)
        for row in rows:
            if row and (len(row) != len(names) or "\ufffd" in row[title]):
                raise SourceError(
                    f"a line must have {len(names)} fields of UTF-8 text, found {row}; correct it.",
                    path,
                    rows.line_num + 1,
                )
            if row:
                yield row[item], row[title]


def _wanted(path: str, names: list[str]) -> tuple[int, int]:
    items = [name for name in _ID_NAMES if name in names]
    if not items or "title" not in names:
        raise SourceError(
            "the header must hold item_id (or movieId) and title, found"
            f" {', '.join(names) or 'nothing'}; rename them.",
            path,
            1,
        )
    return names.index(items[0]), names.index("title")


def _parquet(path: str) -> Iterator[tuple[str, str]]:
    try:
        with open_bytes(path) as file:
            table = pq.read_table(file)
    except pa.ArrowException as error:
        raise SourceError(
            f"the file must be whole Parquet, found: {error}; fetch it again.", path
        ) from error
    item, title = _wanted(path, table.column_names)
    rows = zip(
        table.column(item).cast(pa.string()).to_pylist(),
        table.column(title).to_pylist(),
        strict=True,
    )
    return ((item, title) for item, title in rows if item is not None and title is not None)
