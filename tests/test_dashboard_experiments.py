"""The pages of experiments: what runs, what was found, the report inside, and what is wrong."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from browser import PHONE, Visit, look, needs_browser, shown
from coterie.experiment import Experiment, analyse, write_report
from coterie.experiment.report import FIGURES, PAGE, read_report
from coterie.jobs.config import Service
from dashboard_parts import visitor
from small_experiment import FIRST
from small_service import TINY, configure, store_of
from test_experiment_report import N_DAYS, agreed, summed

TODAY = FIRST + timedelta(days=N_DAYS)
BECAUSE = "<script>alert(1)</script> nobody liked it"
ONE = "/experiments?name=lists"


def define(service: Service, definition: Experiment) -> None:
    values = definition.model_dump(mode="json", exclude_none=True, exclude={"name"})
    path = service.experiments.folder / f"{definition.name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(tomlkit.dumps(values), encoding="utf-8")


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Fourteen days of a treatment that is better, to be looked at every day."""
    with summed(tmp_path_factory.mktemp("events"), 0.6) as sums:
        return analyse(sums, agreed("daily", days=28))


@dataclass(frozen=True)
class Seen:
    """A service, and its dashboard.

    Args:
        service: That may be changed.
        today: The dashboard's day.
    """

    service: Service
    today: date = TODAY

    def get(self, path: str) -> Any:
        """An answer."""
        with visitor(self.service.folder, today=self.today) as client:
            return client.get(path)

    def json(self, path: str) -> Any:
        """A page's JSON."""
        before, mark, query = path.partition("?")
        return self.get(f"{before}.json{mark}{query}").json()


@pytest.fixture
def seen(tmp_path: Path, analysed: Any) -> Seen:
    """One that runs and has its report, one that ended without, one that is planned."""
    service = configure(tmp_path / "a service", TINY)
    ended, planned = (agreed("fixed", name=name, layer=name, arms=_ARMS) for name in ("old", "new"))
    for one in (agreed("daily", days=28), ended, planned):
        define(service, one)
    service.experiments.start("lists", FIRST)
    service.experiments.start("old", FIRST)
    service.experiments.stop("old", FIRST + timedelta(days=3), BECAUSE)
    write_report(analysed, service.report("lists"))
    return Seen(service)


_ARMS = [{"name": "control"}, {"name": "treatment"}]


@pytest.fixture
def address(seen: Seen) -> Iterator[str]:
    with shown(seen.service.folder, seen.today) as found:
        yield found


@needs_browser
@pytest.mark.parametrize("path", ["/experiments", ONE, "/experiments?name=new"])
def test_experiments_are_looked_at(path: str, browser: Browser, address: str) -> None:
    look(browser, address, path)


@needs_browser
def test_the_report_is_inside_and_nothing_in_it_runs(
    browser: Browser, address: str, seen: Seen
) -> None:
    file = seen.service.report("lists") / PAGE
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("<body>", "<body><script>document.title = 'ran'</script>"))
    visit = Visit(browser, address, PHONE)
    page = visit.open(ONE)
    page.locator("iframe").scroll_into_view_if_needed()
    inside = page.frame_locator("iframe")
    inside.get_by_role("heading", name="What could void it").wait_for()
    assert page.frames[-1].title() != "ran"
    assert inside.locator("svg").count() > 1
    assert [one for one in visit.faults if "script" not in one.lower()] == []
    assert visit.overflow() <= 0
    visit.close()


