"""Bidirectional: two RNNs side by side, each output at the step it belongs to."""

import json

import numpy as np
import pytest
from helpers import assert_close, assert_trees_close, assert_trees_equal, layer_gradients, named_leaves
from hypothesis import given
from test_wrappers import BACKPROPS, nested_networks

from minilstm import (
    LSTM,
    RNN,
    BasicLSTMCell,
    Bidirectional,
    Dense,
    DropoutWrapper,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    Sequential,
    bptt,
    from_config,
    gradcheck,
)
from minilstm.params import tree_map

RNG = np.random.default_rng(31)
INPUTS = RNG.normal(size=(3, 5, 2))
LENGTHS = [3, 5, 0]
FORWARD, BACKWARD = LSTMCell(3, forget_bias=0.37, use_peepholes=True), BasicLSTMCell(4, forget_bias=-1.3)


def random_params(layer, seed=0):
    rng = np.random.default_rng(seed)
    return tree_map(lambda w: rng.normal(0, 0.6, w.shape), layer.init(0, 2, np.float64))


def random_state():
    return tuple(tree_map(lambda s: RNG.normal(size=s.shape), c.zero_state(3, np.float64)) for c in (FORWARD, BACKWARD))


@pytest.mark.parametrize("backprop", BACKPROPS)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
def test_each_direction_is_run_alone_and_both_are_joined_at_the_right_steps(lengths, backprop):
    """The backward half is computed here sequence by sequence, flipped by hand."""
    layer = Bidirectional(RNN(FORWARD, backprop=backprop), RNN(BACKWARD, backprop=backprop))
    params, state = random_params(layer), random_state()
    outputs, final = layer.apply(params, INPUTS, state, lengths)
    assert outputs.shape == (3, 5, 7)
    for row, length in enumerate(lengths or [5] * 3):
        one = slice(row, row + 1)
        fw_state, bw_state = (tree_map(lambda s, one=one: s[one], part) for part in state)
        if length:
            valid = INPUTS[one, :length]
            fw, fw_state = RNN(FORWARD, backprop="autograd").apply(params["fw"], valid, fw_state)
            bw, bw_state = RNN(BACKWARD, backprop="autograd").apply(params["bw"], valid[:, ::-1], bw_state)
            assert_close(outputs[row, :length, :3], fw[0], 1e-13, f"forward, row {row}")
            assert_close(outputs[row, :length, 3:], bw[0, ::-1], 1e-13, f"backward, row {row}")
        assert not outputs[row, length:].any()
        found = tree_map(lambda s, one=one: s[one], final)
        assert_trees_close(found, (fw_state, bw_state), 1e-13)


@pytest.mark.parametrize("options", [{}, {"return_sequences": False}, {"time_major": True},
                                     {"learn_initial_state": True}], ids=str)  # fmt: skip
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
def test_every_path_has_the_same_gradients(lengths, options):
    inputs = np.swapaxes(INPUTS, 0, 1) if options.get("time_major") else INPUTS
    results = []
    for backprop in BACKPROPS:
        layer = Bidirectional(*(RNN(cell, backprop=backprop, **options) for cell in (FORWARD, BACKWARD)))
        results.append(layer_gradients(layer, random_params(layer), inputs, sequence_length=lengths))
    assert_trees_close(results[0], results[2], 1e-12)
    assert_trees_close(results[1], results[2], 1e-12)
    assert all(np.abs(grad).max() > 1e-3 for _, grad in named_leaves(results[0][1]))


@pytest.mark.parametrize("lengths", [None, [4, 0, 2]], ids=["full", "lengths"])
@pytest.mark.parametrize("options", [{}, {"return_sequences": False}, {"learn_initial_state": True}], ids=str)
def test_gradcheck_agrees(options, lengths):
    model = Sequential(Bidirectional(*(RNN(cell, **options) for cell in (FORWARD, BACKWARD))), Dense(1))
    report = gradcheck.report(model, time=4, sequence_length=lengths, entries=6)
    assert report.agrees, str(report)


def test_gradcheck_compares_both_directions_with_the_trace(monkeypatch):
    """A fault too small for central differences."""
    original = bptt.lstm_backward

    def wrong(*args, **kwargs):
        sweep = original(*args, **kwargs)
        return sweep._replace(weights=[None if w is None else w * (1 + 1e-8) for w in sweep.weights])

    monkeypatch.setattr(bptt, "lstm_backward", wrong)
    model = Sequential(Bidirectional(*(RNN(cell, backprop="readable") for cell in (FORWARD, BACKWARD))))
    wrong_rows = {row.name for row in gradcheck.report(model, time=4, entries=4).rows if not row.agrees}
    for way, cell in (("fw", FORWARD), ("bw", BACKWARD)):
        assert f"bidirectional_rnn/{way}/{cell.name}/bias" in wrong_rows


def test_the_last_outputs_are_those_of_the_last_valid_step_of_each_direction():
    whole, last = (
        Bidirectional(RNN(FORWARD, return_sequences=every), RNN(BACKWARD, return_sequences=every))
        for every in (True, False)
    )
    params = random_params(whole)
    for lengths in (None, LENGTHS):
        everything, state = whole.apply(params, INPUTS, sequence_length=lengths)
        outputs, same = last.apply(params, INPUTS, sequence_length=lengths)
        assert_trees_equal(same, state)
        for row, length in enumerate(lengths or [5] * 3):
            assert_trees_equal(outputs[row, :3], everything[row, max(length, 1) - 1, :3])
            assert_trees_equal(outputs[row, 3:], everything[row, 0, 3:])
            assert outputs[row].any() == (length > 0)


