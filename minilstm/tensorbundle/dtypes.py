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
    10: "bool", 11: "qint8", 12: "quint8", 13: "qint32", 14: "bfloat16", 15: "qint16", 16: "quint16", 17: "uint16",
    18: "complex128", 19: "float16", 22: "uint32", 23: "uint64", 24: "float8_e5m2", 25: "float8_e4m3fn",
    26: "float8_e4m3fnuz", 27: "float8_e4m3b11fnuz", 28: "float8_e5m2fnuz", 29: "int4", 30: "uint4", 31: "int2",
    32: "uint2", 33: "float4_e2m1fn",
}  # fmt: skip
_NO_ARRAYS = {20: "resource", 21: "variant"}  # handles and objects of a running TensorFlow

_QUANTIZED = {11: "int8", 12: "uint8", 13: "int32", 15: "int16", 16: "uint16"}  # their integers; no file has the scale
_NARROW = {29: ("int8", 4), 30: ("uint8", 4), 31: ("int8", 2), 32: ("uint8", 2)}  # integers in the low bits of a byte
# Dtypes of ml_dtypes, and what their bits are without it.
_EXTENSIONS = {BFLOAT16: "uint16", **dict.fromkeys([24, 25, 26, 27, 28, 33], "uint8")}

# What the dtypes are in memory, in native byte order; `in_memory` knows those that depend on ml_dtypes, too.
_SPECIAL = {STRING, *_QUANTIZED, *_NARROW, *_EXTENSIONS}
_NUMPYS = {code: np.dtype(name) for code, name in NAMES.items() if code not in _SPECIAL}
_IN_MEMORY: dict[int, np.dtype[Any]] = {
    STRING: np.dtype(object),
    **_NUMPYS,
    **{code: np.dtype(name) for code, name in _QUANTIZED.items()},
    **{code: np.dtype(name) for code, (name, _) in _NARROW.items()},
}
_CODES = {(dtype.kind, dtype.itemsize): code for code, dtype in _NUMPYS.items()}
_STRING_KINDS = "OSUT"  # objects, bytes, str, and NumPy's StringDType
WRITABLE = [NAMES[code] for code in sorted([*_NUMPYS, STRING, BFLOAT16])]


def name_of(code: int) -> str:
    """What TensorFlow calls a dtype, or "dtype <code>" if it is none of today's."""
    return NAMES.get(code) or _NO_ARRAYS.get(code) or f"dtype {code}"


def why_unreadable(code: int) -> str:
    """Why no array can hold a tensor of this dtype; empty if one can."""
    if code in NAMES:
        return ""
    if code in _NO_ARRAYS:
        return f"a {_NO_ARRAYS[code]} is an object of TensorFlow's, which no array can hold"
    return f"dtype {code} is none of those that are known here: {', '.join(NAMES.values())}"


def in_memory(code: int) -> np.dtype[Any]:
    """The dtype, in native byte order, of arrays that are stored under a code; void if no array can hold them."""
    if code in _EXTENSIONS:
        return _extension(code)
    return _IN_MEMORY.get(code, np.dtype("V"))


@functools.cache
def _extension(code: int) -> np.dtype[Any]:
    """The dtype of ml_dtypes, if that is installed and has it, else the unsigned integer of its bits."""
    try:
        import ml_dtypes
    except ImportError:
        return np.dtype(_EXTENSIONS[code])
    return np.dtype(getattr(ml_dtypes, NAMES[code], _EXTENSIONS[code]))


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
    return dtype.isbuiltin == 2 and dtype.type is _extension(BFLOAT16).type  # 2: registered by another package


def octets(array: NDArray[Any]) -> NDArray[np.uint8]:
    """A view of the memory of a C-contiguous array of any shape, as one row of bytes."""
    return array.reshape(-1).view(np.uint8)


def to_octets(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes that an array of any shape, also [], and any dtype but strings is stored as, copied only if it is not
    contiguous or not little-endian.
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
    return np.empty(shape, _EXTENSIONS.get(code) or in_memory(code))


def from_stored(array: NDArray[Any], code: int, big_endian: bool) -> NDArray[Any]:
    """Turn an array from `empty`, filled with bytes from a file, into what it is in memory."""
    if big_endian != (sys.byteorder == "big"):
        array = array.byteswap(inplace=True)
    if code in _NARROW:  # the other bits of the byte are no part of the number
        unused = 8 - _NARROW[code][1]
        array <<= unused
        array >>= unused  # of a signed array, this repeats the sign
    return array.view(in_memory(code))
