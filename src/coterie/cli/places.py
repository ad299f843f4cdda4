"""Paths that options name: checked while they are read, before any work begins.

Apart from the options because these rules are about disks, not about the command line.
"""

import os
import re
from pathlib import Path

from coterie.errors import CannotWriteError, ConfigError, NotFoundError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_ENDING = re.compile(r"[^/.]\.[A-Za-z]{2,7}(\.gz)?$")


# To be replaced by coterie.files.check_writable, of the same signature.
def check_writable(path: Path, *, folder: bool) -> None:
    """Checks, before long work, that a result can be written to ``path``; nothing is made yet.

    Args:
        path: Where the result will be.
        folder: Whether it is a folder.

    Raises:
        ConfigError: if the other kind is there.
        CannotWriteError: if the place cannot be made, or not be written.
    """
    wanted, found = ("folder", "file") if folder else ("file", "folder")
    if path.exists() and path.is_dir() != folder:
        raise ConfigError(
            f"{path}: must be a {wanted} or new, found a {found}; choose another name."
        )
    place = path.absolute() if folder else path.absolute().parent
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise CannotWriteError(
            f"{path}: must lie in a folder, found the file {place}; choose another place."
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise CannotWriteError(
            f"{path}: must lie where you may write, {place} is not such a place; choose another."
        )


def result_file(path: Path | None) -> Path | None:
    """A file that will be written, or nothing."""
    return _result(path, folder=False)


def result_folder(path: Path | None) -> Path | None:
    """A folder that will be written, or nothing."""
    return _result(path, folder=True)


def _result(path: Path | None, *, folder: bool) -> Path | None:
    if path is None:
        return None
    if _URL.match(str(path)):
        raise ConfigError(
            f"{path}: this result must go to a local path, found a URL; write it here and copy it."
        )
    check_writable(path, folder=folder)
    return path


def result_table_or_folder(path: str) -> str:
    """Where recommendations go: a table by its ending, else a folder or a URL.

    An ending that no table has (``recs.tsv``, ``recs.CSV``) is a slip, not the name of a folder.
    """
    from coterie.recommend.table_files import is_table  # noqa: PLC0415

    if is_table(path):
        result_file(Path(path))
    elif path == "-" or (_ENDING.search(path) and not Path(path).is_dir()):
        raise ConfigError(
            "--out must be a file ending in .parquet, .csv or .jsonl, or a folder or URL, found"
            f" {path!r}; end it with one of those, or with / to mean a folder."
        )
    elif not _URL.match(path):
        result_folder(Path(path))
    return path


def existing(path: Path | None) -> Path | None:
    """A file or folder that must be there, or nothing.

    Raises:
        NotFoundError: if it is not.
    """
    if path is not None and not path.exists():
        raise NotFoundError(f"{path}: must be there, nothing was found; check the path.")
    return path
