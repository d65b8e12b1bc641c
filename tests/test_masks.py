"""sequence_length for every kind of layer: what lies past the end matters to nothing, not even by a bit."""

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import assert_close, assert_trees_close, assert_trees_equal, layer_gradients, named_leaves
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_wrappers import BACKPROPS, nested_gradients, nested_networks

from minilstm import (
    LSTM,
    RNN,
    BasicLSTMCell,
    Bidirectional,
    CoupledLSTMCell,
    Dense,
    DropoutWrapper,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    ResidualWrapper,
    Sequential,
)
from minilstm.params import tree_leaves, tree_map

FILLERS = {"1e3": 1e3, "-1e-3": -1e-3, "nan": np.nan, "inf": np.inf, "-inf": -np.inf}
OPTIONS = st.fixed_dictionaries(
    {name: st.booleans() for name in ("reverse", "return_sequences", "time_major", "learn_initial_state")}
)


def filled(inputs, lengths, filler):
    """The inputs with `filler` in every step past the end."""
    past = np.arange(inputs.shape[1]) >= np.asarray(lengths)[:, None]
    return np.where(past[..., None], filler, inputs)


def row_of(tree, row):
    return tree_map(lambda x: x[row : row + 1], tree)


# --- not a bit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backprop", BACKPROPS)
@settings(max_examples=2 * settings().max_examples)
@given(nested_networks(lengths="always"), st.sampled_from(sorted(FILLERS)), OPTIONS, st.booleans())
def test_no_nested_cell_sees_what_lies_past_the_end(backprop, network, filler, options, given_state):
    """No output, state or gradient: of weights, inputs and initial state, with and without dropout."""
    assume((network.lengths < network.inputs.shape[1]).any())
    layer = RNN(network.cell, backprop=backprop, **options)
    params = {network.cell.name: network.params}
    if options["learn_initial_state"]:
        rng = np.random.default_rng(network.seed)
        params["initial_state"] = tree_map(
            lambda w: rng.normal(size=w.shape), layer.init(0, network.inputs.shape[2], np.float64)["initial_state"]
        )
    results = []
    for inputs in (network.inputs, filled(network.inputs, network.lengths, FILLERS[filler])):
        inputs = np.ascontiguousarray(np.swapaxes(inputs, 0, 1)) if options["time_major"] else inputs
        state = network.state if given_state else None
        call = {"sequence_length": network.lengths, "rng": network.rng}
        results.append(layer_gradients(layer, params, inputs, state, network.seed, **call))
    assert_trees_equal(*results)


LAYERS = {
    "Bidirectional": Bidirectional(LSTMCell(3, forget_bias=-1, use_peepholes=True), BasicLSTMCell(2, forget_bias=0.37)),
    "Bidirectional of stacks": Bidirectional(
        MultiRNNCell([DropoutWrapper(LSTMCell(2), input_keep_prob=0.5, state_keep_prob=0.5), GRUCell(3)])
    ),
    "last of both": Bidirectional(LSTM(3, return_sequences=False, learn_initial_state=True)),
    "Zaremba": RNN(MultiRNNCell([DropoutWrapper(LSTMCell(3), output_keep_prob=0.5) for _ in range(2)])),
    "residual": RNN(ResidualWrapper(DropoutWrapper(LSTMCell(2, forget_bias=0.5), input_keep_prob=0.5)), reverse=True),
    "GRU": RNN(DropoutWrapper(GRUCell(3), state_keep_prob=0.5), learn_initial_state=True),
    "coupled": RNN(CoupledLSTMCell(3, forget_bias=-0.7), reverse=True),
    "model": Sequential(LSTM(3, forget_bias=0.37), Dense(2, activation="tanh"), Bidirectional(GRUCell(2)), Dense(1)),
}


def random_params(layer, seed=0):
    rng = np.random.default_rng(seed)
    return tree_map(lambda w: rng.normal(0, 0.6, w.shape), layer.init(0, 2, np.float64))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("filler", FILLERS)
