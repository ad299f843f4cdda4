"""Interactions as arrays: rows of a log, and the pairs of user and item that they merge into.

Apart from preparing because every split merges, some of them several stretches of one log.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coterie.data.rules import Merge, PrepareRules


@dataclass(frozen=True)
class Pairs:
    """Interactions as arrays of equal length.

    Args:
        user: ``[n]`` int32 codes, ascending with the ids.
        item: ``[n]`` int32 codes, ascending with the ids.
        timestamp: ``[n]`` int64 seconds, or None.
        part: ``[n]`` uint8 parts, or None.
        count: ``[n]`` integers, how often each was seen, or None: once.
        first_timestamp: ``[n]`` int64 seconds of the first time, or None: ``timestamp``.
        value: ``[n]`` float64 ratings or counts, or None where merging does not ask.
        row: ``[n]`` int64 places in the log, or None where their order does not matter.
        number: ``[n]`` int64 of the pair among all that there are, or None where nobody asks.
        repeats: ``[n]`` uint8 as in `coterie.data.split.Split`, or None.
    """

    user: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray | None = None
    part: np.ndarray | None = None
    count: np.ndarray | None = None
    first_timestamp: np.ndarray | None = None
    value: np.ndarray | None = None
    row: np.ndarray | None = None
    number: np.ndarray | None = None
    repeats: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.user)

    def where(self, keep: np.ndarray) -> "Pairs":
        """The interactions where ``keep`` ([n] bool) holds."""
        return self if keep.all() else self.take(keep)

    def take(self, places: np.ndarray) -> "Pairs":
        """The interactions at ``places``, as NumPy indexes."""
        return self._map(lambda column: column[places])

    def ordered(self) -> "Pairs":
        """Sorted by user and item; and by time and place in the log, where places are known."""
        keys = [key for key in (self.row, self.timestamp) if key is not None]
        key = self.key
        order = np.argsort(key, kind="stable") if self.row is None else np.lexsort((*keys, key))
        return self.take(order)

    @property
    def key(self) -> np.ndarray:
        """``[n]`` int64, one number a pair, ascending by user and item."""
        n_items = int(self.item.max(initial=0)) + 1
        key: np.ndarray = self.user.astype(np.int64) * n_items + self.item
        return key

    def starts(self) -> np.ndarray:
        """Of `ordered` rows: the places where the rows of a pair begin."""
        same = (self.user[1:] == self.user[:-1]) & (self.item[1:] == self.item[:-1])
        return np.flatnonzero(np.concatenate([np.ones(min(len(self), 1), dtype=bool), ~same]))

    def numbered(self) -> "Pairs":
        """The same `ordered` rows with the ``number`` of each one's pair."""
        is_first = np.zeros(len(self), dtype=np.int64)
        is_first[self.starts()] = 1
        return replace(self, number=np.cumsum(is_first) - 1)

    def _map(self, change: Callable[[np.ndarray], np.ndarray]) -> "Pairs":
        columns = vars(self).values()
        return Pairs(*(None if column is None else change(column) for column in columns))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Divided:
    """Pairs with their parts, and the users that they are of.

    Args:
        pairs: By user and item, with parts.
        users: ``[n_users]`` codes of the users kept, ascending; some may have no pair left.
        user_part: ``[n_users]`` uint8.
    """

    pairs: Pairs
    users: np.ndarray
    user_part: np.ndarray


def joined(pieces: Sequence[Pairs]) -> Pairs:
    """Numbered pairs of several stretches as one in order; what several have is the first one's."""
    are_counted = any(piece.count is not None for piece in pieces)
    have_first = any(piece.first_timestamp is not None for piece in pieces)
    filled = [_filled(piece, are_counted, have_first) for piece in pieces]
    columns = (
        None if first is None else np.concatenate([first, *others])
        for first, *others in zip(*(vars(piece).values() for piece in filled), strict=True)
    )
    together = Pairs(*columns)  # type: ignore[arg-type]
    _, places = np.unique(together.number, return_index=True)  # type: ignore[call-overload]
    return together.take(places)


def _filled(pairs: Pairs, are_counted: bool, have_first: bool) -> Pairs:
    """With what None stands for, where others have numbers."""
    if are_counted and pairs.count is None:
        pairs = replace(pairs, count=np.ones(len(pairs), dtype=np.int64))
    if have_first and pairs.first_timestamp is None:
        pairs = replace(pairs, first_timestamp=pairs.timestamp)
    return pairs


