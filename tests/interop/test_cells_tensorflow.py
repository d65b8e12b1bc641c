"""Random stacks, wrappers, GRUs and directions in real TensorFlow: names, outputs, final states, every gradient.

The weights go over by variable name, so a name that differs fails as surely as a number. Each network's forget biases
are neither 0 nor 1, and all weights are random numbers of their own.
"""

import importlib
import os

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import assert_close, assert_trees_close, named_leaves
from hypothesis import given, settings
from hypothesis import strategies as st
from test_wrappers import FORGET_BIASES, nested_networks

from minilstm import (
    LSTM,
    RNN,
    BasicLSTMCell,
    BasicRNNCell,
    Bidirectional,
    Dense,
    DropoutWrapper,
    GRUCell,
    LSTMCell,
    LSTMState,
    MultiRNNCell,
    ResidualWrapper,
    Sequential,
    value_and_grad,
)
from minilstm.params import flatten_names, tree_leaves, tree_map

pytestmark = pytest.mark.interop
FULL = bool(os.environ.get("MINILSTM_FULL"))
BACKPROPS = ("fast", "readable", "autograd")


def examples(number):
    """So many, and four times as many in the full run."""
    return settings(max_examples=4 * number if FULL else number)


# --- the same cell in TensorFlow ------------------------------------------------------------------------------


def tf_cell(tf, cell, dropping):
    """`cell` in TensorFlow; every DropoutWrapper is appended to `dropping` as (ours, TensorFlow's)."""
    cells = tf.nn.rnn_cell
    if isinstance(cell, MultiRNNCell):
        return cells.MultiRNNCell([tf_cell(tf, inner, dropping) for inner in cell.cells])
    if isinstance(cell, ResidualWrapper):
        return cells.ResidualWrapper(tf_cell(tf, cell.cell, dropping))
    if isinstance(cell, DropoutWrapper):
        keeps = {name: getattr(cell, name) for name in ("input_keep_prob", "output_keep_prob", "state_keep_prob")}
        theirs = cells.DropoutWrapper(tf_cell(tf, cell.cell, dropping), seed=len(dropping), **keeps)
        dropping.append((cell, theirs))
        return theirs
    activation = tf.identity if cell.activation == "linear" else getattr(tf.nn, cell.activation)
    options = {"activation": activation, "name": None if cell.name == cell.default_name else cell.name}
    if isinstance(cell, (GRUCell, BasicRNNCell)):
        return (cells.GRUCell if isinstance(cell, GRUCell) else cells.BasicRNNCell)(cell.units, **options)
    options["forget_bias"] = cell.forget_bias
    if isinstance(cell, BasicLSTMCell):
        return cells.BasicLSTMCell(cell.units, **options)
    plain = ("use_peepholes", "cell_clip", "num_proj", "proj_clip")
    return cells.LSTMCell(cell.units, **options, **{name: getattr(cell, name) for name in plain})


def tf_state(tf, state):
    """`state` with TensorFlow's tuples and constants."""
    if isinstance(state, LSTMState):
        return tf.nn.rnn_cell.LSTMStateTuple(*map(tf.constant, state))
    return tuple(tf_state(tf, part) for part in state) if isinstance(state, tuple) else tf.constant(state)


def run_in_tensorflow(tf, build, params, inputs, state, cotangents):
    """(outputs, final states), {variable: gradient}, gradients of inputs and state; each state as a flat list.

    `build(x, state) -> (outputs, final state)` makes the graph; `params` are given to its variables by name.
    """
    config = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        x, first = tf.constant(inputs), tf_state(tf, state)
        outputs, final = build(x, first)
        results = [outputs, *tf.nest.flatten(final)]
        variables = tf.trainable_variables()
        flat = flatten_names(params)
        assert {v.op.name: tuple(v.shape.as_list()) for v in variables} == {n: w.shape for n, w in flat.items()}
        for variable in variables:
            variable.load(flat[variable.op.name], session)
        loss = sum(tf.reduce_sum(a * b) for a, b in zip(results, cotangents, strict=True))
        wanted = [*variables, x, *tf.nest.flatten(first)]
        values = session.run([results, tf.gradients(loss, wanted, unconnected_gradients="zero")])
    k = len(variables)
    names = [v.op.name for v in variables]
    return values[0], dict(zip(names, values[1][:k], strict=True)), values[1][k], values[1][k + 1 :]


