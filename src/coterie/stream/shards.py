"""A shard of recommendations: a fixed range of users, scored block by block into one Parquet file.

Which users are in a shard, how it is cut into blocks and how many threads score it are fixed by the
request. So a shard is the same bytes whoever scores it, and scoring it again changes nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import pyarrow.parquet as pq

from coterie.data.ids import Id
from coterie.files import sha256
from coterie.ranking.approximate import ApproximateIndex
from coterie.ranking.options import RankingOptions, positive_count
from coterie.ranking.recommender import Recommender
from coterie.ranking.scorer import CatalogueScorer
from coterie.running.execution import using_threads
from coterie.stream.history_source import HistorySource
from coterie.stream.storage import WORK, Folder

Tick: TypeAlias = Callable[[int], None]
"""Called with the number of users done since the last call, perhaps none; what it raises ends the
work.
"""

_MOST_UNKNOWN = 100


@dataclass(frozen=True)
class StreamRequest:
    """What is asked of whom: two runs with the same request write the same bytes on the same kind
    of machine.

    Args:
        model: Fingerprint of the model.
        histories: Fingerprint of the histories.
        options: Which items, how many and how; without the index itself.
        shard_users: Users in a file.
        threads: Threads that score a shard.
        index: Name of the approximate index; None ranks exactly.

    Raises:
        ConfigError: if a number is below 1.
    """

    model: str
    histories: str
    options: RankingOptions
    shard_users: int
    threads: int
    index: str | None = None

    def __post_init__(self) -> None:
        for name in ("shard_users", "threads"):
            object.__setattr__(self, name, positive_count(name, getattr(self, name)))

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, those of the options among them."""
        values = {**asdict(self.options), **asdict(self)}
        del values["options"]
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    def recommender(self, model: CatalogueScorer, index: ApproximateIndex | None) -> Recommender:
        """What answers the request."""
        return Recommender(model, replace(self.options, index=index), titles=False)


@dataclass(frozen=True)
class ShardResult:
    """A finished shard's file and tallies.

    Args:
        number: From 0.
        n_users: Users in it.
        n_rows: Recommendations written.
        n_popularity_users: Users without a single known item.
        n_unknown: Pairs of a user and an item that the model has never seen.
        unknown_items: The 100 such items with the most users, each with their number.
        bytes: Size of the file.
        sha256: Of the file.
    """

    number: int
    n_users: int
    n_rows: int
    n_popularity_users: int
    n_unknown: int
    unknown_items: tuple[tuple[Id, int], ...]
    bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """Of the file."""
        return part_name(self.number)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "ShardResult":
        """Reads what ``asdict`` gave, through JSON or not."""
        return cls(
            **{
                **values,
                "unknown_items": tuple((item_id, n) for item_id, n in values["unknown_items"]),
            }
        )


@dataclass(frozen=True)
class ShardJob:
    """All that scoring a shard needs except for the model: small, and sent to other processes as it
    is.

    Args:
        request: What is asked.
        source: Who is asked for.
        folder: Where the files go.
    """

    request: StreamRequest
    source: HistorySource
    folder: Folder

    @property
    def n_shards(self) -> int:
        """At least one, so that there is a file to read even if nobody is asked for."""
        return max(-(-self.source.n_users // self.request.shard_users), 1)

    def score(self, recommender: Recommender, number: int, tick: Tick) -> ShardResult:
        """Scores a shard and publishes its file, then its tallies in the work area.

        Args:
            recommender: Of the request, made once for all shards.
            number: Of the shard.
            tick: Called after each block.

        Raises:
            SourceError: if the histories cannot be read.
            NumericalError: if the model's scores are not finite.
        """
        start = number * self.request.shard_users
        histories = self.source.read(
            start, min(start + self.request.shard_users, self.source.n_users)
        )
        n_rows, n_popularity, unknown = 0, 0, Counter[Id]()
        with using_threads(self.request.threads), self.folder.publish(part_name(number)) as aside:
            with pq.ParquetWriter(aside, recommender.schema(histories.users)) as parquet:
                for block in recommender.blocks(histories):
                    parquet.write_table(block.table)
                    n_rows += len(block.table)
                    n_popularity += block.n_popularity_users
                    unknown.update(
                        item_id for ids in block.unknown_items.values() for item_id in ids
                    )
                    tick(len(block.offsets) - 1)
            tallies = (
                len(histories),
                n_rows,
                n_popularity,
                unknown.total(),
                most_common(unknown.items(), _MOST_UNKNOWN),
            )
            result = ShardResult(number, *tallies, aside.stat().st_size, sha256(aside))
        self.folder.write_json(tally_name(number), asdict(result))
        return result


def part_name(number: int) -> str:
    """The file of a shard."""
    return f"part-{number:05}.parquet"


def tally_name(number: int) -> str:
    """The file of a finished shard's tallies, until the folder is complete."""
    return f"{WORK}/part-{number:05}.json"


def most_common(counts: Iterable[tuple[Id, int]], n: int) -> tuple[tuple[Id, int], ...]:
    """The n ids with the largest counts; of equal ones the first in the order of their text."""
    return tuple(sorted(counts, key=lambda one: (-one[1], str(one[0])))[:n])
