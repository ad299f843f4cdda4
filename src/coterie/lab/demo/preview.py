"""The first rows of a log, seen before anybody has said what its columns are.

Apart from the readers because those guess nothing.
"""

import codecs
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coterie.data.scan import DELIMITERS, is_json_lines, is_parquet, reader_of
from coterie.data.source import BLOCK, open_bytes, open_text
from coterie.errors import SourceError

LINES = 1000
"""Looked at."""


@dataclass(frozen=True)
class Preview:
    """Rows as text, blank where a value is missing.

    Args:
        names: Of the columns; None for delimited text, whose first row may or may not be a header.
        rows: All of the width of ``names`` or, without them, of the first.
        delimiter: Of delimited text.
        encoding: UTF-8, or else latin-1, in which all bytes are text.
    """

    names: Sequence[str] | None
    rows: Sequence[Sequence[str]]
    delimiter: str | None = None
    encoding: str = "utf-8"


def preview(
    path: str, delimiter: str | None = None, encoding: str | None = None, quote: str = '"'
) -> Preview:
    """Looks at the beginning of delimited text, JSON lines or Parquet.

    Args:
        path: Local path or fsspec URL; text plain or compressed.
        delimiter: Between fields of delimited text; found if None.
        encoding: Of text; found if None.
        quote: Around fields of delimited text; ``""`` if quotes are signs like others.

    Raises:
        SourceError: if there is nothing, or no delimiter gives columns.
    """
    if is_parquet(path):
        return _of_parquet(path)
    lines, encoding = _first_lines(path, encoding)
    if lines[0].startswith("{"):
        return _of_json_lines(path, lines)
    return _of_text(path, lines, delimiter, encoding, quote)


def _first_lines(path: str, encoding: str | None) -> tuple[list[str], str]:
    encoding = encoding or ("utf-8" if _is_utf8(path) else "latin-1")
    with open_text(path, encoding) as text:
        lines = list(islice(text, LINES))
    lines = [line.removeprefix("\ufeff") for line in lines if line.strip()]
    if not lines:
        raise SourceError("the file must hold interactions, found nothing; is it empty?", path)
    return lines, encoding


def _is_utf8(path: str) -> bool:
    """Whether all of it is: the first other byte may stand far down."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open_bytes(path) as file:
            while block := file.read(BLOCK):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _of_parquet(path: str) -> Preview:
    try:
        with open_bytes(path) as file:
            table = pq.ParquetFile(file)
            batches = [batch.to_pylist() for batch in islice(table.iter_batches(LINES), 1)]
    except pa.ArrowException as error:
        raise SourceError(
            f"the file must be whole Parquet, found: {error}; fetch or write it again.", path
        ) from error
    return _of_records(table.schema_arrow.names, [row for batch in batches for row in batch])


def _of_json_lines(path: str, lines: Sequence[str]) -> Preview:
    if not is_json_lines(path):
        raise SourceError(
            "JSON lines must be called .jsonl or .ndjson to be read so, found another ending;"
            " rename the file.",
            path,
        )
    try:
        records = [json.loads(line) for line in lines]
    except ValueError as error:
        raise SourceError(
            f"every line must be a JSON object ({error}); write one object a line.", path
        ) from error
    return _of_records(list({name: None for record in records for name in record}), records)


def _of_records(names: Sequence[str], records: Sequence[dict[str, Any]]) -> Preview:
    return Preview(names, [[_text(record.get(name)) for name in names] for record in records])


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _of_text(
    path: str, lines: Sequence[str], delimiter: str | None, encoding: str, quote: str
) -> Preview:
    # Longer ones first: two tabs are also one and a blank column and one. Words have spaces, too.
    usual = [*sorted((*DELIMITERS, "\t\t"), key=len, reverse=True), " "]
    tried = [delimiter] if delimiter else [one for one in usual if one != quote]
    for one in tried:
        rows = _split(lines, one, quote)
        width, widths = len(rows[0]), Counter(map(len, rows))
        fits = len(widths) == 1 if one == " " else widths.most_common(1)[0][0] == width
        if width > 1 and fits:
            return Preview(None, [row for row in rows if len(row) == width], one, encoding)
    raise SourceError(
        f"the lines must have columns, found {lines[0].strip()[:80]!r} and none of"
        f" {', '.join(map(repr, tried))} as often in each; name what stands between them"
        " (--delimiter).",
        path,
        1,
    )


def _split(lines: Sequence[str], delimiter: str, quote: str) -> list[list[str]]:
    if len(delimiter) == 1:
        return list(reader_of(lines, delimiter, quote))
    rows = [line.rstrip("\r\n").split(delimiter) for line in lines]
    return [[field.strip(quote) for field in row] for row in rows] if quote else rows
