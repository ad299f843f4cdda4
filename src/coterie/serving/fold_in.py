"""The live model at work: lists for histories on the spot, and similar items.

The one module of the room that needs torch; `coterie.serving.live_model` imports it aside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeAlias, cast

from coterie.data.ids import Id
from coterie.errors import NotFoundError
from coterie.ranking.histories import Histories
from coterie.ranking.options import RankingOptions
from coterie.ranking.recommender import Block, Recommender
from coterie.registry import Version
from coterie.serving.limits import MAX_K
from coterie.serving.schemas import ManyHistories, OneHistory
from coterie.training.trained_model import TrainedModel

# Ranking objects are kept for these lengths; a shorter list is the start of a longer one.
_LENGTHS = (20, 100, MAX_K)
# Whole floats are integers once a request is checked.
_Filters: TypeAlias = tuple[list[Id] | None, list[Id] | None]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A version in memory. Any number of threads may ask it.

    Args:
        version: Its name.
        created: When it was registered.
        model: The weights.
    """

    version: str
    created: datetime
    model: TrainedModel

    @classmethod
    def load(cls, version: Version) -> "LoadedModel":
        """Reads a version and answers a first request, so that nobody's takes long.

        Raises:
            ArtifactError: if it is damaged.
        """
        created = datetime.fromisoformat(version.card["created"])
        loaded = cls(version.name, created, TrainedModel.load(version.model))
        known = loaded.model.items.ids_of([0])
        for k in _LENGTHS:
            loaded.recommend(OneHistory(history=known, k=k))
        return loaded

    def recommend(self, request: OneHistory | ManyHistories) -> dict[str, Any]:
        """The answer to one history or several; lists are empty if no allowed item is known."""
        lists = self._lists(request)
        if isinstance(request, OneHistory):
            return {"model": self.version, **lists[0]}
        return {"model": self.version, "lists": lists}

    def similar(self, item_id: str, k: int) -> dict[str, Any]:
        """Items like one item.

        Raises:
            NotFoundError: if the model has never seen the item.
            ConfigError: if it learns nothing of items.
        """
        place = int(self.model.items.index_of_few([item_id])[0])
        if place < 0:
            raise NotFoundError("the item must be one of the model's, it is not; check the id.")
        known = self.model.items.ids_of([place])[0]
        fields = ("item_id", "title", "cosine")
        found = self.model.similar_items(known, k)
        items = [{name: getattr(one, name) for name in fields} for one in found]
        return {"model": self.version, "items": items}

    def _lists(self, request: OneHistory | ManyHistories) -> list[dict[str, Any]]:
        histories = Histories.of(dict(enumerate(request.listed)), self.model.items)
        if not len(histories):
            return []
        if request.allow is not None and not self._knows_any(request.allow):
            return _as_lists(self._kept[_LENGTHS[0]].answer(histories), 0)
        block = self._recommender(request).answer(histories)
        return _as_lists(block, request.k)

    def _knows_any(self, item_ids: Sequence[Any]) -> bool:
        return bool((self.model.items.index_of_few(item_ids) >= 0).any())

    def _recommender(self, request: OneHistory | ManyHistories) -> Recommender:
        k = next(length for length in _LENGTHS if length >= request.k)
        if request.exclude_seen and request.allow is None and not request.deny:
            return self._kept[k]
        allow, deny = cast(_Filters, (request.allow, request.deny or None))
        options = RankingOptions(k, request.exclude_seen, allow, deny)
        return Recommender(self.model, options)

    @cached_property
    def _kept(self) -> dict[int, Recommender]:
        return {k: Recommender(self.model, RankingOptions(k)) for k in _LENGTHS}


def _as_lists(block: Block, k: int) -> list[dict[str, Any]]:
    table = block.table
    columns = {name: table[name].to_pylist() for name in ("item_id", "score", "source")}
    has_titles = "title" in table.column_names
    columns["title"] = table["title"].to_pylist() if has_titles else [None] * len(table)
    n_users = len(block.offsets) - 1
    return [_as_list(columns, block, user, k) for user in range(n_users)]


def _as_list(columns: dict[str, Sequence[Any]], block: Block, user: int, k: int) -> dict[str, Any]:
    start, end = (int(block.offsets[at]) for at in (user, user + 1))
    places = range(start, min(end, start + k))
    fields = ("item_id", "title", "score")
    return {
        "source": columns["source"][start] if end > start else "model",
        "unknown_items": block.unknown_items.get(user, []),
        "items": [{name: columns[name][at] for name in fields} for at in places],
    }