@pytest.mark.parametrize("name", LAYERS)
def test_no_layer_sees_what_lies_past_the_end(name, filler, dtype):
    layer, rng = LAYERS[name], np.random.default_rng(2)
    params = tree_map(lambda w: w.astype(dtype), random_params(layer))
    inputs, lengths = rng.normal(size=(5, 6, 2)).astype(dtype), np.array([2, 6, 0, 5, 1])
    dirty = filled(inputs, lengths, dtype(FILLERS[filler]))
    for seed in (None, 11):
        clean = layer_gradients(layer, params, inputs, sequence_length=lengths, rng=seed)
        assert all(np.abs(grad).max() > 1e-4 for _, grad in named_leaves(clean[1]))
        assert_trees_equal(layer_gradients(layer, params, dirty, sequence_length=lengths, rng=seed), clean)


def test_a_layer_that_has_no_lengths_in_front_passes_finite_rubbish_on_to_where_it_ends():
    model = Sequential(Dense(3, activation="tanh"), LSTM(3, forget_bias=0.37))
    rng = np.random.default_rng(3)
    params, inputs, lengths = random_params(model), rng.normal(size=(4, 5, 2)), [3, 5, 0, 1]
    clean = layer_gradients(model, params, inputs, sequence_length=lengths)
    dirty = layer_gradients(model, params, filled(inputs, lengths, 7.5), sequence_length=lengths)
    assert_trees_close(dirty, clean, 1e-15)


# --- what comes out instead -----------------------------------------------------------------------------------


@given(nested_networks(lengths="always", dropout=False), st.booleans())
def test_each_sequence_is_run_as_if_it_were_alone_and_no_longer(network, reverse):
    """Zeros past the end, the state of the last valid step, and for length 0 the state that came in."""
    params = {network.cell.name: network.params}
    for backprop in BACKPROPS:
        layer = RNN(network.cell, backprop=backprop, reverse=reverse)
        outputs, final = layer.apply(params, network.inputs, network.state, network.lengths)
        for row, length in enumerate(network.lengths):
            state = row_of(network.state, row)
            if length:
                alone, state = layer.apply(params, network.inputs[row : row + 1, :length], state)
                assert_close(outputs[row, :length], alone[0], 1e-13, "outputs")
                assert_trees_close(row_of(final, row), state, 1e-13)
            else:
                assert_trees_equal(row_of(final, row), state)
            assert_trees_equal(outputs[row, length:], np.zeros_like(outputs[row, length:]))


@given(nested_networks())
def test_reverse_is_flipping_by_hand(network):
    """Each sequence by its own length, before and after; the padding stays behind."""
    lengths = [network.inputs.shape[1]] * len(network.inputs) if network.lengths is None else network.lengths

    def flip(x):
        return np.stack([np.concatenate([row[:n][::-1], row[n:]]) for row, n in zip(x, lengths, strict=True)])

    params, call = {network.cell.name: network.params}, {"sequence_length": network.lengths, "rng": network.rng}
    for backprop in BACKPROPS:
        reverse, forward = (RNN(network.cell, backprop=backprop, reverse=way) for way in (True, False))
        outputs, state = reverse.apply(params, network.inputs, network.state, **call)
        by_hand, wanted = forward.apply(params, flip(network.inputs), network.state, **call)
        assert_trees_equal((outputs, state), (flip(by_hand), wanted))


@given(nested_networks(), st.booleans())
def test_without_return_sequences_the_last_valid_output_comes_out(network, reverse):
    params, call = {network.cell.name: network.params}, {"sequence_length": network.lengths, "rng": network.rng}
    every, last = (RNN(network.cell, return_sequences=given, reverse=reverse) for given in (True, False))
    outputs, state = every.apply(params, network.inputs, network.state, **call)
    found, same = last.apply(params, network.inputs, network.state, **call)
    assert_trees_equal(same, state)
    lengths = [network.inputs.shape[1]] * len(outputs) if network.lengths is None else network.lengths
    for row, length in enumerate(lengths):
        assert_trees_equal(found[row], outputs[row, 0 if reverse else max(length, 1) - 1])
        assert length or not found[row].any()


