"""Fingerprints: what identifies content whatever file it is in."""

import hashlib
from collections.abc import Iterable


def fingerprint_of(parts: Iterable[tuple[str, bytes | memoryview]]) -> str:
    """Hex SHA-256 over named parts; names, lengths and order count.

    Args:
        parts: A name and contiguous bytes each.

    Example:
        >>> one = fingerprint_of([("ids", b"12"), ("weights", b"3")])
        >>> one == fingerprint_of([("ids", b"1"), ("weights", b"23")])
        False
    """
    digest = hashlib.sha256()
    for name, content in parts:
        for piece in (memoryview(name.encode()), memoryview(content)):
            digest.update(piece.nbytes.to_bytes(8, "little"))
            digest.update(piece)
    return digest.hexdigest()
