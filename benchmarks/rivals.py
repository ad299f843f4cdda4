"""Coterie beside its rivals: users trained a second, and memory, at equal architecture, batch,
threads and data.

    python benchmarks/rivals.py --json rivals.json
    python benchmarks/rivals.py --shape tiny --rounds 2        # whether everything installs and
    runs

Every rival runs in a process, and if it is not Coterie's own in a virtual environment, of its own
(`.venv-rivals/`, 4 GiB in all, made on first use from benchmarks/rivals/*.txt). The processes take
turns round by round while the others sleep, so that the machine's drift touches all alike. What
cannot be installed or run is in the table with its reason.

The shapes are those of data sets prepared into --data (ml-1m, gowalla, ml-20m); without one, random
histories of that size: lengths log-normal (spread 1, that of MovieLens-1M's is 0.97), popularity as
Zipf's law. Linux only.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from rival_processes import FailedError, Worker, use_threads
from scipy.sparse import csr_array

from coterie.data.dataset import Dataset
from coterie.files import write_json
from coterie.plain_table import plain_table

BATCH = 500  # As in rivals/worker.py.

Job: TypeAlias = Literal["train", "top-100"]
REFERENCES: dict[Job, str] = {"train": "coterie", "top-100": "coterie scoring"}


@dataclass(frozen=True)
class Rival:
    """Who is measured.

    Args:
        script: In benchmarks/rivals.
        job: What it does in a round.
        requirements: What its environment holds, in benchmarks/rivals; Coterie's own environment if
            None.
        note: Where it differs from Coterie's Mult-VAE.
    """

    script: str
    job: Job = "train"
    requirements: str | None = None
    note: str = ""


RIVALS = {
    "coterie": Rival("coterie_multvae.py"),
    "coterie bf16": Rival("coterie_bf16.py", note="products in bfloat16"),
    "dense": Rival("dense_multvae.py", note="dense_step of coterie.lab.bench.training_step"),
    "recbole": Rival(
        "recbole_multivae.py",
        requirements="recbole.txt",
        note="posterior noise 100 times too small, equal work",
    ),
    "irspack": Rival("irspack_multvae.py", requirements="irspack.txt", note="equal"),
    "cornac": Rival(
        "cornac_vaecf.py",
        requirements="cornac.txt",
        note="no dropout, input not normalised, no shuffling, log(softmax + 1e-10)",
    ),
    "coterie scoring": Rival("coterie_scoring.py", job="top-100", note="encodes the histories too"),
    "implicit": Rival(
        "implicit_recommend.py",
        job="top-100",
        requirements="implicit.txt",
        note="random factors of width 600",
    ),
}


@dataclass(frozen=True)
class Shape:
    """What is measured on.

    Args:
        n_users: Histories, if there is no prepared data set.
        n_items: Size of the catalogue, likewise.
        items_per_user: Mean, likewise.
        round_users: Users of one round, a multiple of the batch of 500.
        job: What is done with them.
    """

    n_users: int
    n_items: int
    items_per_user: int
    round_users: int
    job: Job = "train"


SHAPES = {
    "tiny": Shape(1_700, 300, 15, 1_500),
    "ml-1m": Shape(4_834, 3_499, 94, 4_500),
    "gowalla": Shape(29_858, 40_981, 27, 2_000),
    "ml-20m": Shape(116_677, 20_108, 73, 2_500),
    "top-100-4k": Shape(5_000, 4_000, 73, 5_000, "top-100"),
    "top-100-20k": Shape(5_000, 20_000, 73, 5_000, "top-100"),
    "top-100-40k": Shape(5_000, 40_000, 73, 5_000, "top-100"),
}
ALL = [name for name in SHAPES if name != "tiny"]


@dataclass
class Outcome:
    """What one rival did on one shape; ``failed`` says why it did not."""

    seconds: list[float] = field(default_factory=list)
    peak_mib: float = 0
    loading_peak_mib: float = 0
    ready_seconds: float = 0
    packages: dict[str, str] = field(default_factory=dict)
    failed: str | None = None


def random_histories(shape: Shape, seed: int) -> csr_array:
    """Histories with log-normal lengths and Zipf-like popularity; repeated draws merge, no user and
    no item is without any.
    """
    rng = np.random.default_rng(seed)
    # About an eighth of the draws repeat another one.
    lengths = rng.lognormal(np.log(1.125 * shape.items_per_user) - 0.5, 1.0, shape.n_users)
    users = np.repeat(np.arange(shape.n_users), np.maximum(lengths, 5).astype(np.int64))
    law = 1 / np.arange(10, shape.n_items + 10)
    items = rng.choice(shape.n_items, size=len(users), p=law / law.sum())
    users = np.concatenate([users, rng.integers(shape.n_users, size=shape.n_items)])
    items = np.concatenate([items, np.arange(shape.n_items)])
    return csr_array(
        (np.ones(len(users), dtype=np.float32), (users, items)),
        shape=(shape.n_users, shape.n_items),
    )


def histories(name: str, data: Path) -> tuple[csr_array, str]:
    """The histories of a shape, users in random order, and where they are from."""
    if (data / name / "manifest.json").exists():
        matrix, source = Dataset.load(data / name).train, f"the training users of {name}"
    else:
        matrix, source = random_histories(SHAPES[name], seed=0), "random histories"
    # Some rivals take the first users of a round from the top.
    return matrix[np.random.default_rng(0).permutation(matrix.shape[0])], source


class Process(Worker):
    """A rival's process, ready for rounds; it sleeps until one is asked for.

    Args:
        name: Of the rival.
        folder: Of the histories.
        round_users: Users of one round.

    Raises:
        FailedError: if it cannot be installed or ends before it is ready.
    """

    def __init__(self, name: str, folder: Path, round_users: int) -> None:
        rival = RIVALS[name]
        arguments = [str(folder), str(round_users)]
        super().__init__(name, rival.script, rival.requirements, folder, arguments)
        start = time.perf_counter()
        ready = self.answer()
        self.outcome = Outcome(
            ready_seconds=time.perf_counter() - start,
            loading_peak_mib=ready["loading_peak_mib"],
            packages=ready["packages"],
        )

    def round(self) -> None:
        """Takes one round.

        Raises:
            FailedError: if the process ended in it.
        """
        answer = self.ask()
        self.outcome.seconds.append(answer["seconds"])
        self.outcome.peak_mib = answer["peak_mib"]


def measure(
    names: Sequence[str], matrix: csr_array, round_users: int, n_rounds: int
) -> dict[str, Outcome]:
    """All rivals on one matrix, in turn within every round."""
    outcomes: dict[str, Outcome] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        np.save(folder / "indptr.npy", matrix.indptr.astype(np.int64))
        np.save(folder / "indices.npy", matrix.indices.astype(np.int32))
        running: dict[str, Process] = {}
        for name in names:
            try:
                running[name] = stack.enter_context(Process(name, folder, round_users))
                outcomes[name] = running[name].outcome
            except FailedError as error:
                outcomes[name] = Outcome(failed=str(error))
            print(
                f"{name}:"
                f" {outcomes[name].failed or f'ready after {outcomes[name].ready_seconds:.0f} s'}",
                file=sys.stderr,
            )
        for _ in range(n_rounds):
            for name in list(running):
                try:
                    running[name].round()
                except FailedError as error:
                    outcomes[name].failed = str(error)
                    del running[name]
    return outcomes


def ratio(one: Outcome, reference: Outcome | None) -> float | None:
    """Median over the rounds of one's time over the reference's; None where either is missing."""
    if one.failed or reference is None or reference.failed:
        return None
    return statistics.median(a / b for a, b in zip(one.seconds, reference.seconds, strict=True))


def summary(outcomes: dict[str, Outcome], round_users: int) -> dict[str, Any]:
    """What the JSON file holds of one shape's rivals."""
    result: dict[str, Any] = {}
    for name, one in outcomes.items():
        if one.failed:
            result[name] = {"failed": one.failed}
            continue
        result[name] = {
            "users_per_second": round_users / statistics.median(one.seconds),
            "time_over_coterie": ratio(one, outcomes.get(REFERENCES[RIVALS[name].job])),
            "seconds": one.seconds,
            "peak_mib": one.peak_mib,
            "loading_peak_mib": one.loading_peak_mib,
            "ready_seconds": one.ready_seconds,
            "packages": one.packages,
        }
    return result


