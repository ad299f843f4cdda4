"""Eight weeks of a service whose catalogue changes, from events to lists in both stores."""

import json
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from coterie.jobs.config import Service
from coterie.jobs.weekly import WeeklyResult
from coterie.registry import Registry
from coterie.training.trained_model import TrainedModel
from small_service import FIRST, LIVING, N_WEEKS


@pytest.fixture(scope="module")
def told(eight_weeks: Path) -> list[dict[str, Any]]:
    """What came of each week."""
    found: list[dict[str, Any]] = json.loads((eight_weeks / "told.json").read_text())
    return found


def test_every_week_has_a_model_of_its_own_and_it_is_live(
    told: list[dict[str, Any]], eight_weeks: Path
) -> None:
    results = [WeeklyResult.of(one["weekly"]) for one in told]
    assert [result.to_json() for result in results] == [one["weekly"] for one in told]
    assert [result.week for result in results] == [
        FIRST + timedelta(weeks=n - 1) for n in range(N_WEEKS)
    ]
    assert [result.failed for result in results] == [[]] * N_WEEKS
    assert all(result.live == result.version for result in results)
    moves = Registry(eight_weeks / "registry").moves
    names = [result.version for result in results]
    assert [move.to for move in moves] == names
    assert [result.facts["parent"] for result in results] == [None, *names[:-1]]
    assert {move.by for move in moves} == {"weekly"}


def test_the_catalogue_changes_every_week_and_what_stays_is_carried_on(
    told: list[dict[str, Any]], eight_weeks: Path
) -> None:
    registry = Registry(eight_weeks / "registry")
    models = [TrainedModel.load(registry.version(one["weekly"]["version"]).model) for one in told]
    items = [set(model.items.ids_of(range(model.n_items))) for model in models]
    assert all(after - before for before, after in pairwise(items))
    assert any(before - after for before, after in pairwise(items))
    starts = [one["weekly"]["training"] for one in told]
    assert set(starts[0]["starts"]) == {"cold"}
    for training in starts[1:]:
        values = {name: one["validation"] for name, one in training["starts"].items()}
        assert values[training["start"]] == max(values.values())
    warm = [model for model, one in zip(models, starts, strict=True) if one["start"] == "warm"]
    assert warm
    assert all(model.provenance["items_carried"] > 40 for model in warm)


def test_both_stores_have_the_same_lists_of_everybody(told: list[dict[str, Any]]) -> None:
    for week, one in enumerate(told):
        sqlite, postgres = one["lists"]
        assert sqlite == postgres
        users = {name.split()[0] for name in sqlite} - {"nobody"}
        assert len(users) == one["daily"][0]["figures"]["users"]
        for result in one["daily"]:
            assert result["day"] == str(FIRST + timedelta(weeks=week))
            assert result["version"] == one["weekly"]["version"]


def test_no_list_has_a_title_twice_or_out_of_its_window(told: list[dict[str, Any]]) -> None:
    table = LIVING.titles(LIVING.last_day).to_pylist()
    windows = {one["item_id"]: (one["available_from"], one["available_until"]) for one in table}
    names = {one["item_id"]: one["title"] for one in table}
    kinds = {one["item_id"]: one["kind"] for one in table}
    for week, one in enumerate(told):
        day = FIRST + timedelta(weeks=week)
        for name, (items, scores, _, titles) in one["lists"][0].items():
            assert len(set(items)) == len(items)
            assert titles == [names[item] for item in items]
            assert scores == sorted(scores, reverse=True)
            assert all(is_open(windows[item], day) for item in items)
            if name.endswith("movies"):
                assert {kinds[item] for item in items} <= {"movie"}


def is_open(window: tuple[date | None, date | None], day: date) -> bool:
    first, until = window
    return (first is None or first <= day) and (until is None or day < until)


def test_the_service_is_as_it_says(eight_weeks: Path) -> None:
    assert sorted(path.name for path in eight_weeks.iterdir()) == [
        "coterie.toml",
        "events",
        "registry",
        "store",
        "titles.parquet",
        "told.json",
        "work",
    ]
    assert Service.load(eight_weeks).config.model.name == "linear-path-vae"
