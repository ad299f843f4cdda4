"""Files written whole or not at all, and the checksums that tell whether they still are.

Apart from the rooms because data sets, artifacts, checkpoints and reports all publish by the same
rule: write aside, flush to the disk, then rename.
"""

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coterie.errors import ArtifactError, ConfigError


@contextmanager
def publish_file(path: str | Path, aside_folder: str | Path | None = None) -> Iterator[Path]:
    """Yields a path to write to; on success it replaces ``path``, on failure nothing remains.

    Args:
        path: Where the file will be.
        aside_folder: Where it is written first, on the same disk, for one that can be cleared after
            a kill; beside ``path`` if None.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with publish_file(Path(folder) / "a.txt") as aside:
        ...         _ = aside.write_text("whole")
        ...     (Path(folder) / "a.txt").read_text()
        'whole'
    """
    path = Path(path)
    aside_folder = path.parent if aside_folder is None else Path(aside_folder)
    for folder in (path.parent, aside_folder):
        folder.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers choose a format or a compression by it. Random, as machines may
    # share a disk.
    aside = aside_folder / f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}"
    try:
        yield aside
        _flush(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def publish_folder(path: str | Path, kind: str = "manifest.json") -> Iterator[Path]:
    """Yields an empty folder to fill; on success it takes the place of ``path``, on failure nothing
    remains.

    A folder cannot be replaced in one rename, so an older one is moved aside first and removed
    last.

    Args:
        path: Where the folder will be.
        kind: A file that an older folder of the same kind has; any other folder with something in
            it is not ours to replace.

    Raises:
        ConfigError: if ``path`` is a file, or a folder that holds something else.
    """
    path = Path(path).resolve()
    check_replaceable(path, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        yield aside
        aside.chmod(0o755)
        for file in aside.rglob("*"):
            _flush(file)
        if path.exists():
            old = aside.with_suffix(".old")
            os.replace(path, old)
            os.replace(aside, path)
            shutil.rmtree(old)
        else:
            os.replace(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_replaceable(path: Path, kind: str) -> None:
    """Sees, before long work, that `publish_folder` will take ``path``; raises what it raises."""
    if not path.exists():
        return
    if not path.is_dir():
        raise ConfigError(f"{path}: must be a folder or new, found a file; choose another name.")
    if any(path.iterdir()) and not (path / kind).exists():
        raise ConfigError(
            f"{path}: only an empty folder or an older result (with {kind}) is replaced, found"
            " other files; choose another folder."
        )


def _flush(path: Path) -> None:
    if path.is_file():
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


def read_manifest(folder: Path, schema: str) -> dict[str, Any]:
    """Reads ``manifest.json`` of a published folder and checks its schema and every file it lists.

    Raises:
        ArtifactError: if the manifest is missing or unreadable, names another schema, or a listed
            file is missing or differs from its checksum.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise ArtifactError(
            f"{folder}: a {schema} folder must hold manifest.json, none was found; check the path"
            " or make it anew."
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found, files = manifest["schema"], dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: must be JSON with 'schema' and 'files' ({error}); make the folder anew."
        ) from error
    if found != schema:
        raise ArtifactError(
            f"{path}: schema must be {schema!r}, found {found!r}; use the Coterie version that"
            " wrote it."
        )
    if not files:
        raise ArtifactError(
            f"{path}: must hold the checksum of every file, found none; make the folder anew."
        )
    for name, checksum in files.items():
        file = folder / name
        if not file.is_file():
            raise ArtifactError(
                f"{file}: listed in manifest.json but missing; restore it or make the folder anew."
            )
        if sha256(file) != checksum:
            raise ArtifactError(
                f"{file}: its bytes differ from the checksum in manifest.json; restore it or make"
                " the folder anew."
            )
    return manifest


def write_manifest(folder: Path, schema: str, **fields: Any) -> None:
    """Writes ``manifest.json`` with the checksum of every file already in ``folder``."""
    files = {
        file.name: sha256(file) for file in sorted(folder.iterdir()) if file.name != "manifest.json"
    }
    write_json(folder / "manifest.json", {"schema": schema, "files": files, **fields})
