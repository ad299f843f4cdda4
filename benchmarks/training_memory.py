"""Peak memory of training on a catalogue of a million items, and the largest catalogue that trains
in 8 GiB.

    python benchmarks/training_memory.py --json memory.json

Batches of 500 users, 73 items a user, random histories, I-128-64-128-I; a few steps in a process of
its own. The peak is VmHWM of /proc/self/status (Linux): the most memory that the process ever held,
Python and its imports included. It is read, not enforced: a limit on the address space (RLIMIT_AS)
would also count what is reserved and never touched. A line through the peaks of a quarter of the
items and of all predicts the largest catalogue, and 97 % of it are then really trained. What is
measured is the step: a run also holds its data set and the best weights so far, and validates.

At last, the step of Coterie beside the one that is usually written, at MovieLens-20M's shape.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_array

from coterie.config import TrainingConfig
from coterie.files import write_json
from coterie.lab.bench.training_step import dense_step
from coterie.lab.bench.turns import machine, random_histories
from coterie.models.multvae import MultVAEConfig
from coterie.plain_table import plain_table
from coterie.sparse import SparseRows
from coterie.training.objective import CHUNK_ITEMS
from coterie.training.step import TrainingStep

GIB, MIB = 2**30, 2**20
BATCH, ITEMS_PER_USER, SAMPLE, PIA = 500, 73, 8192, 0.3
MARGIN = 0.97
"""The part of the largest catalogue predicted that is really trained."""

MODES: dict[str, Callable[[int], TrainingConfig]] = {
    "whole": lambda items: TrainingConfig(chunk_items=items),
    # What 0, the default, amounts to from 536,871 items on.
    f"chunks of {CHUNK_ITEMS:,}": lambda _: TrainingConfig(chunk_items=CHUNK_ITEMS),
    f"{SAMPLE:,} sampled": lambda _: TrainingConfig(sampled_items=SAMPLE),
    f"{SAMPLE:,} sampled, sparse updates": lambda _: TrainingConfig(
        sampled_items=SAMPLE, sparse_updates=True
    ),
}


@dataclass(frozen=True)
class Case:
    """What one process trains; without a ``training`` it takes the dense step."""

    items: int
    model: MultVAEConfig
    training: TrainingConfig | None
    steps: int = 3


@dataclass(frozen=True)
class Run:
    """What one process took.

    Args:
        items: Size of the catalogue.
        made_seconds: To draw the initial weights, by one thread.
        step_seconds: Of each step; the first also meets its memory for the first time.
        imported_bytes: Peak before anything was made.
        made_bytes: Peak before the first step.
        peak_bytes: Peak of all.
    """

    items: int
    made_seconds: float
    step_seconds: list[float]
    imported_bytes: int
    made_bytes: int
    peak_bytes: int

    @property
    def seconds(self) -> float:
        """Median of the steps after the first."""
        return statistics.median(self.step_seconds[1:])


@dataclass(frozen=True)
class Mode:
    """One way of training.

    Args:
        name: Of ``MODES``.
        pia: Weight of PIA.
        runs: A quarter of the items, and all of them.
        bytes_per_item: Slope of the line through their peaks.
        largest_items: Where that line meets the limit.
        tried: A little below it.
    """

    name: str
    pia: float
    runs: list[Run]
    bytes_per_item: float
    largest_items: int
    tried: Run


def peak_bytes() -> int:
    """Of this process since it began; ``getrusage`` would count its parent's as well."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def take_steps(case: Case) -> Run:
    """Runs in a process of its own."""
    # The first optimiser of a process imports torch's compiler: seconds and memory of the imports,
    # not of the weights.
    torch.optim.Adam([torch.zeros(1)])
    imported = peak_bytes()
    matrix = random_histories(case.steps * BATCH, case.items, ITEMS_PER_USER)
    start = time.perf_counter()
    step = _step(case, matrix)
    made_seconds, made, seconds = time.perf_counter() - start, peak_bytes(), []
    for number in range(case.steps):
        start = time.perf_counter()
        step(number)
        seconds.append(time.perf_counter() - start)
    return Run(case.items, made_seconds, seconds, imported, made, peak_bytes())


def _step(case: Case, matrix: csr_array) -> Callable[[int], object]:
    batches = [matrix[start : start + BATCH] for start in range(0, matrix.shape[0], BATCH)]
    if case.training is None:
        dense = dense_step(batches[0], case.model, "cpu")
        return lambda number: dense()
    step = TrainingStep(case.items, case.model, case.training, train=matrix)
    rows = [SparseRows.from_csr(batch) for batch in batches]
    return lambda number: step(rows[number])


