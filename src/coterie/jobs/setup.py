"""A service's folder, begun: its commented file, and events to try it on."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from string import Template

import pyarrow.parquet as pq

from coterie.data.parts import files_of
from coterie.data.scan import header_of
from coterie.data.source import exists, is_url, plain_name
from coterie.errors import ConflictError, NotFoundError, SourceError
from coterie.files import check_writable, publish_file
from coterie.jobs.config import FILE, Service, monday
from coterie.running.progress import Progress, silent
from coterie.simulation.living import LivingService

_USERS, _ITEMS, _WEEKS = 2_000, 400, 12


@dataclass(frozen=True)
class Sources:
    """A stranger's own files.

    Args:
        events: Folder of days, such as ``events/day=2026-11-27/…`` or ``events/2026-11-27.csv``.
        titles: Table of titles; None if there is none.
    """

    events: str
    titles: str | None = None


def begin(
    folder: str | Path,
    today: date,
    sources: Sources | None = None,
    *,
    progress: Progress = silent,
) -> Service:
    """Writes a service's file, and without sources the events of a simulated service up to
    yesterday.

    Args:
        folder: New or empty, or without a service.
        today: As if it were this day.
        sources: Own events and titles; simulated ones if None.
        progress: Called while events are simulated.

    Returns:
        The service.

    Raises:
        ConflictError: if there is a service already.
        NotFoundError: if a source is not there.
        SourceError: if no day is found among the events, or columns are not.
    """
    folder = Path(folder)
    if (folder / FILE).exists():
        raise ConflictError(f"{folder}: a service is there already; choose another folder.")
    check_writable(folder, folder=True)
    fields = _simulated_fields() if sources is None else _own_fields(sources)
    if sources is None:
        simulated(today).write(folder, _first(today), today - timedelta(days=1), progress)
    text = Template(_FILE.read_text(encoding="utf-8")).substitute(fields)
    with publish_file(folder / FILE) as aside:
        aside.write_text(text, encoding="utf-8")
    return Service.load(folder)


_FILE = Path(__file__).with_name("service.toml")


def simulated(today: date, *, seed: int = 0) -> LivingService:
    """The simulated service that `begin` writes: twelve weeks and this one."""
    first = _first(today)
    return LivingService(_USERS, _ITEMS, _WEEKS + 1, seed, first)


def _first(today: date) -> date:
    return monday(today) - timedelta(weeks=_WEEKS)


def _simulated_fields() -> dict[str, str]:
    return {
        "events": _text("events/day=%Y-%m-%d"),
        "columns": 'user_column = "user_id"\nitem_column = "item_id"\n'
        'timestamp_column = "timestamp"\nvalue_column = "value"',
        "titles": '[titles]\npath = "titles.parquet"\nkind_column = "kind"\n'
        'from_column = "available_from"\nuntil_column = "available_until"',
        "rows": '[rows.main]\nk = 100\n\n[rows.movies]\nk = 50\nkinds = ["movie"]\n\n'
        '[rows.series]\nk = 50\nkinds = ["series"]',
    }


def _own_fields(sources: Sources) -> dict[str, str]:
    path, sample = _days_of(_absolute(sources.events))
    names = _names(sample)
    roles = {role: _guess(role, names, sample) for role in ("user", "item", "timestamp")}
    columns = [f"{role}_column = {_text(name)}" for role, name in roles.items()]
    if value := _find("value", names):
        columns.append(f"value_column = {_text(value)}")
    return {
        "events": _text(_absolute(path)),
        "columns": "\n".join(columns),
        "titles": _titles(sources.titles),
        "rows": "[rows.main]\nk = 100",
    }


def _absolute(path: str) -> str:
    return path if is_url(path) else str(Path(path).absolute())


def _text(value: str) -> str:
    """As TOML quotes it, whose basic strings are JSON's."""
    return json.dumps(value, ensure_ascii=False)


def _days_of(events: str) -> tuple[str, str]:
    """A path with the signs of a date, and a file of some day."""
    if not exists(events):
        raise NotFoundError(f"{events}: the folder of events must exist, none was found.")
    for file in reversed(files_of(events)):
        inside = file[len(events.rstrip("/")) :] if file.startswith(events.rstrip("/")) else ""
        found = re.search(r"(\d{4})(-?)(\d\d)\2(\d\d)", inside)
        if found is None:
            continue
        signs = found[2].join(("%Y", "%m", "%d"))
        rest = inside[found.end() :]
        # A day's folder, or a file that bears its date.
        end = rest.partition("/")[0]
        before = events.rstrip("/") + inside[: found.start()]
        return before.replace("%", "%%") + signs + end.replace("%", "%%"), file
    raise SourceError(
        "the folder must hold a folder or a file a day whose name bears its date, as in"
        " day=2026-11-27 or 2026-11-27.csv; found none.",
        events,
    )


def _names(path: str) -> list[str]:
    if plain_name(path).endswith((".parquet", ".pq")):
        return list(pq.read_schema(path).names)
    headers = [header_of(path, one) for one in ",\t;|"]
    return max(headers, key=len)


_KNOWN: Mapping[str, tuple[str, ...]] = {
    "user": ("user_id", "userid", "user", "customer_id", "customer", "visitor_id", "account_id"),
    "item": (
        "item_id",
        "itemid",
        "item",
        "title_id",
        "movie_id",
        "movieid",
        "movie",
        "film_id",
        "film",
        "video_id",
        "product_id",
        "product",
        "article_id",
        "track_id",
        "asin",
        "sku",
        "id",
    ),
    "timestamp": (
        "timestamp",
        "time",
        "event_time",
        "ts",
        "datetime",
        "date",
        "created_at",
        "at",
        "watched_at",
        "viewed_at",
    ),
    "value": ("rating", "value", "seconds", "watch_seconds", "count"),
    "title": ("title", "name", "title_name"),
    "kind": ("kind", "type", "category"),
    "from": ("available_from", "from", "valid_from"),
    "until": ("available_until", "until", "valid_until"),
}


def _find(role: str, names: list[str]) -> str | None:
    by_small = {name.lower(): name for name in reversed(names)}
    return next((by_small[one] for one in _KNOWN[role] if one in by_small), None)


def _guess(role: str, names: list[str], path: str) -> str:
    found = _find(role, names)
    if found is None:
        raise SourceError(
            f"events must have a column for the {role}, found {', '.join(names)}; rename one to"
            f" {_KNOWN[role][0]}.",
            path,
        )
    return found


def _titles(path: str | None) -> str:
    if path is None:
        return "[titles]\n# path = … is absent: items are shown by their ids"
    if not exists(path):
        raise NotFoundError(f"{path}: the table of titles must exist, none was found.")
    names = _names(path)
    lines = [f"[titles]\npath = {_text(_absolute(path))}"]
    lines.append(f"item_column = {_text(_guess('item', names, path))}")
    found = {role: _find(role, names) for role in ("title", "kind", "from", "until")}
    lines += [f"{role}_column = {_text(name)}" for role, name in found.items() if name is not None]
    return "\n".join(lines)
