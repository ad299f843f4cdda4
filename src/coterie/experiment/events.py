"""Exposures and outcomes of an experiment, day by day, each event once, by rules that are counted.

An exposure is a card that somebody saw; an outcome is a click or a watch. Both arrive in files of a
day, or in a database's answers, some of them late, some of them twice. The rules are those of
`EventReader`; nothing is dropped that `EventCounts` does not tell.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any, Literal, Self, TypeAlias

import duckdb
import fsspec
from pydantic import Field, model_validator

from coterie.data.columns import (
    FIRST_TIME,
    LAST_SECOND,
    WHOLE_NUMBER,
    id_sql,
    is_text_kind,
    seconds_sql,
)
from coterie.data.database import answer_as_text, answer_columns
from coterie.data.parts import files_of
from coterie.data.scan import UNREADABLE, Column, Scan, exactly, is_parquet, literal, named_by_place
from coterie.data.source import exists, is_url
from coterie.data.table_options import TimeUnit
from coterie.errors import ConfigError, EmptySourceError, SourceError
from coterie.models.fields import StrictConfig

Kind: TypeAlias = Literal["exposures", "outcomes"]

KINDS: tuple[Kind, ...] = ("exposures", "outcomes")

NEEDED: dict[Kind, tuple[str, ...]] = {
    "exposures": ("user_id", "time", "card", "item_id"),
    "outcomes": ("user_id", "time", "kind"),
}
"""Columns that every source has."""

OTHERS: dict[Kind, tuple[str, ...]] = {
    "exposures": (
        "row", "position", "experiment", "arm", "model_version", "propensity", "latency_ms",
        "event_id",
    ),
    "outcomes": ("card", "item_id", "value", "event_id"),
}  # fmt: skip
"""Columns that are empty where a source has them not, as before the experiment.

