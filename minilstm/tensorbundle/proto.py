"""The protocol-buffer messages in the values of an index: the header and the entries.

On the wire a message is a row of fields, each a tag (field number << 3 | wire type) and a value:

    wire type 0    a varint                                  int64, int32, enum
    wire type 2    a varint length, and that many bytes      messages
    wire type 5    4 bytes, little-endian                    fixed32

The messages, with their field numbers:

    Header    1 num_shards   2 endianness   3 version {1 producer  2 min_consumer  3 bad_consumers, repeated}
    Entry     1 dtype   2 shape   3 shard_id   4 offset   5 size   6 crc32c (fixed32, masked)   7 slices, repeated
    Shape     2 dim {1 size}, repeated
    Slice     1 extent {1 start  2 length}, repeated; an extent without length is the whole dimension

They are written as proto3 does: fields ascending, zeros left out, messages present even if empty. They are read in any
order, with zeros spelled out and with unknown fields; a known field of another wire type is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.varint import decode_varint, encode_varint

Extent = tuple[int, "int | None"]  # start and length along one dimension; length None: the whole dimension
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Header(NamedTuple):
    """What the index says about the whole checkpoint."""

    num_shards: int = 0
    endianness: int = 0  # 0 little, 1 big
    producer: int = 0
    min_consumer: int = 0
    bad_consumers: tuple[int, ...] = ()


class Entry(NamedTuple):
    """What the index says about one tensor, or about one part of a partitioned one."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard_id: int = 0
    offset: int = 0
    size: int = 0
    crc32c: int = 0  # masked, as stored
    slices: tuple[tuple[Extent, ...], ...] = ()


# Writing


def _integer(field: int, number: int) -> bytes:
    return encode_varint(field << 3 | _VARINT) + encode_varint(number) if number else b""


def _message(field: int, content: bytes) -> bytes:
    return encode_varint(field << 3 | _BYTES) + encode_varint(len(content)) + content


def encode_header(header: Header) -> bytes:
    """The bytes of a header; TensorFlow's own has ``num_shards=1, producer=1``."""
    version = _integer(1, header.producer) + _integer(2, header.min_consumer)
    if header.bad_consumers:
        version += _message(3, b"".join(encode_varint(number) for number in header.bad_consumers))
    return _integer(1, header.num_shards) + _integer(2, header.endianness) + _message(3, version)


def encode_entry(entry: Entry) -> bytes:
    """The bytes of an entry."""
    shape = b"".join(_message(2, _integer(1, size)) for size in entry.shape)
    checksum = encode_varint(6 << 3 | _FIXED32) + entry.crc32c.to_bytes(4, "little") if entry.crc32c else b""
    return b"".join(
        [
            _integer(1, entry.dtype),
            _message(2, shape),
            _integer(3, entry.shard_id),
            _integer(4, entry.offset),
            _integer(5, entry.size),
            checksum,
            *(_message(7, _encode_slice(extents)) for extents in entry.slices),
        ]
    )


def _encode_slice(extents: Iterable[Extent]) -> bytes:
    encoded = b""
    for start, length in extents:
        # A length is a field that is there or not, so a length of 0 is written; a start of 0 is not.
        size = b"" if length is None else encode_varint(2 << 3 | _VARINT) + encode_varint(length)
        encoded += _message(1, _integer(1, start) + size)
    return encoded


# Reading


