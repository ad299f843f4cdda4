"""A simulated streaming service that lives: weeks of a changing service whose law is known.

Titles come and leave, users come and leave, tastes drift, niches come into fashion; the log arrives
by days, some of it late and some of it twice. As the law of every day is known, so is the best
possible ranking of that day.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from coterie.errors import ConfigError
from coterie.running.progress import Progress, Update, silent
from coterie.simulation.crowd import BLOCK_USERS, Crowd, Group
from coterie.simulation.day_files import write_days
from coterie.simulation.draws import stream
from coterie.simulation.programme import Programme, make_programme
from coterie.simulation.service import check_at_least
from coterie.simulation.tastes import Activity, make_profiles
from coterie.simulation.watching import Collecting, Watching

YEAR_WEEKS = 52

MOST_DAILY_ITEMS = 8


@dataclass(frozen=True)
class LivingService:
    """Weeks of a streaming service that changes, a day at a time.

    A day is a function of the fields: it can be made alone, and in any order, and has the same rows
    always. As nobody watches a title twice, the days before it are made, too, and forgotten: time
    grows with the number of the day, memory with one block of users and not with ``n_users``.

    Items and users have ids from 1 in the order in which they come. The number of weeks is part of
    the law: another number gives another service.

    Args:
        n_users: Users who are there when the first day begins, at least 1. Every week 2 % come and
            as many leave.
        n_items: Titles that are there when the first day begins, at least ``n_niches``. Every week
            3 % come, at first watched much more than later; 2 % leave.
        weeks: Length of the log.
        seed: Not negative.
        first_day: In UTC.
        n_niches: At least 4; 0 chooses one per 30 titles, from 6 to 64.
        weekly_items: Mean number of titles that a user takes up a week, but a tenth less: heavy
            users are cut at 60 % of the catalogue in all weeks, and at times find nothing new. 0
            chooses 4, or a fifth of the catalogue in all weeks; a half at most.
        late_share: Share of rows that arrive one to three days after they happened.
        duplicate_share: Share of rows that arrive a second time, at once or the day after.

    Raises:
        ConfigError: if the numbers do not fit together.

    Example:
        >>> service = LivingService(n_users=300, n_items=60, weeks=2, seed=3)
        >>> day = date(2026, 1, 10)
        >>> service.events(day).column_names
        ['user_id', 'item_id', 'timestamp', 'value']
        >>> service.probabilities(service.users(day)[:2], day).shape
        (2, 63)
    """

    n_users: int
    n_items: int
    weeks: int = 8
    seed: int = 0
    first_day: date = date(2026, 1, 5)
    n_niches: int = 0
    weekly_items: float = 0.0
    late_share: float = 0.03
    duplicate_share: float = 0.01

    def __post_init__(self) -> None:
        # The chosen values are kept, so that a service always says what it is made of.
        object.__setattr__(self, "n_niches", self.n_niches or min(64, max(6, self.n_items // 30)))
        for name, lowest in {"n_users": 1, "seed": 0, "n_niches": 4, "weeks": 1}.items():
            check_at_least(name, getattr(self, name), lowest)
        check_at_least("n_items", self.n_items, self.n_niches)
        object.__setattr__(self, "weekly_items", self.weekly_items or min(4.0, self._weekly(0.2)))
        for name, high in self._highest.items():
            if not 0 <= getattr(self, name) <= high:
                raise ConfigError(
                    f"{name} must be from 0 to {high:g} here, found {getattr(self, name)}; change"
                    " it."
                )

    @property
    def _highest(self) -> dict[str, float]:
        weekly = min(self._weekly(0.5), 7 * MOST_DAILY_ITEMS / 2)
        return {"weekly_items": weekly, "late_share": 1, "duplicate_share": 1}

    def _weekly(self, share: float) -> float:
        """Titles a week that are a share of the first day's in all weeks."""
        return share * self.n_items / self.weeks

    @property
    def last_day(self) -> date:
        """The last day of the log. What happened on it and arrives late is never seen."""
        return self.first_day + timedelta(days=7 * self.weeks - 1)

    @property
    def n_titles(self) -> int:
        """Number of titles that there will ever be: the columns of the law, ids 1 to n."""
        return len(self.programme.start)

    @cached_property
    def programme(self) -> Programme:
        """The planted truth about the titles."""
        return make_programme(self.n_items, self.n_niches, 7 * self.weeks, stream(self.seed, 10))

    @cached_property
    def crowd(self) -> Crowd:
        """The planted truth about the users."""
        most = YEAR_WEEKS * min(self._weekly(0.6), 7 * MOST_DAILY_ITEMS)
        activity = Activity(YEAR_WEEKS * self.weekly_items, 0, int(most))
        profiles = make_profiles(self.n_niches, stream(self.seed, 11))
        return Crowd(self.n_users, 7 * self.weeks, profiles, activity, self.seed)

    def events(self, day: date) -> pa.Table:
        """What arrived on a day.

        Returns:
            user_id, item_id, timestamp (int64; seconds since 1970, UTC) and value (float64, seconds
            watched); in the order of time within every 16,384 users.

        Raises:
            ConfigError: if the day is not of the log.
        """
        return pa.concat_tables([table for _, table in self.arrivals(day, day)]).combine_chunks()

    def arrivals(
        self, first: date, last: date, progress: Progress = silent
    ) -> Iterator[tuple[date, pa.Table]]:
        """What arrived on each day from ``first`` to ``last``, in pieces: a block of users after
        another, and each day by day.

        Raises:
            ConfigError: if the days are not of the log, or in the wrong order.
        """
        begin, end = self._number(first), self._number(last)
        if begin > end:
            raise ConfigError(f"first must not be after last, found {first} and {last}; swap them.")
        n_users = self.crowd.n_by(end)
        for block in range(self.crowd.n_blocks_by(end)):
            for day, table in enumerate(self._watching.arrived(block, begin, end)):
                yield first + timedelta(days=day), table
            done = min((block + 1) * BLOCK_USERS, n_users)
            progress(Update("writing the days", done, n_users, "users"))

    def titles(self, day: date) -> pa.Table:
        """The titles announced by a day, those that have left included.

        Returns:
            item_id, title, kind ("movie" or "series"), genres ("Space|Crime"), available_from and
            available_until (dates, half-open; null where there is no end), and a truth value for
            every genre (``genre_space``). A title is announced a week before it can be watched.

        Raises:
            ConfigError: if the day is not of the log.
        """
        return self.programme.table(self._number(day), self.first_day)

    def users(self, day: date) -> np.ndarray:
        """``[n]`` int64 ids of those who are members on a day, ascending; some never watch.

        Raises:
            ConfigError: if the day is not of the log.
        """
        number = self._number(day)
        blocks = range(self.crowd.n_blocks_by(number))
        rows = [np.flatnonzero(Group(self.crowd, one).members(number)) for one in blocks]
        return np.concatenate([one * BLOCK_USERS + row + 1 for one, row in enumerate(rows)])

    def probabilities(self, user_ids: ArrayLike, day: date) -> np.ndarray:
        """The law of a day: with what probability a user's next title is each.

        Ranking by it, what the user has seen removed, is the best possible ranking of that day.

        Args:
            user_ids: ``[n]`` integer ids, of members or not, in any order.
            day: The day.

        Returns:
            ``[n, n_titles]`` float64; column i is item id i + 1. Rows sum to one over the titles
            that are available that day, and are zero elsewhere.

        Raises:
            ConfigError: if the day is not of the log, or nobody ever has one of the ids.
        """
        number, index = self._number(day), np.asarray(user_ids, dtype=np.int64) - 1
        n_users = self.crowd.n_by(self.crowd.n_days - 1)
        if len(index) and not (index.min() >= 0 and index.max() < n_users):
            raise ConfigError(
                f"user ids must be in [1, {n_users}], found {index.min() + 1} to"
                f" {index.max() + 1}; ask the service they are of."
            )
        tastes = np.empty((len(index), self.n_niches))
        for block in np.unique(index // BLOCK_USERS).tolist():
            here = np.flatnonzero(index // BLOCK_USERS == block)
            tastes[here] = Group(self.crowd, block).tastes(index[here] % BLOCK_USERS, number)
        law: np.ndarray = tastes @ self.programme.law(number)
        return law

    def write(
        self, folder: str | Path, first: date, last: date, progress: Progress = silent
    ) -> None:
        """Writes ``events/day=YYYY-MM-DD/events.parquet`` for every day from ``first`` to ``last``,
        and ``titles.parquet`` as of the last; each file whole or not at all.

        All days are made in one go, which is much faster than one by one; the bytes are the same.

        Args:
            folder: Made if it is not there; other days in it stay.
            first: First day.
            last: Last day.
            progress: Called after every block of users.

        Raises:
            ConfigError: if the days are not of the log.
            CannotWriteError: if there are no rights or there is no room.
        """
        write_days(folder, self.titles(last), self.arrivals(first, last, progress))

    @cached_property
    def _watching(self) -> Watching:
        midnight = datetime.combine(self.first_day, time(), UTC)
        collecting = Collecting(self.late_share, self.duplicate_share)
        return Watching(self.programme, self.crowd, collecting, int(midnight.timestamp()))

    def _number(self, day: date) -> int:
        if not self.first_day <= day <= self.last_day:
            raise ConfigError(
                f"days must be from {self.first_day} to {self.last_day}, found {day}; ask for one"
                " of them, or make a service of more weeks."
            )
        return (day - self.first_day).days
