"""Compiled passes of a GRU and of an LSTM with options: as exact as NumPy's, whatever the sizes, lengths and masks."""

import numpy as np
import pytest
from autograd.core import make_vjp
from helpers import assert_trees_close, assert_trees_equal, largest, layer_gradients, named_leaves
from hypothesis import given
from hypothesis import strategies as st
from strategies import FORGET_BIASES
from test_compiled import _compiled_pass, in_float64, three_parts  # noqa: F401 - fixtures
from test_lstm_options import case as lstm_case
from test_variants_fast import case as gru_case

from minilstm import RNN, DropoutWrapper, GRUCell, LSTMCell
from minilstm.fast import loans
from minilstm.fast import lstm as fast_lstm
from minilstm.fast.compiled import gru, workers
from minilstm.fast.compiled.workspace import CompiledWorkspace
from minilstm.fast.memory import Pool
from minilstm.fast.workspace import FOLD_INPUTS
from minilstm.params import tree_map

pytestmark = pytest.mark.interop

CELLS = st.one_of(
    st.builds(GRUCell, st.sampled_from([1, 3, 8, 17, 40])),
    st.builds(
        lambda units, projection, **options: LSTMCell(units, **projection, **options),
        st.sampled_from([1, 3, 8, 17, 40]),
        st.sampled_from([{}, {}, {"num_proj": 2}, {"num_proj": 35, "proj_clip": 0.1}]),
        use_peepholes=st.booleans(),
        cell_clip=st.sampled_from([None, 0.3]),
        forget_bias=FORGET_BIASES,
    ),
)
SIZES = st.tuples(st.integers(1, 5), st.integers(1, 8), st.sampled_from([1, 2, 20, FOLD_INPUTS + 1]))
DROPOUTS = st.sampled_from([None, {"state_keep_prob": 0.5}, {"state_keep_prob": 0.7, "variational_recurrent": True}])


def moderate(cell, sizes, seed):
    """A case in float32 whose weights do not saturate the gates."""
    batch, time, input_dim = sizes
    make = gru_case if isinstance(cell, GRUCell) else lstm_case
    params, inputs, state = make(cell, batch, time, input_dim, seed, np.float32)
    return tree_map(lambda w: w / np.float32(max(1, len(w)) ** 0.5) if w.ndim > 1 else w, params), inputs, state


def gradients(cell, data, seed, backprop="fast", **call):
    return layer_gradients(RNN(cell, backprop=backprop), *data, seed, **call)


@given(CELLS, SIZES, DROPOUTS, st.booleans(), st.integers(0, 999))
def test_compiled_cells_are_as_exact_as_numpys(cell, sizes, dropout, has_lengths, seed):
    """To the readable pass in float64; and no bit depends on inputs past the end."""
    data = moderate(cell, sizes, seed)
    call = {"rng": None if dropout is None else seed}
    if has_lengths:
        call["sequence_length"] = np.random.default_rng(seed).integers(0, sizes[1] + 1, sizes[0])
    cell = cell if dropout is None else DropoutWrapper(cell, **dropout)
    found = gradients(cell, data, seed, **call)
    exact = gradients(cell, in_float64(data), seed, "readable", **call)
    assert_trees_close(found, exact, 2e-5)
    assert {leaf.dtype for _, leaf in named_leaves(found[1])} == {np.dtype(np.float32)}
    if has_lengths:
        params, inputs, state = data
        dirty = inputs.copy()
        for row, length in enumerate(call["sequence_length"]):
            dirty[row, length:] = np.nan
        assert_trees_equal(gradients(cell, (params, dirty, state), seed, **call), found)


KINDS = pytest.mark.parametrize(
    "cell",
    [GRUCell(20), LSTMCell(20, use_peepholes=True, cell_clip=0.3), LSTMCell(20, num_proj=9, proj_clip=0.1)],
    ids=["GRU", "peepholes and a clip", "projection"],
)


@KINDS
def test_they_are_compiled(cell, monkeypatch):
    made = []
    for module, name in ((gru, "CompiledGRU"), (CompiledWorkspace, "forward")):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, n=name, f=original: made.append(n) or f(*a))
    gradients(cell, moderate(cell, (3, 5, 2), 0), 0)
    assert made == ["CompiledGRU" if isinstance(cell, GRUCell) else "forward"]


