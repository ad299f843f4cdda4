"""The weekly job: what it trains on and keeps, and that stopping it anywhere changes nothing."""

import json
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.errors import ConflictError, DataError, Interrupted
from coterie.jobs.config import Service, days_of
from coterie.jobs.daily import daily
from coterie.jobs.events import seconds
from coterie.jobs.weekly import WeeklyResult, locked, weekly
from coterie.registry import Registry
from coterie.running.interrupt import stoppable
from coterie.running.progress import Update
from coterie.training.trained_model import TrainedModel
from small_service import (
    FIRST,
    LAST,
    LIVING,
    MONDAY,
    TINY,
    at,
    configure,
    copy_of,
    store_of,
    write_events,
)

NEXT = LAST + timedelta(weeks=1)
TINY_GATES = {"gates": TINY["gates"]}


@pytest.fixture(scope="module")
def before(eight_weeks: Path, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """Eight weeks, and the days of a ninth; to be copied, not changed."""
    service = copy_of(Service.load(eight_weeks), tmp_path_factory.mktemp("ninth") / "before")
    LIVING.write(service.folder, LAST, NEXT - timedelta(days=1))
    return service


@pytest.fixture(scope="module")
def ninth(before: Service) -> tuple[Service, WeeklyResult]:
    """The ninth week as it is when nothing comes between; not to be changed."""
    service = copy_of(before, before.folder.with_name("after"))
    return service, weekly(service, NEXT, device="cpu")


def work_of(service: Service) -> Path:
    year, week, _ = LAST.isocalendar()
    return service.work / "weekly" / f"{year}-W{week:02}"


def test_the_candidate_has_seen_nothing_of_the_test_days(
    ninth: tuple[Service, WeeklyResult],
) -> None:
    data = Dataset.load(work_of(ninth[0]) / "data")
    times, cut = data.interactions.timestamps, seconds(LAST)
    assert times is not None
    parts = data.split.interaction_part
    assert times[parts != Part.TEST].max() < cut <= times[parts == Part.TEST].min()
    assert times.max() < seconds(NEXT)
    assert (np.bincount(data.train.indices, minlength=data.n_items) > 0).all()
    validated = np.count_nonzero(data.split.user_part == Part.VALIDATION)
    trained = np.count_nonzero(data.split.user_part == Part.TRAIN)
    assert 0.05 < validated / (validated + trained) <= 0.1


def test_the_version_has_seen_everything(ninth: tuple[Service, WeeklyResult]) -> None:
    service, result = ninth
    everything = Dataset.load(work_of(service) / "everything")
    assert (everything.split.user_part == Part.TRAIN).all()
    assert (everything.split.interaction_part == Part.TRAIN).all()
    times = everything.interactions.timestamps
    assert times is not None
    assert seconds(LAST) <= times.max() < seconds(NEXT)
    version = Registry(service.registry).version(result.version)
    assert version.card["data"] == everything.fingerprint
    model = TrainedModel.load(version.model)
    np.testing.assert_array_equal(model.items.values, everything.items.values)


def test_the_card_says_where_a_version_comes_from(ninth: tuple[Service, WeeklyResult]) -> None:
    service, result = ninth
    registry = Registry(service.registry)
    version, parent = registry.version(result.version), registry.moves[-2].to
    card = version.card
    model = TrainedModel.load(version.model)
    assert registry.moves[-1].was == card["parent"] == parent
    assert card["fingerprint"] == model.fingerprint
    assert card["config"] == model.config.as_json()
    assert (card["week"], card["metric"], card["failed"]) == (str(LAST), "ndcg@20", [])
    first = NEXT - timedelta(days=TINY["prepare"]["window_days"])
    assert card["window"] == [str(first), str(NEXT - timedelta(days=1))]
    assert [one["name"] for one in card["gates"]] == [gate.name for gate in result.gates]
    assert "@" in card["by"]
    others = [move.to for move in registry.moves[:-2]]
    assert set(card["against"]) == {"popularity", "ease", "live", *others}
    assert set(card["training"]["starts"]) == {"warm", "cold"}
    if card["training"]["start"] == "warm":
        before = registry.version(parent)
        assert model.provenance["parent"] == before.card["fingerprint"]


def state(folder: Path) -> dict[str, int]:
    """Every file and when it was written, but for locks and notes of when a job ran."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock" and "attempts" not in path.parts
    }


def test_the_same_week_again_changes_nothing(ninth: tuple[Service, WeeklyResult]) -> None:
    service, result = ninth
    before = state(service.folder)
    assert weekly(service, NEXT + timedelta(days=3), device="cpu").to_json() == result.to_json()
    assert state(service.folder) == before


def test_stopping_it_anywhere_gives_the_same_version(
    before: Service, ninth: tuple[Service, WeeklyResult], tmp_path: Path
) -> None:
    service = copy_of(before, tmp_path / "service")
    live = Registry(service.registry).live
    stops = ["collecting", "train", "training linear-path-vae", "measure", "refit", "golden"]
    for words in stops:
        with pytest.raises(Interrupted), stoppable():
            weekly(service, NEXT, device="cpu", progress=stop_at(words))
        assert Registry(service.registry).live == live
    result = weekly(service, NEXT, device="cpu")
    uninterrupted = ninth[1]
    assert result.version == uninterrupted.version
    assert result.gates == uninterrupted.gates
    assert result.live == result.version
    cards = [Registry(one.registry).version(result.version).card for one in (service, ninth[0])]
    differ = ("created", "seconds")
    same = [{name: card[name] for name in card if name not in differ} for card in cards]
    assert same[0] == same[1]


def stop_at(words: str) -> Callable[[Update], None]:
    """SIGTERM as work with these words is told for the first time."""
    told: list[Update] = []

    def progress(update: Update) -> None:
        if words in update.work and not told:
            told.append(update)
            signal.raise_signal(signal.SIGTERM)

    return progress


def test_a_week_of_the_past_is_held_against_what_had_not_seen_it_and_moves_nothing(
    ninth: tuple[Service, WeeklyResult], tmp_path: Path
) -> None:
    service = copy_of(ninth[0], tmp_path / "service")
    registry = Registry(service.registry)
    moves, past = registry.moves, LAST - timedelta(weeks=2)
    result = weekly(service, past, cold=True, device="cpu")
    assert set(result.facts["training"]["starts"]) == {"cold"}
    assert result.facts["parent"] == moves[(past - FIRST).days // 7 - 1].to
    names = {move.to: move for move in moves}
    others = [name for name in result.facts["against"] if name in names]
    assert others == [move.to for move in moves[1 : (past - FIRST).days // 7 - 1]]
    assert registry.moves == moves
    assert result.live == moves[-1].to


EASE = {"model": {"name": "ease"}, "prepare": {"min_user_items": 3}, **TINY_GATES}
MONDAYS = [FIRST + timedelta(weeks=n) for n in (-1, 0, 1)]


@pytest.fixture(scope="module")
def two_weeks(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A closed form trained in two weeks, and the days of a third; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("two") / "weeks"
    LIVING.write(folder, MONDAY, MONDAYS[2] - timedelta(days=1))
    service = configure(folder, EASE)
    for monday in MONDAYS[:2]:
        weekly(service, monday, device="cpu")
    return service


def names_of(service: Service) -> list[str]:
    return [one.name for one in Registry(service.registry).versions]


def test_of_earlier_weeks_only_terms_and_result_stay(two_weeks: Service) -> None:
    earlier, newest = sorted((two_weeks.work / "weekly").iterdir())
    assert {path.name for path in earlier.iterdir()} == {"week.json", "result.json"}
    assert (newest / "refit" / "model" / "manifest.json").exists()


def test_the_same_model_under_looser_gates_is_another_version(
    two_weeks: Service, tmp_path: Path
) -> None:
    service, second = copy_of(two_weeks, tmp_path / "service"), names_of(two_weeks)[1]
    gates = {**TINY["gates"], "coverage": 1.0, "distinct": 1.0}
    strict = weekly(configure(service.folder, EASE, gates=gates), MONDAYS[2], device="cpu")
    assert {gate.name for gate in strict.failed} <= {"coverage", "distinct"}
    assert strict.failed
    assert strict.live == second
    loose = weekly(configure(service.folder, EASE), MONDAYS[2], device="cpu")
    assert loose.live == loose.version != strict.version
    cards = {one.name: one.card for one in Registry(service.registry).versions}
    assert cards[strict.version]["fingerprint"] == cards[loose.version]["fingerprint"]
    assert json.loads((service.work / "weekly" / "2026-W06" / "result.json").read_text())


def test_a_model_that_has_seen_a_part_of_the_test_days_is_no_rival(
    two_weeks: Service, tmp_path: Path
) -> None:
    """With two weeks of test the second model has seen the first of them, the first model none;
    with a day more both have.
    """
    service, (first, second) = copy_of(two_weeks, tmp_path / "service"), names_of(two_weeks)
    found = [
        weekly(
            configure(service.folder, EASE, prepare={"min_user_items": 3, "test_days": days}),
            MONDAYS[2],
            device="cpu",
        ).facts
        for days in (14, 15)
    ]
    assert [one["parent"] for one in found] == [first, None]
    assert second not in found[0]["against"]
    assert set(found[1]["against"]) == {"popularity", "ease"}


def test_the_week_after_a_rollback_goes_on_from_what_was_gone_back_to(
    two_weeks: Service, tmp_path: Path
) -> None:
    service, (first, second) = copy_of(two_weeks, tmp_path / "service"), names_of(two_weeks)
    registry = Registry(service.registry)
    registry.rollback(by="ann", because="lists look odd")
    assert weekly(service, MONDAYS[1], device="cpu").live == first
    third = weekly(service, MONDAYS[2], device="cpu")
    assert third.facts["parent"] == first
    assert set(third.facts["against"]) == {"popularity", "ease", "live"}
    assert third.live == third.version
    assert registry.lived == [first, third.version]
    assert second in names_of(service)


def test_nobody_to_measure_on_says_so(tmp_path: Path) -> None:
    """Everybody of the last days is new."""
    for day in days_of(MONDAY, MONDAY + timedelta(weeks=2)):
        first = 1 if day < MONDAY + timedelta(weeks=1) else 100
        write_events(
            tmp_path,
            day,
            [(user, item, at(day)) for user in range(first, first + 30) for item in range(6)],
        )
    service = configure(tmp_path, {"model": {"name": "ease"}})
    with pytest.raises(DataError, match="lengthen test_days"):
        weekly(service, MONDAY + timedelta(weeks=2), device="cpu")


def test_users_whose_ids_are_text_from_some_day_on_are_the_same_users(tmp_path: Path) -> None:
    """Whole numbers in the first week, then text, with "u17" and "017" beside 17."""
    stop, rng = MONDAY + timedelta(weeks=2), np.random.default_rng(0)
    expected: dict[str, set[int]] = {}
    for day in days_of(MONDAY, stop):
        is_text = day >= MONDAY + timedelta(weeks=1)
        users = [*range(1, 31), *(["u17", "017"] if is_text else [])]
        rows = [(user, int(item), at(day)) for user in users for item in rng.integers(0, 20, 3)]
        write_events(tmp_path, day, [(str(row[0]), *row[1:]) for row in rows] if is_text else rows)
        for user, item, _ in rows:
            expected.setdefault(str(user), set()).add(item)
    service = configure(tmp_path, {"model": {"name": "ease"}, "gates": PASSING})
    result = weekly(service, stop, device="cpu")
    assert result.live == result.version
    everything = Dataset.load(service.work / "weekly" / "2026-W03" / "everything")
    x = everything.interactions
    rows_of = zip(everything.users.values.to_pylist(), x.indptr, x.indptr[1:], strict=False)
    assert {
        user: set(everything.items.ids_of(x.indices[first:end])) for user, first, end in rows_of
    } == expected
    assert daily(service, stop).figures["users"] == len(expected) == 32
    with store_of(service) as store:
        found = {user: store.find(user) for user in ("17", "u17", "017")}
        assert found["17"] == store.find(17)
    for user, one in found.items():
        assert one is not None
        assert set(one.item_ids) == set(everything.items.values.to_pylist()) - expected[user]


PASSING = {
    "volume": [0.0, 99.0],
    "margin_baseline": 9.0,
    "distinct": 0.0,
}


@pytest.mark.parametrize(
    ("n_users", "n_items", "words"),
    [
        (9, 6, "it takes 10 users with a history before 2026-01-12, at least one of them of 5"
         " items; found 9 users, 9 of them with so many items; wait for more events"),
        (30, 4, "found 30 users, 0 of them with so many items"),
    ],
)  # fmt: skip
def test_nobody_to_choose_epochs_on_says_how_many_it_takes(
    tmp_path: Path, n_users: int, n_items: int, words: str
) -> None:
    for day in days_of(MONDAY, MONDAY + timedelta(weeks=2)):
        rows = [(user, item, at(day)) for user in range(n_users) for item in range(n_items)]
        write_events(tmp_path, day, rows)
    service = configure(tmp_path, {"prepare": {"min_user_items": 3}})
    with pytest.raises(DataError, match=words):
        weekly(service, MONDAY + timedelta(weeks=2), device="cpu")


def test_no_events_and_another_at_work(tmp_path: Path) -> None:
    service = configure(tmp_path, {})
    with pytest.raises(DataError, match=r"check events\.path"):
        weekly(service, FIRST, device="cpu")
    with locked(service, "weekly"), pytest.raises(ConflictError, match="another weekly run"):
        weekly(service, FIRST, device="cpu")
