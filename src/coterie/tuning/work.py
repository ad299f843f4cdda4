"""Working through the trials of a study in this process, which may be one of several.

Run as a module it is one of the processes that `share` starts.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.errors import ConfigError, CoterieError, Interrupted, NumericalError
from coterie.evaluation.evaluate import evaluate
from coterie.running.execution import Execution
from coterie.running.interrupt import StopRequest
from coterie.running.progress import Progress, Update, silent
from coterie.training.run_record import read_history
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
from coterie.tuning.result import TuningResult
from coterie.tuning.space import configured
from coterie.tuning.study import Claim, Pruned, StudyFolder, Terms

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Effort:
    """How a study is worked on.

    Args:
        n_trials: Of the whole study.
        execution: Where and how each trial runs.
        keep: Whether models of finished trials are kept.
        command: What best.toml names as its origin.
    """

    n_trials: int
    execution: Execution
    keep: bool = False
    command: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What `of_json` reads back in another process."""
        return vars(self) | {"execution": self.execution.as_json()}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "Effort":
        """From what `as_json` gave."""
        return cls(**{**values, "execution": Execution.of_json(values["execution"])})


def work(study: StudyFolder, dataset: Dataset, effort: Effort, progress: Progress) -> None:
    """Takes up trials, one after the other, until all have begun and none is left behind.

    Raises:
        Interrupted: if a signal asked for a stop; the trial under way keeps its checkpoint.
    """
    with StopRequest() as stop:
        progress(update_of(study.publish(effort.command), effort))
        while (claim := study.claim(effort.n_trials)) is not None:
            with claim:
                try:
                    _try(study, claim, dataset, effort, stop)
                except Interrupted as error:
                    raise interrupted(study, error.signal_number) from error
                if not effort.keep:
                    claim.drop_weights()
            result = study.publish(effort.command)
            log.info("trial %d finished: %s", claim.trial.number, result.summary())
            progress(update_of(result, effort))
            stop.check(lambda: _stopped(study))


def update_of(result: TuningResult, effort: Effort) -> Update:
    """A study as it stands: trials finished, and the best one so far."""
    best = {} if result.best is None else {result.metric: result.best.value}
    best |= {} if result.best is None else {"trial": result.best.number}
    return Update("tuning", result.n_finished, effort.n_trials, "trials", best)


def interrupted(study: StudyFolder, signal_number: int) -> Interrupted:
    """Where the study stands, and how to go on."""
    return Interrupted(_stopped(study), signal_number)


def _stopped(study: StudyFolder) -> str:
    done = study.result().n_finished
    return f"{study.path}: stopped after {done} finished trials; the same command goes on."


def _try(
    study: StudyFolder, claim: Claim, dataset: Dataset, effort: Effort, stop: StopRequest
) -> None:
    """Trains, validates and writes down the outcome; a configuration that cannot work is an
    outcome, too.
    """
    try:
        config = configured(study.terms.base, claim.values)
    except ConfigError as error:
        study.finish(claim, "failed", error=str(error))
        return
    try:
        if config.network_free():
            value, seconds = _closed_form(dataset, config, study.terms.metric, effort.execution)
        else:
            run = partial(train, dataset, config, out=claim.folder, device=effort.execution)
            value, seconds = _descend(claim, run, lambda: stop.check(lambda: _stopped(study)))
        study.finish(claim, "complete", value=value, seconds=seconds)
    except Pruned:
        study.finish(claim, "pruned", seconds=_seconds(claim))
    except (NumericalError, MemoryError, torch.OutOfMemoryError) as error:
        study.finish(claim, "failed", error=f"{type(error).__name__}: {error}")


def _closed_form(
    dataset: Dataset, config: RunConfig, metric: str, execution: Execution
) -> tuple[float, float]:
    started = time.perf_counter()
    model = train(dataset, config, device=execution)
    value = evaluate(model, dataset.cases(Part.VALIDATION), metrics=[metric]).mean(metric)
    return value, round(time.perf_counter() - started, 3)


def _descend(
    claim: Claim, run: Callable[..., TrainedModel], heed: Callable[[], None]
) -> tuple[float, float]:
    def listen(update: Update) -> None:
        for value in update.facts.get("validation", {}).values():
            claim.report(update.facts["epoch"], value)
        # Training heeds signals itself, but for one that came before it began.
        heed()

    claim.check()  # it may have been killed when it was about to be pruned
    model = run(resume=True, progress=listen)
    return float(model.provenance["best_validation"]), _seconds(claim)


def _seconds(claim: Claim) -> float:
    """Of the whole trial, however often it was interrupted."""
    return round(sum(float(entry["seconds"]) for entry in read_history(claim.folder)), 3)


def _stop_with_parent() -> None:
    """Asks this process to stop when its standard input ends: the parent holds the other end, and
    is gone.
    """
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: Sequence[str]) -> None:
    """One process of `share`: the study folder, the data set folder and the options of `work` in
    JSON.
    """
    folder, data, options = Path(arguments[0]), Path(arguments[1]), json.loads(arguments[2])
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        study = StudyFolder(folder, Terms.load(folder))
        work(study, Dataset.load(data), Effort.of_json(options), silent)
    except CoterieError as error:
        if not isinstance(error, Interrupted):
            print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(sys.argv[1:])
