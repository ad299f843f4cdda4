"""Events into a row a user and day, and who counts: the tables behind the sums of an experiment.

Apart from `sums`, which adds these rows up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import duckdb
import pyarrow as pa

from coterie.data.columns import is_text_kind
from coterie.data.scan import literal
from coterie.errors import ConfigError, DataError
from coterie.experiment.definition import Cap
from coterie.experiment.events import (
    EventCounts,
    EventReader,
    EventSources,
    Kind,
    Window,
    number_of,
)
from coterie.running.progress import Progress, Update

OF_A_DAY: dict[str, str] = {
    "views": "v{0}",
    "clicks": "c{0}",
    "watch": "w{0}",
    "view_days": "CAST(v{0} > 0 AS INTEGER)",
    "click_days": "CAST(c{0} > 0 AS INTEGER)",
    "unseen_days": "CAST(c{0} > 0 AND v{0} = 0 AS INTEGER)",
}
"""SQL of a measure on one day; the number is that of a card, 0 of all cards."""

LONGEST_MILLISECONDS = 24 * 3600 * 1000
"""That a list took: what is longer was no latency."""

COHORTS = ("cold", "warm", "heavy")
"""By outcomes in the days before: none, some, and more than all but a fifth of those with some."""

HEAVY_ABOVE = 0.8


@dataclass(frozen=True)
class Arms:
    """Who is in which arm.

    Args:
        experiment: Its name in the exposures.
        weights: Planned shares by arm, above 0; the control first.
        users: A table of ``user_id`` (whole numbers or text, each once) and ``arm`` (null: in no
            arm), with, where known, ``since`` (the date from which on the user is in the
            experiment: what happened before in the window does not count) and ``segment`` (text).
            Or SQL over ``user_id``, as text, that gives the name of the arm or NULL.

    Raises:
        ConfigError: if there are no two arms with a weight.
    """

    experiment: str
    weights: Mapping[str, float]
    users: pa.Table | str

    def __post_init__(self) -> None:
        if len(self.weights) < 2 or min(self.weights.values()) <= 0:
            raise ConfigError(
                f"there must be two arms or more, each of a weight above 0, found"
                f" {dict(self.weights)}; change them."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The control first."""
        return tuple(self.weights)


