"""The permutations of the gates: each against numbers that say which gate they belong to, and there and back."""

import numpy as np
import pytest
from helpers import assert_trees_equal
from hypothesis import given
from hypothesis import strategies as st

from minilstm import GRUCell, LSTMCell, gates, pack_gates
from minilstm.export import layout

CELL = LSTMCell(2, forget_bias=0.5, use_peepholes=True)
MARKS = {"i": 1.0, "j": 2.0, "f": 3.0, "o": 4.0}


def marked():
    """Weights whose every entry tells its gate (1 to 4), negative in the recurrent rows, and 10 times in the bias."""
    gate = {name: np.full((1, 2), mark, np.float32) for name, mark in MARKS.items()}
    row = pack_gates(**gate)
    weights = {"kernel": np.concatenate([row, row, row, -row, -row]), "bias": 10 * row[0]}
    return weights | {f"w_{name}_diag": 100 * gate[name][0] for name in "ifo"}


def test_keras_has_i_f_c_o_and_the_forget_bias_in_its_bias():
    found = layout.to_keras(CELL, marked())
    assert found["kernel"].tolist() == [[1, 1, 3, 3, 2, 2, 4, 4]] * 3
    assert found["recurrent_kernel"].tolist() == [[-1, -1, -3, -3, -2, -2, -4, -4]] * 2
    assert found["bias"].tolist() == [10, 10, 30.5, 30.5, 20, 20, 40, 40]


def test_pytorch_has_i_f_g_o_in_rows_and_the_forget_bias_in_its_second_bias():
    found = layout.to_torch(CELL, marked())
    assert found["weight_ih"].tolist() == [[mark] * 3 for mark in (1, 1, 3, 3, 2, 2, 4, 4)]
    assert found["weight_hh"].tolist() == [[-mark] * 2 for mark in (1, 1, 3, 3, 2, 2, 4, 4)]
    assert found["bias_ih"].tolist() == [10, 10, 30, 30, 20, 20, 40, 40]
    assert found["bias_hh"].tolist() == [0, 0, 0.5, 0.5, 0, 0, 0, 0]
    assert all(array.flags.c_contiguous for array in found.values())


def test_onnx_has_i_o_f_c_and_peepholes_i_o_f():
    found = layout.to_onnx(CELL, marked())
    assert found["W"].tolist() == [[[mark] * 3 for mark in (1, 1, 4, 4, 3, 3, 2, 2)]]
    assert found["R"].tolist() == [[[-mark] * 2 for mark in (1, 1, 4, 4, 3, 3, 2, 2)]]
    assert found["B"].tolist() == [[10, 10, 40, 40, 30, 30, 20, 20, 0, 0, 0, 0, 0.5, 0.5, 0, 0]]
    assert found["P"].tolist() == [[100, 100, 400, 400, 300, 300]]


@pytest.mark.parametrize("order", ["ijfo", "ifjo", "ojif", "fioj"])
def test_our_own_order_is_written_in_gates_alone(monkeypatch, order):
    """Whatever order `GATES` has, every gate is found by its name and goes where the other library has it."""
    monkeypatch.setattr(gates, "GATES", tuple(order))
    weights = marked()
    assert weights["bias"].tolist() == [10 * MARKS[gate] for gate in order for _ in range(2)]
    test_keras_has_i_f_c_o_and_the_forget_bias_in_its_bias()
    test_pytorch_has_i_f_g_o_in_rows_and_the_forget_bias_in_its_second_bias()
    test_onnx_has_i_o_f_c_and_peepholes_i_o_f()
    assert_trees_equal(layout.from_torch(CELL, layout.to_torch(CELL, weights))["bias"], weights["bias"])
    assert_trees_equal(layout.from_onnx(CELL, layout.to_onnx(CELL, weights)), weights)


@st.composite
def cells_and_weights(draw, peepholes):
    num_proj = draw(st.sampled_from([None, 1, 3])) if not peepholes else None
    cell = LSTMCell(
        draw(st.integers(1, 4)), forget_bias=draw(st.sampled_from([0.0, 0.1, 1.0, -3.5])), num_proj=num_proj,
        use_peepholes=peepholes,
    )  # fmt: skip
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    params = cell.init(draw(st.integers(0, 99)), draw(st.integers(1, 3)), dtype)
    params["bias"][:] = np.random.default_rng(0).normal(size=params["bias"].shape)
    params["bias"][::3] = -0.0
    return cell, params


