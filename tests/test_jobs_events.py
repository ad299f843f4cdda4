"""Days of events: collected once, anew when their source changed, and by any source."""

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coterie.errors import ConfigError, DataError, SourceError, UnavailableError
from coterie.jobs.config import Service, days_of
from coterie.jobs.events import (
    Day,
    collect,
    last_day,
    seconds,
    select,
    write_histories,
    write_window,
)
from coterie.running.progress import Update
from small_service import MONDAY, at, configure, copy_of, write_events

DAYS = days_of(MONDAY, MONDAY + timedelta(days=3))
TUESDAY, WEDNESDAY = DAYS[1:]


def rows_of(day: Day) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in pq.read_table(day.path).to_pylist()]


def states(days: list[Day]) -> list[tuple[str, int]]:
    return [(day.digest, day.path.stat().st_mtime_ns) for day in days]


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """One with two days and none between them."""
    write_events(tmp_path, MONDAY, [(2, 7, at(MONDAY)), (1, 8, at(MONDAY)), (1, 7, at(MONDAY))])
    write_events(tmp_path, WEDNESDAY, [(1, 9, at(WEDNESDAY))])
    return configure(tmp_path, {})


def test_days_are_collected_once_and_missing_ones_left_out(service: Service) -> None:
    told: list[Update] = []
    days = collect(service, DAYS, told.append)
    assert [(day.day, day.n_events, day.n_users) for day in days] == [
        (MONDAY, 3, 2),
        (WEDNESDAY, 1, 1),
    ]
    noon = at(MONDAY)
    assert rows_of(days[0]) == [(1, 7, noon, None), (1, 8, noon, None), (2, 7, noon, None)]
    assert len(told) == 3
    before = states(days)
    assert states(collect(service, DAYS)) == before


@pytest.mark.parametrize("change", ["rewritten", "another file", "gone", "read otherwise"])
def test_a_day_is_collected_again_when_its_source_or_its_reading_changed(
    service: Service, tmp_path: Path, change: str
) -> None:
    monday, wednesday = collect(service, DAYS)
    before = wednesday.path.stat().st_mtime_ns
    if change == "rewritten":
        path = write_events(tmp_path, MONDAY, [(5, 5, at(MONDAY))] * 3)
        # Of the same size, and within the same second.
        os.utime(path, ns=(1, 1))
    elif change == "another file":
        write_events(tmp_path, MONDAY, [(5, 5, at(MONDAY))], "more.parquet")
    elif change == "gone":
        (tmp_path / "events" / f"day={MONDAY}" / "events.parquet").unlink()
    else:
        service = configure(tmp_path, {"events": {"item_id_type": "text"}})
    found = {day.day: day for day in collect(service, DAYS)}
    if change == "gone":
        assert list(found) == [WEDNESDAY]
        assert not monday.path.exists()
    else:
        assert found[MONDAY].digest != monday.digest
    if change != "read otherwise":
        assert found[WEDNESDAY].path.stat().st_mtime_ns == before


def test_the_same_rows_in_another_file_are_the_same_day(service: Service, tmp_path: Path) -> None:
    (before,) = collect(service, [MONDAY])
    noon = at(MONDAY)
    write_events(tmp_path, MONDAY, [(1, 7, noon), (2, 7, noon), (1, 8, noon), (1, 8, noon)])
    (after,) = collect(service, [MONDAY])
    assert (after.digest, after.n_events) == (before.digest, before.n_events)
    assert (before.n_repeated, after.n_repeated) == (0, 1)


def test_what_arrives_late_or_twice_is_in_the_window_once(tmp_path: Path) -> None:
    """An event of Monday comes on Monday twice, on Tuesday, and one of Monday on Wednesday only."""
    service = configure(tmp_path, {})
    twice = (1, 7, at(MONDAY))
    write_events(tmp_path, MONDAY, [twice, twice, (2, 7, at(MONDAY))])
    write_events(tmp_path, TUESDAY, [twice, (1, 8, at(TUESDAY))])
    write_events(tmp_path, WEDNESDAY, [(3, 9, at(MONDAY)), (3, 7, at(WEDNESDAY))])
    days = collect(service, DAYS)
    assert [day.n_events for day in days] == [2, 2, 2]
    assert write_window(service, days, tmp_path / "all.parquet") == 5
    assert write_window(service, days, tmp_path / "some.parquet", until=WEDNESDAY) == 4
    found = pq.read_table(tmp_path / "some.parquet")
    assert found["user_id"].to_pylist() == [1, 1, 2, 3]
    assert max(found["timestamp"].to_pylist()) < seconds(WEDNESDAY)


