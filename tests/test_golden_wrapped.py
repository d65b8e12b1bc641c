"""Golden cases of stacked and wrapped cells, step by step and batch-major; and every golden case is used."""

import autograd.numpy as anp
import numpy as np
import pytest
import test_bptt
from helpers import (
    GOLDEN,
    assert_close,
    assert_trees_close,
    cell_cases,
    golden,
    golden_cases,
    golden_cell,
    golden_state,
    golden_tolerance,
    golden_variables,
    plain_cell_cases,
)

from minilstm import RNN, value_and_grad
from minilstm.params import tree_leaves

BACKPROPS = ("fast", "readable", "autograd")
WRAPPED = [name for name in cell_cases() if name not in plain_cell_cases()]


def test_every_golden_cell_case_runs_on_every_path():
    """`test_bptt` compares outputs, final states and gradients; this checks that it does so for every case."""
    test = test_bptt.test_outputs_states_and_every_gradient_are_tensorflows
    run = {mark.args[0]: set(mark.args[1]) for mark in test.pytestmark if mark.name == "parametrize"}
    assert run["name"] == {name for name, case in golden_cases().items() if case["kind"] == "cell"}
    assert run["backprop"] == set(BACKPROPS)
    files = {path.name for path in GOLDEN.glob("*.npz")} - {"second.npz"}  # test_tangents compares that one
    assert files == {case["file"] for case in golden_cases().values()}
    assert len(run["name"]) >= 30
    assert {"h_multi", "h_multi_f64", "h_multi_mixed", "i_multi_dynamic_batch_major", "j_residual"} == set(WRAPPED)


def test_every_golden_file_has_all_arrays_to_compare():
    for name in cell_cases():
        case, arrays = golden(name)
        variables = case["variable_creation_order"]
        assert {key for key in arrays if "var/" in key} == {f"{p}var/{v}" for p in ("", "grad/") for v in variables}
        states = {key.split("/", 1)[1] for key in arrays if key.startswith("final/")}
        assert states == {key.split("/", 1)[1] for key in arrays if key.startswith("cot/")} - {"out"}
        if case["initial_state"] == "given":
            assert states == {key[len("grad/init/") :] for key in arrays if key.startswith("grad/init/")}
        assert {"inputs", "grad/inputs", "out", "loss"} <= arrays.keys()
        assert ("sequence_length" in case) == ("sequence_length" in arrays)


def test_tolerances_are_the_agreed_ones():
    """1e-12 in float64, 2e-6 in float32, and 4e-5 for the saturated case, as cases.json states."""
    for name in cell_cases():
        case = golden(name)[0]
        wanted = 4e-5 if name == "c_basic_sat" else {"float64": 1e-12, "float32": 2e-6}[case["dtype"]]
        assert golden_tolerance(name, case) == wanted


@pytest.mark.parametrize("name", [name for name in WRAPPED if "sequence_length" not in golden(name)[1]])
def test_stepping_a_wrapped_cell_by_hand_gives_tensorflows_outputs(name):
    case, arrays = golden(name)
    cell = golden_cell(case["cell"])
    params = golden_variables(arrays)["rnn"][cell.name]
    state, outputs = golden_state(arrays, "init/"), []
    for x_t in arrays["inputs"]:
        output, state = cell(params, x_t, state)
        outputs.append(output)
    assert_close(outputs, arrays["out"], golden_tolerance(name, case), "outputs")
    assert_trees_close(state, golden_state(arrays, "final/"), golden_tolerance(name, case))


@pytest.mark.parametrize("backprop", BACKPROPS)
@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_case_in_float64_and_batch_major_agrees_with_tensorflow(name, backprop):
    """Only TensorFlow's own rounding remains: float32 cases are within 2e-6 of exact numbers."""
    case, arrays = golden(name)
    wide = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in arrays.items()}
    layer = RNN(golden_cell(case["cell"]), backprop=backprop)
    inputs, cotangent = (np.swapaxes(wide[key], 0, 1) for key in ("inputs", "cot/out"))
    cotangents = [cotangent, *tree_leaves(golden_state(wide, "cot/"))]
    tree = {"params": golden_variables(wide)["rnn"], "inputs": inputs, "state": golden_state(wide, "init/")}

    def loss(tree):
        outputs, state = layer.apply(tree["params"], tree["inputs"], tree["state"], arrays.get("sequence_length"))
        parts = zip(tree_leaves([outputs, state]), cotangents, strict=True)
        return 0.5 * sum(anp.sum(a * b) for a, b in parts), (outputs, state)

    (value, (outputs, state)), grads = value_and_grad(loss, has_aux=True)(tree)
    assert {leaf.dtype for leaf in tree_leaves([outputs, state, grads])} == {np.dtype(np.float64)}
    tolerance = golden_tolerance(name, case)
    assert_close(value, wide["loss"], tolerance, "loss")
    assert_close(np.swapaxes(outputs, 0, 1), wide["out"], tolerance, "outputs")
    assert_trees_close(state, golden_state(wide, "final/"), tolerance)
    assert_trees_close(grads["params"], golden_variables(wide, "grad/var/")["rnn"], tolerance)
    assert_close(np.swapaxes(grads["inputs"], 0, 1), wide["grad/inputs"], tolerance, "inputs")
    assert_trees_close(grads["state"], golden_state(wide, "grad/init/"), tolerance)


@pytest.mark.parametrize("name", WRAPPED)
def test_no_two_weights_of_a_wrapped_case_are_equal(name):
    """Otherwise one gate, bias or layer could replace another unnoticed."""
    arrays = golden(name)[1]
    for tree in (golden_variables(arrays), golden_state(arrays, "init/")):
        values = np.concatenate([leaf.ravel() for leaf in tree_leaves(tree)])
        assert len(set(values.tolist())) > 0.99 * values.size
