"""Files of every format that minilstm reads: sound ones, mutators that know the format, and what reads them.

A `Door` has the files of a sound case by name, ``mutate(draw, files)`` that gives the files of a hostile one, and the
functions that read them. Mutations keep most of a file right, so that what they damage is seen by the code after the
first check: a description with other numbers in a zip that is whole, an entry that lies in a header that parses.
"""

from __future__ import annotations

import copy
import io
import json
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.sweep.__main__ import first_metric, held, value
from experiments.sweep.results import Results
from minilstm import (
    LSTM,
    RNN,
    Bidirectional,
    Dense,
    Dropout,
    Embedding,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    Sequential,
    load_checkpoint,
    save_checkpoint,
    tensorbundle,
)
from minilstm.export import convert, npz, safetensors, tf2, torch
from minilstm.export.infer import Options
from minilstm.export.keras_config import keras_config
from minilstm.export.keras_layers import keras_parts
from minilstm.params import flatten_names, tree_map
from minilstm.reading import Limits
from minilstm.tensorbundle.wire import message
from minilstm.training import replay

from .bundle_fuzz import mutate_bytes, mutate_message

LIMITS = Limits(file=1 << 26, unpacked=1 << 24)
GIVEN = Options(forget_bias=0.5, activation="tanh", dense_activation="linear")
SECRET = b"the secret of a file outside " * 8
OUTSIDE = "../outside/secret.bin"
WHOLE = [-1, 0, 1, 2, 3, 7, 12, 2**31, 2**62, 10**9, 10**30, 10**400]
NUMBERS = [None, True, *WHOLE, 0.5, 1e308, -1e-308, math.nan, math.inf]
WORDS = ["", "x", "rnn", "a/b", "../..", "\x1b[2J", "\ud800", "minilstm/model", OUTSIDE, "x" * 3000, "tanh", "LSTMCell"]


class Door(NamedTuple):
    """One format: the file to read, what makes hostile files of sound ones, and what reads them."""

    path: str
    bases: Callable
    mutate: Callable
    readers: tuple


def model_of(kind):
    """A small model, different for every number."""
    if kind == 0:
        return Sequential(LSTM(3, forget_bias=0.5), Dense(1)), 2
    if kind == 1:
        cells = MultiRNNCell([LSTMCell(3), LSTMCell(3)])
        return Sequential(Embedding(5, 2), RNN(cells), Dropout(0.5), Dense(2, activation="relu")), None
    if kind == 3:
        return Sequential(Bidirectional(GRUCell(3, reset_after=True)), Dense(2)), 2
    return Sequential(LSTM(4, return_sequences=False), Dense(2)), 3


def params_of(model, width):
    rng = np.random.default_rng(0)
    return tree_map(lambda w: rng.normal(0, 0.5, w.shape).astype(w.dtype), model.init(0, width))


# --- mutators -------------------------------------------------------------------------------------------------


