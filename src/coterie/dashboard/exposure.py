"""How often each title is in somebody's list, edition by edition, counted beside the pages."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coterie.errors import CoterieError, UnavailableError
from coterie.store import Edition, Store

log = logging.getLogger(__name__)

SOME = 12
"""Users of a title that are kept of the live edition, a card row each."""

Mark: TypeAlias = tuple[str, datetime, bool]


@dataclass(frozen=True, eq=False)
class Counted:
    """A card row of an edition.

    Args:
        ids: ``[n_items]`` the catalogue's.
        lists: ``[n_items]`` int32 lists that hold each item.
        n_lists: All lists.
        users: ``[n_items, SOME]`` ids of some users whose lists hold each item, None beyond them;
            without columns where they are not kept.
    """

    ids: pa.Array
    lists: np.ndarray
    n_lists: int
    users: np.ndarray

    def of(self, item_id: str) -> tuple[int, list[Any]]:
        """Lists that hold an item, and some of their users."""
        place = _place(self.ids, item_id)
        if place < 0:
            return 0, []
        return int(self.lists[place]), [one for one in self.users[place] if one is not None]


def _place(ids: pa.Array, item_id: str) -> int:
    is_whole = pa.types.is_int64(ids.type)
    if is_whole and not (item_id.removeprefix("-").isdecimal() and str(_whole(item_id)) == item_id):
        return -1
    return int(pc.index(ids, pa.scalar(int(item_id) if is_whole else item_id, ids.type)).as_py())


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and len(text) < 19 else None


def count(store: Store, edition: str, row: str, *, some: int = 0) -> Counted:
    """Counts one card row of an edition.

    Args:
        store: That has it.
        edition: Its name.
        row: The card row's.
        some: Users that are kept of each item.

    Raises:
        NotFoundError: if it is pruned meanwhile.
        UnavailableError: if the database is away.
    """
    ids, lists, n_lists = pa.array([], pa.int64()), np.zeros(0, np.int32), 0
    users = np.empty((0, some), dtype=object)
    for batch in store.lists(row, edition=edition):
        items = batch["item_ids"].values
        if not n_lists:
            ids, lists = items.dictionary, np.zeros(len(items.dictionary), np.int32)
            users = np.empty((len(ids), some), dtype=object)
        n_lists += len(batch)
        codes = items.indices.to_numpy()
        if some:
            _keep(users, lists, codes, batch)
        lists += np.bincount(codes, minlength=len(lists)).astype(np.int32)
    return Counted(ids, lists, n_lists, users)


def _keep(users: np.ndarray, lists: np.ndarray, codes: np.ndarray, batch: pa.RecordBatch) -> None:
    """Puts a batch's users behind those that are there."""
    lengths = pc.list_value_length(batch["item_ids"]).to_numpy()
    order = np.argsort(codes, kind="stable")
    item = codes[order]
    place = lists[item] + np.arange(len(item)) - np.searchsorted(item, item)
    kept = place < users.shape[1]
    ids = np.array(batch["user_id"].to_pylist(), dtype=object)
    users[item[kept], place[kept]] = np.repeat(ids, lengths)[order[kept]]


@dataclass(eq=False)
class Exposure:
    """Every edition's counts, each made once; the live one's first, the oldest last.

    Args:
        store: Gives the store.
    """

    store: Callable[[], Store]
    _counts: dict[Mark, Mapping[str, Counted]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None
    _closed: bool = False

    def look(self) -> tuple[dict[str, Mapping[str, Counted]], int]:
        """Counts by edition and card row, of those that are counted, and how many are not; these
        are being counted from now on.

        Raises:
            UnavailableError: if the database is away.
        """
        editions = self.store().editions()
        with self._lock:
            marks = {_mark(one) for one in editions}
            for gone in set(self._counts) - marks:
                del self._counts[gone]
            todo = [one for one in editions if _mark(one) not in self._counts]
            if todo and not (self._thread and self._thread.is_alive()):
                first = sorted(todo, key=lambda one: not one.live)
                self._thread = threading.Thread(target=self._work, args=(first,), daemon=True)
                self._thread.start()
            done = {name: counts for (name, *_), counts in self._counts.items()}
        return done, len(todo)

    def wait(self) -> None:
        """Until what is being counted is counted."""
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Stops counting."""
        self._closed = True
        self.wait()

    def _work(self, editions: list[Edition]) -> None:
        store = self.store()
        for edition in editions:
            try:
                counts = {} if self._closed else _counts(store, edition)
            except UnavailableError:
                # Who looks next is told, and it is tried again.
                return
            except CoterieError as error:
                log.warning("edition %s: could not be counted: %s", edition.name, error)
                counts = {}
            with self._lock:
                self._counts[_mark(edition)] = counts


def _counts(store: Store, edition: Edition) -> dict[str, Counted]:
    some = SOME if edition.live else 0
    rows = store.rows(edition=edition.name)
    return {row: count(store, edition.name, row, some=some) for row in rows}


def _mark(edition: Edition) -> Mark:
    """Another one when it is published anew, or becomes live, as then users are kept."""
    return edition.name, edition.published, edition.live
