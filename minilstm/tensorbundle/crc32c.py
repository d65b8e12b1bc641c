"""CRC-32C (Castagnoli) in NumPy, and the masked form in which checkpoint files store it.

The register of a CRC is linear over GF(2): taking in a 32-bit word ``w`` is ``r = Z(r ^ w)``, where ``Z`` is the
linear map "four zero bytes pass". A message of words w[0], w[1], ... can therefore be laid out in rows of L words,

    w[0]    w[1]    ...  w[L-1]
    w[L]    w[L+1]  ...  w[2L-1]
    ...

and folded row by row, ``s = Z**L(s) ^ row``: the L words left over have the same CRC as the whole message. Every row
is contiguous, ``Z**L`` of L words is two table look-ups a word, and the L words are folded again with a smaller L until
few enough remain to go byte by byte.

If google_crc32c is installed, `update` uses it; the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Buffer: TypeAlias = "bytes | bytearray | memoryview | NDArray[Any]"
Words: TypeAlias = "NDArray[np.uint32]"

_POLYNOMIAL = 0x82F63B78  # reflected
_ALL_ONES = 0xFFFFFFFF
_MASK_DELTA = 0xA282EAD8
_LANES = (16384, 2048, 256, 32)  # a row of 64 KiB stays in the cache and makes the overhead of a NumPy call negligible
_BITS = np.arange(32, dtype=np.uint32)


_AFTER_BYTE = np.arange(256, dtype=np.uint32)  # the register after a byte, by the low byte of what it was before
for _ in range(8):
    _AFTER_BYTE = _AFTER_BYTE >> 1 ^ (_AFTER_BYTE & 1) * np.uint32(_POLYNOMIAL)
_AFTER: list[int] = _AFTER_BYTE.tolist()


def _image(matrix: Words, words: Words) -> Words:
    """What a linear map of 32 bits makes of each word; `matrix` holds the images of bits 0, 1, ..., 31."""
    images: Words = np.bitwise_xor.reduce((words[:, None] >> _BITS & 1) * matrix, axis=1)
    return images


def _zero_bytes(count: int) -> Words:
    """The linear map "`count` zero bytes pass", by repeated squaring."""
    result = np.uint32(1) << _BITS
    power = result >> 8 ^ _AFTER_BYTE[result & 0xFF]  # one zero byte
    while count:
        if count & 1:
            result = _image(power, result)
        power = _image(power, power)
        count >>= 1
    return result


@cache
def _row_tables(lanes: int) -> tuple[Words, Words]:
    """Z**lanes as two tables: the images of the low and of the high 16 bits of a word."""
    matrix = _zero_bytes(4 * lanes)
    low, high = np.zeros((2, 1 << 16), np.uint32)
    for bit in range(16):
        for table, column in ((low, matrix[bit]), (high, matrix[16 + bit])):
            table[1 << bit : 2 << bit] = table[: 1 << bit] ^ column
    return low, high


def _fold(register: int, words: Words, lanes: int) -> Words:
    """Reduce `words`, in rows of `lanes` words, to `lanes` words of the same CRC; the register goes into the first."""
    low, high = _row_tables(lanes)
    rows = words.reshape(-1, lanes)
    state: Words = rows[0].astype(np.uint32)  # a copy
    state[0] ^= np.uint32(register)
    of_low, of_high = np.empty_like(state), np.empty_like(state)
    for row in rows[1:]:
        low.take(state & 0xFFFF, out=of_low, mode="wrap")  # the indices are in range; "wrap" avoids a buffer
        high.take(state >> 16, out=of_high, mode="wrap")
        np.bitwise_xor(of_low, of_high, out=state)
        state ^= row
    return state


def numpy_update(crc: int, data: Buffer) -> int:
    """The CRC of what gave `crc` followed by `data`, in NumPy and Python alone."""
    octets = np.frombuffer(data, np.uint8)
    register = crc ^ _ALL_ONES
    words = octets[: octets.size // 4 * 4].view("<u4")
    for lanes in _LANES:
        whole = words.size // lanes * lanes
        if whole >= 2 * lanes:
            words = np.concatenate([_fold(register, words[:whole], lanes), words[whole:]])
            register = 0  # it went into the first word
    for octet in words.astype("<u4", copy=False).tobytes() + octets[octets.size // 4 * 4 :].tobytes():
        register = (register >> 8) ^ _AFTER[(register ^ octet) & 0xFF]
    return register ^ _ALL_ONES


@cache
def _chosen() -> Callable[[int, Buffer], int]:
    """The `update` of google_crc32c (of the `fast` extra), loaded by the first checksum, or `numpy_update`."""
    try:
        from google_crc32c import extend
    except ImportError:
        return numpy_update
    return lambda crc, data: int(extend(crc, np.frombuffer(data, np.uint8)))  # it takes no memoryview, but an array


def update(crc: int, data: Buffer) -> int:
    """Continue a CRC.

    Parameters
    ----------
    crc : int
        The CRC so far; 0 for none.
    data : bytes-like or contiguous array
        What comes next. It is not copied.

    Returns
    -------
    int
        The CRC of everything so far: ``update(update(0, a), b) == update(0, a + b)``.
    """
    return _chosen()(crc, data)


def crc32c(data: Buffer) -> int:
    """The CRC-32C of `data`, unmasked.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    return update(0, data)


def mask(crc: int) -> int:
    """The form stored in files: rotated right by 15 bits, plus a constant.

    A CRC of data that itself holds CRCs is weak; the mask avoids that.

    >>> hex(mask(0xE3069283))
    '0xc78ab0e5'
    """
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _ALL_ONES
