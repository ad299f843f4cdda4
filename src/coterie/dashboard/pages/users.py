"""A user: what they watched, what they are given, why, and who is like them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

from coterie.dashboard.crowd import Crowd, Neighbour
from coterie.dashboard.lists import (
    FALLBACK,
    Shown,
    day_of,
    known_items,
    model_of,
    published,
    ranked,
    reasons,
)
from coterie.dashboard.page import Asked, Column, Page, Table
from coterie.dashboard.sources import Sources
from coterie.dashboard.window import Watched, Window
from coterie.errors import DataError, NotFoundError, UnavailableError
from coterie.registry import Version
from coterie.store import Edition

_HISTORY = 100
_NEIGHBOURS = 8
_SHARED = 4


def user(sources: Sources, asked: Asked) -> Page:
    """The page."""
    return _User(sources, asked).page()


@dataclass(frozen=True)
class _User:
    sources: Sources
    asked: Asked

    def page(self) -> Page:
        """The user's, or one that says whom to look at."""
        values = {
            "id": self.id,
            "row": self.row,
            "rows": self.rows,
            "edition": "" if self.edition is None else self.edition.name,
            "editions": [one.name for one in self.editions],
            "model": "" if self.version is None else self.version.name,
            "versions": versions_of(self.sources, self.edition),
            "away": self.away,
            "suggested": self._suggested() if not self.id or self.is_unknown else {},
            "reading": self.crowd is None,
            "unread": self.crowd if isinstance(self.crowd, str) else "",
        }
        values |= self._of_one() if self.id else {}
        return Page("A user", "user.html.j2", values)

    def _of_one(self) -> dict[str, Any]:
        shown, why = self.shown, self.asked.text("why")
        entries, loading = self._entries()
        return {
            "unknown": self.is_unknown,
            "knows_until": self.day,
            "history": self._history_table(),
            "n_history": len(self.history),
            "n_since": len(self.since),
            "list": None if shown is None else list_values(shown),
            "items": entries,
            "loading": loading,
            "why": self._why(why) if why else None,
            "neighbours": self._neighbours_table(),
        }

    @cached_property
    def id(self) -> str:
        """As it was asked for."""
        return self.asked.text("id")

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Titles by item id, looked up once a page."""
        return self.sources.titles.names

    @cached_property
    def away(self) -> str:
        """Why there are no lists; empty if there are."""
        try:
            return "" if self.sources.store.live() else "Nothing is published yet: coterie daily."
        except UnavailableError as error:
            return str(error)

    @cached_property
    def editions(self) -> list[Edition]:
        """Those that are kept, the newest first."""
        return [] if self.away else self.sources.store.editions()

    @cached_property
    def edition(self) -> Edition | None:
        """The one asked for, or the live one.

        Raises:
            NotFoundError: if there is none of that name.
        """
        name = self.asked.text("edition")
        if not name or self.away:
            return next((one for one in self.editions if one.live), None)
        found = next((one for one in self.editions if one.name == name), None)
        if found is None:
            raise NotFoundError(
                f"edition must be one of {', '.join(one.name for one in self.editions)}, found"
                f" {name[:80]!r}; older ones are gone (retention.editions)."
            )
        return found

    @cached_property
    def rows(self) -> list[str]:
        """Card rows, those of the edition first."""
        first = list(self.sources.of_service.config.rows)
        if self.edition is None:
            return first
        names = self.sources.store.rows(edition=self.edition.name)
        return sorted(names, key=lambda name: (*first, name).index(name)) or first

    @cached_property
    def row(self) -> str:
        """The one asked for, or the first."""
        return row_of(self.asked, self.rows)

    @cached_property
    def version(self) -> Version | None:
        """The one asked for; None: the list is the one that was published."""
        name = self.asked.text("model")
        return self.sources.registry.version(name) if name else None

    @cached_property
    def day(self) -> date:
        """The lists know what came before it."""
        return day_of(self.edition, self.sources.day)

    @cached_property
    def crowd(self) -> Crowd | str | None:
        """Everybody's histories; None while they are read, or why there are none."""
        live = next((one for one in self.editions if one.live), None)
        return crowd_of(self.sources, day_of(live, self.sources.day))

    @cached_property
    def history(self) -> list[Watched]:
        """What the lists know of the user, the latest first."""
        window = Window.before(self.sources, self.day)
        live = next((one for one in self.editions if one.live), None)
        if isinstance(self.crowd, Crowd) and day_of(live, self.sources.day) == self.day:
            return self.crowd.history(self.id)
        return window.history(self.sources.database, self.id)

    @cached_property
    def since(self) -> list[Watched]:
        """What the user watched that the lists cannot know yet."""
        window = Window.before(self.sources, self.day)
        later = Window(window.folder, self.day, self.sources.day + timedelta(days=1), window.least)
        return later.history(self.sources.database, self.id)

    @cached_property
    def published(self) -> Shown | None:
        """The list of the edition."""
        if self.edition is None:
            return None
        return published(self.sources, self.id, self.row, self.edition.name)

    @cached_property
    def shown(self) -> Shown | None:
        """The list to show; None while its model is loaded, or if there is none."""
        if self.version is None:
            return self.published
        return ranked(self.sources, self.version, self.item_ids, self.row, self.day)

    @property
    def item_ids(self) -> list[Any]:
        """Of the history."""
        return [one.item_id for one in self.history]

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known of the user."""
        own = self.published is not None and self.published.source != FALLBACK
        return bool(self.id) and not (own or self.history or self.since)

    def _entries(self) -> tuple[list[dict[str, Any]], bool]:
        """The list's items, each with its reasons, and whether something is still being loaded.

        Reasons are None while they are not known.
        """
        if self.shown is None:
            return [], self.version is not None
        model = self._explaining()
        loading = model is None and self._can_explain
        items = [one.item_id for one in self.shown.items]
        found = {} if model is None else reasons(model, self.item_ids, items)
        before = {str(one.item_id) for one in self.published.items} if self.published else set()
        compared = self.version is not None and self.published is not None
        return [
            {
                "rank": rank,
                "item_id": str(one.item_id),
                "title": one.title,
                "score": one.score,
                "new": compared and str(one.item_id) not in before,
                "why": None
                if model is None
                else [self._named(reason) for reason in found.get(str(one.item_id), ())],
            }
            for rank, one in enumerate(self.shown.items, start=1)
        ], loading

    @property
    def _can_explain(self) -> bool:
        return self._explainer is not None and bool(self.history)

    @cached_property
    def _explainer(self) -> Version | None:
        """The version that made the list, if it is still there and the list is the user's own."""
        if self.shown is None or self.shown.source != "model" or self.shown.version is None:
            return None
        names = {one.name: one for one in self.sources.registry.versions}
        return names.get(self.shown.version)

    def _explaining(self) -> Any:
        version = self._explainer
        return model_of(self.sources, version) if version is not None and self.history else None

    def _named(self, reason: Mapping[str, Any]) -> dict[str, Any]:
        item = str(reason["item_id"])
        return {**reason, "item_id": item, "title": self.names.get(item)}

    def _why(self, item: str) -> Table | None:
        """Every reason of one item."""
        model = self._explaining()
        if model is None:
            return None
        found = reasons(model, self.item_ids, [item], len(self.history)).get(item, [])
        return why_table(self.sources, item, found)

    def _history_table(self) -> Table:
        columns = [Column("title", "text"), Column("id", "item"), Column("watched last", "text")]
        told = [(one, "too late") for one in self.since] + [
            (one, "in time") for one in self.history
        ]
        rows = [
            [self.names.get(str(one.item_id)), str(one.item_id), _day(one.last), when]
            for one, when in told[:_HISTORY]
        ]
        if not self.since:
            return Table("history", "The latest first.", columns, [row[:3] for row in rows])
        return Table(
            "history", "The latest first.", [*columns, Column("for the list", "text")], rows
        )

    def _neighbours_table(self) -> Table:
        columns = [
            Column("user", "user"),
            Column("alike", "percent"),
            Column("shared", "count"),
            Column("among them", "text"),
        ]
        crowd = self.crowd
        found = crowd.neighbours(self.id, _NEIGHBOURS) if isinstance(crowd, Crowd) else []
        rows = [self._neighbour(one) for one in found]
        caption = "Alike: titles that both watched, of those that either did (Jaccard)."
        return Table("neighbours", caption, columns, rows)

    def _neighbour(self, one: Neighbour) -> list[Any]:
        names = [self.names.get(str(item), str(item)) for item in one.shared[:_SHARED]]
        rest = len(one.shared) - len(names)
        told = ", ".join(name[:60] for name in names) + (f" and {rest} more" if rest else "")
        return [str(one.user_id), one.jaccard, len(one.shared), told]

    def _suggested(self) -> dict[str, list[str]]:
        """Users that are worth a look."""
        crowd, live = self.crowd, self.sources.registry.live
        if not isinstance(crowd, Crowd):
            return {}
        known = None if live is None else known_items(self.sources, live)["item_id"].to_pylist()
        mark = id(crowd), None if live is None else live.name
        found = self.sources.kept.get("worth a look", mark, lambda: crowd.worth_a_look(known))
        return {sort: [str(one) for one in ids] for sort, ids in found.items()}


