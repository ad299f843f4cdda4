"""Identifiers: the one place where people's own ids meet row and column numbers.

Everything outside Coterie speaks ids (integers or strings); everything inside speaks indices.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from coterie.errors import DataError

Id: TypeAlias = int | str
"""A user's or an item's own identifier, as the source wrote it."""


@dataclass(frozen=True, eq=False)
class IdMap:
    """A vocabulary: index ↔ id, all integers or all strings, each once.

    Args:
        values: ``[n]`` Arrow array of int64 or string; position is the index.

    Raises:
        DataError: if an id is missing, repeated, or of another type.

    Example:
        >>> items = IdMap.of(["blue", "red"])
        >>> items.index_of(["red", "green"]).tolist()
        [1, -1]
        >>> items.ids_of([0])
        ['blue']
    """

    values: pa.Array

    def __post_init__(self) -> None:
        if not (pa.types.is_int64(self.values.type) or pa.types.is_string(self.values.type)):
            raise DataError(
                f"ids must be int64 or string, found {self.values.type}; cast them first."
            )
        if self.values.null_count:
            raise DataError(
                f"every id must be present, found {self.values.null_count} missing; drop or fill"
                " them."
            )
        n = len(self.values)
        repeated = n - pc.count_distinct(self.values).as_py() if n > 1 else 0
        if repeated:
            raise DataError(
                f"every id must occur once, found {repeated} repetitions; merge them first."
            )

    @classmethod
    def of(cls, ids: Iterable[Id] | np.ndarray | pa.Array) -> "IdMap":
        """Builds a vocabulary from ids in index order; floats and decimals that are all whole are
        integers, as pandas and databases hand them over.
        """
        values = ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(ids)
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        return cls(_own_kind(values))

    def __len__(self) -> int:
        return len(self.values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdMap) and bool(self.values.equals(other.values))

    __hash__ = None  # type: ignore[assignment]

    @property
    def are_integers(self) -> bool:
        """Whether the ids are integers (else strings)."""
        return bool(pa.types.is_int64(self.values.type))

    def index_of(self, ids: Iterable[Any] | np.ndarray | pa.Array) -> np.ndarray:
        """Looks ids up; ``"7"``, ``"7.0"`` and 7.0 find the integer 7, and 7 the string ``"7"``, as
        files do not keep the difference; ``"007"`` finds neither.

        Args:
            ids: ``[m]`` ids, known or not.

        Returns:
            ``[m]`` int64 indices, -1 where the id is not in the vocabulary.
        """
        wanted = self._as_own_type(ids)
        found = pc.index_in(wanted, value_set=self.values, skip_nulls=True)
        return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), dtype=np.int64)

    def index_of_few(self, ids: Iterable[Any] | np.ndarray | pa.Array) -> np.ndarray:
        """Looks up as `index_of` does, for a few ids at a time, again and again: by a hash table
        that is made at the first call and kept, some 100 bytes an id.
        """
        own, places = self._as_own_type(ids).to_pylist(), self._places
        return np.fromiter(map(places.get, own, repeat(-1)), np.int64, len(own))

    @cached_property
    def _places(self) -> dict[Id, int]:
        return {one: place for place, one in enumerate(self.values.to_pylist())}

    def ids_of(self, indices: Iterable[int] | np.ndarray) -> list[Id]:
        """The ids at ``[m]`` indices, as Python integers or strings."""
        ids: list[Id] = self.take(indices).to_pylist()
        return ids

    def take(self, indices: Iterable[int] | np.ndarray) -> pa.Array:
        """The ids at ``[m]`` indices, as an Arrow array."""
        return self.values.take(pa.array(np.asarray(indices, dtype=np.int64)))

    def _as_own_type(self, ids: Iterable[Any] | np.ndarray | pa.Array) -> pa.Array:
        wanted = ids if isinstance(ids, pa.Array | pa.ChunkedArray) else _to_arrow(ids)
        if isinstance(wanted, pa.ChunkedArray):
            wanted = wanted.combine_chunks()
        if wanted.type == self.values.type:
            return wanted
        if _may_be_fractions(wanted.type):
            wanted = _whole(wanted)
        if not self.are_integers:
            return wanted.cast(pa.string())
        whole_type = pa.types.is_integer(wanted.type) and not pa.types.is_uint64(wanted.type)
        if whole_type or pa.types.is_null(wanted.type):
            return wanted.cast(pa.int64())
        # As pandas writes integers beside a missing value.
        text = pc.replace_substring_regex(wanted.cast(pa.string()), r"^([^.]*)\.0+$", r"\1")
        # Nineteen digits fit 64 bits up to the largest int64; equally long digits compare as text
        # does.
        whole = pc.or_(
            pc.match_substring_regex(text, r"^(0|-?[1-9][0-9]{0,17})$"),
            pc.and_(
                pc.match_substring_regex(text, r"^[1-9][0-9]{18}$"),
                pc.less_equal(text, str(2**63 - 1)),
            ),
        )
        return pc.if_else(whole, text, pa.scalar(None, pa.string())).cast(pa.int64())


def _own_kind(ids: pa.Array) -> pa.Array:
    """Ids as a vocabulary keeps them, where they are of a kind that it can keep."""
    if ids.type in (pa.int64(), pa.string()):
        return ids
    if pa.types.is_integer(ids.type):
        return ids.cast(pa.int64())
    ids = whole_ids(ids)
    return ids.cast(pa.string()) if is_text(ids.type) or pa.types.is_null(ids.type) else ids


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of text: libraries differ in which they hand over."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def whole_ids(ids: pa.Array) -> pa.Array:
    """Floats and decimals that are all whole, or missing as NaN is, as integers; others as they
    are.

    Example:
        >>> whole_ids(pa.array([7.0, None])).to_pylist()
        [7, None]
    """
    if not _may_be_fractions(ids.type):
        return ids
    given = pc.sum(pc.is_valid(ids)).as_py() or 0
    if pa.types.is_floating(ids.type):
        given -= pc.sum(pc.is_nan(ids)).as_py() or 0
    whole = _whole(ids)
    return whole if len(whole) - whole.null_count == given else ids


def _may_be_fractions(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _whole(numbers: pa.Array) -> pa.Array:
    """Integers where the numbers are whole and fit, else null."""
    exact = pa.types.is_decimal(numbers.type)
    kind = pa.decimal128(38, numbers.type.scale) if exact else pa.float64()
    numbers, largest = numbers.cast(kind), 2**63 - 1 if exact else 2**53
    fits = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less_equal(pc.abs(numbers), largest))
    return pc.if_else(fits, numbers, pa.scalar(None, numbers.type)).cast(pa.int64())


def _to_arrow(ids: Iterable[Any]) -> pa.Array:
    listed = ids if isinstance(ids, np.ndarray) else list(ids)
    try:
        return pa.array(listed)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if one is None else str(one) for one in listed])
