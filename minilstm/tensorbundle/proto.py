"""The protocol-buffer messages in the values of an index: the header and the entries.

Those of a V1 file are in `slice_proto`; some are parts of both. The messages, with their field numbers:

    Header    1 num_shards   2 endianness   3 version
    Entry     1 dtype   2 shape   3 shard_id   4 offset   5 size   6 crc32c (fixed32, masked)   7 slices, repeated
    Version   1 producer   2 min_consumer   3 bad_consumers, repeated
    Shape     2 dim {1 size}, repeated   3 unknown_rank
    Slice     1 extent {1 start  2 length}, repeated; an extent without length is the whole dimension

How fields become bytes is in `wire`.
"""

from __future__ import annotations

from typing import NamedTuple

from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.varint import encode_varint
from minilstm.tensorbundle.wire import Message, fixed32, integer, message

Extent = tuple[int, "int | None"]  # start and length along one dimension; length None: the whole dimension


class Header(NamedTuple):
    """What the index says about the whole checkpoint."""

    num_shards: int = 0
    endianness: int = 0  # 0 little, 1 big
    producer: int = 0
    min_consumer: int = 0
    bad_consumers: tuple[int, ...] = ()


class Entry(NamedTuple):
    """What the index says about one tensor, or about one part of a partitioned tensor."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard_id: int = 0
    offset: int = 0
    size: int = 0
    crc32c: int = 0  # masked, as stored
    slices: tuple[tuple[Extent, ...], ...] = ()


def encode_header(header: Header) -> bytes:
    """The bytes of a header; TensorFlow's own has ``num_shards=1, producer=1``."""
    version = integer(1, header.producer) + integer(2, header.min_consumer)
    if header.bad_consumers:
        version += message(3, b"".join(encode_varint(number) for number in header.bad_consumers))
    return integer(1, header.num_shards) + integer(2, header.endianness) + message(3, version)


def decode_header(data: bytes) -> Header:
    """Read a header.

    Raises
    ------
    CheckpointError
        If the bytes are not a header. What the numbers mean is for the caller to judge.
    """
    header = Message(data)
    return Header(header.integer(1, 32), header.integer(2, 32), *decode_version(header.message(3)))


def decode_version(version: Message) -> tuple[int, int, tuple[int, ...]]:
    """The producer, the least consumer and the bad consumers of a version."""
    return version.integer(1, 32), version.integer(2, 32), tuple(version.integers(3, 32))


def encode_entry(entry: Entry) -> bytes:
    """The bytes of an entry."""
    shape = b"".join(message(2, integer(1, size)) for size in entry.shape)
    return b"".join(
        [
            integer(1, entry.dtype),
            message(2, shape),
            integer(3, entry.shard_id),
            integer(4, entry.offset),
            integer(5, entry.size),
            fixed32(6, entry.crc32c),
            *(message(7, b"".join(_encode_extent(*extent) for extent in extents)) for extents in entry.slices),
        ]
    )


def _encode_extent(start: int, length: int | None) -> bytes:
    # A length of 0 is written: without the field, the extent would be the whole dimension.
    return message(1, integer(1, start) + (b"" if length is None else integer(2, length, write_zero=True)))


def decode_entry(data: bytes) -> Entry:
    """Read an entry.

    Raises
    ------
    CheckpointError
        If the bytes are not an entry. What the numbers mean is for the caller to judge.
    """
    entry = Message(data)
    return Entry(
        dtype=entry.integer(1, 32),
        shape=decode_shape(entry.message(2)),
        shard_id=entry.integer(3, 32),
        offset=entry.integer(4),
        size=entry.integer(5),
        crc32c=entry.fixed32(6),
        slices=tuple(decode_extents(part) for part in entry.messages(7)),
    )


def decode_shape(shape: Message) -> tuple[int, ...]:
    """The sizes of a shape's dimensions; CheckpointError if their number is not known."""
    if shape.integer(3):
        raise CheckpointError("a shape of unknown rank")
    return tuple(dimension.integer(1) for dimension in shape.messages(2))


def decode_extents(part: Message) -> tuple[Extent, ...]:
    """The extents of a slice."""
    return tuple((extent.integer(1), extent.integer(2) if 2 in extent else None) for extent in part.messages(1))
