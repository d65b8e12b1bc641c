"""HDF5 and ONNX files that take their bytes from elsewhere or claim more than they hold; made by h5py and onnx."""

import io
import struct
import zipfile

import h5py
import numpy as np
import onnx
import pytest
from export.cases import simple
from test_reading import CHECKED, contents, limited

from minilstm import CheckpointError
from minilstm.cli import main
from minilstm.export import keras
from minilstm.export import onnx as onnx_format
from minilstm.reading import Limits

pytestmark = pytest.mark.interop
SECRET = b"the secret of another file " * 40
KERNEL = "layers/lstm/cell/vars/0"


@pytest.fixture
def case():
    return simple(forget_bias=0.5)


@pytest.fixture
def saved(tmp_path, case):
    """A ``.weights.h5`` file that `damage` may open and change, beside a secret."""
    (tmp_path / "secret.bin").write_bytes(SECRET)
    keras.save(tmp_path / "m.weights.h5", case.model, case.params)
    return tmp_path / "m.weights.h5"


def external(file):
    del file[KERNEL]
    file.create_dataset(KERNEL, (2, 12), "<f4", external=[("secret.bin", 0, 96)])


def virtual(file):
    del file[KERNEL]
    layout = h5py.VirtualLayout((2, 12), "<f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (2, 12))
    file.create_virtual_dataset(KERNEL, layout)


def external_link(file):
    del file["layers/lstm"]
    file["layers/lstm"] = h5py.ExternalLink("other.h5", "/")


def soft_link(file):
    file["layers/more"] = h5py.SoftLink("/layers/lstm")


def sparse(file):
    del file[KERNEL]
    file.create_dataset(KERNEL, (2**31, 2), "<f4", chunks=(1024, 2))


def sparse_packed(file):
    del file[KERNEL]
    file.create_dataset(KERNEL, (2**31, 2), "<f4", chunks=(1024, 2), compression="gzip")


def texts(file):
    del file[KERNEL]
    file[KERNEL] = np.array([b"a", b"b"])


HOSTILE = {
    external: r"'layers/lstm/cell/vars/0' takes its bytes from another file",
    virtual: r"'layers/lstm/cell/vars/0' takes its bytes from other datasets",
    external_link: r"'layers/lstm' is a link to another place or file",
    soft_link: r"'layers/more' is a link to another place or file",
    sparse: r"'layers/lstm/cell/vars/0' has 17179869184 bytes, of which 0 are in the file",
    sparse_packed: r"'layers/lstm/cell/vars/0' has 17179869184 bytes, of which 0 are in the file",
    texts: r"'layers/lstm/cell/vars/0' has shape \(2,\) and dtype \|S1, wanted numbers or one text",
}


@pytest.mark.parametrize("damage", HOSTILE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_what_is_not_in_the_file_is_refused_by_name(tmp_path, monkeypatch, saved, case, damage, suffix, capsys):
    monkeypatch.chdir(tmp_path)
    with h5py.File(saved, "r+") as file:
        damage(file)
    path = saved
    if suffix == ".keras":
        keras.save(tmp_path / "whole.keras", case.model, case.params)
        with zipfile.ZipFile(tmp_path / "whole.keras") as whole:
            config = whole.read("config.json")
        path = tmp_path / "m.keras"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", config)
            archive.writestr("model.weights.h5", saved.read_bytes())
    for read in (keras.load, keras.read):
        with pytest.raises(CheckpointError, match=f"^{path}: {HOSTILE[damage]}"):
            read(path)
    assert main(["convert", str(path), str(tmp_path / "out.npz")]) == 2
    assert str(path) in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()


def test_compressed_arrays_are_read_up_to_the_limit(saved, case):
    with h5py.File(saved, "r+") as file:
        kernel = file[KERNEL][()]
        del file[KERNEL]
        file.create_dataset(KERNEL, data=kernel, compression="gzip", shuffle=True)
    loaded = keras.load(saved)
    assert np.array_equal(loaded.params["rnn"]["lstm_cell"]["kernel"], case.params["rnn"]["lstm_cell"]["kernel"])
    with h5py.File(saved, "r+") as file:
        file.create_dataset("layers/zeros", data=np.zeros((1000, 1000)), compression="gzip")
    with pytest.raises(CheckpointError, match=r"arrays of \d+ bytes, the limit is \d+$"):
        keras.read(saved, Limits(unpacked=10**6))
    assert keras.read(saved)[0]["layers/zeros"].shape == (1000, 1000)


def test_names_and_folders_are_counted(saved):
    with h5py.File(saved, "r+") as file:
        file.create_group("/".join("a" * 200))
    with pytest.raises(CheckpointError, match="folders in one another, the limit is 100"):
        keras.read(saved)
    with pytest.raises(CheckpointError, match=r"\d+ names in an HDF5 file, the limit is 5"):
        keras.read(saved, Limits(objects=5))


# --- ONNX -----------------------------------------------------------------------------------------------------


@pytest.fixture
def graph(tmp_path, case):
    onnx_format.save(tmp_path / "m.onnx", case.model, case.params)
    return onnx.load(tmp_path / "m.onnx")


def initializer(proto, name):
    return next(tensor for tensor in proto.graph.initializer if tensor.name == name)


def test_onnx_data_in_another_file_are_refused(tmp_path, monkeypatch, graph):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(SECRET)
    tensor = initializer(graph, "rnn/W")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")
    path = tmp_path / "m.onnx"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(CheckpointError, match=f"^{path}: initializer 'rnn/W' takes its bytes from another file"):
        onnx_format.load(path)
    assert main(["convert", str(path), str(tmp_path / "out.npz")]) == 2


def test_onnx_arrays_that_lie_or_are_there_twice_are_refused(tmp_path, graph):
    path = tmp_path / "m.onnx"
    tensor = initializer(graph, "rnn/W")
    tensor.dims[1] = 10**9
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(ValueError, match=f"^{path}: initializer 'rnn/W' is no whole array"):
        onnx_format.load(path)
    tensor.dims[1] = 12
    graph.graph.initializer.append(tensor)
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(ValueError, match=f"^{path}: two initializers have the name 'rnn/W'"):
        onnx_format.load(path)


def test_an_onnx_gru_of_other_units_is_refused(tmp_path, graph):
    for name, shape in (("rnn/W", (1, 12, 5)), ("rnn/R", (1, 12, 4)), ("rnn/B", (1, 24))):
        initializer(graph, name).CopyFrom(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    path = tmp_path / "m.onnx"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(ValueError, match=r"rnn/R has shape \(1, 12, 4\), .* wants \(1, 12, 3\): 3 x 4 rows: a GRU"):
        onnx_format.load(path)


# --- all readers, with all libraries there --------------------------------------------------------------------


@pytest.mark.parametrize("kind", contents())
@pytest.mark.parametrize("name", [name for name in CHECKED if "keras" in name or "onnx" in name])
def test_whatever_the_bytes_the_error_is_of_one_kind_and_begins_with_the_path(tmp_path, name, kind):
    read, file = CHECKED[name]
    path = tmp_path / file
    path.write_bytes(contents()[kind])
    with pytest.raises(ValueError, match=f"^{path}: "):
        read(str(path))


def test_a_sparse_file_takes_no_memory(saved):
    with h5py.File(saved, "r+") as file:
        sparse(file)
    code = f"""
from minilstm.export import keras
try:
    keras.load({str(saved)!r})
except ValueError as error:
    print("of which 0" in str(error))
"""
    assert limited(code, 600) == "True"


def test_bytes_that_grow_are_not_unpacked(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", b"\0" * 10**7)
    (tmp_path / "m.keras").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match=r"a zip that unpacks to 10000002 bytes, the limit is \d+$"):
        keras.load(tmp_path / "m.keras", limits=Limits(unpacked=10**6))


def with_bytes(data, start, new):
    return data[:start] + new + data[start + len(new) :]


def test_a_heap_whose_free_space_has_no_size_is_refused(saved):
    """HDF5 would look at the same place for ever."""
    data = saved.read_bytes()
    heap = data.index(b"GCOL")
    at, number = heap + 16, 1
    while number:
        number, size = struct.unpack_from("<H6xQ", data, at)
        at += 16 + (size + 7) // 8 * 8 if number else 0
    saved.write_bytes(with_bytes(data, at, bytes(16)))
    with pytest.raises(CheckpointError, match="a heap of texts with free space of no size"):
        keras.load(saved)


def test_a_text_that_is_longer_than_the_file_is_refused(saved):
    with h5py.File(saved) as file:
        start = file["minilstm/model"].id.get_offset()
    saved.write_bytes(with_bytes(saved.read_bytes(), start, (2**31).to_bytes(4, "little")))
    with pytest.raises(CheckpointError, match="'minilstm/model' is a text of 2147483648 bytes in a file of"):
        keras.load(saved)


def test_a_size_in_the_tables_of_hdf5_that_no_memory_holds_is_refused(saved):
    """The header of a group with attributes is continued at another place, with a length, which is damaged here."""
    with h5py.File(saved, "r+") as file:
        file.attrs.update({"a": 1, "b": 2})
    data = saved.read_bytes()
    at = data.index(b"\x10\0\x10\0")  # type 16, 16 bytes: a continuation
    saved.write_bytes(with_bytes(data, at + 16, (2**56).to_bytes(8, "little")))
    with pytest.raises(CheckpointError, match=r"damaged: HDF5 finds a size in it that no file can have$"):
        keras.load(saved)
