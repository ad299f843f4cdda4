"""Recommending for any number of users, in memory or straight to a file, block by block.

Users need not have been in training: only their items reach the model.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from coterie.data.ids import Id, IdMap
from coterie.errors import ConfigError, DataError
from coterie.recommend.approximate import ApproximateIndex
from coterie.recommend.histories import Histories, UserItems
from coterie.recommend.ranker import Ranker
from coterie.recommend.recommendations import Recommendations
from coterie.recommend.scorer import Recommender
from coterie.recommend.table_files import table_writer
from coterie.recommend.topk import TopK, top_k

Progress: TypeAlias = Callable[[int, int], None]
"""Called after each block with the number of users done and in all."""


@dataclass(frozen=True)
class WrittenRecommendations:
    """What `recommend_to_file` wrote.

    Args:
        n_users: Users asked for.
        n_rows: Recommendations written.
        n_popularity_users: Users without a single known item, who got the most popular items.
        unknown_items: Item ids that the model has never seen, each with the number of users who
            have it.
        unknown_allow: Ids of the allow list that the model has never seen.
        unknown_deny: Ids of the deny list that the model has never seen.
    """

    n_users: int
    n_rows: int
    n_popularity_users: int
    unknown_items: Mapping[Id, int]
    unknown_allow: tuple[Id, ...]
    unknown_deny: tuple[Id, ...]


def recommend(
    model: Recommender,
    histories: Histories | UserItems,
    k: int = 10,
    *,
    exclude_seen: bool = True,
    allow: Iterable[Id] | None = None,
    deny: Iterable[Id] | None = None,
    index: ApproximateIndex | None = None,
    block_size: int = 1024,
    progress: Progress | None = None,
) -> Recommendations:
    """Ranks the k best items for every user.

    A user's list does not depend on who else is asked, nor on ``block_size``. Scores may differ
    between block sizes by the rounding of float32 matrix products (about 1e-6 of the row's largest
    score), and so may the order of two items that are closer than that; exact ties always go to the
    item that comes first in the catalogue.

    Args:
        model: A trained model.
        histories: What each user has had; repetitions count once, items unknown to the model are
            reported and ignored. A user left with nothing gets the most popular items.
        k: Length of each list; shorter where fewer items are eligible.
        exclude_seen: Whether to leave out what the user has had.
        allow: The only items to recommend; all if None.
        deny: Items never to recommend.
        index: Of the model's item factors, to rank approximately; None ranks exactly.
        block_size: Users scored at once; memory is ``block_size × n_items`` scores, 256 MiB of them
            where the model ends in an inner product.
        progress: Called after each block with users done and in all.

    Raises:
        ConfigError: if ``k`` or ``block_size`` is below 1.
        DataError: if the histories break their rules, or no item of ``allow`` is known.
        NumericalError: if the model's scores are not finite.

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
        >>> print(recommend(model, {"ann": ["blue", "mauve"], "new": []}, k=2))
        user_id  rank  item_id  score  source
        ann         1  teal         4  model
        ann         2  red          1  model
        new         1  red          9  popularity
        new         2  teal         7  popularity
        unknown items of ann: mauve
    """
    asked = Histories.of(histories)
    request = Request.of(model, k, allow, deny, index, exclude_seen=exclude_seen, with_titles=True)
    answers = list(request.answers(asked, block_size, progress))
    counts = np.concatenate(
        [np.zeros(1, dtype=np.int64), *(np.diff(answer.offsets) for answer in answers)]
    )
    table = pa.concat_tables(
        [request.schema(asked.users).empty_table(), *(answer.table for answer in answers)]
    )
    unknown = {user_id: ids for answer in answers for user_id, ids in answer.unknown_items.items()}
    return Recommendations(
        asked.users, np.cumsum(counts), table, unknown, request.unknown_allow, request.unknown_deny
    )


def recommend_to_file(
    model: Recommender,
    histories: Histories | UserItems,
    path: str | Path,
    k: int = 10,
    *,
    exclude_seen: bool = True,
    allow: Iterable[Id] | None = None,
    deny: Iterable[Id] | None = None,
    index: ApproximateIndex | None = None,
    block_size: int = 1024,
    progress: Progress | None = None,
) -> WrittenRecommendations:
    """Ranks as `recommend` does and writes user_id, rank, item_id, score and source, one row a
    recommendation.

    Only one block is in memory at a time, and the file appears whole or not at all.

    Args:
        model: As in `recommend`, like all that is not named here.
        histories: As in `recommend`.
        path: Ends in ``.parquet``, ``.csv``, ``.jsonl`` or ``.ndjson``, the latter three also with
            ``.gz``.
        k: As in `recommend`.
        exclude_seen: As in `recommend`.
        allow: As in `recommend`.
        deny: As in `recommend`.
        index: As in `recommend`.
        block_size: As in `recommend`.
        progress: As in `recommend`.

    Raises:
        ConfigError: if the ending names no format, or ``k`` or ``block_size`` is below 1.
        DataError: as in `recommend`.
        NumericalError: if the model's scores are not finite.
    """
    asked = Histories.of(histories)
    request = Request.of(model, k, allow, deny, index, exclude_seen=exclude_seen, with_titles=False)
    n_rows, n_popularity, unknown = 0, 0, Counter[Id]()
    with table_writer(path, request.schema(asked.users)) as write:
        for answer in request.answers(asked, block_size, progress):
            write(answer.table)
            n_rows += len(answer.table)
            n_popularity += answer.n_popularity_users
            unknown.update(item_id for ids in answer.unknown_items.values() for item_id in ids)
    return WrittenRecommendations(
        len(asked), n_rows, n_popularity, dict(unknown), request.unknown_allow, request.unknown_deny
    )


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


@dataclass(frozen=True, eq=False)
class Request:
    """Everything about a request that is the same for each block; the unit of all recommending is
    `answer`.
    """

    model: Recommender
    ranker: Ranker
    exclude_seen: bool
    unknown_allow: tuple[Id, ...]
    unknown_deny: tuple[Id, ...]
    popular: TopK
    titles: pa.Array | None

    @classmethod
    def of(
        cls,
        model: Recommender,
        k: int,
        allow: Iterable[Id] | None,
        deny: Iterable[Id] | None,
        index: ApproximateIndex | None = None,
        *,
        exclude_seen: bool,
        with_titles: bool,
    ) -> "Request":
        """Looks the lists up in the model's catalogue; arguments and errors as in `recommend`."""
        allowed, unknown_allow = _mask(model.items, allow, "allow")
        denied, unknown_deny = _mask(model.items, deny, "deny")
        if allowed is not None and not allowed.any():
            raise DataError(
                f"allow must name an item of the model, found none among {len(unknown_allow)} ids;"
                " leave it out to allow all."
            )
        popularity = torch.from_numpy(np.asarray(model.popularity, dtype=np.float32))
        popular = top_k(popularity.unsqueeze(0), k, allow=allowed, deny=denied)
        titles = (
            pa.array(model.titles, pa.string())
            if with_titles and model.titles is not None
            else None
        )
        ranker = Ranker(model, k, allow=allowed, deny=denied, index=index)
        return cls(model, ranker, exclude_seen, unknown_allow, unknown_deny, popular, titles)

    def schema(self, users: IdMap) -> pa.Schema:
        """The columns of an answer's table."""
        title = [("title", pa.string())] if self.titles is not None else []
        ids = [
            ("user_id", users.values.type),
            ("rank", pa.int32()),
            ("item_id", self.model.items.values.type),
        ]
        return pa.schema([*ids, *title, ("score", pa.float32()), ("source", pa.string())])

    def answers(
        self, histories: Histories, block_size: int, progress: Progress | None
    ) -> Iterator[Block]:
        """Ranks block by block, cut at multiples of ``block_size``."""
        if block_size < 1:
            raise ConfigError(
                f"block_size must be at least 1, found {block_size}; 1024 suits most machines."
            )
        done = 0
        for block in histories.blocks(block_size):
            yield self.answer(block)
            done += len(block)
            if progress is not None:
                progress(done, len(histories))

    def answer(self, histories: Histories) -> Block:
        """Ranks for one block of users."""
        rows, unknown = histories.encode(self.model.items)
        best = self.ranker.rank(rows, rows if self.exclude_seen else None)
        empty = np.diff(rows.indptr) == 0
        best = TopK(*(ranked.cpu() for ranked in best))
        best.items[empty], best.scores[empty] = self.popular
        return self._block(histories.users, best, empty, unknown)

    def _block(
        self, users: IdMap, best: TopK, empty: np.ndarray, unknown: dict[Id, list[Id]]
    ) -> Block:
        items, scores = best.items.numpy(), best.scores.numpy()
        kept = items >= 0
        user, place = np.nonzero(kept)
        columns = {
            "user_id": users.take(user),
            "rank": pa.array(place + 1, pa.int32()),
            "item_id": self.model.items.take(items[kept]),
            "title": None if self.titles is None else self.titles.take(pa.array(items[kept])),
            "score": pa.array(scores[kept], pa.float32()),
            "source": (
                pa.array(["model", "popularity"]).take(pa.array(empty[user].astype(np.int64)))
            ),
        }
        table = pa.table({name: column for name, column in columns.items() if column is not None})
        return Block(
            table, np.concatenate([[0], np.cumsum(kept.sum(axis=1))]), unknown, int(empty.sum())
        )


def _mask(
    items: IdMap, ids: Iterable[Id] | None, name: str
) -> tuple[Tensor | None, tuple[Id, ...]]:
    """``[n_items]`` bool of the known ids, and the unknown ones."""
    if ids is None:
        return None, ()
    if isinstance(ids, str):
        raise DataError(
            f"{name} must be a sequence of item ids, found the string {ids!r}; put it in a list."
        )
    listed = list(ids)
    index = items.index_of(listed)
    mask = torch.zeros(len(items), dtype=torch.bool)
    mask[torch.from_numpy(index[index >= 0])] = True
    return mask, tuple(one for one, found in zip(listed, index, strict=True) if found < 0)
