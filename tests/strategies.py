"""Hypothesis strategies: random LSTM networks with inputs, weights that are never 0, states and lengths."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from minilstm import BasicLSTMCell, LSTMCell, LSTMState
from minilstm.params import tree_map

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
