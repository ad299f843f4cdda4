"""What every measured process shares: its histories, and rounds on demand. Needs NumPy and SciPy
alone, and Linux.

A process is started with the folder of the histories and the users of one round, gets ready, takes
one round to warm up, and says so. From then on each line "go" on standard input is one measured
round, answered in one line:

    {"ready": true, "packages": {"torch": "2.13.0"}, "loading_peak_mib": 410.5}
    {"seconds": 1.93, "users": 4500, "peak_mib": 655.2}

Between two rounds it sleeps, so that several processes can take turns on one machine.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

BATCH, HIDDEN, LATENT, DROPOUT, BETA, LEARNING_RATE = 500, 600, 200, 0.5, 0.2, 1e-3
"""I-600-200-600-I as Liang et al. trained it: the same for everybody."""

# Libraries print what they like on standard output: only answers may reach it.
ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


@dataclass(frozen=True)
class Task:
    """What to train on.

    Args:
        histories: ``[n_users, n_items]`` float32 ones; every row and every column has at least one.
        round_users: Users of one round, a multiple of the batch.
    """

    histories: csr_matrix
    round_users: int

    @property
    def n_users(self) -> int:
        """Number of histories."""
        return int(self.histories.shape[0])

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return int(self.histories.shape[1])

    @property
    def round_batches(self) -> int:
        """Batches of one round."""
        return self.round_users // BATCH

    def full_batches(self) -> Iterator[np.ndarray]:
        """``[batch]`` int64 rows, shuffled anew each epoch, without end; an epoch's incomplete last
        batch is left out.
        """
        rng = np.random.default_rng(0)
        while True:
            yield from rng.permutation(self.n_users)[: self.n_users // BATCH * BATCH].reshape(
                -1, BATCH
            )


def read_task() -> Task:
    """The task named on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="holds indptr.npy and indices.npy")
    parser.add_argument("round_users", type=int)
    args = parser.parse_args()
    indptr, indices = (
        np.load(args.folder / f"{name}.npy", allow_pickle=False) for name in ("indptr", "indices")
    )
    ones = np.ones(len(indices), dtype=np.float32)
    return Task(
        csr_matrix((ones, indices, indptr), shape=(len(indptr) - 1, int(indices.max()) + 1)),
        args.round_users,
    )


def rounds(n_users: int, packages: Sequence[str]) -> Iterator[None]:
    """Asks for a round of ``n_users`` users by yielding: once to warm up, then once for each line
    "go", measured.

    Args:
        n_users: Users of a round.
        packages: Distributions whose versions belong to the result.
    """
    loading_peak_mib = _peak_mib()
    # "5" resets the high-water mark (proc(5)): from here on it is that of training.
    Path("/proc/self/clear_refs").write_text("5")
    yield
    answer(
        {
            "ready": True,
            "packages": versions(packages),
            "loading_peak_mib": loading_peak_mib,
        }
    )
    for _ in sys.stdin:
        start = time.perf_counter()
        yield
        answer({"seconds": time.perf_counter() - start, "users": n_users, "peak_mib": _peak_mib()})


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Of distributions, by name."""
    return {name: version(name) for name in packages}


def answer(values: Mapping[str, object]) -> None:
    """Says one line to whoever started the process."""
    print(json.dumps(values), file=ANSWERS)


def _peak_mib() -> float:
    # Not getrusage: its peak begins with that of the process which started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
