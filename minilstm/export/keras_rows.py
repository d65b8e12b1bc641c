"""Files that have the layers of a Keras model in their order, each with the names of its arrays.

These are the checkpoints of TensorFlow 2 and the older HDF5 files. Here ``{"kernel": "model/.../kernel", ...}`` is the
row of one layer: Keras's name of each array, below ``forward_layer/`` and ``backward_layer/`` for a Bidirectional, with
its name in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ..layers import Sequential
from .format import Place, assembled
from .infer import Options, model_from
from .keras_layers import array_names, directions, in_keras_layers, keras_parts, merged, own_weights
from .parts import Part
from .shapes import keras_shapes

Row = dict[str, str]


def weighted_parts(model: Sequential, where: str) -> list[Part]:
    """The parts of a model that have weights in Keras."""
    return [part for part in keras_parts(model, where) if array_names(part)]


def places_of(parts: list[Part], rows: list[Row]) -> list[Place]:
    """Where the parts with weights are: each of their arrays under its name in the file."""
    return [
        Place(one.path, names, partial(own_weights, one), one.check(keras_shapes))
        for part, row in zip(parts, rows, strict=True)
        for folder, one in directions(part)
        for names in [{name: row[folder + name] for name in names_in(part, folder)}]
    ]


def names_in(part: Part, folder: str) -> list[str]:
    """The names of a layer's arrays in a folder of it."""
    return [name.removeprefix(folder) for name in array_names(part) if name.startswith(folder)]


def inferred(
    rows: Mapping[str, Row], arrays: Mapping[str, np.ndarray], options: Options, where: str
) -> Sequential:
    """The model of rows by the names of their layers, as far as names and shapes tell; ValueError otherwise."""
    layers = {layer: {name: arrays[key].shape for name, key in row.items()} for layer, row in rows.items()}
    found = in_keras_layers(layers, where)
    return merged(model_from(found, options.without_forget_bias(), where, ordered=True), where)


def filled(model: Sequential, rows: list[Row], arrays: Mapping[str, np.ndarray], where: str) -> dict[str, Any]:
    """The parameters of a model from rows that are in its order; ValueError if they do not fit it."""
    parts = weighted_parts(model, where)
    if len(rows) != len(parts):
        raise ValueError(f"{where}: the model has {len(parts)} layers with weights, the file {len(rows)}")
    for part, row in zip(parts, rows, strict=True):
        if set(row) != set(array_names(part)):
            raise ValueError(f"{where}: {part.name!r} wants {array_names(part)}, got {sorted(row)}")
    found = {key: arrays[key] for row in rows for key in row.values()}
    return assembled(model, places_of(parts, rows), found, where)
