"""What recommending returns: ranked items in people's own ids, as one table and as lists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from coterie.data.ids import Id, IdMap
from coterie.errors import DataError
from coterie.plain_table import plain_table
from coterie.ranking.identity import ModelIdentity

_SHOWN = 20


class Recommendation(NamedTuple):
    """One place in a user's list.

    Args:
        rank: 1 for the best.
        item_id: The item.
        title: Its title, None where unknown.
        score: The model's score, or the number of training users if ``source`` is "popularity".
        source: "model", or "popularity" for a user without a single known item.
    """

    rank: int
    item_id: Id
    title: str | None
    score: float
    source: str


@dataclass(frozen=True, eq=False)
class Recommendations:
    """Ranked items of every user asked for.

    Args:
        users: ``[n_users]`` everyone asked for, also those for whom no item was left.
        offsets: ``[n_users + 1]`` where each user's rows of the table start and the last one's end.
        table: One row a recommendation, columns user_id, rank, item_id, title (if the model knows
            titles), score and source; meanings as in `Recommendation`.
        unknown_items: The ids in a user's history that the model has never seen, of each user who
            has any.
        unknown_allow: Ids of the allow list that the model has never seen.
        unknown_deny: Ids of the deny list that the model has never seen.
        model: Which model made them, where that is known.

    Example:
        >>> from coterie.simulation.service import simulate_dataset
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> from coterie.models.ease import EaseConfig
        >>> from coterie.training.trainer import train
        >>> lists = train(data, EaseConfig()).recommend({"ann": [1, 2], "bob": []}, k=3)
        >>> len(lists), lists.to_table().num_rows, {one.source for one in lists.for_user("bob")}
        (2, 6, {'popularity'})
    """

    users: IdMap
    offsets: np.ndarray
    table: pa.Table
    unknown_items: Mapping[Id, Sequence[Id]] = field(default_factory=dict)
    unknown_allow: tuple[Id, ...] = ()
    unknown_deny: tuple[Id, ...] = ()
    model: ModelIdentity | None = None

    def __len__(self) -> int:
        """Number of users, as many as were asked for."""
        return len(self.users)

    def to_table(self) -> pa.Table:
        """All rows, user after user, best first."""
        return self.table

    def for_user(self, user_id: Id) -> list[Recommendation]:
        """One user's list, best first.

        Raises:
            DataError: if the user was not asked for.
        """
        index = int(self.users.index_of([user_id])[0])
        if index < 0:
            raise DataError(
                f"recommendations exist for the {len(self)} users asked for, found {user_id!r}; ask"
                " for that user too."
            )
        rows = self.table.slice(
            int(self.offsets[index]), int(self.offsets[index + 1] - self.offsets[index])
        ).to_pylist()
        return [
            Recommendation(
                row["rank"], row["item_id"], row.get("title"), row["score"], row["source"]
            )
            for row in rows
        ]

    def __str__(self) -> str:
        shown = self.table.slice(0, _SHOWN).to_pylist()
        numbers = [name in ("rank", "score") for name in self.table.column_names]
        text = plain_table(
            self.table.column_names,
            [[_cell(value) for value in row.values()] for row in shown],
            numbers,
        )
        rest = len(self.table) - len(shown)
        notes = [f"… and {rest} rows more"] if rest else []
        notes += [
            f"unknown items of {user_id}: {', '.join(map(str, ids))}"
            for user_id, ids in list(self.unknown_items.items())[:_SHOWN]
        ]
        for name, ids in (("allow", self.unknown_allow), ("deny", self.unknown_deny)):
            notes += (
                [f"unknown items in {name}: {', '.join(map(str, ids[:_SHOWN]))}"] if ids else []
            )
        return "\n".join([text, *notes])


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
