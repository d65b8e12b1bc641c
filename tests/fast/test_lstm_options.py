"""Lengths, options and masks of the state in the fast pass: equal to the readable pass, at every kind of size."""

import numpy as np
import pytest
from autograd.core import make_vjp
from helpers import assert_trees_close, assert_trees_equal, largest, layer_gradients, named_leaves
from hypothesis import given
from hypothesis import strategies as st
from strategies import FORGET_BIASES

from minilstm import RNN, DropoutWrapper, LSTMCell, LSTMState
from minilstm.fast import loans, loops
from minilstm.fast import lstm as fast_lstm
from minilstm.fast.loops import FEW_UNITS
from minilstm.fast.memory import Pool
from minilstm.fast.row_workspace import RowWorkspace
from minilstm.fast.workspace import FOLD_INPUTS
from minilstm.params import tree_map


@pytest.fixture(scope="module", params=["small", "large steps", "large kernels"], autouse=True)
def passes(request):
    """Every test here runs with all of NumPy's passes: for small steps, for large ones, and for the largest kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILSTM_COMPILED", "0")
        patch.setattr(loans, "_pool", Pool(loans.KEPT))
        if request.param == "large steps":
            patch.setattr(loops, "LARGE_BLOCK", -1)
        if request.param == "large kernels":
            patch.setattr(fast_lstm, "LARGE_KERNEL", -1)
        yield request.param


def case(cell, batch=4, time=6, input_dim=2, seed=0, dtype=np.float64):
    """(params, inputs, state) of a layer around the cell."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(0, 0.6, shape).astype(dtype)  # noqa: E731
    params = {cell.name: tree_map(lambda w: draw(*w.shape), cell.init(0, input_dim))}
    state = LSTMState(*(draw(batch, width) for width in cell.state_size))
    return params, draw(batch, time, input_dim), state


def both(cell, data, seed, **options):
    return [layer_gradients(RNN(cell, backprop=b), *data, seed, **options) for b in ("fast", "readable")]


OPTIONS = st.fixed_dictionaries(
    {
        "activation": st.sampled_from(["tanh", "tanh", "sigmoid", "relu", "linear", "softsign"]),
        "use_peepholes": st.booleans(),
        "cell_clip": st.sampled_from([None, 0.4, 1.5]),
        "projection": st.sampled_from([{}, {"num_proj": 2}, {"num_proj": 21, "proj_clip": 0.3}]),
        "forget_bias": FORGET_BIASES,
    }
)
LENGTHS = st.lists(st.integers(0, 6), min_size=4, max_size=4)


@given(
    OPTIONS, st.none() | LENGTHS, st.sampled_from([1, 4, FEW_UNITS + 1]), st.sampled_from([1, 3, FOLD_INPUTS + 1]),
    st.sampled_from([None, {"state_keep_prob": 0.5}, {"state_keep_prob": 0.7, "variational_recurrent": True}]),
    st.integers(0, 999),
)  # fmt: skip
def test_every_option_with_lengths_and_masks(options, lengths, units, input_dim, dropout, seed):
    options = dict(options)
    cell = LSTMCell(units, **options.pop("projection"), **options)
    data = case(cell, input_dim=input_dim, seed=seed)
    if dropout is not None:
        cell = DropoutWrapper(cell, **dropout)
    call = {"sequence_length": lengths, "rng": None if dropout is None else seed}
    fast, readable = both(cell, data, seed, **call)
    assert_trees_close(fast, readable, 1e-11)


@given(LENGTHS, st.sampled_from([1, 4, FEW_UNITS + 1]), st.sampled_from([1, FOLD_INPUTS + 1]), st.integers(0, 99))
def test_lengths_of_a_plain_cell_in_float32(lengths, units, input_dim, seed):
    cell = LSTMCell(units, forget_bias=-0.4)
    data = case(cell, input_dim=input_dim, seed=seed, dtype=np.float32)
    fast, readable = both(cell, data, seed, sequence_length=lengths)
    assert_trees_close(fast, readable, 3e-5)
    assert {leaf.dtype for _, leaf in named_leaves(fast)} == {np.dtype(np.float32)}
    (_, (outputs, state)), _ = fast
    for row, length in enumerate(lengths):
        assert outputs[row, length:].tobytes() == bytes(outputs[row, length:].nbytes)
        if length == 0:
            assert_trees_equal([part[row] for part in state], [part[row] for part in data[2]])


def test_lengths_in_float16():
    """1e30 is infinite there."""
    cell = LSTMCell(3)
    params, inputs, state = case(cell, dtype=np.float16)
    fast, readable = (RNN(cell, backprop=b).apply(params, inputs, state, [0, 2, 6, 1]) for b in ("fast", "readable"))
    assert_trees_close(fast, readable, 2e-3)


@pytest.mark.parametrize("units", [4, FEW_UNITS + 1])
def test_one_sequence_that_ends_early(units):
    cell = LSTMCell(units)
    data = case(cell, batch=1, time=9)
    for length in range(10):
        fast, readable = both(cell, data, 0, sequence_length=[length])
        assert_trees_close(fast, readable, 1e-12)


