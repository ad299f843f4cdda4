"""Interactions in memory: what people hand over in place of a path.

pandas, polars, Arrow and DuckDB all hand their rows over through the Arrow PyCapsule interface, so
none of them is imported here. A matrix and pairs become an Arrow table.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeGuard

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array, issparse

from coterie.data.ids import Id, IdMap
from coterie.errors import ConfigError, DataError


class ArrowTable(Protocol):
    """Whatever hands over its rows as a stream of Arrow batches."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """A PyCapsule with the stream."""
        ...


_ROW = ("user_id", "item_id", "rating", "timestamp")


def hands_over_arrow(source: Any) -> TypeGuard[ArrowTable]:
    """Whether an object has the Arrow PyCapsule interface of streams."""
    return hasattr(source, "__arrow_c_stream__")


def is_matrix(source: Any) -> TypeGuard[Any]:
    """Whether an object is a SciPy matrix or array."""
    return bool(issparse(source))


def matrix_table(
    matrix: Any,
    user_ids: Sequence[Id] | IdMap | None = None,
    item_ids: Sequence[Id] | IdMap | None = None,
) -> pa.Table:
    """The stored entries of a matrix as rows (user_id, item_id, rating).

    Args:
        matrix: ``[n_users, n_items]`` SciPy matrix or array; entries stored as 0 are kept.
        user_ids: ``[n_users]`` ids of its rows; their numbers if None.
        item_ids: ``[n_items]`` ids of its columns; their numbers if None.

    Raises:
        DataError: if there are not as many ids as rows or columns.

    Example:
        >>> from scipy.sparse import csr_array
        >>> matrix_table(csr_array([[0, 2], [1, 0]]), item_ids=["blue", "red"]).to_pydict()
        {'user_id': [0, 1], 'item_id': ['red', 'blue'], 'rating': [2.0, 1.0]}
    """
    entries = coo_array(matrix)
    row, column = (np.asarray(one, dtype=np.int64) for one in entries.coords)
    return pa.table(
        {
            "user_id": _named(row, user_ids, entries.shape[0], "user_ids"),
            "item_id": _named(column, item_ids, entries.shape[1], "item_ids"),
            "rating": np.asarray(entries.data, dtype=np.float64),
        }
    )


def _named(
    places: np.ndarray, ids: Sequence[Id] | IdMap | None, n: int, name: str
) -> pa.Array | np.ndarray:
    if ids is None:
        return places
    known = ids if isinstance(ids, IdMap) else IdMap.of(ids)
    if len(known) != n:
        raise DataError(f"{name} must hold {n} ids, found {len(known)}; give one for each.")
    return known.take(places)


def pairs_table(pairs: Iterable[Sequence[Any]]) -> pa.Table:
    """Rows (user, item[, rating[, timestamp]]) as a table with those names.

    Raises:
        ConfigError: if the rows are no such tuples, or differ in length.

    Example:
        >>> pairs_table([("ann", 7, 4.5), ("bob", 8, 3)]).to_pydict()
        {'user_id': ['ann', 'bob'], 'item_id': [7, 8], 'rating': [4.5, 3.0]}
    """
    rows = list(pairs) if isinstance(pairs, Iterable) else [pairs]
    lengths = {len(row) if isinstance(row, tuple | list) else 0 for row in rows}
    if not rows or len(lengths) != 1 or not lengths <= {2, 3, 4}:
        found = repr(next((row for row in rows if not isinstance(row, tuple | list)), rows[:1]))
        raise ConfigError(
            "a source must be a path, several paths, a table that hands over Arrow (pandas, polars,"
            " pyarrow, DuckDB), a SciPy matrix, or pairs (user, item[, rating[, timestamp]]), found"
            f" {found[:80]}; give one of them."
        )
    columns = dict(zip(_ROW, zip(*rows, strict=True), strict=False))
    arrays = {name: _ids(values) for name, values in list(columns.items())[:2]}
    arrays |= {name: pa.array(values) for name, values in list(columns.items())[2:]}
    return pa.table(arrays)


def _ids(values: Sequence[Any]) -> pa.Array:
    """Integers if all are, else text."""
    if all(isinstance(one, int | np.integer) for one in values):
        return pa.array([int(one) for one in values], pa.int64())
    return pa.array([None if one is None else str(one) for one in values], pa.string())
