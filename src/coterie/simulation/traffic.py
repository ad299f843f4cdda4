"""People of the living service who look at the lists that were published for them: what they saw,
clicked and watched, with effects of arms that are known.

Apart from `watching`, in which people find titles by themselves.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coterie.errors import ConfigError, DataError
from coterie.files import publish_file
from coterie.simulation.crowd import Group
from coterie.simulation.draws import stream
from coterie.simulation.living import LivingService
from coterie.simulation.watching import DAY_SECONDS, HOURS, WEEKDAYS

HALF_TASTE = 4.0
"""A title so many times as likely as the mean is clicked half as often as the best could be."""

MOST_LIKELY = 0.95
"""No click is surer."""

USERS_AT_ONCE = 2048
"""Users whose law is in memory at once."""

VISIT_SECONDS = 1200
"""Nobody comes so shortly before midnight, so that a visit is of one day."""

SECONDS_A_CARD, SECONDS_A_TITLE = 60, 2


@dataclass(frozen=True)
class ArmEffect:
    """What an arm does to clicks beyond what its lists do: the planted truth.

    The probability of a click is multiplied by 1 + lift + novelty · exp(-age / novelty_days), the
    age of the experiment in days, 0 on its first.

    Args:
        lift: Lasting.
        novelty: On the first day, besides.
        novelty_days: In so many it falls to a third.

    Example:
        >>> ArmEffect(lift=0.1, novelty=0.2, novelty_days=5).factor(np.array([0, 5])).round(3)
        array([1.3  , 1.174])
    """

    lift: float = 0.0
    novelty: float = 0.0
    novelty_days: float = 5.0

    def factor(self, age: np.ndarray) -> np.ndarray:
        """``[n]`` float64 factors at ``[n]`` ages in days."""
        factor: np.ndarray = 1 + self.lift + self.novelty * np.exp(-age / self.novelty_days)
        return factor


@dataclass(frozen=True)
class Habits:
    """How people look at cards.

    Args:
        cards: Cards in the order in which they are on the screen, and the card row that each shows.
        visits: Mean visits for each title that a user takes up in the living service.
        patience: Chance to look at the next title of a card after one, from the top.
        position_bias: A title seen at place p is clicked p ** -position_bias times as often as at
            the top.
        click_rate: Chance of a click on a title that could not be more to a user's taste, at the
            top, seen for the first time.
        fatigue: A title that was shown n times on days before is clicked 1 / (1 + fatigue · n)
            times as often.
        watched: Share of clicks that are followed by a watch.

    Raises:
        ConfigError: if a number is out of range.
    """

    cards: Mapping[str, str] = field(default_factory=lambda: {"movie": "movie", "home": "home"})
    visits: float = 1.0
    patience: float = 0.85
    position_bias: float = 0.3
    click_rate: float = 0.3
    fatigue: float = 0.1
    watched: float = 0.7

    def __post_init__(self) -> None:
        shares = (self.patience, self.click_rate, self.watched)
        if not all(0 <= one <= 1 for one in shares) or min(
            self.visits, self.position_bias, self.fatigue
        ) < 0:  # fmt: skip
            raise ConfigError(
                "patience, click_rate and watched must be from 0 to 1, and visits, position_bias"
                f" and fatigue not below 0, found {self}; change them."
            )


@dataclass(frozen=True, eq=False)
class DayOfTraffic:
    """What happened on a day.

    Args:
        exposures: user_id, time (seconds since 1970, UTC), card, row, position (from 1), item_id,
            experiment, arm, model_version.
        outcomes: user_id, time, kind (``click`` or ``watch``), card, item_id, value (seconds
            watched; null of a click).
    """

    exposures: pa.Table
    outcomes: pa.Table

    def write(self, folder: str | Path, day: date) -> None:
        """Writes ``exposures/day=YYYY-MM-DD/events.parquet`` and the same of outcomes.

        Raises:
            CannotWriteError: if there are no rights or there is no room.
        """
        for kind, table in (("exposures", self.exposures), ("outcomes", self.outcomes)):
            with publish_file(Path(folder) / kind / f"day={day}" / "events.parquet") as aside:
                pq.write_table(table, aside)


@dataclass(eq=False)
class Traffic:
    """People who come, look at two cards of their list from the top, click and watch.

    How often people come is theirs in the living service: heavy-tailed, with its weekdays. How
    likely a click is depends on the service's law of the day for user and title, so a better list
    has more clicks. People remember what they were shown, so days are to be played in their order.

    Args:
        service: Whose people they are.
        seed: Not negative.
        start: The first day of the experiment, from which novelty fades.
        effects: Of arms, by name; arms not named have none.
        habits: Of looking at cards.

    Example:
        >>> service = LivingService(n_users=300, n_items=60, weeks=2, seed=3)
        >>> lists = pa.table({"user_id": [7, 7], "row": ["movie", "home"], "items": [[5, 9], [2]]})
        >>> traffic = Traffic(service, 1, service.first_day, habits=Habits(visits=50))
        >>> sorted(set(traffic.day(service.first_day, lists).exposures["item_id"].to_pylist()))
        [2, 5, 9]
    """

    service: LivingService
    seed: int
    start: date
    effects: Mapping[str, ArmEffect] = field(default_factory=dict)
    habits: Habits = field(default_factory=Habits)

    def __post_init__(self) -> None:
        self._played: date | None = None
        self._shown, self._times = np.empty(0, np.int64), np.empty(0, np.int64)

    def day(self, day: date, lists: pa.Table) -> DayOfTraffic:
        """Plays a day.

        Args:
            day: One of the service, after the day that was played last.
            lists: What was published for it: user_id, row, items (ids, the best first) and, where
                known, experiment, arm and model_version. Who has no list of a row sees none.

        Raises:
            ConfigError: if the day is not of the service, or not after the last.
            DataError: if the lists lack a column.
        """
        if self._played is not None and day <= self._played:
            raise ConfigError(
                f"days must be played in their order, found {day} after {self._played}; begin"
                " anew, with another Traffic."
            )
        if missing := {"user_id", "row", "items"} - set(lists.column_names):
            raise DataError(f"lists must have {', '.join(sorted(missing))}, found none; add them.")
        number = (day - self.service.first_day).days
        rng = stream(self.seed, 40, number)
        users = np.repeat(*self._visits(day, number))
        hour = rng.choice(len(HOURS), p=HOURS / HOURS.sum(), size=len(users))
        second = hour * 3600 + rng.integers(3600, size=len(users))
        second -= VISIT_SECONDS * (second >= DAY_SECONDS - VISIT_SECONDS)
        views = _Views.together(self._looks(lists, users, second, rng))
        clicked = rng.random(len(views)) < self._chance(views, day)
        self._remember(views)
        self._played = day
        midnight = int(datetime.combine(day, time(), UTC).timestamp())
        return DayOfTraffic(
            views.table(midnight), self._outcomes(views[np.flatnonzero(clicked)], midnight, rng)
        )

    def _visits(self, day: date, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Users' ids, and how often each comes."""
        self.service.users(day)  # Refuses a day that is none of the service's.
        rhythm = float(WEEKDAYS[day.weekday()]) * self.habits.visits
        crowd, counts = self.service.crowd, []
        for block in range(crowd.n_blocks_by(number)):
            rng = stream(self.seed, 41, block, number)
            counts.append(Group(crowd, block).counts(number, rhythm, rng))
        visits = np.concatenate(counts)
        return np.arange(1, len(visits) + 1), visits

    def _looks(
        self, lists: pa.Table, users: np.ndarray, second: np.ndarray, rng: np.random.Generator
    ) -> Iterator["_Views"]:
        """The views of each card."""
        for place, (card, row) in enumerate(self.habits.cards.items()):
            mine = lists.filter(pc.equal(lists["row"], row)).sort_by("user_id").combine_chunks()
            owner = mine["user_id"].to_numpy()
            at = np.minimum(np.searchsorted(owner, users), max(0, len(owner) - 1))
            visit = np.flatnonzero(owner[at] == users) if len(owner) else np.empty(0, np.int64)
            begin, length = _bounds(mine["items"])
            depth = np.minimum(self._depth(len(visit), rng), length[at[visit]])
            repeated = np.repeat(visit, depth)
            position = _ranks(depth)
            item = pc.list_flatten(mine["items"]).to_numpy()
            yield _Views(
                user=users[repeated],
                second=second[repeated] + place * SECONDS_A_CARD + position * SECONDS_A_TITLE,
                position=position + 1,
                item=item[begin[at[repeated]] + position].astype(np.int64),
                card=np.full(len(repeated), card, object),
                row=np.full(len(repeated), row, object),
                **{name: _texts(mine, name)[at[repeated]] for name in _LOGGED},
            )

    def _depth(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """How far down people would look, were lists endless."""
        if self.habits.patience == 1:
            return np.full(n, np.iinfo(np.int64).max)
        depth: np.ndarray = rng.geometric(1 - self.habits.patience, size=n)
        return depth

    def _chance(self, views: "_Views", day: date) -> np.ndarray:
        """``[n]`` float64 probabilities of a click."""
        habits, age = self.habits, np.array(max(0, (day - self.start).days))
        chance = habits.click_rate * self._taste(views, day) * self._rates[views.user - 1]
        chance *= views.position.astype(np.float64) ** -habits.position_bias
        chance /= 1 + habits.fatigue * self._times_shown(views)
        for arm, effect in self.effects.items():
            chance[views.arm == arm] *= effect.factor(age)
        chances: np.ndarray = np.minimum(chance, MOST_LIKELY)
        return chances

    def _taste(self, views: "_Views", day: date) -> np.ndarray:
        """``[n]`` float64 from 0 to 1: how much each view's title is to its user's taste."""
        users, row = np.unique(views.user, return_inverse=True)
        law = np.empty(len(views))
        for begin in range(0, len(users), USERS_AT_ONCE):
            here = np.flatnonzero((row >= begin) & (row < begin + USERS_AT_ONCE))
            some = self.service.probabilities(users[begin : begin + USERS_AT_ONCE], day)
            law[here] = some[row[here] - begin, views.item[here] - 1] * (some[0] > 0).sum()
        taste: np.ndarray = law / (law + HALF_TASTE)
        return taste

    @cached_property
    def _rates(self) -> np.ndarray:
        """How ready each user is to click, 1 on average."""
        crowd = self.service.crowd
        return stream(self.seed, 42).gamma(4.0, 0.25, crowd.n_by(crowd.n_days - 1))

    def _keys(self, views: "_Views") -> np.ndarray:
        keys: np.ndarray = views.user * (self.service.n_titles + 1) + views.item
        return keys

    def _times_shown(self, views: "_Views") -> np.ndarray:
        """``[n]`` int64: how often the user was shown the title on days before."""
        if not len(self._shown):
            return np.zeros(len(views), np.int64)
        keys = self._keys(views)
        at = np.minimum(np.searchsorted(self._shown, keys), len(self._shown) - 1)
        return np.where(self._shown[at] == keys, self._times[at], 0)

    def _remember(self, views: "_Views") -> None:
        keys = np.concatenate([self._shown, self._keys(views)])
        times = np.concatenate([self._times, np.ones(len(views), np.int64)])
        self._shown, place = np.unique(keys, return_inverse=True)
        self._times = np.bincount(place, times, len(self._shown)).astype(np.int64)

    def _outcomes(self, clicks: "_Views", midnight: int, rng: np.random.Generator) -> pa.Table:
        watches = clicks[np.flatnonzero(rng.random(len(clicks)) < self.habits.watched)]
        seconds = self.service.programme.seconds(watches.item - 1, rng)
        parts = [
            clicks.acts("click", midnight, 1, pa.nulls(len(clicks), pa.float64())),
            watches.acts("watch", midnight, 2, pa.array(seconds)),
        ]
        return pa.concat_tables(parts).sort_by(_BY_TIME).combine_chunks()


_LOGGED = ("experiment", "arm", "model_version")
"""Columns of lists that are logged with each view."""

_BY_TIME = [("time", "ascending"), ("user_id", "ascending"), ("item_id", "ascending")]


@dataclass(frozen=True, eq=False)
class _Views:
    """Titles that were seen, an entry each; seconds since midnight, positions from 1."""

    user: np.ndarray
    second: np.ndarray
    position: np.ndarray
    item: np.ndarray
    card: np.ndarray
    row: np.ndarray
    experiment: np.ndarray
    arm: np.ndarray
    model_version: np.ndarray

    @classmethod
    def together(cls, parts: Iterator["_Views"]) -> "_Views":
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, places: np.ndarray) -> "_Views":
        return _Views(*(column[places] for column in vars(self).values()))

    def table(self, midnight: int) -> pa.Table:
        columns = {
            "user_id": self.user,
            "time": midnight + self.second,
            "card": pa.array(self.card, pa.string()),
            "row": pa.array(self.row, pa.string()),
            "position": self.position.astype(np.int32),
            "item_id": self.item,
            **{name: pa.array(getattr(self, name), pa.string()) for name in _LOGGED},
        }
        return pa.table(columns).sort_by(_BY_TIME).combine_chunks()

    def acts(self, kind: str, midnight: int, after: int, value: pa.Array) -> pa.Table:
        return pa.table(
            {
                "user_id": self.user,
                "time": midnight + self.second + after,
                "kind": pa.array([kind] * len(self), pa.string()),
                "card": pa.array(self.card, pa.string()),
                "item_id": self.item,
                "value": value,
            }
        )


def _bounds(lists: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Where each list begins among the items of all, and its length."""
    length = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
    return np.cumsum(length) - length, length


def _ranks(lengths: np.ndarray) -> np.ndarray:
    """0, 1, … within each of some runs."""
    begin = np.cumsum(lengths) - lengths
    ranks: np.ndarray = np.arange(lengths.sum()) - np.repeat(begin, lengths)
    return ranks


def _texts(lists: pa.Table, name: str) -> np.ndarray:
    """A column of texts, None where it is not there."""
    if name not in lists.column_names:
        return np.full(len(lists), None, object)
    texts: np.ndarray = lists[name].cast(pa.string()).to_numpy(zero_copy_only=False)
    return texts
