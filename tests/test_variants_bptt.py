"""The hand-derived passes of the GRU and the plain RNN: what they cover, their mirror, and second derivatives."""

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from autograd.differential_operators import make_jvp_reversemode
from helpers import assert_close, assert_trees_close, assert_trees_equal, largest, layer_gradients, named_leaves
from hypothesis import assume, given
from hypothesis import strategies as st
from test_variants import ACTIVATIONS

from minilstm import RNN, BasicRNNCell, CoupledLSTMCell, DropoutWrapper, GRUCell, gradcheck, value_and_grad
from minilstm.params import tree_leaves, tree_map
from minilstm.variants_bptt import StepGradients, derivation_of, gru_step_back, reset_after_step_back, rnn_step_back


class ResetAfterGRU(GRUCell):
    """A GRU with `reset_after`, as a class like the others here."""

    def __init__(self, units, **options):
        super().__init__(units, reset_after=True, **options)


STEPS_BACK = {GRUCell: gru_step_back, ResetAfterGRU: reset_after_step_back, BasicRNNCell: rnn_step_back}
KINDS = pytest.mark.parametrize("kind", STEPS_BACK)
BACKPROPS = pytest.mark.parametrize("backprop", ["fast", "readable", "autograd"])


def case(kind, units=4, batch=3, time=5, input_dim=2, seed=0, dtype=np.float64, **options):
    """(cell, params of a layer around it, inputs, state)."""
    rng = np.random.default_rng(seed)
    cell = kind(units, **options)
    draw = lambda *shape: rng.normal(0, 0.6, shape).astype(dtype)  # noqa: E731
    params = {cell.name: tree_map(lambda w: draw(*w.shape), cell.init(0, input_dim))}
    return cell, params, draw(batch, time, input_dim), draw(batch, units)


@KINDS
def test_a_cell_with_other_equations_is_traced(kind):
    own_step = type("Own", (kind,), {"step": lambda self, *args: kind.step(self, *args)})
    own_call = type("Own", (kind,), {"__call__": lambda self, *args: kind.__call__(self, *args)})
    assert derivation_of(kind(3)) is derivation_of(type("Same", (kind,), {})(3)) is not None
    for cell in (own_step(3), own_call(3), kind(3, activation=anp.sin), CoupledLSTMCell(3)):
        assert derivation_of(cell) is None
        assert repr(RNN(cell)).endswith("[autograd's trace]")
    assert repr(RNN(kind(3))).endswith("[hand-derived backpropagation]")


@KINDS
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_step_back_is_the_derivative_of_a_step(kind, activation):
    """Of a random product of all that it computes, with respect to all that it is given."""
    cell, params, inputs, h = case(kind, activation=activation)
    weights, x_t, dh = params[cell.name], inputs[:, 0], np.random.default_rng(1).normal(size=h.shape)
    found = STEPS_BACK[kind](cell, weights, x_t, h, cell.step(weights, x_t, h), dh)
    assert isinstance(found, StepGradients)
    product = lambda tree: anp.sum(cell.step(tree["w"], tree["x"], tree["h"]).h * dh)  # noqa: E731
    _, wanted = value_and_grad(product)({"w": weights, "x": x_t, "h": h})
    assert_close(found.dx_t, wanted["x"], 1e-14)
    assert_close(found.dh_prev, wanted["h"], 1e-14)
    shares = dict(named_leaves(wanted["w"]))
    assert_trees_close(found.weights, shares, 1e-14)
    biases = [share for name, share in shares.items() if name.endswith("bias") and name != "recurrent_bias"]
    assert_close(found.dz.sum(axis=0), np.concatenate(biases), 1e-14)
    assert largest(shares) > 1e-2


@given(
    st.sampled_from(list(STEPS_BACK)), st.sampled_from(sorted(ACTIVATIONS)), st.integers(0, 999),
    st.sampled_from([np.float64, np.float32]), st.sampled_from([None, [5, 0, 2], [5, 5, 5], [1, 1, 0]]),
    st.sampled_from([None, 0.5]),
)  # fmt: skip
def test_all_passes_agree(kind, activation, seed, dtype, lengths, keep):
    cell, params, inputs, state = case(kind, seed=seed, dtype=dtype, activation=activation)
    if keep is not None:
        cell = DropoutWrapper(cell, output_keep_prob=keep, state_keep_prob=keep)
    results = [
        layer_gradients(
            RNN(cell, backprop=backprop), params, inputs, state, seed, sequence_length=lengths,
            rng=None if keep is None else seed,
        )
        for backprop in ("fast", "readable", "autograd")
    ]  # fmt: skip
    for result in results[:2]:
        assert_trees_close(result, results[2], 1e-12 if dtype == np.float64 else 2e-5)
        assert {leaf.dtype for _, leaf in named_leaves(result)} == {np.dtype(dtype)}
        assert all(leaf.flags.c_contiguous for _, leaf in named_leaves(result[1]))
    assume(largest(results[2][1]) > 1e-4)  # there is something to disagree about


