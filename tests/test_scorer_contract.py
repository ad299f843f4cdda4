from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import Tensor

from scorer_contract import LinearScorer, check_recommender, check_scorer, random_histories


def test_linear_scorer_keeps_the_contract() -> None:
    scorer = LinearScorer.random(30, seed=0)
    check_scorer(scorer, random_histories(12, 30, seed=1))
    check_recommender(scorer)


class Breaking(LinearScorer):
    """A linear scorer with one promise broken on purpose, so that the contract is seen to
    notice.
    """

    broken: Callable[[csr_array, Tensor], Tensor]

    def score(self, histories: csr_array) -> Tensor:
        return type(self).broken(histories, super().score(histories))


CACHE = torch.zeros(200, 30)


class Stale(LinearScorer):
    """Scores some items as of another history."""

    def score_items(self, histories: csr_array, items: np.ndarray) -> Tensor:
        return self.score(histories[::-1])[:, items]


def _change_input(histories: csr_array, scores: Tensor) -> Tensor:
    histories.data[:] = 2
    return scores


def _cached(histories: csr_array, scores: Tensor) -> Tensor:
    new = CACHE[: len(scores)]
    return new if new.isinf().any() else new.copy_(scores)


def _inference(histories: csr_array, scores: Tensor) -> Tensor:
    with torch.inference_mode():
        return scores.clone()


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (lambda h, s: s - s.mean(dim=0), "alone differs"),
        (lambda h, s: s / torch.from_numpy(h.sum(axis=1))[:, None], "not finite"),
        (lambda h, s: s.flip(0), "differs from row|follow their rows"),
        (lambda h, s: s.double(), "dtype"),
        (lambda h, s: s[:, 1:], "shape"),
        (lambda h, s: s.requires_grad_(), "gradients"),
        (_inference, "inference tensor"),
        (_change_input, "changed histories"),
        (_cached, "overwriting"),
    ],
    ids=[
        "batch statistics",
        "empty row",
        "mixed rows",
        "dtype",
        "shape",
        "gradients",
        "inference",
        "input changed",
        "cached",
    ],
)
def test_check_scorer_notices_a_broken_promise(
    broken: Callable[[csr_array, Tensor], Tensor], complaint: str
) -> None:
    kind = type("Broken", (Breaking,), {"broken": staticmethod(broken)})
    linear = LinearScorer.random(30, seed=0)
    scorer = kind(linear.weights, linear.items, linear.popularity)
    with np.errstate(all="ignore"), pytest.raises(AssertionError, match=complaint):
        check_scorer(scorer, random_histories(12, 30, seed=1))


def test_check_scorer_notices_that_some_items_score_otherwise() -> None:
    linear = LinearScorer.random(30, seed=0)
    stale = Stale(linear.weights, linear.items, linear.popularity)
    with pytest.raises(AssertionError, match="some items alone"):
        check_scorer(stale, random_histories(12, 30, seed=1))
