"""Tables of lists on their way into a store: checked, and each list packed into two arrays of
bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coterie.errors import DataError
from coterie.store.contents import Contents, PackedList
from coterie.store.users import Kind, kind_of, user_keys

_AT_ONCE = 8192
# A block of the longest lists is half of what Arrow's offsets of 32 bits reach.
_LONGEST = 1 << 14
_MOST_NAMES = 1 << 15
_TYPES = {
    "row": pa.string(),
    "items": pa.list_(pa.int32()),
    "scores": pa.list_(pa.float32()),
    "source": pa.string(),
}


@dataclass(frozen=True)
class PackedLists:
    """Lists of users, ready to be written.

    Args:
        users: Keys: int64 or binary, shape (n,).
        rows: Numbers of the card rows, shape (n,).
        sources: Numbers of the sources, shape (n,).
        items: Binary, shape (n,): positions in the catalogue, little-endian int32.
        scores: Binary, shape (n,): little-endian float32.
    """

    users: pa.Array
    rows: NDArray[np.int16]
    sources: NDArray[np.int16]
    items: pa.Array
    scores: pa.Array

    def __len__(self) -> int:
        return len(self.users)


class Packer:
    """Packs one edition's lists and collects what readers must know of all of them.

    Args:
        catalogue: ``item_id`` (whole numbers or text) and ``title`` (text, may be null).

    Raises:
        DataError: if the catalogue lacks a column, has an id twice or lacks one.
    """

    def __init__(self, catalogue: pa.Table) -> None:
        self._catalogue = _checked_catalogue(catalogue)
        self._kind: Kind | None = None
        self._rows: dict[str, int] = {}
        self._sources: dict[str, int] = {}
        self._fallbacks: dict[str, PackedList] = {}

    def pack(self, tables: Iterable[pa.Table]) -> Iterator[PackedLists]:
        """Blocks of lists; those under no user are kept as the fall-backs.

        Raises:
            DataError: at the first list that breaks a rule.
        """
        for table in tables:
            for batch in _typed(table).to_batches(max_chunksize=_AT_ONCE):
                if len(packed := self._pack(batch)):
                    yield packed

    def contents(self) -> Contents:
        """What was packed, without the users' lists."""
        return Contents(
            users=self._kind or "int",
            rows=tuple(self._rows),
            sources=tuple(self._sources),
            item_ids=self._catalogue["item_id"].to_pylist(),
            titles=self._catalogue["title"].to_pylist(),
            fallbacks=self._fallbacks,
        )

    @property
    def kind(self) -> Kind:
        """Of the users' ids; the first block tells."""
        return self._kind or "int"

    def _pack(self, batch: pa.RecordBatch) -> PackedLists:
        users = batch["user_id"]
        self._check_kind(kind_of(users))
        lengths = _lengths(batch)
        rows = _numbers(batch["row"], self._rows, "row")
        sources = _numbers(batch["source"], self._sources, "source")
        items = _packed(self._positions(batch["items"]), lengths)
        scores = _packed(_finite(batch["scores"]), lengths)
        for at in np.flatnonzero(users.is_null().to_numpy(zero_copy_only=False)):
            self._keep(batch["row"][int(at)].as_py(), int(sources[at]), items[at], scores[at])
        somebody = users.is_valid()
        chosen = somebody.to_numpy(zero_copy_only=False)
        return PackedLists(
            user_keys(users.filter(somebody), self.kind),
            rows[chosen],
            sources[chosen],
            items.filter(somebody),
            scores.filter(somebody),
        )

    def _check_kind(self, found: Kind | None) -> None:
        self._kind = self._kind or found
        if found not in (None, self._kind):
            raise DataError(
                f"user_id must be of one type in an edition, found {found} after {self._kind};"
                " convert one of them."
            )

    def _positions(self, items: pa.Array) -> NDArray[Any]:
        positions = _values(items, "items")
        n_items = len(self._catalogue)
        if len(positions) and not 0 <= positions.min() <= positions.max() < n_items:
            raise DataError(
                f"items must be positions in the catalogue, 0 to {n_items - 1}, found"
                f" {positions.min()} to {positions.max()}; look ids up in it."
            )
        return positions.astype("<i4", copy=False)

    def _keep(self, row: str, source: int, items: pa.Scalar, scores: pa.Scalar) -> None:
        if row in self._fallbacks:
            raise DataError(
                f"row {row!r} must have one fall-back list, found a second one without a user;"
                " leave one out."
            )
        self._fallbacks[row] = PackedList(source, items.as_py(), scores.as_py())


