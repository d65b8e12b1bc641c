"""TensorFlow's first checkpoint format, and the dtypes of today's, against TensorFlow itself.

    python tests/interop/run.py        (or pytest -m interop with this file alone: TensorFlow runs eagerly here)

MINILSTM_FULL=1 makes the counts long.
"""

from __future__ import annotations

import os
from itertools import pairwise

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import named_tensors

from minilstm import tensorbundle

pytestmark = pytest.mark.interop

FULL = os.environ.get("MINILSTM_FULL") == "1"
V1 = tf.compat.v1.train.SaverDef.V1
NUMBERS = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "c8", "c16", "?"]
QUANTIZED = {"i1": tf.qint8, "u1": tf.quint8, "i4": tf.qint32}


def restored(pattern, name, dtype):
    """One tensor as TensorFlow reads it."""
    array = tf.raw_ops.Restore(file_pattern=str(pattern), tensor_name=name, dt=dtype).numpy()
    return np.array(array, object) if dtype == tf.string else np.asarray(array)


def assert_same(found, wanted):
    assert list(found) == sorted(wanted, key=str.encode)
    for name, array in wanted.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype), name
        if array.dtype == object:
            assert found[name].tolist() == array.tolist(), name
        else:
            assert found[name].tobytes() == array.tobytes(), name


def random_tensor(rng):
    shape = tuple(int(size) for size in rng.choice([0, 1, 1, 2, 3, 5], rng.integers(0, 5)))
    kind = rng.integers(len(NUMBERS) + 2)
    if kind >= len(NUMBERS):
        array = np.empty(shape, object)
        for place in np.ndindex(shape):
            array[place] = rng.bytes(rng.choice([0, 1, 5, 127, 128, 300]))
        return tf.constant(array, tf.string)
    dtype = np.dtype(NUMBERS[kind])
    octets = np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), np.uint8)
    tensor = tf.constant((octets & 1 if dtype.kind == "b" else octets).view(dtype).reshape(shape))
    if NUMBERS[kind] in QUANTIZED and rng.integers(3) == 0:
        return tf.bitcast(tensor, QUANTIZED[NUMBERS[kind]])
    return tensor


def pieces_of(rng, tensor):
    """A tensor in one piece, or cut along one axis: the pieces, and how SaveSlices writes each one's place."""
    shape = tensor.shape.as_list()
    axes = [axis for axis, size in enumerate(shape) if size > 1 and 0 not in shape]
    whole = "".join(f"{size} " for size in shape)
    if not axes or rng.integers(2):
        return [(tensor, whole + ":".join("-" for _ in shape) if shape else "")]
    axis = rng.choice(axes)
    cuts = [0, *sorted(rng.choice(np.arange(1, shape[axis]), rng.integers(1, shape[axis]), replace=False)), shape[axis]]
    found = []
    for start, stop in pairwise(cuts):
        sizes = list(shape)
        sizes[axis] = stop - start
        begin = [0] * len(shape)
        begin[axis] = start
        place = ":".join(f"{start},{stop - start}" if k == axis else "-" for k in range(len(shape)))
        found.append((tf.slice(tensor, begin, sizes), whole + place))
    return found


