"""The dashboard's page of a title, against counting all lists and events."""

import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, expect
from starlette.testclient import TestClient

from browser import Visit, look, needs_browser
from coterie.dashboard.exposure import SOME, Exposure, count
from coterie.jobs.config import Service
from coterie.registry import Registry
from coterie.store import Store, open_store
from coterie.training.trained_model import TrainedModel
from dashboard_parts import events_of, odd_service, publish, told, visitor
from small_service import LAST, configure, store_of
from store_contract import catalogue, lists

EDITION = LAST - timedelta(weeks=1)


@pytest.fixture(scope="module")
def client(eight_weeks: Path) -> Iterator[TestClient]:
    """Of the service that has lived for eight weeks."""
    with visitor(eight_weeks, today=LAST) as found:
        yield found


@needs_browser
@pytest.mark.parametrize("path", ["/titles", "/titles?id=5"])
def test_pages_are_looked_at(browser: Browser, dashboard: str, path: str) -> None:
    look(browser, dashboard, path)


def test_exposure_is_what_counting_all_lists_says(client: TestClient, eight_weeks: Path) -> None:
    with store_of(Service.load(eight_weeks)) as store:
        for row in ("main", "movies"):
            for edition in store.editions()[:3]:
                found = (store.find(user, row, edition=edition.name) for user in range(1, 561))
                counts = Counter(item for one in found if one is not None for item in one.item_ids)
                for item in (5, 20, 77, 140):
                    rows = told(client, "/titles", id=item)["exposed"]["rows"]
                    (day,) = (one for one in rows if one["edition"] == edition.name)
                    assert day[row] == counts[item]


def test_who_gets_a_title_gets_it(client: TestClient, eight_weeks: Path) -> None:
    with store_of(Service.load(eight_weeks)) as store:
        for item in (5, 20, 77):
            for one in told(client, "/titles", id=item)["lists"]:
                assert len(one["users"]) == min(one["lists"], SOME)
                for user in one["users"]:
                    found = store.find(user, one["row"])
                    assert found is not None
                    assert item in found.item_ids


def test_popularity_is_what_the_events_say(client: TestClient, eight_weeks: Path) -> None:
    days = [EDITION - timedelta(days=n) for n in range(1, 40)]
    for item in (5, 77):
        page = told(client, "/titles", id=item)
        watched = {row["day"]: row["times watched"] for row in page["watched"]["rows"]}
        expected = {
            str(day): sum(
                one["item_id"] == item
                for one in events_of(eight_weeks, day + timedelta(days=1), timedelta(days=1))
            )
            for day in days
        }
        assert {day: watched[day] for day in expected} == expected
        assert page["week"] == sum(expected[str(day)] for day in days[:7])


def test_similar_titles_are_the_models(client: TestClient, eight_weeks: Path) -> None:
    version = Registry(eight_weeks / "registry").live
    assert version is not None
    model = TrainedModel.load(version.model)
    item = model.items.ids_of([3])[0]
    rows = told(client, "/titles", id=item)["similar"]["rows"]
    best = model.similar_items(item, 10)
    assert [(row["id"], row["alike"]) for row in rows] == [
        (str(one.item_id), one.cosine) for one in best
    ]


def test_a_title_tells_its_name_kind_and_window(client: TestClient, eight_weeks: Path) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415

    for one in pq.read_table(eight_weeks / "titles.parquet").to_pylist()[::25]:
        page = told(client, "/titles", id=one["item_id"])
        assert (page["title"]["title"], page["title"]["kind"]) == (one["title"], one["kind"])
        window = [one["available_from"], one["available_until"]]
        assert page["window"] == [None if day is None else str(day) for day in window]
        is_open = (window[0] is None or window[0] <= LAST) and (
            window[1] is None or window[1] > LAST
        )
        assert page["available"].startswith("yes") == is_open


def test_an_unknown_title_is_a_page_that_searches(client: TestClient) -> None:
    answer = client.get("/titles", params={"id": "none"})
    assert answer.status_code == 404
    assert "No title has the id" in answer.text
    assert told(client, "/titles", id="none")["hits"]