def test_histories_are_a_row_a_user(tmp_path: Path) -> None:
    """An item on two days is there twice: whoever reads the list counts it once."""
    service = configure(
        tmp_path, {"events": {"value_column": "value"}, "prepare": {"min_value": 3}}
    )
    write_events(tmp_path, MONDAY, [(2, 7, at(MONDAY), 3.0), (1, 8, at(MONDAY), 5.0)])
    write_events(tmp_path, TUESDAY, [(1, 7, at(TUESDAY), 4.0), (3, 7, at(TUESDAY), 1.0)])
    write_events(tmp_path, WEDNESDAY, [(1, 7, at(WEDNESDAY), 4.0)])
    assert write_histories(service, collect(service, DAYS), tmp_path / "h.parquet") == 2
    found = pq.read_table(tmp_path / "h.parquet").to_pydict()
    assert found == {"user_id": [1, 2], "item_ids": [[7, 7, 8], [7]]}


def test_the_window_keeps_the_least_value_and_more(tmp_path: Path) -> None:
    rows = [(1, 7, at(MONDAY), 2.5), (1, 8, at(MONDAY), 3.0)]
    write_events(tmp_path, MONDAY, rows)
    values = {"events": {"value_column": "value"}, "prepare": {"min_value": 3}}
    service = configure(tmp_path, values)
    days = collect(service, DAYS)
    assert [row[3] for row in rows_of(days[0])] == [2.5, 3.0]
    assert write_window(service, days, tmp_path / "w.parquet") == 1
    with pytest.raises(DataError, match="must hold events, found none in 1 days"):
        write_window(service, days, tmp_path / "w.parquet", until=MONDAY)
    with pytest.raises(DataError, match="a day with events in the window, found none"):
        write_window(service, [], tmp_path / "w.parquet")


@pytest.mark.parametrize("rows", [0, None])
def test_a_day_with_nothing_in_it_is_left_out(
    service: Service, tmp_path: Path, rows: int | None
) -> None:
    """A file without rows, and the folder that a writer left without a file."""
    folder = tmp_path / "events" / f"day={TUESDAY}"
    folder.mkdir()
    if rows is None:
        (folder / "_SUCCESS").touch()
    else:
        columns = {name: pa.array([], pa.int64()) for name in ("user_id", "item_id", "timestamp")}
        pq.write_table(pa.table(columns), folder / "events.parquet")
    assert [day.day for day in collect(service, DAYS)] == [MONDAY, WEDNESDAY]


