"""The sorted table: bytes as TensorFlow lays them out, and tables that are none."""

from __future__ import annotations

import re

import pytest
from bundle_samples import CHECKPOINTS
from hypothesis import given
from hypothesis import strategies as st

from minilstm.tensorbundle import CheckpointError, crc32c, table
from minilstm.tensorbundle.varint import encode_varint

EMPTY = bytes.fromhex("0000000001000000")
INDEX_FILES = sorted(CHECKPOINTS.glob("*/*.index"))


class Bytes:
    """A source that is no file."""

    def __init__(self, data):
        self.data, self.size = data, len(data)

    def read_at(self, offset, size):
        assert offset >= 0
        assert offset + size <= self.size
        return self.data[offset : offset + size]


def written(items):
    return table.encode_table(items)


def read(data):
    return list(table.read_table(Bytes(data)))


def block(contents, kind=0):
    stored = contents + bytes([kind])
    return stored + crc32c.mask(crc32c.crc32c(stored)).to_bytes(4, "little")


def assembled(*data_blocks, separators=None, metaindex=EMPTY, kind=0):
    """A table of the given block contents, every checksum right."""
    output, index = b"", table.BlockBuilder(1)
    for number, contents in enumerate(data_blocks):
        separator = separators[number] if separators else b"z%d" % number
        index.add(separator, encode_varint(len(output)) + encode_varint(len(contents)))
        output += block(contents, kind)
    footer = b""
    for contents in (metaindex, index.contents()):
        footer += encode_varint(len(output)) + encode_varint(len(contents))
        output += block(contents)
    return output + footer.ljust(40, b"\0") + table.MAGIC


def contents(*items, interval=16):
    builder = table.BlockBuilder(interval)
    for key, value in items:
        builder.add(key, value)
    return builder.contents()


def test_the_smallest_checkpoint_byte_for_byte():
    items = [(b"", bytes.fromhex("08011a020801")), (b"a", bytes.fromhex("080112002804355e2fe1a7"))]
    assert written(items).hex() == (
        "00000608011a020801" + "00010b61080112002804355e2fe1a7" + "0000000001000000" + "00" + "a87be1e1"
        "0000000001000000" + "00" + "c0f2a1b0" + "000102620020" + "0000000001000000" + "00" + "30d3691c"
        "2508" + "320e" + 36 * "00" + "57fb808b247547db"
    )


