"""How long a list's explanation takes: every item of a history left out in turn, all items of the
list scored each time.

    python benchmarks/explaining.py --json explaining.json
    python benchmarks/explaining.py --items 1000000 --histories 100

The model is a Mult-VAE I-600-200-600-I with the weights it was drawn with: time does not depend on
what they are. One thread.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from coterie.config import RunConfig
from coterie.data.ids import IdMap
from coterie.files import write_json
from coterie.models.multvae import MultVAEConfig
from coterie.plain_table import plain_table
from coterie.training.trained_model import TrainedModel

SHOWN = {"history": 1, "median_seconds": 1000, "p95_seconds": 1000}


def drawn(n_items: int) -> TrainedModel:
    """A model as it is before its first step."""
    config = MultVAEConfig(hidden_dims=(600,), latent_dim=200)
    network = config.build(n_items, torch.Generator().manual_seed(1)).eval()
    counts = np.ones(n_items, dtype=np.int64)
    return TrainedModel(network, RunConfig(model=config), IdMap.of(range(n_items)), None, counts)


def seconds(model: TrainedModel, n_history: int, n_asked: int, rounds: int) -> list[float]:
    """Of each of some explanations, after one that is not counted."""
    rng, found = np.random.default_rng(0), []
    for _ in range(1 + rounds):
        drawn_items = rng.choice(model.n_items, n_history + n_asked, replace=False).tolist()
        started = time.perf_counter()
        model.explain(drawn_items[:n_history], drawn_items[n_history:])
        found.append(time.perf_counter() - started)
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--histories", type=int, nargs="+", default=[20, 100, 300, 1000])
    parser.add_argument("--asked", type=int, default=20, help="items explained at once")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = drawn(args.items)
    figures = []
    for n_history in args.histories:
        found = seconds(model, n_history, args.asked, args.rounds)
        middle, late = statistics.median(found), float(np.quantile(found, 0.95))
        figures.append({"history": n_history, "median_seconds": middle, "p95_seconds": late})
    rows = [[f"{one[key] * scale:.4g}" for key, scale in SHOWN.items()] for one in figures]
    print(plain_table(["history", "median, ms", "p95, ms"], rows, [True] * 3))
    if args.json is not None:
        write_json(args.json, {"items": args.items, "asked": args.asked, "figures": figures})


if __name__ == "__main__":
    main()
