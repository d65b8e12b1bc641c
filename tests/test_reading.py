"""One discipline for every reader: who reads, what may be read, and what comes out of it."""

import ast
import importlib
import io
import json
import os
import pkgutil
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from export.cases import simple

import minilstm
from minilstm import CheckpointError, load_checkpoint, save_checkpoint, tensorbundle
from minilstm.cli import main
from minilstm.export import convert, npz, safetensors, tf2, torch
from minilstm.export.arrays import from_npy, unzipped, zipped
from minilstm.layers.sequential import MOST_LAYERS
from minilstm.reading import LIMITS, READERS, Limits, content, from_json, printable, reading
from minilstm.training import replay

# Every function that may read a file's bytes or a format by itself. Whoever else wants to read goes through one of
# these, or joins the list with a reason.
DOORS = {
    "reading.discipline.content": "whole files",
    "reading.jsontext.from_json": "JSON",
    "tensorbundle.source.SourceFile.__init__": "pieces of a checkpoint's files, each compared with the file's size",
    "export.arrays.unzipped": "zip files",
    "export.hdf5.read_hdf5": "HDF5",
    "export.onnx.load": "ONNX",
    "training.history._read": "a file of fit's own, whose bytes `content` returned",
    "training.lock.RunLock.__exit__": "the lock of a run's folder, as far as the lock of fit's own is long",
    "training.lock.RunLock._read": "the same",
    "training.lock.RunLock._take_away": "the same",
    "training.lock._started": "the system's file about a process",
}
RAW = {
    "open", "json.load", "json.loads", "np.load", "np.fromfile", "np.memmap", "zipfile.ZipFile", "h5py.File",
    "onnx.load", "onnx.load_model_from_string", "csv.reader", "csv.DictReader", "pickle.load", "pickle.loads",
    "read_text", "read_bytes", "safetensors.safe_open", "io.open",
}  # fmt: skip

# Every function that reads a file that may come from anywhere, by its full name, with a path of its kind.
CHECKED = {
    "minilstm.checkpoint.loading.read_file": (load_checkpoint, "m.index"),
    "minilstm.export.convert.read": (lambda path: convert.read(path, convert.Options()), "m.npz"),
    "minilstm.export.keras.load": (lambda path: convert.FORMATS["keras"].load(path), "m.keras"),
    "minilstm.export.keras.read": (lambda path: convert.FORMATS["keras"].read(path), "m.weights.h5"),
    "minilstm.export.npz.load": (npz.load, "m.npz"),
    "minilstm.export.npz.read": (npz.read, "m.npz"),
    "minilstm.export.onnx.load": (lambda path: convert.FORMATS["onnx"].load(path), "m.onnx"),
    "minilstm.export.tf2.load": (tf2.load, "m.index"),
    "minilstm.export.torch.load": (torch.load, "m.safetensors"),
    "minilstm.export.torch.read": (torch.read, "m.safetensors"),
    "minilstm.training.replay.replay": (replay.replay, "m.index"),
}


def raw_reads():
    """(module and function, what it calls) for every call in minilstm that reads a file or a format by itself."""
    package = Path(minilstm.__file__).parent
    for path in package.rglob("*.py"):
        module = ".".join(path.relative_to(package).with_suffix("").parts)

        def visit(node, names, module=module):
            for child in ast.iter_child_nodes(node):
                if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                    yield from visit(child, [*names, child.name])
                    continue
                if isinstance(child, ast.Call):
                    called = ast.unparse(child.func)
                    writes = any(isinstance(a, ast.Constant) and a.value in ("w", "a", "xb") for a in child.args)
                    if not writes and (called in RAW or called.rpartition(".")[2] in ("read_text", "read_bytes")):
                        yield ".".join([module, *names]), called
                yield from visit(child, names)

        yield from visit(ast.parse(path.read_text()), [])


def test_only_the_doors_read_files():
    found = dict(raw_reads())
    assert not {place: call for place, call in found.items() if place not in DOORS}
    assert len(found) >= 6  # the search itself works


def test_every_reader_is_in_the_list_and_every_format_has_one():
    for module in pkgutil.walk_packages(minilstm.__path__, "minilstm."):
        if ".compiled" not in module.name and "__main__" not in module.name:
            importlib.import_module(module.name)
    assert set(READERS) == set(CHECKED)
    assert {module.__name__ for module in convert.FORMATS.values()} <= {name.rpartition(".")[0] for name in READERS}


