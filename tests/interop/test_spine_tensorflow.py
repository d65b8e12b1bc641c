"""Random LSTMs in real TensorFlow and here: outputs, final states, gradients, training steps and checkpoints."""

import numpy as np
import pytest
from helpers import assert_close, assert_trees_close, error
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import float32_bound
from strategies import by_name, cotangents_of, ill_conditioned, networks, run

from minilstm import (
    LSTM,
    Adam,
    Dense,
    LSTMState,
    Momentum,
    RMSProp,
    Sequential,
    fit,
    load_checkpoint,
    losses,
    save_checkpoint,
    value_and_grad,
)
from minilstm.params import flatten_names, tree_map, unflatten_names

pytestmark = pytest.mark.interop
EXAMPLES = max(50, settings().max_examples)


def tf_cell(tf, cell):
    """The same cell in TensorFlow."""
    activation = tf.identity if cell.activation == "linear" else getattr(tf.nn, cell.activation)
    options = {"forget_bias": cell.forget_bias, "activation": activation}
    if cell.name == "basic_lstm_cell":
        return tf.nn.rnn_cell.BasicLSTMCell(cell.units, **options)
    for option in ("use_peepholes", "cell_clip", "num_proj", "proj_clip"):
        options[option] = getattr(cell, option)
    return tf.nn.rnn_cell.LSTMCell(cell.units, **options)


def in_tensorflow(tf, network, dynamic, cotangents):
    """(outputs, c, h, gradients by variable name, gradients of inputs, c, h) of a linear loss."""
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.constant(network.inputs)
        state = tf.nn.rnn_cell.LSTMStateTuple(tf.constant(network.state.c), tf.constant(network.state.h))
        cell, lengths = tf_cell(tf, network.cell), network.lengths
        if dynamic:
            outputs, final = tf.nn.dynamic_rnn(cell, x, sequence_length=lengths, initial_state=state)
        else:
            steps, final = tf.nn.static_rnn(cell, tf.unstack(x, axis=1), initial_state=state, sequence_length=lengths)
            outputs = tf.stack(steps, axis=1)
        variables = tf.trainable_variables()
        loss = sum(tf.reduce_sum(a * b) for a, b in zip((outputs, *final), cotangents, strict=True))
        grads = tf.gradients(loss, [*variables, x, *state], unconnected_gradients="zero")
        for variable in variables:
            variable.load(flatten_names({"rnn": {network.cell.name: network.params}})[variable.op.name], session)
        results = session.run([outputs, *final, *grads])
    names = [variable.op.name for variable in variables]
    k = 3 + len(names)
    return results[:3], dict(zip(names, results[3:k], strict=True)), results[k:]


def check_against_tensorflow(tf, network, dynamic, seed, tolerance):
    """Errors are at most `tolerance`, or in float32 what rounding alone explains in this network: tests/rounding.py."""
    cotangents = cotangents_of(network, seed)
    theirs = by_name(*in_tensorflow(tf, network, dynamic, cotangents))
    for backprop in ("fast", "readable", "autograd"):
        ours = run(network, cotangents, backprop)
        assert ours.keys() == theirs.keys()
        for name, wanted in theirs.items():
            found = error(ours[name], wanted)
            if found > tolerance and wanted.dtype == np.float32:
                place = np.unravel_index(np.argmax(np.abs(ours[name] - wanted)), wanted.shape)
                bound = 2 * float32_bound(network, cotangents, name, place)  # both of them may be off
                assert found <= bound / max(1, np.max(np.abs(wanted))), f"{name}: error {found:.3g}, bound {bound:.3g}"
            else:
                assert found <= tolerance, f"{name}: error {found:.3g} is above {tolerance:g}"


@pytest.mark.parametrize("dynamic", [False, True], ids=["static_rnn", "dynamic_rnn"])
@settings(max_examples=EXAMPLES)
@given(network=networks(), seed=st.integers(0, 99))
def test_a_random_network_is_tensorflows(tf, dynamic, network, seed):
    check_against_tensorflow(tf, network, dynamic, seed, 1e-12)


@settings(max_examples=EXAMPLES)
@given(network=networks(smooth=True), seed=st.integers(0, 99))
def test_a_random_network_in_float32_is_tensorflows(tf, network, seed):
    """Without kinks, whose two sides rounding may tell apart."""
    check_against_tensorflow(tf, network.astype(np.float32), False, seed, 4e-6)


def test_a_gradient_whose_terms_cancel_is_as_near_as_float32_allows(tf):
    network, seed = ill_conditioned()
    check_against_tensorflow(tf, network.astype(np.float32), False, seed, 4e-6)


# --- a trained model and its checkpoint -----------------------------------------------------------------------

