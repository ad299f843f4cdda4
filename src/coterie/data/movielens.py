"""MovieLens: ``ratings.csv`` (latest, 20M, 25M, 32M; Kaggle's ``rating.csv``), ``ratings.dat`` (1M,
10M) and ``u.data`` (100k).

References:
    F. M. Harper and J. A. Konstan (2015), The MovieLens Datasets: History and Context; the README
    of each release.
"""

from pathlib import Path

from coterie.data.delimited import Layout, load_delimited
from coterie.data.log import InteractionLog
from coterie.data.scan import header_of
from coterie.data.source import exists, plain_name
from coterie.data.titles import read_titles
from coterie.errors import SourceError

_FILES = ("ratings.csv", "ratings.dat", "u.data", "rating.csv")
RATINGS = tuple(name + packed for packed in ("", ".gz", ".zst") for name in _FILES)
TITLES = ("movies.csv", "movies.dat", "u.item", "movie.csv")
COLUMNS = ("userId", "movieId", "rating", "timestamp")
BOUNDS = (0.5, 5.0)
"""Half a star to five, in every release."""


def read_movielens(log: InteractionLog, path: str) -> None:
    """Reads MovieLens ratings, and the titles beside them.

    Args:
        log: Where to.
        path: The ratings file, or the folder holding it.

    Raises:
        SourceError: if no ratings file is there, or at the first line that is no rating.
    """
    file = _ratings_file(path)
    load_delimited(log, file, _layout(file))
    log.counts["rows_read"] = log.n_rows
    beside = (
        [name for title in TITLES if exists(name := str(Path(file).with_name(title)))]
        if "://" not in file
        else []
    )
    log.titles = read_titles(beside[0]) if beside else None


def _ratings_file(path: str) -> str:
    if not Path(path).is_dir():
        return path
    found = [file for name in RATINGS if (file := Path(path) / name).is_file()]
    if not found:
        raise SourceError(
            f"a MovieLens folder must hold one of {', '.join(RATINGS[:3])}, none was found; check"
            " the path.",
            path,
        )
    return str(found[0])


def _layout(file: str) -> Layout:
    user, item, rating, timestamp = COLUMNS
    plain = plain_name(file)
    if not plain.endswith(".csv"):
        delimiter = "::" if plain.endswith(".dat") else "\t"
        return Layout(COLUMNS, delimiter, user, item, rating, timestamp, bounds=BOUNDS)
    names = header_of(file, ",")
    if tuple(names) != COLUMNS:
        raise SourceError(
            f"the header must be {','.join(COLUMNS)}, found {','.join(names)}; use the table format"
            " for other columns.",
            file,
            1,
        )
    return Layout(COLUMNS, ",", user, item, rating, timestamp, '"', header=True, bounds=BOUNDS)