``propensity`` is the probability with which the title was shown at its position, where lists were
randomised; ``latency_ms`` is how long the list took, in milliseconds.
"""

HELD: dict[Kind, tuple[str, ...]] = {
    "exposures": (*NEEDED["exposures"], *OTHERS["exposures"]),
    "outcomes": ("user_id", "time", "kind", "card", "item_id", "milliseconds", "event_id"),
}
"""What is held of an event. Kinds of outcomes are ``click`` and ``watch``; of a watch there are its
milliseconds, from the seconds in ``value``.
"""

MILLISECONDS = 1000
"""Of a second: a watch is held in whole ones, so that its sums are exact in any order."""

_NUMBERS = {"position": "INTEGER", "propensity": "DOUBLE", "latency_ms": "DOUBLE"}

LONGEST_WATCH_SECONDS = 7 * 24 * 3600

DAY_SECONDS = 24 * 3600

_EPOCH = date(1970, 1, 1).toordinal()


class EventSources(StrictConfig):
    """Where the exposures and outcomes of each day are, as they arrived on that day."""

    exposures: str = Field(
        "exposures/day=%Y-%m-%d",
        description="a day's folder or file of Parquet, with %Y, %m and %d; or a database's URL",
    )
    outcomes: str = Field("outcomes/day=%Y-%m-%d", description="the same of clicks and watches")
    exposures_query: str | None = Field(
        None, description="SQL of a day's rows, where exposures is a database; {day}, {next_day}"
    )
    outcomes_query: str | None = Field(None, description="the same of outcomes")
    columns: dict[str, str] = Field(
        {}, description="our name of a column = its name in the sources"
    )
    timestamp_unit: TimeUnit = Field("auto", description="s, ms, us or ns; auto looks")
    late_days: int = Field(2, ge=0, description="days after its own on which an event still counts")

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        known = {name for kind in KINDS for name in (*NEEDED[kind], *OTHERS[kind])}
        if unknown := set(self.columns) - known:
            raise ConfigError(
                f"columns must be some of {', '.join(sorted(known))}, found"
                f" {', '.join(sorted(unknown))}; write ours on the left."
            )
        return self

    def source(self, kind: Kind, day: date) -> tuple[str, str | None]:
        """Where a day's events of a kind are: a path, or a database's URL and its query.

        Example:
            >>> EventSources().source("outcomes", date(2026, 1, 5))
            ('outcomes/day=2026-01-05', None)
        """
        path, query = getattr(self, kind), getattr(self, f"{kind}_query")
        if query is None:
            return day.strftime(path), None
        dates = {"day": day, "next_day": day + timedelta(days=1)}
        for name, value in dates.items():
            # Not format: other braces are SQL's.
            query = query.replace(f"{{{name}}}", str(value))
        return path, query


@dataclass(frozen=True)
class Window:
    """The days of an experiment that are looked at, both ends included, and the days before them.

    Args:
        first: Its first day, in UTC.
        last: The last day that is looked at.
        before_days: Days before the first whose events tell what people were like.

    Raises:
        ConfigError: if the days are not in order.

    Example:
        >>> Window(date(2026, 1, 5), date(2026, 2, 1), before_days=14).n_days
        28
    """

    first: date
    last: date
    before_days: int = 0

    def __post_init__(self) -> None:
        if self.last < self.first or self.before_days < 0:
            raise ConfigError(
                f"a window must end on or after its first day and have no fewer than 0 days"
                f" before it, found {self}; change it."
            )

    @property
    def n_days(self) -> int:
        """Days from the first to the last."""
        return (self.last - self.first).days + 1

    @property
    def begins(self) -> date:
        """The first of the days before."""
        return self.first - timedelta(days=self.before_days)


@dataclass
class EventCounts:
    """What became of the rows of one kind: ``read`` is the sum of all that follow.

    Args:
        read: Rows of the sources.
        kept: Events that count, each once.
        repeated: Rows that were there before.
        late: Events that arrived more than ``late_days`` after their day.
        ahead: Events of a day after the one on which they arrived: a clock was wrong.
        outside: Good events of days before or after the window.
        without_user: The user is missing, or no id of the kind that the experiment has.
        without_time: The time is missing, or not between 1980 and 2286.
        without_meaning: Outcomes that are neither click nor watch, and watches without seconds or
            of more than a week.
        too_early: Outcomes before the user's first exposure in the window, or without any.
    """

    read: int = 0
    kept: int = 0
    repeated: int = 0
    late: int = 0
    ahead: int = 0
    outside: int = 0
    without_user: int = 0
    without_time: int = 0
    without_meaning: int = 0
    too_early: int = 0

    def to_json(self) -> dict[str, int]:
        """As JSON values."""
        return asdict(self)


class EventReader:
    """Reads the events of one day after another into a DuckDB database.

    The rules, whatever the order of files and rows:

    - An event belongs to the day (UTC) of its time, not to the day whose file it came in. It counts
      if it came in the file of its day, or of one of the ``late_days`` after it.
    - An event is there once: of rows that are alike in all columns one counts; where they have an
      ``event_id``, of a day's rows with the same one the least counts.
    - Rows without a user, without a time or without a meaning are dropped.
    - A day without a file is a day without events.

    Each file is read once; of its rows some ``late_days`` of days are held at a time.

    Args:
        database: To be filled; its time zone is to be UTC.
        sources: Where the events are.
        window: The days that are wanted.
        place: What makes of a source's path the one to be opened.
        user_type: Of ids, ``BIGINT`` or ``VARCHAR``; those of a source are made so, or are unknown.
    """

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        sources: EventSources,
        window: Window,
        *,
        user_type: str,
        place: Callable[[str], str] = str,
    ) -> None:
        self.database, self.sources, self.window = database, sources, window
        self.place, self.user_type = place, user_type
        self.counts: dict[Kind, EventCounts] = {kind: EventCounts() for kind in KINDS}
        self._arrived: set[str] = set()

    def events(self, kind: Kind, day: date) -> str:
        """The name of a temporary table of the events of a day, in place of the day before's.

        Days are to be asked for in their order.

        Raises:
            SourceError: at a source that has not the columns.
            UnavailableError: if a source cannot be reached.
        """
        days = [day + timedelta(days=late) for late in range(self.sources.late_days + 1)]
        arrived = [table for one in days if (table := self._arrive(kind, one))]
        self._create(kind, day, arrived)
        own = _arrival(kind, day)
        if own in self._arrived:
            self._arrived.remove(own)
            self.database.execute(f"DROP TABLE {own}")
        return kind

    def _create(self, kind: Kind, day: date, arrived: Sequence[str]) -> None:
        columns = ", ".join(self._types(kind))
        parts = [self._nothing(kind)]
        parts += [
            f"SELECT {columns} FROM {table} WHERE fault IS NULL AND day = {number_of(day)}"
            for table in arrived
        ]
        rows = " UNION ALL ".join(parts)
        n_rows, n_ids = self._one(f"SELECT count(*), count(event_id) FROM ({rows})")
        # The least of all rows is the same in whatever order they came.
        least = (
            " QUALIFY event_id IS NULL OR"
            f" row_number() OVER (PARTITION BY event_id ORDER BY {columns}) = 1"
        )
        self.database.execute(
            f"CREATE OR REPLACE TEMP TABLE {kind} AS SELECT * FROM (SELECT DISTINCT * FROM"
            f" ({rows})){least if n_ids else ''}"
        )
        (n_kept,) = self._one(f"SELECT count(*) FROM {kind}")
        self.counts[kind].kept += n_kept
        self.counts[kind].repeated += n_rows - n_kept

    def _nothing(self, kind: Kind) -> str:
        types = self._types(kind).items()
        empty = ", ".join(f"CAST(NULL AS {type_}) AS {name}" for name, type_ in types)
        return f"SELECT {empty} WHERE false"

    def _types(self, kind: Kind) -> dict[str, str]:
        """What is held of an event, user and time first, and the type of each."""
        known = {"user_id": self.user_type, "time": "BIGINT", "milliseconds": "BIGINT", **_NUMBERS}
        return {name: known.get(name, "VARCHAR") for name in HELD[kind]}

    def _one(self, query: str) -> tuple[Any, ...]:
        return tuple(self.database.execute(query).fetchall()[0])

    def _arrive(self, kind: Kind, day: date) -> str | None:
        """The table of what arrived on a day, made once; None where nothing is."""
        table = _arrival(kind, day)
        if table in self._arrived:
            return table
        path, query = self.sources.source(kind, day)
        path = self.place(path)
        if query is None and not exists(path):
            return None
        try:
            scan = self._scan_files(kind, path) if query is None else self._scan_query(path, query)
        except EmptySourceError:
            return None
        with _refusing(scan.path):
            self.database.execute(f"CREATE TEMP TABLE {table} AS {self._read(kind, scan, day)}")
        self._arrived.add(table)
        self._count(kind, table)
        return table

    def _scan_files(self, kind: Kind, path: str) -> Scan:
        files = files_of(path)
        if other := [file for file in files if not is_parquet(file)]:
            raise SourceError(
                f"{kind} must be Parquet, or a database's answer, found {other[0]}; write Parquet.",
                path,
            )
        if is_url(path):
            self.database.register_filesystem(fsspec.core.url_to_fs(path)[0])
        sql = (
            f"read_parquet([{', '.join(map(exactly, files))}], union_by_name = true,"
            " hive_partitioning = false, binary_as_string = true)"
        )
        with _refusing(path):
            described = self.database.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()
            return named_by_place(self.database, sql, [str(row[0]) for row in described], path)

    def _scan_query(self, url: str, query: str) -> Scan:
        names = answer_columns(url, query)
        with answer_as_text(url, query, names) as stream:
            self.database.register("arrow_stream", stream)
            self.database.execute("CREATE OR REPLACE TEMP TABLE answer AS FROM arrow_stream")
            self.database.unregister("arrow_stream")
        return named_by_place(self.database, "answer", names, "query")

    def _read(self, kind: Kind, scan: Scan, day: date) -> str:
        """SQL of all rows, with the day of each and, if it does not count, why."""
        table = _Table(scan, self.sources)
        table.need(NEEDED[kind])
        user = table.user(self.user_type)
        time = seconds_sql(table.column("time"), scan.path, "time", self.sources.timestamp_unit)
        fields = [f"{user} AS user_id", f"{time} AS time"]
        fields += [f"{table.value(name)} AS {name}" for name in HELD[kind][2:]]
        return (
            f"SELECT *, {self._fault(kind, day)} AS fault FROM (SELECT *,"
            f" time // {DAY_SECONDS} AS day FROM (SELECT {', '.join(fields)} FROM {scan.sql}))"
        )

    def _fault(self, kind: Kind, day: date) -> str:
        number, (first, last) = number_of(day), (self.window.begins, self.window.last)
        is_known = " OR ".join(
            ["kind = 'click'", f"milliseconds <= {LONGEST_WATCH_SECONDS * MILLISECONDS}"]
        )
        rules = {
            "without_user": "user_id IS NULL",
            "without_time": f"coalesce(time NOT BETWEEN {FIRST_TIME} AND {LAST_SECOND}, true)",
            "without_meaning": f"NOT coalesce({is_known}, false)",
            "ahead": f"day > {number}",
            "late": f"day < {number - self.sources.late_days}",
            "outside": f"day NOT BETWEEN {number_of(first)} AND {number_of(last)}",
        }
        if kind == "exposures":
            del rules["without_meaning"]
        cases = " ".join(f"WHEN {broken} THEN {literal(name)}" for name, broken in rules.items())
        return f"CASE {cases} END"

    def _count(self, kind: Kind, table: str) -> None:
        counts = self.counts[kind]
        query = f"SELECT fault, count(*) FROM {table} GROUP BY fault"
        for fault, n in self.database.execute(query).fetchall():
            counts.read += n
            if fault is not None:
                setattr(counts, fault, getattr(counts, fault) + n)


def number_of(day: date) -> int:
    """Days since 1 January 1970."""
    return day.toordinal() - _EPOCH


def day_of(number: int) -> date:
    """The day of so many days since 1 January 1970.

    Example:
        >>> day_of(number_of(date(2026, 1, 5))).isoformat()
        '2026-01-05'
    """
    return date.fromordinal(number + _EPOCH)


def _arrival(kind: Kind, day: date) -> str:
    return f"{kind}_{number_of(day)}"


@contextmanager
def _refusing(path: str) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise SourceError(
            f"the files must be whole Parquet, of one type a column, found:"
            f" {str(error).splitlines()[0]}; fetch or write them again.",
            path,
        ) from error


class _Table:
    """The columns of one source by our names."""

    def __init__(self, scan: Scan, sources: EventSources) -> None:
        self.scan, self._names = scan, sources.columns

    def need(self, names: Sequence[str]) -> None:
        missing = [name for name in names if self._name(name) not in self.scan.names]
        if missing:
            wanted = ", ".join(repr(self._name(name)) for name in missing)
            raise SourceError(
                f"the columns must hold {wanted}, found {', '.join(map(repr, self.scan.names))};"
                " say in columns what they are called.",
                self.scan.path,
            )

    def column(self, name: str) -> Column:
        return self.scan.column(self._name(name))

    def user(self, wanted: str) -> str:
        """SQL of the users' ids in the type that is wanted; NULL of what is none."""
        sql, kind = id_sql(self.column("user_id"), self.scan.path, self._name("user_id"))
        if wanted == kind:
            return sql
        if is_text_kind(wanted):
            return f"CAST({sql} AS VARCHAR)"
        is_whole = f"regexp_full_match({sql}, {literal(WHOLE_NUMBER)})"
        return f"CASE WHEN {is_whole} THEN CAST({sql} AS BIGINT) END"

    def value(self, name: str) -> str:
        """SQL of another column than user and time."""
        if name == "milliseconds":
            return self._milliseconds()
        kind = _NUMBERS.get(name, "VARCHAR")
        if self._name(name) not in self.scan.names:
            return f"CAST(NULL AS {kind})"
        return f"TRY_CAST({self.column(name).sql} AS {kind})"

    def _milliseconds(self) -> str:
        """NULL of all that is no time span, and of a click."""
        if self._name("value") not in self.scan.names:
            return "CAST(NULL AS BIGINT)"
        number = f"TRY_CAST({self.column('value').sql} AS DOUBLE)"
        whole = f"TRY_CAST(round({number} * {MILLISECONDS}) AS BIGINT)"
        is_watch = f"{self.value('kind')} = 'watch' AND {number} >= 0"
        return f"CASE WHEN {is_watch} THEN {whole} END"

    def _name(self, name: str) -> str:
        return self._names.get(name, name)
