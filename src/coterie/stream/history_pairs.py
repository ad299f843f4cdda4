"""Rows of pairs made into one row a user, for any number of rows: an external sort, then one pass.

Apart from `coterie.stream.history_source` because DuckDB does the work, which reading by ranges
does not need.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coterie.data.delimited import identifier, literal
from coterie.data.ids import Id
from coterie.data.source import is_url
from coterie.errors import SourceError
from coterie.ranking.histories import Histories
from coterie.ranking.history_files import WHOLE_NUMBER, is_text, pairs_query, readable
from coterie.stream.storage import WORK

LISTS = f"{WORK}/histories.parquet"
"""Where the lists are kept, in the folder of the results."""

_MEMORY_LIMIT = "1GB"


def write_lists(paths: Sequence[str], user_column: str, item_column: str, target: Path) -> None:
    """Writes Parquet with one row a user (user_id, item_ids), in order of user id; memory does not
    grow with the rows.

    What does not fit is sorted on the disk that ``target`` is on.

    Args:
        paths: Files as `coterie.ranking.history_files.read_histories` reads them, all of one
            format.
        user_column: Name of the column of user ids.
        item_column: Name of the column of item ids; its plural is the name with an ``s``.
        target: The Parquet file; its row groups hold some thousand users each.

    Raises:
        SourceError: if a file cannot be read, lacks a column, or names no user in some row.
    """
    with _database(paths, target.parent) as database, readable(paths[0]):
        query = pairs_query(database, list(paths), user_column, item_column)
        user, item = _columns(database, paths[0], query)
        pairs = database.sql(
            f"SELECT {user} AS user_id, {item} AS item_id FROM ({query}) ORDER BY user_id"
        )
        reader = pa.RecordBatchReader.from_stream(pairs)
        kinds = [_id_type(paths[0], field) for field in reader.schema]
        schema = pa.schema([("user_id", kinds[0]), ("item_ids", pa.list_(kinds[1]))])
        with pq.ParquetWriter(target, schema) as parquet:
            for users in _whole_users(reader):
                items = pa.ListArray.from_arrays(
                    pa.array(users.offsets, pa.int32()), users.item_ids.cast(kinds[1])
                )
                parquet.write_table(
                    pa.table({"user_id": users.users.values, "item_ids": items}, schema)
                )


def repeated_user(paths: Sequence[str], user_column: str) -> Id | None:
    """Some user with several rows, if there is one.

    Raises:
        SourceError: if a file cannot be read, or names no user in some row.
    """
    with (
        tempfile.TemporaryDirectory(prefix="coterie-") as folder,
        _database(paths, Path(folder)) as database,
        readable(paths[0]),
    ):
        files, user = f"read_parquet([{', '.join(map(literal, paths))}])", identifier(user_column)
        _check_named(database, paths[0], f"SELECT {user} AS user_id FROM {files}")
        found = database.sql(
            f"SELECT {user} FROM {files} GROUP BY 1 HAVING count(*) > 1 LIMIT 1"
        ).fetchall()
    return found[0][0] if found else None


@contextmanager
def _database(paths: Sequence[str], folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that reads through fsspec where it must and spills into ``folder``."""
    with (
        tempfile.TemporaryDirectory(prefix=".sort-", dir=folder) as spill,
        duckdb.connect(
            config={
                "memory_limit": _MEMORY_LIMIT,
                "temp_directory": spill,
                "preserve_insertion_order": False,
            }
        ) as database,
    ):
        database.execute("SET enable_progress_bar = false")
        if is_url(paths[0]):
            database.register_filesystem(fsspec.core.url_to_fs(paths[0])[0])
        yield database


def _columns(database: duckdb.DuckDBPyConnection, path: str, query: str) -> list[str]:
    """SQL for the two ids: as integers where a text format holds nothing else."""
    _check_named(database, path, query)
    names = ["user_id", "item_id"]
    if not is_text(path):
        return names
    tests = ", ".join(
        f"coalesce(bool_and(regexp_full_match({name}, {literal(WHOLE_NUMBER)})), true)"
        for name in names
    )
    whole = database.sql(f"SELECT {tests} FROM ({query})").fetchall()[0]
    return [
        f"CAST({name} AS BIGINT)" if is_whole else name
        for name, is_whole in zip(names, whole, strict=True)
    ]


def _check_named(database: duckdb.DuckDBPyConnection, path: str, query: str) -> None:
    (nameless,) = database.sql(f"SELECT count(*) FROM ({query}) WHERE user_id IS NULL").fetchall()[
        0
    ]
    if nameless:
        raise SourceError(
            f"every row must name its user, found {nameless} without; drop those rows.", path
        )


def _id_type(path: str, field: pa.Field) -> pa.DataType:
    if pa.types.is_integer(field.type):
        return pa.int64()
    if not (pa.types.is_string(field.type) or pa.types.is_large_string(field.type)):
        raise SourceError(
            f"ids must be integers or text, found {field.type} in the column of {field.name};"
            " cast it.",
            path,
        )
    return pa.string()


def _whole_users(reader: pa.RecordBatchReader) -> Iterator[Histories]:
    """Batches of sorted pairs, cut between users: the last user of one may go on in the next."""
    held = reader.schema.empty_table()
    for batch in reader:
        pairs = pa.concat_tables([held, pa.Table.from_batches([batch])])
        last = pc.index(pairs["user_id"], pairs["user_id"][-1]).as_py() if len(pairs) else 0
        if last:
            yield _histories(pairs.slice(0, last))
        held = pairs.slice(last)
    if len(held):
        yield _histories(held)


def _histories(pairs: pa.Table) -> Histories:
    return Histories.from_pairs(*(column.combine_chunks() for column in pairs.columns))