def contents():
    """Bytes that have tripped a reader up, by what they are."""
    deep = "[" * 100_000 + "]" * 100_000
    lengthy = json.dumps({"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    many = zipfile_with({f"{k}.npy": b"x" for k in range(3)})
    return {
        "nothing": b"",
        "a zip's first letters": b"PK no zip",
        "noise": np.random.default_rng(0).bytes(4000),
        "zeros": b"\0" * 4000,
        "deep JSON in safetensors": struct.pack("<Q", len(deep)) + deep.encode(),
        "a tensor beyond the file": struct.pack("<Q", len(lengthy)) + lengthy,
        "a description that is deep": zipfile_with({"minilstm/model.npy": npy(np.asarray(deep))}),
        "a config that is deep": zipfile_with({"config.json": deep.encode(), "model.weights.h5": b""}),
        "a config without keys": zipfile_with({"config.json": b"{}", "model.weights.h5": b""}),
        "a zip without arrays": many,
        "HDF5's first letters": b"\x89HDF\r\n\x1a\n" + b"\0" * 100,
        "a bomb": zipfile_with({"a.npy": npy(np.zeros(10**6)), "config.json": b" " * 10**7}, zipfile.ZIP_DEFLATED),
    }


def zipfile_with(files, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", contents())
@pytest.mark.parametrize("name", CHECKED)
def test_whatever_the_bytes_the_error_is_of_one_kind_and_begins_with_the_path(tmp_path, name, kind):
    read, file = CHECKED[name]
    path = tmp_path / file
    path.write_bytes(contents()[kind])
    if (name, kind) == ("minilstm.export.npz.read", "a description that is deep"):
        return  # nothing but an array of text to `read`
    with pytest.raises((ValueError, ImportError)) as caught:
        read(str(path))
    if isinstance(caught.value, ImportError):  # tests/interop has the same with the libraries there
        assert re.search(r"needs (h5py|onnx): pip install", str(caught.value))
        return
    assert str(caught.value).startswith(str(tmp_path / "m"))
    assert not isinstance(caught.value, UnicodeDecodeError)


@pytest.mark.parametrize("name", CHECKED)
def test_nothing_there_a_folder_and_a_pipe(tmp_path, name):
    read, file = CHECKED[name]
    path = str(tmp_path / file)
    with pytest.raises((FileNotFoundError, ImportError)):
        read(path)
    if "index" not in file:
        os.mkfifo(path)
        with pytest.raises((ValueError, ImportError), match=r"not a regular file|needs"):
            read(path)
        os.remove(path)
        os.mkdir(path)
        with pytest.raises((OSError, ImportError)):
            read(path)


# --- errors ---------------------------------------------------------------------------------------------------


def raised(error):
    with pytest.raises(Exception) as caught, reading("the/path"):  # noqa: PT011  which one is the question
        raise error
    return caught.value


@pytest.mark.parametrize(
    "error", [KeyError("k"), TypeError("t"), OSError("h5"), UnicodeDecodeError("utf-8", b"a", 0, 1, "r")], ids=repr
)
def test_what_a_library_raises_about_the_content_becomes_one_error(error):
    found = raised(error)
    assert isinstance(found, CheckpointError)
    assert str(found).startswith("the/path: ")
    assert found.__cause__ is error


def test_errors_of_the_disk_and_those_with_the_path_stay():
    for error in (OSError(5, "io"), FileNotFoundError("none"), ImportError("lib"), ValueError("the/path: bad")):
        assert raised(error) is error
    assert str(raised(RecursionError("r"))) == "the/path: damaged: it is nested too deeply"
    assert str(raised(MemoryError("9 GiB"))) == "the/path: too large for the memory there is: 9 GiB"


def test_the_page_about_files_states_the_limits():
    page = (Path(__file__).parent.parent / "docs" / "files.md").read_text()
    table = page.split("<!-- begin: limits -->")[1].split("<!-- end: limits -->")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", table, re.MULTILINE)
    stated = {name: int(number.replace(",", "")) for name, number in rows}
    assert stated == LIMITS._asdict()
    assert f"at most {MOST_LAYERS:,} layers" in page


# --- limits ---------------------------------------------------------------------------------------------------


def test_json_has_a_length_a_number_of_values_a_depth_and_no_key_twice():
    assert from_json(b'{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    for text, limits, message in (
        ("[1, 2, 3]", Limits(text=8), "a JSON text of 9 characters, the limit is 8"),
        ("[1, 2, 3]", Limits(items=2), "a JSON text of 3 values, the limit is 2"),
        ("[[[1]]]", Limits(depth=2), "JSON that is nested too deeply, the limit is 2"),
        ("[" * 5000 + "]" * 5000, LIMITS, "JSON that is nested too deeply, the limit is 100"),
        ('{"a": 1, "b": {}, "a": 2}', LIMITS, "JSON that says 'a' twice"),
    ):
        with pytest.raises(ValueError, match=message):
            from_json(text, limits)
    assert from_json("[[1]]", Limits(text=5, items=2, depth=2)) == [[1]]


def test_a_file_and_what_it_unpacks_to_have_a_size(tmp_path):
    path = tmp_path / "m.npz"
    path.write_bytes(zipfile_with({"a.npy": npy(np.zeros(100_000))}, zipfile.ZIP_DEFLATED))
    assert npz.read(path)["a"].shape == (100_000,)
    with pytest.raises(CheckpointError, match=r"m.npz: a zip that unpacks to 800128 bytes, the limit is \d{6}$"):
        npz.read(path, Limits(unpacked=700_000))
    with pytest.raises(CheckpointError, match=r"m.npz: a file of \d+ bytes, the limit is 100"):
        npz.read(path, Limits(file=100))
    with pytest.raises(CheckpointError, match=r"m.npz: 1 files in a zip, the limit is 0"):
        npz.read(path, Limits(objects=0))
    with pytest.raises(ValueError, match="not a regular file"):
        content("/dev/zero")


def test_a_zip_has_one_file_of_a_name_and_one_compression():
    twice = zipfile_with({"a": b"1", "b": b"2"}).replace(b"b", b"a")
    with pytest.raises(ValueError, match="two files of one name"):
        unzipped(twice)
    with pytest.raises(ValueError, match="'a' in the zip is compressed in another way than deflate"):
        unzipped(zipfile_with({"a": b"1"}, zipfile.ZIP_LZMA))
    with pytest.raises(ValueError, match="a zip without b, c"):
        unzipped(zipped({"a": b""}), only=("a", "b", "c"))


def header(text, version=(1, 0)):
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000,), }\n"), "in 0 bytes"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n") + b"12345", "in 5 bytes"),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n") + b"12345678", "Python objects"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }\n"), "whole numbers"),
        (header("{'descr': '<f4'}\n"), "keys"),
        (b"\x93NUMPY\x03\x00\x10\x00\x00\x00", r"version \(3, 0\)"),
        (b"", "magic"),
    ],
)
def test_an_array_has_the_bytes_that_its_header_says(data, message):
    with pytest.raises(ValueError, match=message):
        from_npy(data)


