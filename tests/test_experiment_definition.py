"""Definitions: what they refuse before the first day. Records: what they refuse after it."""

import json
import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from coterie.errors import ArtifactError, ConfigError, ConflictError, NotFoundError
from coterie.experiment import Experiment, Experiments, Holdout, Running, read_experiment

DAY = date(2027, 1, 18)
ARMS: list[dict[str, Any]] = [{"name": "a", "version": "live"}, {"name": "b", "config": "b.toml"}]
GOOD: dict[str, Any] = {"days": 28, "control": "a", "arms": ARMS}

Define = Callable[..., None]


@pytest.fixture
def experiments(tmp_path: Path) -> Experiments:
    (tmp_path / "b.toml").write_text('[model]\nname = "popularity"\n')
    return Experiments(tmp_path, Holdout(0.1, "service"))


@pytest.fixture
def define(experiments: Experiments) -> Define:
    def write(file: str = "one", /, **changes: Any) -> None:
        values = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
        (experiments.folder / f"{file}.toml").write_text(tomlkit.dumps(values))

    return write


def test_a_definition_has_defaults(define: Define, experiments: Experiments) -> None:
    define()
    one = read_experiment(experiments.folder / "one.toml")
    assert (one.name, one.layer, one.salt, one.share, one.first) == ("one", "lists", "one", 1, 0)
    assert (one.metrics.primary, one.looks.kind, one.looks.alpha) == (
        "clicks-per-view",
        "fixed",
        0.05,
    )
    assert one.cap.daily_views == 1000
    assert one.weights == {"a": 0.5, "b": 0.5}
    assert Experiment(**one.model_dump(mode="json")) == one


WRONG: dict[str, dict[str, Any]] = {
    "arms must be two or more": {"arms": ARMS[:1]},
    r"each with a name of its own, found \['a', 'a'\]": {"arms": [ARMS[0], ARMS[0]]},
    "control must be one of the arms a, b, found 'c'": {"control": "c"},
    "one of them, found 2 in 'a'": {"arms": [{**ARMS[0], "config": "b.toml"}, ARMS[1]]},
    "one of them, found 0 in 'c'": {"arms": [*ARMS, {"name": "c"}]},
    "must name no model, found 1 in 'a'": {"layer": "colours"},
    "arms.0.weight: Input should be greater than 0": {"arms": [{**ARMS[0], "weight": 0}, ARMS[1]]},
    r"first \+ share must be at most 1": {"first": 0.6, "share": 0.5},
    "share: Input should be greater than 0": {"share": 0},
    "wieght: Extra inputs are not permitted": {"arms": [{**ARMS[0], "wieght": 2}, ARMS[1]]},
    "looks.days must rise": {"looks": {"kind": "planned", "days": [14, 7, 28]}},
    "be absent elsewhere": {"looks": {"kind": "daily", "days": [28]}},
    "the last planned look must be on the last day, 28": {
        "looks": {"kind": "planned", "days": [7, 14]}
    },
    "metrics.primary": {"metrics": {"primary": "money"}},
    "days: Input should be greater than or equal to 1": {"days": 0},
    "days: Field required": {"days": None},
    "name must be the file's, 'one', found 'two'": {"name": "two"},
}


@pytest.mark.parametrize("problem", WRONG)
def test_a_wrong_definition_is_refused(
    define: Define, experiments: Experiments, problem: str
) -> None:
    define(**WRONG[problem])
    with pytest.raises(ConfigError, match=problem):
        experiments.start("one", DAY)
    assert experiments.records == []


def test_what_is_not_there_or_no_toml_is_refused(experiments: Experiments) -> None:
    with pytest.raises(NotFoundError, match="must be defined"):
        experiments.start("one", DAY)
    (experiments.folder / "one.toml").write_text("days = ")
    with pytest.raises(ConfigError, match="must be TOML"):
        experiments.start("one", DAY)
    with pytest.raises(NotFoundError, match="a folder of experiments must be there"):
        Experiments(experiments.folder / "none").start("one", DAY)
    assert Experiments(experiments.folder / "none").on(DAY) == []


def test_arms_of_another_layer_name_no_model(define: Define, experiments: Experiments) -> None:
    define(layer="colours", arms=[{"name": "a"}, {"name": "b"}])
    assert experiments.start("one", DAY).definition.layer == "colours"


def test_configurations_beside_them_are_no_experiments(
    define: Define, experiments: Experiments
) -> None:
    define("one")
    define("two")
    assert experiments.defined == ["one", "two"]


def test_a_record_goes_from_start_to_end(define: Define, experiments: Experiments) -> None:
    define(start=DAY + timedelta(days=1))
    started = experiments.start("one", DAY)
    assert started == experiments.record("one") == Running.of(started.to_json())
    assert started.started == DAY + timedelta(days=1)
    assert started.holdout == Holdout(0.1, "service")
    assert started.configs == {"b": {"model": {"name": "popularity"}}}
    days = [DAY + timedelta(days=n) for n in range(10)]
    assert [started.runs_on(day) for day in days] == [False] + [True] * 9
    ended = experiments.stop("one", days[5], "a guardrail")
    assert [day for day in days if ended.runs_on(day)] == days[1:5]
    assert (ended.because, ended.day_number(days[5])) == ("a guardrail", 5)
    assert experiments.on(days[4]) == [ended]
    assert experiments.on(days[5]) == []


