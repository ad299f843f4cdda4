"""What each door of the package costs before anything is done: seconds from the start of Python to
the end of one import.

    python benchmarks/import_times.py --rounds 11 --json import-times.json

Every import runs in a process of its own, all of them in turn in each round, so that a busy moment
meets them alike. ``ratio`` is to a Python that does nothing.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from coterie.files import write_json
from coterie.plain_table import plain_table

NOTHING = "nothing"
DOORS = {
    NOTHING: "pass",
    "numpy": "import numpy",
    "torch": "import torch",
    "coterie": "import coterie",
    "command line": "import coterie.cli",
    "data set": "from coterie.data.dataset import Dataset",
    "run": "from coterie.training.run_record import read_run",
    "recommendations": "from coterie.ranking.written import read_recommendations",
    "store": "from coterie.store import open_store",
    "study": "from coterie.tuning.study import read_study",
    "report": "from coterie.evaluation.report import EvaluationReport",
    "comparison": "from coterie.evaluation.compare import compare",
    "configuration": "from coterie.config import RunConfig",
    "model": "from coterie.training.trained_model import TrainedModel",
}


def seconds_of(code: str) -> float:
    """A whole process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def needs_torch(code: str) -> bool:
    """Whether torch is loaded by it."""
    check = f"{code}\nimport sys; sys.exit('torch' in sys.modules)"
    return subprocess.run([sys.executable, "-c", check], check=False).returncode == 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="one round, for the tests")
    args = parser.parse_args()
    # The first run of each reads the disk and writes bytecode; it also finds out about torch.
    with_torch = {door: needs_torch(code) for door, code in DOORS.items()}
    rounds = [
        {door: seconds_of(code) for door, code in DOORS.items()}
        for _ in range(1 if args.quick else args.rounds)
    ]
    median = {door: statistics.median(one[door] for one in rounds) for door in DOORS}
    figures: dict[str, dict[str, Any]] = {
        door: {
            "median_seconds": median[door],
            "ratio": median[door] / median[NOTHING],
            "torch": with_torch[door],
        }
        for door in DOORS
    }
    rows = [
        [door, f"{1000 * one['median_seconds']:.0f}", f"{one['ratio']:.1f}", "yes" * one["torch"]]
        for door, one in figures.items()
    ]
    print(plain_table(["import", "ms", "ratio", "torch"], rows, [False, True, True, False]))
    if args.json is not None:
        write_json(args.json, {"rounds": len(rounds), "python": sys.version, "doors": figures})


if __name__ == "__main__":
    main()
