"""Arms in the daily job: everybody's list is the one that the model of their arm gives alone."""

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tomlkit

from coterie.errors import NotFoundError
from coterie.experiment import Assignment, assigner_of
from coterie.jobs.arms import start_experiment
from coterie.jobs.config import Service
from coterie.jobs.daily import daily
from coterie.jobs.status import status
from coterie.jobs.weekly import weekly
from coterie.registry import Registry, Version
from serving_parts import KEY, running_server
from small_service import FIRST, LIVING, MONDAY, TINY, Lists, all_lists, configure, store_of

NAME = "baseline"
ARMS: list[dict[str, Any]] = [
    {"name": "model", "version": "live"},
    {"name": "watched", "config": "watched.toml"},
]
GOOD: dict[str, Any] = {"days": 14, "control": "watched", "arms": ARMS}
DAY = FIRST + timedelta(days=1)


def define(service: Service, name: str = NAME, **changes: Any) -> None:
    folder = service.folder / "experiments"
    folder.mkdir(exist_ok=True)
    (folder / "watched.toml").write_text('[model]\nname = "most-watched"\nsegments = 2\n')
    (folder / f"{name}.toml").write_text(tomlkit.dumps({**GOOD, **changes}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service whose weekly job has trained its model and, beside it, an arm's."""
    service = configure(tmp_path_factory.mktemp("arms") / "service", TINY)
    define(service)
    LIVING.write(service.folder, MONDAY, DAY - timedelta(days=1))
    weekly(service, FIRST, device="cpu")
    return service.folder


@pytest.fixture
def service(trained: Path, tmp_path: Path) -> Service:
    shutil.copytree(trained, tmp_path / "service")
    return Service.load(tmp_path / "service")


def found(service: Service) -> Lists:
    with store_of(service) as store:
        return all_lists(store)


def facts(service: Service) -> dict[str, Any]:
    with store_of(service) as store:
        live = store.live()
    assert live is not None
    return dict(live.facts)


def of_arm(service: Service) -> Version:
    (version,) = (one for one in Registry(service.registry).versions if "arm" in one.card)
    return version


def alone(service: Service, version: str, folder: Path) -> Lists:
    """Everybody's lists by one model, which a copy of the service has live."""
    other = Service.load(shutil.copytree(service.folder, folder))
    shutil.rmtree(other.folder / "experiments")
    Registry(other.registry).promote(version, by="test")
    daily(other, DAY)
    return found(other)


def users_of(lists: Lists) -> list[int]:
    return sorted({int(name.split()[0]) for name in lists if name[0] != "n"})


def test_weekly_trains_an_arm_that_nobody_promotes(service: Service) -> None:
    registry, version = Registry(service.registry), of_arm(service)
    live = registry.live
    assert live is not None
    assert live != version
    assert version.card["arm"] == {"model": {"name": "most-watched", "segments": 2}}
    assert version.card["config"]["model"]["name"] == "most-watched"
    assert version.passed
    told = status(service, DAY)
    assert told.weekly is not None
    assert told.weekly["version"] == live.name
    before = sorted(path for path in service.registry.rglob("*.json"))
    weekly(service, FIRST, device="cpu")
    assert sorted(path for path in service.registry.rglob("*.json")) == before


def test_each_list_is_the_one_that_the_arms_model_gives_alone(
    service: Service, tmp_path: Path
) -> None:
    live, other = Registry(service.registry).live, of_arm(service)
    assert live is not None
    define(service, share=0.6)
    start_experiment(service, NAME, DAY)
    result = daily(service, DAY)
    assert (result.published, result.version) == (True, live.name)
    by = {one.name: alone(service, one.name, tmp_path / one.name) for one in (live, other)}
    assigner = service.experiments.assigner(DAY)
    lists, counts = found(service), dict.fromkeys(("model", "watched", "none"), 0)
    users = users_of(lists)
    assert users == users_of(by[live.name])
    for name, told in lists.items():
        user, _ = name.split()
        (arm,) = assigner.arms([user])["lists"] if user != "nobody" else [None]
        expected = by[other.name if arm and arm.arm == "watched" else live.name]
        assert told == expected[name], name
        counts["none" if arm is None else arm.arm] += 1
    assert min(counts.values()) > 100
    assert any(by[live.name][f"{user} main"] != by[other.name][f"{user} main"] for user in users)


def test_facts_say_who_is_in_which_arm(service: Service) -> None:
    define(service, share=0.6)
    start_experiment(service, NAME, DAY)
    result = daily(service, DAY)
    (told,) = facts(service)["experiments"]
    lists, mine = found(service), service.experiments.assigner(DAY)
    users = users_of(lists)
    assert assigner_of(facts(service)).arms(users) == mine.arms(users)
    for arm, version in (("model", Registry(service.registry).live), ("watched", of_arm(service))):
        assert version is not None
        inside = [
            user
            for user, place in zip(users, mine.arms(users)["lists"], strict=True)
            if place == Assignment(NAME, arm)
        ]
        names = [f"{user} main" for user in inside]
        shown = {item for name in names for item in lists[name][0]}
        strangers = sum(lists[name][2] == "popularity" for name in names)
        about = told["arms"][arm]
        assert (about["version"], about["users"]) == (version.name, len(inside))
        assert about["fallback_share"] == pytest.approx(strangers / len(inside))
        n_items = pq.read_metadata(version.model / "items.parquet").num_rows
        assert about["coverage"] == pytest.approx(len(shown) / n_items)
    assert result.figures["users"] == len(users)


def test_the_same_day_twice_changes_nothing(service: Service) -> None:
    start_experiment(service, NAME, DAY)
    first = daily(service, DAY)
    lists, told = found(service), facts(service)
    second = daily(service, DAY)
    assert (first.published, second.published) == (True, False)
    assert (found(service), facts(service)) == (lists, told)
    assert not (service.work / "daily" / str(DAY)).exists()


def test_without_experiments_the_edition_is_what_it_was(service: Service, tmp_path: Path) -> None:
    """Also where one is defined and not started, is to start tomorrow, or has ended."""
    plain = Service.load(shutil.copytree(service.folder, tmp_path / "plain"))
    shutil.rmtree(plain.folder / "experiments")
    assert daily(plain, DAY).published
    assert "experiments" not in json.dumps(facts(plain))
    daily(service, DAY)
    define(service, "later", start=DAY + timedelta(days=1))
    start_experiment(service, "later", DAY)
    assert not daily(service, DAY).published
    service.experiments.stop("later", DAY, "not yet")
    start_experiment(service, NAME, DAY)
    assert daily(service, DAY).published
    assert found(service) != found(plain)
    service.experiments.stop(NAME, DAY, "a guardrail")
    assert daily(service, DAY).published
    assert found(service) == found(plain)
    assert facts(service)["request"] == facts(plain)["request"]


def test_an_answer_names_experiment_arm_and_model(service: Service) -> None:
    """Of a stranger, who gets the live model's fall-back, the arm all the same."""
    live, other = Registry(service.registry).live, of_arm(service)
    assert live is not None
    define(service, share=0.6)
    start_experiment(service, NAME, DAY)
    daily(service, DAY)
    lists, seen = found(service), set[Any]()
    url = service.place("sqlite:///store")
    with running_server(url, None, api_key=KEY) as server, server.client() as client:
        answers = [client.get(f"/recommendations/{user}").json() for user in range(1, 600)]
    for user, answer in enumerate(answers, start=1):
        (arm,) = service.experiments.assigner(DAY).arms([user])["lists"]
        told = answer["experiment"], answer["arm"]
        assert told == ((None, None) if arm is None else tuple(arm))
        is_others = arm is not None and arm.arm == "watched" and f"{user} main" in lists
        assert answer["model"] == (other.name if is_others else live.name)
        if f"{user} main" in lists:
            expected = lists[f"{user} main"][0]
            assert [one["item_id"] for one in answer["items"]] == expected
        seen.add((*told, answer["source"] == "fallback"))
    assert len(seen) == 6


def test_a_larger_share_keeps_everybodys_lists(service: Service) -> None:
    define(service, share=0.3)
    start_experiment(service, NAME, DAY)
    daily(service, DAY)
    before, users = found(service), users_of(found(service))
    small = service.experiments.assigner(DAY).arms(users)["lists"]
    define(service, share=0.9)
    service.experiments.change(NAME, DAY)
    assert daily(service, DAY).published
    after, large = found(service), service.experiments.assigner(DAY).arms(users)["lists"]
    for user, one, other in zip(users, small, large, strict=True):
        if one is not None:
            assert one == other
            assert after[f"{user} main"] == before[f"{user} main"]
    assert sum(one is None for one in large) < sum(one is None for one in small)


def test_who_is_held_out_gets_the_live_models_lists(service: Service, tmp_path: Path) -> None:
    live = Registry(service.registry).live
    assert live is not None
    by_live = alone(service, live.name, tmp_path / "alone")
    service = configure(service.folder, TINY, experiments={"holdout": 0.5, "salt": "small"})
    start_experiment(service, NAME, DAY)
    daily(service, DAY)
    lists, users = found(service), users_of(by_live)
    held = service.experiments.holdout.holds(users)
    assert 0.4 < held.mean() < 0.6
    for user, is_held in zip(users, held, strict=True):
        if is_held:
            assert lists[f"{user} main"] == by_live[f"{user} main"]


def test_a_day_that_was_killed_is_finished(service: Service) -> None:
    """Whatever of its parts is there already."""
    start_experiment(service, NAME, DAY)

    class Killed(Exception):
        pass

    def kill(update: Any) -> None:
        if "publishing" in update.work:
            raise Killed

    with pytest.raises(Killed):
        daily(service, DAY, progress=kill)
    parts = sorted((service.work / "daily" / str(DAY) / ".arms").glob("*/histories.parquet"))
    assert len(parts) == 2
    parts[0].unlink()
    assert daily(service, DAY).published
    other = Service.load(shutil.copytree(service.folder, service.folder.with_name("other")))
    shutil.rmtree(other.folder / "store")
    daily(other, DAY)
    assert found(service) == found(other)


def test_an_arm_without_a_model_is_told_before_it_starts(service: Service) -> None:
    for arm, problem in (
        ({"name": "b", "config": "ease.toml"}, "the arm 'b' must have a version of ease.toml"),
        ({"name": "b", "version": "none"}, "must hold the version asked for, 'none'"),
    ):
        (service.folder / "experiments" / "ease.toml").write_text('[model]\nname = "ease"\n')
        define(service, "new", control="b", arms=[ARMS[0], arm])
        with pytest.raises(NotFoundError, match=problem):
            start_experiment(service, "new", DAY)
    assert service.experiments.records == []


def test_an_arm_may_be_a_version_by_its_name(service: Service, tmp_path: Path) -> None:
    """And both arms may be the same model: an A/A test, in which nobody's list is another."""
    live, other = Registry(service.registry).live, of_arm(service)
    assert live is not None
    for name, version in (("same", live.name), ("other", other.name)):
        arms = [ARMS[0], {"name": "b", "version": version}]
        define(service, name, control="b", arms=arms)
        start_experiment(service, name, DAY)
        daily(service, DAY)
        is_as_alone = found(service) == alone(service, live.name, tmp_path / name)
        assert is_as_alone == (version == live.name)
        service.experiments.stop(name, DAY, "enough")


def test_a_version_that_an_arm_needs_is_kept(service: Service) -> None:
    registry, other = Registry(service.registry), of_arm(service)
    start_experiment(service, NAME, DAY)
    card = {**registry.versions[-1].card, "fingerprint": "0" * 64}
    card.pop("arm", None)
    for n in range(3):
        registry.register(f"later-{n}", other.model, card, passed=True)
    live = registry.live
    assert live is not None
    assert other.name not in registry.prune(1, needed={other.name})
    assert other.name in registry.prune(1)
    assert live in registry.versions
