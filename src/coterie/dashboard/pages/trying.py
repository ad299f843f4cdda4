"""Try it: some titles are picked, and the list is what their new user would get."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from coterie.dashboard.lists import Shown, model_of, ranked, reasons
from coterie.dashboard.page import Asked, Page, Table
from coterie.dashboard.pages.users import list_values, row_of, versions_of, why_table
from coterie.dashboard.search import Catalogue, Title, catalogue_of
from coterie.dashboard.sources import Sources
from coterie.registry import Version

_PICKS, _HITS = 100, 12


def try_it(sources: Sources, asked: Asked) -> Page:
    """The page."""
    return _Try(sources, asked).page()


@dataclass(frozen=True)
class _Try:
    sources: Sources
    asked: Asked

    def page(self) -> Page:
        """What was picked, what can be, and the list."""
        hits = self.catalogue.search(self.text, _HITS, set(self.picks))
        entries = self._entries()
        values = {
            "q": self.text,
            "row": self.row,
            "rows": list(self.sources.of_service.config.rows),
            "model": "" if self.version is None else self.version.name,
            "given": self.asked.text("model"),
            "given_row": self.asked.text("row"),
            "versions": versions_of(self.sources, None),
            "picks": [self._picked(one) for one in self.picks],
            "hits": [title_values(one) for one in hits],
            "list": None if self.shown is None else list_values(self.shown),
            "items": entries,
            "loading": self.version is not None and self.shown is None,
            "why": self._why(),
        }
        return Page("Try it", "try.html.j2", values)

    @cached_property
    def text(self) -> str:
        """What was typed."""
        return self.asked.text("q")

    @cached_property
    def picks(self) -> list[str]:
        """Ids as text, each once, in the order of picking."""
        return list(dict.fromkeys(one for one in self.asked.texts("pick") if one))[:_PICKS]

    @cached_property
    def row(self) -> str:
        """The card row whose rules hold."""
        return row_of(self.asked, list(self.sources.of_service.config.rows))

    @cached_property
    def catalogue(self) -> Catalogue:
        """What can be picked."""
        return catalogue_of(self.sources)

    @cached_property
    def version(self) -> Version | None:
        """The one asked for, or the live one, or the newest; None if there is none."""
        registry, name = self.sources.registry, self.asked.text("model")
        if name:
            return registry.version(name)
        return registry.live or next(reversed(registry.versions), None)

    @cached_property
    def shown(self) -> Shown | None:
        """The list; None while the model is loaded, or without one."""
        if self.version is None:
            return None
        return ranked(self.sources, self.version, self.picks, self.row, self.sources.day)

    def _entries(self) -> list[dict[str, Any]]:
        if self.shown is None:
            return []
        found = self._reasons([one.item_id for one in self.shown.items], 3)
        return [
            {
                "rank": rank,
                "item_id": str(one.item_id),
                "title": one.title,
                "score": one.score,
                "new": False,
                "why": [
                    {**why, "item_id": str(why["item_id"]), "title": self._name(why["item_id"])}
                    for why in found.get(str(one.item_id), ())
                ],
            }
            for rank, one in enumerate(self.shown.items, start=1)
        ]

    def _reasons(self, items: list[Any], k: int) -> Any:
        by_model = self.shown is not None and self.shown.source == "model"
        if self.version is None or not by_model or not self.picks:
            return {}
        model = model_of(self.sources, self.version)
        return {} if model is None else reasons(model, list(self.picks), items, k)

    def _why(self) -> Table | None:
        """Every reason of the item asked for."""
        item = self.asked.text("why")
        found = self._reasons([item], len(self.picks)).get(item) if item else None
        return None if found is None else why_table(self.sources, item, found)

    def _name(self, item: Any) -> str | None:
        title = self.catalogue.by_id.get(str(item))
        return None if title is None else title.name

    def _picked(self, item: str) -> dict[str, Any]:
        title = self.catalogue.by_id.get(item, Title(item, None, None, 0, False))
        return title_values(title)


def title_values(title: Title) -> dict[str, Any]:
    """What is said of a title where it is found."""
    return {
        "item_id": title.item_id,
        "title": title.name,
        "kind": title.kind,
        "users": title.popularity,
        "known": title.known,
    }