def mutate_json(draw, value):
    """Another JSON value: one or a few places of it are changed."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice([1, 1, 2, 4])):
        places = list(places_in(value))
        if not places:
            return odd_value(draw)
        holder, key = draw.choice(places)
        kind = draw.randrange(8)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw.choice([*WORDS, *map(str, holder)])] = holder.pop(key)
        elif kind == 2:
            other, name = draw.choice(places)
            holder[key] = copy.deepcopy(other[name]) if key in holder_keys(holder) and name in holder_keys(other) else 0
        elif kind == 3 and isinstance(holder, list):
            holder[key:key] = [copy.deepcopy(holder[key])] * draw.choice([1, 2, 50])
        elif isinstance(holder[key], (int, float)) and draw.random() < 0.7:
            holder[key] = draw.choice(NUMBERS)
        elif isinstance(holder[key], str) and draw.random() < 0.7:
            holder[key] = draw.choice(WORDS)
        else:
            holder[key] = odd_value(draw)
    return value


def holder_keys(holder):
    return holder if isinstance(holder, dict) else range(len(holder))


def places_in(value):
    for key in list(holder_keys(value)) if isinstance(value, (dict, list)) else []:
        yield value, key
        yield from places_in(value[key])


def odd_value(draw):
    deep = []
    for _ in range(draw.choice([5, 90, 150, 3000]) if draw.random() < 0.1 else 2):
        deep = [deep]
    return draw.choice([*NUMBERS, *WORDS, [], {}, deep, [1, 2], {"a": 1}, list(range(500))])


def json_text(draw, value):
    """The text of a mutated JSON value, now and then damaged itself."""
    try:
        text = json.dumps(mutate_json(draw, value)).encode()
    except RecursionError:
        text = b"[" * 100_000
    if draw.random() < 0.15:
        text = mutate_bytes(draw, text)
    if draw.random() < 0.03:
        text = draw.choice([b'{"a":' * 50_000, b"[" * 1_000_000, b'{"a": 1, "a": 2}', b"[" + b"1," * 100_000 + b"1]"])
    return text


def mutate_array(draw, array):
    """Another array: of another shape, dtype, number of dimensions or content."""
    array = np.asarray(array)
    kind = draw.randrange(12)
    if kind == 0 and array.dtype.kind not in "OSU":
        return array.astype(draw.choice(["f2", "f8", ">f4", "c8", "i4", "u1", "?", "U3", "S2"]))
    if kind == 1:
        shape = draw.choice([(), (10**9, 0), (0,), (1,) * 20])
        return np.zeros(shape, np.float32)
    if kind == 2:
        return array[..., : max(array.shape[-1] * 3 // 4, 1)] if array.ndim else array
    if kind == 3:
        return array[: max(len(array) * 3 // 4, 1)] if array.ndim else array
    if kind == 4:
        return array[None]
    if kind == 5:
        return array.reshape(-1)
    if kind == 6:
        return np.concatenate([array, array], axis=draw.randrange(array.ndim)) if array.ndim else array
    if kind == 7:
        return array.T
    if kind == 8:
        return np.full_like(array, draw.choice([np.nan, np.inf, -0.0, 3e38])) if array.dtype.kind == "f" else array
    if kind == 9:
        return array[:-1] if array.ndim else array
    if kind == 10:
        return np.asarray(draw.choice([b"text", "text", b"{}"]), draw.choice([None, object]))
    return np.zeros(draw.choice([(1,), (7, 3), (12, 12), (3, 12), (12,)]), array.dtype)


def mutate_arrays(draw, arrays):
    """Some arrays dropped, renamed, doubled or changed."""
    arrays = dict(arrays)
    for _ in range(draw.choice([1, 1, 2, 3])):
        if not arrays:
            break
        name = draw.choice(sorted(arrays))
        kind = draw.randrange(6)
        if kind == 0:
            del arrays[name]
        elif kind == 1:
            parts = name.split("/")
            parts[draw.randrange(len(parts))] = draw.choice([*WORDS[:6], "cell_9", "rnn_1", "x" * 300, "bias"])
            arrays["/".join(parts) or "x"] = arrays.pop(name)
        elif kind == 2:
            arrays[name + draw.choice(["_1", "/x", "_reverse"])] = arrays[name]
        else:
            arrays[name] = mutate_array(draw, arrays[name])
    return arrays


# --- npz, and descriptions ------------------------------------------------------------------------------------


def npy(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=True)
    return buffer.getvalue()


def zip_of(draw, files):
    buffer = io.BytesIO()
    ways = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    (way,) = draw.choices(ways, (3, 2, 1, 1))
    with zipfile.ZipFile(buffer, "w", way) as archive:
        for name, data in files.items():
            archive.writestr(name.encode("utf-8", "replace").decode() or "x", data)
    return buffer.getvalue()


def saved_as(module, path, kinds=(0, 1, 2, 3)):
    """A function that gives sound files, written by a format's `save`."""

    def bases():
        found = []
        for kind in kinds:
            model, width = model_of(kind)
            params = params_of(model, width)
            module.save(path, model, params, extra={"mean": [1.5, 2]})
            found.append((model, params))
        return found

    return bases


def mutate_npz(draw, base):
    model, params = base
    arrays = flatten_names(params)
    texts = {"minilstm/model": json.dumps(model.config()).encode(), "minilstm/extra": b'{"a": 1}'}
    way = draw.randrange(7)
    if way < 2:
        texts["minilstm/model"] = json_text(draw, model.config())
    elif way < 4:
        arrays = mutate_arrays(draw, arrays)
        if draw.random() < 0.5:
            texts = {}
    files = {f"{name}.npy": npy(array) for name, array in arrays.items()}
    files |= {f"{name}.npy": npy(text.decode("utf-8", "replace")) for name, text in texts.items()}
    if way == 4:
        name = draw.choice(sorted(files))
        files[name] = mutate_header(draw, files[name])
    if way == 5 and draw.random() < 0.2:
        files["bomb.npy"] = npy(np.zeros(3_000_000))
    data = zip_of(draw, files)
    if way == 6:
        data = mutate_bytes(draw, data)
    return {"m.npz": data}


