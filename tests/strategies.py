"""Hypothesis strategies: random LSTM networks with inputs, weights that are never 0, states and lengths."""

from typing import NamedTuple

import autograd.numpy as anp
import numpy as np
from hypothesis import strategies as st

from minilstm import RNN, BasicLSTMCell, LSTMCell, LSTMState, value_and_grad
from minilstm.params import flatten_names, tree_map

FORGET_BIASES = st.sampled_from([0.0, 0.5, 1.0, -0.75, 2.25])


class Network(NamedTuple):
    """A cell and everything it needs, in float64; inputs are [batch, time, features]."""

    cell: object
    options: dict
    params: dict
    inputs: np.ndarray
    state: LSTMState
    lengths: object
    seed: int

    def astype(self, dtype):
        """The same network in another dtype."""
        convert = lambda tree: tree_map(lambda x: x.astype(dtype), tree)  # noqa: E731
        return self._replace(params=convert(self.params), inputs=self.inputs.astype(dtype), state=convert(self.state))


@st.composite
def networks(draw, smooth=False, lengths=True):
    """Draw a network. If `smooth`, it has no kinks (clips, relu), where central differences could be wrong."""
    batch, time, input_dim, units = (draw(st.integers(1, n)) for n in (4, 6, 4, 5))
    options = {"forget_bias": draw(FORGET_BIASES)}
    activations = ["tanh", "sigmoid", "softsign", "linear"] + ([] if smooth else ["relu"])
    options["activation"] = draw(st.sampled_from(activations))
    if draw(st.booleans()):
        options["use_peepholes"] = draw(st.booleans())
        if draw(st.booleans()):
            options["num_proj"] = draw(st.integers(1, 6))
        if not smooth:
            options["cell_clip"] = draw(st.sampled_from([None, 0.3, 1.0]))
            if "num_proj" in options:
                options["proj_clip"] = draw(st.sampled_from([None, 0.2, 0.8]))
        cell = LSTMCell(units, **options)
    else:
        cell = BasicLSTMCell(units, **options)
    seed = draw(st.integers(0, 2**20))
    rng = np.random.default_rng(seed)
    params = tree_map(lambda w: rng.normal(0, 0.6, w.shape), cell.init(0, input_dim, np.float64))
    inputs = rng.normal(size=(batch, time, input_dim))
    state = LSTMState(*(rng.normal(0, 0.7, (batch, n)) for n in cell.state_size))
    given = None
    if lengths and draw(st.booleans()):
        given = np.array(draw(st.lists(st.integers(0, time), min_size=batch, max_size=batch)))
    return Network(cell, options, params, inputs, state, given, seed)


def ill_conditioned():
    """The network and the seed of its cotangents in which terms cancel: one float32 gradient of TensorFlow's and one of
    ours were 4.03e-6 apart."""
    rng = np.random.default_rng(5416)
    cell = LSTMCell(3, forget_bias=0.0, use_peepholes=True, num_proj=5, activation="linear")
    params = tree_map(lambda w: rng.normal(0, 0.6, w.shape), cell.init(0, 3, np.float64))
    inputs = rng.normal(size=(3, 3, 3))
    state = LSTMState(*(rng.normal(0, 0.7, (3, n)) for n in cell.state_size))
    return Network(cell, {}, params, inputs, state, None, 5416), 29


def cotangents_of(network, seed):
    """Random derivatives of a loss with respect to the outputs and the final c and h, in the network's dtype."""
    rng = np.random.default_rng(seed)
    shapes = ((*network.inputs.shape[:2], network.cell.output_size), network.state.c.shape, network.state.h.shape)
    return [rng.normal(size=shape).astype(network.inputs.dtype) for shape in shapes]


def run(network, cotangents, backprop):
    """By name: outputs and final state, and the gradients of ``sum(results * cotangents)``."""
    layer = RNN(network.cell, backprop=backprop)

    def loss(tree):
        outputs, state = layer.apply(tree["rnn"], tree["x"], tree["state"], sequence_length=network.lengths)
        values = (outputs, *state)
        return sum(anp.sum(a * b) for a, b in zip(values, cotangents, strict=True)), values

    tree = {"rnn": {network.cell.name: network.params}, "x": network.inputs, "state": network.state}
    (_, values), grads = value_and_grad(loss, has_aux=True)(tree)
    return by_name(values, flatten_names({"rnn": grads["rnn"]}), (grads["x"], *grads["state"]))


def by_name(values, grads, others):
    """One dict of the results, the weights' gradients, and the gradients of inputs and state."""
    names = ("outputs", "c", "h"), ("gradient of x", "gradient of c", "gradient of h")
    return dict(zip(names[0], values, strict=True)) | grads | dict(zip(names[1], others, strict=True))


def named_tensors(rng, pieces, count, make):
    """`count` tensors ``make(rng)``, whose names are put together from a few pieces, so that they share beginnings."""
    tensors = {}
    while len(tensors) < count:
        name = "".join(piece + rng.choice(["/", "_", ""]) for piece in rng.choice(pieces, rng.integers(1, 5)))
        if name in tensors:
            name += f"{rng.integers(1000)}"
        tensors[name] = make(rng)
    return tensors
