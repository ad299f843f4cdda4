"""Everybody's histories in memory: who is like whom, and who is worth a look."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coterie.dashboard.window import Watched, Window
from coterie.data.ids import Id, IdMap
from coterie.errors import DataError
from coterie.jobs.events import answer

MOST_EVENTS = 50_000_000
"""About a gigabyte; of more, nobody is compared with anybody."""


class Neighbour(NamedTuple):
    """A user whose history is like another's.

    Args:
        user_id: Whose.
        jaccard: Titles that both watched over titles that either did, in (0, 1].
        shared: Titles that both watched, those that fewest watch first.
    """

    user_id: Id
    jaccard: float
    shared: list[Id]


@dataclass(frozen=True, eq=False)
class Crowd:
    """Who watched what in a window: a binary matrix, kept by user and by item.

    Args:
        users: ``[n_users]`` ids in order.
        items: ``[n_items]`` ids in order.
        starts: ``[n_users + 1]`` where each user's titles start.
        codes: ``[n]`` int32 titles, user after user, ascending.
        last: ``[n]`` int64 when they were watched last, seconds since 1970.
        first: ``[n_users]`` int64 when each user came, seconds since 1970.
    """

    users: IdMap
    items: IdMap
    starts: np.ndarray
    codes: np.ndarray
    last: np.ndarray
    first: np.ndarray

    @classmethod
    def read(cls, window: Window, database: duckdb.DuckDBPyConnection) -> "Crowd":
        """Reads a window's days.

        Raises:
            DataError: if they are empty, or too many to be held.
        """
        n_events = window.n_events
        if not 0 < n_events <= MOST_EVENTS:
            raise DataError(
                f"people can be compared on 1 to {MOST_EVENTS:,} events, found {n_events:,}"
                f" before {window.until}; choose a user by id."
            )
        query = (
            "SELECT user_id, item_id, max(timestamp) AS last, min(timestamp) AS first"
            f" FROM {window.events} GROUP BY ALL ORDER BY user_id, item_id"
        )
        with database.cursor() as cursor:
            return cls.of(answer(cursor, query))

    @classmethod
    def of(cls, pairs: pa.Table) -> "Crowd":
        """From pairs in order: user_id, item_id, last, first."""
        users = pairs["user_id"].combine_chunks().dictionary_encode()
        items = pairs["item_id"].combine_chunks().dictionary_encode()
        order = pc.sort_indices(items.dictionary)
        place = np.empty(len(order), np.int32)
        place[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
        n_users = len(users.dictionary)
        starts = np.searchsorted(users.indices.to_numpy(), np.arange(n_users + 1))
        first = np.minimum.reduceat(pairs["first"].to_numpy(), starts[:-1])
        return cls(
            IdMap.of(users.dictionary),
            IdMap.of(items.dictionary.take(order)),
            starts,
            place[items.indices.to_numpy()],
            pairs["last"].to_numpy(),
            first,
        )

    @cached_property
    def lengths(self) -> np.ndarray:
        """``[n_users]`` titles of each."""
        return np.diff(self.starts)

    @cached_property
    def by_item(self) -> tuple[np.ndarray, np.ndarray]:
        """Users, item after item, and ``[n_items + 1]`` where each item's start."""
        users = np.repeat(np.arange(len(self.users), dtype=np.int32), self.lengths)
        ends = np.cumsum(np.bincount(self.codes, minlength=len(self.items)))
        return users[np.argsort(self.codes, kind="stable")], np.concatenate([[0], ends])

    def history(self, user_id: str) -> list[Watched]:
        """As `Window.history`."""
        user = self._place(user_id)
        if user < 0:
            return []
        codes, last = self._titles(user), self.last[self.starts[user] : self.starts[user + 1]]
        order = np.lexsort((codes, -last))
        ids = self.items.ids_of(codes[order])
        return [Watched(*one) for one in zip(ids, last[order].tolist(), strict=True)]

    def neighbours(self, user_id: str, k: int) -> list[Neighbour]:
        """The users with the most similar histories, exactly, over everybody.

        Args:
            user_id: Whose neighbours; one who is not there has none.
            k: How many, at most; nobody who shares nothing.
        """
        user = self._place(user_id)
        if user < 0:
            return []
        users, starts = self.by_item
        codes = self._titles(user)
        met = np.concatenate([users[starts[code] : starts[code + 1]] for code in codes])
        shared = np.bincount(met, minlength=len(self.users))
        alike = shared / (self.lengths + self.lengths[user] - shared)
        alike[user] = 0
        return [self._neighbour(codes, one, float(alike[one])) for one in _best(alike, k)]

    def _neighbour(self, codes: np.ndarray, other: int, jaccard: float) -> Neighbour:
        shared = np.intersect1d(codes, self._titles(other))
        n_users = np.diff(self.by_item[1])[shared]
        ids = self.items.ids_of(shared[np.argsort(n_users, kind="stable")])
        return Neighbour(self.users.ids_of([other])[0], jaccard, ids)

    def worth_a_look(self, known: Sequence[Id] | None) -> dict[str, list[Id]]:
        """Some users of each sort, by what they are.

        Args:
            known: Items that the live model knows; None without one.
        """
        order = np.argsort(-self.lengths, kind="stable")
        new = np.argsort(-self.first, kind="stable")
        sorts = {"watch most": order[:3], "watch little": order[::-1][:3], "came last": new[:3]}
        if known is not None:
            strangers = ~np.isin(np.arange(len(self.items)), self.items.index_of(known))
            n_known = np.add.reduceat(~strangers[self.codes], self.starts[:-1], dtype=np.int64)
            sorts["watch nothing that the model knows"] = np.flatnonzero(n_known == 0)[:3]
        return {name: self.users.ids_of(found) for name, found in sorts.items() if len(found)}

    def _place(self, user_id: str) -> int:
        return int(self.users.index_of_few([user_id])[0])

    def _titles(self, user: int) -> np.ndarray:
        return self.codes[self.starts[user] : self.starts[user + 1]]


def _best(values: np.ndarray, k: int) -> list[int]:
    """Places of the k largest above 0, the first of equals first."""
    least = np.partition(values, -k)[-k] if len(values) > k else 0
    places = np.flatnonzero((values >= least) & (values > 0))
    best: list[int] = places[np.argsort(-values[places], kind="stable")][:k].tolist()
    return best