def mutate_header(draw, data):
    """Another header in the bytes of an array, of the length that it says."""
    size = struct.unpack("<H", data[8:10])[0]
    text = data[10 : 10 + size].decode("latin1")
    text = draw.choice(
        [
            text.replace("(", f"({draw.choice([10**10, -1, 0, 2**63, 10**40])}, ", 1),
            text.replace("<f4", draw.choice(["|O", "<f8", "<U9", "|V0", "<m8[ns]", "zz", ">f4", "<f2"])),
            text.replace("False", draw.choice(["True", "None", "1", "x"])),
            "{" * 5000,
            "(" * 200 + ")" * 200,
            mutate_bytes(draw, text.encode("latin1")).decode("latin1"),
            text.replace("'shape'", "'shap'"),
        ]
    )
    content = text.encode("latin1")[:60_000]
    version = bytes(draw.choice([(1, 0), (1, 0), (2, 0), (3, 0), (9, 9)]))
    return data[:6] + version + struct.pack("<H", len(content)) + content + data[10 + size :]


def mutate_description(draw, base):
    """A checkpoint whose arrays are right, and whose description, or what else is JSON in it, is not."""
    model, params = base
    texts = {"minilstm/model": json.dumps(model.config()).encode(), "minilstm/extra": b"[1, 2]"}
    name = draw.choice([*texts, "minilstm/model", "minilstm/model"])
    texts[name] = json_text(draw, json.loads(texts[name]))
    return {"m": {**flatten_names(params), **{name: np.asarray(text, object) for name, text in texts.items()}}}


def described(path):
    loaded = load_checkpoint(path)
    repr(loaded.model)
    load_checkpoint(path, like=loaded.model)


# --- safetensors ----------------------------------------------------------------------------------------------


def mutate_safetensors(draw, base):
    data = base
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    way = draw.randrange(8)
    if way < 2:
        description = json.loads(header["__metadata__"]["minilstm/model"])
        header["__metadata__"]["minilstm/model"] = json_text(draw, description).decode("utf-8", "replace")
    elif way < 4:
        tensors, texts = safetensors.decode(data)
        if draw.random() < 0.5:
            texts = {}
        arrays = mutate_arrays(draw, tensors)
        try:
            return {"m.safetensors": safetensors.encode(arrays, texts)}
        except KeyError:  # a dtype that the format does not have
            way = 4
    if way == 4:
        name = draw.choice(sorted(header))
        header[name] = {
            **header[name],
            **draw.choice(
                [
                    {"dtype": draw.choice(["BF16", "F8_E4M3", "F8_E5M2", "F16", "I64", "BOOL", "F4", 3, None])},
                    {"shape": draw.choice([[10**12], [10**9, 0], [-1], [True], [1.0], [], None, [10**400], "12"])},
                    {"data_offsets": draw.choice([[0, 4], [0, 2**63], [-8, 0], [4, 0], [0], None, ["a"], [0, 1e9]])},
                ]
            ),
        }
    if way == 5:
        text = json_text(draw, header)
    else:
        text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text) if draw.random() < 0.9 else draw.choice([0, 2**63, 10**6])) + text + body
    return {"m.safetensors": mutate_bytes(draw, data) if way >= 6 else data}


def safetensors_bases():
    found = []
    for model, params in saved_as(torch, "m.safetensors")():
        torch.save("m.safetensors", model, params, extra=[1])
        found.append(Path("m.safetensors").read_bytes())
    return found


# --- checkpoints ----------------------------------------------------------------------------------------------


def checkpoint_bases(save):
    """A function that gives the tensors of sound checkpoints."""

    def bases():
        found = []
        for kind in (0, 1, 2, 3):
            model, width = model_of(kind)
            found.append(tensorbundle.read(save(model, params_of(model, width))))
        return found

    return bases


def as_tf2(model, params):
    tf2.save("base", model, params, extra=[1])
    return "base"


def as_dump(model, params):
    rng = np.random.default_rng(0)
    first = model.layers[0]
    inputs = rng.normal(size=(2, 4, model.input_dim(params) or 1)).astype(np.float32)
    if isinstance(first, Embedding):
        inputs = rng.integers(0, 5, (2, 4))
    outputs = model(params, inputs)
    own = {"failed/batch/inputs": inputs, "failed/batch/targets": np.zeros_like(outputs)}
    facts = {"failed": {"loss": "mse", "seed": 0, "step": 7, "state": None}}
    return save_checkpoint("base", params, step=7, model=model, training=facts, own=own, publish=False)


