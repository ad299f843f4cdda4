"""The weekly job: collect, prepare, train, measure, hold against the gates, refit, register.

Each step leaves its result in the week's work folder, so that the same command goes on after an
interruption of any kind. The live model is only ever replaced by moving the registry's pointer.
"""

import getpass
import json
import logging
import math
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

import coterie
from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.ids import Id, IdMap
from coterie.data.prepare import prepare
from coterie.data.rules import StrongGeneralisation, TimeSplit
from coterie.data.split import LEAST_TO_HIDE, Part
from coterie.errors import ConfigError, ConflictError, DataError
from coterie.evaluation.compare import Comparison, Difference
from coterie.evaluation.evaluate import evaluate
from coterie.evaluation.report import finite_or_none
from coterie.files import write_json
from coterie.fingerprints import fingerprint_of
from coterie.jobs import gates
from coterie.jobs.arms import arm_configs, used_versions
from coterie.jobs.attempts import attempted
from coterie.jobs.config import Service, days_of, monday
from coterie.jobs.events import Day, answer, collect, seconds, select, write_window
from coterie.jobs.gates import Gate
from coterie.jobs.golden import repeated
from coterie.jobs.mlflow_log import logged
from coterie.jobs.titles import read_titles
from coterie.jobs.trial import Trial, sampled
from coterie.locks import try_lock
from coterie.models.ease import EaseConfig
from coterie.models.popularity import PopularityConfig
from coterie.ranking.scorer import CatalogueScorer
from coterie.registry import Registry, Version
from coterie.running.execution import Execution
from coterie.running.progress import Progress, Update, silent
from coterie.training.chosen import Chosen
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
from coterie.training.warm_start import WarmStart

log = logging.getLogger(__name__)

SCHEMA = "coterie.weekly/1"
_MOST_CASES = 20_000
_MOST_EASE_ITEMS = 12_000
_LAST = 8
_NOT_TRAINED: Any = {
    **dict.fromkeys(
        ("store", "schedule", "retention", "registry", "serve", "watch", "rows", "experiments"),
        True,
    ),
    "events": {"late_days"},
}
"""What may change without the week's being trained anew."""


@dataclass(frozen=True)
class WeeklyResult:
    """What a weekly run came to.

    Args:
        week: Monday of the week that ended last.
        version: Name of the version that was registered.
        gates: Every verdict.
        live: Name of the model that is live now.
        facts: Figures: metrics by model, how it was trained, durations. JSON values.
    """

    week: date
    version: str
    gates: Sequence[Gate]
    live: str | None
    facts: Mapping[str, Any]

    @property
    def failed(self) -> list[Gate]:
        """The gates that were not passed."""
        return [gate for gate in self.gates if not gate.passed]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "schema": SCHEMA,
            "week": self.week.isoformat(),
            "version": self.version,
            "passed": not self.failed,
            "live": self.live,
            "gates": [gate.to_json() for gate in self.gates],
            **self.facts,
        }

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "WeeklyResult":
        """Reads what `to_json` gave."""
        known = ("schema", "week", "version", "passed", "live", "gates")
        facts = {name: value for name, value in told.items() if name not in known}
        found = [Gate(**gate) for gate in told["gates"]]
        week = date.fromisoformat(told["week"])
        return cls(week, told["version"], found, told["live"], facts)


def weekly(
    service: Service,
    today: date,
    *,
    cold: bool = False,
    device: Execution | str = "auto",
    progress: Progress = silent,
) -> WeeklyResult:
    """Trains on the newest whole week before a date, and makes the model live if it passes.

    The model is trained without a share of the users, who choose its epochs, and without the last
    days, which it is measured on beside the live model, EASE and popularity. Then it is trained on
    everything for as many epochs, and registered, also if a gate fails: but then it is not live.

    Args:
        service: The service.
        today: As if it were this day: only what came before it is read.
        cold: Whether to train anew, whatever the configuration says.
        device: Where and how to train.
        progress: Called as the work goes on.

    Raises:
        ConflictError: if another weekly run is at work.
        DataError: if there are no events.
        Interrupted: after SIGINT or SIGTERM; the same call goes on.
    """
    with locked(service, "weekly"), attempted(service, "weekly", monday(today)):
        work = _Week(service, monday(today), cold, Execution.of(device), progress)
        return work.result()


