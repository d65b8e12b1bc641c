"""String tensors: their bytes, and wrong lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilstm.tensorbundle import CheckpointError, crc32c
from minilstm.tensorbundle.strings import decode_strings, encode_strings


def decoded(data, count, keep=True):
    def read(at, size):
        assert at >= 0
        assert size >= 0
        return data[at : at + size]

    return decode_strings(read, len(data), count, keep)


def test_known_bytes():
    pieces, crc = encode_strings(np.array([b"ab", b"", b"c" * 130], object))
    lengths = bytes.fromhex("02000000 00000000 82000000")
    check = crc32c.mask(crc32c.crc32c(lengths)).to_bytes(4, "little")
    assert b"".join(pieces) == bytes.fromhex("02 00 8201") + check + b"ab" + b"c" * 130
    assert crc == crc32c.crc32c(lengths + check + b"ab" + b"c" * 130)


def test_a_tensor_without_strings_is_four_bytes():
    assert b"".join(encode_strings(np.empty((0, 3), object))[0]) == bytes.fromhex("d8ea82a2")
    assert decoded(bytes.fromhex("d8ea82a2"), 0)[0] == []


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_strings_come_back(strings):
    array = np.empty(len(strings), object)
    array[:] = strings
    pieces, crc = encode_strings(array)
    assert decoded(b"".join(pieces), len(strings)) == (strings, crc)
    assert decoded(b"".join(pieces), len(strings), keep=False) == ([], crc)


def test_lengths_that_cross_the_pieces_they_are_read_in_come_back():
    strings = [b"x" * 200] + [b""] * 70_000 + [b"y" * 300] * 300
    array = np.empty(len(strings), object)
    array[:] = strings
    pieces, crc = encode_strings(array)
    shifted = b"".join(pieces)
    assert decoded(shifted, len(strings)) == (strings, crc)
    assert decoded(shifted, len(strings), keep=False) == ([], crc)


GOOD = b"".join(encode_strings(np.array([b"ab", b"c"], object))[0])


@pytest.mark.parametrize(
    ("data", "count", "message"),
    [
        (b"", 1, "run over the end"),
        (b"\x80", 1, "run over the end"),
        (GOOD, 3, "do not make up|a string of|lengths"),
        (GOOD, 1, "do not make up"),
        (GOOD[:-1], 2, "do not make up"),
        (GOOD + b"\0", 2, "do not make up"),
        (b"\x01\x02" + GOOD[2:], 2, "their lengths are damaged"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + GOOD, 1, "a string of"),
        (b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80" + GOOD, 1, "a string of"),
    ],
)
def test_wrong_lengths_are_refused(data, count, message):
    for keep in (True, False):
        with pytest.raises(CheckpointError, match=message):
            decoded(data, count, keep)
