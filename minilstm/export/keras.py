"""Keras 3: a complete ``.keras`` file, or ``.weights.h5`` alone, and back; neither needs Keras itself.

A ``.keras`` file is a zip of three files: ``config.json`` (the layers), ``metadata.json`` and ``model.weights.h5``. In
the HDF5 file a layer is a group called after its class and counted, and its arrays are numbered:

    layers/lstm/cell/vars/0     kernel               layers/embedding/vars/0    embeddings
    layers/lstm/cell/vars/1     recurrent_kernel     layers/dense/vars/0        kernel
    layers/lstm/cell/vars/2     bias                 layers/dense/vars/1        bias
    layers/lstm_1/...           the second LSTM      minilstm/model             our description, which Keras skips
    layers/gru/cell/vars/0      as an LSTM's         layers/bidirectional/forward_layer/cell/vars/0, backward_layer/...

The older files, ``.h5`` or ``.hdf5``, are read too, but not written: `minilstm.export.hdf5` draws them.

Keras has one bias, so an LSTM's forget bias is added to it; subtracting it again can cost one rounding.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from .. import files, reading
from ..checkpoint import MODEL
from ..layers import Sequential
from ..optional import library
from ..reading import LIMITS, Limits, from_json
from .arrays import unzipped, zipped
from .format import (
    DTYPES,
    Loaded,
    Place,
    assembled,
    checked_params,
    described,
    model_and_extra,
    names_of,
    run_lines,
)
from .hdf5 import Content, read_hdf5
from .infer import Found, Options, Shape, model_from, shapes_of
from .keras_config import code_of, from_keras_config, keras_config, stack_lines
from .keras_layers import (
    ARRAYS,
    CELL_ARRAYS,
    array_names,
    directions,
    in_keras_layers,
    keras_parts,
    keras_weights,
    kind_of,
    merged,
    own_weights,
)
from .keras_legacy import check_bare, check_version, inferred_legacy, rows_of
from .keras_rows import filled, places_of, weighted_parts
from .parts import Part, weights_of
from .shapes import keras_shapes

SUFFIXES: tuple[str, ...] = (".keras", ".weights.h5")
RUNTIME = "keras"
RUNS = DTYPES
NUMBERED = re.compile(
    r"layers/(?P<layer>(?P<kind>[a-z]+)(?:_\d+)?)/(?P<direction>(?:forward|backward)_layer/)?"
    r"(?:cell/)?vars/(?P<number>\d)"
)


def save(path: str | os.PathLike[str], model: Sequential, params: dict[str, Any], *, extra: Any = None) -> str:
    """Write a model for Keras 3.

    Parameters
    ----------
    path : path
        ``model.keras`` for the whole model, ``model.weights.h5`` for its weights.
    model : Sequential
        Of LSTM, GRU, Bidirectional, Dense, Embedding and Dropout.
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
        For another suffix, for parameters that do not fit, and for an option that Keras lacks: the message names it.
    ImportError
        Without h5py.
    """
    where = "export.keras.save"
    name = os.fspath(path)
    if not name.endswith(SUFFIXES):
        raise ValueError(f"{where}: path must end in .keras or .weights.h5, got {name!r}")
    params = checked_params(model, params, where)
    parts = keras_parts(model, where)
    content = _hdf5(parts, params, described(model, extra))
    lines = [*stack_lines(parts, params, "keras"), f"model.load_weights({name!r})"]
    if name.endswith(".keras"):
        content = _keras_file(keras_config(parts, params), content)
        lines = [f"model = keras.saving.load_model({name!r})"]
    files.write_bytes(path, content)
    return code_of("import keras", lines)


@reading.reader
def load(
    path: str | os.PathLike[str], model: Sequential | None = None, *, options: Options | None = None,
    limits: Limits = LIMITS,
) -> Loaded:  # fmt: skip
    """Read a ``.keras`` or ``.weights.h5`` file, written here or by Keras 3, or an older HDF5 file of Keras 2 or 3.

    What the file is, its content tells, and not its name. An optimizer's state is left aside.

    Parameters
    ----------
    path : path
    model : Sequential, optional
        What the weights are for. Default: what `save` described in the file, or else the layers that a ``.keras`` file
        or the older file of a whole model configures; these then have ``forget_bias=0``, because Keras adds none at run
        time.
    options : Options, optional
        In place of a model that a file of weights alone does not describe: what names and shapes do not tell of it.
    limits : Limits, optional
        What the file may claim.

    Returns
    -------
    Loaded
        ``(model, params, extra)``.

    Raises
    ------
    ValueError
        Without any model, for a Keras layer or option that has no counterpart here, and if the file does not fit.
    ImportError
        Without h5py.
    """
    where = os.fspath(path)
    content, config = _content(path, limits)
    check_version(content, where)
    if model is None and config is not None and MODEL not in content.texts:
        model = from_keras_config(config, where)
    rows = None if content.layers is None else rows_of(content.layers, where)

    def infer(given: Options) -> Sequential:
        check_bare(content, where)
        if rows is not None:
            return inferred_legacy(content, rows, given, where)
        found = in_weights_h5(shapes_of(content.arrays), where)
        return merged(model_from(found, given.without_forget_bias(), where), where)

    model, extra = model_and_extra(content.texts, model, where, infer, options, limits=limits)
    if rows is not None:
        return Loaded(model, filled(model, list(rows.values()), content.arrays, where), extra)
    return Loaded(model, assembled(model, _places(model, where, _wrapped(config)), content.arrays, where), extra)


@reading.reader
def read(
    path: str | os.PathLike[str], limits: Limits = LIMITS
) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, Any] | None]:
    """The layers' arrays by their names in the file, its texts, and the configuration if the file has the whole model.

    An optimizer's state, which Keras stores beside the layers, is left aside.

    Raises ValueError for a file of another kind, and for one that refers to other files; ImportError without h5py.
    """
    content, config = _content(path, limits)
    return content.arrays, content.texts, config


def _content(path: str | os.PathLike[str], limits: Limits) -> tuple[Content, dict[str, Any] | None]:
    data, config = reading.content(path, limits), None
    if data.startswith(b"PK"):
        parts = unzipped(data, limits, only=("config.json", "model.weights.h5"))
        config, data = from_json(parts["config.json"], limits), parts["model.weights.h5"]
    try:
        content = read_hdf5(data, limits)
    except Exception as error:
        if "memory allocation failed" in str(error):  # arrays and texts are checked: it is in HDF5's own tables
            raise ValueError("damaged: HDF5 finds a size in it that no file can have") from error
        if isinstance(error, OSError):  # h5py's, as the bytes are in memory
            raise ValueError(f"no whole HDF5 file: {error}") from error
        raise
    text = content.texts.pop("model_config", None)
    return content, config if text is None else from_json(text, limits)


def _wrapped(config: dict[str, Any] | None) -> dict[str, str]:
    """The names of the layers that are in a TimeDistributed, and where they are in the HDF5 file."""
    row = [] if config is None else config["config"]["layers"]
    names = [layer["config"]["name"] for layer in row if layer["class_name"] == "TimeDistributed"]
    return {name: f"{_group('time_distributed', count)}/layer" for count, name in enumerate(names)}


def mapping(model: Sequential) -> dict[str, list[str]]:
    """The path of each part's weights in our tree, with the names of the arrays they become."""
    return names_of(_places(model, "export.keras"))


