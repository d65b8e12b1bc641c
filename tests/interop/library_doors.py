"""The formats whose files need h5py or onnx to be made; `tests.fuzz.doors` has the others.

    python -m tests.interop.library_doors h5 --count 20000 --seed 0
"""

import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx

from minilstm.export import keras, keras_config, keras_layers
from minilstm.export import onnx as onnx_format
from minilstm.export.parts import weights_of
from tests.fuzz import door_fuzz
from tests.fuzz.bundle_fuzz import mutate_bytes, mutate_message
from tests.fuzz.doors import OUTSIDE, Door, given, json_text, model_of, mutate_array, params_of, zip_of

DTYPES = ["f2", "f8", ">f4", "i4", "u1", "S5", "c8"]


def files_of(module, path):
    """A function that gives the bytes of sound files, written by `save`."""

    def bases():
        found = []
        for kind in (0, 1, 2) if module is onnx_format else (0, 1, 2, 3):
            model, width = model_of(kind)
            module.save(path, model, params_of(model, width), extra=[1])
            found.append(Path(path).read_bytes())
        return found

    return bases


# --- HDF5 -----------------------------------------------------------------------------------------------------


def mutate_hdf5(draw, data):
    """Other bytes of an HDF5 file: damaged as they are, or written by h5py with other datasets and links in it."""
    if draw.random() < 0.45:
        return mutate_metadata(draw, data)
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        names = []
        file.visit(names.append)
        datasets = [name for name in names if isinstance(file[name], h5py.Dataset)]
        for name in draw.sample(datasets, draw.choice([1, 1, 2])):
            change_dataset(draw, file, name)
    data = buffer.getvalue()
    return mutate_metadata(draw, data) if draw.random() < 0.1 else data


def mutate_metadata(draw, data):
    """A few bytes changed where there are any: a new HDF5 file is zeros for the most part."""
    if draw.random() < 0.3:
        return mutate_bytes(draw, data)
    mutated = bytearray(data)
    places = [place for place, byte in enumerate(mutated) if byte]
    for _ in range(draw.choice([1, 1, 2, 4])):
        place = draw.choice(places)
        mutated[place] = draw.choice([0, 1, 2, 0x7F, 0x80, 0xFF, mutated[place] ^ (1 << draw.randrange(8))])
    return bytes(mutated)


def change_dataset(draw, file, name):
    value = file[name][()]
    del file[name]
    kind = draw.randrange(14)
    if kind == 0:
        return
    if kind == 1:
        file.create_dataset(name, (2, 12), "<f4", external=[(OUTSIDE, 0, h5py.h5f.UNLIMITED)])
    elif kind == 2:
        layout = h5py.VirtualLayout((2, 12), "<f4")
        layout[:] = h5py.VirtualSource(draw.choice([OUTSIDE, "m.weights.h5", "."]), "layers/dense/vars/0", (2, 12))
        file.create_virtual_dataset(name, layout)
    elif kind == 3:
        file[name] = h5py.ExternalLink(draw.choice([OUTSIDE, "m.weights.h5", "/etc/hostname"]), "/layers")
    elif kind == 4:
        file[name] = h5py.SoftLink(draw.choice(["/layers", "/", name, "../x"]))
    elif kind == 5:
        packed = draw.choice([None, "gzip", "lzf"])
        file.create_dataset(name, draw.choice([(2**31, 4), (12, 2**20)]), "<f4", chunks=(12, 4), compression=packed)
    elif kind == 6:
        file.create_dataset(name, data=np.zeros((2000, 2000), "f4"), compression="gzip")
    elif kind == 7:
        file[name] = h5py.Empty("f4")
    elif kind == 8:
        file.create_dataset(name, data=["a", "b" * 1000], dtype=h5py.string_dtype())
    elif kind == 9:
        file[name] = np.zeros(2, [("a", "f4"), ("b", "i4", (3,))])
    elif kind == 10:
        file.create_dataset(name, data=[file.ref, file[next(iter(file))].ref], dtype=h5py.ref_dtype)
    elif kind == 11 and isinstance(value, bytes):
        file[name] = json_text(draw, json.loads(value)).decode("utf-8", "replace").replace("\0", "")
    elif kind == 12:
        group = file.create_group(name)
        group["loop"] = file[next(iter(file))]
    elif isinstance(value, np.ndarray):
        array = mutate_array(draw, value)
        file[name] = array if array.dtype.kind in "fiu?c" else np.zeros(3, draw.choice(DTYPES))
    else:
        file[name] = draw.choice([3, 1.5, np.zeros(3), b"bytes", "[" * 5000])


def legacy_bases():
    """Older files, as `minilstm.export.hdf5` draws them: whole models and weights alone."""
    found = []
    for kind in (0, 1, 2, 3):
        model, width = model_of(kind)
        params = params_of(model, width)
        parts = keras_layers.keras_parts(model, "test")
        for folder in ("model_weights", "/"):
            with h5py.File(buffer := io.BytesIO(), "w") as file:
                top, names = file.require_group(folder), keras_config.layer_names(parts)
                if folder != "/":
                    file.attrs["model_config"] = json.dumps(keras_config.keras_config(parts, params))
                file.attrs["keras_version"] = "2.4.0"
                top.attrs["layer_names"] = names if kind % 2 else np.array([name.encode() for name in names])
                for part, name in zip(parts, names, strict=True):
                    group, paths = top.create_group(name), []
                    for way, one in keras_layers.directions(part):
                        inner = f"{name}/{way.replace('layer/', '')}{name}" if way else name
                        for key, array in keras_layers.keras_weights(one, weights_of(params, one)).items():
                            group[f"{inner}/{key}:0"] = array
                            paths.append(f"{inner}/{key}:0")
                    group.attrs["weight_names"] = paths
            found.append(buffer.getvalue())
    return found


