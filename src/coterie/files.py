"""Files written whole or not at all, and the checksums that tell whether they still are.

Apart from the rooms because data sets, artifacts, checkpoints and reports all publish by the same
rule: write aside, flush to the disk, then rename. What cannot be written is one error,
`CannotWriteError`, whichever library met it.
"""

import ctypes
import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coterie.errors import (
    ArtifactError,
    CannotWriteError,
    ConfigError,
    ConflictError,
    CoterieError,
)

_NO_ROOM = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)))

# Two letters at least: a drive has one.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

# Longer than a live process takes between two renames.
_PAUSE_SECONDS = 0.2


def local(path: str | Path) -> Path:
    """The path, which must be one of this machine: ``Path`` takes a URL for a folder's name.

    Raises:
        ConfigError: if it is a URL.

    Example:
        >>> local("s3://bucket/run")
        Traceback (most recent call last):
        ...
        coterie.errors.ConfigError: s3:/bucket/run: must be a local path here, found a URL; ...
    """
    path = Path(path)
    if _URL.match(str(path)):
        raise ConfigError(
            f"{path}: must be a local path here, found a URL; keep it here and copy it there."
        )
    return path


@contextmanager
def publish_file(path: str | Path, aside_folder: str | Path | None = None) -> Iterator[Path]:
    """Yields a path to write to; on success it replaces ``path``, on failure nothing remains.

    Args:
        path: Where the file will be.
        aside_folder: Where it is written first, on the same disk, for one that can be cleared after
            a kill; beside ``path`` if None.

    Raises:
        CannotWriteError: if there are no rights, there is no room, or a folder has the name.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with publish_file(Path(folder) / "a.txt") as aside:
        ...         _ = aside.write_text("whole")
        ...     (Path(folder) / "a.txt").read_text()
        'whole'
    """
    path = local(path)
    aside_folder = path.parent if aside_folder is None else Path(aside_folder)
    # The suffix stays last: writers choose a format or a compression by it. Random, as machines may
    # share a disk.
    aside = aside_folder / f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}"
    with writing_to(path):
        for folder in (path.parent, aside_folder):
            folder.mkdir(parents=True, exist_ok=True)
        aside.touch()
        rights = aside.stat().st_mode & 0o666
    try:
        with _room_for(path):
            yield aside
        with writing_to(path):
            _seal(aside, rights)
            os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def publish_folder(path: str | Path, kind: str = "manifest.json") -> Iterator[Path]:
    """Yields an empty folder to fill; on success it takes the place of ``path``, on failure nothing
    of it remains.

    On Linux the two change places in one step, so that there is a whole folder at every moment.
    Elsewhere the older one is moved aside first; where a crash leaves it there, `recover` puts it
    back.

    Args:
        path: Where the folder will be.
        kind: A file that an older folder of the same kind has; any other folder with something in
            it is not ours to replace.

    Raises:
        ConflictError: if ``path`` is a file, or a folder that holds something else.
        CannotWriteError: if there are no rights or there is no room.
    """
    path = local(path).resolve()
    recover(path)
    check_replaceable(path, kind)
    with writing_to(path):
        aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        aside.mkdir(parents=True)
        rights = aside.stat().st_mode & 0o666
    try:
        with _room_for(path):
            yield aside
        with writing_to(path):
            for file in filter(Path.is_file, aside.rglob("*")):
                _seal(file, rights)
            _take_place(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _take_place(aside: Path, path: Path) -> None:
    """Renames ``aside`` to ``path``; an older folder there is in its place afterwards, or gone."""
    try:
        os.replace(aside, path)  # new or empty
    except OSError:
        if not _exchange(aside, path):
            _replace_in_two_steps(aside, path)


def _exchange(one: Path, other: Path) -> bool:
    """Two names change places in one step; False where system or disk cannot do it."""
    if sys.platform != "linux":
        return False
    exchange = getattr(ctypes.CDLL(None), "renameat2", None)
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return exchange is not None and not exchange(
        here, os.fsencode(one), here, os.fsencode(other), swap
    )


def _replace_in_two_steps(aside: Path, path: Path) -> None:
    old = aside.with_suffix(".old")
    try:
        os.replace(path, old)
        os.replace(aside, path)
    finally:
        _put_back(old, path)


def _put_back(old: Path, path: Path) -> None:
    """The folder that was moved aside, to where it was or, if that is taken, away."""
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(old, path)


def recover(path: Path) -> None:
    """Puts a folder back that a crash left aside in the middle of being replaced.

    Readers that find none and whoever replaces one call it; mostly there is nothing to do.
    """
    for old in path.parent.glob(f".{glob.escape(path.name)}.*.old"):
        if not path.exists():
            time.sleep(_PAUSE_SECONDS)
        # Another process may be doing the same, or this one have no rights: then none is found.
        with suppress(OSError):
            _put_back(old, path)


def point(link: str | Path, folder: str | Path) -> None:
    """Makes ``link`` a symbolic link to ``folder``, in one step, whatever it pointed to before.

    For versions of which one is in use: a reader that resolves the link once sees the files of one
    version, whatever happens meanwhile.

    Args:
        link: New, or a link.
        folder: Need not be there; the link is relative, so both can move together.

    Raises:
        CannotWriteError: if there are no rights, or ``link`` is a folder itself.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for version in ("1", "2"):
        ...         (Path(folder) / version).mkdir()
        ...         point(Path(folder) / "live", Path(folder) / version)
        ...     (Path(folder) / "live").resolve().name
        '2'
    """
    link = local(link)
    aside = link.with_name(f".{link.name}.{secrets.token_hex(4)}.part")
    with writing_to(link):
        aside.symlink_to(os.path.relpath(folder, link.parent), target_is_directory=True)
        try:
            os.replace(aside, link)
        finally:
            aside.unlink(missing_ok=True)


def check_replaceable(path: Path, kind: str) -> None:
    """Raises what `publish_folder` would raise at its end, for before long work."""
    _check_kind(path, folder=True)
    _try_writing(path.parent, path)
    if path.exists() and any(path.iterdir()) and not (path / kind).exists():
        raise ConflictError(
            f"{path}: only an empty folder or an older result (with {kind}) is replaced, found"
            " other files; choose another folder."
        )


def check_writable(path: Path, *, folder: bool) -> None:
    """Checks that a result can be written to ``path``, for before long work; leaves nothing there.

    Args:
        path: Of the result. Folders above it may be missing: they are made when it is written.
        folder: Whether files are written into ``path``, or ``path`` is a file that is replaced.

    Raises:
        ConfigError: if it is a URL.
        ConflictError: if a file is where the folder should be, or the other way round.
        CannotWriteError: if there are no rights, the disk is full, or a file stands where a folder
            above should be.
    """
    _check_kind(local(path), folder=folder)
    _try_writing(path if folder else path.parent, path)


def _check_kind(path: Path, *, folder: bool) -> None:
    kind, other = ("folder", "file") if folder else ("file", "folder")
    with writing_to(path):
        if path.exists() and path.is_dir() != folder:
            raise ConflictError(
                f"{path}: must be a {kind} or new, found a {other}; choose another name."
            )


def _try_writing(folder: Path, path: Path) -> None:
    """Makes a file without a name in ``folder``, or in the closest folder above that is there."""
    with writing_to(path):
        folder = folder.absolute()
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise CannotWriteError(
                f"{path}: must lie in a folder, found the file {folder}; choose another place."
            )
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def writing_to(path: str | Path) -> Iterator[None]:
    """Any failure of the system in the block is a `CannotWriteError` about ``path``."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error.strerror or str(error)) from error


@contextmanager
def _room_for(path: Path) -> Iterator[None]:
    """Around a block that may also read: only a lack of room is surely about ``path``.

    Libraries in C++ and Rust raise errors of their own kinds; the system's words are in all.
    """
    try:
        yield
    except Exception as error:
        words = next((words for words in _NO_ROOM if words in str(error)), None)
        if words is None or isinstance(error, CoterieError):
            raise
        raise _cannot_write(path, words) from error


def _cannot_write(path: str | Path, found: str) -> CannotWriteError:
    return CannotWriteError(
        f"{path}: must be in a folder that can be written, with room on the disk, found:"
        f" {found.lower()}; choose another place, or change rights or room."
    )


def _seal(path: Path, rights: int) -> None:
    """Flushes a file to the disk, with the rights that the caller's mask gives new files.

    Some libraries give their own: safetensors lets nobody but the owner read.
    """
    path.chmod(rights)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Writes ``value`` as indented JSON with sorted keys, whole or not at all."""
    with publish_file(path) as aside:
        aside.write_text(
            json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )


def read_manifest(
    folder: Path, schema: str, *, files: bool = True, name: str = "manifest.json"
) -> dict[str, Any]:
    """Reads the manifest of a published folder and checks its schema and every file it lists.

    Args:
        folder: The folder.
        schema: That it must have.
        files: Whether to check the files, which are then read whole.
        name: Of the manifest.

    Raises:
        ArtifactError: if the manifest is missing or unreadable, names another schema, or a listed
            file is missing or differs from its checksum.
    """
    path = local(folder) / name
    if not path.is_file():
        recover(folder)
    if not path.is_file():
        raise ArtifactError(
            f"{folder}: a {schema} folder must hold {name}, none was found; check the path"
            " or make it anew."
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found, listed = manifest["schema"], dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: must be JSON with 'schema' and 'files' ({error}); make the folder anew."
        ) from error
    if found != schema:
        raise ArtifactError(
            f"{path}: schema must be {schema!r}, found {found!r}; use the Coterie version that"
            " wrote it."
        )
    if not listed:
        raise ArtifactError(
            f"{path}: must hold the checksum of every file, found none; make the folder anew."
        )
    if files:
        _check_files(folder, listed)
    return manifest


def _check_files(folder: Path, files: dict[str, str]) -> None:
    for name, checksum in files.items():
        file = folder / name
        if not file.is_file():
            raise ArtifactError(
                f"{file}: listed in manifest.json but missing; restore it or make the folder anew."
            )
        try:
            found = sha256(file)
        except OSError as error:
            raise ArtifactError(
                f"{file}: must be readable, found {error}; change its rights or make the folder"
                " anew."
            ) from error
        if found != checksum:
            raise ArtifactError(
                f"{file}: its bytes differ from the checksum in manifest.json; restore it or make"
                " the folder anew."
            )


def write_manifest(folder: Path, schema: str, **fields: Any) -> None:
    """Writes ``manifest.json`` with the checksum of every file already in ``folder``."""
    files = {
        file.name: sha256(file) for file in sorted(folder.iterdir()) if file.name != "manifest.json"
    }
    write_json(folder / "manifest.json", {"schema": schema, "files": files, **fields})
