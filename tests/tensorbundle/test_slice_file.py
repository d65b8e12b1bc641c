"""TensorFlow's first format: files it wrote, and files that contradict themselves. Damage is judged as in V2."""

from __future__ import annotations

import os
import random
import shutil

import numpy as np
import pytest
from bundle_samples import CHECKPOINTS, FULL, manifest, prefix_of, same

from minilstm import tensorbundle
from minilstm.tensorbundle import CheckpointError, snappy
from minilstm.tensorbundle.opening import slice_files
from minilstm.tensorbundle.slices import part_key
from minilstm.tensorbundle.table import encode_table, read_table
from minilstm.tensorbundle.varint import encode_varint
from minilstm.tensorbundle.wire import integer, message

SHARDED = "model.ckpt-?????-of-00002"


# Files as TensorFlow writes them, made here to be changed


def shape_of(*sizes):
    return b"".join(message(2, integer(1, size)) for size in sizes)


def slice_of(extents):
    return b"".join(
        message(1, integer(1, start) + (b"" if length is None else integer(2, length))) for start, length in extents
    )


def listed(name=b"a", shape=(2,), dtype=1, slices=(((0, None),),)):
    """What the list of tensors says about one."""
    fields = message(1, name) + message(2, shape_of(*shape)) + integer(3, dtype)
    return message(1, fields + b"".join(message(4, slice_of(extents)) for extents in slices))


def meta(*tensors, version=b"\x08\x01"):
    return b"", message(1, b"".join(tensors) + message(2, version))


def stored(tensor, name=b"a", extents=((0, None),), key=None):
    """The entry with the numbers of a slice; `tensor` is the message that holds them."""
    content = message(1, name) + message(2, slice_of(extents)) + message(3, tensor)
    return key or part_key(name, extents), message(2, content)


FLOATS = message(5, np.array([1.5, -2], "<f4").tobytes())


def put(path, *items):
    path.write_bytes(encode_table(sorted(items)))
    return str(path)


def read_one(path, *items):
    return tensorbundle.read(put(path, *items))["a"]


# What can be read


@pytest.mark.parametrize("prefix", ["model.ckpt", SHARDED, "model.ckpt-00000-of-00002", "model.ckpt-00001-of-00002"])
def test_shards_are_opened_by_any_of_their_names(prefix):
    bundle = tensorbundle.open(CHECKPOINTS / "v1_sharded" / prefix)
    assert (bundle.format, bundle.num_shards) == ("V1", 2)
    assert same(bundle.read_all(), tensorbundle.read(prefix_of("v1_partitioned")))
    assert bundle.info("net/emb").parts == 3
    assert {bundle.info(name).shard for name in bundle} == {0, 1}


def test_a_folder_whose_state_file_names_files_of_the_first_format():
    for folder in ("v1_adam", "v1_sharded"):
        assert tensorbundle.latest(CHECKPOINTS / folder) == str(prefix_of(folder))


def test_todays_format_comes_first(tmp_path):
    put(tmp_path / "m", meta(listed()), stored(FLOATS))
    assert tensorbundle.open(tmp_path / "m").format == "V1"
    tensorbundle.write(tmp_path / "m", {"b": 1.0})
    assert tensorbundle.open(tmp_path / "m").keys() == ["b"]


