"""The SQL of every scan of a table: whatever DuckDB would guess is said.

Left to itself it takes a file's name for a pattern and ``key=value`` in its path for a column, and
guesses delimiter, quotes, comments, lines to skip and types; a wrong guess loses rows in silence.
Columns are told apart by their place (``c0``, ``c1``, …), as their names may be empty, repeated or
differ in case alone.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from coterie.data.source import compression_of, ending_of, is_url, open_bytes, open_text
from coterie.errors import ConfigError, SourceError

DELIMITERS = (",", "\t", ";", "|", "::")
"""Tried in this order where none is named."""

UNREADABLE = (
    duckdb.IOException,
    duckdb.InvalidInputException,
    duckdb.ConversionException,
    duckdb.BinderException,
    duckdb.OutOfRangeException,
)
"""What DuckDB raises at a damaged or odd file, and not when it lacks memory."""

_LONGEST_LINE_BYTES = 1 << 24
_COMPRESSIONS = {"": "none", ".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True)
class Column:
    """One column of a scan.

    Args:
        sql: What selects it.
        kind: DuckDB's type; ``VARCHAR`` in formats that keep no types.
    """

    sql: str
    kind: str


@dataclass(frozen=True)
class Scan:
    """A table that DuckDB can read.

    Args:
        sql: After ``FROM``: the table, its columns renamed.
        names: Of its columns, as the source has them.
        kinds: DuckDB's types of them.
        path: For errors.
        is_text: Whether the format keeps no types, so that values are what they look like.
        delimiter: Of delimited text.
        quote: Likewise; ``""`` if quotes are signs like others.
        header: Whether its first line is one.
        others: Columns that the source has besides.
    """

    sql: str
    names: Sequence[str]
    kinds: Sequence[str]
    path: str
    is_text: bool
    delimiter: str = ""
    quote: str = ""
    header: bool = False
    others: Sequence[str] = ()

    def column(self, name: str) -> Column:
        """The column of that name.

        Raises:
            SourceError: if there is none, or more than one.
        """
        if list(self.names).count(name) > 1:
            raise SourceError(
                f"every column must have its own name, found {name} again; rename one.",
                self.path,
                1 if self.is_text else None,
            )
        self.need([name])
        place = list(self.names).index(name)
        return Column(f"c{place}", self.kinds[place])

    def with_constants(self, values: Mapping[str, str]) -> "Scan":
        """The same with columns more, one value each; names that are there keep what they hold."""
        new = {name: value for name, value in values.items() if name not in self.names}
        more = ", ".join(
            f"{literal(value)} AS c{place}"
            for place, value in enumerate(new.values(), start=len(self.names))
        )
        return replace(
            self,
            sql=f"(SELECT *, {more} FROM {self.sql})" if new else self.sql,
            names=[*self.names, *new],
            kinds=[*self.kinds, *["VARCHAR"] * len(new)],
        )

    def need(self, wanted: Sequence[str]) -> None:
        """Checks that the columns are there.

        Raises:
            SourceError: if one is missing.
        """
        missing = [name for name in wanted if name not in self.names]
        if missing:
            raise SourceError(
                missing_columns(missing, self.names), self.path, 1 if self.is_text else None
            )


def missing_columns(missing: Sequence[str], found: Sequence[str]) -> str:
    """The words for columns that are not there."""
    return (
        f"the header must hold {', '.join(map(repr, missing))}, found"
        f" {', '.join(map(repr, found))}; name the columns as they are (--user-column,"
        " --item-column, …; in Python user, item, …), or all of them in order (--columns; in Python"
        " columns) if there is no header."
    )


def identifier(name: str) -> str:
    """A column name as SQL quotes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL quotes it."""
    return "'" + text.replace("'", "''") + "'"


def exactly(path: str) -> str:
    """An SQL literal that names this file and no other: brackets, stars and question marks in its
    name are no pattern.

    Raises:
        SourceError: if there is a backslash beside them, for which DuckDB has no words.
    """
    if not is_url(path) and has_no_words(path):
        raise SourceError(
            "a path must not hold a backslash beside brackets, stars or question marks, found both;"
            " rename it.",
            path,
        )
    plain = path if is_url(path) else str(Path(path).absolute())
    return literal("".join(f"[{sign}]" if sign in "[*?" else sign for sign in plain))


def has_no_words(path: str) -> bool:
    """Whether DuckDB cannot be told to read this file and no other."""
    is_unicode = not any("\ud800" <= sign <= "\udfff" for sign in path)
    return not is_unicode or ("\\" in path and any(sign in path for sign in "[*?"))


def scan_delimited(
    path: str,
    names: Sequence[str],
    delimiter: str,
    *,
    quote: str = '"',
    header: bool = True,
    null_words: Sequence[str] = ("",),
    longest_line_bytes: int = 1 << 21,
) -> Scan:
    """Scans delimited text, every field as text; bad lines are noted, to be refused by whoever
    reads.
    """
    columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(names)))
    nulls = ", ".join(map(literal, null_words))
    sql = (
        f"read_csv({exactly(path)}, columns = {{{columns}}}, delim = {literal(delimiter)},"
        f" quote = {literal(quote)}, escape = {literal(quote)}, comment = '', header = {header},"
        f" nullstr = [{nulls}], compression = '{_COMPRESSIONS[compression_of(path)]}',"
        " auto_detect = false, hive_partitioning = false, store_rejects = true,"
        f" rejects_limit = 1000, max_line_size = {longest_line_bytes})"
    )
    kinds = ["VARCHAR"] * len(names)
    return Scan(sql, names, kinds, path, True, delimiter, quote, header)


def scan_lines(path: str) -> Scan:
    """Scans text by lines, row numbers being line numbers less one: no line holds the delimiter,
    and DuckDB keeps blank ones as NULL.
    """
    return scan_delimited(
        path, ["line"], "\x01", quote="", header=False, longest_line_bytes=_LONGEST_LINE_BYTES
    )


def scan_parquet(database: duckdb.DuckDBPyConnection, path: str) -> Scan:
    """Scans a Parquet file, every column with its type; old writers' bytes are text.

    Raises:
        SourceError: if the file is no whole Parquet.
    """
    sql = f"read_parquet({exactly(path)}, hive_partitioning = false, binary_as_string = true)"
    try:
        with open_bytes(path) as file:
            names = pq.read_schema(file).names
        return named_by_place(database, sql, names, path)
    except (pa.ArrowException, *UNREADABLE) as error:
        raise SourceError(
            f"the file must be whole Parquet, found: {str(error).splitlines()[0]}; fetch or write"
            " it again.",
            path,
        ) from error


def named_by_place(
    database: duckdb.DuckDBPyConnection, sql: str, names: Sequence[str], path: str
) -> Scan:
    """A scan of anything typed, its columns asked of DuckDB and renamed."""
    kinds = [str(row[1]) for row in database.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()]
    places = ", ".join(f"c{i}" for i in range(len(kinds)))
    return Scan(f"{sql} AS given({places})", names, kinds, path, is_text=False)


def scan_json_lines(path: str, kinds: Mapping[str, str]) -> Scan:
    """Scans some fields of JSON lines, each with the type given; absent ones are NULL.

    Raises:
        ConfigError: if two fields differ in case alone, which DuckDB does not tell apart.
    """
    if len({name.lower() for name in kinds}) < len(kinds):
        raise ConfigError(
            f"fields must differ by more than case, found {', '.join(kinds)}; rename one of them."
        )
    columns = ", ".join(f"{literal(name)}: '{kind}'" for name, kind in kinds.items())
    places = ", ".join(f"c{i}" for i in range(len(kinds)))
    sql = (
        f"read_json({exactly(path)}, format = 'newline_delimited', auto_detect = false,"
        f" compression = '{_COMPRESSIONS[compression_of(path)]}', hive_partitioning = false,"
        f" columns = {{{columns}}}) AS given({places})"
    )
    return Scan(sql, list(kinds), list(kinds.values()), path, is_text=True)


def is_json_lines(path: str) -> bool:
    """Whether the name's ending says so."""
    return ending_of(path) in (".jsonl", ".ndjson", ".json")


