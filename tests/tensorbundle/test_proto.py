"""The messages of an index: known bytes, round trips, and what does not parse."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilstm.tensorbundle import CheckpointError
from minilstm.tensorbundle.proto import Entry, Header, decode_entry, decode_header, encode_entry, encode_header

sizes = st.integers(0, 2**63 - 1)
extents = st.tuples(sizes, st.none() | sizes)
entries = st.builds(
    Entry,
    dtype=st.integers(0, 100),
    shape=st.lists(sizes, max_size=4).map(tuple),
    shard_id=st.integers(0, 1000),
    offset=sizes,
    size=sizes,
    crc32c=st.integers(0, 2**32 - 1),
    slices=st.lists(st.lists(extents, max_size=3).map(tuple), max_size=3).map(tuple),
)

KNOWN = [
    (Entry(1, (), 0, 0, 4, 0xA7E12F5E), "0801 1200 2804 355e2fe1a7"),
    (Entry(1, (0, 3), crc32c=0xA282EAD8), "0801 1206 1200 12020803 35d8ea82a2"),
    (Entry(3, (1,), 1, 300, 4), "0803 1204 12020801 1801 20ac02 2804"),
    (
        Entry(1, (5, 3), slices=(((0, 3), (0, None)), ((3, 2), (0, None)))),
        "0801 1208 12020805 12020803 3a06 0a021003 0a00 3a08 0a0408031002 0a00",
    ),
]


@pytest.mark.parametrize(("entry", "encoded"), KNOWN)
def test_known_entries(entry, encoded):
    assert encode_entry(entry) == bytes.fromhex(encoded)
    assert decode_entry(bytes.fromhex(encoded)) == entry


@pytest.mark.parametrize(
    ("header", "encoded"),
    [
        (Header(1, producer=1), "0801 1a020801"),
        (Header(2, 1, 1, 2, (3, 300)), "0802 1001 1a09 0801 1002 1a03 03ac02"),
        (Header(1), "0801 1a00"),
    ],
)
def test_known_headers(header, encoded):
    assert encode_header(header) == bytes.fromhex(encoded)
    assert decode_header(bytes.fromhex(encoded)) == header


@given(entries)
def test_entries_come_back(entry):
    assert decode_entry(encode_entry(entry)) == entry


@pytest.mark.parametrize(
    ("encoded", "entry"),
    [
        ("2804 355e2fe1a7 1200 0801", KNOWN[0][0]),  # another order
        ("0801 1200 1800 2000 2804 355e2fe1a7", KNOWN[0][0]),  # zeros spelled out
        ("0801 1200 2804 355e2fe1a7 4005 4a03616263 5500000000 590000000000000000", KNOWN[0][0]),  # unknown fields
        ("0807 0801 1200 2804 355e2fe1a7", KNOWN[0][0]),  # the last of two counts
        ("0801 2804 355e2fe1a7", KNOWN[0][0]),  # no shape: a scalar
        ("0803 1202 1200 1204 12020802", Entry(3, (0, 2))),  # a shape given in two parts
        ("0803 1206 1204 0801 1200", Entry(3, (1,))),  # an unknown field within a dimension, its name
    ],
)
def test_readers_accept(encoded, entry):
    assert decode_entry(bytes.fromhex(encoded)) == entry


def test_versions_are_read_packed_or_not():
    assert decode_header(bytes.fromhex("0801 1a04 1801 1802")).bad_consumers == (1, 2)
    assert decode_header(bytes.fromhex("0801 1a04 1a02 0102")).bad_consumers == (1, 2)


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        ("08", "runs over the end"),
        ("0a", "runs over the end"),
        ("1205 1200", "runs over the end of its message"),
        ("35 0000", "runs over the end of its message"),
        ("0b", "wire type 3"),
        ("0f", "wire type 7"),
        ("0001", "number 0"),
        ("1001", "a number where a message belongs"),
        ("0a00", "bytes where an integer belongs"),
        ("3001", "not stored as four bytes"),
        ("3a00 320400000000", "not stored as four bytes"),
        ("08 8080808010", "in a field of 32 bits"),
        ("20 ffffffffffffffffff7f", "more than 64 bits"),
        ("1202 1801", "unknown rank"),
    ],
)
def test_what_does_not_parse_is_refused(encoded, message):
    with pytest.raises(CheckpointError, match=message):
        decode_entry(bytes.fromhex(encoded))


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data):
    for decode in (decode_entry, decode_header):
        with contextlib.suppress(CheckpointError):
            decode(data)