def alone(case: Case) -> Run:
    """Takes the steps in a fresh process, which shares no memory with this one and imports all
    anew.
    """
    with ProcessPoolExecutor(
        max_workers=1, mp_context=multiprocessing.get_context("spawn")
    ) as fresh:
        return fresh.submit(take_steps, case).result()


def measure(take: Callable[[Case], Run], name: str, pia: float, items: int, limit: float) -> Mode:
    """A quarter and all of ``items``, and nearly as many as the limit allows."""
    model = MultVAEConfig(hidden_dims=(128,), latent_dim=64, pia=pia)
    runs = [take(Case(size, model, MODES[name](size))) for size in (items // 4, items)]
    slope, fixed = np.polyfit([run.items for run in runs], [run.peak_bytes for run in runs], 1)
    largest = int((limit - fixed) / slope)
    if largest < 1:
        raise SystemExit(
            f"the limit must exceed the {fixed / GIB:.2f} GiB of an empty catalogue, found"
            f" {limit / GIB:g}; raise --gib."
        )
    tried = int(MARGIN * largest)
    # From the second step on gradients and moments are there: no more is needed to see the peak.
    return Mode(
        name,
        pia,
        runs,
        float(slope),
        largest,
        take(Case(tried, model, MODES[name](tried), steps=2)),
    )


def show_modes(modes: list[Mode], limit: float) -> None:
    items = modes[0].runs[-1].items
    header = [
        "",
        "PIA",
        "made in s",
        "s a step",
        "peak GiB",
        "KiB an item",
        f"largest in {limit / GIB:g} GiB",
        "tried",
        "peak GiB",
        "",
    ]
    rows = []
    for mode in modes:
        run, tried = mode.runs[-1], mode.tried
        row = [
            mode.name,
            f"{mode.pia:g}",
            f"{run.made_seconds:.1f}",
            f"{run.seconds:.2f}",
            f"{run.peak_bytes / GIB:.2f}",
        ]
        row += [
            f"{mode.bytes_per_item / 1024:.2f}",
            f"{mode.largest_items:,}",
            f"{tried.items:,}",
            f"{tried.peak_bytes / GIB:.2f}",
        ]
        rows.append([*row, "held" if tried.peak_bytes < limit else "NOT held"])
    print(
        f"{items:,} items, and the largest catalogue:",
        plain_table(header, rows, [False] + [True] * 8 + [False]),
        sep="\n",
    )


def show_steps(runs: dict[str, Run]) -> None:
    header, rows = ["", "s a step", "peak MiB", "of it imports"], []
    for name, run in runs.items():
        rows.append(
            [
                name,
                f"{run.seconds:.3f}",
                f"{run.peak_bytes / MIB:,.0f}",
                f"{run.imported_bytes / MIB:,.0f}",
            ]
        )
    items = next(iter(runs.values())).items
    print(
        f"\n{items:,} items, I-600-200-600-I:",
        plain_table(header, rows, [False, True, True, True]),
        sep="\n",
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000, help="size of the catalogue")
    parser.add_argument(
        "--gib", type=float, default=8, help="memory that the largest catalogue may take"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small and mostly in this process, to see that it runs; its figures mean nothing",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the measurements here"
    )
    options = parser.parse_args()
    # Small catalogues are tried in this process, beside its imports: of torch's build for CUDA they
    # are three quarters of a gibibyte.
    items, limit = (
        (20_000, peak_bytes() + GIB) if options.quick else (options.items, options.gib * GIB)
    )
    asked = (
        [(list(MODES)[-1], PIA)]
        if options.quick
        else [(name, pia) for pia in (0.0, PIA) for name in MODES]
    )
    modes = [
        measure(take_steps if options.quick else alone, name, pia, items, limit)
        for name, pia in asked
    ]
    show_modes(modes, limit)
    steps = {"dense": alone(Case(1000 if options.quick else 20108, MultVAEConfig(), None))}
    if not options.quick:
        steps |= {
            f"Coterie, PIA {pia:g}": alone(Case(20108, MultVAEConfig(pia=pia), TrainingConfig()))
            for pia in (0.0, PIA)
        }
    show_steps(steps)
    if options.json is not None:
        told = {
            "batch": BATCH,
            "items_per_user": ITEMS_PER_USER,
            "limit_bytes": limit,
            **machine("cpu"),
        }
        write_json(
            options.json,
            {
                **told,
                "modes": [asdict(mode) for mode in modes],
                "steps": {n: asdict(run) for n, run in steps.items()},
            },
        )


if __name__ == "__main__":
    main()