@pytest.mark.parametrize("scale", [1e3, 1e8])
def test_the_state_is_carried_under_huge_weights(scale):
    """Past the end one input decides alone, whatever the weights of h say."""
    cell = LSTMCell(3, use_peepholes=True)
    params, inputs, state = case(cell)
    params = tree_map(lambda w: w * scale, params)
    fast, readable = (
        RNN(cell, backprop=b).apply(params, inputs, state, [0, 2, 6, 1]) for b in ("fast", "readable")
    )
    assert_trees_close(fast, readable, 1e-12)


def test_the_initial_c_of_an_empty_sequence_is_not_clipped():
    cell = LSTMCell(3, cell_clip=0.1)
    params, inputs, state = case(cell)
    fast, readable = both(cell, (params, inputs, state), 3, sequence_length=[0, 6, 0, 2])
    assert_trees_close(fast, readable, 1e-13)
    assert np.abs(fast[0][1][1].c[0]).max() > 0.1
    assert largest(fast[1]["state"].c[0]) > 1e-2


def test_derivatives_past_the_end_are_not_read():
    """A loss that is not finite on padding; the readable pass does not look at it, either."""
    cell = LSTMCell(3)
    params, inputs, _ = case(cell)
    lengths, results = [2, 6, 0, 5], []
    for backprop in ("fast", "readable"):
        pull, outputs = make_vjp(
            lambda x, b=backprop: RNN(cell, backprop=b).apply(params, x, sequence_length=lengths)[0], inputs
        )
        g = np.random.default_rng(0).normal(size=outputs.shape)
        for row, length in enumerate(lengths):
            g[row, length:] = np.nan
        results.append(pull(g))
    assert_trees_close(*results, 1e-13)


@pytest.mark.parametrize("options", [{}, {"use_peepholes": True, "num_proj": 2, "cell_clip": 0.4}], ids=str)
def test_a_second_sweep_over_one_pass_gives_the_same_bits(options):
    cell = LSTMCell(4, **options)
    params, inputs, state = case(cell)
    pull, outputs = make_vjp(lambda x: RNN(cell).apply(params, x, state, [6, 3, 0, 1])[0], inputs)
    g = np.random.default_rng(3).normal(size=outputs.shape)
    first = pull(g).copy()
    pull(-2 * g)
    layer_gradients(RNN(cell), params, inputs * 2, state, 1, sequence_length=[1, 1, 6, 6])  # another loan
    assert_trees_equal(pull(g), first)
    assert largest(first) > 1e-3


@pytest.mark.parametrize("options", [{}, {"use_peepholes": True, "num_proj": 2}], ids=["plain", "options"])
def test_what_one_pass_leaves_does_not_reach_the_next(options):
    cell = LSTMCell(4, **options)
    params, inputs, state = case(cell)
    call = {"sequence_length": [6, 3, 0, 1]}
    clean = layer_gradients(RNN(cell), params, inputs, state, **call)
    with np.errstate(all="ignore"):
        for bad in (np.nan, np.inf):
            layer_gradients(RNN(cell), params, np.full_like(inputs, bad), state, sequence_length=[6, 6, 6, 5])
            assert_trees_equal(layer_gradients(RNN(cell), params, inputs, state, **call), clean)


def test_lengths_keep_the_pass_of_the_kernel(passes):
    kernel = np.empty((3, 16))
    loan = fast_lstm.Loan(LSTMCell(4), [3, 1])
    kind = type(loan.workspace_for(np.zeros((3, 2, 2)), kernel))
    assert (kind is RowWorkspace) == (passes == "large kernels")
    assert loan.padding is not None
    full = fast_lstm.Loan(LSTMCell(4), [3, 3])
    full.workspace_for(np.zeros((3, 2, 2)), kernel)
    assert full.padding is None  # nothing has ended: nothing to do


@pytest.mark.parametrize("input_dim", [2, FOLD_INPUTS + 1])
@pytest.mark.parametrize("units", [4, FEW_UNITS + 1])
@pytest.mark.parametrize("options", [{}, {"use_peepholes": True, "num_proj": 2, "cell_clip": 0.4}], ids=str)
@pytest.mark.parametrize("batch", [1, 4])
def test_without_a_gradient_the_steps_share_their_memory_and_the_bits_are_the_same(batch, options, units, input_dim):
    cell = LSTMCell(units, **options)
    params, inputs, state = case(cell, batch=batch, input_dim=input_dim)
    for lengths in (None, [3, 6, 0, 1][:batch]):
        plain = RNN(cell).apply(params, inputs, state, lengths)
        (_, traced), _ = layer_gradients(RNN(cell), params, inputs, state, sequence_length=lengths)
        assert_trees_equal(plain, traced)


def test_a_prediction_needs_less_memory_than_a_step_of_training(passes):
    cell, kernel = LSTMCell(4), np.empty((6, 16))
    sizes = []
    for keeps in (True, False):
        loan = fast_lstm.Loan(cell)
        loan.keeps = keeps
        loops_of = loan.workspace_for(np.zeros((50, 3, 2)), kernel).loops
        sizes.append(loops_of.blocks.strides[0] if passes != "large kernels" else keeps)
    assert sizes[0]
    assert not sizes[1]
