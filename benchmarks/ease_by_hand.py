"""EASE and NDCG@100 written out in dense NumPy, to check the harness's figures on MovieLens-1M by
another way.

    python benchmarks/ease_by_hand.py --pairs PATH/ml-1m/pairs.csv.gz

Prints both ways' NDCG@100 on validation and test users of eight splits (λ = 500), and what two
other readings of the protocol would give: training on the validation users too, and hiding a
quarter of the items in place of a fifth.
"""

import argparse

import numpy as np
from scipy.sparse import csr_array, vstack

from coterie.config import RunConfig
from coterie.data.prepare import prepare
from coterie.data.read import read_log
from coterie.data.rules import PrepareRules, StrongGeneralisation
from coterie.data.split import Cases, Part
from coterie.evaluation.evaluate import evaluate
from coterie.training.trainer import train

L2, K = 500.0, 100


def weights(train_rows: csr_array) -> np.ndarray:
    """B of Steck (2019), by a dense inverse."""
    gram = (train_rows.T @ train_rows).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += L2
    inverse = np.linalg.inv(gram)
    found: np.ndarray = -inverse / np.diag(inverse)
    np.fill_diagonal(found, 0)
    return found


def ndcg(b: np.ndarray, cases: Cases) -> float:
    """Mean NDCG@100 by sorting every score."""
    scores = cases.fold_in @ b
    scores[cases.fold_in.toarray() > 0] = -np.inf
    held_out = cases.held_out.toarray() > 0
    hits = np.take_along_axis(held_out, np.argsort(-scores, axis=1)[:, :K], axis=1)
    discount = 1 / np.log2(np.arange(2, K + 2))
    ideal = np.array([discount[: min(n, K)].sum() for n in held_out.sum(axis=1)])
    return float(((hits * discount).sum(axis=1) / ideal).mean())


def main() -> None:
    """Prints the figures of docs/results.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", required=True)
    args = parser.parse_args()
    by_hand = []
    with read_log(args.pairs, "table", rating_column="liked") as log:
        for seed in range(1, 9):
            fifth = StrongGeneralisation(600, seed=seed)
            data = prepare(log, PrepareRules(min_rating=1, split=fifth))
            model = train(data, RunConfig.of({"model": {"name": "ease", "l2": L2}}))
            b, validation, test = (
                weights(data.train),
                data.cases(Part.VALIDATION),
                data.cases(Part.TEST),
            )
            for part, cases in (("validation", validation), ("test", test)):
                by_hand.append(ndcg(b, cases))
                harness = evaluate(model, cases, metrics=["ndcg@100"]).mean("ndcg@100")
                print(
                    f"split {seed} {part:10} by hand {by_hand[-1]:.4f}  harness {harness:.4f}",
                    flush=True,
                )
            if seed == 1:
                both = vstack([data.train, validation.fold_in + validation.held_out], format="csr")
                print(
                    "split 1 test, trained on validation users too:"
                    f" {ndcg(weights(both), test):.4f}"
                )
                quarter = prepare(
                    log,
                    PrepareRules(min_rating=1, split=StrongGeneralisation(600, 0.25, seed)),
                )
                print(
                    "split 1 test, a quarter hidden:"
                    f" {ndcg(weights(quarter.train), quarter.cases(Part.TEST)):.4f}"
                )
    print(f"mean by hand {np.mean(by_hand):.4f}")


if __name__ == "__main__":
    main()