@contextmanager
def locked(service: Service, job: str) -> Iterator[None]:
    """Holds a job's lock, which a crash frees.

    Raises:
        ConflictError: if another process holds it.
    """
    lock = try_lock(service.work / f"{job}.lock")
    if lock is None:
        raise ConflictError(f"{service.folder}: another {job} run is at work; wait for it to end.")
    try:
        yield
    finally:
        lock.release()


@dataclass(eq=False)
class _Week:
    """A week's work: ``stop`` is the day after its last, a Monday."""

    service: Service
    stop: date
    cold: bool
    execution: Execution
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    def result(self) -> WeeklyResult:
        """All of it; what is there already is read."""
        self._agree()
        told = self.folder / "result.json"
        if not told.exists():
            write_json(told, self._work().to_json())
        result = self._settled(WeeklyResult.of(_read(told)))
        for values in arm_configs(self.service, self.stop):
            self._train_arm(values)
        kept = self.service.config.retention.versions
        self.registry.prune(kept, used_versions(self.service))
        self._tidy()
        return result

    @cached_property
    def folder(self) -> Path:
        """Where its steps leave their results."""
        year, week, _ = self.first.isocalendar()
        return self.service.work / "weekly" / f"{year}-W{week:02d}"

    @property
    def first(self) -> date:
        """Its Monday."""
        return self.stop - timedelta(weeks=1)

    @property
    def test_from(self) -> date:
        """The first day that the candidate is measured on."""
        return self.stop - timedelta(days=self.service.config.prepare.test_days)

    @cached_property
    def days(self) -> list[Day]:
        """The window's days."""
        first = self.stop - timedelta(days=self.service.config.prepare.window_days)
        return collect(self.service, days_of(first, self.stop), self.progress)

    @cached_property
    def registry(self) -> Registry:
        """Of the service."""
        return Registry(self.service.registry)

    @cached_property
    def parent(self) -> Version | None:
        """The version that was live as the week's work began or, where that has seen the test days,
        the last before it that has not.
        """
        kept = {version.name: version for version in self.registry.versions}
        live, lived = _read(self.folder / "week.json")["live"], self.registry.lived
        until = lived[: lived.index(live) + 1] if live in lived else lived
        before = (kept[name] for name in reversed(until) if name in kept)
        return next(filter(self._is_before, before), None) if live is not None else None

    def _is_before(self, version: Version) -> bool:
        """Whether a version has seen nothing of the test days: one that has would win every
        trial.
        """
        seen_until = date.fromisoformat(version.card["week"]) + timedelta(weeks=1)
        return seen_until <= self.test_from

    def _agree(self) -> None:
        """Begins the folder; one of other events or another configuration is begun anew."""
        live = self.registry.live
        terms = {
            "schema": SCHEMA,
            "config": self.service.config.model_dump(mode="json", exclude=_NOT_TRAINED),
            "cold": self.cold,
            "days": {str(day.day): day.digest for day in self.days},
        }
        path = self.folder / "week.json"
        there = _read(path) if path.exists() else None
        if there is not None and {**there, "live": None} == {**terms, "live": None}:
            return
        if there is not None:
            log.info("%s: other events or another configuration, begun anew", self.folder.name)
        shutil.rmtree(self.folder, ignore_errors=True)
        write_json(path, {**terms, "live": None if live is None else live.name})

    def _work(self) -> WeeklyResult:
        began = time.perf_counter()
        candidate, training = self._step("train", self._trained)
        found, facts = self._step("measure", lambda: self._measured(candidate))
        version, model = self._step("refit", lambda: self._refitted(candidate, training["start"]))
        verdicts = [*found, self._step("golden", lambda: self._golden(model))]
        facts = {
            "metric": self.service.config.gates.metric,
            "days": len(self.days),
            "events": sum(day.n_events for day in self.days),
            "parent": None if self.parent is None else self.parent.name,
            "training": training,
            **facts,
            "seconds": {**self.seconds, "all": round(time.perf_counter() - began, 3)},
        }
        result = WeeklyResult(self.first, version, verdicts, None, facts)
        self._register(result, model)
        return result

    def _step(self, name: str, do: Callable[[], Any]) -> Any:
        self.progress(Update(f"{self.folder.name}: {name}"))
        began = time.perf_counter()
        done = do()
        self.seconds[name] = round(time.perf_counter() - began, 3)
        return done

    @cached_property
    def dataset(self) -> Dataset:
        """Everything before the last days trains but for some users; the last days are the test."""
        rules, path = self.service.config.prepare, self.folder / "data"
        if not (path / "manifest.json").exists():
            split = TimeSplit(rules.test_days, self.test_from, validation_days=0)
            data = self._prepared(split)
            held_out = data.with_validation_users(rules.held_out_users, seed=0)
            _check_validated(held_out, rules.held_out_users, self.test_from)
            held_out.save(path)
        return Dataset.load(path)

    @cached_property
    def everything(self) -> Dataset:
        """All of the window in training, its newest titles among it."""
        path = self.folder / "everything"
        if not (path / "manifest.json").exists():
            self._prepared(StrongGeneralisation(0)).save(path)
        return Dataset.load(path)

    def _prepared(self, split: TimeSplit | StrongGeneralisation) -> Dataset:
        events, rules = self.folder / "events.parquet", self.service.config.prepare
        if not events.exists():
            write_window(self.service, self.days, events, until=self.stop)
        return prepare(
            str(events),
            timestamp="timestamp",
            titles=read_titles(self.service).names or None,
            min_user_items=rules.min_user_items,
            min_item_users=rules.min_item_users,
            split=split,
        )

    def _trained(self) -> tuple[TrainedModel, dict[str, Any]]:
        """The candidate: from the live model or anew, whichever validation users prefer."""
        config, starts = self.service.config.run, self._starts()
        models = {
            start: self._run(start, self.dataset, config, warm=start == "warm") for start in starts
        }
        values = {
            start: evaluate(
                model, self.dataset, Part.VALIDATION, metrics=(self._metric(config),)
            ).mean(self._metric(config))
            for start, model in models.items()
        }
        start = max(values, key=lambda name: values[name])
        told = {
            name: {"validation": values[name], "epochs": model.provenance.get("best_epoch")}
            for name, model in models.items()
        }
        return models[start], {"start": start, "starts": told}

    def _metric(self, config: RunConfig) -> str:
        return self.service.config.gates.metric if config.network_free() else config.training.metric

    def _starts(self) -> list[str]:
        config, parent = self.service.config, self.parent
        if self.cold or parent is None or config.run.network_free():
            return ["cold"]
        if config.start == "best" and not self._fits(parent, config.run):
            return ["cold"]
        return {"best": ["warm", "cold"], "warm": ["warm"], "cold": ["cold"]}[config.start]

    def _fits(self, parent: Version, config: RunConfig) -> bool:
        """Whether training can begin from a version: not where [model] or all ids have changed."""
        try:
            WarmStart.of(parent.model).check(config, self.dataset)
        except ConfigError as error:
            log.info("%s: trained anew: %s", self.folder.name, error)
            return False
        return True

    def _run(self, name: str, dataset: Dataset, config: RunConfig, *, warm: bool) -> TrainedModel:
        """Trains in a folder of the week, or goes on, or reads what is there."""
        out = self.folder / name
        if (out / "model" / "manifest.json").exists():
            return TrainedModel.load(out, self.execution.resolved().device)
        source = {"warm_from": self.parent.model} if warm and self.parent is not None else {}
        return train(
            dataset,
            config,
            out=out,
            resume=out.exists(),
            device=self.execution,
            progress=self.progress,
            **source,  # type: ignore[arg-type]
        )

    def _measured(self, candidate: TrainedModel) -> tuple[list[Gate], dict[str, Any]]:
        """The gates of the data, the comparisons and the lists; and every figure behind them."""
        config, dataset = self.service.config.gates, self.dataset
        cases = sampled(dataset.cases(Part.TEST), _MOST_CASES)
        if not len(cases.user_index):
            raise DataError(
                f"somebody known must have taken up something in the last"
                f" {self.service.config.prepare.test_days} days, found nobody; lengthen test_days."
            )
        users = IdMap(dataset.users.take(cases.user_index))
        trial = Trial(cases, dataset.items, users, config.metric)
        others = self._others(dataset)
        comparisons = {name: trial.against(candidate, model) for name, model in others.items()}
        facts: dict[str, Any] = {
            "test": {"users": len(cases.user_index), **self._looks(candidate, cases)},
            "against": {name: _told(found, config.metric) for name, found in comparisons.items()},
        }
        lists = {
            "distinct": trial.distinct(candidate),
            "coverage": facts["test"]["coverage@20"],
            "popularity": _ratio(
                facts["test"]["popularity@20"], facts["test"]["popularity_of_history"]
            ),
            "turnover": trial.overlap(candidate, others["live"]) if "live" in others else None,
        }
        found = [*self._of_data(), *self._of_live(others, trial)]
        found += self._of_quality(comparisons)
        return [*found, *gates.of_lists(config, lists)], facts | {"lists": lists}

    def _others(self, dataset: Dataset) -> dict[str, CatalogueScorer]:
        """The models it is held against, by name."""
        others: dict[str, CatalogueScorer] = {"popularity": train(dataset, PopularityConfig())}
        if dataset.n_items <= _MOST_EASE_ITEMS:
            others["ease"] = train(dataset, EaseConfig())
        if self.parent is not None:
            others["live"] = TrainedModel.load(self.parent.model)
        for version in self._rivals()[-_LAST:]:
            if version != self.parent:
                others[version.name] = TrainedModel.load(version.model)
        return others

    def _rivals(self) -> list[Version]:
        """Versions that a candidate must not fall behind, oldest first: not those that people went
        back from, whatever their figures.
        """
        registry = self.registry
        left = {move.to for move in registry.moves} - set(registry.lived)
        found = [
            one
            for one in registry.versions
            if one.passed and not one.is_arm and one.name not in left
        ]
        return list(filter(self._is_before, found))

    def _looks(self, candidate: TrainedModel, cases: Any) -> dict[str, float]:
        metrics = (self.service.config.gates.metric, "recall@20", "coverage@20", "popularity@20")
        report = evaluate(candidate, cases, metrics=metrics, train=self.dataset.train)
        means = {name: report.mean(name) for name in report.metrics}
        return {**means, **dict(report.of_all_lists)}

    def _of_data(self) -> list[Gate]:
        """The log itself: its volume, and whether its ids are those of before."""
        config = self.service.config.gates
        week = days_of(self.first, self.stop)
        users, items = self._known_shares()
        return [
            gates.volume(self.days, week, config.volume),
            gates.at_least("known users", users, config.known_users, "users seen before the week"),
            gates.at_least(
                "known items", items, config.known_items, "events of items that live knows"
            ),
        ]

    def _known_shares(self) -> tuple[float | None, float | None]:
        """Of the week's users, those seen before; of its events, those of the live model's
        items.
        """
        new = f"timestamp >= {seconds(self.first)}"
        source = select(self.days)
        with duckdb.connect() as database:
            users = answer(
                database,
                f"SELECT count(DISTINCT user_id) n, count(DISTINCT user_id) FILTER (user_id IN"
                f" (SELECT user_id FROM {source} WHERE NOT {new})) known FROM {source} WHERE {new}",
            )
            events = answer(database, f"SELECT item_id FROM {source} WHERE {new}")
        n_users, n_known = users["n"][0].as_py(), users["known"][0].as_py()
        share = n_known / n_users if n_users and len(self.days) > 7 else None
        if self.parent is None or not len(events):
            return share, None
        known = TrainedModel.load(self.parent.model).items.index_of(events["item_id"])
        return share, float((known >= 0).mean())

    def _of_live(self, others: Mapping[str, CatalogueScorer], trial: Trial) -> list[Gate]:
        """The live model on days that it has not seen: ids that were mixed up show here."""
        share, live = None, others.get("live")
        before = self.parent and self.parent.card.get("test", {}).get(trial.metric)
        if live is not None and before:
            share = trial.report(live).mean(trial.metric) / before
        bound = self.service.config.gates.live_on_new_days
        about = f"{trial.metric} of the live model on the new days over its own test's"
        return [gates.at_least("live on new days", share, bound, about)]

    def _of_quality(self, comparisons: Mapping[str, Comparison]) -> list[Gate]:
        config = self.service.config.gates
        named = ("live", "ease", "popularity")
        groups = {
            "live": (["live"], config.margin_live),
            "baselines": (["ease", "popularity"], config.margin_baseline),
            "last eight": ([one for one in comparisons if one not in named], config.margin_best),
        }
        found = [
            gates.not_inferior(
                name,
                {one: comparisons[one] for one in members if one in comparisons},
                config.metric,
                margin,
            )
            for name, (members, margin) in groups.items()
        ]
        cohorts = gates.no_cohort_lost(comparisons.get("live"), config.metric, config.margin_cohort)
        return [*found, cohorts]

    def _refitted(self, candidate: TrainedModel, start: str) -> tuple[str, TrainedModel]:
        """The candidate's choice trained on everything, and the name of its version.

        The same model that was held against other gates, or another live model, is another version.
        """
        config = candidate.config
        if not config.network_free():
            config = Chosen.of(config, candidate.provenance).config
        model = self._run("refit", self.everything, config, warm=start == "warm")
        terms = (self.folder / "week.json").read_bytes()
        digest = fingerprint_of([("model", model.fingerprint.encode()), ("terms", terms)])
        return f"{self.folder.name}-{digest[:8]}", model

    def _golden(self, model: TrainedModel, run: str = "refit") -> Gate:
        """Some users' lists from the files alone, in a process that has seen nothing else."""
        data = self.everything.interactions
        n = min(self.service.config.gates.golden_users, data.n_users)
        drawn = np.sort(np.random.default_rng(0).permutation(data.n_users)[:n])
        histories: dict[str, list[Id]] = {
            str(user): data.items.ids_of(data.indices[data.indptr[user] : data.indptr[user + 1]])
            for user in drawn
        }
        share = repeated(self.folder / run / "model", model, histories)
        return gates.at_least("golden users", share, 1.0, "lists that a fresh process repeats")

    def _train_arm(self, values: Mapping[str, Any]) -> None:
        """Trains what experiments compare the live model with, as a candidate is: registered, and
        promoted by nobody but people.
        """
        config, terms = RunConfig.of(values), (self.folder / "week.json").read_bytes()
        told = json.dumps(values, sort_keys=True).encode()
        digest = fingerprint_of([("terms", terms), ("arm", told)])[:8]
        name = f"{self.folder.name}-{config.model.name}-{digest}"
        if name in [version.name for version in self.registry.versions]:
            return
        self.progress(Update(f"{self.folder.name}: {config.model.name}, for an experiment"))
        candidate = self._run(digest, self.dataset, config, warm=False)
        cases = sampled(self.dataset.cases(Part.TEST), _MOST_CASES)
        looks = {"users": len(cases.user_index), **self._looks(candidate, cases)}
        refit = f"{digest}-refit"
        config = Chosen.of(candidate.config, candidate.provenance).config
        model = self._run(refit, self.everything, config, warm=False)
        golden = self._golden(model, refit)
        card = self._card(model, [golden]) | {
            "arm": dict(values),
            "metric": self.service.config.gates.metric,
            "training": {"start": "cold"},
            "test": looks,
        }
        folder = self.folder / refit / "model"
        self.registry.register(name, folder, card, passed=golden.passed)

    def _register(self, result: WeeklyResult, model: TrainedModel) -> None:
        card = self._card(model, result.gates) | dict(result.facts)
        passed = not result.failed
        folder = self.folder / "refit" / "model"
        version = self.registry.register(result.version, folder, card, passed=passed)
        if self.service.config.registry.mlflow:
            logged(version, self.service.config.name)

    def _card(self, model: TrainedModel, verdicts: Sequence[Gate]) -> dict[str, Any]:
        """What a version of this week says of itself."""
        return {
            "fingerprint": model.fingerprint,
            "data": self.everything.fingerprint,
            "users": self.everything.n_users,
            "items": self.everything.n_items,
            "config": model.config.as_json(),
            "week": self.first.isoformat(),
            "window": [str(self.days[0].day), str(self.days[-1].day)],
            "failed": [gate.name for gate in verdicts if not gate.passed],
            "gates": [gate.to_json() for gate in verdicts],
            "by": f"{_user()}@{platform.node()}",
            "coterie": coterie.__version__,
        }

    def _settled(self, result: WeeklyResult) -> WeeklyResult:
        """With the pointer moved if it passed, nobody has moved it since, and what is live is of no
        later week.
        """
        live = self.registry.live
        is_new = result.version not in [move.to for move in self.registry.moves]
        as_it_was = (live and live.name) == _read(self.folder / "week.json")["live"]
        is_later = live is not None and date.fromisoformat(live.card["week"]) > self.first
        if not result.failed and is_new and as_it_was and not is_later:
            self.registry.promote(result.version, by="weekly")
        live = self.registry.live
        name = None if live is None else live.name
        return WeeklyResult(result.week, result.version, result.gates, name, result.facts)

    def _tidy(self) -> None:
        """Of earlier weeks that are done only terms and result stay; data and runs go."""
        for done in self.folder.parent.glob("*/result.json"):
            if done.parent.name >= self.folder.name:
                continue
            for path in done.parent.iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.name not in ("week.json", "result.json"):
                    path.unlink(missing_ok=True)


