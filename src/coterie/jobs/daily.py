"""The daily job: everybody's history, scored by the live model, published as one edition of lists.

The same day again changes nothing, and a day that was interrupted anywhere is finished: scoring
goes on with the shards that are missing, and the store shows a day whole or not at all.
"""

import json
import logging
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coterie.data.ids import IdMap
from coterie.errors import DataError, NotFoundError
from coterie.files import publish_file, write_json
from coterie.jobs.arms import Arms, Part, all_items
from coterie.jobs.attempts import attempted
from coterie.jobs.config import RowConfig, Service, days_of
from coterie.jobs.events import Day, collect, write_histories
from coterie.jobs.titles import Titles, allowed, catalogue, listed, read_titles
from coterie.jobs.watching import Watched, overlap, prometheus, warnings
from coterie.jobs.weekly import locked
from coterie.ranking.options import RankingOptions
from coterie.registry import Registry, Version
from coterie.running.progress import Progress, Update, silent
from coterie.store import Store, open_store
from coterie.stream.ray_engine import RayEngine
from coterie.stream.to_folder import (
    Engine,
    FolderRecommendations,
    LocalEngine,
    recommend_to_folder,
)
from coterie.training.trained_model import TrainedModel

log = logging.getLogger(__name__)

SCHEMA = "coterie.daily/1"
METRICS = "metrics.prom"
"""Among a service's work: the figures of the live day as Prometheus reads them."""

_THREADS = 1
"""That score a shard: their number may change the rounding, and a day is to be the same bytes on
one machine and on many. More processors take more shards (Ray).
"""

EngineName: TypeAlias = Literal["local", "ray"]


@dataclass(frozen=True)
class DailyResult:
    """What a daily run came to.

    Args:
        day: The date that the lists are for.
        version: The model's name.
        figures: What is watched. JSON values.
        warnings: Bounds that were passed, in words.
        published: Whether anything was new.
    """

    day: date
    version: str
    figures: Mapping[str, Any]
    warnings: tuple[str, ...]
    published: bool

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "schema": SCHEMA,
            "day": self.day.isoformat(),
            "version": self.version,
            "figures": dict(self.figures),
            "warnings": list(self.warnings),
        }


def daily(
    service: Service,
    day: date,
    *,
    engine: EngineName = "local",
    progress: Progress = silent,
) -> DailyResult:
    """Publishes the lists of a day: of everybody who did something before it.

    Args:
        service: The service.
        day: The lists are for this date, and know what arrived before it.
        engine: Who scores: this process, or the processes of Ray.
        progress: Called as the work goes on.

    Raises:
        ConflictError: if another daily run is at work.
        NotFoundError: if no model is live.
        DataError: if there are no events before the day.
        UnavailableError: if the store cannot be reached.
        Interrupted: after SIGINT or SIGTERM; the same call goes on.
    """
    with locked(service, "daily"), attempted(service, "daily", day):
        version = Registry(service.registry).live
        if version is None:
            raise NotFoundError(
                f"{service.folder}: a model must be live, none is; run coterie weekly, or promote"
                " a version."
            )
        with open_store(service.place(service.config.store.url)) as store:
            return _Day(service, day, version, store, engine, progress).result()


@dataclass(frozen=True, eq=False)
class _Scored:
    """A part of the users with their lists.

    Args:
        part: Whose.
        items: Their model's.
        popularity: ``[n_items]`` its training users of each.
        written: Lists by card row.
    """

    part: Part
    items: IdMap
    popularity: np.ndarray
    written: Mapping[str, FolderRecommendations]


