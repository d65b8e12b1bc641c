"""Raw Snappy, decompression only: some index files hold compressed blocks, but minilstm never writes one.

A compressed block is the varint of its uncompressed length, then elements. The low two bits of an element's first byte,
the tag, say what it is:

    0  literal    length (tag >> 2) + 1; for tag >> 2 = 60..63, length - 1 is in the next 1..4 bytes
    1  copy       length 4 + (tag >> 2 & 7), offset (tag >> 5) << 8 | next byte
    2  copy       length (tag >> 2) + 1, offset in the next 2 bytes
    3  copy       length (tag >> 2) + 1, offset in the next 4 bytes

all little-endian. A copy repeats the output from `offset` bytes before its end on, its own output included.
"""

from __future__ import annotations

from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.varint import decode_varint

MOST_A_BYTE_YIELDS = 22  # a copy of 64 bytes takes 3


def decompress(data: bytes) -> bytes:
    """Decompress one block.

    Raises
    ------
    CheckpointError
        If the elements do not make up exactly the length announced, or that length is more than `data` could hold:
        so the output is never larger than 22 times the input.
    """
    end = len(data)
    announced, at = decode_varint(data, 0, end)
    if announced > MOST_A_BYTE_YIELDS * end:
        raise CheckpointError(f"{end} bytes of Snappy announce {announced} bytes, more than they can hold")
    output = bytearray()
    while at < end:
        tag = data[at]
        kind, upper = tag & 3, tag >> 2
        extra = max(upper - 59, 0) if kind == 0 else (0, 1, 2, 4)[kind]
        operand = int.from_bytes(data[at + 1 : at + 1 + extra], "little")
        at += 1 + extra
        if at > end:
            raise CheckpointError("a Snappy element runs over the end of its block")
        if kind == 0:
            length = (operand if extra else upper) + 1
            if length > end - at:
                raise CheckpointError("a Snappy literal runs over the end of its block")
            output += data[at : at + length]
            at += length
        else:
            length = 4 + (upper & 7) if kind == 1 else upper + 1
            offset = (tag >> 5) << 8 | operand if kind == 1 else operand
            if not 0 < offset <= len(output):
                raise CheckpointError(f"a Snappy copy from {offset} bytes back, {len(output)} bytes into the output")
            start = len(output) - offset
            pattern = bytes(output[start : start + length])
            output += (pattern * (-(-length // len(pattern))))[:length]  # a copy may overlap its own output
        if len(output) > announced:
            break
    if len(output) != announced:
        raise CheckpointError(f"Snappy yields {len(output)} bytes or more, but it announced {announced}")
    return bytes(output)