def _check_validated(data: Dataset, share: float, before: date) -> None:
    if len(data.cases(Part.VALIDATION).user_index):
        return
    n_items = np.diff(data.train.indptr)
    n_long = np.count_nonzero(n_items >= LEAST_TO_HIDE)
    raise DataError(
        f"weekly must hold out users who choose the epochs (prepare.held_out_users = {share:g}): it"
        f" takes {math.ceil(1 / share)} users with a history before {before}, at least one of them"
        f" of {LEAST_TO_HIDE} items; found {len(n_items)} users, {n_long} of them with so many"
        " items; wait for more events, lengthen window_days, or raise held_out_users."
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _told(found: Comparison, metric: str) -> dict[str, Any]:
    """A comparison as a card has it, overall and by cohort."""
    cohorts = {name: _figures(of[metric]) for name, of in found.cohorts.items() if metric in of}
    return {**_figures(found.overall[metric]), "cohorts": cohorts}


def _figures(one: Difference) -> dict[str, float | int | None]:
    """None for what a small cohort leaves undefined."""
    found = {
        "candidate": one.candidate_mean,
        "other": one.reference_mean,
        "difference": one.difference,
        "low": one.low,
        "high": one.high,
    }
    return {**{name: finite_or_none(value) for name, value in found.items()}, "users": one.users}


def _ratio(one: float, other: float) -> float | None:
    return one / other if other else None


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
