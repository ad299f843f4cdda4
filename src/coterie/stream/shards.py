"""A shard of recommendations: a fixed range of users, scored block by block into one Parquet file.

Which users are in a shard, how it is cut into blocks and how many threads score it are fixed by the
request. So a shard is the same bytes whoever scores it, and scoring it again changes nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from hashlib import sha256 as new_sha256
from typing import Any, TypeAlias

import numpy as np
import pyarrow.parquet as pq
import torch

from coterie.data.ids import Id
from coterie.errors import ConfigError
from coterie.files import sha256
from coterie.recommend.approximate import ApproximateIndex
from coterie.recommend.engine import Request
from coterie.recommend.scorer import Recommender
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
        k: Length of each list.
        exclude_seen: Whether to leave out what the user has had.
        allow: The only items to recommend; all if None.
        deny: Items never to recommend.
        block_size: Users scored at once.
        shard_users: Users in a file.
        threads: Threads that score a shard.
        index: Name of the approximate index; None ranks exactly.

    Raises:
        ConfigError: if a number is below 1.
    """

    model: str
    histories: str
    k: int
    exclude_seen: bool
    allow: tuple[Id, ...] | None
    deny: tuple[Id, ...] | None
    block_size: int
    shard_users: int
    threads: int
    index: str | None = None

    def __post_init__(self) -> None:
        for name in ("k", "block_size", "shard_users", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be at least 1, found {getattr(self, name)}; leave it out for the"
                    " default."
                )

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    def ranking(self, model: Recommender, index: ApproximateIndex | None) -> Request:
        """The request as the in-memory engine takes it."""
        return Request.of(
            model,
            self.k,
            self.allow,
            self.deny,
            index,
            exclude_seen=self.exclude_seen,
            with_titles=False,
        )


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

    def score(self, ranking: Request, number: int, tick: Tick) -> ShardResult:
        """Scores a shard and publishes its file, then its tallies in the work area.

        Args:
            ranking: The request with its model, made once for all shards.
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
        with _threads(self.request.threads), self.folder.publish(part_name(number)) as aside:
            with pq.ParquetWriter(aside, ranking.schema(histories.users)) as parquet:
                for block in histories.blocks(self.request.block_size):
                    answer = ranking.answer(block)
                    parquet.write_table(answer.table)
                    n_rows += len(answer.table)
                    n_popularity += answer.n_popularity_users
                    unknown.update(
                        item_id for ids in answer.unknown_items.values() for item_id in ids
                    )
                    tick(len(block))
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


def model_fingerprint(model: Recommender) -> str:
    """Hex SHA-256 over item ids, popularity and weights: every module, tensor and array among the
    model's fields.

    Example:
        >>> from types import SimpleNamespace
        >>> from coterie.data.ids import IdMap
        >>> def model(weight):
        ...     items, popularity = IdMap.of(["blue", "red"]), np.array([2, 1])
        ...     return SimpleNamespace(items=items, popularity=popularity, weight=np.array(weight))
        >>> prints = [model_fingerprint(model([weight])) for weight in (0.5, 0.5, 0.25)]
        >>> prints[0] == prints[1] != prints[2]
        True
    """
    digest = new_sha256(str(model.items.values.type).encode())
    for item_id in model.items.values.to_pylist():
        digest.update(f"{item_id}\0".encode())
    for name, array in _arrays(model):
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(_bytes(array))
    return digest.hexdigest()


def _arrays(model: Recommender) -> Iterator[tuple[str, torch.Tensor | np.ndarray]]:
    # Not what a frozen model has cached since.
    names = [field.name for field in fields(model)] if is_dataclass(model) else list(vars(model))
    for name in names:
        value = getattr(model, name)
        if isinstance(value, torch.nn.Module):
            yield from ((f"{name}.{key}", tensor) for key, tensor in value.state_dict().items())
        elif isinstance(value, torch.Tensor | np.ndarray):
            yield name, value


def _bytes(array: torch.Tensor | np.ndarray) -> memoryview:
    if isinstance(array, torch.Tensor):
        # As bytes already here, because NumPy does not know every type of a tensor.
        array = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
