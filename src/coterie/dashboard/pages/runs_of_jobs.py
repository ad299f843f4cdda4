"""What ran, how long, and why not: each day and each week of the last four, also those of which
there is nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from coterie.dashboard.page import Column, Table
from coterie.dashboard.sources import Sources
from coterie.jobs.attempts import Attempt, Job, attempts
from coterie.jobs.config import Service, days_of, monday
from coterie.jobs.schedule import due
from coterie.registry import Registry, Version
from coterie.show.folders import read_json
from coterie.store import Note

DAYS = 28
_DAY, _WEEK = timedelta(days=1), timedelta(weeks=1)
_NO_TRACE = (
    "No trace of a run. Look whether the scheduler runs: what coterie schedule prints must be"
    " installed; with cron, jobs.log has what the job said."
)
_NO_END = "It began {} and has not ended: it is at work, or was killed. The same command goes on."


@dataclass(frozen=True)
class Ran:
    """What is told of a day's or a week's run.

    Args:
        day: That it was for; of weekly its Monday.
        job: Which.
        state: ``ran``, ``warned``, ``failed a gate``, ``failed``, ``missing``, ``not due yet``,
            ``at work`` or ``unknown``.
        seconds: How long it took.
        version: The model that it made or used.
        users: That have a list.
        why: What is to be said of it.
        at: When it was done, UTC.
        until: The last day, if it tells of several days in a row.
    """

    day: date
    job: Job
    state: str
    seconds: float | None = None
    version: str | None = None
    users: int | None = None
    why: str = ""
    at: datetime | None = None
    until: date | None = None

    @property
    def days(self) -> str:
        """The day, or the first and the last."""
        return str(self.day) if self.until is None else f"{self.day} to {self.until}"


def runs_of_jobs(
    sources: Sources, versions: Sequence[Version], notes: Sequence[Note] | None
) -> list[Ran]:
    """Every day and week that a job was due, the oldest first; none before the first that is known.

    Args:
        sources: Of the page.
        versions: Of the registry.
        notes: Of the daily job; None while the store is away.
    """
    service, today = sources.of_service, sources.day
    now = datetime.now(UTC) if sources.today is None else _end_of(today)
    look = _Look(service, today, now)
    weekly = look.of("weekly", {one.day: one for one in _weeklies(service, versions)})
    told = {date.fromisoformat(note.name): _daily(note) for note in notes or ()}
    begun = next((one.day for one in weekly if one.state == "ran"), None)
    daily = look.of("daily", told, begun=begun, away=notes is None)
    return sorted([*weekly, *daily], key=lambda ran: (ran.day, ran.job == "daily"))


def amiss(runs: Iterable[Ran]) -> list[Ran]:
    """What did not go as it should; days in a row of which the same is to be said are one."""
    found: list[Ran] = []
    for one in sorted(runs, key=lambda one: (one.job == "daily", one.day)):
        last = found[-1] if found else None
        if last is not None and _goes_on(last, one):
            found[-1] = replace(last, until=one.day)
        elif one.state not in ("ran", "not due yet"):
            found.append(one)
    return sorted(found, key=lambda one: (one.day, one.job == "daily"))


def _goes_on(last: Ran, one: Ran) -> bool:
    told = (last.job, last.state, last.why) == (one.job, one.state, one.why)
    step = _DAY if one.job == "daily" else _WEEK
    return told and one.version is None and one.day == (last.until or last.day) + step


def jobs_table(name: str, caption: str, runs: Iterable[Ran]) -> Table:
    """The newest first."""
    columns = [
        Column("day", "text"),
        Column("job", "text"),
        Column("state", "text"),
        Column("what is to be said", "text"),
        Column("took", "seconds"),
        Column("model", "version"),
        Column("users", "count"),
    ]
    rows = [
        [one.days, one.job, one.state, one.why, one.seconds, one.version, one.users] for one in runs
    ]
    return Table(name, caption, columns, rows[::-1])


@dataclass(frozen=True)
class _Look:
    service: Service
    today: date
    now: datetime

    def of(
        self,
        job: Job,
        told: Mapping[date, Ran],
        *,
        begun: date | None = None,
        away: bool = False,
    ) -> list[Ran]:
        """A job's runs, from the first that is known."""
        tried = attempts(self.service, job)
        known = [*told, *tried, *([] if begun is None else [begun])]
        first = max(min(known, default=self.today + _DAY), self.today - _DAY * (DAYS - 1))
        days = [day for day in days_of(first, self.today + _DAY) if _is_for(job, day)]
        return [self._one(job, day, (told.get(day), tried.get(day)), away) for day in days]

    def _one(
        self, job: Job, day: date, found: tuple[Ran | None, Attempt | None], away: bool
    ) -> Ran:
        ran, attempt = found
        if attempt is not None and (ran is None or _is_later(attempt, ran)):
            return _tried(job, day, attempt, ran)
        if ran is not None:
            return ran
        if away:
            return Ran(day, job, "unknown", why="The store, which would know, is out of reach.")
        when = due(self.service, job, day)
        if self.now < when:
            return Ran(day, job, "not due yet", why=f"Due {when:%A %H:%M} UTC.")
        return Ran(day, job, "missing", why=_NO_TRACE)