def merged(rows: Pairs, rules: PrepareRules) -> Pairs:
    """Of `ordered` rows: the pairs that are left when what is taken back has gone, what is repeated
    has merged, and what is too low has gone.
    """
    once = merge_repeated(drop_taken_back(rows, rules.negative_values), rules.merge)
    return drop_low(once, rules.min_rating)


def merge_repeated(rows: Pairs, merge: Merge | None = "any") -> Pairs:
    """Makes the rows of every pair one: counted, with its first and latest time, and training if
    any says so.

    Args:
        rows: As `Pairs.ordered` gives them.
        merge: Which value the pair has: none, the latest, or the sum.

    Example:
        >>> twice = Pairs(np.array([1, 0, 1]), np.array([2, 5, 2]), np.array([10, 20, 30]))
        >>> once = merge_repeated(twice.ordered())
        >>> once.timestamp.tolist(), once.first_timestamp.tolist(), once.count.tolist()
        ([20, 30], [20, 10], [1, 2])
    """
    starts = rows.starts()
    ends = np.append(starts, len(rows))[1:] - 1
    first, latest = (_reduce(by, rows.timestamp, starts) for by in (np.minimum, np.maximum))
    return Pairs(
        rows.user[starts],
        rows.item[starts],
        latest,
        _reduce(np.minimum, rows.part, starts),
        _counts(rows, starts),
        None if first is None or np.array_equal(first, latest) else first,  # type: ignore[arg-type]
        _values(rows, starts, ends, merge),
        _at(rows.row, ends),
        _at(rows.number, starts),
    )


def _counts(rows: Pairs, starts: np.ndarray) -> np.ndarray | None:
    count = _reduce(np.add, rows.count, starts)
    if count is None:
        count = np.diff(starts, append=len(rows))
    # What is kept was seen at least once, whatever its value says.
    return None if (count == 1).all() else np.maximum(count, 1)


def _values(
    rows: Pairs, starts: np.ndarray, ends: np.ndarray, merge: Merge | None
) -> np.ndarray | None:
    if merge == "latest":
        return _at(rows.value, ends)
    return _reduce(np.add, rows.value, starts) if merge == "sum" else None


def _reduce(by: np.ufunc, column: np.ndarray | None, starts: np.ndarray) -> np.ndarray | None:
    if column is None or not len(starts):
        return column
    reduced: np.ndarray = by.reduceat(column, starts)
    return reduced


def _at(column: np.ndarray | None, places: np.ndarray) -> np.ndarray | None:
    return None if column is None else column[places]


def drop_low(pairs: Pairs, min_rating: float | None) -> Pairs:
    """Without the pairs whose value, where merging gave them one, is below the least."""
    if pairs.value is None or min_rating is None:
        return pairs
    return pairs.where(pairs.value >= min_rating)


def is_negative(rows: Pairs, negative_values: tuple[float, ...]) -> np.ndarray:
    """``[n]`` bool: which rows say "unlike"."""
    if rows.value is None or not negative_values:
        return np.zeros(len(rows), dtype=bool)
    return np.isin(rows.value, negative_values)


def drop_taken_back(rows: Pairs, negative_values: tuple[float, ...]) -> Pairs:
    """Without the rows that say "unlike" and without those of the same pair before them.

    Args:
        rows: As `Pairs.ordered` gives them, values and places known if any value is negative.
        negative_values: What such rows hold.
    """
    if not negative_values or not len(rows):
        return rows
    place, starts = np.arange(len(rows)), rows.starts()
    unliked = np.where(is_negative(rows, negative_values), place, -1)
    last = np.repeat(np.maximum.reduceat(unliked, starts), np.diff(starts, append=len(rows)))
    return rows.where(place > last)


def drop_rare(
    pairs: Pairs, min_item_users: int, min_user_items: int
) -> tuple[Pairs, dict[str, int]]:
    """Drops items of too few users, then users of too few items, once; returns what is left and the
    counts.

    Dropping a user may bring an item below its minimum again; that item stays, as in Liang et al.
    """
    users_of = np.bincount(pairs.item)
    rare_items = (users_of > 0) & (users_of < min_item_users)
    left = pairs.where(~rare_items[pairs.item])
    items_of = np.bincount(left.user, minlength=int(pairs.user.max(initial=-1)) + 1)
    rare_users = (np.bincount(pairs.user) > 0) & (items_of < min_user_items)
    kept = left.where(~rare_users[left.user])
    counts = {
        "items_below_min_users": int(rare_items.sum()),
        "interactions_of_items_below_min_users": len(pairs) - len(left),
        "users_below_min_items": int(rare_users.sum()),
        "interactions_of_users_below_min_items": len(left) - len(kept),
    }
    return kept, counts