@dataclass(eq=False)
class _Day:
    service: Service
    day: date
    version: Version
    store: Store
    engine: EngineName
    progress: Progress

    def result(self) -> DailyResult:
        """All of it."""
        there = self._there()
        new = there is None or there["request"] != self._request
        if there is None or new:
            there = self._publish()
        kept = ("version", "figures", "warnings", "experiments")
        note = {name: there[name] for name in kept if name in there}
        self.store.note("daily", self.day.isoformat(), note)
        self._expose(there)
        self._tidy()
        told = there["figures"], tuple(there["warnings"])
        return DailyResult(self.day, there["version"], *told, published=new)

    @cached_property
    def days(self) -> list[Day]:
        """Of the window before the day."""
        first = self.day - timedelta(days=self.service.config.prepare.window_days)
        return collect(self.service, days_of(first, self.day), self.progress)

    @cached_property
    def titles(self) -> Titles:
        """The table of titles."""
        return read_titles(self.service)

    @cached_property
    def arms(self) -> Arms:
        """Of the day's experiments."""
        return Arms(self.service, self.day, self.version)

    @cached_property
    def model(self) -> TrainedModel:
        """The live one."""
        return TrainedModel.load(self.version.model)

    @cached_property
    def _request(self) -> dict[str, Any]:
        """What an edition is made of: the same request is the same edition."""
        rows, experiments = self.service.config.rows, self.arms.request
        return {
            "schema": SCHEMA,
            "model": self.version.card["fingerprint"],
            "rows": {name: self._rules(row) for name, row in rows.items()},
            "events": {str(one.day): one.digest for one in self.days},
            "titles": self.titles.digest,
            **({"experiments": experiments} if experiments else {}),
        }

    def _rules(self, row: RowConfig) -> dict[str, Any]:
        """What a card row may show, the ids of its files among it: a title that is denied in the
        course of a day is to go that day.
        """
        files = {name: listed(self.service, getattr(row, name)) for name in ("allow", "deny")}
        ids = {name: None if found is None else sorted(found) for name, found in files.items()}
        return {**row.model_dump(mode="json"), **ids}

    def _there(self) -> Mapping[str, Any] | None:
        name = self.day.isoformat()
        found = [one for one in self.store.editions() if one.name == name]
        return found[0].facts if found else None

    @property
    def folder(self) -> Path:
        """Of the day's work."""
        return self.service.work / "daily" / self.day.isoformat()

    def _publish(self) -> dict[str, Any]:
        """Scores and publishes; the edition's facts."""
        began, parts = time.perf_counter(), self.arms.divided(self._histories(), self.folder)
        scored = [self._scored(part) for part in parts]
        items = all_items([self.model.items, *(one.items for one in scored)])
        figures = self._figures(scored, items)
        figures |= {"seconds": round(time.perf_counter() - began, 3), "peak_mib": _peak_mib()}
        facts = {
            "request": self._request,
            "version": self.version.name,
            "figures": figures,
            "warnings": list(warnings(self.service.config.watch, figures)),
            **self._experiments(scored, items),
        }
        newer = [one.name for one in self.store.editions() if one.name > self.day.isoformat()]
        self.progress(Update(f"{self.day}: publishing"))
        table, lists = catalogue(items, self.titles), self._lists(scored, items)
        self.store.publish(self.day.isoformat(), table, lists, facts, live=not newer)
        return facts

    def _experiments(self, scored: Sequence[_Scored], items: IdMap) -> dict[str, Any]:
        """Who is in which arm, and how each arm's lists look, those of the first card row."""
        if not self.arms.running:
            return {}
        name = next(iter(self.service.config.rows))
        lists = (
            table
            for one in scored
            for path in _shards(one.written[name])
            for table in _lists_of(path, name, items)
        )
        sizes = {one.part.version.name: len(one.items) for one in scored}
        return {"experiments": self.arms.facts(lists, items, sizes)}

    def _options(self, row: RowConfig, model: TrainedModel) -> RankingOptions:
        allow = allowed(self.service, row, self.titles, model.items, self.day)
        return RankingOptions(k=row.k, exclude_seen=row.watched == "leave-out", allow=allow)

    def _figures(self, scored: Sequence[_Scored], items: IdMap) -> dict[str, Any]:
        """What is watched; of lists, those of the first card row. How they look is the live
        model's matter, if it has any of them.
        """
        name = next(iter(self.service.config.rows))
        written = [one.written[name] for one in scored]
        n_users = sum(one.n_users for one in written)
        watched = Watched(scored[0].items, scored[0].popularity, self.days, self.day)
        shards = _shards(written[0])
        trained_until = date.fromisoformat(self.version.card["week"]) + timedelta(weeks=1)
        return {
            "users": n_users,
            "fallback_share": sum(one.n_popularity_users for one in written) / max(n_users, 1),
            "overlap": self._overlap(next(_lists_of(shards[0], name, items), None), items),
            "model_age_days": (self.day - trained_until).days,
            **watched.of_lists(shards),
            **watched.of_events(),
        }

    def _overlap(self, lists: pa.Table | None, items: IdMap) -> float | None:
        """With the newest edition before; None where there is nothing to compare."""
        before = [one.name for one in self.store.editions() if one.name < self.day.isoformat()]
        if lists is None or not before:
            return None
        return overlap(self.store, lists, items, before[0])

    def _histories(self) -> Path:
        path = self.folder / "histories.parquet"
        request, told = self.folder / "request.json", self._request
        if not (request.exists() and json.loads(request.read_text(encoding="utf-8")) == told):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.days:
                raise DataError(f"there must be events before {self.day}, found none.")
            write_histories(self.service, self.days, path)
            write_json(request, told)
        return path

    def _scored(self, part: Part) -> _Scored:
        """A part's lists by its own model, which is not kept unless it is the live one."""
        is_live = part.version == self.version
        model = self.model if is_live else TrainedModel.load(part.version.model)
        written = {
            name: recommend_to_folder(
                model,
                str(part.histories),
                part.folder / name,
                self._options(row, model),
                engine=self._engine(part.version),
                progress=self.progress,
            )
            for name, row in self.service.config.rows.items()
        }
        return _Scored(part, model.items, model.popularity, written)

    def _engine(self, version: Version) -> Engine:
        if self.engine == "local":
            return LocalEngine(_THREADS)
        return RayEngine(partial(TrainedModel.load, version.model), threads=_THREADS)

    def _lists(self, scored: Sequence[_Scored], items: IdMap) -> Iterator[pa.Table]:
        """Everybody's lists, and each card row's fall-back, which is nobody's and the live
        model's.
        """
        for name, row in self.service.config.rows.items():
            for one in scored:
                for path in _shards(one.written[name]):
                    yield from _lists_of(path, name, items)
            options = self._options(row, self.model)
            lists = as_lists(self.model.recommend({"": []}, options).table, name, items)
            nobody = pa.nulls(len(lists), pa.string())
            yield lists.set_column(0, "user_id", nobody)

    def _expose(self, facts: Mapping[str, Any]) -> None:
        """The live day's figures where Prometheus's node exporter can pick them up."""
        live, path = self.store.live(), self.service.work / METRICS
        text = prometheus(facts["figures"], len(facts["warnings"]))
        is_live = live is not None and live.name == self.day.isoformat()
        if is_live and not (path.exists() and path.read_text(encoding="utf-8") == text):
            with publish_file(path) as aside:
                aside.write_text(text, encoding="utf-8")

    def _tidy(self) -> None:
        keep = self.service.config.retention
        self.store.prune(keep.editions)
        shutil.rmtree(self.folder, ignore_errors=True)
        first = self.day - timedelta(days=keep.days)
        for path in (self.service.work / "days").glob("*.parquet"):
            # Another job may be writing it, or sweep it, too.
            with suppress(FileNotFoundError):
                if _is_over(path, first):
                    path.unlink()


