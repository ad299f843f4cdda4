"""A map of people in the plane as files: places for whoever draws, names for whoever looks.

``map.bin`` is little-endian: 8 bytes of magic, the length of the header as uint32, the header as
JSON padded with spaces to a multiple of 4 bytes; then for each layout float32 ``[n, 2]`` places of
people and, where it has them, ``[m, 2]`` of titles; then uint32 ``[n]`` numbers of items, then
uint8 ``[n]`` cohorts. ``map-names.json`` has ids and titles, which are needed later and are longer.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coterie.errors import ArtifactError
from coterie.files import write_json

MAGIC = b"COTMAP1\0"
POINTS, NAMES = "map.bin", "map-names.json"


@dataclass(frozen=True, eq=False)
class Layout:
    """Where people and titles are, in one model.

    Args:
        name: Of the model, and how it was laid out.
        users: ``[n, 2]``.
        items: ``[m, 2]``; None if there are none.
        facts: What else is known of it, JSON values: ``items_are``, ``disparity``, ``shares``.
    """

    name: str
    users: np.ndarray
    items: np.ndarray | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class MapFile:
    """The same people in one or more layouts.

    Args:
        user_ids: ``n`` of them, integers or texts.
        counts: ``[n]`` items of each.
        cohort_names: At most 256.
        cohorts: ``[n]`` numbers of ``cohort_names``.
        layouts: One at least.
        item_ids: ``m`` of them.
        titles: ``m`` names; None where an item has none.
        facts: Of the whole map, JSON values.
    """

    user_ids: Sequence[int | str]
    counts: np.ndarray
    cohort_names: Sequence[str]
    cohorts: np.ndarray
    layouts: Sequence[Layout]
    item_ids: Sequence[int | str] = ()
    titles: Sequence[str | None] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """What ``map.bin`` holds.

        Example:
            >>> one = Layout("a", np.array([[0.5, 2.0]]))
            >>> told = MapFile(["x"], np.array([7]), ["5-10"], np.array([0]), [one]).to_bytes()
            >>> told[:7], len(told) % 4, told[-13:].hex()
            (b'COTMAP1', 1, '0000003f000000400700000000')
        """
        header = json.dumps(self._header()).encode()
        header += b" " * (-len(header) % 4)
        placed = [one for layout in self.layouts for one in (layout.users, layout.items)]
        arrays = [np.asarray(one, "<f4") for one in placed if one is not None]
        arrays += [np.asarray(self.counts, "<u4"), np.asarray(self.cohorts, "u1")]
        length = np.uint32(len(header)).astype("<u4").tobytes()
        return b"".join([MAGIC, length, header, *(one.tobytes() for one in arrays)])

    def names(self) -> dict[str, Any]:
        """What ``map-names.json`` holds."""
        ids = {"users": list(self.user_ids), "items": list(self.item_ids)}
        return {**ids, "titles": list(self.titles)}

    def write(self, folder: str | Path) -> None:
        """Writes both files."""
        (Path(folder) / POINTS).write_bytes(self.to_bytes())
        write_json(Path(folder) / NAMES, self.names())

    @classmethod
    def read(cls, folder: str | Path) -> "MapFile":
        """Reads both files.

        Raises:
            ArtifactError: if they are not there, not whole, or not of each other.
        """
        folder = Path(folder)
        try:
            return cls._of((folder / POINTS).read_bytes(), _json(folder / NAMES))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{folder}: must hold a whole {POINTS} and its {NAMES} ({error}); analyze anew."
            ) from error

    @classmethod
    def _of(cls, content: bytes, names: Mapping[str, Any]) -> "MapFile":
        header, start = _header_of(content)
        n, m = len(names["users"]), len(names["items"])
        if (n, m) != (header["users"], header["items"]):
            raise ValueError(f"names of {n} people and {m} titles for others")
        layouts, at = [], start
        for one in header["layouts"]:
            users, items, at = _places(content, at, n, m if one["has_items"] else None)
            layouts.append(Layout(one["name"], users, items, one["facts"]))
        counts = np.frombuffer(content, "<u4", n, at)
        cohorts = np.frombuffer(content, "u1", n, at + 4 * n)
        ids = names["users"], names["items"]
        return cls(
            ids[0], counts, header["cohorts"], cohorts, layouts, ids[1], names["titles"],
            header["facts"],
        )  # fmt: skip

    def _header(self) -> dict[str, Any]:
        layouts = [
            {"name": one.name, "has_items": one.items is not None, "facts": dict(one.facts)}
            for one in self.layouts
        ]
        return {
            "users": len(self.user_ids),
            "items": len(self.item_ids),
            "cohorts": list(self.cohort_names),
            "layouts": layouts,
            "facts": dict(self.facts),
        }


def _header_of(content: bytes) -> tuple[dict[str, Any], int]:
    """The header, and where the places begin."""
    if content[: len(MAGIC)] != MAGIC:
        raise ValueError("another kind of file")
    length = int(np.frombuffer(content, "<u4", 1, len(MAGIC))[0])
    start = len(MAGIC) + 4 + length
    return json.loads(content[len(MAGIC) + 4 : start]), start


def _places(
    content: bytes, at: int, n: int, m: int | None
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Of people and titles, and where they end."""
    users = np.frombuffer(content, "<f4", 2 * n, at).reshape(n, 2)
    at += users.nbytes
    if m is None:
        return users, None, at
    items = np.frombuffer(content, "<f4", 2 * m, at).reshape(m, 2)
    return users, items, at + items.nbytes


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
