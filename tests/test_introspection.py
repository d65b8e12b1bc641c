"""gate_activations and gradient_flow: the numbers inside are the ones that make the outputs and the gradients."""

import numpy as np
import pytest
from helpers import RandomLoss, assert_close
from hypothesis import given
from strategies import networks

import minilstm
from minilstm import LSTM, RNN, Dense, GRUCell, LSTMState, Sequential, gate_activations, gradient_flow, value_and_grad
from minilstm.params import tree_map


@given(networks(lengths=False))
def test_gate_activations_shows_the_gates_that_make_the_states(network):
    layer, params = RNN(network.cell), {network.cell.name: network.params}
    seen = gate_activations(layer, params, network.inputs, network.state)
    outputs, state = layer.apply(params, network.inputs, network.state)
    assert_close(seen["h"], outputs, 1e-13, "h")
    assert_close(seen["c"][:, -1], state.c, 1e-13, "c")
    before = np.concatenate([network.state.c[:, None], seen["c"][:, :-1]], axis=1)
    bound = network.options.get("cell_clip") or np.inf
    assert_close(seen["c"], np.clip(seen["f"] * before + seen["i"] * seen["j"], -bound, bound), 1e-15, "c")


def test_gate_activations_takes_the_first_layer_of_a_model_and_hides_what_is_past_the_end():
    model = Sequential(LSTM(3), Dense(1))
    params, inputs = model.init(0, 2), np.ones((2, 4, 2), np.float32)
    seen = gate_activations(model, params, inputs, sequence_length=[4, 2])
    for name, values in seen.items():
        assert values.shape == (2, 4, 3), name
        assert np.isfinite(values[0]).all(), name
        assert np.isnan(values[1, 2:]).all(), name
        assert_close(values[1, :2], gate_activations(model.layers[0], params["rnn"], inputs)[name][1, :2], 1e-7, name)


def test_gradient_flow_is_the_derivative_with_respect_to_the_states():
    rng = np.random.default_rng(0)
    layer = LSTM(3, use_peepholes=True, num_proj=2)
    params = tree_map(lambda w: rng.normal(0, 0.5, w.shape), layer.init(0, 2, np.float64))
    inputs, loss = rng.normal(size=(2, 5, 2)), RandomLoss(0)
    outputs, state = layer.apply(params, inputs)
    _, d = value_and_grad(lambda results: loss(results))([outputs, state])
    flow = gradient_flow(layer, params, inputs, d[0], d[1])
    for t in range(1, 5):  # the state after step t, as the initial state of the rest
        before = LSTMState(*(a for a in layer.apply(params, inputs[:, :t])[1]))

        def rest(before, t=t):
            later, last = layer.apply(params, inputs[:, t:], before)
            return sum(a for a in [(later * d[0][:, t:]).sum(), (last.c * d[1].c).sum(), (last.h * d[1].h).sum()])

        _, wanted = value_and_grad(rest)(before)
        # d_outputs at t - 1 itself acts through h alone, which carries it into c as well
        assert_close(flow["dh"][:, t - 1], wanted.h + d[0][:, t - 1], 1e-12, f"dh after step {t - 1}")
    assert np.abs(flow["dc"]).max() > 1e-2


def test_gradient_flow_of_the_gates_adds_up_to_the_bias_gradient():
    rng = np.random.default_rng(1)
    layer = LSTM(3)
    params, inputs = layer.init(0, 2, np.float64), rng.normal(size=(4, 5, 2))
    d_outputs = rng.normal(size=(4, 5, 3))
    flow = gradient_flow(layer, params, inputs, d_outputs, sequence_length=[5, 2, 0, 4])
    _, grads = value_and_grad(lambda p: (layer(p, inputs, sequence_length=[5, 2, 0, 4]) * d_outputs).sum())(params)
    bias = np.concatenate([flow[f"dz_{gate}"].sum(axis=(0, 1)) for gate in "ijfo"])
    assert_close(bias, grads["lstm_cell"]["bias"], 1e-13, "bias")


