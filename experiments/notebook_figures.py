"""The figures that two documents print about small LSTMs, and the networks that they belong to.

The notebook computes two steps of an LSTM gate by gate in NumPy and then in TensorFlow (``BasicLSTMCell`` in
``static_rnn``). The thread is Stack Overflow's "How exactly does LSTMCell from TensorFlow operates?" with its answers.
``data/notebook.txt`` holds their figures alone, as they are printed: a row for each sequence, or for each step in the
thread. The seeds that the documents give draw their weights again here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minilstm import RNN, BasicLSTMCell, LSTMCell, gate_activations, pack_gates

DATA = Path(__file__).parent / "data" / "notebook.txt"
PRINTS = dict(block.split("\n", 1) for block in DATA.read_text().split("\n\n"))  # title -> rows of digits


def array(text: str) -> np.ndarray:
    """A print of seven rows of three. Missing rows, where the print was cut off, are NaN."""
    values = np.array([float(word) for word in text.split()])
    return np.concatenate([values, np.full(21 - len(values), np.nan)]).reshape(7, 3)


# --- the notebook: seed 666, three units, two steps, seven sequences, no forget bias --------------------------

FIRST_STEP = {name: PRINTS[f"notebook, NumPy: step 1, {name}"] for name in "fijcoh"}
SECOND_STEP = {name: PRINTS[f"notebook, NumPy: step 2, {name}"] for name in "fijch"}
TENSORFLOW_C, TENSORFLOW_H = (PRINTS[f"notebook, TensorFlow: step 2, {name}"] for name in "ch")  # float32
TENSORFLOW_H1 = PRINTS["notebook, TensorFlow: step 1, h"]  # the print was cut off after six rows
NOTEBOOK_INPUTS = np.array(
    [
        [[0, 1], [1, 0], [1, 1], [0, -1], [-1, 0], [-1, -1], [-1, -1]],
        [[1, 0], [-1, 1], [0, -2], [2, 1], [1, -1], [2, 2], [1, 1]],
    ],
    float,
)


def notebook_network() -> tuple[BasicLSTMCell, dict[str, np.ndarray]]:
    """The cell of the notebook and its weights.

    Every number is 2u - 1 for the next u of the legacy generator: a matrix and then a bias for the forget gate, the
    input gate, the candidate and the output gate, in this order.
    """
    legacy = np.random.RandomState(666)
    kernel, bias = {}, {}
    for gate in "fijo":
        kernel[gate] = legacy.random_sample((5, 3)) * 2 - 1
        bias[gate] = legacy.random_sample(3) * 2 - 1
    return BasicLSTMCell(3, forget_bias=0.0), {"kernel": pack_gates(**kernel), "bias": pack_gates(**bias)}


def notebook_trace() -> dict[str, np.ndarray]:
    """Gates and states of every step of the notebook, each ``[sequence, step, unit]``."""
    cell, params = notebook_network()
    return gate_activations(RNN(cell), {"basic_lstm_cell": params}, np.swapaxes(NOTEBOOK_INPUTS, 0, 1))


# --- the thread: LSTMCell(3), seven steps of four inputs, zero state, zero bias -------------------------------

# Seed 0, with published weights: the print of a NumPy implementation, and TensorFlow's.
SEED_0_NUMPY, SEED_0_TENSORFLOW = (array(PRINTS[f"thread, {x}: seed 0, h"]) for x in ("NumPy", "TensorFlow"))
# The question, with unpublished weights and inputs: the print of the author's code, and TensorFlow's.
QUESTION_NUMPY, QUESTION_TENSORFLOW = (array(PRINTS[f"thread, {x}: question, h"]) for x in ("NumPy", "TensorFlow"))
# An answer, with inputs 0 .. 27 and unpublished weights: its last row.
COUNTING_LAST = [float(word) for word in PRINTS["thread, TensorFlow: counting, last h"].split()]


def seed_0_network() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The inputs ``[1, 7, 4]`` and the weights of the thread.

    One legacy generator draws 28 normal numbers, then the kernel, uniform up to Glorot's limit.
    """
    legacy = np.random.RandomState(0)
    inputs = legacy.normal(size=(1, 7, 4))
    limit = (6 / (7 + 12)) ** 0.5
    return inputs, {"kernel": legacy.uniform(-limit, limit, (7, 12)), "bias": np.zeros(12)}


def seed_0_trace(forget_bias: float = 1.0) -> dict[str, np.ndarray]:
    """Gates and states of every step of the thread's cell, each ``[1, step, unit]``."""
    inputs, weights = seed_0_network()
    return gate_activations(RNN(LSTMCell(3, forget_bias=forget_bias)), {"lstm_cell": weights}, inputs)
