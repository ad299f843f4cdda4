"""A service's experiments, from its logs: what was agreed, planned and found."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import date, timedelta
from typing import Any

import pyarrow as pa

from coterie.data.source import exists
from coterie.errors import DataError, UnavailableError
from coterie.experiment import (
    Analysis,
    Arms,
    Experiment,
    Running,
    Sums,
    Window,
    analyse,
    sum_up,
)
from coterie.experiment.analysis import primary_of
from coterie.experiment.definition import ERROR
from coterie.experiment.statistics import Moments, Plan
from coterie.jobs.config import Service, days_of
from coterie.running.progress import Progress, silent
from coterie.store import open_store

HISTORY_DAYS = 28
"""Of logs that a plan is made from."""

_MOST_NOTES = 10_000
"""Days of the daily job that are looked through."""

_EVERYBODY = "everybody"


def analysis_of(
    service: Service, name: str, until: date, *, progress: Progress = silent
) -> Analysis:
    """What an experiment has shown.

    After its share was raised only the days of the last share count, and nothing before them, as
    some users had not been in it and others had.

    Args:
        service: The service.
        name: The experiment's.
        until: The last day that counts, if it had not ended by then.
        progress: Called after every day of events.

    Raises:
        NotFoundError: if it was never started.
        DataError: if it has not begun by then, or nobody of it has an exposure.
        SourceError: at events that cannot be read.
    """
    running = service.experiments.record(name)
    window = _window(service, running, until)
    with _summed(service, window, _arms(running), running.definition, progress) as sums:
        earlier = _earlier(service, running, sums)
        published = _published(service, window)
        return analyse(sums, running.definition, published=published, earlier=earlier)


def _earlier(service: Service, running: Running, sums: Sums) -> pa.Table | None:
    """The arms of the experiment before in the same layer, of those who are in this one."""
    before = [
        one
        for one in service.experiments.records
        if one.ended is not None
        and one.ended <= running.started
        and one.definition.layer == running.definition.layer
    ]
    if not before:
        return None
    users = [user for (user,) in sums.rows("SELECT user_id FROM members")]
    last = max(before, key=lambda one: (one.ended, one.name))
    return pa.table({"user_id": users, "arm": last.last_allocation.arms(users)})


def _published(service: Service, window: Window) -> list[Mapping[str, Any]]:
    """What the daily job noted of each day; nothing where the store is out of reach, as the events
    say what is to be decided.
    """
    first, last = window.first.isoformat(), window.last.isoformat()
    with suppress(UnavailableError), open_store(service.place(service.config.store.url)) as store:
        notes = store.notes("daily", _MOST_NOTES)
        return [one.values for one in notes if first <= one.name <= last]
    return []


def plan_of(service: Service, name: str, until: date, *, progress: Progress = silent) -> Plan:
    """What an experiment can find, from the service's views and clicks of the weeks before.

    Args:
        service: The service.
        name: Of the experiment, which need not have been started.
        until: The last day of history.
        progress: Called after every day of events.

    Raises:
        NotFoundError: if it is not defined.
        DataError: if there are no views, or of fewer days than the experiment is to have.
    """
    definition = service.experiments.definition(name)
    before = service.config.experiments.before_days
    window = Window(_first_seen(service, definition, until), until, before)
    everybody = Arms(name, {_EVERYBODY: 1, "nobody": 1}, f"'{_EVERYBODY}'")
    with _summed(service, window, everybody, definition, progress) as sums:
        return Plan(
            _history(sums, definition),
            alpha=definition.looks.alpha / (len(definition.arms) - 1),
            share=definition.share * (1 - service.config.experiments.holdout),
            treated=_treated(definition),
            cuped=bool(before),
            looking=definition.looks.kind,
            looks=definition.looks.days,
            spending=definition.looks.spending,
        )


def agreed_plan(plan: Plan, definition: Experiment, power: float = 0.8) -> dict[str, float]:
    """What the definition should keep of a plan, under ``[plan]``.

    Args:
        plan: From `plan_of`.
        definition: Of the experiment.
        power: With which the smallest lift is found.
    """
    days = definition.days
    return {
        ERROR: plan.error(days),
        "users": round(plan.users(days)),
        "minimum_lift": plan.minimum_lift(days, power=power),
        "power": power,
    }


def _first_seen(service: Service, definition: Experiment, until: date) -> date:
    """The first day of history: some weeks before the last one, if so many have views."""
    n_days = max(HISTORY_DAYS, definition.days)
    days = days_of(until - timedelta(days=n_days - 1), until + timedelta(days=1))
    found = next((day for day in days if _has_views(service, day)), None)
    n_found = 0 if found is None else (until - found).days + 1
    if found is None or n_found < definition.days:
        raise DataError(
            f"{definition.name}: a plan for {definition.days} days needs views of as many days"
            f" before, found {n_found} until {until}; wait, or plan fewer days."
        )
    return found


def _has_views(service: Service, day: date) -> bool:
    path, query = service.config.experiments.events.source("exposures", day)
    return query is not None or exists(service.place(path))


def _history(sums: Sums, definition: Experiment) -> Mapping[int, Moments]:
    """Moments of the users of the first d days, for some d."""
    last = sums.window.n_days
    days = sorted({1, min(3, last), *range(7, last, 7), last})
    metric = primary_of(definition)
    return {day: sums.moments(metric, _EVERYBODY, until=sums.days[day - 1]) for day in days}


def _treated(definition: Experiment) -> float:
    """Of two arms, the control and the smallest treatment."""
    weights = dict(definition.weights)
    control = weights.pop(definition.control)
    return min(weights.values()) / (control + min(weights.values()))


def _arms(running: Running) -> Arms:
    weights = dict(running.definition.weights)
    control = {running.definition.control: weights.pop(running.definition.control)}
    allocation = running.last_allocation
    return Arms(running.name, control | weights, allocation.sql("user_id", "duckdb"))


def _window(service: Service, running: Running, until: date) -> Window:
    if running.ended is not None:
        until = min(until, running.ended - timedelta(days=1))
    first = max(running.shares)
    if until < first:
        raise DataError(
            f"{running.name}: must have run for a day to be analysed, its first is {first} and"
            f" {until} was asked for; wait."
        )
    ramped = len(running.shares) > 1
    return Window(first, until, 0 if ramped else service.config.experiments.before_days)


def _summed(
    service: Service, window: Window, arms: Arms, definition: Experiment, progress: Progress
) -> Sums:
    sources = service.config.experiments.events
    return sum_up(
        sources,
        window,
        arms,
        cards=definition.metrics.cards,
        cap=definition.cap,
        place=service.place,
        progress=progress,
    )
