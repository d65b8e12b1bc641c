"""A plain RNN, a GRU and an LSTM with coupled gates against their formulas, written out a second time."""

import json

import numpy as np
import pytest
from helpers import assert_close, assert_trees_close, assert_trees_equal
from hypothesis import given
from test_wrappers import BACKPROPS, nested_gradients, nested_networks, slope

from minilstm import (
    RNN,
    BasicRNNCell,
    CoupledLSTMCell,
    Dense,
    GRUCell,
    LSTMState,
    Sequential,
    from_config,
    gradcheck,
    load_checkpoint,
    save_checkpoint,
)
from minilstm.params import tree_map

ACTIVATIONS = {
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "softsign": lambda x: x / (1 + abs(x)),
    "linear": lambda x: x,
}
logistic = ACTIVATIONS["sigmoid"]
BATCH, TIME, INPUT_DIM, UNITS = 3, 5, 2, 4


def network(cell, seed=0):
    """(weights that differ everywhere, inputs, a state) in float64."""
    rng = np.random.default_rng(seed)
    params = tree_map(lambda w: rng.normal(0, 0.7, w.shape), cell.init(0, INPUT_DIM, np.float64))
    state = tree_map(lambda s: rng.normal(size=s.shape), cell.zero_state(BATCH, np.float64))
    return params, rng.normal(size=(BATCH, TIME, INPUT_DIM)), state


def blocks(x, h, kernel, bias):
    """x @ (input rows) + h @ (recurrent rows) + bias, in blocks of `UNITS` columns."""
    z = x @ kernel[:INPUT_DIM] + h @ kernel[INPUT_DIM:] + bias
    return [z[:, k : k + UNITS] for k in range(0, z.shape[1], UNITS)]


