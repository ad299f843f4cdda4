"""A service: begun, checked, run week by week and day by day, and looked after."""

import getpass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.cli.console import drawn, out, say, say_written, write_result
from coterie.cli.options import Device, Engine, JsonFile
from coterie.errors import ConfigError, GateError, WarningsError

if TYPE_CHECKING:
    from coterie.jobs.config import Service

verbs = typer.Typer()

ServiceFolder = Annotated[
    Path, typer.Argument(metavar="SERVICE", help="Folder with coterie.toml, from init.")
]
Day = Annotated[
    str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="As if it were this day (UTC).")
]
Because = Annotated[str | None, typer.Option(help="Why; it is kept with the move.")]


def day_of(text: str | None) -> date:
    """A date of an option, or today in UTC."""
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"a date must be as in 2026-11-28, found {text!r}.") from error


def service_of(folder: Path) -> "Service":
    """The service of a folder."""
    from coterie.jobs.config import Service  # noqa: PLC0415

    return Service.load(folder)


@verbs.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="SERVICE", help="New folder.")],
    events: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Own events, a folder or file a day whose name bears the date."
        ),
    ] = None,
    titles: Annotated[
        str | None, typer.Option(metavar="FILE", help="Own titles, Parquet or CSV.")
    ] = None,
    day: Day = None,
) -> None:
    """Begin a service: its commented coterie.toml, on own events or on simulated ones."""
    from coterie.jobs.setup import Sources, begin  # noqa: PLC0415

    if titles is not None and events is None:
        raise ConfigError("--titles go with --events, found none; name the events, too.")
    sources = None if events is None else Sources(events, titles)
    with drawn() as progress:
        begin(folder, day_of(day), sources, progress=progress)
    say_written("service", folder, "coterie.toml says what it does; next: coterie validate, weekly")


@verbs.command()
def validate(folder: ServiceFolder, day: Day = None, json_file: JsonFile = None) -> None:
    """Say what is wrong with a service before anything runs: every field, source and place."""
    from coterie.jobs.probe import probe  # noqa: PLC0415

    found = probe(service_of(folder), day_of(day))
    for one in found:
        out.print("ok   " if one.ok else "WRONG", style="green" if one.ok else "red", end=" ")
        say(f"{one.name}: {one.found}")
    write_result(json_file, [vars(one) for one in found])
    wrong = [one.name for one in found if not one.ok]
    if wrong:
        raise ConfigError(f"{folder}: must be right in every part, wrong: {', '.join(wrong)}.")


