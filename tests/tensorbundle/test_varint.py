"""Variable-length integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilstm.tensorbundle import CheckpointError
from minilstm.tensorbundle.varint import decode_varint, encode_varint


@pytest.mark.parametrize(
    ("number", "encoded"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (-1, "ff" * 9 + "01")]
)
def test_known_encodings(number, encoded):
    assert encode_varint(number).hex() == encoded


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_what_is_encoded_is_decoded(number, after):
    encoded = encode_varint(number)
    assert decode_varint(b"x" + encoded + after, 1, len(encoded + after) + 1) == (number, len(encoded) + 1)


@pytest.mark.parametrize("encoded", ["", "80", "ffff", "80" * 10 + "01", "ff" * 9 + "02", "ff" * 11])
def test_unfinished_and_oversized_ones_are_refused(encoded):
    with pytest.raises(CheckpointError, match="an integer"):
        decode_varint(bytes.fromhex(encoded), 0, len(encoded) // 2)


def test_the_end_counts_not_the_length_of_the_buffer():
    with pytest.raises(CheckpointError, match="runs over the end"):
        decode_varint(b"\x80\x01", 0, 1)
