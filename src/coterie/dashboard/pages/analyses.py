"""What `coterie analyze` has left: of a service a folder a version, else wherever it was put."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coterie.dashboard.sources import Sources, mark_of
from coterie.errors import ArtifactError, NotFoundError
from coterie.map_file import MapFile

COMMAND = "coterie analyze"
_NUMBERS, _FACTS, _REPORT = "numbers.json", "analysis.json", "report.html"


@dataclass(frozen=True)
class Analysed:
    """An analysis.

    Args:
        key: Its folder, from the dashboard's on: a version's name, or a path.
        folder: Where it is.
        facts: Of a service's: version, week, and what changed since the one before.
    """

    key: str
    folder: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """As it is called."""
        return self.folder.resolve().name

    def numbers(self, sources: Sources) -> dict[str, Any]:
        """All that was measured.

        Raises:
            ArtifactError: if the file is damaged.
        """
        path = self.folder / _NUMBERS
        name = "numbers", str(path)
        return sources.kept.get(name, mark_of(path), lambda: _read(path, "settings"))

    def map(self, sources: Sources) -> MapFile:
        """Where people are.

        Raises:
            ArtifactError: if its files are damaged, or older than maps.
        """
        mark = mark_of(self.folder / "manifest.json")
        name = "map", str(self.folder)
        return sources.kept.get(name, mark, lambda: MapFile.read(self.folder))

    def report(self) -> bytes:
        """The whole page."""
        return (self.folder / _REPORT).read_bytes()


def analyses(sources: Sources) -> list[Analysed]:
    """All that are there: of a service by week, the oldest first. What is damaged is left out; see
    `damaged`.
    """
    return [one for one in map(_looked, _folders(sources)) if isinstance(one, Analysed)]


def damaged(sources: Sources) -> list[str]:
    """What is wrong with the analyses that cannot be shown."""
    return [one for one in map(_looked, _folders(sources)) if isinstance(one, str)]


def analysis(sources: Sources, key: str) -> Analysed:
    """One of them.

    Raises:
        NotFoundError: if there is none of that name.
    """
    for one in analyses(sources):
        if one.key == key:
            return one
    raise NotFoundError(
        f"an analysis must be one of those that are there, found {key[:80]!r}; choose from the"
        " list."
    )


def _folders(sources: Sources) -> list[tuple[str, Path]]:
    """Keys and folders, in the order of their weeks or names."""
    if sources.service is not None:
        found = list((sources.service.folder / "analysis").glob(f"[!.]*/{_FACTS}"))
        return sorted(((path.parent.name, path.parent) for path in found), key=_week)
    root = sources.folder
    found = [path for depth in ("", "*/", "*/*/") for path in root.glob(f"{depth}{_NUMBERS}")]
    there = [path.parent for path in sorted(found) if (path.parent / _REPORT).is_file()]
    return [(folder.relative_to(root).as_posix(), folder) for folder in there]


def _week(named: tuple[str, Path]) -> tuple[str, str]:
    """Versions of other names than weekly's come by the week they tell."""
    one = _looked(named)
    return ("", named[0]) if isinstance(one, str) else (str(one.facts["week"]), named[0])


def _looked(named: tuple[str, Path]) -> Analysed | str:
    key, folder = named
    path = folder / _FACTS
    try:
        return Analysed(key, folder, _read(path, "week") if path.is_file() else {})
    except ArtifactError as error:
        return str(error)


def _read(path: Path, needed: str) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        told[needed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: must be an analysis' JSON ({type(error).__name__}); {COMMAND} makes it anew."
        ) from error
    return told
