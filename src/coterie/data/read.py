"""The one door to every format: a path in, an `InteractionLog` out."""

from pathlib import Path
from typing import Literal, get_args

from coterie.data.adjacency import read_adjacency
from coterie.data.json_lines import is_json_lines
from coterie.data.log import InteractionLog
from coterie.data.movielens import COLUMNS, RATINGS, read_movielens
from coterie.data.netflix import read_netflix
from coterie.data.source import exists
from coterie.data.table import header_of, read_table
from coterie.data.taste_profile import read_taste_profile
from coterie.data.titles import read_titles
from coterie.errors import ConfigError, SourceError

Format = Literal["movielens", "netflix", "taste-profile", "adjacency", "table"]
FORMATS: tuple[Format, ...] = get_args(Format)

_READERS = {
    "movielens": read_movielens,
    "netflix": read_netflix,
    "taste-profile": read_taste_profile,
    "adjacency": read_adjacency,
}


def read_log(
    path: str | Path,
    format: str = "auto",  # noqa: A002 - the option's own name
    *,
    user_column: str | None = None,
    item_column: str | None = None,
    rating_column: str | None = None,
    timestamp_column: str | None = None,
    titles: str | Path | None = None,
    memory_limit: str = "3GB",
) -> InteractionLog:
    r"""Reads an interaction log of any known format.

    Args:
        path: File or folder; for tables also an fsspec URL.
        format: One of `FORMATS`, or ``"auto"`` to choose it by the names of the files.
        user_column: Of a table; ``user_id`` if not given. Naming columns in another format is an
            error.
        item_column: Of a table; ``item_id`` if not given.
        rating_column: Of a table: ratings or counts, 0 to 1e9.
        timestamp_column: Of a table: seconds since 1970, or ISO dates or times.
        titles: File of titles (see `coterie.data.titles.read_titles`), in place of one beside the
            log.
        memory_limit: Of DuckDB; more spills to the temporary folder.

    Returns:
        The log, to be closed (or used in ``with``) when the data set is prepared.

    Raises:
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
    path = str(path)
    if not exists(path):
        raise SourceError("the file or folder must exist, none was found; check the path.", path)
    columns = {
        "user": user_column,
        "item": item_column,
        "rating": rating_column,
        "timestamp": timestamp_column,
    }
    named = {role: name for role, name in columns.items() if name is not None}
    if "" in named.values():
        raise ConfigError("a column must have a name, found an empty one; leave that option out.")
    chosen = _detect(path, named) if format == "auto" else format
    if chosen not in FORMATS:
        raise ConfigError(
            f"format must be auto or one of {', '.join(FORMATS)}, found {chosen!r}; choose one of"
            " them."
        )
    if named and chosen != "table":
        raise ConfigError(
            f"columns are named for tables only, found {', '.join(named)} for {chosen}; leave them"
            " out or use the table format."
        )
    log = InteractionLog(Path(path).name, chosen, memory_limit)
    try:
        _fill(log, path, named, titles)
    except BaseException:
        log.close()
        raise
    return log


def _fill(log: InteractionLog, path: str, named: dict[str, str], titles: str | Path | None) -> None:
    if log.format == "table":
        read_table(log, path, **named)
    else:
        _READERS[log.format](log, path)
    if titles is not None:
        log.titles = read_titles(titles)
    if not log.n_rows:
        raise SourceError(
            f"the log must hold at least one interaction, found none ({log.counts}); check the file"
            " and its columns.",
            path,
        )
    # Waits for the hashing, which also finds a gzip file whose check sum fails.
    _ = log.sources


def _detect(path: str, named: dict[str, str]) -> str:
    """The format by the file's name, or by the names in the folder."""
    if named:
        return "table"
    here = Path(path)
    names = sorted(file.name for file in here.iterdir()) if here.is_dir() else [here.name]
    if any(name.startswith(("combined_data_", "training_set", "mv_")) for name in names):
        return "netflix"
    if "train.txt" in names:
        return "adjacency"
    if any("train_triplets" in name for name in names):
        return "taste-profile"
    if set(names) & set(RATINGS) or here.name.removesuffix(".gz").endswith((".dat", ".data")):
        return "movielens"
    return _detect_table(path)


def _detect_table(path: str) -> str:
    plain = path.removesuffix(".gz")
    if plain.endswith((".csv", ".tsv")):
        return "movielens" if tuple(header_of(path, ",")) == COLUMNS else "table"
    if plain.endswith(".parquet") or is_json_lines(path):
        return "table"
    raise ConfigError(
        f"the format of {path} is not recognised by its name; say it, one of {', '.join(FORMATS)}."
    )
