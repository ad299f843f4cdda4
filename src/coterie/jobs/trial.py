"""A candidate beside other models, on the same cases and on the items that both know.

Models of different weeks have different catalogues. Each reads of a history what it knows; both
rank the items that both know; what neither could find counts for neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.data.ids import IdMap
from coterie.data.split import Cases
from coterie.errors import DataError
from coterie.evaluation.compare import Comparison, compare
from coterie.evaluation.evaluate import evaluate
from coterie.evaluation.report import EvaluationReport
from coterie.ranking.ranker import Ranker
from coterie.ranking.scorer import CatalogueScorer, Scorer

CONFIDENCE = 0.9
"""Of the intervals: two-sided, so that each end is a one-sided bound at 95 %."""


class OnItems:
    """A model's scores over another catalogue: what it does not know, or may not rank, is last.

    Args:
        model: Any model.
        items: ``[n_items]`` the catalogue of the histories.
        ranked: ``[n_items]`` bool, the only items to rank.
    """

    def __init__(self, model: CatalogueScorer, items: IdMap, ranked: np.ndarray) -> None:
        self.n_items, self._model = len(items), model
        column = model.items.index_of(items.values)
        known = np.flatnonzero(column >= 0)
        self._renamed = csr_array(
            (np.ones(len(known), np.float32), (known, column[known])),
            shape=(len(items), model.n_items),
        )
        kept = np.flatnonzero(ranked & (column >= 0))
        self._kept, self._columns = torch.from_numpy(kept), torch.from_numpy(column[kept])

    def score(self, histories: csr_array) -> Tensor:
        """``[n_users, n_items]``, on the processor."""
        own = self._model.score(csr_array(histories @ self._renamed)).cpu()
        scores = torch.full((histories.shape[0], self.n_items), torch.finfo(torch.float32).min)
        scores[:, self._kept] = own[:, self._columns]
        return scores


@dataclass(frozen=True, eq=False)
class Trial:
    """The test of a candidate.

    Args:
        cases: What is shown and what is to be found, over ``items``.
        items: The data set's.
        users: Ids of the cases' users.
        metric: By which models are compared.
    """

    cases: Cases
    items: IdMap
    users: IdMap
    metric: str

    def report(
        self, model: CatalogueScorer, other: CatalogueScorer | None = None
    ) -> EvaluationReport:
        """A model's values for each user, on the items that another knows, too."""
        ranked = self._known(model) & (True if other is None else self._known(other))
        cases = self._of(ranked)
        scorer: Scorer = OnItems(model, self.items, ranked)
        numbered = replace(cases, user_index=np.arange(len(self.users))[self._left(ranked)])
        return evaluate(scorer, numbered, metrics=(self.metric,), user_ids=self.users)

    def against(self, model: CatalogueScorer, other: CatalogueScorer) -> Comparison:
        """What a model gains over another, with paired intervals, and for each cohort."""
        one, two = self.report(model, other), self.report(other, model)
        return compare(one, two, seed=0, n_resamples=2_000, confidence=CONFIDENCE)

    def overlap(self, model: CatalogueScorer, other: CatalogueScorer, k: int = 20) -> float:
        """The mean share of a user's k items that both models give them."""
        ranked = self._known(model) & self._known(other)
        lists = [self._lists(one, ranked, k) for one in (model, other)]
        same = (lists[0][:, :, None] == lists[1][:, None, :]) & (lists[0][:, :, None] >= 0)
        return float(same.any(axis=2).mean())

    def distinct(self, model: CatalogueScorer, k: int = 20) -> float:
        """How much lists differ: the share of a user's k items that another user's list has not,
        on average over all pairs of users; 0 if the model tells nobody apart.

        Nothing is left out of the lists: what users have seen would make even the lists of a model
        that tells nobody apart differ.
        """
        lists = self._lists(model, self._known(model), k, leave_out=False)
        n = len(lists)
        shown = np.bincount(lists[lists >= 0])
        pairs = (n - 1) * int(shown.sum())
        return 1 - float((shown * (shown - 1)).sum() / pairs) if pairs else 1.0

    def _lists(
        self, model: CatalogueScorer, ranked: np.ndarray, k: int, *, leave_out: bool = True
    ) -> np.ndarray:
        sample = self.cases.take(slice(_MOST_LISTS))
        scorer = OnItems(model, self.items, ranked)
        parts = [
            Ranker(scorer, k).rank(rows, rows if leave_out else None).items.numpy()
            for rows in (sample.fold_in[n : n + 500] for n in range(0, len(sample.user_index), 500))
        ]
        return np.concatenate(parts)

    def _known(self, model: CatalogueScorer) -> np.ndarray:
        known: np.ndarray = model.items.index_of(self.items.values) >= 0
        return known

    def _left(self, ranked: np.ndarray) -> np.ndarray:
        left: np.ndarray = (self.cases.held_out @ ranked.astype(np.float32)) > 0
        if not left.any():
            raise DataError("nobody took up an item that both models know; look at the item ids.")
        return left

    def _of(self, ranked: np.ndarray) -> Cases:
        held_out = csr_array(self.cases.held_out.multiply(ranked.astype(np.float32)[None, :]))
        held_out.eliminate_zeros()
        return replace(self.cases, held_out=held_out).where(self._left(ranked))


_MOST_LISTS = 2_000


def sampled(cases: Cases, most: int, seed: int = 0) -> Cases:
    """At most so many cases, drawn."""
    n = len(cases.user_index)
    chosen: Sequence[int] | np.ndarray = np.random.default_rng(seed).permutation(n)[:most]
    return cases.take(np.sort(chosen))
