"""Netflix Prize: a line ``MOVIE:`` and then lines ``customer,rating,YYYY-MM-DD``.

Either the four ``combined_data_*.txt``, or a file a movie in ``training_set`` (folder or tar). Text
is taken in blocks of whole lines, cut at the movie lines, and each piece parsed by Arrow; archives
are read in passing.

References:
    J. Bennett and S. Lanning (2007), The Netflix Prize; the README of the training set.
"""

import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path, PurePosixPath
from typing import IO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from coterie.data.log import InteractionLog
from coterie.data.source import check_member_name, open_bytes
from coterie.data.titles import read_titles
from coterie.errors import SourceError

BOUNDS = (1, 5)
_BLOCK_BYTES = 1 << 24
_ROWS_AT_ONCE = 1 << 20
_COLUMNS = {"user_id": pa.int64(), "rating": pa.int64(), "date": pa.date32()}
_RATING = re.compile(r"[0-9]{1,18},[1-5],[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOVIE_FILE = re.compile(r"mv_[0-9]+\.txt")
_INSERT = (
    "INSERT INTO log SELECT user_id, item_id, rating, CAST(epoch(date) AS BIGINT), NULL FROM rows"
)


def read_netflix(log: InteractionLog, path: str) -> None:
    """Reads ratings of 1 to 5, and the titles beside them.

    Args:
        log: Where to.
        path: One ``combined_data`` file, a folder of those, the folder ``training_set`` (or one
            holding it), or ``training_set.tar``, also gzipped.

    Raises:
        SourceError: if no ratings are found, at the first line that is no rating, or if an archive
            is damaged or its names escape it.
    """
    log.create("BIGINT", "BIGINT")
    waiting: list[pa.Table] = []
    for rows in _all_rows(log, path):
        waiting.append(rows)
        if sum(map(len, waiting)) >= _ROWS_AT_ONCE:
            _insert(log, waiting)
    _insert(log, waiting)
    log.counts["rows_read"] = log.n_rows
    log.titles = _titles_beside(Path(path))


def _insert(log: InteractionLog, waiting: list[pa.Table]) -> None:
    if waiting:
        rows = pa.concat_tables(waiting)  # noqa: F841 - DuckDB finds it by its name
        log.connection.execute(_INSERT)
        waiting.clear()


def _all_rows(log: InteractionLog, path: str) -> Iterator[pa.Table]:
    if path.endswith((".tar", ".tar.gz", ".tgz")):
        log.add_source(path)
        yield from _tar_rows(path)
        return
    files = _files(path)
    if _MOVIE_FILE.fullmatch(Path(files[0]).name):
        log.add_source(*files, name=f"{Path(files[0]).parent.name}/mv_*.txt ({len(files)} files)")
    else:
        for file in files:
            log.add_source(file)
    for file in files:
        with open_bytes(file) as stream:
            yield from parse_ratings(stream, file)


def _files(path: str) -> list[str]:
    folder = Path(path)
    if not folder.is_dir():
        return [path]
    found = (
        sorted(folder.glob("combined_data_*.txt*"))
        or sorted(folder.glob("mv_*.txt"))
        or sorted((folder / "training_set").glob("mv_*.txt"))
    )
    if not found:
        raise SourceError(
            "a Netflix folder must hold combined_data_*.txt or mv_*.txt, none was found; check the"
            " path.",
            path,
        )
    return [str(file) for file in found]


def _tar_rows(path: str) -> Iterator[pa.Table]:
    """The ratings of the movie files inside a tar, in its order."""
    with open_bytes(path) as file, _whole_tar(file) as archive:
        for member in archive:
            check_member_name(member.name, path)
            if not (member.isfile() or member.isdir()):
                raise SourceError(
                    "members of an archive must be plain files, found the link or device"
                    f" {member.name!r}; do not use it.",
                    path,
                )
            if member.isfile() and _MOVIE_FILE.fullmatch(PurePosixPath(member.name).name):
                yield from parse_ratings(
                    cast(IO[bytes], archive.extractfile(member)), f"{path}/{member.name}"
                )


@contextmanager
def _whole_tar(file: IO[bytes]) -> Iterator[tarfile.TarFile]:
    """A tar read in passing; one cut off between two members, which ``tarfile`` lets pass, is
    damaged too.
    """
    tail = _Tail(file)
    with tarfile.open(fileobj=cast(IO[bytes], tail), mode="r|") as archive:
        yield archive
    if any(tail.last):
        raise tarfile.ReadError("the archive ends without its end mark")


class _Tail:
    """A stream that remembers the last 512 bytes read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.last = b""

    def read(self, size: int) -> bytes:
        block = self._file.read(size)
        self.last = (self.last + block)[-512:]
        return block


def parse_ratings(stream: IO[bytes], path: str) -> Iterator[pa.Table]:
    """Parses a stream of movie lines and rating lines.

    Args:
        stream: Bytes of one file; it must begin with a movie line.
        path: For messages.

    Yields:
        Tables ``user_id, rating, date, item_id``, at most one a movie and block.

    Raises:
        SourceError: at the first line that is neither, or a rating out of 1 to 5.
    """
    movie: int | None = None
    line = 1
    while block := stream.read(_BLOCK_BYTES) + stream.readline():
        start = 0
        while start < len(block):
            # A rating line holds no colon, so the next colon ends the next movie line.
            colon = block.find(b":", start)
            header = block.rfind(b"\n", start, colon) + 1 if colon >= 0 else len(block)
            header = max(header, start)
            if block[start:header].strip():
                yield _parse_piece(block[start:header], movie, path, line)
            line += block.count(b"\n", start, header)
            if colon < 0:
                break
            end = block.find(b"\n", colon)
            start = len(block) if end < 0 else end + 1
            movie = _movie(block[header:start], path, line)
            line += 1


def _movie(raw: bytes, path: str, line: int) -> int:
    text = raw.decode("ascii", "replace").strip()
    if not re.fullmatch(r"[0-9]{1,18}:", text):
        raise SourceError(
            f"a movie line must be a number and a colon, found {text[:120]!r}; correct it.",
            path,
            line,
        )
    return int(text[:-1])


def _parse_piece(piece: bytes, movie: int | None, path: str, line: int) -> pa.Table:
    if movie is None:
        raise SourceError(
            "the first line must be a movie's number and a colon, found a rating; fetch the file"
            " again.",
            path,
            line,
        )
    try:
        rows = pcsv.read_csv(
            pa.BufferReader(piece),
            pcsv.ReadOptions(column_names=list(_COLUMNS), use_threads=False),
            pcsv.ParseOptions(quote_char=False),
            pcsv.ConvertOptions(column_types=_COLUMNS, null_values=[]),
        )
    except pa.ArrowInvalid as error:
        raise _first_bad_line(piece, path, line, str(error)) from error
    extremes = pc.min_max(rows["rating"]).as_py()
    if extremes["min"] < BOUNDS[0] or extremes["max"] > BOUNDS[1]:
        raise _first_bad_line(piece, path, line, "a rating outside 1 to 5")
    return rows.append_column("item_id", pa.repeat(pa.scalar(movie, pa.int64()), len(rows)))


def _first_bad_line(piece: bytes, path: str, line: int, problem: str) -> SourceError:
    for number, raw in enumerate(piece.split(b"\n"), start=line):
        text = raw.decode("utf-8", "replace").strip("\r")
        if text and not _is_rating(text):
            return SourceError(
                f"a line must be customer,rating (1 to 5),YYYY-MM-DD, found {text[:120]!r};"
                " correct it.",
                path,
                number,
            )
    return SourceError(
        f"lines must be customer,rating,date, found: {problem}; correct them.", path, line
    )


def _is_rating(text: str) -> bool:
    try:
        return bool(_RATING.fullmatch(text) and date.fromisoformat(text.rsplit(",", 1)[1]))
    except ValueError:
        return False


def _titles_beside(path: Path) -> dict[str, str] | None:
    folders = (path, path.parent)
    found = [
        file
        for folder in folders
        for name in ("movie_titles.csv", "movie_titles.txt")
        if (file := folder / name).is_file()
    ]
    return read_titles(found[0]) if found else None
