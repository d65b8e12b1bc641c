"""Writing: TensorFlow's own bytes, arrays of every kind, and what must be refused before anything is written."""

from __future__ import annotations

import os
import tracemalloc

import numpy as np
import pytest
from bundle_samples import FOLDERS, NOT_BY_NAME, WITH_BFLOAT16, files_of, prefix_of, same, tensors_of_every_kind
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minilstm import tensorbundle
from minilstm.tensorbundle import dtypes

DTYPES = [dtypes.in_memory(code) for code in dtypes.NAMES if code != dtypes.STRING]
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder not in NOT_BY_NAME])
def test_checkpoints_of_tensorflow_are_written_again_byte_for_byte(tmp_path, folder):
    if folder in WITH_BFLOAT16:
        pytest.importorskip("ml_dtypes")
    tensors = tensorbundle.read(prefix_of(folder))
    tensorbundle.write(tmp_path / "m", dict(reversed(tensors.items())))  # whatever the order of the dict
    assert files_of(tmp_path / "m") == files_of(prefix_of(folder))


@given(
    st.dictionaries(
        names,
        hnp.arrays(
            st.sampled_from([dtype for dtype in DTYPES if dtype.isbuiltin == 1]),
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
        ),
        min_size=1,
    )
)
@settings(max_examples=50)
def test_what_is_written_is_read(tmp_path_factory, tensors):
    prefix = tmp_path_factory.getbasetemp() / "what_is_written"
    tensorbundle.write(prefix, tensors)
    assert same(tensorbundle.read(prefix), dict(sorted(tensors.items(), key=lambda item: item[0].encode())))


def written(tmp_path, value):
    tensorbundle.write(tmp_path / "m", {"a": value})
    return tensorbundle.read(tmp_path / "m")["a"]


BASE = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "array",
    [
        BASE.T,
        BASE[:, ::-1],
        BASE[:, :, 1],
        BASE[::2, 1:2, ::3],
        np.asfortranarray(BASE),
        np.broadcast_to(np.float32(3), (4, 5)),
        BASE[0, 0, 0],
        np.array(5.5),
        np.array(5.5)[()],
        BASE[:, :0],
    ],
    ids=lambda array: f"{np.shape(array)} {np.asarray(array).strides}",
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_layout_and_byte_order_do_not_matter(tmp_path, array, order):
    array = np.asarray(array)
    swapped = array.astype(array.dtype.newbyteorder(order), copy=False)
    read = written(tmp_path, swapped)
    assert read.shape == array.shape
    assert read.dtype == array.dtype
    assert read.tobytes() == array.tobytes()


def test_big_endian_arrays_give_the_same_files(tmp_path):
    little = {dtype.name: np.arange(6).astype(dtype) for dtype in DTYPES if dtype.isbuiltin == 1}
    tensorbundle.write(tmp_path / "little", little)
    big = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in little.items()}
    tensorbundle.write(tmp_path / "big", big)
    assert files_of(tmp_path / "little") == files_of(tmp_path / "big")


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_bfloat16_is_written_as_such(tmp_path, shape):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.full(shape, 1.5, ml_dtypes.bfloat16)
    for view in (array, array.T, array.astype(array.dtype.newbyteorder(">"))):
        read = written(tmp_path, view)
        assert read.dtype == ml_dtypes.bfloat16
        assert (read == view).all()
    assert tensorbundle.open(tmp_path / "m").info("a").dtype_name == "bfloat16"


def test_signs_of_zero_and_payloads_of_nan_survive(tmp_path):
    bits = np.array([0x80000000, 0x7FC12345, 0xFF812345], np.uint32)
    assert written(tmp_path, bits.view(np.float32)).view(np.uint32).tolist() == bits.tolist()


def test_a_bool_is_one_byte_of_0_or_1_whatever_was_there(tmp_path):
    array = np.array([0, 1, 2, 255], np.uint8).view(np.bool_)
    assert written(tmp_path, array).view(np.uint8).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("value", "strings"),
    [
        (b"a\0", b"a\0"),
        ("µ", "µ".encode()),
        ([b"a\0", "µ"], [b"a\0", "µ".encode()]),
        (np.array(b"ab", object), b"ab"),
        (np.array([[b"a", "b"]], object), [[b"a", b"b"]]),
        (np.array(["µ", "bb"]), ["µ".encode(), b"bb"]),
        (np.array(["µ", "bb"], ">U2"), ["µ".encode(), b"bb"]),
        (np.array([b"a", b"bb"]), [b"a", b"bb"]),
        (np.array([[b"a", b"b"], [b"c", b"d"]], object).T, [[b"a", b"c"], [b"b", b"d"]]),
        (np.empty((0, 2), object), []),
        (np.array(["µ", ""], np.dtypes.StringDType()), ["µ".encode(), b""]),
    ],
)
def test_strings_of_any_kind_are_written(tmp_path, value, strings):
    read = written(tmp_path, value)
    assert read.dtype == object
    assert read.tolist() == strings


@pytest.mark.parametrize("value", [1.5, 3, True, 1j, [1, 2], [[1.5]], np.float16(2), range(3)])
def test_anything_numpy_makes_an_array_of_is_written(tmp_path, value):
    read = written(tmp_path, value)
    assert read.dtype == np.asarray(value).dtype
    assert read.tolist() == np.asarray(value).tolist()


def test_pairs_will_do_for_a_dict(tmp_path):
    tensorbundle.write(tmp_path / "m", ((name, np.array(name)) for name in ["b", "a"]))
    assert list(tensorbundle.read(tmp_path / "m")) == ["a", "b"]


