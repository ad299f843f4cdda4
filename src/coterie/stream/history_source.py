"""Histories of any number of users, read a range of users at a time.

Apart from `coterie.ranking.history_files` because nothing here holds more than the range asked
for: what is opened is paths and row counts, small enough to be sent to other processes.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, Unpack

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from coterie.data.dataset import SCHEMA as DATASET_SCHEMA
from coterie.data.ids import IdMap
from coterie.data.parts import files_of
from coterie.data.scan import is_parquet
from coterie.data.source import exists, fingerprint, is_url
from coterie.data.table_options import TableOptions, TextFields
from coterie.errors import ArtifactError, ConfigError, DataError, NotFoundError, SourceError
from coterie.files import read_manifest
from coterie.ranking.histories import Histories
from coterie.ranking.history_files import (
    check_ending,
    find_item_column,
    history_options,
    readable,
)
from coterie.stream.history_pairs import LISTS, repeated_user, write_lists
from coterie.stream.storage import Folder

_READ_AHEAD = 1 << 20
_BATCH = 8192


class HistorySource(Protocol):
    """Users in a fixed order, each once, with what they have had."""

    @property
    def n_users(self) -> int:
        """How many."""
        ...

    def read(self, start: int, stop: int) -> Histories:
        """The users at positions ``start`` to ``stop``."""
        ...


class GivenHistories(Protocol):
    """Histories as people have them, perhaps not yet in a form that can be read by ranges of
    users.
    """

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 that says whether these are the same histories as last time."""
        ...

    def source(self, folder: Folder) -> HistorySource:
        """Makes them readable by ranges, keeping in the work area of ``folder`` what that needs.

        Raises:
            SourceError: if a user is not named, or occurs in two rows that should be one.
        """
        ...


