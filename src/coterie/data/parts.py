"""Which files a path means, and in what form they can be scanned.

A path is one file, whatever signs its name has; a folder is all its files of one format, in order
of their names; an archive is a folder; a pattern is one only where that is asked for.
"""

import codecs
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import fsspec

from coterie.data.scan import has_no_words, is_json_lines
from coterie.data.source import (
    BLOCK,
    check_member_name,
    compression_of,
    ending_of,
    is_url,
    open_bytes,
    plain_name,
    reaching,
)
from coterie.errors import ConfigError, EmptySourceError, SourceError

_SCANNED_COMPRESSIONS = ("", ".gz", ".zst")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Part:
    """One file of a source.

    Args:
        path: What is read: the file, or a copy of it as plain UTF-8.
        source: The file itself, for errors and for ``key=value`` in its path.
    """

    path: str
    source: str

    def partitions(self) -> dict[str, str]:
        """The hive partitions in the path: values by name, as in ``day=2020-01-01/part-0.csv``."""
        pairs = (piece.split("=", 1) for piece in PurePosixPath(self.source).parts[:-1])
        return {
            unquote(name): "" if value == _HIVE_NULL else unquote(value)
            for name, value in _twos(pairs)
        }


def _twos(pairs: Iterator[list[str]]) -> Iterator[tuple[str, str]]:
    return ((pair[0], pair[1]) for pair in pairs if len(pair) == 2 and pair[0])


def files_of(path: str, *, pattern: bool = False) -> list[str]:
    """The files that a path means: itself, or a folder's in order of their names. Hidden ones, and
    those that begin with ``_`` as Spark's marks do, are passed over.

    Args:
        path: Local path or fsspec URL.
        pattern: Whether stars, question marks and brackets in the path stand for other signs.

    Raises:
        SourceError: if nothing is there, or a folder holds files of several formats.
        UnavailableError: if a URL cannot be reached.
    """
    with reaching(path):
        filesystem, inside = fsspec.core.url_to_fs(
            path if is_url(path) else str(Path(path).absolute())
        )
        if pattern:
            found = sorted(one for one in filesystem.glob(inside) if filesystem.isfile(one))
        elif filesystem.isdir(inside):
            found = sorted(
                one for one in filesystem.find(inside) if _is_visible(one[len(inside) :])
            )
        else:
            return [path]
    if not found:
        raise EmptySourceError("must hold at least one file, found none; check the path.", path)
    endings = {ending_of(one) for one in found}
    if len(endings) > 1:
        raise SourceError(
            f"a folder must hold files of one format, found {', '.join(sorted(endings))}; name"
            " some of them, or move the others.",
            path,
        )
    return [_named(filesystem, one) for one in found]


def _is_visible(inside: str) -> bool:
    return not any(part.startswith((".", "_")) for part in PurePosixPath(inside).parts)


def _named(filesystem: Any, inside: str) -> str:
    local = "file" in filesystem.protocol or "local" in filesystem.protocol
    return str(inside if local else filesystem.unstrip_protocol(inside))


def unpack_zip(path: str, scratch: Path) -> Path:
    """Unpacks an archive into a new folder; where it holds one folder alone, that one is returned.

    Raises:
        SourceError: if the archive is damaged or encrypted, or a member's name escapes it.
    """
    target = scratch / f"unpacked-{len(list(scratch.iterdir()))}"
    target.mkdir()
    with open_bytes(path) as file, zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            _check_member(member, path)
            archive.extract(member, target)
    inside = list(target.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else target


def _check_member(member: zipfile.ZipInfo, path: str) -> None:
    check_member_name(member.filename, path)
    if stat.S_ISLNK(member.external_attr >> 16):
        raise SourceError(
            f"members of an archive must be plain files, found the link {member.filename!r};"
            " do not use it.",
            path,
        )
    if member.flag_bits & 1:
        raise SourceError(
            f"members of an archive must not be encrypted, found {member.filename!r} so; decrypt"
            " it first.",
            path,
        )


def scannable(source: str, scratch: Path, encoding: str = "utf-8") -> Part:
    """The file itself or, where DuckDB reads neither its encoding nor its compression, a copy.

    Raises:
        ConfigError: if Python does not know the encoding.
        SourceError: if the file is not written in it.
    """
    as_it_is = _is_utf8(encoding) and compression_of(source) in _SCANNED_COMPRESSIONS
    as_it_is = as_it_is and not (is_json_lines(source) and _begins_with_mark(source))
    if as_it_is and not has_no_words(source):
        return Part(source, source)
    name = source if as_it_is else plain_name(source)
    copy = scratch / f"{len(list(scratch.iterdir()))}{''.join(PurePosixPath(name).suffixes[-2:])}"
    if as_it_is:
        copy.symlink_to(Path(source).absolute())
        return Part(str(copy), source)
    with open_bytes(source) as file, copy.open("wb") as target:
        if _is_utf8(encoding):
            target.write(file.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8))
            shutil.copyfileobj(file, target, BLOCK)
        else:
            _transcode(file, target, encoding, source)
    return Part(str(copy), source)


def _begins_with_mark(path: str) -> bool:
    with open_bytes(path) as file:
        return file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8


def _is_utf8(encoding: str) -> bool:
    try:
        " ".encode(encoding)  # Codecs of other things than text are refused here.
        return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    except (LookupError, UnicodeError) as error:
        raise ConfigError(
            f"encoding must be one that Python knows, found {encoding!r}; as in utf-8, cp1252 or"
            " utf-16."
        ) from error


def _transcode(file: Any, target: Any, encoding: str, source: str) -> None:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        while block := file.read(BLOCK):
            target.write(decoder.decode(block).encode())
        target.write(decoder.decode(b"", final=True).encode())
    except UnicodeError as error:
        raise SourceError(
            f"the file must be text in {encoding} ({error}); name its own encoding.", source
        ) from error


@contextmanager
def blaming(copies: Mapping[str, str]) -> Iterator[None]:
    """Around the reading of copies: a fault is one of the file that a copy was made of.

    Args:
        copies: Source by copy, files or folders; a later one may be the copy of an earlier one.

    Raises:
        SourceError: at the source.
    """
    try:
        yield
    except SourceError as error:
        path = error.path
        for copy, source in reversed(list(copies.items())):
            if path == copy or path.startswith(f"{copy}/"):
                path = source + path.removeprefix(copy)
        raise type(error)(error.problem, path, error.line) from error


def as_list(paths: Any) -> list[str]:
    """One path or several, as a list of texts.

    Raises:
        ConfigError: if there is none.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise ConfigError("a source must be at least one path, found none; name a file.")
    return [str(one) for one in given]


def all_files(paths: Sequence[str], *, pattern: bool) -> list[str]:
    """The files of several paths, in their order."""
    return [file for path in paths for file in files_of(path, pattern=pattern)]