def test_days_of_text_files(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    for day in DAYS:
        text = f"who;what;when;stars\nann;7;{day}T12:00:00Z;4\nbob;8;{day} 13:00:00;5\n"
        (tmp_path / "log" / f"{day:%Y%m%d}.csv").write_text(text)
    events = {
        "path": "log/%Y%m%d.csv",
        "user_column": "who",
        "item_column": "what",
        "timestamp_column": "when",
        "value_column": "stars",
    }
    days = collect(configure(tmp_path, {"events": events}), DAYS)
    assert [day.n_events for day in days] == [2, 2, 2]
    assert rows_of(days[1]) == [("ann", 7, at(TUESDAY), 4.0), ("bob", 8, at(TUESDAY, 13), 5.0)]


def test_text_without_a_header_and_times_in_milliseconds(tmp_path: Path) -> None:
    (tmp_path / f"{MONDAY}.tsv").write_text(f"1\t7\t{at(MONDAY)}000\n")
    events = {
        "path": "%Y-%m-%d.tsv",
        "columns": ["user_id", "item_id", "timestamp"],
        "delimiter": "\t",
        "timestamp_unit": "ms",
    }
    (day,) = collect(configure(tmp_path, {"events": events}), DAYS)
    assert rows_of(day) == [(1, 7, at(MONDAY), None)]


def test_hostile_names_of_columns_and_folders(tmp_path: Path) -> None:
    """Quotes, brackets and commands are parts of a name like others."""
    folder = tmp_path / 'it\'s [a] "folder"'
    names = ['us"er; DROP TABLE log', "i'tem", "time stamp--"]
    path = folder / "events" / f"day={MONDAY}" / "events.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(dict(zip(names, ([1], [7], [at(MONDAY)]), strict=True))), path)
    columns = ("user_column", "item_column", "timestamp_column")
    service = configure(folder, {"events": dict(zip(columns, names, strict=True))})
    days = collect(service, DAYS)
    assert rows_of(days[0]) == [(1, 7, at(MONDAY), None)]
    assert write_window(service, days, service.work / "window.parquet") == 1


def test_ids_that_are_text_on_some_days_are_text_in_the_window(tmp_path: Path) -> None:
    write_events(tmp_path, MONDAY, [(1, 7, at(MONDAY)), (1, 8, at(MONDAY))])
    write_events(tmp_path, TUESDAY, [("1", "7", at(MONDAY)), ("x", "8", at(TUESDAY))])
    service = configure(tmp_path, {})
    days = collect(service, DAYS)
    assert write_window(service, days, tmp_path / "w.parquet") == 3
    found = pq.read_table(tmp_path / "w.parquet").to_pylist()
    assert sorted((row["user_id"], row["item_id"]) for row in found) == [
        ("1", "7"),
        ("1", "8"),
        ("x", "8"),
    ]


@pytest.mark.parametrize(
    ("rows", "events", "words"),
    [
        ([(1, 7)], {}, "timestamp"),
        ([(1, 7, 5)], {"item_column": "title"}, "'title'"),
        ([(1, 7, -5)], {}, "a time between 1980"),
        ([(1, 7, 5 * 10**8, None)], {"value_column": "value"}, "found nothing in row 1"),
    ],
)
def test_what_cannot_be_read_says_where(
    tmp_path: Path, rows: list[tuple[Any, ...]], events: dict[str, str], words: str
) -> None:
    path = write_events(tmp_path, MONDAY, rows)
    service = configure(tmp_path, {"events": events})
    with pytest.raises(SourceError, match=words) as raised:
        collect(service, DAYS)
    assert str(path.parent) in str(raised.value)


def test_a_damaged_file_is_named_and_mending_it_is_enough(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "events" / f"day={MONDAY}" / "events.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(SourceError, match=r"events\.parquet"):
        collect(service, DAYS)
    path.write_bytes(whole)
    assert len(collect(service, DAYS)) == 2


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Callable[..., None]]:
    """The address of a database with a table of views, and what fills it."""
    if request.param == "sqlite":
        path = tmp_path / "views.db"

        def fill(query: str, *values: Any) -> None:
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute(query.replace("%s", "?"), values)

        url = "sqlite:///views.db"
    else:
        import psycopg  # noqa: PLC0415

        url = request.getfixturevalue("postgres_server")

        def fill(query: str, *values: Any) -> None:
            with psycopg.connect(url) as connection:
                connection.execute(query, values)

        fill("DROP TABLE IF EXISTS views")
    fill("CREATE TABLE views (who BIGINT, what TEXT, at BIGINT, on_day TEXT)")
    return url, fill


def test_days_of_a_database(
    database: tuple[str, Callable[..., None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is a variable's; a query may have braces of its own."""
    url, fill = database
    monkeypatch.setenv("EVENTS_DB", url)
    for day, user in ((MONDAY, 1), (MONDAY, 2), (WEDNESDAY, 1)):
        fill("INSERT INTO views VALUES (%s, %s, %s, %s)", user, "it's", at(day), str(day))
    query = (
        "SELECT who AS user_id, what AS item_id, at AS timestamp FROM views"
        " WHERE on_day >= '{day}' AND on_day < '{next_day}' AND what <> '{x}'"
    )
    service = configure(tmp_path, {"events": {"path": "${EVENTS_DB}", "query": query}})
    days = collect(service, DAYS)
    assert [(day.day, day.n_events) for day in days] == [(MONDAY, 2), (WEDNESDAY, 1)]
    assert rows_of(days[0])[0] == (1, "it's", at(MONDAY), None)
    assert last_day(service, TUESDAY) == MONDAY
    before = states(days)
    assert states(collect(service, DAYS)) == before
    other = query.replace("what <> '{x}'", "who < 2")
    service = configure(tmp_path, {"events": {"path": "${EVENTS_DB}", "query": other}})
    assert [day.n_events for day in collect(service, DAYS)] == [1, 1]


@pytest.mark.parametrize(
    ("ago", "late_days", "n_events"), [(0, 0, 2), (1, 0, 1), (1, 2, 2), (9, 2, 1), (-1, 0, 2)]
)
def test_a_database_is_asked_again_until_a_day_is_over_and_late_events_have_come(
    tmp_path: Path, ago: int, late_days: int, n_events: int
) -> None:
    day = datetime.now(UTC).date() - timedelta(days=ago)
    add = "INSERT INTO views VALUES (?, 7, ?)"
    query = "SELECT user_id, item_id, timestamp FROM views WHERE '{day}' < '{next_day}'"
    events = {"path": "sqlite:///views.db", "query": query, "late_days": late_days}
    service, found = configure(tmp_path, {"events": events}), []
    with closing(sqlite3.connect(tmp_path / "views.db", isolation_level=None)) as database:
        database.execute("CREATE TABLE views (user_id, item_id, timestamp)")
        for user in (1, 2):
            database.execute(add, (user, at(day)))
            found += collect(service, [day])
    assert [one.n_events for one in found] == [1, n_events]
    # The same rows are the same day, however often they are asked for.
    assert [one.digest for one in collect(service, [day])] == [found[1].digest]


def test_an_answer_that_came_too_early_is_final_when_it_came_again(tmp_path: Path) -> None:
    day = datetime.now(UTC).date() - timedelta(days=1)
    query = f"SELECT 1 AS user_id, 7 AS item_id, {at(day)} AS timestamp, '{{day}}' AS day"
    events = {"path": "sqlite:///views.db", "query": query, "late_days": 1}
    sqlite3.connect(tmp_path / "views.db").close()
    early = states(collect(configure(tmp_path, {"events": events}), [day]))
    service = configure(tmp_path, {"events": {**events, "late_days": 0}})
    before, after = (states(collect(service, [day])) for _ in range(2))
    assert early != before == after


def test_secrets_are_not_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query = "SELECT 1 AS user_id, 2 AS item_id, 3 AS timestamp, '{day}' AS day"
    service = configure(tmp_path, {"events": {"path": "${EVENTS_DB}", "query": query}})
    with pytest.raises(ConfigError, match="EVENTS_DB must be set"):
        collect(service, DAYS)
    monkeypatch.setenv("EVENTS_DB", "postgresql://ann:s3cr3t@127.0.0.1:1/views")
    with pytest.raises(UnavailableError) as raised:
        collect(service, DAYS)
    assert "s3cr3t" not in str(raised.value)


def test_select_needs_a_day_and_reads_the_named_ones(service: Service) -> None:
    with pytest.raises(DataError, match=r"check events\.path"):
        select([])
    assert select(collect(service, [MONDAY])).count(".parquet") == 1


@pytest.mark.parametrize(
    ("before", "expected"), [(MONDAY, None), (TUESDAY, MONDAY), (date(2026, 2, 1), WEDNESDAY)]
)
def test_last_day(service: Service, before: date, expected: date | None) -> None:
    assert last_day(service, before) == expected


def test_a_collected_day_tells_its_source(service: Service) -> None:
    (day,) = collect(service, [MONDAY])
    facts = json.loads(pq.read_schema(day.path).metadata[b"coterie.source"])
    assert facts["digest"] == day.digest
    assert "events.parquet" in facts["source"]


def test_a_service_that_is_moved_has_read_its_days(service: Service, tmp_path: Path) -> None:
    before = states(collect(service, DAYS))
    moved = copy_of(service, tmp_path.with_name(f"{tmp_path.name}-moved"))
    assert states(collect(moved, DAYS)) == before