@dataclass(frozen=True, eq=False)
class HeldHistories:
    """Histories in memory.

    Example:
        >>> HeldHistories(Histories.of({"ann": ["blue"], "bob": []})).read(1, 2).users.ids_of([0])
        ['bob']
    """

    histories: Histories

    @property
    def n_users(self) -> int:
        """How many users."""
        return len(self.histories)

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 over ids and order."""
        digest = hashlib.sha256()
        for block in self.histories.blocks(_BATCH):
            digest.update(
                _json(
                    [
                        block.users.values.to_pylist(),
                        block.offsets.tolist(),
                        block.item_ids.to_pylist(),
                    ]
                )
            )
        return digest.hexdigest()

    def source(self, folder: Folder) -> HistorySource:
        """These."""
        return self

    def read(self, start: int, stop: int) -> Histories:
        """The users at positions ``start`` to ``stop``."""
        held = self.histories
        first, last = int(held.offsets[start]), int(held.offsets[stop])
        users = IdMap(held.users.values.slice(start, stop - start))
        return Histories(
            users, held.offsets[start : stop + 1] - first, held.item_ids.slice(first, last - first)
        )


@dataclass(frozen=True)
class ParquetLists:
    """One row a user, with a list of items, in one or several Parquet files.

    Row groups that overlap a range are read from their start, in small batches: they may be of any
    size, but small ones (up to some shards of users) are read faster.

    Args:
        paths: Local paths or fsspec URLs, in order.
        user_column: Name of the column of user ids.
        item_column: Name of the column of lists.
        group_rows: Rows of each file's row groups.
        fingerprint: Of the bytes of all files.
    """

    paths: tuple[str, ...]
    user_column: str
    item_column: str
    group_rows: tuple[tuple[int, ...], ...]
    fingerprint: str

    @classmethod
    def of(
        cls, paths: Iterable[str], user_column: str, item_column: str, fingerprint: str
    ) -> "ParquetLists":
        """Reads the footers.

        Raises:
            SourceError: if a file is no Parquet, or has other columns or id types than the first.
        """
        paths, kinds, rows = tuple(paths), [], []
        for path in paths:
            with _parquet(path) as file:
                kinds.append(
                    {
                        name: _type_of(path, file.schema_arrow, name)
                        for name in (user_column, item_column)
                    }
                )
                rows.append(
                    tuple(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
                )
            if kinds[-1] != kinds[0]:
                raise SourceError(
                    f"every file must have the same types, found {kinds[-1]} here and {kinds[0]} in"
                    f" {paths[0]}.",
                    path,
                )
        return cls(paths, user_column, item_column, tuple(rows), fingerprint)

    @property
    def n_users(self) -> int:
        """Rows of all files."""
        return sum(chain.from_iterable(self.group_rows))

    def source(self, folder: Folder) -> HistorySource:
        """These, once every user is known to be one row."""
        repeated = repeated_user(self.paths, self.user_column)
        if repeated is not None:
            raise SourceError(
                f"every user must be one row, found {repeated!r} in several; join their lists.",
                self.paths[0],
            )
        return self

    def read(self, start: int, stop: int) -> Histories:
        """The users at positions ``start`` to ``stop``."""
        tables, first = list[pa.Table](), 0
        for path, groups in zip(self.paths, self.group_rows, strict=True):
            rows = sum(groups)
            within = (max(start - first, 0), min(stop - first, rows))
            # Where nobody is asked for the last file still gives the types.
            if within[0] < within[1] or (not tables and path == self.paths[-1]):
                tables.append(
                    _read_rows(path, groups, [self.user_column, self.item_column], *within)
                )
            first += rows
        table = pa.concat_tables(tables)
        try:
            return _of_lists(table[self.user_column], table[self.item_column])
        except DataError as error:
            raise SourceError(str(error), self.paths[0]) from error


@dataclass(frozen=True)
class DatasetRows:
    """A Coterie data set folder: every user with every interaction, whatever part it is in.

    Args:
        folder: The data set's.
        n_users: Its rows.
        fingerprint: Its own.
    """

    folder: str
    n_users: int
    fingerprint: str

    @classmethod
    def of(cls, folder: str | Path) -> "DatasetRows":
        """Checks schema and checksums.

        Raises:
            ArtifactError: if the folder is no data set, or is damaged.
        """
        folder = Path(folder).resolve()
        manifest = read_manifest(folder, DATASET_SCHEMA)
        with _parquet(str(folder / "users.parquet")) as file:
            return cls(str(folder), file.metadata.num_rows, manifest["fingerprint"])

    def source(self, folder: Folder) -> HistorySource:
        """These."""
        return self

    def read(self, start: int, stop: int) -> Histories:
        """The users at positions ``start`` to ``stop``."""
        here = Path(self.folder)
        try:
            items = IdMap.of(pq.read_table(here / "items.parquet", columns=["item_id"])["item_id"])
            with safe_open(here / "interactions.safetensors", framework="numpy") as arrays:
                offsets = arrays.get_slice("indptr")[start : stop + 1]
                indices = arrays.get_slice("indices")[int(offsets[0]) : int(offsets[-1])]
            path = str(here / "users.parquet")
            with _parquet(path) as file:
                groups = tuple(
                    file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)
                )
            users = _read_rows(path, groups, ["user_id"], start, stop)["user_id"]
        except (OSError, SafetensorError, pa.ArrowException) as error:
            raise ArtifactError(
                f"{here}: not a whole data set ({error}); prepare it anew."
            ) from error
        return Histories(IdMap.of(users), offsets - offsets[0], items.take(indices))


@dataclass(frozen=True)
class PairFiles:
    """One row a pair, or JSON lines with lists: made into `ParquetLists` before use, in order of
    user id.

    Args:
        paths: Local paths or fsspec URLs, all with one ending.
        options: Their columns of users and items, and how text is written.
        fingerprint: Of the bytes of all files and the options.
    """

    paths: tuple[str, ...]
    options: TableOptions
    fingerprint: str

    def source(self, folder: Folder) -> HistorySource:
        """Sorts by user into one file in the work area, unless an interrupted run has left it
        there.
        """
        name = PurePosixPath(LISTS).name
        if name not in folder.sizes(str(PurePosixPath(LISTS).parent)):
            with folder.publish(LISTS) as aside:
                write_lists(self.paths, self.options, aside)
        return ParquetLists.of([folder.url(LISTS)], "user_id", "item_ids", self.fingerprint)


def stream_histories(
    path: str | Path,
    user_column: str = "user_id",
    item_column: str = "item_id",
    **written: Unpack[TextFields],
) -> GivenHistories:
    """Opens histories of any number of users, without reading them.

    Args:
        path: A Coterie data set folder; or a file, or a folder of files with one ending, locally or
            behind an fsspec URL: one row a user with a list under ``item_column`` or its plural
            (Parquet, JSON lines), or one row a pair (Parquet, CSV, JSON lines), as
            `coterie.ranking.history_files.read_histories` reads them.
        user_column: Name of the column of user ids.
        item_column: Name of the column of item ids.
        written: How delimited text is, as in `coterie.data.table_options.TableOptions`.

    Raises:
        NotFoundError: if nothing is there.
        SourceError: if it has another format or other columns.
        ConfigError: if it is said how text is written, and it is none.
        ArtifactError: if the data set is damaged.

    Example:
        >>> import tempfile
        >>> lists = pa.table({"user_id": [7, 8, 9], "item_ids": [["blue"], [], ["red", "blue"]]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "histories.parquet"
        ...     pq.write_table(lists, path)
        ...     histories = stream_histories(path).source(Folder(folder))
        ...     part = histories.read(1, 3)
        >>> part.users.ids_of([0, 1]), part.item_ids.to_pylist()
        ([8, 9], ['red', 'blue'])
    """
    path = str(path)
    if not is_url(path) and (Path(path) / "manifest.json").is_file():
        if written:
            raise ConfigError(
                f"{', '.join(written)} must be those of text, found the data set {path}; leave them"
                " out."
            )
        return DatasetRows.of(path)
    paths = _files(path)
    options = history_options(paths[0], user_column, item_column, written)
    prints = [_fingerprint(file) for file in paths]
    if is_parquet(paths[0]):
        with _parquet(paths[0]) as file:
            schema = file.schema_arrow
        column = find_item_column(paths[0], schema.names, user_column, item_column)
        if _is_list(schema.field(column).type):
            return ParquetLists.of(
                paths, user_column, column, _digest("lists", user_column, column, prints)
            )
    how = [dict(written)] if written else []
    return PairFiles(paths, options, _digest("pairs", user_column, item_column, prints, *how))


open_histories = stream_histories  # the older name


def _files(path: str) -> tuple[str, ...]:
    if not exists(path):
        raise NotFoundError(f"{path}: histories must exist, none were found; check the path.")
    files = files_of(path if is_url(path) else str(Path(path).resolve()))
    check_ending(files[0])
    return tuple(files)


def _fingerprint(path: str) -> str:
    """Of a file's content: the object store's own where it has one, as that spares a second
    transfer.
    """
    if is_url(path):
        filesystem, inside = fsspec.core.url_to_fs(path)
        tag = filesystem.info(inside).get("ETag")
        if tag:
            return str(tag)
    return str(fingerprint([path], "")["sha256"])


def _digest(*parts: Any) -> str:
    return hashlib.sha256(_json(parts)).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


@contextmanager
def _parquet(path: str) -> Iterator[pq.ParquetFile]:
    """Opens Parquet so that column chunks are read through a small buffer, however large they
    are.
    """
    with readable(path):
        filesystem, inside = fsspec.core.url_to_fs(path)
        with (
            filesystem.open(inside, "rb") as stream,
            pq.ParquetFile(stream, buffer_size=_READ_AHEAD, pre_buffer=False) as file,
        ):
            yield file


def _read_rows(
    path: str, group_rows: tuple[int, ...], columns: list[str], start: int, stop: int
) -> pa.Table:
    """The rows ``start`` to ``stop`` of some columns, decoding only row groups that hold some of
    them.
    """
    ends = list(accumulate(group_rows))
    groups = [i for i, end in enumerate(ends) if end > start and end - group_rows[i] < stop]
    with _parquet(path) as file:
        schema = pa.schema([file.schema_arrow.field(name) for name in columns])
        if not groups:
            return schema.empty_table()  # Arrow 18 cannot read no row groups.
        skip = start - (ends[groups[0]] - group_rows[groups[0]])
        wanted, batches = max(stop - start, 0), []
        for batch in file.iter_batches(
            _BATCH, row_groups=groups, columns=columns, use_threads=False
        ):
            kept = batch.slice(skip, wanted).select(columns)
            skip, wanted = max(skip - len(batch), 0), wanted - len(kept)
            batches += [kept] if len(kept) else []
            if wanted == 0:
                break
    return pa.Table.from_batches(batches, schema)


def _of_lists(users: pa.ChunkedArray, lists: pa.ChunkedArray) -> Histories:
    """Histories of ``[n_users]`` ids and lists; a missing list is an empty one, a missing item
    none.
    """
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
    offsets, items = np.concatenate([[0], np.cumsum(counts)]), _plain(pc.list_flatten(lists))
    if items.null_count:
        given = items.is_valid().to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(given)])[offsets]
        items = items.drop_null()
    return Histories(IdMap.of(_plain(users)), offsets, items)


def _plain(ids: pa.ChunkedArray) -> pa.Array:
    whole = ids.combine_chunks()
    if pa.types.is_dictionary(whole.type):
        whole = whole.dictionary_decode()
    return whole.cast(pa.string()) if pa.types.is_string_view(whole.type) else whole


def _is_list(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )


def _type_of(path: str, schema: pa.Schema, name: str) -> pa.DataType:
    if name not in schema.names:
        raise SourceError(
            f"must have the column {name!r}, found {schema.names}; rename or name yours.", path
        )
    return schema.field(name).type
