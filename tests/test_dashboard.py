"""What holds of the dashboard as a whole: its gate, its errors, its JSON, what a page can do."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser
from starlette.testclient import TestClient

from browser import Visit, look, needs_browser
from coterie.dashboard import create_dashboard
from coterie.dashboard.charts import ticks
from coterie.dashboard.pages.runs_of_jobs import _Look
from coterie.dashboard.pages.today import _todo
from coterie.dashboard.sources import Sources
from coterie.errors import ConfigError, DataError
from coterie.jobs.attempts import attempted
from coterie.jobs.config import Service
from coterie.jobs.schedule import due
from coterie.jobs.watching import warnings
from coterie.registry import Registry
from dashboard_parts import visitor
from small_service import LAST, configure, copy_of, store_of

KEY = "a key of sufficient length"


@pytest.fixture
def locked(eight_weeks: Path) -> Iterator[TestClient]:
    """A dashboard that asks for a key."""
    with visitor(eight_weeks, api_key=KEY, today=LAST) as client:
        yield client


@needs_browser
def test_today_is_looked_at(browser: Browser, dashboard: str) -> None:
    look(browser, dashboard, "/")


@needs_browser
def test_a_table_is_copied_as_csv_and_the_theme_is_kept(browser: Browser, dashboard: str) -> None:
    visit = Visit(browser, dashboard)
    page = visit.open("/")
    page.get_by_role("button", name="Copy as CSV").last.click()
    page.wait_for_function("document.body.innerText.includes('Copied')")
    copied = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert copied[0] == "day,job,state,what is to be said,took,model,users"
    assert len(copied) == 1 + page.locator("#amiss tbody tr").count() > 1
    page.evaluate(
        """values => document.querySelectorAll("#amiss tr:nth-child(1) td").forEach(
            (cell, at) => { cell.dataset.value = values[at] ?? "" })""",
        ["=HYPERLINK(1)", "-0.5", "-no", 'a "b", c', "@x"],
    )
    page.locator("[data-copy=amiss]").click()
    page.wait_for_function("navigator.clipboard.readText().then(text => text.includes('HYPER'))")
    copied = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert copied[1] == """'=HYPERLINK(1),-0.5,'-no,"a ""b"", c",'@x,,"""
    page.get_by_role("button", name="Dark or light").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert not visit.faults
    visit.close()


def test_without_a_key_only_this_machine_is_answered(dashboard: str) -> None:
    assert httpx.get(dashboard).status_code == 200
    for host in ("evil.example", "127.evil.example", "localhost.evil.example", "[::1", ""):
        assert httpx.get(dashboard, headers={"host": host}).status_code == 421


def test_the_key_is_asked_for_and_opens(locked: TestClient) -> None:
    asked = locked.get("/?a=b", follow_redirects=False)
    assert asked.status_code == 303
    form = asked.headers["location"]
    assert "/login" in form
    assert locked.post(form, data={"key": "wrong"}).status_code == 401
    entered = locked.post(form, data={"key": KEY}, follow_redirects=False)
    assert entered.headers["location"] == "/?a=b"
    assert locked.get("/").status_code == 200


def test_json_takes_the_key_as_a_header(locked: TestClient) -> None:
    assert locked.get("/today.json").status_code == 401
    assert locked.get("/today.json", headers={"x-api-key": KEY}).json()["title"] == "Today"


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_the_form_leads_to_no_other_place(locked: TestClient, to: str) -> None:
    sent = locked.post("/login", params={"to": to}, data={"key": KEY}, follow_redirects=False)
    assert sent.headers["location"] == "/"


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 16"):
        create_dashboard(tmp_path, api_key="short")


def test_what_is_not_there_is_a_page(dashboard: str) -> None:
    answer = httpx.get(f"{dashboard}/nothing")
    assert answer.status_code == 404
    assert "There is no such page" in answer.text
    assert httpx.get(f"{dashboard}/static/nothing.js").status_code == 404
    assert httpx.get(f"{dashboard}/static/..%2fapp.py").status_code == 404


def test_the_json_of_today_says_what_the_page_says(dashboard: str) -> None:
    told = httpx.get(f"{dashboard}/today.json").json()
    assert told["status"]["model"] in httpx.get(dashboard).text
    users = [row["users"] for row in told["figures"]["users"]["rows"]]
    assert len(users) == 28
    assert sum(value is not None for value in users) == 3  # the last of eight, a week apart
    assert json.dumps(told)


def test_what_ran_and_what_did_not_is_told(dashboard: str, eight_weeks: Path) -> None:
    """The eight weeks ran both jobs on Mondays alone, until a week ago."""
    rows = httpx.get(f"{dashboard}/today.json").json()["jobs"]["rows"]
    days = {(row["day"], row["job"]): row for row in rows}
    mondays = [LAST - timedelta(weeks=n) for n in range(4)]
    assert len(days) == len(rows) == 28 + 4
    for monday in mondays[1:]:
        assert days[str(monday), "weekly"]["state"] == "ran"
        assert days[str(monday), "daily"]["state"] in ("ran", "warned")
        assert days[str(monday + timedelta(days=1)), "daily"]["state"] == "missing"
    assert {days[str(LAST), job]["state"] for job in ("weekly", "daily")} == {"missing"}
    versions = {one.name: one.card for one in Registry(eight_weeks / "registry").versions}
    newest = days[str(mondays[1]), "weekly"]
    assert newest["took"] == versions[newest["model"]]["seconds"]["all"]
    todo = httpx.get(f"{dashboard}/today.json").json()["todo"]
    assert f"weekly of {LAST} has left no trace." in [one["warning"] for one in todo]
    notes = _notes(eight_weeks)
    assert days[str(mondays[1]), "daily"]["users"] == notes[str(mondays[1])]["users"]


