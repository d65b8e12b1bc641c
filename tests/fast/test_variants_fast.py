"""The fast passes of the GRU and the plain RNN: equal to the readable ones, and what kept workspaces must never do."""

import functools

import numpy as np
import pytest
from helpers import assert_trees_close, assert_trees_equal, largest, layer_gradients, named_leaves
from hypothesis import given
from hypothesis import strategies as st

from minilstm import RNN, BasicRNNCell, DropoutWrapper, GRUCell
from minilstm.fast import variants as fast_variants
from minilstm.fast.activations import SMALL
from minilstm.fast.loops import CACHE_BYTES
from minilstm.params import tree_map

CELLS = [GRUCell, functools.partial(GRUCell, reset_after=True), BasicRNNCell]
KINDS = pytest.mark.parametrize("kind", CELLS, ids=["gru", "reset_after", "rnn"])
DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def case(cell, batch=3, time=5, input_dim=2, seed=0, dtype=np.float64, scale=0.6):
    """(params, inputs, state) of a layer around the cell."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(0, scale, shape).astype(dtype)  # noqa: E731
    params = {cell.name: tree_map(lambda w: draw(*w.shape), cell.init(0, input_dim))}
    return params, draw(batch, time, input_dim), draw(batch, cell.units)


def both(cell, data, seed=0, **options):
    return [layer_gradients(RNN(cell, backprop=b), *data, seed, **options) for b in ("fast", "readable")]


@given(
    st.sampled_from(CELLS),
    st.tuples(st.integers(1, 5), st.integers(1, 12), st.sampled_from([1, 2, 150]), st.integers(1, 7)),
    st.sampled_from(["tanh", "tanh", "relu", "sigmoid", "linear", "softsign"]),
    st.booleans(), st.booleans(), st.integers(0, 999), st.sampled_from([np.float64, np.float32]),
)  # fmt: skip
def test_the_fast_pass_equals_the_readable_one(kind, sizes, activation, has_lengths, drops, seed, dtype):
    batch, time, input_dim, units = sizes
    cell = kind(units, activation=activation)
    data = case(cell, batch, time, input_dim, seed, dtype, scale=0.3)
    call = {}
    if has_lengths:
        call["sequence_length"] = np.random.default_rng(seed).integers(0, time + 1, batch)
    if drops:
        cell, call["rng"] = DropoutWrapper(cell, state_keep_prob=0.6, output_keep_prob=0.7), seed
    fast, readable = both(cell, data, seed, **call)
    assert_trees_close(fast, readable, 1e-11 if dtype == np.float64 else 5e-5)
    assert {leaf.dtype for _, leaf in named_leaves(fast)} == {np.dtype(dtype)}


@KINDS
@DTYPES
def test_gates_under_huge_weights_are_shut_or_open_without_a_warning(kind, dtype):
    cell = kind(3)
    params, inputs, state = case(cell, dtype=dtype, scale=1e4)
    fast, readable = (RNN(cell, backprop=b).apply(params, inputs, state) for b in ("fast", "readable"))
    assert_trees_close(fast, readable, 20 * np.finfo(dtype).eps)


@KINDS
@DTYPES
def test_large_steps_in_pieces(kind, dtype):
    """Gates above the size for which constants have their shape, and factors of four steps at a time."""
    cell = kind(96)
    entries = 96 * 64
    assert 2 * entries > SMALL
    assert CACHE_BYTES // (5 * entries * np.dtype(dtype).itemsize) < 9
    data = case(cell, batch=64, time=9, input_dim=3, dtype=dtype, scale=0.1)
    fast, readable = both(cell, data)
    assert_trees_close(fast, readable, 1e-12 if dtype == np.float64 else 1e-5)
    assert largest(readable[1]) > 1e-3


@pytest.mark.parametrize("reset_after", [False, True])
def test_the_pieces_of_a_long_sequence_fit_together(reset_after):
    cell = GRUCell(8, reset_after=reset_after)
    assert 300 < CACHE_BYTES // (5 * 8 * 4 * 8) < 450
    fast, readable = both(cell, case(cell, batch=4, time=450, input_dim=1))
    assert_trees_close(fast, readable, 1e-11)


@KINDS
@DTYPES
@pytest.mark.parametrize("time", [1, 4])
def test_results_share_no_memory_and_stay_as_they_were(kind, time, dtype):
    cell = kind(4)
    layer, (params, inputs, state) = RNN(cell), case(cell, time=time, dtype=dtype)
    outputs, final = layer.apply(params, inputs, state)
    arrays = [outputs, final, inputs, state]
    for n, a in enumerate(arrays):
        assert not any(np.shares_memory(a, b) for b in arrays[n + 1 :]), n
    held = layer_gradients(layer, params, inputs, state)
    copies = [np.array(leaf) for _, leaf in named_leaves([held, outputs, final])]
    for factor in (3, -1):
        layer_gradients(layer, params, (inputs * factor).astype(dtype), state, seed=1)
        layer_gradients(layer, params, inputs, state, sequence_length=[time, 0, 1])
    assert_trees_equal([leaf for _, leaf in named_leaves([held, outputs, final])], copies)


@KINDS
def test_a_generated_step_equals_a_differentiated_one(kind, monkeypatch):
    taken, original = [], fast_variants.fast_h_sequence
    monkeypatch.setattr(fast_variants, "fast_h_sequence", lambda *a, **k: taken.append(1) or original(*a, **k))
    cell = kind(4)
    params, inputs, state = case(cell, time=1)
    found = RNN(cell).apply(params, inputs, state)
    assert taken == []
    (_, differentiated), _ = layer_gradients(RNN(cell), params, inputs, state)
    assert taken == [1]
    assert_trees_close(found, differentiated, 1e-14)


@KINDS
def test_nan_is_seen_and_does_not_reach_the_next_pass(kind):
    cell = kind(4)
    params, inputs, state = case(cell)
    for call in ({}, {"sequence_length": [5, 4, 0]}):
        clean = layer_gradients(RNN(cell), params, inputs, state, **call)
        dirty = inputs.copy()
        dirty[1, 2] = np.nan
        (loss, (outputs, _)), grads = layer_gradients(RNN(cell), params, dirty, state, **call)
        assert np.isnan(loss)
        assert np.isnan(outputs[1, 2:4]).all()
        assert_trees_equal(outputs[[0, 2]], clean[0][1][0][[0, 2]])
        assert all(np.isnan(g).any() for _, g in named_leaves(grads["params"]))
        assert_trees_equal(layer_gradients(RNN(cell), params, inputs, state, **call), clean)


def test_a_linear_rnn_that_would_overflow_past_the_end_does_not():
    """h doubles at every step: after 3,000 of them it would be infinite, and infinity times 0 is not a gradient."""
    cell = BasicRNNCell(1, activation="linear")
    params = {cell.name: {"kernel": np.array([[1.0], [2.0]]), "bias": np.ones(1)}}
    inputs = np.ones((2, 3000, 1))
    fast, readable = both(cell, (params, inputs, np.ones((2, 1))), sequence_length=[5, 0])
    assert_trees_close(fast, readable, 1e-12)


@KINDS
def test_what_nobody_asks_for_is_not_given(kind):
    cell = kind(3)
    params, inputs, state = case(cell)
    loan = fast_variants.VariantLoan(cell, None, None)
    weights = [leaf for _, leaf in named_leaves(params)]
    outputs, h = fast_variants.fast_h_sequence(inputs.transpose(1, 0, 2), state, *weights, loan=loan)
    found = [fast_variants.fast_h_backward(outputs, h, loan=loan, wants_inputs=wanted) for wanted in (True, False)]
    assert found[0][0].shape == (5, 3, 2)
    assert found[1][0] is None
    assert_trees_equal(found[0][1:], found[1][1:])
