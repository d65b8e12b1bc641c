"""The hand-derived pass against real TensorFlow's numbers, autograd's trace and central differences."""

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import (
    RandomLoss,
    assert_close,
    assert_trees_close,
    assert_trees_equal,
    cell_cases,
    golden,
    golden_layer,
    golden_state,
    golden_tolerance,
    golden_variables,
    largest,
    layer_gradients,
    named_leaves,
    plain_cell_cases,
)
from hypothesis import assume, given
from strategies import networks

from minilstm import LSTM, RNN, LSTMCell, LSTMState, bptt, value_and_grad
from minilstm.params import tree_leaves, tree_map

BACKPROPS = ("fast", "readable", "autograd")


def run_golden(name, backprop):
    """What a golden case records: loss, outputs, final state and gradients, computed here."""
    case, arrays, layer, tree, cotangents = golden_layer(name, backprop)

    def loss(tree):
        results = layer.apply(
            tree["params"], tree["inputs"], state=tree["state"], sequence_length=arrays.get("sequence_length")
        )
        parts = zip(tree_leaves(results), cotangents, strict=True)
        return sum(0.5 * anp.sum(a * cotangent) for a, cotangent in parts), results

    return case, arrays, value_and_grad(loss, has_aux=True)(tree)


@pytest.mark.parametrize("backprop", BACKPROPS)
@pytest.mark.parametrize("name", cell_cases())
def test_outputs_states_and_every_gradient_are_tensorflows(name, backprop):
    case, arrays, ((loss, (outputs, state)), grads) = run_golden(name, backprop)
    tolerance = golden_tolerance(name, case)
    assert_close(loss, arrays["loss"], tolerance, "loss")
    assert_close(outputs, arrays["out"], tolerance, "outputs")
    assert_trees_close(state, golden_state(arrays, "final/"), tolerance)
    assert_trees_close(grads["params"], golden_variables(arrays, "grad/var/")["rnn"], tolerance)
    assert_close(grads["inputs"], arrays["grad/inputs"], tolerance, "inputs")
    initial = golden_state(arrays, "grad/init/")
    if initial is not None:
        assert_trees_close(grads["state"], initial, tolerance)
    assert {leaf.dtype for leaf in tree_leaves([outputs, state, grads])} == {np.dtype(case["dtype"])}


def test_the_golden_cases_cover_every_option_of_a_cell():
    options = {key for name in plain_cell_cases() for key in golden(name)[0]["cell"]}
    assert options >= {"use_peepholes", "num_proj", "cell_clip", "proj_clip", "activation", "forget_bias"}
    assert len(plain_cell_cases()) >= 25
    assert {golden(name)[0]["cell"]["class"] for name in cell_cases()} >= {"MultiRNNCell", "ResidualWrapper"}
    for names in (plain_cell_cases(), set(cell_cases()) - set(plain_cell_cases())):
        assert any("sequence_length" in golden(name)[1] for name in names)
    without = [name for name in cell_cases() if golden_state(golden(name)[1], "grad/init/") is None]
    assert all(name.startswith("b_stackoverflow") for name in without)  # it starts from zeros that are no tensors


def gradients(network, backprop, **options):
    layer = RNN(network.cell, backprop=backprop)
    return layer_gradients(
        layer, {network.cell.name: network.params}, network.inputs, network.state, network.seed,
        sequence_length=network.lengths, **options,
    )  # fmt: skip


@pytest.mark.parametrize("backprop", ["fast", "readable"])
@given(network=networks())
def test_the_derived_gradients_equal_the_trace(backprop, network):
    (loss, values), derived = gradients(network, backprop)
    (traced_loss, traced_values), traced = gradients(network, "autograd")
    assume(largest(traced["params"]) > 1e-4)  # there is something to disagree about
    assert_close(loss, traced_loss, 1e-10, "loss")
    assert_trees_close(values, traced_values, 1e-10)
    assert_trees_close(derived, traced, 1e-10)


@pytest.mark.parametrize("backprop", BACKPROPS)
@given(network=networks(smooth=True))
def test_the_gradients_equal_central_differences(backprop, network):
    layer, loss = RNN(network.cell), RandomLoss(network.seed)
    tree = {"params": {network.cell.name: network.params}, "inputs": network.inputs, "state": network.state}
    _, grads = gradients(network, backprop)
    rng = np.random.default_rng(network.seed)
    derived = dict(named_leaves(grads))
    for name, leaf in named_leaves(tree):
        places = [np.unravel_index(k, leaf.shape) for k in rng.permutation(leaf.size)[:6]]
        numeric = []
        for place in places:
            kept, values = leaf[place], []
            for step in (1e-5, -1e-5):
                leaf[place] = kept + step
                options = {"state": tree["state"], "sequence_length": network.lengths}
                values.append(loss(list(layer.apply(tree["params"], tree["inputs"], **options))))
            leaf[place] = kept
            numeric.append((values[0] - values[1]) / 2e-5)
        assert_close([derived[name][place] for place in places], numeric, 1e-6, name)


