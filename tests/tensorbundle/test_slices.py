"""Partitioned variables: the keys of parts, and tilings that are none."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilstm.tensorbundle import CheckpointError
from minilstm.tensorbundle.slices import part_key, tile


@pytest.mark.parametrize(
    ("name", "extents", "key"),
    [
        (b"emb", [(0, 3), (0, None)], "00 656d62 0001 0102 80 83 80 7f"),
        (b"", [], "00 0001 00"),
        (b"\x00\xffa", [(63, 64)], "00 00ff ff00 61 0001 0101 bf c040"),
        (b"v", [(2**13 - 1, 2**13)], "00 76 0001 0101 dfff e02000"),
        (b"v", [(2**20 - 1, 2**20)], "00 76 0001 0101 efffff f0100000"),
        (b"v", [(2**27 - 1, 2**27)], "00 76 0001 0101 f7ffffff f808000000"),
    ],
)
def test_known_keys(name, extents, key):
    assert part_key(name, extents) == bytes.fromhex(key)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_keys_are_ordered_as_their_numbers_are(a, b):
    keys = [part_key(b"v", [(number, None)]) for number in (a, b)]
    assert (keys[0] < keys[1]) == (a < b)


@given(st.lists(st.integers(0, 5), max_size=3), st.data())
def test_a_grid_tiles(shape, data):
    slices = [()]
    for size in shape:
        cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=2))})
        pieces = [(a, b - a) for a, b in pairwise(cuts)] or [(0, None)]
        slices = [(*extents, piece) for extents in slices for piece in pieces]
    regions = tile(tuple(shape), data.draw(st.permutations(slices)))
    assert len(regions) == len(slices)


@pytest.mark.parametrize(
    ("shape", "slices", "message"),
    [
        ((4,), [], "do not cover it: they end at 0 of 4"),
        ((4,), [((0, 2),)], "they end at 2 of 4"),
        ((4,), [((2, 2),)], "they break at 0 of 4"),
        ((4,), [((0, 1),), ((2, 2),)], "they break at 1 of 4"),
        ((4,), [((0, 3),), ((2, 2),)], "they break at 3 of 4"),
        ((4,), [((0, 2),), ((0, 2),), ((2, 2),)], "do not cover it"),
        ((4,), [((0, 5),)], "from 0 to 5 in a dimension of 4"),
        ((4,), [((-1, 5),)], "from -1 to 4"),
        ((4,), [((0, -1),)], "from 0 to -1"),
        ((4,), [((1, None),)], "from 1 to 4"),
        ((4, 4), [((0, 4),)], "1 dimensions in a variable of 2"),
        ((2, 2), [((0, 1), (0, 1)), ((1, 1), (1, 1)), ((0, 1), (1, 1))], "3 of 4 parts"),
        ((), [(), ()], "in 2 slices"),
    ],
)
def test_what_does_not_tile_is_refused(shape, slices, message):
    with pytest.raises(CheckpointError, match=message):
        tile(shape, slices)
