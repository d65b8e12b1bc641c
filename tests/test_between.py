"""What the layers of a model hand one another: arrays that lie as they were made, and never anybody outside."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.test_util import check_grads
from autograd.tracer import getval
from helpers import RandomLoss, assert_close, assert_trees_close, assert_trees_equal, largest, named_leaves
from hypothesis import given
from hypothesis import strategies as st

from minilstm import LSTM, RNN, Dense, Dropout, LSTMCell, MultiRNNCell, Sequential, from_config, value_and_grad
from minilstm.fast import lstm as fast_lstm
from minilstm.fast.memory import features_first
from minilstm.fast.workspace import FOLD_INPUTS
from minilstm.layers import feedforward
from minilstm.layers.feedforward import FEW_OUTPUTS
from minilstm.params import tree_map

DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])
LARGE_KERNELS = pytest.mark.parametrize("large", [False, True])


def lies_features_first(array):
    """A copy of `array` ``[batch, time, features]`` that does."""
    copy = np.ascontiguousarray(array.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert features_first(copy)
    return copy


@pytest.fixture
def received(monkeypatch):
    """Whether the inputs of every layer lay features first, in the order in which layers were called."""
    found = []

    def watched(original):
        def seen(self, params, inputs, *rest, **options):
            found.append(features_first(getval(inputs)))
            return original(self, params, inputs, *rest, **options)

        return seen

    for layer, name in ((RNN, "_apply"), (Dense, "apply"), (Dropout, "apply")):
        monkeypatch.setattr(layer, name, watched(getattr(layer, name)))
    return found


def test_what_lies_features_first():
    made = np.zeros((5, 4, 3))  # [time, features, batch]
    assert features_first(made.transpose(2, 0, 1))
    assert not features_first(made)
    assert not features_first(made.transpose(0, 2, 1))
    assert not features_first(made.transpose(2, 0, 1)[:, ::2])
    assert not features_first(np.zeros((3, 5)).T)
    assert not features_first(np.zeros((5, 4, 1)).transpose(2, 0, 1))  # of one sequence it is the usual order too


class OwnDense(Dense):
    """A layer of somebody's own that does nothing else."""

    def apply(self, *args, **kwargs):
        return super().apply(*args, **kwargs)


class Doubled(LSTM):
    """A layer of somebody's own."""

    def apply(self, *args, **kwargs):
        outputs, state = super().apply(*args, **kwargs)
        return 2 * outputs, state


def stack(*peepholes):
    return RNN(MultiRNNCell([LSTMCell(3, use_peepholes=use) for use in peepholes or (False, False)]))


MODELS = {
    "LSTM, Dense": (lambda: (LSTM(4), Dense(2)), [False, True]),
    "LSTM, LSTM, Dense": (lambda: (LSTM(4), LSTM(3), Dense(2)), [False, True, True]),
    "LSTM, LSTM": (lambda: (LSTM(4), LSTM(3)), [False, True]),
    "many outputs": (lambda: (LSTM(4), Dense(FEW_OUTPUTS + 1)), [False, False]),
    "dropout": (lambda: (LSTM(4), Dropout(0.5), Dense(2)), [False, False, False]),
    "peepholes": (lambda: (LSTM(4), LSTM(3, use_peepholes=True), Dense(2)), [False, False, False]),
    "from peepholes": (lambda: (LSTM(4, use_peepholes=True), Dense(2)), [False, False]),
    "reference": (lambda: (LSTM(4, backprop="reference"), Dense(2)), [False, False]),
    "trace": (lambda: (LSTM(4, backprop="autograd"), Dense(2)), [False, False]),
    "reversed": (lambda: (LSTM(4, reverse=True), Dense(2)), [False, False]),
    "into a reversed one": (lambda: (LSTM(4), LSTM(3, reverse=True), Dense(2)), [False, False, False]),
    "last step": (lambda: (LSTM(4), LSTM(3, return_sequences=False), Dense(2)), [False, True, False]),
    "into a Dense of one's own": (lambda: (LSTM(4), OwnDense(2)), [False, False]),
    "into an LSTM of one's own": (lambda: (LSTM(4), Doubled(4)), [False, False]),
    "several cells": (lambda: (LSTM(4), stack(), Dense(2)), [False, True, True]),
    "peepholes below": (lambda: (LSTM(4), stack(True, False), Dense(2)), [False, False, True]),
    "peepholes above": (lambda: (LSTM(4), stack(False, True), Dense(2)), [False, True, False]),
}  # fmt: skip
INPUTS = np.random.default_rng(0).normal(size=(3, 5, 2))


@pytest.fixture
def plain_numpy(monkeypatch):
    monkeypatch.setenv("MINILSTM_COMPILED", "0")  # numba may be installed, and its pass leaves sequences as pieces


