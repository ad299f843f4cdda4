"""Adjacency lists: ``train.txt`` and ``test.txt`` of the graph papers, one user a line and then
their items.

References:
    X. He et al. (2020), LightGCN; its repository's data folder.
"""

from pathlib import Path

from coterie.data.delimited import UNREADABLE, literal, refuse_rejects
from coterie.data.log import InteractionLog
from coterie.data.split import Part
from coterie.errors import SourceError

FILES = (("train.txt", Part.TRAIN), ("test.txt", Part.TEST))
_LONGEST_LINE_BYTES = 1 << 24
_WHOLE = "(0|[1-9][0-9]{0,17})"


def read_adjacency(log: InteractionLog, path: str) -> None:
    """Reads both files with their split; a line with a user and no items is counted as
    ``users_without_items``.

    Args:
        log: Where to.
        path: The folder, or its ``train.txt``.

    Raises:
        SourceError: if a file is missing, or at the first line that is not of integers between
            spaces.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    for name, _ in FILES:
        if not (folder / name).is_file():
            raise SourceError(
                "the given split needs train.txt and test.txt in one folder, this one is missing;"
                " add it.",
                folder / name,
            )
    log.create("BIGINT", "BIGINT")
    log.counts["users_without_items"] = 0
    for name, part in FILES:
        _append(log, str(folder / name), part)
    log.counts = {"rows_read": log.n_rows, **log.counts}


def _append(log: InteractionLog, path: str, part: Part) -> None:
    log.add_source(path)
    _read_lines(log, path)
    log.connection.execute(
        f"INSERT INTO log SELECT numbers[1], unnest(numbers[2:]), NULL, NULL, {part:d} FROM (SELECT"
        " CAST(string_split_regex(trim(line, ' \t\r'), '[ \t]+') AS BIGINT[]) AS numbers FROM"
        " lines WHERE trim(line, ' \t\r') <> '')"
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
    # No line holds the delimiter, so each is one field; DuckDB keeps blank ones as NULL.
    scan = (
        f"read_csv({literal(path)}, columns = {{'line': 'VARCHAR'}}, delim = '\x01', quote = '',"
        " escape = '', header = false, auto_detect = false, store_rejects = true, max_line_size ="
        f" {_LONGEST_LINE_BYTES})"
    )
    try:
        log.connection.execute(f"CREATE TABLE lines AS SELECT line FROM {scan}")
    except UNREADABLE as error:
        raise SourceError(
            "the file must be lines of integers that all end alike, found:"
            f" {str(error).splitlines()[0]}.",
            path,
        ) from error
    refuse_rejects(log, path)
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
