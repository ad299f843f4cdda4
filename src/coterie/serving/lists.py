"""Published lists for the event loop: a store's look-ups, cut to what was asked for."""

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from coterie.errors import NotFoundError, UnavailableError
from coterie.serving.breaker import Breaker
from coterie.store import Found, Store

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """What is asked of a list.

    Args:
        row: Card row.
        k: Length, at most.
        allow: Texts of the only item ids; None allows all.
        deny: Texts of item ids to leave out.
    """

    row: str
    k: int
    allow: Collection[str] | None = None
    deny: Collection[str] = ()

    def of(self, found: Found) -> list[dict[str, Any]]:
        """The items of a list that are wanted."""
        items = zip(found.item_ids, found.titles, found.scores, strict=True)
        if self.deny or self.allow is not None:
            items = (one for one in items if self._has(str(one[0])))  # type: ignore[assignment]
        return [
            {"item_id": item_id, "title": title, "score": score}
            for _, (item_id, title, score) in zip(range(self.k), items, strict=False)
        ]

    def _has(self, item_id: str) -> bool:
        return item_id not in self.deny and (self.allow is None or item_id in self.allow)


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

    async def ask(self, question: Callable[[Store], T]) -> T:
        """The answer of the store.

        Raises:
            UnavailableError: if the database is away, or nothing was published yet.
        """
        if self._pool is None:
            return self._ask(question)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._ask, question)

    def _ask(self, question: Callable[[Store], T]) -> T:
        return self._breaker.ask(lambda: question(self._store))

    async def for_user(self, user_id: str, wanted: Wanted) -> dict[str, Any]:
        """A user's list, or the card row's fall-back.

        Raises:
            UnavailableError: if the database is away, or nothing was published yet.
            NotFoundError: if there is no such card row, or no list in it for this user.
        """
        found, source = await self.ask(lambda store: _find(store, user_id, wanted.row))
        return {
            "row": wanted.row,
            "edition": found.edition,
            "model": model_of(found.facts),
            "source": source,
            "listed": len(found.item_ids),
            "items": wanted.of(found),
        }

    def close(self) -> None:
        """Closes connections and threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._store.close()


def model_of(facts: Any) -> str | None:
    """The version of the model, where an edition's facts tell it."""
    version = facts.get("version")
    return version if isinstance(version, str) else None


def _find(store: Store, user_id: str, row: str) -> tuple[Found, str]:
    try:
        found = store.find(user_id, row)
        if found is not None:
            return found, found.source
        fallback, rows = store.fallback(row), store.rows()
    except NotFoundError as error:
        raise UnavailableError("an edition must be live, found none; publish one.") from error
    if fallback is not None:
        return fallback, "fallback"
    if row in rows:
        raise NotFoundError("the card row must have a list for this user or a fall-back, neither.")
    raise NotFoundError(f"row must be one of {', '.join(rows)}, found {row!r}; correct it.")
