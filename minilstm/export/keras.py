"""Keras 3: a complete ``.keras`` file, or ``.weights.h5`` alone, and back; neither needs Keras itself.

A ``.keras`` file is a zip of three files: ``config.json`` (the layers), ``metadata.json`` and ``model.weights.h5``. In
the HDF5 file a layer is a group called after its class and counted, and its arrays are numbered:

    layers/lstm/cell/vars/0     kernel               layers/embedding/vars/0    embeddings
    layers/lstm/cell/vars/1     recurrent_kernel     layers/dense/vars/0        kernel
    layers/lstm/cell/vars/2     bias                 layers/dense/vars/1        bias
    layers/lstm_1/...           the second LSTM      minilstm/model             our description, which Keras skips

Keras has one bias, so the forget bias is added to it; taking it off again can cost one rounding.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import files
from ..layers import Dense, Embedding, Sequential
from .keras_config import from_keras_config, keras_config, stack_lines
from .layout import Weights, from_keras, to_keras
from .parts import (
    MODEL,
    ZIP_FAULTS,
    Loaded,
    Part,
    assemble,
    checked_params,
    converted,
    described,
    forward_of,
    library,
    model_and_extra,
    parts_of,
    refuse,
    take,
    weights_of,
)

UNSUPPORTED = {
    "use_peepholes": "keras.layers.LSTM has no peepholes (ONNX has)",
    "num_proj": "keras.layers.LSTM has no projection (PyTorch has)",
    "cell_clip": "keras.layers.LSTM clips nothing",
    "proj_clip": "keras.layers.LSTM clips nothing",
    "time_major": "keras.layers.LSTM takes batches first",
    "learn_initial_state": "keras.layers.LSTM keeps no initial state (ONNX does)",
}
LSTM_ARRAYS = ("kernel", "recurrent_kernel", "bias")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of every file in the zip: the same model gives the same bytes


def save(path: str | os.PathLike[str], model: Sequential, params: dict[str, Any], *, extra: Any = None) -> str:
    """Write a model for Keras 3.

    Parameters
    ----------
    path : path
        ``model.keras`` for the whole model, ``model.weights.h5`` for its weights.
    model : Sequential
        Of LSTM, Dense, Embedding and Dropout.
    params : dict
        Its parameters, of one dtype.
    extra : optional
        Anything JSON can hold; it is stored beside the weights, as is the model's description.

    Returns
    -------
    str
        The lines of Python that load the file as ``model`` and define ``forward(inputs)``.

    Raises
    ------
    ValueError
        For another suffix, for parameters that do not fit, and for an option that Keras has not: the message names it.
    ImportError
        Without h5py.
    """
    where = "export.keras.save"
    name = os.fspath(path)
    if not name.endswith((".keras", ".weights.h5")):
        raise ValueError(f"{where}: path must end in .keras or .weights.h5, got {name!r}")
    params = checked_params(model, params, where)
    parts = keras_parts(model, where)
    weights = _hdf5(parts, params, described(model, extra))
    if name.endswith(".keras"):
        config = keras_config(parts, params)
        files.write_bytes(path, _zip(config, weights))
        lines = ["import keras", "", f"model = keras.saving.load_model({name!r})"]
    else:
        files.write_bytes(path, weights)
        stack = stack_lines(parts, params, "keras")
        lines = ["import keras", "", *stack, f"model.load_weights({name!r})"]
    return "\n".join([*lines, "", "def forward(inputs):", "    return model(inputs)", ""])


def load(path: str | os.PathLike[str], model: Sequential | None = None) -> Loaded:
    """Read a ``.keras`` or ``.weights.h5`` file, written here or by Keras 3.

    Parameters
    ----------
    path : path
    model : Sequential, optional
        What the weights are for. Default: what `save` described in the file, or else the layers that a ``.keras`` file
        configures; these then have ``forget_bias=0``, because Keras adds none at run time.

    Returns
    -------
    Loaded
        ``(model, params, extra)``.

    Raises
    ------
    ValueError
        Without any model, for a Keras layer or option that has no counterpart here, and where the file does not fit.
    ImportError
        Without h5py.
    """
    where = f"export.keras.load: {os.fspath(path)}"
    arrays, texts, config = read(path)
    if model is None and config is not None and MODEL not in texts:
        model = from_keras_config(config, where)
    model, extra = model_and_extra(texts, model, where, "give the model that the weights are for")
    weights: dict[str, Weights] = {}
    used: set[str] = set()
    for part, folder in _folders(keras_parts(model, where)):
        names = _array_names(part, folder)
        if names:
            weights[part.path] = converted(own_weights, part, take(arrays, names, where), where)
            used.update(names.values())
    unused = sorted(set(arrays) - used)
    if unused:
        raise ValueError(f"{where}: the model has no place for {', '.join(unused)}")
    return Loaded(model, assemble(model, weights, where), extra)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, Any] | None]:
    """The layers' arrays by their place in the file, its texts, and the configuration where it is a ``.keras`` file.

    An optimizer's state, which Keras stores beside the layers, is left aside.

    Raises ValueError for a file that is neither, ImportError without h5py.
    """
    where = f"export.keras.read: {os.fspath(path)}"
    with open(path, "rb") as file:
        data = file.read()
    config = None
    if data.startswith(b"PK"):
        config, data = _unzip(data, where)
    return *_read_hdf5(data, where), config


def mapping(model: Sequential) -> dict[str, list[str]]:
    """Where each part's weights lie in our tree, and the names of the arrays they become."""
    folders = _folders(keras_parts(model, "export.keras"))
    return {part.path: list(_array_names(part, folder).values()) for part, folder in folders if array_names(part)}


