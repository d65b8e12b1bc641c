"""The bytes of one tensor in a data file, read and checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilstm.tensorbundle import crc32c, dtypes
from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.proto import Entry
from minilstm.tensorbundle.source import SourceFile
from minilstm.tensorbundle.strings import decode_strings

_PIECE = 1 << 20  # bytes read and checked at once, small enough to be still in the cache for the second
_MIXED = "index and data are of two different checkpoints"


def check_end(file: SourceFile, end: int) -> None:
    """Raise CheckpointError if a tensor that ends at byte `end` is not wholly in the file."""
    if end > file.size:
        raise CheckpointError(f"it ends at byte {end} of a file of {file.size}: the file is truncated, or {_MIXED}")


def read_entry(file: SourceFile, entry: Entry, big_endian: bool, keep: bool) -> NDArray[Any]:
    """Read what one entry of the index describes.

    Parameters
    ----------
    file : SourceFile
        The data file.
    entry : Entry
        Its dtype is known, and its size agrees with its shape.
    big_endian : bool
        The byte order in the file.
    keep : bool
        False: only check, in memory that does not depend on the size.

    Returns
    -------
    array
        Of the entry's shape, in native byte order; without elements if `keep` is false.

    Raises
    ------
    CheckpointError
        If the file is too short, or the bytes contradict the checksum or the dtype.
    """
    check_end(file, entry.offset + entry.size)
    if entry.dtype == dtypes.STRING:
        if big_endian:
            raise CheckpointError("strings in a big-endian checkpoint cannot be read")
        array, crc = _read_strings(file, entry, keep)
    else:
        array, crc = _read_numbers(file, entry, big_endian, keep)
    found = crc32c.mask(crc)
    if found != entry.crc32c:
        stored = f"stored checksum {entry.crc32c:#010x}, computed {found:#010x}"
        raise CheckpointError(f"{stored}: the file is damaged, or {_MIXED}")
    return array


def _read_numbers(file: SourceFile, entry: Entry, big_endian: bool, keep: bool) -> tuple[NDArray[Any], int]:
    array = dtypes.empty(entry.shape if keep else (0,), entry.dtype)
    target = dtypes.octets(array)
    scratch = np.empty(0 if keep else min(_PIECE, entry.size), np.uint8)
    crc = 0
    for start in range(0, entry.size, _PIECE):
        stop = min(start + _PIECE, entry.size)
        piece = target[start:stop] if keep else scratch[: stop - start]
        file.read_into(entry.offset + start, piece.data)
        crc = crc32c.update(crc, piece)
        if array.dtype == np.bool_ and piece.max() > 1:
            raise CheckpointError(f"a bool of {piece.max()}, neither 0 nor 1")
    return dtypes.from_stored(array, entry.dtype, big_endian), crc


def _read_strings(file: SourceFile, entry: Entry, keep: bool) -> tuple[NDArray[Any], int]:
    count = math.prod(entry.shape)
    strings, crc = decode_strings(lambda at, n: file.read_at(entry.offset + at, n), entry.size, count, keep)
    array = np.empty(len(strings), object)
    array[:] = strings
    return array.reshape(entry.shape) if keep else array, crc
