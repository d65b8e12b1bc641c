"""The checkpoint format against TensorFlow itself: the same bytes, read both ways.

    python tests/interop/run.py        (or pytest -m interop with this file alone: TensorFlow runs eagerly here)

MINILSTM_FULL=1 makes the counts long.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import named_tensors

from minilstm import tensorbundle
from minilstm.tensorbundle import crc32c

pytestmark = pytest.mark.interop

FULL = os.environ.get("MINILSTM_FULL") == "1"
CHECKPOINTS = Path(__file__).resolve().parents[1] / "golden" / "checkpoints"
PREFIXES = sorted(str(path)[: -len(".index")] for path in CHECKPOINTS.glob("*/*.index"))

NUMBERS = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "c8", "c16", "?", ml_dtypes.bfloat16]


def save_v2(prefix, tensors):
    """Save in the order of the names, as the v1 Saver does."""
    names = sorted(tensors, key=str.encode)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(tensors[name], tf.string if tensors[name].dtype == object else None) for name in names],
    )


def restore_v2(prefix):
    """Everything TensorFlow reads, as NumPy arrays; strings as objects."""
    reader = tf.train.load_checkpoint(str(prefix))
    names = sorted(reader.get_variable_to_shape_map(), key=str.encode)
    dtypes = [reader.get_variable_to_dtype_map()[name] for name in names]
    values = tf.raw_ops.RestoreV2(
        prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), dtypes=dtypes
    )
    return {name: as_array(value) for name, value in zip(names, values, strict=True)}


def as_array(value):
    array = value.numpy()
    if isinstance(array, bytes):  # a scalar string
        array = np.array(array, object)
    return np.asarray(array)


def files_of(prefix):
    return Path(f"{prefix}.index").read_bytes(), Path(f"{prefix}.data-00000-of-00001").read_bytes()


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].shape == array.shape, name
        assert found[name].dtype == array.dtype, name
        if array.dtype == object:
            assert found[name].tolist() == array.tolist(), name
        else:
            assert found[name].tobytes() == array.tobytes(), name


def random_array(rng):
    shape = tuple(rng.choice([0, 1, 1, 2, 3, 5], rng.integers(0, 5)))
    kind = rng.integers(len(NUMBERS) + 2)
    if kind >= len(NUMBERS):
        array = np.empty(shape, object)
        for place in np.ndindex(shape):
            array[place] = rng.bytes(rng.choice([0, 1, 5, 127, 128, 300]))
        return array
    dtype = np.dtype(NUMBERS[kind])
    size = int(np.prod(shape)) * dtype.itemsize
    octets = np.frombuffer(rng.bytes(size), np.uint8)  # any bits: NaN payloads and denormals, too
    if rng.integers(8) == 0:
        octets = np.zeros(size, np.uint8)
    return (octets & 1 if dtype.kind == "b" else octets).view(dtype).reshape(shape)


@st.composite
def tensor_dicts(draw):
    """1 to 300 tensors, their names put together from a few pieces, so that they share beginnings."""
    anything = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
    usual = st.sampled_from(
        ["rnn", "lstm_cell", "kernel", "Adam", "Adam_1", "bias", "é", "中", "\U0001f600", "x" * 200]
    )
    pieces = draw(st.lists(usual | anything, min_size=1, max_size=10))
    count = draw(st.sampled_from([1, 2, 15, 16, 17]) | st.integers(1, 60) | st.integers(1, 300))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return named_tensors(rng, pieces, count, random_array)


@given(tensor_dicts())
@settings(
    max_examples=200 if FULL else 30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=not FULL
)
def test_the_files_are_tensorflows_byte_for_byte(tmp_path_factory, tensors):
    folder = tmp_path_factory.getbasetemp()
    save_v2(folder / "theirs", tensors)
    tensorbundle.write(folder / "ours", tensors)
    assert files_of(folder / "ours") == files_of(folder / "theirs")
    ordered = {name: tensors[name] for name in sorted(tensors, key=str.encode)}
    assert_same(tensorbundle.read(folder / "theirs"), ordered)
    assert_same(restore_v2(folder / "ours"), ordered)


def test_thousands_of_variables_in_several_blocks(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {f"{'scope/' * 20}{rng.bytes(90).hex()}/v{number}": random_array(rng) for number in range(3000)}
    save_v2(tmp_path / "theirs", tensors)
    tensorbundle.write(tmp_path / "ours", tensors)
    assert files_of(tmp_path / "ours") == files_of(tmp_path / "theirs")
    assert len(files_of(tmp_path / "ours")[0]) > 2 * 262144


def test_a_checksum_that_is_zero_is_left_out_as_there(tmp_path):
    tensors = {"a": np.array(535274309, np.int32)}
    save_v2(tmp_path / "theirs", tensors)
    tensorbundle.write(tmp_path / "ours", tensors)
    assert tensorbundle.open(tmp_path / "ours").info("a").crc32c == 0
    assert files_of(tmp_path / "ours") == files_of(tmp_path / "theirs")
    assert tensorbundle.read(tmp_path / "theirs")["a"] == 535274309


@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda prefix: os.path.relpath(prefix, CHECKPOINTS))
def test_golden_checkpoints_are_read_alike_and_ours_of_them_too(tmp_path, prefix):
    tensors = tensorbundle.read(prefix)
    assert_same(restore_v2(prefix), tensors)
    tensorbundle.write(tmp_path / "m", tensors)
    assert_same(restore_v2(tmp_path / "m"), tensors)


def test_state_files_are_the_savers(tmp_path):
    steps, keep = [1, 2, 3, 4, 2, 5], 3
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.get_variable("a", initializer=1.0)
        session.run(variable.initializer)
        saver = tf.compat.v1.train.Saver(max_to_keep=keep, save_relative_paths=True)
        for step in steps:
            saver.save(session, str(tmp_path / "theirs" / "é 'm'"), global_step=step, write_meta_graph=False)
    for step in steps:
        tensorbundle.write(tmp_path / "ours" / f"é 'm'-{step}", {"a": np.float32(1)})
        tensorbundle.publish(tmp_path / "ours" / f"é 'm'-{step}", max_to_keep=keep)
    names = sorted(os.listdir(tmp_path / "ours"))
    assert names == sorted(os.listdir(tmp_path / "theirs"))
    for name in names:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    assert tf.train.latest_checkpoint(str(tmp_path / "ours")) == tensorbundle.latest(tmp_path / "ours")
    assert tensorbundle.latest(tmp_path / "theirs") == str(tmp_path / "theirs" / "é 'm'-5")


# Ours waits until the disk has the data, TensorFlow's does not: on a slow disk it is the disks that are compared.
def test_speed_with_400_megabytes(tmp_path, capsys):
    assert crc32c._chosen() is not crc32c.numpy_update, "google-crc32c is compared: pip install 'minilstm[fast]'"
    rng = np.random.default_rng(0)
    tensors = {f"v{number}": rng.standard_normal((10, 1000, 1000), np.float32) for number in range(10)}
    constants = [tf.constant(array) for array in tensors.values()]
    which = {"tensor_names": list(tensors), "shape_and_slices": [""] * 10}
    save, restore = tf.raw_ops.SaveV2, tf.raw_ops.RestoreV2

    def timed(function, *args, **options):
        os.sync()  # what others have left to be written does not count here
        start = time.perf_counter()
        function(*args, **options)
        return time.perf_counter() - start

    seconds = {"write theirs": [], "write ours": [], "read theirs": [], "read ours": []}
    for _ in range(7 if FULL else 3):
        seconds["write theirs"].append(timed(save, prefix=f"{tmp_path}/t", tensors=constants, **which))
        seconds["write ours"].append(timed(tensorbundle.write, tmp_path / "o", tensors))
        seconds["read theirs"].append(timed(restore, prefix=f"{tmp_path}/t", dtypes=[tf.float32] * 10, **which))
        seconds["read ours"].append(timed(tensorbundle.read, tmp_path / "o"))
    medians = {what: statistics.median(times) for what, times in seconds.items()}
    with capsys.disabled():
        print()
        for what, times in seconds.items():
            print(f"{what:13s} median {medians[what]:.2f} s, best {min(times):.2f} s: {400 / medians[what]:.0f} MB/s")
        for what in ("write", "read"):
            ratio = medians[f"{what} theirs"] / medians[f"{what} ours"]
            best = min(seconds[f"{what} theirs"]) / min(seconds[f"{what} ours"])
            print(f"{what}: {ratio:.2f} of TensorFlow's speed, comparing the best runs {best:.2f}")
    assert files_of(tmp_path / "o") == files_of(tmp_path / "t")
    for what in ("write", "read"):  # the best runs: those that nothing else on the machine held up
        assert min(seconds[f"{what} theirs"]) / min(seconds[f"{what} ours"]) > 0.5
