"""A service small enough for tests, and the eight weeks that some of them look at."""

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tomlkit

from coterie.jobs.config import Service
from coterie.simulation.living import LivingService

MONDAY = date(2026, 1, 5)
LIVING = LivingService(n_users=300, n_items=80, weeks=13, first_day=MONDAY)
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
    "prepare": {"min_user_items": 3},
    "model": {"name": "linear-path-vae", "hidden_dims": [], "latent_dim": 24},
    "training": {"epochs": 6, "batch_size": 60},
    # 300 users cannot tell a tenth from nothing.
    "gates": dict.fromkeys(("margin_live", "margin_best", "margin_baseline", "margin_cohort"), 0.3),
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
