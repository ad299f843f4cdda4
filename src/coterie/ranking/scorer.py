"""What a model must offer to be evaluated and to recommend.

Protocols instead of a base class: a baseline of ten lines and a trained network meet here and
nowhere else. ``tests/scorer_contract.py`` holds every scorer to what is promised below.
"""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from scipy.sparse import csr_array

from coterie.data.ids import IdMap

if TYPE_CHECKING:
    from torch import Tensor


class Scorer(Protocol):
    """Scores every item of its catalogue for any histories: users need not have been in training.

    The contract, which one test holds every scorer to: a row's scores depend on that row alone,
    whatever else is in the block; an empty row has finite scores; no argument is changed; the
    answer belongs to the caller, who may overwrite it.

    What follows from it for whoever writes a scorer: no dropout, noise or batch statistics while
    scoring; a cached or expanded tensor is copied before it is returned; gradients are off, by
    ``torch.no_grad`` rather than ``torch.inference_mode``, whose tensors a caller may not
    overwrite. "That row alone" holds up to rounding: a matrix product may add in another order when
    the block has another height.

    Example:
        >>> import torch
        >>> from coterie.evaluation.evaluate import evaluate
        >>> from coterie.simulation.service import simulate_dataset
        >>> class NewestFirst:
        ...     n_items = 60
        ...
        ...     def score(self, histories):
        ...         return torch.arange(60.0).repeat(histories.shape[0], 1)
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> 0 < evaluate(NewestFirst(), data, "test").mean("ndcg@100") < 1
        True
    """

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        ...

    def score(self, histories: csr_array) -> "Tensor":
        """Scores ``[n, n_items]`` binary histories: a ``[n, n_items]`` float32 tensor, higher is
        better.
        """
        ...


@runtime_checkable
class ItemScorer(Scorer, Protocol):
    """A scorer that need not score all of its catalogue to score some items."""

    def score_items(self, histories: csr_array, items: np.ndarray) -> "Tensor":
        """``[n, m]`` float32 scores of the items at ``[m]`` int64 indices: those columns of
        `score`, up to rounding.
        """
        ...


def scores_of_items(scorer: Scorer, histories: csr_array, items: np.ndarray) -> "Tensor":
    """``[n, m]`` scores of the items at ``[m]`` int64 indices; whoever is no `ItemScorer` scores
    all of them on the way.
    """
    if isinstance(scorer, ItemScorer):
        return scorer.score_items(histories, items)
    return scorer.score(histories)[:, items]


@runtime_checkable
class FactorScorer(Scorer, Protocol):
    """A scorer whose last step is an inner product: score(u, i) = ⟨user factors of u, item factors
    of i⟩.

    What knows this can rank without an array of all scores, or search approximately. A class some
    of whose objects have no factors says so by a property ``has_factors``; see `item_factors_of`.
    """

    def user_factors(self, histories: csr_array) -> "Tensor":
        """``[n, dim]`` of ``[n, n_items]`` binary histories."""
        ...

    def item_factors(self) -> "Tensor":
        """``[n_items, dim]`` of the catalogue, a bias being a column that meets ones in the user
        factors. Not to be written to.
        """
        ...


def item_factors_of(scorer: Scorer) -> "Tensor | None":
    """The item factors of a `FactorScorer`; None of any other scorer, and of one whose
    ``has_factors`` is false.
    """
    if isinstance(scorer, FactorScorer) and getattr(scorer, "has_factors", True):
        return scorer.item_factors()
    return None


class CatalogueScorer(Scorer, Protocol):
    """A scorer that also knows its catalogue's ids, so that people's ids go in and come out."""

    @property
    def items(self) -> IdMap:
        """``[n_items]`` item ids."""
        ...

    @property
    def titles(self) -> tuple[str | None, ...] | None:
        """``[n_items]`` titles, where known."""
        ...

    @property
    def popularity(self) -> np.ndarray:
        """``[n_items]`` number of training users of each item, the fall-back for empty
        histories.
        """
        ...

    def item_vectors(self) -> "Tensor":
        """``[n_items, dim]`` learned item representations, for `similar_items`."""
        ...
