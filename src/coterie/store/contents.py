"""What a reader keeps of an edition: everything but the users' lists."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from coterie.errors import ArtifactError
from coterie.store.edition import Edition, Found
from coterie.store.users import Key, Kind, user_ids, user_key

_SCHEMA = "coterie.edition/1"
_POSITION = 4


class PackedList(NamedTuple):
    """One list: the number of its source, int32 positions and float32 scores, little-endian."""

    source: int
    items: bytes
    scores: bytes


class ListKey(NamedTuple):
    """Where one list is in an edition."""

    user: Key
    row: int


@dataclass(frozen=True)
class Contents:
    """Catalogue, fall-backs, and what numbers in the lists mean.

    Args:
        users: The kind of the users' ids.
        rows: Names of the card rows, by number.
        sources: Names of the sources, by number.
        item_ids: The catalogue's, by position.
        titles: The catalogue's, by position.
        fallbacks: By the name of the card row.
    """

    users: Kind
    rows: Sequence[str]
    sources: Sequence[str]
    item_ids: Sequence[Any]
    titles: Sequence[str | None]
    fallbacks: Mapping[str, PackedList]

    def key(self, user_id: int | str, row: str) -> ListKey | None:
        """Where a user's list would be; None if it cannot be there."""
        user = user_key(user_id, self.users)
        return (
            ListKey(user, self.rows.index(row)) if row in self.rows and user is not None else None
        )

    def found(self, packed: PackedList, edition: Edition) -> Found:
        """A list with ids and titles."""
        items = np.frombuffer(packed.items, "<i4").tolist()
        return Found(
            edition=edition.name,
            facts=edition.facts,
            source=self.sources[packed.source],
            item_ids=[self.item_ids[item] for item in items],
            titles=[self.titles[item] for item in items],
            scores=np.frombuffer(packed.scores, "<f4").tolist(),
        )

    def batch(self, page: Sequence[tuple[Key, bytes]]) -> pa.RecordBatch:
        """Users and the ids of their lists' items, as `coterie.store.Store.lists` gives them."""
        packed = [items for _, items in page]
        ends = np.cumsum([0, *(len(one) // _POSITION for one in packed)], dtype=np.int32)
        positions = pa.array(np.frombuffer(b"".join(packed), "<i4").astype(np.int32))
        items = pa.DictionaryArray.from_arrays(positions, self.ids)
        columns = {
            "user_id": user_ids([key for key, _ in page], self.users),
            "item_ids": pa.ListArray.from_arrays(ends, items),
        }
        return pa.record_batch(columns)

    @cached_property
    def ids(self) -> pa.Array:
        """The catalogue's, by position."""
        return pa.array(self.item_ids, pa.int64() if not self.item_ids else None)

    def details(self) -> str:
        """All but the catalogue, as JSON."""
        fallbacks = {
            row: {
                "source": one.source,
                "items": np.frombuffer(one.items, "<i4").tolist(),
                "scores": np.frombuffer(one.scores, "<f4").tolist(),
            }
            for row, one in self.fallbacks.items()
        }
        return json.dumps(
            {
                "schema": _SCHEMA,
                "users": self.users,
                "rows": self.rows,
                "sources": self.sources,
                "fallbacks": fallbacks,
            }
        )

    def catalogue(self) -> bytes:
        """The catalogue, as an Arrow stream."""
        titles = pa.array(self.titles, pa.string())
        sink = pa.BufferOutputStream()
        table = pa.table({"item_id": self.ids, "title": titles})
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
            stream.write_table(table)
        return bytes(sink.getvalue())

    @staticmethod
    def of(details: str, catalogue: bytes, place: str) -> "Contents":
        """The contents that `details` and `catalogue` describe.

        Raises:
            ArtifactError: if another version of Coterie wrote them.
        """
        told = json.loads(details)
        if told["schema"] != _SCHEMA:
            raise ArtifactError(
                f"{place}: schema must be {_SCHEMA!r}, found {told['schema']!r}; use the Coterie"
                " version that published it, or publish it again."
            )
        table = pa.ipc.open_stream(catalogue).read_all()
        fallbacks = {
            row: PackedList(
                one["source"],
                np.array(one["items"], "<i4").tobytes(),
                np.array(one["scores"], "<f4").tobytes(),
            )
            for row, one in told["fallbacks"].items()
        }
        ids, titles = table["item_id"].to_pylist(), table["title"].to_pylist()
        return Contents(told["users"], told["rows"], told["sources"], ids, titles, fallbacks)
