"""Ranking metrics of one user, for many users at once.

All of them read two things only: at which ranks a held-out item stands, and how many items were
held out. Libraries divide recall by different numbers under one name; here the divisor is part of
the label.
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

import torch
from torch import Tensor

from coterie.errors import ConfigError

Kind: TypeAlias = Literal["recall", "recall_of_held_out", "ndcg", "mrr"]

DEFAULT_METRICS = ("recall@20", "recall@50", "ndcg@100")


LEGEND = "n: number of the user's held-out items"
"""What to print below a table that shows labels."""


@dataclass(frozen=True)
class Metric:
    """A ranking metric at a cut-off.

    - ``recall@k``: hits in the top k / min(k, held out). 1 is within reach of everyone.
    - ``recall_of_held_out@k``: hits in the top k / held out. At most k / held out for a user with
      more than k.
    - ``ndcg@k``: sum over hits of 1 / log2(rank + 1), divided by the same sum when the first min(k,
      held out) ranks are hits.
    - ``mrr@k``: 1 / rank of the first hit in the top k, 0 without one; its mean over users is the
      mean reciprocal rank.

    Args:
        kind: Which formula.
        k: The cut-off.

    References:
        Liang et al. (2018), section 4.2, for ``recall`` and ``ndcg``.

    Example:
        >>> metric = Metric.parse("recall@20")
        >>> metric.k, metric.label
        (20, 'Recall@20 ÷ min(20, n)')
    """

    kind: Kind
    k: int

    @classmethod
    def parse(cls, name: str) -> "Metric":
        """Reads a name such as ``ndcg@100``.

        Raises:
            ConfigError: if the name is none of ``recall@k``, ``recall_of_held_out@k``, ``ndcg@k``,
                ``mrr@k``.
        """
        match = re.fullmatch(rf"({'|'.join(get_args(Kind))})@([1-9][0-9]*)", name)
        if match is None:
            raise ConfigError(
                "a metric must be recall@k, recall_of_held_out@k, ndcg@k or mrr@k with k ≥ 1, found"
                f" {name!r}; try 'ndcg@100'."
            )
        return cls(cast(Kind, match[1]), int(match[2]))

    @property
    def name(self) -> str:
        """The name that `parse` reads."""
        return f"{self.kind}@{self.k}"

    @property
    def label(self) -> str:
        """The name to show to people, with the divisor where libraries disagree on it; n is
        explained by `LEGEND`.
        """
        return {
            "recall": f"Recall@{self.k} ÷ min({self.k}, n)",
            "recall_of_held_out": f"Recall@{self.k} ÷ n",
            "ndcg": f"NDCG@{self.k}",
            "mrr": f"MRR@{self.k}",
        }[self.kind]

    def per_user(self, hits: Tensor, n_held_out: Tensor) -> Tensor:
        """The metric of each user.

        Args:
            hits: ``[n, K]`` bool, K ≥ k: whether the item at each rank was held out.
            n_held_out: ``[n]`` int64 number of held-out items, at least 1.

        Returns:
            ``[n]`` float64 in [0, 1].
        """
        hits = hits[:, : self.k]
        if self.kind == "ndcg":
            return _ndcg(hits, n_held_out)
        if self.kind == "mrr":
            return _reciprocal_rank(hits)
        divisor = n_held_out.clamp(max=self.k) if self.kind == "recall" else n_held_out
        return hits.sum(dim=1).double() / divisor


def _ndcg(hits: Tensor, n_held_out: Tensor) -> Tensor:
    ranks = torch.arange(1, hits.shape[1] + 1, dtype=torch.float64, device=hits.device)
    discount = 1 / torch.log2(ranks + 1)
    # Both sums run over ranks in the same order, so that a perfect ranking is exactly 1.
    gained = (hits * discount).cumsum(dim=1)[:, -1]
    ideal = discount.cumsum(dim=0)[n_held_out.clamp(max=hits.shape[1]) - 1]
    return gained / ideal


def _reciprocal_rank(hits: Tensor) -> Tensor:
    first = hits.int().argmax(dim=1)  # of equal values the first, by torch's own promise
    return hits.any(dim=1).double() / (first + 1)