@BACKPROPS
@KINDS
def test_second_derivatives_are_those_of_the_slopes(kind, backprop):
    """The gradient of a gradient's norm, entry by entry; with lengths and masks of the state."""
    cell, params, inputs, state = case(kind, units=2, time=4, input_dim=1)
    layer = RNN(DropoutWrapper(cell, state_keep_prob=0.5), backprop=backprop)
    tree = {"params": params, "inputs": inputs, "state": state}

    def loss(tree):
        outputs, final = layer.apply(tree["params"], tree["inputs"], tree["state"], [4, 2, 0], rng=3)
        return anp.sum(outputs**2) + anp.sum(final**3)

    def norm(tree):
        return sum(anp.sum(g**2) for g in tree_leaves(value_and_grad(loss)(tree)[1]))

    second = dict(named_leaves(value_and_grad(norm)(tree)[1]))
    for name, leaf in named_leaves(tree):
        place = np.unravel_index(leaf.size // 2, leaf.shape)
        kept, values = leaf[place], []
        for move in (1e-5, -1e-5):
            leaf[place] = kept + move
            values.append(norm(tree))
        leaf[place] = kept
        assert_close(second[name][place], (values[0] - values[1]) / 2e-5, 1e-6, name)
    assert largest(second) > 1e-2


@BACKPROPS
@KINDS
def test_forward_mode_by_two_reverse_ones(kind, backprop):
    """The second sweep is over the first one's argument, after the first trace has ended."""
    cell, params, inputs, state = case(kind)
    run = lambda x: RNN(cell, backprop=backprop).apply(params, x, state)[0]  # noqa: E731
    direction = np.random.default_rng(2).normal(size=inputs.shape)
    numeric = (run(inputs + 1e-6 * direction) - run(inputs - 1e-6 * direction)) / 2e-6
    found = make_jvp_reversemode(run)(inputs)(direction)
    assert_close(found, numeric, 1e-8)
    jacobian = autograd.jacobian(run)(inputs)
    assert_close(np.tensordot(jacobian, direction, 3), found, 1e-12)


@BACKPROPS
@KINDS
def test_a_second_sweep_over_one_pass_gives_the_same_bits(kind, backprop):
    cell, params, inputs, state = case(kind)
    run = lambda x: RNN(cell, backprop=backprop).apply(params, x, state)[0]  # noqa: E731
    pull, outputs = autograd.core.make_vjp(run, inputs)
    g = np.random.default_rng(3).normal(size=outputs.shape)
    first = pull(g).copy()
    pull(-2 * g)
    assert_trees_equal(pull(g), first)
    assert largest(first) > 1e-3


@KINDS
def test_the_report_names_the_gate_and_the_step_of_a_wrong_sweep(kind):
    cell = kind(3)
    step_back = STEPS_BACK[kind]

    def backward(params, inputs, h, d_outputs, dh, wrong=-1):
        before, steps = [], []
        for x_t in inputs:
            before.append(h)
            steps.append(cell.step(params, x_t, h))
            h = steps[-1].h
        d_inputs, dz, d_params = [], [], tree_map(np.zeros_like, params)
        for t in reversed(range(len(inputs))):
            back = step_back(cell, params, inputs[t], before[t], steps[t], dh + d_outputs[t])
            dh = back.dh_prev * (1.001 if t == wrong else 1)
            d_inputs.append(back.dx_t)
            dz.append(back.dz)
            for name, share in back.weights.items():
                block, _, weight = name.rpartition("/")
                (d_params[block] if block else d_params)[weight] += share
        return d_params, np.stack(d_inputs[::-1]), dh, np.stack(dz[::-1])

    report = gradcheck.report_backward(cell, backward)
    assert report.agrees, str(report)
    gates = [row.gate for row in report.rows if row.gate]
    wanted = {GRUCell: "rurukk", ResetAfterGRU: "rukruk", BasicRNNCell: "zz"}
    assert gates == list(wanted[kind])
    report = gradcheck.report_backward(cell, lambda *args: backward(*args, wrong=4))
    assert not report.agrees
    assert report.first_wrong == [f"the sweep first goes wrong at step 3 of 0..6, gate {gates[0]}"]


def test_a_report_of_a_cell_without_gates_is_refused():
    with pytest.raises(ValueError, match=r"report_backward: cell must be an LSTMCell, .*got CoupledLSTMCell"):
        gradcheck.report_backward(CoupledLSTMCell(2), lambda *args: args)
