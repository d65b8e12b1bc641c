"""Cells made of cells: what a dropout mask touches, what it never does, and one gradient whatever the nesting."""

import inspect
import json
from typing import NamedTuple

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import RandomLoss, assert_close, assert_trees_close, assert_trees_equal, largest, layer_gradients
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minilstm import (
    RNN,
    BasicLSTMCell,
    BasicRNNCell,
    CoupledLSTMCell,
    Dense,
    DropoutWrapper,
    GRUCell,
    LSTMCell,
    LSTMState,
    MultiRNNCell,
    ResidualWrapper,
    Sequential,
    from_config,
    gradcheck,
)
from minilstm.fast import lstm as fast_lstm
from minilstm.params import tree_leaves, tree_map
from minilstm.wrappers import draw_masks

BACKPROPS = ("fast", "readable", "autograd")
FORGET_BIASES = (-1.3, 0.37, 0.5, 2.0, 1.0, 0.0)

# --- random nested cells --------------------------------------------------------------------------------------


class Nested(NamedTuple):
    """A cell with everything it needs, in float64; `rng` is a dropout seed or None; inputs [batch, time, features]."""

    cell: object
    params: dict
    inputs: np.ndarray
    state: object
    lengths: object
    rng: object
    seed: int

    def astype(self, dtype):
        """The same in another dtype."""
        params, inputs, state = tree_map(lambda x: x.astype(dtype), (self.params, self.inputs, self.state))
        return self._replace(params=params, inputs=inputs, state=state)


@st.composite
def nested_networks(draw, smooth=False, tensorflow=False, lengths=True, dropout=True, depth=3, cell=None):
    """`smooth`: nothing with a kink; `tensorflow`: only what it has, with forget biases that are neither 0 nor 1.

    Without `dropout` no rng is drawn, and for TensorFlow, whose wrappers act always, no probability below 1. All but
    the sizes comes from a seed: of choices made one by one hypothesis would too often take the first.
    """
    batch, time, input_dim = (draw(st.integers(1, n)) for n in (3, 5, 3))
    seed = draw(st.integers(0, 2**20))
    rng = np.random.default_rng([seed, batch, time, input_dim])
    if cell is None:
        cell = CellDrawer(rng, smooth, tensorflow, dropout or not tensorflow).draw(input_dim, None, depth)
    params = tree_map(lambda w: rng.normal(0, 0.6, w.shape), cell.init(0, input_dim, np.float64))
    inputs = rng.normal(size=(batch, time, input_dim))
    state = tree_map(lambda s: rng.normal(0, 0.7, s.shape), cell.zero_state(batch, np.float64))
    given = None
    if lengths == "always" or (lengths and rng.random() < 0.5):
        given = rng.integers(0, time + 1, batch)
    return Nested(cell, params, inputs, state, given, seed if dropout and rng.random() < 0.7 else None, seed)