def _is_for(job: Job, day: date) -> bool:
    return job == "daily" or day == monday(day)


def _is_later(attempt: Attempt, ran: Ran) -> bool:
    """Whether a run came after the one that left something, and went wrong."""
    wrong = attempt.error is not None or attempt.ended is None
    return wrong and (ran.at is None or datetime.fromisoformat(attempt.began) > ran.at)


def _tried(job: Job, day: date, attempt: Attempt, before: Ran | None) -> Ran:
    kept = "" if before is None else " What an earlier run left is there."
    if attempt.error is not None:
        return Ran(day, job, "failed", attempt.seconds, why=attempt.error + kept)
    if attempt.ended is None:
        began = f"{datetime.fromisoformat(attempt.began):%Y-%m-%d %H:%M} UTC"
        return Ran(day, job, "at work", why=_NO_END.format(began) + kept)
    return Ran(day, job, "ran", attempt.seconds)


def _daily(note: Note) -> Ran:
    values: Mapping[str, Any] = note.values
    figures, warnings = values["figures"], values["warnings"]
    return Ran(
        date.fromisoformat(note.name),
        "daily",
        "warned" if warnings else "ran",
        figures.get("seconds"),
        values.get("version"),
        figures.get("users"),
        " ".join(warnings),
        note.noted,
    )


def _weeklies(service: Service, versions: Iterable[Version]) -> Iterator[Ran]:
    """Of versions that are gone the work folder tells."""
    live = {move.to for move in Registry(service.registry).moves}
    for path in sorted((service.work / "weekly").glob("*/result.json")):
        told = read_json(path)
        failed = [gate["name"] for gate in told["gates"] if not gate["passed"]]
        yield _weekly({**told, "failed": failed}, None, became_live=told["version"] in live)
    for version in versions:
        if not version.is_arm:
            yield _weekly(version.card, version.name, became_live=version.name in live)


def _weekly(card: Mapping[str, Any], name: str | None, *, became_live: bool) -> Ran:
    failed, created = ", ".join(card["failed"]), card.get("created")
    why = "It became live." if became_live else "It passed, and nobody has made it live."
    return Ran(
        date.fromisoformat(card["week"]) + _WEEK,
        "weekly",
        "failed a gate" if failed else "ran",
        card.get("seconds", {}).get("all"),
        name,
        None,
        f"Did not pass: {failed}." if failed else why,
        None if created is None else datetime.fromisoformat(created),
    )


def _end_of(day: date) -> datetime:
    return datetime.combine(day, time.max, UTC)
