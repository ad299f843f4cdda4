"""How a service does: the live model, the last jobs, what is published, and what to do about it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

from coterie.errors import UnavailableError
from coterie.jobs.attempts import JOBS, attempts
from coterie.jobs.config import Service
from coterie.plain_table import plain_table
from coterie.registry import Registry, Version
from coterie.store import open_store


@dataclass(frozen=True)
class Status:
    """How a service does on a day.

    Args:
        day: The day.
        model: Name of the live model; None if there is none.
        trained_until: The first day that it has not seen.
        weekly: Name, verdict and failed gates of the newest version; None before the first.
        edition: The day that readers are given; None if there is none.
        daily: Figures of that day.
        warnings: What is not as it should be, in words.
    """

    day: date
    model: str | None
    trained_until: str | None
    weekly: Mapping[str, Any] | None
    edition: str | None
    daily: Mapping[str, Any]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing warns."""
        return not self.warnings

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "day": self.day.isoformat(), "warnings": list(self.warnings)}

    def __str__(self) -> str:
        weekly = self.weekly or {"version": "none", "failed": []}
        verdict = ", ".join(f"failed {gate}" for gate in weekly["failed"])
        rows = [
            ["live model", self.model or "none", f"knows what came before {self.trained_until}"],
            ["last weekly", weekly["version"], verdict or "passed"],
            ["published", self.edition or "none", f"{self.daily.get('users', 0):,} users"],
        ]
        told = plain_table(["", "", ""], rows, [False, False, False])
        warned = [f"warning: {warning}" for warning in self.warnings]
        return "\n".join([told, *(warned or ["nothing to warn of"])])


def status(service: Service, today: date) -> Status:
    """Looks; a store that is out of reach is a warning.

    Args:
        service: The service.
        today: As if it were this day.
    """
    registry = Registry(service.registry)
    live, versions = registry.live, [one for one in registry.versions if not one.is_arm]
    newest = versions[-1] if versions else None
    weekly = None if newest is None else _verdict(newest)
    until = None if live is None else _stop(live).isoformat()
    edition, daily, warned = _published(service, today)
    if live is None:
        warned.insert(0, "no model is live; run coterie weekly.")
    elif (today - _stop(live)).days > service.config.watch.model_age_days:
        warned.append(f"the live model knows nothing since {until}; run coterie weekly.")
    if weekly and not weekly["passed"] and newest != live:
        failed = ", ".join(weekly["failed"])
        warned.append(f"{weekly['version']} did not become live, it failed: {failed}.")
    warned += _failures(service)
    model = None if live is None else live.name
    return Status(today, model, until, weekly, edition, daily, tuple(warned))


def _failures(service: Service) -> Iterator[str]:
    """Of each job's last run, if it failed: another one that does not ends the warning."""
    for job in JOBS:
        found = attempts(service, job)
        last = max(found, key=lambda day: found[day].began, default=None)
        if last is not None and found[last].error:
            yield f"{job} of {last} failed: {found[last].error}"


def _verdict(version: Version) -> dict[str, Any]:
    failed = list(version.card["failed"])
    return {"version": version.name, "passed": version.passed, "failed": failed}


def _stop(version: Version) -> date:
    """The first day that a version has not seen."""
    return date.fromisoformat(version.card["week"]) + timedelta(weeks=1)


def _published(service: Service, today: date) -> tuple[str | None, dict[str, Any], list[str]]:
    """The live edition, its figures, and what is wrong with it."""
    try:
        with open_store(service.place(service.config.store.url)) as store:
            live = store.live()
    except UnavailableError as error:
        return None, {}, [str(error)]
    if live is None:
        return None, {}, ["nothing is published; run coterie daily."]
    warned = list(live.facts.get("warnings", []))
    if live.name < today.isoformat():
        warned.append(f"the lists are of {live.name}; run coterie daily.")
    return live.name, live.facts.get("figures", {}), warned
