"""What is concluded from an experiment, and the page that says it: on a small simulated one."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from coterie.errors import ConfigError
from coterie.experiment import Experiment, Sums, analyse, decide, sum_up, write_report
from coterie.experiment.analysis import Analysis, metric_of, metrics_of, words
from coterie.experiment.checks import Check
from coterie.experiment.decision import percent, probability
from coterie.experiment.report import FIGURES, PAGE, amount, page, told
from coterie.experiment.statistics import bounds, compare
from small_experiment import NAME, arms_of, at, did, in_time, seen, window, write

N_USERS, N_DAYS, BEFORE = 500, 14, 7
ARMS = ("control", "treatment")
HALF = {"log_error": 0.03}
"""Of 28 days: not reached after 14."""


def events(lift: float) -> tuple[list[Any], list[Any], dict[int, str | None]]:
    """Users with click rates of their own; those with odd numbers are treated."""
    rng = np.random.default_rng(7)
    rates = rng.beta(2, 12, N_USERS)
    exposures, outcomes = [], []
    for day in range(-BEFORE, N_DAYS):
        for user in np.flatnonzero(rng.random(N_USERS) < 0.4).tolist():
            treated = day >= 0 and user % 2
            for card in ("movie", "home"):
                views = 1 + rng.poisson(2)
                logged = {"experiment": NAME, "arm": ARMS[user % 2]} if day >= 0 else {}
                exposures += [
                    seen(user, day, card, time=at(day, 100 + n), **logged) for n in range(views)
                ]
                clicks = rng.binomial(views, rates[user] * (1 + lift * treated))
                outcomes += [
                    did(user, day, card=card, time=at(day, 900 + n)) for n in range(clicks)
                ]
                outcomes += [
                    did(user, day, "watch", card=card, time=at(day, 901 + n), value=60.0)
                    for n in range(clicks)
                ]
    names: dict[int, str | None] = {user: ARMS[user % 2] for user in range(N_USERS)}
    return exposures, outcomes, names


def summed(folder: Path, lift: float) -> Sums:
    exposures, outcomes, names = events(lift)
    sources = write(folder, in_time(exposures), in_time(outcomes))
    return sum_up(sources, window(N_DAYS, BEFORE), arms_of(names))


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sums]:
    with summed(tmp_path_factory.mktemp("better"), 0.6) as sums:
        yield sums


@pytest.fixture(scope="module")
def level(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sums]:
    with summed(tmp_path_factory.mktemp("level"), 0.0) as sums:
        yield sums


def agreed(kind: str = "fixed", days: int = N_DAYS, **fields: Any) -> Experiment:
    looks = {"kind": kind, "days": [7, 14, days][: 3 if days > 14 else 2]}
    if kind != "planned":
        looks.pop("days")
    arms = [{"name": "control", "version": "live"}, {"name": "treatment", "version": "0007"}]
    plan = {"log_error": 0.06} if kind != "fixed" else {}
    values = {"control": "control", "arms": arms, "metrics": {"cards": ["movie", "home"]}}
    return Experiment(
        **{"name": "lists", "days": days, "looks": looks, "plan": plan, **values, **fields}
    )


def verdict(sums: Sums, definition: Experiment) -> str:
    return decide(analyse(sums, definition))[0].verdict


def test_metrics_are_those_of_the_deployed_test() -> None:
    assert [words(one) for one in metrics_of(agreed())] == [
        "clicks per card view",
        "clicks per viewing user and day",
        "movie: clicks per card view",
        "movie: clicks per viewing user and day",
        "home: clicks per card view",
        "home: clicks per viewing user and day",
        "seconds watched per user",
    ]


def test_effects_are_those_of_the_moments(better: Sums) -> None:
    analysis = analyse(better, agreed())
    for one in analysis.metrics:
        sides = (better.moments(one.metric, arm) for arm in ("treatment", "control"))
        assert one.effect == compare(*sides, cuped=True)
    assert analysis.users == {"control": 250, "treatment": 250}


@pytest.mark.parametrize("kind", ["fixed", "planned", "daily"])
def test_a_planted_lift_is_found_and_no_lift_is_not(kind: str, better: Sums, level: Sums) -> None:
    assert verdict(better, agreed(kind)) == "better"
    assert verdict(level, agreed(kind)) == "level"


def test_a_loss_is_called_one(better: Sums) -> None:
    assert verdict(better, agreed("planned", control="treatment")) == "worse"


def test_before_the_end_one_goes_on(level: Sums) -> None:
    assert verdict(level, agreed("fixed", days=28)) == "early"
    analysis = analyse(level, agreed("planned", days=28, plan=HALF))
    decision = decide(analysis)[0]
    assert decision.verdict == "go-on"
    assert decision.because[-1] == "This is day 14 of 28; the next look is on day 28."
    assert not decision.is_final


def test_a_planned_look_has_the_bound_of_the_looks_that_have_come(level: Sums) -> None:
    one = analyse(level, agreed("planned", days=28, plan=HALF)).primary[0]
    days = {each.day: each for each in analyse(level, agreed("planned", days=28, plan=HALF)).days}
    looks = [days[level.days[6]].fraction, days[level.days[13]].fraction]
    assert one.seen is not None
    assert one.seen.bound == pytest.approx(bounds(looks)[-1])
    assert one.seen_on == level.days[13]


def test_looks_before_the_end_need_a_plan(level: Sums) -> None:
    with pytest.raises(ConfigError, match="run coterie experiment plan"):
        analyse(level, agreed("daily", plan={}))


def test_an_experiment_before_that_still_works_is_looked_for(better: Sums) -> None:
    """Whoever has its arms again has its after-effects, too."""
    users = list(range(N_USERS))
    again = pa.table({"user_id": users, "arm": [("old", "new")[user % 2] for user in users]})
    analysis = analyse(better, agreed(), earlier=again)
    assert not {one.name: one.ok for one in analysis.checks}["carry-over"]
    assert decide(analysis)[0].verdict == "void"
    other = pa.table({"user_id": users, "arm": [("old", "new")[user // 2 % 2] for user in users]})
    assert {one.name: one.ok for one in analyse(better, agreed(), earlier=other).checks}[
        "carry-over"
    ]


def test_the_first_day_without_a_click_is_told_too(tmp_path: Path) -> None:
    rows = [seen(user, 0, experiment=NAME, arm=ARMS[user % 2]) for user in range(40)]
    names: dict[int, str | None] = {user: ARMS[user % 2] for user in range(40)}
    with sum_up(write(tmp_path, in_time(rows)), window(1), arms_of(names), cards=()) as sums:
        analysis = analyse(sums, agreed("planned", metrics={"cards": []}))
    assert decide(analysis)[0].verdict == "early"
    assert "too early to look" in page(analysis)


def test_a_failed_check_voids_the_decision_and_a_warning_does_not(better: Sums) -> None:
    analysis = analyse(better, agreed())
    for name, expected in (("sample ratio", "void"), ("one user", "better")):
        doubted = replace(analysis, checks=[Check(name, ok=False, words="It is off.")])
        decision = decide(doubted)[0]
        assert decision.verdict == expected
        assert ("It is off." in decision.because) == (expected == "void")
        assert "It is off." in told(doubted)


def test_the_report_is_one_page_and_its_figures(better: Sums, tmp_path: Path) -> None:
    analysis = analyse(better, agreed("planned"))
    write_report(analysis, tmp_path / "report")
    text = (tmp_path / "report" / PAGE).read_text(encoding="utf-8")
    assert "Take treatment: it is better than control." in text
    assert text.count("<svg") == 3
    assert "http" not in text.replace("http://www.w3.org", "")
    figures = json.loads((tmp_path / "report" / FIGURES).read_text(encoding="utf-8"))
    assert figures["decisions"][0]["verdict"] == "better"
    assert figures["metrics"][0]["effect"]["lift"] == pytest.approx(analysis.primary[0].valid.lift)
    assert [one["day"] for one in figures["days"]] == [str(day) for day in better.days]


def test_names_are_text(level: Sums) -> None:
    hostile = "<script>alert(1)</script>"
    analysis: Analysis = analyse(level, agreed())
    checks = [Check("sample ratio", ok=True, words=hostile)]
    assert hostile not in page(replace(analysis, checks=checks))


def test_figures_are_for_people() -> None:
    assert [percent(one) for one in (0.1234, -0.5, 12.0, float("nan"))] == [
        "+12.3 %",
        "−50.0 %",
        "+1,200 %",
        "anything",
    ]
    assert [probability(one) for one in (0.5, 0.99999, 0.00001)] == [
        "50.0 %",
        "above 99.9 %",
        "below 0.1 %",
    ]
    assert [amount(one) for one in (0.031642, 10_512.3)] == ["0.03164", "10,512"]
    assert metric_of("watch-time").name == "watch per user"
