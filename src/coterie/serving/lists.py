"""Published lists for the event loop: a store's look-ups, cut to what was asked for."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from coterie.errors import NotFoundError, UnavailableError
from coterie.experiment import assigner_of
from coterie.experiment.definition import LISTS
from coterie.serving.breaker import Breaker
from coterie.serving.schemas import LookUp
from coterie.serving.together import Together
from coterie.store import Found, Store

T = TypeVar("T")
Answer: TypeAlias = tuple[Found | None, str]
"""A list and its source, or None and why."""


class Lists:
    """Asks a store.

    Args:
        store: Whose look-ups block.
        threads: That wait for it; with none the event loop does.
        on_error: Called when the database failed.
    """

    def __init__(self, store: Store, threads: int, on_error: Callable[[], None]) -> None:
        self._store = store
        self._breaker = Breaker(on_error)
        self._pool = ThreadPoolExecutor(threads, "coterie-store") if threads else None
        self._together = Together(self._find, threads)
        self._arms = Arms({})

    async def ask(self, question: Callable[[Store], T]) -> T:
        """The answer of the store.

        Raises:
            UnavailableError: if the database is away, or nothing was published yet.
        """
        if self._pool is None:
            return self._ask(question)
        self._breaker.check()
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._ask, question)

    def _ask(self, question: Callable[[Store], T]) -> T:
        return self._breaker.ask(lambda: question(self._store))

    async def look_up(self, wish: LookUp) -> dict[str, Any]:
        """A user's list, or the card row's fall-back.

        Raises:
            UnavailableError: if the database is away, or nothing was published yet.
            NotFoundError: if there is no such card row, or no list in it for this user.
        """
        try:
            found, source = await self._find_one(wish.user_id, wish.row)
        except NotFoundError as error:
            raise UnavailableError("an edition must be live, found none; publish one.") from error
        if found is None:
            raise NotFoundError(source)
        if self._arms.facts is not found.facts:
            self._arms = Arms(found.facts)
        return {
            "row": wish.row,
            "edition": found.edition,
            **self._arms.of(wish.user_id, source),
            "source": source,
            "listed": len(found.item_ids),
            "items": _items(found, wish),
        }

    async def _find_one(self, user_id: str, row: str) -> Answer:
        if self._pool is None:
            return self._ask(lambda store: _find(store, [(user_id, row)]))[0]
        self._breaker.check()
        return await self._together.ask((user_id, row))

    async def _find(self, wanted: list[tuple[str, str]]) -> list[Answer]:
        return await self.ask(lambda store: _find(store, wanted))

    def close(self) -> None:
        """Closes connections and threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._store.close()


class Arms:
    """What an edition's facts say of its users' models; made anew for another edition.

    Args:
        facts: The edition's.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts, self._assigner = facts, assigner_of(facts)

    def of(self, user_id: str, source: str) -> dict[str, str | None]:
        """The model of a user's list, and the arm that the user is in, whatever list it is."""
        live = model_of(self.facts)
        (found,) = self._assigner.arms([user_id]).get(LISTS, [None])
        if found is None:
            return {"model": live, "experiment": None, "arm": None}
        told = {one["experiment"]: one["arms"] for one in self.facts["experiments"]}
        version = told[found.experiment][found.arm]["version"]
        model = live if source == "fallback" else version
        return {"model": model, "experiment": found.experiment, "arm": found.arm}


def _items(found: Found, wish: LookUp) -> list[dict[str, Any]]:
    """The items that are wanted, best first."""
    items: Iterable[tuple[Any, ...]] = zip(found.item_ids, found.titles, found.scores, strict=True)
    if wish.deny or wish.allow is not None:
        items = (one for one in items if _is_wanted(str(one[0]), wish))
    return [
        {"item_id": item_id, "title": title, "score": score}
        for item_id, title, score in islice(items, wish.k)
    ]


def _is_wanted(item_id: str, wish: LookUp) -> bool:
    return item_id not in wish.deny and (wish.allow is None or item_id in wish.allow)


def model_of(facts: Any) -> str | None:
    """The version of the model, where an edition's facts tell it."""
    version = facts.get("version")
    return version if isinstance(version, str) else None


def _find(store: Store, wanted: list[tuple[str, str]]) -> list[Answer]:
    asked = list(zip(wanted, store.find_many(wanted), strict=True))
    without = {row for (_, row), found in asked if found is None}
    instead = _instead(store, without) if without else {}
    return [instead[row] if found is None else (found, found.source) for (_, row), found in asked]


def _instead(store: Store, wanted: set[str]) -> dict[str, Answer]:
    """By card row, what is given to whoever has no list of their own."""
    rows = store.rows()
    return {row: _fallback(store, row) if row in rows else _unknown(row, rows) for row in wanted}


def _unknown(row: str, rows: list[str]) -> Answer:
    return None, f"row must be one of {', '.join(rows)}, found {row!r}; correct it."


def _fallback(store: Store, row: str) -> Answer:
    found = store.fallback(row)
    if found is not None:
        return found, "fallback"
    return None, "the card row must have a list for this user or a fall-back, found neither."
