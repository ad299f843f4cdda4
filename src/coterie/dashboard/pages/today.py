"""Today: whether the service does what it should, and what to do about it if not."""

from typing import Any

from coterie.dashboard.charts import line_figure
from coterie.dashboard.page import Asked, Column, Page, Table
from coterie.dashboard.sources import Sources
from coterie.errors import UnavailableError
from coterie.jobs.status import status
from coterie.store import Note

_DAYS = 28


def today(sources: Sources, asked: Asked) -> Page:
    """The page."""
    if sources.service is None:
        return Page("Runs", "runs_here.html.j2", {"folder": str(sources.folder)})
    told = status(sources.service, sources.day).to_json()
    notes = _notes(sources)
    return Page(
        "Today",
        "today.html.j2",
        {
            "status": told,
            "days": _days(notes),
            "users": line_figure(_course(notes, "users", "count"), "Users with a list, by day"),
            "fallback": line_figure(
                _course(notes, "fallback_share", "percent"),
                "Share of users of whom the model knows nothing, by day",
            ),
        },
    )


def _notes(sources: Sources) -> list[Note]:
    """Of the daily job, oldest first; none while the store is away, which the status says."""
    try:
        return sources.store.notes("daily", _DAYS)[::-1]
    except UnavailableError:
        return []


def _course(notes: list[Note], figure: str, kind: str) -> Table:
    rows = [[note.name, note.values["figures"].get(figure)] for note in notes]
    name = figure.replace("_", " ")
    return Table(figure, "A row a day.", [Column("day", "text"), Column(name, kind)], rows)


def _days(notes: list[Note]) -> Table:
    columns = [
        Column("day", "text"),
        Column("model", "version"),
        Column("users", "count"),
        Column("took", "seconds"),
        Column("warnings", "text"),
    ]
    rows = [_day(note) for note in reversed(notes)]
    return Table("daily", "Daily runs, the newest first.", columns, rows)


def _day(note: Note) -> list[Any]:
    figures, warnings = note.values["figures"], note.values["warnings"]
    told = " ".join(warnings) or "none"
    return [note.name, note.values["version"], figures["users"], figures["seconds"], told]
