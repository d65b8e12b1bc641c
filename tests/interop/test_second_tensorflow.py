"""Products of the Hessian in real TensorFlow: the numbers of tests/golden/second.npz, made again.

    python tests/interop/test_second_tensorflow.py      writes the file
"""

import numpy as np
import pytest
from helpers import (
    GOLDEN,
    assert_close,
    golden,
    golden_cell,
    golden_state,
    golden_variables,
    named_leaves,
)  # fmt: skip
from test_cells_tensorflow import tf_cell, tf_state
from test_tangents import GOLDEN_CASES

from minilstm.params import flatten_names, tree_leaves

pytestmark = pytest.mark.interop


def products(tf, name):
    """{path: array} of a random vector and of the product of the Hessian with it, by TensorFlow's graph."""
    case, arrays = golden(name)
    params, state = golden_variables(arrays), golden_state(arrays, "init/")
    leaves = dict(named_leaves({"params": params["rnn"], "inputs": arrays["inputs"], "state": state}))
    rng = np.random.default_rng(23)
    vector = {path: rng.normal(size=leaf.shape) for path, leaf in leaves.items()}
    lengths = arrays.get("sequence_length")
    with tf.Graph().as_default(), tf.Session() as session:
        x, first = tf.constant(arrays["inputs"]), tf_state(tf, state)
        cell = tf_cell(tf, golden_cell(case["cell"]), [])
        steps, final = tf.nn.static_rnn(cell, tf.unstack(x), initial_state=first, sequence_length=lengths)
        results = [tf.stack(steps), *tf.nest.flatten(final)]
        cotangents = [arrays["cot/out"], *tree_leaves(golden_state(arrays, "cot/"))]
        pairs = zip(results, cotangents, strict=True)
        loss = sum(tf.reduce_sum(p * (a + 0.5 * a * a)) for a, p in pairs)
        variables = {variable.op.name: variable for variable in tf.trainable_variables()}
        flat = flatten_names(params)
        for variable_name, variable in variables.items():
            variable.load(flat[variable_name], session)
        paths = [path for path in leaves if path.startswith("params/")]
        wanted = [variables["rnn/" + path.removeprefix("params/")] for path in paths]
        wanted += [x, *tf.nest.flatten(first)]
        grads = tf.gradients(loss, wanted)
        slope = sum(tf.reduce_sum(g * v) for g, v in zip(grads, vector.values(), strict=True))
        found = session.run(tf.gradients(slope, wanted))
    assert list(leaves)[: len(paths)] == paths
    found = dict(zip(leaves, found, strict=True))
    return {f"vector/{path}": v for path, v in vector.items()} | {f"product/{path}": p for path, p in found.items()}


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_the_golden_products_are_tensorflows(tf, name):
    with np.load(GOLDEN / "second.npz") as file:
        for path, array in products(tf, name).items():
            assert_close(file[f"{name}/{path}"], array, 1e-13, path)


if __name__ == "__main__":
    import os

    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow.compat.v1 as v1

    v1.disable_v2_behavior()
    assert v1.nn.rnn_cell.LSTMCell
    made = {f"{name}/{path}": array for name in GOLDEN_CASES for path, array in products(v1, name).items()}
    np.savez_compressed(GOLDEN / "second.npz", **made)