@st.composite
def checkpoints(draw):
    """Tensors by name; a seed for how they are cut and spread; the number of shards, or 0 for a file without that."""
    anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)
    usual = st.sampled_from(["RNN", "LSTMCell", "W_0", "Adam", "Adam_1", "bias", "é", "中", "x" * 200])
    pieces = draw(st.lists(usual | anything, min_size=1, max_size=10))
    count = draw(st.sampled_from([1, 2, 15, 16, 17]) | st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    tensors = named_tensors(rng, pieces, count, random_tensor)
    return tensors, rng, draw(st.sampled_from([0, 0, 1, 2, 3]))


@given(checkpoints())
@settings(
    max_examples=200 if FULL else 30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=not FULL
)
def test_random_checkpoints_are_read_as_tensorflow_reads_them(tmp_path_factory, checkpoint):
    tensors, rng, shards = checkpoint
    prefix = str(tmp_path_factory.mktemp("random") / "m")
    spread = [[] for _ in range(max(shards, 1))]
    for name, tensor in tensors.items():
        for piece, place in pieces_of(rng, tensor):
            spread[rng.integers(len(spread))].append((name, piece, place))
    if not all(spread):  # no file without tensors
        spread, shards = [[each for part in spread for each in part]], min(shards, 1)
    for number, part in enumerate(spread):
        names, data, places = zip(*part, strict=True)
        path = f"{prefix}-{number:05d}-of-{shards:05d}" if shards else prefix
        tf.raw_ops.SaveSlices(filename=path, tensor_names=names, shapes_and_slices=places, data=data)
    pattern = f"{prefix}-?????-of-{shards:05d}" if shards else prefix
    wanted = {name: restored(pattern, name, tensor.dtype) for name, tensor in tensors.items()}
    for path in (prefix, pattern):
        assert_same(tensorbundle.read(path), wanted)
        bundle = tensorbundle.open(path)
        assert [bundle.info(name).dtype_name for name in bundle] == [tensors[name].dtype.name for name in bundle]


@pytest.mark.parametrize("sharded", [False, True])
def test_what_the_saver_writes_is_found_by_its_folder(tmp_path, sharded):
    with tf.Graph().as_default(), tf.compat.v1.Session(
        config=tf.compat.v1.ConfigProto(device_count={"CPU": 2})
    ) as session:
        split = tf.compat.v1.fixed_size_partitioner(3)
        with tf.compat.v1.variable_scope("net", partitioner=split, use_resource=False):
            tf.compat.v1.get_variable("emb", initializer=tf.constant(np.arange(14, dtype=np.float32).reshape(7, 2)))
        with tf.device("/cpu:1"):
            tf.compat.v1.get_variable("b", initializer=tf.constant([1.5]), use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(write_version=V1, sharded=sharded)
        for step in (1, 2):
            saved = saver.save(session, str(tmp_path / "m"), global_step=step, write_meta_graph=False)
    assert tensorbundle.latest(tmp_path) == saved
    assert len(tensorbundle.all_checkpoints(tmp_path)) == 2
    found = tensorbundle.read(saved)
    assert_same(found, {"b": np.array([1.5], "f4"), "net/emb": np.arange(14, dtype=np.float32).reshape(7, 2)})
    assert tensorbundle.open(saved).num_shards == 1 + sharded


def test_a_tensor_larger_than_a_block(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {"a": rng.integers(-9, 2**40, (300, 1000)), "b": rng.normal(size=(1000, 100)), "c": np.float32(1)}
    tf.raw_ops.Save(
        filename=str(tmp_path / "m"), tensor_names=list(tensors), data=[tf.constant(a) for a in tensors.values()]
    )
    assert_same(tensorbundle.read(tmp_path / "m"), {name: np.asarray(array) for name, array in tensors.items()})


def test_every_dtype_of_todays_format(tmp_path):
    import ml_dtypes

    tensors = {}
    for code in range(1, 40):
        try:
            dtype = tf.as_dtype(code)
        except TypeError:
            break
        if dtype in (tf.resource, tf.variant):
            continue
        if dtype == tf.string:
            tensors[dtype.name] = tf.constant([b"", b"ab\xff"])
        elif dtype.name.startswith("q"):
            integer = dtype.name[1:]
            tensors[dtype.name] = tf.bitcast(tf.constant(np.array([3, 100], integer)), dtype)
        else:
            tensors[dtype.name] = tf.constant(np.array([1, 0], dtype.as_numpy_dtype))
    assert len(tensors) >= 31
    tensors["int4"] = tf.constant(np.array([-8, -1, 7], ml_dtypes.int4))
    tensors["int2"] = tf.constant(np.array([-2, -1, 1], ml_dtypes.int2))
    beads = tf.raw_ops.TensorListFromTensor(tensor=tf.ones([3, 2]), element_shape=tf.constant([2]))
    names = [*tensors, "beads"]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "m"), tensor_names=names, shape_and_slices=[""] * len(names),
        tensors=[*tensors.values(), beads],
    )  # fmt: skip
    bundle = tensorbundle.open(tmp_path / "m")
    assert list(bundle.unreadable) == ["beads"]
    found = tensorbundle.read(tmp_path / "m", skip_unreadable=True)
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert bundle.info(name).dtype_name == name
        wanted = np.asarray(tensor.numpy())
        assert found[name].shape == wanted.shape
        if name in ("int4", "uint4", "int2", "uint2"):  # here they are int8 or uint8
            assert found[name].tolist() == wanted.astype(int).tolist()
        else:
            assert found[name].dtype == wanted.dtype, name
            assert found[name].tobytes() == wanted.tobytes() or found[name].tolist() == wanted.tolist(), name