class CellDrawer:
    """Draws nested cells, every choice with the same probability."""

    def __init__(self, rng, smooth, tensorflow, drops):
        self.rng, self.smooth, self.tensorflow = rng, smooth, tensorflow
        self.keeps = (0.6, 1.0, 0.85) if drops else (1.0,)

    def one_of(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def draw(self, input_dim, width, depth):
        """A cell that takes `input_dim` features and gives `width`, or any number if that is None."""
        kinds = ["multi", "dropout"] if depth == 3 else ["one", "dropout", "multi"] if depth else ["one"]
        if depth and width in (None, input_dim):
            kinds.append("residual")
        kind = self.one_of(*kinds)
        if kind == "one":
            return self.draw_one(width)
        if kind == "residual":
            return ResidualWrapper(self.draw(input_dim, input_dim, depth - 1))
        if kind == "dropout":
            inner = self.draw(input_dim, width, depth - 1)
            keeps = {f"{part}_keep_prob": self.one_of(*self.keeps) for part in ("input", "output", "state")}
            return DropoutWrapper(inner, variational_recurrent=self.one_of(True, False), **keeps)
        cells, number = [], self.one_of(1, 2, 2, 3)
        for n in range(number):
            cells.append(self.draw(input_dim, width if n == number - 1 else None, depth - 1))
            input_dim = cells[-1].output_size
        return MultiRNNCell(cells)

    def draw_one(self, width):
        """One cell without wrappers."""
        units = width or self.one_of(1, 2, 3, 4)
        kind = self.one_of("lstm", "lstm", "lstm", "basic", "gru", "rnn", *["coupled"] * (not self.tensorflow))
        options = {"activation": self.one_of("tanh", "sigmoid", "softsign", *["relu"] * (not self.smooth))}
        options["name"] = self.one_of(None, None, "mine")
        if kind in ("gru", "rnn"):
            return {"gru": GRUCell, "rnn": BasicRNNCell}[kind](units, **options)
        options["forget_bias"] = self.one_of(*(FORGET_BIASES[:4] if self.tensorflow else FORGET_BIASES))
        if kind != "lstm":
            return {"basic": BasicLSTMCell, "coupled": CoupledLSTMCell}[kind](units, **options)
        clips = (None,) if self.smooth else (None, 0.4, 0.15)
        options["use_peepholes"] = self.one_of(True, False)
        options["cell_clip"] = self.one_of(*clips)
        if self.one_of(True, False):
            options["num_proj"], units = units, self.one_of(1, 2, 3, 4)
            options["proj_clip"] = self.one_of(*clips)
        return LSTMCell(units, **options)


def nested_gradients(network, backprop, **options):
    """((loss, (outputs, state)), gradients) of a layer around the network's cell; the options are the layer's."""
    layer = RNN(network.cell, backprop=backprop, **options)
    params = {network.cell.name: network.params}
    call = {"sequence_length": network.lengths, "rng": network.rng}
    return layer_gradients(layer, params, network.inputs, network.state, network.seed, **call)


def slope(network, grads):
    """(the derivative that `grads` tell, the numeric one) of the loss in a random direction.

    A difference across a bend (relu, a clip, the second derivative of softsign) is not the slope. So three steps are
    tried, and the one that agrees best counts; a wrong derivative agrees with none.
    """
    tree = {"params": {network.cell.name: network.params}, "inputs": network.inputs, "state": network.state}
    rng = np.random.default_rng(network.seed + 1)
    direction = tree_map(lambda x: rng.normal(size=x.shape), tree)
    layer, call = RNN(network.cell), {"sequence_length": network.lengths, "rng": network.rng}

    def loss(distance):
        moved = tree_map(lambda x, d: x + distance * d, tree, direction)
        results = layer.apply(moved["params"], moved["inputs"], moved["state"], **call)
        return RandomLoss(network.seed)(list(results))

    told = sum(float(np.sum(g * d)) for g, d in zip(tree_leaves(grads), tree_leaves(direction), strict=True))
    slopes = [(loss(step) - loss(-step)) / (2 * step) for step in (1e-5, 1e-6, 1e-7)]
    return told, min(slopes, key=lambda numeric: abs(numeric - told))


@settings(max_examples=2 * settings().max_examples)
@given(nested_networks())
def test_any_nesting_has_the_same_numbers_on_every_path(network):
    (loss, values), traced = nested_gradients(network, "autograd")
    assume(largest(traced["params"]) > 1e-4)  # there is something to disagree about
    for backprop in ("fast", "readable"):
        (derived_loss, derived_values), derived = nested_gradients(network, backprop)
        assert_close(derived_loss, loss, 1e-10, "loss")
        assert_trees_close(derived_values, values, 1e-10)
        assert_trees_close(derived, traced, 1e-10)


@given(nested_networks(smooth=True))
def test_any_nestings_gradient_is_the_slope(network):
    for backprop in BACKPROPS:
        told, numeric = slope(network, nested_gradients(network, backprop)[1])
        assert_close(told, numeric, 1e-6, backprop)


@settings(max_examples=max(8, settings().max_examples // 4))
@given(nested_networks(smooth=True, dropout=False, depth=2))
def test_gradcheck_agrees_for_any_nesting(network):
    model = Sequential(RNN(network.cell), Dense(1))
    report = gradcheck.report(model, input_dim=network.inputs.shape[2], batch=2, time=3, entries=2, seed=network.seed)
    assert report.agrees, str(report)


@given(nested_networks())
def test_any_nesting_keeps_the_dtype(network):
    for backprop in BACKPROPS:
        (_, values), grads = nested_gradients(network.astype(np.float32), backprop)
        assert {leaf.dtype for leaf in tree_leaves([values, grads])} == {np.dtype(np.float32)}


@given(nested_networks())
def test_a_nested_cell_comes_back_from_its_description(network):
    model = Sequential(RNN(network.cell, name="enc/inner"))
    again = from_config(json.loads(json.dumps(model.config())))
    assert again.config() == model.config()
    params = {"enc": {"inner": {network.cell.name: network.params}}}
    assert_trees_equal(
        again.apply(params, network.inputs, rng=network.rng), model.apply(params, network.inputs, rng=network.rng)
    )


# --- dropout --------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(12)
INPUTS = RNG.normal(size=(4, 6, 2))


def weights(cell, input_dim=2, seed=0):
    """Weights that differ everywhere, under the cell's name."""
    rng = np.random.default_rng(seed)
    return {cell.name: tree_map(lambda w: rng.normal(0, 0.6, w.shape), cell.init(0, input_dim, np.float64))}


def copier(width):
    """A cell whose output and state are its input, and the weights that make it so."""
    cell = BasicRNNCell(width, activation="linear")
    kernel = np.concatenate([np.eye(width), np.zeros((width, width))])
    return cell, {cell.name: {"kernel": kernel, "bias": np.zeros(width)}}


@pytest.mark.parametrize("backprop", BACKPROPS)
@pytest.mark.parametrize("variational", [False, True])
def test_a_dropped_out_cell_is_the_cell_between_its_masks(variational, backprop):
    inner = LSTMCell(3, forget_bias=-0.4, use_peepholes=True, num_proj=2)
    cell = DropoutWrapper(
        inner, input_keep_prob=0.6, output_keep_prob=0.7, state_keep_prob=0.8, variational_recurrent=variational
    )
    params = weights(cell)
    masks = cell.draw_masks(np.random.default_rng(9), 4, 6, np.float64, input_dim=2)
    assert masks["state"].c is None
    c, h = state = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 2))
    outputs = []
    for t in range(6):
        output, (c, h) = inner(params["lstm_cell"], INPUTS[:, t] * masks["input"][t], (c, h))
        outputs.append(output * masks["output"][t])
        h = h * masks["state"].h[t]
    found, final = RNN(cell, backprop=backprop).apply(params, INPUTS, state, rng=9)
    assert_close(found, np.stack(outputs, axis=1), 1e-14, "outputs")
    assert_trees_close(final, LSTMState(c, h), 1e-14)


@pytest.mark.parametrize("backprop", BACKPROPS)
def test_without_an_rng_nothing_is_dropped(backprop):
    inner = LSTMCell(3, forget_bias=0.37)
    cell = DropoutWrapper(inner, input_keep_prob=0.1, output_keep_prob=0.1, state_keep_prob=0.1)
    params = weights(cell)
    bare = RNN(inner, backprop=backprop).apply(params, INPUTS)
    assert_trees_equal(RNN(cell, backprop=backprop).apply(params, INPUTS), bare)
    assert np.abs(RNN(cell, backprop=backprop).apply(params, INPUTS, rng=1)[0] - bare[0]).max() > 0.01
    all_kept = RNN(DropoutWrapper(inner), backprop=backprop).apply(params, INPUTS, rng=1)
    assert_trees_close(all_kept, bare, 1e-14)
    step = params["lstm_cell"], INPUTS[:, 0], inner.zero_state(4, np.float64)
    assert_trees_equal(cell(*step), inner(*step))


@pytest.mark.parametrize("backprop", BACKPROPS)
@pytest.mark.parametrize("part", ["input", "output", "state"])
@pytest.mark.parametrize("keep", [0.25, 0.8])
def test_the_share_that_is_kept_is_scaled_by_its_inverse(keep, part, backprop):
    inner, params = copier(50)
    cell = DropoutWrapper(inner, **{f"{part}_keep_prob": keep})
    outputs, state = RNN(cell, backprop=backprop).apply(params, np.ones((20, 9, 50)), rng=[3, 1])
    dropped = state if part == "state" else outputs
    assert set(np.unique(dropped)) == {0, 1 / keep}
    assert abs((dropped != 0).mean() - keep) < 5 * np.sqrt(keep * (1 - keep) / dropped.size)
    if part == "state":
        assert (outputs == 1).all()
    if part == "output":
        assert (state == 1).all()


@pytest.mark.parametrize("backprop", BACKPROPS)
@pytest.mark.parametrize(
    "inner", [LSTMCell(4, forget_bias=0.5), CoupledLSTMCell(4), GRUCell(4), LSTMCell(4, num_proj=3)], ids=repr
)
def test_state_dropout_acts_on_the_h_that_is_carried_and_on_nothing_else(inner, backprop):
    cell = DropoutWrapper(inner, state_keep_prob=0.5)
    params = weights(cell)
    bare, undropped = RNN(inner, backprop=backprop).apply(params, INPUTS[:, :1])
    outputs, state = RNN(cell, backprop=backprop).apply(params, INPUTS[:, :1], rng=7)
    assert_close(outputs, bare, 1e-14, "outputs")
    if isinstance(state, LSTMState):
        assert_close(state.c, undropped.c, 1e-14, "c")
        state, undropped = state.h, undropped.h
    factor = state / undropped
    assert_close(factor * (factor - 2), np.zeros(factor.shape), 1e-14)  # 0 or 2
    assert 0 < (factor != 0).mean() < 1
    later = RNN(cell, backprop=backprop).apply(params, INPUTS, rng=7)[0]
    assert np.abs(later - RNN(inner, backprop=backprop).apply(params, INPUTS)[0])[:, 1:].max() > 0.01


@pytest.mark.parametrize("part", ["input", "output", "state"])
def test_a_variational_mask_is_the_same_at_every_step_and_another_for_every_sequence(part):
    for variational in (True, False):
        cell = DropoutWrapper(GRUCell(40), variational_recurrent=variational, **{f"{part}_keep_prob": 0.5})
        mask = cell.draw_masks(np.random.default_rng(2), 8, 5, np.float32, input_dim=40)[part]
        assert mask.shape == (5, 8, 40)
        assert mask.dtype == np.float32
        steps = {row.tobytes() for row in mask}
        assert len(steps) == (1 if variational else 5)
        assert len({row.tobytes() for row in mask[0]}) == 8


def test_input_output_and_state_masks_are_different_draws():
    cell = DropoutWrapper(GRUCell(30), input_keep_prob=0.5, output_keep_prob=0.5, state_keep_prob=0.5)
    masks = MultiRNNCell([cell, DropoutWrapper(GRUCell(30), input_keep_prob=0.5, output_keep_prob=0.5)]).draw_masks(
        np.random.default_rng(0), 3, 4, np.float64, input_dim=30
    )
    assert len({leaf.tobytes() for leaf in tree_leaves(masks)}) == 5


def test_float32_and_float64_drop_the_same_entries():
    cell = DropoutWrapper(LSTMCell(5), input_keep_prob=0.3, output_keep_prob=0.6, state_keep_prob=0.7)
    wide, narrow = (cell.draw_masks(np.random.default_rng(4), 3, 4, d, input_dim=2) for d in (np.float64, np.float32))
    assert_trees_close(narrow, wide, 1e-7)
    assert {leaf.dtype for leaf in tree_leaves(narrow)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("seed", [5, [5, 0, 17], np.array([3, 1])])
def test_a_seed_makes_apply_a_pure_function(seed):
    inner = [BasicLSTMCell(3, forget_bias=0.37), LSTMCell(4, forget_bias=-1.0)]
    layer = RNN(MultiRNNCell([DropoutWrapper(cell, output_keep_prob=0.5) for cell in inner]))
    params = weights(layer.cell)
    assert_trees_equal(layer.apply(params, INPUTS, rng=seed), layer.apply(params, INPUTS, rng=seed))
    assert np.abs(layer(params, INPUTS, rng=seed) - layer(params, INPUTS, rng=99)).max() > 0.01
    generator = np.random.default_rng(seed)
    assert_trees_equal(layer(params, INPUTS, rng=generator), layer(params, INPUTS, rng=seed))
    assert np.abs(layer(params, INPUTS, rng=generator) - layer(params, INPUTS, rng=seed)).max() > 0.01  # it moves on


@pytest.mark.parametrize("keep", [0, 1.5, -0.1, float("nan")])
@pytest.mark.parametrize("part", ["input", "output", "state"])
def test_what_is_no_probability_is_refused(part, keep):
    with pytest.raises(ValueError, match=rf"DropoutWrapper: {part}_keep_prob must be in \(0, 1\], got {keep}"):
        DropoutWrapper(LSTMCell(3), **{f"{part}_keep_prob": keep})


def test_masks_of_the_input_need_its_width():
    cell = DropoutWrapper(LSTMCell(3), input_keep_prob=0.5)
    with pytest.raises(ValueError, match="needs input_dim"):
        cell.draw_masks(np.random.default_rng(0), 2, 3, np.float32)


# --- residual -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backprop", BACKPROPS)
def test_a_residual_wrapper_adds_the_input_to_the_output_alone(backprop):
    inner = LSTMCell(5, num_proj=2, forget_bias=-0.3)
    params = weights(inner)
    for lengths in (None, [6, 0, 3, 1]):
        bare, state = RNN(inner, backprop=backprop).apply(params, INPUTS, sequence_length=lengths)
        outputs, final = RNN(ResidualWrapper(inner), backprop=backprop).apply(params, INPUTS, sequence_length=lengths)
        live = np.arange(6) < np.array(lengths or [6] * 4)[:, None]
        assert_close(outputs, bare + INPUTS * live[..., None], 1e-15, "outputs")
        assert_trees_equal(final, state)


def test_a_residual_wrapper_needs_equal_widths():
    with pytest.raises(ValueError, match="input_dim must be the cell's output size 3, got 2"):
        ResidualWrapper(LSTMCell(3)).init(0, 2)
    with pytest.raises(ValueError, match="input_dim must be the cell's output size 4, got 3"):
        MultiRNNCell([LSTMCell(3), ResidualWrapper(LSTMCell(4))]).init(0, 2)


@pytest.mark.parametrize("backprop", BACKPROPS)
def test_the_order_of_wrappers_is_the_order_in_which_they_act(backprop):
    inner, params = copier(30)
    ones = np.ones((3, 4, 30))

    def values(cell):
        return set(np.unique(RNN(cell, backprop=backprop)(params, ones, rng=0)))

    output, both = {"output_keep_prob": 0.5}, {"input_keep_prob": 0.5}
    assert values(ResidualWrapper(DropoutWrapper(inner, **output))) == {1, 3}  # x + mask * out
    assert values(DropoutWrapper(ResidualWrapper(inner), **output)) == {0, 4}  # mask * (x + out)
    assert values(ResidualWrapper(DropoutWrapper(inner, **both))) == {1, 3}  # x + out(mask * x)
    assert values(DropoutWrapper(ResidualWrapper(inner), **both)) == {0, 4}  # mask * x + out(mask * x)
    assert values(DropoutWrapper(DropoutWrapper(inner, **output), **output)) == {0, 4}


# --- stacks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backprop", BACKPROPS)
def test_a_stack_of_cells_is_a_stack_of_layers(backprop):
    cells = LSTMCell(3, num_proj=4, use_peepholes=True, forget_bias=0.37), GRUCell(2), BasicLSTMCell(3, forget_bias=-1)
    stack = MultiRNNCell(cells)
    params = weights(stack)["multi_rnn_cell"]
    states = tree_map(lambda s: RNG.normal(size=s.shape), stack.zero_state(4, np.float64))
    outputs, finals = INPUTS, []
    for n, cell in enumerate(cells):
        outputs, final = RNN(cell, backprop="autograd").apply(params[f"cell_{n}"], outputs, states[n])
        finals.append(final)
    found = RNN(stack, backprop=backprop).apply({"multi_rnn_cell": params}, INPUTS, states)
    assert isinstance(found[1], tuple)
    assert_trees_close(found, (outputs, tuple(finals)), 1e-13)


def test_the_layers_of_a_stack_start_from_different_weights():
    params = MultiRNNCell([LSTMCell(4) for _ in range(3)]).init(0, 4)
    kernels = [params[f"cell_{n}"]["lstm_cell"]["kernel"] for n in range(3)]
    assert len({kernel.tobytes() for kernel in kernels}) == 3


def test_a_stack_without_cells_is_refused():
    with pytest.raises(ValueError, match="at least one cell"):
        MultiRNNCell([])


def zaremba(forget_biases=(0.37, -0.6), keep=0.5):
    return MultiRNNCell([DropoutWrapper(BasicLSTMCell(4, forget_bias=b), output_keep_prob=keep) for b in forget_biases])


@pytest.mark.parametrize("backprop", BACKPROPS)
def test_zarembas_lstm_drops_out_between_the_layers_alone(backprop):
    """Against two bare layers, with the masks multiplied in by hand between them and behind the second."""
    cell = zaremba()
    params = weights(cell)
    first, second = cell.draw_masks(np.random.default_rng(5), 4, 6, np.float64, input_dim=2)
    assert not tree_leaves([masks[part] for masks in (first, second) for part in ("input", "state", "cell")])
    between, behind = (np.swapaxes(masks["output"], 0, 1) for masks in (first, second))
    bare = [RNN(BasicLSTMCell(4, forget_bias=b), backprop="autograd") for b in (0.37, -0.6)]

    def by_hand(params, inputs):
        a, state_a = bare[0].apply(params["cell_0"], inputs)
        b, state_b = bare[1].apply(params["cell_1"], a * between)
        return b * behind, (state_a, state_b)

    class ByHand:
        apply = staticmethod(lambda params, inputs, state=None, **_: by_hand(params["multi_rnn_cell"], inputs))

    wanted = layer_gradients(ByHand, params, INPUTS)
    found = layer_gradients(RNN(cell, backprop=backprop), params, INPUTS, rng=5)
    assert_trees_close(found, wanted, 1e-12)


@pytest.mark.parametrize("backprop", BACKPROPS)
def test_zarembas_dropout_never_touches_the_recurrent_path(backprop):
    """However much is dropped, the first layer goes through the very states of one that drops nothing."""
    params = weights(zaremba())
    for time in range(1, 7):
        kept, dropped = (
            RNN(zaremba(keep=keep), backprop=backprop).apply(params, INPUTS[:, :time], rng=8)[1] for keep in (1.0, 0.1)
        )
        assert_trees_equal(dropped[0], kept[0])
    all_dropped = RNN(zaremba(keep=1e-12), backprop=backprop)
    outputs, state = all_dropped.apply(params, INPUTS, rng=8)
    assert not outputs.any()
    second = RNN(BasicLSTMCell(4, forget_bias=-0.6))
    silent, alone = second.apply(params["multi_rnn_cell"]["cell_1"], np.zeros((4, 6, 4)))
    assert_trees_close(state[1], alone, 1e-14)  # the second layer still remembers by itself
    assert np.abs(silent).max() > 0.1


def test_dropout_keeps_the_fast_path(monkeypatch):
    """Masks between whole sequences are nothing to a kernel, and it takes masks of the carried h."""
    calls, original = [], fast_lstm.fast_sequence
    monkeypatch.setattr(fast_lstm, "fast_sequence", lambda *a, **k: calls.append(1) or original(*a, **k))
    cells = BasicLSTMCell(4, forget_bias=0.37), ResidualWrapper(LSTMCell(4, forget_bias=-0.6))
    dropping = {"input_keep_prob": 0.5, "output_keep_prob": 0.5, "variational_recurrent": True}
    stack = MultiRNNCell([DropoutWrapper(cell, **dropping) for cell in cells])
    layer = RNN(DropoutWrapper(stack, output_keep_prob=0.5))
    params = weights(layer.cell)
    layer.apply(params, INPUTS, rng=1)
    assert len(calls) == 2
    RNN(DropoutWrapper(cells[0], state_keep_prob=0.5)).apply(weights(cells[0]), INPUTS, rng=1)
    assert len(calls) == 3


def test_repr_shows_wrappers_and_which_path_each_stack_takes():
    assert "DropoutWrapper(BasicLSTMCell(4, forget_bias=0.37), output_keep_prob=0.5)" in repr(RNN(zaremba()))
    assert repr(RNN(zaremba())).endswith("[hand-derived backpropagation]")
    assert repr(RNN(ResidualWrapper(GRUCell(3)))) == "RNN(ResidualWrapper(GRUCell(3))) [hand-derived backpropagation]"
    traced = repr(RNN(ResidualWrapper(CoupledLSTMCell(3))))
    assert traced == "RNN(ResidualWrapper(CoupledLSTMCell(3))) [autograd's trace]"
    mixed = repr(RNN(MultiRNNCell([LSTMCell(3), CoupledLSTMCell(3)])))
    assert mixed.endswith("[hand-derived backpropagation for some cells, autograd's trace for the others]")
    assert repr(RNN(zaremba(), backprop="autograd")).endswith("[autograd's trace]")


@given(network=nested_networks(cell=MultiRNNCell([LSTMCell(3, forget_bias=0.37), GRUCell(2)])))
def test_an_lstm_under_a_gru_has_the_gradient_of_the_trace(network):
    results = [nested_gradients(network, backprop) for backprop in BACKPROPS]
    for result in results[:2]:
        assert_trees_close(result, results[2], 1e-11)


# --- a cell of one's own --------------------------------------------------------------------------------------


class Leaky:
    """The least that a cell must have: h_t = h_{t-1} / 2 + tanh(x_t @ kernel)."""

    name, output_size, state_size = "leaky", 3, 3

    def zero_state(self, batch, dtype=np.float32):
        return np.zeros((batch, 3), dtype)

    def init(self, seed, input_dim=None, dtype=np.float32):
        return {"kernel": np.random.default_rng(seed).normal(size=(input_dim, 3)).astype(dtype)}

    def __call__(self, params, x_t, state):
        h = state / 2 + anp.tanh(anp.dot(x_t, params["kernel"]))
        return h, h


class Dropping(Leaky):
    """The same with masks of its own; four arguments, as the contract has it."""

    name = "dropping"

    def draw_masks(self, rng, batch, time, dtype):
        return (rng.random((time, batch, 3)) < 0.5).astype(dtype)

    def __call__(self, params, x_t, state, masks=None):
        output, state = super().__call__(params, x_t, state)
        return (output if masks is None else output * masks), state


def leaky_by_hand(kernel, inputs):
    h, outputs = np.zeros((len(inputs), 3)), []
    for t in range(inputs.shape[1]):
        h = h / 2 + np.tanh(inputs[:, t] @ kernel)
        outputs.append(h)
    return np.stack(outputs, axis=1)


@pytest.mark.parametrize("backprop", BACKPROPS)
@pytest.mark.parametrize("cell", [Leaky(), Dropping()], ids=["Leaky", "Dropping"])
def test_a_cell_of_ones_own_runs_by_the_trace(cell, backprop):
    layer = RNN(cell, backprop=backprop)
    assert repr(layer).endswith("[autograd's trace]")
    assert not layer.uses_derivation
    params = layer.init(0, 2, np.float64)
    outputs, state = layer.apply(params, INPUTS)
    assert_close(outputs, leaky_by_hand(params[cell.name]["kernel"], INPUTS), 1e-14)
    assert_trees_equal(state, outputs[:, -1])
    network = Nested(cell, params[cell.name], INPUTS, RNG.normal(size=(4, 3)), np.array([3, 6, 0, 1]), 3, 3)
    told, numeric = slope(network, nested_gradients(network, backprop)[1])
    assert_close(told, numeric, 1e-7)
    assert abs(told) > 0.1


@pytest.mark.parametrize("backprop", BACKPROPS)
def test_a_cells_own_masks_are_drawn_once_before_the_loop(backprop):
    cell = Dropping()
    assert "input_dim" not in inspect.signature(cell.draw_masks).parameters
    layer = RNN(cell, backprop=backprop)
    params = layer.init(0, 2, np.float64)
    masks = draw_masks(cell, np.random.default_rng(6), 4, 6, np.float64, 2)
    wanted = leaky_by_hand(params["dropping"]["kernel"], INPUTS) * np.swapaxes(masks, 0, 1)
    assert_close(layer(params, INPUTS, rng=6), wanted, 1e-14)


@pytest.mark.parametrize("backprop", BACKPROPS)
@pytest.mark.parametrize(
    "make",
    [
        lambda: DropoutWrapper(Leaky(), output_keep_prob=0.5, state_keep_prob=0.5),
        lambda: DropoutWrapper(Dropping(), input_keep_prob=0.5),
        lambda: ResidualWrapper(Leaky()),
        lambda: MultiRNNCell([Leaky(), LSTMCell(2, forget_bias=0.37), Dropping()]),
        lambda: MultiRNNCell([LSTMCell(2, forget_bias=-0.5), DropoutWrapper(Leaky(), output_keep_prob=0.5)]),
    ],
    ids=["dropout", "dropout of its own", "residual", "first of a stack", "last of a stack"],
)
def test_a_cell_of_ones_own_stands_in_every_wrapper(make, backprop):
    cell, inputs = make(), np.random.default_rng(1).normal(size=(4, 5, 3))
    state = tree_map(lambda s: RNG.normal(size=s.shape), cell.zero_state(4, np.float64))
    network = Nested(cell, weights(cell, 3)[cell.name], inputs, state, np.array([5, 0, 2, 4]), 2, 2)
    found, traced = nested_gradients(network, backprop), nested_gradients(network, "autograd")
    assert_trees_close(found, traced, 1e-11)
    told, numeric = slope(network, found[1])
    assert_close(told, numeric, 1e-7)
