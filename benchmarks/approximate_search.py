"""Approximate search against the exact ranking of every item: build time, memory, users a second,
recall@k.

    python benchmarks/approximate_search.py --items 1000000
    python benchmarks/approximate_search.py --run runs/gowalla --data data/gowalla --hnsw 100 200
    400

The first takes simulated factors of any number, laid out as those of a trained decoder are: items
around the centres of niches, a spectrum that falls off, users as mixtures of niches. The spread
within niches was chosen so that 41,000 of them lose as much recall as the decoder trained on
Gowalla's 40,981 items does. The second takes a trained model's factors and real histories, whose
items are left out of the ranking. ``--hnsw`` adds faiss's graph index, which this library does not
use, at those widths of its search.

Times are of the processor, all threads together, the better of two rounds: others may be at work on
the machine.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.data.dataset import Dataset
from coterie.files import write_json
from coterie.ranking.approximate import ApproximateIndex
from coterie.ranking.ranker import Ranker
from coterie.ranking.topk import TopK
from coterie.training.trained_model import TrainedModel


@dataclass(frozen=True, eq=False)
class FixedFactors:
    """A scorer of a fixed block of users.

    Args:
        users: ``[n, dim]`` their factors.
        items: ``[n_items, dim]`` the catalogue's.
        seen: ``[n, n_items]`` what they have had.
    """

    users: Tensor
    items: Tensor
    seen: csr_array

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return len(self.items)

    def score(self, histories: csr_array) -> Tensor:
        """All scores of the block."""
        return self.users @ self.items.t()

    def user_factors(self, histories: csr_array) -> Tensor:
        """The block's, whatever the histories."""
        return self.users

    def item_factors(self) -> Tensor:
        """The catalogue's."""
        return self.items


def simulated(n_items: int, dim: int, n_users: int, seed: int) -> FixedFactors:
    """Factors of ``dim`` numbers and a bias; see the module."""
    rng = np.random.default_rng(seed)
    spectrum = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
    centres = rng.standard_normal((max(n_items // 500, 8), dim), dtype=np.float32)
    items = 0.65 * rng.standard_normal((n_items, dim), dtype=np.float32)
    items += centres[rng.integers(len(centres), size=n_items)]
    items *= spectrum
    bias = (
        rng.standard_normal((n_items, 1), dtype=np.float32)
        * 0.05
        * np.linalg.norm(items, axis=1).mean()
    )
    users = centres[rng.integers(len(centres), size=(n_users, 3))].mean(axis=1)
    users = np.tanh(
        (users + 0.5 * rng.standard_normal((n_users, dim), dtype=np.float32)) * spectrum
    )
    users = np.hstack([users, np.ones((n_users, 1), np.float32)])
    return FixedFactors(
        torch.from_numpy(users),
        torch.from_numpy(np.hstack([items, bias])),
        csr_array((n_users, n_items)),
    )


def trained(run: Path, data: Path, n_users: int) -> FixedFactors:
    """A model's factors and the histories of its first training users."""
    model, histories = TrainedModel.load(run), Dataset.load(data).train[:n_users]
    items = model.item_factors()
    if items is None:
        raise SystemExit(f"{run}: has no item factors; take a mult-vae or mult-dae.")
    return FixedFactors(model.user_factors(histories), items, histories)


def recall(found: TopK, exact: TopK) -> float:
    """The mean share of each row's exact list that was found."""
    pairs = zip(found.items.tolist(), exact.items.tolist(), strict=True)
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]))


def timed(work: Callable[[], Any], rounds: int = 1) -> tuple[Any, float]:
    """The result and the fewest processor seconds."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return result, min(seconds)


def show(name: str, users_per_second: float, exact: float, share: float) -> dict[str, Any]:
    print(
        f"{name:24} {users_per_second:11.0f} {users_per_second / exact:10.1f} {share:10.4f}",
        flush=True,
    )
    return {"setting": name, "users_per_second": users_per_second, "recall": share}


def built(name: str, work: Callable[[], Any], told: dict[str, Any]) -> Any:
    """Runs a build and tells what it took."""
    before = faiss.get_mem_usage_kb()
    index, seconds = timed(work)
    mebibytes = (faiss.get_mem_usage_kb() - before) / 1024
    print(f"{name}: built in {seconds:.1f} processor seconds, {mebibytes:.0f} MiB", flush=True)
    told[name] = {"build_seconds": seconds, "mebibytes": mebibytes}
    return index


def hnsw(factors: np.ndarray) -> faiss.IndexHNSWFlat:
    """The graph over inner products, 32 edges an item."""
    graph = faiss.IndexHNSWFlat(factors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 100
    graph.add(factors)
    return graph


def main() -> None:
    """Runs the settings and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--lists", type=int, help="lists of the index (default: the library's)")
    parser.add_argument(
        "--probed",
        type=int,
        nargs="+",
        default=[8, 16, 32, 64, 128],
        help="lists read for each user",
    )
    parser.add_argument(
        "--hnsw",
        type=int,
        nargs="*",
        default=[],
        help="widths of the graph's search; also builds the graph",
    )
    parser.add_argument("--run", type=Path, help="a trained model instead of simulated factors")
    parser.add_argument("--data", type=Path, help="the data set it was trained on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    faiss.omp_set_num_threads(torch.get_num_threads())
    scorer = (
        trained(args.run, args.data, args.users)
        if args.run
        else simulated(args.items, args.dim, args.users, args.seed)
    )
    n_users, dim = scorer.users.shape
    print(
        f"{scorer.n_items:,} items × {dim}, {n_users} users, {torch.get_num_threads()} threads,"
        f" faiss {faiss.__version__}"
    )
    told: dict[str, Any] = {
        "items": scorer.n_items,
        "dim": dim,
        "users": n_users,
        "threads": torch.get_num_threads(),
    }
    ranker = Ranker(scorer, args.k)
    exact, seconds = timed(lambda: ranker.rank(scorer.seen, scorer.seen), rounds=2)
    index: ApproximateIndex = built(
        "lists", lambda: ApproximateIndex.build(scorer, n_lists=args.lists, seed=args.seed), told
    )
    graph: Any = built("graph", lambda: hnsw(scorer.items.numpy()), told) if args.hnsw else None
    print(f"\n{'setting':24} {'users/cpu-s':>11} {'× exact':>10} {f'recall@{args.k}':>10}")
    rows = [show("exact", n_users / seconds, n_users / seconds, 1.0)]
    for n_probed in args.probed:
        setting = replace(index, n_probed=n_probed)
        search = partial(setting.search, scorer.users, args.k, seen=scorer.seen)
        found, took = timed(search, rounds=2)
        rows.append(
            show(
                f"{n_probed} of {index.lists.nlist} lists",
                n_users / took,
                n_users / seconds,
                recall(found, exact),
            )
        )
    for width in args.hnsw:
        graph.hnsw.efSearch = width
        (_, items), took = timed(lambda: graph.search(scorer.users.numpy(), args.k), rounds=2)
        # It leaves nothing out, so it is held against the exact list that leaves nothing out.
        whole = ranker.rank(scorer.seen)
        found = TopK(torch.from_numpy(items), torch.empty(0))
        rows.append(
            show(f"graph, width {width}", n_users / took, n_users / seconds, recall(found, whole))
        )
    if args.json:
        write_json(args.json, {**told, "settings": rows})


if __name__ == "__main__":
    main()