def crowd_of(sources: Sources, day: date) -> Crowd | str | None:
    """Everybody's histories before a day; None while they are read, or why there are none."""
    window = Window.before(sources, day)
    try:
        return sources.aside.get(
            "crowd", (day, window.mark), lambda: Crowd.read(window, sources.database)
        )
    except DataError as error:
        return str(error)


def row_of(asked: Asked, rows: Sequence[str]) -> str:
    """The card row asked for, or the first.

    Raises:
        NotFoundError: if there is none of that name.
    """
    name = asked.text("row") or next(iter(rows), "")
    if name not in rows:
        raise NotFoundError(f"row must be one of {', '.join(rows)}, found {name[:80]!r}; choose.")
    return name


def versions_of(sources: Sources, edition: Edition | None) -> list[list[str]]:
    """Names of all versions, the newest first, and what each is."""
    live = sources.registry.live
    arms: dict[str, str] = {}
    for one in edition.facts.get("experiments", ()) if edition else ():
        for arm, told in one["arms"].items():
            arms.setdefault(told["version"], f"arm {arm} of {one['experiment']}")
    told = []
    for version in reversed(sources.registry.versions):
        marks = ["live"] if live is not None and version.name == live.name else []
        marks += [arms[version.name]] if version.name in arms else []
        told.append([version.name, ", ".join(marks)])
    return told


def list_values(shown: Shown) -> dict[str, Any]:
    """What is said of a list, beside its items."""
    fields = ("source", "version", "experiment", "arm")
    return {name: getattr(shown, name) for name in fields}


def why_table(sources: Sources, item: str, found: Sequence[Mapping[str, Any]]) -> Table:
    """Every reason of one item."""
    columns = [
        Column("title", "text"),
        Column("id", "item"),
        Column("share", "percent"),
        Column("raised the score by", "number"),
        Column("score without it", "number"),
        Column("does", "text"),
    ]
    rows = [
        [
            sources.title(one["item_id"]),
            str(one["item_id"]),
            one["share"],
            one["raised"],
            one["score_without"],
            "raises" if one["raised"] > 0 else "lowers" if one["raised"] < 0 else "nothing",
        ]
        for one in found
    ]
    name = (sources.title(item) or item)[:80]
    caption = f"What each title of the history does to the score of {name}."
    return Table("reasons", caption, columns, rows)


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
