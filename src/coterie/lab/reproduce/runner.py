"""From a definition to its runs: prepare, train, evaluate, each once, whatever interrupts it."""

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.ids import IdMap
from coterie.data.prepare import prepare
from coterie.data.read import read_log
from coterie.data.split import Part
from coterie.errors import ConfigError
from coterie.evaluation.evaluate import evaluate
from coterie.evaluation.report import EvaluationReport
from coterie.lab.reproduce.definition import Definition, Row
from coterie.lab.reproduce.reports import PARTS, Reports, facts_of, is_finished
from coterie.running.execution import Execution, using_threads
from coterie.running.interrupt import stoppable
from coterie.running.progress import Progress, silent
from coterie.training.trainer import train

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A table as it is asked for.

    Args:
        name: Of the table.
        definition: What the table is.
        seeds: One split and one training a row for each.
        rows: Those wanted.
        held_out_users: In place of the protocol's number.
        epochs: At most, in place of the configurations' number.

    Raises:
        ConfigError: if a row, the seeds or the number of held-out users cannot be honoured.
    """

    name: str
    definition: Definition
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    held_out_users: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(
                f"seeds must be one or more different numbers from 0 up, found {list(self.seeds)};"
                " try 1,2,3."
            )
        if self.definition.data.given_split and self.held_out_users is not None:
            raise ConfigError(
                f"{self.name} brings its split, so --held-out-users would change nothing; leave it"
                " out."
            )

    @property
    def chosen_on(self) -> int | None:
        """The split on whose validation users the configurations were chosen, if it is one of this
        plan's.
        """
        return self.definition.chosen_on if self.held_out_users is None else None


@dataclass(frozen=True)
class Run:
    """A row trained with one seed and measured.

    Args:
        row: Of the table.
        seed: Of split and training.
        config: What was trained.
        reports: By part.
        facts: JSON values: ``seconds`` of training (None where nobody measured them),
            ``environment``, ``best_epoch``, ….
    """

    row: Row
    seed: int
    config: RunConfig
    reports: Mapping[Part, EvaluationReport]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Runs:
    """Everything a table is computed from.

    Args:
        plan: What was asked for.
        data: Of every seed ``fingerprint``, ``sources``, ``rules`` and ``counts``.
        rows: The runs of each row, in the order of the seeds.
        chosen_on: Users the configurations were chosen on, where they are known.
    """

    plan: Plan
    data: Mapping[int, Mapping[str, Any]]
    rows: Mapping[str, list[Run]]
    chosen_on: IdMap | None


class Runner:
    """Prepares, trains and evaluates into a folder; what is finished there is not done again.

    Args:
        plan: What to do.
        out: ``data-SEED`` (data sets), ``ROW-SEED`` (runs) and ``reports/`` (of every user) go
            there.
        data: Folder of the raw files; needed while a data set is missing.
        execution: Where and how.
        progress: Called as training goes on.
    """

    def __init__(
        self,
        plan: Plan,
        out: Path,
        data: Path | None,
        execution: Execution,
        progress: Progress = silent,
    ) -> None:
        self.plan, self.out, self.raw = plan, out, data
        self._execution, self._progress = execution.resolved(), progress
        self._started = time.monotonic()
        self._reports = Reports(out / "reports", plan.definition.metrics)
        self._where, self._done, self._total = "the beginning", 0, len(plan.seeds) * len(plan.rows)

    def run(self) -> Runs:
        """Does what is left to do.

        Raises:
            Interrupted: after SIGINT or SIGTERM; the same call goes on.
            ConfigError: if something in ``out`` was made otherwise.
            SourceError: if the raw files are missing or damaged.
        """
        with stoppable(self._stopped), using_threads(self._execution.threads):
            self._sweep()
            data: dict[int, Mapping[str, Any]] = {}
            rows: dict[str, list[Run]] = {row.name: [] for row in self.plan.rows}
            for seed in self.plan.seeds:
                dataset = self._dataset(seed)
                data[seed] = {"fingerprint": dataset.fingerprint, **dataset.provenance}
                for row in self.plan.rows:
                    rows[row.name].append(self._run(row, seed, dataset))
            return Runs(self.plan, data, rows, self._chosen_on())

    def _stopped(self) -> str:
        return (
            f"stopped at {self._where}; {self._done} of {self._total} runs are finished, the same"
            " command goes on."
        )

    def _say(self, text: str) -> None:
        elapsed = timedelta(seconds=round(time.monotonic() - self._started))
        log.info("%s  %s", elapsed, text)

    def _sweep(self) -> None:
        """Removes what a kill left half-written."""
        for leftover in self.out.glob(".data-*.part"):
            shutil.rmtree(leftover)
        self._reports.sweep()

    def _chosen_on(self) -> IdMap | None:
        if self.plan.chosen_on is None:
            return None
        dataset = self._dataset(self.plan.chosen_on)
        return IdMap(dataset.users.take(dataset.cases(Part.VALIDATION).user_index))

    def _dataset(self, seed: int) -> Dataset:
        """The data set of one seed, prepared once."""
        folder = self.out / f"data-{seed}"
        self._where = f"the data set of seed {seed}"
        if not folder.exists():
            self._prepare(seed, folder)
        dataset = Dataset.load(folder)
        self._check_rules(dataset, seed)
        return dataset

    def _prepare(self, seed: int, folder: Path) -> None:
        protocol, title = self.plan.definition.data, self.plan.definition.title
        if self.raw is None or not self.raw.is_dir():
            raise ConfigError(
                f"{title} must be prepared from a folder of raw files, found {self.raw}; give it"
                " with --data."
            )
        source, path = protocol.find(self.raw, title)
        self._say(f"preparing {folder.name} from {path.name}")
        columns: dict[str, Any] = source.model_dump(
            include={"user_column", "item_column", "rating_column"}
        )
        beside = self.raw / source.titles if source.titles else None
        titles = beside if beside is not None and beside.exists() else None
        with read_log(path, source.format, **columns, titles=titles) as log:
            prepare(log, protocol.rules(source, seed, self.plan.held_out_users)).save(folder)

    def _check_rules(self, dataset: Dataset, seed: int) -> None:
        """A data set found in ``out`` must be the one that would be made."""
        protocol = self.plan.definition.data
        found = {"format": dataset.provenance.get("format"), **dataset.provenance.get("rules", {})}
        wanted = [
            {"format": one.format, **protocol.rules(one, seed, self.plan.held_out_users).stated()}
            for one in protocol.sources
        ]
        differences = [
            {name: value for name, value in rules.items() if value not in (None, found.get(name))}
            for rules in wanted
        ]
        fewest = min(differences, key=len)
        if fewest:
            changes = "; ".join(
                f"{name} was {found.get(name)!r}, now {value!r}" for name, value in fewest.items()
            )
            raise ConfigError(
                f"{dataset.folder}: the data set must be of the rules asked for, {changes}; choose"
                " another --out."
            )

    def _run(self, row: Row, seed: int, dataset: Dataset) -> Run:
        """One row with one seed: found, or trained and evaluated."""
        self._where = f"{row.name}, seed {seed}"
        folder, config = self.out / f"{row.name}-{seed}", row.configuration(seed, self.plan.epochs)
        reports = self._found(folder, config, dataset)
        if Part.TEST not in reports:
            self._say(f"{self._done + 1} of {self._total}  {row.name}, seed {seed}")
            self._make(folder, config, dataset)
            reports = self._found(folder, config, dataset)
        self._done += 1
        metric = self.plan.definition.compare_by
        values = ", ".join(
            f"{part.name.lower()} {reports[part].mean(metric):.4f}"
            for part in PARTS
            if part in reports
        )
        self._say(f"{self._done} of {self._total}  {row.name}, seed {seed}: {metric} {values}")
        return Run(row, seed, config, reports, {**self._reports.facts(folder), **facts_of(folder)})

    def _found(
        self, folder: Path, config: RunConfig, dataset: Dataset
    ) -> dict[Part, EvaluationReport]:
        """What is known of a finished run; where the last training is on everything, the test is
        that one's.
        """
        reports = self._reports.read(folder) if is_finished(folder, config, dataset) else {}
        if not self.plan.definition.data.refit or not reports:
            return reports
        last = _refit_folder(folder)
        of_last = (
            self._reports.read(last)
            if is_finished(last, _refit_config(config, folder), dataset.without_validation())
            else {}
        )
        return {
            part: report
            for part, report in {**reports, **of_last}.items()
            if part is Part.VALIDATION or part in of_last
        }

    def _make(self, folder: Path, config: RunConfig, dataset: Dataset) -> None:
        refit = self.plan.definition.data.refit
        self._train_and_measure(folder, config, dataset, (Part.VALIDATION,) if refit else PARTS)
        if refit:
            self._train_and_measure(
                _refit_folder(folder),
                _refit_config(config, folder),
                dataset.without_validation(),
                (Part.TEST,),
            )

    def _train_and_measure(
        self, folder: Path, config: RunConfig, dataset: Dataset, parts: tuple[Part, ...]
    ) -> None:
        trained, started = (folder / "model").exists(), time.monotonic()
        model = train(
            dataset,
            config,
            out=folder,
            resume=True,
            device=self._execution,
            progress=self._progress,
        )
        fitted = None if trained else time.monotonic() - started
        for part in parts:
            cases = dataset.cases(part)
            if len(cases.user_index):
                report = evaluate(
                    model, cases, metrics=self.plan.definition.metrics, user_ids=dataset.users
                )
                self._reports.write(folder, part, report, fitted)


def _refit_folder(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-refit")


def _refit_config(config: RunConfig, folder: Path) -> RunConfig:
    """The same with as many epochs as were best when there were users to validate on."""
    best: int | None = facts_of(folder).get("best_epoch")
    return (
        config
        if best is None
        else config.model_copy(
            update={"training": config.training.model_copy(update={"epochs": best})}
        )
    )
