"""One step against TensorFlow's numbers and against the equations written out a second time."""

import warnings

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from helpers import (
    assert_close,
    assert_trees_equal,
    golden,
    golden_cell,
    golden_tolerance,
    golden_variables,
    plain_cell_cases,
)
from hypothesis import given
from strategies import networks

from minilstm import (
    RNN,
    BasicLSTMCell,
    BasicRNNCell,
    CoupledLSTMCell,
    DropoutWrapper,
    GRUCell,
    LSTMCell,
    LSTMState,
    MultiRNNCell,
    ResidualWrapper,
    bptt,
    pack_gates,
    split_gates,
)
from minilstm.cells import ACTIVATIONS, clip, relu, sigmoid, tanh
from minilstm.params import flatten_names, tree_leaves, tree_map, unflatten_names
from minilstm.wrappers import masks_at


@pytest.mark.parametrize("name", [n for n in plain_cell_cases() if "sequence_length" not in golden(n)[1]])
def test_stepping_by_hand_gives_tensorflows_outputs(name):
    case, arrays = golden(name)
    cell = golden_cell(case["cell"])
    params = golden_variables(arrays)["rnn"][cell.name]
    state, outputs = LSTMState(arrays["init/c"], arrays["init/h"]), []
    for x_t in arrays["inputs"]:
        output, state = cell(params, x_t, state)
        outputs.append(output)
    tolerance = min(golden_tolerance(name, case), 2e-6)
    assert_close(outputs, arrays["out"], tolerance, "outputs")
    assert_close(state.c, arrays["final/c"], tolerance, "c")
    assert_close(state.h, arrays["final/h"], tolerance, "h")


@given(networks(lengths=False))
def test_a_step_is_the_equations(network):
    x, (c, h), p, cell = network.inputs[:, 0], network.state, network.params, network.cell
    logistic = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    phi = {"tanh": np.tanh, "sigmoid": logistic, "relu": lambda z: z * (z > 0), "linear": lambda z: z,
           "softsign": lambda z: z / (1 + abs(z))}[cell.activation]  # fmt: skip
    peep = {g: p.get(f"w_{g}_diag", np.zeros(cell.units)) for g in "ifo"}
    z = {g: x @ w[: x.shape[1]] + h @ w[x.shape[1] :] for g, w in split_gates(p["kernel"]).items()}
    z = {g: z[g] + b for g, b in split_gates(p["bias"]).items()}
    i, f = logistic(z["i"] + peep["i"] * c), logistic(z["f"] + cell.forget_bias + peep["f"] * c)
    new_c = f * c + i * phi(z["j"])
    if cell.cell_clip:
        new_c = np.minimum(np.maximum(new_c, -cell.cell_clip), cell.cell_clip)
    new_h = logistic(z["o"] + peep["o"] * new_c) * phi(new_c)
    if cell.num_proj:
        new_h = new_h @ p["projection"]["kernel"]
    if cell.proj_clip:
        new_h = np.minimum(np.maximum(new_h, -cell.proj_clip), cell.proj_clip)
    output, state = cell(p, x, (c, h))
    assert_close(state.c, new_c, 1e-14, "c")
    assert_close(output, new_h, 1e-14, "output")
    assert np.array_equal(output, state.h)
    assert not np.shares_memory(output, state.h)


def test_the_forget_bias_acts_on_the_forget_gate_and_is_not_stored():
    for forget_bias in (0.0, 1.0, -2.0):
        assert not BasicLSTMCell(3, forget_bias=forget_bias).init(0, 2)["bias"].any()
    cell, shifted = LSTMCell(2, forget_bias=1.5), LSTMCell(2, forget_bias=0.0)
    params = cell.init(0, 1, np.float64)
    moved = {**params, "bias": pack_gates(i=np.zeros(2), j=np.zeros(2), f=np.full(2, 1.5), o=np.zeros(2))}
    x, state = np.ones((1, 1)), (np.full((1, 2), 0.7), np.zeros((1, 2)))
    assert_trees_equal(cell(params, x, state), shifted(moved, x, state))
    assert np.abs(cell(params, x, state)[0] - shifted(params, x, state)[0]).min() > 0.01


