"""The data that a version was trained on: what its week left, or the same days prepared anew."""

from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from coterie.data.dataset import Dataset
from coterie.data.prepare import prepare
from coterie.data.rules import StrongGeneralisation
from coterie.errors import DataError
from coterie.jobs.config import Service, days_of
from coterie.jobs.events import collect, write_window
from coterie.jobs.titles import read_titles
from coterie.registry import Version
from coterie.running.progress import Progress, silent


def week_folder(service: Service, monday: date) -> Path:
    """Where a week's work is."""
    year, week, _ = monday.isocalendar()
    return service.work / "weekly" / f"{year}-W{week:02d}"


def window_of(service: Service, version: Version, progress: Progress = silent) -> Dataset:
    """All of a version's window in training, as it was trained on.

    Args:
        service: The service.
        version: Of its registry.
        progress: Called while days are read.

    Raises:
        DataError: if none of the window's days is there any more.
        SourceError: at the file and row that cannot be read.
    """
    monday = date.fromisoformat(version.card["week"])
    there = week_folder(service, monday) / "everything"
    if (there / "manifest.json").exists():
        return Dataset.load(there)
    with TemporaryDirectory(prefix="coterie-window-") as folder:
        return _prepared(service, version, Path(folder) / "events.parquet", progress)


def _prepared(service: Service, version: Version, events: Path, progress: Progress) -> Dataset:
    first, last = (date.fromisoformat(day) for day in version.card["window"])
    stop = last + timedelta(days=1)
    days = collect(service, days_of(first, stop), progress)
    if not days:
        raise DataError(
            f"{version.name}: its days, {first} to {last}, must be among the events, found none;"
            " analyze a newer version."
        )
    rules = service.config.prepare
    write_window(service, days, events, until=stop)
    return prepare(
        str(events),
        timestamp="timestamp",
        titles=read_titles(service).names or None,
        min_user_items=rules.min_user_items,
        min_item_users=rules.min_item_users,
        split=StrongGeneralisation(0),
    )
