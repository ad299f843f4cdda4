"""The pages on models: what they say is what registry and cards say."""

import json
import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser
from starlette.testclient import TestClient

from browser import Visit, look, needs_browser
from coterie.dashboard.pages.lineage import said
from coterie.dashboard.pages.version import WHAT_TO_DO
from coterie.dashboard.pages.versions import paired, partners
from coterie.jobs.config import Service
from coterie.jobs.setup import begin
from coterie.registry import Registry, Version
from dashboard_parts import visitor
from small_service import LAST, configure, copy_of

HOSTILE = '<script>alert("a")</script>'


@pytest.fixture(scope="module")
def registry(eight_weeks: Path) -> Registry:
    """Of the eight weeks; not to be changed."""
    return Registry(eight_weeks / "registry")


@pytest.fixture(scope="module")
def storied(eight_weeks: Path, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A ninth version that failed a gate, was forced all the same, and was gone back from; and a
    version whose card is older than cohorts.
    """
    folder = tmp_path_factory.mktemp("storied") / "service"
    service = copy_of(Service.load(eight_weeks), folder)
    registry = Registry(service.registry)
    live = registry.live
    assert live is not None
    gates = [{**gate, "passed": gate["name"] != "volume"} for gate in live.card["gates"]]
    week = date.fromisoformat(live.card["week"]) + timedelta(weeks=1)
    card = {**live.card, "failed": ["volume"], "gates": gates, "parent": live.name}
    card |= {"passed": False, "against": {"live": live.card["against"]["live"]}}
    card |= {"fingerprint": "bad", "week": str(week), "created": "2026-12-31T00:00:00+00:00"}
    registry.register("2026-W13-bad", live.model, card, passed=False)
    registry.promote("2026-W13-bad", by="ann", force=True, because=HOSTILE)
    registry.rollback(by="bob", because="it was worse")
    aged(registry.versions[2])
    return service


def aged(version: Version) -> None:
    """As version 0.1 would have written its card."""
    card = json.loads((version.folder / "card.json").read_text())
    for other in card["against"].values():
        del other["cohorts"]
    for name in ("users", "items"):
        del card[name]
    (version.folder / "card.json").write_text(json.dumps(card))


@pytest.fixture(scope="module")
def story(storied: Service) -> Iterator[TestClient]:
    with visitor(storied.folder, today=LAST) as client:
        yield client


def told(client: TestClient, path: str, **query: str) -> Any:
    answer = client.get(f"{path}.json", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def text_of(client: TestClient, path: str, **query: str) -> str:
    return " ".join(client.get(path, params=query).text.split())


@needs_browser
def test_models_are_looked_at(browser: Browser, dashboard: str, registry: Registry) -> None:
    look(browser, dashboard, "/models")
    look(browser, dashboard, f"/models?version={registry.moves[-1].to}")


@needs_browser
def test_two_versions_are_looked_at(browser: Browser, dashboard: str, registry: Registry) -> None:
    a, b = (move.to for move in registry.moves[-1:-3:-1])
    look(browser, dashboard, f"/models/compare?a={a}&b={b}")


@needs_browser
def test_from_the_list_to_a_comparison_by_the_form(
    browser: Browser, dashboard: str, registry: Registry
) -> None:
    """Live and the one before it are chosen already."""
    visit = Visit(browser, dashboard)
    page = visit.open("/models")
    page.get_by_role("button", name="Compare").click()
    page.wait_for_load_state("networkidle")
    live, before = (move.to for move in registry.moves[-1:-3:-1])
    assert page.locator("h1").inner_text() == f"{live} over {before}"
    page.get_by_role("link", name="Swap them").click()
    page.wait_for_load_state("networkidle")
    assert page.locator("h1").inner_text() == f"{before} over {live}"
    assert not visit.faults
    visit.close()


def test_the_list_has_every_version_and_says_which_is_live(
    dashboard: str, registry: Registry
) -> None:
    page = httpx.get(f"{dashboard}/models.json").json()
    rows = {row["version"]: row for row in page["versions"]["rows"]}
    assert list(rows) == [one.name for one in registry.versions[::-1]]
    live = registry.live
    assert live is not None
    assert [name for name, row in rows.items() if row["state"] == "live"] == [live.name]
    assert rows[live.name]["own test"] == live.card["test"]["ndcg@20"]
    assert [row["version"] for row in page["moves"]["rows"]] == [
        move.to for move in registry.moves[::-1]
    ]
    held = [row["held against"] for row in page["lineage"]["rows"]]
    assert held == [one.card["parent"] for one in registry.versions]


def test_a_version_says_what_its_card_says(dashboard: str, registry: Registry) -> None:
    one = registry.live
    assert one is not None
    page = httpx.get(f"{dashboard}/models.json", params={"version": one.name}).json()
    rows = {row["held against"]: row for row in page["against"]["rows"]}
    for name, row in (("ease", rows["EASE"]), ("popularity", rows["popularity"])):
        found = one.card["against"][name]
        assert row["gain"] == pytest.approx(found["candidate"] / found["other"] - 1)
        assert row["from"] == pytest.approx(found["low"] / found["other"])
        assert row["which is"] == said(found["low"], found["high"])
    assert {row["gate"] for row in page["gates"]["rows"]} == {
        gate["name"] for gate in one.card["gates"]
    }
    assert page["cohorts"][0]["title"].startswith("Over live then")
    cohorts = [row["titles of a user"] for row in page["cohorts"][0]["rows"]]
    assert cohorts == [one for one in ("1-4", "5-10", "11-50", "51-100", "101+") if one in cohorts]
    data = {row["field"]: row["value"] for row in page["data"]["rows"]}
    assert int(data["users"]) == one.card["users"] > 100


def test_cards_have_cohorts_that_add_up(registry: Registry) -> None:
    """The whole is the mean of its parts, weighed by their users."""
    for found in registry.versions[-1].card["against"].values():
        parts = found["cohorts"].values()
        assert sum(part["users"] for part in parts) == found["users"]
        weighed = sum(part["users"] * part["difference"] for part in parts)
        assert weighed / found["users"] == pytest.approx(found["difference"])


def test_an_older_card_is_shown_without_its_cohorts(story: TestClient, storied: Service) -> None:
    old = Registry(storied.registry).versions[2]
    page = told(story, "/models", version=old.name)
    assert page["cohorts"] == []
    data = {row["field"]: row["value"] for row in page["data"]["rows"]}
    assert data["users"] is None
    assert int(data["items"]) > 50  # of the model's files
    assert "before groups of users were kept" in text_of(story, "/models", version=old.name)


def test_a_failed_version_says_what_to_do(story: TestClient) -> None:
    text = text_of(story, "/models", version="2026-W13-bad")
    assert "It failed: volume" in text
    assert WHAT_TO_DO["volume"] in text
    assert "promote" in text
    rows = told(story, "/models", version="2026-W13-bad")["gates"]["rows"]
    assert (rows[0]["gate"], rows[0]["verdict"]) == ("volume", "failed")


def test_a_version_says_how_to_go_back_or_to_make_it_live(story: TestClient) -> None:
    names = {row["version"]: row["state"] for row in told(story, "/models")["versions"]["rows"]}
    for name, state in names.items():
        page, text = told(story, "/models", version=name), text_of(story, "/models", version=name)
        assert ("coterie rollback" in text) == (state == "live" and bool(page["before"]))
        well = state in ("passed", "was live") and not page["failed"] and not page["arm"]
        assert (f"{name} --because" in text) == well
    assert {"live", "was live"} <= set(names.values())


def test_every_gate_has_something_to_do(registry: Registry) -> None:
    assert {gate["name"] for one in registry.versions for gate in one.card["gates"]} == set(
        WHAT_TO_DO
    )


def test_a_forced_promotion_and_a_rollback_are_told_with_their_reasons(story: TestClient) -> None:
    back, forced = told(story, "/models")["moves"]["rows"][:2]
    assert (forced["what"], forced["by"], forced["because"]) == (
        "promoted by force", "ann", HOSTILE,
    )  # fmt: skip
    assert (back["what"], back["by"], back["because"]) == ("rolled back to", "bob", "it was worse")
    text = text_of(story, "/models")
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    states = {row["version"]: row["state"] for row in told(story, "/models")["versions"]["rows"]}
    assert states["2026-W13-bad"] == "was live"


def test_a_pair_that_a_card_holds_is_paired_from_either_side(registry: Registry) -> None:
    b = registry.versions[-1]
    a = registry.version(b.card["parent"])
    one, other = paired(b, a), paired(a, b)
    assert one is not None
    assert other is not None
    assert one["difference"] == b.card["against"]["live"]["difference"] == -other["difference"]
    assert (one["low"], one["high"]) == (-other["high"], -other["low"])
    assert (one["candidate"], one["other"]) == (other["other"], other["candidate"])
    assert one["measured"] == other["measured"] == b.name
    for name, part in one["cohorts"].items():
        assert part["difference"] == -other["cohorts"][name]["difference"]


def test_a_pair_is_found_among_the_last_eight_too(registry: Registry) -> None:
    newest = registry.versions[-1]
    for name in partners(newest)[1:]:
        found = paired(newest, registry.version(name))
        assert found is not None
        assert found["difference"] == newest.card["against"][name]["difference"]
    assert partners(newest)[0] == newest.card["parent"]
    assert len(partners(newest)) > 3


def test_a_pair_that_was_never_measured_says_so(story: TestClient, storied: Service) -> None:
    versions = Registry(storied.registry).versions
    query = {"a": versions[-1].name, "b": versions[0].name}
    page = told(story, "/models/compare", **query)
    assert page["paired"] is None
    assert page["overall"] is None
    assert page["partners"]["2026-W13-bad"] == [versions[-2].name]
    assert "never measured on the same users" in text_of(story, "/models/compare", **query)


def test_only_what_differs_is_told(dashboard: str, registry: Registry) -> None:
    b, a = registry.versions[-1], registry.versions[-2]
    page = httpx.get(f"{dashboard}/models/compare.json", params={"a": a.name, "b": b.name}).json()
    for table in ("configuration", "data"):
        for row in page[table]["rows"]:
            assert row[a.name] != row[b.name]
    assert "model.name" not in {row["field"] for row in page["configuration"]["rows"]}
    assert {"week", "last day", "events"} <= {row["field"] for row in page["data"]["rows"]}


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        ("/models?version=2026-W99-none", 404, "was not found"),
        ("/models?version=..%2F..%2Fetc", 422, "a version&#39;s name must be"),
        ("/models?version=%3Cscript%3Ealert(1)%3C/script%3E", 422, "&lt;script&gt;"),
        ("/models/compare", 422, "two different versions"),
        ("/models/compare?a=x&b=x", 422, "two different versions"),
        ("/models/compare?a=x&b=y", 404, "was not found"),
    ],
)
def test_what_cannot_be_shown_is_a_page(
    story: TestClient, path: str, status: int, word: str
) -> None:
    answer = story.get(path)
    assert answer.status_code == status
    assert word in " ".join(answer.text.split())
    assert "<script>alert" not in answer.text


def test_a_damaged_card_is_a_page_that_says_which(storied: Service, tmp_path: Path) -> None:
    service = copy_of(storied, tmp_path / "service")
    card = Registry(service.registry).versions[0].folder / "card.json"
    card.write_text("{")
    with visitor(service.folder, today=LAST) as client:
        for path in ("/models", "/"):
            answer = client.get(path)
            assert answer.status_code == 500
            assert str(card) in answer.text
            assert "restore it from a copy" in answer.text


def test_a_new_service_teaches(tmp_path: Path) -> None:
    service = begin(tmp_path / "service", date(2026, 11, 28))
    with visitor(service.folder, today=date(2026, 11, 28)) as client:
        assert "There is no model yet" in text_of(client, "/models")
        first = text_of(client, "/")
        assert "This service has not run yet" in first
        for verb in ("validate", "weekly", "daily", "schedule"):
            assert f"coterie {verb} {service.folder}" in first
        assert "coterie train" in text_of(client, "/runs")


def test_without_its_store_the_models_are_there(storied: Service, tmp_path: Path) -> None:
    """And today says that it is away, not that nothing ran."""
    folder = tmp_path / "service"
    shutil.copytree(storied.folder, folder, ignore=shutil.ignore_patterns("events", "days"))
    configure(folder, {}, store={"url": "postgresql://127.0.0.1:1/none?connect_timeout=1"})
    with visitor(folder, today=LAST) as client:
        assert len(told(client, "/models")["versions"]["rows"]) == 9
        page = told(client, "/today")
        states = {row["state"] for row in page["jobs"]["rows"] if row["job"] == "daily"}
        assert states == {"ran", "unknown"}  # what an attempt says, and what only the store knows
        assert any("coterie validate" in one["command"] for one in page["todo"])