def test_defaults_are_tensorflows():
    for cell in (LSTMCell(3), BasicLSTMCell(3)):
        assert (cell.forget_bias, cell.activation) == (1.0, "tanh")
        params = cell.init(0, 5)
        limit = np.sqrt(6 / (5 + 3 + 4 * 3))
        assert params["kernel"].dtype == np.float32
        assert limit * 0.9 < np.abs(params["kernel"]).max() <= limit
    assert (LSTMCell(3).name, BasicLSTMCell(3).name) == ("lstm_cell", "basic_lstm_cell")
    assert LSTMCell(3, name="mine").name == "mine"


def test_weights_have_tensorflows_names_and_shapes():
    cell = LSTMCell(6, use_peepholes=True, num_proj=4)
    params = cell.init(0, 3)
    shapes = {name: w.shape for name, w in params.items() if name != "projection"}
    assert shapes == {"kernel": (7, 24), "bias": (24,), "w_i_diag": (6,), "w_f_diag": (6,), "w_o_diag": (6,)}
    assert {name: w.shape for name, w in params["projection"].items()} == {"kernel": (6, 4)}
    assert LSTMCell(6).init(0, 3).keys() == {"kernel", "bias"}
    assert cell.state_size == LSTMState(6, 4)
    assert cell.output_size == 4
    zero = cell.zero_state(5, np.float64)
    assert (zero.c.shape, zero.h.shape, zero.c.dtype) == ((5, 6), (5, 4), np.float64)


def test_a_seed_makes_the_same_weights_again():
    cell = LSTMCell(4, num_proj=3, use_peepholes=True)
    assert_trees_equal(cell.init(7, 2), cell.init(7, 2))
    assert_trees_equal(cell.init([7, 1], 2), cell.init(np.random.default_rng([7, 1]), 2))
    assert np.abs(cell.init(7, 2)["kernel"] - cell.init(8, 2)["kernel"]).max() > 0.1


@pytest.mark.parametrize(
    "cell",
    [
        LSTMCell(4, forget_bias=0.5, use_peepholes=True, cell_clip=2.0, num_proj=3, proj_clip=1.0, activation="relu",
                 initializer={"name": "uniform", "limit": 0.2}, bias_initializer="glorot_uniform", name="mine"),
        BasicLSTMCell(3, forget_bias=-1.0, activation=tanh, initializer={"name": "orthogonal", "gain": 0.5}),
    ],
    ids=["LSTMCell", "BasicLSTMCell"],
)  # fmt: skip
def test_a_cell_comes_back_from_its_config(cell):
    config = cell.config()
    again = type(cell)(**{k: v for k, v in config.items() if k != "cell"})
    assert config["cell"] == type(cell).__name__
    assert again.config() == config
    for option in ("units", "forget_bias", "use_peepholes", "cell_clip", "num_proj", "proj_clip", "name"):
        assert getattr(again, option) == getattr(cell, option)
    assert_trees_equal(again.init(0, 2), cell.init(0, 2))


def test_repr_shows_what_differs_from_the_default():
    assert repr(LSTMCell(3)) == "LSTMCell(3)"
    assert repr(LSTMCell(3, num_proj=2, forget_bias=0.5)) == "LSTMCell(3, forget_bias=0.5, num_proj=2)"


# --- TensorFlow's layout --------------------------------------------------------------------------------------


def test_gates_are_packed_in_the_order_i_j_f_o():
    i, j, f, o = (np.full((2, 3), k) for k in range(4))
    kernel = pack_gates(o=o, f=f, j=j, i=i)
    assert kernel.tolist() == [[0] * 3 + [1] * 3 + [2] * 3 + [3] * 3] * 2
    assert list(split_gates(kernel)) == ["i", "j", "f", "o"]
    assert_trees_equal(split_gates(kernel), {"i": i, "j": j, "f": f, "o": o})
    assert {g: v.tolist() for g, v in split_gates(np.arange(4)).items()} == {"i": [0], "j": [1], "f": [2], "o": [3]}


# --- nonlinearities -------------------------------------------------------------------------------------------


