"""The protocol-buffer messages in the values of a V1 file: which tensors there are, and the numbers of one slice.

The messages, with their field numbers (Shape, Slice and Version are in `proto`):

    Saved         1 meta   2 data: the value under the key "" has the first, all others have the second
    Meta          1 tensor {1 name   2 shape   3 dtype   4 slice, repeated}, repeated   2 version
    Data          1 name   2 slice   3 tensor
    Tensor        one repeated field, by the dtype: `_PLACES`
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minilstm.tensorbundle import dtypes
from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.packed import count_varints, decode_varints
from minilstm.tensorbundle.proto import Extent, decode_extents, decode_shape, decode_version
from minilstm.tensorbundle.varint import encode_varint
from minilstm.tensorbundle.wire import BYTES, FIXED32, FIXED64, VARINT, Buffer, Message, fields

# dtype -> the field its elements are in. The integers are varints, whatever their size; a float16 is the varint of its
# bits; a complex number is two floats.
_PLACES = {1: 5, 2: 6, 3: 7, 4: 7, 5: 7, 6: 7, 7: 8, 8: 9, 9: 10, 10: 11, 11: 7, 12: 7, 13: 7, 17: 7, 18: 12, 19: 13}
_FLOATS = {1: "<f4", 2: "<f8", 8: "<c8", 18: "<c16"}


class SavedTensor(NamedTuple):
    """What a file says about one tensor: the whole one, and which slices of it are in this file."""

    name: bytes
    shape: tuple[int, ...]
    dtype: int
    slices: tuple[tuple[Extent, ...], ...]


def decode_meta(value: bytes) -> tuple[list[SavedTensor], tuple[int, int, tuple[int, ...]]]:
    """Read the tensors of a file, and the version it has.

    Raises
    ------
    CheckpointError
        If the bytes are no such message. What the numbers mean is for the caller to judge.
    """
    meta = Message(value).message(1)
    tensors = [
        SavedTensor(
            tensor.text(1),
            decode_shape(tensor.message(2)),
            tensor.integer(3, 32),
            tuple(decode_extents(part) for part in tensor.messages(4)),
        )
        for tensor in meta.messages(1)
    ]
    return tensors, decode_version(meta.message(2))


def why_unreadable(code: int) -> str:
    """Why a V1 file cannot hold a tensor of this dtype; empty if it can."""
    if code in _PLACES:
        return ""
    return dtypes.why_unreadable(code) or f"no file of the first format holds {dtypes.name_of(code)}"


def decode_slice(
    value: Buffer, name: bytes, extents: tuple[Extent, ...], code: int, shape: tuple[int, ...]
) -> NDArray[Any]:
    """Read the numbers of one slice.

    Parameters
    ----------
    value : bytes
        What the table has under the slice's key.
    name, extents
        Which slice it must be.
    code : int
        The dtype, one that `why_unreadable` accepts.
    shape : tuple of int
        Of the slice.

    Raises
    ------
    CheckpointError
        If it is another slice, or holds more, fewer or other numbers; nothing is allocated for them then.
    """
    data = Message(memoryview(value)).message(2)
    if data.text(1) != name or decode_extents(data.message(2)) != extents:
        raise CheckpointError("another tensor's slice is in its place")
    content = data.last(3)
    if code == dtypes.STRING:
        flat = _strings(content, math.prod(shape))
    elif code in _FLOATS:
        flat = _floats(content, code, math.prod(shape))
    else:
        flat = _integers(content, code, math.prod(shape))
    return flat.reshape(shape)


def _elements(content: Buffer, code: int, *wire_types: int) -> Any:
    """The values of the field in which the elements of a dtype are."""
    for field, wire_type, value in fields(content):
        if field == _PLACES[code]:
            if wire_type not in wire_types:
                raise CheckpointError(f"its elements are stored in another way than {dtypes.NAMES[code]} is")
            yield value


def _check_count(found: int, wanted: int, at_least: str = "") -> None:
    if found != wanted:
        raise CheckpointError(f"{at_least}{found} elements, want {wanted}")


def _strings(content: Buffer, count: int) -> NDArray[Any]:
    strings = [bytes(value) for value in _elements(content, dtypes.STRING, BYTES)]
    _check_count(len(strings), count)
    array = np.empty(count, object)
    array[:] = strings
    return array


def _floats(content: Buffer, code: int, count: int) -> NDArray[Any]:
    dtype = np.dtype(_FLOATS[code])
    joined = bytearray()  # in most files, all in one field
    for octets in _elements(content, code, BYTES, FIXED64 if code in (2, 18) else FIXED32):
        joined += octets
        if len(joined) > count * dtype.itemsize:
            raise CheckpointError(f"more than {count} elements, want {count}")
    if len(joined) != count * dtype.itemsize:
        _check_count(len(joined) // dtype.itemsize, count, "at most ")
        raise CheckpointError(f"{len(joined)} bytes, want {count * dtype.itemsize}")
    return np.frombuffer(joined, dtype).astype(dtypes.in_memory(code), copy=False)


def _integers(content: Buffer, code: int, count: int) -> NDArray[Any]:
    def packed() -> Any:
        for value in _elements(content, code, VARINT, BYTES):
            yield encode_varint(value) if isinstance(value, int) else value

    _check_count(sum(count_varints(octets) for octets in packed()), count)
    stored = np.dtype(np.uint16) if code == 19 else dtypes.in_memory(code)
    array = np.empty(count, stored)
    least, most = (0, 1) if code == 10 else (np.iinfo(stored).min, np.iinfo(stored).max)
    filled = 0
    for octets in packed():
        for numbers in decode_varints(octets):
            if numbers.min() < least or numbers.max() > most:
                raise CheckpointError(f"an element of {numbers.min()} or {numbers.max()} as {dtypes.NAMES[code]}")
            array[filled : filled + numbers.size] = numbers
            filled += numbers.size
    return array.view(dtypes.in_memory(code))