@pytest.mark.parametrize("kind", [GRUCell, LSTMCell])
def test_other_activations_and_other_dtypes_are_numpys(kind, monkeypatch):
    monkeypatch.setattr(gru, "CompiledGRU", None)
    monkeypatch.setattr(CompiledWorkspace, "forward", None)
    for activation, dtype in (("relu", np.float32), ("tanh", np.float64)):
        cell = kind(4, activation=activation)
        data = tree_map(lambda x, dtype=dtype: x.astype(dtype), list(moderate(cell, (3, 5, 2), 0)))
        assert largest(gradients(cell, data, 0)[1]) > 1e-3


@KINDS
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_parts_of_a_batch_give_what_the_whole_gives(cell, batch, three_parts, monkeypatch):  # noqa: F811
    """Outputs, states and all that belongs to a sequence to the bit; sums over the batch in another order."""
    data = moderate(cell, (batch, 9, 4), 0)
    wrapped, call = DropoutWrapper(cell, state_keep_prob=0.6), {"rng": 1}
    results, grads = gradients(wrapped, data, 0, **call)
    again = gradients(wrapped, data, 0, **call)
    assert_trees_equal((results, grads), again)
    monkeypatch.setattr(loans, "_pool", Pool(loans.KEPT))
    monkeypatch.setattr(workers, "count", lambda: 1)
    of_whole, grads_of_whole = gradients(wrapped, data, 0, **call)
    assert_trees_equal(results, of_whole)
    assert_trees_close(grads.pop("params"), grads_of_whole.pop("params"), 2e-6)
    assert_trees_equal(grads, grads_of_whole)


@KINDS
def test_a_second_sweep_over_one_pass_gives_the_same_bits(cell):
    params, inputs, state = moderate(cell, (4, 6, 2), 0)
    pull, outputs = make_vjp(lambda x: RNN(cell).apply(params, x, state, [6, 3, 0, 1])[0], inputs)
    g = np.random.default_rng(3).normal(size=outputs.shape).astype(np.float32)
    first = pull(g).copy()
    pull(-2 * g)
    gradients(cell, (params, inputs * 2, state), 1, sequence_length=[1, 1, 6, 6])  # another loan
    assert_trees_equal(pull(g), first)
    assert largest(first) > 1e-3


@KINDS
def test_what_one_pass_leaves_does_not_reach_the_next(cell):
    params, inputs, state = moderate(cell, (4, 6, 2), 0)
    call = {"sequence_length": [6, 3, 0, 1]}
    clean = gradients(cell, (params, inputs, state), 0, **call)
    with np.errstate(all="ignore"):
        for bad in (np.nan, np.inf):
            gradients(cell, (params, np.full_like(inputs, bad), state), 0, sequence_length=[6, 6, 6, 5])
            assert_trees_equal(gradients(cell, (params, inputs, state), 0, **call), clean)


@KINDS
def test_a_diverged_run_is_seen(cell):
    """A NaN in one sequence reaches its outputs and the weights' gradients, and no other sequence."""
    params, inputs, state = moderate(cell, (3, 5, 2), 0)
    clean = gradients(cell, (params, inputs, state), 0)
    dirty = inputs.copy()
    dirty[1, 2] = np.nan
    (loss, (outputs, _)), grads = gradients(cell, (params, dirty, state), 0)
    assert np.isnan(loss)
    assert np.isnan(outputs[1, 2:]).all()
    assert_trees_equal(outputs[[0, 2]], clean[0][1][0][[0, 2]])
    assert all(np.isnan(g).any() for _, g in named_leaves(grads["params"]))


def test_a_gradient_passes_a_clip_where_c_is_the_bound_itself():
    """c of exactly the bound, carried by gates that are saturated, is not clipped."""
    cell = LSTMCell(1, cell_clip=0.5)
    shut, open_ = -200.0, 200.0
    params = {"lstm_cell": {"kernel": np.zeros((2, 4), np.float32), "bias": np.array([shut, 0, open_, 0], np.float32)}}
    state = fast_lstm.LSTMState(np.full((1, 1), 0.5, np.float32), np.zeros((1, 1), np.float32))
    data = params, np.ones((1, 4, 1), np.float32), state
    found, readable = (gradients(cell, data, 0, backprop) for backprop in ("fast", "readable"))
    assert_trees_close(found, readable, 1e-6)
    assert largest(readable[1]["state"].c) > 1e-2
