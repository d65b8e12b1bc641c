"""The dtypes of a checkpoint: their codes, their names, and the bytes of their elements.

Elements are stored back to back in C order, little-endian; a bool is one byte, 0 or 1, and a complex number is its real
and then its imaginary part. Strings are stored in another way: see `strings`.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

STRING = 7
BFLOAT16 = 14

NAMES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 8: "complex64", 9: "int64",
    10: "bool", 14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip

# What the dtypes are in memory, in native byte order; `in_memory` knows bfloat16 too, which depends on ml_dtypes.
_IN_MEMORY: dict[int, np.dtype[Any]] = {
    code: np.dtype(name) for code, name in NAMES.items() if code not in (STRING, BFLOAT16)
}
_CODES = {(dtype.kind, dtype.itemsize): code for code, dtype in _IN_MEMORY.items()}
_IN_MEMORY[STRING] = np.dtype(object)
_STRING_KINDS = "OSUT"  # objects, bytes, str, and NumPy's StringDType


def in_memory(code: int) -> np.dtype[Any]:
    """The dtype, in native byte order, of arrays that are stored under a code."""
    return _bfloat16() if code == BFLOAT16 else _IN_MEMORY[code]


@functools.cache
def _bfloat16() -> np.dtype[Any]:
    """The bfloat16 of ml_dtypes, if it is installed, else the uint16 of its bits: NumPy has no bfloat16."""
    try:
        import ml_dtypes
    except ImportError:
        return np.dtype(np.uint16)
    return np.dtype(ml_dtypes.bfloat16)


def code_of(dtype: np.dtype[Any]) -> int | None:
    """The code under which arrays of a NumPy dtype, in either byte order, are stored; None if there is none.

    Objects are taken for strings; whether they are is for the caller to check.
    """
    if _is_bfloat16(dtype):
        return BFLOAT16
    if dtype.isbuiltin == 2:  # another package's
        return None
    if dtype.kind in _STRING_KINDS:
        return STRING
    return _CODES.get((dtype.kind, dtype.itemsize))


def _is_bfloat16(dtype: np.dtype[Any]) -> bool:
    return dtype.isbuiltin == 2 and dtype.type is _bfloat16().type  # 2: registered by another package


def octets(array: NDArray[Any]) -> NDArray[np.uint8]:
    """A view of the memory of a C-contiguous array of any shape, as one row of bytes."""
    return array.reshape(-1).view(np.uint8)


def to_octets(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes an array is stored as, copied only if it is not contiguous or not little-endian.

    Parameters
    ----------
    array : array
        Of any shape, also [], and any dtype but strings.
    """
    if _is_bfloat16(array.dtype):
        array = array.view(np.dtype(np.uint16).newbyteorder(array.dtype.byteorder))
    # Not ascontiguousarray, which makes [] into [1].
    array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    stored = octets(array)
    if array.dtype.kind == "b" and stored.size and stored.max() > 1:  # arrays viewed as bool hold any bytes
        stored = (stored != 0).view(np.uint8)
    return stored


def empty(shape: tuple[int, ...], code: int) -> NDArray[Any]:
    """An array to read stored bytes into: of the final shape and item size, in native byte order."""
    return np.empty(shape, np.uint16 if code == BFLOAT16 else in_memory(code))


def from_stored(array: NDArray[Any], code: int, big_endian: bool) -> NDArray[Any]:
    """Turn an array from `empty`, filled with bytes from a file, into what it is in memory."""
    if big_endian != (sys.byteorder == "big"):
        array = array.byteswap(inplace=True)
    return array.view(in_memory(code))
