"""Scores and selection in one: the k best items of any number of histories, block after block in
the same memory.

Recommending and evaluating both rank with it: what is measured is what is served.
"""

import threading

import torch
from scipy.sparse import csr_array
from torch import Tensor

import coterie.running.fork  # noqa: F401  a forked process ranks with one thread
from coterie.errors import ConfigError, DataError
from coterie.ranking.approximate import ApproximateIndex
from coterie.ranking.options import positive_count
from coterie.ranking.scorer import FactorScorer, Scorer, item_factors_of
from coterie.ranking.topk import (
    TopK,
    best_keys,
    best_of,
    decode_keys,
    exclude,
    merge_keys,
    require_finite,
    scores_of_keys,
    top_k,
)
from coterie.sparse import SparseRows

# Scores that live at once where the scorer is an inner product, 256 MiB in float32: enough for
# 1,000 users of 65,000 items in one piece; larger catalogues are ranked piece by piece.
_SCORES_AT_ONCE = 2**26
# Rows of scores start on 64-byte boundaries, as in objectives/likelihood.py.
_ALIGNMENT = 16


class Ranker:
    """Ranks by higher score first, equal scores by lower item index.

    Where the scorer is a `FactorScorer` the product, the exclusions and the selection go over the
    catalogue in pieces, in memory that each thread uses again from block to block: allocating it
    anew costs a quarter of the product. Several threads may rank at once. The item factors are
    asked for when the ranker is made; a scorer that learns needs a new one.

    Args:
        scorer: Any scorer.
        k: How many items to keep; of more than there are, all.
        allow: ``[n_items]`` bool, the only items to keep; None keeps all.
        deny: ``[n_items]`` bool, items to leave out of every row.
        index: Of the scorer's item factors: ranks approximately, for catalogues where the product
            takes too long.

    Raises:
        ConfigError: if ``k`` is below 1, or there is an index and the scorer has no factors.

    Example:
        >>> from types import SimpleNamespace
        >>> scorer = SimpleNamespace(
        ...     n_items=3,
        ...     score=lambda rows: torch.tensor([[3.0, 2.0, 1.0]]).repeat(rows.shape[0], 1),
        ... )
        >>> histories = csr_array([[1, 0, 0], [0, 0, 0]])
        >>> Ranker(scorer, k=2).rank(histories, seen=histories).items.tolist()
        [[1, 2], [0, 1]]
    """

    def __init__(
        self,
        scorer: Scorer,
        k: int,
        *,
        allow: Tensor | None = None,
        deny: Tensor | None = None,
        index: ApproximateIndex | None = None,
    ) -> None:
        self.scorer, self.k = scorer, min(positive_count("k", k), scorer.n_items)
        self.allow, self.deny, self._index = allow, deny, index
        factors = item_factors_of(scorer)
        self._factors = None if index is not None else factors
        # Whether a scorer has factors takes long to tell.
        self._by_factors = scorer if isinstance(scorer, FactorScorer) else None
        self._memory = threading.local()
        if index is not None and factors is None:
            raise ConfigError(
                "an approximate index needs a scorer with item factors, this one has none; leave"
                " the index out."
            )

    def rank(self, histories: csr_array, seen: csr_array | None = None) -> TopK:
        """Ranks ``[n, n_items]`` histories, leaving ``seen`` out of each.

        Returns:
            Items and scores ``[n, min(k, n_items)]``, on the scorer's device; -1 and -inf where
            fewer are eligible.

        Raises:
            DataError: if ``seen`` has another shape than the histories.
            NumericalError: if a score is not finite.
        """
        if seen is not None and seen.shape != histories.shape:
            raise DataError(
                f"seen must have the shape of the histories {histories.shape}, found {seen.shape};"
                " pass the same users."
            )
        scorer, limits = self._by_factors, {"allow": self.allow, "deny": self.deny}
        if self._index is not None and scorer is not None:
            return self._index.search(scorer.user_factors(histories), self.k, seen=seen, **limits)
        if self._factors is None or scorer is None:
            return top_k(self.scorer.score(histories), self.k, seen=seen, **limits)
        users = scorer.user_factors(histories)
        seen_rows = None if seen is None else SparseRows.from_csr(seen, users.device)
        width = max(_SCORES_AT_ONCE // max(len(users), 1), _ALIGNMENT)
        if width >= len(self._factors):
            return best_of(self._eligible(users, self._factors, seen_rows), self.k)
        return decode_keys(self._best_keys(users, self._factors, seen_rows, width))

    def _best_keys(
        self, users: Tensor, factors: Tensor, seen: SparseRows | None, width: int
    ) -> Tensor:
        """``[n, k]`` over the catalogue in pieces of ``width`` items."""
        best: Tensor | None = None
        for start in range(0, len(factors), width):
            scores = self._eligible(users, factors[start : start + width], seen, start)
            # Once there are k, only what beats the worst of them is wanted.
            full = best if best is not None and best.shape[1] == self.k else None
            floor = None if full is None else scores_of_keys(full[:, -1])
            keys = best_keys(scores, self.k, start, floor)
            best = keys if best is None else merge_keys(best, keys, self.k)
        assert best is not None
        return best

    def _eligible(
        self, users: Tensor, factors: Tensor, seen: SparseRows | None, start: int = 0
    ) -> Tensor:
        """``[n, n_factors]`` scores of the items from ``start`` on, -inf where not eligible."""
        stop = start + len(factors)
        scores = self._scores(users, factors)
        require_finite(scores)
        part = (None if mask is None else mask[start:stop] for mask in (self.allow, self.deny))
        exclude(scores, None if seen is None else seen.columns(start, stop), *part)
        return scores

    def _scores(self, users: Tensor, factors: Tensor) -> Tensor:
        """``[n, n_items]`` in the memory of this thread, which the next block overwrites."""
        n, n_items = len(users), len(factors)
        stride = -(-n_items // _ALIGNMENT) * _ALIGNMENT
        memory: Tensor | None = getattr(self._memory, "scores", None)
        if memory is None or memory.numel() < n * stride or memory.device != users.device:
            memory = self._memory.scores = users.new_empty(n * stride)
        scores = memory[: n * stride].view(n, stride)[:, :n_items]
        return torch.mm(users, factors.t(), out=scores)
