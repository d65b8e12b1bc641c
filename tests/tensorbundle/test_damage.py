"""Damage: every bit of an index, bits of data, every truncation. Each is noticed; none is another exception."""

from __future__ import annotations

import random

import numpy as np
import pytest
from bundle_samples import FULL, files_of, prefix_of, put, tensors_of_every_kind

from minilstm import tensorbundle
from minilstm.tensorbundle import CheckpointError


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("every_kind") / "m"
    tensorbundle.write(prefix, tensors_of_every_kind())
    return files_of(prefix)


def flipped(data, bit):
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def assert_refused(prefix, what):
    """Reading raises CheckpointError, which names a file, and nothing else."""
    try:
        tensorbundle.read(prefix)
    except CheckpointError as error:
        message = str(error)
    else:
        pytest.fail(f"{what} was not noticed")
    assert message.startswith((f"{prefix}.index: ", f"{prefix}.data-00000-of-00001: tensor '"))


def test_every_flipped_bit_of_the_index_is_noticed(tmp_path, every_kind):
    index, data = every_kind
    for bit in range(8 * len(index)):
        assert_refused(put(tmp_path / "m", flipped(index, bit), data), f"bit {bit} of the index")


def test_flipped_bits_of_the_data_are_noticed(tmp_path, every_kind):
    index, data = every_kind
    assert 8 * len(data) >= 2000
    for bit in range(8 * len(data)):
        assert_refused(put(tmp_path / "m", index, flipped(data, bit)), f"bit {bit} of the data")


def test_flipped_bits_of_a_larger_file_are_noticed(tmp_path):
    array = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    tensorbundle.write(tmp_path / "m", {"a": array})
    index, data = files_of(tmp_path / "m")
    for bit in random.Random(0).sample(range(8 * len(data)), 2000 if FULL else 50):
        put(tmp_path / "m", index, flipped(data, bit))
        with pytest.raises(CheckpointError, match="tensor 'a': stored checksum"):
            tensorbundle.open(tmp_path / "m").verify("a")


@pytest.mark.parametrize("folder", ["notebook_untrained", "partitioned", "tf2_object", "snappy_index"])
def test_flipped_bits_of_tensorflows_files_are_noticed(tmp_path, folder):
    index, data = files_of(prefix_of(folder))
    bits = range(8 * len(index))
    for bit in bits if FULL else random.Random(0).sample(bits, 300):
        assert_refused(put(tmp_path / "m", flipped(index, bit), data), f"bit {bit} of the index")


def test_every_truncation_is_noticed(tmp_path, every_kind):
    index, data = every_kind
    for size in range(len(index)):
        assert_refused(put(tmp_path / "m", index[:size], data), f"an index cut to {size} bytes")
    for size in range(len(data)):
        assert_refused(put(tmp_path / "m", index, data[:size]), f"data cut to {size} bytes")


def test_bytes_appended_to_the_index_are_noticed(tmp_path, every_kind):
    index, data = every_kind
    for more in (b"\0", b"\n", index, bytes(48)):
        if more != index:
            assert_refused(put(tmp_path / "m", index + more, data), "bytes after the footer")


def test_the_index_of_another_checkpoint_is_noticed(tmp_path):
    tensorbundle.write(tmp_path / "a", {"v": np.zeros(10)})
    tensorbundle.write(tmp_path / "b", {"v": np.ones(10)})
    put(tmp_path / "m", files_of(tmp_path / "a")[0], files_of(tmp_path / "b")[1])
    with pytest.raises(CheckpointError, match=r"tensor 'v': .* of two different checkpoints"):
        tensorbundle.read(tmp_path / "m")