@pytest.mark.parametrize("path", INDEX_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_tables_of_tensorflow_are_written_again_byte_for_byte(path):
    items = read(path.read_bytes())
    again = written(items)
    assert again == path.read_bytes() or path.parent.name == "snappy_index"
    assert read(again) == items


@given(st.dictionaries(st.binary(max_size=8), st.binary(max_size=8), max_size=60))
def test_what_is_written_is_read(items):
    ordered = sorted(items.items())
    assert read(written(ordered)) == ordered


def test_many_blocks_are_read_as_one_table():
    items = [(b"%06d" % number, bytes(1000)) for number in range(1000)]
    data = written(items)
    assert len(data) > 3 * table.BLOCK_SIZE
    assert read(data) == items


@pytest.mark.parametrize("interval", [1, 2, 16, 1000])
def test_any_restart_interval_is_read(interval):
    items = [(b"", b"")] + [(b"key%03d" % number, b"") for number in range(40)]
    assert read(assembled(contents(*items, interval=interval))) == items


def test_keys_written_without_sharing_are_read():
    unshared = b"".join(bytes([0, 2, 0]) + key for key in (b"aa", b"ab", b"ac"))
    assert read(assembled(unshared + bytes.fromhex("0000000001000000"))) == [(b"aa", b""), (b"ab", b""), (b"ac", b"")]


@pytest.mark.parametrize(
    ("last", "following", "separator"),
    [
        (b"abc", b"abz", b"abd"),
        (b"abc", b"abd", b"abc"),  # the next byte up is the next key's
        (b"ab", b"abc", b"ab"),
        (b"a\xff", b"b", b"a\xff"),
        (b"a1x", b"a9", b"a2"),
        (b"a", b"c", b"b"),
    ],
)
def test_separators(last, following, separator):
    assert table.separate(last, following) == separator


@pytest.mark.parametrize(
    ("last", "after"), [(b"v/Adam", b"w"), (b"", b""), (b"\xff\xff", b"\xff\xff"), (b"\xffab", b"\xffb")]
)
def test_the_separator_after_the_last_block(last, after):
    assert table.successor(last) == after


@given(st.binary(max_size=4), st.binary(max_size=4))
def test_a_separator_separates(a, b):
    a, b = sorted([a, b])
    if a != b:
        assert a <= table.separate(a, b) < b
    assert table.successor(a) >= a


GOOD = contents((b"", b"h"), (b"a", b"1"))

BROKEN = {
    "no footer": (b"\0" * 47, "too few for an index"),
    "another kind of file": (b"\0" * 100, "does not end as an index does"),
    "bytes appended": (assembled(GOOD) + b"\0", "does not end as an index does"),
    "footer padding": (re.sub(rb"\0(.{8})$", rb"\1", assembled(GOOD), flags=re.DOTALL), None),
    "handle outside": (assembled(GOOD)[:-48] + encode_varint(2**40) * 4 + bytes(16) + table.MAGIC, "does not fit"),
    "handle at the very end": (assembled(GOOD)[:-48] + b"\x00\x7f\x00\x7f".ljust(40, b"\0") + table.MAGIC, "not fit"),
    "unknown compression": (assembled(GOOD, kind=2), "compressed in an unknown way"),
    "snappy that is none": (assembled(GOOD, kind=1), "Snappy|integer"),
    "empty block": (assembled(b""), "restart array"),
    "no restarts": (assembled(bytes(8)), "restart array"),
    "more restarts than room": (assembled(bytes(4) + b"\xff\xff\xff\xff"), "restart array"),
    "first restart not zero": (assembled(GOOD[:-8] + b"\1\0\0\0\1\0\0\0"), "does not ascend from zero"),
    "restarts descend": (assembled(GOOD[:-8] + b"\0\0\0\0\0\0\0\0\2\0\0\0"), "does not ascend from zero"),
    "restart at no entry": (assembled(GOOD[:-8] + b"\0\0\0\0\1\0\0\0\2\0\0\0"), "at no entry"),
    "restart after the entries": (assembled(GOOD[:-8] + b"\0\0\0\0\x63\0\0\0\2\0\0\0"), "at no entry"),
    "restart that shares": (
        assembled(b"\0\1\0a" + b"\1\1\0b" + b"\0\0\0\0\4\0\0\0\2\0\0\0"),
        "shares 1 bytes with one of 1",
    ),
    "shares more than there is": (assembled(b"\0\1\0a" + b"\2\1\0b" + GOOD[-8:]), "shares 2 bytes"),
    "first entry shares": (assembled(b"\1\1\0a" + GOOD[-8:]), "shares 1 bytes"),
    "entry over the end": (assembled(b"\0\1\5a" + GOOD[-8:]), "over the end of its block"),
    "entry cut": (assembled(b"\0\1" + GOOD[-8:]), "runs over the end"),
    "keys out of order": (assembled(contents((b"b", b""), (b"a", b""))), "comes after"),
    "a key twice": (assembled(contents((b"a", b""), (b"a", b""))), "comes after"),
    "blocks out of order": (assembled(contents((b"b", b"")), contents((b"a", b""))), "comes after"),
    "key after its separator": (assembled(GOOD, separators=[b"Z"]), "in the wrong data block"),
    "key before its block": (
        assembled(contents((b"a", b"")), contents((b"b", b"")), separators=[b"c", b"d"]),
        "in the wrong data block",
    ),
    "damaged metaindex": (assembled(GOOD, metaindex=b"\0" * 9), "restart array"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_table_is_refused(name):
    data, message = BROKEN[name]
    with pytest.raises(CheckpointError, match=message):
        read(data)


def test_footer_padding_must_be_zero():
    data = bytearray(assembled(GOOD))
    data[-9] = 1
    with pytest.raises(CheckpointError, match="the footer is not written as"):
        read(bytes(data))


def test_numbers_in_the_footer_must_not_be_longer_than_they_need():
    data = bytearray(assembled(GOOD))
    data[-48 + 3] |= 0x80  # followed by a zero, it is the same number
    with pytest.raises(CheckpointError, match="the footer is not written as"):
        read(bytes(data))


def test_a_checksum_that_fails_names_both():
    data = bytearray(assembled(GOOD))
    data[0] ^= 1
    with pytest.raises(CheckpointError, match=r"data block at 0 is damaged: stored checksum 0x.{8}, computed 0x.{8}"):
        read(bytes(data))


def test_one_block_cannot_be_read_twice():
    index = contents((b"a", encode_varint(0) + encode_varint(len(GOOD))), (b"b", b"\0" + encode_varint(len(GOOD))))
    output = block(GOOD)
    footer = encode_varint(len(output)) + b"\x08"
    output += block(bytes.fromhex("0000000001000000"))
    footer += encode_varint(len(output)) + encode_varint(len(index))
    with pytest.raises(CheckpointError, match="no proper handle"):
        read(output + block(index) + footer.ljust(40, b"\0") + table.MAGIC)


def test_keys_that_share_everything_cannot_fill_the_memory():
    # Each entry takes seven bytes of the file, and a key of 200,000 in memory.
    entries = b"\0" + encode_varint(200_000) + b"\0" + bytes(200_000)
    for number in range(20_000):
        entries += encode_varint(200_000 + number) + b"\1\0" + b"a"
    with pytest.raises(CheckpointError, match="would fill more memory"):
        read(assembled(entries + GOOD[-8:]))
