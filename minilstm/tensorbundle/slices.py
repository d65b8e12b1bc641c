"""Partitioned variables: the keys of their parts, and whether the parts make up the whole.

A part has an entry of its own in the index, under a key made of

    00, the variable's name with 00 -> 00 ff and ff -> ff 00, then 00 01
    the number of dimensions: 01 and one byte, or 00 for none
    for each dimension start and length; the whole dimension has start 0, length -1

with integers in an order-preserving form: k one bits, a zero bit and 7k - 1 bits of the number, for the smallest k that
is enough (so 0 is 80); -1 is 7f.
"""

from __future__ import annotations

from collections.abc import Sequence

from minilstm.tensorbundle.errors import CheckpointError
from minilstm.tensorbundle.proto import Extent

Region = tuple[slice, ...]


def part_key(name: bytes, extents: Sequence[Extent]) -> bytes:
    """The key of the part of variable `name` with these extents."""
    # In one pass over the bytes: each of the two replacements makes bytes the other one would change again.
    escaped = b"".join({0x00: b"\x00\xff", 0xFF: b"\xff\x00"}.get(octet, bytes([octet])) for octet in name)
    rank = len(extents)
    key = b"\x00" + escaped + b"\x00\x01" + (b"\x01" + bytes([rank]) if rank else b"\x00")
    for start, length in extents:
        key += _ordered(start) + (b"\x7f" if length is None else _ordered(length))
    return key


def _ordered(number: int) -> bytes:
    size = number.bit_length() // 7 + 1
    ones = ((1 << size) - 1) << 7 * size
    return (ones | number).to_bytes(size, "big")


def tile(shape: tuple[int, ...], slices: Sequence[Sequence[Extent]]) -> list[Region]:
    """The regions of an array of `shape` that its parts fill.

    The parts must be the cells of a grid: each dimension is cut somewhere, and there is one part for each combination.
    (TensorFlow's partitioners cut one dimension only.)

    Raises
    ------
    CheckpointError
        If they leave something out, overlap, or reach outside the array.
    """
    cuts: list[set[tuple[int, int]]] = [set() for _ in shape]
    regions = []
    for extents in slices:
        if len(extents) != len(shape):
            raise CheckpointError(f"a slice of {len(extents)} dimensions in a variable of {len(shape)}")
        region = []
        for (start, length), size, dimension in zip(extents, shape, cuts, strict=True):
            stop = size if length is None else start + length
            if (length is None and start) or not 0 <= start <= stop <= size:
                raise CheckpointError(f"a slice from {start} to {stop} in a dimension of {size}")
            dimension.add((start, stop))
            region.append(slice(start, stop))
        regions.append(tuple(region))

    cells = 1
    for dimension, size in zip(cuts, shape, strict=True):
        reached = 0
        for start, stop in sorted(dimension):
            if start != reached:
                raise CheckpointError(f"the slices do not cover it: they break at {reached} of {size} in one dimension")
            reached = stop
        if reached != size:
            raise CheckpointError(f"the slices do not cover it: they end at {reached} of {size} in one dimension")
        cells *= len(dimension)
    distinct = {tuple((cut.start, cut.stop) for cut in region) for region in regions}
    if not cells == len(regions) == len(distinct):
        raise CheckpointError(f"the slices do not cover it: {len(distinct)} of {cells} parts, in {len(regions)} slices")
    return regions
