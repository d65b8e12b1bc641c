"""Variable-length integers: base 128, seven bits a byte, low group first, the high bit set on all but the last byte.

300 = 0b10_0101100 is ``ac 02``. The sorted table, the protocol buffers and the string tensors are all made of them.
"""

from __future__ import annotations

from minilstm.tensorbundle.errors import CheckpointError

_ONE_BYTE = [bytes([number]) for number in range(1 << 7)]  # nine of ten that a checkpoint has


def encode_varint(number: int) -> bytes:
    """Encode an integer; a negative one as the ten bytes of its 64-bit two's complement, as protocol buffers do.

    >>> encode_varint(300).hex(" ")
    'ac 02'
    """
    if 0 <= number < 1 << 7:
        return _ONE_BYTE[number]
    number &= 0xFFFF_FFFF_FFFF_FFFF
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def decode_varint(data: bytes | memoryview, at: int, end: int) -> tuple[int, int]:
    """Read one varint of at most 64 bits from ``data[at:end]``.

    Returns
    -------
    tuple of int
        The number, 0 <= number < 2**64, and the place after it.

    Raises
    ------
    CheckpointError
        If it does not end before `end`, or is longer than 64 bits.

    Examples
    --------
    >>> decode_varint(bytes.fromhex("ac 02 7f"), 0, 3)
    (300, 2)
    """
    number = shift = 0
    while at < end and shift < 64:
        octet = data[at]
        at += 1
        number |= (octet & 0x7F) << shift
        if octet < 0x80 and number < 1 << 64:
            return number, at
        shift += 7
    if shift < 64:
        raise CheckpointError("an integer runs over the end of what holds it")
    raise CheckpointError("an integer of more than 64 bits")