def test_sigmoid_keeps_full_relative_precision_and_never_overflows():
    x = np.array([-1e4, -745.0, -100.0, -30.0, -1.0, 0.0, 1.0, 30.0, 100.0, 1e4])
    with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise", divide="raise"):
        warnings.simplefilter("error")
        y = sigmoid(x)
        gradient = autograd.elementwise_grad(sigmoid)(x)
    exact = np.array([0, np.exp(-745.0), np.exp(-100.0), 9.357622968839299e-14, 0.2689414213699951, 0.5,
                      0.7310585786300049, 0.9999999999999064, 1, 1])  # fmt: skip
    np.testing.assert_allclose(y, exact, rtol=1e-15)
    np.testing.assert_allclose(gradient[:7], (exact * (1 - exact))[:7], rtol=1e-14)
    np.testing.assert_allclose(gradient[7:], [9.357e-14, 0, 0], atol=2e-16)
    assert sigmoid(np.float32([-90, 90])).dtype == np.float32


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_the_derivative_from_the_answer_is_the_derivative(name):
    activation = ACTIVATIONS[name]
    x = np.array([-3.0, -1.2, -0.3, 0.4, 1.7, 5.0])
    numeric = (activation.function(x + 1e-6) - activation.function(x - 1e-6)) / 2e-6
    np.testing.assert_allclose(activation.derivative(activation.function(x)), numeric, atol=1e-9)
    np.testing.assert_allclose(autograd.elementwise_grad(activation.function)(x), numeric, atol=1e-9)


def test_gradients_at_kinks_are_tensorflows():
    assert autograd.elementwise_grad(relu)(np.array([-1.0, 0.0, 2.0])).tolist() == [0, 0, 1]
    inside = autograd.elementwise_grad(lambda x: clip(x, 0.5))(np.array([-0.6, -0.5, 0.0, 0.5, 0.51]))
    assert inside.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("function", [sigmoid, tanh], ids=["sigmoid", "tanh"])
def test_nonlinearities_can_be_differentiated_twice(function):
    x = np.array([-1.3, 0.2, 2.0])
    second = autograd.elementwise_grad(autograd.elementwise_grad(function))(x)
    y = function(x)
    wanted = y * (1 - y) * (1 - 2 * y) if function is sigmoid else -2 * y * (1 - y**2)
    np.testing.assert_allclose(second, wanted, rtol=1e-12)


def test_an_own_activation_works_and_is_traced():
    cell = LSTMCell(2, activation=lambda x: anp.sin(x))
    params = cell.init(0, 1, np.float64)
    output, state = cell(params, np.ones((1, 1)), cell.zero_state(1, np.float64))
    z = split_gates(np.array([[1.0, 0, 0]]) @ params["kernel"])
    c = np.sin(z["j"]) / (1 + np.exp(-z["i"]))
    np.testing.assert_allclose(state.c, c, rtol=1e-14)
    np.testing.assert_allclose(output, np.sin(c) / (1 + np.exp(-z["o"])), rtol=1e-14)


# --- what a cell is called with -------------------------------------------------------------------------------

CELLS = {
    "LSTM": LSTMCell(3),
    "every option": LSTMCell(3, use_peepholes=True, cell_clip=1.0, num_proj=2, proj_clip=1.0),
    "RNN": BasicRNNCell(3),
    "GRU": GRUCell(3),
    "GRU, reset after": GRUCell(3, reset_after=True),
    "coupled": CoupledLSTMCell(3),
    "stack": MultiRNNCell([GRUCell(3), LSTMCell(2)]),
    "dropout": DropoutWrapper(LSTMCell(3), output_keep_prob=0.5),
    "residual": ResidualWrapper(LSTMCell(2)),
}
X = np.random.default_rng(3).normal(size=(4, 2))
BAD_INPUTS = {
    "masked": (np.ma.masked_array(X, X > 0), "x_t: a masked array"),
    "complex": (X * 1j, "x_t: wanted numbers, got dtype complex"),
    "whole numbers": (X.astype(int), "x_t must be floating point, got int64"),
    "text": (X.astype(str), "x_t: wanted numbers, got dtype <U"),
    "one row": (X[0], r"x_t must be \[batch, 2 features\], got shape \(2,\)"),
    "a sequence": (X[None], r"x_t must be \[batch, 2 features\], got shape \(1, 4, 2\)"),
    "another width": (X[:, :1], r"x_t must be \[batch, 2 features\], got shape \(4, 1\)"),
    "no row": (X[:0], r"x_t must be \[batch, 2 features\], got shape \(0, 2\)"),
    "another batch": (X[:1], "state must have shapes"),
}
BAD_STATES = {
    "one for all": lambda x: x[:1],
    "one number for all units": lambda x: x[:, :1],
    "a number": lambda x: 0.0,
    "masked": lambda x: np.ma.masked_array(x, x == 0),
    "complex": lambda x: x * 1j,
    "another batch": lambda x: np.concatenate([x, x]),
}
BAD_WEIGHTS = {
    "a number": lambda w: w.sum(),
    "one number for all units": lambda w: w[..., :1],
    "one gate for all": lambda w: w[..., : w.shape[-1] // 4 or 1],
    "one more axis": lambda w: w[None],
    "a row for each sequence": lambda w: np.broadcast_to(w, (4, *w.shape)),
    "masked": lambda w: np.ma.masked_array(w, w > 0),
    "complex": lambda w: w * 1j,
    "a list": lambda w: w.tolist(),
}
EVERY_CELL = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)