def mutate_tensors(draw, base):
    """Tensors of a checkpoint: JSON, an object graph and arrays, each in its own way."""
    tensors = dict(base)
    texts = [name for name, value in tensors.items() if value.dtype == object]
    way = draw.randrange(6)
    if way < 4 and texts:
        name = draw.choice(texts)
        text = tensors[name].item()
        if name == tf2.GRAPH:
            text = shared_cells(draw, tensors) if draw.random() < 0.1 else mutate_message(draw, text)
        else:
            text = json_text(draw, json.loads(text))
        tensors[name] = np.asarray(text, object)
    if way >= 3:
        strings = {name: tensors.pop(name) for name in texts if name in tensors}
        tensors = {**mutate_arrays(draw, tensors), **strings}
    if draw.random() < 0.3:
        tensors.pop("minilstm/model", None)
    return {"m": tensors}


def shared_cells(draw, tensors):
    """A graph of many layers that hold the same cell, or of many models with the same layers."""
    variable = next((name for name in tensors if name.endswith("VARIABLE_VALUE")), "x")
    nodes = [tf2.Node({}), tf2.Node({"kernel": 2}), tf2.Node({}, ("kernel", variable))]
    layers = {str(k): 3 + k for k in range(draw.choice([3, 500]))}
    nodes += [tf2.Node({"cell": 1}) for _ in layers]
    nodes.append(tf2.Node(layers))
    nodes += [tf2.Node({"_operations": len(nodes) - 1}) for _ in range(draw.choice([1, 500]))]
    return tf2.encode(nodes)


def saved_model_bases():
    """The tensors of SavedModels without our description of the model, and Keras's."""
    found = []
    for kind, tensors in enumerate(checkpoint_bases(as_tf2)()):
        model, width = model_of(kind)
        del tensors["minilstm/model"]
        found.append((tensors, keras_config(keras_parts(model, "fuzz"), params_of(model, width))))
    return found


def mutate_saved_model(draw, base):
    tensors, config = base
    text = json_text(draw, config) if draw.random() < 0.7 else json.dumps(config).encode()
    data = message(1, message(3, b"root") + message(4, b"_tf_keras_sequential") + message(5, text))
    if draw.random() < 0.2:
        data = mutate_message(draw, data)
    if draw.random() < 0.2:
        tensors = mutate_tensors(draw, tensors)["m"]
    return {"s/variables/variables": tensors, "s/saved_model.pb": b"", "s/keras_metadata.pb": data}


# --- sweep ----------------------------------------------------------------------------------------------------


def mutate_results(draw, base):
    lines = base.decode().split("\n")
    for _ in range(draw.choice([1, 1, 3])):
        place = draw.randrange(len(lines))
        cells = lines[place].split(",")
        words = ["", '"', "nan", "inf", "ok", "1e999", "command", "x" * 200_000, "\0", '"a\n']
        cells[draw.randrange(len(cells))] = draw.choice(words)
        if draw.random() < 0.3:
            cells = cells * 2 if draw.random() < 0.5 else cells[:-1]
        lines[place] = ",".join(cells)
    data = "\n".join(lines).encode()
    return {"results.csv": mutate_bytes(draw, data) if draw.random() < 0.4 else data}


def results_bases():
    results = Results(Path("results.csv"))
    for seed in range(3):
        row = {"command": f"python -m x --seed={seed}", "status": "ok", "seconds": "1.0", "message": "", "--seed": seed}
        results.append({**row, "mse": 0.5 + seed, "arv/lstm": 0.1})
    return [Path("results.csv").read_bytes()]


def read_results(path):
    results = Results(Path(path))
    for metric in [first_metric(results.rows), *held(results.rows)]:
        for row in results.latest().values():
            value(row, metric)


def given(module):
    """Both ways to read: what the file describes, and what names, shapes and options tell."""
    return (lambda path: module.load(path, options=GIVEN, limits=LIMITS), lambda path: convert.read(path, GIVEN))


DOORS = {
    "npz": Door("m.npz", saved_as(npz, "m.npz"), mutate_npz, given(npz)),
    "safetensors": Door("m.safetensors", safetensors_bases, mutate_safetensors, given(torch)),
    "tf2": Door("m", checkpoint_bases(as_tf2), mutate_tensors, given(tf2)),
    "saved_model": Door("s", saved_model_bases, mutate_saved_model, given(tf2)),
    "description": Door("m", saved_as(npz, "m.npz"), mutate_description, (described,)),
    "dump": Door("m", checkpoint_bases(as_dump), mutate_tensors, (replay.replay,)),
    "sweep": Door("results.csv", results_bases, mutate_results, (read_results,)),
}
