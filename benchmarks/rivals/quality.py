"""What every process of benchmarks/time_to_quality.py shares. Needs NumPy and SciPy alone.

A process is started with the folder of its matrices, gets ready and says so. From then on each line
"go" on standard input is one more epoch, answered in one line:

    {"packages": {"torch": "2.13.0"}}
    {"seconds": 12.9, "ndcg@100": 0.4312}

Seconds are those of training, since the model began to be built: reading data, validating and
waiting are not counted.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from ndcg import ndcg
from scipy.sparse import csr_matrix, load_npz
from worker import answer, versions

METRIC, K, USERS_A_BLOCK = "ndcg@100", 100, 500


@dataclass(frozen=True)
class Task:
    """What to train and to validate on, ``[n_users, n_items]`` float32 ones.

    Args:
        histories: Of the training users.
        fold_in: Of the validation users, what is shown.
        held_out: Of the same users, what must be found.
        paper: Whether to train at Liang et al.'s settings, instead of the library's own.
    """

    histories: csr_matrix
    fold_in: csr_matrix
    held_out: csr_matrix
    paper: bool


class Learner(Protocol):
    """A model in training."""

    def epochs(self) -> Iterator[None]:
        """Builds the model, then yields after each epoch, without end."""

    def score(self, histories: csr_matrix) -> np.ndarray:
        """``[n, n_items]`` with the weights of the moment."""


def read_task() -> Task:
    """The task named on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds a file for each matrix of the task")
    parser.add_argument("--paper", action="store_true")
    args = parser.parse_args()
    histories, fold_in, held_out = (
        csr_matrix(load_npz(args.folder / f"{name}.npz"))
        for name in ("histories", "fold_in", "held_out")
    )
    return Task(histories, fold_in, held_out, args.paper)


def learn(learner: Learner, task: Task, packages: Sequence[str]) -> None:
    """Trains an epoch whenever asked, and says how good the model then is.

    Args:
        learner: Which has its data, and no model yet.
        task: To validate on.
        packages: Distributions whose versions belong to the result.
    """
    answer({"packages": versions(packages)})
    epochs, seconds = learner.epochs(), 0.0
    for _ in sys.stdin:
        start = time.perf_counter()
        next(epochs)
        seconds += time.perf_counter() - start
        answer({"seconds": seconds, METRIC: _validate(learner, task)})


def _validate(learner: Learner, task: Task) -> float:
    values = []
    for start in range(0, task.fold_in.shape[0], USERS_A_BLOCK):
        shown, sought = (
            matrix[start : start + USERS_A_BLOCK] for matrix in (task.fold_in, task.held_out)
        )
        values.append(ndcg(learner.score(shown), shown.toarray() > 0, sought.toarray() > 0, K))
    return float(np.concatenate(values).mean())