def test_time_major_is_the_same_with_the_axes_swapped():
    batch_major = Bidirectional(FORWARD, BACKWARD)
    time_major = Bidirectional(RNN(FORWARD, time_major=True), RNN(BACKWARD, time_major=True))
    params, state = random_params(batch_major), random_state()
    a = batch_major.apply(params, INPUTS, state, LENGTHS)
    b = time_major.apply(params, np.swapaxes(INPUTS, 0, 1), state, LENGTHS)
    assert_trees_equal((np.swapaxes(b[0], 0, 1), b[1]), a)


@given(nested_networks(lengths=True))
def test_any_nested_cell_goes_both_ways(network):
    """The backward half of the same weights is the forward one of the flipped inputs."""
    layer = Bidirectional(network.cell)
    params = {network.cell.name: network.params}
    both, (fw_state, bw_state) = layer.apply({"fw": params, "bw": params}, network.inputs, (network.state,) * 2)
    width = network.cell.output_size
    forward, wanted = RNN(network.cell).apply(params, network.inputs, network.state)
    flipped, bw_wanted = RNN(network.cell).apply(params, network.inputs[:, ::-1], network.state)
    assert_close(both[..., :width], forward, 1e-13)
    assert_close(both[..., width:], flipped[:, ::-1], 1e-13)
    assert_trees_close((fw_state, bw_state), (wanted, bw_wanted), 1e-13)


def test_one_cell_given_makes_two_sets_of_weights():
    layer = Bidirectional(LSTMCell(3))
    params = layer.init(0, 2)
    fw, bw = (params[way]["lstm_cell"]["kernel"] for way in ("fw", "bw"))
    assert np.abs(fw - bw).max() > 0.1
    assert layer.output_dim(2) == 6


def test_directions_draw_masks_of_their_own():
    layer = Bidirectional(DropoutWrapper(GRUCell(40), output_keep_prob=0.5))
    params = random_params(layer)
    outputs = layer(params, INPUTS, rng=3)
    assert ((outputs[..., :40] == 0) != (outputs[..., 40:] == 0)).any()
    assert_trees_equal(layer(params, INPUTS, rng=3), outputs)
    assert abs((outputs == 0).mean() - 0.5) < 0.1
    assert layer(params, INPUTS).all()


def test_options_of_the_given_layers_are_kept_and_the_direction_is_set():
    layer = Bidirectional(LSTM(3, backprop="readable", learn_initial_state=True, reverse=True), GRUCell(2))
    assert (layer.forward.reverse, layer.backward.reverse) == (False, True)
    assert (layer.forward.backprop, layer.forward.learn_initial_state) == ("readable", True)
    assert (layer.backward.backprop, layer.backward.learn_initial_state) == ("fast", False)


@pytest.mark.parametrize("option", ["return_sequences", "time_major"])
def test_directions_that_do_not_fit_together_are_refused(option):
    with pytest.raises(ValueError, match=f"Bidirectional: {option} must be the same in both directions"):
        Bidirectional(RNN(GRUCell(3), **{option: True}), RNN(GRUCell(3), **{option: False}))


def test_parameters_of_one_direction_alone_are_refused():
    layer = Bidirectional(GRUCell(3))
    params = layer.init(0, 2)
    for missing in ("fw", "bw"):
        with pytest.raises(ValueError, match=f"params must hold '{missing}'"):
            layer({way: weights for way, weights in params.items() if way != missing}, INPUTS)


def test_its_state_in_a_model_is_the_pair_and_goes_on():
    model = Sequential(Bidirectional(FORWARD, MultiRNNCell([GRUCell(2), LSTMCell(3)])), Dense(1))
    params = model.init(0, 2, np.float64)
    _, state = model.apply(params, INPUTS, sequence_length=[0, 0, 0])
    assert state.keys() == {"bidirectional_rnn"}
    assert_trees_equal(state["bidirectional_rnn"], tuple(
        way.cell.zero_state(3, np.float64) for way in (model.layers[0].forward, model.layers[0].backward)
    ))  # fmt: skip
    moved = tree_map(lambda s: s + 0.5, state)
    assert np.abs(model(params, INPUTS, state=moved) - model(params, INPUTS)).min() > 1e-4
    assert model.input_dim(params) == 2


def test_it_comes_back_from_its_description():
    model = Sequential(
        Bidirectional(RNN(FORWARD, learn_initial_state=True, return_sequences=False),
                      RNN(DropoutWrapper(BACKWARD, input_keep_prob=0.5), return_sequences=False), name="enc/both"),
        Dense(2),
    )  # fmt: skip
    again = from_config(json.loads(json.dumps(model.config())))
    assert again.config() == model.config()
    params = random_params(model)
    assert_trees_equal(again(params, INPUTS, rng=4), model(params, INPUTS, rng=4))
    assert "hand-derived" in repr(model.layers[0])