@pytest.mark.parametrize("backprop", BACKPROPS)
def test_every_gradient_of_a_full_cell_is_far_from_zero(backprop):
    rng = np.random.default_rng(3)
    layer = LSTM(4, use_peepholes=True, num_proj=3, cell_clip=3.0, proj_clip=2.0, backprop=backprop)
    params = tree_map(lambda w: rng.normal(0, 0.5, w.shape), layer.init(0, 2, np.float64))
    state = LSTMState(rng.normal(size=(3, 4)), rng.normal(size=(3, 3)))
    _, grads = layer_gradients(layer, params, rng.normal(size=(3, 5, 2)), state)
    for name, grad in named_leaves(grads):
        assert np.max(np.abs(grad)) > 1e-3, name


# --- sequence_length ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filler", [1e3, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("backprop", BACKPROPS)
@given(network=networks())
def test_inputs_past_the_end_change_no_bit_of_anything(backprop, filler, network):
    assume(network.lengths is not None and (network.lengths < network.inputs.shape[1]).any())
    clean = gradients(network, backprop)
    dirty = network.inputs.copy()
    for row, length in enumerate(network.lengths):
        dirty[row, length:] = filler
    assert_trees_equal(gradients(network._replace(inputs=dirty), backprop), clean)


@given(networks())
def test_past_the_end_outputs_are_zero_and_the_state_is_that_of_the_last_valid_step(network):
    assume(network.lengths is not None)
    layer, params = RNN(network.cell), {network.cell.name: network.params}
    outputs, state = layer.apply(params, network.inputs, network.state, network.lengths)
    for row, length in enumerate(network.lengths):
        assert not outputs[row, length:].any()
        one = LSTMState(network.state.c[row : row + 1], network.state.h[row : row + 1])
        if length:
            alone, one = layer.apply(params, network.inputs[row : row + 1, :length], one)
            assert_close(outputs[row, :length], alone[0], 1e-14, "outputs")
        assert_trees_close(LSTMState(state.c[row : row + 1], state.h[row : row + 1]), one, 1e-14)


def test_full_lengths_are_the_same_as_no_lengths():
    layer = LSTM(3)
    params, inputs = layer.init(0, 2, np.float64), np.random.default_rng(0).normal(size=(4, 5, 2))
    full = layer_gradients(layer, params, inputs, sequence_length=[5, 5, 5, 5])
    assert_trees_close(full, layer_gradients(layer, params, inputs), 1e-14)


# --- one pass, one derivative, one dtype ----------------------------------------------------------------------


def test_the_trace_has_second_derivatives():
    layer = LSTM(2, backprop="autograd")
    params = tree_map(lambda w: w + 0.3, layer.init(0, 1, np.float64))
    inputs = np.random.default_rng(0).normal(size=(2, 3, 1))
    loss = lambda p: anp.sum(layer(p, inputs) ** 2)  # noqa: E731

    def gradient_norm(p):
        return sum(anp.sum(g**2) for g in tree_leaves(value_and_grad(loss)(p)[1]))

    _, second = value_and_grad(gradient_norm)(params)
    kernel = params["lstm_cell"]["kernel"]
    for place in [(0, 0), (1, 3), (2, 5)]:
        values = []
        for step in (1e-5, -1e-5):
            moved = kernel.copy()
            moved[place] += step
            values.append(gradient_norm({"lstm_cell": {**params["lstm_cell"], "kernel": moved}}))
        assert abs(second["lstm_cell"]["kernel"][place] - (values[0] - values[1]) / 2e-5) < 1e-7
    assert largest(second) > 1e-2


def test_one_sweep_serves_all_gradients(monkeypatch):
    sweeps = []
    original = bptt.lstm_backward
    monkeypatch.setattr(bptt, "lstm_backward", lambda *a, **k: sweeps.append(1) or original(*a, **k))
    layer = LSTM(3, use_peepholes=True, num_proj=2, backprop="readable")
    layer_gradients(layer, layer.init(0, 2), np.ones((2, 4, 2), np.float32), LSTMCell(3, num_proj=2).zero_state(2))
    assert len(sweeps) == 1


@pytest.mark.parametrize("backprop", BACKPROPS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(network=networks())
def test_outputs_states_and_gradients_keep_the_dtype_and_are_contiguous(backprop, dtype, network):
    (_, values), grads = gradients(network.astype(dtype), backprop)
    for name, leaf in named_leaves({"values": values, "grads": grads}):
        assert leaf.dtype == dtype, name
        assert leaf.flags.c_contiguous, name


@given(networks())
def test_float32_gradients_are_close_to_float64(network):
    assume(network.options["activation"] != "relu" and not network.options.get("cell_clip"))  # kinks may switch sides
    assume(not network.options.get("proj_clip"))
    _, exact = gradients(network, "fast")
    _, rounded = gradients(network.astype(np.float32), "fast")
    assert_trees_close(rounded, exact, 1e-4)
