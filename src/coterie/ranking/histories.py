"""Histories: who is asked for and what they have had, still in people's own ids.

Apart from recommending because a history file is read without a model, and one file may serve
several.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array

from coterie.data.frames import ArrowTable, hands_over_arrow, is_matrix, pairs_table
from coterie.data.ids import Id, IdMap, is_text, whole_ids
from coterie.errors import DataError, NotFoundError

UserItems: TypeAlias = (
    Mapping[Id, Iterable[Id]]
    | Mapping[int, Iterable[Id]]
    | Mapping[str, Iterable[Id]]
    | Iterable[tuple[Id, Id]]
    | ArrowTable
    | csr_array
)
"""Each user's items: a mapping, pairs (user, item), a table with columns ``user_id`` and
``item_id``, or a matrix over the catalogue. A mapping is spelt thrice because its keys are
invariant: no ``dict[str, …]`` is a ``Mapping[Id, …]``.
"""

# Ids that a kept hash table finds sooner than Arrow, which makes a table of the catalogue for each
# call.
_FEW = 5000

# Ids that a message names.
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Histories:
    """Users with any number of items each; neither need be known to a model.

    Args:
        users: ``[n_users]`` ids, in the order in which they are answered.
        offsets: ``[n_users + 1]`` int64 where each user's items start and the last one's end.
        item_ids: ``[n_pairs]`` item ids, user after user; repetitions and unknown ids are allowed.

    Example:
        >>> histories = Histories.of({"ann": ["blue", "mauve", "blue"], "bob": []})
        >>> rows, unknown = histories.encode(IdMap.of(["blue", "red"]))
        >>> rows.toarray().tolist(), unknown
        ([[1.0, 0.0], [0.0, 0.0]], {'ann': ['mauve']})
    """

    users: IdMap
    offsets: np.ndarray
    item_ids: pa.Array

    @classmethod
    def of(cls, histories: "Histories | UserItems", items: IdMap | None = None) -> "Histories":
        """Takes each user's items from a mapping or a pandas Series of lists, from pairs ``(user,
        item)``, from a table as `from_table` does, or from a matrix over ``items`` as `from_matrix`
        does; histories pass through.

        Where integers and strings are mixed, among users or among items, all become strings.

        Raises:
            DataError: if a user's items are one string, or a user occurs as 7 and as "7".
            ConfigError: if it is none of these.
        """
        if isinstance(histories, Histories):
            return histories
        if is_matrix(histories):
            return cls.from_matrix(histories, IdMap.of([]) if items is None else items)
        if getattr(histories, "ndim", 0) == 1 and hasattr(histories, "to_dict"):
            histories = histories.to_dict()  # a Series, which hands over Arrow without its index
        if not isinstance(histories, Mapping):
            return cls.from_table(
                histories if hands_over_arrow(histories) else pairs_table(cast(Any, histories))
            )
        for user_id, had in histories.items():
            if isinstance(had, str):
                raise DataError(
                    f"a history must be a sequence of item ids, found the string {had!r} for"
                    f" {user_id!r}; put it in a list."
                )
        listed = [list(had) for had in histories.values()]
        offsets = np.fromiter(accumulate(map(len, listed), initial=0), np.int64)
        return cls(
            _user_ids(_array(list(histories))), offsets, _array(list(chain.from_iterable(listed)))
        )

    @classmethod
    def from_table(
        cls, table: Any, user_column: str = "user_id", item_column: str = "item_id"
    ) -> "Histories":
        """Takes one row a pair from a table of pandas, polars, pyarrow or DuckDB, or whatever else
        hands over Arrow; a missing item adds the user alone.

        Raises:
            DataError: if a column is missing, or a row names no user.

        Example:
            >>> pairs = pa.table({"who": ["ann", "bob", "ann"], "item_id": [7, None, 8]})
            >>> Histories.from_table(pairs, user_column="who").offsets.tolist()
            [0, 2, 2]
        """
        arrow = pa.table(table)
        missing = {user_column, item_column} - set(arrow.column_names)
        if missing:
            raise DataError(
                f"a table of histories must have the columns {user_column!r} and {item_column!r},"
                f" found {arrow.column_names}; name yours."
            )
        users, items = (_plain(arrow[name]) for name in (user_column, item_column))
        return cls.from_pairs(users, items)

    @classmethod
    def from_matrix(cls, matrix: Any, items: IdMap, users: IdMap | None = None) -> "Histories":
        """Takes a SciPy matrix ``[n_users, n_items]`` over a catalogue; users are named by their
        rows if not otherwise.

        Raises:
            DataError: if it is over other items or users.
        """
        rows = csr_array(matrix)
        users = IdMap.of(np.arange(rows.shape[0])) if users is None else users
        if rows.shape != (len(users), len(items)):
            raise DataError(
                f"a matrix of histories must be {len(users)} users × {len(items)} items, found"
                f" {rows.shape}; give the rows of the model's catalogue."
            )
        return cls(users, rows.indptr.astype(np.int64), items.take(rows.indices))

    @classmethod
    def from_pairs(cls, user_ids: pa.Array, item_ids: pa.Array) -> "Histories":
        """Groups ``[n_pairs]`` rows by user, in order of first appearance; a missing item adds the
        user alone.

        Raises:
            DataError: if a user id is missing or of an unusable type.
        """
        if user_ids.null_count:
            raise DataError(
                f"every row must name its user, found {user_ids.null_count} without; drop those"
                " rows."
            )
        encoded = pc.dictionary_encode(user_ids)
        user = encoded.indices.to_numpy(zero_copy_only=False)
        given = item_ids.is_valid().to_numpy(zero_copy_only=False)
        pairs = np.argsort(user, kind="stable")
        pairs = pairs[given[pairs]]
        counts = np.bincount(user[given], minlength=len(encoded.dictionary))
        return cls(
            _user_ids(encoded.dictionary),
            np.concatenate([[0], np.cumsum(counts)]),
            item_ids.take(pa.array(pairs)),
        )

    def __len__(self) -> int:
        return len(self.users)

    def of_users(self, user_ids: Iterable[Id]) -> "Histories":
        """Those of some users, in the order asked for; a repetition counts once.

        Raises:
            NotFoundError: if a user has no history here, not even an empty one.

        Example:
            >>> histories = Histories.of({7: ["blue"], 8: [], 9: ["red"]})
            >>> histories.of_users(["9", 7]).users.ids_of([0, 1])
            [9, 7]
        """
        asked = list(user_ids)
        rows = self.users.index_of(asked)
        missing = [one for one, row in zip(asked, rows, strict=True) if row < 0]
        if missing:
            named = ", ".join(map(repr, missing[:_SHOWN])) + ", …" * (len(missing) > _SHOWN)
            raise NotFoundError(
                f"every user asked for must be in the histories, {len(missing):,} of"
                f" {len(asked):,} are not: {named}; correct them, or add them without items."
            )
        rows = np.array(list(dict.fromkeys(rows.tolist())), dtype=np.int64)
        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        pairs = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], counts)
        return Histories(IdMap(self.users.take(rows)), offsets, self.item_ids.take(pa.array(pairs)))

    def blocks(self, size: int) -> Iterator["Histories"]:
        """Cuts the users into runs of at most ``size``."""
        if 0 < len(self) <= size:
            yield self
            return
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            first, last = int(self.offsets[start]), int(self.offsets[stop])
            users = IdMap(self.users.values.slice(start, stop - start))
            yield Histories(
                users,
                self.offsets[start : stop + 1] - first,
                self.item_ids.slice(first, last - first),
            )

    def encode(self, items: IdMap) -> tuple[csr_array, dict[Id, list[Id]]]:
        """Looks the items up in a catalogue.

        Returns:
            ``[n_users, n_items]`` binary rows, repetitions merged, and the unknown item ids of each
            user who has any.
        """
        n_items, few = len(items), len(self.item_ids) <= _FEW
        column = (items.index_of_few if few else items.index_of)(self.item_ids)
        row = np.repeat(np.arange(len(self)), self.offsets[1:] - self.offsets[:-1])
        known = column >= 0
        pairs = _distinct(row[known] * n_items + column[known])
        starts = np.searchsorted(pairs, np.arange(len(self) + 1) * n_items)
        rows = csr_array(
            (np.ones(len(pairs), dtype=np.float32), pairs % max(n_items, 1), starts),
            shape=(len(self), n_items),
        )
        return rows, {} if known.all() else self._named(np.flatnonzero(~known), row)

    def _named(self, pairs: np.ndarray, row: np.ndarray) -> dict[Id, list[Id]]:
        named: dict[Id, dict[Id, None]] = {}
        for user_id, item_id in zip(
            self.users.ids_of(row[pairs]),
            self.item_ids.take(pa.array(pairs)).to_pylist(),
            strict=True,
        ):
            named.setdefault(user_id, {})[item_id] = None
        return {user_id: list(item_ids) for user_id, item_ids in named.items()}


def _distinct(numbers: np.ndarray) -> np.ndarray:
    """Each number once, ascending; `np.unique` takes several times as long for a few."""
    numbers, first = np.sort(numbers), np.ones(len(numbers), dtype=bool)
    np.not_equal(numbers[1:], numbers[:-1], out=first[1:])
    return numbers[first]


def _plain(ids: pa.ChunkedArray) -> pa.Array:
    """One array of integers or text: floats that are all whole are integers, as pandas writes a
    column with a missing value; categories are their text.
    """
    whole = ids.combine_chunks()
    if pa.types.is_dictionary(whole.type):
        # Decoded first: Arrow cannot take from every kind of text.
        plain = _plain(pa.chunked_array([whole.dictionary]))
        whole = pa.DictionaryArray.from_arrays(whole.indices, plain).dictionary_decode()
    return whole.cast(pa.string()) if is_text(whole.type) else whole_ids(whole)


def _array(ids: list[Id]) -> pa.Array:
    """Ids as one Arrow array: integers if all are, else text, as two kinds in one list do not fit a
    column.
    """
    try:
        array = pa.array(ids)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        array = pa.array([str(one) for one in ids])
    return array.cast(pa.string()) if pa.types.is_null(array.type) else array


def _user_ids(ids: pa.Array) -> IdMap:
    try:
        return IdMap.of(ids)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"user ids must fit in 64-bit integers or be strings ({error}); write them as strings."
        ) from error
