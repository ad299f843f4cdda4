"""Coterie: `coterie.train` of any configuration. Its validation is its own; whatever else it does
between its call and an epoch's end is counted.
"""

import argparse
import sys
import time
from pathlib import Path

from quality import METRIC
from worker import answer, versions

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.running.execution import Execution
from coterie.running.progress import Update
from coterie.training.trainer import train


class Clock:
    """Follows a training: seconds without validation, and a wait for "go" before each epoch."""

    def __init__(self) -> None:
        self._not_counted = 0.0
        self._start = self._step_done = time.perf_counter()

    def __call__(self, update: Update) -> None:
        """Called after each step, and with facts after the validation that ends an epoch."""
        if not update.facts:
            self._step_done = time.perf_counter()
            return
        if "validation" in update.facts:
            seconds = self._step_done - self._start - self._not_counted
            answer({"seconds": seconds, METRIC: update.facts["validation"][METRIC]})
            sys.stdin.readline()
        self._not_counted += time.perf_counter() - self._step_done


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds dataset and config.json")
    folder = parser.parse_args().folder
    data, config = Dataset.load(folder / "dataset"), RunConfig.load(folder / "config.json")
    answer({"packages": versions(("coterie", "torch"))})
    sys.stdin.readline()
    train(data, config, device=Execution("cpu"), progress=Clock())
    answer({"finished": True})


if __name__ == "__main__":
    main()
