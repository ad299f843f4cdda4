"""A service begun, checked before it runs, scheduled, and looked at."""

import json
import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coterie.errors import ConfigError, ConflictError, NotFoundError, SourceError
from coterie.jobs.config import FILE, Service, days_of
from coterie.jobs.daily import daily
from coterie.jobs.events import collect
from coterie.jobs.probe import probe
from coterie.jobs.schedule import cron, systemd
from coterie.jobs.setup import Sources, begin
from coterie.jobs.status import status
from coterie.jobs.titles import read_titles
from coterie.registry import Registry
from small_service import LAST, MONDAY, at, configure, copy_of, write_events

Run = Callable[..., int]

TODAY = MONDAY + timedelta(days=3)
DAYS = days_of(MONDAY, TODAY)


def test_a_simulated_service_is_begun_and_right_in_every_part(
    tmp_path: Path, run_coterie: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "service", tmp_path / "found.json"
    assert run_coterie("init", folder, "--date", "2026-11-28") == 0
    assert run_coterie("validate", folder, "--date", "2026-11-28", "--json", out) == 0
    found = {one["name"]: one for one in json.loads(out.read_text())}
    assert all(one["ok"] for one in found.values())
    assert found["events"]["found"].startswith("2026-11-27: ")
    assert "movie" in found["titles"]["found"]
    assert found["registry"]["found"] == "0 versions, live: none"
    assert run_coterie("init", folder) == 7
    assert "a service is there already" in " ".join(capfd.readouterr().err.split())
    assert run_coterie("init", tmp_path / "other", "--titles", folder / "titles.parquet") == 2
    assert not (tmp_path / "other").exists()


def csv_days(folder: Path, name: str = "%Y-%m-%d.csv") -> Path:
    folder.mkdir(parents=True)
    for day in DAYS:
        (folder / day.strftime(name)).write_text(
            f"Customer,TYPE,ID,ts,rating\nann,x,7,{at(day)},4\n"
        )
    return folder


@pytest.mark.parametrize("name", ["%Y-%m-%d.csv", "plays-%Y%m%d.csv"])
def test_own_text_files_by_date(tmp_path: Path, name: str) -> None:
    events = csv_days(tmp_path / "log", name)
    titles = tmp_path / "titles.csv"
    titles.write_text("id,Name,type,valid_from\n7,Seven,movie,2026-01-01\n8,Eight,series,\n")
    service = begin(tmp_path / "service", TODAY, Sources(str(events), str(titles)))
    assert [day.n_events for day in collect(service, DAYS)] == [1, 1, 1]
    columns = service.config.events
    assert (columns.user_column, columns.item_column) == ("Customer", "ID")
    assert (columns.timestamp_column, columns.value_column) == ("ts", "rating")
    found = read_titles(service)
    assert found.names == {"7": "Seven", "8": "Eight"}
    assert found.kinds == {"7": "movie", "8": "series"}
    assert found.windows == {"7": (date(2026, 1, 1), None), "8": (None, None)}
    assert not found.available(7, date(2025, 12, 31))
    assert found.available(9, date(2025, 12, 31))


def test_own_folders_by_date_in_a_place_with_a_hostile_name(tmp_path: Path) -> None:
    place = tmp_path / 'it\'s a "log" \\ 100%d'
    for day in DAYS:
        write_events(place, day, [(1, 7, at(day))])
    service = begin(tmp_path / "service", TODAY, Sources(str(place / "events")))
    assert [day.n_events for day in collect(service, DAYS)] == [1, 1, 1]
    assert service.config.titles.path is None
    assert not read_titles(service).names


def test_columns_as_people_call_them(tmp_path: Path) -> None:
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "2026-01-05.csv").write_text("customer,film,at\n1,2,2026-01-05\n")
    (tmp_path / "films.csv").write_text("film,title\n2,Two\n")
    sources = Sources(str(tmp_path / "views"), str(tmp_path / "films.csv"))
    service = begin(tmp_path / "service", TODAY, sources)
    columns = service.config.events
    found = columns.user_column, columns.item_column, columns.timestamp_column
    assert found == ("customer", "film", "at")
    assert read_titles(service).names == {"2": "Two"}


