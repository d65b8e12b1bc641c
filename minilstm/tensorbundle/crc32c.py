"""CRC-32C (Castagnoli) in NumPy, and the masked form in which checkpoint files store it.

The register of a CRC is linear over GF(2): taking in a 32-bit word ``w`` is ``r = Z(r ^ w)``, where ``Z`` is the
linear map "four zero bytes pass". A message of words w[0], w[1], ... can therefore be laid out in rows of L words,

    w[0]    w[1]    ...  w[L-1]
    w[L]    w[L+1]  ...  w[2L-1]
    ...

and folded row by row, ``s = Z**L(s) ^ row``: the L words left over have the same CRC as the whole message. Every row
is contiguous, ``Z**L`` of L words is two table look-ups a word, and the L words are folded again with a smaller L until
few enough remain to go byte by byte.

google_crc32c, where it is installed, replaces `update` and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Buffer: TypeAlias = "bytes | bytearray | memoryview | NDArray[Any]"
Matrix: TypeAlias = "tuple[int, ...]"  # a linear map of 32 bits: the images of bits 0, 1, ..., 31

_POLYNOMIAL = 0x82F63B78  # reflected
_ALL_ONES = 0xFFFFFFFF
_MASK_DELTA = 0xA282EAD8
_LANES = (16384, 2048, 256, 32)  # a row of 64 KiB stays in the cache and drowns the overhead of a NumPy call


def _byte_table() -> tuple[int, ...]:
    table = []
    for register in range(256):
        for _ in range(8):
            register = (register >> 1) ^ (_POLYNOMIAL if register & 1 else 0)
        table.append(register)
    return tuple(table)


_AFTER_BYTE = _byte_table()


def _times(matrix: Matrix, register: int) -> int:
    image, bit = 0, 0
    while register:
        if register & 1:
            image ^= matrix[bit]
        register >>= 1
        bit += 1
    return image


def _zero_bytes(count: int) -> Matrix:
    """The linear map "`count` zero bytes pass", by repeated squaring."""
    result: Matrix = tuple(1 << bit for bit in range(32))
    power: Matrix = tuple((bit >> 8) ^ _AFTER_BYTE[bit & 0xFF] for bit in result)  # one zero byte
    while count:
        if count & 1:
            result = tuple(_times(power, column) for column in result)
        power = tuple(_times(power, column) for column in power)
        count >>= 1
    return result


@cache
def _row_tables(lanes: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Z**lanes as two tables: the images of the low and of the high 16 bits of a word."""
    matrix = _zero_bytes(4 * lanes)
    tables = []
    for columns in (matrix[:16], matrix[16:]):
        table = np.zeros(1 << 16, np.uint32)
        for bit, column in enumerate(columns):
            table[1 << bit : 2 << bit] = table[: 1 << bit] ^ np.uint32(column)
        tables.append(table)
    return tables[0], tables[1]


def _fold(register: int, words: NDArray[np.uint32], lanes: int) -> NDArray[np.uint32]:
    """The `lanes` words that stand for `words` (whole rows of them), with the register mixed into the first."""
    low, high = _row_tables(lanes)
    rows = words.reshape(-1, lanes)
    state: NDArray[np.uint32] = rows[0].astype(np.uint32)  # a copy
    state[0] ^= np.uint32(register)
    of_low, of_high = np.empty_like(state), np.empty_like(state)
    for row in rows[1:]:
        low.take(state & 0xFFFF, out=of_low, mode="wrap")  # the indices are in range; "wrap" spares a buffer
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
        register = (register >> 8) ^ _AFTER_BYTE[(register ^ octet) & 0xFF]
    return register ^ _ALL_ONES


@cache
def _chosen() -> Callable[[int, Buffer], int]:
    """google_crc32c's, which the first checksum loads, or `numpy_update`."""
    try:
        from google_crc32c import extend
    except ImportError:  # the `fast` extra; the numbers are the same without it
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

    >>> unmask(mask(0xE3069283)) == 0xE3069283
    True
    """
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _ALL_ONES


def unmask(stored: int) -> int:
    """Undo `mask`."""
    rotated = (stored - _MASK_DELTA) & _ALL_ONES
    return (rotated >> 17 | rotated << 15) & _ALL_ONES
