"""The long-lived ranking object: made once from a model and options, it answers one history or a
million.

Apart from the engines because it writes no file: a server holds one and asks it, from as many
threads as it has.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from coterie.data.ids import Id, IdMap
from coterie.errors import DataError
from coterie.ranking.histories import Histories, UserItems
from coterie.ranking.options import RankingOptions
from coterie.ranking.ranker import Ranker
from coterie.ranking.recommendations import Recommendations
from coterie.ranking.scorer import CatalogueScorer
from coterie.ranking.topk import TopK, top_k
from coterie.running.progress import Progress, Update, silent

_SOURCES = pa.array(["model", "popularity"])


@dataclass(frozen=True, eq=False)
class Block:
    """The answer to a block of users: its rows as a table, and what the tallies need.

    Args:
        table: One row a recommendation, user after user, best first.
        offsets: ``[n_users + 1]`` where each user's rows start and the last one's end.
        unknown_items: The unknown item ids of each user who has any.
        n_popularity_users: Users without a single known item.
    """

    table: pa.Table
    offsets: np.ndarray
    unknown_items: dict[Id, list[Id]]
    n_popularity_users: int


class Recommender:
    """Ranks for people, with all that is the same for each of them looked up once.

    Several threads may ask at once and get the bits that one thread gets; each thread keeps memory
    for the scores of its largest block. A forked child may go on asking, with one thread of torch.
    The model's weights must not change meanwhile.

    Args:
        model: A trained model.
        options: Which items, how many and how.
        titles: Whether tables hold titles, where the model knows them.

    Raises:
        ConfigError: if there is an index and the model has no item factors.
        DataError: if no item of ``options.allow`` is known.

    Example:
        >>> from types import SimpleNamespace
        >>> together = np.array([[9, 1, 4], [1, 9, 2], [4, 2, 9]], dtype=np.float32)
        >>> model = SimpleNamespace(
        ...     n_items=3,
        ...     items=IdMap.of(["blue", "red", "teal"]),
        ...     titles=None,
        ...     popularity=np.array([5, 9, 7]),
        ...     score=lambda rows: torch.from_numpy(rows @ together),
        ... )
        >>> recommender = Recommender(model, RankingOptions(k=2))
        >>> print(recommender.recommend({"ann": ["blue", "mauve"], "new": []}))
        user_id  rank  item_id  score  source
        ann         1  teal         4  model
        ann         2  red          1  model
        new         1  red          9  popularity
        new         2  teal         7  popularity
        unknown items of ann: mauve
    """

    def __init__(
        self, model: CatalogueScorer, options: RankingOptions, *, titles: bool = True
    ) -> None:
        self.model, self.options = model, options
        allowed, self.unknown_allow = _mask(model.items, options.allow)
        denied, self.unknown_deny = _mask(model.items, options.deny)
        if allowed is not None and not allowed.any():
            raise DataError(
                "allow must name an item of the model, found none among"
                f" {len(self.unknown_allow)} ids; leave it out to allow all."
            )
        popularity = torch.from_numpy(np.asarray(model.popularity, dtype=np.float32))
        self._popular = top_k(popularity.unsqueeze(0), options.k, allow=allowed, deny=denied)
        self._ranker = Ranker(model, options.k, allow=allowed, deny=denied, index=options.index)
        known = titles and model.titles is not None
        self._titles = pa.array(model.titles, pa.string()) if known else None
        title = ["title"] if known else []
        self._names = ["user_id", "rank", "item_id", *title, "score", "source"]

    def recommend(
        self, histories: Histories | UserItems, progress: Progress = silent
    ) -> Recommendations:
        """Ranks for every user.

        Args:
            histories: What each user has had; repetitions count once, items unknown to the model
                are reported and ignored. A user left with nothing gets the most popular items.
            progress: Called after each block of users.

        Raises:
            DataError: if the histories break their rules.
            NumericalError: if the model's scores are not finite.
        """
        held = Histories.of(histories, self.model.items)
        blocks = list(self.blocks(held, progress))
        whole = blocks[0] if len(blocks) == 1 else self._joined(held.users, blocks)
        return Recommendations(
            held.users,
            whole.offsets,
            whole.table,
            whole.unknown_items,
            self.unknown_allow,
            self.unknown_deny,
        )

    def blocks(self, histories: Histories, progress: Progress = silent) -> Iterator[Block]:
        """Ranks block by block, cut at multiples of the options' ``block_size``."""
        done = 0
        for block in histories.blocks(self.options.block_size):
            yield self.answer(block)
            done += len(block)
            progress(Update("recommending", done, len(histories), "users"))

    def answer(self, histories: Histories) -> Block:
        """Ranks for one block of users."""
        rows, unknown = histories.encode(self.model.items)
        best = self._ranker.rank(rows, rows if self.options.exclude_seen else None)
        empty = rows.indptr[1:] == rows.indptr[:-1]
        best = TopK(*(ranked.cpu() for ranked in best))
        if empty.any():
            best.items[empty], best.scores[empty] = self._popular
        return self._block(histories.users, best, empty, unknown)

    def schema(self, users: IdMap) -> pa.Schema:
        """The columns of an answer's table."""
        types = {
            "user_id": users.values.type,
            "rank": pa.int32(),
            "item_id": self.model.items.values.type,
            "title": pa.string(),
            "score": pa.float32(),
            "source": pa.string(),
        }
        return pa.schema([(name, types[name]) for name in self._names])

    def _joined(self, users: IdMap, blocks: list[Block]) -> Block:
        tables = [block.table for block in blocks] or [self.schema(users).empty_table()]
        return Block(
            pa.concat_tables(tables),
            np.cumsum(np.concatenate([[0], *(np.diff(block.offsets) for block in blocks)])),
            {user_id: ids for block in blocks for user_id, ids in block.unknown_items.items()},
            sum(block.n_popularity_users for block in blocks),
        )

    def _block(
        self, users: IdMap, best: TopK, empty: np.ndarray, unknown: dict[Id, list[Id]]
    ) -> Block:
        items, scores = best.items.numpy(), best.scores.numpy()
        kept = items >= 0
        user, place = np.nonzero(kept)
        item = pa.array(items[kept])
        columns = [
            users.take(user),
            pa.array((place + 1).astype(np.int32)),
            self.model.items.values.take(item),
            *([] if self._titles is None else [self._titles.take(item)]),
            pa.array(scores[kept]),
            _SOURCES.take(pa.array(empty[user].astype(np.int64))),
        ]
        table = pa.Table.from_arrays(columns, names=self._names)
        offsets = np.searchsorted(user, np.arange(len(users) + 1))
        return Block(table, offsets, unknown, int(empty.sum()))


def _mask(items: IdMap, ids: Iterable[Id] | None) -> tuple[Tensor | None, tuple[Id, ...]]:
    """``[n_items]`` bool of the known ids, and the unknown ones."""
    if ids is None:
        return None, ()
    listed = tuple(ids)
    index = items.index_of(listed)
    mask = torch.zeros(len(items), dtype=torch.bool)
    mask[torch.from_numpy(index[index >= 0])] = True
    return mask, tuple(one for one, found in zip(listed, index, strict=True) if found < 0)
