"""Everybody scored in one run that is killed (SIGKILL) at random moments and resumed: who is in the
result, in what time and memory.

    python benchmarks/million_users.py --folder million --json million.json

Simulates a service, trains a Mult-VAE for some epochs on its first users, then runs `coterie
recommend` for all of them by the command line. Linux only, as peaks are read from /proc.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb

from coterie.files import write_json

COTERIE = [sys.executable, "-m", "coterie.cli"]


def call(*arguments: object) -> None:
    """Runs a verb and shows what it says."""
    command = [*COTERIE, *map(str, arguments)]
    print("coterie", *command[3:], flush=True)
    subprocess.run(command, check=True)


def simulated(folder: Path, name: str, users: int, items: int) -> Path:
    """A data set of the first ``users`` of the service, made once."""
    data = folder / name
    if not data.exists():
        call(
            "simulate",
            "--users",
            users,
            "--items",
            items,
            "--mean-items",
            73,
            "--seed",
            0,
            "--out",
            folder / f"{name}-log",
        )
        call(
            "prepare",
            folder / f"{name}-log",
            "--min-rating",
            0,
            "--held-out-users",
            users // 20,
            "--out",
            data,
        )
    return data


def peak_mib(process: "subprocess.Popen[bytes]") -> float:
    """Peak resident memory of a process so far; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return next(
            (int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0
        )
    except OSError:
        return 0.0


def run(command: list[str], stop_after: float | None) -> dict[str, Any]:
    """Runs until the end, or kills it after ``stop_after`` seconds."""
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, peak_mib(process))
        if stop_after is not None and time.perf_counter() - start > stop_after:
            process.kill()
        time.sleep(0.1)
    return {"seconds": time.perf_counter() - start, "peak_mib": peak, "status": process.returncode}


def examine(out: Path) -> dict[str, int]:
    """What the finished folder holds."""
    with duckdb.connect() as database:
        found = database.execute(
            """
            SELECT
                count(*), sum(n),
                count(*) FILTER (n <> ranks OR lowest <> 1 OR highest <> n), max(parts)
            FROM (
                SELECT user_id, count(*) AS n, count(DISTINCT rank) AS ranks,
                    min(rank) AS lowest, max(rank) AS highest,
                    count(DISTINCT filename) AS parts
                FROM read_parquet(?, filename = true)
                GROUP BY user_id
            )
            """,
            [f"{out}/*.parquet"],
        ).fetchone()
    assert found is not None
    return dict(
        zip(
            ("users", "rows", "users_with_broken_lists", "files_a_user"),
            map(int, found),
            strict=True,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="where service, model and result go, and stay"
    )
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--train-users", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument(
        "--longest",
        type=float,
        default=120,
        help="seconds after which a run that is killed is killed at the latest",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    data = simulated(args.folder, "everybody", args.users, args.items)
    taught = simulated(args.folder, "taught", args.train_users, args.items)
    if not (args.folder / "run" / "model").exists():
        call(
            "train",
            taught,
            "--out",
            args.folder / "run",
            "--epochs",
            args.epochs,
            "--set",
            "training.batch_size=500",
            "--resume",
        )
    out, moments = args.folder / "recs", random.Random(args.seed)
    command = [
        *COTERIE,
        "recommend",
        str(args.folder / "run"),
        "--histories",
        str(data),
        "--k",
        str(args.k),
        "--out",
        str(out),
    ]
    runs = []
    for number in range(args.kills + 1):
        killed = number < args.kills
        runs.append(run(command, moments.uniform(0.3, 1.0) * args.longest if killed else None))
        runs[-1]["shards"] = len(list(out.glob("*.parquet")))
        print(json.dumps(runs[-1]), flush=True)
        if killed and (out / "_manifest.json").exists():
            raise SystemExit(
                "the run was complete before it could be killed; give more --users or a smaller"
                " --longest."
            )
    result = {
        "users": args.users,
        "items": args.items,
        "k": args.k,
        "runs": runs,
        "found": examine(out),
    }
    manifest = json.loads((out / "_manifest.json").read_text())
    result["told"] = {name: manifest[name] for name in ("n_users", "n_rows", "n_popularity_users")}
    print(json.dumps(result["found"]), json.dumps(result["told"]))
    if args.json:
        write_json(args.json, result)


if __name__ == "__main__":
    main()
