"""The report agrees with right gradients and, of wrong ones, names the weight, the gate and the step."""

import inspect
import itertools

import numpy as np
import pytest
from autograd.extend import defvjp, primitive

from minilstm import (
    LSTM,
    RNN,
    BasicLSTMCell,
    Dense,
    Dropout,
    Embedding,
    GRUCell,
    MultiRNNCell,
    Sequential,
    bptt,
    gradcheck,
)
from minilstm.second import tangents

MODELS = {
    "plain": Sequential(LSTM(4), Dense(1)),
    "full": Sequential(
        LSTM(4, use_peepholes=True, num_proj=3, cell_clip=2.0, proj_clip=1.5, forget_bias=-0.5), Dense(2)
    ),
    "basic": Sequential(RNN(BasicLSTMCell(3, activation="sigmoid")), Dense(1)),
    "stacked": Sequential(LSTM(3), Dropout(0.5), LSTM(2, reverse=True), Dense(1)),
    "learned state": Sequential(LSTM(3, learn_initial_state=True)),
    "last output": Sequential(LSTM(3, return_sequences=False), Dense(2, activation="tanh")),
    "embedding": Sequential(Embedding(5, 3), LSTM(3), Dense(5)),
    "multi": Sequential(RNN(MultiRNNCell([BasicLSTMCell(3), GRUCell(2)])), Dense(1)),
    "no recurrence": Sequential(Dense(3, activation="tanh"), Dense(1)),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_right_gradients_agree(model):
    for lengths in (None, [4, 0, 2]):
        report = gradcheck.report(model, time=4, sequence_length=lengths, entries=8)
        assert report.agrees, str(report)
        assert report.first_wrong == []
        assert "all agree" in str(report)


def test_the_table_has_a_row_for_every_weight_and_gate_and_something_in_each():
    report = gradcheck.report(MODELS["full"], time=4, entries=5)
    rows = [(row.name, row.gate) for row in report.rows]
    cell = "rnn/lstm_cell"
    assert {(f"{cell}/{weight}", gate) for weight in ("kernel", "bias") for gate in "ijfo"} <= set(rows)
    others = {"w_i_diag", "w_f_diag", "w_o_diag", "projection/kernel"}
    assert {name for name, gate in rows if not gate} >= {f"{cell}/{name}" for name in others}
    assert {"dense/kernel", "dense/bias", "inputs"} <= {name for name, _ in rows}
    assert len([name for name, _ in rows if "initial" in name]) == 2
    assert all(row.largest > 1e-3 for row in report.rows)
    assert all(1 <= row.entries <= 5 for row in report.rows)
    assert str(report).count("ok") == len(rows)


def test_a_layer_alone_and_given_params_are_checked():
    params = MODELS["plain"].init(3, 6)
    report = gradcheck.report(MODELS["plain"], params, time=3, entries=4)
    assert report.agrees
    assert gradcheck.report(LSTM(3), time=3, entries=4).agrees
    assert params["rnn"]["lstm_cell"]["kernel"].dtype == np.float32
    assert not params["dense"]["bias"].any()  # replaced in the check, not here


# --- planted bugs ---------------------------------------------------------------------------------------------
# They are put into minilstm/bptt.py, so the layers say "readable": "fast" may run a faster module.

REFERENCE = Sequential(LSTM(4, backprop="readable"), Dense(1))
FULL = Sequential(LSTM(4, use_peepholes=True, num_proj=3, cell_clip=2.0, proj_clip=1.5, backprop="readable"), Dense(2))


def plant(monkeypatch, change):
    """Apply `change(sweep)` to the result of the hand-derived pass."""
    original = bptt.lstm_backward

    def wrong(d_outputs, *args, **kwargs):
        return change(original(d_outputs, *args, **kwargs))

    monkeypatch.setattr(bptt, "lstm_backward", wrong)


def wrong_rows(report):
    return {(row.name, row.gate) for row in report.rows if not row.agrees}


def scaled(k, columns, factor):
    def change(sweep):
        weights = list(sweep.weights)
        weights[k] = weights[k].copy()
        weights[k][..., columns] *= factor
        return sweep._replace(weights=weights)

    return change


@pytest.mark.parametrize(("gate", "columns"), [(gate, slice(4 * k, 4 * k + 4)) for k, gate in enumerate("ijfo")])
def test_a_kernel_gradient_off_by_a_twentieth_of_a_percent_is_named(gate, columns, monkeypatch):
    plant(monkeypatch, scaled(0, columns, 1.0005))
    report = gradcheck.report(REFERENCE, time=4, entries=16)
    assert not report.agrees
    assert wrong_rows(report) == {("rnn/lstm_cell/kernel", gate)}
    assert report.worst.startswith("rnn/lstm_cell/kernel[")
    assert "WRONG" in str(report)
    assert "they disagree" in str(report)
    assert "every step's gates agree" in report.first_wrong[0]  # the sweep is right, the sum over time is not


@pytest.mark.parametrize(
    ("k", "name"), [(1, "bias"), (2, "w_i_diag"), (3, "w_f_diag"), (4, "w_o_diag"), (5, "projection/kernel")]
)
def test_any_other_weights_gradient_off_by_as_much_is_named(k, name, monkeypatch):
    plant(monkeypatch, scaled(k, slice(None), 1.0005))
    wrong = wrong_rows(gradcheck.report(FULL, time=4, entries=6))
    assert {row_name for row_name, _ in wrong} == {f"rnn/lstm_cell/{name}"}


@pytest.mark.parametrize("field", ["inputs", "c", "h"])
def test_wrong_gradients_of_inputs_and_states_are_named(field, monkeypatch):
    plant(monkeypatch, lambda sweep: sweep._replace(**{field: getattr(sweep, field) * 1.0005}))
    wrong = wrong_rows(gradcheck.report(REFERENCE, time=4, entries=6))
    assert wrong == {("inputs" if field == "inputs" else f"rnn initial {field}", "")}


def rewrite(monkeypatch, old, new):
    """The hand-derived pass with one of its lines changed."""
    source = inspect.getsource(bptt.step_back) + "\n\n" + inspect.getsource(bptt.lstm_backward)
    assert source.count(old) == 1, old
    namespace = {**vars(bptt), "calls": itertools.count()}
    exec(source.replace(old, new), namespace)
    monkeypatch.setattr(bptt, "lstm_backward", namespace["lstm_backward"])


@pytest.mark.parametrize(
    ("old", "new", "step", "gate"),
    [
        ("dh = dh + d_outputs[t]", "dh = 1.0 * d_outputs[t]", 4, "i"),  # what comes from the next step is dropped
        ("dc, dh = back.dc_prev, back.dh_prev", "dc, dh = back.dc_prev, 0 * back.dh_prev", 3, "i"),
        ("dc_prev = dc * f", "dc_prev = dc", 3, "i"),
        ("i=dz_i, j=dz_j, f=dz_f, o=dz_o", "i=dz_i, j=dz_f, f=dz_j, o=dz_o", 4, "j"),  # two gates are swapped
        ("i=dz_i, j=dz_j, f=dz_f, o=dz_o", "i=dz_i, j=dz_j, f=dz_o, o=dz_f", 4, "f"),
        ("dz_f = df * f * (1 - f)", "dz_f = df * f", 4, "f"),
        ("dz_o = do * o * (1 - o)", "dz_o = do * o * (1 - o if next(calls) % 5 != 2 else 1 + o)", 2, "o"),
        ("dz_j = dj * derivative(j)", "dz_j = dj * derivative(a)", 4, "j"),
        ("dc = dc + da * derivative(a)", "dc = dc - da * derivative(a)", 4, "i"),
    ],
)
def test_a_wrong_line_is_caught_at_the_gate_and_step_where_it_first_shows(old, new, step, gate, monkeypatch):
    rewrite(monkeypatch, old, new)
    report = gradcheck.report(REFERENCE, time=5, entries=6)
    assert not report.agrees
    assert report.first_wrong == [f"rnn: the sweep first goes wrong at step {step} of 0..4, gate {gate}"]
    assert report.first_wrong[0] in str(report)


def test_a_swap_of_two_gates_is_wrong_in_these_two_gates_alone(monkeypatch):
    def swap(sweep):
        weights = list(sweep.weights)
        weights[1] = weights[1][[*range(4, 8), *range(4), *range(8, 16)]]
        return sweep._replace(weights=weights)

    plant(monkeypatch, swap)
    assert wrong_rows(gradcheck.report(REFERENCE, time=5)) == {("rnn/lstm_cell/bias", gate) for gate in "ij"}


def test_an_error_that_central_differences_cannot_see_is_seen_in_the_trace(monkeypatch):
    plant(monkeypatch, scaled(1, slice(None), 1 + 1e-8))
    report = gradcheck.report(REFERENCE, time=4, entries=6)
    assert {name for name, _ in wrong_rows(report)} == {"rnn/lstm_cell/bias"}
    assert all(row.central_error < gradcheck.CENTRAL_TOLERANCE for row in report.rows)


def test_an_error_that_the_trace_shares_is_seen_in_central_differences():
    @primitive
    def cube(x):
        return x**3

    defvjp(cube, lambda ans, x: lambda g: g * 3.01 * x**2)
    report = gradcheck.report(Sequential(LSTM(3), Dense(2, activation=cube)), time=4, entries=6)
    assert not report.agrees
    assert all(row.trace_error < gradcheck.TRACE_TOLERANCE for row in report.rows)
    assert ("dense/kernel", "") in wrong_rows(report)


def test_nan_in_a_gradient_never_agrees(monkeypatch):
    plant(monkeypatch, lambda sweep: sweep._replace(inputs=sweep.inputs * np.nan))
    report = gradcheck.report(REFERENCE, time=3, entries=3)
    assert not report.agrees
    assert wrong_rows(report) == {("inputs", "")}


def test_the_error_norm_is_relative_above_one_and_absolute_below():
    assert gradcheck.error([1.0, 2.0], [1.0, 4.0]) == 0.5
    assert gradcheck.error([0.001], [0.002]) == pytest.approx(0.001)
    assert gradcheck.error([np.inf], [np.inf]) == np.inf
    assert gradcheck.error([], []) == 0


# --- a user's own backward pass -------------------------------------------------------------------------------


def own_backward(change=lambda results: results):
    """A backward pass in the form `report_backward` takes: minilstm's own sweep, with its results changed."""

    def backward(params, inputs, state, d_outputs, d_state):
        weights = [params["kernel"], params["bias"], None, None, None, None]
        options = {"cell": BasicLSTMCell(4), "tape": bptt.Tape()}
        bptt.lstm_sequence(inputs, *state, *weights, **options)
        sweep = bptt.lstm_backward(d_outputs, *d_state, inputs, *weights, **options)
        d_params = {"kernel": sweep.weights[0], "bias": sweep.weights[1]}
        return change([d_params, sweep.inputs, (sweep.c, sweep.h), sweep.dz.copy()])

    return backward


def test_a_right_backward_pass_of_ones_own_agrees():
    report = gradcheck.report_backward(BasicLSTMCell(4), own_backward(), time=5)
    assert report.agrees, str(report)
    assert report.first_wrong == []
    assert [(row.name, row.gate) for row in report.rows] == [
        *((name, gate) for name in ("kernel", "bias") for gate in "ijfo"),
        ("inputs", ""), ("initial c", ""), ("initial h", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(("k", "wrong"), [(1, {("inputs", "")}), (2, {("initial c", ""), ("initial h", "")})])
def test_a_wrong_result_of_a_backward_pass_is_named(k, wrong):
    def change(results):
        results[k] = tuple(part * 1.0005 for part in results[k]) if k == 2 else results[k] * 1.0005
        return results

    report = gradcheck.report_backward(BasicLSTMCell(4), own_backward(change), time=5)
    assert wrong_rows(report) == wrong
    assert "every step's gates agree" in report.first_wrong[0]


def test_a_wrong_dz_and_what_follows_from_it_is_named_with_its_step_and_gate():
    def change(results):
        results[3][2, :, 8:12] *= 1.0005
        results[0]["bias"] = results[3].sum(axis=(0, 1))
        return results

    report = gradcheck.report_backward(BasicLSTMCell(4), own_backward(change), time=5)
    assert wrong_rows(report) == {("bias", "f")}
    assert report.first_wrong == ["the sweep first goes wrong at step 2 of 0..4, gate f"]


@pytest.mark.parametrize(("k", "name"), [(1, "inputs"), (3, "z")])
def test_a_derivative_of_the_wrong_shape_is_an_error_that_names_it(k, name):
    def change(results):
        results[k] = results[k][1:]
        return results

    with pytest.raises(ValueError, match=f"the derivative of {name} must be"):
        gradcheck.report_backward(BasicLSTMCell(4), own_backward(change), time=5)


def test_a_wrong_second_derivative_is_caught(monkeypatch):
    """The gradient is right; the table says which column is not."""
    original = tangents.step_back_tangent

    def wrong(*args):
        back, moved = original(*args)
        moved.weights["bias"] = moved.weights["bias"] * 1.0005
        return back, moved

    layer = LSTM(3, use_peepholes=True, backprop="readable")
    fine = gradcheck.report(layer, input_dim=2)
    assert fine.agrees
    assert all(0 <= row.second_error < 1e-12 for row in fine.rows)
    monkeypatch.setattr(tangents, "step_back_tangent", wrong)
    found = gradcheck.report(layer, input_dim=2)
    assert {row.name for row in found.rows if not row.agrees} == {"rnn/lstm_cell/bias"}
    assert all(row.trace_error < 1e-12 for row in found.rows)
    assert "second" in str(found).splitlines()[0]
