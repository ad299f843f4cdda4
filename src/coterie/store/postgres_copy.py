"""Lists as PostgreSQL's binary COPY reads them, built by Arrow a column at a time.

A row is the number of its fields, then each field's length in bytes and its bytes, all big-endian
(the manual's chapter on COPY). What is in the packed arrays is ours, and little-endian.
"""

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from coterie.store.packing import PackedLists

HEAD = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
TAIL = struct.pack(">h", -1)
_FIELDS = struct.pack(">h", 5)
_BIGINT, _SMALLINT = (struct.pack(">i", n_bytes) for n_bytes in (8, 2))


def copy_bytes(block: PackedLists) -> memoryview:
    """The rows (user_id, row, source, items, scores) of a block.

    Example:
        >>> users, blobs = pa.array([7]), pa.array([b"ab"])
        >>> zero = np.zeros(1, np.int16)
        >>> bytes(copy_bytes(PackedLists(users, zero, zero, blobs, blobs)))[:14].hex(" ", 2)
        '0005 0000 0008 0000 0000 0000 0007'
    """
    users = (
        (_BIGINT, _fixed(block.users.to_numpy().astype(">i8")))
        if pa.types.is_int64(block.users.type)
        else _measured(block.users)
    )
    rows = pc.binary_join_element_wise(
        _FIELDS,
        *users,
        _SMALLINT,
        _fixed(block.rows.astype(">i2")),
        _SMALLINT,
        _fixed(block.sources.astype(">i2")),
        *_measured(block.items),
        *_measured(block.scores),
        b"",
    )
    return _bytes_of(rows)


def _fixed(values: NDArray[Any]) -> pa.Array:
    """Numbers → the bytes of each."""
    ends = np.arange(len(values) + 1, dtype=np.int32) * values.itemsize
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.binary(), len(values), buffers)


def _measured(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    return _fixed(pc.binary_length(values).to_numpy().astype(">i4")), values


def _bytes_of(joined: pa.Array) -> memoryview:
    """All values, one behind the other, not copied."""
    _, ends, values = joined.buffers()
    first, last = np.frombuffer(ends, np.int32)[[joined.offset, joined.offset + len(joined)]]
    return memoryview(values)[first:last]
