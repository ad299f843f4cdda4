"""Why an item was recommended: what each item of the history did to its score.

Each is left out in turn and the rest scored anew, by the scorer that recommends. Nothing is
approximated, so that the answer holds for any model.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from coterie.data.ids import Id, IdMap
from coterie.errors import DataError
from coterie.plain_table import plain_table
from coterie.ranking.histories import Histories
from coterie.ranking.options import positive_count
from coterie.ranking.scorer import CatalogueScorer, Scorer, scores_of_items
from coterie.ranking.topk import require_finite

# What histories with an item left out may hold at once: interactions, and scores where a scorer
# cannot but score its whole catalogue, 256 MiB in float32.
_ONES_AT_ONCE, _SCORES_AT_ONCE = 2**22, 2**26
# Explained items that are printed, and ids that a message names.
_PRINTED, _SHOWN = 20, 5


class Reason(NamedTuple):
    """What one item of a history did to the score of the item that is explained.

    Args:
        rank: 1 for what raised it most.
        item_id: The item of the history.
        title: Its title, None where unknown.
        raised: The score minus ``score_without``; negative where the item lowered it.
        score_without: What the score would be had the item never been in the history.
        share: ``raised`` over the sum of |``raised``| of the whole history, in [-1, 1]; 0 where
            nothing moved the score.
    """

    rank: int
    item_id: Id
    title: str | None
    raised: float
    score_without: float
    share: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """How much the items of one history raised the scores of some items.

    Args:
        items: ``[n]`` the items that are explained, in the order asked for.
        titles: ``[n]`` their titles, if the model knows titles.
        scores: ``[n]`` float64 what the model gives them for the whole history.
        table: One row a reason, item after item, what raised it most first. Columns item_id, title
            (if the model knows titles) and score of the explained item; rank, history_item_id,
            history_title (likewise), raised, score_without and share, as in `Reason`.
        unknown_items: Ids in the history that the model has never seen.

    Example:
        >>> from coterie.models.ease import EaseConfig
        >>> from coterie.simulation.service import simulate_dataset
        >>> from coterie.training.trainer import train
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> found = train(data, EaseConfig()).explain([1, 2, 3], [7, 9])
        >>> len(found), [one.rank for one in found.for_item(7)]
        (2, [1, 2, 3])
    """

    items: IdMap
    titles: tuple[str | None, ...] | None
    scores: np.ndarray
    table: pa.Table
    unknown_items: tuple[Id, ...] = ()

    def __len__(self) -> int:
        """Number of explained items."""
        return len(self.items)

    def for_item(self, item_id: Id) -> list[Reason]:
        """One item's reasons; none where the model knows nothing of the history.

        Raises:
            DataError: if the item was not asked for.
        """
        place = int(self.items.index_of([item_id])[0])
        if place < 0:
            raise DataError(
                f"explanations exist for the {len(self)} items asked for, found {item_id!r}; ask"
                " for that item too."
            )
        return self._reasons(place)

    def to_json(self) -> dict[str, Any]:
        """The explained items, each with its score and its reasons, and the unknown ids."""
        items = [
            {
                "item_id": item_id,
                "title": title,
                "score": float(score),
                "reasons": [one._asdict() for one in self._reasons(place)],
            }
            for place, (item_id, title, score) in enumerate(self._explained())
        ]
        return {"items": items, "unknown_items": list(self.unknown_items)}

    def __str__(self) -> str:
        explained = list(self._explained())[:_PRINTED]
        parts = [self._text(place, *one) for place, one in enumerate(explained)]
        rest = len(self) - len(parts)
        parts += [f"… and {rest} items more"] if rest else []
        if self.unknown_items:
            named = ", ".join(map(str, self.unknown_items[:_PRINTED]))
            parts.append(f"unknown items in the history: {named}")
        return "\n\n".join(parts)

    def _explained(self) -> Iterator[tuple[Id, str | None, float]]:
        ids = self.items.values.to_pylist()
        return zip(ids, self.titles or [None] * len(self), self.scores.tolist(), strict=True)

    def _reasons(self, place: int) -> list[Reason]:
        each = len(self.table) // len(self)
        rows = self.table.slice(place * each, each).to_pylist()
        return [
            Reason(
                row["rank"],
                row["history_item_id"],
                row.get("history_title"),
                *(row[name] for name in ("raised", "score_without", "share")),
            )
            for row in rows
        ]

    def _text(self, place: int, item_id: Id, title: str | None, score: float) -> str:
        head = f"why {item_id}{f' {title}' if title else ''}, score {score:.4g}"
        reasons = self._reasons(place)
        if not reasons:
            return f"{head}: the model knows no item of the history"
        names = [name for name in Reason._fields if name != "title" or self.titles is not None]
        rows = [[_cell(name, getattr(one, name)) for name in names] for one in reasons]
        right = [name not in ("item_id", "title") for name in names]
        return f"{head}\n{plain_table(names, rows, right)}"


def explain(
    model: CatalogueScorer, history: Iterable[Id], items: Id | Iterable[Id], k: int = 10
) -> Explanation:
    """How much each item of a history raised a score: score(item given the history) minus
    score(item given the history without it), exactly, as recommending would compute both.

    The differences do not add up to the score, nor to what two items left out together do: in a
    network each depends on all that stay. They do add up, to what the history adds to an empty one,
    where scores are sums over it: `ease`, `slim`, `rp3beta`, `item-knn`, `gf-cf`, `bspm`. A
    negative one says that the item speaks for others: without it this item would score higher. That
    is no dislike, as likes are all that a model has seen. A network whose input is normalised gives
    more weight to the rest when an item goes; that is part of the difference. Where only one item
    is known, the history without it is empty, and ``score_without`` is the model's own for that,
    not the popularity that `recommend` falls back to.

    Histories with an item left out are encoded once for all items asked for, block after block, and
    an `ItemScorer` scores those items alone: no histories × catalogue matrix is made.

    Args:
        model: A trained model.
        history: Item ids; repetitions count once, unknown ones are reported and ignored.
        items: The id of one item of the catalogue, or several; repetitions count once. One that is
            in the history itself is allowed, and is among its own reasons.
        k: How many items of the history to name for each, those that raised it most; of more than
            there are, all.

    Raises:
        ConfigError: if ``k`` is below 1.
        DataError: if no item is asked for, or one that the model has never seen; or if the history
            is one string.
        NumericalError: if a score is not finite.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> together = np.array([[0, 5, 2], [5, 0, -1], [2, -1, 0]], dtype=np.float32)
        >>> model = SimpleNamespace(
        ...     n_items=3,
        ...     items=IdMap.of(["blue", "red", "teal"]),
        ...     titles=None,
        ...     score=lambda rows: torch.from_numpy(rows @ together),
        ... )
        >>> print(explain(model, ["blue", "red", "mauve"], "teal"))
        why teal, score 1
        rank  item_id  raised  score_without   share
           1  blue         +2             -1  +66.7%
           2  red          -1              2  -33.3%
        <BLANKLINE>
        unknown items in the history: mauve
    """
    asked = _asked(model, items)
    rows, unknown = Histories.of({"history": history}).encode(model.items)
    scores = np.concatenate(list(_scores(model, rows.indices, asked)))
    return Explanation(
        IdMap(model.items.take(asked)),
        _titles(model, asked),
        scores[0],
        _table(model, asked, rows.indices, scores, positive_count("k", k)),
        tuple(unknown.get("history", ())),
    )


def _asked(model: CatalogueScorer, items: Id | Iterable[Id]) -> np.ndarray:
    """``[m]`` int64 catalogue indices, each once."""
    ids = [items] if isinstance(items, str | int | np.integer) else list(items)
    found = model.items.index_of_few(ids)
    unknown = [one for one, place in zip(ids, found, strict=True) if place < 0]
    if unknown or not ids:
        named = ", ".join(map(repr, unknown[:_SHOWN])) or "none"
        raise DataError(
            f"the items to explain must be some of the model's {model.n_items}, found {named};"
            " check the ids."
        )
    return np.fromiter(dict.fromkeys(found.tolist()), np.int64)


def _scores(model: Scorer, history: np.ndarray, asked: np.ndarray) -> Iterator[np.ndarray]:
    """``[1 + n, m]`` float64 in blocks: of the whole history, then without each of its items."""
    height = min(_ONES_AT_ONCE // max(len(history), 1), _SCORES_AT_ONCE // model.n_items)
    left_out = np.arange(-1, len(history))
    for start in range(0, len(left_out), max(height, 1)):
        rows = _without(history, left_out[start : start + max(height, 1)], model.n_items)
        scores = scores_of_items(model, rows, asked)
        require_finite(scores)
        yield scores.cpu().double().numpy()


def _without(history: np.ndarray, left_out: np.ndarray, n_items: int) -> csr_array:
    """``[len(left_out), n_items]`` histories, each without the item at one place; at -1 with
    all.
    """
    row, place = np.nonzero(left_out[:, None] != np.arange(len(history)))
    starts = np.searchsorted(row, np.arange(len(left_out) + 1))
    ones = np.ones(len(row), dtype=np.float32)
    return csr_array((ones, history[place], starts), shape=(len(left_out), n_items))


def _table(
    model: CatalogueScorer, asked: np.ndarray, history: np.ndarray, scores: np.ndarray, k: int
) -> pa.Table:
    without = scores[1:].T
    raised = scores[0][:, None] - without
    moved = np.abs(raised).sum(axis=1, keepdims=True)
    # Stable: equals stand in the order of the catalogue.
    best = np.argsort(-raised, axis=1, kind="stable")[:, :k]
    item, named = np.repeat(asked, best.shape[1]), history[best.ravel()]
    columns = {
        **_named(model, item, "item_id", "title"),
        "score": np.repeat(scores[0], best.shape[1]),
        "rank": np.tile(np.arange(1, best.shape[1] + 1, dtype=np.int32), len(asked)),
        **_named(model, named, "history_item_id", "history_title"),
        **{
            name: np.take_along_axis(values, best, axis=1).ravel()
            for name, values in (
                ("raised", raised),
                ("score_without", without),
                ("share", raised / np.where(moved > 0, moved, 1)),
            )
        },
    }
    return pa.table(columns)


def _named(
    model: CatalogueScorer, indices: np.ndarray, item_id: str, title: str
) -> dict[str, pa.Array]:
    titles = _titles(model, indices)
    known = {} if titles is None else {title: pa.array(titles, pa.string())}
    return {item_id: model.items.take(indices), **known}


def _titles(model: CatalogueScorer, indices: np.ndarray) -> tuple[str | None, ...] | None:
    titles = model.titles
    return None if titles is None else tuple(titles[index] for index in indices.tolist())


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    formats = {"raised": "+.4g", "score_without": ".4g", "share": "+.1%"}
    return format(value, formats[name]) if name in formats else str(value)