def test_names_are_in_the_order_of_their_utf8(tmp_path):
    chosen = ["a", "a/b", "a_b", "A", "\uffff", "\U00010000", "é", "\x01", "~"]
    tensorbundle.write(tmp_path / "m", dict.fromkeys(chosen, 0))
    assert list(tensorbundle.read(tmp_path / "m")) == sorted(chosen, key=str.encode)


def test_missing_folders_are_made_and_nothing_is_left_over(tmp_path):
    tensorbundle.write(tmp_path / "a" / "b" / "m", {"a": 1.0})
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["m.data-00000-of-00001", "m.index"]


def test_a_relative_prefix_is_taken_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensorbundle.write("m", {"a": 1.0})
    assert sorted(os.listdir(tmp_path)) == ["m.data-00000-of-00001", "m.index"]
    assert tensorbundle.read("m")["a"] == 1.0


REFUSED = {
    "no tensors": ({}, ValueError, "there are no tensors, want at least one"),
    "an empty name": ({"": 1}, ValueError, "a tensor's name must not be empty"),
    "a name of bytes": ({b"a": 1}, TypeError, "a tensor's name must be a str, got b'a'"),
    "a name without utf-8": ({"a\ud800": 1}, ValueError, r"'a\\ud800' cannot be written in UTF-8"),
    "a name twice": ([("a", 1), ("b", 1), ("a", 2)], ValueError, "two tensors named 'a'"),
    "dates": ({"a": np.zeros(1, "M8[s]")}, TypeError, "'a' has dtype datetime64.*, want one of float32"),
    "long doubles": ({"a": np.zeros(1, "V16")}, TypeError, "'a' has dtype"),
    "records": ({"a": np.zeros(1, "i4,f4")}, TypeError, "'a' has dtype"),
    "objects": ({"a": np.array([1, None], object)}, TypeError, "'a' has an element of type int, want bytes or str"),
    "none": ({"a": None}, TypeError, "'a' has an element of type NoneType"),
    "dicts": ({"a": {"b": 1}}, TypeError, "'a' has an element of type dict"),
    "ragged lists": ({"a": [[1, 2], [3]]}, ValueError, "'a' cannot be made an array"),
    "numbers among strings": ({"a": ["b", 1]}, TypeError, "'a' has an element of type int"),
    "strings without utf-8": ({"a": ["\ud800"]}, ValueError, "'a' has an element that cannot be stored"),
    "large integers": ({"a": 2**70}, TypeError, "'a' has an element of type int"),
    "masked arrays": ({"a": np.ma.masked_array([1], [True])}, TypeError, "'a' is a masked array"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path, name):
    tensors, error, message = REFUSED[name]
    if isinstance(tensors, dict) and "a" in tensors:
        tensors = {"0": np.zeros(3), **tensors}
    with pytest.raises(error, match=f"write: .*{message}"):
        tensorbundle.write(tmp_path / "new" / "m", tensors)
    assert os.listdir(tmp_path) == []


def test_dtypes_of_other_packages_are_refused(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype in (ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn, ml_dtypes.int4):
        with pytest.raises(TypeError, match="'a' has dtype"):
            tensorbundle.write(tmp_path / "m", {"a": np.zeros(2, dtype)})


@pytest.mark.parametrize("prefix", ["", "a/"])
def test_a_prefix_that_names_no_file_is_refused(prefix):
    with pytest.raises(ValueError, match="write: prefix must end in a file name"):
        tensorbundle.write(prefix, {"a": 1})


class TestMemory:
    """Beside what is there already, at most one tensor; tracemalloc sees what NumPy allocates."""

    SIZE = 8 << 20
    SLACK = 3 << 20

    def peak(self, function, *args):
        tensorbundle.crc32c.crc32c(bytes(1 << 20))  # makes the tables, once
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            kept = function(*args)
            return tracemalloc.get_traced_memory()[1] - before, kept
        finally:
            tracemalloc.stop()

    @pytest.fixture
    def tensors(self):
        return {f"v{number}": np.full(self.SIZE // 4, number, np.float32) for number in range(4)}

    def test_writing_copies_nothing(self, tmp_path, tensors):
        assert self.peak(tensorbundle.write, tmp_path / "m", tensors)[0] < self.SLACK

    def test_writing_copies_one_at_a_time_where_it_must(self, tmp_path, tensors):
        swapped = {name: array.astype(">f4") for name, array in tensors.items()}
        assert self.peak(tensorbundle.write, tmp_path / "m", swapped)[0] < self.SIZE + self.SLACK

    def test_reading_takes_the_tensors_and_no_more(self, tmp_path, tensors):
        tensorbundle.write(tmp_path / "m", tensors)
        assert self.peak(tensorbundle.read, tmp_path / "m")[0] < 4 * self.SIZE + self.SLACK

    def test_verifying_takes_nothing(self, tmp_path, tensors):
        tensors["strings"] = np.array([b"x" * self.SIZE, b""] + [b"y"] * 100_000, object)
        tensorbundle.write(tmp_path / "m", tensors)
        bundle = tensorbundle.open(tmp_path / "m")
        for name in bundle:
            assert self.peak(bundle.verify, name)[0] < self.SLACK


def test_all_kinds_together_come_back(tmp_path):
    tensorbundle.write(tmp_path / "m", tensors_of_every_kind())
    assert same(tensorbundle.read(tmp_path / "m"), tensors_of_every_kind())
