"""How long one user waits for a list, against the product and the selection that no list can do
without.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import torch

from coterie.config import RunConfig
from coterie.data.ids import Id, IdMap
from coterie.lab.bench.turns import machine, random_histories, take_turns
from coterie.models.multvae import MultVAEConfig
from coterie.plain_table import plain_table
from coterie.training.trained_model import TrainedModel

THREADS = 8
TOGETHER = 32


@dataclass(frozen=True)
class ServingTimes:
    """Seconds of every request, by who asked.

    Args:
        seconds: ``product``, ``one user``, ``32 users``, and the latter two ``from 8 threads``.
        facts: What was measured and where; JSON values only.
    """

    seconds: Mapping[str, list[float]]
    facts: Mapping[str, Any]

    def milliseconds(self, name: str, percentile: float) -> float:
        """A percentile of the times of one kind of request."""
        return 1000 * float(np.percentile(self.seconds[name], percentile))

    @property
    def ratio_to_product(self) -> float:
        """The median of one user alone over the median of the product and the selection."""
        return self.milliseconds("one user", 50) / self.milliseconds("product", 50)

    def to_json(self) -> dict[str, Any]:
        """All figures as JSON values."""
        percentiles = {
            f"p{p}_ms": {name: self.milliseconds(name, p) for name in self.seconds}
            for p in (50, 99)
        }
        return {**self.facts, "ratio_to_product": self.ratio_to_product, **percentiles}

    def __str__(self) -> str:
        rows = [
            [name, *(f"{self.milliseconds(name, p):.2f}" for p in (50, 99))]
            for name in self.seconds
        ]
        facts = [f"{name.replace('_', ' ')} {value}" for name, value in self.facts.items()]
        table = plain_table(["", "p50 ms", "p99 ms"], rows, [False, True, True])
        ratio = f"ratio to product {self.ratio_to_product:.2f}"
        return "\n".join([", ".join(facts), table, ratio])


def bench_serving(
    n_items: int = 20_000,
    *,
    k: int = 100,
    items_per_user: int = 73,
    model: MultVAEConfig | None = None,
    requests: int = 400,
    device: str = "cpu",
) -> ServingTimes:
    """Times `TrainedModel.recommend` by a network with its initial weights, ids and titles going in
    and out.

    Args:
        n_items: Size of the catalogue.
        k: Length of the lists.
        items_per_user: Mean length of a history.
        model: With a hidden layer; I-600-200-600-I by default.
        requests: Of each kind; from several threads, of all threads together.
        device: ``"cpu"`` or ``"cuda"``.

    Returns:
        The times. ``product`` is user factors × item factors and `torch.topk`, both into memory
        allocated once; it, one user and 32 users take turns.

    Example:
        >>> times = bench_serving(60, k=5, items_per_user=4, requests=8)
        >>> sorted(times.seconds)[:3]
        ['32 users', '32 users from 8 threads', 'one user']
    """
    model = model or MultVAEConfig()
    served = _model(n_items, model, device)
    lists = _lists(max(requests, TOGETHER), n_items, items_per_user)
    asking = {
        "one user": _asking(served, lists, 1, k),
        f"{TOGETHER} users": _asking(served, lists, TOGETHER, k),
    }
    seconds = take_turns({"product": _product(served, k), **asking}, requests, device)
    for name, ask in asking.items():
        seconds[f"{name} from {THREADS} threads"] = _from_threads(ask, requests)
    hidden = model.hidden_dims[0]
    facts = {
        "items": n_items,
        "k": k,
        "items_per_user": items_per_user,
        "shape": f"I-{hidden}-{model.latent_dim}-{hidden}-I",
        "requests": requests,
        **machine(device),
    }
    return ServingTimes(seconds, facts)


def _model(n_items: int, model: MultVAEConfig, device: str) -> TrainedModel:
    network = model.build(n_items, torch.Generator().manual_seed(0)).to(device).eval()
    items, titles = IdMap.of(range(n_items)), tuple(f"Title {item}" for item in range(n_items))
    popularity = np.arange(n_items, dtype=np.int64)
    return TrainedModel(network, RunConfig(model=model), items, titles, popularity)


def _lists(n_users: int, n_items: int, items_per_user: int) -> list[list[int]]:
    rows = random_histories(n_users, n_items, items_per_user)
    return [row.tolist() for row in np.split(rows.indices, rows.indptr[1:-1])]


def _asking(
    model: TrainedModel, lists: list[list[int]], together: int, k: int
) -> Callable[[], object]:
    """Asks for the next users, and for the first again after the last."""
    groups = [
        dict[Id, list[Id]](enumerate(lists[start : start + together]))  # type: ignore[arg-type]
        for start in range(0, len(lists) - together + 1, together)
    ]
    waiting = cycle(groups)
    return lambda: model.recommend(next(waiting), k=k)


def _product(model: TrainedModel, k: int) -> Callable[[], object]:
    items = model.item_factors()
    user = torch.randn(1, items.shape[1], device=items.device)
    scores = torch.empty(1, len(items), device=items.device)
    best = torch.topk(scores, min(k, len(items)))

    def run() -> None:
        torch.mm(user, items.t(), out=scores)
        torch.topk(scores, min(k, len(items)), out=(best.values, best.indices))

    return run


def _from_threads(ask: Callable[[], object], requests: int) -> list[float]:
    """Seconds of each request when as many threads as there are ask one after the other."""
    start, seconds = threading.Barrier(THREADS), list[float]()

    def work() -> None:
        ask()
        start.wait()
        for _ in range(-(-requests // THREADS)):
            began = time.perf_counter()
            ask()
            seconds.append(time.perf_counter() - began)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds
