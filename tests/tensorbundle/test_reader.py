"""Reading: every checkpoint of TensorFlow's, tensor by tensor; and checkpoints that contradict themselves."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from bundle_samples import CHECKPOINTS, FOLDERS, checksum, manifest, prefix_of, put_items, same, tensors_of_every_kind

from minilstm import tensorbundle
from minilstm.tensorbundle import CheckpointError, dtypes
from minilstm.tensorbundle.proto import Entry, Header
from minilstm.tensorbundle.slices import part_key

HEADER = (b"", Header(1, producer=1))


def assert_as_tensorflow_reads_it(folder, name, array):
    described = manifest(folder)["tensors"][name]
    assert list(array.shape) == described["shape"]
    if "values_hex" in described:
        assert [element.hex() for element in array.reshape(-1)] == described["values_hex"]
        assert all(type(element) is bytes for element in array.reshape(-1))
    elif "values_hex_le_bytes" in described:
        assert array.tobytes().hex() == "".join(described["values_hex_le_bytes"])
    else:
        with np.load(CHECKPOINTS / folder / "values.npz") as values:
            expected = values[described.get("values_key", name)]
        assert array.dtype == expected.dtype
        assert array.tobytes() == expected.tobytes()


@pytest.mark.parametrize("folder", FOLDERS)
class TestCheckpointsOfTensorFlow:
    def test_all_tensors_are_read(self, folder):
        tensors = tensorbundle.read(prefix_of(folder))
        assert list(tensors) == sorted(manifest(folder)["tensors"])
        for name, array in tensors.items():
            assert_as_tensorflow_reads_it(folder, name, array)

    def test_they_are_listed_as_tensorflow_lists_them(self, folder):
        described = manifest(folder)["tensors"]
        listed = tensorbundle.list_variables(str(prefix_of(folder)))
        assert [name for name, _, _ in listed] == sorted(described)
        bundle = tensorbundle.open(prefix_of(folder))
        for name, dtype, shape in listed:
            info = bundle.info(name)
            assert (info.name, info.dtype, info.shape) == (name, dtype, shape)
            assert info.dtype_name == described[name]["dtype"]
            assert list(shape) == described[name]["shape"]
            assert dtype == bundle[name].dtype

    def test_all_checksums_hold(self, folder):
        bundle = tensorbundle.open(prefix_of(folder))
        bundle.check_files()
        for name in bundle:
            bundle.verify(name)


def test_bfloat16_is_a_number_where_there_is_a_dtype_for_it():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bundle = tensorbundle.open(prefix_of("dtypes"))
    (name,) = [name for name in bundle if bundle.info(name).dtype_name == "bfloat16"]
    assert bundle[name].dtype == ml_dtypes.bfloat16


def test_an_object_based_checkpoint_is_read_by_name():
    bundle = tensorbundle.open(prefix_of("tf2_object"))
    assert "step/.ATTRIBUTES/VARIABLE_VALUE" in bundle
    assert bundle["_CHECKPOINTABLE_OBJECT_GRAPH"].shape == ()
    assert type(bundle["_CHECKPOINTABLE_OBJECT_GRAPH"].item()) is bytes


def test_partitioned_variables_are_one_tensor():
    bundle = tensorbundle.open(prefix_of("partitioned"))
    assert bundle.keys() == ["emb", "plain", "wide"]
    info = bundle.info("wide")
    assert (info.parts, info.nbytes, info.crc32c) == (3, 2 * 7 * 4, None)
    assert bundle.info("plain").parts == 1


def test_shards_are_read_from_their_own_files(tmp_path):
    shutil.copytree(CHECKPOINTS / "sharded2", tmp_path, dirs_exist_ok=True)
    bundle = tensorbundle.open(tmp_path / "model.ckpt")
    assert bundle.num_shards == 2
    os.remove(tmp_path / "model.ckpt.data-00001-of-00002")
    readable = [name for name in bundle if bundle.info(name).shard == 0]
    assert 0 < len(readable) < len(bundle)
    for name in bundle:
        if name in readable:
            assert_as_tensorflow_reads_it("sharded2", name, bundle[name])
        else:
            with pytest.raises(CheckpointError, match=r"data-00001-of-00002: not there, .* tensor '"):
                bundle[name]
    with pytest.raises(CheckpointError, match="not there"):
        tensorbundle.read(tmp_path / "model.ckpt")


class TestBundle:
    @pytest.fixture
    def bundle(self, tmp_path):
        tensorbundle.write(tmp_path / "m", tensors_of_every_kind())
        return tensorbundle.open(tmp_path / "m")

    def test_it_is_a_mapping(self, bundle):
        tensors = tensors_of_every_kind()
        assert bundle.keys() == list(bundle) == sorted(tensors)
        assert len(bundle) == len(tensors)
        assert "empty" in bundle
        assert "full" not in bundle
        assert same(dict(bundle), tensors)
        assert same(bundle.read_all(), tensors)

    def test_a_missing_name_is_a_key_error(self, bundle):
        for use in (bundle.__getitem__, bundle.info, bundle.verify):
            with pytest.raises(KeyError, match="no tensor 'full'"):
                use("full")

    def test_info_says_where_the_bytes_are(self, bundle):
        info = bundle.info("a/kernel")
        assert (info.shard, info.offset, info.nbytes, info.parts) == (0, 16, 48, 1)
        assert info.crc32c == checksum(tensors_of_every_kind()["a/kernel"].tobytes())

    def test_it_needs_no_closing_but_accepts_it(self, bundle):
        with bundle as same_bundle:
            assert same_bundle is bundle
        assert bundle["z"] == 1 - 2j

    def test_listing_needs_no_data_file(self, bundle):
        os.remove(f"{bundle.prefix}.data-00000-of-00001")
        assert len(tensorbundle.list_variables(bundle.prefix)) == len(bundle)
        with pytest.raises(CheckpointError, match="not there"):
            bundle.check_files()

    def test_one_tensor_is_read_although_others_are_damaged(self, bundle):
        path = f"{bundle.prefix}.data-00000-of-00001"
        with open(path, "r+b") as file:
            file.write(b"\xff")
        assert bundle["a/kernel"].shape == (2, 3)
        for use in (bundle.__getitem__, bundle.verify):
            message = r"data-00000-of-00001: tensor 'a/bias': stored checksum 0x.{8}, computed 0x.{8}: .* is damaged"
            with pytest.raises(CheckpointError, match=message):
                use("a/bias")

    def test_what_is_read_can_be_changed(self, bundle):
        array = bundle["a/bias"]
        array += 1
        assert bundle["a/bias"][0] == 0


class TestWhatIsNotThere:
    def test_no_index(self, tmp_path):
        for use in (tensorbundle.open, tensorbundle.read, tensorbundle.list_variables):
            with pytest.raises(FileNotFoundError, match=r"m\.index"):
                use(tmp_path / "m")

    def test_a_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            tensorbundle.open(tmp_path)
        with pytest.raises(ValueError, match="prefix must end in a file name"):
            tensorbundle.open(f"{tmp_path}/")

    def test_bytes_are_no_prefix(self):
        with pytest.raises(TypeError, match="open: prefix must be"):
            tensorbundle.open(b"m")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
    def test_pipes_and_folders_are_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "m.index")
        with pytest.raises(CheckpointError, match="not a regular file"):
            tensorbundle.open(tmp_path / "m")
        os.mkdir(tmp_path / "n.index")
        with pytest.raises(CheckpointError, match="not a regular file"):
            tensorbundle.open(tmp_path / "n")
        tensorbundle.write(tmp_path / "o", {"a": 1.0})
        os.remove(tmp_path / "o.data-00000-of-00001")
        os.mkfifo(tmp_path / "o.data-00000-of-00001")
        with pytest.raises(CheckpointError, match="not a regular file"):
            tensorbundle.read(tmp_path / "o")


# Index entries that contradict themselves or the data, each around one float32 of four bytes.

DATA = bytes.fromhex("0000c03f")
GOOD = Entry(1, (), 0, 0, 4, checksum(DATA))


def variant(**changes):
    return [HEADER, (b"a", GOOD._replace(**changes))]


ACCEPTED = {
    "as it is": (variant(), DATA),
    "bytes after the last tensor": (variant(), DATA + b"more"),
    "an offset": (variant(offset=3), b"xyz" + DATA),
    "a header without version": ([(b"", b"\x08\x01"), (b"a", GOOD)], DATA),
    "another producer": ([(b"", Header(1, producer=99)), (b"a", GOOD)], DATA),
    "bad consumers, not this one": ([(b"", Header(1, 0, 1, 1, (2, 3))), (b"a", GOOD)], DATA),
    "big-endian": ([(b"", Header(1, 1, 1)), (b"a", GOOD._replace(crc32c=checksum(DATA[::-1])))], DATA[::-1]),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_tensorflow_accepts_is_read(tmp_path, name):
    items, data = ACCEPTED[name]
    array = tensorbundle.read(put_items(tmp_path / "m", items, data))["a"]
    assert array.shape == ()
    assert array == 1.5
    assert array.dtype.isnative


def test_entries_may_overlap(tmp_path):
    items = [HEADER, *((b"%d" % number, GOOD) for number in range(9))]
    assert all(value == 1.5 for value in tensorbundle.read(put_items(tmp_path / "m", items, DATA)).values())


def test_big_endian_numbers_are_swapped_each_on_its_own(tmp_path):
    array = np.array([1 + 2j, 3 - 4j], ">c16")
    entry = Entry(18, (2,), 0, 0, 32, checksum(array.tobytes()))
    bundle = tensorbundle.open(put_items(tmp_path / "m", [(b"", Header(1, 1)), (b"a", entry)], array.tobytes()))
    assert bundle["a"].dtype == np.complex128
    assert (bundle["a"] == array).all()


REJECTED_BY_THE_INDEX = {
    "no header": ([(b"a", GOOD)], "there is no header"),
    "nothing at all": ([], "there is no header"),
    "header that does not parse": ([(b"", b"\xff")], "header is damaged"),
    "no shards": ([(b"", Header(0)), (b"a", GOOD)], "counts 0 data files"),
    "negative shards": ([(b"", Header(-1)), (b"a", GOOD)], "counts -1 data files"),
    "third byte order": ([(b"", Header(1, 2)), (b"a", GOOD)], "byte order 2"),
    "newer format": ([(b"", Header(1, 0, 2, 2)), (b"a", GOOD)], "written for newer readers"),
    "bad consumer": ([(b"", Header(1, 0, 1, 0, (1,))), (b"a", GOOD)], "written for newer readers"),
    "entry that does not parse": ([HEADER, (b"a", b"\xff")], "tensor 'a': an integer"),
    "negative dimension": (variant(shape=(-1,)), "negative dimension"),
    "negative size": (variant(size=-4), "-4 bytes"),
    "negative offset": (variant(offset=-1), "at offset -1"),
    "offset beyond everything": (variant(offset=2**63 - 1), "4 bytes at offset"),
    "another shard": (variant(shard_id=1), "data file 1 of 1"),
    "negative shard": (variant(shard_id=-1), "data file -1 of 1"),
    "size of another shape": (variant(shape=(2,)), r"tensor 'a': 4 bytes, want 8 for shape \[2\] of float32"),
    "more elements than numbers": (variant(shape=(2**40, 2**40)), "larger than any memory"),
    "nothing times too much": (variant(shape=(0, 2**62), size=0), "larger than any memory"),
    "too many dimensions": (variant(shape=(1,) * 65), "65 dimensions"),
    "strings without room": (variant(dtype=7, shape=(2**40,), size=10), "10 bytes cannot hold"),
    "name that is not utf-8": ([HEADER, (b"a\xff", GOOD)], r"a\\\\xff': the name is not UTF-8"),
    "slices that do not cover": (variant(slices=(((0, 1),),), shape=(2,)), "tensor 'a': the slices do not cover"),
    "missing slice": (variant(slices=(((0, 2),),), shape=(2,)), "the slice .* is missing"),
}


@pytest.mark.parametrize("name", REJECTED_BY_THE_INDEX)
def test_an_index_that_contradicts_itself_is_refused(tmp_path, name):
    items, message = REJECTED_BY_THE_INDEX[name]
    prefix = put_items(tmp_path / "m", items, DATA)
    for use in (tensorbundle.open, tensorbundle.read, tensorbundle.list_variables):
        with pytest.raises(CheckpointError, match=rf"m\.index: .*{message}"):
            use(prefix)


REJECTED_BY_THE_DATA = {
    "another checksum": (variant(crc32c=1), DATA, "stored checksum 0x00000001"),
    "no checksum": (variant(crc32c=0), DATA, "stored checksum 0x00000000"),
    "beyond the file": (variant(offset=1), DATA, "ends at byte 5 of a file of 4: the file is truncated"),
    "no data": (variant(), b"", "ends at byte 4 of a file of 0"),
    "a huge tensor": (variant(shape=(2**50,), size=2**52), DATA, "truncated"),
    "a huge string": (variant(dtype=7, size=2**52), DATA, "truncated"),
    "a bool of 2": (variant(dtype=10, size=1, crc32c=checksum(b"\2")), b"\2", "a bool of 2, neither"),
    "strings": (variant(dtype=7, size=5), b"\1" * 5, "do not make up"),
    "big-endian strings": ([(b"", Header(1, 1)), (b"a", GOOD._replace(dtype=7, size=5))], b"\0" * 5, "big-endian"),
}


@pytest.mark.parametrize("name", REJECTED_BY_THE_DATA)
def test_data_that_contradicts_the_index_is_refused(tmp_path, name):
    items, data, message = REJECTED_BY_THE_DATA[name]
    bundle = tensorbundle.open(put_items(tmp_path / "m", items, data))
    for use in (bundle.__getitem__, bundle.verify):
        with pytest.raises(CheckpointError, match=rf"m\.data-00000-of-00001: tensor 'a': .*{message}"):
            use("a")


def test_many_entries_over_the_same_bytes_cannot_fill_the_memory(tmp_path):
    data = bytes(1 << 20)
    entry = Entry(4, (len(data),), 0, 0, len(data), checksum(data))
    items = [HEADER, *((b"%04d" % number, entry) for number in range(100))]
    prefix = put_items(tmp_path / "m", items, data)
    assert tensorbundle.open(prefix)["0000"].nbytes == len(data)  # one by one they can be read
    with pytest.raises(CheckpointError, match="tensors of 104857600 bytes in data files of 1048576"):
        tensorbundle.read(prefix)


def partitioned(shape, pieces, entries):
    whole = Entry(1, shape, slices=tuple(pieces))
    parts = [(part_key(b"v", extents), entry) for extents, entry in zip(pieces, entries, strict=True)]
    return [HEADER, *sorted(parts), (b"v", whole)]


PART = Entry(1, (1,), 0, 0, 4, checksum(DATA))


def test_parts_of_a_variable_are_joined(tmp_path):
    items = partitioned((2,), [((1, 1),), ((0, 1),)], [PART, PART])
    assert tensorbundle.read(put_items(tmp_path / "m", items, DATA))["v"].tolist() == [1.5, 1.5]


def test_a_part_whose_key_happens_to_be_utf8_is_no_tensor(tmp_path):
    """640, as a start or a length, is c2 80 in a key, which is a character."""
    half = Entry(1, (640,), 0, 0, 2560, checksum(bytes(2560)))
    items = partitioned((1280,), [((0, 640),), ((640, 640),)], [half, half])
    assert items[-2][0].decode().endswith("\x80\x80")
    assert list(tensorbundle.read(put_items(tmp_path / "m", items, bytes(2560)))) == ["v"]


def test_a_part_without_its_variable_is_hidden(tmp_path):
    items = [HEADER, (part_key(b"v", [(0, 1)]), PART), (b"w", GOOD)]
    assert list(tensorbundle.read(put_items(tmp_path / "m", items, DATA))) == ["w"]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (PART._replace(dtype=3), "is int32 of shape"),
        (PART._replace(shape=(1, 1)), r"is float32 of shape \[1, 1\]"),
        (PART._replace(slices=(((0, 1),),)), "tensor .*"),
    ],
)
def test_parts_must_fit(tmp_path, part, message):
    items = partitioned((2,), [((0, 1),), ((1, 1),)], [PART, part])
    with pytest.raises(CheckpointError, match=message):
        tensorbundle.open(put_items(tmp_path / "m", items, DATA))


def test_many_parts_over_the_same_bytes_cannot_fill_the_memory(tmp_path):
    data = bytes(1 << 20)
    rows = 100
    part = Entry(4, (1, len(data)), 0, 0, len(data), checksum(data))
    pieces = [((row, 1), (0, None)) for row in range(rows)]
    items = partitioned((rows, len(data)), pieces, [part] * rows)
    items[-1] = (b"v", items[-1][1]._replace(dtype=4))
    with pytest.raises(CheckpointError, match="tensors of 104857600 bytes in data files of 1048576"):
        tensorbundle.open(put_items(tmp_path / "m", items, data))["v"]


# Dtypes


def test_every_dtype_that_is_written_has_a_name_numpy_knows():
    for name in dtypes.WRITABLE:
        (code,) = [code for code in dtypes.NAMES if dtypes.NAMES[code] == name]
        assert dtypes.code_of(dtypes.in_memory(code)) == code or name == "bfloat16"
        if name not in ("string", "bfloat16"):
            assert dtypes.in_memory(code) == np.dtype(name)


def one_of(code, data):
    count = len(data) // dtypes.in_memory(code).itemsize
    return [HEADER, (b"a", Entry(code, (count,), 0, 0, len(data), checksum(data)))]


@pytest.mark.parametrize(
    ("code", "data", "values", "dtype"),
    [
        (11, b"\x01\xff", [1, -1], "int8"),
        (12, b"\x01\xff", [1, 255], "uint8"),
        (13, b"\xfe\xff\xff\xff", [-2], "int32"),
        (15, b"\xfe\xff", [-2], "int16"),
        (16, b"\xfe\xff", [65534], "uint16"),
        (29, b"\x01\x0e\x00\xff", [1, -2, 0, -1], "int8"),
        (30, b"\x01\x0f\xf3", [1, 15, 3], "uint8"),
        (31, b"\x01\x02\x03", [1, -2, -1], "int8"),
        (32, b"\x01\x02\x03", [1, 2, 3], "uint8"),
    ],
)
def test_quantized_and_narrow_integers_are_integers(tmp_path, code, data, values, dtype):
    prefix = put_items(tmp_path / "m", one_of(code, data), data)
    array = tensorbundle.read(prefix)["a"]
    assert (array.tolist(), array.dtype) == (values, np.dtype(dtype))
    info = tensorbundle.open(prefix).info("a")
    assert (info.dtype, info.dtype_name) == (np.dtype(dtype), dtypes.NAMES[code])


@pytest.mark.parametrize("code", [14, 24, 25, 26, 27, 28, 33])
def test_floats_that_numpy_lacks_are_their_bits_or_those_of_ml_dtypes(tmp_path, code):
    data = bytes(range(16))
    array = tensorbundle.read(put_items(tmp_path / "m", one_of(code, data), data))["a"]
    assert array.tobytes() == data
    try:
        import ml_dtypes
    except ImportError:
        assert array.dtype == (np.uint16 if code == 14 else np.uint8)
    else:
        assert array.dtype == getattr(ml_dtypes, dtypes.NAMES[code])


class TestATensorNoArrayCanHold:
    """TensorFlow stores variants, too, and will have dtypes that are not known here."""

    @pytest.fixture(params=[0, 20, 21, 34, 99])
    def prefix(self, request, tmp_path):
        entry = Entry(request.param, (), 0, 4, 3, checksum(b"any"))
        whole, part = Entry(request.param, (2,), slices=(((0, 2),),)), Entry(request.param, (2,), size=1)
        parts = [(part_key(b"w", ((0, 2),)), part), (b"a", GOOD), (b"v", entry), (b"w", whole)]
        return put_items(tmp_path / "m", [HEADER, *parts], DATA + b"any")

    def test_does_not_hide_the_others(self, prefix):
        bundle = tensorbundle.open(prefix)
        assert bundle["a"] == 1.5
        assert bundle.keys() == ["a", "v", "w"]
        assert set(bundle.unreadable) == {"v", "w"}
        assert bundle.info("v").dtype == np.dtype("V")
        assert [name for name, *_ in tensorbundle.list_variables(prefix)] == ["a", "v", "w"]
        bundle.check_files()

    def test_is_named_where_it_is_wanted(self, prefix):
        bundle = tensorbundle.open(prefix)
        for use in (bundle.__getitem__, bundle.verify):
            with pytest.raises(CheckpointError, match=rf"^{prefix}\.index: tensor 'v' cannot be read: (a |dtype )"):
                use("v")
        with pytest.raises(CheckpointError, match="tensor 'v' cannot be read"):
            tensorbundle.read(prefix)

    def test_can_be_left_out(self, prefix):
        assert list(tensorbundle.read(prefix, skip_unreadable=True)) == ["a"]


def test_what_is_damaged_can_be_left_out_too(tmp_path):
    items = [HEADER, (b"a", GOOD), (b"b", GOOD._replace(crc32c=1))]
    prefix = put_items(tmp_path / "m", items, DATA)
    assert list(tensorbundle.read(prefix, skip_unreadable=True)) == ["a"]


def test_if_nothing_can_be_read_that_is_an_error(tmp_path):
    prefix = put_items(tmp_path / "m", [HEADER, (b"b", GOOD._replace(crc32c=1))], DATA)
    with pytest.raises(CheckpointError, match="stored checksum 0x00000001"):
        tensorbundle.read(prefix, skip_unreadable=True)


def test_a_missing_data_file_is_said_to_be_missing_whatever_its_size(tmp_path):
    size = 1 << 40
    items = [HEADER, *((b"%d" % n, Entry(4, (size,), 0, n * size, size)) for n in range(3))]
    prefix = put_items(tmp_path / "m", items)
    for use in (tensorbundle.read, lambda path: tensorbundle.open(path)["0"]):
        with pytest.raises(CheckpointError, match=r"data-00000-of-00001: not there"):
            use(prefix)
