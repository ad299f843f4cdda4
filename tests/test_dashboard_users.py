"""The dashboard's pages of a user and of trying, against brute force and in a real browser."""

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import count, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, expect
from scipy.sparse import csr_array
from starlette.testclient import TestClient

from browser import PHONE, Visit, look, needs_browser, shown
from coterie.dashboard.aside import Aside
from coterie.dashboard.crowd import Crowd
from coterie.dashboard.search import Catalogue, Title, fold
from coterie.data.ids import IdMap
from coterie.errors import DataError
from coterie.experiment import Allocation
from coterie.jobs.config import Service
from coterie.jobs.daily import daily
from coterie.registry import Registry
from coterie.training.trained_model import TrainedModel
from dashboard_parts import HOSTILE, events_of, histories_of, odd_service, told, visitor
from small_service import LAST, LIVING, TINY, configure, copy_of, store_of

EDITION = LAST - timedelta(weeks=1)
"""The live one."""


@pytest.fixture(scope="module")
def client(eight_weeks: Path) -> Iterator[TestClient]:
    """Of the service that has lived for eight weeks."""
    with visitor(eight_weeks, today=LAST) as found:
        yield found


@pytest.fixture(scope="module")
def known(eight_weeks: Path) -> dict[int, dict[int, int]]:
    """What the live lists know, from the events themselves."""
    return histories_of(events_of(eight_weeks, EDITION))


@pytest.fixture(scope="module")
def live(eight_weeks: Path) -> TrainedModel:
    """The live model."""
    version = Registry(eight_weeks / "registry").live
    assert version is not None
    return TrainedModel.load(version.model)


@pytest.fixture(scope="module")
def busy(known: dict[int, dict[int, int]]) -> int:
    """A user with much to show."""
    return max(known, key=lambda user: len(known[user]))


@needs_browser
@pytest.mark.parametrize("path", ["/users", "/users?id=7", "/users?id=nobody", "/try?pick=3&q=a"])
def test_pages_are_looked_at(
    browser: Browser, dashboard: str, client: TestClient, path: str
) -> None:
    look(browser, dashboard, path)


@pytest.mark.parametrize("weeks", [1, 3])
def test_the_history_is_what_the_events_say(
    client: TestClient, eight_weeks: Path, weeks: int
) -> None:
    """Of the live lists it comes from memory, of older ones from the days' files."""
    day = LAST - timedelta(weeks=weeks)
    histories = histories_of(events_of(eight_weeks, day))
    for user in sorted(histories)[::40]:
        page = told(client, "/users", id=user, edition=day)
        expected = sorted(histories[user].items(), key=lambda one: (-one[1], one[0]))
        assert page["n_history"] == len(expected)
        rows = [
            (row["id"], row["watched last"])
            for row in page["history"]["rows"]
            if row.get("for the list") != "too late"
        ]
        assert len(page["history"]["rows"]) - len(rows) == page["n_since"]
        assert rows == [
            (str(item), f"{datetime.fromtimestamp(last, UTC):%Y-%m-%d %H:%M}")
            for item, last in expected[:100]
        ]


def test_what_came_after_the_lists_is_told_apart(eight_weeks: Path, tmp_path: Path) -> None:
    service = copy_of(Service.load(eight_weeks), tmp_path / "copy")
    later = service.work / "days" / f"{EDITION}.parquet"
    shutil.copy(next((service.work / "days").glob("*.parquet")), later)
    user = pq.read_table(later)["user_id"][0].as_py()
    with visitor(service.folder, today=LAST) as other:
        page = told(other, "/users", id=user)
    assert page["n_since"] > 0
    assert page["knows_until"] == str(EDITION)


@pytest.mark.parametrize("row", ["main", "movies"])
def test_the_list_is_the_published_one(client: TestClient, eight_weeks: Path, row: str) -> None:
    with store_of(Service.load(eight_weeks)) as store:
        for edition in store.editions()[:2]:
            found_of = ((user, store.find(user, row, edition=edition.name)) for user in count(1))
            own = ((user, found) for user, found in found_of if found is not None)
            for user, found in islice(own, 0, 30, 10):
                page = told(client, "/users", id=user, row=row, edition=edition.name)
                assert page["list"]["source"] == found.source
                assert page["list"]["version"] == found.facts["version"]
                listed = [(one["item_id"], one["title"], one["score"]) for one in page["items"]]
                ids = map(str, found.item_ids)
                assert listed == list(zip(ids, found.titles, found.scores, strict=True))


