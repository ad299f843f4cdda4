"""What heavy and light users teach the others: trained once more without them.

    python benchmarks/leaving_out_users.py --data data/ml-1m --setting masked=masked.toml
    --setting pia=pia.toml [--heavy 100] [--light 40] [--seeds 1] [--json left_out.json]

Each setting is trained with everybody, without its heavy users, without its light ones, without as
many at random, and without random users who have as many interactions as the heavy ones. All are
measured on the same validation users, and by their number of interactions; each is held against the
training with everybody, paired over users, for several seeds pooled. That is 6 trainings a setting
and seed.
"""

import argparse
import tomllib
from pathlib import Path
from typing import Any

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.evaluation.compare import Comparison, compare_runs
from coterie.evaluation.evaluate import evaluate
from coterie.evaluation.report import EvaluationReport
from coterie.files import write_json
from coterie.lab.collaboration.leaving_out import groups_to_leave_out, without_users
from coterie.plain_table import plain_table
from coterie.training.trainer import train

METRIC = "ndcg@100"


def trained(dataset: Dataset, config: Path, seed: int, epochs: int | None) -> EvaluationReport:
    """Trains, and measures on the validation users."""
    fields = tomllib.loads(config.read_text(encoding="utf-8"))
    fields.setdefault("training", {})["seed"] = seed
    if epochs is not None:
        fields["training"]["epochs"] = epochs
    model = train(dataset, RunConfig.of(fields))
    cases = dataset.cases(Part.VALIDATION)
    return evaluate(model, cases, metrics=(METRIC,), user_ids=dataset.users)


def compared(
    dataset: Dataset, config: Path, args: argparse.Namespace
) -> tuple[dict[str, Comparison], dict[str, int]]:
    """Each group left out, beside everybody; and how many users it has."""
    seeds = range(1, args.seeds + 1)
    whole = [trained(dataset, config, seed, args.epochs) for seed in seeds]
    groups = groups_to_leave_out(dataset, heavy=args.heavy, light=args.light, seed=args.seed)
    found = {}
    for name, rows in groups.items():
        fewer = without_users(dataset, rows)
        reports = [trained(fewer, config, seed, args.epochs) for seed in seeds]
        found[name] = compare_runs(reports, whole, seed=args.seed)
    return found, {name: len(rows) for name, rows in groups.items()}


def lines(setting: str, found: dict[str, Comparison], sizes: dict[str, int]) -> list[list[str]]:
    """A row a group and cohort."""
    return [
        [
            setting,
            f"{name} ({sizes[name]:,})",
            cohort,
            f"{one[METRIC].difference:+.4f} [{one[METRIC].low:+.4f}, {one[METRIC].high:+.4f}]",
        ]
        for name, comparison in found.items()
        for cohort, one in {"all": comparison.overall, **comparison.cohorts}.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a prepared data set")
    parser.add_argument("--setting", action="append", required=True, help="NAME=CONFIG.toml")
    parser.add_argument("--heavy", type=int, default=100, help="more interactions than this")
    parser.add_argument("--light", type=int, default=40, help="fewer interactions than this")
    parser.add_argument("--seeds", type=int, default=1, help="of training")
    parser.add_argument("--seed", type=int, default=0, help="of random users and resamples")
    parser.add_argument("--epochs", type=int, default=None, help="in place of the configuration's")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    dataset, rows, told = Dataset.load(args.data), list[list[str]](), dict[str, Any]()
    for setting in args.setting:
        name, _, config = setting.partition("=")
        found, sizes = compared(dataset, Path(config), args)
        rows += lines(name, found, sizes)
        told[name] = {group: one.to_json() for group, one in found.items()} | {"sizes": sizes}
    print(plain_table(["setting", "left out", "measured on", f"{METRIC} over everybody"], rows))
    if args.json is not None:
        write_json(args.json, told)


if __name__ == "__main__":
    main()
