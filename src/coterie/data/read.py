"""The one door to every format: a path or a table in, an `InteractionLog` out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, Unpack, get_args

import pyarrow as pa

from coterie.data.adjacency import read_adjacency
from coterie.data.database import is_database, read_query
from coterie.data.frames import hands_over_arrow, is_matrix, matrix_table, pairs_table
from coterie.data.log import InteractionLog
from coterie.data.movielens import COLUMNS, RATINGS, read_movielens
from coterie.data.netflix import read_netflix
from coterie.data.parts import as_list, blaming, unpack_zip
from coterie.data.scan import header_of, is_json_lines, is_parquet
from coterie.data.source import ending_of, exists, name_of, open_text
from coterie.data.table import read_arrow, read_table
from coterie.data.table_options import TableFields, TableOptions
from coterie.data.taste_profile import read_taste_profile
from coterie.data.titles import read_titles
from coterie.errors import ConfigError, EmptySourceError, NotFoundError

Format = Literal["movielens", "netflix", "taste-profile", "adjacency", "table"]
FORMATS: tuple[Format, ...] = get_args(Format)

LogSource: TypeAlias = Any
"""A path, several paths, or a table in memory: see `read_log`."""

_READERS = {
    "movielens": read_movielens,
    "netflix": read_netflix,
    "taste-profile": read_taste_profile,
    "adjacency": read_adjacency,
}


def read_log(
    source: LogSource,
    format: str = "auto",  # noqa: A002 - the option's own name
    *,
    titles: str | Path | Mapping[str, str] | None = None,
    memory_limit: str = "3GB",
    **table: Unpack[TableFields],
) -> InteractionLog:
    r"""Reads an interaction log of any known format, or a table in memory.

    Args:
        source: File or folder; for tables also an fsspec URL, several of them, the URL of a
            database (with ``query``), a table of pandas, polars, pyarrow or DuckDB (whatever has
            the Arrow PyCapsule interface), a SciPy matrix ``[n_users, n_items]``, or pairs ``(user,
            item[, rating[, timestamp]])``.
        format: One of `FORMATS`, or ``"auto"`` to choose it by the names of the files.
        titles: By item id as text, or a file of them (see `coterie.data.titles.read_titles`), in
            place of one beside the log.
        memory_limit: Of DuckDB; more spills to the temporary folder.
        table: Fields of `TableOptions`: the columns and how they are written. Naming them in
            another format is an error.

    Returns:
        The log, to be closed (or used in ``with``) when the data set is prepared.

    Raises:
        NotFoundError: if a file or folder is missing.
        SourceError: at the file and line that break the format, or if there is no row.
        ConfigError: if the format is unknown or is not recognised, or columns are named where none
            are.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name) / "plays.csv"
        >>> _ = file.write_text("who,what\nann,7\nbob,8\n")
        >>> with read_log(file, user_column="who", item_column="what") as log:
        ...     log.format, log.n_rows, log.one("SELECT user_id, item_id FROM log")
        ('table', 2, ('ann', 7))
        >>> folder.cleanup()
    """
    options = TableOptions(**table)
    if format not in ("auto", *FORMATS):
        raise ConfigError(
            f"format must be auto or one of {', '.join(FORMATS)}, found {format!r}; choose one of"
            " them."
        )
    name = name_of(as_list(source)[0]) if is_path(source) else type(source).__name__
    log = InteractionLog(name, format, memory_limit)
    try:
        with blaming(log.copies):
            _fill(log, source, options)
            _finish(log, titles, options.quote)
    except BaseException:
        log.close()
        raise
    return log


def is_path(source: Any) -> bool:
    """Whether a source is one path or several, and no table."""
    if isinstance(source, str | Path):
        return True
    return isinstance(source, list | tuple) and all(isinstance(one, str | Path) for one in source)


def _fill(log: InteractionLog, source: LogSource, options: TableOptions) -> None:
    if not is_path(source):
        log.format = "table"
        read_arrow(log, *_in_memory(source, options))
    elif is_database(paths := as_list(source)):
        log.format = "table"
        read_query(log, paths[0], options)
    else:
        _read_paths(log, paths, options)


def _in_memory(source: Any, options: TableOptions) -> tuple[Any, TableOptions]:
    """A table in memory that hands over Arrow, and what its columns are."""
    if options.test is not None and not hands_over_arrow(options.test):
        options = replace(options, test=_as_table(options.test))
    if hands_over_arrow(source):
        return source, options
    table = _as_table(source)
    known = {f"{name}_column": name for name in table.column_names[2:]}
    return table, replace(options, user_column=None, item_column=None, **known)


def _as_table(source: Any) -> pa.Table:
    return matrix_table(source) if is_matrix(source) else pairs_table(source)


def _read_paths(log: InteractionLog, paths: list[str], options: TableOptions) -> None:
    if not options.pattern:
        for path in paths:
            if not exists(path):
                raise NotFoundError(
                    f"{path}: the file or folder must exist, none was found; check the path."
                )
    if log.format != "taste-profile" and "train_triplets" not in paths[0]:
        paths = [_unpacked(log, path) for path in paths]
    if log.format == "auto":
        log.format = _detect(paths, options)
    if log.format == "table":
        read_table(log, paths, options)
        return
    if options.stated() or len(paths) > 1:
        found = ", ".join(map(str, options.stated().values())) or f"{len(paths)} paths"
        raise ConfigError(
            f"columns and several paths are for tables only, found {found} for {log.format}; leave"
            " them out or use the table format."
        )
    _READERS[log.format](log, paths[0])


def _unpacked(log: InteractionLog, path: str) -> str:
    """The path itself, or the folder that an archive was unpacked into."""
    if ending_of(path) != ".zip":
        return path
    log.add_source(path)
    folder = str(unpack_zip(path, log.scratch))
    log.copies[folder] = path
    return folder


def _finish(log: InteractionLog, titles: str | Path | Mapping[str, str] | None, quote: str) -> None:
    if titles is not None:
        log.titles = read_titles(titles, quote=quote) if isinstance(titles, str | Path) else titles
    if not log.n_rows:
        raise EmptySourceError(
            f"the log must hold at least one interaction, found none ({log.counts}); check the file"
            " and its columns.",
            log.name,
        )
    # Waits for the hashing, which also finds a gzip file whose check sum fails.
    _ = log.sources


def _detect(paths: Sequence[str], options: TableOptions) -> Format:
    """The format by the names of the files, where no options say that it is a table."""
    if options.stated() or len(paths) > 1:
        return "table"
    here = Path(paths[0])
    names = sorted(file.name for file in here.iterdir()) if here.is_dir() else [here.name]
    if any(name.startswith(("combined_data_", "training_set", "mv_")) for name in names):
        return "netflix"
    if "train.txt" in names:
        return "adjacency"
    if any("train_triplets" in name for name in names):
        return "taste-profile"
    if set(names) & set(RATINGS) and here.is_dir():
        return "movielens"
    return _detect_file(paths[0])


def _detect_file(path: str) -> Format:
    ending = ending_of(path)
    if Path(path).is_dir() or is_parquet(path) or is_json_lines(path):
        return "table"
    if ending == ".data":
        return "movielens"
    if ending == ".dat":
        with open_text(path) as text:
            return "movielens" if "::" in text.readline() else "table"
    if ending in (".csv", ".tsv"):
        return "movielens" if tuple(header_of(path, ",")) == COLUMNS else "table"
    raise ConfigError(
        f"the format of {path} is not recognised by its name; say it, one of {', '.join(FORMATS)}."
    )
