"""Many varints, one after another, decoded at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.wire import Buffer

_PIECE = 1 << 16  # bytes decoded at once: what that needs of memory stays small
_LONGEST = 10  # bytes of 64 bits


def count_varints(data: Buffer) -> int:
    """How many varints end in these bytes."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) < 0x80))


def decode_varints(data: Buffer) -> Iterator[NDArray[np.int64]]:
    """The numbers, signed, in arrays of a few thousand.

    Raises
    ------
    CheckpointError
        If the bytes do not end with a varint, or one is longer than 64 bits.

    Examples
    --------
    >>> [numbers.tolist() for numbers in decode_varints(bytes.fromhex("ac 02 7f"))]
    [[300, 127]]
    """
    octets = np.frombuffer(data, np.uint8)
    at = 0
    while at < octets.size:
        piece = octets[at : at + _PIECE]
        ends = np.flatnonzero(piece < 0x80)
        if not ends.size:
            raise CheckpointError("an integer runs over the end of what holds it")
        yield _decoded(piece[: ends[-1] + 1], ends)
        at += int(ends[-1]) + 1


def _decoded(octets: NDArray[np.uint8], ends: NDArray[np.intp]) -> NDArray[np.int64]:
    """The numbers of which the last bytes are at `ends`."""
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > _LONGEST or (longest == _LONGEST and octets[ends[lengths == _LONGEST]].max() > 1):
        raise CheckpointError("an integer of more than 64 bits")
    numbers = (octets[starts] & 0x7F).astype(np.uint64)
    for place in range(1, longest):
        there = np.flatnonzero(lengths > place)
        numbers[there] |= (octets[starts[there] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return numbers.view(np.int64)
