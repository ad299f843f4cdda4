"""The latent map: people where the model puts them, next to people whom it takes for alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from coterie.dashboard.page import Asked, Column, File, Page, Table
from coterie.dashboard.pages.analyses import Analysed, analyses, analysis, damaged
from coterie.dashboard.sources import Sources
from coterie.errors import NotFoundError
from coterie.map_file import NAMES, POINTS, Layout, MapFile

_DRAWN = 1500
"""People in the drawing that needs no WebGL."""
_WIDTH, _HEIGHT, _EDGE = 760, 480, 16


def latent_map(sources: Sources, asked: Asked) -> Page:
    """The page."""
    there = analyses(sources)
    values = {"damaged": damaged(sources), "command": command(sources)}
    if not there:
        return Page("Latent map", "map_empty.html.j2", values)
    shown = _Shown.of(sources, there, asked)
    search = asked.text("search").strip()
    found = shown.found(search) if search else None
    values |= shown.values(sources) | {"search": search, "found": found}
    return Page("Latent map", "map.html.j2", values | {"drawing": shown.drawing(found)})


def points(sources: Sources, asked: Asked) -> File:
    """The file of an analysis' map, as `coterie.map_file` describes it."""
    return _file(sources, asked, POINTS, "application/octet-stream")


def names(sources: Sources, asked: Asked) -> File:
    """Ids and titles of an analysis' map."""
    return _file(sources, asked, NAMES, "application/json")


def _file(sources: Sources, asked: Asked, name: str, media_type: str) -> File:
    path = analysis(sources, asked.text("of")).folder / name
    if not path.is_file():
        raise NotFoundError(f"{path}: must be there, nothing was found; analyze anew.")
    return File(path.read_bytes(), media_type)


def command(sources: Sources) -> str:
    """That makes what these pages show."""
    place = sources.folder
    return (
        f"coterie analyze {place}"
        if sources.service
        else f"coterie analyze RUN… --out {place}/analysis"
    )


