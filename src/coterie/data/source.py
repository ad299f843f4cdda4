"""Source files: local or behind an fsspec URL; opened, fingerprinted, and blamed by line.

Apart from the formats because every reader opens, hashes and refuses files by the same rules.
"""

import csv
import gzip
import hashlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec

from coterie.errors import ConfigError, MissingPackageError, SourceError, UnavailableError

BLOCK = 1 << 20

# zipfile raises NotImplementedError for a compression it does not know, as damaged headers may
# name.
_DAMAGE = (EOFError, OSError, zlib.error, tarfile.TarError, zipfile.BadZipFile, NotImplementedError)


def is_url(path: str) -> bool:
    """Whether ``path`` goes through fsspec (``s3://…``, ``memory://…``) and not the local disk."""
    return "://" in path


def is_gzip(path: str) -> bool:
    """Whether the name says that the bytes are gzipped."""
    return path.endswith((".gz", ".tgz"))


def exists(path: str) -> bool:
    """Whether a file or folder is there, locally or behind a URL."""
    if not is_url(path):
        return Path(path).exists()
    with _reaching(path):
        filesystem, inside = fsspec.core.url_to_fs(path)
        return bool(filesystem.exists(inside))


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """What stands between here and ``url`` becomes an error that says so.

    Each file system has errors of its own (credentials, names, networks), which share no class.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except ImportError as error:
        raise MissingPackageError(
            f"{url}: needs a package that is not installed ({error}); for s3, pip install"
            " 'coterie[s3]'."
        ) from error
    except Exception as error:
        if isinstance(error, ValueError) and "Protocol not known" in str(error):
            raise ConfigError(
                f"{url}: the protocol must be one that fsspec knows, as in s3:// ({error})."
            ) from error
        raise UnavailableError(
            f"{url}: cannot be reached ({error}); check the address, the credentials and the"
            " network."
        ) from error


@contextmanager
def open_bytes(path: str, *, unpack: bool = True) -> Iterator[IO[bytes]]:
    """Opens a source for reading, through gzip where its name ends in ``.gz``.

    Args:
        path: Local path or fsspec URL.
        unpack: False reads the bytes as they lie on the disk.

    Raises:
        SourceError: if the file is missing or is found damaged, also while the caller reads it.
        UnavailableError: if a URL cannot be reached.
    """
    try:
        with _open(path) as file:
            if unpack and is_gzip(path):
                with gzip.open(file) as unpacked:
                    yield unpacked  # type: ignore[misc]
            else:
                yield file
    except FileNotFoundError as error:
        raise SourceError("the file must exist, none was found; check the path.", path) from error
    except _DAMAGE as error:
        raise SourceError(
            f"the file must be whole and readable, found: {error}; fetch it again.", path
        ) from error


def _open(path: str) -> IO[bytes]:
    if not is_url(path):
        return Path(path).open("rb")
    with _reaching(path):
        opened: IO[bytes] = fsspec.open(path, "rb").open()
        return opened


@contextmanager
def open_text(path: str, encoding: str = "utf-8") -> Iterator[IO[str]]:
    """Opens a source as text, line ends kept; bytes that are no text become U+FFFD, to be found and
    refused by line.
    """
    with (
        open_bytes(path) as file,
        io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="") as text,
    ):
        yield text


def fingerprint(paths: Sequence[str], name: str) -> dict[str, Any]:
    """The manifest's entry of a source: ``{"file", "bytes", "sha256"}``.

    Several files that are one source (Netflix's 17,770) are hashed as if joined in the order given.
    A gzip file is unpacked once as well: its check sum, at its end, is the one thing that tells a
    damaged copy.
    """
    digest, size = hashlib.sha256(), 0
    for path in paths:
        with open_bytes(path, unpack=False) as file:
            while block := file.read(BLOCK):
                digest.update(block)
                size += len(block)
        if is_gzip(path):
            with open_bytes(path) as file:
                while file.read(BLOCK):
                    pass
    return {"file": name, "bytes": size, "sha256": digest.hexdigest()}


def line_of_record(
    path: str, record: int, quote: str, *, count_blank: bool = False
) -> tuple[int, str]:
    """Finds where a record begins; a quoted field may span lines.

    A slow second pass, made only to say where a fault is.

    Args:
        path: A delimited text file.
        record: 0-based, a header counting as one.
        quote: The quoting character, or ``""``.
        count_blank: Count blank lines as records.

    Returns:
        The 1-based line, and its text.
    """
    begins, found = 1, -1
    with open_text(path) as text:
        lines = _Remembering(text)
        rows = csv.reader(
            lines, quotechar=quote or None, quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
        )
        for row in rows:
            found += bool(row) or count_blank
            if found == record:
                break
            begins = rows.line_num + 1
            lines.since.clear()
    return begins, "".join(lines.since).rstrip("\r\n")


class _Remembering:
    """An iterator over lines that remembers those since the last ``since.clear()``."""

    def __init__(self, lines: IO[str]) -> None:
        self._lines = lines
        self.since: list[str] = []

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.since.append(line)
            yield line


def check_member_name(name: str, archive: str) -> None:
    """Refuses an archive member that would land outside the folder it is unpacked in.

    Nothing is ever unpacked here; an archive with such a name was made to harm, and is not trusted
    further.

    Raises:
        SourceError: if the name is absolute or climbs with ``..``.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in name:
        raise SourceError(
            f"members of an archive must lie inside it, found {name!r}; do not use this archive.",
            archive,
        )
