"""The fast layout of the plain cell: equal to the readable pass, and what its kept workspaces must never do."""

import contextlib
import threading
import tracemalloc

import autograd
import numpy as np
import pytest
from autograd.core import make_vjp
from helpers import assert_close, assert_trees_close, assert_trees_equal, largest, layer_gradients, named_leaves
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import FORGET_BIASES

from minilstm import (
    LSTM,
    RNN,
    SGD,
    Adam,
    BasicLSTMCell,
    Dense,
    LSTMCell,
    LSTMState,
    Sequential,
    bptt,
    fit,
    losses,
    tbptt,
    value_and_grad,
)
from minilstm.fast import activations, loans, loops
from minilstm.fast import lstm as fast_lstm
from minilstm.fast.large_loops import LargeLoops
from minilstm.fast.loops import CACHE_BYTES, FEW_UNITS, LARGE_BLOCK, Loops, OneSequence
from minilstm.fast.lstm import can_run
from minilstm.fast.memory import Pool
from minilstm.fast.row_workspace import LARGE_KERNEL, RowWorkspace
from minilstm.fast.workspace import FOLD_INPUTS, ColumnWorkspace


@pytest.fixture(scope="module", params=["small", "large steps", "large kernels"], autouse=True)
def passes(request):
    """Every test here runs with all of NumPy's passes: for small steps, for large ones, and for the largest kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loans, "_pool", Pool(loans.KEPT))  # a workspace that is kept knows its loops
        if request.param == "large steps":
            patch.setattr(loops, "LARGE_BLOCK", -1)
            patch.setattr(activations, "ONE_TANH", -1)
            patch.setattr(activations, "ONE_TANH_OF_DOUBLES", -1)
        if request.param == "large kernels":
            patch.setattr(fast_lstm, "LARGE_KERNEL", -1)
        yield request.param


def case(batch=3, time=5, input_dim=2, units=4, seed=0, dtype=np.float64):
    """(params, inputs, state) of a plain layer."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(0, 0.6, shape).astype(dtype)  # noqa: E731
    params = {"lstm_cell": {"kernel": draw(input_dim + units, 4 * units), "bias": draw(4 * units)}}
    return params, draw(batch, time, input_dim), LSTMState(draw(batch, units), draw(batch, units))


DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])
BOTH_SIDES = pytest.mark.parametrize("input_dim", [FOLD_INPUTS, FOLD_INPUTS + 1])
SIZES = st.tuples(
    st.integers(1, 5), st.integers(1, 12), st.sampled_from([1, 2, FOLD_INPUTS, FOLD_INPUTS + 1, 20]), st.integers(1, 7)
)


@given(SIZES, FORGET_BIASES, st.integers(0, 999), st.sampled_from([np.float64, np.float32]))
def test_the_fast_pass_equals_the_reference(sizes, forget_bias, seed, dtype):
    data = case(*sizes, seed, dtype)
    fast, reference = (
        layer_gradients(LSTM(sizes[3], forget_bias=forget_bias, backprop=backprop), *data, seed)
        for backprop in ("fast", "readable")
    )
    assert_trees_close(fast, reference, 1e-12 if dtype == np.float64 else 1e-5)
    assume(largest(reference[1]) > 1e-4)  # there is something to disagree about


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_gates_under_huge_weights_are_shut_or_open_without_a_warning(dtype):
    params, inputs, state = case(dtype=dtype)
    params["lstm_cell"]["kernel"] *= dtype(1e3)
    fast, readable = (LSTM(4, backprop=b).apply(params, inputs, state) for b in ("fast", "readable"))
    assert_trees_close(fast, readable, 20 * np.finfo(dtype).eps)


