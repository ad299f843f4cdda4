"""The sums of an experiment of stated size, from Parquet to the moments of every look: in what time
and memory.

    python benchmarks/experiment_size.py --folder experiment --json experiment-size.json

Writes the days of exposures and outcomes once, then reads them in a process of its own, whose peak
memory is told. Users are active in a heavy-tailed way; 2 % of rows arrive a day late and 1 % twice.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coterie.experiment import Arms, EventSources, Window, sum_up
from coterie.experiment.checks import check
from coterie.files import publish_file, write_json

FIRST = date(2026, 3, 2)
DAYS = 28
NAME = "lists"
WEIGHTS = {"control": 0.5, "treatment": 0.5}
CARDS_A_VISIT = 10
CLICK_RATE = 0.08


def write_days(folder: Path, users: int, exposures: int, before_days: int) -> None:
    """Writes each day's files, as many exposures a day before as in the window."""
    rng = np.random.default_rng(0)
    activity, everybody = np.cumsum(rng.lognormal(0, 1.3, users)), rng.permutation(users)
    n_views = exposures // DAYS
    late: dict[str, pa.Table] = {}
    for n in range(-before_days, DAYS):
        day = FIRST + timedelta(days=n)
        # All users come once in the window; the others are the active ones.
        once = everybody[max(n, 0) :: DAYS] if n >= 0 else everybody[:0]
        n_others = max(0, -(-n_views // CARDS_A_VISIT) - len(once))
        others = np.searchsorted(activity, rng.random(n_others) * activity[-1])
        views = exposures_of(rng, np.concatenate([once, others]), n_views, day)
        for kind, table in (("exposures", views), ("outcomes", outcomes_of(rng, views))):
            is_late = rng.random(len(table)) < 0.02
            again = table.filter(pa.array(rng.random(len(table)) < 0.01))
            now = pa.concat_tables([table.filter(pa.array(~is_late)), again])
            arrived = pa.concat_tables([now, late[kind]]) if kind in late else now
            late[kind] = table.filter(pa.array(is_late))
            with publish_file(folder / kind / f"day={day}" / "part-0.parquet") as aside:
                pq.write_table(arrived, aside)


def exposures_of(rng: np.random.Generator, users: np.ndarray, n: int, day: date) -> pa.Table:
    """A day's views: ten cards a visit, at first of the users given."""
    user = np.repeat(users, CARDS_A_VISIT)[:n]
    second = np.repeat(rng.integers(86_000, size=len(users)), CARDS_A_VISIT)[:n]
    midnight = (day.toordinal() - date(1970, 1, 1).toordinal()) * 86_400
    position = np.arange(n) % CARDS_A_VISIT
    card = words(rng.integers(2, size=n), ["movie", "home"])
    arm = arm_of(user)
    return pa.table(
        {
            "user_id": user,
            "time": pa.array((midnight + second + position) * 1_000_000, pa.timestamp("us")),
            "card": card,
            "row": card,
            "position": position + 1,
            "item_id": rng.integers(20_000, size=n),
            "experiment": words(np.zeros(n), [NAME]),
            "arm": words(arm, list(WEIGHTS)),
            "model_version": words(arm, [f"2026-w10-{name}" for name in WEIGHTS]),
        }
    )


def words(number: np.ndarray, names: list[str]) -> pa.Array:
    """Names by their numbers."""
    return pa.DictionaryArray.from_arrays(pa.array(number.astype(np.int32)), names)


def arm_of(user: np.ndarray) -> np.ndarray:
    """``[n]`` the number of the arm, by a hash."""
    mixed = (user.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed >> np.uint64(63)


def outcomes_of(rng: np.random.Generator, views: pa.Table) -> pa.Table:
    """Clicks of some views, and a watch of most clicks."""
    clicks = views.filter(pa.array(rng.random(len(views)) < CLICK_RATE))
    watches = clicks.filter(pa.array(rng.random(len(clicks)) < 0.7))
    parts = []
    for kind, of in (("click", clicks), ("watch", watches)):
        seconds = np.ceil(rng.beta(4, 1, len(of)) * 6000)
        part = of.select(["user_id", "time", "card", "item_id"])
        part = part.append_column("kind", pa.array([kind] * len(of), pa.string()))
        value = pa.array(seconds, mask=np.full(len(of), kind == "click"))
        parts.append(part.append_column("value", value))
    return pa.concat_tables(parts)


def analyse(folder: Path, users: int, before_days: int, daily: bool) -> dict[str, Any]:
    """The sums, and what is asked of them."""
    begin = time.perf_counter()
    ids = np.arange(users)
    names = np.array(list(WEIGHTS))[arm_of(ids).astype(np.int64)]
    arms = Arms(NAME, WEIGHTS, pa.table({"user_id": ids, "arm": pa.array(names)}))
    sources = EventSources(
        exposures=f"{folder}/exposures/day=%Y-%m-%d", outcomes=f"{folder}/outcomes/day=%Y-%m-%d"
    )
    window = Window(FIRST, FIRST + timedelta(days=DAYS - 1), before_days)
    seconds = {}
    with sum_up(sources, window, arms) as sums:
        seconds["reading"] = time.perf_counter() - begin
        for until in sums.days if daily else sums.days[6::7]:
            for metric in sums.metrics:
                for arm in sums.arms.names:
                    sums.moments(metric, arm, until=until)
        seconds["looks"] = time.perf_counter() - begin - sum(seconds.values())
        found = [one.to_json() for one in check(sums)]
        seconds["checks"] = time.perf_counter() - begin - sum(seconds.values())
        counts = {kind: one.to_json() for kind, one in sums.counts.items()}
        n = {arm: sums.moments(sums.metrics[0], arm).n for arm in sums.arms.names}
    seconds["all"] = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "processor_seconds": time.process_time(),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "users": n,
        "counts": counts,
        "checks": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="where the days go, and stay")
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--exposures", type=int, default=20_000_000, help="in the 28 days")
    parser.add_argument("--before-days", type=int, default=7)
    parser.add_argument("--daily", action="store_true", help="28 looks in place of 4")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(analyse(args.folder, args.users, args.before_days, args.daily)))
        return
    done = args.folder / "written"
    if not done.exists():
        write_days(args.folder, args.users, args.exposures, args.before_days)
        done.touch()
    command = [sys.executable, *sys.argv, "--alone"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result = {
        "exposures": args.exposures,
        "before_days": args.before_days,
        "looks": DAYS if args.daily else DAYS // 7,
        "duckdb": duckdb.__version__,
        **json.loads(told),
    }
    print(json.dumps(result, indent=2))
    if args.json:
        write_json(args.json, result)


if __name__ == "__main__":
    main()
