"""Shared by many tests: the error norm, comparisons that name the array, and the golden cases."""

import functools
import json
from pathlib import Path

import autograd.numpy as anp
import numpy as np

from minilstm import RNN, BasicLSTMCell, LSTMCell, LSTMState, MultiRNNCell, ResidualWrapper, value_and_grad
from minilstm.params import tree_leaves, unflatten_names

GOLDEN = Path(__file__).parent / "golden"


def error(a, b):
    """The error norm of the whole project: ``max|a - b| / max(1, max|b|)``; NaN and infinity are never close."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, f"shape {a.shape} is not {b.shape}"
    if not a.size:
        return 0.0
    worst = np.max(np.abs(a - b)) / max(1.0, np.max(np.abs(b)))
    return float(worst) if np.isfinite(worst) else float("inf")


def named_leaves(tree, path=""):
    """(path, leaf) for every leaf of dicts, lists, tuples and named tuples."""
    if isinstance(tree, dict):
        items = tree.items()
    elif hasattr(tree, "_fields"):
        items = tree._asdict().items()
    elif isinstance(tree, (list, tuple)):
        items = enumerate(tree)
    else:
        if tree is not None:
            yield path, tree
        return
    for key, subtree in items:
        yield from named_leaves(subtree, f"{path}/{key}" if path else str(key))


def assert_close(a, b, tolerance, name="array"):
    """Assert that `a` is within `tolerance` of the reference `b`; the AssertionError names the error."""
    found = error(a, b)
    assert found <= tolerance, f"{name}: error {found:.3g} is above {tolerance:g}"


def assert_trees_close(tree, reference, tolerance):
    """Assert that every leaf is within `tolerance` of the reference's leaf with the same path."""
    left, right = dict(named_leaves(tree)), dict(named_leaves(reference))
    assert left.keys() == right.keys(), f"names differ: {sorted(left.keys() ^ right.keys())}"
    for name, leaf in left.items():
        assert_close(leaf, right[name], tolerance, name)


def assert_trees_equal(tree, reference):
    """Assert that every leaf has the same dtype, shape and bits as the reference's leaf."""
    left, right = dict(named_leaves(tree)), dict(named_leaves(reference))
    assert left.keys() == right.keys(), f"names differ: {sorted(left.keys() ^ right.keys())}"
    for name, leaf in left.items():
        a, b = np.asarray(leaf), np.asarray(right[name])
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{name}: {a.dtype} {a.shape} is not {b.dtype} {b.shape}"
        assert a.tobytes() == b.tobytes(), f"{name}: bits differ, by up to {np.max(np.abs(a - b)):.3g}"


def largest(tree):
    """The largest absolute value in any leaf."""
    return max(float(np.max(np.abs(leaf), initial=0.0)) for leaf in tree_leaves(tree))


# --- golden cases ---------------------------------------------------------------------------------------------


@functools.cache
def golden_cases():
    """name -> description of every committed case."""
    return json.loads((GOLDEN / "cases.json").read_text())["cases"]


def golden(name):
    """(description, arrays) of one case."""
    case = golden_cases()[name]
    with np.load(GOLDEN / case["file"], allow_pickle=False) as file:
        return case, dict(file)


PLAIN_CELLS = {"BasicLSTMCell": BasicLSTMCell, "LSTMCell": LSTMCell}


def cell_cases():
    """The names of all cases that run a cell over a sequence."""
    return [name for name, case in golden_cases().items() if case["kind"] == "cell"]


def plain_cell_cases():
    """The names of the cases with a single cell and no wrapper."""
    return [name for name in cell_cases() if golden_cases()[name]["cell"]["class"] in PLAIN_CELLS]


def golden_cell(options):
    """The cell that a case describes with TensorFlow's names."""
    options = dict(options)
    kind = options.pop("class")
    if kind == "MultiRNNCell":
        return MultiRNNCell([golden_cell(inner) for inner in options["cells"]])
    if kind == "ResidualWrapper":
        return ResidualWrapper(golden_cell(options["cell"]))
    return PLAIN_CELLS[kind](options.pop("num_units"), **options)


def golden_state(arrays, prefix):
    """The state under ``init/``, ``final/``, ``cot/`` or ``grad/init/``: one, a tuple of one per layer, or None."""
    if f"{prefix}0/c" in arrays:
        layers = sum(name.startswith(prefix) and name.endswith("/c") for name in arrays)
        return tuple(golden_state(arrays, f"{prefix}{n}/") for n in range(layers))
    return LSTMState(arrays[f"{prefix}c"], arrays[f"{prefix}h"]) if f"{prefix}c" in arrays else None


def golden_variables(arrays, prefix="var/"):
    """The nested dict of a case's variables (or, with another prefix, of their gradients)."""
    return unflatten_names({k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)})


def golden_tolerance(name, case):
    """The tolerance in cases.json: 1e-12 in float64, 2e-6 in float32, and 4e-5 for the saturated float32 case."""
    if case["dtype"] == "float64":
        return 1e-12
    return 4e-5 if name == "c_basic_sat" else 2e-6


# --- a loss that depends on every output and final state ------------------------------------------------------


class RandomLoss:
    """sum(p * a + q * a^2 / 2) over all arrays; p and q come from a seed, so every entry has other weights."""

    def __init__(self, seed):
        self.seed = seed

    def __call__(self, tree):
        rng = np.random.default_rng([self.seed, 77])
        total = 0.0
        for leaf in tree_leaves(tree):
            p, q = (rng.normal(size=leaf.shape).astype(leaf.dtype) for _ in range(2))
            total = total + anp.sum(p * leaf + 0.5 * q * leaf * leaf)
        return total


def golden_layer(name, backprop):
    """The description of a golden case of a cell, its arrays, the layer, what that is given, and the cotangents of all
    it returns.
    """
    case, arrays = golden(name)
    layer = RNN(golden_cell(case["cell"]), time_major=True, backprop=backprop)
    tree = {
        "params": golden_variables(arrays)["rnn"],
        "inputs": arrays["inputs"],
        "state": golden_state(arrays, "init/"),
    }
    return case, arrays, layer, tree, [arrays["cot/out"], *tree_leaves(golden_state(arrays, "cot/"))]


def layer_gradients(layer, params, inputs, state=None, seed=0, **options):
    """((loss, (outputs, state)), gradients with respect to params, inputs and initial state)."""
    loss = RandomLoss(seed)

    def function(tree):
        outputs, final = layer.apply(tree["params"], tree["inputs"], state=tree["state"], **options)
        return loss([outputs, final]), (outputs, final)

    return value_and_grad(function, has_aux=True)({"params": params, "inputs": inputs, "state": state})
