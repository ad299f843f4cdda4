"""Lists that are shown: as they were published, or as a version of the model would make them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from coterie.dashboard.sources import Sources, mark_of
from coterie.data.ids import Id
from coterie.errors import NotFoundError
from coterie.jobs.titles import allowed
from coterie.ranking.histories import Histories
from coterie.ranking.options import RankingOptions
from coterie.registry import Version
from coterie.serving.lists import Arms
from coterie.store import Edition

if TYPE_CHECKING:
    from coterie.ranking.recommender import Recommender
    from coterie.training.trained_model import TrainedModel

FALLBACK = "fallback"
REASONS = 3
"""Titles of the history that are named for each item."""


class Item(NamedTuple):
    """A place in a list.

    Args:
        item_id: Whose.
        title: As the edition or the table of titles has it.
        score: The model's.
    """

    item_id: Id
    title: str | None
    score: float


@dataclass(frozen=True)
class Shown:
    """A list.

    Args:
        source: ``model``, ``popularity`` (the model knows nothing of the history) or ``fallback``
            (a list of nobody's own).
        items: Best first.
        version: Of the model, if it is told.
        experiment: That the user is in.
        arm: Of it.
    """

    source: str
    items: Sequence[Item]
    version: str | None
    experiment: str | None = None
    arm: str | None = None


def published(sources: Sources, user_id: str, row: str, edition: str) -> Shown | None:
    """A user's list in an edition, or the fall-back; None if there is neither.

    Raises:
        NotFoundError: if there is no such edition.
        UnavailableError: if the store is away.
    """
    own = sources.store.find(user_id, row, edition=edition)
    found = own or sources.store.fallback(row, edition=edition)
    if found is None:
        return None
    source = found.source if own else FALLBACK
    told = Arms(found.facts).of(user_id, source)
    ids: Sequence[Id] = found.item_ids
    items = zip(ids, found.titles, found.scores, strict=True)
    return Shown(
        source,
        [Item(*one) for one in items],
        told["model"],
        told["experiment"],
        told["arm"],
    )


def day_of(edition: Edition | None, today: date) -> date:
    """The day that an edition's lists are for; of one that is no day, today."""
    try:
        return date.fromisoformat(edition.name) if edition else today
    except ValueError:
        return today


def model_of(sources: Sources, version: Version) -> "TrainedModel | None":
    """A version in memory; None while it is being loaded.

    Raises:
        ArtifactError: if it is damaged.
    """

    def load() -> "TrainedModel":
        # The first model brings torch, which takes seconds.
        from coterie.training.trained_model import TrainedModel  # noqa: PLC0415

        return TrainedModel.load(version.model)

    mark = version.card["fingerprint"], mark_of(version.model / "manifest.json")
    return sources.models.get(version.name, mark, load)


def known_items(sources: Sources, version: Version) -> pa.Table:
    """A version's items: item_id, popularity and, where it has them, title; without torch.

    Raises:
        NotFoundError: if the file is not there.
    """
    path = version.model / "items.parquet"
    mark = mark_of(path)
    if mark is None:
        raise NotFoundError(f"{path}: must be there, nothing was found; restore the version.")
    return sources.kept.get(("items", version.name), mark, lambda: pq.read_table(path))


def ranked(
    sources: Sources, version: Version, history: Iterable[Id], row: str, day: date
) -> Shown | None:
    """The list that a version would give for a history, by a card row's rules on a day.

    Args:
        sources: Where from.
        version: Of the model.
        history: Item ids; without a known one the list is what is popular.
        row: Of the service's card rows.
        day: What is available on it may be in the list.

    Returns:
        None while the model is being loaded.

    Raises:
        NotFoundError: if there is no such card row.
    """
    model = model_of(sources, version)
    if model is None:
        return None
    recommender = _recommender(sources, version, model, row, day)
    histories = Histories.of({"": list(history)}, model.items)
    found = recommender.answer(histories).table.to_pylist()
    items = [
        Item(one["item_id"], sources.title(one["item_id"]) or one.get("title"), one["score"])
        for one in found
    ]
    return Shown(found[0]["source"] if found else "model", items, version.name)


def _recommender(
    sources: Sources, version: Version, model: "TrainedModel", row: str, day: date
) -> "Recommender":
    service = sources.of_service
    config = service.config.rows.get(row)
    if config is None:
        raise NotFoundError(
            f"row must be one of {', '.join(service.config.rows)}, found {row[:80]!r}; choose one."
        )
    listed = [service.place(path) for path in (config.allow, config.deny) if path]
    mark = model.fingerprint, id(sources.titles), config, *map(mark_of, listed)

    def make() -> "Recommender":
        # It imports torch, which is there by now.
        from coterie.ranking.recommender import Recommender  # noqa: PLC0415

        items = allowed(service, config, sources.titles, model.items, day)
        options = RankingOptions(config.k, config.watched == "leave-out", items)
        return Recommender(model, options)

    return sources.kept.get(("recommender", version.name, row, day), mark, make)


def reasons(
    model: "TrainedModel", history: Sequence[Id], items: Sequence[Id], k: int = REASONS
) -> Mapping[str, list[dict[str, Any]]]:
    """By item id as text what of a history raised it, best first, as `TrainedModel.explain` says;
    items that the model does not know are left out.
    """
    places = model.items.index_of_few(items)
    known = [one for one, place in zip(items, places, strict=True) if place >= 0]
    if not known or not history:
        return {}
    found: dict[str, list[dict[str, Any]]] = {}
    for one in model.explain(history, known, k).table.to_pylist():
        named = {name: one[name] for name in ("raised", "share", "score_without")}
        reason = {"item_id": one["history_item_id"], **named}
        found.setdefault(str(one["item_id"]), []).append(reason)
    return found