def test_days_in_a_row_are_told_at_once(dashboard: str) -> None:
    rows = httpx.get(f"{dashboard}/today.json").json()["amiss"]["rows"]
    between = [row["day"] for row in rows if row["job"] == "daily"]
    assert between[:2] == [
        f"{LAST - timedelta(days=6)} to {LAST}",
        f"{LAST - timedelta(days=13)} to {LAST - timedelta(days=8)}",
    ]


def _notes(folder: Path) -> dict[str, Any]:
    with store_of(Service.load(folder)) as store:
        return {note.name: note.values["figures"] for note in store.notes("daily")}


@pytest.fixture
def ailing(eight_weeks: Path, tmp_path: Path) -> Service:
    """A service whose jobs are to go wrong."""
    return copy_of(Service.load(eight_weeks), tmp_path / "service")


def test_a_job_that_failed_says_why_and_what_to_do(ailing: Service) -> None:
    with pytest.raises(DataError), attempted(ailing, "daily", LAST):
        raise DataError("there must be events, found none.")
    with visitor(ailing.folder, today=LAST) as client:
        page = client.get("/today.json").json()
        (row,) = [one for one in page["amiss"]["rows"] if one["state"] == "failed"]
        assert (row["day"], row["job"]) == (str(LAST), "daily")
        assert row["what is to be said"] == "there must be events, found none."
        (todo,) = [one for one in page["todo"] if one["warning"].startswith("daily of")]
        assert todo["command"] == f"coterie daily {ailing.folder}"
        assert "found none." in client.get("/").text
        with attempted(ailing, "daily", LAST):
            pass
        page = client.get("/today.json").json()
        assert not [one for one in page["todo"] if one["warning"].startswith("daily of")]


def test_a_run_that_failed_after_one_that_did_not_is_told(ailing: Service) -> None:
    day = LAST - timedelta(weeks=1)
    with pytest.raises(DataError), attempted(ailing, "daily", day):
        raise DataError("no room.")
    with visitor(ailing.folder, today=LAST) as client:
        rows = client.get("/today.json").json()["jobs"]["rows"]
    (row,) = [one for one in rows if (one["day"], one["job"]) == (str(day), "daily")]
    assert row["state"] == "failed"
    assert row["what is to be said"] == "no room. What an earlier run left is there."


def test_a_run_that_was_killed_is_told(ailing: Service) -> None:
    path = ailing.work / "attempts" / "weekly" / f"{LAST}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    attempt = {"began": "2026-03-30T03:00:00.000+00:00", "ended": None, "error": None}
    path.write_text(json.dumps({"schema": "coterie.attempt/1", **attempt}))
    with visitor(ailing.folder, today=LAST) as client:
        rows = client.get("/today.json").json()["jobs"]["rows"]
    (row,) = [one for one in rows if (one["day"], one["job"]) == (str(LAST), "weekly")]
    assert row["state"] == "at work"
    assert "2026-03-30 03:00 UTC" in row["what is to be said"]


def test_every_warning_has_a_command(ailing: Service) -> None:
    config = ailing.config.watch
    beyond = {"fallback_share": 1.0, "unknown_items": 1.0, "model_age_days": 99, "overlap": 0.0}
    sources = Sources.of(ailing.folder, LAST)
    for warning in warnings(config, {**beyond, "events_over_usual": 9.0}):
        assert _todo(sources, warning)["command"].startswith(("coterie weekly", "coterie daily",
                                                              "coterie rollback"))  # fmt: skip


def test_a_run_is_not_missing_before_it_is_due(tmp_path: Path) -> None:
    service = configure(tmp_path / "service", {})
    when = due(service, "daily", LAST)
    assert (when.date(), when.hour) == (LAST, 5)
    assert due(service, "weekly", LAST + timedelta(days=4)).date() == LAST
    for hour, state in ((4, "not due yet"), (6, "missing")):
        look_at = _Look(service, LAST, when.replace(hour=hour))
        begun = LAST - timedelta(days=1)
        assert [one.state for one in look_at.of("daily", {}, begun=begun)] == ["missing", state]


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 8))
def test_ticks_span_what_is_drawn_and_are_few(low: float, span: float, most: int) -> None:
    high = low + span
    marks = ticks(low, high, most)
    assert marks == sorted(set(marks)) or len(set(marks)) < len(marks) < 3
    assert len(marks) <= most + 2
    slack = 1e-9 * max(abs(low), abs(high), 1)
    assert marks[0] <= low + slack + (marks[-1] - marks[0]) * 1e-9
    assert marks[-1] >= high - slack - (marks[-1] - marks[0]) * 1e-9
