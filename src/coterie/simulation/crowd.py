"""The users of a service that lives: who comes and goes, and tastes that drift.

Apart from `tastes`, whose users stand still. Days are numbers, from the first day of the log; users
are made in blocks, and every block from its own streams of random numbers.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from coterie.simulation.draws import normalised, stream
from coterie.simulation.programme import first_of
from coterie.simulation.tastes import Activity, Users, make_users

BLOCK_USERS = 16_384
"""Users made at once. Part of the law: another value gives other users."""

NEW_PER_THOUSAND = 3
"""New users a day for every thousand of the first day: 2.1 % a week."""

LEAVES = 0.003
"""Chance of a user to leave a day: as many as come."""

SEASON_DAYS = 84
"""A user's taste turns into another one in so many days, and then into the next."""

LASTING = 0.75
"""Share of a taste that does not turn."""

FASHION = 0.5
FASHION_DAYS = 70
"""Niches come into fashion and go out of it: the logarithm of their weight swings by FASHION to
either side, once in FASHION_DAYS.
"""

YEAR_DAYS = 365

BEFORE = -1
"""First day of those who were there when the log begins."""


@dataclass(frozen=True, eq=False)
class Crowd:
    """All users that there will ever be, in the order in which they come; user u has id u + 1.

    Args:
        n_users: Those who are there when the first day begins.
        n_days: Length of the log.
        profiles: ``[n_profiles, n_niches]`` from `coterie.simulation.tastes.make_profiles`.
        activity: Law of how many titles a user takes up a year.
        seed: Of all randomness.
    """

    n_users: int
    n_days: int
    profiles: np.ndarray
    activity: Activity
    seed: int

    def n_by(self, day: int) -> int:
        """Number of users who have come by the end of a day."""
        return self.n_users + NEW_PER_THOUSAND * self.n_users * (day + 1) // 1000

    def n_blocks_by(self, day: int) -> int:
        """Number of blocks that hold them."""
        return -(-self.n_by(day) // BLOCK_USERS)

    def fashion(self, day: int) -> np.ndarray:
        """``[n_niches]`` float64 weights of the niches."""
        swing = np.sin(2 * np.pi * (self._phases + day / FASHION_DAYS))
        weights: np.ndarray = np.exp(FASHION * swing)
        return weights

    @cached_property
    def _phases(self) -> np.ndarray:
        return stream(self.seed, 12).random((self.profiles.shape[1],))


@dataclass(frozen=True, eq=False)
class Group:
    """A block of users.

    Args:
        crowd: Of which they are.
        number: Of the block: its first user has index ``number * BLOCK_USERS``.
    """

    crowd: Crowd
    number: int

    @cached_property
    def n(self) -> int:
        """Number of its users: ``BLOCK_USERS``, or those that are left for the last block."""
        n_users = self.crowd.n_by(self.crowd.n_days - 1)
        return min(BLOCK_USERS, n_users - self.number * BLOCK_USERS)

    @cached_property
    def start(self) -> np.ndarray:
        """``[n]`` int64 first day of each."""
        index = self.number * BLOCK_USERS + np.arange(self.n)
        place = index - self.crowd.n_users + 1
        first = first_of(place, NEW_PER_THOUSAND * self.crowd.n_users)
        return np.where(place > 0, first, BEFORE)

    @cached_property
    def stop(self) -> np.ndarray:
        """``[n]`` int64 first day on which each is no longer there."""
        rng = stream(self.crowd.seed, 13, self.number)
        days: np.ndarray = np.maximum(self.start, 0) + rng.geometric(LEAVES, size=self.n)
        return days

    def members(self, day: int) -> np.ndarray:
        """``[n]`` bool: who is there."""
        found: np.ndarray = (self.start <= day) & (day < self.stop)
        return found

    def counts(self, day: int, rhythm: float, rng: np.random.Generator) -> np.ndarray:
        """``[n]`` int64 titles that each looks for; a new user for one at least.

        Args:
            day: The day.
            rhythm: How strong it is, as a factor.
            rng: Source of all randomness.
        """
        found = rng.poisson(self._lasting.n_items * (rhythm / YEAR_DAYS))
        counts: np.ndarray = np.maximum(found, self.start == day) * self.members(day)
        return counts

    def tastes(self, rows: np.ndarray, day: int) -> np.ndarray:
        """``[n, n_niches]`` float64 tastes of some of the users; rows sum to one."""
        season, into = divmod(day, SEASON_DAYS)
        turned = into / SEASON_DAYS
        turning = (1 - turned) * self._season(season)[rows] + turned * self._season(season + 1)[
            rows
        ]
        tastes = LASTING * self._lasting.tastes[rows] + (1 - LASTING) * turning
        return normalised(tastes * self.crowd.fashion(day))

    @cached_property
    def _lasting(self) -> Users:
        return self._made(14)

    def _season(self, number: int) -> np.ndarray:
        if number not in self._seasons:
            self._seasons[number] = self._made(15, number).tastes
        return self._seasons[number]

    @cached_property
    def _seasons(self) -> dict[int, np.ndarray]:
        return {}

    def _made(self, *key: int) -> Users:
        rng = stream(self.crowd.seed, *key, self.number)
        return make_users(self.n, self.crowd.profiles, self.crowd.activity, rng)
