"""Histories from files: Parquet, CSV and JSON lines.

Apart from the training logs' readers because a row here need have neither a time nor an item, and
nobody is dropped: whoever is in the file gets an answer.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from coterie.data.delimited import identifier, literal
from coterie.errors import DataError, SourceError
from coterie.ranking.histories import Histories

WHOLE_NUMBER = "0|-?[1-9][0-9]{0,17}"
"""What a text id must look like to be read as an integer without loss."""

_READERS = {
    ".parquet": "read_parquet",
    ".csv": "read_csv",
    ".jsonl": "read_json",
    ".ndjson": "read_json",
}
_OPTIONS = {
    "read_parquet": "",
    "read_csv": ", header=true, all_varchar=true",
    "read_json": ", format='newline_delimited', sample_size=-1",
}


def read_histories(
    path: str | Path, user_column: str = "user_id", item_column: str = "item_id"
) -> Histories:
    r"""Reads histories from Parquet, CSV or JSON lines, the latter two also gzipped (``.gz``).

    Either one row a pair, or one row a user with a list, in the item column or under its plural
    (``item_ids``). A row whose item is missing, or whose list is empty, means a user who has had
    nothing yet. A CSV or JSON column of whole numbers is read as integers, any other as strings.

    Args:
        path: File ending in ``.parquet``, ``.csv``, ``.jsonl`` or ``.ndjson``, the latter three
            also with ``.gz``.
        user_column: Name of the column of user ids.
        item_column: Name of the column of item ids; its plural is the name with an ``s``.

    Raises:
        SourceError: if the file is missing, has another format, lacks a column or names no user in
            some row.

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
    path = Path(path)
    if not path.is_file():
        raise SourceError("a history file must exist here, none was found; check the path.", path)
    with duckdb.connect() as database, readable(path):
        table = database.sql(
            pairs_query(database, [str(path)], user_column, item_column)
        ).to_arrow_table()
    return _grouped(path, table)


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """What DuckDB or Arrow cannot read is the source's fault.

    Raises:
        SourceError: at ``path``.
    """
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise SourceError(
            f"must be readable by its ending ({str(error).splitlines()[0]}); repair the file.", path
        ) from error


def ending_of(name: str) -> str:
    """The ending that names the format, without ``.gz``.

    Raises:
        SourceError: if it names none.
    """
    ending = PurePath(name.removesuffix(".gz")).suffix
    if ending not in _READERS:
        raise SourceError(
            f"must end in one of {', '.join(_READERS)}, found {PurePath(name).name!r}; convert it"
            " first.",
            name,
        )
    return ending


def is_text(name: str) -> bool:
    """Whether the format keeps no types, so that ids are integers when all of them look it."""
    return ending_of(name) != ".parquet"


def pairs_query(
    database: duckdb.DuckDBPyConnection, paths: list[str], user_column: str, item_column: str
) -> str:
    """SQL for one row (user_id, item_id) a pair, in file order; the item is NULL for a user who has
    had nothing.

    Raises:
        SourceError: if the format is unknown or a column is missing.
    """
    reader = _READERS[ending_of(paths[0])]
    files = f"[{', '.join(map(literal, paths))}]"
    kinds = {
        row[0]: str(row[1])
        for row in database.sql(
            f"DESCRIBE SELECT * FROM {reader}({files}{_OPTIONS[reader]})"
        ).fetchall()
    }
    column = find_item_column(paths[0], kinds, user_column, item_column)
    as_list = kinds[column].endswith("[]") or (reader == "read_json" and column != item_column)
    options = _OPTIONS[reader]
    if reader == "read_json":
        # As text, so that no string is taken for a date and 7 and "7" in one column agree.
        kind = f"VARCHAR{'[]' if as_list else ''}"
        options = (
            f", format='newline_delimited', columns={{{literal(user_column)}: 'VARCHAR',"
            f" {literal(column)}: '{kind}'}}"
        )
    item = identifier(column)
    if as_list:
        # Unnesting drops an empty list, and with it its user.
        item = f"unnest(CASE WHEN len({item}) > 0 THEN {item} ELSE [NULL] END)"
    return (
        f"SELECT {identifier(user_column)} AS user_id, {item} AS item_id FROM"
        f" {reader}({files}{options})"
    )


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
            f"must have the columns {wanted}, found {sorted(present)}; rename them or name yours.",
            path,
        )
    return found[0]


def _grouped(path: Path, table: pa.Table) -> Histories:
    users, items = (column.combine_chunks() for column in table.columns)
    if is_text(path.name):
        users, items = _integers_if_all(users), _integers_if_all(items)
    try:
        return Histories.from_pairs(users, items)
    except DataError as error:
        raise SourceError(str(error), path) from error


def _integers_if_all(text: pa.Array) -> pa.Array:
    """Casts to int64 when that loses nothing: "007" and "7.0" stay text."""
    whole = pc.match_substring_regex(text, f"^({WHOLE_NUMBER})$")
    return text.cast(pa.int64()) if pc.all(whole, min_count=0).as_py() else text
