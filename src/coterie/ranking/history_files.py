"""Histories from files: Parquet, delimited text and JSON lines.

Apart from the training logs' readers because a row here need have neither a time nor an item, and
nobody who is named is dropped: whoever is in the file gets an answer. Files are scanned as logs
are.
"""

import logging
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Unpack

import duckdb
import pyarrow as pa

from coterie.data.blame import blame
from coterie.data.columns import Rule, id_sql, line_rules, settle_ids
from coterie.data.delimited import noting_lines
from coterie.data.json_lines import in_order, json_id, refusal
from coterie.data.parts import blaming, files_of, scannable
from coterie.data.scan import (
    Column,
    Scan,
    find_delimiter,
    headers_of,
    is_json_lines,
    is_parquet,
    scan_delimited,
    scan_json_lines,
    scan_parquet,
)
from coterie.data.source import ending_of, exists
from coterie.data.table_options import NULL_WORDS, TableOptions, TextFields
from coterie.errors import ConfigError, CoterieError, DataError, NotFoundError, SourceError
from coterie.ranking.histories import Histories

logger = logging.getLogger(__name__)

_TEXT = (".csv", ".tsv", ".txt", ".dat", ".data")
ENDINGS = (".parquet", ".pq", *_TEXT, ".jsonl", ".ndjson", ".json")
"""That name the format, before ``.gz``, ``.zst`` or ``.bz2``."""


def read_histories(
    path: str | Path,
    user_column: str = "user_id",
    item_column: str = "item_id",
    **written: Unpack[TextFields],
) -> Histories:
    r"""Reads histories from Parquet, delimited text or JSON lines, text also compressed.

    Either one row a pair, or one row a user with a list, in the item column or under its plural
    (``item_ids``). A row whose item is missing, or whose list is empty, means a user who has had
    nothing yet; rows without a user are passed over, with a warning that counts them. Ids of
    formats without types are integers if all of their column are written as whole numbers (``7.0``
    too, ``007`` not), else strings.

    Args:
        path: File ending in one of `ENDINGS`, or a folder of files with one ending.
        user_column: Name of the column of user ids.
        item_column: Name of the column of item ids; its plural is the name with an ``s``.
        written: How text is written, as in `coterie.data.table_options.TableOptions`.

    Raises:
        NotFoundError: if the file is missing.
        SourceError: if it has another format, lacks a column or names no user; at the first line
            that has not the columns of the others, or an id with a line break.
        ConfigError: if it is said how text is written, and it is none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "histories.csv"
        ...     _ = path.write_text("user_id,item_id\n7,blue\n8,\n7,red\n")
        ...     histories = read_histories(path)
        >>> (
        ...     histories.users.ids_of([0, 1]),
        ...     histories.item_ids.to_pylist(),
        ...     histories.offsets.tolist(),
        ... )
        ([7, 8], ['blue', 'red'], [0, 2, 2])
    """
    path = str(path)
    if not exists(path):
        raise NotFoundError(f"{path}: a history file must exist, none was found; check the path.")
    options = history_options(path, user_column, item_column, written)
    with duckdb.connect() as database, tempfile.TemporaryDirectory(prefix="coterie-") as scratch:
        load_pairs(database, files_of(path), options, Path(scratch))
        pairs = database.sql("SELECT * FROM pairs").to_arrow_table()
    users, items = (column.combine_chunks() for column in pairs.columns)
    try:
        return Histories.from_pairs(users, items)
    except DataError as error:
        raise SourceError(str(error), path) from error


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """What DuckDB or Arrow cannot read is the source's fault.

    Raises:
        SourceError: at ``path``.
    """
    try:
        yield
    except CoterieError:
        raise
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise SourceError(
            f"must be readable by its ending ({str(error).splitlines()[0]}); repair the file.", path
        ) from error


def check_ending(name: str) -> str:
    """The ending that names the format.

    Raises:
        SourceError: if it names none.
    """
    ending = ending_of(name)
    if ending not in ENDINGS:
        raise SourceError(
            f"must end in one of {', '.join(ENDINGS)}, found {PurePath(name).name!r}; convert it"
            " first.",
            name,
        )
    return ending


