"""Sums per user of an experiment's events, and their moments by arm, segment and look.

DuckDB reads a day after another and keeps a row a user and day; a look adds up the rows of each
user, then the sums and products of all users. Both are sums of whole numbers (a watch is
milliseconds), so they are exact: the same in any order of files, rows and threads. Statistics see
`Moments` alone.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from itertools import combinations_with_replacement
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, get_args

import duckdb
import numpy as np
import pyarrow as pa

from coterie.errors import ConfigError
from coterie.experiment.definition import Cap
from coterie.experiment.events import (
    MILLISECONDS,
    EventCounts,
    EventSources,
    Kind,
    Window,
    number_of,
)
from coterie.experiment.statistics.moments import Moments
from coterie.experiment.user_days import COHORTS, OF_A_DAY, Arms, UserDays
from coterie.running.progress import Progress, silent

Measure: TypeAlias = Literal[
    "views", "clicks", "watch", "view_days", "click_days", "unseen_days", "users"
]
"""What is added up over a user's days.

``views`` and ``clicks`` are numbers; ``watch`` is seconds; ``view_days``, ``click_days`` and
``unseen_days`` are days with a view, with a click, and with a click but without a view; ``users``
is 1 for everybody.
"""


@dataclass(frozen=True)
class Metric:
    """A ratio of sums over the users of an arm.

    Args:
        numerator: What is counted.
        denominator: What it is counted per; ``users`` for a mean per user.
        card: The card whose events count; None for all of them, whatever card.

    Raises:
        ConfigError: if a measure is unknown.

    Example:
        >>> Metric("clicks", "views", "movie").name
        'clicks per view, movie'
    """

    numerator: Measure
    denominator: Measure
    card: str | None = None

    def __post_init__(self) -> None:
        known = get_args(Measure)
        if not {self.numerator, self.denominator} <= set(known):
            raise ConfigError(
                f"a metric must be a ratio of two of {', '.join(known)}, found {self.numerator!r}"
                f" per {self.denominator!r}; choose two of them."
            )

    @property
    def name(self) -> str:
        """In words."""
        card = "" if self.card is None else f", {self.card}"
        per = self.denominator.removesuffix("s")
        return f"{self.numerator} per {per}".replace("_", " ") + card


def card_metrics(cards: Sequence[str]) -> tuple[Metric, ...]:
    """Clicks per view and per day with a view, of each card; and seconds watched per user.

    Example:
        >>> [metric.name for metric in card_metrics(["home"])]
        ['clicks per view, home', 'clicks per view day, home', 'watch per user']
    """
    by_card = [Metric("clicks", per, card) for card in cards for per in _PER]
    return (*by_card, Metric("watch", "users"))


_PER: tuple[Measure, Measure] = ("views", "view_days")


@dataclass(frozen=True)
class _Totals:
    """Exact sums over n users: of k columns, and of their products by pairs."""

    n: int
    sums: tuple[int, ...]
    products: tuple[int, ...]
    scales: tuple[int, ...]

    def __add__(self, other: "_Totals") -> "_Totals":
        added = zip(self.sums, other.sums, strict=True)
        products = zip(self.products, other.products, strict=True)
        return _Totals(
            self.n + other.n, tuple(map(sum, added)), tuple(map(sum, products)), self.scales
        )

    def moments(self) -> Moments:
        """In the columns' own units: whole numbers are divided once, at the end."""
        k = len(self.sums)
        mean, covariance = np.zeros(k), np.zeros((k, k))
        for i in range(k if self.n else 0):
            mean[i] = self.sums[i] / (self.n * self.scales[i])
        pairs = combinations_with_replacement(range(k), 2)
        for (i, j), product in zip(pairs, self.products, strict=True):
            scatter = self.n * product - self.sums[i] * self.sums[j]
            divisor = max(1, self.n * (self.n - 1)) * self.scales[i] * self.scales[j]
            covariance[i, j] = covariance[j, i] = scatter / divisor
        return Moments(self.n, mean, covariance)


_Key: TypeAlias = tuple[str, str]
"""Arm and segment."""

_Look: TypeAlias = dict[_Key, dict[Metric, _Totals]]


