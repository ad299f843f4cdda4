"""An experiment from plan to report on a service that lives: a VAE with PIA against what most
people watch, on two cards, with people who look, tire and click.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from coterie.errors import ConflictError
from coterie.experiment import Analysis, Assignment, assigner_of, write_report
from coterie.files import publish_file
from coterie.jobs.arms import start_experiment
from coterie.jobs.config import FILE, Service
from coterie.jobs.daily import daily
from coterie.jobs.experiments import agreed_plan, analysis_of, plan_of
from coterie.jobs.weekly import weekly
from coterie.running.progress import Progress, Update, silent
from coterie.simulation.living import LivingService
from coterie.simulation.traffic import Habits, Traffic
from coterie.store import Found, open_store

log = logging.getLogger(__name__)

FIRST_DAY = date(2026, 1, 5)
NAME = "pia"
_BEFORE = 6
"""Weeks of events before anything is published."""

_FILE = """\
name = "demo-experiment"

[events]
value_column = "value"

[titles]
path = "titles.parquet"
kind_column = "kind"
from_column = "available_from"
until_column = "available_until"

[prepare]
window_days = 70
min_user_items = 3

[model]
name = "mult-vae"
hidden_dims = []
latent_dim = 64
pia = 0.3

[training]
epochs = 60
batch_size = 100
patience = 5
metric = "ndcg@20"

[gates]
margin_baseline = 0.5

[rows.movie]
k = 20
kinds = ["movie"]

[rows.home]
k = 20

[retention]
editions = 3
"""

_DEFINITION = """\
days = {days}
control = "most-watched"

[metrics]
cards = ["movie", "home"]

[looks]
kind = "planned"
days = {looks}

[[arms]]
name = "pia"
version = "live"

[[arms]]
name = "most-watched"
config = "most-watched.toml"

"""

_BASELINE = """\
[model]
name = "most-watched"
"""


@dataclass
class _Life:
    """A service, the people who use it, and its days."""

    service: Service
    living: LivingService
    traffic: Traffic
    progress: Progress

    def days(self, first: date, n: int) -> None:
        """Lives through some days: what happened before each is known to its lists."""
        for day in (first + timedelta(days=i) for i in range(n)):
            self.morning(day)
            self.living.write(self.service.folder, day, day, self.progress)
            self.progress(Update(f"{day}: people look at their lists"))
            self.traffic.day(day, self._lists(day)).write(self.service.folder, day)

    def morning(self, day: date) -> None:
        """The jobs of a day."""
        if day.weekday() == 0:
            weekly(self.service, day, device="cpu", progress=self.progress)
        daily(self.service, day, progress=self.progress)

    def _lists(self, day: date) -> pa.Table:
        """What everybody is shown on a day, as the API would answer, with whose list it is."""
        users = self.living.users(day).tolist()
        with open_store(self.service.place(self.service.config.store.url)) as store:
            rows = []
            for row in self.service.config.rows:
                found = store.find_many([(user, row) for user in users])
                spare = store.fallback(row)
                rows += list(_shown(users, row, found, spare))
        return pa.Table.from_pylist(rows)


def _shown(
    users: list[int], row: str, found: list[Found | None], spare: Found | None
) -> Iterator[dict[str, Any]]:
    facts: Mapping[str, Any] = next((one.facts for one in found if one is not None), {})
    arms = assigner_of(facts).arms(users).get("lists", [None] * len(users))
    told = {one["experiment"]: one["arms"] for one in facts.get("experiments", ())}
    for user, one, place in zip(users, found, arms, strict=True):
        items = one or spare
        if items is not None:
            yield {"user_id": user, "row": row, "items": items.item_ids, **_whose(place, told)}


def _whose(place: Assignment | None, told: Mapping[str, Any]) -> dict[str, str | None]:
    if place is None:
        return {"experiment": None, "arm": None, "model_version": None}
    version = told[place.experiment][place.arm]["version"]
    return {"experiment": place.experiment, "arm": place.arm, "model_version": version}


def experiment(
    folder: str | Path,
    *,
    n_users: int = 3_000,
    n_items: int = 300,
    days: int = 28,
    seen_days: int = 28,
    visits: float = 2.0,
    progress: Progress = silent,
) -> Analysis:
    """Lives through an experiment in a new service folder, and writes its report there.

    Args:
        folder: New, or without a service.
        n_users: Users at the beginning.
        n_items: Titles at the beginning.
        days: Of the experiment, at most; it stops at the first planned look that decides.
        seen_days: Of published lists before it, from which it is planned; as many at least.
        visits: Mean visits for each title that a user takes up.
        progress: Called as the work goes on.

    Raises:
        ConflictError: if a service is there.
    """
    folder = Path(folder)
    if (folder / FILE).exists():
        raise ConflictError(f"{folder}: a service is there already; choose another folder.")
    begin = FIRST_DAY + timedelta(weeks=_BEFORE)
    start = begin + timedelta(days=seen_days)
    looks = sorted({max(1, days * n // 4) for n in (1, 2, 3, 4)})
    _write(folder, days, looks)
    weeks = _BEFORE + (seen_days + days) // 7 + 1
    living = LivingService(n_users, n_items, weeks, 1, FIRST_DAY)
    traffic = Traffic(living, 1, start, habits=Habits(visits=visits))
    life = _Life(Service.load(folder), living, traffic, progress)
    living.write(folder, FIRST_DAY, begin - timedelta(days=1), progress)
    weekly(life.service, begin, device="cpu", progress=progress)
    life.days(begin, seen_days)
    _plan(life, start)
    start_experiment(life.service, NAME, start)
    return _until_decided(life, start, looks)


def _write(folder: Path, days: int, looks: list[int]) -> None:
    files = {
        FILE: _FILE,
        f"experiments/{NAME}.toml": _DEFINITION.format(days=days, looks=looks),
        "experiments/most-watched.toml": _BASELINE,
    }
    for name, text in files.items():
        with publish_file(folder / name) as aside:
            aside.write_text(text, encoding="utf-8")


def _plan(life: _Life, start: date) -> None:
    """Keeps what the plan says in the definition, as a person would."""
    experiments = life.service.experiments
    plan = plan_of(life.service, NAME, start - timedelta(days=1), progress=life.progress)
    kept = agreed_plan(plan, experiments.definition(NAME))
    path = experiments.folder / f"{NAME}.toml"
    lines = ["[plan]", *(f"{name} = {value!r}" for name, value in kept.items())]
    text = path.read_text(encoding="utf-8") + "\n".join(lines) + "\n"
    with publish_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _until_decided(life: _Life, start: date, looks: list[int]) -> Analysis:
    lived = 0
    for look in looks:
        life.days(start + timedelta(days=lived), look - lived)
        lived = look
        until = start + timedelta(days=look - 1)
        analysis = analysis_of(life.service, NAME, until, progress=life.progress)
        write_report(analysis, life.service.report(NAME))
        if any(one.seen is not None and one.seen.stop for one in analysis.primary):
            break
    end = start + timedelta(days=lived)
    life.service.experiments.stop(NAME, end, "decided")
    life.morning(end)
    return analysis
