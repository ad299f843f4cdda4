"""Working through the trials of a study in this process, which may be one of several.

Run as a module it is one of the processes that `share` starts.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.errors import ConfigError, CoterieError, Interrupted, NumericalError
from coterie.evaluation.evaluate import evaluate
from coterie.running.interrupt import StopRequest
from coterie.training.run_record import read_history
from coterie.training.trainer import train
from coterie.tuning.result import TuningResult
from coterie.tuning.space import configured
from coterie.tuning.study import Claim, Pruned, StudyFolder, Terms

Progress: TypeAlias = Callable[[TuningResult], None]
"""Told of a study as it stands."""


def work(
    study: StudyFolder,
    dataset: Dataset,
    n_trials: int,
    tell: Progress,
    *,
    device: str,
    keep: bool = False,
    command: str | None = None,
) -> None:
    """Takes up trials, one after the other, until ``n_trials`` have begun and none is left behind.

    Raises:
        Interrupted: if a signal asked for a stop; the trial under way keeps its checkpoint.
    """
    with StopRequest(active=True) as stop:
        tell(study.publish(command))
        while (claim := study.claim(n_trials)) is not None:
            with claim:
                try:
                    _try(study, claim, dataset, device, stop)
                except Interrupted as error:
                    raise interrupted(study, error.signal_number) from error
                if not keep:
                    claim.drop_weights()
            tell(study.publish(command))
            _heed(study, stop)


def interrupted(study: StudyFolder, signal_number: int) -> Interrupted:
    """Where the study stands, and how to go on."""
    done = study.result().n_finished
    return Interrupted(
        f"{study.path}: stopped after {done} finished trials; the same command goes on.",
        signal_number,
    )


def _heed(study: StudyFolder, stop: StopRequest) -> None:
    if stop.signal_number is not None:
        raise interrupted(study, stop.signal_number)


def _try(
    study: StudyFolder, claim: Claim, dataset: Dataset, device: str, stop: StopRequest
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
            value, seconds = _closed_form(dataset, config, study.terms.metric, device)
        else:
            value, seconds = _descend(study, claim, dataset, config, device, stop)
        study.finish(claim, "complete", value=value, seconds=seconds)
    except Pruned:
        study.finish(claim, "pruned", seconds=_seconds(claim))
    except (NumericalError, MemoryError, torch.OutOfMemoryError) as error:
        study.finish(claim, "failed", error=f"{type(error).__name__}: {error}")


def _closed_form(
    dataset: Dataset, config: RunConfig, metric: str, device: str
) -> tuple[float, float]:
    started = time.perf_counter()
    model = train(dataset, config, device=device)
    value = evaluate(model, dataset.cases(Part.VALIDATION), metrics=[metric]).mean(metric)
    return value, round(time.perf_counter() - started, 3)


def _descend(
    study: StudyFolder,
    claim: Claim,
    dataset: Dataset,
    config: RunConfig,
    device: str,
    stop: StopRequest,
) -> tuple[float, float]:
    def watch(entry: dict[str, Any]) -> None:
        for value in entry.get("validation", {}).values():
            claim.report(entry["epoch"], value)
        # Training heeds signals itself, but for one that came before it began.
        _heed(study, stop)

    claim.check()  # it may have been killed when it was about to be pruned
    model = train(dataset, config, out=claim.folder, resume=True, device=device, watch=watch)
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
        work(study, Dataset.load(data), tell=lambda result: None, **options)
    except CoterieError as error:
        if not isinstance(error, Interrupted):
            print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(sys.argv[1:])