def mutate_legacy(draw, data):
    """Other bytes of an older file, or other attributes, which are its names and its configuration."""
    if draw.random() < 0.5:
        return {"m.h5": mutate_hdf5(draw, data)}
    with h5py.File(buffer := io.BytesIO(data), "r+") as file:
        top = file.get("model_weights", file)
        groups = {file, top, *top.values()}
        node, key = draw.choice([(node, key) for node in sorted(groups, key=lambda g: g.name) for key in node.attrs])
        value = node.attrs[key]
        del node.attrs[key]
        kind = draw.randrange(10)
        if kind < 4 and key == "model_config":
            node.attrs[key] = json_text(draw, json.loads(value)).decode("utf-8", "replace").replace("\0", "")[:60_000]
        elif kind < 6 and isinstance(value, np.ndarray) and len(value):
            names = [name.decode() if isinstance(name, bytes) else str(name) for name in value]
            names[draw.randrange(len(names))] = draw.choice(["", ".", "/", "..", "x" * 300, *names])
            node.attrs[draw.choice([key, key, f"{key}0", f"{key}1"])] = names[: draw.choice([None, None, -1])]
        elif kind == 6:
            node.attrs[key] = draw.choice([3, 1.5, np.zeros((2, 2)), b"bytes", "1.2.2", "x" * 50_000, h5py.Empty("S3")])
        elif kind == 7:
            node.attrs[key] = np.array([file.ref, file.ref], h5py.ref_dtype)
        elif kind == 8:
            lists = np.array([np.arange(2, dtype="i4"), np.arange(3, dtype="i4")], object)
            node.attrs.create(key, lists, dtype=h5py.vlen_dtype(np.int32))
    data = buffer.getvalue()
    return {"m.h5": mutate_metadata(draw, data) if draw.random() < 0.2 else data}


def mutate_keras(draw, data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    way = draw.randrange(6)
    if way < 3:
        files["config.json"] = json_text(draw, json.loads(files["config.json"]))
        with h5py.File(buffer := io.BytesIO(files["model.weights.h5"]), "r+") as file:
            del file["minilstm"]  # or Keras's configuration is not used
        files["model.weights.h5"] = buffer.getvalue()
    elif way == 3:
        files["model.weights.h5"] = mutate_hdf5(draw, files["model.weights.h5"])
    elif way == 4:
        name = draw.choice(sorted(files))
        files[draw.choice(["x", "../x", "config.json"])] = files.pop(name)
        if draw.random() < 0.1:
            files["model.weights.h5"] = b"\0" * 40_000_000
    data = zip_of(draw, files)
    return {"m.keras": mutate_bytes(draw, data) if way == 5 else data}


# --- ONNX -----------------------------------------------------------------------------------------------------


def mutate_onnx(draw, data):
    way = draw.randrange(6)
    if way < 2:
        return {"m.onnx": mutate_message(draw, data)}
    if way == 2:
        return {"m.onnx": mutate_bytes(draw, data)}
    proto = onnx.load_model_from_string(data)
    tensor = draw.choice([one for one in proto.graph.initializer if "/" in one.name])
    if way == 3:
        entry = draw.choice(proto.metadata_props)
        entry.value = json_text(draw, json.loads(entry.value)).decode("utf-8", "replace")
    elif way == 4:
        array = mutate_array(draw, onnx.numpy_helper.to_array(tensor))
        if array.dtype.kind in "fiu?c" and array.dtype.isnative:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
    else:
        change_tensor(draw, proto, tensor)
    return {"m.onnx": proto.SerializeToString()}


def change_tensor(draw, proto, tensor):
    kind = draw.randrange(8)
    if kind == 0:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=OUTSIDE)
        tensor.ClearField("raw_data")
    elif kind == 1:
        tensor.external_data.add(key="location", value="m.onnx")
    elif kind == 2:
        del tensor.dims[:]
        tensor.dims.extend(draw.choice([[10**9], [10**9, 0], [-1], [2**62, 2**62], [], [1] * 70]))
    elif kind == 3:
        tensor.data_type = draw.choice([0, 2, 7, 8, 10, 11, 16, 17, 21, 22, 23, 99])
    elif kind == 4:
        proto.graph.initializer.add().CopyFrom(tensor)
    elif kind == 5:
        tensor.name = draw.choice(["", "x", "rnn/R", "rnn/W"])
    elif kind == 6:
        tensor.ClearField("raw_data")
        tensor.float_data.extend([1.0] * draw.choice([0, 1, 24]))
    else:
        tensor.string_data.append(b"text")


DOORS = {
    "keras": Door("m.keras", files_of(keras, "m.keras"), mutate_keras, given(keras)),
    "h5": Door(
        "m.weights.h5", files_of(keras, "m.weights.h5"),
        lambda draw, data: {"m.weights.h5": mutate_hdf5(draw, data)}, given(keras),
    ),
    "legacy": Door("m.h5", legacy_bases, mutate_legacy, given(keras)),
    "onnx": Door("m.onnx", files_of(onnx_format, "m.onnx"), mutate_onnx, given(onnx_format)),
}  # fmt: skip

if __name__ == "__main__":
    door_fuzz.main(DOORS)
