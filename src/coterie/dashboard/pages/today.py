"""Today: whether the service does what it should, and what to do about it if not."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from coterie.dashboard.charts import line_figure
from coterie.dashboard.page import Asked, Column, Figure, Page, Table
from coterie.dashboard.pages.runs import runs
from coterie.dashboard.pages.runs_of_jobs import DAYS, Ran, amiss, jobs_table, runs_of_jobs
from coterie.dashboard.sources import Sources
from coterie.dashboard.timelines import strip_figure
from coterie.errors import UnavailableError
from coterie.jobs.status import Status, status
from coterie.store import Note

_WATCHED = {
    "users": ("Users with a list", "count"),
    "fallback_share": ("Share of them of whom the model knows nothing", "percent"),
    "overlap": ("Share of a list that was in it the day before", "percent"),
    "events_over_usual": ("Events of the day before, over that weekday's usual", "number"),
    "seconds": ("Seconds that the run took", "number"),
}
"""What is drawn of the daily figures, and how."""

_COMMANDS = {
    "no model is live": "coterie weekly {}",
    "the live model knows nothing": "coterie weekly {}",
    "nothing is published": "coterie daily {}",
    "the lists are of": "coterie daily {}",
    "fallback share": "coterie weekly {}",
    "unknown items": "coterie weekly {}",
    "model age days": "coterie weekly {}",
    "overlap": "coterie rollback {} --day YYYY-MM-DD",
    "events over usual": "coterie daily {}",
    "weekly of": "coterie weekly {}",
    "daily of": "coterie daily {}",
}
"""What to run, by how a warning begins, with the service's folder in it."""


def today(sources: Sources, asked: Asked) -> Page:
    """The page; of a folder of runs the page of runs."""
    if sources.service is None:
        return runs(sources, asked)
    versions, notes = sources.registry.versions, _notes(sources)
    told = status(sources.service, sources.day)
    ran = runs_of_jobs(sources, versions, notes)
    found = {note.name: note.values["figures"] for note in notes or ()}
    days = {str(one.day): found.get(str(one.day), {}) for one in ran if one.job == "daily"}
    return Page(
        "Today",
        "today.html.j2",
        {
            "status": told.to_json(),
            "age_days": _age(sources, told),
            "expected_age_days": sources.service.config.watch.model_age_days,
            "todo": [_todo(sources, one) for one in [*told.warnings, *_missing(ran)]],
            "folder": shlex.quote(str(sources.folder)),
            "is_new": not versions and notes == [],
            "jobs": strip_figure(
                jobs_table("jobs", "Every run that was due, the newest first.", ran),
                "Runs of the jobs: each day and each Monday",
            ),
            "amiss": jobs_table(
                "amiss", "What did not go as it should, the newest first.", amiss(ran)
            ),
            "figures": {name: _course(days, name, *how) for name, how in _WATCHED.items()},
        },
    )


def _notes(sources: Sources) -> list[Note] | None:
    """Of the daily job, oldest first; None while the store is away, which the status says."""
    try:
        return sources.store.notes("daily", DAYS)[::-1]
    except UnavailableError:
        return None


def _age(sources: Sources, told: Status) -> int | None:
    """Days since the last that the live model knows."""
    if told.trained_until is None:
        return None
    return (sources.day - type(sources.day).fromisoformat(told.trained_until)).days


def _todo(sources: Sources, warning: str) -> dict[str, Any]:
    """A warning with the command that helps, and the version that it is about."""
    folder = shlex.quote(str(sources.folder))
    command = next(
        (how for begin, how in _COMMANDS.items() if warning.startswith(begin)),
        "coterie validate {}",
    )
    version = warning.partition(" ")[0] if " did not become live" in warning else None
    if version is not None:
        command = f'coterie promote {{}} {version} --force --because "…"'
    return {"warning": warning, "version": version, "command": command.format(folder)}


def _missing(ran: Sequence[Ran]) -> list[str]:
    """Of the last weekly run, if there is no trace of it; the status tells of lists."""
    weekly = [one for one in ran if one.job == "weekly"]
    is_missing = bool(weekly) and weekly[-1].state == "missing"
    return [f"weekly of {weekly[-1].day} has left no trace."] if is_missing else []


def _course(days: Mapping[str, Mapping[str, Any]], figure: str, title: str, kind: str) -> Figure:
    """A day of which there is nothing is a gap."""
    rows = [[day[5:], figures.get(figure)] for day, figures in days.items()]
    name = figure.replace("_", " ")
    columns = [Column("day", "text"), Column(name, kind)]
    return line_figure(Table(figure, "A row a day.", columns, rows), title)
