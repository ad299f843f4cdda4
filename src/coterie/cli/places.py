"""Paths that options name: checked while they are read, before any work begins.

Apart from the options because these rules are about disks, not about the command line.
"""

import re
from pathlib import Path

from coterie.errors import ConfigError, NotFoundError
from coterie.files import check_writable, local

_ENDING = re.compile(r"[^/.]\.[A-Za-z]{2,7}(\.gz)?$")


def result_file(path: Path | None) -> Path | None:
    """A file that will be written, or nothing."""
    return _result(path, folder=False)


def result_folder(path: Path | None) -> Path | None:
    """A folder that will be written, or nothing."""
    return _result(path, folder=True)


def _result(path: Path | None, *, folder: bool) -> Path | None:
    if path is None:
        return None
    check_writable(path, folder=folder)
    return path


def result_table_or_folder(path: str) -> str:
    """Where recommendations go: a table by its ending, else a folder or a URL.

    An ending that no table has (``recs.tsv``, ``recs.CSV``) is a slip, not the name of a folder.
    """
    from coterie.ranking.table_files import is_table  # noqa: PLC0415

    if is_table(path):
        result_file(Path(path))
    elif path == "-" or (_ENDING.search(path) and not Path(path).is_dir()):
        raise ConfigError(
            "--out must be a file ending in .parquet, .csv or .jsonl, or a folder or URL, found"
            f" {path!r}; end it with one of those, or with / to mean a folder."
        )
    elif "://" not in path:
        result_folder(Path(path))
    return path


def existing(path: Path | None) -> Path | None:
    """A file or folder that must be there, or nothing.

    Raises:
        NotFoundError: if it is not.
    """
    if path is not None and not local(path).exists():
        raise NotFoundError(f"{path}: must be there, nothing was found; check the path.")
    return path