def test_a_version_gives_what_the_model_recommends(
    client: TestClient, known: dict[int, dict[int, int]], eight_weeks: Path, busy: int
) -> None:
    titles = LIVING.titles(LAST).to_pylist()
    shown_on = {
        one["item_id"]
        for one in titles
        if (one["available_from"] is None or one["available_from"] <= EDITION)
        and (one["available_until"] is None or one["available_until"] > EDITION)
    }
    for version in Registry(eight_weeks / "registry").versions[-2:]:
        model = TrainedModel.load(version.model)
        page = told(client, "/users", id=busy, model=version.name)
        allow = sorted(shown_on & set(model.items.ids_of(range(model.n_items))))
        best = model.recommend({busy: list(known[busy])}, k=20, allow=allow).for_user(busy)
        assert [one["item_id"] for one in page["items"]] == [str(one.item_id) for one in best]
        given_scores = [one["score"] for one in page["items"]]
        assert given_scores == pytest.approx([one.score for one in best])


def test_the_live_version_gives_the_published_list(client: TestClient, busy: int) -> None:
    page = told(client, "/users", id=busy)
    again = told(client, "/users", id=busy, model=page["list"]["version"])
    assert [one["item_id"] for one in again["items"]] == [one["item_id"] for one in page["items"]]
    assert not any(one["new"] for one in again["items"])


def test_reasons_are_what_leaving_out_says(
    client: TestClient, live: TrainedModel, known: dict[int, dict[int, int]], busy: int
) -> None:
    history = [item for item in known[busy] if live.items.index_of([item])[0] >= 0]
    codes = live.items.index_of(history)
    page = told(client, "/users", id=busy)
    item = page["items"][0]["item_id"]
    place = int(live.items.index_of([item])[0])
    whole = _score(live, codes, place)
    raised = {
        str(one): whole - _score(live, np.delete(codes, at), place)
        for at, one in enumerate(history)
    }
    rows = told(client, "/users", id=busy, why=item)["why"]["rows"]
    assert {row["id"]: row["raised the score by"] for row in rows} == pytest.approx(
        raised, abs=1e-4
    )
    order = [row["raised the score by"] for row in rows]
    assert order == sorted(order, reverse=True)
    assert [row["does"] for row in rows] == ["raises" if one > 0 else "lowers" for one in order]
    named = [one["item_id"] for one in page["items"][0]["why"]]
    assert named == [row["id"] for row in rows[:3]]
    assert sum(abs(row["share"]) for row in rows) == pytest.approx(1)


def test_nothing_is_said_of_reasons_before_the_model_is_there(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, busy: int
) -> None:
    monkeypatch.setattr("coterie.dashboard.pages.users.model_of", lambda *_: None)
    page = client.get("/users.json", params={"id": busy}).json()
    assert page["loading"]
    assert {one["why"] for one in page["items"]} == {None}
    text = client.get("/users", params={"id": busy}).text
    assert "The model is being loaded" in text
    assert "because of" not in text


def _score(model: TrainedModel, codes: np.ndarray, place: int) -> float:
    row = np.zeros((1, model.n_items), np.float32)
    row[0, codes] = 1
    return float(model.score(csr_array(row))[0, place])


def test_neighbours_are_those_of_all_pairs(
    client: TestClient, known: dict[int, dict[int, int]], busy: int
) -> None:
    for user in (busy, *sorted(known)[:3]):
        mine = set(known[user])
        alike = {
            other: len(mine & set(items)) / len(mine | set(items))
            for other, items in known.items()
            if other != user and mine & set(items)
        }
        best = sorted(alike, key=lambda other: (-alike[other], other))[:8]
        rows = told(client, "/users", id=user)["neighbours"]["rows"]
        assert [row["user"] for row in rows] == [str(other) for other in best]
        assert [row["alike"] for row in rows] == pytest.approx([alike[one] for one in best])
        assert [row["shared"] for row in rows] == [len(mine & set(known[one])) for one in best]


