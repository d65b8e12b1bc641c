"""Training steps beyond a plain LSTM, the same in minilstm, PyTorch and TensorFlow 1.x's `dynamic_rnn`.

`step_of(peer, case)` gives a function that makes one step on the next of a few batches: forward, loss, backward, Adam;
the case `predict` is a forward pass. The loss is the mean squared error of a Dense(1) on every step, or cross-entropy
over the words.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

LEARNING_RATE = 1e-3
TENSORFLOW = "dynamic_rnn (tensorflow)"
BATCHES = 4  # different ones, used in turn


class Case(NamedTuple):
    """A size (time, batch, inputs or words, units), and which of the other libraries have the case."""

    shape: tuple[int, int, int, int]
    peers: tuple[str, ...]


BOTH, TORCH, TF = ("torch", TENSORFLOW), ("torch",), (TENSORFLOW,)
CASES = {
    "lengths": Case((50, 32, 64, 128), BOTH),
    "lengths, small": Case((48, 16, 4, 32), BOTH),
    "two layers, dropout": Case((35, 20, 200, 200), TORCH),
    "bidirectional": Case((50, 32, 64, 128), TORCH),
    "GRU": Case((50, 32, 64, 128), BOTH),
    "GRU, small": Case((50, 32, 1, 32), BOTH),
    "projection to half": Case((50, 32, 64, 128), BOTH),
    "peepholes": Case((50, 32, 64, 128), TF),
    "peepholes, small": Case((50, 32, 1, 32), TF),
    "cell_clip": Case((50, 32, 64, 128), TF),
    "two layers, 96 letters": Case((50, 50, 96, 128), TORCH),
    "two layers, 10,000 words": Case((20, 20, 10000, 200), TORCH),
    "float64": Case((50, 32, 64, 128), TORCH),
    "last output": Case((50, 32, 64, 128), TORCH),
    "predict": Case((100, 256, 64, 128), TORCH),
    "one long sequence": Case((10000, 1, 4, 64), TORCH),
    "one step of one sequence": Case((1, 1, 8, 64), TORCH),
    "1024 units": Case((35, 20, 1024, 1024), TORCH),
    "three residual cells": Case((50, 32, 128, 128), TF),
    "output and state dropout": Case((35, 20, 200, 200), TF),
}


def reads_words(case: str) -> bool:
    """Whether the inputs and targets are words."""
    return case.endswith(("letters", "words"))


def batches(case: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Endless batches of inputs, targets and lengths (or None)."""
    time, batch, inputs, _ = CASES[case].shape
    rng, dtype = np.random.default_rng(0), np.float64 if case == "float64" else np.float32
    made: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []
    for _ in range(BATCHES):
        if reads_words(case):
            x = rng.integers(0, inputs, (batch, time))
            made.append((x, np.roll(x, -1, axis=1), None))
            continue
        x = rng.standard_normal((batch, time, inputs)).astype(dtype)
        y = rng.standard_normal((batch, 1) if case == "last output" else (batch, time, 1)).astype(dtype)
        made.append((x, y, rng.integers(time // 4, time + 1, batch) if case.startswith("lengths") else None))
    return itertools.cycle(made)


def step_of(peer: str, case: str) -> Callable[[], Any]:
    """A function that makes the next step of a case in a peer's library."""
    steps = {"torch": torch_step, TENSORFLOW: tensorflow_step}
    return steps.get(peer, minilstm_step)(case)


def minilstm_model(case: str) -> Any:
    """The model of a case in minilstm."""
    import minilstm as m

    _, _, inputs, units = CASES[case].shape
    dropped: Any = {"output_keep_prob": 0.5, "state_keep_prob": 0.5}
    own: dict[str, Callable[[], list[Any]]] = {
        "two layers, dropout": lambda: [m.LSTM(units), m.Dropout(0.5), m.LSTM(units), m.Dropout(0.5)],
        "bidirectional": lambda: [m.Bidirectional(m.LSTM(units))],
        "GRU": lambda: [m.RNN(m.GRUCell(units))],
        "GRU, small": lambda: [m.RNN(m.GRUCell(units))],
        "projection to half": lambda: [m.LSTM(units, num_proj=units // 2)],
        "peepholes": lambda: [m.LSTM(units, use_peepholes=True)],
        "peepholes, small": lambda: [m.LSTM(units, use_peepholes=True)],
        "cell_clip": lambda: [m.LSTM(units, cell_clip=3.0)],
        "last output": lambda: [m.LSTM(units, return_sequences=False)],
        "three residual cells": lambda: [
            m.RNN(m.MultiRNNCell([m.ResidualWrapper(m.LSTMCell(units)) for _ in range(3)]))
        ],
        "output and state dropout": lambda: [m.RNN(m.DropoutWrapper(m.LSTMCell(units), **dropped))],
    }
    if reads_words(case):
        return m.Sequential(m.Embedding(inputs, units), m.LSTM(units), m.LSTM(units), m.Dense(inputs))
    return m.Sequential(*own.get(case, lambda: [m.LSTM(units)])(), m.Dense(1))


def minilstm_step(case: str) -> Callable[[], Any]:
    """`step_of` for minilstm; the environment says whether passes are compiled."""
    import minilstm as m

    feed, model = batches(case), minilstm_model(case)
    dtype = np.float64 if case == "float64" else np.float32
    params = model.init(seed=0, input_dim=None if reads_words(case) else CASES[case].shape[2], dtype=dtype)
    if case == "predict":
        return lambda: m.predict(model, params, next(feed)[0])
    optimizer, loss = m.Adam(LEARNING_RATE), m.losses.softmax_cross_entropy if reads_words(case) else m.losses.mse
    state, seeds = optimizer.init(params), itertools.count()

    def objective(params: Any, x: Any, y: Any, lengths: Any, seed: int | None) -> Any:
        return loss(model(params, x, sequence_length=lengths, rng=seed), y)

    gradient = m.value_and_grad(objective)

    def step() -> None:
        nonlocal params, state
        _, grads = gradient(params, *next(feed), next(seeds) if "dropout" in case else None)
        params, state = optimizer.update(params, grads, state)

    return step


def torch_step(case: str) -> Callable[[], Any]:
    """`step_of` for PyTorch; lengths are packed sequences."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    (time, _, inputs, units), words = CASES[case].shape, reads_words(case)
    options: dict[str, Any] = {"batch_first": True, "num_layers": 2 if case.startswith("two layers") else 1}
    options |= {"dropout": 0.5} if "dropout" in case else {}
    options |= {"bidirectional": True} if case == "bidirectional" else {}
    options |= {"proj_size": units // 2} if case.startswith("projection") else {}
    width = 2 * units if case == "bidirectional" else options.get("proj_size", units)
    kind = torch.nn.GRU if case.startswith("GRU") else torch.nn.LSTM
    modules = torch.nn.ModuleDict({
        "rnn": kind(units if words else inputs, units, **options),
        "dense": torch.nn.Linear(width, inputs if words else 1),
        "embed": torch.nn.Embedding(inputs, units) if words else torch.nn.Identity(),
    })  # fmt: skip
    if case == "float64":
        modules.double()
    feed = ((torch.from_numpy(x), torch.from_numpy(y), n) for x, y, n in batches(case))

    def outputs(x: Any, lengths: Any) -> Any:
        x = modules["embed"](x)
        if lengths is not None:
            x = pack_padded_sequence(x, torch.from_numpy(lengths), batch_first=True, enforce_sorted=False)
            h = pad_packed_sequence(modules["rnn"](x)[0], batch_first=True, total_length=time)[0]
        else:
            h = modules["rnn"](x)[0]
        return modules["dense"](h[:, -1] if case == "last output" else h)

    def predict() -> None:
        with torch.inference_mode():
            outputs(next(feed)[0], None)

    optimizer = torch.optim.Adam(modules.parameters(), lr=LEARNING_RATE, foreach=True)

    def step() -> None:
        x, y, lengths = next(feed)
        optimizer.zero_grad()
        found = outputs(x, lengths)
        if words:
            loss = torch.nn.functional.cross_entropy(found.reshape(-1, inputs), y.reshape(-1))
        else:
            loss = torch.nn.functional.mse_loss(found, y)
        loss.backward()
        optimizer.step()

    return predict if case == "predict" else step


def tensorflow_step(case: str) -> Callable[[], Any]:
    """`step_of` for TensorFlow 1.x: a graph of `dynamic_rnn` around its own cells."""
    import tensorflow as tf

    v1 = tf.compat.v1
    v1.disable_eager_execution()
    cells = v1.nn.rnn_cell
    time, batch, inputs, units = CASES[case].shape
    own: dict[str, Callable[[], Any]] = {
        "GRU": lambda: cells.GRUCell(units),
        "GRU, small": lambda: cells.GRUCell(units),
        "projection to half": lambda: cells.LSTMCell(units, num_proj=units // 2),
        "peepholes": lambda: cells.LSTMCell(units, use_peepholes=True),
        "peepholes, small": lambda: cells.LSTMCell(units, use_peepholes=True),
        "cell_clip": lambda: cells.LSTMCell(units, cell_clip=3.0),
        "three residual cells": lambda: cells.MultiRNNCell(
            [cells.ResidualWrapper(cells.LSTMCell(units)) for _ in range(3)]
        ),
        "output and state dropout": lambda: cells.DropoutWrapper(
            cells.LSTMCell(units), output_keep_prob=0.5, state_keep_prob=0.5
        ),
    }
    cell = own.get(case, lambda: cells.LSTMCell(units))()
    x, y = (v1.placeholder(tf.float32, [batch, time, width]) for width in (inputs, 1))
    lengths = v1.placeholder(tf.int32, [batch]) if case.startswith("lengths") else None
    h = v1.nn.dynamic_rnn(cell, x, sequence_length=lengths, dtype=tf.float32)[0]
    kernel, bias = v1.get_variable("kernel", [h.shape[-1], 1]), v1.get_variable("bias", [1])
    found = tf.matmul(tf.reshape(h, [-1, h.shape[-1]]), kernel) + bias
    loss = tf.reduce_mean((found - tf.reshape(y, [-1, 1])) ** 2)
    train = v1.train.AdamOptimizer(LEARNING_RATE).minimize(loss)
    threads = int(os.environ.get("OMP_NUM_THREADS", 2))
    session = v1.Session(
        config=v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    )
    session.run(v1.global_variables_initializer())
    feed = batches(case)

    def step() -> None:
        inputs, targets, n = next(feed)
        session.run(train, {x: inputs, y: targets, **({} if lengths is None else {lengths: n})})

    return step
