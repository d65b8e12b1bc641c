"""What the layers of Keras hold, under which names, for its own files and for TensorFlow 2's."""

from __future__ import annotations

from collections.abc import Mapping

from ..layers import Bidirectional, Sequential
from .infer import CellShape, Found, Shape, cell_found, dense_or_embedding, recurrent_found
from .layout import Weights, from_keras, to_keras
from .parts import Part, parts_of, refuse
from .shapes import BLOCKS, Sizes, check_cell, keras_shapes, kind_by

UNSUPPORTED = {
    "use_peepholes": "keras.layers.{layer} has no peepholes (ONNX has)",
    "num_proj": "keras.layers.{layer} has no projection (PyTorch has)",
    "cell_clip": "keras.layers.{layer} clips nothing",
    "proj_clip": "keras.layers.{layer} clips nothing",
    "time_major": "keras.layers.{layer} takes batches first",
    "learn_initial_state": "keras.layers.{layer} keeps no initial state (ONNX does)",
}
CELL_ARRAYS = ("kernel", "recurrent_kernel", "bias")
ARRAYS = {"lstm": CELL_ARRAYS, "gru": CELL_ARRAYS, "dense": ("kernel", "bias"), "embedding": ("embeddings",)}
DIRECTIONS = ("forward_layer/", "backward_layer/")
ARRAYS["bidirectional"] = tuple(f"{direction}{array}" for direction in DIRECTIONS for array in CELL_ARRAYS)


def keras_parts(model: Sequential, where: str) -> list[Part]:
    """The parts of a model, each of which Keras can express; ValueError otherwise, naming the option."""
    parts = parts_of(model, where, UNSUPPORTED)
    for part in parts:
        if part.is_cell and part.return_sequences:
            refuse(part, {"reverse": "Keras returns the sequences of go_backwards=True in reversed order"}, where)
    return parts


def keras_weights(part: Part, weights: Weights) -> Weights:
    """The arrays of one direction of a Keras layer by the names Keras gives them, in Keras's order."""
    return to_keras(part.layer, weights) if part.is_cell else weights


def own_weights(part: Part, arrays: Weights) -> Weights:
    """The inverse of `keras_weights`."""
    return from_keras(part.layer, arrays) if part.is_cell else arrays


def kind_of(part: Part) -> str:
    """The name of the Keras class in lower case."""
    if part.backward is not None:
        return "bidirectional"
    return part.kind.lower() if part.is_cell else type(part.layer).__name__.lower()


def array_names(part: Part) -> tuple[str, ...]:
    """What Keras calls a layer's arrays, in its order; a Bidirectional's are below ``forward_layer/``, then
    ``backward_layer/``.
    """
    return ARRAYS.get(kind_of(part), ())


def directions(part: Part) -> list[tuple[str, Part]]:
    """Each direction of a part with weights, and the folder of its arrays."""
    return [("", part)] if part.backward is None else list(zip(DIRECTIONS, part.directions, strict=True))


def in_keras_layers(layers: Mapping[str, Mapping[str, Shape]], where: str) -> list[Found]:
    """Keras layers, each with its arrays' shapes by their Keras names."""
    found = []
    for name, arrays in layers.items():
        if set(arrays) == set(CELL_ARRAYS):
            found.append(recurrent_found(name, [_cell_found(arrays, name, where)], where))
        elif set(arrays) == set(ARRAYS["bidirectional"]):
            both = [
                [_cell_found({key: arrays[direction + key] for key in CELL_ARRAYS}, f"{name}/{direction}"[:-1], where)]
                for direction in DIRECTIONS
            ]
            found.append(recurrent_found(name, both[0], where, both[1]))
        else:
            found.append(dense_or_embedding(name, arrays, where))
    return found


def _cell_found(arrays: Mapping[str, Shape], name: str, where: str) -> CellShape:
    """An LSTM or GRU as its group is called, or else by the width of its recurrent kernel; a GRU with `reset_after` has
    two biases.
    """
    recurrent, called = arrays["recurrent_kernel"], name.partition("_")[0].upper()
    kind = called if called in BLOCKS else kind_by(recurrent)
    sizes = Sizes(sum(recurrent[:1]), None, kind, len(arrays["bias"]) == 2)
    check_cell(keras_shapes, sizes, arrays, {array: f"{name}/{array}" for array in arrays}, where)
    return cell_found(sizes, arrays["kernel"][0])


def merged(model: Sequential, where: str) -> Sequential:
    """A model that was found by its weights alone, if they tell how Keras joins the outputs of every Bidirectional.

    Raises ValueError if a Bidirectional is the last layer: it is the width of the next one that tells concat.
    """
    if isinstance(model.layers[-1], Bidirectional):
        told = "ends with a Bidirectional, and weights alone do not tell its merge_mode"
        raise ValueError(f"{where}: the model {told}; read the file in Python, and give load the model")
    return model
