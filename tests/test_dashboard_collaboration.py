"""The page of the microscope: figures, what they mean, and the report by itself."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from starlette.testclient import TestClient

from analysed_service import TODAY
from browser import Visit, look, needs_browser, shown
from dashboard_parts import visitor


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


def folders(analysed: Path) -> list[Path]:
    """Of the analyses, by week."""
    return sorted((analysed / "analysis").iterdir())


def told(path: Path, name: str = "numbers.json") -> dict[str, object]:
    """A JSON file of an analysis."""
    found: dict[str, object] = json.loads((path / name).read_text(encoding="utf-8"))
    return found


@needs_browser
def test_collaboration_is_looked_at(browser: Browser, address: str) -> None:
    look(browser, address, "/collaboration")


def test_figures_are_the_analyses(client: TestClient, analysed: Path) -> None:
    page = client.get("/collaboration.json").json()
    by_name = {one["name"]: one["figure"]["rows"] for one in page["measures"]}
    for at, folder in enumerate(folders(analysed)):
        setting = told(folder)["settings"][folder.name]  # type: ignore[index]
        help_ = setting["teaching"]["cosine"]["hidden/gradient/all"]
        row = by_name["help"][at]
        assert row["version"] == folder.name
        assert row["near people"] == pytest.approx(1e3 * help_["local"]["mean"])
        assert row["far but related, to"] == pytest.approx(1e3 * help_["global"]["mean_high"])
        shares = by_name["shares"][at]
        assert shares["far but related"] == help_["global"]["share"]
        recall = by_name["recall"][at]
        assert recall["found, from"] < setting["semantics"]["recall"] < recall["found, to"]
        assert by_name["kl"][at]["of means"] == setting["bottleneck"]["kl_of_means_nats"]
        alive = setting["bottleneck"]["n_active"] / 16
        assert by_name["alive"][at]["alive"] == alive
    assert by_name["kept"][0]["kept"] is None
    before = told(folders(analysed)[1], "analysis.json")["before"]
    assert by_name["kept"][1]["kept"] == before["kept"][0]  # type: ignore[index]
    assert page["chance"]["kept"] == before["chance"]  # type: ignore[index]


def test_every_measure_says_what_it_means_and_what_it_cannot_show(client: TestClient) -> None:
    text = client.get("/collaboration").text
    for one in client.get("/collaboration.json").json()["measures"]:
        for words in (one["means"], one["cannot"]):
            assert words.endswith(".")
            assert re.sub(r"'", "&#39;", words) in text


@needs_browser
def test_the_report_opens_by_itself(browser: Browser, address: str, analysed: Path) -> None:
    visit = Visit(browser, address)
    page = visit.open("/collaboration")
    page.get_by_role("link", name=folders(analysed)[-1].name).last.click()
    page.wait_for_selector("h1")
    assert "How users help each other" in page.locator("h1").inner_text()
    assert "A live model has trained on everybody" in page.locator("body").inner_text()
    page.wait_for_selector("#map .plot-container")
    assert not visit.faults
    visit.close()


def test_a_report_sees_nothing_of_the_dashboard(client: TestClient, analysed: Path) -> None:
    of = {"of": folders(analysed)[-1].name}
    policy = client.get("/collaboration/report", params=of).headers["content-security-policy"]
    assert "sandbox allow-scripts;" in policy
    assert "default-src 'none'" in policy
    assert client.get("/collaboration/report", params={"of": "../registry"}).status_code == 404


@needs_browser
def test_analyses_of_runs_stand_beside_each_other(browser: Browser, analysed: Path) -> None:
    """The folder of analyses alone is a folder of analyses."""
    with shown(analysed / "analysis", TODAY) as address:
        look(browser, address, "/collaboration")
        look(browser, address, "/map")
        visit = Visit(browser, address)
        page = visit.open("/collaboration")
        assert page.locator("#kept").count() == 0
        assert page.locator("#recall tbody tr").count() == 2
        visit.close()