@pytest.mark.parametrize("array", [np.float32(3), np.zeros((0, 3)), np.arange(6).reshape(2, 3).T, np.asarray("text")])
def test_arrays_of_every_form_are_read(array):
    assert np.array_equal(from_npy(npy(array)), array)
    assert from_npy(npy(array)).dtype == array.dtype


def limited(code, megabytes):
    """The last line that `code` prints in a process of little memory."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({megabytes << 20}, {megabytes << 20}))\n"
    command = [sys.executable, "-c", limit + code]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()[-1]


BIG = {"layer": "RNN", "cell": {"cell": "LSTMCell", "units": 20_000}, "learn_initial_state": True}


def test_a_small_file_takes_little_memory(tmp_path):
    """20,000 units would have been 12 GiB, and the other two 40 GB each."""
    description = {"format": 1, "layers": [BIG]}
    arrays = {"rnn/lstm_cell/kernel": np.zeros((3, 8)), "rnn/lstm_cell/bias": np.zeros(8)}
    np.savez(tmp_path / "units.npz", **arrays, **{"minilstm/model": json.dumps(description)})
    wide = {"w": np.zeros((10**9, 0), np.float32), "dense.weight": np.zeros((10**9, 0)), "dense.bias": np.zeros(3)}
    (tmp_path / "wide.safetensors").write_bytes(safetensors.encode(wide, {"minilstm/model": json.dumps(description)}))
    claimed = header("{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000,), }\n")
    (tmp_path / "claimed.npz").write_bytes(zipped({"a.npy": claimed}))
    code = f"""
from minilstm.export import npz, torch
for module, path in ((npz, "units.npz"), (torch, "wide.safetensors"), (npz, "claimed.npz")):
    try:
        module.load({str(tmp_path)!r} + "/" + path)
    except ValueError as error:
        assert "memory" not in str(error), error
        print(path, "refused")