def test_long_sequences_are_worked_off_in_pieces_that_fit_together():
    """Pieces of 12 and 1 steps, and of 409 and 41: the factors of a piece take 512 kB at most."""
    assert [CACHE_BYTES // (5 * 8 * entries) for entries in (8 * 128, 4 * 8)] == [12, 409]
    data = case(batch=8, time=13, input_dim=3, units=128)
    fast, reference = (layer_gradients(LSTM(128, backprop=b), *data) for b in ("fast", "readable"))
    assert_trees_close(fast, reference, 1e-12)
    data = case(batch=4, time=450, input_dim=1, units=8)
    fast, reference = (layer_gradients(LSTM(8, backprop=b), *data) for b in ("fast", "readable"))
    assert_trees_close(fast, reference, 1e-11)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("time", [1, 5])
def test_what_nobody_asks_for_is_not_given_and_changes_nothing_else(time, batch):
    """The last product of a sweep gives dh before the first step alone."""
    params, inputs, (c, h) = case(batch=batch, time=time)
    kernel, bias = params["lstm_cell"]["kernel"], params["lstm_cell"]["bias"]
    found = []
    for wants_h in (True, False):
        loan = fast_lstm.Loan()
        arguments = inputs.transpose(1, 0, 2), c, h, kernel, bias
        options = {"forget_bias": 1.0, "loan": loan}
        outputs, *_ = fast_lstm.fast_sequence(*arguments, **options)
        wanted = {"wants_inputs": wants_h, "wants_h": wants_h}
        found.append(fast_lstm.fast_backward(outputs, c, h, *arguments, **options, **wanted))
    (_, dc, dh, *weights), (no_inputs, same_dc, no_h, *same_weights) = found
    assert dh.shape == h.shape
    assert no_inputs is None
    assert no_h is None
    assert_trees_equal([same_dc, *same_weights], [dc, *weights])


@DTYPES
@BOTH_SIDES
@pytest.mark.parametrize("units", [FEW_UNITS, FEW_UNITS + 1])
def test_one_sequence_of_few_units_has_a_sweep_of_its_own(passes, units, input_dim, dtype):
    kinds = [type(ColumnWorkspace(2, batch, input_dim, units, dtype).loops) for batch in (1, 2)]
    of_more = LargeLoops if passes == "large steps" else Loops
    assert kinds == [OneSequence if units == FEW_UNITS else of_more, of_more]
    data = case(batch=1, time=60, input_dim=input_dim, units=units, dtype=dtype)
    fast, reference = (layer_gradients(LSTM(units, backprop=b), *data) for b in ("fast", "readable"))
    assert_trees_close(fast, reference, 1e-12 if dtype == np.float64 else 1e-5)
    assert largest(reference[1]) > 1e-3


@pytest.mark.parametrize("batch", [1, 3])
def test_numpys_buffer_is_as_large_after_a_sweep_as_before(batch):
    params, inputs, state = case(batch=batch)
    before = np.setbufsize(4096)
    try:
        layer_gradients(LSTM(4), params, inputs, state)
        assert np.getbufsize() == 4096
        pull, _ = make_vjp(lambda x: LSTM(4).apply(params, x, state=state)[0], inputs)
        with contextlib.suppress(ValueError):  # a derivative of the wrong shape, which only autograd itself could give
            pull(np.ones((batch, 5, 3)))
            pytest.fail("the pass did not fail")
        assert np.getbufsize() == 4096
    finally:
        np.setbufsize(before)


def test_a_kernel_that_does_not_stay_in_the_cache_has_a_pass_of_its_own(passes, monkeypatch):
    monkeypatch.setenv("MINILSTM_COMPILED", "0")  # numba may be installed
    kind = lambda *shape, dtype=np.float32: fast_lstm.workspace_class(np.empty(shape, dtype))  # noqa: E731
    assert kind(3, 8) is (RowWorkspace if passes == "large kernels" else ColumnWorkspace)
    monkeypatch.setattr(fast_lstm, "LARGE_KERNEL", LARGE_KERNEL)
    assert kind(768, 2048) is kind(768, 1024, dtype=np.float64) is ColumnWorkspace
    assert kind(769, 2048) is kind(769, 1024, dtype=np.float64) is RowWorkspace


@DTYPES
def test_a_large_step_has_loops_of_its_own(dtype, monkeypatch):
    monkeypatch.setattr(loops, "LARGE_BLOCK", LARGE_BLOCK)
    bound = LARGE_BLOCK // np.dtype(dtype).itemsize // 4
    assert type(ColumnWorkspace(2, 4, 1, bound, dtype).loops) is Loops
    assert type(ColumnWorkspace(2, 4, 1, bound + 1, dtype).loops) is LargeLoops


@DTYPES
@BOTH_SIDES
def test_a_large_step_makes_the_gradients_of_the_reference(dtype, input_dim):
    """At its true size: 17 kB a gate in float32."""
    data = case(batch=32, time=4, input_dim=input_dim, units=136, dtype=dtype)
    data[0]["lstm_cell"]["kernel"] *= dtype(0.1)  # sums of 265 entries do not saturate the gates
    fast, reference = (layer_gradients(LSTM(136, backprop=b), *data) for b in ("fast", "readable"))
    assert_trees_close(fast, reference, 1e-12 if dtype == np.float64 else 1e-5)
    assert largest(reference[1]) > 1e-3


@DTYPES
def test_a_large_kernel_makes_the_gradients_of_the_reference(dtype):
    """At its true size: 6.4 MB in float32."""
    data = case(batch=2, time=3, input_dim=100, units=600, dtype=dtype)
    data[0]["lstm_cell"]["kernel"] *= dtype(0.1)  # sums of 700 entries do not saturate the gates
    assert data[0]["lstm_cell"]["kernel"].nbytes > LARGE_KERNEL
    fast, reference = (layer_gradients(LSTM(600, backprop=b), *data) for b in ("fast", "readable"))
    assert_trees_close(fast, reference, 1e-12 if dtype == np.float64 else 1e-5)
    assert largest(reference[1]) > 1e-3


def test_it_runs_every_cell_with_known_derivatives():
    for options in ({}, {"use_peepholes": True}, {"cell_clip": 1.0}, {"num_proj": 2}, {"activation": "relu"}):
        assert can_run(LSTMCell(3, **options)), options
    assert can_run(BasicLSTMCell(3))

    class Own(LSTMCell):
        def step(self, *args):
            return super().step(*args)

    assert not can_run(Own(3))
    assert not can_run(LSTMCell(3, activation=np.tanh))


def test_results_are_not_overwritten_by_the_next_pass():
    layer, (params, inputs, state) = LSTM(4), case()
    first = layer_gradients(layer, params, inputs, state)
    copy = layer_gradients(layer, params, inputs, state)
    layer_gradients(layer, params, inputs * 3, state, seed=1)
    assert_trees_equal(first, copy)


@DTYPES
def test_results_that_are_held_stay_as_they_were(dtype):
    """Outputs, states and gradients, with the passes of other data and of generation behind them."""
    layer, (params, inputs, state) = LSTM(4), case(dtype=dtype)
    held = layer_gradients(layer, params, inputs, state), layer.apply(params, inputs, state=state)
    copies = [[np.array(leaf) for _, leaf in named_leaves(tree)] for tree in held]
    for factor in (3, -1):
        layer_gradients(layer, params, (inputs * factor).astype(dtype), state, seed=1)
        layer.apply(params, (inputs * factor).astype(dtype), state=state)
        layer.apply(params, inputs[:, :1], state=held[1][1])
    assert_trees_equal([[leaf for _, leaf in named_leaves(tree)] for tree in held], copies)


@DTYPES
@BOTH_SIDES
@pytest.mark.parametrize("batch", [1, 3])
def test_a_second_sweep_over_one_pass_gives_the_same_bits(batch, input_dim, dtype):
    params, inputs, state = case(batch, input_dim=input_dim, dtype=dtype)
    run = lambda x: LSTM(4).apply(params, x, state=state)[0]  # noqa: E731
    pull, outputs = make_vjp(run, inputs)
    g = np.random.default_rng(3).normal(size=outputs.shape).astype(dtype)
    first = pull(g).copy()
    pull(-2 * g)
    assert_trees_equal(pull(g), first)
    wanted = make_vjp(lambda x: LSTM(4, backprop="readable").apply(params, x, state=state)[0], inputs)[0](g)
    assert_close(first, wanted, 1e-12 if dtype == np.float64 else 1e-5)
    assert largest(wanted) > 1e-3


def test_a_jacobian_takes_one_sweep_for_every_output():
    params, inputs, state = case()
    derived, traced = (
        autograd.jacobian(lambda x, b=b: LSTM(4, backprop=b).apply(params, x, state=state)[0])(inputs)
        for b in ("fast", "autograd")
    )
    assert derived.shape == (3, 5, 4, 3, 5, 2)
    assert_close(derived, traced, 1e-12)


@DTYPES
@BOTH_SIDES
def test_a_generated_step_equals_a_differentiated_one(input_dim, dtype, monkeypatch):
    taken, original = [], fast_lstm._one_step
    monkeypatch.setattr(fast_lstm, "_one_step", lambda *args: taken.append(1) or original(*args))
    layer, (params, inputs, state) = LSTM(4, forget_bias=-0.75), case(time=1, input_dim=input_dim, dtype=dtype)
    outputs, final = layer.apply(params, inputs, state=state)
    assert taken == [1]
    (_, differentiated), _ = layer_gradients(layer, params, inputs, state)
    assert taken == [1]
    assert_trees_close((outputs, final), differentiated, 1e-14 if dtype == np.float64 else 1e-6)
    assert {leaf.dtype for leaf in (outputs, *final)} == {np.dtype(dtype)}


@DTYPES
@pytest.mark.parametrize("time", [1, 5])
def test_results_share_no_memory(time, dtype):
    params, inputs, state = case(time=time, dtype=dtype)
    outputs, final = LSTM(4).apply(params, inputs, state=state)
    arrays = [outputs, *final, inputs, *state]
    for n, a in enumerate(arrays):
        assert not any(np.shares_memory(a, b) for b in arrays[n + 1 :]), n
    kept = [np.array(leaf) for leaf in final]
    outputs[:] = 0
    assert_trees_equal(list(final), kept)


@DTYPES
def test_nan_and_infinity_are_seen(dtype):
    """From the step where it enters, in that sequence alone; in the gradient of everything it passed."""
    layer, (params, inputs, state) = LSTM(4), case(dtype=dtype)
    clean = layer.apply(params, inputs, state=state)[0]
    inputs[1, 2] = np.nan
    (loss, (outputs, final)), grads = layer_gradients(layer, params, inputs, state)
    assert np.isnan(loss)
    bad = np.isnan(outputs)
    assert bad[1, 2:].all()
    assert np.isnan([final.c[1], final.h[1]]).all()
    bad[1, 2:] = False
    assert not bad.any()
    assert_trees_equal(outputs[[0, 2]], clean[[0, 2]])
    assert np.isnan(grads["params"]["lstm_cell"]["kernel"]).all()
    state.c[0, 3] = np.inf  # stays: f is above 0; h is o times tanh(c), which is 1
    inputs[1, 2] = 0
    final = layer.apply(params, inputs, state=state)[1]
    assert final.c[0, 3] == np.inf
    assert np.isfinite(final.h).all()


@pytest.mark.parametrize("batch", [1, 3])
def test_what_one_pass_leaves_does_not_reach_the_next(batch):
    layer, (params, inputs, state) = LSTM(4), case(batch, seed=5)
    clean = layer_gradients(layer, params, inputs, state)
    with np.errstate(all="ignore"):
        for bad in (np.nan, np.inf):
            layer_gradients(layer, params, np.full_like(inputs, bad), state)
            layer(params, np.full_like(inputs, bad))
            assert_trees_equal(layer_gradients(layer, params, inputs, state), clean)


def test_passes_of_one_shape_may_be_open_at_the_same_time():
    layer, (params, inputs, _) = LSTM(4), case()
    alone = [value_and_grad(lambda p, x=x: (layer(p, x) ** 2).sum())(params) for x in (inputs, -inputs)]
    both = value_and_grad(lambda p: (layer(p, inputs) ** 2).sum() + (layer(p, -inputs) ** 2).sum())(params)
    assert both[0] == pytest.approx(alone[0][0] + alone[1][0], rel=1e-14)
    wanted = alone[0][1]["lstm_cell"]["kernel"] + alone[1][1]["lstm_cell"]["kernel"]
    assert_trees_close(both[1]["lstm_cell"]["kernel"], wanted, 1e-13)


def test_arguments_are_left_as_they_were():
    data = case()
    kept = case()
    layer_gradients(LSTM(4), *data)
    assert_trees_equal(data, kept)


def test_threads_do_not_share_a_workspace():
    layer, cases = LSTM(6), [case(units=6, time=20, seed=seed) for seed in range(4)]
    alone, found = [layer_gradients(layer, *data) for data in cases], {}

    def work(k):
        found[k] = [layer_gradients(layer, *cases[k]) for _ in range(15)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, results in found.items():
        for result in results:
            assert_trees_equal(result, alone[k])


@DTYPES
def test_two_models_trained_in_two_threads_are_those_trained_one_after_the_other(dtype):
    def train(seed):
        model = Sequential(LSTM(6), Dense(1))
        data = tuple(np.random.default_rng(seed).normal(size=(12, 15, width)).astype(dtype) for width in (2, 1))
        options = {"optimizer": Adam(0.01), "epochs": 6, "batch_size": 4, "seed": seed, "progress": False}
        return fit(model, model.init(seed, 2, dtype), losses.mse, data, **options)

    alone, together = [train(seed) for seed in range(2)], {}
    threads = [threading.Thread(target=lambda seed=seed: together.update({seed: train(seed)})) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, result in enumerate(alone):
        found = together[seed]
        assert_trees_equal((found.params, found.opt_state), (result.params, result.opt_state))
        assert found.history["loss"] == result.history["loss"]


def test_truncated_backpropagation_needs_the_memory_of_its_window(monkeypatch):
    """Sixteen times as many steps: within a tenth with windows of 50, more than four times as much without."""

    def peak(time, truncation):
        monkeypatch.setattr(loans, "_pool", Pool(loans.KEPT))
        model = Sequential(LSTM(64), Dense(1))
        params, data = model.init(0, 1), tuple(np.ones((1, time, 1), np.float32) for _ in range(2))
        tracemalloc.start()
        options = {"optimizer": SGD(0.01), "epochs": 1, "batch_size": 1, "progress": False}
        fit(model, params, losses.mse, data, tbptt=truncation, **options)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(100, tbptt(50))  # what is made once
    assert peak(1600, tbptt(50)) < 1.1 * peak(100, tbptt(50))
    assert peak(1600, None) > 4 * peak(100, None)


def test_a_layer_says_reference_where_it_is_asked_for(monkeypatch):
    calls = []
    original = bptt.lstm_backward
    monkeypatch.setattr(bptt, "lstm_backward", lambda *a, **k: calls.append(1) or original(*a, **k))
    params, inputs, state = case()
    layer_gradients(RNN(LSTMCell(4)), params, inputs, state)
    assert calls == []
    layer_gradients(RNN(LSTMCell(4), backprop="readable"), params, inputs, state)
    assert calls == [1]