@verbs.command()
def weekly(
    folder: ServiceFolder,
    day: Day = None,
    cold: Annotated[bool, typer.Option("--cold", help="Train anew, not from the live model.")] = (
        False
    ),
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Train on the newest whole week, hold it against the gates, make it live if it passes."""
    from coterie.jobs.gates import table  # noqa: PLC0415
    from coterie.jobs.weekly import weekly as run_weekly  # noqa: PLC0415
    from coterie.running.execution import Execution  # noqa: PLC0415

    execution = Execution.of(device).resolved()
    with drawn() as progress:
        result = run_weekly(
            service_of(folder), day_of(day), cold=cold, device=execution, progress=progress
        )
    say(table(result.gates))
    write_result(json_file, result.to_json())
    if result.failed:
        reasons = "; ".join(map(str, result.failed))
        raise GateError(
            f"{result.version} is registered and not live ({result.live or 'no model'} stays):"
            f" {reasons}."
        )
    say_written("live", result.live)


@verbs.command()
def daily(
    folder: ServiceFolder,
    day: Day = None,
    engine: Annotated[Engine, typer.Option(help="Who scores: this process, or Ray.")] = (
        Engine.LOCAL
    ),
    json_file: JsonFile = None,
) -> None:
    """Publish everybody's lists of a day; the same day again changes nothing."""
    from coterie.jobs.daily import daily as run_daily  # noqa: PLC0415

    with drawn() as progress:
        result = run_daily(service_of(folder), day_of(day), engine=engine.value, progress=progress)
    write_result(json_file, result.to_json())
    for warning in result.warnings:
        out.print("warning", style="yellow", end=" ")
        say(warning)
    what = "published" if result.published else "there already"
    say_written(what, result.day, f"{result.figures['users']:,} users, {result.version}")


@verbs.command()
def status(folder: ServiceFolder, day: Day = None, json_file: JsonFile = None) -> None:
    """How a service does: live model, last jobs, what is published; 11 if something warns."""
    from coterie.jobs.status import status as look  # noqa: PLC0415

    found = look(service_of(folder), day_of(day))
    say(str(found))
    write_result(json_file, found.to_json())
    if not found.ok:
        raise WarningsError(
            f"{folder}: must have nothing to warn of, found {len(found.warnings)}, as said above."
        )


@verbs.command()
def models(folder: ServiceFolder, json_file: JsonFile = None) -> None:
    """List the versions of a service's model, and which is live."""
    from coterie.plain_table import plain_table  # noqa: PLC0415
    from coterie.registry import Registry  # noqa: PLC0415

    registry = Registry(service_of(folder).registry)
    live, versions = registry.live, registry.versions
    rows = [
        [
            version.name,
            "live" if version == live else "",
            version.card["training"]["start"],
            f"{version.card['test'][version.card['metric']]:.4f}",
            ", ".join(version.card["failed"]) or "passed",
        ]
        for version in versions
    ]
    metric = versions[-1].card["metric"] if versions else "test"
    say(plain_table(["version", "", "start", metric, "gates"], rows, [False] * 3 + [True, False]))
    told = [{"version": one.name, "live": one == live, **one.card} for one in versions]
    write_result(json_file, told)


@verbs.command()
def promote(
    folder: ServiceFolder,
    version: Annotated[str, typer.Argument(help="Its name, as coterie models lists it.")],
    force: Annotated[bool, typer.Option("--force", help="Also one that failed a gate.")] = False,
    because: Because = None,
) -> None:
    """Make a version live."""
    from coterie.registry import Registry  # noqa: PLC0415

    registry = Registry(service_of(folder).registry)
    move = registry.promote(version, by=getpass.getuser(), force=force, because=because)
    say_written("live", move.to, f"before: {move.was or 'none'}")


@verbs.command()
def rollback(
    folder: ServiceFolder,
    day: Annotated[
        str | None,
        typer.Option("--day", metavar="YYYY-MM-DD", help="Lists of an earlier day, not the model."),
    ] = None,
    because: Because = None,
) -> None:
    """Go back to the model that was live before, or to an earlier day's lists."""
    service = service_of(folder)
    if day is None:
        from coterie.registry import Registry  # noqa: PLC0415

        move = Registry(service.registry).rollback(by=getpass.getuser(), because=because)
        say_written("live", move.to, f"before: {move.was}")
        return
    from coterie.store import open_store  # noqa: PLC0415

    with open_store(service.place(service.config.store.url)) as store:
        say_written("published", store.point(day_of(day).isoformat()).name)


@verbs.command()
def schedule(
    folder: ServiceFolder,
    cron: Annotated[bool, typer.Option("--cron", help="Lines for crontab -e.")] = False,
    systemd: Annotated[bool, typer.Option("--systemd", help="Services and timers.")] = False,
    dagster: Annotated[bool, typer.Option("--dagster", help="A file of definitions.")] = False,
) -> None:
    """Print what to install so that the jobs run by themselves."""
    from coterie.jobs import schedule as schedules  # noqa: PLC0415

    asked = {schedules.cron: cron, schedules.systemd: systemd, schedules.dagster: dagster}
    if sum(asked.values()) != 1:
        raise ConfigError(
            f"one of --cron, --systemd and --dagster must be given, found {sum(asked.values())}."
        )
    (tell,) = (one for one, given in asked.items() if given)
    say(tell(service_of(folder)).rstrip())
