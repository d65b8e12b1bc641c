"""Training beside real TensorFlow: every optimizer, clipping, schedules, averages, and the state of a long stream.

Plain continuation of a run, there and back, is in test_spine_tensorflow.py.
"""

import os
import subprocess
import sys

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import assert_close, assert_trees_close, largest

from minilstm import (
    LSTM,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Dense,
    Momentum,
    RMSProp,
    Sequential,
    ema_update,
    fit,
    load_checkpoint,
    losses,
    schedules,
    value_and_grad,
)
from minilstm.checkpoint import SLOTS
from minilstm.data import contiguous_batches
from minilstm.params import flatten_names, tree_map

pytestmark = pytest.mark.interop
TOLERANCE = 5e-6  # what two float32 computations of ten steps may differ by

# --- ten steps of every optimizer on a random problem ---------------------------------------------------------

OPTIMIZERS = {
    "SGD": (SGD(0.3), lambda tf: tf.train.GradientDescentOptimizer(0.3)),
    "Momentum": (Momentum(0.07, 0.85), lambda tf: tf.train.MomentumOptimizer(0.07, 0.85)),
    "Nesterov": (
        Momentum(0.07, 0.85, use_nesterov=True),
        lambda tf: tf.train.MomentumOptimizer(0.07, 0.85, use_nesterov=True),
    ),
    "Adagrad": (Adagrad(0.3, 0.02), lambda tf: tf.train.AdagradOptimizer(0.3, 0.02)),
    "RMSProp": (RMSProp(0.01, 0.8, 0.5, 1e-6), lambda tf: tf.train.RMSPropOptimizer(0.01, 0.8, 0.5, 1e-6)),
    "centred": (
        RMSProp(0.01, 0.7, 0.3, 1e-4, centered=True),
        lambda tf: tf.train.RMSPropOptimizer(0.01, 0.7, 0.3, 1e-4, centered=True),
    ),
    "Adam": (Adam(0.03, 0.8, 0.95, 1e-6), lambda tf: tf.train.AdamOptimizer(0.03, 0.8, 0.95, 1e-6)),
}


def problem(dtype, seed):
    """(x, y, parameters) of a small network to fit: tanh(x w) v + b."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(20, 4)).astype(dtype), rng.normal(size=(20, 2)).astype(dtype)
    params = {name: rng.normal(size=shape).astype(dtype) for name, shape in (("w", (4, 3)), ("v", (3, 2)), ("b", (2,)))}
    return x, y, params


def ten_steps_here(optimizer, dtype, seed):
    """[(parameters, state)] after 0 .. 10 steps."""
    x, y, params = problem(dtype, seed)
    step = value_and_grad(lambda p: anp.mean((anp.dot(anp.tanh(anp.dot(x, p["w"])), p["v"]) + p["b"] - y) ** 2))
    found = [(params, optimizer.init(params))]
    for _ in range(10):
        params, state = found[-1]
        found.append(optimizer.update(params, step(params)[1], state))
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps_and_their_slots_are_tensorflows(tf, name, dtype):
    for seed in range(3):
        ours, theirs = OPTIMIZERS[name]
        x, y, params = problem(dtype, seed)
        with tf.Graph().as_default(), tf.Session() as session:
            optimizer, v = theirs(tf), {key: tf.Variable(value, name=key) for key, value in params.items()}
            outputs = tf.matmul(tf.tanh(tf.matmul(x, v["w"])), v["v"]) + v["b"]
            step = optimizer.minimize(tf.reduce_mean((outputs - y) ** 2))
            session.run(tf.global_variables_initializer())
            for n, (here, state) in enumerate(ten_steps_here(ours, dtype, seed)):
                if n:
                    session.run(step)
                values = {variable.op.name: session.run(variable) for variable in tf.global_variables()}
                for key in params:
                    assert_close(here[key], values[key], TOLERANCE, f"{key} after {n} steps")
                    for field, slot in SLOTS.get(type(state), {}).items():
                        found = getattr(state, field)[key]
                        assert_close(found, values[f"{key}/{slot}"], TOLERANCE, f"{key}/{slot} after {n} steps")
        assert largest(tree_map(np.subtract, here, params)) > 0.05


KERAS = """
import sys
import numpy as np
import tensorflow as tf
import keras
for case, out in zip(sys.argv[1::2], sys.argv[2::2]):
    file = dict(np.load(case))
    x, y = file.pop("x"), file.pop("y")
    options = {name: float(file.pop(name)) for name in ("learning_rate", "beta_1", "beta_2", "epsilon", "weight_decay")}
    keras.backend.set_floatx(str(x.dtype))
    v = {name: keras.Variable(value, dtype=str(x.dtype)) for name, value in file.items()}
    optimizer = keras.optimizers.AdamW(**options)
    optimizer.build(list(v.values()))
    found = {}
    for n in range(1, 11):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((tf.tanh(x @ v["w"].value) @ v["v"].value + v["b"].value - y) ** 2)
        grads = tape.gradient(loss, [w.value for w in v.values()])
        optimizer.apply_gradients(zip(grads, v.values()))
        found |= {f"{name}/{n}": np.asarray(w) for name, w in v.items()}
    np.savez(out, **found)