@given(cells_and_weights(peepholes=False))
def test_to_pytorch_and_back_leaves_every_bit(case):
    cell, weights = case
    assert_trees_equal(layout.from_torch(cell, layout.to_torch(cell, weights)), weights)


@given(cells_and_weights(peepholes=True))
def test_to_onnx_and_back_leaves_every_bit(case):
    cell, weights = case
    assert_trees_equal(layout.from_onnx(cell, layout.to_onnx(cell, weights)), weights)


def test_to_keras_and_back_leaves_every_bit_without_a_forget_bias_and_costs_one_rounding_with_it():
    for forget_bias in (0.0, 0.1):
        cell = LSTMCell(4, forget_bias=forget_bias)
        weights = cell.init(0, 3)
        weights["bias"][:] = np.linspace(-0.5, 0.5, 16)
        back = layout.from_keras(cell, layout.to_keras(cell, weights))
        if forget_bias == 0:
            assert_trees_equal(back, weights)
        else:
            assert 0 < np.abs(back.pop("bias") - weights.pop("bias")).max() <= np.spacing(np.float32(0.5))
            assert_trees_equal(back, weights)


def test_what_training_added_to_a_second_bias_is_added_to_ours():
    cell = LSTMCell(1, forget_bias=0.5)
    tensors = layout.to_torch(cell, cell.init(0, 1))
    tensors["bias_hh"] = tensors["bias_hh"] + np.array([1, 2, 3, 4], np.float32)
    assert layout.from_torch(cell, tensors)["bias"].tolist() == [1, 3, 2, 4]  # i, j, f, o


@pytest.mark.parametrize("order", [layout.KERAS_ORDER, layout.ONNX_ORDER])
def test_orders_name_every_gate_once_and_come_back(order):
    assert sorted(order) == sorted(MARKS)
    columns = np.arange(24.0).reshape(2, 12)
    assert np.array_equal(layout.from_order(layout.to_order(columns, order), order), columns)


@pytest.mark.parametrize("reset_after", [False, True])
def test_a_gru_is_z_r_h_in_keras_and_comes_back_bit_for_bit(reset_after):
    cell = GRUCell(2, reset_after=reset_after)
    row = np.repeat(np.float32([1, 2, 3]), 2)  # r, u, k
    kernel = np.concatenate([[row] * 3, [-row] * 2])
    weights = {
        "gates": {"kernel": kernel[:, :4], "bias": 10 * row[:4]},
        "candidate": {"kernel": kernel[:, 4:], "bias": 10 * row[4:]},
    }
    if reset_after:
        weights = {"kernel": kernel[:3], "recurrent_kernel": kernel[3:], "bias": 10 * row, "recurrent_bias": -10 * row}
    found = layout.to_keras(cell, weights)
    swapped = [2, 2, 1, 1, 3, 3]
    assert found["kernel"].tolist() == [swapped] * 3
    assert found["recurrent_kernel"].tolist() == [[-mark for mark in swapped]] * 2
    bias = [10 * mark for mark in swapped]
    assert found["bias"].tolist() == ([bias, [-mark for mark in bias]] if reset_after else bias)
    assert_trees_equal(layout.from_keras(cell, found), weights)


def test_a_gru_is_r_z_n_in_rows_in_pytorch_and_comes_back_bit_for_bit():
    cell = GRUCell(2, reset_after=True)
    weights = cell.init(0, 3)
    weights["recurrent_bias"][:] = np.arange(6)
    found = layout.to_torch(cell, weights)
    assert {name: array.shape for name, array in found.items()} == {
        "weight_ih": (6, 3), "weight_hh": (6, 2), "bias_ih": (6,), "bias_hh": (6,),
    }  # fmt: skip
    assert np.array_equal(found["weight_ih"].T, weights["kernel"])
    assert found["bias_hh"].tolist() == list(range(6))
    assert_trees_equal(layout.from_torch(cell, found), weights)
