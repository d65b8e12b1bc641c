"""Random models of one to three LSTMs for the tests of `minilstm.export`, and what they are compared by."""

import json
import os
from typing import NamedTuple

import numpy as np
from helpers import named_leaves
from hypothesis import strategies as st

from minilstm import (
    LSTM,
    RNN,
    BasicLSTMCell,
    Bidirectional,
    Dense,
    Dropout,
    Embedding,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    Sequential,
    tensorbundle,
)
from minilstm.checkpoint import MODEL
from minilstm.export import tf2
from minilstm.export.keras_config import keras_config
from minilstm.export.keras_graph import GRAPH
from minilstm.export.keras_layers import keras_parts
from minilstm.export.object_graph import Node, encode
from minilstm.params import tree_map
from minilstm.tensorbundle.wire import message

EXAMPLES = 150 if os.environ.get("MINILSTM_FULL") else 15
FORGET_BIASES = st.sampled_from([0.0, 0.5, 1.0, -0.75, 2.25, 0.1])
ACTIVATIONS = ("tanh", "sigmoid", "relu", "linear", "softsign")


class Case(NamedTuple):
    """A model, float32 weights none of which is 0, and inputs for it."""

    model: Sequential
    params: dict
    inputs: np.ndarray

    @property
    def outputs(self):
        return self.model(self.params, self.inputs)


@st.composite
def cases(
    draw, *, projections=False, peepholes=False, activations=("tanh",), learned=False, reverse=False, grus=(),
    both_ways=False,
):
    """`reverse` and the other flags: whether the target can express them; `grus`: what `reset_after` a GRU may have."""
    batch, time, width = (draw(st.integers(1, n)) for n in (3, 6, 4))
    embedded = draw(st.booleans())
    layers = [Embedding(draw(st.integers(2, 6)), width)] if embedded else []
    depth = draw(st.integers(1, 3))
    stacked, all_steps = draw(st.booleans()), draw(st.booleans())
    sizes = [draw(cell_sizes(projections)) for _ in range(depth)]
    if draw(st.booleans()):
        sizes = sizes[:1] * depth  # which PyTorch can stack
    formulas = [draw(st.sampled_from([None, *grus])) for _ in range(depth)]
    if draw(st.booleans()):
        formulas = formulas[:1] * depth

    def make_cell(k, activation=activations):
        if formulas[k] is None:
            return draw(lstm_cells(sizes[k], peepholes, activation))
        return GRUCell(sizes[k][0], activation=draw(st.sampled_from(activation)), reset_after=formulas[k])

    cells = [make_cell(k) for k in range(depth)]
    options = {"learn_initial_state": learned and draw(st.booleans()), "reverse": reverse and draw(st.booleans())}
    if stacked:
        layers.append(RNN(MultiRNNCell(cells), return_sequences=all_steps, **options))
    else:
        for k, cell in enumerate(cells):
            sequences = all_steps or k + 1 < depth
            if both_ways and draw(st.booleans()):
                twin = make_cell(k, (cell.activation,))
                layers.append(Bidirectional(*(RNN(c, return_sequences=sequences) for c in (cell, twin))))
            else:
                layers.append(RNN(cell, return_sequences=sequences, **options))
            if draw(st.booleans()):
                layers.append(Dropout(0.25))
    for _ in range(draw(st.integers(0, 2))):
        layers.append(Dense(draw(st.integers(1, 4)), activation=draw(st.sampled_from([None, *ACTIVATIONS]))))
    seed = draw(st.integers(0, 2**20))
    return make(Sequential(*layers), width, batch, time, seed)


@st.composite
def cell_sizes(draw, projections):
    units = draw(st.integers(2, 6))
    return units, draw(st.sampled_from([None, 1, units - 1])) if projections else None


@st.composite
def lstm_cells(draw, sizes, peepholes, activations):
    units, num_proj = sizes
    options = {"forget_bias": draw(FORGET_BIASES), "activation": draw(st.sampled_from(activations))}
    if num_proj is None and draw(st.booleans()):
        return BasicLSTMCell(units, **options)
    return LSTMCell(units, num_proj=num_proj, use_peepholes=peepholes and draw(st.booleans()), **options)


def make(model, width=2, batch=2, time=5, seed=0, dtype=np.float32):
    """A case of this model with random weights and inputs."""
    rng = np.random.default_rng(seed)
    params = tree_map(lambda w: rng.normal(0, 0.5, w.shape).astype(dtype), model.init(0, width, dtype=dtype))
    first = model.layers[0]
    if isinstance(first, Embedding):
        return Case(model, params, rng.integers(0, first.vocabulary, (batch, time)))
    return Case(model, params, rng.normal(size=(batch, time, width)).astype(dtype))


def simple(**options):
    """One LSTM with these options and one Dense."""
    return make(Sequential(LSTM(3, **options), Dense(1)))


def assert_one_rounding(params, reference):
    """Biases of LSTM cells are within one rounding at the size of what was added; everything else is bit-identical."""
    left, right = dict(named_leaves(params)), dict(named_leaves(reference))
    assert left.keys() == right.keys()
    for name, value in left.items():
        if "lstm_cell" in name and name.endswith("bias"):
            largest = np.maximum(np.abs(right[name]), 4)  # a sum with a forget bias of at most 2.25 stays below
            assert np.all(np.abs(value - right[name]) <= np.spacing(largest.astype(value.dtype))), name
        else:
            assert value.tobytes() == right[name].tobytes(), name


def exported(folder, names, arrays):
    """A SavedModel as Keras 3 exports one: a list of variables with names, and no layers."""
    keys = [f"variables/{k}/.ATTRIBUTES/VARIABLE_VALUE" for k in range(len(names))]
    variables = [Node({}, pair) for pair in zip(names, keys, strict=True)]
    nodes = [Node({"variables": 1}), Node({str(k): 2 + k for k in range(len(names))}), *variables]
    graph = {GRAPH: np.asarray(encode(nodes), object)}
    tensorbundle.write(folder / "variables" / "variables", {**dict(zip(keys, arrays, strict=True)), **graph})
    (folder / "saved_model.pb").write_bytes(b"")


def saved_by_tf_keras(folder, model, params, *layers):
    """A SavedModel as ``tf.keras`` writes one: the variables, and what describes the model, with more `layers`."""
    prefix = folder / "variables" / "variables"
    tf2.save(prefix, model, params)
    tensors = tensorbundle.read(prefix)
    del tensors[MODEL]
    tensorbundle.write(prefix, tensors)
    config = keras_config(keras_parts(model, "test"), params)
    config["config"]["layers"] += layers
    described = message(3, b"root") + message(4, b"_tf_keras_sequential") + message(5, json.dumps(config).encode())
    (folder / "keras_metadata.pb").write_bytes(message(1, described))
    (folder / "saved_model.pb").write_bytes(b"")
