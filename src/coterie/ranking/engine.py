"""Recommending for any number of users, in memory or straight to a file, block by block.

Users need not have been in training: only their items reach the model.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

from coterie.data.ids import Id
from coterie.ranking.histories import Histories, UserItems
from coterie.ranking.identity import ModelIdentity
from coterie.ranking.options import RankingFields, RankingOptions
from coterie.ranking.recommendations import Recommendations
from coterie.ranking.recommender import Recommender
from coterie.ranking.scorer import CatalogueScorer
from coterie.ranking.table_files import table_writer
from coterie.running.progress import Progress, silent

_SHOWN = 5


@dataclass(frozen=True)
class WrittenRecommendations:
    """What `recommend_to_file` wrote.

    Args:
        model: Whose lists they are.
        n_users: Users asked for.
        n_rows: Recommendations written.
        n_popularity_users: Users without a single known item, who got the most popular items.
        unknown_items: Item ids that the model has never seen, each with the number of users who
            have it.
        unknown_allow: Ids of the allow list that the model has never seen.
        unknown_deny: Ids of the deny list that the model has never seen.
    """

    model: ModelIdentity
    n_users: int
    n_rows: int
    n_popularity_users: int
    unknown_items: Mapping[Id, int]
    unknown_allow: tuple[Id, ...]
    unknown_deny: tuple[Id, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        unknown = {str(item_id): n_users for item_id, n_users in self.unknown_items.items()}
        return {**asdict(self), "unknown_items": unknown}

    def notes(self) -> list[str]:
        """What a person should know of it, a line each: who got popular items, what is unknown."""
        lines = [
            f"{self.n_popularity_users:,} users without a known item got the most popular ones"
            " (source = popularity)"
        ]
        unknown = {
            "histories": self.unknown_items,
            "allow": self.unknown_allow,
            "deny": self.unknown_deny,
        }
        return (lines if self.n_popularity_users else []) + [
            f"{len(ids):,} items of {where} are unknown to the model and were ignored:"
            f" {', '.join(map(str, list(ids)[:_SHOWN]))}{', …' if len(ids) > _SHOWN else ''}"
            for where, ids in unknown.items()
            if ids
        ]


def recommend(
    model: CatalogueScorer,
    histories: Histories | UserItems,
    options: RankingOptions | int = 10,
    *,
    progress: Progress = silent,
    **fields: Unpack[RankingFields],
) -> Recommendations:
    """Ranks the best items for every user.

    A user's list does not depend on who else is asked, nor on ``block_size``. Scores may differ
    between block sizes by the rounding of float32 matrix products (about 1e-6 of the row's largest
    score), and so may the order of two items that are closer than that; exact ties always go to the
    item that comes first in the catalogue.

    Every call looks everything up anew; a server holds a `Recommender`, or asks
    ``TrainedModel.recommend``, which does.

    Args:
        model: A trained model.
        histories: What each user has had; repetitions count once, items unknown to the model are
            reported and ignored. A user left with nothing gets the most popular items.
        options: Which items, how many and how; a number is ``k``.
        progress: Called after each block of users.
        fields: Single fields of `RankingOptions`, laid over ``options``.

    Raises:
        ConfigError: if the options cannot be honoured.
        DataError: if the histories break their rules, or no item of ``allow`` is known.
        NumericalError: if the model's scores are not finite.

    Example:
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> import torch
        >>> from coterie.data.ids import IdMap
        >>> together = np.array([[9, 1, 4], [1, 9, 2], [4, 2, 9]], dtype=np.float32)
        >>> model = SimpleNamespace(
        ...     n_items=3,
        ...     items=IdMap.of(["blue", "red", "teal"]),
        ...     titles=None,
        ...     popularity=np.array([5, 9, 7]),
        ...     score=lambda rows: torch.from_numpy(rows @ together),
        ... )
        >>> print(recommend(model, {"ann": ["blue"]}, k=1))
        user_id  rank  item_id  score  source
        ann         1  teal         4  model
    """
    recommender = Recommender(model, RankingOptions.of(options, **fields))
    return recommender.recommend(histories, progress)


def recommend_to_file(
    model: CatalogueScorer,
    histories: Histories | UserItems,
    path: str | Path,
    options: RankingOptions | int = 10,
    *,
    progress: Progress = silent,
    **fields: Unpack[RankingFields],
) -> WrittenRecommendations:
    """Ranks as `recommend` does and writes user_id, rank, item_id, score and source, one row a
    recommendation.

    Only one block is in memory at a time, and the file appears whole or not at all.

    Args:
        model: As in `recommend`, like all that is not named here.
        histories: As in `recommend`.
        path: Ends in ``.parquet``, ``.csv``, ``.jsonl`` or ``.ndjson``, the latter three also with
            ``.gz``.
        options: As in `recommend`.
        progress: As in `recommend`.
        fields: As in `recommend`.

    Raises:
        ConfigError: if the ending names no format, or the options cannot be honoured.
        DataError: as in `recommend`.
        NumericalError: if the model's scores are not finite.

    Example:
        >>> import tempfile
        >>> from coterie.models.ease import EaseConfig
        >>> from coterie.simulation.service import simulate_dataset
        >>> from coterie.training.trainer import train
        >>> model = train(simulate_dataset(n_users=300, n_items=60, seed=1), EaseConfig())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = recommend_to_file(
        ...         model, {"ann": [1, 2], "bob": [3]}, f"{folder}/two.csv", k=5
        ...     )
        >>> done.n_rows
        10
    """
    held = Histories.of(histories, model.items)
    recommender = Recommender(model, RankingOptions.of(options, **fields), titles=False)
    n_rows, n_popularity, unknown = 0, 0, Counter[Id]()
    with table_writer(path, recommender.schema(held.users)) as write:
        for block in recommender.blocks(held, progress):
            write(block.table)
            n_rows += len(block.table)
            n_popularity += block.n_popularity_users
            unknown.update(item_id for ids in block.unknown_items.values() for item_id in ids)
    return WrittenRecommendations(
        ModelIdentity.of(model),
        len(held),
        n_rows,
        n_popularity,
        dict(unknown),
        recommender.unknown_allow,
        recommender.unknown_deny,
    )