def test_search_finds_titles(client: TestClient) -> None:
    hits = told(client, "/titles", q="THE")["hits"]
    assert hits
    assert all("the" in one["title"].lower() for one in hits)
    assert told(client, "/titles", q="no such title")["hits"] == []


@needs_browser
def test_titles_are_found_as_one_types(browser: Browser, dashboard: str) -> None:
    visit = Visit(browser, dashboard)
    page = visit.open("/titles")
    page.locator("#q").press_sequentially("the")
    expect(page).to_have_url(re.compile(r"\?q=the$"))
    page.keyboard.press("ArrowDown")
    name = page.locator("#hit-1 bdi").inner_text()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"\?id="))
    assert page.locator("h1").inner_text() == name
    assert not visit.faults
    visit.close()


def test_a_service_without_anything_teaches(tmp_path: Path) -> None:
    configure(tmp_path / "new", {})
    with visitor(tmp_path / "new", today=LAST) as new:
        assert "There are no titles yet" in new.get("/titles").text
        assert new.get("/titles?id=1").status_code == 404


def test_without_a_live_model_the_rest_is_there(tmp_path: Path) -> None:
    odd_service(tmp_path / "odd", LAST, {"a": "A", "b": "B"})
    with visitor(tmp_path / "odd", today=LAST) as other:
        page = told(other, "/titles", id="b")
        assert page["similar"] is None
        assert "coterie weekly" in page["no_similar"]
        assert page["lists"] == [{"row": "main", "lists": 2, "share": 1.0, "users": ["a", "b"]}]
        assert page["week"] == 2


def test_counts_follow_what_is_published(tmp_path: Path) -> None:
    service = odd_service(tmp_path / "odd", LAST, {"a": "A", "b": "B"})
    with visitor(tmp_path / "odd", today=LAST) as other:
        assert told(other, "/titles", id="a")["lists"][0]["lists"] == 2
        publish(service, LAST, {"a": "A", "b": "B", "c": "C"})
        assert told(other, "/titles", id="a")["lists"][0]["lists"] == 3
        publish(service, LAST + timedelta(days=1), {"a": "A"})
        page = told(other, "/titles", id="a")
        assert [row["main"] for row in page["exposed"]["rows"]] == [3, 1]
        with store_of(service) as store:
            store.point(str(LAST))
        assert len(told(other, "/titles", id="a")["lists"][0]["users"]) == 3
        with store_of(service) as store:
            store.prune(0)
        assert len(told(other, "/titles", id="a")["exposed"]["rows"]) == 1


def test_counts_are_those_of_any_lists(store: Store) -> None:
    """Several pages of users, some of whom get nothing; both back ends."""
    rng = np.random.default_rng(1)
    rows: list[dict[str, Any]] = [
        {"user_id": user, "items": rng.permutation(50)[: user % 4], "scores": [0.0] * (user % 4)}
        for user in range(9000)
    ]
    store.publish("1", catalogue(), [lists(rows)], {})
    counted = count(store, "1", "main", some=5)
    holders: dict[int, list[int]] = {item: [] for item in range(50)}
    for row in rows:
        for item in row["items"]:
            holders[int(item)].append(row["user_id"])
    for item, users in holders.items():
        assert counted.of(str(item)) == (len(users), users[:5])
    assert counted.n_lists == 9000
    for nobody in ("50", "007", "-0", "x", "", "9" * 30, "٤"):
        assert counted.of(nobody) == (0, [])


def test_a_damaged_edition_is_left_out(tmp_path: Path) -> None:
    service = odd_service(tmp_path / "odd", LAST, {"a": "A"})
    publish(service, LAST - timedelta(days=1), {"a": "A"})
    for path in (tmp_path / "odd" / "store" / "editions").glob(f"{LAST - timedelta(days=1)}-*"):
        path.write_bytes(b"not SQLite")
    with open_store(service.place(service.config.store.url)) as opened:
        exposure = Exposure(lambda: opened)
        exposure.look()
        exposure.wait()
        counts, left = exposure.look()
    assert left == 0
    assert counts[str(LAST - timedelta(days=1))] == {}
    assert counts[str(LAST)]["main"].of("a")[0] == 1