def load_pairs(
    database: duckdb.DuckDBPyConnection,
    paths: Sequence[str],
    options: TableOptions,
    scratch: Path,
) -> None:
    """Makes the table ``pairs(user_id, item_id)``, one row a pair, in file order; the item is NULL
    for a user who has had nothing. Rows without a user are passed over, with a warning.

    Raises:
        SourceError: if a file cannot be read, lacks a column, or no row names its user.
    """
    parts = [scannable(path, scratch, options.encoding) for path in paths]
    with blaming({part.path: part.source for part in parts}):
        _load(database, [_scan(database, part.path, options) for part in parts], options)
    _drop_nameless(database, paths[0])
    for column in ("user_id", "item_id"):
        is_text = not is_parquet(paths[0])
        settle_ids(database, "pairs", column, "auto", is_text=is_text)


def _drop_nameless(database: duckdb.DuckDBPyConnection, path: str) -> None:
    n_rows, n_named = database.execute("SELECT count(*), count(user_id) FROM pairs").fetchall()[0]
    if n_rows and not n_named:
        check_all_named(n_rows, path)
    if n_named < n_rows:
        database.execute("DELETE FROM pairs WHERE user_id IS NULL")
        n_nameless = f"{n_rows - n_named:,}"
        logger.warning("%s: %s rows without a user are passed over", path, n_nameless)


def _load(
    database: duckdb.DuckDBPyConnection, scans: Sequence[Scan], options: TableOptions
) -> None:
    selects = [_select(scan) for scan in scans]
    kinds = [
        "VARCHAR" if any(select[place][1] == "VARCHAR" for select in selects) else "BIGINT"
        for place in range(2)
    ]
    database.execute(f"CREATE TABLE pairs(user_id {kinds[0]}, item_id {kinds[1]})")
    for scan, ((user, _), (item, _)) in zip(scans, selects, strict=True):
        with _naming(database, scan):
            database.execute(f"INSERT INTO pairs SELECT {user}, {item} FROM {scan.sql}")
    for rule in line_rules() if any(scan.quote for scan in scans) else []:
        if database.execute(f"SELECT bool_or({rule.broken}) FROM pairs").fetchall()[0][0]:
            _blame(database, scans, rule, options)


def _blame(
    database: duckdb.DuckDBPyConnection, scans: Sequence[Scan], rule: Rule, options: TableOptions
) -> None:
    """Raises at the first row that breaks a rule; who streams does not keep their order."""
    database.execute("SET preserve_insertion_order = true")
    for scan in scans:
        rows = f"SELECT row_number() OVER () - 1 AS n, c0 AS user_id, c1 AS item_id FROM {scan.sql}"
        row = database.execute(f"SELECT min(n) FROM ({rows}) WHERE {rule.broken}").fetchall()[0][0]
        if row is not None:
            blame(database, scan, row, rule, options)


def check_all_named(nameless: int, path: str) -> None:
    """Refuses histories of which some rows name no user."""
    if nameless:
        raise SourceError(
            f"every row must name its user, found {nameless} without; drop those rows.", path
        )


def history_options(
    path: str, user_column: str, item_column: str, written: TextFields
) -> TableOptions:
    """How histories are read.

    Raises:
        ConfigError: if it is said how text is written, and they are Parquet.
    """
    if written and is_parquet(path):
        raise ConfigError(
            f"{', '.join(written)} must be those of text, found Parquet in {path}; leave them out."
        )
    return TableOptions(user_column=user_column, item_column=item_column, **written)


def _scan(database: duckdb.DuckDBPyConnection, path: str, options: TableOptions) -> Scan:
    """A scan of two columns: the user, and one item a row."""
    user_column, item_column = options.user, options.item
    check_ending(path)
    if is_json_lines(path):
        return _scan_json(database, path, user_column, item_column)
    if is_parquet(path):
        with readable(path):
            scan = scan_parquet(database, path)
    else:
        scan = _scan_text(path, options)
    user = scan.column(user_column)
    item = scan.column(find_item_column(path, scan.names, user_column, item_column))
    is_list = item.kind.endswith("]")
    chosen = _each(item.sql) if is_list else item.sql
    return Scan(
        f"(SELECT {user.sql} AS c0, {chosen} AS c1 FROM {scan.sql})",
        (user_column, item_column),
        (user.kind, item.kind.partition("[")[0] if is_list else item.kind),
        path,
        scan.is_text,
        scan.delimiter,
        scan.quote,
        scan.header,
    )