def check(cell, step):
    """Every path gives what `step(params, x, state) -> (output, state)` gives, step after step."""
    params, inputs, first = network(cell)
    state, outputs = first, []
    for t in range(TIME):
        output, state = step(params, inputs[:, t], state)
        outputs.append(output)
    for backprop in BACKPROPS:
        found = RNN(cell, backprop=backprop).apply({cell.name: params}, inputs, first)
        assert_trees_close(found, (np.stack(outputs, axis=1), state), 1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_plain_rnn_is_its_formula(activation):
    def step(params, x, h):
        (z,) = blocks(x, h, params["kernel"], params["bias"])
        h = ACTIVATIONS[activation](z)
        return h, h

    check(BasicRNNCell(UNITS, activation=activation), step)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_gru_is_its_formula(activation):
    """The reset gate is applied before the product with the recurrent rows, and comes first in gates/kernel."""

    def step(params, x, h):
        r, u = map(logistic, blocks(x, h, **params["gates"]))
        (z,) = blocks(x, r * h, **params["candidate"])
        h = u * h + (1 - u) * ACTIVATIONS[activation](z)
        return h, h

    check(GRUCell(UNITS, activation=activation), step)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_gru_with_reset_after_is_its_formula(activation):
    """The reset gate is applied after the product with the recurrent matrix, which has a bias of its own."""

    def step(params, x, h):
        a, b = x @ params["kernel"] + params["bias"], h @ params["recurrent_kernel"] + params["recurrent_bias"]
        (a_r, a_u, a_k), (b_r, b_u, b_k) = (np.split(z, 3, axis=1) for z in (a, b))
        r, u = logistic(a_r + b_r), logistic(a_u + b_u)
        h = u * h + (1 - u) * ACTIVATIONS[activation](a_k + r * b_k)
        return h, h

    check(GRUCell(UNITS, activation=activation, reset_after=True), step)


@pytest.mark.parametrize("forget_bias", [-1.3, 0.37, 2.0])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_coupled_lstm_is_its_formula(activation, forget_bias):
    phi = ACTIVATIONS[activation]

    def step(params, x, state):
        j, f, o = blocks(x, state.h, params["kernel"], params["bias"])
        f = logistic(f + forget_bias)
        c = f * state.c + (1 - f) * phi(j)
        h = logistic(o) * phi(c)
        return h, LSTMState(c, h)

    check(CoupledLSTMCell(UNITS, activation=activation, forget_bias=forget_bias), step)


CELLS = [
    BasicRNNCell(3, activation="softsign"),
    GRUCell(3),
    GRUCell(2, activation="sigmoid"),
    GRUCell(3, reset_after=True),
    GRUCell(2, activation="softsign", reset_after=True),
    CoupledLSTMCell(3, forget_bias=-0.6),
]


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_gradcheck_agrees(cell):
    for lengths in (None, [4, 0, 2]):
        report = gradcheck.report(Sequential(RNN(cell), Dense(1)), time=4, sequence_length=lengths, entries=6)
        assert report.agrees, str(report)
        assert all(row.largest > 1e-3 for row in report.rows)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_every_path_has_the_gradient_that_the_slope_shows(cell):
    @given(nested_networks(cell=cell))
    def on_any_network(network):
        results = [nested_gradients(network, backprop) for backprop in BACKPROPS]
        assert_trees_close(results[0], results[2], 1e-12)
        assert_trees_close(results[1], results[2], 1e-12)
        told, numeric = slope(network, results[0][1])
        assert_close(told, numeric, 1e-7)

    on_any_network()


def test_biases_start_as_tensorflows_do():
    """A GRU that begins by keeping what it has: its gates' bias is 1."""
    gru = GRUCell(3).init(0, 2)
    assert_trees_equal(gru["gates"]["bias"], np.ones(6, np.float32))
    assert_trees_equal(gru["candidate"]["bias"], np.zeros(3, np.float32))
    for cell in (BasicRNNCell(3), CoupledLSTMCell(3)):
        assert not cell.init(0, 2)["bias"].any()
    assert CoupledLSTMCell(3).forget_bias == 1


def test_a_bias_initializer_is_for_all_biases_of_a_gru_as_in_tensorflow():
    cell = GRUCell(3, bias_initializer={"name": "constant", "value": 0.25})
    for again in (cell, from_config(Sequential(RNN(cell)).config()).layers[0].cell):
        params = again.init(0, 2)
        assert_trees_equal(params["gates"]["bias"], np.full(6, 0.25, np.float32))
        assert_trees_equal(params["candidate"]["bias"], np.full(3, 0.25, np.float32))
    plain = from_config(Sequential(RNN(GRUCell(3))).config()).layers[0].cell.init(0, 2)
    assert (plain["gates"]["bias"] == 1).all()
    assert not plain["candidate"]["bias"].any()


def test_weights_have_tensorflows_shapes_and_dtype():
    for dtype in (np.float32, np.float64):
        gru = GRUCell(3).init(0, 2, dtype)
        assert {k: {n: w.shape for n, w in v.items()} for k, v in gru.items()} == {
            "gates": {"kernel": (5, 6), "bias": (6,)}, "candidate": {"kernel": (5, 3), "bias": (3,)},
        }  # fmt: skip
        assert {k: w.shape for k, w in BasicRNNCell(3).init(0, 2, dtype).items()} == {"kernel": (5, 3), "bias": (3,)}
        assert {k: w.shape for k, w in CoupledLSTMCell(3).init(0, 2, dtype).items()} == {"kernel": (5, 9), "bias": (9,)}
        assert gru["gates"]["bias"].dtype == gru["candidate"]["kernel"].dtype == dtype
    assert np.abs(gru["gates"]["kernel"][:, :3] - gru["candidate"]["kernel"]).max() > 0.1
    assert (GRUCell(3).state_size, BasicRNNCell(3).state_size) == (3, 3)
    assert CoupledLSTMCell(3).state_size == LSTMState(3, 3)


def test_a_gru_with_reset_after_has_two_biases_and_starts_like_the_other():
    gru = GRUCell(3, reset_after=True).init(0, 2, np.float64)
    shapes = {"kernel": (2, 9), "recurrent_kernel": (3, 9), "bias": (9,), "recurrent_bias": (9,)}
    assert {name: w.shape for name, w in gru.items()} == shapes
    assert {w.dtype for w in gru.values()} == {np.dtype(np.float64)}
    assert gru["bias"].tolist() == [1] * 6 + [0] * 3
    assert not gru["recurrent_bias"].any()
    given_one = GRUCell(3, reset_after=True, bias_initializer={"name": "constant", "value": 0.25}).init(0, 2)
    assert (np.concatenate([given_one["bias"], given_one["recurrent_bias"]]) == 0.25).all()


def test_the_description_of_a_gru_without_reset_after_is_what_it_was():
    """So a file of such a model keeps its bytes, and older versions read it."""
    assert json.dumps(GRUCell(3).config()) == (
        '{"cell": "GRUCell", "units": 3, "activation": "tanh", "initializer": "glorot_uniform", '
        '"bias_initializer": null, "name": "gru_cell"}'
    )
    assert GRUCell(3, reset_after=True).config() == {**GRUCell(3).config(), "reset_after": True}
    assert repr(GRUCell(3, reset_after=True)) == "GRUCell(3, reset_after=True)"


def test_a_checkpoint_tells_one_gru_from_the_other(tmp_path):
    models = [Sequential(RNN(GRUCell(3, reset_after=after)), Dense(1)) for after in (False, True)]
    inputs = np.random.default_rng(0).normal(size=(2, 4, 2)).astype(np.float32)
    for model, other in (models, models[::-1]):
        params = tree_map(lambda w: w + np.float32(0.1), model.init(0, 2))
        prefix = save_checkpoint(tmp_path / "model.ckpt", params, model=model)
        found = load_checkpoint(prefix)
        assert found.model.config() == model.config()
        assert_trees_equal(found.params, params)
        assert_trees_equal(found.model(found.params, inputs), model(params, inputs))
        assert_trees_equal(load_checkpoint(prefix, like=model).params, params)
        with pytest.raises(ValueError, match=r"missing: rnn/gru_cell/[\s\S]*layers\[0\].cell.reset_after: wanted"):
            load_checkpoint(prefix, like=other)


@pytest.mark.parametrize("cell", CELLS, ids=repr)
def test_a_variant_comes_back_from_its_description(cell):
    model = Sequential(RNN(cell))
    again = from_config(model.config())
    assert again.config() == model.config()
    params, inputs, _ = network(cell)
    assert_trees_equal(again({"rnn": {cell.name: params}}, inputs), model({"rnn": {cell.name: params}}, inputs))


@pytest.mark.parametrize("cell", [BasicRNNCell, GRUCell, CoupledLSTMCell])
def test_bad_options_are_refused_by_name(cell):
    name = cell.__name__
    with pytest.raises(ValueError, match=f"{name}: units must be a positive whole number, got 0"):
        cell(0)
    with pytest.raises(ValueError, match=f"{name}: activation must be .* got 'Tanh'"):
        cell(3, activation="Tanh")
    with pytest.raises(ValueError, match=f"{name}.init: input_dim must be a positive whole number, got None"):
        cell(3).init(0)


def test_a_forget_bias_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="CoupledLSTMCell: forget_bias must be a finite number, got nan"):
        CoupledLSTMCell(3, forget_bias=float("nan"))