def _fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Every field of a message: its number, wire type, and value."""
    at, end = 0, len(data)
    while at < end:
        tag, at = decode_varint(data, at, end)
        field, wire_type = tag >> 3, tag & 7
        if not 0 < field < 1 << 29:
            raise CheckpointError(f"a field with number {field}")
        if wire_type == _VARINT:
            number, at = decode_varint(data, at, end)
            yield field, wire_type, number
            continue
        if wire_type == _BYTES:
            size, at = decode_varint(data, at, end)
        elif wire_type in (_FIXED32, _FIXED64):
            size = 4 if wire_type == _FIXED32 else 8
        else:
            raise CheckpointError(f"a field of wire type {wire_type}")
        if size > end - at:
            raise CheckpointError("a field runs over the end of its message")
        yield field, wire_type, data[at : at + size]
        at += size


class _Field:
    """One field of a message being read, taken as what it should be."""

    def __init__(self, wire_type: int, value: int | bytes) -> None:
        self.wire_type = wire_type
        self.value = value

    def signed(self, bits: int) -> int:
        """An integer of `bits` bits, which went into the file as 64-bit two's complement."""
        if not isinstance(self.value, int):
            raise CheckpointError("a field holds bytes where an integer belongs")
        number = self.value - (1 << 64) if self.value >> 63 else self.value
        if not -(1 << bits - 1) <= number < 1 << bits - 1:
            raise CheckpointError(f"{number} in a field of {bits} bits")
        return number

    def message(self) -> bytes:
        if self.wire_type != _BYTES or not isinstance(self.value, bytes):
            raise CheckpointError("a field holds a number where a message belongs")
        return self.value

    def fixed32(self) -> int:
        if self.wire_type != _FIXED32 or not isinstance(self.value, bytes):
            raise CheckpointError("a checksum that is not stored as four bytes")
        return int.from_bytes(self.value, "little")


def _parse(data: bytes) -> Iterator[tuple[int, _Field]]:
    for number, wire_type, value in _fields(data):
        yield number, _Field(wire_type, value)


def decode_header(data: bytes) -> Header:
    """Read a header.

    Raises
    ------
    CheckpointError
        If the bytes are not one. What the numbers mean is for the caller to judge.
    """
    num_shards = endianness = producer = min_consumer = 0
    bad_consumers: list[int] = []
    for number, field in _parse(data):
        if number == 1:
            num_shards = field.signed(32)
        elif number == 2:
            endianness = field.signed(32)
        elif number == 3:
            for part, inner in _parse(field.message()):
                if part == 1:
                    producer = inner.signed(32)
                elif part == 2:
                    min_consumer = inner.signed(32)
                elif part == 3:
                    bad_consumers += _repeated_integers(inner)
    return Header(num_shards, endianness, producer, min_consumer, tuple(bad_consumers))


def _repeated_integers(field: _Field) -> list[int]:
    """Repeated integers, either one a field or packed into one."""
    if field.wire_type == _VARINT:
        return [field.signed(32)]
    packed, at, numbers = field.message(), 0, []
    while at < len(packed):
        number, at = decode_varint(packed, at, len(packed))
        numbers.append(_Field(_VARINT, number).signed(32))
    return numbers


def decode_entry(data: bytes) -> Entry:
    """Read an entry.

    Raises
    ------
    CheckpointError
        If the bytes are not one. What the numbers mean is for the caller to judge.
    """
    dtype = shard_id = offset = size = crc = 0
    shape: list[int] = []
    slices: list[tuple[Extent, ...]] = []
    for number, field in _parse(data):
        if number == 1:
            dtype = field.signed(32)
        elif number == 2:
            shape += _decode_shape(field.message())  # a message given twice is merged
        elif number == 3:
            shard_id = field.signed(32)
        elif number == 4:
            offset = field.signed(64)
        elif number == 5:
            size = field.signed(64)
        elif number == 6:
            crc = field.fixed32()
        elif number == 7:
            slices.append(_decode_slice(field.message()))
    return Entry(dtype, tuple(shape), shard_id, offset, size, crc, tuple(slices))


def _decode_shape(data: bytes) -> list[int]:
    shape = []
    for number, field in _parse(data):
        if number == 2:
            size = 0
            for part, inner in _parse(field.message()):
                if part == 1:
                    size = inner.signed(64)
            shape.append(size)
        elif number == 3 and field.signed(64):
            raise CheckpointError("a shape of unknown rank")
    return shape


def _decode_slice(data: bytes) -> tuple[Extent, ...]:
    extents: list[Extent] = []
    for number, field in _parse(data):
        if number == 1:
            start, length = 0, None
            for part, inner in _parse(field.message()):
                if part == 1:
                    start = inner.signed(64)
                elif part == 2:
                    length = inner.signed(64)
            extents.append((start, length))
    return tuple(extents)