"""
    assert limited(code, 400) == "claimed.npz refused"


# --- safetensors ----------------------------------------------------------------------------------------------


def tensors_file(header, body=b""):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack("<Q", len(text)) + text + body


def test_bfloat16_is_read_exactly(tmp_path):
    bits = np.array([[0x3F80, 0xC0A0], [0x0001, 0x7F80]], np.uint16)  # 1, -5, the smallest, infinity
    wanted = (bits.astype(np.uint32) << 16).view(np.float32)
    entry = {"w": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}
    path = tmp_path / "m.safetensors"
    path.write_bytes(tensors_file(entry, bits.tobytes()))
    found, _ = torch.read(path)
    assert found["w"].dtype.name in ("bfloat16", "float32")
    assert found["w"].astype(np.float32).tobytes() == wanted.tobytes()
    code = f"""
import sys
sys.modules["ml_dtypes"] = None
from minilstm.export import torch
found = torch.read({str(path)!r})[0]["w"]
print(found.dtype, found.tobytes().hex())
"""
    assert limited(code, 400) == f"float32 {wanted.tobytes().hex()}"


def test_a_model_in_bfloat16_is_read_as_float32(tmp_path):
    case = simple(forget_bias=0.5)
    path = tmp_path / "m.safetensors"
    torch.save(path, case.model, case.params)
    tensors, texts = torch.read(path)
    halves = {name: (tensor.view(np.uint32) >> 16).astype(np.uint16) for name, tensor in tensors.items()}
    at, entries = 0, {}
    for name, half in halves.items():
        entries[name] = {"dtype": "BF16", "shape": list(half.shape), "data_offsets": [at, at + half.nbytes]}
        at += half.nbytes
    body = b"".join(half.tobytes() for half in halves.values())
    path.write_bytes(tensors_file({"__metadata__": texts, **entries}, body))
    loaded = torch.load(path)
    kernel = loaded.params["dense"]["kernel"]
    assert kernel.dtype == np.float32
    assert np.array_equal(kernel, (case.params["dense"]["kernel"].view(np.uint32) >> 16 << 16).view(np.float32))


F4 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        ({"w": {**F4, "dtype": "F8_E4M3"}}, b"1234", "tensor 'w' is of dtype F8_E4M3, wanted one of"),
        ({"w": {**F4, "shape": [2]}}, b"1234", r"tensor 'w': an array of shape \(2,\) and dtype float32 in 4 bytes"),
        ({"w": {**F4, "shape": [-1]}}, b"1234", "whole numbers"),
        ({"w": {**F4, "shape": [True]}}, b"1234", "whole numbers"),
        ({"w": F4, "v": F4}, b"1234", "at bytes 0 to 4 of 4, wanted it to be at 4"),
        ({"w": {**F4, "data_offsets": [4, 8]}}, b"12345678", "wanted it to be at 0"),
        ({"w": F4}, b"12345", "1 bytes after the last tensor"),
        ({"w": F4}, b"123", "at bytes 0 to 4 of 3"),
        ({"__metadata__": {"a": 1}}, b"", "metadata must be texts"),
        (b'{"w": 1, "w": 2}', b"", "JSON that says 'w' twice"),
        (b"[]", b"", "TypeError|AttributeError"),
    ],
)
def test_safetensors_that_lie_are_refused(tmp_path, header, body, message):
    path = tmp_path / "m.safetensors"
    path.write_bytes(tensors_file(header, body))
    with pytest.raises(CheckpointError, match=f"^{path}: .*({message})"):
        torch.read(path)


def test_safetensors_of_every_dtype_come_back():
    codes = ("f2", "f4", "f8", "i1", "i8", "u4", "?")
    tensors = {code: np.arange(-2, 4).astype(code).reshape(3, 2).T for code in codes}
    tensors["big endian"] = np.arange(3).astype(">f4")
    found, texts = safetensors.decode(safetensors.encode(tensors, {"a": "ß"}))
    assert texts == {"a": "ß"}
    assert all(np.array_equal(found[name], tensor) for name, tensor in tensors.items())


# --- the command line -----------------------------------------------------------------------------------------


def test_the_command_line_shows_no_traceback_whatever_happens(monkeypatch, capsys, tmp_path):
    for error, code, said in (
        (KeyboardInterrupt(), 130, "minilstm inspect: interrupted\n"),
        (MemoryError("9 GiB"), 2, "minilstm inspect: there is not enough memory: 9 GiB\n"),
        (ZeroDivisionError("z"), 2, "minilstm inspect: ZeroDivisionError: z (this is a fault of minilstm; please rep"),
        (ValueError("a\x1b[2Jb\nc"), 2, "minilstm inspect: a\\x1b[2Jb\nc\n"),
    ):

        def fail(path, error=error):
            raise error

        monkeypatch.setattr(minilstm.checkpoint, "prefix_of", fail)
        assert main(["inspect", "m"]) == code
        assert capsys.readouterr().err.startswith(said)


def test_a_closed_pipe_is_no_traceback(tmp_path):
    prefix = save_checkpoint(tmp_path / "m", {f"w{k}": np.zeros(1) for k in range(3000)})
    command = f"{sys.executable} -m minilstm inspect {prefix} | head -1"
    found = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert found.stdout == f"{prefix}: step unknown\n"
    assert found.stderr == ""


def test_inspect_shows_escapes_and_descriptions_of_others(tmp_path, capsys):
    strange = np.asarray(b'{"layers": 3}', object)
    tensorbundle.write(
        tmp_path / "m", {"a\x1b[31m\u202e": np.zeros(2), "minilstm/model": strange, "global_step": np.zeros(3)}
    )
    assert main(["inspect", str(tmp_path / "m")]) == 0
    out = capsys.readouterr().out
    assert r"a\x1b[31m\u202e" in out
    assert "not as minilstm writes it: global_step must be a whole number" in out
    assert not {c for c in out if not c.isprintable() and c != "\n"}
    tensorbundle.write(tmp_path / "m", {"minilstm/model": np.asarray(b"[" * 9999, object)})
    assert main(["inspect", str(tmp_path / "m")]) == 0
    assert "nested too deeply" in capsys.readouterr().out


def test_printable_keeps_letters_and_lines():
    assert printable("grün\n\t\0\x7f\ud800") == "grün\n\\t\\x00\\x7f\\ud800"


# --- descriptions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"cell": "LSTMCell", "units": 3, "cell_clip": 10**400}, "cell_clip must be positive"),
        ({"cell": "LSTMCell", "units": 3, "forget_bias": 10**400}, "forget_bias must be a finite number"),
        ({"cell": "LSTMCell", "units": 3, "cell_clip": "1"}, "cell_clip must be positive"),
        ({"cell": "LSTMCell", "units": 10**400}, "no array can have the shape"),
        ({"cell": "LSTMCell", "units": 2**62}, "no array can have the shape"),
        ({"cell": "MultiRNNCell", "cells": [{"cell": "LSTMCell", "units": 1}] * 1001}, "the limit is 1000"),
        ({"cell": "DropoutWrapper", "inner": None}, "not a model description"),
    ],
)
def test_a_description_that_no_model_can_have_is_a_valueerror(tmp_path, layer, message):
    description = json.dumps({"format": 1, "layers": [{"layer": "RNN", "cell": layer}]})
    arrays = {"rnn/lstm_cell/kernel": np.zeros((3, 8)), "rnn/lstm_cell/bias": np.zeros(8)}
    np.savez(tmp_path / "m.npz", **arrays, **{"minilstm/model": description})
    with pytest.raises(ValueError, match=rf"^{tmp_path}/m\.npz: .*{message}"):
        npz.load(tmp_path / "m.npz")


def test_what_could_not_be_read_is_not_saved(tmp_path):
    case = simple()
    deep = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        save_checkpoint(tmp_path / "m", case.params, extra=deep)
    with pytest.raises(ValueError, match="nested too deeply"):
        npz.save(tmp_path / "m.npz", case.model, case.params, extra=deep)
    assert not list(tmp_path.iterdir())


def test_a_dump_of_another_model_is_refused_before_its_sizes_are_made(tmp_path):
    case = simple()
    facts = {"failed": {"loss": "mse", "seed": 0, "step": 0, "state": None}}
    own = {"failed/batch/inputs": np.zeros((2, 3, 2)), "failed/batch/targets": np.zeros((2, 3, 1))}
    bigger = minilstm.Sequential(minilstm.LSTM(10**9), minilstm.Dense(1))
    strange = {"failed": {**facts["failed"], "loss": []}}
    for model, training in ((bigger, facts), (case.model, {"failed": {}}), (case.model, strange)):
        described = {"minilstm/model": np.asarray(json.dumps(model.config()).encode(), object)}
        prefix = save_checkpoint(tmp_path / "m", case.params, model=case.model, training=training, own=own)
        tensorbundle.write(prefix, {**tensorbundle.read(prefix), **described})
        with pytest.raises(CheckpointError, match=f"^{prefix}: "):
            replay.replay(prefix)
        assert main(["replay", prefix]) == 2
        assert main(["gradcheck", prefix]) == (2 if model is bigger else 0)
