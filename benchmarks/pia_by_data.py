"""On what data PIA helps: the same log thinned, two widths, both starts, with and without PIA.

    python benchmarks/pia_by_data.py --raw pairs.csv.gz --min-rating 1 --rating liked
    --out reports [--shares 1 0.5 0.2 0.1] [--widths 600 200] [--starts random spectral]
    [--pia 0 0.3 1]

Of every share of the log, drawn at random, a data set is made as of a whole log: users of fewer
than five items go, and users are held out. λ_A is chosen for each share, width and start on the
validation users of all seeds and measured on their test users, each seed a draw, a split and a
training of its own. The command goes on where it was stopped: reports that lie in --out are not
made again.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.prepare import prepare
from coterie.data.read import read_log
from coterie.data.rules import StrongGeneralisation
from coterie.data.split import Part
from coterie.evaluation.compare import compare_runs
from coterie.evaluation.evaluate import evaluate
from coterie.evaluation.report import EvaluationReport
from coterie.files import publish_file
from coterie.plain_table import plain_table
from coterie.training.trainer import train

METRIC = "ndcg@100"
MEASURED = (Part.VALIDATION, Part.TEST)
Reports = dict[Part, EvaluationReport]


@dataclass(frozen=True)
class Cell:
    """One training."""

    share: float
    width: int
    start: str
    pia: float
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.share:g}-{self.width}-{self.start}-{self.pia:g}-{self.seed}"


def pairs_of(args: argparse.Namespace) -> dict[str, np.ndarray]:
    """The pairs that count as liked, in one order."""
    with read_log(args.raw, rating_column=args.rating) as log:
        return dict(
            log.connection.execute(
                "SELECT DISTINCT user_id, item_id FROM log WHERE rating >= ? ORDER BY ALL",
                [args.min_rating],
            ).fetchnumpy()
        )


def thinned(pairs: dict[str, np.ndarray], share: float, seed: int) -> Dataset:
    """A data set of a random share of the pairs; a tenth of its users validate, a tenth test."""
    chosen = np.random.default_rng(seed).random(len(pairs["user_id"])) < share
    kept = {name: column[chosen] for name, column in pairs.items()}
    n_users = int((np.unique(kept["user_id"], return_counts=True)[1] >= 5).sum())
    split = StrongGeneralisation(n_users // 10, seed=seed)
    return prepare(pa.table(kept), min_user_items=5, split=split)


def configuration(args: argparse.Namespace, cell: Cell) -> RunConfig:
    """`ml-1m/masked.toml` but for what is varied."""
    model = {"name": "mult-vae", "hidden_dims": [cell.width], "latent_dim": 200, "pia": cell.pia}
    training = {"epochs": args.epochs, "patience": 12, "batch_size": 200, "metric": METRIC}
    if cell.start == "spectral":
        training |= {"start": "spectral", "average": 0.1}
    fields = {"model": {**model, "beta": args.beta, "anneal_steps": 1000}, "training": training}
    return RunConfig.of(fields).with_seed(cell.seed)


def reports_of(args: argparse.Namespace, cell: Cell, pairs: dict[str, np.ndarray]) -> Reports:
    """Of validation and test users; trained where they are not yet in ``--out``."""
    files = {part: args.out / f"{cell.name}-{part.name.lower()}.parquet" for part in MEASURED}
    if not all(file.exists() for file in files.values()):
        data = thinned(pairs, cell.share, cell.seed)
        model = train(data, configuration(args, cell))
        args.out.mkdir(parents=True, exist_ok=True)
        for part, file in files.items():
            report = evaluate(model, data.cases(part), metrics=(METRIC,), user_ids=data.users)
            facts = {"interactions": str(data.train.nnz), "items": str(data.n_items)}
            with publish_file(file) as aside:
                pq.write_table(report.per_user_table().replace_schema_metadata(facts), aside)
        print(f"{cell.name}: {data.train.nnz:,} interactions", flush=True)
    return {part: EvaluationReport.from_table(pq.read_table(file)) for part, file in files.items()}


def row(
    args: argparse.Namespace, runs: Mapping[float, Sequence[Reports]], first: Cell
) -> list[str]:
    """The best λ_A of validation, beside none, on test users."""
    facts = pq.read_schema(args.out / f"{first.name}-test.parquet").metadata
    interactions, items = int(facts[b"interactions"]), int(facts[b"items"])
    on_validation = {
        pia: float(np.mean([one[Part.VALIDATION].mean(METRIC) for one in reports]))
        for pia, reports in runs.items()
    }
    chosen = max((pia for pia in runs if pia), key=lambda pia: on_validation[pia])
    sides = [[one[Part.TEST] for one in runs[pia]] for pia in (chosen, 0.0)]
    gain = compare_runs(sides[0], sides[1], seed=0, test_to_train=1 / 8).overall[METRIC]
    weights = 2 * items * first.width
    return [
        f"{first.share:.0%}",
        f"{first.width}",
        first.start,
        f"{interactions:,}",
        f"{weights / interactions:.1f}",
        f"{gain.reference_mean:.4f}",
        f"{chosen:g}",
        f"{gain.candidate_mean:.4f}",
        f"{gain.relative_difference:+.1%}",
        f"{gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]",
        " ".join(f"{value:+.4f}" for value in gain.by_run),
    ]


HEADER = (
    "of the log",
    "width",
    "start",
    "interactions",
    "weights each",
    "without",
    "λ_A",
    "with",
    "%",
    f"gain in {METRIC}",
    "by seed",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raw", required=True, help="a table of interactions")
    parser.add_argument("--rating", default=None, help="its column of ratings")
    parser.add_argument("--min-rating", type=float, default=4)
    parser.add_argument("--out", type=Path, required=True, help="folder of reports")
    parser.add_argument("--shares", type=float, nargs="*", default=[1.0, 0.5, 0.2, 0.1])
    parser.add_argument("--widths", type=int, nargs="*", default=[600, 200])
    parser.add_argument("--starts", nargs="*", default=["random"], choices=["random", "spectral"])
    parser.add_argument("--pia", type=float, nargs="*", default=[0.0, 0.3, 1.0])
    parser.add_argument("--beta", type=float, default=0.2)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=150)
    args = parser.parse_args()
    pairs = pairs_of(args)
    grid = list(product(args.shares, args.widths, args.starts))
    for seed, (share, width, start), pia in product(args.seeds, grid, args.pia):
        reports_of(args, Cell(share, width, start, pia, seed), pairs)
    rows = []
    for share, width, start in grid:
        cell = Cell(share, width, start, 0.0, args.seeds[0])
        runs = {
            pia: [reports_of(args, replace(cell, pia=pia, seed=seed), pairs) for seed in args.seeds]
            for pia in args.pia
        }
        rows.append(row(args, runs, cell))
    print(plain_table(HEADER, rows))


if __name__ == "__main__":
    main()
