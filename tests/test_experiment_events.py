"""Exposures and outcomes: each rule, what is counted, and each source."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coterie.errors import ConfigError, NotFoundError, SourceError
from coterie.experiment import EventCounts, EventSources, Window
from coterie.experiment.events import EventReader, Kind, day_of, number_of
from small_experiment import FIRST, Row, at, did, in_time, seen, window, write


def read(
    sources: EventSources, days: Window, user_type: str = "BIGINT"
) -> tuple[dict[str, list[list[tuple[Any, ...]]]], dict[Kind, EventCounts]]:
    """The rows of each day, by kind, and what was counted."""
    found: dict[str, list[list[tuple[Any, ...]]]] = {"exposures": [], "outcomes": []}
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        reader = EventReader(database, sources, days, user_type=user_type)
        for n in range(-days.before_days, days.n_days):
            for kind, of_days in found.items():
                table = reader.events(kind, FIRST + timedelta(days=n))  # type: ignore[arg-type]
                columns = "user_id, time, " + (
                    "kind, milliseconds" if kind == "outcomes" else "card"
                )
                query = f"SELECT {columns} FROM {table} ORDER BY ALL"
                of_days.append(database.execute(query).fetchall())
        left = database.execute("SELECT count(*) FROM duckdb_tables()").fetchall()
        assert left[0][0] <= 2 + 2 * sources.late_days
        return found, reader.counts


def of_one(counts: EventCounts) -> dict[str, int]:
    return {name: n for name, n in counts.to_json().items() if n}


def of_rows(
    folder: Path, exposures: Sequence[tuple[int, Row]], n_days: int = 2
) -> tuple[list[list[tuple[Any, ...]]], dict[str, int]]:
    found, counts = read(write(folder, exposures), window(n_days))
    return found["exposures"], of_one(counts["exposures"])


# Rules.


def test_events_are_of_the_day_of_their_time(tmp_path: Path) -> None:
    late, at_once = seen(1, 0, time=at(0, 86_399)), seen(2, 1, time=at(1, 0))
    rows, counts = of_rows(tmp_path, [(1, late), (1, at_once)])
    assert rows == [[(1, at(0, 86_399), "movie")], [(2, at(1, 0), "movie")]]
    assert counts == {"read": 2, "kept": 2}


@pytest.mark.parametrize(
    ("arrived", "counted"),
    [(0, "kept"), (2, "kept"), (3, "late"), (-1, "ahead")],
)
def test_events_count_until_they_are_too_late(tmp_path: Path, arrived: int, counted: str) -> None:
    _, counts = of_rows(tmp_path, [(1 + arrived, seen(1, 1))], n_days=5)
    assert counts == {"read": 1, counted: 1}


def test_events_of_days_outside_of_the_window_are_counted_apart(tmp_path: Path) -> None:
    rows = [(0, seen(1, -1)), (2, seen(1, 2)), (1, seen(1, 1))]
    found, counts = of_rows(tmp_path, rows)
    assert [len(day) for day in found] == [0, 1]
    assert counts == {"read": 3, "kept": 1, "outside": 2}


def test_rows_that_are_alike_count_once_in_whatever_file(tmp_path: Path) -> None:
    rows = [(0, seen(1, 0)), (0, seen(1, 0)), (2, seen(1, 0)), (0, seen(1, 0, item_id=2))]
    _, counts = of_rows(tmp_path, rows)
    assert counts == {"read": 4, "kept": 2, "repeated": 2}


@pytest.mark.parametrize("turn", [1, -1])
def test_of_rows_with_one_event_id_the_least_counts(tmp_path: Path, turn: int) -> None:
    sent_again = [(0, seen(1, 0, event_id="a")), (1, seen(1, 0, event_id="a", time=at(0, 9)))]
    others = [(0, seen(2, 0, event_id="b")), (0, seen(3, 0)), (0, seen(4, 0))]
    rows, counts = of_rows(tmp_path, [*sent_again, *others][::turn])
    noon = at(0)
    assert rows[0] == [(1, at(0, 9), "movie"), *((n, noon, "movie") for n in (2, 3, 4))]
    assert counts == {"read": 5, "kept": 4, "repeated": 1}


def test_rows_without_user_or_time_are_dropped(tmp_path: Path) -> None:
    rows = [seen(None, 0), seen(1, 0, time=None), seen(1, 0, time=7), seen(1, 0)]
    _, counts = of_rows(tmp_path, [(0, row) for row in rows])
    assert counts == {"read": 4, "kept": 1, "without_user": 1, "without_time": 2}


def test_outcomes_without_a_meaning_are_dropped(tmp_path: Path) -> None:
    bad = [("like", 1.0), (None, 1.0), ("watch", None), ("watch", -1.0), ("watch", float("nan"))]
    rows = [did(1, 0, kind, value=value) for kind, value in bad]  # type: ignore[arg-type]
    rows += [did(1, 0, "watch", value=8 * 86_400.0), did(1, 0, "watch", value=0.0625), did(1, 0)]
    found, counts = read(write(tmp_path, [], in_time(rows)), window(1))
    assert found["outcomes"] == [[(1, at(0), "click", None), (1, at(0), "watch", 63)]]
    assert of_one(counts["outcomes"]) == {"read": 8, "kept": 2, "without_meaning": 6}


def test_days_without_a_file_have_no_events(tmp_path: Path) -> None:
    (tmp_path / f"exposures/day={FIRST}").mkdir(parents=True)
    rows, counts = of_rows(tmp_path, [(1, seen(1, 1))])
    assert [len(day) for day in rows] == [0, 1]
    assert counts == {"read": 1, "kept": 1}


# Sources.


def one_file(folder: Path, table: pa.Table, **more: Any) -> EventSources:
    pq.write_table(table, folder / f"{FIRST}.parquet")
    return EventSources(exposures=f"{folder}/%Y-%m-%d.parquet", outcomes=f"{folder}/x%Y", **more)


def test_columns_may_have_other_names_and_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "who": ["7", "x", "08"],
            "at": pa.array([at(0) * 1000] * 3, pa.timestamp("ms", "UTC")),
            "place": pa.array(["movie"] * 3).dictionary_encode(),
            "what": pa.array([1, 2, 3], pa.int16()),
            "else": [1.5, 2.5, 3.5],
        }
    )
    names = {"user_id": "who", "time": "at", "card": "place", "item_id": "what"}
    sources = one_file(tmp_path, table, columns=names)
    found, counts = read(sources, window(1))
    assert found["exposures"] == [[(7, at(0), "movie")]]
    assert counts["exposures"].without_user == 2
    found, _ = read(sources, window(1), "VARCHAR")
    assert [row[0] for row in found["exposures"][0]] == ["08", "7", "x"]


def test_whole_numbers_are_text_where_the_experiment_has_text(tmp_path: Path) -> None:
    table = pa.table({"user_id": [7], "time": [at(0)], "card": ["home"], "item_id": [1]})
    found, _ = read(one_file(tmp_path, table), window(1), "VARCHAR")
    assert found["exposures"] == [[("7", at(0), "home")]]


QUERY = "SELECT u AS user_id, t AS time, 'home' AS card, 1 AS item_id FROM seen WHERE d = '{day}'"


@pytest.mark.parametrize("server", ["sqlite", "postgres"])
def test_events_may_come_from_a_database(
    tmp_path: Path, server: str, request: pytest.FixtureRequest
) -> None:
    statements = [
        "CREATE TABLE seen(u BIGINT, t TEXT, d TEXT)",
        "INSERT INTO seen VALUES (7, '2026-03-02 12:00:00+00', '2026-03-02'),"
        " (8, '2026-03-02T12:00:00', '2026-03-03'), (9, '2026-03-03 12:00:00', '2026-03-03')",
    ]
    url = f"sqlite:///{tmp_path}/log.db"
    if server == "sqlite":
        with closing(sqlite3.connect(tmp_path / "log.db")) as database, database:
            for one in statements:
                database.execute(one)
    else:
        import psycopg  # noqa: PLC0415

        url = request.getfixturevalue("postgres_url")
        with psycopg.connect(url) as connection:
            for one in ("DROP TABLE IF EXISTS seen", *statements):
                connection.execute(one)
    sources = EventSources(exposures=url, exposures_query=QUERY, outcomes=f"{tmp_path}/%Y")
    found, counts = read(sources, window(2))
    assert found["exposures"] == [
        [(7, at(0), "home"), (8, at(0), "home")],
        [(9, at(1), "home")],
    ]
    assert of_one(counts["exposures"]) == {"read": 3, "kept": 3}


def test_queries_may_hold_other_braces() -> None:
    sources = EventSources(exposures="x", exposures_query="SELECT {day} {next_day} '{}'")
    assert sources.source("exposures", FIRST)[1] == "SELECT 2026-03-02 2026-03-03 '{}'"


# Refusals.


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"user_id": [1], "time": [1]}, "must hold 'card', 'item_id', found 'user_id', 'time'"),
        (
            {"user_id": [[1]], "time": [1], "card": ["a"], "item_id": [1]},
            "ids must be whole numbers or text",
        ),
        ({"user_id": [1], "time": [True], "card": ["a"], "item_id": [1]}, "times must be numbers"),
        ({"user_id": [1.5], "time": [1], "card": ["a"], "item_id": [1]}, "whole numbers or text"),
    ],
)
def test_sources_with_other_columns_are_refused(
    tmp_path: Path, table: dict[str, Any], words: str
) -> None:
    with pytest.raises(SourceError, match=words):
        read(one_file(tmp_path, pa.table(table)), window(1))


def test_damaged_and_other_files_are_refused(tmp_path: Path) -> None:
    sources = EventSources(exposures=f"{tmp_path}/%Y-%m-%d.parquet", outcomes="none/%Y")
    (tmp_path / f"{FIRST}.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match="whole Parquet"):
        read(sources, window(1))
    (tmp_path / f"{FIRST}.csv").write_text("user_id,time\n")
    text = EventSources(exposures=f"{tmp_path}/%Y-%m-%d.csv", outcomes="none/%Y")
    with pytest.raises(SourceError, match="exposures must be Parquet"):
        read(text, window(1))


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found uid"):
        EventSources(columns={"uid": "u"})
    with pytest.raises(ConfigError, match="must end on or after its first day"):
        Window(FIRST, FIRST - timedelta(days=1))
    missing = EventSources(exposures=f"sqlite:///{tmp_path}/no.db", exposures_query=QUERY)
    with pytest.raises(NotFoundError, match="database must exist"):
        read(missing, window(1))


def test_days_and_their_numbers() -> None:
    assert number_of(date(1970, 1, 2)) == 1
    assert day_of(number_of(FIRST)) == FIRST