def is_parquet(path: str) -> bool:
    """Whether the name's ending says so."""
    return ending_of(path) in (".parquet", ".pq")


def reader_of(lines: Iterable[str], delimiter: str, quote: str, *, strict: bool = False) -> Any:
    """Python's reader of delimited text, its delimiter one sign, quoted or not.

    Example:
        >>> [next(reader_of(['"a;b";c'], ";", quote)) for quote in ('"', "")]
        [['a;b', 'c'], ['"a', 'b"', 'c']]
    """
    if not quote:
        return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=delimiter, quotechar=quote, strict=strict)


def header_of(path: str, delimiter: str, quote: str = '"') -> list[str]:
    """The column names in a delimited file's first line.

    Raises:
        SourceError: if the file is empty or no UTF-8 text.
    """
    with open_text(path) as text:
        line = text.readline().removeprefix("\ufeff")
    if not line.strip():
        raise SourceError(
            "the file must begin with a header line, found none; is it empty?", path, 1
        )
    if "\ufffd" in line or "\0" in line:
        raise SourceError(
            f"the file must be UTF-8 text, found {line[:80]!r}; convert it, or say its encoding"
            " (--encoding).",
            path,
            1,
        )
    if len(delimiter) == 1:
        return next(reader_of([line], delimiter, quote))
    names = line.rstrip("\r\n").split(delimiter)
    return [name.strip(quote) for name in names] if quote else names


def headers_of(path: str, delimiter: str | None, quote: str) -> dict[str, list[str]]:
    """The column names by the delimiter that is stated, or by each that may be."""
    tried = [delimiter] if delimiter else [one for one in DELIMITERS if one != quote]
    return {one: header_of(path, one, quote) for one in tried}


def find_delimiter(path: str, n_columns: int, quote: str = '"') -> str:
    """The delimiter, or the space, that cuts a file's first line into so many fields.

    Raises:
        SourceError: if none does.
    """
    for one in (*DELIMITERS, " "):
        if one != quote and len(header_of(path, one, quote)) == n_columns:
            return one
    raise SourceError(
        f"the first line must hold the {n_columns} columns that are named, found"
        f" {header_of(path, DELIMITERS[-1])[0][:120]!r}; name them all, or say the delimiter"
        " (--delimiter).",
        path,
        1,
    )


def find_header(
    path: str, wanted: Sequence[str], delimiter: str | None = None, quote: str = '"'
) -> tuple[list[str], str]:
    """Columns and delimiter: the first delimiter that yields all wanted columns.

    Raises:
        SourceError: if none does.
    """
    headers = headers_of(path, delimiter, quote)
    for one, names in headers.items():
        if set(wanted) <= set(names):
            return names, one
    found = max(headers.values(), key=len)
    missing = [name for name in wanted if name not in found]
    raise SourceError(missing_columns(missing, found), path, 1)
