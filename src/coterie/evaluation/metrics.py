"""The ranking metrics by name, and what people are shown of them; `measure` and `lists` compute
them.

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
ListKind: TypeAlias = Literal[
    "head_recall",
    "middle_recall",
    "tail_recall",
    "novelty",
    "popularity",
    "popularity_of_history",
    "diversity",
    "coverage",
    "gini",
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


@dataclass(frozen=True)
class ListMetric:
    """What lists look like beyond hits, against the interactions of the training users.

    Of each user; where a value is undefined it is NaN, and the user is left out of the mean:

    - ``head_recall@k``, ``middle_recall@k``, ``tail_recall@k``: hits in the top k among the items
      of a stratum / held-out items of the stratum; undefined without one. The strata are thirds of
      the training interactions, see `coterie.evaluation.lists.popularity_strata`.
    - ``novelty@k``: mean of -log2 of the share of training users who have the item, in bits. An
      item that nobody has counts as one that one user has. Undefined of an empty list.
    - ``popularity@k``: mean share of training users who have the item, undefined of an empty list.
      With it comes ``popularity_of_history``, the same of the items that the user has: where the
      first is the larger one, lists are more popular than tastes.
    - ``diversity@k``: mean over the pairs of a list of 1 - cosine between their columns of training
      users. An item that nobody has is unlike all. Undefined of a list below two items.

    Of all lists together:

    - ``coverage@k``: share of the catalogue that is in somebody's list.
    - ``gini@k``: Gini coefficient of how often each item of the catalogue is shown, those never
      shown included: 0 if all are shown equally often, 1 if one item takes all.

    Args:
        kind: Which formula.
        k: Length of the lists; 0 of ``popularity_of_history``, which reads none.

    References:
        Zhou et al. (PNAS 2010) for ``novelty``; Ziegler et al. (WWW 2005) for ``diversity``; Shani
        and Gunawardana (2011), section 8.3.3, for ``gini``.

    Example:
        >>> metric = metric_of("novelty@20")
        >>> metric.name, metric.label
        ('novelty@20', 'Novelty@20, bits')
    """

    kind: ListKind
    k: int

    @property
    def of_all(self) -> bool:
        """Whether it is one number of all lists, rather than a number a user."""
        return self.kind in ("coverage", "gini")

    @property
    def name(self) -> str:
        """The name that `metric_of` reads."""
        return f"{self.kind}@{self.k}" if self.k else self.kind

    @property
    def label(self) -> str:
        """The name to show to people."""
        return {
            "head_recall": f"Recall@{self.k} ÷ n of head",
            "middle_recall": f"Recall@{self.k} ÷ n of middle",
            "tail_recall": f"Recall@{self.k} ÷ n of tail",
            "novelty": f"Novelty@{self.k}, bits",
            "popularity": f"Popularity@{self.k}",
            "popularity_of_history": "Popularity of history",
            "diversity": f"Diversity@{self.k}",
            "coverage": f"Coverage@{self.k}",
            "gini": f"Gini@{self.k}",
        }[self.kind]


HISTORY = ListMetric("popularity_of_history", 0)
"""What `popularity` is held against."""


def metric_of(name: str) -> Metric | ListMetric:
    """Reads the name of any metric.

    Raises:
        ConfigError: if there is none of that name.
    """
    if name == HISTORY.name:
        return HISTORY
    of_lists = tuple(kind for kind in get_args(ListKind) if kind != HISTORY.kind)
    kind, k = _parts(name, (*get_args(Kind), *of_lists))
    return ListMetric(cast(ListKind, kind), k) if kind in of_lists else Metric.parse(name)


def _parts(name: str, kinds: tuple[str, ...]) -> tuple[str, int]:
    """Kind and cut-off of a name."""
    match = re.fullmatch(rf"({'|'.join(kinds)})@([1-9][0-9]{{0,299}})", name)
    if match is None:
        *others, last = (f"{kind}@k" for kind in kinds)
        raise ConfigError(
            f"a metric must be {', '.join(others)} or {last} with k ≥ 1 of at most 300 digits,"
            f" found {name!r}; try 'ndcg@100'."
        )
    return match[1], int(match[2])