def run_here(layer, name, params, inputs, state, cotangents, **call):
    """The same of one of our layers, whose parameters lie under `name` in `params`."""

    def loss(tree):
        results = layer.apply(tree["params"], tree["inputs"], tree["state"], **call)
        leaves = tree_leaves(list(results))
        return sum(anp.sum(a * b) for a, b in zip(leaves, cotangents, strict=True)), leaves

    (_, results), grads = value_and_grad(loss, has_aux=True)(
        {"params": params[name], "inputs": inputs, "state": state}
    )
    return results, flatten_names({name: grads["params"]}), grads["inputs"], tree_leaves(grads["state"])


def draw_cotangents(seed, outputs_shape, state, dtype):
    rng = np.random.default_rng([seed, 5])
    shapes = [outputs_shape, *(leaf.shape for leaf in tree_leaves(state))]
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def assert_same(ours, theirs, tolerance):
    for name, a, b in zip(("values", "variables", "inputs", "initial state"), ours, theirs, strict=True):
        assert_trees_close({name: a}, {name: b}, tolerance)


def forget_biases(cell):
    """Those of every LSTM in a cell."""
    if isinstance(cell, MultiRNNCell):
        return [bias for inner in cell.cells for bias in forget_biases(inner)]
    return forget_biases(cell.cell) if hasattr(cell, "cell") else [getattr(cell, "forget_bias", 0.5)]


def check(tf, network, dynamic, tolerance):
    """One network under `static_rnn` or `dynamic_rnn`, against all of our paths."""
    assert not {0.0, 1.0} & set(forget_biases(network.cell))
    cell, lengths, (batch, time) = network.cell, network.lengths, network.inputs.shape[:2]
    shape = (batch, time, cell.output_size)
    cotangents = draw_cotangents(network.seed, shape, network.state, network.inputs.dtype)
    params = {"rnn": {cell.name: network.params}}

    def build(x, state):
        theirs = tf_cell(tf, cell, [])
        if dynamic:
            return tf.nn.dynamic_rnn(theirs, x, sequence_length=lengths, initial_state=state)
        outputs, final = tf.nn.static_rnn(theirs, tf.unstack(x, axis=1), initial_state=state, sequence_length=lengths)
        return tf.stack(outputs, axis=1), final

    wanted = run_in_tensorflow(tf, build, params, network.inputs, network.state, cotangents)
    for backprop in BACKPROPS:
        layer = RNN(cell, backprop=backprop)
        found = run_here(layer, "rnn", params, network.inputs, network.state, cotangents, sequence_length=lengths)
        assert_same(found, wanted, tolerance)


@examples(50)
@given(nested_networks(tensorflow=True, dropout=False, depth=2), st.booleans())
def test_a_random_network_is_tensorflows(tf, network, dynamic):
    """LSTMs with every option, GRUs and plain RNNs, alone, stacked, with residuals, with names of their own."""
    check(tf, network, dynamic, 1e-10)


@examples(15)
@given(nested_networks(tensorflow=True, smooth=True, dropout=False, depth=2))
def test_a_random_network_in_float32_is_tensorflows(tf, network):
    check(tf, network.astype(np.float32), False, 2e-6)


