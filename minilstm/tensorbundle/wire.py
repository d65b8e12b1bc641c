"""Protocol buffers as bytes: a message is a row of fields, each a tag (field number << 3 | wire type) and a value.

    wire type 0    a varint                                  int64, int32, enum, bool
    wire type 1    8 bytes                                   double, if it is not packed
    wire type 2    a varint length, and that many bytes      messages, texts, packed integers
    wire type 5    4 bytes, little-endian                    fixed32

The functions write single fields, to be joined in ascending order. `Message` reads fields in any order and ignores
fields that no method is called for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.varint import decode_varint, encode_varint

Buffer: TypeAlias = "bytes | memoryview"

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_SIZES = {FIXED64: 8, FIXED32: 4}
_OTHER_THAN = {
    VARINT: "bytes where an integer belongs",
    BYTES: "a number where a message belongs",
    FIXED32: "a number that is not stored as four bytes",
}


# Writing


def integer(field: int, number: int, *, write_zero: bool = False) -> bytes:
    """A field that holds an integer. A zero is left out, as proto3 does, unless `write_zero` is true.

    >>> integer(4, 300).hex(" "), integer(4, 0)
    ('20 ac 02', b'')
    """
    return encode_varint(field << 3 | VARINT) + encode_varint(number) if number or write_zero else b""


def fixed32(field: int, number: int) -> bytes:
    """A field that holds 32 bits as four bytes. A zero is left out."""
    return encode_varint(field << 3 | FIXED32) + number.to_bytes(4, "little") if number else b""


def message(field: int, content: bytes) -> bytes:
    """A field that holds a message or a text. It is written even if it is empty."""
    return encode_varint(field << 3 | BYTES) + encode_varint(len(content)) + content


# Reading


class Message:
    """The fields of a message, each taken as what the caller says it holds.

    A field that is absent reads as 0 or empty. If a single number occurs twice, the last one counts; a message that
    occurs twice is merged, which is why a message may be made of several `parts`.

    Raises
    ------
    CheckpointError
        From the constructor, if the bytes are no fields; from a method, if a field has another wire type.
    """

    def __init__(self, *parts: Buffer) -> None:
        self._found: dict[int, list[tuple[int, int | Buffer]]] = {}  # field number -> wire types and values
        for part in parts:
            for field, wire_type, value in fields(part):
                self._found.setdefault(field, []).append((wire_type, value))

    def __contains__(self, field: int) -> bool:
        return field in self._found

    def _values(self, field: int, wanted: int) -> list[Any]:
        values = []
        for wire_type, value in self._found.get(field, []):
            if wire_type != wanted:
                raise CheckpointError(f"a field holds {_OTHER_THAN[wanted]}")
            values.append(value)
        return values

    def integer(self, field: int, bits: int = 64) -> int:
        """A signed integer of `bits` bits."""
        numbers = [_signed(value, bits) for value in self._values(field, VARINT)]
        return numbers[-1] if numbers else 0

    def integers(self, field: int, bits: int = 64) -> list[int]:
        """Repeated signed integers, either one in each field or several packed into one."""
        numbers = []
        for wire_type, value in self._found.get(field, []):
            content = encode_varint(value) if isinstance(value, int) else value
            if wire_type not in (VARINT, BYTES):
                raise CheckpointError(f"a field holds {_OTHER_THAN[VARINT]}")
            at = 0
            while at < len(content):
                number, at = decode_varint(content, at, len(content))
                numbers.append(_signed(number, bits))
        return numbers

    def fixed32(self, field: int) -> int:
        """An unsigned integer of four bytes."""
        return int.from_bytes((self._values(field, FIXED32) or [b""])[-1], "little")

    def text(self, field: int) -> bytes:
        """The bytes of a text."""
        return bytes(self.last(field))

    def last(self, field: int) -> Buffer:
        """The bytes of a text or of a message, not copied; of the last one, if it occurs twice."""
        content: Buffer = (self._values(field, BYTES) or [b""])[-1]
        return content

    def message(self, field: int) -> Message:
        """A message that is there once."""
        return Message(*self._values(field, BYTES))

    def messages(self, field: int) -> list[Message]:
        """Repeated messages."""
        return [Message(content) for content in self._values(field, BYTES)]


def each_message(data: Buffer, wanted: int) -> Iterator[Message]:
    """Repeated messages in a field, one after the other: as `Message.messages`, without all in memory at once."""
    for field, wire_type, value in fields(data):
        if field == wanted and (wire_type != BYTES or isinstance(value, int)):
            raise CheckpointError(f"a field holds {_OTHER_THAN[BYTES]}")
        if field == wanted:
            yield Message(value)  # type: ignore[arg-type]  # bytes, as was just made sure


def fields(data: Buffer) -> Iterator[tuple[int, int, int | Buffer]]:
    """Every field of a message: its number, its wire type and its value; bytes are of the type of `data`."""
    at, end = 0, len(data)
    while at < end:
        tag, at = decode_varint(data, at, end)
        field, wire_type = tag >> 3, tag & 7
        if not 0 < field < 1 << 29:
            raise CheckpointError(f"a field with number {field}")
        if wire_type in _SIZES:
            size = _SIZES[wire_type]
        elif wire_type in (VARINT, BYTES):
            size, at = decode_varint(data, at, end)
        else:
            raise CheckpointError(f"a field of wire type {wire_type}")
        if wire_type == VARINT:
            yield field, wire_type, size
            continue
        if size > end - at:
            raise CheckpointError("a field runs over the end of its message")
        yield field, wire_type, data[at : at + size]
        at += size


def _signed(number: int, bits: int) -> int:
    """An integer of `bits` bits, which is stored as the two's complement of 64."""
    signed = number - (1 << 64) if number >> 63 else number
    if not -(1 << bits - 1) <= signed < 1 << bits - 1:
        raise CheckpointError(f"{signed} in a field of {bits} bits")
    return signed