def _scan_text(path: str, options: TableOptions) -> Scan:
    names, delimiter = _header(path, options)
    find_item_column(path, names, options.user, options.item)
    return scan_delimited(
        path,
        names,
        delimiter,
        quote=options.quote,
        header=options.columns is None,
        null_words=NULL_WORDS,
    )


def _header(path: str, options: TableOptions) -> tuple[Sequence[str], str]:
    """The columns and the delimiter, stated or found."""
    quote = options.quote
    if options.columns is not None:
        n_columns = len(options.columns)
        return options.columns, options.delimiter or find_delimiter(path, n_columns, quote)
    headers = headers_of(path, options.delimiter, quote)
    fitting = [one for one, names in headers.items() if options.user in names]
    delimiter = fitting[0] if fitting else max(headers, key=lambda one: len(headers[one]))
    return headers[delimiter], delimiter


def _scan_json(
    database: duckdb.DuckDBPyConnection, path: str, user_column: str, item_column: str
) -> Scan:
    """As text, so that no string is taken for a date, and 7 and "7" in one column agree."""
    names = (user_column, item_column, f"{item_column}s")
    scan = scan_json_lines(path, dict.fromkeys(names, "JSON"))
    with _naming(database, scan):
        found = database.execute(f"SELECT count(c0), count(c1), count(c2) FROM {scan.sql}")
        present = [name for name, n in zip(names, found.fetchall()[0], strict=True) if n]
    place = names.index(find_item_column(path, present, user_column, item_column))
    listed = (
        f"CASE json_type(c{place}) WHEN 'ARRAY' THEN json_extract(c{place}, '$[*]')"
        f" ELSE [c{place}] END"
    )
    each = f"(SELECT c0, {_each(listed)} AS c1 FROM {scan.sql})"
    sql = f"(SELECT {json_id('c0')} AS c0, {json_id('c1')} AS c1 FROM {each})"
    return Scan(sql, names[:2], ("VARCHAR", "VARCHAR"), path, is_text=True)


def _each(items: str) -> str:
    """One row an item; unnesting alone would drop an empty list, and with it its user."""
    return f"unnest(CASE WHEN len({items}) > 0 THEN {items} ELSE [NULL] END)"


def _select(scan: Scan) -> list[tuple[str, str]]:
    """SQL of the two ids, each with its type."""
    return [
        id_sql(Column(f"c{place}", scan.kinds[place]), scan.path, scan.names[place])
        for place in range(2)
    ]


@contextmanager
def _naming(database: duckdb.DuckDBPyConnection, scan: Scan) -> Iterator[None]:
    """What cannot be read is blamed on its file and, in text, on its line."""
    if scan.delimiter:
        with noting_lines(database, scan.path, scan.delimiter, scan.quote):
            yield
    elif scan.is_text:
        try:
            with in_order(database, scan.path):
                yield
        except duckdb.Error as error:
            user, item = scan.names[:2]
            raise refusal(scan.path, [user], str(error), lists=[item, f"{item}s"]) from error
    else:
        with readable(scan.path):
            yield


def find_item_column(
    path: str, present: Collection[str], user_column: str, item_column: str
) -> str:
    """The item column, under its name or its plural.

    Raises:
        SourceError: if it is not there, or under both names, or the user column is not.
    """
    found = [name for name in (item_column, f"{item_column}s") if name in present]
    if user_column not in present or len(found) != 1:
        wanted = f"{user_column!r} and either {item_column!r} or {item_column + 's'!r}"
        raise SourceError(
            f"must have the columns {wanted}, found {sorted(present)}; rename them, or name"
            " yours (--user-column, --item-column; all of them in order by --columns).",
            path,
        )
    return found[0]
