"""The sorted table: the index file's container, a map from ascending keys to values, both bytes.

    data block, data block, ...    the keys and values
    metaindex block                empty
    index block                    for each data block a key at or after its last key, and the block's handle
    footer                         48 bytes: metaindex handle, index handle, zeros up to 40, 8 bytes of magic

A handle is varint(offset), varint(size). A block is, on disk, `size` bytes of contents, 1 byte of type (0 as is, 1
Snappy) and 4 bytes of masked CRC-32C of contents and type. Its contents are

    entries                        varint(shared), varint(unshared), varint(value length), unshared key bytes, value
    restart array                  uint32 offsets of the entries that share nothing, then uint32, their number

where a key begins with the first `shared` bytes of the key before it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Protocol

from minilstm.tensorbundle import crc32c, snappy
from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.varint import decode_varint, encode_varint

BLOCK_SIZE = 262144  # a block that has reached this size, in bytes, is complete
RESTART_INTERVAL = 16
TRAILER_SIZE = 5
FOOTER_SIZE = 48
MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_STORED, _SNAPPY = 0, 1
_KEY_BYTES, _KEY_FACTOR = 32 << 20, 32  # all keys together have at most 32 MiB plus 32 times the size of the file

Handle = tuple[int, int]  # offset and size of a block's contents


# Writing


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
            shared = _shared_length(self.last_key, key)
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


def encode_table(items: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The bytes of a table; the keys must ascend."""
    output, index, block = bytearray(), BlockBuilder(1), BlockBuilder(RESTART_INTERVAL)
    for key, value in items:
        if block.size >= BLOCK_SIZE:
            index.add(separate(block.last_key, key), _encode_handle(_append_block(output, block)))
            block = BlockBuilder(RESTART_INTERVAL)
        block.add(key, value)
    if block.count:
        index.add(successor(block.last_key), _encode_handle(_append_block(output, block)))
    metaindex_handle, index_handle = _append_block(output, BlockBuilder(1)), _append_block(output, index)
    return bytes(output) + _footer(metaindex_handle, index_handle)


def _append_block(output: bytearray, block: BlockBuilder) -> Handle:
    stored = block.contents() + bytes([_STORED])
    handle = len(output), len(stored) - 1
    output += stored + crc32c.mask(crc32c.crc32c(stored)).to_bytes(4, "little")
    return handle


def _shared_length(a: bytes, b: bytes) -> int:
    pairs = zip(a, b, strict=False)
    return next((place for place, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))


def separate(last_key: bytes, next_key: bytes) -> bytes:
    """A key k, last_key <= k < next_key, short if that is easy: the index's key between two blocks."""
    place = _shared_length(last_key, next_key)
    if place < min(len(last_key), len(next_key)) and last_key[place] + 1 < next_key[place]:
        return last_key[:place] + bytes([last_key[place] + 1])
    return last_key


def successor(last_key: bytes) -> bytes:
    """A short key at or after `last_key`: the index's key after the last block."""
    for place, octet in enumerate(last_key):
        if octet != 0xFF:
            return last_key[:place] + bytes([octet + 1])
    return last_key


def _footer(metaindex: Handle, index: Handle) -> bytes:
    handles = _encode_handle(metaindex) + _encode_handle(index)
    return handles.ljust(FOOTER_SIZE - len(MAGIC), b"\0") + MAGIC


def _encode_handle(handle: Handle) -> bytes:
    return encode_varint(handle[0]) + encode_varint(handle[1])


# Reading


class Source(Protocol):
    """A file to read from, in pieces."""

    size: int

    def read_at(self, offset: int, size: int) -> bytes:
        """Read `size` bytes; CheckpointError if they are not there."""


def read_table(source: Source) -> Iterator[tuple[bytes, bytes]]:
    """Read a table from beginning to end, everything checked on the way.

    Yields
    ------
    tuple of bytes
        Key and value, keys strictly ascending.

    Raises
    ------
    CheckpointError
        As soon as anything is wrong with the bytes. Only one block is in memory at a time, and no block is larger than
        the file (a Snappy block: than 22 times the file).
    """
    if source.size < FOOTER_SIZE:
        raise CheckpointError(f"{source.size} bytes are too few for an index: the file is truncated")
    footer = source.read_at(source.size - FOOTER_SIZE, FOOTER_SIZE)
    if footer[-len(MAGIC) :] != MAGIC:
        raise CheckpointError("it does not end as an index does: truncated, overgrown, or another kind of file")
    end = FOOTER_SIZE - len(MAGIC)
    metaindex, at = _decode_handle(footer, 0, end)
    index, _ = _decode_handle(footer, at, end)
    if footer != _footer(metaindex, index):  # numbers in more bytes than they need, or padding that is not zero
        raise CheckpointError("the footer is not written as footers are: it is damaged")

    # Keys that share long beginnings take little room in the file and much in memory.
    budget = _KEY_BYTES + _KEY_FACTOR * source.size

    def entries(handle: Handle, what: str) -> Iterator[tuple[bytes, bytes]]:
        nonlocal budget
        for key, value in read_block(_block_contents(source, handle, what)):
            budget -= len(key)
            if budget < 0:
                raise CheckpointError("its keys would fill more memory than the keys of any real index")
            yield key, value

    for _ in entries(metaindex, "metaindex block"):
        pass  # its entries are not used, but they must be sound
    previous_separator: bytes | None = None
    last_key: bytes | None = None
    free = 0  # data blocks follow one another, so each byte of the file is read once at most
    for separator, value in entries(index, "index block"):
        handle, at = _decode_handle(value, 0, len(value))
        if at != len(value) or handle[0] < free:
            raise CheckpointError(f"the index block has no proper handle for the data block before key {separator!r}")
        free = handle[0] + handle[1] + TRAILER_SIZE
        for key, entry in entries(handle, f"data block at {handle[0]}"):
            if last_key is not None and key <= last_key:
                raise CheckpointError(f"key {key!r} comes after key {last_key!r}")
            if key > separator or (previous_separator is not None and key <= previous_separator):
                raise CheckpointError(f"key {key!r} is in the wrong data block")
            yield key, entry
            last_key = key
        previous_separator = separator


def _decode_handle(data: bytes, at: int, end: int) -> tuple[Handle, int]:
    offset, at = decode_varint(data, at, end)
    size, at = decode_varint(data, at, end)
    return (offset, size), at


def _block_contents(source: Source, handle: Handle, what: str) -> bytes:
    offset, size = handle
    if offset + size + TRAILER_SIZE > source.size - FOOTER_SIZE:
        raise CheckpointError(f"the {what} ({size} bytes at {offset}) does not fit into {source.size} bytes")
    stored = source.read_at(offset, size + TRAILER_SIZE)
    kind, expected = stored[size], int.from_bytes(stored[size + 1 :], "little")
    found = crc32c.mask(crc32c.crc32c(stored[: size + 1]))
    if found != expected:
        raise CheckpointError(f"the {what} is damaged: stored checksum {expected:#010x}, computed {found:#010x}")
    if kind not in (_STORED, _SNAPPY):
        raise CheckpointError(f"the {what} is compressed in an unknown way ({kind})")
    return stored[:size] if kind == _STORED else snappy.decompress(stored[:size])


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
