"""String tensors: how an array of byte strings is stored in a data file.

    varint length of each element, in C order
    4 bytes     masked CRC-32C of the lengths, each taken as a uint32
    the strings, joined

The checksum in the index covers the lengths as uint32, those 4 bytes and the strings, but not the varints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilstm.tensorbundle import crc32c
from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.varint import encode_varint

_PIECE = 1 << 16
_LONGEST = (1 << 32) - 1  # longer ones are stored in another way, of which no example is known


def to_bytes(element: Any) -> bytes:
    """One element as it is stored: bytes as they are, str in UTF-8.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If it is too long, or cannot be written in UTF-8 (a lone surrogate).
    """
    if isinstance(element, str):
        element = element.encode("utf-8")
    elif not isinstance(element, bytes):
        raise TypeError(f"an element of type {type(element).__name__}, want bytes or str")
    if len(element) > _LONGEST:
        raise ValueError(f"a string of {len(element)} bytes, want at most {_LONGEST}")
    return bytes(element)  # np.bytes_ is bytes, too


def encode_strings(array: NDArray[Any]) -> tuple[list[bytes], int]:
    """The bytes of a string tensor, in pieces, and the (unmasked) checksum of its entry."""
    elements = [to_bytes(element) for element in array.reshape(-1).tolist()]
    lengths = np.array([len(element) for element in elements], "<u4")
    crc = crc32c.crc32c(lengths)
    check = crc32c.mask(crc).to_bytes(4, "little")
    joined = b"".join(elements)
    varints = b"".join(encode_varint(len(element)) for element in elements)
    return [varints, check, joined], crc32c.update(crc32c.update(crc, check), joined)


def decode_strings(read: Callable[[int, int], bytes], size: int, count: int, keep: bool) -> tuple[list[bytes], int]:
    """Read the strings of a tensor.

    Parameters
    ----------
    read : function
        ``read(at, n)`` returns n bytes of the tensor, beginning at place `at`.
    size, count : int
        The tensor's bytes in the file, and its number of elements.
    keep : bool
        False: only check, in memory that does not depend on the size, and return no strings.

    Returns
    -------
    tuple
        The strings, in C order, and the (unmasked) checksum of everything, to be compared with the entry's.

    Raises
    ------
    CheckpointError
        If lengths and size contradict each other, or the lengths their checksum.
    """
    crc = total = at = 0
    kept: list[NDArray[np.uint32]] = []
    for batch, after in _lengths(read, size, count):
        at = after
        crc = crc32c.update(crc, batch)
        total += int(batch.sum(dtype=np.uint64))
        if keep:
            kept.append(batch)
    if at + 4 + total != size:
        raise CheckpointError(f"strings of {total} bytes do not make up the {size} bytes they should")
    check = read(at, 4)
    expected, found = int.from_bytes(check, "little"), crc32c.mask(crc)
    if expected != found:
        raise CheckpointError(f"their lengths are damaged: stored checksum {expected:#010x}, computed {found:#010x}")
    crc, at = crc32c.update(crc, check), at + 4
    if keep:
        joined = read(at, total)
        ends = np.cumsum(np.concatenate(kept), dtype=np.int64).tolist() if kept else []
        strings = [joined[start:end] for start, end in pairwise([0, *ends])]
        return strings, crc32c.update(crc, joined)
    while at < size:
        piece = read(at, min(_PIECE, size - at))
        crc, at = crc32c.update(crc, piece), at + len(piece)
    return [], crc


def _lengths(read: Callable[[int, int], bytes], size: int, count: int) -> Iterator[tuple[NDArray[np.uint32], int]]:
    """The lengths, a batch for each piece of the file, and the place in the file after each batch."""
    at = number = shift = 0
    while count:
        piece = read(at, min(_PIECE, size - at))
        if not piece:
            raise CheckpointError("the strings' lengths run over the end of the tensor")
        batch = []
        for octet in piece:
            at += 1
            number |= (octet & 0x7F) << shift
            shift += 7
            if number > _LONGEST or shift > 63:
                raise CheckpointError(f"a string of {number} bytes in a tensor of {size}")
            if octet < 0x80:
                batch.append(number)
                number = shift = 0
                if len(batch) == count:
                    break
        count -= len(batch)
        yield np.array(batch, "<u4"), at
