"""The contract of every scorer, as one function, and the smallest scorer that keeps it.

`check_scorer` is applied to every model of the library: what it demands is what recommending and
evaluating rely on.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array, vstack
from torch import Tensor

from coterie.data.ids import IdMap
from coterie.ranking.scorer import CatalogueScorer, Scorer, scores_of_items

RTOL, ATOL = 1e-4, 1e-5


@dataclass(frozen=True, eq=False)
class LinearScorer:
    """Scores are histories times an item × item matrix: the form of EASE, with weights to
    choose.
    """

    weights: np.ndarray
    items: IdMap
    popularity: np.ndarray
    titles: tuple[str | None, ...] | None = None

    @classmethod
    def random(cls, n_items: int, seed: int, *, whole: bool = False) -> "LinearScorer":
        """Normal weights, or small whole numbers: many ties, and sums that are exact in any
        order.
        """
        rng = np.random.default_rng(seed)
        weights = (
            rng.integers(-2, 3, (n_items, n_items))
            if whole
            else rng.normal(size=(n_items, n_items))
        )
        return cls(
            weights.astype(np.float32), IdMap.of(range(n_items)), rng.integers(1, 50, n_items)
        )

    @property
    def n_items(self) -> int:
        return len(self.items)

    def score(self, histories: csr_array) -> Tensor:
        return torch.from_numpy(histories.toarray().astype(np.float32)) @ torch.from_numpy(
            self.weights
        )

    def item_vectors(self) -> Tensor:
        return torch.from_numpy(self.weights.T.copy())


def random_histories(n_rows: int, n_items: int, seed: int, density: float = 0.2) -> csr_array:
    """Binary rows, the first of them empty and the last of them full."""
    dense = np.random.default_rng(seed).random((n_rows, n_items)) < density
    dense[0], dense[-1] = False, True
    return csr_array(dense.astype(np.float32))


def check_scorer(
    scorer: Scorer, histories: csr_array, rtol: float = RTOL, atol: float = ATOL
) -> None:
    """Holds a scorer to the contract of `coterie.ranking.scorer.Scorer`.

    Args:
        scorer: Any model.
        histories: ``[n, n_items]`` binary rows, at least 2 of them different; an empty one is
            added.
        rtol: Relative tolerance between scores of one row in different blocks.
        atol: Absolute tolerance, likewise.
    """
    histories = csr_array(vstack([histories, csr_array((1, scorer.n_items), dtype=np.float32)]))
    before = (histories.indptr.copy(), histories.indices.copy(), histories.data.copy())
    scores = scorer.score(histories)
    _check_form(scorer, scores, histories.shape[0])
    for name, kept, now in zip(
        ("indptr", "indices", "data"),
        before,
        (histories.indptr, histories.indices, histories.data),
        strict=True,
    ):
        assert np.array_equal(kept, now), f"score changed histories.{name}"
    kept_scores = scores.clone()
    scores.fill_(-torch.inf)
    again = scorer.score(histories)
    torch.testing.assert_close(
        again, kept_scores, rtol=rtol, atol=atol, msg="overwriting an answer changed the next one"
    )
    _check_rows(scorer, histories, kept_scores, rtol, atol)
    _check_items(scorer, histories, kept_scores, rtol, atol)


def _check_form(scorer: Scorer, scores: Tensor, n_rows: int) -> None:
    assert scores.shape == (n_rows, scorer.n_items), f"shape {tuple(scores.shape)}"
    assert scores.dtype == torch.float32, f"dtype {scores.dtype}"
    assert scores.isfinite().all(), "a score is not finite; the last row is empty"
    assert not scores.requires_grad, "scores carry gradients"
    assert not scores.is_inference(), (
        "scores are an inference tensor, which the caller may not overwrite"
    )


def _check_rows(
    scorer: Scorer, histories: csr_array, scores: Tensor, rtol: float, atol: float
) -> None:
    n_rows = histories.shape[0]
    for row in range(n_rows):
        alone = scorer.score(histories[[row]])
        torch.testing.assert_close(
            alone[0],
            scores[row],
            rtol=rtol,
            atol=atol,
            msg=f"row {row} alone differs from row {row} in a block",
        )
    order = np.random.default_rng(0).permutation(n_rows)
    shuffled = scorer.score(histories[order])
    torch.testing.assert_close(
        shuffled,
        scores[torch.from_numpy(order)],
        rtol=rtol,
        atol=atol,
        msg="scores do not follow their rows",
    )
    doubled = scorer.score(csr_array(vstack([histories, histories[order]])))
    torch.testing.assert_close(
        doubled[:n_rows], scores, rtol=rtol, atol=atol, msg="more rows in the block change scores"
    )


def _check_items(
    scorer: Scorer, histories: csr_array, scores: Tensor, rtol: float, atol: float
) -> None:
    """In any order, repeated, or none of them."""
    drawn = np.random.default_rng(0).integers(scorer.n_items, size=scorer.n_items)
    for items in (drawn, drawn[:1], drawn[:0]):
        some = scores_of_items(scorer, histories, items)
        assert some.dtype == torch.float32, f"dtype {some.dtype}"
        torch.testing.assert_close(
            some,
            scores[:, torch.from_numpy(items)],
            rtol=rtol,
            atol=atol,
            msg="some items alone score otherwise than all",
        )


def check_recommender(model: CatalogueScorer) -> None:
    """Checks what a recommender knows of its catalogue beside scores."""
    assert len(model.items) == model.n_items
    assert model.popularity.shape == (model.n_items,)
    assert (model.popularity >= 0).all()
    assert model.titles is None or len(model.titles) == model.n_items
    vectors = model.item_vectors()
    assert vectors.ndim == 2
    assert len(vectors) == model.n_items
    assert vectors.isfinite().all()