@needs_browser
def test_the_report_by_itself_can_be_read_by_everybody(browser: Browser, seen: Seen) -> None:
    page = browser.new_page(viewport={"width": PHONE[0], "height": PHONE[1]})
    page.set_content((seen.service.report("lists") / PAGE).read_text(encoding="utf-8"))
    found = Axe().run(page).response["violations"]
    wrong = [
        (one["id"], [node["target"] for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert not wrong
    page.close()


def test_all_are_told_by_what_became_of_them(seen: Seen) -> None:
    told = seen.json("/experiments")
    names = {state: [one["name"] for one in told[state]] for state in _STATES}
    assert names == {"running": ["lists"], "planned": ["new"], "finished": ["old"]}
    running, finished = told["running"][0], told["finished"][0]
    assert (running["day"], running["days"], running["share"]) == (N_DAYS + 1, 28, 1.0)
    assert running["verdicts"][0]["headline"] == "Take treatment: it is better than control."
    assert f"its last day is {FIRST + timedelta(days=27)}" in running["when"]
    assert finished["when"].startswith(f"It ran from {FIRST} to {FIRST + timedelta(days=2)}, 3 of")
    assert finished["when"].endswith(f"ended because: {BECAUSE}.")
    assert "<script>alert" not in seen.get("/experiments").text


_STATES = ("running", "planned", "finished")


def test_one_has_what_its_report_has(seen: Seen, analysed: Any) -> None:
    told = seen.json(ONE)["report"]
    effect = analysed.metrics[0].valid
    first = told["metrics"][0]["rows"][0]
    found = (first["lift"], first["from"], first["to"])
    assert found == pytest.approx((effect.lift, effect.lift_low, effect.lift_high))
    assert told["metrics"][0]["rows"][0]["metric"] == "clicks per card view"
    last = told["course"]["rows"][-1]
    assert (last["day"], last["treatment"]) == (str(analysed.last), analysed.days[-1].effect.lift)
    assert len(told["checks"]["rows"]) == len(analysed.checks)
    assert told["users"] == {"control": 250, "treatment": 250}
    assert told["missing"] == 0


def test_a_definition_is_told_in_words(seen: Seen) -> None:
    text = seen.get(ONE).text
    for words in (
        "treatment is held against control (the control) by clicks per card view",
        "It is planned for 28 days. One may look every day",
        "100 % of the users are in it",
        "more than 1,000 cards on a day",
    ):
        assert words in text
    arms = seen.json(ONE)["arms"]["rows"]
    assert [(row["its lists are of"], row["last version"]) for row in arms] == [
        ("whichever model is live", None),
        ("one version, always", "0007"),
    ]


def test_days_that_came_after_the_report_are_told(seen: Seen) -> None:
    later = Seen(seen.service, TODAY + timedelta(days=3))
    text = later.get(ONE).text
    assert "3 days came since" in text
    assert f"coterie experiment report &#39;{seen.service.folder}&#39; lists --date" in text
    over = Seen(seen.service, FIRST + timedelta(days=40))
    assert "Read the report, then stop it" in over.get(ONE).text


def test_the_day_before_its_first_it_is_planned(seen: Seen) -> None:
    before = Seen(seen.service, FIRST - timedelta(days=1)).json("/experiments")
    when = {one["name"]: one["when"] for one in before["planned"]}
    assert when["lists"] == f"It starts on {FIRST}, for 28 days."


def test_a_report_has_a_policy_of_its_own(seen: Seen) -> None:
    answer = seen.get("/experiments/report?name=lists")
    policy = answer.headers["content-security-policy"]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in policy
    assert policy.endswith("sandbox")
    assert seen.get("/experiments/report?name=old").status_code == 404


@pytest.mark.parametrize(
    "name", ["..", "../coterie", "lists/../lists", "x" * 5000, "\x00", ".lock"]
)
def test_no_path_is_made_of_what_is_asked(name: str, seen: Seen) -> None:
    with visitor(seen.service.folder, today=TODAY) as client:
        for path in ("/experiments", "/experiments/report"):
            assert client.get(path, params={"name": name}).status_code == 404


def test_without_any_the_page_says_how_to_begin(tmp_path: Path) -> None:
    text = Seen(configure(tmp_path, TINY)).get("/experiments").text
    assert "coterie experiment plan" in text
    assert "NAME.toml" in text


def test_one_without_a_report_says_how_to_make_it(seen: Seen) -> None:
    text = seen.get("/experiments?name=old").text
    assert "There is no report yet" in text
    assert "coterie experiment report" in text
    assert "<iframe" not in text


def test_a_damaged_record_leaves_the_others(seen: Seen) -> None:
    record = seen.service.experiments.folder / "old.json"
    record.write_text("{", encoding="utf-8")
    told = seen.json("/experiments")
    assert [one["name"] for one in told["running"]] == ["lists"]
    assert "old.json: must be the record of an experiment" in told["faults"][0]
    assert "old.json" in seen.get("/experiments?name=old").text


def test_a_damaged_definition_leaves_the_others(seen: Seen) -> None:
    (seen.service.experiments.folder / "new.toml").write_text("days = 'many'\n[[arms]]\n")
    told = seen.json("/experiments")
    assert told["planned"] == []
    assert "new.toml" in told["faults"][0]


@pytest.mark.parametrize(
    "change",
    [{"schema": "coterie.experiment-report/9"}, {"metrics": 3}, {"decisions": [{}]}, {"last": "x"}],
)
def test_a_report_that_cannot_be_read_is_told(change: dict[str, Any], seen: Seen) -> None:
    path = seen.service.report("lists") / FIGURES
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change))
    answer = seen.get(ONE)
    assert answer.status_code == 200
    assert FIGURES in answer.text
    assert "Make it anew" in answer.text
    assert "What was agreed" in answer.text
    assert seen.get("/experiments").status_code == 200


def test_reports_are_read_as_they_were_written(seen: Seen, tmp_path: Path) -> None:
    told = read_report(seen.service.report("lists"))
    assert told is not None
    assert told["last"] == str(TODAY - timedelta(days=1))
    assert read_report(tmp_path) is None


def test_a_store_out_of_reach_leaves_the_page(seen: Seen) -> None:
    away = {**TINY, "store": {"url": "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"}}
    answer = Seen(configure(seen.service.folder, away)).get(ONE)
    assert answer.status_code == 200
    assert "Which model each arm had last is not known" in answer.text
    assert "Take treatment" in answer.text


def test_arms_have_the_version_that_daily_published(seen: Seen) -> None:
    """From the notes of the daily job."""
    told = {"arms": {"control": {"version": "2026-W10-abc", "users": 7}}, "experiment": "lists"}
    values = {"experiments": [told], "version": "v", "figures": {}, "warnings": []}
    with store_of(seen.service) as store:
        store.note("daily", "2026-03-15", values)
    first = seen.json(ONE)["arms"]["rows"][0]
    assert (first["last version"], first["users with a list"]) == ("2026-W10-abc", 7)
