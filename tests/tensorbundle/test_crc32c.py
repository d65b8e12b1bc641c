"""CRC-32C: known vectors, the NumPy way against the definition, and continuing."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilstm.tensorbundle import crc32c

# The last three are from RFC 3720, B.4.
VECTORS = [
    (b"", 0),
    (b"a", 0xC1D04330),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
]


def by_definition(data):
    register = 0xFFFFFFFF
    for octet in data:
        register ^= octet
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize(("data", "crc"), VECTORS)
@pytest.mark.parametrize("update", [crc32c.update, crc32c.numpy_update])
def test_known_vectors(update, data, crc):
    assert update(0, data) == crc


@pytest.mark.parametrize("size", [1, 3, 4, 127, 128, 255, 256, 257, 2047, 2048, 8191, 8192, 65535, 131072, 300001])
def test_numpy_agrees_with_the_definition(size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    assert crc32c.numpy_update(0, data) == by_definition(data)


@given(data=st.binary(max_size=2000), cut=st.integers(0, 2000))
def test_a_checksum_can_be_continued(data, cut):
    whole = by_definition(data)
    assert crc32c.numpy_update(crc32c.numpy_update(0, data[:cut]), data[cut:]) == whole
    assert crc32c.update(crc32c.update(0, data[:cut]), data[cut:]) == whole


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_any_buffer_is_taken(kind):
    assert crc32c.crc32c(kind(b"123456789")) == 0xE3069283


def test_arrays_of_other_items_and_unaligned_ones_are_taken_as_bytes():
    data = np.arange(100001, dtype="<u4")
    assert crc32c.numpy_update(0, data) == by_definition(data.tobytes())
    octets = data.view(np.uint8)[3:]
    assert crc32c.numpy_update(0, octets) == by_definition(octets.tobytes())


def test_the_mask_rotates_and_adds():
    assert crc32c.mask(0) == 0xA282EAD8
    assert crc32c.mask(0xFFFFFFFF) == 0xA282EAD7


def test_numpy_is_fast_enough():
    data = np.random.default_rng(0).integers(0, 256, 16 << 20, np.uint8)
    crc32c.numpy_update(0, data)  # makes the tables
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        crc32c.numpy_update(0, data)
        seconds.append(time.perf_counter() - start)
    assert 16 / min(seconds) > 60, "megabytes a second; about 1000 on an idle machine"
