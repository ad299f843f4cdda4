"""Eight weeks of production on a service that lives, in some minutes: what happened, and how good
the published lists were beside the best possible ones.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from coterie.errors import ConflictError
from coterie.files import publish_file, write_json
from coterie.jobs.config import FILE, Service, days_of
from coterie.jobs.daily import daily
from coterie.jobs.weekly import WeeklyResult, weekly
from coterie.plain_table import plain_table
from coterie.running.progress import Progress, Update, silent
from coterie.simulation.broken import Broken
from coterie.simulation.living import LivingService
from coterie.store import Store, open_store

log = logging.getLogger(__name__)

FIRST_DAY = date(2026, 1, 5)
_BEFORE, _K = 6, 20
_BROKEN = 5
_FILE = """\
# Eight weeks of `make demo-production`; coterie.toml of `coterie init` tells what can be said.
name = "demo"

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
name = "linear-path-vae"
hidden_dims = []
latent_dim = 64

[training]
epochs = 60
batch_size = 100
patience = 5
metric = "ndcg@20"

[rows.main]
k = 20

[rows.movies]
k = 20
kinds = ["movie"]
"""


@dataclass(frozen=True)
class WeekTold:
    """What a week came to.

    Args:
        week: Its Monday.
        result: Of the weekly job; where the log was broken, of that run.
        again: Of the same week once the log was whole, where it was broken before.
        quality: What the lists published on the Monday after are worth: the mean share of the best
            possible probability that a user's next title is in the list.
        popular: The same of the most popular titles.
        kept: Share of a user's list that was in the list of the week before.
    """

    week: date
    result: WeeklyResult
    again: WeeklyResult | None
    quality: float
    popular: float
    kept: float | None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        again = None if self.again is None else self.again.to_json()
        told = {"quality": self.quality, "popular": self.popular, "kept": self.kept}
        return {"week": str(self.week), "run": self.result.to_json(), "again": again, **told}


def production(
    folder: str | Path,
    *,
    n_users: int = 1_500,
    n_items: int = 300,
    weeks: int = 8,
    progress: Progress = silent,
) -> list[WeekTold]:
    """Lives through some weeks in a new service folder.

    In the sixth week half of the log is missing: the gates stop what was trained on it. Then the
    log is mended, and the same command goes on.

    Args:
        folder: New, or without a service.
        n_users: Users at the beginning.
        n_items: Titles at the beginning.
        weeks: How many, after six weeks of history.
        progress: Called as the work goes on.

    Raises:
        ConflictError: if a service is there.
    """
    folder = Path(folder)
    if (folder / FILE).exists():
        raise ConflictError(f"{folder}: a service is there already; choose another folder.")
    living = LivingService(n_users, n_items, _BEFORE + weeks + 1, 1, FIRST_DAY)
    with publish_file(folder / FILE) as aside:
        aside.write_text(_FILE, encoding="utf-8")
    life = _Life(Service.load(folder), living, progress)
    first = FIRST_DAY + timedelta(weeks=_BEFORE)
    living.write(folder, FIRST_DAY, first - timedelta(days=1), progress)
    told = [life.week(first + timedelta(weeks=n), broken=n == _BROKEN) for n in range(weeks)]
    write_json(folder / "weeks.json", [one.to_json() for one in told])
    return told


@dataclass
class _Life:
    service: Service
    living: LivingService
    progress: Progress

    def week(self, monday: date, *, broken: bool) -> WeekTold:
        """A week passes: its days arrive, the jobs run on the Monday after."""
        stop = monday + timedelta(weeks=1)
        source = Broken(self.living, "half", monday, stop) if broken else self.living
        source.write(self.service.folder, monday, stop - timedelta(days=1), self.progress)
        result, again = self._weekly(stop), None
        if result.failed:
            self.living.write(self.service.folder, monday, stop - timedelta(days=1), self.progress)
            again = self._weekly(stop) if broken else None
        self.progress(Update(f"{stop}: publishing"))
        daily(self.service, stop, progress=self.progress)
        with open_store(self.service.place(self.service.config.store.url)) as store:
            quality, popular, kept = self._looked(store, stop)
        log.info("%s: %.3f of the best possible", monday, quality)
        return WeekTold(monday, result, again, quality, popular, kept)

    def _weekly(self, today: date) -> WeeklyResult:
        return weekly(self.service, today, device="cpu", progress=self.progress)

    def _looked(self, store: Store, day: date) -> tuple[float, float, float | None]:
        """Worth of the lists and of the fall-back, and what was kept of last week's."""
        users = np.random.default_rng(0).permutation(self.living.users(day))[:_LOOKED_AT]
        users, seen = np.sort(users), self._seen(day)
        law = self.living.probabilities(users, day)
        fallback = store.fallback("main")
        popular = [] if fallback is None else fallback.item_ids
        before = (day - timedelta(weeks=1)).isoformat()
        has_before = before in [edition.name for edition in store.editions()]
        worth, kept = [], []
        for user, p in zip(users.tolist(), law, strict=True):
            found = store.find(user)
            if found is None:
                continue
            p[_columns(seen.get(user, ()))] = 0
            best = np.sort(p)[-_K:].sum()
            worth.append([p[_columns(ids)].sum() / best for ids in (found.item_ids, popular)])
            old = store.find(user, edition=before) if has_before else None
            if old is not None:
                kept.append(len({*old.item_ids} & {*found.item_ids}) / len(found.item_ids))
        of_live, of_popular = np.mean(worth, axis=0).tolist()
        return of_live, of_popular, float(np.mean(kept)) if kept else None

    def _seen(self, day: date) -> Mapping[int, set[int]]:
        seen: dict[int, set[int]] = {}
        for one in days_of(FIRST_DAY, day):
            table = pq.read_table(
                f"{self.service.day_path(one)}/events.parquet", columns=list(_PAIR)
            )
            for user, item in zip(*(table[name].to_pylist() for name in _PAIR), strict=True):
                seen.setdefault(user, set()).add(item)
        return seen


_PAIR = ("user_id", "item_id")
_LOOKED_AT = 500


def _columns(item_ids: Iterable[Any]) -> np.ndarray:
    return np.asarray(sorted(item_ids), dtype=np.int64) - 1


def table(told: list[WeekTold]) -> str:
    """What happened, for a terminal."""
    rows = [_row(one) for one in told]
    header = ["week of", "live model", "start", "of the best", "popular", "kept", "gates"]
    return plain_table(header, rows, [False, False, False, True, True, True, False])


def _row(one: WeekTold) -> list[str]:
    done = one.again or one.result
    failed = ", ".join(gate.name for gate in one.result.failed)
    mended = "; passed once mended" if one.again and not one.again.failed else ""
    return [
        str(one.week),
        done.live or "none",
        done.facts["training"]["start"],
        f"{one.quality:.1%}",
        f"{one.popular:.1%}",
        "–" if one.kept is None else f"{one.kept:.0%}",
        f"failed {failed}{mended}" if failed else "passed",
    ]
