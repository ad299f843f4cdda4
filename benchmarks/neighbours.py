"""The nearest neighbours of many users by W2, exactly.

    python benchmarks/neighbours.py [--users 50000] [--latent-dim 200] [--k 10]

Random posteriors: the time does not depend on their values. Linux only, for the peak.
"""

import argparse
import resource
import time

import torch

from coterie.lab.collaboration.distances import nearest_neighbours, w2_points
from coterie.lab.collaboration.posteriors import Posteriors


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--latent-dim", type=int, default=200)
    parser.add_argument("--k", type=int, default=10)
    arguments = parser.parse_args()
    generator, shape = torch.Generator().manual_seed(1), (arguments.users, arguments.latent_dim)
    points = w2_points(
        Posteriors(torch.randn(shape, generator=generator), torch.rand(shape, generator=generator))
    )
    started = time.perf_counter()
    nearest_neighbours(points, arguments.k)
    seconds, peak = (
        time.perf_counter() - started,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )
    told = (
        f"{arguments.users:,} users, {arguments.k} neighbours each, {torch.get_num_threads()}"
        " threads"
    )
    print(f"{told}: {seconds:.1f} s, {peak:.2f} GiB in all")


if __name__ == "__main__":
    main()
