"""Snappy: every element by hand, and what must not be believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilstm.tensorbundle import CheckpointError
from minilstm.tensorbundle.snappy import decompress
from minilstm.tensorbundle.varint import encode_varint


def literal(data):
    size = len(data) - 1
    if size < 60:
        return bytes([size << 2]) + data
    extra = (size.bit_length() + 7) // 8
    return bytes([(59 + extra) << 2]) + size.to_bytes(extra, "little") + data


@pytest.mark.parametrize(
    ("elements", "output"),
    [
        (b"", b""),
        (literal(b"abc"), b"abc"),
        (literal(b"x" * 60), b"x" * 60),
        (literal(b"x" * 61), b"x" * 61),
        (literal(b"x" * 300), b"x" * 300),
        (literal(b"x" * 70000), b"x" * 70000),
        (literal(b"abcd") + bytes([0b000_000_01, 4]), b"abcdabcd"),  # copy of 4 from 4 back
        (literal(b"abcd") + bytes([0b000_111_01, 1]), b"abcd" + b"d" * 11),  # overlapping
        (literal(b"abcd") + bytes([0b000_111_01, 3]), b"abcdbcdbcdbcdbc"),
        (literal(b"x" + bytes(299)) + bytes([0b001_000_01, 0x2C]), b"x" + bytes(299) + b"x\0\0\0"),  # 300 back
        (literal(b"abcd") + bytes([0b000010_10, 4, 0]), b"abcdabc"),  # two bytes of offset
        (literal(b"abcd") + bytes([0b000010_11, 4, 0, 0, 0]), b"abcdabc"),  # four
    ],
)
def test_known_elements(elements, output):
    assert decompress(encode_varint(len(output)) + elements) == output


@given(st.lists(st.binary(min_size=1, max_size=200)))
def test_literals_of_any_length(pieces):
    output = b"".join(pieces)
    assert decompress(encode_varint(len(output)) + b"".join(map(literal, pieces))) == output


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"", "runs over the end"),
        (encode_varint(5) + literal(b"abcd"), "yields 4 bytes"),
        (encode_varint(3) + literal(b"abcd"), "yields 4 bytes"),
        (encode_varint(2**62) + literal(b"abcd"), "more than they can hold"),
        (encode_varint(4) + bytes([8]) + b"ab", "literal runs over"),
        (encode_varint(4) + bytes([63 << 2]) + b"\xff\xff\xff\xff", "literal runs over"),
        (encode_varint(4) + bytes([62 << 2]) + b"\xff", "element runs over"),
        (encode_varint(8) + literal(b"abcd") + bytes([0b000_000_01]), "element runs over"),
        (encode_varint(8) + literal(b"abcd") + bytes([0b000_000_01, 0]), "copy from 0 bytes back"),
        (encode_varint(8) + literal(b"abcd") + bytes([0b000_000_01, 5]), "copy from 5 bytes back"),
        (encode_varint(8) + bytes([0b000_000_01, 1]), "copy from 1 bytes back"),
    ],
)
def test_nonsense_is_refused(block, message):
    with pytest.raises(CheckpointError, match=message):
        decompress(block)
