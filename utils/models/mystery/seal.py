"""Keep a record out of sight: compressed, padded to one length, and masked with a key that lies next to it.

This is an envelope, not a lock. It keeps the truth from being read by accident: by ``grep``, by looking into a file, by
its size. The key is a digest of the model's weights, so whoever reads this module can open every seal, and so can every
grader. Where the truth has to stay secret, make a pool whose truth stays with you (``make --truths``).
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

SIZE = 8192
DIGEST, LENGTH = 32, 4


def seal(record: Mapping[str, Any], key: bytes) -> bytes:
    """Mask a JSON record.

    Returns:
        ``SIZE`` bytes, whatever the record.

    Raises:
        ValueError: if the record is too long.
    """
    text = zlib.compress(json.dumps(record).encode(), 9)
    room = SIZE - DIGEST - LENGTH
    if len(text) > room:
        raise ValueError(f"The record has {len(text)} bytes after compression; {room} fit.")
    plain = len(text).to_bytes(LENGTH, "big") + text + bytes(room - len(text))
    return hashlib.sha256(key + plain).digest() + _mask(plain, key)


def open_seal(sealed: bytes, key: bytes) -> dict[str, Any]:
    """The record under a mask.

    Raises:
        ValueError: if the bytes were changed, or belong to another key.
    """
    plain = _mask(sealed[DIGEST:], key)
    if hashlib.sha256(key + plain).digest() != sealed[:DIGEST]:
        raise ValueError("This seal does not belong to these weights, or one of the two files is damaged.")
    length = int.from_bytes(plain[:LENGTH], "big")
    return json.loads(zlib.decompress(plain[LENGTH : LENGTH + length]))


def _mask(data: bytes, key: bytes) -> bytes:
    """XOR with SHA-256 of the key and a counter. Twice the same mask gives the data back."""
    blocks = range(-(-len(data) // DIGEST))
    stream = b"".join(hashlib.sha256(key + block.to_bytes(8, "big")).digest() for block in blocks)
    return bytes(a ^ b for a, b in zip(data, stream, strict=False))
