"""Experiments of a service: planned, started, looked at, reported, stopped."""

from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.cli.console import drawn, say, say_written, write_result
from coterie.cli.options import JsonFile
from coterie.cli.places import result_file
from coterie.cli.service import Because, Day, ServiceFolder, day_of, service_of
from coterie.plain_table import plain_table

if TYPE_CHECKING:
    from coterie.experiment.running import Running
    from coterie.experiment.statistics import Plan

verbs = typer.Typer()
experiment_verbs = typer.Typer(
    no_args_is_help=True,
    help="Hold models against each other with users: plan, start, status, report, stop.",
)
verbs.add_typer(experiment_verbs, name="experiment")

_Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Of experiments/NAME.toml in the service.")
]
_LIFTS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2)


@experiment_verbs.command()
def plan(
    folder: ServiceFolder,
    name: _Name,
    day: Day = None,
    power: Annotated[
        float, typer.Option(min=0.1, max=0.99, help="Chance to find a lift that is there.")
    ] = 0.8,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="PNG", callback=result_file, help="Draw the power curves, too."),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Say what it can find, in how many days, from the weeks before. Nothing is started."""
    from coterie.experiment.figures import draw_power  # noqa: PLC0415
    from coterie.jobs.experiments import agreed_plan, plan_of  # noqa: PLC0415

    service = service_of(folder)
    definition = service.experiments.definition(name)
    yesterday = day_of(day) - timedelta(days=1)
    with drawn() as progress:
        found = plan_of(service, name, yesterday, progress=progress)
    kept = agreed_plan(found, definition, power)
    say(_lifts(found, definition.days, power))
    say("")
    say(_days(found, definition.days, power))
    say(f"\nKeep this in experiments/{name}.toml:\n\n[plan]")
    say("\n".join(f"{field} = {value:.6g}" for field, value in kept.items()))
    if plot is not None:
        draw_power(found, _lengths(found, definition.days), plot)
        say_written("written", plot)
    curve = [{"lift": lift, "power": found.power(lift, definition.days)} for lift in _LIFTS]
    write_result(json_file, {**kept, "days": definition.days, "power_curve": curve})


@experiment_verbs.command()
def start(folder: ServiceFolder, name: _Name, day: Day = None) -> None:
    """Start it: from its first day on, daily gives everybody the list of their arm."""
    from coterie.jobs.arms import start_experiment  # noqa: PLC0415

    running = start_experiment(service_of(folder), name, day_of(day))
    arms = ", ".join(f"{arm} {share:.0%}" for arm, share in running.definition.weights.items())
    say_written("starts", running.started, f"{name}: {arms}")


@experiment_verbs.command()
def status(folder: ServiceFolder, day: Day = None, json_file: JsonFile = None) -> None:
    """List all experiments: what runs, since when, and when the next look is."""
    experiments, today = service_of(folder).experiments, day_of(day)
    records = {one.name: one for one in experiments.records}
    names = sorted({*experiments.defined, *records})
    rows = [[name, *_state(records.get(name), today)] for name in names]
    header = ["experiment", "state", "day", "share", "next look"]
    say(plain_table(header, rows) if rows else "No experiment is defined: experiments/ is empty.")
    write_result(json_file, [dict(zip(header, row, strict=True)) for row in rows])


@experiment_verbs.command()
def report(
    folder: ServiceFolder,
    name: _Name,
    day: Day = None,
    into: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Default: reports/NAME in the service, where the dashboard looks.",
        ),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Say what to do, how sure to be, and what could void it; write the page that says so."""
    from coterie.experiment.report import PAGE, figures, told, write_report  # noqa: PLC0415
    from coterie.jobs.experiments import analysis_of  # noqa: PLC0415

    yesterday = day_of(day) - timedelta(days=1)
    service = service_of(folder)
    with drawn() as progress:
        analysis = analysis_of(service, name, yesterday, progress=progress)
    say(told(analysis))
    place = service.report(name) if into is None else into
    write_report(analysis, place)
    say_written("written", place / PAGE)
    write_result(json_file, figures(analysis))


@experiment_verbs.command()
def stop(folder: ServiceFolder, name: _Name, day: Day = None, because: Because = None) -> None:
    """Stop it: from that day on everybody has the live model's list again."""
    ended = service_of(folder).experiments.stop(name, day_of(day), because or "")
    say_written("stopped", ended.ended, name)


@experiment_verbs.command()
def ramp(folder: ServiceFolder, name: _Name, day: Day = None) -> None:
    """Take over a larger share from its file; who is in an arm stays there."""
    running = service_of(folder).experiments.change(name, day_of(day))
    say_written("share", f"{list(running.shares.values())[-1]:.0%}", name)


def _lifts(found: "Plan", days: int, power: float) -> str:
    rows = [
        [
            f"{lift:+.0%}",
            f"{found.power(lift, days):.0%}",
            f"{found.users_needed(lift, days, power):,}",
        ]
        for lift in _LIFTS
    ]
    return plain_table(["lift", f"power in {days} days", f"users for {power:.0%}"], rows)


def _days(found: "Plan", days: int, power: float) -> str:
    rows = [
        [f"{day}", f"{found.users(day):,.0f}", f"{found.minimum_lift(day, power=power):+.1%}"]
        for day in _lengths(found, days)
    ]
    return plain_table(["days", "users", f"smallest lift found with {power:.0%}"], rows)


def _lengths(found: "Plan", days: int) -> list[int]:
    return [*(day for day in (7, 14, 21, 28) if min(found.history) <= day < days), days]


def _state(running: "Running | None", today: date) -> list[str]:
    if running is None:
        return ["defined", "", "", ""]
    share = f"{list(running.shares.values())[-1]:.0%}"
    if running.ended is not None and running.ended <= today:
        return [f"stopped {running.ended}", "", share, ""]
    if today < running.started:
        return [f"starts {running.started}", "", share, ""]
    number, days = running.day_number(today), running.definition.days
    return ["running", f"{number} of {days}", share, _next_look(running, number)]


def _next_look(running: "Running", number: int) -> str:
    looks = running.definition.looks
    if looks.kind == "daily":
        return "every day"
    days = looks.days or (running.definition.days,)
    return next((f"day {day}" for day in days if day >= number), "over")
