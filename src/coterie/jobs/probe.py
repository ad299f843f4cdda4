"""What is wrong with a service, before anything runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from coterie.config import RunConfig
from coterie.errors import CoterieError
from coterie.evaluation.metrics import metric_of
from coterie.jobs.config import Service
from coterie.jobs.events import last_day, read_day
from coterie.jobs.schedule import cron
from coterie.jobs.titles import listed, read_titles
from coterie.registry import Registry
from coterie.store import open_store


@dataclass(frozen=True)
class Probe:
    """One thing that was looked at.

    Args:
        name: What.
        found: What was found, or what is wrong.
        ok: Whether it is right.
    """

    name: str
    found: str
    ok: bool


def probe(service: Service, today: date) -> list[Probe]:
    """Reaches for every source and place, and reads the first rows.

    Args:
        service: Whose file was read, so its fields are right.
        today: As if it were this day.
    """
    looks: dict[str, Callable[[], str]] = {
        "model": lambda: service.config.run.model.name,
        "events": lambda: _events(service, today),
        "titles": lambda: _titles(service),
        "rows": lambda: _rows(service),
        "gates": lambda: metric_of(service.config.gates.metric).label,
        "schedule": lambda: _schedule(service),
        "store": lambda: _store(service),
        "registry": lambda: _registry(service),
        "experiments": lambda: _experiments(service),
    }
    return list(_looked(looks))


def _looked(looks: dict[str, Callable[[], str]]) -> Iterator[Probe]:
    for name, look in looks.items():
        try:
            yield Probe(name, look(), True)
        except CoterieError as error:
            yield Probe(name, str(error), False)


def _events(service: Service, today: date) -> str:
    day = last_day(service, today)
    if day is None:
        path = service.config.events.path
        return _wrong(f"no day before {today} has events at {path}; correct events.path")
    with read_day(service, day) as log:
        first = log.one("SELECT user_id, item_id, timestamp FROM log LIMIT 1")
        users = log.one("SELECT count(DISTINCT user_id), count(DISTINCT item_id) FROM log")
        return (
            f"{day}: {log.n_rows:,} events, {users[0]:,} users, {users[1]:,} items; the first:"
            f" {', '.join(map(str, first))}"
        )


def _wrong(what: str) -> str:
    raise CoterieError(what)


def _titles(service: Service) -> str:
    titles = read_titles(service)
    kinds: dict[str, Any] = {}
    for kind in titles.kinds.values():
        kinds[kind] = kinds.get(kind, 0) + 1
    counted = ", ".join(f"{kind} {n:,}" for kind, n in sorted(kinds.items()))
    missing = [
        kind for row in service.config.rows.values() for kind in row.kinds if kind not in kinds
    ]
    if missing:
        return _wrong(
            f"no title is of the kind {', '.join(missing)}; there are {counted or 'none'}"
        )
    return f"{len(titles.windows or titles.names):,} titles" + (f": {counted}" if counted else "")


def _rows(service: Service) -> str:
    rows = service.config.rows
    for row in rows.values():
        for path in (row.allow, row.deny):
            listed(service, path)
    return ", ".join(f"{name} of {row.k}" for name, row in rows.items())


def _schedule(service: Service) -> str:
    cron(service)
    return f"weekly {service.config.schedule.weekly}, daily {service.config.schedule.daily} (UTC)"


def _store(service: Service) -> str:
    with open_store(service.place(service.config.store.url)) as store:
        editions = store.editions()
    return f"{len(editions)} days published" + (f", newest {editions[0].name}" if editions else "")


def _registry(service: Service) -> str:
    registry = Registry(service.registry)
    live = registry.live
    return f"{len(registry.versions)} versions, live: {'none' if live is None else live.name}"


def _experiments(service: Service) -> str:
    experiments = service.experiments
    for name in experiments.defined:
        for config in experiments.configs(experiments.definition(name)).values():
            RunConfig.of(config)
    running = [one.name for one in experiments.records if one.ended is None]
    return f"{len(experiments.defined)} defined, running: {', '.join(running) or 'none'}"
