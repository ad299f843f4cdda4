"""Titles found by what one types: anywhere in the name, whatever the accents and capitals."""

import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np

from coterie.dashboard.lists import known_items
from coterie.dashboard.sources import Sources

_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe"})
_LONGEST = 200


@dataclass(frozen=True)
class Title:
    """A title.

    Args:
        item_id: As text.
        name: None where it has none.
        kind: Such as ``movie``; None where it is not told.
        popularity: Users of it in the live model's training; 0 of one that it does not know.
        known: Whether the live model knows it.
    """

    item_id: str
    name: str | None
    kind: str | None
    popularity: int
    known: bool


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Every title that the service or its live model knows of.

    Args:
        titles: The most popular first.
    """

    titles: list[Title]

    @cached_property
    def by_id(self) -> dict[str, Title]:
        """By id as text."""
        return {one.item_id: one for one in self.titles}

    def search(self, text: str, most: int, without: Collection[str] = ()) -> list[Title]:
        """Titles with every word of a text somewhere in their name, or with that id. Names that
        begin with it come first, then those in which a word does, each the most popular first.

        Args:
            text: What was typed; of nothing the most popular titles are the answer.
            most: How many.
            without: Ids that are left out.
        """
        wanted, same = fold(text[:_LONGEST]).strip(), self._places.get(text, -1)
        found = self._with(wanted.split())
        if wanted:
            found += [same] if same >= 0 and same not in found else []
            found.sort(key=lambda at: 0 if at == same else _place(self.folded[at], wanted))
        kept = (one for one in map(self.titles.__getitem__, found) if one.item_id not in without)
        return list(islice(kept, most))

    @cached_property
    def folded(self) -> list[str]:
        """What is searched."""
        return [fold(one.name or one.item_id) for one in self.titles]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {one.item_id: place for place, one in enumerate(self.titles)}

    def _with(self, words: list[str]) -> list[int]:
        """Places of titles with every word in their name."""
        found = list(range(len(self.titles)))
        for word in words:
            found = [at for at in found if word in self.folded[at]]
        return found


def _place(name: str, wanted: str) -> int:
    if name == wanted:
        return 0
    if name.startswith(wanted):
        return 1
    return 2 if f" {wanted}" in name else 3


def fold(text: str) -> str:
    """A text without capitals and accents.

    Example:
        >>> fold("Amélie Straße Smørrebrød")
        'amelie strasse smorrebrod'
    """
    lower = text.casefold()
    if lower.isascii():
        return lower
    parts = unicodedata.normalize("NFKD", lower.translate(_LETTERS))
    return "".join(sign for sign in parts if not unicodedata.combining(sign))


def catalogue_of(sources: Sources) -> Catalogue:
    """Of the service, read anew when its titles or its live model are others."""
    live, titles = sources.registry.live, sources.titles
    mark = id(titles), None if live is None else live.card["fingerprint"]
    return sources.kept.get("catalogue", mark, lambda: _read(sources))


def _read(sources: Sources) -> Catalogue:
    live, titles = sources.registry.live, sources.titles
    popularity: dict[str, int] = {}
    names: dict[str, str | None] = {}
    if live is not None:
        items = known_items(sources, live)
        ids = [str(one) for one in items["item_id"].to_pylist()]
        popularity = dict(zip(ids, items["popularity"].to_pylist(), strict=True))
        if "title" in items.column_names:
            names = dict(zip(ids, items["title"].to_pylist(), strict=True))
    names |= titles.names
    ids = list(dict.fromkeys([*popularity, *names, *titles.kinds, *titles.windows]))
    counts = np.array([popularity.get(one, 0) for one in ids], dtype=np.int64)
    return Catalogue(
        [
            Title(
                one,
                names.get(one),
                titles.kinds.get(one),
                popularity.get(one, 0),
                one in popularity,
            )
            for one in (ids[at] for at in np.argsort(-counts, kind="stable"))
        ]
    )
