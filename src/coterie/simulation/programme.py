"""The titles of a service that lives: when each is on, how new it is, what it is watched for.

Apart from `titles`, which makes up a catalogue that stands still. Days are numbers here, from the
first day of the log.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from coterie.simulation.draws import normalised
from coterie.simulation.titles import Catalogue, make_catalogue

NEW_PER_THOUSAND = 4
"""New titles a day for every thousand of the first day: 2.8 % a week."""

LEAVES = 0.004
"""Chance of a title, once it may leave, to leave a day: 2 % of all titles leave a week."""

STAYS = 4
"""Every fourth title never leaves."""

LEAST_DAYS = 28
"""A new title stays at least so long."""

ANNOUNCED_DAYS = 7
"""New titles are in the table of titles so long before they can be watched."""

BOOST = 3.0
"""A title is watched 1 + BOOST times as much on its first day as when it is old …"""

BOOST_DAYS = 10.0
"""… and what is added falls to a third in so many days."""

SERIES_SHARE = 0.3

ALWAYS, NEVER = -(10**6), 10**6
"""Days for a title that was always there, and for one that does not leave."""


@dataclass(frozen=True, eq=False)
class Programme:
    """All titles that there will ever be, in the order in which they begin; title i has id i + 1.

    Args:
        catalogue: Their names, genres and the law of items within niches.
        is_series: ``[n]`` bool; the others are movies.
        minutes: ``[n]`` int64, of a movie or of an episode.
        start: ``[n]`` int64, first day on which a title can be watched.
        stop: ``[n]`` int64, first day on which it no longer can.
    """

    catalogue: Catalogue
    is_series: np.ndarray
    minutes: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    def available(self, day: int) -> np.ndarray:
        """``[n]`` bool: what can be watched."""
        found: np.ndarray = (self.start <= day) & (day < self.stop)
        return found

    def law(self, day: int) -> np.ndarray:
        """``[n_niches, n]`` float64: the probability of a title within a niche, zero where it is
        not available; rows sum to one.
        """
        age = np.maximum(day - self.start, 0)
        weight = self.available(day) * (1 + BOOST * np.exp(-age / BOOST_DAYS))
        return normalised(self.catalogue.phi * weight)

    def seconds(self, index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """``[n]`` float64 whole seconds watched, whatever the user: most movies nearly to the end,
        of series one to six episodes.
        """
        episodes = np.where(self.is_series[index], rng.integers(1, 7, size=len(index)), 1)
        share = rng.beta(4.0, 1.0, size=len(index))
        seconds: np.ndarray = np.ceil(60.0 * self.minutes[index] * episodes * share)
        return seconds

    def table(self, day: int, first_day: date) -> pa.Table:
        """The titles announced by ``day``: one row a title, ids ascending."""
        n = int(np.searchsorted(self.start, day + ANNOUNCED_DAYS, side="right"))
        genres = self.catalogue.genres[:n]
        columns = {
            "item_id": pa.array(np.arange(1, n + 1)),
            "title": pa.array(self.catalogue.titles[:n], pa.string()),
            "kind": pa.array(np.where(self.is_series[:n], "series", "movie")),
            "genres": pa.array(genres, pa.string()),
            "available_from": _dates(self.start[:n], first_day),
            "available_until": _dates(self.stop[:n], first_day),
        }
        for genre in sorted(set("|".join(self.catalogue.genres).split("|"))):
            has = [genre in one.split("|") for one in genres]
            columns[f"genre_{genre.lower()}"] = pa.array(has, pa.bool_())
        return pa.table(columns)


def _dates(days: np.ndarray, first_day: date) -> pa.Array:
    """Numbers of days as dates, null where they stand for always or never."""
    dates = [
        None if day in (ALWAYS, NEVER) else first_day + timedelta(days=day) for day in days.tolist()
    ]
    return pa.array(dates, pa.date32())


def make_programme(n_items: int, n_niches: int, n_days: int, rng: np.random.Generator) -> Programme:
    """Makes up ``n_items`` titles for the first day and those that come in ``n_days``.

    Args:
        n_items: Titles that are there when the first day begins, at least ``n_niches``.
        n_niches: Number of niches.
        n_days: Length of the log. Another length is another programme: a new title takes the rank
            in popularity of one that would be old.
        rng: Source of all randomness.

    Example:
        >>> programme = make_programme(500, 16, 56, np.random.default_rng(5))
        >>> programme.available(0).sum(), programme.start[-1]
        (np.int64(502), np.int64(55))
    """
    n = n_items + NEW_PER_THOUSAND * n_items * n_days // 1000
    place = np.arange(n) - n_items + 1
    start = np.where(place > 0, first_of(place, NEW_PER_THOUSAND * n_items), ALWAYS)
    earliest = np.where(place > 0, start + LEAST_DAYS - 1, 0)
    catalogue = make_catalogue(n, n_niches, rng)
    stop = earliest + rng.geometric(LEAVES, size=n)
    is_series = rng.random(n) < SERIES_SHARE
    minutes = np.where(is_series, rng.integers(25, 56, size=n), rng.integers(75, 151, size=n))
    stop[np.arange(n) % STAYS == 0] = NEVER
    return Programme(catalogue, is_series, minutes, start, stop)


def first_of(place: np.ndarray, thousandths: int) -> np.ndarray:
    """``[n]`` days on which the 1st, 2nd, … comes where ``thousandths`` of one come a day.

    By the end of day d there are ``thousandths * (d + 1) // 1000`` of them.

    Example:
        >>> first_of(np.array([1, 2, 3]), 1500).tolist()
        [0, 1, 1]
    """
    days: np.ndarray = -(-1000 * place // thousandths) - 1
    return days
