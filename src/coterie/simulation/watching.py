"""What a block of users watches, day after day, and when the rows of it arrive.

Nobody watches a title twice, so a day needs the days before it; these are made again, block by
block, and nothing is kept.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from coterie.simulation.crowd import BLOCK_USERS, Crowd, Group
from coterie.simulation.draws import draw_columns, flat_cumulative, stream
from coterie.simulation.programme import Programme

LOOKS = 16
"""Who finds nothing new to watch in so many looks leaves it for the day."""

WEEKDAYS = np.array([0.86, 0.82, 0.84, 0.90, 1.10, 1.30, 1.18])
"""Strength of Monday to Sunday, one on average."""

HOURS = np.array([3, 2, 1, 1, 1, 1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 5, 6, 8, 11, 14, 16, 15, 10, 6.0])
"""Strength of the hours of a day, in UTC."""

LATEST_DAYS = 3
"""A late row arrives one to three days after it happened; the copy of a row at the same time as the
row, or a day after it.
"""

DAY_SECONDS = 24 * 3600


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of the log.

    Args:
        user_id: ``[n]`` int64.
        item_id: ``[n]`` int64.
        timestamp: ``[n]`` int64 seconds since 1970 (UTC).
        value: ``[n]`` float64 seconds watched.
    """

    user_id: np.ndarray
    item_id: np.ndarray
    timestamp: np.ndarray
    value: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "Rows":
        return Rows(*(column[rows] for column in vars(self).values()))

    def table(self) -> pa.Table:
        """The rows, a column a field."""
        return pa.table(vars(self))


class Seen:
    """Which of a block's users has seen which item, a bit each.

    Args:
        n_users: Of the block.
        n_items: Of all days. The place of a pair is its user's row times this, plus its item.
    """

    def __init__(self, n_users: int, n_items: int) -> None:
        self._bits = np.zeros(n_users * n_items // 8 + 1, np.uint8)

    def has(self, place: np.ndarray) -> np.ndarray:
        """``[n]`` bool: whether the pairs at ``[n]`` places are marked."""
        found: np.ndarray = (self._bits[place >> 3] & _bit(place)) != 0
        return found

    def mark(self, place: np.ndarray) -> None:
        """Marks the pairs at ``[n]`` places."""
        np.bitwise_or.at(self._bits, place >> 3, _bit(place))


def _bit(place: np.ndarray) -> np.ndarray:
    return np.left_shift(np.uint8(1), (place & 7).astype(np.uint8))


@dataclass(frozen=True)
class Collecting:
    """How the log is collected: shares of rows that arrive late, and that arrive twice."""

    late_share: float
    duplicate_share: float

    def arrivals(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Which of ``n`` rows arrive, copies among them, and how many days after they happened."""
        is_late = rng.random(n) < self.late_share
        delay = is_late * rng.integers(1, LATEST_DAYS + 1, size=n)
        copied = np.flatnonzero(rng.random(n) < self.duplicate_share)
        again = delay[copied] + rng.integers(0, 2, size=len(copied))
        return np.concatenate([np.arange(n), copied]), np.concatenate([delay, again])


@dataclass(frozen=True, eq=False)
class Watching:
    """Who watches what, and how it is collected.

    Args:
        programme: The titles.
        crowd: The users.
        collecting: Of the log.
        first_second: Of the first day, since 1970 (UTC).
    """

    programme: Programme
    crowd: Crowd
    collecting: Collecting
    first_second: int

    def arrived(self, block: int, first: int, last: int) -> Iterator[pa.Table]:
        """The rows of a block that arrived on each of the days ``first`` to ``last``."""
        recent: deque[tuple[Rows, np.ndarray]] = deque(maxlen=LATEST_DAYS + 2)
        for day, rows in enumerate(self._days(block, last)):
            rng = stream(self.crowd.seed, 17, block, day)
            which, delay = self.collecting.arrivals(len(rows.user_id), rng)
            recent.append((rows[which], day + delay))
            if day >= first:
                tables = [of_day[on == day].table() for of_day, on in recent]
                yield pa.concat_tables(tables).sort_by(_BY_TIME).combine_chunks()

    def _days(self, block: int, last: int) -> Iterator[Rows]:
        """What the users of a block watched, on the first day and on each until ``last``."""
        group = Group(self.crowd, block)
        seen = Seen(group.n, len(self.programme.start))
        for day in range(last + 1):
            rng = stream(self.crowd.seed, 16, block, day)
            row, item = self._watched(group, day, seen, rng)
            yield self._rows(day, block * BLOCK_USERS + row, item, rng)

    def _watched(
        self, group: Group, day: int, seen: Seen, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        counts = group.counts(day, float(WEEKDAYS[self._weekday(day)]), rng)
        active = np.flatnonzero(counts)
        return draw_unseen(
            active, counts[active], group.tastes(active, day), self.programme.law(day), seen, rng
        )

    def _rows(self, day: int, user: np.ndarray, item: np.ndarray, rng: np.random.Generator) -> Rows:
        hour = rng.choice(len(HOURS), p=HOURS / HOURS.sum(), size=len(user))
        second = hour * 3600 + rng.integers(3600, size=len(user))
        timestamp = self.first_second + day * DAY_SECONDS + second
        return Rows(user + 1, item + 1, timestamp, self.programme.seconds(item, rng))

    def _weekday(self, day: int) -> int:
        # 1 January 1970 was a Thursday.
        return (self.first_second // DAY_SECONDS + day + 3) % 7


_BY_TIME = [("timestamp", "ascending"), ("user_id", "ascending"), ("item_id", "ascending")]


def draw_unseen(
    row: np.ndarray,
    n_wanted: np.ndarray,
    tastes: np.ndarray,
    phi: np.ndarray,
    seen: Seen,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws items from ``tastes @ phi``, one after another, none that was seen or drawn before.

    A look that finds something seen is made again, which is the law of what is unseen; after
    `LOOKS` it is given up.

    Args:
        row: ``[n]`` int64 rows of ``seen``, ascending.
        n_wanted: ``[n]`` int64 items for each.
        tastes: ``[n, n_niches]`` rows that sum to one.
        phi: ``[n_niches, n_items]`` rows that sum to one.
        seen: What each has seen; what is drawn is marked in it.
        rng: Source of all randomness.

    Returns:
        Rows and items drawn, int64 of the same length: at most the sum of ``n_wanted``.
    """
    flat_tastes, flat_phi = flat_cumulative(tastes), flat_cumulative(phi)
    looking = np.repeat(np.arange(len(row)), n_wanted)
    found = [np.empty(0, np.int64)]
    for _ in range(LOOKS):
        if not len(looking):
            break
        niche = draw_columns(flat_tastes, len(phi), looking, rng)
        place = row[looking] * phi.shape[1] + draw_columns(flat_phi, phi.shape[1], niche, rng)
        is_new = _is_first(place) & ~seen.has(place)
        seen.mark(place[is_new])
        found.append(place[is_new])
        looking = looking[~is_new]
    return np.divmod(np.concatenate(found), phi.shape[1])


def _is_first(place: np.ndarray) -> np.ndarray:
    """``[n]`` bool: whether a value has not been before."""
    is_first = np.zeros(len(place), bool)
    is_first[np.unique(place, return_index=True)[1]] = True
    return is_first