@pytest.mark.usefixtures("plain_numpy")
@pytest.mark.parametrize("name", MODELS)
def test_layers_that_can_read_it_get_what_lies_features_first(name, received):
    layers, wanted = MODELS[name]
    model = Sequential(*layers())
    params = model.init(0, 2, np.float64)
    outputs, state = model.apply(params, INPUTS)
    assert received == wanted
    for part, leaf in named_leaves({"outputs": outputs, "state": state}):
        assert leaf.flags.c_contiguous, part


@pytest.mark.usefixtures("plain_numpy")
def test_a_layer_with_an_apply_of_its_own_is_asked_for_that(received):
    model, plain = Sequential(Doubled(4), Dense(2)), Sequential(LSTM(4), Dense(2))
    params = model.init(0, 2, np.float64)
    outputs = model(params, INPUTS)
    assert received == [False, False]
    halved = {"rnn": params["rnn"], "dense": {**params["dense"], "kernel": 2 * params["dense"]["kernel"]}}
    assert_close(outputs, plain(halved, INPUTS), 1e-14)


@pytest.mark.usefixtures("plain_numpy")
def test_sequences_of_different_lengths_are_handed_on_as_ever(received):
    model = Sequential(LSTM(4), Dense(2))
    model.apply(model.init(0, 2, np.float64), INPUTS, sequence_length=np.array([5, 2, 3]))
    assert received == [False, False]


def model_gradients(model, params, inputs, seed):
    """(outputs and final state, derivatives with respect to parameters, inputs and the state before)."""
    dtype = inputs.dtype
    rng = np.random.default_rng(seed)
    zeros = model.initial_state(params, len(inputs))
    start = tree_map(lambda part: rng.normal(0, 0.5, part.shape).astype(dtype), zeros)

    def loss(tree):
        outputs, state = model.apply(tree["params"], tree["inputs"], state=tree["state"])
        return RandomLoss(seed)((outputs, state)), (outputs, state)

    (_, values), grads = value_and_grad(loss, has_aux=True)({"params": params, "inputs": inputs, "state": start})
    return values, grads