def opened(code: str) -> Callable[[np.ndarray], np.ndarray]:
    """The ``forward`` of the lines that `save` returned, from array to array; ImportError without Keras."""
    library("keras", "running the exported model", "pip install keras")
    forward = forward_of(code)
    return lambda inputs: np.asarray(forward(inputs))


# --- what Keras's layers hold; `tf2` shares it ----------------------------------------------------------------


def keras_parts(model: Sequential, where: str) -> list[Part]:
    """The parts of a model, each of which Keras can express; ValueError otherwise, naming the option."""
    parts = parts_of(model, where)
    for part in parts:
        refuse(part, UNSUPPORTED, where)
        if part.is_lstm and part.return_sequences:
            refuse(part, {"reverse": "Keras returns the sequences of go_backwards=True in reversed order"}, where)
    return parts


def keras_weights(part: Part, weights: Weights) -> Weights:
    """The arrays of the Keras layer by the names Keras gives them, in Keras's order."""
    return to_keras(part.layer, weights) if part.is_lstm else weights


def own_weights(part: Part, arrays: Weights) -> Weights:
    """The inverse of `keras_weights`."""
    return from_keras(part.layer, arrays) if part.is_lstm else arrays


def array_names(part: Part) -> tuple[str, ...]:
    """What Keras calls a layer's arrays, in its order."""
    if part.is_lstm:
        return LSTM_ARRAYS
    if isinstance(part.layer, Dense):
        return ("kernel", "bias")
    return ("embeddings",) if isinstance(part.layer, Embedding) else ()


# --- files ----------------------------------------------------------------------------------------------------


def _folders(parts: list[Part]) -> Iterator[tuple[Part, str]]:
    """Each part with the group its layer has in the HDF5 file: the class in lower case, counted."""
    counts: dict[str, int] = {}
    for part in parts:
        base = "lstm" if part.is_lstm else type(part.layer).__name__.lower()
        count = counts.get(base, 0)
        counts[base] = count + 1
        yield part, f"layers/{base}_{count}" if count else f"layers/{base}"


def _array_names(part: Part, folder: str) -> dict[str, str]:
    inner = f"{folder}/cell/vars" if part.is_lstm else f"{folder}/vars"
    return {name: f"{inner}/{k}" for k, name in enumerate(array_names(part))}


def _hdf5(parts: list[Part], params: dict[str, Any], texts: dict[str, str]) -> bytes:
    h5py = library("h5py", "export.keras.save")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("vars")
        for part, folder in _folders(parts):
            file.create_group(f"{folder}/vars")
            arrays = keras_weights(part, weights_of(params, part))
            for name, place in _array_names(part, folder).items():
                file[place] = arrays[name]
        for name, text in texts.items():
            file[name] = text
    return buffer.getvalue()


def _read_hdf5(data: bytes, where: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The layers' arrays by name, and the texts."""
    h5py = library("h5py", "export.keras.load")
    found: dict[str, Any] = {}

    def collect(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            found[str(name)] = node[()]

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            file.visititems(collect)
        texts = {name: value.decode() for name, value in found.items() if isinstance(value, bytes)}
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # whatever the library says of damage
        raise ValueError(f"{where}: no whole HDF5 file: {error}") from error
    arrays = {name: np.asarray(value) for name, value in found.items() if name.startswith("layers/")}
    return arrays, texts


def _zip(config: dict[str, Any], weights: bytes) -> bytes:
    buffer = io.BytesIO()
    contents = {
        "metadata.json": json.dumps({"keras_version": "3.0.0", "date_saved": "1980-01-01@00:00:00"}).encode(),
        "config.json": json.dumps(config).encode(),
        "model.weights.h5": weights,
    }
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content)
    return buffer.getvalue()


def _unzip(data: bytes, where: str) -> tuple[dict[str, Any], bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return json.loads(archive.read("config.json")), archive.read("model.weights.h5")
    except (*ZIP_FAULTS, KeyError, ValueError) as error:
        raise ValueError(f"{where}: no whole .keras file: {error}") from error
