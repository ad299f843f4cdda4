"""What holds of the dashboard as a whole: its gate, its errors, its JSON, what a page can do."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser
from starlette.testclient import TestClient

from browser import Visit, look, needs_browser
from coterie.dashboard import create_dashboard
from coterie.dashboard.charts import ticks
from coterie.errors import ConfigError
from small_service import LAST

KEY = "a key of sufficient length"


@pytest.fixture
def locked(eight_weeks: Path) -> Iterator[TestClient]:
    """A dashboard that asks for a key."""
    with TestClient(create_dashboard(eight_weeks, api_key=KEY, today=LAST)) as client:
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
    assert copied[0] == "day,model,users,took,warnings"
    assert len(copied) == 1 + page.locator("#daily tbody tr").count()
    page.get_by_role("button", name="Dark or light").click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert not visit.faults
    visit.close()


def test_without_a_key_only_this_machine_is_answered(dashboard: str) -> None:
    assert httpx.get(dashboard).status_code == 200
    assert httpx.get(dashboard, headers={"host": "evil.example"}).status_code == 421


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
    assert len(told["days"]["rows"]) == 8
    assert json.dumps(told)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 8))
def test_ticks_span_what_is_drawn_and_are_few(low: float, span: float, most: int) -> None:
    high = low + span
    marks = ticks(low, high, most)
    assert marks == sorted(set(marks)) or len(set(marks)) < len(marks) < 3
    assert len(marks) <= most + 2
    slack = 1e-9 * max(abs(low), abs(high), 1)
    assert marks[0] <= low + slack + (marks[-1] - marks[0]) * 1e-9
    assert marks[-1] >= high - slack - (marks[-1] - marks[0]) * 1e-9
