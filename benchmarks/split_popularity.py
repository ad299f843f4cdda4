"""Whether a given split was drawn at random: of the most popular items, as many interactions should
be in the test as of all others.

    python benchmarks/split_popularity.py DATA [--top 20 100 1000]

DATA is a data set of a given split, from ``coterie prepare`` or ``coterie reproduce``.
"""

import argparse
from pathlib import Path

import numpy as np

from coterie.data.dataset import Dataset
from coterie.data.split import Part


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--top", type=int, nargs="+", default=[20, 100, 1000])
    args = parser.parse_args()
    dataset = Dataset.load(args.data)
    train = np.asarray(dataset.without_validation().train.sum(axis=0))
    for part in (Part.VALIDATION, Part.TEST):
        held_out = np.asarray(dataset.cases(part).held_out.sum(axis=0))
        # What is validated on is part of the training, of the test it is not.
        everything = train if part is Part.VALIDATION else train + held_out
        order = np.argsort(-everything, kind="stable")
        shares = [
            f"top {n:,} {held_out[order[:n]].sum() / everything[order[:n]].sum():.1%}"
            for n in args.top
        ]
        print(
            f"held out for {part.name.lower()}: {held_out.sum() / everything.sum():.1%} of all"
            f" interactions, {', '.join(shares)}"
        )


if __name__ == "__main__":
    main()