@dataclass(frozen=True, eq=False)
class _Shown:
    """A layout of an analysis.

    Args:
        choices: Value and label of each that could be shown.
        choice: The value of this one.
        analysed: The analysis.
        map: Its people.
        number: Of the layout in it.
    """

    choices: Sequence[tuple[str, str]]
    choice: str
    analysed: Analysed
    map: MapFile
    number: int

    @classmethod
    def of(cls, sources: Sources, there: Sequence[Analysed], asked: Asked) -> "_Shown":
        """The one that was asked for; else the last analysis' first."""
        maps = [(one, one.map(sources)) for one in there]
        all_ = {
            f"{number}/{one.key}": (one, people, number)
            for one, people in maps
            for number in range(len(people.layouts))
        }
        choice = asked.text("show") or f"0/{there[-1].key}"
        if choice not in all_:
            raise NotFoundError(
                f"a map must be one of those that are there, found {choice[:80]!r}; choose from"
                " the list."
            )
        several = len(there) > 1 and sources.service is None
        labels = [
            (value, f"{one.label}: {people.layouts[n].name}" if several else people.layouts[n].name)
            for value, (one, people, n) in all_.items()
        ]
        return cls(labels, choice, *all_[choice])

    @property
    def layout(self) -> Layout:
        """Where people and titles are."""
        return self.map.layouts[self.number]

    def values(self, sources: Sources) -> dict[str, Any]:
        """What the page tells of it, whatever is searched for."""
        return {
            "choices": self.choices,
            "choice": self.choice,
            "cohorts": self._cohorts(),
            "people": len(self.map.user_ids),
            "all_people": self.map.facts["of"],
            "titles": 0 if self.layout.items is None else len(self.map.item_ids),
            "items_are": self.layout.facts["items_are"],
            "disparity": self.layout.facts.get("disparity"),
            "before": (self.analysed.facts.get("before") or {}).get("version"),
            "has_pages": sources.service is not None,
        }

    def found(self, text: str) -> dict[str, Any]:
        """Whom or what a text names: a person by the whole id, else the first title that has it."""
        ids = [str(one) for one in self.map.user_ids]
        if text in ids:
            at = ids.index(text)
            return self._told("person", at, text, self.layout.users, int(self.map.counts[at]))
        names = [str(one) if name is None else name for one, name in self._titles()]
        low = text.casefold()
        among = [at for at, name in enumerate(names) if low in name.casefold()]
        if not among:
            return {"kind": "nothing"}
        at = min(among, key=lambda one: (len(names[one]), one))
        assert self.layout.items is not None
        told = self._told("title", at, names[at], self.layout.items, len(among) - 1)
        return told | {"id": self.map.item_ids[at]}

    def _titles(self) -> list[tuple[Any, str | None]]:
        """Those that have a place."""
        if self.layout.items is None:
            return []
        return list(zip(self.map.item_ids, self.map.titles, strict=True))

    def _told(
        self, kind: str, at: int, name: str, places: np.ndarray, count: int
    ) -> dict[str, Any]:
        x, y = places[at].tolist()
        known = {"kind": kind, "at": at, "name": name, "x": x, "y": y, "count": count}
        return known | ({"id": self.map.user_ids[at]} if kind == "person" else {})

    def _cohorts(self) -> Table:
        columns = [
            Column("items of a person", "text"),
            Column("people", "count"),
            Column("share", "percent"),
            Column("centre, across"),
            Column("centre, up"),
            Column("spread around it"),
        ]
        rows = [self._cohort(at, name) for at, name in enumerate(self.map.cohort_names)]
        caption = "Groups by activity: how many, and where in the map."
        return Table("cohorts", caption, columns, rows)

    def _cohort(self, number: int, name: str) -> list[Any]:
        places = self.layout.users[self.map.cohorts == number].astype(float)
        n = len(places)
        if not n:
            return [name, 0, 0.0, None, None, None]
        centre = places.mean(axis=0)
        spread = float(np.sqrt(np.square(places - centre).sum(axis=1).mean()))
        told = [round(one, 4) for one in (*centre.tolist(), spread)]
        return [name, n, n / len(self.map.user_ids), *told]

    def drawing(self, found: dict[str, Any] | None) -> Markup:
        """Some of the people as SVG: what is seen before the map is drawn, or where it cannot be.

        They are ordered by the hashes of their ids, so the first are a fair sample.
        """
        users = self.layout.users
        place = _plane(users)
        parts = [
            self._dots(place(users[:_DRAWN]), number)
            for number in range(len(self.map.cohort_names))
        ]
        if found is not None and "x" in found:
            x, y = place(np.array([[found["x"], found["y"]]]))[0]
            parts.append(Markup('<circle cx="{}" cy="{}" r="11" class="ring"/>').format(x, y))
        head = Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}" class="map-drawing">')
        told = f"A sample of {min(_DRAWN, len(users)):,} people of the map"
        return head.format(told, _WIDTH, _HEIGHT) + Markup("").join(parts) + Markup("</svg>")

    def _dots(self, places: np.ndarray, number: int) -> Markup:
        there = places[self.map.cohorts[: len(places)] == number]
        path = "".join(f"M{x:g} {y:g}h0" for x, y in there.tolist())
        return Markup('<path d="{}" class="dots c{}"/>').format(path, number + 1)


def _plane(users: np.ndarray) -> Any:
    """From the map to the drawing: one scale both ways, the middle 99 % of people within it."""
    low, high = np.quantile(users, [0.005, 0.995], axis=0)
    size = np.maximum(high - low, 1e-9)
    room = np.array([_WIDTH, _HEIGHT]) - 2 * _EDGE
    scale, centre = (room / size).min(), (low + high) / 2

    def place(points: np.ndarray) -> np.ndarray:
        moved = (points - centre) * scale * [1, -1] + np.array([_WIDTH, _HEIGHT]) / 2
        placed: np.ndarray = moved.clip(2, [_WIDTH - 2, _HEIGHT - 2]).round(1)
        return placed

    return place
