"""The latent map in a real browser: what is drawn, found, moved and left out."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from matplotlib.image import imread
from playwright.sync_api import Browser
from playwright.sync_api import Page as Tab
from starlette.testclient import TestClient

from analysed_service import TODAY
from browser import DESKTOP, PHONE, Visit, look, needs_browser, shown
from coterie.map_file import Layout, MapFile
from dashboard_parts import visitor

HOSTILE: list[int | str] = [
    "..", "", "a/b?c=<script>alert(1)</script>", "\u202eright to left", "🦊", "x" * 10_000,
]  # fmt: skip


@pytest.fixture(scope="module")
def address(analysed: Path) -> Iterator[str]:
    """A dashboard of the service whose models were looked into."""
    with shown(analysed, TODAY) as one:
        yield one


@pytest.fixture
def client(analysed: Path) -> Iterator[TestClient]:
    """The same without a browser."""
    with visitor(analysed, today=TODAY) as one:
        yield one


def versions(folder: Path) -> list[str]:
    """Those that have an analysis, the last week's last."""
    return sorted(one.name for one in (folder / "analysis").iterdir())


def opened(visit: Visit, path: str = "/map") -> Tab:
    """The page, once the map is drawn."""
    page = visit.open(path)
    page.wait_for_selector("#map[data-drawn]:not([hidden])")
    page.wait_for_timeout(100)
    return page


def colours(page: Tab) -> int:
    """How many different ones the map has."""
    pixels = imread(io.BytesIO(page.locator("#map").screenshot()))
    return len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0))


def place(page: Tab) -> list[float]:
    """Where the view is: x, y, and how close."""
    return [float(one) for one in str(page.locator("#map").get_attribute("data-view")).split()]


@needs_browser
def test_the_map_is_looked_at(browser: Browser, address: str) -> None:
    look(browser, address, "/map")


