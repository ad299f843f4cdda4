"""How `coterie prepare` grows with the log: seconds and peak memory on logs of MovieLens-20M's
shape.

    python benchmarks/prepare_growth.py --json growth.json
    python benchmarks/prepare_growth.py --generate-only 20 --folder ml-20m-shape

Every log is made, and prepared, in a process of its own: so peaks are those of the one step, and no
step finds its modules loaded or its memory warm.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from coterie.files import write_json
from coterie.simulation.service import SimulatedService

N_USERS, N_ITEMS, N_ROWS, MIN_ITEMS = 138_493, 26_744, 20_000_263, 20
"""MovieLens-20M: users, titles, ratings, and the fewest ratings of a user."""

MIB = 2**20
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
"""The unit in which the system reports peak memory."""


@dataclass(frozen=True)
class Step:
    """What one process took."""

    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Size:
    """One size of log: how it was made and how it was prepared."""

    n_users: int
    n_rows: int
    csv_bytes: int
    generate: Step
    prepare: Step
    by_time: Step


def service(millions: float, seed: int) -> SimulatedService:
    """The service whose log has about ``millions`` of rows: fewer or more users of the same
    kind.
    """
    n_users = max(1, round(millions * 1e6 * N_USERS / N_ROWS))
    return SimulatedService(
        n_users, N_ITEMS, seed, mean_items=N_ROWS / N_USERS, min_items=MIN_ITEMS
    )


def run(command: list[str]) -> Step:
    """Runs a command to its end and measures it; its own messages pass through.

    Linux counts the starting process's own memory in the peak: no peak below this script's (90 MiB)
    can show.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(
            f"every step must end with code 0, this ended with {process.returncode}:"
            f" {' '.join(command)}"
        )
    return Step(seconds, usage.ru_maxrss * MAXRSS_BYTES)


def measure(millions: float, folder: Path, options: argparse.Namespace) -> Size:
    source, made = folder / f"ratings-{millions:g}m", folder / f"prepared-{millions:g}m"
    this = [
        sys.executable,
        __file__,
        "--generate-only",
        str(millions),
        "--folder",
        str(source),
        "--seed",
        str(options.seed),
    ]
    prepare = [sys.executable, "-m", "coterie.cli", "prepare", str(source), "--format", "movielens"]
    rules = ["--min-rating", "4", "--min-user-items", "5", "--out", str(made)]
    strong = ["--held-out-users", str(options.held_out_users), "--seed", "98765"]
    by_time = ["--split", "time", "--test-days", "7", "--validation-days", "7"]
    steps = [run(this), run([*prepare, *rules, *strong]), run([*prepare, *rules, *by_time])]
    ratings = source / "ratings.csv"
    return Size(
        service(millions, options.seed).n_users,
        count_rows(ratings),
        ratings.stat().st_size,
        *steps,
    )


def count_rows(path: Path) -> int:
    """Lines below the header."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(MIB), b"")) - 1


def exponent(rows: list[int], values: list[float]) -> float:
    """The power of the number of rows with which ``values`` grow, by least squares on
    logarithms.
    """
    return float(np.polyfit(np.log(rows), np.log(values), 1)[0])


def exponents(sizes: list[Size]) -> dict[str, float]:
    rows = [size.n_rows for size in sizes]
    return {
        "prepare_seconds": exponent(rows, [size.prepare.seconds for size in sizes]),
        "prepare_peak_bytes": exponent(rows, [float(size.prepare.peak_bytes) for size in sizes]),
    }


def show(sizes: list[Size]) -> None:
    print(
        f"{'users':>9} {'rows':>12} {'CSV MiB':>8} {'made in s':>10} {'peak MiB':>9}"
        f" {'prepared in s':>14} {'peak MiB':>9} {'by time in s':>13} {'peak MiB':>9}"
    )
    for size in sizes:
        made, prepared, by_time = size.generate, size.prepare, size.by_time
        print(
            f"{size.n_users:>9,} {size.n_rows:>12,} {size.csv_bytes / MIB:>8.0f}"
            f" {made.seconds:>10.1f} {made.peak_bytes / MIB:>9.0f} {prepared.seconds:>14.1f}"
            f" {prepared.peak_bytes / MIB:>9.0f} {by_time.seconds:>13.1f}"
            f" {by_time.peak_bytes / MIB:>9.0f}"
        )


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measures how `coterie prepare` grows with the log."
    )
    parser.add_argument(
        "--millions", type=float, nargs="+", default=[5, 10, 20], help="sizes in millions of rows"
    )
    parser.add_argument(
        "--held-out-users", type=int, default=10_000, help="validation users, and test users"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the simulated logs")
    parser.add_argument(
        "--folder", type=Path, help="where the logs are made and stay (default: a temporary folder)"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the measurements here"
    )
    parser.add_argument(
        "--generate-only", type=float, metavar="MILLIONS", help="make one log in --folder and stop"
    )
    options = parser.parse_args()
    if options.generate_only is not None and options.folder is None:
        parser.error("--generate-only needs --folder, the place to write to.")
    return options


def main() -> None:
    options = read_options()
    if options.generate_only is not None:
        service(options.generate_only, options.seed).write_ratings_csv(options.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        sizes = [
            measure(millions, options.folder or Path(temporary), options)
            for millions in options.millions
        ]
    show(sizes)
    growth = exponents(sizes) if len(sizes) > 1 else {}
    for name, power in growth.items():
        print(f"{name} grow as rows to the power {power:.2f}")
    if options.json is not None:
        write_json(options.json, {"sizes": [asdict(size) for size in sizes], "exponents": growth})


if __name__ == "__main__":
    main()
