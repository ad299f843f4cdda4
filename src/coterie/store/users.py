"""Users' ids as keys: whole numbers as they are, text as bytes of bounded length.

Bytes sort alike on every system, may hold any character, and fit into a B-tree's page.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from coterie.errors import DataError

Kind: TypeAlias = Literal["int", "text"]
Key: TypeAlias = int | bytes

# A key of PostgreSQL's index may have 2,704 bytes.
_LONGEST = 1000
# No text in UTF-8 begins with it.
_HASHED = b"\xff"
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")


def kind_of(users: pa.Array) -> Kind | None:
    """The kind of the ids in a column; None if there is none in it.

    Raises:
        DataError: if they are neither whole numbers nor text.
    """
    if pa.types.is_null(users.type) or users.null_count == len(users):
        return None
    if pa.types.is_integer(users.type):
        return "int"
    if pa.types.is_string(users.type) or pa.types.is_large_string(users.type):
        return "text"
    raise DataError(f"user_id must be whole numbers or text, found {users.type}; convert it.")


def user_keys(users: pa.Array, kind: Kind) -> pa.Array:
    """Keys of a column of ids: int64, or binary.

    Raises:
        DataError: if a whole number needs more than 64 bits.
    """
    if kind == "text":
        return _bounded(users.cast(pa.string()).cast(pa.binary()))
    try:
        return users.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"user_id must fit into 64 bits with a sign, found: {error}; make them text."
        ) from error


def _bounded(texts: pa.Array) -> pa.Array:
    if not len(texts) or pc.max(pc.binary_length(texts)).as_py() <= _LONGEST:
        return texts
    return pa.array([_short(one) for one in texts.to_pylist()], pa.binary())


def _short(text: bytes) -> bytes:
    """The text, or its hash behind a byte that marks it."""
    return text if len(text) <= _LONGEST else _HASHED + hashlib.sha256(text).digest()


def user_ids(keys: Sequence[Key], kind: Kind) -> pa.Array:
    """The ids of keys; null where an id was so long that its key is a hash.

    Example:
        >>> user_ids([b"ann", _short(b"x" * 2000)], "text").to_pylist()
        ['ann', None]
    """
    if kind == "int":
        return pa.array(keys, pa.int64())
    return pa.array([_text(one) for one in keys], pa.string())


def _text(key: Key) -> str | None:
    return None if isinstance(key, int) or key[:1] == _HASHED else key.decode()


def user_key(user_id: int | str, kind: Kind) -> Key | None:
    """The key of one id, or None if an edition with ids of this kind cannot have it.

    A whole number and its text are the same id: a request's path has only text.

    Example:
        >>> user_key("42", "int"), user_key(42, "text"), user_key("042", "int")
        (42, b'42', None)
    """
    if kind == "text":
        # What is not UTF-8 is nobody's id, yet may be asked for.
        return _short(str(user_id).encode("utf-8", "surrogatepass"))
    if isinstance(user_id, str):
        if not _WHOLE.fullmatch(user_id):
            return None
        user_id = int(user_id)
    return int(user_id) if -(2**63) <= user_id < 2**63 else None