def test_a_start_must_not_be_over_or_a_second_one(define: Define, experiments: Experiments) -> None:
    define(start=DAY - timedelta(days=1))
    with pytest.raises(ConfigError, match="start must be 2027-01-18 or later, found 2027-01-17"):
        experiments.start("one", DAY)
    define()
    experiments.start("one", DAY)
    for _ in range(2):
        with pytest.raises(ConflictError, match="an experiment is started once"):
            experiments.start("one", DAY)
        if experiments.record("one").ended is None:
            experiments.stop("one", DAY, "enough")


def test_the_record_counts_and_not_the_edited_file(
    define: Define, experiments: Experiments
) -> None:
    define()
    before = experiments.start("one", DAY).allocation(DAY)
    define(salt="other", share=0.5)
    (experiments.folder / "b.toml").write_text('[model]\nname = "ease"\n')
    found = experiments.record("one")
    assert found.allocation(DAY) == before
    assert found.configs["b"] == {"model": {"name": "popularity"}}


def test_a_larger_share_is_taken_over_from_its_day_on(
    define: Define, experiments: Experiments
) -> None:
    define(share=0.2)
    experiments.start("one", DAY)
    define(share=0.6, plan={"days": 28})
    changed = experiments.change("one", DAY + timedelta(days=3))
    shares = [changed.allocation(DAY + timedelta(days=n)).share for n in (0, 2, 3, 9)]
    assert shares == [0.2, 0.2, 0.6, 0.6]
    assert experiments.record("one").definition.plan == {"days": 28}


REFUSED: dict[str, dict[str, Any]] = {
    "a share below 0.5": {"share": 0.4},
    "salt": {"salt": "other"},
    "layer, arms": {"layer": "colours", "arms": [{"name": "a"}, {"name": "b"}]},
    "first": {"first": 0.1},
    "days": {"days": 35},
    "control": {"control": "b"},
    "arms": {"arms": [{**ARMS[0], "weight": 2}, ARMS[1]]},
    "looks": {"looks": {"alpha": 0.1}},
    "metrics": {"metrics": {"primary": "watch-time"}},
    "cap": {"cap": {"daily_views": 3}},
}


@pytest.mark.parametrize("found", REFUSED)
def test_any_other_change_of_a_running_one_is_refused(
    define: Define, experiments: Experiments, found: str
) -> None:
    define(share=0.5)
    before = experiments.start("one", DAY)
    define(**{"share": 0.5, **REFUSED[found]})
    with pytest.raises(ConfigError, match=f"only rise, found {found}; put it back, or stop"):
        experiments.change("one", DAY)
    assert experiments.record("one") == before


def test_another_configuration_of_an_arm_is_refused(
    define: Define, experiments: Experiments
) -> None:
    define()
    experiments.start("one", DAY)
    (experiments.folder / "b.toml").write_text('[model]\nname = "ease"\n')
    with pytest.raises(ConfigError, match="found config of b; put it back"):
        experiments.change("one", DAY)
    (experiments.folder / "b.toml").unlink()
    with pytest.raises(ConfigError, match=r"b\.toml: the configuration of an arm must be"):
        experiments.change("one", DAY)


def test_two_of_one_layer_must_not_overlap(define: Define, experiments: Experiments) -> None:
    define("one", share=0.5)
    define("two", first=0.4, share=0.2)
    define("three", first=0.5, share=0.5)
    define("colours", layer="colours", arms=[{"name": "a"}, {"name": "b"}])
    for name in ("one", "three", "colours"):
        experiments.start(name, DAY)
    with pytest.raises(ConflictError, match=r"found two from 0\.4 to 0\.6 and one from 0 to 0\.5"):
        experiments.start("two", DAY)
    define("one", share=0.51)
    with pytest.raises(ConflictError, match="must not overlap"):
        experiments.change("one", DAY)
    assert experiments.record("one").last_allocation.share == 0.5
    for name in ("one", "three"):
        experiments.stop(name, DAY + timedelta(days=7), "enough")
    with pytest.raises(ConflictError, match="must not overlap"):
        experiments.start("two", DAY + timedelta(days=6))
    experiments.start("two", DAY + timedelta(days=7))
    define("two", first=0.4, share=0.6)
    experiments.change("two", DAY + timedelta(days=8))


def test_what_has_ended_stays_so(define: Define, experiments: Experiments) -> None:
    define()
    with pytest.raises(NotFoundError, match="must have been started"):
        experiments.stop("one", DAY, "enough")
    experiments.start("one", DAY)
    with pytest.raises(ConfigError, match="must have its reason"):
        experiments.stop("one", DAY, " ")
    experiments.stop("one", DAY, "enough")
    with pytest.raises(ConflictError, match="found it ended on 2027-01-18"):
        experiments.stop("one", DAY, "more")
    with pytest.raises(ConflictError, match="found it ended on 2027-01-18"):
        experiments.change("one", DAY)


def test_a_damaged_record_is_told(define: Define, experiments: Experiments) -> None:
    define()
    experiments.start("one", DAY)
    path = experiments.folder / "one.json"
    told = json.loads(path.read_text())
    for damaged in ("{", json.dumps({**told, "schema": "other/1"}), json.dumps({"schema": 1})):
        path.write_text(damaged)
        with pytest.raises(ArtifactError, match=r"one\.json: must be the record"):
            experiments.on(DAY)


def test_a_folder_that_is_moved_is_the_same(
    define: Define, experiments: Experiments, tmp_path: Path
) -> None:
    define()
    started = experiments.start("one", DAY)
    shutil.copytree(experiments.folder, tmp_path / "moved")
    assert Experiments(tmp_path / "moved").record("one") == started