def test_what_cannot_be_looked_into_is_refused():
    layer = RNN(GRUCell(3))
    with pytest.raises(ValueError, match=r"gate_activations: layer must be an LSTMCell .*got RNN"):
        gate_activations(layer, layer.init(0, 2), np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match=r"gradient_flow: layer must be an LSTMCell .*got RNN"):
        gradient_flow(layer, layer.init(0, 2), np.ones((1, 2, 2)), np.ones((1, 2, 3)))
    layer = LSTM(3)
    with pytest.raises(ValueError, match=r"d_outputs must have shape \(1, 2, 3\), got \(1, 2\)"):
        gradient_flow(layer, layer.init(0, 2), np.ones((1, 2, 2), np.float32), np.ones((1, 2)))


@pytest.mark.parametrize("look", [gate_activations, lambda *args: gradient_flow(*args, np.ones((1, 2, 3)))])
def test_weights_that_numpy_would_broadcast_are_refused(look):
    layer, inputs = LSTM(3), np.ones((1, 2, 2), np.float32)
    params = layer.init(0, 2)
    for name, weight in params["lstm_cell"].items():
        changed = {"lstm_cell": {**params["lstm_cell"], name: weight[..., :1]}}
        with pytest.raises(ValueError, match=rf"(gate_activations|gradient_flow): params: {name} must have shape"):
            look(layer, changed, inputs)
        with pytest.raises(ValueError, match=rf"(gate_activations|gradient_flow): params: {name} must have shape"):
            look(layer.cell, changed["lstm_cell"], inputs)
        del changed["lstm_cell"][name]
        with pytest.raises(ValueError, match=rf"(gate_activations|gradient_flow): params: {name} is missing"):
            look(layer, changed, inputs)


def test_a_layer_is_looked_into_as_it_runs():
    """From its learned initial state, and with the time first if it is time_major."""
    rng = np.random.default_rng(0)
    layer, inputs, d_outputs = LSTM(3, learn_initial_state=True), rng.normal(size=(2, 4, 2)), rng.normal(size=(2, 4, 3))
    params = tree_map(lambda w: rng.normal(size=w.shape), layer.init(0, 2, np.float64))
    lengths = [4, 3]
    gates = gate_activations(layer, params, inputs, sequence_length=lengths)
    outputs = layer(params, inputs, sequence_length=lengths)
    assert_close(np.nan_to_num(gates["h"]), outputs, 1e-14)
    flow = gradient_flow(layer, params, inputs, d_outputs, sequence_length=lengths)
    first = LSTM(3, learn_initial_state=True, time_major=True)
    in_order = [inputs.swapaxes(0, 1), d_outputs.swapaxes(0, 1)]
    for name, values in gate_activations(first, params, in_order[0], sequence_length=lengths).items():
        np.testing.assert_array_equal(values, gates[name].swapaxes(0, 1))
    for name, values in gradient_flow(first, params, *in_order, sequence_length=lengths).items():
        np.testing.assert_array_equal(values, flow[name].swapaxes(0, 1))
    with pytest.raises(ValueError, match=r"gate_activations: inputs must be \[time, batch, features\]"):
        gate_activations(first, params, inputs[0])


def test_the_old_names_are_there_for_one_release():
    layer = LSTM(3)
    params, inputs = layer.init(0, 2), np.ones((2, 4, 2), np.float32)
    assert minilstm.trace is gate_activations
    flow = gradient_flow(layer, params, inputs, np.ones((2, 4, 3), np.float32))
    assert list(flow) == ["dc", "dh", "dz_i", "di", "dz_j", "dj", "dz_f", "df", "dz_o", "do"]
    assert all(np.array_equal(flow[f"d{gate}"], flow[f"dz_{gate}"]) for gate in "ijfo")


def test_whole_numbers_and_lists_are_inputs_too():
    layer = LSTM(3)
    params, inputs = layer.init(0, 2), np.arange(16).reshape(2, 4, 2)
    d_outputs = np.ones((2, 4, 3), np.float32)
    wanted = gradient_flow(layer, params, inputs.astype(np.float32), d_outputs)
    assert np.abs(wanted["dh"]).max() > 0.1
    for form in (inputs, inputs.tolist()):
        for name, values in gradient_flow(layer, params, form, d_outputs).items():
            assert_close(values, wanted[name], 1e-7, name)
        assert_close(gate_activations(layer, params, form)["h"], layer(params, inputs.astype(np.float32)), 1e-6)


def test_a_layer_that_runs_backwards_is_refused():
    layer = LSTM(3, reverse=True)
    with pytest.raises(ValueError, match="gate_activations: the layer has reverse=True"):
        gate_activations(layer, layer.init(0, 2), np.ones((2, 4, 2)))