@EVERY_CELL
@pytest.mark.parametrize(("x", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_inputs_that_numpy_would_broadcast_or_strip_are_refused_by_name(cell, x, message):
    with pytest.raises(ValueError, match=f"Cell: {message}"):
        cell(cell.init(0, 2, np.float64), x, cell.zero_state(4, np.float64))


@EVERY_CELL
@pytest.mark.parametrize("change", BAD_STATES.values(), ids=BAD_STATES)
def test_each_part_of_a_state_must_be_one_row_a_sequence(cell, change):
    params, zeros = cell.init(0, 2, np.float64), cell.zero_state(4, np.float64)
    leaves = tree_leaves(zeros)
    for part in leaves:
        state = tree_map(lambda leaf, part=part: change(leaf) if leaf is part else leaf, zeros)
        with pytest.raises(ValueError, match=r"Cell: state(:| must have shapes)"):
            cell(params, X, state)
        with pytest.raises(ValueError, match=r"RNN.apply: state(:| must have shapes)"):
            RNN(cell).apply({cell.name: params}, X[:, None], state)


@EVERY_CELL
@pytest.mark.parametrize("change", BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_each_weight_must_have_the_shape_that_init_makes(cell, change):
    params, zeros = cell.init(0, 2, np.float64), cell.zero_state(4, np.float64)
    for name, weight in flatten_names(params).items():
        changed = tree_map(lambda leaf, weight=weight: change(leaf) if leaf is weight else leaf, params)
        last = name.split("/")[-1]
        with pytest.raises(ValueError, match=rf"Cell: (params: .*{last} must |x_t must be \[batch, . features)"):
            cell(changed, X, zeros)
        missing = unflatten_names({k: w for k, w in flatten_names(params).items() if k != name})
        with pytest.raises(ValueError, match=r"Cell: params: .* is missing"):
            cell(missing, X, zeros)
    if not isinstance(cell, MultiRNNCell):
        with pytest.raises(ValueError, match=r"Cell: params: .* is missing"):
            cell({}, X, zeros)


@EVERY_CELL
def test_lists_and_other_dtypes_become_arrays_of_the_weights_dtype(cell):
    params, zeros = cell.init(0, 2), cell.zero_state(4)
    wanted = cell(params, X.astype(np.float32), zeros)
    for x, state in ((X.tolist(), zeros), (X, tree_map(lambda leaf: leaf.astype(np.float64), zeros))):
        found = cell(params, x, state)
        assert {leaf.dtype for leaf in tree_leaves(found)} == {np.dtype(np.float32)}
        assert_trees_equal(found, wanted)


def test_a_stack_needs_the_state_of_each_of_its_cells():
    stack = CELLS["stack"]
    params, (first, second) = stack.init(0, 2, np.float64), stack.zero_state(4, np.float64)
    three = first, second, first
    for state, got in (((first,), "1 parts"), (three, "3 parts"), (None, "NoneType"), (first, "ndarray")):
        with pytest.raises(ValueError, match=f"MultiRNNCell: state does not fit the cell: wanted 2 parts, got {got}"):
            stack(params, X, state)
    with pytest.raises(ValueError, match="MultiRNNCell: state must have shapes"):
        stack(params, X, (first, (first, first)))
    output, state = stack(params, X, [first, list(second)])
    assert_trees_equal((output, state), stack(params, X, (first, second)))


def test_masks_are_those_of_one_step():
    cell = DropoutWrapper(LSTMCell(3), input_keep_prob=0.5, output_keep_prob=0.5, state_keep_prob=0.5)
    params, state = cell.init(0, 2, np.float64), cell.zero_state(4, np.float64)
    masks = cell.draw_masks(np.random.default_rng(0), 4, 5, np.float64, input_dim=2)
    of_one = masks_at(masks, 0)
    cell(params, X, state, of_one)
    cell(params, X.tolist(), state, of_one)
    for wrong in (masks, *({**of_one, name: masks[name]} for name in ("input", "output", "state"))):
        with pytest.raises(ValueError, match=r"DropoutWrapper: masks must be those of one step, wanted shape \(4, .\)"):
            cell(params, X, state, wrong)


@pytest.mark.parametrize(("x", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_a_whole_sequence_is_looked_at_in_the_same_way(x, message):
    cell = LSTMCell(3)
    params, state = cell.init(0, 2, np.float64), cell.zero_state(4, np.float64)
    message = message.replace("x_t", "inputs").replace(r"\[batch", r"\[time, batch")
    message = message.replace(r"\(", r"\(1, ").replace(r",\)", r"\)")  # its shape
    with pytest.raises(ValueError, match=f"bptt.sequence: {message}"):
        bptt.sequence(cell, params, x[None], state)
    with pytest.raises(ValueError, match=r"bptt\.sequence: state must have shapes"):
        bptt.sequence(cell, params, X[None], LSTMState(state.c[:1], state.h))
    with pytest.raises(ValueError, match=r"bptt\.sequence: sequence_length must be from 0 to 1"):
        bptt.sequence(cell, params, X[None], state, [1, 0, 1, 2])
    with pytest.raises(ValueError, match=r"bptt\.sequence: h_masks must have shape \(1, 4, 3\), got \(1, 4, 1\)"):
        bptt.sequence(cell, params, X[None], state, None, np.ones((1, 4, 1)))


class TwoMatrices(LSTMCell):
    """A cell with weights of its own that keeps the call of its parent."""

    def init(self, seed, input_dim=None, dtype=np.float32):
        kernel = super().init(seed, input_dim, dtype)["kernel"]
        return {"w_x": kernel[:input_dim], "w_h": kernel[input_dim:]}

    def step(self, params, x_t, c, h):
        kernel = anp.concatenate([params["w_x"], params["w_h"]])
        return super().step({"kernel": kernel, "bias": np.zeros(kernel.shape[1], kernel.dtype)}, x_t, c, h)


class NoWeights(LSTMCell):
    """A cell without weights that keeps the call of its parent."""

    def init(self, seed, input_dim=None, dtype=np.float32):
        return {}

    def step(self, params, x_t, c, h):
        kernel = np.ones((x_t.shape[1] + self.units, 4 * self.units), x_t.dtype)
        return super().step({"kernel": kernel, "bias": np.zeros(kernel.shape[1], kernel.dtype)}, x_t, c, h)


TwoMatrices.__name__ = NoWeights.__name__ = "here"  # a message begins with a name that tests/messages.py knows


@pytest.mark.parametrize("cell", [TwoMatrices(3), NoWeights(3)])
def test_a_subclass_with_weights_of_its_own_keeps_the_call(cell):
    params, state = cell.init(0, 2, np.float64), cell.zero_state(4, np.float64)
    output, _ = cell(params, X, state)
    in_a_layer = RNN(cell).apply({cell.name: params}, X[:, None])[0][:, 0]
    assert_close(in_a_layer, output, 1e-15 if params else 1e-6)  # without weights a layer computes in float32
    with pytest.raises(ValueError, match=r"x_t must be \[batch, features\], got shape \(2,\)"):
        cell(params, X[0], state)
    with pytest.raises(ValueError, match="state must have shapes"):
        cell(params, X[:1], state)