RNG = np.random.default_rng(4)
INPUTS = RNG.normal(size=(6, 5, 2)).astype(np.float32)
TARGETS = np.cumsum(INPUTS, axis=1)[..., :1] * np.float32(0.3)
MODEL = Sequential(LSTM(4, forget_bias=0.5), Dense(1))
OPTIMIZERS = {
    "Adam": (Adam(0.01), lambda tf: tf.train.AdamOptimizer(0.01)),
    "Momentum": (Momentum(0.05, 0.9), lambda tf: tf.train.MomentumOptimizer(0.05, 0.9)),
    "RMSProp": (RMSProp(0.01, momentum=0.5), lambda tf: tf.train.RMSPropOptimizer(0.01, momentum=0.5)),
    "centered": (RMSProp(0.01, centered=True), lambda tf: tf.train.RMSPropOptimizer(0.01, centered=True)),
}


def graph(tf, optimizer):
    """The same model, loss and optimizer in TensorFlow: (outputs, loss, one step)."""
    x = tf.constant(INPUTS)
    cell = tf.nn.rnn_cell.LSTMCell(4, forget_bias=0.5)
    steps, _ = tf.nn.static_rnn(cell, tf.unstack(x, axis=1), dtype=tf.float32)
    outputs = tf.layers.dense(tf.stack(steps, axis=1), 1)
    loss = tf.reduce_mean((outputs - TARGETS) ** 2)
    return outputs, loss, optimizer.minimize(loss, global_step=tf.train.get_or_create_global_step())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_tensorflow_restores_our_checkpoint_and_trains_on_as_we_do(tf, name, tmp_path):
    ours, theirs = OPTIMIZERS[name]
    options = {"optimizer": ours, "batch_size": len(INPUTS)}
    params = MODEL.init(0, 2)
    fit(MODEL, params, losses.mse, (INPUTS, TARGETS), epochs=5, checkpoint_dir=tmp_path, **options)
    saved = load_checkpoint(tmp_path)
    whole = fit(MODEL, params, losses.mse, (INPUTS, TARGETS), epochs=15, **options)
    with tf.Graph().as_default(), tf.Session() as session:
        outputs, _, step = graph(tf, theirs(tf))
        tf.train.Saver().restore(session, saved.prefix)
        assert session.run(tf.train.get_global_step()) == 5
        assert_close(session.run(outputs), MODEL(saved.params, INPUTS), 1e-6, "outputs")
        for _ in range(10):
            session.run(step)
        values = dict(zip([v.op.name for v in tf.global_variables()], session.run(tf.global_variables()), strict=True))
    assert_trees_close({n: values[n] for n in flatten_names(whole.params)}, flatten_names(whole.params), 5e-6)
    assert values["global_step"] == whole.step == 15


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_we_restore_tensorflows_checkpoint_and_train_on_as_it_does(tf, name, tmp_path):
    ours, theirs = OPTIMIZERS[name]
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(0)
        _, loss, step = graph(tf, theirs(tf))
        session.run(tf.global_variables_initializer())
        for _ in range(5):
            session.run(step)
        prefix = tf.train.Saver().save(session, str(tmp_path / "model.ckpt"), global_step=tf.train.get_global_step())
        for _ in range(10):
            session.run(step)
        names = [v.op.name for v in tf.trainable_variables()]
        wanted = dict(zip(names, session.run(tf.trainable_variables()), strict=True))
        wanted_loss = session.run(loss)
    loaded = load_checkpoint(prefix, like=MODEL)
    assert (loaded.step, loaded.others, loaded.model) == (5, {}, None)
    params, state = loaded.params, loaded.opt_state
    step = value_and_grad(lambda p: losses.mse(MODEL(p, INPUTS), TARGETS))
    for _ in range(10):
        params, state = ours.update(params, step(params)[1], state)
    assert_trees_close(flatten_names(params), wanted, 5e-6)
    assert_close(step(params)[0], wanted_loss, 1e-6, "loss")


def test_tensorflow_reads_the_older_names(tf, tmp_path):
    params = tree_map(lambda w: RNG.normal(size=w.shape).astype(w.dtype), MODEL.init(0, 2))
    prefix = save_checkpoint(tmp_path / "old", params, names="tf1.0", model=MODEL)
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    assert shapes["rnn/lstm_cell/weights"] == [6, 16]
    assert_close(reader.get_tensor("rnn/lstm_cell/biases"), params["rnn"]["lstm_cell"]["bias"], 0)
    found = {n.replace("weights", "kernel").replace("biases", "bias"): reader.get_tensor(n) for n in shapes
             if not n.startswith("minilstm/")}  # fmt: skip
    assert_trees_close(unflatten_names(found), params, 0)


def test_a_state_tuple_of_tensorflow_is_a_state_here(tf):
    layer = LSTM(3)
    params, zeros = layer.init(0, 2), np.zeros((6, 3), np.float32)
    theirs = tf.nn.rnn_cell.LSTMStateTuple(c=zeros, h=zeros + 0.5)
    assert_close(layer(params, INPUTS, state=theirs), layer(params, INPUTS, state=LSTMState(zeros, zeros + 0.5)), 0)
