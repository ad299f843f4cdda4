"""EASE's λ on a given split of fewer users than items, chosen on a sample of the items: the whole
takes too long to be solved often.

    python benchmarks/ease_l2.py DATA [--l2 50 100 200 500] [--items 3000] [--metric ndcg@20]

There every user validated on trains, too, and EASE scores them X - K⁻¹X diag(1 / diag P) with K =
XXᵀ + λI and λ diag P = 1 - diag XᵀK⁻¹X: one solve a column. Only the sampled items are ranked, so
that a value is for its neighbours in this list and for no table.
"""

import argparse
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from scipy.sparse import csr_array

from coterie.data.dataset import Dataset
from coterie.data.split import Cases, Part
from coterie.evaluation.evaluate import evaluate


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--l2", type=float, nargs="+", default=[50, 100, 200, 500])
    parser.add_argument("--items", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=5, help="of the sample")
    parser.add_argument("--metric", default="ndcg@20")
    args = parser.parse_args()
    dataset = Dataset.load(args.data)
    x, cases = csr_array(dataset.train, dtype=np.float32), dataset.cases(Part.VALIDATION)
    items = np.sort(np.random.default_rng(args.seed).choice(x.shape[1], args.items, replace=False))
    columns, held_out = torch.from_numpy(x[:, items].toarray()), cases.held_out[:, items]
    some = np.flatnonzero(np.diff(held_out.indptr))
    users = cases.user_index[some]
    sampled = Cases(users, cases.fold_in[some][:, items], held_out[some])
    print(f"{len(users):,} users with a held-out item among {args.items:,}")
    for l2 in args.l2:
        gram = torch.from_numpy((x @ x.T).toarray())
        gram.diagonal().add_(l2)
        solved = torch.cholesky_solve(columns, torch.linalg.cholesky(gram))
        scores = (columns - solved / ((1 - (columns * solved).sum(dim=0)) / l2))[users]
        scorer = SimpleNamespace(n_items=args.items, score=lambda rows, scores=scores: scores)
        report = evaluate(scorer, sampled, metrics=[args.metric], block_size=len(users))
        print(f"l2 {l2:g}: {args.metric} {report.mean(args.metric):.4f}", flush=True)


if __name__ == "__main__":
    main()
