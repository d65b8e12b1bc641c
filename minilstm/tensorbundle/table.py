"""The sorted table, a map from ascending keys to values, both bytes: what an index file is, and a V1 file.

    data block, data block, ...    the keys and values
    metaindex block                empty
    index block                    for each data block a key at or after its last key, and the block's handle
    footer                         48 bytes: metaindex handle, index handle, zeros up to 40, 8 bytes of magic

A handle is varint(offset), varint(size). A block is, on disk, `size` bytes of contents, 1 byte of type (0 as is, 1
Snappy) and 4 bytes of masked CRC-32C of contents and type. What the contents of a block are is in `blocks`.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from typing import Protocol

from minilstm.tensorbundle import crc32c, snappy
from minilstm.tensorbundle.blocks import BlockBuilder, read_block, shared_length
from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.source import SourceFile
from minilstm.tensorbundle.varint import decode_varint, encode_varint

BLOCK_SIZE = 262144  # a block that has reached this size, in bytes, is complete
RESTART_INTERVAL = 16
TRAILER_SIZE = 5
FOOTER_SIZE = 48
MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_STORED, _SNAPPY = 0, 1
_KEY_BYTES, _KEY_FACTOR = 32 << 20, 32  # the keys in memory have at most 32 MiB plus 32 times the size of the file

Handle = tuple[int, int]  # offset and size of a block's contents


# Writing


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


def separate(last_key: bytes, next_key: bytes) -> bytes:
    """A key k, last_key <= k < next_key, short if that is easy: the index's key between two blocks."""
    place = shared_length(last_key, next_key)
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


class Table:
    """A table whose footer and index block have been read, and which is read on block by block.

    The file is passed to each method, so that it need not stay open.

    Raises
    ------
    CheckpointError
        From the constructor, if footer, metaindex block or index block are damaged; from a method, if a data block is.
        No block is larger than the file (a Snappy block: than 22 times the file).
    """

    def __init__(self, source: Source) -> None:
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
        for _ in _limited(source, _block_entries(source, metaindex, "metaindex block")):
            pass  # its entries are not used, but they must be sound
        self._separators: list[bytes] = []  # a key at or after the last key of each data block
        self._handles: list[Handle] = []
        free = 0  # data blocks follow one another, so each byte of the file is read once at most
        for separator, value in _limited(source, _block_entries(source, index, "index block")):
            handle, at = _decode_handle(value, 0, len(value))
            if at != len(value) or handle[0] < free:
                message = f"the index block has no proper handle for the data block before key {separator!r}"
                raise CheckpointError(message)
            free = handle[0] + handle[1] + TRAILER_SIZE
            self._separators.append(separator)
            self._handles.append(handle)
        self._found: tuple[int, dict[bytes, bytes]] = (-1, {})  # the block that `find` read last

    def items(self, source: Source) -> Iterator[tuple[bytes, bytes]]:
        """All keys and values, keys strictly ascending, one block in memory at a time."""
        for number in range(len(self._handles)):
            yield from self._data_block(source, number)

    def find(self, source: Source, key: bytes) -> bytes | None:
        """The value of a key, or None. The block it is in stays in memory until another one is needed."""
        number = bisect.bisect_left(self._separators, key)
        if number == len(self._separators):
            return None
        if self._found[0] != number:
            self._found = -1, {}  # not two blocks in memory
            self._found = number, dict(_limited(source, self._data_block(source, number)))
        return self._found[1].get(key)

    def _data_block(self, source: Source, number: int) -> Iterator[tuple[bytes, bytes]]:
        """The entries of one data block, which must be between its separators."""
        handle, last_key = self._handles[number], self._separators[number - 1] if number else None
        block = _block_entries(source, handle, f"data block at {handle[0]}")
        for place, (key, value) in enumerate(block):
            if last_key is not None and key <= last_key:
                if place:
                    raise CheckpointError(f"key {key!r} comes after key {last_key!r}")
                raise CheckpointError(f"key {key!r} is in the wrong data block: it comes after key {last_key!r}")
            if key > self._separators[number]:
                raise CheckpointError(f"key {key!r} is in the wrong data block")
            yield key, value
            last_key = key


def is_table(path: str) -> bool:
    """Whether a file ends as a table does: an index file, or a file of TensorFlow's first format."""
    with SourceFile(path) as file:
        return file.size >= FOOTER_SIZE and file.read_at(file.size - len(MAGIC), len(MAGIC)) == MAGIC


def read_table(source: Source) -> Iterator[tuple[bytes, bytes]]:
    """Read a table from beginning to end, everything checked on the way.

    Yields
    ------
    tuple of bytes
        Key and value, keys strictly ascending.

    Raises
    ------
    CheckpointError
        As soon as anything is wrong with the bytes; see `Table`.
    """
    return _limited(source, Table(source).items(source))


def _limited(source: Source, items: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """The same items, unless their keys, which share long beginnings, take little of the file and much memory."""
    budget = _KEY_BYTES + _KEY_FACTOR * source.size
    for key, value in items:
        budget -= len(key)
        if budget < 0:
            raise CheckpointError("its keys would fill more memory than the keys of any real index")
        yield key, value


def _block_entries(source: Source, handle: Handle, what: str) -> Iterator[tuple[bytes, bytes]]:
    return read_block(_block_contents(source, handle, what))


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
    found = crc32c.mask(crc32c.crc32c(memoryview(stored)[: size + 1]))
    if found != expected:
        raise CheckpointError(f"the {what} is damaged: stored checksum {expected:#010x}, computed {found:#010x}")
    if kind not in (_STORED, _SNAPPY):
        raise CheckpointError(f"the {what} is compressed in an unknown way ({kind})")
    return stored[:size] if kind == _STORED else snappy.decompress(stored[:size])
