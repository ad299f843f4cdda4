"""Source files: local or behind an fsspec URL; opened, fingerprinted, and blamed by line.

Apart from the formats because every reader opens, hashes and refuses files by the same rules.
"""

import bz2
import gzip
import hashlib
import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import fsspec
import pyarrow as pa

from coterie.errors import (
    ConfigError,
    MissingPackageError,
    NotFoundError,
    SourceError,
    UnavailableError,
)

BLOCK = 1 << 20

# zipfile raises NotImplementedError for a compression it does not know, as damaged headers may
# name.
_DAMAGE = (EOFError, OSError, zlib.error, tarfile.TarError, zipfile.BadZipFile, NotImplementedError)


def _zstandard(file: IO[bytes]) -> IO[bytes]:
    return cast(IO[bytes], pa.CompressedInputStream(file, "zstd"))


_UNPACK: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": gzip.open,
    ".tgz": gzip.open,
    ".zst": _zstandard,
    ".bz2": bz2.open,
}


def is_url(path: str) -> bool:
    """Whether ``path`` goes through fsspec (``s3://…``, ``memory://…``) and not the local disk."""
    return "://" in path


def compression_of(path: str) -> str:
    """The ending that says how the bytes are compressed, in small letters; empty if none does."""
    ending = PurePosixPath(path).suffix.lower()
    return ending if ending in _UNPACK else ""


def plain_name(path: str) -> str:
    """The path in small letters, without the ending of a compression: what it says of the format.

    Example:
        >>> plain_name("Plays.CSV.gz")
        'plays.csv'
    """
    return path.lower().removesuffix(compression_of(path))


def ending_of(path: str) -> str:
    """The ending that names the format, as in ``.csv``; empty if there is none."""
    return PurePosixPath(plain_name(path)).suffix


def name_of(path: str) -> str:
    """A file's own name, bytes in it that are no text written as escapes."""
    return Path(path).name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def exists(path: str) -> bool:
    """Whether a file or folder is there, locally or behind a URL.

    Raises:
        SourceError: if it is a pipe.
    """
    if not is_url(path):
        if Path(path).is_fifo():
            raise SourceError(
                "a source must be a file, as it is read more than once, found a pipe; write it to a"
                " file first.",
                path,
            )
        return Path(path).exists()
    with reaching(path):
        filesystem, inside = fsspec.core.url_to_fs(path)
        return bool(filesystem.exists(inside))


@contextmanager
def reaching(url: str) -> Iterator[None]:
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
    """Opens a source for reading, unpacked where its name ends in ``.gz``, ``.zst`` or ``.bz2``.

    Args:
        path: Local path or fsspec URL.
        unpack: False reads the bytes as they lie on the disk.

    Raises:
        NotFoundError: if the file is missing.
        SourceError: if it is found damaged, also while the caller reads it.
        UnavailableError: if a URL cannot be reached.
    """
    try:
        with _open(path) as file:
            compression = compression_of(path)
            if unpack and compression:
                with _UNPACK[compression](file) as unpacked:
                    yield unpacked
            else:
                yield file
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path}: the file must exist, none was found; check the path."
        ) from error
    except _DAMAGE as error:
        raise SourceError(
            f"the file must be whole and readable, found: {error}; fetch it again.", path
        ) from error


def _open(path: str) -> IO[bytes]:
    if not is_url(path):
        return Path(path).open("rb")
    with reaching(path):
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
    A compressed file is unpacked once as well: its check sum, at its end, is the one thing that
    tells a damaged copy.
    """
    digest, size = hashlib.sha256(), 0
    for path in paths:
        with open_bytes(path, unpack=False) as file:
            while block := file.read(BLOCK):
                digest.update(block)
                size += len(block)
        if compression_of(path):
            with open_bytes(path) as file:
                while file.read(BLOCK):
                    pass
    return {"file": name, "bytes": size, "sha256": digest.hexdigest()}


def line_of_record(
    path: str, record: int, delimiter: str, quote: str, *, count_blank: bool = False
) -> tuple[int, str]:
    """Finds where a record begins; a quoted field may span lines.

    A slow second pass, made only to say where a fault is. Python's csv module would not do: its
    fields and its delimiters are short.

    Args:
        path: A delimited text file.
        record: 0-based, a header counting as one.
        delimiter: Between fields.
        quote: The quoting character, or ``""``.
        count_blank: Count blank lines as records.

    Returns:
        The 1-based line, and the record's text.
    """
    begins, found, held = 1, -1, list[str]()
    with open_text(path) as text:
        for number, line in enumerate(text, start=1):
            held.append(line)
            if quote and _is_open("".join(held), delimiter, quote):
                continue
            found += count_blank or bool(line.strip("\r\n"))
            if found == record:
                break
            begins, held = number + 1, []
    return begins, "".join(held).rstrip("\r\n")


def _is_open(record: str, delimiter: str, quote: str) -> bool:
    """Whether a quoted field goes on at the end of what was read of a record."""
    sign = re.escape(quote)
    quoted = re.compile(f"{sign}(?:[^{sign}]++|{sign}{sign})*+{sign}")
    place = 0
    while record.find(quote, place) >= 0:
        if record.startswith(quote, place):
            field = quoted.match(record, place)
            if field is None:
                return True
            place = field.end()
        place = record.find(delimiter, place) + len(delimiter)
        if place < len(delimiter):
            return False
    return False


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