@needs_browser
@pytest.mark.parametrize(("size", "theme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_everybody_is_drawn(
    browser: Browser, address: str, analysed: Path, size: tuple[int, int], theme: str
) -> None:
    visit = Visit(browser, address, size, theme)
    page = opened(visit)
    last = versions(analysed)[-1]
    people = MapFile.read(analysed / "analysis" / last).user_ids
    assert page.locator("#map").get_attribute("data-drawn") == f"{len(people)} {last}"
    assert page.locator("#map-drawing").is_hidden()
    drawn = colours(page)
    assert drawn > 20
    for box in page.locator("[data-cohort]").all():
        box.uncheck()
    page.wait_for_timeout(300)
    assert colours(page) < drawn / 3
    assert not visit.faults
    visit.close()


@needs_browser
def test_a_person_is_found_marked_and_opened(
    browser: Browser, address: str, analysed: Path
) -> None:
    people = MapFile.read(analysed / "analysis" / versions(analysed)[-1])
    at = 17
    visit = Visit(browser, address)
    page = opened(visit)
    page.get_by_label("Find a person's id or a title").fill(str(people.user_ids[at]))
    page.wait_for_selector(f'#map-mark[data-marked="person {at}"]:not([hidden])')
    assert page.locator("#map-mark").inner_text() == str(people.user_ids[at])
    said = page.locator("#map-found").inner_text()
    assert f"Person {people.user_ids[at]}, {people.counts[at]} titles" in said
    page.wait_for_timeout(1500)
    x, y, near = place(page)
    np.testing.assert_allclose([x, y], people.layouts[0].users[at], atol=2e-4)
    assert near == pytest.approx(4)
    box = page.locator("#map").bounding_box()
    assert box is not None
    # The middle of the view is where the person is.
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#map-tip:not([hidden])")
    assert "titles" in page.locator("#map-tip").inner_text()
    page.locator("#map-found a").click()
    assert page.url.endswith(f"/users?id={people.user_ids[at]}")
    visit.close()


@needs_browser
def test_a_title_is_found_by_part_of_its_name(
    browser: Browser, address: str, analysed: Path
) -> None:
    people = MapFile.read(analysed / "analysis" / versions(analysed)[-1])
    name = str(people.titles[3])
    visit = Visit(browser, address)
    page = opened(visit, f"/map?search={name.upper()}")
    assert name in page.locator("#map-found").inner_text()
    assert str(page.locator("#map-mark").get_attribute("data-marked")).startswith("title ")
    assert page.locator("[data-items]").is_checked()
    visit.close()


@needs_browser
def test_it_moves_by_mouse_wheel_keys_and_buttons(browser: Browser, address: str) -> None:
    visit = Visit(browser, address)
    page = opened(visit)
    x, y, near = place(page)
    box = page.locator("#map").bounding_box()
    assert box is not None
    left, top = box["x"] + 200, box["y"] + 200
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(left + 80, top + 30, steps=4)
    page.mouse.up()
    page.wait_for_timeout(200)
    assert place(page)[0] < x
    assert place(page)[1] > y
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(200)
    assert place(page)[2] > near
    page.locator("#map").focus()
    for key in ("0", "+", "ArrowLeft"):
        page.keyboard.press(key)
        page.wait_for_timeout(1200)
    assert place(page)[2] == pytest.approx(1.5 * near)
    assert place(page)[0] < x
    page.get_by_role("button", name="Everybody").click()
    page.wait_for_timeout(1200)
    np.testing.assert_allclose(place(page), [x, y, near], atol=1e-3)
    assert not visit.faults
    visit.close()


@needs_browser
@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_another_version_moves_people_from_where_they_were(
    browser: Browser, address: str, analysed: Path, motion: str
) -> None:
    visit = Visit(browser, address)
    visit.page.emulate_media(reduced_motion=motion)  # type: ignore[arg-type]
    page = opened(visit)
    before = place(page)
    parts = page.evaluate_handle(
        """() => {
          const seen = [], map = document.getElementById("map");
          new MutationObserver(() => seen.push(Number(map.dataset.part)))
            .observe(map, { attributes: true, attributeFilter: ["data-part"] });
          return seen;
        }"""
    )
    first = versions(analysed)[0]
    page.get_by_label("Model").select_option(label=first)
    page.wait_for_selector(f'#map[data-drawn$=" {first}"][data-part="1.00"]')
    between = [one for one in parts.json_value() if 0 < one < 1]
    assert bool(between) == (motion == "no-preference")
    assert place(page) == before
    assert f"show=0%2F{first}" in page.url
    assert page.locator("#map-told").get_attribute("data-show") == f"0/{first}"
    assert not visit.faults
    visit.close()


@needs_browser
def test_without_webgl_a_still_picture_says_so(browser: Browser, address: str) -> None:
    visit = Visit(browser, address)
    visit.page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page = visit.open("/map?search=1")
    assert page.locator("#map").is_hidden()
    assert page.get_by_text("This browser has no WebGL 2").is_visible()
    assert page.locator(".map-drawing").is_visible()
    assert page.locator(".map-drawing path.dots").count() == 5
    assert not visit.faults
    visit.close()


def test_groups_are_where_their_people_are(client: TestClient, analysed: Path) -> None:
    people = MapFile.read(analysed / "analysis" / versions(analysed)[-1])
    rows = client.get("/map.json").json()["cohorts"]["rows"]
    assert sum(row["people"] for row in rows) == len(people.user_ids)
    for number, row in enumerate(rows):
        there = [at for at in range(len(people.user_ids)) if people.cohorts[at] == number]
        x = sum(float(people.layouts[0].users[at, 0]) for at in there) / max(len(there), 1)
        assert row["centre, across"] == (pytest.approx(x, abs=1e-4) if there else None)


def test_files_are_those_of_an_analysis_and_no_others(client: TestClient, analysed: Path) -> None:
    name = versions(analysed)[-1]
    there = analysed / "analysis" / name
    assert (
        client.get("/map/points", params={"of": name}).content == (there / "map.bin").read_bytes()
    )
    assert client.get("/map/names", params={"of": name}).json()["users"]
    for other in ("..", f"../analysis/{name}", "", "nobody", f"{name}/"):
        assert client.get("/map/points", params={"of": other}).status_code == 404
    assert client.get("/map", params={"show": "9/nothing"}).status_code == 404


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(tmp_path: Path, analysed: Path) -> None:
    shutil.copytree(analysed, tmp_path / "one", ignore=shutil.ignore_patterns("store", "work"))
    first, last = versions(analysed)
    (tmp_path / "one" / "analysis" / last / "analysis.json").write_text("{")
    with visitor(tmp_path / "one", today=TODAY) as client:
        for path in ("/map", "/collaboration"):
            page = client.get(path)
            assert page.status_code == 200
            assert "makes it anew" in page.text
            assert first in page.text


def test_a_new_service_is_told_the_command(tmp_path: Path, analysed: Path) -> None:
    shutil.copy(analysed / "coterie.toml", tmp_path)
    with visitor(tmp_path, today=TODAY) as client:
        for path in ("/map", "/collaboration"):
            assert f"coterie analyze {tmp_path}" in client.get(path).text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, analysed: Path) -> Path:
    """An analysis among runs whose people and titles are called what should stay text."""
    folder = tmp_path_factory.mktemp("runs") / "odd & <b>"
    shutil.copytree(analysed / "analysis" / versions(analysed)[-1], folder)
    (folder / "analysis.json").unlink()
    n = len(HOSTILE)
    places = np.random.default_rng(1).normal(size=(n, 2))
    layouts = [Layout("<i>one</i>", places, places, {"items_are": "anchors", "disparity": 0.1})]
    titles = [str(one) for one in HOSTILE]
    MapFile(
        HOSTILE, np.full(n, 7), ["1-4", "<b>"], np.arange(n) % 2, layouts, HOSTILE, titles,
        {"of": n},
    ).write(folder)  # fmt: skip
    return folder.parent


@needs_browser
def test_hostile_ids_stay_text(browser: Browser, hostile: Path) -> None:
    with shown(hostile, TODAY) as address:
        look(browser, address, "/map")
        for one in HOSTILE[2:]:
            told = httpx.get(f"{address}/map.json", params={"search": str(one)}).json()
            assert told["found"]["name"] == str(one).strip()
            visit = Visit(browser, address)
            page = opened(visit, "/map?" + str(httpx.QueryParams({"search": str(one)})))
            assert page.locator("#map-mark").is_visible()
            assert page.locator("main script, main i, main b").count() == 0
            assert visit.overflow() <= 0
            assert not visit.faults
            visit.close()


def test_runs_have_every_setting_of_every_analysis(hostile: Path) -> None:
    with visitor(hostile) as client:
        told = client.get("/map.json").json()
        assert [label for _, label in told["choices"]] == ["<i>one</i>"]
        assert not told["has_pages"]
        json.dumps(told)