class Sums:
    """The sums of an experiment, in a temporary database; to be closed.

    Made by `sum_up`, which tells the rules.

    Args:
        filled: The tables of the database.
        folder: Where the database is.
    """

    def __init__(self, filled: UserDays, folder: "tempfile.TemporaryDirectory[str]") -> None:
        self._filled, self._folder = filled, folder
        self.window, self.arms, self.cap = filled.window, filled.arms, filled.cap
        self.cards = tuple(filled.cards)
        self.metrics = card_metrics(self.cards)
        self._looks: dict[tuple[tuple[Metric, ...], int], _Look] = {}

    @property
    def counts(self) -> Mapping[Kind, EventCounts]:
        """What became of the rows of exposures and of outcomes."""
        return self._filled.counts

    @property
    def users_without_arm(self) -> int:
        """Users with an exposure in the window who are in no arm of the experiment."""
        return self._filled.users_without_arm

    def moments(
        self, metric: Metric, arm: str, segment: str | None = None, until: date | None = None
    ) -> Moments:
        """The moments of numerator and denominator, then of both in the days before, if any.

        Users count who had an exposure by then, in the arm they were assigned to.

        Args:
            metric: Which; any, though those of `metrics` come together.
            arm: Its name.
            segment: One of `segments`; None for all users.
            until: The last day that counts; None for the window's last.

        Returns:
            Of 4 columns, or of 2 where there are no days before. n is 0 where nobody is.

        Raises:
            ConfigError: if arm, segment, card or day is not one of the experiment.
        """
        _one_of("arm", arm, self.arms.names)
        found = self._look(metric, until)
        wanted = self.segments if segment is None else (segment,)
        _one_of("segment", wanted[0] if wanted else None, (*self.segments, None))
        totals = self._nobody(metric)
        for one in wanted:
            totals += found.get((arm, one), {metric: self._nobody(metric)})[metric]
        return totals.moments()

    def by_day(self, metric: Metric, arm: str, segment: str | None = None) -> list[Moments]:
        """The moments until each day of the window: a look a day."""
        return [self.moments(metric, arm, segment, day) for day in self.days]

    @property
    def days(self) -> list[date]:
        """Of the window."""
        return [self.window.first + timedelta(days=n) for n in range(self.window.n_days)]

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """Those that users of the experiment are in: cohorts first, from cold to heavy."""
        found = [row[0] for row in self.rows("SELECT DISTINCT segment FROM members ORDER BY 1")]
        return tuple(sorted(found, key=lambda one: COHORTS.index(one) if one in COHORTS else 9))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of a query's answer.

        The tables are those of `UserDays`.
        """
        return self._filled.database.execute(query).fetchall()

    def with_arms(self, users: str) -> str:
        """SQL of the users of a query, of user_id and first_day, and the number of each one's arm;
        NULL of those in none.
        """
        return self._filled.with_arms(users)

    def beside(self, earlier: pa.Table) -> list[tuple[str, int, int]]:
        """How many users are in each pair of an earlier arm, by its name, and an arm, by its
        number.
        """
        database = self._filled.database
        database.register("earlier", earlier)
        try:
            return database.execute(
                "SELECT earlier.arm, members.arm, count(*) FROM members JOIN earlier ON"
                f" members.user_id = CAST(earlier.user_id AS {self._filled.user_type})"
                " WHERE earlier.arm IS NOT NULL GROUP BY ALL ORDER BY ALL"
            ).fetchall()
        finally:
            database.unregister("earlier")

    def largest_square(self, metric: Metric, ratio: float) -> float:
        """The largest square of a user's numerator less ``ratio`` denominators, as a share of all
        users'; 0 if all are 0.
        """
        above, below = self._columns(metric)[:2]
        square = f"pow({above} - CAST({ratio * self._scales(metric)[0]} AS DOUBLE) * {below}, 2)"
        users = self._users((metric,), number_of(self.window.last))
        (found,) = self.rows(f"SELECT max({square}) / nullif(sum({square}), 0) FROM ({users})")[0]
        return float(found or 0)

    def _nobody(self, metric: Metric) -> _Totals:
        scales = self._scales(metric)
        k = len(scales)
        return _Totals(0, (0,) * k, (0,) * (k * (k + 1) // 2), scales)

    def _scales(self, metric: Metric) -> tuple[int, ...]:
        both = (metric.numerator, metric.denominator)
        scales = tuple(MILLISECONDS if one == "watch" else 1 for one in both)
        return scales * 2 if self.window.before_days else scales

    def _look(self, metric: Metric, until: date | None) -> _Look:
        day = self.window.last if until is None else until
        if not self.window.first <= day <= self.window.last:
            raise ConfigError(
                f"a look must be from {self.window.first} to {self.window.last}, found {day};"
                " choose one of these days."
            )
        metrics = self.metrics if metric in self.metrics else (metric,)
        key = (metrics, number_of(day))
        if key not in self._looks:
            self._looks[key] = self._compute(*key)
        return self._looks[key]

    def _compute(self, metrics: tuple[Metric, ...], until: int) -> _Look:
        columns = {metric: self._columns(metric) for metric in metrics}
        sums = [_sums_and_products(columns[metric]) for metric in metrics]
        query = (
            f"SELECT arm, segment, count(*), {', '.join(one for group in sums for one in group)}"
            f" FROM ({self._users(metrics, until)}) GROUP BY arm, segment"
        )
        found = {}
        for arm, segment, n, *values in self.rows(query):
            totals, place = {}, 0
            for metric in metrics:
                k = len(columns[metric])
                end = place + k * (k + 3) // 2
                mine = tuple(int(value) for value in values[place:end])
                totals[metric] = _Totals(n, mine[:k], mine[k:], self._scales(metric))
                place = end
            found[self.arms.names[arm], segment] = totals
        return found

    def _columns(self, metric: Metric) -> list[str]:
        """SQL of the columns of a metric over `_users`."""
        columns = [
            f"{when}_{self._held(measure, metric)}"
            for when in (("u", "b") if self.window.before_days else ("u",))
            for measure in (metric.numerator, metric.denominator)
        ]
        return ["1" if column.endswith("_users") else column for column in columns]

    def _held(self, measure: Measure, metric: Metric) -> str:
        """The name of a measure's column."""
        if measure == "users":
            return measure
        if metric.card is None:
            return f"{measure}0"
        _one_of("card", metric.card, self.cards)
        return f"{measure}{self.cards.index(metric.card) + 1}"

    def _users(self, metrics: Sequence[Metric], until: int) -> str:
        """SQL of a row a user who counts by a day, of what the metrics are made of."""
        held = {
            self._held(measure, metric): (measure, metric)
            for metric in metrics
            for measure in (metric.numerator, metric.denominator)
            if measure != "users"
        }
        added = "".join(
            f", CAST(sum({_of_a_day(measure, name)}) AS BIGINT) AS u_{name}"
            for name, (measure, _) in held.items()
        )
        users = (
            f"SELECT * FROM (SELECT user_id{added} FROM user_days"
            f" WHERE day BETWEEN {number_of(self.window.first)} AND {until} GROUP BY user_id)"
            f" JOIN members USING (user_id) WHERE first_day <= {until}"
            f" AND coalesce(over > {until}, true)"
        )
        cut = {metric.numerator for metric in metrics} - {"users"}
        return self._winsorised(users, [name for name, one in held.items() if one[0] in cut])

    def _winsorised(self, users: str, names: Sequence[str]) -> str:
        if self.cap.winsorise is None:
            return users
        whens = ("u", "b") if self.window.before_days else ("u",)
        columns = [f"{when}_{name}" for when in whens for name in names]
        cut = ", ".join(
            f"least({one}, quantile_disc({one}, {self.cap.winsorise}) OVER ()) AS {one}"
            for one in columns
        )
        return f"SELECT * REPLACE ({cut}) FROM ({users})" if columns else users

    def close(self) -> None:
        """Removes the temporary database."""
        self._filled.database.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _one_of(what: str, found: str | None, known: Sequence[str | None]) -> None:
    if found not in known:
        names = ", ".join(str(one) for one in known if one is not None)
        raise ConfigError(f"{what} must be one of {names}, found {found!r}; choose one of them.")