@examples(10)
@given(nested_networks(tensorflow=True, dropout=False, depth=1), st.sampled_from(FORGET_BIASES[:4]), st.booleans())
def test_a_random_bidirectional_network_is_tensorflows(tf, network, forget_bias, static):
    """Backwards runs a cell of another kind, so that no direction can stand for the other."""
    rng, lengths = np.random.default_rng(network.seed), network.lengths
    batch, time, input_dim = network.inputs.shape
    backward = LSTMCell(3, forget_bias=forget_bias, use_peepholes=True, num_proj=2)
    weights = tree_map(lambda w: rng.normal(0, 0.6, w.shape), backward.init(0, input_dim, np.float64))
    params = {"bidirectional_rnn": {"fw": {network.cell.name: network.params}, "bw": {backward.name: weights}}}
    state = (network.state, LSTMState(rng.normal(size=(batch, 3)), rng.normal(size=(batch, 2))))
    cotangents = draw_cotangents(network.seed, (batch, time, network.cell.output_size + 2), state, np.float64)

    def build(x, state):
        cells = tf_cell(tf, network.cell, []), tf_cell(tf, backward, [])
        if static:
            steps = tf.unstack(x, axis=1)
            steps, *final = tf.nn.static_bidirectional_rnn(*cells, steps, *state, sequence_length=lengths)
            return tf.stack(steps, axis=1), final
        outputs, final = tf.nn.bidirectional_dynamic_rnn(*cells, x, lengths, *state)
        return tf.concat(outputs, axis=-1), final

    wanted = run_in_tensorflow(tf, build, params, network.inputs, state, cotangents)
    for backprop in BACKPROPS:
        layer = Bidirectional(RNN(network.cell, backprop=backprop), RNN(backward, backprop=backprop))
        found = run_here(layer, "bidirectional_rnn", params, network.inputs, state, cotangents, sequence_length=lengths)
        assert_same(found, wanted, 1e-10)


# --- dropout: TensorFlow's wrapper with our masks -------------------------------------------------------------


def masks_of(cell, masks, found):
    """The masks of every DropoutWrapper in a cell, in the order in which `tf_cell` meets them."""
    if isinstance(cell, MultiRNNCell):
        for n, inner in enumerate(cell.cells):
            masks_of(inner, None if masks is None else masks[n], found)
    elif isinstance(cell, ResidualWrapper):
        masks_of(cell.cell, masks, found)
    elif isinstance(cell, DropoutWrapper):
        masks_of(cell.cell, masks["cell"], found)
        found.append(masks)
    return found


@examples(12)
@given(network=nested_networks(tensorflow=True, depth=3))
def test_dropout_falls_where_tensorflows_does(tf, network):
    """TensorFlow's DropoutWrapper decides what is dropped and when; only the dice are ours."""
    cell, lengths, (batch, time, input_dim) = network.cell, network.lengths, network.inputs.shape
    masks = None
    if hasattr(cell, "draw_masks"):
        masks = cell.draw_masks(np.random.default_rng(network.seed), batch, time, np.float64, input_dim=input_dim)
    theirs_module = importlib.import_module("tf_keras.src.layers.rnn.legacy_cell_wrappers")
    drawn, used = {}, {}

    def dropout(value, rate, seed):
        t = used[seed] = used.get(seed, -1) + 1
        mask = drawn[seed][t]
        assert set(np.unique(np.round(mask * (1 - rate), 6))) <= {0.0, 1.0}
        return value * mask

    def build(x, state):
        dropping = []
        theirs = tf_cell(tf, cell, dropping)
        if masks is not None:
            for (_, wrapper), own in zip(dropping, masks_of(cell, masks, []), strict=True):
                drawn[wrapper._gen_seed("input", 0)] = own["input"]
                drawn[wrapper._gen_seed("output", 0)] = own["output"]
                places = [name for name, _ in named_leaves(wrapper.state_size)]
                parts = dict(named_leaves(own["state"]))
                for n, place in enumerate(places):
                    drawn[wrapper._gen_seed("state", n)] = parts.get(place)
        outputs, final = tf.nn.static_rnn(theirs, tf.unstack(x, axis=1), initial_state=state, sequence_length=lengths)
        return tf.stack(outputs, axis=1), final

    cotangents = draw_cotangents(network.seed, (batch, time, cell.output_size), network.state, np.float64)
    params = {"rnn": {cell.name: network.params}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs_module.tf.nn, "dropout", dropout)
        wanted = run_in_tensorflow(tf, build, params, network.inputs, network.state, cotangents)
    assert {seed for seed, mask in drawn.items() if mask is not None} == set(used)
    call = {"sequence_length": lengths, "rng": network.seed}
    for backprop in BACKPROPS:
        layer = RNN(cell, backprop=backprop)
        found = run_here(layer, "rnn", params, network.inputs, network.state, cotangents, **call)
        assert_same(found, wanted, 1e-10)