"""


def test_ten_steps_of_adamw_are_kerass(tmp_path):
    """In a process of its own: Keras 3 does not work where TensorFlow is in the mode of version 1."""
    options = {"learning_rate": 0.03, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-6, "weight_decay": 0.1}
    paths = []
    for seed in range(3):
        x, y, params = problem(np.float32, seed)
        np.savez(tmp_path / f"case{seed}.npz", x=x, y=y, **params, **options)
        paths += [str(tmp_path / f"case{seed}.npz"), str(tmp_path / f"found{seed}.npz")]
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    environment |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-c", KERAS, *paths]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours = AdamW(0.03, 0.8, 0.95, 1e-6, weight_decay=0.1)
    for seed in range(3):
        with np.load(tmp_path / f"found{seed}.npz") as file:
            found = dict(file)
        for n, (params, _) in list(enumerate(ten_steps_here(ours, np.float32, seed)))[1:]:
            for name, value in params.items():
                assert_close(value, found[f"{name}/{n}"], TOLERANCE, f"{name} after {n} steps")
        plain, _ = ten_steps_here(Adam(0.03, 0.8, 0.95, 1e-6), np.float32, seed)[-1]
        assert max(np.abs(plain[name] - found[f"{name}/10"]).max() for name in plain) > 1e-3  # decay can be seen


# --- an LSTM --------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(14)
INPUTS = RNG.normal(size=(6, 5, 2)).astype(np.float32)
TARGETS = np.cumsum(INPUTS, axis=1)[..., :1] * np.float32(0.3)
MODEL = Sequential(LSTM(4), Dense(1))


def network(tf, inputs, state=None):
    """(outputs, final state) of the same model in TensorFlow."""
    steps, final = tf.nn.static_rnn(
        tf.nn.rnn_cell.LSTMCell(4), tf.unstack(inputs, axis=1), initial_state=state, dtype=tf.float32
    )
    return tf.layers.dense(tf.stack(steps, axis=1), 1), final


def load(tf, session, params):
    """Put our parameters into TensorFlow's variables."""
    session.run(tf.global_variables_initializer())
    flat = flatten_names(params)
    for variable in tf.trainable_variables():
        variable.load(flat[variable.op.name], session)


def variables(tf, session):
    return {variable.op.name: session.run(variable) for variable in tf.global_variables()}


FURTHER = {name: OPTIMIZERS[name] for name in ("SGD", "Nesterov", "Adagrad")}


@pytest.mark.parametrize("name", FURTHER)
def test_both_ways_for_the_optimizers_that_the_spine_has_not(tf, name, tmp_path):
    """Five steps here, five there, five here: as fifteen here."""
    ours, theirs = FURTHER[name]
    options = {"optimizer": ours, "batch_size": len(INPUTS)}
    params = MODEL.init(0, 2)
    whole = fit(MODEL, params, losses.mse, (INPUTS, TARGETS), epochs=15, **options)
    fit(MODEL, params, losses.mse, (INPUTS, TARGETS), epochs=5, checkpoint_dir=tmp_path / "here", **options)
    with tf.Graph().as_default(), tf.Session() as session:
        outputs, _ = network(tf, tf.constant(INPUTS))
        count = tf.train.get_or_create_global_step()
        step = theirs(tf).minimize(tf.reduce_mean((outputs - TARGETS) ** 2), global_step=count)
        tf.train.Saver().restore(session, load_checkpoint(tmp_path / "here").prefix)
        for _ in range(5):
            session.run(step)
        prefix = tf.train.Saver().save(session, str(tmp_path / "there"), global_step=count)
    loaded = load_checkpoint(prefix, like=MODEL)
    assert loaded.step == 10
    params = loaded.params
    state = ours.init(params)._replace(step=10) if loaded.opt_state is None else loaded.opt_state
    assert type(state) is type(whole.opt_state)
    gradient = value_and_grad(lambda p: losses.mse(MODEL(p, INPUTS), TARGETS))
    for _ in range(5):
        params, state = ours.update(params, gradient(params)[1], state)
    assert_trees_close(params, whole.params, 1e-5)
    assert_trees_close(state, whole.opt_state, 1e-5)
    assert largest(tree_map(np.subtract, whole.params, MODEL.init(0, 2))) > 0.05


