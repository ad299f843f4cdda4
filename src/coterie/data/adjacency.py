"""Adjacency lists: ``train.txt`` and ``test.txt`` of the graph papers, one user a line and then
their items.

References:
    X. He et al. (2020), LightGCN; its repository's data folder.
"""

from pathlib import Path

from coterie.data.delimited import noting_lines
from coterie.data.log import InteractionLog
from coterie.data.scan import scan_lines
from coterie.data.split import Part
from coterie.errors import SourceError

FILES = (("train.txt", Part.TRAIN), ("test.txt", Part.TEST))
_WHOLE = "(0|[1-9][0-9]{0,17})"
_NUMBERS = (
    "SELECT rowid AS row, CAST(string_split_regex(trim(line, ' \t\r'), '[ \t]+') AS BIGINT[]) AS"
    " numbers FROM lines WHERE trim(line, ' \t\r') <> ''"
)


def read_adjacency(log: InteractionLog, path: str) -> None:
    """Reads both files with their split, or one of another name without any; a line with a user and
    no items is counted as ``users_without_items``.

    Args:
        log: Where to.
        path: The folder, or its ``train.txt``; or a file of another name.

    Raises:
        SourceError: if a file is missing, a user has several lines, or at the first line that is
            not of integers between spaces.
    """
    log.create("BIGINT", "BIGINT")
    log.counts["users_without_items"] = 0
    for file, part in _files(Path(path)).items():
        _append(log, str(file), part)
    log.counts = {"rows_read": log.n_rows, **log.counts}


def _files(path: Path) -> dict[Path, Part | None]:
    """The files, each with its part of a split."""
    if not path.is_dir() and path.name not in dict(FILES):
        return {path: None}
    folder = path if path.is_dir() else path.parent
    files: dict[Path, Part | None] = {folder / name: part for name, part in FILES}
    for file in files:
        if not file.is_file():
            raise SourceError(
                "the given split needs train.txt and test.txt in one folder, this one is missing;"
                " add it, or name the other one by itself, not called train.txt, to split it anew.",
                file,
            )
    return files


def _check_lists(log: InteractionLog, path: str) -> None:
    """Refuses users of several lines: rows of user, item, rating; or lines that begin with the
    number of their items.
    """
    n_lines, n_users, shortest, longest = log.one(
        "SELECT count(*), count(DISTINCT numbers[1]), min(len(numbers)), max(len(numbers)) FROM"
        f" ({_NUMBERS})"
    )
    if n_lines == n_users:
        return
    row, first = log.one(
        f"SELECT row, numbers[1] FROM ({_NUMBERS}) QUALIFY row_number() OVER (PARTITION BY"
        " numbers[1] ORDER BY row) = 2 ORDER BY row LIMIT 1"
    )
    advice = "where a count of the items comes first, put the user's number in its place"
    if shortest == longest:
        advice = "rows of user, item and more are a table, its columns to be named"
    raise SourceError(
        f"each line must be a user and all their items, found {first} first again, and {n_users}"
        f" users in {n_lines} lines; {advice}.",
        path,
        row + 1,
    )


def _append(log: InteractionLog, path: str, part: Part | None) -> None:
    log.add_source(path)
    _read_lines(log, path)
    _check_lists(log, path)
    log.connection.execute(
        f"INSERT INTO log SELECT numbers[1], unnest(numbers[2:]), NULL, NULL,"
        f" {'NULL' if part is None else int(part)} FROM ({_NUMBERS})"
    )
    alone = log.one(
        f"SELECT count(*) FROM lines WHERE regexp_full_match(line, '[ \t]*{_WHOLE}[ \t\r]*')"
    )[0]
    log.counts["users_without_items"] += alone
    log.connection.execute("DROP TABLE lines")


def _read_lines(log: InteractionLog, path: str) -> None:
    """Fills ``lines(line)``, row numbers being line numbers less one, and refuses a line that is
    not of integers.
    """
    with noting_lines(log.connection, path, "", ""):
        log.connection.execute(
            f"CREATE TABLE lines AS SELECT c0 AS line FROM {scan_lines(path).sql}"
        )
    fault = log.one(
        f"SELECT rowid, line FROM lines WHERE NOT regexp_full_match(line, '[ \t]*({_WHOLE}(["
        f" \t]+{_WHOLE})*)?[ \t\r]*') LIMIT 1"
    )
    if fault:
        row, line = fault
        raise SourceError(
            f"a line must be a user and their items, integers between spaces, found {line[:120]!r};"
            " correct it.",
            path,
            row + 1,
        )