def _of_a_day(measure: str, name: str) -> str:
    return OF_A_DAY[measure].format(name.removeprefix(measure))


def _sums_and_products(columns: Sequence[str]) -> list[str]:
    pairs = combinations_with_replacement(columns, 2)
    # The square of a window's milliseconds does not fit 64 bits.
    products = [f"sum(CAST({one} AS HUGEINT) * {other})" for one, other in pairs]
    return [*(f"sum({one})" for one in columns), *products]


def sum_up(
    sources: EventSources,
    window: Window,
    arms: Arms,
    *,
    cards: Sequence[str] = ("movie", "home"),
    cap: Cap | None = None,
    place: Callable[[str], str] = str,
    memory_limit: str = "3GB",
    progress: Progress = silent,
) -> Sums:
    """Reads the events of an experiment, a day at a time, and adds them up by user and day.

    The rules, beside those of `EventReader`:

    - A user counts who has an exposure in the window, in the arm of the assignment, whatever list
      was seen (intention to treat).
    - An outcome before the user's first exposure in the window is dropped and counted; in the days
      before all count.
    - A user with more views on one day than the cap is left out, in either arm, of every look from
      that day on.

    Args:
        sources: Where the events are.
        window: Which days.
        arms: Who is in which arm.
        cards: Whose events are told apart.
        cap: Who is left out; None for the defaults of `Cap`.
        place: What makes of a source's path the one to be opened.
        memory_limit: Of DuckDB, as it writes sizes.
        progress: Called after every day.

    Returns:
        The sums, to be closed.

    Raises:
        SourceError: at a source that cannot be read.
        DataError: if nobody of the experiment has an exposure in the window.
        ConfigError: if the table of users is none.
    """
    folder = tempfile.TemporaryDirectory(prefix="coterie-")
    database = duckdb.connect(
        str(Path(folder.name) / "sums.duckdb"), config={"memory_limit": memory_limit}
    )
    database.execute(
        "SET enable_progress_bar = false; SET TimeZone = 'UTC';"
        " SET preserve_insertion_order = false"
    )
    days = UserDays(database, window, arms, cards, cap or Cap())
    sums = Sums(days, folder)
    try:
        days.fill(sources, place, progress)
    except BaseException:
        sums.close()
        raise
    return sums