def mapping_in(path: str | os.PathLike[str], model: Sequential) -> dict[str, list[str]]:
    """The same for a file that `load` took: with the names that are really in it."""
    content, config = _content(path, LIMITS)
    if content.layers is None:
        return names_of(_places(model, "export.keras", _wrapped(config)))
    rows = list(rows_of(content.layers, os.fspath(path)).values())
    return names_of(places_of(weighted_parts(model, "export.keras"), rows))


def opened(code: str) -> Callable[[np.ndarray], np.ndarray]:
    """The ``forward`` of the lines that `save` returned, from array to array; ImportError without Keras."""
    forward = run_lines(code, RUNTIME)["forward"]
    return lambda inputs: np.asarray(forward(inputs))


# --- files ----------------------------------------------------------------------------------------------------


def in_weights_h5(shapes: Mapping[str, Shape], where: str) -> list[Found]:
    """The layers of a ``.weights.h5`` file; ValueError for a name that belongs to none."""
    layers: dict[str, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        match = NUMBERED.fullmatch(name)
        names: tuple[str, ...] = ()
        if match and (match["kind"] == "bidirectional") == (match["direction"] is not None):
            names = CELL_ARRAYS if match["direction"] else ARRAYS.get(match["kind"], ())
        if not match or int(match["number"]) >= len(names):
            raise ValueError(f"{where}: {name} {shape} belongs to no LSTM, GRU, Dense or Embedding")
        array = (match["direction"] or "") + names[int(match["number"])]
        layers.setdefault(match["layer"], {})[array] = shape
    return in_keras_layers(layers, where)


def _group(kind: str, count: int) -> str:
    return f"layers/{kind}_{count}" if count else f"layers/{kind}"


def _numbered(parts: list[Part], wrapped: Mapping[str, str]) -> Iterator[tuple[Part, str, dict[str, str]]]:
    """Each direction of each part with its group in the HDF5 file, and the places there of its arrays by Keras's names.

    The group is called after the class in lower case, and counted; `wrapped` has those of layers in a TimeDistributed.
    """
    counts: dict[str, int] = {}
    for part in parts:
        layer = wrapped.get(part.name)
        if layer is None:
            kind = kind_of(part)
            count = counts[kind] = counts.get(kind, -1) + 1
            layer = _group(kind, count)
        for folder, one in directions(part):
            group = f"{layer}/{folder}".removesuffix("/")
            inner = f"{group}/cell/vars" if part.is_cell else f"{group}/vars"
            names = CELL_ARRAYS if part.is_cell else array_names(part)
            yield one, group, {name: f"{inner}/{k}" for k, name in enumerate(names)}


def _places(model: Sequential, where: str, wrapped: Mapping[str, str] | None = None) -> list[Place]:
    numbered = _numbered(keras_parts(model, where), wrapped or {})
    return [
        Place(part.path, names, partial(own_weights, part), part.check(keras_shapes))
        for part, _, names in numbered
        if names
    ]


def _hdf5(parts: list[Part], params: dict[str, Any], texts: dict[str, str]) -> bytes:
    h5py = library("h5py", "export.keras.save")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("vars")
        for part, group, names in _numbered(parts, {}):
            file.create_group(f"{group}/vars")
            file.require_group(f"{'/'.join(group.split('/')[:2])}/vars")  # a Bidirectional has one too
            arrays = keras_weights(part, weights_of(params, part))
            for key, name in names.items():
                file[name] = arrays[key]
        for name, text in texts.items():
            file[name] = text
    return buffer.getvalue()


def _keras_file(config: dict[str, Any], weights: bytes) -> bytes:
    metadata = {"keras_version": "3.0.0", "date_saved": "1980-01-01@00:00:00"}
    texts = {"metadata.json": json.dumps(metadata).encode(), "config.json": json.dumps(config).encode()}
    return zipped(texts | {"model.weights.h5": weights})