class UserDays:
    """Fills a database with the days of users, then with who counts.

    Makes ``user_days``, the days of all users: user_id, day (since 1970), v0, c0 and w0 (views,
    clicks and milliseconds watched of all cards; v1 and so on of the first), s0 and so on (views
    that were logged for the first arm of the experiment), early and n (outcomes too early, and
    others). Makes ``members``, of users with an exposure and an arm: user_id, arm (its number),
    segment, first_day, over (the first day above the cap), and b_views0 and so on (before). Makes
    ``shown`` (arm, item_id, n) and ``latencies`` (arm, ms, n), numbers of views by the arm that was
    logged with them, day by day.

    Args:
        database: To be filled.
        window: The days that are read.
        arms: Who is in which arm.
        cards: Whose events are told apart.
        cap: Who is left out.
    """

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        window: Window,
        arms: Arms,
        cards: Sequence[str],
        cap: Cap,
    ) -> None:
        self.database, self.window, self.arms, self.cards, self.cap = (
            database, window, arms, cards, cap,
        )  # fmt: skip
        self.groups = range(len(cards) + 1)
        self.user_type, self.has_since = "VARCHAR", False
        self.counts: Mapping[Kind, EventCounts] = {}
        self.users_without_arm = 0

    def fill(self, sources: EventSources, place: Callable[[str], str], progress: Progress) -> None:
        """Reads all days, in their order.

        Raises:
            SourceError: at a source that cannot be read.
            DataError: if nobody of the experiment has an exposure in the window.
            ConfigError: if the table of arms is none.
        """
        if not isinstance(self.arms.users, str):
            self._take_arms(self.arms.users)
        self._create()
        reader = EventReader(
            self.database, sources, self.window, user_type=self.user_type, place=place
        )
        n_days = self.window.before_days + self.window.n_days
        for n in range(n_days):
            self._add_day(reader, self.window.begins + timedelta(days=n))
            progress(Update("reading events", n + 1, n_days, "days"))
        self.counts = reader.counts
        self._find_members()

    def _one(self, query: str) -> tuple[Any, ...]:
        return tuple(self.database.execute(query).fetchall()[0])

    def _take_arms(self, users: pa.Table) -> None:
        if {"user_id", "arm"} - set(users.column_names):
            raise ConfigError(
                f"the table of arms must have user_id and arm, found"
                f" {', '.join(users.column_names)}; name them so."
            )
        self.database.register("given_arms", users)
        kind = str(self._one("DESCRIBE SELECT user_id FROM given_arms")[1])
        self.user_type = "VARCHAR" if is_text_kind(kind) else "BIGINT"
        self.has_since = "since" in users.column_names
        self.database.execute(f"CREATE TABLE arms AS {self._given_arms(users.column_names)}")
        self.database.unregister("given_arms")
        n, n_users = self._one("SELECT count(*), count(DISTINCT user_id) FROM arms")
        if n != n_users:
            raise DataError(
                f"each user must be in the table of arms once, found {n:,} rows of {n_users:,}"
                " users; drop the others."
            )

    def _given_arms(self, names: Sequence[str]) -> str:
        since = "CAST(since AS DATE) - DATE '1970-01-01'" if self.has_since else "NULL"
        segment = "segment" if "segment" in names else "NULL"
        return (
            f"SELECT CAST(user_id AS {self.user_type}) AS user_id, {self._number('arm')} AS arm,"
            f" CAST({since} AS INTEGER) AS since, CAST({segment} AS VARCHAR) AS segment"
            " FROM given_arms"
        )

    def _number(self, arm: str) -> str:
        """SQL of an arm's number, of its name."""
        cases = " ".join(f"WHEN {literal(name)} THEN {n}" for n, name in enumerate(self.arms.names))
        return f"CAST(CASE {arm} {cases} END AS TINYINT)"

    def _create(self) -> None:
        days = "".join(f", v{i} INTEGER, c{i} INTEGER, w{i} BIGINT" for i in self.groups)
        seen = "".join(f", s{j} INTEGER" for j in range(len(self.arms.names)))
        self.database.execute(
            f"CREATE TABLE user_days(user_id {self.user_type}, day INTEGER{days}{seen},"
            " early INTEGER, n INTEGER);"
            f" CREATE TABLE first_seen(user_id {self.user_type}, time BIGINT, first_day INTEGER);"
            " CREATE TABLE shown(arm TINYINT, item_id VARCHAR, n BIGINT);"
            " CREATE TABLE latencies(arm TINYINT, ms BIGINT, n BIGINT)"
        )

    def _add_day(self, reader: EventReader, day: date) -> None:
        number, is_before = number_of(day), day < self.window.first
        exposures, outcomes = reader.events("exposures", day), reader.events("outcomes", day)
        self.database.execute(
            f"CREATE OR REPLACE TEMP TABLE seen AS SELECT user_id, min(time) AS time"
            f"{self._views()} FROM {exposures} GROUP BY user_id"
        )
        if not is_before:
            self._note_first(number)
            self._note_logged(exposures)
        early = "false" if is_before else "coalesce(o.time < f.time, true)"
        self.database.execute(
            "CREATE OR REPLACE TEMP TABLE done AS SELECT user_id, count(*) FILTER (early) AS early,"
            f" count(*) FILTER (NOT early) AS n{self._outcomes()} FROM (SELECT o.*, {early} AS"
            f" early FROM {outcomes} o LEFT JOIN first_seen f USING (user_id)) GROUP BY user_id"
        )
        self._join(number)
        (n_early,) = self._one("SELECT coalesce(sum(early), 0) FROM done")
        counts = reader.counts["outcomes"]
        counts.too_early += int(n_early)
        counts.kept -= int(n_early)

    def _views(self) -> str:
        mine = f"experiment = {literal(self.arms.experiment)} AND arm = "
        conditions = {f"v{i}": self._of_card(i) for i in self.groups}
        conditions |= {f"s{j}": mine + literal(name) for j, name in enumerate(self.arms.names)}
        return "".join(
            f", count(*) FILTER ({condition}) AS {name}" for name, condition in conditions.items()
        )

    def _outcomes(self) -> str:
        return "".join(
            f", count(*) FILTER (NOT early AND kind = 'click' AND {self._of_card(i)}) AS c{i},"
            f" sum(milliseconds) FILTER (NOT early AND {self._of_card(i)}) AS w{i}"
            for i in self.groups
        )

    def _of_card(self, i: int) -> str:
        return f"card = {literal(self.cards[i - 1])}" if i else "true"

    def _note_first(self, number: int) -> None:
        users, condition = "seen", "true"
        if self.has_since:
            users, condition = "seen LEFT JOIN arms USING (user_id)", f"since <= {number}"
        self.database.execute(
            f"INSERT INTO first_seen SELECT user_id, time, {number} FROM"
            f" (SELECT user_id, time FROM {users} WHERE coalesce({condition}, true))"
            " ANTI JOIN first_seen USING (user_id)"
        )

    def _note_logged(self, exposures: str) -> None:
        logged = (
            f"FROM (SELECT *, {self._number('arm')} AS place FROM {exposures}"
            f" WHERE experiment = {literal(self.arms.experiment)}) WHERE place IS NOT NULL"
        )
        self.database.execute(
            f"INSERT INTO shown SELECT place, item_id, count(*) {logged}"
            " AND item_id IS NOT NULL GROUP BY ALL; INSERT INTO latencies SELECT place,"
            f" CAST(round(latency_ms) AS BIGINT), count(*) {logged}"
            f" AND latency_ms BETWEEN 0 AND {LONGEST_MILLISECONDS} GROUP BY ALL"
        )

    def _join(self, number: int) -> None:
        names = [f"{kind}{i}" for i in self.groups for kind in "vcw"]
        names += [*(f"s{j}" for j in range(len(self.arms.names))), "early", "n"]
        values = ", ".join(f"coalesce({name}, 0)" for name in names)
        self.database.execute(
            f"INSERT INTO user_days(user_id, day, {', '.join(names)}) SELECT user_id, {number},"
            f" {values} FROM seen FULL JOIN done USING (user_id)"
        )

    def _find_members(self) -> None:
        self.database.execute(f"CREATE TABLE members AS {self._members()}")
        n, n_seen = self._one("SELECT count(*), (SELECT count(*) FROM first_seen) FROM members")
        self.users_without_arm = n_seen - n
        if not n:
            raise DataError(
                f"users of the experiment must have exposures from {self.window.first} to"
                f" {self.window.last}, found {n_seen:,} users with some and none of them in an arm;"
                " check the paths and the ids."
            )
        if self.has_since:
            self.database.execute(
                "DELETE FROM user_days USING members WHERE user_days.user_id = members.user_id AND"
                f" day >= {number_of(self.window.first)} AND day < first_day"
            )

    def _members(self) -> str:
        """SQL of those who count: arm, segment, first day, day above the cap, sums before."""
        first = number_of(self.window.first)
        held = {f"{one}{i}": OF_A_DAY[one].format(i) for one in OF_A_DAY for i in self.groups}
        before = "".join(f", CAST(sum({sql}) AS BIGINT) AS b_{one}" for one, sql in held.items())
        filled = "".join(f", coalesce(b_{one}, 0) AS b_{one}" for one in held)
        return (
            f"WITH before AS (SELECT user_id, sum(n) AS n_before{before} FROM user_days"
            f" WHERE day < {first} GROUP BY user_id),"
            " above AS (SELECT user_id, min(day) AS over FROM user_days"
            f" WHERE v0 > {self.cap.daily_views} GROUP BY user_id),"
            " everybody AS (SELECT user_id, arm, first_day, over, segment,"
            f" coalesce(n_before, 0) AS n_before{filled} FROM ({self.with_arms('FROM first_seen')})"
            " LEFT JOIN before USING (user_id) LEFT JOIN above USING (user_id)"
            " WHERE arm IS NOT NULL)"
            f" SELECT * REPLACE (coalesce(segment, {self._cohort()}) AS segment) FROM everybody"
        )

    def with_arms(self, users: str) -> str:
        """SQL of the users of a query, of user_id and first_day, and the number of each one's arm;
        NULL of those in none or not yet in one.
        """
        if isinstance(self.arms.users, str):
            arm = self._number(f"({self.arms.users})")
            return f"SELECT *, {arm} AS arm, CAST(NULL AS VARCHAR) AS segment FROM ({users})"
        return (
            f"SELECT * FROM ({users}) LEFT JOIN (SELECT * FROM arms) USING (user_id)"
            " WHERE coalesce(since <= first_day, true)"
        )

    def _cohort(self) -> str:
        if not self.window.before_days:
            return "'unknown'"
        heavy = f"(SELECT quantile_disc(n_before, {HEAVY_ABOVE}) FROM everybody WHERE n_before > 0)"
        cold, warm, most = map(literal, COHORTS)
        return (
            f"CASE WHEN n_before = 0 THEN {cold} WHEN n_before > {heavy} THEN {most}"
            f" ELSE {warm} END"
        )
