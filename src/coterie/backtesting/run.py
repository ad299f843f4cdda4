"""Training at each cut and measuring on the window after it; what is finished is not done again."""

import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Unpack

import pyarrow.parquet as pq

from coterie.backtesting.plan import BacktestPlan, last_day_of
from coterie.backtesting.result import Backtest, WindowResult
from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.log import InteractionLog
from coterie.data.prepare import prepare
from coterie.data.read import LogSource, read_log
from coterie.data.split import Part
from coterie.data.table_options import TableFields
from coterie.errors import ConfigError, ConflictError, DataError
from coterie.evaluation.evaluate import evaluate, evaluate_new_users
from coterie.evaluation.report import EvaluationReport
from coterie.files import check_writable, local, publish_folder, write_json
from coterie.locks import try_lock
from coterie.running.execution import Execution
from coterie.running.interrupt import stoppable
from coterie.running.progress import Progress, Update, silent
from coterie.training.chosen import Chosen
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train

log = logging.getLogger(__name__)

SCHEMA = "coterie.backtest/1"
TERMS = "backtest.json"
_FACTS, _USERS = "facts.json", "users.parquet"


def backtest(
    source: InteractionLog | LogSource,
    plan: BacktestPlan,
    out: str | Path,
    *,
    device: Execution | str = "auto",
    progress: Progress = silent,
    **table: Unpack[TableFields],
) -> Backtest:
    """Trains every model at every cut on what was known before it, and measures it on what users
    took up in the window after it.

    A model that is trained in epochs is trained twice a cut: first with a window before the cut
    held out, which chooses the number of epochs, then on everything before the cut. A folder that
    holds a part of the same backtest is gone on with, also with more models.

    Args:
        source: A log with times, read or to be read, as `coterie.data.prepare.prepare` takes it.
        plan: Models, windows, rules and metrics.
        out: Folder of every window's per-user values; made if it is not there.
        device: Where and how to train.
        progress: Called as training goes on.
        table: Fields of `TableOptions`, of a log to be read.

    Raises:
        ConfigError: if the log has no times, ``out`` holds another backtest, or a window has
            nobody to measure on.
        ConflictError: if another process is at work in ``out``.
        Interrupted: after SIGINT or SIGTERM; the same call goes on.

    Example:
        >>> import tempfile
        >>> from coterie.data.rules import PrepareRules
        >>> pairs = [
        ...     (user, (user + n) % 9, 1, (4000 + n * 4 + user % 5) * 86_400)
        ...     for user in range(30)
        ...     for n in range(9)
        ... ]
        >>> names = ("popularity", "ease")
        >>> models = {name: RunConfig.of({"model": {"name": name}}) for name in names}
        >>> rules = PrepareRules(min_user_items=2)
        >>> plan = BacktestPlan(models, rules, n_windows=2, metrics=("recall@2",))
        >>> with tempfile.TemporaryDirectory() as out:
        ...     found = backtest(pairs, plan, out)
        >>> len(found.windows), found.values("ease", "recall@2").shape
        (2, (2,))
    """
    if not isinstance(source, InteractionLog):
        with read_log(source, **table) as opened:
            return backtest(opened, plan, out, device=device, progress=progress)
    out = local(out)
    check_writable(out, folder=True)
    lock = try_lock(out / "backtest.lock")
    if lock is None:
        raise ConflictError(
            f"{out}: another process is at work there; wait, or choose another folder."
        )
    try:
        work = _Work(source, plan, out, Execution.of(device), progress)
        work.agree()
        cuts = plan.cuts(last_day_of(source))
        with stoppable(work.stopped):
            return Backtest(plan, [work.window(cut) for cut in cuts])
    finally:
        lock.release()


