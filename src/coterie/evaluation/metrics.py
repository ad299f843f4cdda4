"""The ranking metrics by name, and what people are shown of them; `measure` computes them.

Libraries divide recall by different numbers under one name; here the divisor is part of the label.
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from coterie.errors import ConfigError

Kind: TypeAlias = Literal[
    "recall",
    "recall_of_held_out",
    "ndcg",
    "mrr",
    "precision",
    "hit_rate",
    "map",
    "map_of_held_out",
]

DEFAULT_METRICS = ("recall@20", "recall@50", "ndcg@100")


LEGEND = "n: number of the user's held-out items"
"""What to print below a table that shows labels."""


@dataclass(frozen=True)
class Metric:
    """A ranking metric at a cut-off, of which a model may be chosen by the mean over users.

    - ``recall@k``: hits in the top k / min(k, held out). 1 is within reach of everyone.
    - ``recall_of_held_out@k``: hits in the top k / held out. At most k / held out for a user with
      more than k.
    - ``ndcg@k``: sum over hits of 1 / log2(rank + 1), divided by the same sum when the first min(k,
      held out) ranks are hits.
    - ``mrr@k``: 1 / rank of the first hit in the top k, 0 without one; its mean over users is the
      mean reciprocal rank.
    - ``precision@k``: hits in the top k / k, also where the list or the catalogue is shorter.
    - ``hit_rate@k``: 1 with a hit in the top k, 0 without.
    - ``map@k``: average precision, the precision at each hit's rank summed over the hits in the top
      k, / min(k, held out); its mean over users is the mean average precision.
    - ``map_of_held_out@k``: the same sum / held out.

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
            ConfigError: if the name is none of the above with k ≥ 1.
        """
        kind, k = _parts(name, get_args(Kind))
        return cls(cast(Kind, kind), k)

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
            "precision": f"Precision@{self.k}",
            "hit_rate": f"Hit rate@{self.k}",
            "map": f"MAP@{self.k} ÷ min({self.k}, n)",
            "map_of_held_out": f"MAP@{self.k} ÷ n",
        }[self.kind]


def _parts(name: str, kinds: tuple[str, ...]) -> tuple[str, int]:
    """Kind and cut-off of a name."""
    match = re.fullmatch(rf"({'|'.join(kinds)})@([1-9][0-9]{{0,17}})", name)
    if match is None:
        *others, last = (f"{kind}@k" for kind in kinds)
        raise ConfigError(
            f"a metric must be {', '.join(others)} or {last} with k ≥ 1 of at most 18 digits,"
            f" found {name!r}; try 'ndcg@100'."
        )
    return match[1], int(match[2])
