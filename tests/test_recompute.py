"""Sequences in segments: the same results, second derivatives too, and nothing of size time times units."""

import tracemalloc

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import RandomLoss, assert_close, assert_trees_close, largest
from hypothesis import given
from hypothesis import strategies as st
from strategies import networks
from test_tangents import direction_like, reverse_over_reverse
from test_wrappers import nested_networks

from minilstm import (
    LSTM,
    RNN,
    Bidirectional,
    Dense,
    LSTMCell,
    Sequential,
    from_config,
    hessian_vector_product,
    jvp,
    losses,
    value_and_grad,
)
from minilstm.params import tree_map

STEPS = st.sampled_from(["auto", 1, 2, 3, 50])
BACKPROPS = ("fast", "readable", "autograd")


def both(network, steps, backprop, **options):
    """(loss in one piece, loss in segments, tree)."""
    weigh, rng = RandomLoss(network.seed), getattr(network, "rng", None)

    def loss_of(recompute):
        layer = RNN(network.cell, backprop=backprop, recompute=recompute, **options)

        def loss(tree):
            results = layer.apply(tree["params"], tree["inputs"], tree["state"], network.lengths, rng)
            return weigh(list(results)), results

        return loss

    tree = {"params": {network.cell.name: network.params}, "inputs": network.inputs, "state": network.state}
    return loss_of(None), loss_of(steps), tree


@pytest.mark.parametrize("backprop", BACKPROPS)
@given(network=networks(), steps=STEPS, sequences=st.booleans(), reverse=st.booleans())
def test_segments_change_no_gradient(backprop, network, steps, sequences, reverse):
    whole, cut, tree = both(network, steps, backprop, return_sequences=sequences, reverse=reverse)
    wanted, found = (value_and_grad(loss, has_aux=True)(tree) for loss in (whole, cut))
    assert_trees_close(found, wanted, 1e-12)


@pytest.mark.parametrize("backprop", BACKPROPS)
@given(network=nested_networks(), steps=STEPS)
def test_segments_of_nested_cells_change_no_gradient(backprop, network, steps):
    """Stacks, GRUs, plain RNNs; dropout has the same masks."""
    whole, cut, tree = both(network, steps, backprop)
    wanted, found = (value_and_grad(loss, has_aux=True)(tree) for loss in (whole, cut))
    assert_trees_close(found, wanted, 1e-12)


@pytest.mark.parametrize("backprop", BACKPROPS)
@given(network=nested_networks(depth=1), steps=STEPS, sequences=st.booleans())
def test_segments_change_no_second_derivative(backprop, network, steps, sequences):
    whole, cut, tree = both(network, steps, backprop, return_sequences=sequences)
    vector = direction_like(tree, network.seed)
    wanted, found = (hessian_vector_product(loss, has_aux=True)(tree, vector) for loss in (whole, cut))
    assert_trees_close(found, wanted, 1e-11)
    only_loss = lambda tree: cut(tree)[0]  # noqa: E731
    assert_trees_close(reverse_over_reverse(only_loss, tree, vector), wanted[2], 1e-11)
    assert_close(jvp(only_loss)(tree, vector)[1], jvp(lambda tree: whole(tree)[0])(tree, vector)[1], 1e-11, "slope")


def test_a_whole_model_in_segments():
    rng = np.random.default_rng(0)

    def model(recompute):
        first = RNN(LSTMCell(4), recompute=recompute, learn_initial_state=True)
        return Sequential(first, Bidirectional(RNN(LSTMCell(3), recompute=recompute)), Dense(2))

    params = tree_map(lambda w: rng.normal(0, 0.5, w.shape), model(None).init(0, 2, np.float64))
    x, y, vector = rng.normal(size=(3, 11, 2)), rng.normal(size=(3, 11, 2)), direction_like(params, 0)

    def products(recompute):
        whole = model(recompute)
        loss = lambda p: losses.mse(whole.apply(p, x, None, [11, 4, 7])[0], y)  # noqa: E731
        return hessian_vector_product(loss)(params, vector)

    wanted, found = products(None), products(4)
    assert_trees_close(found, wanted, 1e-13)
    assert largest(wanted[2]) > 1e-3


@pytest.mark.parametrize("sequences", [True, False])
def test_in_segments_only_outputs_take_memory_that_grows_with_time(sequences):
    time, batch, units = 3000, 4, 32
    x = np.random.default_rng(0).normal(size=(batch, time, 1)).astype(np.float32)
    series = time * batch * units * 4  # bytes of one array of time times units

    def peak(recompute):
        layer = LSTM(units, recompute=recompute, return_sequences=sequences)
        params = layer.init(0, 1)
        step = value_and_grad(lambda p: anp.sum(layer(p, x) ** 2))
        step(params)
        tracemalloc.start()
        step(params)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found / series

    assert peak("auto") < (4.5 if sequences else 0.6)


def test_auto_is_about_the_square_root_of_the_steps(monkeypatch):
    counted = []
    original = RNN._run
    monkeypatch.setattr(RNN, "_run", lambda self, p, x, *rest: counted.append(len(x)) or original(self, p, x, *rest))
    for recompute, wanted in (("auto", [10] * 10), (30, [30, 30, 30, 10]), (1000, [100])):
        layer = LSTM(2, recompute=recompute)
        layer(layer.init(0, 1), np.ones((1, 100, 1), np.float32))
        assert counted == wanted
        counted.clear()


def test_the_option_is_in_the_description_only_if_it_is_set():
    assert "recompute" not in LSTM(3).config()
    assert "recompute" not in repr(LSTM(3))
    for steps in ("auto", 7):
        layer = Sequential(Bidirectional(LSTM(3, recompute=steps)))
        again = from_config(layer.config())
        assert again.layers[0].forward.recompute == again.layers[0].backward.recompute == steps
        assert f"recompute={steps!r}" in repr(LSTM(3, recompute=steps))


@pytest.mark.parametrize("bad", [0, -1, 1.5, "sqrt", True, []])
def test_a_bad_number_of_steps_is_refused(bad):
    with pytest.raises(ValueError, match="recompute must be"):
        LSTM(3, recompute=bad)
