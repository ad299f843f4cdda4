"""The MovieLens-1M table of docs/results.md: five splits, every configuration in configs/ml-1m, pooled test users.

    python benchmarks/results_ml_1m.py --pairs PATH/ml-1m/pairs.csv.gz --titles PATH/ml-1m/movies.dat

Seed s draws split s and trains with seed s. Runs are resumed where they stand, so that an interrupted table goes
on. The configurations were chosen on the validation users of split 1, some of whom are test users of other
splits: the comparisons are printed a second time without any of them.
"""

import argparse
from pathlib import Path

import numpy as np

from coterie.config import RunConfig, read_values
from coterie.data.dataset import Dataset
from coterie.data.ids import IdMap
from coterie.data.prepare import prepare
from coterie.data.read import read_log
from coterie.data.rules import PrepareRules
from coterie.data.split import Part
from coterie.evaluation.compare import Difference, compare_runs, pool
from coterie.evaluation.evaluate import evaluate
from coterie.evaluation.report import EvaluationReport
from coterie.files import write_json
from coterie.training.trainer import train

MODELS = ("popularity", "ease", "mult-dae", "clean", "masked", "pia-0.3", "pia")
CHOSEN_ON = 1
HEADER = "| NDCG@100 | gain | relative | 95 % interval | p |\n| --- | --- | --- | --- | --- |"
PAIRS = (("pia", "masked"), ("pia-0.3", "masked"), ("masked", "clean"), ("pia", "ease"), ("pia", "mult-dae"))


def dataset(args: argparse.Namespace, seed: int) -> Dataset:
    """The data set of one split, prepared once."""
    folder = args.folder / f"data-{seed}"
    if not folder.exists():
        columns = {"user_column": "user_id", "item_column": "item_id", "rating_column": "liked"}
        with read_log(args.pairs, "table", titles=args.titles, **columns) as log:
            prepare(log, PrepareRules(min_rating=1, min_user_items=5, held_out_users=600, seed=seed)).save(folder)
    return Dataset.load(folder)


def report(args: argparse.Namespace, name: str, seed: int, data: Dataset) -> EvaluationReport:
    """Trains one configuration with one seed, or finds it trained, and evaluates it on that split's test users."""
    values = read_values(args.configs / f"{name}.toml")
    if "training" in values:
        values["training"]["seed"] = seed
    model = train(data, RunConfig.of(values), out=args.folder / f"{name}-{seed}", resume=True, device=args.device)
    found = evaluate(model, data.cases(Part.TEST), user_ids=data.users)
    best = model.provenance.get("best_validation") or float("nan")
    print(f"{name:10} seed {seed}  validation {best:.4f}  test NDCG@100 {found.mean('ndcg@100'):.4f}", flush=True)
    return found


def without(report: EvaluationReport, chosen_on: IdMap) -> EvaluationReport:
    """The report of the users that no configuration was chosen on."""
    return report.take(np.flatnonzero(chosen_on.index_of(report.users.values) < 0))


def show(name: str, one: Difference) -> str:
    """A line of the comparison table."""
    interval = f"[{one.low:+.4f}, {one.high:+.4f}]"
    return f"| {name} | {one.difference:+.4f} | {one.relative_difference:+.1%} | {interval} | {one.p_value:.4f} |"


def main() -> None:
    """Trains, evaluates and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--titles", type=Path)
    parser.add_argument("--configs", type=Path, default=Path("configs/ml-1m"))
    parser.add_argument("--folder", type=Path, default=Path("runs/ml-1m"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    reports: dict[str, list[EvaluationReport]] = {name: [] for name in args.models}
    for seed in args.seeds:
        data = dataset(args, seed)
        for name in args.models:
            reports[name].append(report(args, name, seed, data))
    pooled = {name: pool(runs) for name, runs in reports.items()}
    print("\n| model | users | Recall@20 ÷ min(20, n) | Recall@50 ÷ min(50, n) | NDCG@100 |\n| --- | --- | --- | --- | --- |")
    for name, one in pooled.items():
        cells = " | ".join(f"{one.mean(metric):.4f} ± {one.standard_error(metric):.4f}" for metric in one.metrics)
        print(f"| {name} | {len(one)} | {cells} |")
    pairs = [(a, b) for a, b in PAIRS if {a, b} <= set(reports)]
    comparisons = {f"{a} over {b}": compare_runs(reports[a], reports[b], seed=0) for a, b in pairs}
    print(f"\n{HEADER}")
    for name, comparison in comparisons.items():
        print(show(name, comparison.overall["ndcg@100"]))
        for cohort, differences in comparison.cohorts.items():
            print(show(f"— {cohort} interactions, {differences['ndcg@100'].users} users", differences["ndcg@100"]))
    first = dataset(args, CHOSEN_ON)
    chosen_on = IdMap(first.users.take(first.cases(Part.VALIDATION).user_index))
    unseen = {name: [without(one, chosen_on) for one in runs] for name, runs in reports.items()}
    print(f"\nWithout the users the configurations were chosen on:\n\n{HEADER}")
    for a, b in pairs:
        gain = compare_runs(unseen[a], unseen[b], seed=0).overall["ndcg@100"]
        print(show(f"{a} over {b}, {gain.users} users", gain))
    if args.json:
        models = {name: {"pooled": pooled[name].to_json(), "runs": [one.to_json() for one in runs]} for name, runs in reports.items()}
        write_json(args.json, {"models": models, "comparisons": {name: one.to_json() for name, one in comparisons.items()}})


if __name__ == "__main__":
    main()
