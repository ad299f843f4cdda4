"""The metrics themselves, on tensors, for many users at once.

Apart from their names and labels, which reports are read with where there is no torch. All of them
read two things only: at which ranks a held-out item stands, and how many items were held out.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from coterie.evaluation.metrics import Kind, Metric


def per_user(metric: Metric, hits: Tensor, n_held_out: Tensor) -> Tensor:
    """A metric of each user.

    Args:
        metric: With its cut-off k.
        hits: ``[n, K]`` bool, K ≥ min(k, n_items): whether the item at each rank was held out.
        n_held_out: ``[n]`` int64 number of held-out items, at least 1.

    Returns:
        ``[n]`` float64 in [0, 1].

    References:
        Liang et al. (2018), section 4.2.

    Example:
        >>> hits = torch.tensor([[False, True, False]])
        >>> per_user(Metric.parse("recall@2"), hits, torch.tensor([1])).tolist()
        [1.0]
    """
    return _FORMULAS[metric.kind](hits[:, : metric.k], n_held_out, metric.k)


def _count(hits: Tensor) -> Tensor:
    return hits.sum(dim=1).double()


def _within_reach(hits: Tensor, n_held_out: Tensor) -> Tensor:
    """min(k, held out): where the catalogue has fewer than k items, nobody has k held out."""
    return n_held_out.clamp(max=hits.shape[1])


def _ndcg(hits: Tensor, n_held_out: Tensor) -> Tensor:
    ranks = torch.arange(1, hits.shape[1] + 1, dtype=torch.float64, device=hits.device)
    discount = 1 / torch.log2(ranks + 1)
    # Both sums run over ranks in the same order, so that a perfect ranking is exactly 1.
    gained = (hits * discount).cumsum(dim=1)[:, -1]
    ideal = discount.cumsum(dim=0)[_within_reach(hits, n_held_out) - 1]
    return gained / ideal


def _reciprocal_rank(hits: Tensor) -> Tensor:
    first = hits.int().argmax(dim=1)  # of equal values the first, by torch's own promise
    return hits.any(dim=1).double() / (first + 1)


def _precisions(hits: Tensor) -> Tensor:
    """The precision at each hit's rank, summed."""
    ranks = torch.arange(1, hits.shape[1] + 1, dtype=torch.float64, device=hits.device)
    return (hits * (hits.cumsum(dim=1) / ranks)).sum(dim=1)


_FORMULAS: dict[Kind, Callable[[Tensor, Tensor, int], Tensor]] = {
    "recall": lambda hits, n_held_out, _: _count(hits) / _within_reach(hits, n_held_out),
    "recall_of_held_out": lambda hits, n_held_out, _: _count(hits) / n_held_out,
    "ndcg": lambda hits, n_held_out, _: _ndcg(hits, n_held_out),
    "mrr": lambda hits, _n_held_out, _: _reciprocal_rank(hits),
    "precision": lambda hits, _n_held_out, k: _count(hits) / float(k),
    "hit_rate": lambda hits, _n_held_out, _: hits.any(dim=1).double(),
    "map": lambda hits, n_held_out, _: _precisions(hits) / _within_reach(hits, n_held_out),
    "map_of_held_out": lambda hits, n_held_out, _: _precisions(hits) / n_held_out,
}
