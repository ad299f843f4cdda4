"""A whole experiment on the living service, and the verbs that a person types, on what it left."""

import json
import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

from coterie.cli import main
from coterie.experiment import Analysis
from coterie.experiment.report import FIGURES, PAGE
from coterie.jobs.config import Service
from coterie.lab.demo.experiment import FIRST_DAY, NAME, experiment
from dashboard_parts import visitor

DAYS, SEEN = 4, 7
START = FIRST_DAY + timedelta(weeks=6, days=SEEN)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Analysis]:
    folder = tmp_path_factory.mktemp("lived") / "service"
    return folder, experiment(
        folder, n_users=400, n_items=100, days=DAYS, seen_days=SEEN, visits=3.0
    )


def test_both_cards_are_told_per_view_and_per_viewing_user(lived: tuple[Path, Analysis]) -> None:
    folder, analysis = lived
    report = json.loads((folder / "reports" / NAME / FIGURES).read_text(encoding="utf-8"))
    told = [one["metric"] for one in report["metrics"]]
    for card in ("movie", "home"):
        for per in ("card view", "viewing user and day"):
            place = told.index(f"{card}: clicks per {per}")
            one = report["metrics"][place]
            assert {"lift", "lift_low", "lift_high", "p_value"} <= set(one["effect"])
            assert 0 < one["belief"]["better"] < 1
    assert (folder / "reports" / NAME / PAGE).exists()
    assert sum(analysis.users.values()) > 100


def test_the_dashboard_shows_it_whole_the_day_it_ended(lived: tuple[Path, Analysis]) -> None:
    folder, analysis = lived
    ended = Service.load(folder).experiments.record(NAME).ended
    with visitor(folder, today=ended) as client:
        assert client.get("/today.json").json()["status"]["edition"] == str(ended)
        one = client.get("/experiments.json").json()["finished"][0]
        told = client.get("/experiments.json", params={"name": NAME}).json()
    assert (one["name"], one["day"]) == (NAME, analysis.n_days)
    assert told["report"]["last"] == str(analysis.last)
    assert told["report"]["missing"] == 0
    assert all(row["last version"] for row in told["arms"]["rows"])


def test_nobody_saw_the_other_arms_list_and_no_check_fails(lived: tuple[Path, Analysis]) -> None:
    _, analysis = lived
    assert [one.words for one in analysis.checks if not one.ok] == []
    assert "crossings" in [one.name for one in analysis.checks]


def test_guardrails_know_the_views_and_the_editions(lived: tuple[Path, Analysis]) -> None:
    folder, analysis = lived
    found = {one.name: one for one in analysis.guardrails}
    assert list(found) == ["titles shown", "fall-back lists"]
    assert min(found["titles shown"].control, found["titles shown"].treatment) > 1
    assert found["fall-back lists"].arm == NAME
    assert "Guardrails" in (folder / "reports" / NAME / PAGE).read_text(encoding="utf-8")


def test_the_plan_was_kept_and_the_record_is_whole(lived: tuple[Path, Analysis]) -> None:
    folder, analysis = lived
    running = Service.load(folder).experiments.record(NAME)
    assert running.started == START
    assert running.ended is not None
    assert running.ended > analysis.last
    assert running.definition.plan["log_error"] > 0


Told = Callable[..., str]


@pytest.fixture
def coterie(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    def run(*arguments: object, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["coterie", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        found = capsys.readouterr()
        assert left.value.code in (code, None if code == 0 else code), found.err
        return found.out if code == 0 else found.err

    return run


def test_plan_says_what_can_be_found(
    lived: tuple[Path, Analysis], coterie: Told, tmp_path: Path
) -> None:
    folder, _ = lived
    picture = tmp_path / "power.png"
    told = coterie("experiment", "plan", folder, NAME, "--date", START, "--plot", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    powers = [int(one) for one in re.findall(r"^\+\d+% +(\d+)%", told, flags=re.MULTILINE)]
    assert powers == sorted(powers)
    assert len(powers) == 6
    assert "[plan]" in told
    assert "log_error" in told


def test_looks_before_the_end_are_not_started_without_a_plan(
    lived: tuple[Path, Analysis], coterie: Told
) -> None:
    folder, _ = lived
    planned = (folder / "experiments" / f"{NAME}.toml").read_text(encoding="utf-8")
    (folder / "experiments" / "hasty.toml").write_text(planned.split("[plan]")[0])
    told = coterie("experiment", "start", folder, "hasty", "--date", START, code=2)
    assert "no log_error under [plan]" in " ".join(told.split())


def test_a_plan_for_more_days_than_were_seen_says_so(
    lived: tuple[Path, Analysis], coterie: Told
) -> None:
    folder, _ = lived
    (folder / "experiments" / "long.toml").write_text(
        (folder / "experiments" / f"{NAME}.toml")
        .read_text(encoding="utf-8")
        .split("[plan]")[0]
        .replace(f"days = {DAYS}\n", "days = 90\n", 1)
        .replace('kind = "planned"', 'kind = "daily"'),
        encoding="utf-8",
    )
    text = (folder / "experiments" / "long.toml").read_text(encoding="utf-8")
    (folder / "experiments" / "long.toml").write_text(
        re.sub(r"^days = \[.*\]\n", "", text, flags=re.MULTILINE), encoding="utf-8"
    )
    told = coterie("experiment", "plan", folder, "long", "--date", START, code=3)
    assert f"needs views of as many days before, found {SEEN}" in " ".join(told.split())


def test_status_and_report_of_what_is_over(lived: tuple[Path, Analysis], coterie: Told) -> None:
    folder, analysis = lived
    day: date = analysis.last + timedelta(days=30)
    assert f"stopped {analysis.last + timedelta(days=1)}" in coterie(
        "experiment", "status", folder, "--date", day
    )
    told = coterie("experiment", "report", folder, NAME, "--date", day, "--out", folder / "again")
    again = json.loads((folder / "again" / FIGURES).read_text(encoding="utf-8"))
    before = json.loads((folder / "reports" / NAME / FIGURES).read_text(encoding="utf-8"))
    assert again == before
    assert before["decisions"][0]["headline"] in told
