"""The weekly and the daily job as Dagster's assets, with partitions and schedules.

A file of two lines gives Dagster all of it::

    from coterie.jobs.dagster_assets import definitions

    defs = definitions("service")

Dagster's own weeks begin on Sunday; these begin on Monday, as the jobs' do. A day's lists are made
by the live model: its own week's model does not exist yet, so no asset depends on the other.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from coterie.errors import CoterieError, UnavailableError
from coterie.extras import require
from coterie.jobs.config import Service, monday
from coterie.jobs.daily import daily
from coterie.jobs.gates import table
from coterie.jobs.schedule import crontab
from coterie.jobs.weekly import WeeklyResult, weekly

require("dagster", "dagster", "running the jobs by Dagster")
import dagster as dg  # noqa: E402 - after the message that says how to install it

FIRST = date(2026, 1, 5)


def definitions(folder: str | Path, *, first: date = FIRST) -> dg.Definitions:
    """A service's assets, the jobs that make them, and their schedules in UTC.

    The file of the service is read now for its name and its schedule, and again by each run.

    Args:
        folder: The service's.
        first: The weeks and days from the Monday of this one on are partitions. Moving it forward
            hides older ones in Dagster, and touches nothing that was published.

    Raises:
        NotFoundError: if there is no service.
        ConfigError: naming every field that is wrong.
        MissingPackageError: when this module is imported, if dagster is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "coterie.toml").write_text('name = "films"')
        ...     found = definitions(folder)
        >>> [one.cron_schedule for one in found.schedules]
        ['0 3 * * 1', '0 5 * * *']
    """
    service = Service.load(Path(folder).absolute())
    assets = [_weekly_asset(service, monday(first)), _daily_asset(service, monday(first))]
    times, keys = crontab(service), {"weekly": week_that_ended, "daily": date.isoformat}
    jobs = {job: _job(service, job, asset) for job, asset in zip(times, assets, strict=True)}
    schedules = [_schedule(jobs[job], times[job], keys[job]) for job in times]
    return dg.Definitions(assets=assets, jobs=list(jobs.values()), schedules=schedules)


def week_that_ended(day: date) -> str:
    """The Monday of the last whole week before a day: the partition's key.

    Example:
        >>> week_that_ended(date(2026, 11, 28)), week_that_ended(date(2026, 11, 30))
        ('2026-11-16', '2026-11-23')
    """
    return (monday(day) - timedelta(weeks=1)).isoformat()


def _weekly_asset(service: Service, first: date) -> dg.AssetsDefinition:
    weeks = dg.WeeklyPartitionsDefinition(first.isoformat(), day_offset=1, timezone="UTC")

    def model(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        """The model of a week, registered, and live if it passes its gates."""
        stop = date.fromisoformat(context.partition_key) + timedelta(weeks=1)
        with _told():
            result = weekly(Service.load(service.folder), stop)
        if result.failed:
            reasons = "; ".join(map(str, result.failed))
            raise dg.Failure(
                f"{result.version} is registered and not live ({result.live or 'no model'} stays):"
                f" {reasons}.",
                metadata=of_week(result),
                allow_retries=False,
            )
        return dg.MaterializeResult(metadata=of_week(result))

    return _asset(service, model, weeks)


def _daily_asset(service: Service, first: date) -> dg.AssetsDefinition:
    # A day's lists are made on the day, before it has ended.
    days = dg.DailyPartitionsDefinition(first.isoformat(), timezone="UTC", end_offset=1)

    def lists(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        """Everybody's lists for a day, published."""
        with _told():
            result = daily(Service.load(service.folder), date.fromisoformat(context.partition_key))
        for warning in result.warnings:
            context.log.warning(warning)
        told = {"version": result.version, "warnings": len(result.warnings), **result.figures}
        metadata = _numbers(told) | {"result": dg.MetadataValue.json(result.to_json())}
        return dg.MaterializeResult(metadata=metadata)

    return _asset(service, lists, days)


def _asset(
    service: Service,
    make: Callable[[dg.AssetExecutionContext], dg.MaterializeResult[None]],
    partitions: dg.TimeWindowPartitionsDefinition,
) -> dg.AssetsDefinition:
    """Under the service's name; what may work later is tried again."""
    again = dg.RetryPolicy(max_retries=2, delay=300)
    key = [_name(service), make.__name__]
    return dg.asset(
        make,
        key=key,
        description=make.__doc__,
        partitions_def=partitions,
        retry_policy=again,
        group_name=_name(service),
        # Dagster keeps no value: what is made lies in the registry and in the store.
        dagster_type=dg.Nothing,
    )


def _job(service: Service, job: str, asset: dg.AssetsDefinition) -> Any:
    return dg.define_asset_job(f"{_name(service)}_{job}", selection=[asset])


def _schedule(job: Any, cron: str, key: Callable[[date], str]) -> dg.ScheduleDefinition:
    @dg.schedule(job=job, cron_schedule=cron, execution_timezone="UTC", name=f"{job.name}_schedule")
    def due(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(partition_key=key(context.scheduled_execution_time.date()))

    return due


@contextmanager
def _told() -> Iterator[None]:
    """Errors of ours as Dagster shows them: in their own words."""
    try:
        yield
    except CoterieError as error:
        raise dg.Failure(
            str(error),
            metadata={"exit_code": error.exit_code},
            allow_retries=isinstance(error, UnavailableError),
        ) from error


def of_week(result: WeeklyResult) -> dict[str, Any]:
    """What Dagster shows of a weekly run."""
    test, training = result.facts["test"], result.facts["training"]
    told = {
        "version": result.version,
        "live": result.live,
        "start": training["start"],
        "seconds": result.facts["seconds"]["all"],
        **{f"test/{name}": value for name, value in test.items()},
    }
    gates = dg.MetadataValue.md(f"```text\n{table(result.gates)}\n```")
    return _numbers(told) | {"gates": gates, "result": dg.MetadataValue.json(result.to_json())}


def _numbers(told: Mapping[str, Any]) -> dict[str, Any]:
    """Dagster draws numbers over time; what is absent is left out."""
    return {name: value for name, value in told.items() if value is not None}


def _name(service: Service) -> str:
    """The service's, of the signs that Dagster takes."""
    return "".join(one if one.isalnum() and one.isascii() else "_" for one in service.config.name)