def test_clipping_and_a_falling_rate_are_tensorflows(tf):
    params = MODEL.init(1, 2)
    rate = schedules.exponential(0.5, 4, 0.5, staircase=True)
    options = {"clip_value": 0.05, "clip_norm": 0.1, "batch_size": 6, "epochs": 10}
    result = fit(MODEL, params, losses.mse, (INPUTS, TARGETS), optimizer=Momentum(rate, 0.5), **options)
    free = fit(MODEL, params, losses.mse, (INPUTS, TARGETS), optimizer=SGD(0.5), batch_size=6, epochs=10)
    with tf.Graph().as_default(), tf.Session() as session:
        outputs, _ = network(tf, tf.constant(INPUTS))
        count = tf.train.get_or_create_global_step()
        loss, v = tf.reduce_mean((outputs - TARGETS) ** 2), tf.trainable_variables()
        grads = [tf.clip_by_value(grad, -0.05, 0.05) for grad in tf.gradients(loss, v)]
        grads, _ = tf.clip_by_global_norm(grads, 0.1)
        optimizer = tf.train.MomentumOptimizer(tf.train.exponential_decay(0.5, count, 4, 0.5, staircase=True), 0.5)
        step = optimizer.apply_gradients(zip(grads, v, strict=True), global_step=count)
        load(tf, session, params)
        seen = [session.run([loss, step])[0] for _ in range(10)]
        found = variables(tf, session)
    assert_trees_close(flatten_names(result.params), {n: found[n] for n in flatten_names(result.params)}, TOLERANCE)
    assert_close(result.history["loss"], seen, TOLERANCE)
    assert largest(tree_map(np.subtract, free.params, result.params)) > 0.05


def test_averages_are_tensorflows_and_go_on_there_and_here(tf, tmp_path):
    options = {"optimizer": Adam(0.03), "batch_size": 6, "ema_decay": 0.8}
    params = MODEL.init(2, 2)
    fit(MODEL, params, losses.mse, (INPUTS, TARGETS), epochs=5, checkpoint_dir=tmp_path / "here", **options)
    whole = fit(MODEL, params, losses.mse, (INPUTS, TARGETS), epochs=15, **options)
    with tf.Graph().as_default(), tf.Session() as session:
        outputs, _ = network(tf, tf.constant(INPUTS))
        count, ema = tf.train.get_or_create_global_step(), tf.train.ExponentialMovingAverage(0.8)
        step = tf.train.AdamOptimizer(0.03).minimize(tf.reduce_mean((outputs - TARGETS) ** 2), global_step=count)
        with tf.control_dependencies([step]):
            step = ema.apply(tf.trainable_variables())
        tf.train.Saver().restore(session, load_checkpoint(tmp_path / "here").prefix)
        for _ in range(5):
            session.run(step)
        prefix = tf.train.Saver().save(session, str(tmp_path / "there"), global_step=count)
    loaded, optimizer = load_checkpoint(prefix, like=MODEL), Adam(0.03)
    params, state, averaged = loaded.params, loaded.opt_state, loaded.averaged
    gradient = value_and_grad(lambda p: losses.mse(MODEL(p, INPUTS), TARGETS))
    for _ in range(5):
        params, state = optimizer.update(params, gradient(params)[1], state)
        averaged = ema_update(averaged, params, 0.8)
    assert_trees_close(averaged, whole.averaged, 1e-5)
    assert_trees_close(params, whole.params, 1e-5)
    assert largest(tree_map(np.subtract, whole.averaged, whole.params)) > 1e-3


def test_tensorflow_evaluates_with_our_averages(tf, tmp_path):
    result = fit(MODEL, MODEL.init(3, 2), losses.mse, (INPUTS, TARGETS), optimizer=Adam(0.03), epochs=4, ema_decay=0.7,
                 checkpoint_dir=tmp_path)  # fmt: skip
    with tf.Graph().as_default(), tf.Session() as session:
        outputs, _ = network(tf, tf.constant(INPUTS))
        ema = tf.train.ExponentialMovingAverage(0.7)
        tf.train.Saver(ema.variables_to_restore()).restore(session, load_checkpoint(tmp_path).prefix)
        theirs = session.run(outputs)
    assert_close(MODEL(result.averaged, INPUTS), theirs, 1e-6)
    assert np.abs(MODEL(result.params, INPUTS) - theirs).max() > 1e-3


def test_a_stream_is_trained_as_tensorflow_trains_it_with_the_state_fed_back(tf):
    series = (np.cumsum(RNG.normal(size=(62, 1)), axis=0) * 0.2).astype(np.float32)
    data, params = contiguous_batches(series, 3, 5), MODEL.init(4, 1)
    result = fit(MODEL, params, losses.mse, data, optimizer=Adam(0.02), epochs=2)
    assert (len(data), result.step) == (4, 8)  # 20 columns
    with tf.Graph().as_default(), tf.Session() as session:
        x, y = (tf.placeholder(tf.float32, (3, 5, 1)) for _ in range(2))
        state = tf.nn.rnn_cell.LSTMStateTuple(*(tf.placeholder(tf.float32, (3, 4)) for _ in range(2)))
        outputs, final = network(tf, x, state)
        loss = tf.reduce_mean((outputs - y) ** 2)
        step = tf.train.AdamOptimizer(0.02).minimize(loss)
        load(tf, session, params)
        history = []
        for _ in range(2):
            values, seen = [np.zeros((3, 4), np.float32)] * 2, []
            for n in range(4):
                batch = data(n)
                feed = {x: batch["inputs"], y: batch["targets"], **dict(zip(state, values, strict=True))}
                values, value, _ = session.run([list(final), loss, step], feed)
                seen.append(value)
            history.append(np.mean(seen))
        found = variables(tf, session)
    assert_trees_close(flatten_names(result.params), {n: found[n] for n in flatten_names(result.params)}, TOLERANCE)
    assert_close(result.history["loss"], history, TOLERANCE)