ACCEPTED = {
    "packed": FLOATS,
    "one by one": b"".join(b"\x2d" + np.float32(value).tobytes() for value in (1.5, -2)),
    "in two pieces": message(5, np.float32(1.5).tobytes()) + message(5, np.float32(-2).tobytes()),
    "a dtype and a shape, too": integer(1, 1) + message(2, shape_of(2)) + FLOATS,
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_elements_may_be_spread(tmp_path, name):
    assert read_one(tmp_path / "m", meta(listed()), stored(ACCEPTED[name])).tolist() == [1.5, -2]


def test_integers_may_be_spread(tmp_path):
    tensor = integer(7, -5) + message(7, encode_varint(300) + encode_varint(-1)) + integer(7, 0, write_zero=True)
    array = read_one(tmp_path / "m", meta(listed(dtype=3, shape=(4,))), stored(tensor))
    assert (array.tolist(), array.dtype) == ([-5, 300, -1, 0], np.int32)


def test_many_integers_of_every_length(tmp_path):
    numbers = np.random.default_rng(0).integers(-(2**62), 2**62, 50_000) >> np.arange(50_000) % 63
    tensor = message(10, b"".join(map(encode_varint, numbers.tolist())))
    array = read_one(tmp_path / "m", meta(listed(dtype=9, shape=(50_000,))), stored(tensor))
    assert array.tobytes() == numbers.tobytes()


def test_what_is_read_can_be_changed(tmp_path):
    array = read_one(tmp_path / "m", meta(listed()), stored(FLOATS))
    array += 1
    assert array.tolist() == [2.5, -1]


def compressed(contents):
    """Snappy: literals of at most 60 bytes."""
    pieces = [contents[at : at + 60] for at in range(0, len(contents), 60)]
    return encode_varint(len(contents)) + b"".join(bytes([len(piece) - 1 << 2]) + piece for piece in pieces)


def test_blocks_compressed_by_snappy_are_read(tmp_path):
    from test_table import block, contents

    data = prefix_of("v1_dtypes").read_bytes()

    class Source:
        size = len(data)

        def read_at(self, offset, size):
            return data[offset : offset + size]

    output, handles = b"", []
    for plain, kind in ((contents(*read_table(Source())), 1), (contents(), 0)):
        stored_as = compressed(plain) if kind else plain
        handles.append(encode_varint(len(output)) + encode_varint(len(stored_as)))
        output += block(stored_as, kind)
    assert snappy.decompress(compressed(b"abc" * 99)) == b"abc" * 99
    index = contents((b"\xff" * 9, handles[0]))
    handles.append(encode_varint(len(output)) + encode_varint(len(index)))
    footer = (handles[1] + handles[2]).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
    (tmp_path / "m").write_bytes(output + block(index) + footer)
    assert same(tensorbundle.read(tmp_path / "m"), tensorbundle.read(prefix_of("v1_dtypes")))


# What contradicts itself

REJECTED = {
    "no list": ([stored(FLOATS)], "no list of its tensors"),
    "a list that is none": ([(b"", b"\xff")], "list of its tensors is damaged"),
    "a header of V2": ([(b"", b"\x08\x01\x1a\x02\x08\x01")], "list of its tensors is damaged: a field holds a number"),
    "a tensor twice": ([meta(listed(), listed())], "a tensor is in it twice"),
    "newer": ([meta(version=integer(2, 2))], "written for newer readers"),
    "bad consumer": ([meta(version=integer(3, 1))], "written for newer readers"),
    "negative dimension": ([meta(listed(shape=(-1,)))], "tensor 'a': shape .* negative dimension"),
    "too many dimensions": ([meta(listed(shape=(1,) * 65))], "65 dimensions"),
    "more than memory": ([meta(listed(shape=(2**40, 2**40)))], "larger than any memory"),
    "more than the file": ([meta(listed(shape=(2**30,)))], r"cannot hold shape \[1073741824\]"),
    "unknown rank": ([meta(message(1, message(1, b"a") + message(2, integer(3, 1))))], "unknown rank"),
    "not utf-8": ([meta(listed(name=b"\xff"))], "the name is not UTF-8"),
    "no slices": ([meta(listed(slices=()))], "do not cover"),
    "half of it": ([meta(listed(slices=(((0, 1),),)))], "do not cover"),
    "the same slice twice": ([meta(listed(slices=(((0, None),), ((0, None),))))], "do not cover"),
    "a slice that is not there": ([meta(listed())], "tensor 'a': its slice .* is missing"),
    "another slice": ([meta(listed()), stored(FLOATS, name=b"b", key=part_key(b"a", [(0, None)]))], "another tensor's"),
    "another part": ([meta(listed()), stored(FLOATS, extents=((0, 2),), key=part_key(b"a", [(0, None)]))], "another"),
    "fewer": ([meta(listed()), stored(FLOATS[:2] + FLOATS[2:6].replace(b"\x08", b""))], "integer|elements|runs over"),
    "one too few": ([meta(listed(shape=(3,))), stored(FLOATS)], "2 elements, want 3"),
    "one too many": ([meta(listed(shape=(1,))), stored(FLOATS)], "more than 1 elements"),
    "half an element": ([meta(listed()), stored(message(5, bytes(7)))], "1 elements, want 2"),
    "none": ([meta(listed()), stored(b"")], "0 elements, want 2"),
    "in another field": ([meta(listed()), stored(message(6, bytes(16)))], "0 elements, want 2"),
    "as integers": ([meta(listed()), stored(integer(5, 1))], "stored in another way than float32"),
    "integers too few": ([meta(listed(dtype=3)), stored(integer(7, 1))], "1 elements, want 2"),
    "integers cut": ([meta(listed(dtype=3)), stored(message(7, b"\1\2\x80"))], "runs over the end"),
    "integers too long": ([meta(listed(dtype=9)), stored(message(10, b"\xff" * 10 + b"\1\2"))], "more than 64 bits"),
    "too large": ([meta(listed(dtype=3)), stored(message(7, encode_varint(2**31) + b"\0"))], "2147483648 as int32"),
    "too small": ([meta(listed(dtype=4)), stored(message(7, encode_varint(-1) + b"\0"))], "-1 or 0 as uint8"),
    "a bool of 2": ([meta(listed(dtype=10)), stored(message(11, b"\2\0"))], "2 as bool"),
    "strings too few": ([meta(listed(dtype=7)), stored(message(8, b"x"))], "1 elements, want 2"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, name):
    items, message_ = REJECTED[name]
    path = put(tmp_path / "m", *items)
    with pytest.raises(CheckpointError, match=rf"(?s)^{path}: .*{message_}"):
        tensorbundle.read(path)


def test_a_dtype_that_no_file_of_this_format_has_hides_no_other_tensor(tmp_path):
    names = {b"a": 1, b"bf": 14, b"v": 21, b"new": 99}
    tensors = [listed(name=name, dtype=code) for name, code in names.items()]
    path = put(tmp_path / "m", meta(*tensors), *(stored(FLOATS, name=name) for name in names))
    bundle = tensorbundle.open(path)
    assert bundle["a"].tolist() == [1.5, -2]
    assert set(bundle.unreadable) == {"bf", "v", "new"}
    with pytest.raises(CheckpointError, match=rf"^{path}: tensor 'bf' cannot be read: no file of the first format"):
        tensorbundle.read(path)
    assert list(tensorbundle.read(path, skip_unreadable=True)) == ["a"]


def test_another_kind_of_file_is_named_as_that(tmp_path):
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n" + bytes(100))
    with pytest.raises(CheckpointError, match=r"model\.h5: read as a checkpoint of TensorFlow's first format"):
        tensorbundle.open(tmp_path / "model.h5")


def test_a_missing_shard_is_named(tmp_path):
    shutil.copytree(CHECKPOINTS / "v1_sharded", tmp_path, dirs_exist_ok=True)
    os.remove(tmp_path / "model.ckpt-00001-of-00002")
    for name in ("model.ckpt", "model.ckpt-00000-of-00002", SHARDED):
        with pytest.raises(CheckpointError, match=r"model.ckpt-00001-of-00002: not there, but other shards"):
            tensorbundle.open(tmp_path / name)
    assert tensorbundle.latest(tmp_path) is None


def test_shards_of_two_checkpoints_are_not_mixed(tmp_path):
    shutil.copytree(CHECKPOINTS / "v1_sharded", tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.ckpt-00000-of-00003").write_bytes(b"")
    with pytest.raises(CheckpointError, match="shards of 00002 and of 00003"):
        tensorbundle.open(tmp_path / "model.ckpt")
    assert len(slice_files(str(tmp_path / SHARDED))) == 2


def test_shards_that_contradict_each_other_are_refused(tmp_path):
    put(tmp_path / "m-00000-of-00002", meta(listed(slices=(((0, 1),),))), stored(FLOATS, extents=((0, 1),)))
    put(tmp_path / "m-00001-of-00002", meta(listed(shape=(3,), slices=(((1, 1),),))), stored(FLOATS))
    with pytest.raises(CheckpointError, match=r"tensor 'a': in file 1 it is float32 of shape \[3\], want float32 of"):
        tensorbundle.open(tmp_path / "m")


# Damage

WHOLE = ["v1_adam", "v1_dtypes", "v1_partitioned"]


@pytest.mark.parametrize("folder", WHOLE)
def test_every_flipped_bit_is_noticed(tmp_path, folder):
    data = prefix_of(folder).read_bytes()
    path = tmp_path / "m"
    bits = range(8 * len(data))
    for bit in bits if FULL or folder == "v1_partitioned" else random.Random(0).sample(bits, 1000):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"^{path}: "):
            tensorbundle.read(path)


@pytest.mark.parametrize("folder", WHOLE)
def test_every_truncation_is_noticed(tmp_path, folder):
    data = prefix_of(folder).read_bytes()
    path = tmp_path / "m"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=f"^{path}: "):
            tensorbundle.open(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(CheckpointError, match="does not end as"):
        tensorbundle.open(path)


def test_one_tensor_is_read_although_others_are_damaged(tmp_path):
    """Those in the same block are damaged too: a block has one checksum."""
    big = message(5, bytes(4 * 100_000))
    items = [meta(listed(b"a", (100_000,)), listed(b"b", (100_000,)), listed(b"c"))]
    items += [stored(big, b"a"), stored(big, b"b"), stored(FLOATS, b"c")]
    path = put(tmp_path / "m", *items)
    with open(path, "r+b") as file:
        file.seek(600_000)
        file.write(b"\xff")
    assert list(tensorbundle.read(path, skip_unreadable=True)) == ["a", "c"]
    with pytest.raises(CheckpointError, match="tensor 'b': the data block at"):
        tensorbundle.read(path)


def test_the_manifest_describes_every_file():
    for folder in (*WHOLE, "v1_sharded"):
        assert {name: size["size"] for name, size in manifest(folder)["files"].items()} == {
            path.name: path.stat().st_size for path in (CHECKPOINTS / folder).glob("model.ckpt*")
        }