def test_own_events_that_do_not_fit_are_refused_and_nothing_is_begun(tmp_path: Path) -> None:
    folder = tmp_path / "service"
    with pytest.raises(NotFoundError, match="the folder of events must exist"):
        begin(folder, TODAY, Sources(str(tmp_path / "none")))
    undated = tmp_path / "undated"
    undated.mkdir()
    (undated / "plays.csv").write_text("user,item,ts\n1,2,3\n")
    with pytest.raises(SourceError, match="whose name bears its date"):
        begin(folder, TODAY, Sources(str(undated)))
    nameless = tmp_path / "nameless"
    nameless.mkdir()
    (nameless / "2026-01-05.csv").write_text("a,b,c\n1,2,3\n")
    with pytest.raises(SourceError, match="a column for the user, found a, b, c"):
        begin(folder, TODAY, Sources(str(nameless)))
    events = str(csv_days(tmp_path / "log"))
    with pytest.raises(NotFoundError, match="the table of titles must exist"):
        begin(folder, TODAY, Sources(events, str(tmp_path / "none.csv")))
    assert not (folder / FILE).exists()
    begin(folder, TODAY, Sources(events))
    with pytest.raises(ConflictError, match="a service is there already"):
        begin(folder, TODAY, Sources(events))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three days and their titles, all right."""
    for day in DAYS:
        write_events(tmp_path, day, [(1, 7, at(day)), (2, 8, at(day))])
    titles = {"item_id": [7, 8], "title": ["Seven", "Eight"], "kind": ["movie", "series"]}
    pq.write_table(pa.table(titles), tmp_path / "titles.parquet")
    return tmp_path


RIGHT: dict[str, Any] = {
    "titles": {"path": "titles.parquet", "kind_column": "kind"},
    "rows": {"main": {"kinds": ["movie"]}},
}


def wrong(service: Service) -> dict[str, str]:
    return {one.name: one.found for one in probe(service, TODAY) if not one.ok}


def test_nothing_is_wrong_with_what_is_right(small: Path) -> None:
    assert wrong(configure(small, RIGHT)) == {}


@pytest.mark.parametrize(
    ("part", "section", "words"),
    [
        ("events", {"events": {"path": "elsewhere/%Y"}}, "no day before 2026-01-08 has events"),
        ("events", {"events": {"item_column": "what"}}, "'what'"),
        ("events", {"events": {"path": "${NO_SUCH}/%Y"}}, "NO_SUCH must be set"),
        ("titles", {"titles": {"path": "none.parquet"}}, "none was found"),
        ("titles", {"titles": {**RIGHT["titles"], "from_column": "since"}}, "since"),
        ("titles", {"rows": {"main": {"kinds": ["opera"]}}}, "of the kind opera; there are movie"),
        ("rows", {"rows": {"main": {"deny": "deny.txt"}}}, "deny.txt"),
        ("store", {"store": {"url": "postgresql://ann:s3cr3t@127.0.0.1:1/x"}}, "127.0.0.1"),
        ("store", {"store": {"url": "mysql://x"}}, "mysql"),
        ("schedule", {"schedule": {"daily": "25:00"}}, "25:00"),
        ("gates", {"gates": {"metric": "ndgc@20"}}, "ndgc"),
    ],
)
def test_each_fault_is_found_where_it_is(
    small: Path, part: str, section: dict[str, Any], words: str
) -> None:
    found = wrong(configure(small, {**RIGHT, **section}))
    assert list(found) == [part]
    assert words in found[part]
    assert "s3cr3t" not in found[part]


def test_a_wrong_experiment_is_found(small: Path) -> None:
    (small / "experiments").mkdir()
    arms = '[[arms]]\nname = "a"\nversion = "live"\n[[arms]]\nname = "b"\nconfig = "b.toml"\n'
    (small / "experiments" / "one.toml").write_text(f'days = 7\ncontrol = "a"\n{arms}')
    assert "b.toml" in wrong(configure(small, RIGHT))["experiments"]
    (small / "experiments" / "b.toml").write_text('[model]\nname = "most-seen"\n')
    assert "most-seen" in wrong(configure(small, RIGHT))["experiments"]
    (small / "experiments" / "b.toml").write_text('[model]\nname = "most-watched"\n')
    assert wrong(configure(small, RIGHT)) == {}


def test_a_damaged_registry_is_found(small: Path) -> None:
    (small / "registry").mkdir()
    (small / "registry" / "live.json").write_text("{")
    assert "restore it" in wrong(configure(small, RIGHT))["registry"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[evnts]", "evnts"),
        ("[events]\npath = 'log.parquet'", "events must name a day"),
        ("[prepare]\nwindow_days = 0", "window_days"),
        ("[rows]", "there must be a card row"),
        (
            "[prepare]\nwindow_days = 200\n[retention]\ndays = 206",
            "retention.days must be at least 207, the window (prepare.window_days = 200) and a"
            " week, found 206; raise",
        ),
        ("[prepare]\nwindow_days = 394", "must be at least 401"),
        ("[prepare]\nheld_out_users = 0.0", "held_out_users"),
        ("[prepare]\nheld_out_users = 1.0", "held_out_users"),
        ("[events]\nlate_days = -1", "late_days"),
        ("[gates]\ncoverage = 2", "coverage"),
        ("[model]\nname = 'none'", "model"),
        ("[rows.main]\nwatched = 'perhaps'", "watched"),
        ("name = 'a\\nb'", "name"),
        ("= 5", "coterie.toml"),
    ],
)
def test_the_file_says_what_is_wrong_in_it(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError, match=re.escape(words)):
        Service.load(tmp_path)
    with pytest.raises(NotFoundError, match="coterie init writes one"):
        Service.load(tmp_path / "none")


def test_validate_exits_with_two_and_names_the_parts(
    small: Path, run_coterie: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(small, {**RIGHT, "titles": {"path": "none.csv"}})
    assert run_coterie("validate", small, "--date", TODAY) == 2
    told = capfd.readouterr()
    assert "WRONG titles" in told.out
    assert "wrong: titles" in " ".join(told.err.split())


def test_secrets_are_in_nothing_that_is_written_or_said(
    small: Path,
    run_coterie: Run,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COTERIE_DB", "postgresql://ann:s3cr3t@127.0.0.1:1/x")
    configure(small, {**RIGHT, "store": {"url": "${COTERIE_DB}"}})
    for verb in ("validate", "status", "weekly", "daily"):
        assert run_coterie(verb, small, "--date", TODAY) != 0
    assert run_coterie("schedule", small, "--cron") == 0
    told = capfd.readouterr()
    assert "s3cr3t" not in told.out + told.err
    for path in small.rglob("*"):
        assert not path.is_file() or b"s3cr3t" not in path.read_bytes()


def test_cron_lines(tmp_path: Path) -> None:
    folder = tmp_path / "it's 100%"
    times = {"weekly": "Sun 03:30", "daily": "5:00"}
    lines = cron(configure(folder, {"schedule": times})).splitlines()
    assert lines[0] == "CRON_TZ=UTC"
    assert lines[1].startswith("30 3 * * 7 ")
    assert lines[2].startswith("0 5 * * * ")
    assert re.search(r"(?<!\\)%", "".join(lines)) is None
    assert lines[1].endswith("2>&1")
    assert " weekly " in lines[1]


def test_systemd_units(tmp_path: Path) -> None:
    service = configure(tmp_path / "100%", {"name": "films"})
    text = systemd(service)
    names = re.findall(r"# /etc/systemd/system/(\S+)", text)
    assert names == [
        f"coterie-films-{job}.{kind}"
        for job in ("weekly", "daily")
        for kind in ("service", "timer")
    ]
    assert "OnCalendar=Mon *-*-* 03:00:00 UTC" in text
    assert "OnCalendar=*-*-* 05:00:00 UTC" in text
    assert "100%%" in text


@pytest.mark.parametrize("time", ["", "24:00", "5", "05:60", "5:", "-1:00", "05:00:00", "Mon 5:00"])
def test_times_that_are_none(tmp_path: Path, time: str) -> None:
    service = configure(tmp_path, {"schedule": {"daily": time}})
    for text in (cron, systemd):
        with pytest.raises(ConfigError, match="a time must be as in 05:00"):
            text(service)
    for weekly in ("05:00", "Moonday 05:00", "Mon"):
        with pytest.raises(ConfigError):
            cron(configure(tmp_path, {"schedule": {"weekly": weekly}}))


def test_schedule_prints_one_or_the_other(small: Path, run_coterie: Run) -> None:
    configure(small, RIGHT)
    assert run_coterie("schedule", small, "--cron") == 0
    assert run_coterie("schedule", small, "--systemd") == 0
    assert run_coterie("schedule", small) == 2
    assert run_coterie("schedule", small, "--cron", "--systemd") == 2


def test_status_of_a_service_that_does_well_and_of_one_that_does_not(
    eight_weeks: Path, tmp_path: Path, run_coterie: Run
) -> None:
    service = copy_of(Service.load(eight_weeks), tmp_path / "service")
    out = tmp_path / "status.json"
    daily(service, LAST)
    assert run_coterie("status", service.folder, "--date", LAST, "--json", out) == 0
    told = json.loads(out.read_text())
    live = Registry(service.registry).live
    assert live is not None
    assert (told["model"], told["edition"], told["warnings"]) == (live.name, str(LAST), [])
    assert told["trained_until"] == str(LAST - timedelta(weeks=1))
    assert told["daily"]["users"] > 200
    later = LAST + timedelta(days=4)
    assert run_coterie("status", service.folder, "--date", later, "--json", out) == 11
    warned = json.loads(out.read_text())["warnings"]
    assert warned == [
        f"the lists are of {LAST}; run coterie daily.",
        f"the live model knows nothing since {LAST - timedelta(weeks=1)}; run coterie weekly.",
    ]
    assert run_coterie("models", service.folder, "--json", out) == 0
    assert [one["version"] for one in json.loads(out.read_text()) if one["live"]] == [live.name]


def test_status_tells_what_is_missing(small: Path, run_coterie: Run) -> None:
    empty = configure(small, RIGHT)
    assert status(empty, TODAY).warnings == (
        "no model is live; run coterie weekly.",
        "nothing is published; run coterie daily.",
    )
    assert run_coterie("models", small) == 0
    away = configure(small, {**RIGHT, "store": {"url": "postgresql://ann:s3cr3t@127.0.0.1:1/x"}})
    (_, unreachable) = status(away, TODAY).warnings
    assert "the database must answer" in unreachable
    assert "s3cr3t" not in unreachable
    assert run_coterie("status", small, "--date", TODAY) == 11


def test_status_tells_of_a_newer_model_that_failed(eight_weeks: Path, tmp_path: Path) -> None:
    service = copy_of(Service.load(eight_weeks), tmp_path / "service")
    registry = Registry(service.registry)
    live = registry.live
    assert live is not None
    card = {**live.card, "failed": ["volume"], "fingerprint": "other", "created": "2027-01-01"}
    registry.register("2026-W14-bad", live.model, {**card, "passed": False}, passed=False)
    found = status(service, LAST)
    assert found.model == live.name
    assert "2026-W14-bad did not become live, it failed: volume." in found.warnings
