"""The ranking metrics by name, and what people are shown of them; `measure` computes them.

Libraries divide recall by different numbers under one name; here the divisor is part of the label.
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

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
