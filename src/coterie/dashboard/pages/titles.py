"""A title: who gets it, what is like it, how often it is watched and shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any

from coterie.dashboard.charts import line_figure
from coterie.dashboard.exposure import Counted
from coterie.dashboard.lists import model_of
from coterie.dashboard.page import Asked, Column, Figure, Page, Table
from coterie.dashboard.pages.trying import title_values
from coterie.dashboard.popularity import DayOfTitles, popularity_of
from coterie.dashboard.search import Catalogue, Title, catalogue_of
from coterie.dashboard.sources import Sources
from coterie.errors import ConfigError, UnavailableError

_HITS, _DAYS, _SIMILAR, _WEEK = 20, 56, 10, 7


def title(sources: Sources, asked: Asked) -> Page:
    """The page."""
    return _Title(sources, asked).page()


@dataclass(frozen=True)
class _Title:
    sources: Sources
    asked: Asked

    def page(self) -> Page:
        """The title's, or one to find it."""
        text = self.asked.text("q")
        hits = self.catalogue.search(text, _HITS) if text or not self.id or not self.found else []
        values = {
            "id": self.id,
            "q": text,
            "hits": [title_values(one) for one in hits],
            "unknown": bool(self.id) and self.found is None,
        }
        if self.found is not None:
            values |= self._of_one(self.found)
        return Page("A title", "title.html.j2", values, 404 if values["unknown"] else 200)

    def _of_one(self, found: Title) -> dict[str, Any]:
        popularity, exposure = self.popularity, self.exposure
        similar, why_none = self._similar()
        return {
            "title": title_values(found),
            "window": [str(one) if one else None for one in self._window],
            "available": self._available,
            "week": None if popularity is None else self._week(popularity),
            "watched": None if popularity is None else self._watched(popularity),
            "lists": self._lists(),
            "edition": self.live,
            "exposed": self._exposed(exposure[0]),
            "uncounted": exposure[1],
            "away": self.away,
            "similar": similar,
            "no_similar": why_none,
        }

    @cached_property
    def id(self) -> str:
        """As it was asked for."""
        return self.asked.text("id")

    @cached_property
    def catalogue(self) -> Catalogue:
        """Every title."""
        return catalogue_of(self.sources)

    @cached_property
    def found(self) -> Title | None:
        """The title; None if nobody knows of it."""
        known = self.catalogue.by_id.get(self.id)
        if known is not None or not self.id:
            return known
        watched = any(one.of(self.id) for one in (self.popularity or {}).values())
        return Title(self.id, None, None, 0, False) if watched else None

    @cached_property
    def popularity(self) -> dict[date, DayOfTitles] | None:
        """Events of each day; None while they are counted."""
        return popularity_of(self.sources, _DAYS)

    @cached_property
    def away(self) -> str:
        """Why no lists are counted; empty if they are."""
        try:
            self.sources.exposure.look()
        except UnavailableError as error:
            return str(error)
        return ""

    @cached_property
    def exposure(self) -> tuple[dict[str, Mapping[str, Counted]], int]:
        """Counts by edition and card row, and how many editions are to be counted."""
        return ({}, 0) if self.away else self.sources.exposure.look()

    @cached_property
    def live(self) -> str:
        """Name of the live edition; empty without one."""
        live = None if self.away else self.sources.store.live()
        return "" if live is None else live.name

    @property
    def _window(self) -> tuple[date | None, date | None]:
        return self.sources.titles.windows.get(self.id, (None, None))

    @property
    def _available(self) -> str:
        """In words, today."""
        first, until = self._window
        if first is not None and self.sources.day < first:
            return f"from {first} on"
        if until is not None and until <= self.sources.day:
            return f"no longer, since {until}"
        return "yes" if until is None else f"yes, until {until - timedelta(days=1)}"

    def _week(self, popularity: Mapping[date, DayOfTitles]) -> int:
        """Events of the last seven days that were collected."""
        return sum(popularity[day].of(self.id) for day in sorted(popularity)[-_WEEK:])

    def _watched(self, popularity: Mapping[date, DayOfTitles]) -> Figure:
        first, last = (min(popularity), max(popularity)) if popularity else (date.max, date.min)
        days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        rows = [
            [str(day), popularity[day].of(self.id) if day in popularity else None] for day in days
        ]
        columns = [Column("day", "text"), Column("times watched", "count")]
        table = Table("watched", "A row a day of collected events.", columns, rows)
        return line_figure(table, "How often it was watched, by day")

    def _exposed(self, counts: Mapping[str, Mapping[str, Counted]]) -> Figure:
        names = list(dict.fromkeys(row for rows in counts.values() for row in sorted(rows)))
        rows = [
            [edition, *(self._in(counts[edition].get(row)) for row in names)]
            for edition in sorted(counts)
        ]
        columns = [Column("edition", "text"), *(Column(name, "count") for name in names)]
        caption = "Lists that hold it, by edition and card row."
        table = Table("exposure", caption, columns, rows if names else [])
        return line_figure(table, "In how many users' lists it was, by edition")

    def _in(self, counted: Counted | None) -> int | None:
        return None if counted is None else counted.of(self.id)[0]

    def _lists(self) -> list[dict[str, Any]] | None:
        """By card row, who gets it in the live edition; None while it is counted."""
        counts = self.exposure[0].get(self.live)
        if counts is None:
            return None
        return [
            {
                "row": row,
                "lists": one.of(self.id)[0],
                "share": one.of(self.id)[0] / max(one.n_lists, 1),
                "users": [str(user) for user in one.of(self.id)[1]],
            }
            for row, one in counts.items()
        ]

    def _similar(self) -> tuple[Table | None, str]:
        """Titles like it; or None, and why, if not that the model is being loaded."""
        live, known = self.sources.registry.live, self.found is not None and self.found.known
        if live is None:
            return None, "No model is live yet: coterie weekly trains one."
        if not known:
            return None, "The live model does not know it: too few had watched it."
        model = model_of(self.sources, live)
        if model is None:
            return None, ""
        place = model.items.index_of_few([self.id])
        try:
            found = model.similar_items(model.items.ids_of(place)[0], _SIMILAR)
        except ConfigError as error:
            return None, str(error)
        columns = [Column("title", "text"), Column("id", "item"), Column("alike")]
        rows = [
            [self.sources.title(one.item_id) or one.title, str(one.item_id), one.cosine]
            for one in found
        ]
        caption = "Titles for which the live model has learned much the same; 1 is the very same."
        return Table("similar", caption, columns, rows), ""