PAIRS = st.dictionaries(
    st.integers(0, 12), st.sets(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=10
)


@given(PAIRS, st.integers(1, 12))
def test_neighbours_of_any_crowd(histories: dict[int, set[int]], k: int) -> None:
    """Ties, users who share nothing, fewer users than are asked for."""
    rows = [
        {"user_id": user, "item_id": item, "last": item, "first": 0}
        for user in sorted(histories)
        for item in sorted(histories[user])
    ]
    crowd = Crowd.of(pa.Table.from_pylist(rows))
    n_users = {
        item: sum(item in one for one in histories.values())
        for items in histories.values()
        for item in items
    }
    for user, mine in histories.items():
        assert [one.item_id for one in crowd.history(str(user))] == sorted(mine, reverse=True)
        alike = {
            other: len(mine & items) / len(mine | items)
            for other, items in histories.items()
            if other != user and mine & items
        }
        best = sorted(alike, key=lambda other: (-alike[other], other))[:k]
        found = crowd.neighbours(str(user), k)
        assert [one.user_id for one in found] == best
        for one in found:
            assert set(one.shared) == mine & histories[int(one.user_id)]
            counts = [n_users[int(item)] for item in one.shared]
            assert counts == sorted(counts)
    assert crowd.neighbours("nobody", k) == []


def test_suggested_users_are_what_they_are_said_to_be(
    client: TestClient, known: dict[int, dict[int, int]], live: TrainedModel
) -> None:
    suggested = told(client, "/users")["suggested"]
    sizes = sorted(len(items) for items in known.values())
    assert [len(known[int(one)]) for one in suggested["watch most"]] == sizes[:-4:-1]
    assert {len(known[int(one)]) for one in suggested["watch little"]} == {sizes[0]}
    of_model = set(live.items.ids_of(range(live.n_items)))
    for one in suggested.get("watch nothing that the model knows", ()):
        assert not of_model & set(known[int(one)])


def test_a_stranger_gets_the_fallback_and_is_told_so(client: TestClient, eight_weeks: Path) -> None:
    for user in ("nobody", "007", "x" * 10_000, "\0", "9" * 40, "-7"):
        page = told(client, "/users", id=user)
        assert page["unknown"]
        assert page["list"]["source"] == "fallback"
        assert page["suggested"]
    assert "Nothing is known of this user" in client.get("/users?id=nobody").text
    with store_of(Service.load(eight_weeks)) as store:
        found = store.fallback("main")
    assert found is not None
    assert [one["item_id"] for one in page["items"]] == list(map(str, found.item_ids))


@pytest.mark.parametrize("query", ["row=none", "edition=2020-01-01", "model=none"])
def test_what_is_not_there_is_a_page(client: TestClient, query: str) -> None:
    answer = client.get(f"/users?id=7&{query}")
    assert answer.status_code == 404
    assert "found" in answer.text


def test_a_service_without_anything_teaches(tmp_path: Path) -> None:
    configure(tmp_path / "new", {})
    with visitor(tmp_path / "new", today=LAST) as new:
        assert "coterie daily" in new.get("/users?id=1").text
        assert told(new, "/users", id=1)["unread"]
        assert "coterie weekly" in new.get("/try").text
        assert told(new, "/try", pick="a", q="b")["list"] is None


def test_a_published_list_is_shown_without_a_live_model(tmp_path: Path) -> None:
    odd_service(tmp_path / "odd", LAST, {"a": "A", "b": "B"})
    with visitor(tmp_path / "odd", today=LAST) as other:
        page = told(other, "/users", id="b")
        assert [one["title"] for one in page["items"]] == ["A", "B"]
        assert {row["id"] for row in page["history"]["rows"]} == {"a", "b"}
        assert [row["user"] for row in page["neighbours"]["rows"]] == ["a"]


def test_the_arm_and_its_model_are_told(tmp_path: Path) -> None:
    allocation = Allocation("new", "lists", "new", 0.0, 1.0, {"a": 1, "b": 1})
    arms = {arm: {"version": f"version-{arm}", "model": "x"} for arm in ("a", "b")}
    facts = {"version": "live", "experiments": [{**allocation.to_json(), "arms": arms}]}
    ids = [str(number) for number in range(12)]
    odd_service(tmp_path / "odd", LAST, dict(zip(ids, ids, strict=True)), facts)
    with visitor(tmp_path / "odd", today=LAST) as other:
        for user, arm in zip(ids, allocation.arms(ids), strict=True):
            found = told(other, "/users", id=user)["list"]
            assert (found["experiment"], found["arm"]) == ("new", arm)
            assert found["version"] == f"version-{arm}"
        assert told(other, "/users", id="nobody")["list"]["version"] == "live"


def test_lists_in_postgresql_are_shown(
    eight_weeks: Path, tmp_path: Path, postgres_url: str
) -> None:
    copy_of(Service.load(eight_weeks), tmp_path / "copy")
    text = tomlkit.dumps({**TINY, "store": {"url": postgres_url}})
    (tmp_path / "copy" / "coterie.toml").write_text(text)
    service = Service.load(tmp_path / "copy")
    with visitor(service.folder, today=EDITION) as other:
        assert "Nothing is published yet" in other.get("/users?id=7").text
        daily(service, EDITION)
        page = told(other, "/users", id=7)
        exposure = told(other, "/titles", id=page["items"][0]["item_id"])
    with store_of(service) as store:
        found = store.find(7)
    assert found is not None
    assert [one["item_id"] for one in page["items"]] == list(map(str, found.item_ids))
    assert exposure["lists"][0]["lists"] > 0


def test_a_store_that_is_away_leaves_the_rest(eight_weeks: Path, tmp_path: Path) -> None:
    copy_of(Service.load(eight_weeks), tmp_path / "copy")
    values = {**TINY, "store": {"url": "postgresql://nobody@127.0.0.1:1/none"}}
    (tmp_path / "copy" / "coterie.toml").write_text(tomlkit.dumps(values))
    with visitor(tmp_path / "copy", today=EDITION) as other:
        page = told(other, "/users", id=7)
        assert "the database must answer" in page["away"]
        assert page["history"]["rows"]
        version = page["versions"][0][0]
        assert told(other, "/users", id=7, model=version)["items"]
        title = told(other, "/titles", id=page["history"]["rows"][0]["id"])
        assert "the database must answer" in title["away"]
        assert title["watched"]["rows"]


def test_trying_gives_what_the_model_recommends(client: TestClient, live: TrainedModel) -> None:
    picks = live.items.ids_of([2, 5, 9])
    page = told(client, "/try", pick=[*picks, picks[0], "not there"])
    assert [one["item_id"] for one in page["picks"]] == [*map(str, picks), "not there"]
    assert [one["known"] for one in page["picks"]] == [True, True, True, False]
    shown_items = [int(one["item_id"]) for one in page["items"]]
    best = live.recommend({"": picks}, k=live.n_items).for_user("")
    order = [one.item_id for one in best if one.item_id in set(shown_items)]
    assert shown_items == order
    assert not set(shown_items) & set(picks)
    why = told(client, "/try", pick=picks, why=shown_items[0])["why"]["rows"]
    assert {row["id"] for row in why} == set(map(str, picks))
    assert page["items"][0]["why"][0]["item_id"] == why[0]["id"]


def test_nothing_picked_is_the_fallback(client: TestClient) -> None:
    page = told(client, "/try")
    assert page["list"]["source"] == "popularity"
    assert not page["items"][0]["why"]


TITLES = st.lists(
    st.tuples(st.text("aàbÀ ß", max_size=6), st.integers(0, 5)),
    max_size=8,
    unique_by=lambda one: one,
)


@given(TITLES, st.text("aábß ", max_size=3), st.integers(0, 5))
def test_search_finds_what_has_the_words_in_it(
    names: list[tuple[str, int]], text: str, most: int
) -> None:
    ordered = sorted(names, key=lambda one: -one[1])
    titles = [
        Title(f"id{at}", name or None, None, popularity, True)
        for at, (name, popularity) in enumerate(ordered)
    ]
    found = Catalogue(titles).search(text, 100)
    words = fold(text).split()
    assert set(found) == {
        one for one in titles if all(word in fold(one.name or one.item_id) for word in words)
    }
    assert Catalogue(titles).search(text, most) == found[:most]
    assert not {one.item_id for one in Catalogue(titles).search(text, 100, ["id0"])} & {"id0"}
    begin = [fold(one.name or one.item_id).startswith(fold(text).strip()) for one in found]
    assert begin == sorted(begin, reverse=True)


def test_search_ranks_names_that_begin_so_then_words_then_the_popular() -> None:
    names = ["The red car", "Bored", "Red", "Redder", "Reddest", "Améliered"]
    titles = [Title(str(at), name, None, 9 - at, True) for at, name in enumerate(names)]
    found = [one.name for one in Catalogue(titles).search("RÉD", 9)]
    assert found == ["Red", "Redder", "Reddest", "The red car", "Bored", "Améliered"]
    assert [one.name for one in Catalogue(titles).search("ameli", 9)] == ["Améliered"]
    assert [one.name for one in Catalogue(titles).search("5", 9)] == ["Améliered"]


def test_what_could_not_be_read_is_read_again() -> None:
    aside, tries = Aside(2, patience_seconds=10), list[int]()

    def read() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise DataError("not yet")
        return len(tries)

    with pytest.raises(DataError):
        aside.get("a", 1, read)
    assert [aside.get("a", 1, read), aside.get("a", 1, read)] == [2, 2]
    assert aside.get("a", 2, read) == 3


def test_ids_of_the_crowd_are_whole_or_text() -> None:
    rows = [{"user_id": "b", "item_id": 7, "last": 1, "first": 1}]
    crowd = Crowd.of(pa.Table.from_pylist(rows))
    assert crowd.users == IdMap.of(["b"])
    assert crowd.worth_a_look([7])["watch most"] == ["b"]
    assert "watch nothing that the model knows" not in crowd.worth_a_look([7])
    assert crowd.worth_a_look([8])["watch nothing that the model knows"] == ["b"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a dashboard of titles and users that mean no good."""
    folder = tmp_path_factory.mktemp("hostile") / "odd"
    odd_service(folder, LAST, HOSTILE)
    with shown(folder, LAST) as address:
        yield address


@needs_browser
@pytest.mark.parametrize("id_", HOSTILE)
def test_hostile_ids_and_titles_stay_text(browser: Browser, hostile: str, id_: str) -> None:
    visit = Visit(browser, hostile, PHONE)
    for path, name in (("/users", "id"), ("/titles", "id"), ("/try", "pick"), ("/try", "q")):
        page = visit.open(f"{path}?{urlencode({name: id_, 'why': id_})}")
        assert visit.overflow() <= 0, (path, id_)
        assert not visit.faults, (path, id_)
        assert page.locator("main script, main img").count() == 0
    visit.open(f"/users?{urlencode({'id': id_})}")
    assert "49 " not in page.locator("#items").inner_text()
    assert "{{ 7 * 7 }}" in page.locator("#items").inner_text()
    visit.close()


@needs_browser
@pytest.mark.parametrize("id_", ["", "y" * 10_000, "\u202e" * 50, "../../etc/passwd"])
def test_ids_that_nobody_has_stay_text(browser: Browser, hostile: str, id_: str) -> None:
    visit = Visit(browser, hostile, PHONE)
    for path, name in (("/users", "id"), ("/try", "pick"), ("/try", "q"), ("/titles", "q")):
        visit.open(f"{path}?{urlencode({name: id_})}")
        assert visit.overflow() <= 0, (path, id_)
        assert not visit.faults, (path, id_)
    visit.close()


@needs_browser
def test_typing_and_clicking_change_the_list(
    browser: Browser, dashboard: str, client: TestClient
) -> None:
    visit = Visit(browser, dashboard)
    page = visit.open("/try")
    page.wait_for_selector("#items")
    before = page.locator("#items").inner_text()
    page.locator("#q").fill("the")
    expect(page.locator("#hits h2")).to_have_text("Found")
    expect(page.locator("#q")).to_be_focused()
    name = page.locator("#hit-1 bdi").inner_text()
    assert "the" in name.lower()
    page.locator("#hit-1").click()
    page.wait_for_selector("#pick-1")
    assert name in page.locator("#pick-1").inner_text()
    assert page.locator("#items").inner_text() != before
    assert "pick=" in page.url
    shared = Visit(browser, page.url, PHONE)
    other = shared.open("")
    assert other.locator("#items").inner_text() == page.locator("#items").inner_text()
    shared.close()
    page.locator("#why-1").click()
    page.wait_for_selector("#reasons")
    page.locator("#pick-1").click()
    expect(page.locator("#pick-1")).to_have_count(0)
    assert not visit.faults
    visit.close()


@needs_browser
def test_titles_are_picked_by_keys_alone(browser: Browser, dashboard: str) -> None:
    visit = Visit(browser, dashboard)
    page = visit.open("/try")
    page.locator("#q").focus()
    picked = []
    for word in ("the", "a"):
        page.keyboard.type(word)
        expect(page).to_have_url(re.compile(f"q={word}"))
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        expect(page.locator("#hit-2")).to_be_focused()
        page.keyboard.press("ArrowUp")
        picked.append(page.locator("#hit-1 bdi").inner_text())
        page.keyboard.press("Enter")
        page.wait_for_selector(f"#pick-{len(picked)}")
        expect(page.locator("#q")).to_be_focused()
    chips = page.locator("#picked bdi").all_inner_texts()
    assert chips == picked
    assert not visit.faults
    visit.close()


@needs_browser
def test_a_pick_between_letters_is_not_lost(browser: Browser, dashboard: str) -> None:
    visit = Visit(browser, dashboard)
    page = visit.open("/try")
    page.evaluate(
        "() => { const q = document.getElementById('q'); q.value = 'the';"
        " q.dispatchEvent(new Event('input', { bubbles: true }));"
        " document.getElementById('hit-1').click(); }"
    )
    page.wait_for_selector("#pick-1")
    expect(page.locator("#hits h2")).to_have_text("Found")
    assert page.locator("#pick-1").count() == 1
    visit.close()


@needs_browser
def test_trying_works_without_javascript(browser: Browser, dashboard: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{dashboard}/try")
    page.locator("#q").fill("the")
    page.get_by_role("button", name="Search").click()
    name = page.locator("#hit-2 bdi").inner_text()
    page.locator("#hit-2").click()
    assert name in page.locator("#pick-1").inner_text()
    page.locator("#row").select_option("movies")
    page.get_by_role("button", name="Search").click()
    assert "row=movies" in page.url
    assert page.locator("#pick-1").count() == 1
    context.close()


@needs_browser
def test_reasons_come_beside_the_list(
    browser: Browser, dashboard: str, client: TestClient, busy: int
) -> None:
    visit = Visit(browser, dashboard)
    page = visit.open(f"/users?id={busy}")
    page.wait_for_selector("#why-1")
    item: Any = told(client, "/users", id=busy)["items"][0]
    assert page.locator(".why").first.inner_text().startswith(item["why"][0]["title"])
    page.locator("#why-1").click()
    page.wait_for_selector("#reasons")
    assert "why=" in page.url
    expect(page.locator("#why-1")).to_be_focused()
    assert not visit.faults
    visit.close()


def test_a_day_that_is_no_date_is_today(tmp_path: Path) -> None:
    service = odd_service(tmp_path / "odd", LAST, {"a": "A"})
    with store_of(service) as store:
        catalogue = pa.table({"item_id": ["a"], "title": ["A"]})
        store.publish("special", catalogue, [], {})
    with visitor(tmp_path / "odd", today=LAST) as other:
        page = told(other, "/users", id="a", edition="special")
        assert date.fromisoformat(page["knows_until"]) == LAST
        assert page["list"] is None
