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

from coterie.data.ids import Id
from coterie.data.scan import scan_parquet
from coterie.data.source import is_url
from coterie.data.table_options import TableOptions
from coterie.ranking.histories import Histories
from coterie.ranking.history_files import check_all_named, load_pairs, readable
from coterie.stream.storage import WORK

LISTS = f"{WORK}/histories.parquet"
"""Where the lists are kept, in the folder of the results."""

_MEMORY_LIMIT = "1GB"


def write_lists(paths: Sequence[str], options: TableOptions, target: Path) -> None:
    """Writes Parquet with one row a user (user_id, item_ids), in order of user id; memory does not
    grow with the rows.

    What does not fit is sorted on the disk that ``target`` is on.

    Args:
        paths: Files as `coterie.ranking.history_files.read_histories` reads them, all of one
            format.
        options: Their columns of users and items, and how text is written.
        target: The Parquet file; its row groups hold some thousand users each.

    Raises:
        SourceError: if a file cannot be read or lacks a column, or no row names its user.
    """
    with _database(paths, target.parent) as database, readable(paths[0]):
        load_pairs(database, paths, options, target.parent)
        pairs = database.sql("SELECT * FROM pairs ORDER BY user_id")
        write_sorted(pa.RecordBatchReader.from_stream(pairs), target)


def write_sorted(pairs: pa.RecordBatchReader, target: Path) -> None:
    """Writes pairs of a user and an item as lists, in one pass.

    Args:
        pairs: Two columns, sorted by the first.
        target: The Parquet file: user_id, item_ids; its row groups hold some thousand users each.
    """
    user, item = pairs.schema.types
    schema = pa.schema([("user_id", user), ("item_ids", pa.list_(item))])
    with pq.ParquetWriter(target, schema) as parquet:
        for users in _whole_users(pairs):
            items = pa.ListArray.from_arrays(pa.array(users.offsets, pa.int32()), users.item_ids)
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
        scans = [scan_parquet(database, path) for path in paths]
        users = " UNION ALL ".join(
            f"SELECT {scan.column(user_column).sql} AS user_id FROM {scan.sql}" for scan in scans
        )
        nameless = f"SELECT count(*) FROM ({users}) WHERE user_id IS NULL"
        check_all_named(database.sql(nameless).fetchall()[0][0], paths[0])
        found = database.sql(
            f"SELECT user_id FROM ({users}) GROUP BY 1 HAVING count(*) > 1 LIMIT 1"
        ).fetchall()
    return found[0][0] if found else None


@contextmanager
def _database(paths: Sequence[str], folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that reads through fsspec where it must and spills into ``folder``."""
    with (
        tempfile.TemporaryDirectory(prefix=".sort-", dir=folder) as spill,
        duckdb.connect(
            str(Path(spill) / "pairs.duckdb"),
            config={
                "memory_limit": _MEMORY_LIMIT,
                "temp_directory": spill,
                "preserve_insertion_order": False,
            },
        ) as database,
    ):
        database.execute("SET enable_progress_bar = false")
        if is_url(paths[0]):
            database.register_filesystem(fsspec.core.url_to_fs(paths[0])[0])
        yield database


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
