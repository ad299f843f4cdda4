"""Items like an item, by the angle between what the model has learned of them."""

from typing import NamedTuple

import torch

from coterie.data.ids import Id
from coterie.errors import DataError
from coterie.ranking.scorer import CatalogueScorer
from coterie.ranking.topk import top_k


class SimilarItem(NamedTuple):
    """One place in the list.

    Args:
        rank: 1 for the most similar.
        item_id: The item.
        title: Its title, None where unknown.
        cosine: Of the angle between the two items' vectors, in [-1, 1].
    """

    rank: int
    item_id: Id
    title: str | None
    cosine: float


def similar_items(model: CatalogueScorer, item_id: Id, k: int = 10) -> list[SimilarItem]:
    """Ranks the other items by the cosine of their learned vectors; a zero vector has cosine 0 with
    all.

    Args:
        model: A trained model.
        item_id: Any item of its catalogue.
        k: How many; fewer come back from a smaller catalogue.

    Raises:
        DataError: if the model has never seen the item.
        NumericalError: if a vector is not finite.

    Example:
        >>> from types import SimpleNamespace
        >>> from coterie.data.ids import IdMap
        >>> vectors = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
        >>> model = SimpleNamespace(
        ...     n_items=3,
        ...     items=IdMap.of(["a", "b", "c"]),
        ...     titles=None,
        ...     item_vectors=lambda: vectors,
        ... )
        >>> [(one.item_id, round(one.cosine, 3)) for one in similar_items(model, "c")]
        [('b', 0.8), ('a', 0.0)]
    """
    index = int(model.items.index_of([item_id])[0])
    if index < 0:
        raise DataError(
            f"the item must be one of the model's {model.n_items}, found {item_id!r}; check the id."
        )
    vectors = model.item_vectors().detach().float()
    # Dividing by the largest entry first keeps the squares of tiny and of huge vectors inside
    # float32.
    vectors = vectors / _nonzero(vectors.abs().amax(dim=1, keepdim=True))
    vectors = vectors / _nonzero(vectors.norm(dim=1, keepdim=True))
    cosines = (vectors @ vectors[index]).clamp(-1.0, 1.0)
    itself = torch.zeros(len(cosines), dtype=torch.bool, device=cosines.device)
    itself[index] = True
    best = top_k(cosines[None], min(k, max(len(cosines) - 1, 1)), deny=itself)
    found = [
        (item, score)
        for item, score in zip(best.items[0].tolist(), best.scores[0].tolist(), strict=True)
        if item >= 0
    ]
    ids, titles = model.items.ids_of([item for item, _ in found]), model.titles
    return [
        SimilarItem(rank, one, titles[item] if titles else None, cosine)
        for rank, (one, (item, cosine)) in enumerate(zip(ids, found, strict=True), start=1)
    ]


def _nonzero(lengths: torch.Tensor) -> torch.Tensor:
    return lengths.where(lengths != 0, 1.0)
