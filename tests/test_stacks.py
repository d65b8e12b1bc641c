"""Layers and cells on top of each other: the same numbers whichever pass each of them gets."""

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import RandomLoss, assert_close, assert_trees_close, assert_trees_equal, largest, named_leaves
from hypothesis import assume, given
from hypothesis import strategies as st

from minilstm import LSTM, RNN, CoupledLSTMCell, Dense, LSTMCell, MultiRNNCell, Sequential, value_and_grad
from minilstm.fast import lstm as fast_lstm
from minilstm.fast.workspace import FOLD_INPUTS
from minilstm.params import tree_map

DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])
LARGE_KERNELS = pytest.mark.parametrize("large", [False, True])
INPUTS = np.random.default_rng(0).normal(size=(3, 5, 2))


class Doubled(LSTM):
    """A user's own layer."""

    def apply(self, *args, **kwargs):
        outputs, state = super().apply(*args, **kwargs)
        return 2 * outputs, state


def stack(*peepholes):
    return RNN(MultiRNNCell([LSTMCell(3, use_peepholes=use) for use in peepholes or (False, False)]))


@pytest.fixture
def plain_numpy(monkeypatch):
    monkeypatch.setenv("MINILSTM_COMPILED", "0")  # numba may be installed


@pytest.mark.usefixtures("plain_numpy")
def test_a_layer_with_its_own_apply_is_asked_for_that():
    model, plain = Sequential(Doubled(4), Dense(2)), Sequential(LSTM(4), Dense(2))
    params = model.init(0, 2, np.float64)
    outputs = model(params, INPUTS)
    halved = {"rnn": params["rnn"], "dense": {**params["dense"], "kernel": 2 * params["dense"]["kernel"]}}
    assert_close(outputs, plain(halved, INPUTS), 1e-14)


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
def test_a_model_equals_the_same_of_readable_layers(large, sizes, layers, seed, dtype):
    """With `large`, some kernels are large and others are not, so that both kinds of pass meet."""
    batch, time, input_dim, units, outputs = sizes
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(batch, time, input_dim)).astype(dtype)
    fast, readable = (
        Sequential(*(LSTM(units + n, backprop=backprop) for n in range(layers)), Dense(outputs))
        for backprop in ("fast", "readable")
    )
    params = fast.init(seed, input_dim, dtype)
    with pytest.MonkeyPatch.context() as patch:
        if large:
            largest_small = 4 * (units + 1) * (input_dim + 2 * units + 1) * inputs.itemsize
            patch.setattr(fast_lstm, "LARGE_KERNEL", largest_small // 2)
        found, wanted = (model_gradients(model, params, inputs, seed) for model in (fast, readable))
    assert_trees_close(found, wanted, 1e-11 if dtype == np.float64 else 2e-5)
    assume(largest(wanted[1]) > 1e-4)  # there is something to disagree about
    for name, leaf in named_leaves(found):
        assert leaf.dtype == dtype, name
        assert leaf.flags.c_contiguous, name


@pytest.mark.usefixtures("plain_numpy")
@DTYPES
def test_a_wide_layer_below_another_gets_its_derivatives_back(dtype):
    """Inputs of the second layer that are not folded into its loop."""
    fast, readable = (
        Sequential(LSTM(FOLD_INPUTS + 2, backprop=b), LSTM(3, backprop=b), Dense(1)) for b in ("fast", "readable")
    )
    params = fast.init(0, 2, dtype)
    found, wanted = (model_gradients(model, params, INPUTS.astype(dtype), 1) for model in (fast, readable))
    assert_trees_close(found, wanted, 1e-12 if dtype == np.float64 else 1e-5)


@pytest.mark.usefixtures("plain_numpy")
def test_cells_of_one_layer_each_get_the_best_pass_they_have(monkeypatch):
    seen, original = [], fast_lstm.fast_sequence

    def spy(inputs, *rest, **options):
        seen.append(inputs.shape)
        return original(inputs, *rest, **options)

    monkeypatch.setattr(fast_lstm, "fast_sequence", spy)
    cells = lambda: [LSTMCell(4), LSTMCell(3, use_peepholes=True, name="b"), CoupledLSTMCell(3, name="c")]  # noqa: E731
    fast, readable = (Sequential(RNN(MultiRNNCell(cells()), backprop=b), Dense(2)) for b in ("fast", "readable"))
    params = fast.init(0, 2, np.float64)
    found, wanted = (model_gradients(model, params, INPUTS, 2) for model in (fast, readable))
    assert_trees_close(found, wanted, 1e-12)
    assert seen == [(5, 3, 2), (5, 3, 4)]


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