@pytest.mark.usefixtures("plain_numpy")
@LARGE_KERNELS
@given(
    sizes=st.tuples(
        st.integers(1, 4), st.integers(1, 6), st.sampled_from([1, 3, FOLD_INPUTS + 1]), st.integers(1, 5),
        st.integers(1, 3),
    ),
    layers=st.integers(1, 3),
    seed=st.integers(0, 999),
    dtype=st.sampled_from([np.float64, np.float32]),
)  # fmt: skip
def test_a_model_equals_the_same_of_reference_layers(large, sizes, layers, seed, dtype):
    """Small kernels and large ones in turn, where `large`: what lies one way meets a pass that likes the other."""
    batch, time, input_dim, units, outputs = sizes
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(batch, time, input_dim)).astype(dtype)
    fast, reference = (
        Sequential(*(LSTM(units + n, backprop=backprop) for n in range(layers)), Dense(outputs))
        for backprop in ("bptt", "reference")
    )
    params = fast.init(seed, input_dim, dtype)
    with pytest.MonkeyPatch.context() as patch:
        if large:
            largest_small = 4 * (units + 1) * (input_dim + 2 * units + 1) * inputs.itemsize
            patch.setattr(fast_lstm, "LARGE", largest_small // 2)
        found, wanted = (model_gradients(model, params, inputs, seed) for model in (fast, reference))
    assert_trees_close(found, wanted, 1e-11 if dtype == np.float64 else 2e-5)
    assert largest(wanted[1]) > 1e-3
    for name, leaf in named_leaves(found):
        assert leaf.dtype == dtype, name
        assert leaf.flags.c_contiguous, name


@pytest.mark.usefixtures("plain_numpy")
@DTYPES
def test_a_wide_layer_below_another_gets_its_derivatives_back(dtype):
    """Inputs of the second layer that are not folded into its loop."""
    fast, reference = (
        Sequential(LSTM(FOLD_INPUTS + 2, backprop=b), LSTM(3, backprop=b), Dense(1)) for b in ("bptt", "reference")
    )
    params = fast.init(0, 2, dtype)
    found, wanted = (model_gradients(model, params, INPUTS.astype(dtype), 1) for model in (fast, reference))
    assert_trees_close(found, wanted, 1e-12 if dtype == np.float64 else 1e-5)


@pytest.mark.usefixtures("plain_numpy")
def test_cells_of_one_layer_hand_on_what_they_made(monkeypatch):
    seen, original = [], fast_lstm.lstm_sequence

    def spy(inputs, *rest, **options):
        seen.append((features_first(getval(inputs).transpose(1, 0, 2)), options["as_made"]))
        return original(inputs, *rest, **options)

    monkeypatch.setattr(fast_lstm, "lstm_sequence", spy)
    cells = lambda: [LSTMCell(4), LSTMCell(3, name="b"), LSTMCell(3, use_peepholes=True, name="c")]  # noqa: E731
    fast, reference = (Sequential(RNN(MultiRNNCell(cells()), backprop=b), Dense(2)) for b in ("bptt", "reference"))
    params = fast.init(0, 2, np.float64)
    found, wanted = (model_gradients(model, params, INPUTS, 2) for model in (fast, reference))
    assert_trees_close(found, wanted, 1e-12)
    assert seen == [(False, True), (True, False)]


@pytest.mark.usefixtures("plain_numpy")
def test_cells_on_one_another_and_layers_on_one_another_give_the_same_bits():
    cells, layers = Sequential(stack(), Dense(1)), Sequential(LSTM(3), LSTM(3), Dense(1))
    params = layers.init(0, 2, np.float64)
    moved = {
        "rnn": {"multi_rnn_cell": {"cell_0": params["rnn"], "cell_1": params["rnn_1"]}},
        "dense": params["dense"],
    }
    assert_trees_equal(cells(moved, INPUTS), layers(params, INPUTS))


@pytest.mark.usefixtures("plain_numpy")
def test_derivatives_take_the_same_way_back(monkeypatch):
    """What comes to the sweep of each layer, the upper one first, and what it gives to the one below."""
    seen, original = [], fast_lstm.lstm_backward

    def spy(d_outputs, *rest, **options):
        d_inputs, *others = original(d_outputs, *rest, **options)
        d_x = getval(d_inputs).swapaxes(0, 1)
        seen.append((features_first(getval(d_outputs).swapaxes(0, 1)), features_first(d_x), d_x.flags.c_contiguous))
        return d_inputs, *others

    monkeypatch.setattr(fast_lstm, "lstm_backward", spy)
    model = Sequential(LSTM(4), LSTM(3), Dense(1))
    model_gradients(model, model.init(0, 2, np.float64), INPUTS, 4)
    assert seen == [(True, True, False), (True, False, True)]


@pytest.mark.usefixtures("plain_numpy")
def test_what_was_handed_on_stays_as_it_was():
    """Outputs of a later call of the same shape do not change what autograd still holds of an earlier one."""
    model = Sequential(LSTM(4), LSTM(4), Dense(1))
    params = model.init(0, 2, np.float64)
    loss = value_and_grad(lambda p, x: anp.sum(model(p, x) ** 2))
    wanted = loss(params, INPUTS)

    def first_of_two(p, x):
        outputs = model(p, x)
        model(p, -x)  # same shape, other numbers
        return anp.sum(outputs**2)

    assert_trees_equal(value_and_grad(first_of_two)(params, INPUTS), wanted)


def test_a_model_from_its_description_hands_on_too(received, plain_numpy):
    model = from_config(Sequential(LSTM(4), Dense(2)).config())
    model.apply(model.init(0, 2, np.float64), INPUTS)
    assert received == [False, True]


# --- Dense ----------------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("units", [1, 2, 7])
@pytest.mark.parametrize("features", [1, 4])
def test_dense_of_what_lies_features_first_is_the_same_product(features, units, dtype):
    rng = np.random.default_rng(2)
    x, g = (rng.normal(size=(6, 5, width)).astype(dtype) for width in (features, units))
    params = {"kernel": rng.normal(size=(features, units)).astype(dtype), "bias": rng.normal(size=units).astype(dtype)}
    pull = value_and_grad(lambda tree: anp.sum(Dense(units)(tree["params"], tree["x"]) * g))
    found, wanted = (pull({"params": params, "x": inputs}) for inputs in (lies_features_first(x), x))
    assert_trees_close(found, wanted, 1e-13 if dtype == np.float64 else 2e-6)
    outputs = Dense(units)(params, lies_features_first(x))
    assert outputs.flags.c_contiguous
    assert outputs.dtype == dtype


def test_a_derivative_lies_like_what_it_belongs_to():
    x, kernel = lies_features_first(INPUTS), np.ones((2, 3))
    product = feedforward.linear_features_first(np.ones((3, 5, 3)), kernel.T)
    assert features_first(product)
    assert_close(product, np.full((3, 5, 2), 3.0), 1e-15)
    pulled = feedforward._d_x(None, x, kernel)(np.ones((3, 5, 3)))
    assert features_first(pulled)
    assert not features_first(feedforward._d_x(None, INPUTS, kernel)(np.ones((3, 5, 3))))


@pytest.mark.parametrize("units", [1, 2])
def test_the_derivatives_of_these_products_have_derivatives(units):
    rng = np.random.default_rng(3)
    x, g = lies_features_first(rng.normal(size=(3, 2, 4))), rng.normal(size=(3, 2, units))
    kernel, bias = rng.normal(size=(4, units)), rng.normal(size=units)
    assert features_first(x)
    for function, arguments in (
        (feedforward.affine, (x, kernel, bias)),
        (feedforward.linear, (x, kernel)),
        (feedforward.linear_features_first, (x, kernel)),
        (feedforward.linear_features_first, (g, kernel.T)),
        (feedforward.kernel_gradient, (x, g)),
    ):
        check_grads(function, modes=["rev"], order=2)(*arguments)