# --- names and defaults ---------------------------------------------------------------------------------------


def test_names_of_layers_below_scopes_are_tensorflows(tf):
    """A second runner has the scope "rnn_1", a path is a scope, and dense layers are counted."""
    model = Sequential(
        LSTM(4, forget_bias=0.37), LSTM(3, forget_bias=-0.6, num_proj=2), RNN(GRUCell(3), name="enc/inner"),
        Bidirectional(BasicLSTMCell(2, forget_bias=2.0)), Dense(3, activation="tanh"), Dense(2, name="out"), Dense(1),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    params = tree_map(lambda w: rng.normal(0, 0.5, w.shape), model.init(0, 2, np.float64))
    inputs = rng.normal(size=(3, 5, 2))
    cells = tf.nn.rnn_cell

    def build(x, _):
        x, first = tf.nn.dynamic_rnn(cells.LSTMCell(4, forget_bias=0.37), x, dtype=tf.float64)
        x, second = tf.nn.dynamic_rnn(
            cells.LSTMCell(3, forget_bias=-0.6, num_proj=2), x, dtype=tf.float64, scope="rnn_1"
        )
        x, third = tf.nn.dynamic_rnn(cells.GRUCell(3), x, dtype=tf.float64, scope="enc/inner")
        both = [cells.BasicLSTMCell(2, forget_bias=2.0) for _ in range(2)]
        x, fourth = tf.nn.bidirectional_dynamic_rnn(*both, x, dtype=tf.float64)
        x = tf.layers.dense(tf.concat(x, axis=-1), 3, activation=tf.tanh)
        return tf.layers.dense(tf.layers.dense(x, 2, name="out"), 1), (first, second, third, fourth)

    outputs, state = model.apply(params, inputs)
    cotangents = draw_cotangents(0, outputs.shape, list(state.values()), np.float64)
    (values, grads, d_inputs, _) = run_in_tensorflow(tf, build, params, inputs, (), cotangents)

    def loss(tree):
        results = tree_leaves(list(model.apply(tree["params"], tree["inputs"])))
        return sum(anp.sum(a * b) for a, b in zip(results, cotangents, strict=True))

    _, ours = value_and_grad(loss)({"params": params, "inputs": inputs})
    assert_trees_close(tree_leaves([outputs, state]), values, 1e-12)
    assert_trees_close(flatten_names(ours["params"]), grads, 1e-12)
    assert_close(ours["inputs"], d_inputs, 1e-12, "inputs")


@pytest.mark.parametrize(
    ("kind", "constant"),
    [(GRUCell, None), (GRUCell, 0.25), (LSTMCell, None), (BasicLSTMCell, None), (BasicRNNCell, None)],
)
def test_biases_start_where_tensorflows_do(tf, kind, constant):
    """1 for a GRU's gates and 0 for all else, forget_bias beside the bias; a GRU's may all be given."""
    cell = kind(3) if constant is None else kind(3, bias_initializer={"name": "constant", "value": constant})
    given = {} if constant is None else {"bias_initializer": tf.constant_initializer(constant)}
    with tf.Graph().as_default(), tf.Session() as session:
        theirs = getattr(tf.nn.rnn_cell, kind.__name__)(3, **given)
        tf.nn.dynamic_rnn(theirs, tf.constant(np.ones((1, 2, 2), np.float32)), dtype=tf.float32)
        session.run(tf.global_variables_initializer())
        biases = {v.op.name: session.run(v) for v in tf.trainable_variables() if v.op.name.endswith("bias")}
        forget_bias = getattr(theirs, "_forget_bias", None)
    ours = flatten_names({"rnn": RNN(cell).init(0, 2)})
    assert biases
    for name, bias in biases.items():
        assert_close(ours[name], bias, 0, name)
    assert getattr(cell, "forget_bias", None) == forget_bias