def _checked_catalogue(catalogue: pa.Table) -> pa.Table:
    _need(catalogue, ("item_id", "title"), "the catalogue")
    ids = _cast(catalogue, "item_id", _id_type(catalogue["item_id"].type))
    if ids.null_count or len(pc.unique(ids)) != len(ids):
        raise DataError(
            f"the catalogue must have each item_id once, found {ids.null_count} null and"
            f" {len(pc.unique(ids))} different of {len(ids)}; drop the others."
        )
    return pa.table({"item_id": ids, "title": _cast(catalogue, "title", pa.string())})


def _id_type(found: pa.DataType) -> pa.DataType:
    return pa.int64() if pa.types.is_integer(found) else pa.string()


def _typed(lists: pa.Table) -> pa.Table:
    _need(lists, ("user_id", *_TYPES), "a table of lists")
    typed = {name: _cast(lists, name, kind) for name, kind in _TYPES.items()}
    for name, column in typed.items():
        if column.null_count:
            raise DataError(f"{name} must be known for every list, found null; fill it in.")
    return pa.table({"user_id": lists["user_id"], **typed})


def _need(table: pa.Table, names: Sequence[str], what: str) -> None:
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise DataError(
            f"{what} must have {', '.join(names)}, found no {', '.join(missing)}; add what is"
            " missing."
        )


def _cast(table: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        return table[name].cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(
            f"{name} must be {kind} or what turns into it without loss, found {table[name].type}"
            f" ({error}); convert it."
        ) from error


def _lengths(batch: pa.RecordBatch) -> NDArray[np.int64]:
    items, scores = (
        np.asarray(pc.list_value_length(batch[name]), np.int64) for name in ("items", "scores")
    )
    if not np.array_equal(items, scores):
        at = int(np.flatnonzero(items != scores)[0])
        raise DataError(
            f"a list must have a score an item, found {items[at]} items and {scores[at]} scores for"
            f" user {batch['user_id'][at].as_py()!r:.80}; give as many."
        )
    if len(items) and items.max() > _LONGEST:
        raise DataError(
            f"a list must have at most {_LONGEST:,} items, found {items.max():,}; cut it off."
        )
    return items


def _values(lists: pa.Array, name: str) -> NDArray[Any]:
    values = lists.flatten()
    if values.null_count:
        raise DataError(f"{name} must hold no null, found {values.null_count}; drop those items.")
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _finite(scores: pa.Array) -> NDArray[Any]:
    values = _values(scores, "scores")
    if not np.isfinite(values).all():
        raise DataError("scores must be finite: JSON has no word for others; drop those items.")
    return values.astype("<f4", copy=False)


def _packed(values: NDArray[Any], lengths: NDArray[np.int64]) -> pa.Array:
    """A list of numbers a user → bytes a user, without touching a user in Python."""
    ends = np.concatenate([[0], np.cumsum(lengths)]) * values.itemsize
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.binary(), len(lengths), buffers)


def _numbers(texts: pa.Array, known: dict[str, int], name: str) -> NDArray[np.int16]:
    """Each text's number; new ones are added to ``known``."""
    coded = texts.dictionary_encode()
    for text in coded.dictionary.to_pylist():
        known.setdefault(text, len(known))
    if len(known) > _MOST_NAMES:
        raise DataError(
            f"an edition has at most {_MOST_NAMES:,} different values of {name}, found more; it is"
            " the name of a card row or of what made the list."
        )
    numbers = np.array([known[text] for text in coded.dictionary.to_pylist()], np.int16)
    of_each: NDArray[np.int16] = numbers[np.asarray(coded.indices)]
    return of_each