def table(rivals: dict[str, Any]) -> str:
    """One line a rival."""
    rows = []
    for name, one in rivals.items():
        if "failed" in one:
            rows.append([name, "-", "-", "-", "-", "-", one["failed"]])
            continue
        over = "-" if one["time_over_coterie"] is None else f"{one['time_over_coterie']:.2f}"
        numbers = [
            f"{one['users_per_second']:,.0f}",
            over,
            f"{one['peak_mib']:,.0f}",
            f"{one['loading_peak_mib']:,.0f}",
        ]
        rows.append([name, *numbers, f"{one['ready_seconds']:.0f} s", RIVALS[name].note])
    header = [
        "rival",
        "users/s",
        "time over Coterie's",
        "peak MiB",
        "while loading",
        "ready after",
        "differs",
    ]
    return plain_table(header, rows, right=[False, True, True, True, True, True, False])


def compare(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measures one shape and prints its table."""
    matrix, source = histories(name, args.data)
    names = [rival for rival in args.only if RIVALS[rival].job == SHAPES[name].job]
    users = min(
        BATCH * args.steps if args.steps else SHAPES[name].round_users,
        matrix.shape[0] // BATCH * BATCH,
    )
    lengths = np.diff(matrix.indptr)
    what = {
        "source": source,
        "users": matrix.shape[0],
        "items": matrix.shape[1],
        "items_per_user": float(lengths.mean()),
        "longest_history": int(lengths.max()),
        "round_users": users,
    }
    rivals = summary(measure(names, matrix, users, args.rounds), users)
    print(
        f"\n{name}: {what['users']:,} users x {what['items']:,} items, {what['items_per_user']:.1f}"
        " items a user, at most",
        end=" ",
    )
    print(
        f"{what['longest_history']:,} ({source}); {args.rounds} rounds of {users:,} users,"
        f" {args.threads} threads\n"
    )
    print(table(rivals), flush=True)
    return {**what, "rivals": rivals}


def arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shape",
        nargs="+",
        choices=[*SHAPES, "all"],
        default=["all"],
        help="all but tiny by default",
    )
    parser.add_argument(
        "--only", nargs="+", choices=RIVALS, default=list(RIVALS), help="rivals; all by default"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--steps", type=int, help="batches of 500 users in a round, instead of the shape's own"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data"),
        help="folder with data sets prepared as ml-1m, gowalla and ml-20m",
    )
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measures every shape asked for."""
    args = arguments()
    shapes = ALL if "all" in args.shape else args.shape
    use_threads(args.threads)
    result = {
        "threads": args.threads,
        "rounds": args.rounds,
        "shapes": {name: compare(name, args) for name in shapes},
    }
    if args.json:
        write_json(args.json, result)


if __name__ == "__main__":
    main()
