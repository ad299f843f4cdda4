"""A folder of results on the local disk or behind an fsspec URL, whose files appear whole or not at
all.

Apart from `coterie.files` because an object store has no rename: there an upload is atomic, so a
file is written to the local disk and put. On the local disk it is written aside and renamed, as
everywhere.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from coterie.data.source import is_url
from coterie.errors import ArtifactError, ConfigError
from coterie.files import publish_file, write_json

WORK = ".work"
"""The part of a folder that is needed until it is complete; readers of Parquet folders pass over
names with a dot.
"""

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Folder:
    """A folder, small enough to be sent to another process.

    Args:
        path: Local path or fsspec URL (``s3://…``, ``memory://…``).

    Raises:
        ConfigError: if the URL's kind is unknown or needs a package that is missing.

    Example:
        >>> folder = Folder("memory://shelf")
        >>> with folder.publish("a.txt") as aside:
        ...     _ = aside.write_text("whole")
        >>> folder.sizes()
        {'a.txt': 5}
        >>> folder.remove("a.txt")
    """

    path: str

    def __post_init__(self) -> None:
        if not is_url(self.path):
            object.__setattr__(self, "path", str(Path(self.path).resolve()))
        try:
            fsspec.core.url_to_fs(self.path)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"{self.path}: must be a local path or a URL that fsspec can open ({error})."
            ) from error

    def url(self, name: str) -> str:
        """Where a file of the folder is."""
        return f"{self.path.rstrip('/')}/{name}"

    @contextmanager
    def publish(self, name: str) -> Iterator[Path]:
        """Yields a local path to write to; on success its content appears under ``name``, on
        failure nothing does.
        """
        filesystem, inside = fsspec.core.url_to_fs(self.url(name))
        if isinstance(filesystem, LocalFileSystem):
            with publish_file(inside, aside_folder=self.url(WORK)) as aside:
                yield aside
            return
        with tempfile.TemporaryDirectory(prefix="coterie-") as folder:
            aside = Path(folder) / PurePosixPath(name).name
            yield aside
            filesystem.put_file(str(aside), inside)

    def write_json(self, name: str, value: Any) -> None:
        """Publishes ``value`` as indented JSON with sorted keys."""
        with self.publish(name) as aside:
            write_json(aside, value)

    def read_json(self, name: str) -> Any:
        """Reads JSON; None where there is no such file.

        Raises:
            ArtifactError: if the file is no JSON.
        """
        filesystem, inside = fsspec.core.url_to_fs(self.url(name))
        try:
            return json.loads(filesystem.cat_file(inside))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ArtifactError(
                f"{self.url(name)}: must be JSON ({error}); remove the folder and make it anew."
            ) from error

    def sizes(self, below: str = "") -> dict[str, int]:
        """Bytes of each file and 0 for each folder, by name, of the folder itself or of one below;
        empty if it is not there.

        Raises:
            ConfigError: if a file stands where the folder should be, or the store cannot be
                reached.
        """
        url = self.url(below).rstrip("/")
        filesystem, inside = fsspec.core.url_to_fs(url)
        # Another process may have written since the file system last looked.
        filesystem.invalidate_cache()
        if filesystem.isfile(inside):
            raise ConfigError(f"{url}: must be a folder or new, found a file; choose another name.")
        try:
            found = filesystem.ls(inside, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except Exception as error:
            # Each store's client raises kinds of its own, as when there are no credentials.
            raise ConfigError(
                f"{url}: must be a folder that can be listed ({error}); check address and rights."
            ) from error
        return {
            PurePosixPath(one["name"]).name: int(one["size"] or 0) if one["type"] == "file" else 0
            for one in found
        }

    def sha256(self, name: str) -> str:
        """Hex SHA-256 of a file's bytes, read in blocks."""
        filesystem, inside = fsspec.core.url_to_fs(self.url(name))
        digest = hashlib.sha256()
        with filesystem.open(inside, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with all that is in it, if there is one."""
        filesystem, inside = fsspec.core.url_to_fs(self.url(name))
        # What is not there, or is removed by another process at the same time, needs no removing.
        with suppress(FileNotFoundError):
            filesystem.rm(inside, recursive=True)