@dataclass(eq=False)
class _Work:
    source: InteractionLog
    plan: BacktestPlan
    out: Path
    execution: Execution
    progress: Progress
    n_done: int = 0

    def agree(self) -> None:
        """Begins the folder, or sees that it was begun with the same plan and log."""
        terms = {"schema": SCHEMA, **self.plan.to_json(), "sources": self.source.sources}
        del terms["models"]  # each window's facts hold theirs, so that others may come later
        path = self.out / TERMS
        if not path.exists():
            write_json(path, terms)
        elif (found := json.loads(path.read_text(encoding="utf-8"))) != terms:
            other = [name for name in terms if found.get(name) != terms[name]]
            raise ConfigError(
                f"{self.out}: holds a backtest with other {', '.join(other)}; choose another"
                " folder, or the same options."
            )

    def stopped(self) -> str:
        """Where it stands."""
        total = self.plan.n_windows * len(self.plan.models)
        return f"stopped; {self.n_done} of {total} models are measured, the same command goes on."

    def window(self, cut: date) -> WindowResult:
        """Everything of one window, measured or read."""
        folder = self.out / "windows" / cut.isoformat()
        left = [name for name in self.plan.models if not (folder / name / _FACTS).exists()]
        if left or not (folder / _FACTS).exists():
            self._measure(cut, folder, left)
        self.n_done += len(self.plan.models) - len(left)
        told = _read(folder / _FACTS)
        facts = {name: self._facts(folder / name, name) for name in self.plan.models}
        return WindowResult(
            cut,
            {name: _report(folder / name / _USERS) for name in self.plan.models},
            told["of_new_users"],
            told["counts"],
            told["ceiling"],
            facts,
        )

    def _facts(self, folder: Path, name: str) -> Mapping[str, Any]:
        facts = dict(_read(folder / _FACTS))
        if facts.pop("config") != self.plan.models[name].as_json():
            raise ConfigError(
                f"{folder}: was measured with another configuration of {name}; give this one"
                " another name, or choose another folder."
            )
        return facts

    def _measure(self, cut: date, folder: Path, names: list[str]) -> None:
        self.progress(Update(f"preparing {cut}"))
        dataset = prepare(self.source, self.plan.measured(cut))
        if not len(dataset.cases(Part.TEST).user_index):
            raise ConfigError(
                f"every window must have users to measure on, found none in that of {cut}; take"
                " longer or fewer windows."
            )
        chooser = cache(lambda: prepare(self.source, self.plan.validated(cut)))
        for name in names:
            self._measure_model(name, cut, dataset, chooser, folder / name)
            self.n_done += 1
        self._describe(dataset, folder / _FACTS)

    def _measure_model(
        self, name: str, cut: date, dataset: Dataset, chooser: Any, folder: Path
    ) -> None:
        begun, work = time.perf_counter(), self.out / "work" / f"{cut}-{name}"
        model = self._trained(self.plan.models[name], dataset, chooser, work)
        seconds = time.perf_counter() - begun
        report = evaluate(model, dataset, Part.TEST, metrics=self.plan.metrics)
        facts = {
            "seconds": round(seconds, 3),
            "best_epoch": model.provenance.get("best_epoch"),
            "config": self.plan.models[name].as_json(),
        }
        folder.parent.mkdir(parents=True, exist_ok=True)
        with publish_folder(folder, _FACTS) as aside:
            pq.write_table(report.per_user_table(), aside / _USERS)
            write_json(aside / _FACTS, facts)
        shutil.rmtree(work, ignore_errors=True)
        first = self.plan.metrics[0]
        log.info("%s  %s  %s", cut, name, f"{first} {_mean(report, first):.4f}")

    def _trained(
        self, config: RunConfig, dataset: Dataset, chooser: Any, work: Path
    ) -> TrainedModel:
        if config.network_free():
            return train(dataset, config, device=self.execution)
        data = chooser()
        if not len(data.cases(Part.VALIDATION).user_index):
            raise DataError(
                "the window before the cut must have users to choose epochs on, found none;"
                " lengthen validation_days."
            )
        validated = self._train(data, config, work / "validated")
        chosen = Chosen.of(config, validated.provenance)
        return self._train(dataset, chosen.config, work / "all")

    def _train(self, dataset: Dataset, config: RunConfig, out: Path) -> TrainedModel:
        return train(
            dataset,
            config,
            out=out,
            resume=out.exists(),
            device=self.execution,
            progress=self.progress,
        )

    def _describe(self, dataset: Dataset, path: Path) -> None:
        new = evaluate_new_users(dataset, Part.TEST, metrics=self.plan.metrics)
        means = None if new is None else {one: _mean(new, one) for one in self.plan.metrics}
        ceiling = dataset.provenance.get("ceiling", {}).get("test", {})
        counts = dataset.provenance["counts"]
        write_json(path, {"counts": counts, "ceiling": ceiling, "of_new_users": means})


def _mean(report: EvaluationReport, metric: str) -> float:
    of_all = report.of_all_lists
    return of_all[metric] if metric in of_all else report.mean(metric)


def _report(path: Path) -> EvaluationReport:
    return EvaluationReport.from_table(pq.read_table(path))


def _read(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
