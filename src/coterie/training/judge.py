"""Validation users as a judge of scores, for what is chosen beside the weights."""

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.data.split import Cases
from coterie.evaluation.evaluate import evaluate
from coterie.networks.network import Network
from coterie.sparse import SparseRows

# Scores that live at once, several times: 256 MiB.
_MOST_SCORES = 2**26


class ValidationJudge:
    """The mean validation metric of scores of all cases; where their scores would take more than
    256 MiB, of as many as fit, evenly taken.

    Args:
        cases: Of validation, at least one.
        metric: As in `evaluate`.
        device: Where scores are.
    """

    def __init__(self, cases: Cases, metric: str, device: str) -> None:
        n_cases, n_items = cases.fold_in.shape
        n = min(n_cases, max(_MOST_SCORES // n_items, 1))
        self._cases = cases.take(np.linspace(0, n_cases - 1, n).astype(np.int64))
        self._metric = metric
        self.rows = SparseRows.from_csr(self._cases.fold_in, device)

    def scores(self, network: Network) -> Tensor:
        """``[n, n_items]`` of the histories."""
        with torch.no_grad():
            return network.to(self.rows.indices.device).score(self.rows)

    def value(self, scores: Tensor) -> float:
        """The mean validation metric of ``[n, n_items]`` scores, which are left as they are."""
        report = evaluate(
            _Given(scores), self._cases, metrics=(self._metric,), block_size=len(scores)
        )
        return report.mean(self._metric)


class _Given:
    """A scorer whose scores are there already, for one block of all histories."""

    def __init__(self, scores: Tensor) -> None:
        self._scores, self.n_items = scores, scores.shape[1]

    def score(self, histories: csr_array) -> Tensor:
        """A copy: whoever ranks may write into it."""
        return self._scores.clone()
