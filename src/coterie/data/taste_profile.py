"""Taste Profile (Million Song Dataset): ``train_triplets.txt``, lines of user, song and play count
between tabs.

Read plain, gzipped, or out of the official zip without unpacking it to disk.

References:
    T. Bertin-Mahieux et al. (2011), The Million Song Dataset; B. McFee et al. (2012), its
    challenge.
"""

import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO

import pyarrow as pa
import pyarrow.csv as pc

from coterie.data.columns import first_fault, row_rules
from coterie.data.delimited import Layout, load_delimited
from coterie.data.log import InteractionLog
from coterie.data.source import check_member_name, open_bytes
from coterie.errors import SourceError

COLUMNS = ("user", "song", "play_count")
BOUNDS = (1.0, 1e9)
_BLOCK_BYTES = 1 << 24


def read_taste_profile(log: InteractionLog, path: str) -> None:
    """Reads play counts as ratings of at least 1, and as how often a user had a song.

    Args:
        log: Where to.
        path: ``train_triplets.txt``, that with ``.gz``, or a ``.zip`` holding it.

    Raises:
        SourceError: at the first line that is no triplet; if an archive is damaged or its names
            escape it.
    """
    if path.endswith(".zip"):
        _read_zip(log, path)
    else:
        load_delimited(log, path, Layout(COLUMNS, "\t", *COLUMNS, whole_ids=False, bounds=BOUNDS))
    log.counts["rows_read"] = log.n_rows
    log.ratings_are_counts = True


def _read_zip(log: InteractionLog, path: str) -> None:
    log.create("VARCHAR", "VARCHAR")
    log.add_source(path)
    cast = (
        "SELECT nullif(user, ''), nullif(song, ''), TRY_CAST(play_count AS DOUBLE), NULL, NULL FROM"
        " triplets"
    )
    try:
        with open_member(path) as member, open_triplets(member) as batches:
            for triplets in batches:  # noqa: B007 - DuckDB finds it by its name
                log.connection.execute(f"INSERT INTO log {cast}")
    except pa.ArrowInvalid as error:
        _blame(path, str(error))
    fault = first_fault(log, row_rules(BOUNDS, COLUMNS[2], None, ids=True))
    if fault is not None:
        _blame(path, fault[1].words)


def open_triplets(member: IO[bytes]) -> pc.CSVStreamingReader:
    """Parses tab-separated triplets as text, 16 MiB at a time."""
    return pc.open_csv(
        pa.PythonFile(member, "r"),
        pc.ReadOptions(column_names=COLUMNS, block_size=_BLOCK_BYTES),
        pc.ParseOptions(delimiter="\t", quote_char=False),
        pc.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string())),
    )


@contextmanager
def open_member(path: str) -> Iterator[IO[bytes]]:
    """Opens the triplets inside a zip archive.

    Raises:
        SourceError: if the archive is damaged, a member's name escapes it, or not exactly one
            member fits.
    """
    with open_bytes(path) as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for one in members:
            check_member_name(one.filename, path)
            if stat.S_ISLNK(one.external_attr >> 16):
                raise SourceError(
                    f"members of an archive must be plain files, found the link {one.filename!r};"
                    " do not use it.",
                    path,
                )
        fitting = [one for one in members if "train_triplets" in PurePosixPath(one.filename).name]
        if len(fitting) != 1:
            names = ", ".join(one.filename for one in members[:5])
            raise SourceError(
                f"the archive must hold one train_triplets.txt, found {len(fitting)} among:"
                f" {names}.",
                path,
            )
        if fitting[0].flag_bits & 1:
            raise SourceError(
                f"members of an archive must not be encrypted, found {fitting[0].filename!r} so;"
                " decrypt it first.",
                path,
            )
        with archive.open(fitting[0]) as member:
            yield member


def _blame(path: str, problem: str) -> None:
    """Reads the member again, line by line, and raises at the first that is no triplet."""
    with open_member(path) as member:
        for line, raw in enumerate(member, start=1):
            if raw.strip(b"\r\n") and not _is_triplet(raw):
                found = raw.decode("utf-8", "replace").rstrip("\r\n")[:120]
                raise SourceError(
                    "a line must be user, song and play count (1 to 1e9) between tabs, found"
                    f" {found!r}; correct it.",
                    path,
                    line,
                )
    raise SourceError(
        f"lines must be user, song and play count between tabs, found: {problem}; fetch the file"
        " again.",
        path,
    )


def _is_triplet(raw: bytes) -> bool:
    try:
        user, song, count = raw.decode("utf-8").rstrip("\r\n").split("\t")
        return bool(user and song) and BOUNDS[0] <= float(count) <= BOUNDS[1]
    except ValueError:
        return False
