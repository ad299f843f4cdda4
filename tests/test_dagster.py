"""The jobs as Dagster's assets: definitions, partitions, schedules, and one of each made."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from coterie.errors import ConfigError
from coterie.jobs.config import FILE, Service
from coterie.jobs.dagster_assets import definitions
from coterie.registry import Registry
from coterie.simulation.living import LivingService
from coterie.store import open_store

pytestmark = pytest.mark.filterwarnings("default")

FIRST, LAST = date(2026, 9, 7), date(2026, 10, 4)
WEEKLY, DAILY = dg.AssetKey(["films_7", "model"]), dg.AssetKey(["films_7", "lists"])
TOML = """
name = "films-7"

[prepare]
min_user_items = 2

[model]
name = "ease"

[gates]
metric = "ndcg@20"
margin_baseline = 0.5
volume = [0.0, 9.0]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service of four weeks."""
    folder = tmp_path_factory.mktemp("service")
    LivingService(n_users=300, n_items=80, weeks=4, seed=1, first_day=FIRST).write(
        folder, FIRST, LAST
    )
    (folder / FILE).write_text(TOML, encoding="utf-8")
    return folder


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run(
    folder: Path, asset: dg.AssetKey, key: str, instance: dg.DagsterInstance
) -> dg.ExecuteInProcessResult:
    """Makes one partition of an asset."""
    job = definitions(folder, first=FIRST).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        partition_key=key, asset_selection=[asset], instance=instance, raise_on_error=False
    )


def shown(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    """What Dagster shows beside the materialisation."""
    (event,) = result.get_asset_materialization_events()
    return {name: one.value for name, one in event.materialization.metadata.items()}


def failure(result: dg.ExecuteInProcessResult) -> Any:
    (event,) = [one for one in result.all_events if one.event_type_value == "STEP_FAILURE"]
    return event.step_failure_data


def test_definitions_load_and_say_when(folder: Path) -> None:
    found = definitions(folder, first=FIRST)
    dg.Definitions.validate_loadable(found)
    times = {one.name: one.cron_schedule for one in found.schedules or ()}  # type: ignore[union-attr]
    assert times == {"films_7_weekly_schedule": "0 3 * * 1", "films_7_daily_schedule": "0 5 * * *"}


def test_weeks_begin_on_monday_and_a_day_is_there_on_the_day(folder: Path) -> None:
    graph = definitions(folder, first=date(2026, 9, 9)).resolve_asset_graph()
    now = datetime(2026, 9, 29, 5, tzinfo=UTC)
    weeks, days = (graph.get(key).partitions_def for key in (WEEKLY, DAILY))
    with dg.partition_loading_context(effective_dt=now):
        assert weeks is not None
        assert weeks.get_partition_keys() == ["2026-09-07", "2026-09-14", "2026-09-21"]
        assert days is not None
        assert days.get_last_partition_key() == "2026-09-29"


def test_neither_asset_waits_for_the_other(folder: Path) -> None:
    graph = definitions(folder).resolve_asset_graph()
    assert not graph.get(DAILY).parent_keys
    assert not graph.get(WEEKLY).parent_keys


@pytest.mark.parametrize(("number", "key"), [(0, "2026-09-21"), (1, "2026-09-28")])
def test_schedules_ask_for_the_week_that_ended_and_for_today(
    folder: Path, number: int, key: str
) -> None:
    schedule = list(definitions(folder, first=FIRST).schedules or ())[number]
    assert isinstance(schedule, dg.ScheduleDefinition)
    due = datetime(2026, 9, 28, 5, tzinfo=UTC)
    asked = schedule(dg.build_schedule_context(scheduled_execution_time=due))
    assert isinstance(asked, dg.RunRequest)
    assert asked.partition_key == key


def test_a_week_and_a_day_are_made(folder: Path, instance: dg.DagsterInstance) -> None:
    week = run(folder, WEEKLY, "2026-09-21", instance)
    assert week.success
    kept = [event for event in week.all_events if event.event_type_value == "HANDLED_OUTPUT"]
    assert not kept
    version = shown(week)["version"]
    live = Registry(folder / "registry").live
    assert live is not None
    assert live.name == version == shown(week)["live"]
    assert "golden users" in str(shown(week)["gates"])
    day = run(folder, DAILY, "2026-09-29", instance)
    assert day.success
    assert shown(day)["version"] == version
    with open_store(f"sqlite:///{folder}/store") as store:
        edition = store.live()
        assert edition is not None
        assert (edition.name, edition.n_users) == ("2026-09-29", shown(day)["users"])


def test_a_failed_gate_fails_the_asset_and_says_why(
    folder: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    (tmp_path / "events").symlink_to(folder / "events")
    strict = TOML.replace("[gates]", "[gates]\ncoverage = 1.0\npopularity = 0.001")
    (tmp_path / FILE).write_text(strict, encoding="utf-8")
    week = run(tmp_path, WEEKLY, "2026-09-21", instance)
    assert not week.success
    told = failure(week)
    assert told.user_failure_data is not None
    assert "not live (no model stays): " in str(told.user_failure_data.description)
    assert "popularity: popularity of lists" in str(told.user_failure_data.description)
    assert "gates" in told.user_failure_data.metadata
    assert Registry(tmp_path / "registry").live is None


def test_an_error_of_ours_is_told_in_its_words(
    folder: Path, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    (tmp_path / FILE).write_text('name = "films-7"', encoding="utf-8")
    told = failure(run(tmp_path, DAILY, "2026-09-29", instance))
    assert told.user_failure_data is not None
    assert "a model must be live" in str(told.user_failure_data.description)
    assert told.user_failure_data.metadata["exit_code"].value == 6


def test_a_time_that_cannot_be_understood_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('[schedule]\ndaily = "noon"', encoding="utf-8")
    with pytest.raises(ConfigError, match="as in 05:00"):
        definitions(tmp_path)
    assert Service.load(folder).config.name == "films-7"
