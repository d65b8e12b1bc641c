"""The fast layout of the plain cell: equal to the readable pass, and what its kept workspaces must never do."""

import threading

import numpy as np
import pytest
from helpers import assert_trees_close, assert_trees_equal, largest, layer_gradients
from hypothesis import given
from hypothesis import strategies as st
from strategies import FORGET_BIASES

from minilstm import LSTM, RNN, BasicLSTMCell, LSTMCell, LSTMState, bptt, value_and_grad
from minilstm.kernels import FOLD_INPUTS, applies


def case(batch=3, time=5, input_dim=2, units=4, seed=0, dtype=np.float64):
    """(params, inputs, state) of a plain layer."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(0, 0.6, shape).astype(dtype)  # noqa: E731
    params = {"lstm_cell": {"kernel": draw(input_dim + units, 4 * units), "bias": draw(4 * units)}}
    return params, draw(batch, time, input_dim), LSTMState(draw(batch, units), draw(batch, units))


SIZES = st.tuples(
    st.integers(1, 5), st.integers(1, 12), st.sampled_from([1, 2, FOLD_INPUTS, FOLD_INPUTS + 1, 20]), st.integers(1, 7)
)


@given(SIZES, FORGET_BIASES, st.integers(0, 999), st.sampled_from([np.float64, np.float32]))
def test_the_fast_pass_equals_the_reference(sizes, forget_bias, seed, dtype):
    data = case(*sizes, seed, dtype)
    fast, reference = (
        layer_gradients(LSTM(sizes[3], forget_bias=forget_bias, backprop=backprop), *data, seed)
        for backprop in ("bptt", "reference")
    )
    assert_trees_close(fast, reference, 1e-12 if dtype == np.float64 else 1e-5)
    assert largest(reference[1]) > 1e-3


def test_long_sequences_are_worked_off_in_pieces_that_fit_together():
    """Pieces of 3, 3 and 1 steps, and of 204 and 96: the factors of a piece take 256 kB at most."""
    data = case(batch=16, time=7, input_dim=3, units=128)
    fast, reference = (layer_gradients(LSTM(128, backprop=b), *data) for b in ("bptt", "reference"))
    assert_trees_close(fast, reference, 1e-12)
    data = case(batch=4, time=300, input_dim=1, units=8)
    fast, reference = (layer_gradients(LSTM(8, backprop=b), *data) for b in ("bptt", "reference"))
    assert_trees_close(fast, reference, 1e-11)


def test_it_runs_plain_cells_alone():
    assert applies(LSTMCell(3, forget_bias=0.0))
    assert applies(BasicLSTMCell(3))
    for options in ({"use_peepholes": True}, {"cell_clip": 1.0}, {"num_proj": 2}, {"activation": "relu"}):
        assert not applies(LSTMCell(3, **options)), options

    class Own(LSTMCell):
        def step(self, *args):
            return super().step(*args)

    assert not applies(Own(3))


def test_results_are_not_overwritten_by_the_next_pass():
    layer, (params, inputs, state) = LSTM(4), case()
    first = layer_gradients(layer, params, inputs, state)
    copy = layer_gradients(layer, params, inputs, state)
    layer_gradients(layer, params, inputs * 3, state, seed=1)
    assert_trees_equal(first, copy)


def test_what_one_pass_leaves_does_not_reach_the_next():
    layer, (params, inputs, state) = LSTM(4), case(seed=5)
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


def test_a_layer_says_reference_where_it_is_asked_for(monkeypatch):
    calls = []
    original = bptt.lstm_backward
    monkeypatch.setattr(bptt, "lstm_backward", lambda *a, **k: calls.append(1) or original(*a, **k))
    params, inputs, state = case()
    layer_gradients(RNN(LSTMCell(4)), params, inputs, state)
    assert calls == []
    layer_gradients(RNN(LSTMCell(4), backprop="reference"), params, inputs, state)
    assert calls == [1]
