"""A service small enough for tests, and the eight weeks that some of them look at."""

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tomlkit

from coterie.jobs.config import Service, ServiceConfig
from coterie.jobs.daily import daily
from coterie.jobs.weekly import weekly
from coterie.simulation.living import LivingService
from coterie.store import Store, open_store

MONDAY = date(2026, 1, 5)
LIVING = LivingService(n_users=400, n_items=150, weeks=13, first_day=MONDAY, weekly_items=4.0)
"""Four weeks before the first model, eight with one, and one more to be broken."""
N_WEEKS = 8
FIRST = MONDAY + timedelta(weeks=4)
LAST = FIRST + timedelta(weeks=N_WEEKS)
"""The Monday after the eight weeks, whose week before is the one to be broken."""

TITLES = {
    "path": "titles.parquet",
    "kind_column": "kind",
    "from_column": "available_from",
    "until_column": "available_until",
}
TINY: dict[str, Any] = {
    "titles": TITLES,
    "prepare": {"min_user_items": 3, "window_days": 49},
    "model": {"name": "linear-path-vae", "hidden_dims": [], "latent_dim": 24},
    "training": {"epochs": 6, "batch_size": 60},
    # 400 users cannot tell a tenth from nothing.
    "gates": dict.fromkeys(("margin_live", "margin_best", "margin_baseline", "margin_cohort"), 0.5),
    "rows": {"main": {"k": 20}, "movies": {"k": 10, "kinds": ["movie"]}},
}


def configure(folder: Path, values: Mapping[str, Any], **sections: Any) -> Service:
    """Writes a service's file; a section that is named takes the place of the one in ``values``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = tomlkit.dumps({**values, **sections})
    (folder / "coterie.toml").write_text(text, encoding="utf-8")
    return Service.load(folder)


def at(day: date, hour: int = 12) -> int:
    """Seconds since 1970."""
    return int(datetime(day.year, day.month, day.day, hour, tzinfo=UTC).timestamp())


def write_events(
    folder: Path, day: date, rows: Sequence[tuple[Any, ...]], name: str = "events.parquet"
) -> Path:
    """A day of (user, item, seconds[, value])."""
    path = folder / "events" / f"day={day}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("user_id", "item_id", "timestamp", "value")
    columns = dict(zip(names, zip(*rows, strict=True), strict=False))
    pq.write_table(pa.table({name: list(column) for name, column in columns.items()}), path)
    return path


def copy_of(service: Service, folder: Path) -> Service:
    """A service of its own with all that a service has."""
    shutil.copytree(service.folder, folder)
    return Service.load(folder)


def store_of(service: Service) -> Store:
    """Where its lists are."""
    return open_store(service.place(service.config.store.url))


Lists = dict[str, Any]


def all_lists(store: Store, edition: str | None = None, n_users: int = 560) -> Lists:
    """Every list of an edition: items, scores and source, by user and card row."""
    rows = store.rows(edition=edition)
    found = {
        f"{user} {row}": store.find(user, row, edition=edition)
        for user in range(1, n_users + 1)
        for row in rows
    }
    found |= {f"nobody {row}": store.fallback(row, edition=edition) for row in rows}
    return {
        name: [list(one.item_ids), list(one.scores), one.source, list(one.titles)]
        for name, one in found.items()
        if one is not None
    }


def live_eight_weeks(folder: Path, postgres: str) -> None:
    """Each week the days come in, a model is trained, and its lists are published to SQLite and,
    the same, to PostgreSQL; ``told.json`` says what came of it.
    """
    service, told, begun = configure(folder, TINY), [], MONDAY
    config = service.config.model_dump() | {"store": {"url": postgres}}
    beside = Service(folder, ServiceConfig.model_validate(config))
    for week in range(N_WEEKS):
        today = FIRST + timedelta(weeks=week)
        LIVING.write(folder, begun, today - timedelta(days=1))
        begun = today
        trained = weekly(service, today, device="cpu").to_json()
        days = [daily(one, today).to_json() for one in (service, beside)]
        lists = []
        for one in (service, beside):
            with store_of(one) as store:
                lists.append(all_lists(store))
        told.append({"weekly": trained, "daily": days, "lists": lists})
    LIVING.write(folder, begun, LAST - timedelta(days=1))
    (folder / "told.json").write_text(json.dumps(told))
