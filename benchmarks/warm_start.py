"""Week after week: cold starts beside warm ones from the week before.

    python benchmarks/warm_start.py movietweetings/ratings.dat --config masked.toml --weeks 6
    python benchmarks/warm_start.py simulated --config masked.toml --weeks 8

The log is MovieTweetings' or one in its form (user_id::item_id::rating::timestamp), of which
ratings of 7 and more are taken, or that of a simulated service that lives. Each week is a split by
time: 7 days of test, 7 of validation before them. A warm arm goes on from its own best epoch of the
week before; in the week before the first one all start from random weights. One thread.

Of every arm are printed, over the weeks: the mean of the best validation value, the median of its
epoch, the mean after one epoch, the median of the epochs until the week's best value of random
weights was reached, and of the best cold one (and in how many weeks it was), the mean of the test
value of the best epoch, and of the seconds of training. Below them, what each arm is above the
first one: on the same test users in the last week, and in the mean of all weeks, with 95 %
intervals over users and over weeks.
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
from scipy import stats

from coterie.backtesting.plan import last_day_of
from coterie.config import RunConfig, overlay
from coterie.data.dataset import Dataset
from coterie.data.log import InteractionLog
from coterie.data.prepare import prepare
from coterie.data.read import read_log
from coterie.data.rules import TimeSplit
from coterie.data.split import Part
from coterie.data.table_options import TableFields
from coterie.evaluation.compare import compare
from coterie.evaluation.evaluate import evaluate
from coterie.evaluation.report import EvaluationReport
from coterie.files import write_json
from coterie.plain_table import plain_table
from coterie.running.execution import Execution
from coterie.running.progress import Update
from coterie.simulation.living import LivingService
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train

COLD: Mapping[str, Mapping[str, Any]] = {
    "random": {},
    "spectral": {"training.start": "spectral", "training.average": 0.1},
}
WARM: Mapping[str, Mapping[str, Any]] = {
    f"shrink {shrink:g}{name}": {"training.start": "warm", "training.shrink": shrink, **fields}
    for name, fields in {"": {}, ", β at its end": {"model.anneal_steps": 0}}.items()
    for shrink in (1.0, 0.8, 0.5)
}


@dataclass
class Week:
    """What one arm did in one week: validation and β by epoch, the test value of the best one and
    its report.
    """

    curve: list[float]
    beta: list[float]
    test: float
    seconds: float
    report: EvaluationReport

    @property
    def best(self) -> float:
        """The best validation value."""
        return max(self.curve)

    @property
    def best_epoch(self) -> int:
        """Its epoch."""
        return self.curve.index(self.best) + 1

    def told(self) -> dict[str, Any]:
        """All but the report."""
        return {key: value for key, value in vars(self).items() if key != "report"}

    def epochs_to(self, value: float) -> int | None:
        """Until it was reached; None if it never was."""
        return next((n for n, here in enumerate(self.curve, 1) if here >= value), None)


Measured: TypeAlias = tuple[Week, TrainedModel]


def measured(data: Dataset, config: RunConfig, parent: TrainedModel | None) -> Measured:
    """Trains and tests one arm."""
    history: list[Mapping[str, Any]] = []

    def listen(update: Update) -> None:
        history.extend([update.facts] if update.facts else [])

    begun, one = time.perf_counter(), Execution("cpu", threads=1)
    model = train(data, config, warm_from=parent, device=one, progress=listen)
    seconds, metric = time.perf_counter() - begun, config.training.metric
    report = evaluate(model, data, Part.TEST, metrics=(metric,))
    curve, beta = ([entry[key] for entry in history] for key in ("validation", "beta"))
    curve = [entry[metric] for entry in curve]
    return Week(curve, beta, report.mean(metric), seconds, report), model


def chain(
    read: InteractionLog,
    config: RunConfig,
    n_weeks: int,
    last: date,
    arms: Sequence[str],
    min_rating: float | None,
) -> dict[str, list[Week]]:
    """The weeks of every arm but the first one, in which all start alike."""
    weeks: dict[str, list[Week]] = {name: [] for name in arms}
    parents: dict[str, TrainedModel] = {}
    for n in range(n_weeks, -1, -1):
        split = TimeSplit(test_from=last - timedelta(days=7 * n), validation_days=7)
        data = prepare(read, split=split, min_rating=min_rating)
        for name in weeks if n < n_weeks else ["random"]:
            asked = RunConfig.of(overlay(config.as_json(), {**COLD, **WARM}[name]))
            week, model = measured(data, asked, parents.get(name))
            print(split.test_from, name, week.told(), dict(model.provenance), flush=True)
            if n < n_weeks:
                weeks[name].append(week)
            parents |= {name: model} if name in parents else {}
        parents = parents or dict.fromkeys(WARM, model)
    return weeks


def rows(weeks: Mapping[str, Sequence[Week]]) -> list[list[str]]:
    """One arm a row: means over weeks, and medians of epochs."""
    of_cold = [[week.best for week in weeks[name]] for name in COLD if name in weeks]
    best_cold = [max(arms) for arms in zip(*of_cold, strict=True)]
    table = []
    for name, of_arm in weeks.items():
        pairs = zip(of_arm, of_cold[0], best_cold, strict=True)
        reached = [(week.epochs_to(random), week.epochs_to(cold)) for week, random, cold in pairs]
        to_random, to_best = zip(*reached, strict=True)
        table.append(
            [
                name,
                f"{statistics.mean(week.best for week in of_arm):.4f}",
                f"{statistics.median(week.best_epoch for week in of_arm):g}",
                f"{statistics.mean(week.curve[0] for week in of_arm):.4f}",
                _reached(to_random),
                _reached(to_best),
                f"{statistics.mean(week.test for week in of_arm):.4f}",
                f"{statistics.mean(week.seconds for week in of_arm):.0f}",
            ]
        )
    return table


def _reached(epochs: Sequence[int | None]) -> str:
    """Median epochs of the weeks in which it was, and in how many of all it was."""
    found = [n for n in epochs if n is not None]
    median = f"{statistics.median(found):g}" if found else "–"
    return f"{median} ({len(found)} of {len(epochs)})"


def differences(weeks: Mapping[str, Sequence[Week]], metric: str) -> list[list[str]]:
    """Every arm but the first one against it: over users in the last week, over weeks in all."""
    first, *others = weeks
    rows = []
    for name in others:
        arm, reference = weeks[name], weeks[first]
        last = compare(arm[-1].report, reference[-1].report, seed=1).overall[metric]
        gains = [one.test - other.test for one, other in zip(arm, reference, strict=True)]
        ends = stats.ttest_1samp(gains, 0).confidence_interval()
        of_last = _interval(last.difference, last.low, last.high)
        rows.append([name, of_last, _interval(statistics.mean(gains), *ends)])
    return rows


def _interval(mean: float, low: float, high: float) -> str:
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"


HEADER = (
    "start",
    "best validation",
    "at epoch",
    "after one epoch",
    "epochs to random's best",
    "to the best cold",
    "test",
    "seconds",
)


def log_of(name: str) -> tuple[InteractionLog, float | None]:
    """The log, and from which rating on it counts."""
    if name == "simulated":
        service = LivingService(n_users=3_000, n_items=800, weeks=20, seed=1)
        days = (table for _, table in service.arrivals(service.first_day, service.last_day))
        events = pa.concat_tables(days).drop_columns(["value"])
        return read_log(events, "table", timestamp_column="timestamp"), None
    table: TableFields = {
        "columns": ("user_id", "item_id", "rating", "timestamp"),
        "delimiter": "::",
        "rating_column": "rating",
        "timestamp_column": "timestamp",
    }
    return read_log(name, "table", **table), 7


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", help="file, or 'simulated'")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--weeks", type=int, default=6)
    parser.add_argument("--last", type=date.fromisoformat, help="first day of the last week")
    parser.add_argument("--arms", nargs="+", choices=[*COLD, *WARM], default=[*COLD, *WARM])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    config, (read, min_rating) = RunConfig.load(args.config), log_of(args.log)
    with read:
        last = args.last or last_day_of(read) - timedelta(days=6)
        weeks = chain(read, config, args.weeks, last, args.arms, min_rating)
    print(plain_table(HEADER, rows(weeks)))
    against = differences(weeks, config.training.metric)
    print(plain_table((f"above {args.arms[0]}, test", "last week", "mean of weeks"), against))
    if args.json is not None:
        kept = {name: [week.told() for week in weeks[name]] for name in weeks}
        write_json(args.json, kept | {"against": against})


if __name__ == "__main__":
    main()
