"""The two documents this project grew from: a two-step notebook and a thread about TensorFlow's `LSTMCell`.

Both print the numbers of small LSTMs. Where a document gives the seed of its weights, they are drawn here again and
every print is compared, digit for digit.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

from minilstm import RNN, BasicLSTMCell, LSTMCell, LSTMState, bptt

sys.path.insert(0, str(Path(__file__).parent.parent))
from experiments.notebook_figures import (
    COUNTING_LAST,
    FIRST_STEP,
    NOTEBOOK_INPUTS,
    QUESTION_NUMPY,
    QUESTION_TENSORFLOW,
    SECOND_STEP,
    SEED_0_NUMPY,
    SEED_0_TENSORFLOW,
    TENSORFLOW_C,
    TENSORFLOW_H,
    TENSORFLOW_H1,
    array,
    notebook_network,
    notebook_trace,
    seed_0_network,
)

# --- the notebook ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "name", "printed"),
    [(0, *item) for item in FIRST_STEP.items()] + [(1, *item) for item in SECOND_STEP.items()],
)
def test_the_notebooks_gates_states_and_outputs_are_ours(step, name, printed):
    """Eight decimals of every array. Of the second step's output gate there is no print: the cell meant to show it
    repeats the input gate, see `test_the_second_output_gate_follows_from_what_is_printed`."""
    found = notebook_trace()[name][:, step]
    np.testing.assert_allclose(found, array(printed), rtol=0, atol=6e-9)


def test_the_second_output_gate_follows_from_what_is_printed():
    gate = array(SECOND_STEP["h"]) / np.tanh(array(SECOND_STEP["c"]))
    found = notebook_trace()["o"][:, 1]
    np.testing.assert_allclose(found, gate, rtol=0, atol=4e-6)  # eight decimals, divided by numbers down to 0.0026
    assert np.abs(found - array(SECOND_STEP["i"])).min() > 1e-3  # what was printed in its place is no output gate


@pytest.mark.parametrize("backprop", ["fast", "readable", "autograd"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_notebooks_tensorflow_half_is_ours(dtype, backprop):
    cell, params = notebook_network()
    params = {"basic_lstm_cell": {name: value.astype(dtype) for name, value in params.items()}}
    layer = RNN(cell, time_major=True, backprop=backprop)
    start = LSTMState(np.zeros((7, 3)), np.zeros((7, 3)))
    outputs, state = layer.apply(params, NOTEBOOK_INPUTS, start)
    np.testing.assert_allclose(state.c, array(TENSORFLOW_C), rtol=0, atol=1.5e-7)
    np.testing.assert_allclose(state.h, array(TENSORFLOW_H), rtol=0, atol=1.5e-7)
    np.testing.assert_allclose(outputs[0][:6], array(TENSORFLOW_H1)[:6], rtol=0, atol=1.5e-7)
    np.testing.assert_allclose(outputs[1], array(TENSORFLOW_H), rtol=0, atol=1.5e-7)


def test_the_notebook_needs_forget_bias_0():
    """With TensorFlow's default of 1 the first step is the same (there is nothing to forget), the second is not."""
    _, params = notebook_network()
    outputs, _ = bptt.sequence(BasicLSTMCell(3), params, NOTEBOOK_INPUTS, LSTMState(np.zeros((7, 3)), np.zeros((7, 3))))
    np.testing.assert_allclose(outputs[0], array(FIRST_STEP["h"]), rtol=0, atol=6e-9)
    assert np.abs(outputs[1] - array(SECOND_STEP["h"])).max() > 0.01


# --- the thread ------------------------------------------------------------------------------------------------


def seed_0_outputs(dtype=np.float64, **options):
    inputs, weights = seed_0_network()
    cell = LSTMCell(3, **options)
    params = {"lstm_cell": {name: value.astype(dtype) for name, value in weights.items()}}
    return RNN(cell)(params, inputs)[0]


def test_the_threads_seed_0_numpy_print_is_ours():
    np.testing.assert_allclose(seed_0_outputs(), SEED_0_NUMPY, rtol=0, atol=6e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_threads_seed_0_tensorflow_print_is_ours(dtype):
    np.testing.assert_allclose(seed_0_outputs(dtype), SEED_0_TENSORFLOW, rtol=0, atol=1.5e-7)


def test_without_the_forget_bias_only_the_first_output_is_right():
    """What the question's code computes: the first output is right, because there is nothing to forget yet, and all
    later ones are wrong."""
    wrong, right = seed_0_outputs(forget_bias=0.0), seed_0_outputs(forget_bias=1.0)
    np.testing.assert_allclose(wrong[0], SEED_0_NUMPY[0], rtol=0, atol=6e-9)
    np.testing.assert_allclose(right, SEED_0_NUMPY, rtol=0, atol=6e-9)
    assert np.abs(wrong[1:] - np.array(SEED_0_NUMPY)[1:]).max(axis=1).min() > 0.02


def test_the_questions_prints_show_the_same_pattern():
    """Its weights are not published, so only the pattern can be checked: from a zero state the first output does not
    depend on the forget bias and the later ones do, in the two prints as in any cell of ours."""
    gaps = np.abs(np.array(QUESTION_TENSORFLOW) - QUESTION_NUMPY).max(axis=1)
    assert gaps[0] < 1e-7
    assert gaps[1:].min() > 0.01
    for seed in range(5):
        rng = np.random.default_rng(seed)
        inputs, kernel = rng.normal(size=(1, 7, 4)), rng.uniform(-0.56, 0.56, (7, 12))
        params = {"lstm_cell": {"kernel": kernel, "bias": np.zeros(12)}}
        with_bias, without = (RNN(LSTMCell(3, forget_bias=b))(params, inputs)[0] for b in (1.0, 0.0))
        assert with_bias[0].tobytes() == without[0].tobytes()
        assert np.abs(with_bias[1:] - without[1:]).max(axis=1).min() > 1e-3


def test_the_counting_prints_are_in_reach_of_a_cell():
    """Inputs 0 .. 27 with weights that are not published: the prints fade because the gates saturate, down to 5e-14,
    and ours can fade as far without a warning (warnings are errors here)."""
    inputs = np.arange(28.0).reshape(1, 7, 4)
    kernel = np.random.default_rng(1).uniform(-0.56, 0.56, (7, 12))
    kernel[:4, 9:] = [[-0.3, -0.1, -0.4]] * 4  # an output gate that closes as the inputs grow
    for dtype in (np.float32, np.float64):
        params = {"lstm_cell": {"kernel": kernel.astype(dtype), "bias": np.zeros(12, dtype)}}
        outputs = np.abs(RNN(LSTMCell(3), backprop="readable")(params, inputs)[0])
        assert (np.diff(outputs, axis=0) < 0).all()
        assert np.isfinite(outputs).all()
        assert outputs[-1].min() < np.abs(COUNTING_LAST).min() * 10
        assert outputs[-1].min() > 0
        fast = np.abs(RNN(LSTMCell(3))(params, inputs)[0])  # may round a closed gate to 0, and no further
        np.testing.assert_allclose(fast, outputs, rtol=0, atol=4 * np.finfo(dtype).eps)