def _is_over(path: Path, first: date) -> bool:
    """Whether a day is before the first, or a day ago a kill left half of one."""
    if path.name.startswith("."):
        return path.stat().st_mtime < time.time() - 86_400
    return path.stem < first.isoformat()


def as_lists(table: pa.Table, row: str, items: IdMap) -> pa.Table:
    """Rows of recommendations as one row a user.

    Args:
        table: user_id, rank, item_id, score, source; users together, best first.
        row: Name of the card row.
        items: The catalogue's.
    """
    starts = np.flatnonzero(table["rank"].to_numpy() == 1)
    offsets = pa.array(np.append(starts, len(table)).astype(np.int32))
    codes = pa.array(items.index_of(table["item_id"]).astype(np.int32))
    first = table.take(pa.array(starts))
    return pa.table(
        {
            "user_id": first["user_id"],
            "row": pa.array(np.full(len(starts), row)),
            "items": pa.ListArray.from_arrays(offsets, codes),
            "scores": pa.ListArray.from_arrays(offsets, table["score"].combine_chunks()),
            "source": first["source"],
        }
    )


def _lists_of(shard: Path, row: str, items: IdMap) -> Iterator[pa.Table]:
    """A shard's lists, some row groups at a time, as each holds whole users."""
    with pq.ParquetFile(shard, read_dictionary=["source"]) as file:
        for start in range(0, file.num_row_groups, _GROUPS):
            groups = range(start, min(start + _GROUPS, file.num_row_groups))
            yield as_lists(file.read_row_groups(list(groups)), row, items)


_GROUPS = 8


def _shards(written: FolderRecommendations) -> list[Path]:
    return sorted(Path(written.path).glob("part-*.parquet"))


def _peak_mib() -> int:
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