class BatchMajor:
    """A time-major layer with its axes swapped from outside, so that one loss serves both."""

    def __init__(self, layer):
        self.layer = layer

    def apply(self, params, inputs, **options):
        outputs, state = self.layer.apply(params, anp.swapaxes(inputs, 0, 1), **options)
        return anp.swapaxes(outputs, 0, 1), state


@given(nested_networks())
def test_time_major_is_the_same_with_the_axes_swapped(network):
    for backprop in BACKPROPS:
        (_, (a, state_a)), grads_a = nested_gradients(network, backprop)
        layer = BatchMajor(RNN(network.cell, backprop=backprop, time_major=True))
        params, call = {network.cell.name: network.params}, {"sequence_length": network.lengths, "rng": network.rng}
        (_, (b, state_b)), grads_b = layer_gradients(
            layer, params, network.inputs, network.state, network.seed, **call
        )  # fmt: skip
        assert_trees_equal((b, state_b), (a, state_a))
        assert_trees_close(grads_b, grads_a, 1e-13)


@given(nested_networks(lengths="always"))
def test_lengths_are_taken_in_every_integer_dtype_and_as_a_list(network):
    params = {network.cell.name: network.params}
    wanted = RNN(network.cell).apply(params, network.inputs, sequence_length=network.lengths)
    for lengths in (network.lengths.astype(np.int32), network.lengths.astype(np.uint8), network.lengths.tolist()):
        assert_trees_equal(RNN(network.cell).apply(params, network.inputs, sequence_length=lengths), wanted)


# --- the learned initial state --------------------------------------------------------------------------------

LEARNED = {
    "LSTM": LSTMCell(3, forget_bias=0.37, num_proj=2),
    "GRU": GRUCell(3),
    "stack": MultiRNNCell([DropoutWrapper(LSTMCell(3), state_keep_prob=0.5), GRUCell(2), BasicLSTMCell(2)]),
    "wrapped stack": DropoutWrapper(
        MultiRNNCell([CoupledLSTMCell(2), MultiRNNCell([LSTMCell(2, forget_bias=-0.6)])]), input_keep_prob=0.5
    ),
}


def named_parts(state):
    """A state's parts under the names that the learned one has: c and h, and cell_<n> for the parts of a stack."""
    if hasattr(state, "_fields"):
        return {"c": state.c, "h": state.h}
    if isinstance(state, tuple):
        return {f"cell_{n}": named_parts(part) for n, part in enumerate(state)}
    return {"h": state}


@pytest.mark.parametrize("lengths", [None, [3, 5, 0, 1]], ids=["full", "lengths"])
@pytest.mark.parametrize("backprop", BACKPROPS)
@pytest.mark.parametrize("name", LEARNED)
def test_a_learned_initial_states_gradient_is_the_sum_of_those_of_every_sequence(name, backprop, lengths):
    cell = LEARNED[name]
    layer = RNN(cell, backprop=backprop, learn_initial_state=True)
    fresh = layer.init(0, 2, np.float64)
    assert not any(leaf.any() for leaf in tree_leaves(fresh["initial_state"]))
    params, inputs = random_params(layer), np.random.default_rng(5).normal(size=(4, 5, 2))
    structure = tree_map(lambda w: w, cell.zero_state(1, np.float64))
    learned = iter(tree_leaves(params["initial_state"]))
    state = tree_map(lambda _: np.tile(next(learned), (4, 1)), structure)
    call = {"sequence_length": lengths, "rng": 6}
    (loss, values), grads = layer_gradients(layer, params, inputs, **call)
    (same_loss, same_values), given_grads = layer_gradients(layer, params, inputs, state, **call)
    assert_close(loss, same_loss, 1e-13, "loss")
    assert_trees_close(values, same_values, 1e-13)
    summed = tree_map(lambda g: g.sum(axis=0), named_parts(given_grads["state"]))
    assert_trees_close(grads["params"]["initial_state"], summed, 1e-12)
    assert all(np.abs(g).max() > 1e-4 for g in tree_leaves(grads["params"]["initial_state"]))
    assert not any(g.any() for g in tree_leaves(given_grads["params"]["initial_state"]))  # a given state replaces it
