"""One experiment: what was agreed, in words, whose list is of which model, and what was found."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

from coterie.dashboard.page import Column, Page, Table
from coterie.dashboard.pages.experiment_figures import shown_report
from coterie.dashboard.sources import Sources, mark_of
from coterie.errors import ArtifactError, NotFoundError, UnavailableError
from coterie.experiment import Arm, Experiment, Running
from coterie.experiment.analysis import primary_of, words
from coterie.experiment.report import FIGURES, PAGE, read_report
from coterie.registry import Registry

_NOTES = 400
"""Days of the daily job that are looked through for the models behind the arms."""


@dataclass(frozen=True)
class Seen:
    """An experiment as it stands on a day.

    Args:
        sources: Where it is.
        name: Its name.
        definition: As it was agreed, or as its file says now.
        running: Its record; None if it was not started.
    """

    sources: Sources
    name: str
    definition: Experiment
    running: Running | None

    @property
    def state(self) -> str:
        """``planned``, ``running`` or ``finished``."""
        if self.running is None or self.sources.day < self.running.started:
            return "planned"
        return "running" if self.running.runs_on(self.sources.day) else "finished"

    @property
    def began(self) -> date:
        """Its first day; of one that was not started, the day that it names or the last of all."""
        return self.running.started if self.running else self.definition.start or date.max

    @property
    def share(self) -> float:
        """Of the users of its layer, those who are in it, on the day."""
        if self.running is None:
            return self.definition.share
        return self.running.allocation(max(self.sources.day, self.running.started)).share

    @property
    def days_had(self) -> int:
        """Days of it that are over or begun."""
        if self.running is None:
            return 0
        ended = self.running.ended
        last = self.sources.day if ended is None else min(self.sources.day, ended - _DAY)
        return max(0, self.running.day_number(last))

    @property
    def when(self) -> str:
        """When it begins or ends, or ended and why, in words."""
        running, days = self.running, self.definition.days
        if running is None:
            return f"Not started. It is to run for {days} days."
        if self.state == "planned":
            return f"It starts on {running.started}, for {days} days."
        if self.state == "finished":
            return _ended(running, days)
        last = running.started + timedelta(days=days - 1)
        if self.days_had > days:
            return f"Its last day was {last}. Read the report, then stop it."
        return f"It began on {running.started}; its last day is {last}."

    def command(self, verb: str) -> str:
        """What to type, as it works for this service and day."""
        day = "" if self.sources.today is None else f" --date {self.sources.today}"
        folder = shlex.quote(str(self.sources.of_service.folder))
        return f"coterie experiment {verb} {folder} {self.name}{day}"

    @cached_property
    def report(self) -> dict[str, Any] | None:
        """The figures of its report, if there is one.

        Raises:
            ArtifactError: if it cannot be read.
        """
        folder = self.sources.of_service.report(self.name)
        mark = mark_of(folder / FIGURES)
        return self.sources.kept.get(("report", self.name), mark, lambda: read_report(folder))

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        """What the report says to do, of each arm; what is wrong with it, if it cannot be read."""
        try:
            found = (self.report or {}).get("decisions", ())
            return [{"verdict": one["verdict"], "headline": one["headline"]} for one in found]
        except (ArtifactError, TypeError, KeyError) as error:
            return [{"verdict": "void", "headline": f"The report cannot be read. {error}"}]

    @property
    def short(self) -> dict[str, Any]:
        """At a glance, as JSON values."""
        return {
            "name": self.name,
            "state": self.state,
            "day": self.days_had,
            "days": self.definition.days,
            "when": self.when,
            "arms": [
                {"name": arm, "share": share, "control": arm == self.definition.control}
                for arm, share in self.definition.weights.items()
            ],
            "share": self.share,
            "decides": words(primary_of(self.definition)),
            "verdicts": self.verdicts,
            "command": self.command("plan" if self.state == "planned" else "report"),
        }


_DAY = timedelta(days=1)


def see(sources: Sources, name: str) -> Seen:
    """How one stands.

    Args:
        sources: Where it is.
        name: Of one that is defined or was started.

    Raises:
        ConfigError: if its definition is wrong, and it was not started.
        ArtifactError: if its record is damaged.
    """
    found = sources.of_service.experiments
    if name in found.started:
        running = found.record(name)
        return Seen(sources, name, running.definition, running)
    return Seen(sources, name, found.definition(name), None)


def see_whole(sources: Sources, name: str) -> Page:
    """The page of one.

    Raises:
        ConfigError: as `see`.
        ArtifactError: as `see`.
    """
    seen = see(sources, name)
    arms, fault = _arms(seen)
    values = {
        "experiment": seen.short,
        "agreed": list(_agreed(seen.definition)),
        "who": list(_who(seen)),
        "arms": arms,
        "arms_fault": fault,
        "ramp": _ramp(seen),
        **_report(seen),
    }
    return Page(f"Experiment {name}", "experiment.html.j2", values)


def _ended(running: Running, days: int) -> str:
    last = running.ended - _DAY if running.ended else running.started
    had = running.day_number(last)
    ran = f"It ran from {running.started} to {last}, {had} of {days} days." if had else "No day."
    return f"{ran} It was ended because: {running.because or 'nobody said'}."


def _agreed(one: Experiment) -> Iterator[str]:
    """The definition in words."""
    others = ", ".join(arm.name for arm in one.arms if arm.name != one.control)
    yield f"{others} is held against {one.control} (the control) by {words(primary_of(one))}."
    false = f"{100 * one.looks.alpha:g} %"
    looks = {
        "fixed": f"One looks once, on day {one.days}.",
        "planned": f"One looks on days {', '.join(map(str, one.looks.days))}, and on no other.",
        "daily": "One may look every day; the intervals allow for it.",
    }[one.looks.kind]
    yield f"It is planned for {one.days} days. {looks}"
    yield f"Where there is no difference, it finds one in {false} of such experiments."
    if {"minimum_lift", "users", "power"} <= set(one.plan):
        lift, power = (f"{100 * float(one.plan[name]):.3g} %" for name in ("minimum_lift", "power"))
        yield (
            f"The plan: with {float(one.plan['users']):,.0f} users it finds a lift of {lift} with a"
            f" probability of {power}; smaller ones less surely."
        )
    rails = one.guardrails
    yield (
        f"Beside it, a better arm must not cost too much: at least {100 * rails.titles:g} % of the"
        f" control's titles shown, at most {100 * rails.fallback:g} % more users with the fall-back"
        f" list, at most {rails.latency:g} times the control's latency."
    )


def _who(seen: Seen) -> Iterator[str]:
    """Who is in it, in words."""
    one, held = seen.definition, seen.sources.of_service.config.experiments.holdout
    share = f"{100 * seen.share:g} %"
    if held:
        yield f"{100 * held:g} % of all users are held out of every experiment."
    yield (
        f"{share} of the{' other' if held else ''} users are in it, drawn by a hash of their id:"
        " who is in an arm stays there."
    )
    yield (
        f"It is of the layer {one.layer}: nobody is in two experiments of one layer at a time, and"
        " experiments of different layers do not mind each other."
    )
    most = f"{one.cap.daily_views:,}"
    yield f"Whoever views more than {most} cards on a day is left out from then on."


def _ramp(seen: Seen) -> Table:
    shares = {} if seen.running is None else seen.running.shares
    rows = [[day.isoformat(), share] for day, share in shares.items()]
    columns = [Column("from", "text"), Column("users in it", "percent")]
    return Table("ramp", "The share of users, by the day from which it holds.", columns, rows)


def _arms(seen: Seen) -> tuple[Table, str]:
    """A row an arm, and why it is not known which model each has had, if it is not."""
    try:
        published, fault = _published(seen), ""
    except UnavailableError as error:
        published, fault = {}, str(error)
    columns = [
        Column("arm", "text"),
        Column("role", "text"),
        Column("share of those in it", "percent"),
        Column("its lists are of", "text"),
        Column("last version", "version"),
        Column("users with a list", "count"),
    ]
    rows = [
        [
            arm.name,
            "control" if arm.name == seen.definition.control else "treatment",
            seen.definition.weights[arm.name],
            _model(arm),
            published.get(arm.name, {}).get("version") or _version(seen.sources, arm),
            published.get(arm.name, {}).get("users"),
        ]
        for arm in seen.definition.arms
    ]
    return Table("arms", "The arms, and the model behind each.", columns, rows), fault


def _published(seen: Seen) -> Mapping[str, Mapping[str, Any]]:
    """Of each arm, what the daily job noted last."""
    if seen.running is None:
        return {}
    for note in seen.sources.store.notes("daily", _NOTES):
        for one in note.values.get("experiments", ()):
            if one["experiment"] == seen.name:
                return dict(one["arms"])
    return {}


def _model(arm: Arm) -> str:
    if arm.config is not None:
        return f"what weekly trains from {arm.config}"
    return {None: "no model: this layer has none", "live": "whichever model is live"}.get(
        arm.version, "one version, always"
    )


def _version(sources: Sources, arm: Arm) -> str | None:
    """Of an arm whose lists were not published yet, where the definition alone says it."""
    if arm.version == "live":
        live = Registry(sources.of_service.registry).live
        return None if live is None else live.name
    return arm.version


def _report(seen: Seen) -> dict[str, Any]:
    """What was found, and how fresh it is; the command that makes it or makes it anew."""
    folder, values = seen.sources.of_service.report(seen.name), dict[str, Any]()
    command = seen.command("report")
    try:
        told = seen.report
        if told is not None:
            values = {**shown_report(told), **_fresh(seen, date.fromisoformat(told["last"]))}
        fault = ""
    except (ArtifactError, KeyError, TypeError, ValueError, AttributeError) as error:
        kept = isinstance(error, ArtifactError)
        fault = str(error) if kept else f"{folder / FIGURES}: is damaged ({error!r})."
    has_page = (folder / PAGE).is_file()
    return {"report": values, "report_fault": fault, "command": command, "has_page": has_page}


def _fresh(seen: Seen, last: date) -> dict[str, Any]:
    written = mark_of(seen.sources.of_service.report(seen.name) / FIGURES)
    if written is None:
        raise NotFoundError(f"{seen.name}: its report has just gone; load the page again.")
    ended = seen.running.ended if seen.running else None
    until = (seen.sources.day if ended is None else min(seen.sources.day, ended)) - _DAY
    return {
        "last": last.isoformat(),
        "missing": max(0, (until - last).days),
        "written": datetime.fromtimestamp(written[0] / 1e9, UTC),
    }
