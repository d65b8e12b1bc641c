"""The contents of one block of a sorted table: entries of ascending keys, which share their beginnings.

    entries          varint(shared), varint(unshared), varint(value length), unshared key bytes, value
    restart array    uint32 offsets of the entries that share nothing, then uint32, their number

where a key begins with the first `shared` bytes of the key before it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.varint import decode_varint, encode_varint


class BlockBuilder:
    """Collects entries, of ascending keys, into the contents of one block."""

    def __init__(self, restart_interval: int) -> None:
        self._interval = restart_interval
        self._entries = bytearray()
        self._restarts: list[int] = []
        self.count = 0
        self.last_key = b""

    def add(self, key: bytes, value: bytes) -> None:
        """Append an entry."""
        shared = 0
        if self.count % self._interval == 0:
            self._restarts.append(len(self._entries))
        else:
            shared = shared_length(self.last_key, key)
        for number in (shared, len(key) - shared, len(value)):
            self._entries += encode_varint(number)
        self._entries += key[shared:] + value
        self.count += 1
        self.last_key = key

    @property
    def size(self) -> int:
        """The size the contents would have now."""
        return len(self._entries) + 4 * len(self._restarts) + 4

    def contents(self) -> bytes:
        """The finished contents."""
        restarts = self._restarts or [0]  # the first restart is there even without entries
        return bytes(self._entries) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def shared_length(a: bytes, b: bytes) -> int:
    """How many bytes two keys have in common at their beginnings."""
    pairs = zip(a, b, strict=False)
    return next((place for place, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))


def read_block(contents: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Read the entries of a block.

    Yields
    ------
    tuple of bytes
        Key and value. Whether keys ascend is for the caller to judge.

    Raises
    ------
    CheckpointError
        If an entry or the restart array is not as it should be.
    """
    count = int.from_bytes(contents[-4:], "little") if len(contents) >= 8 else 0
    end = len(contents) - 4 - 4 * count
    if not count or end < 0:
        raise CheckpointError("a block without room for its restart array")
    restarts = struct.unpack_from(f"<{count}I", contents, end)
    if restarts[0] != 0 or any(a >= b for a, b in pairwise(restarts)):
        raise CheckpointError("a restart array that does not ascend from zero")

    at, key, unmet = 0, b"", set(restarts)
    while at < end:
        is_restart = at in unmet
        unmet.discard(at)
        shared, at = decode_varint(contents, at, end)
        unshared, at = decode_varint(contents, at, end)
        length, at = decode_varint(contents, at, end)
        if shared > len(key) or (is_restart and shared):
            raise CheckpointError(f"a key that shares {shared} bytes with one of {len(key)}")
        if unshared + length > end - at:
            raise CheckpointError("an entry that runs over the end of its block")
        key = key[:shared] + contents[at : at + unshared]
        at += unshared
        yield key, contents[at : at + length]
        at += length
    if unmet and (end or count > 1):  # the one restart of a block without entries is at no entry
        raise CheckpointError("a restart that is at no entry")
