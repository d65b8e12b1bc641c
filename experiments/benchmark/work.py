"""Measure the jobs of the benchmark in one process; `experiments.benchmark` starts it and reads its output.

    echo '["step", [50, 32, 1, 32]]' | python -m experiments.benchmark.work torch

prints one number for each line ``[task, shape]`` that it reads. A shape is (time, batch, input, units).
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .peers import PEERS

Shape = tuple[int, ...]  # time, batch, input, units
Job = tuple[str, Shape]

NUMPY = "NumPy"  # the peer's name for the bare matrix products
THREADS = 2
BATCHES = 8  # different batches, used in turn
SECONDS = 0.5  # of each measurement, after a warm-up
WARM_UP, LEAST, MOST = 2, 4, 1000  # calls before a measurement, and the fewest and most calls in it
WINDOW = 50  # steps of a window of truncated backpropagation
LARGE = 1536  # rows and columns of the matrices whose product gives the best rate
TOY: Shape = (48, 32, 1, 32)
TOY_STEPS = 500
# Not imported from experiments.sunspots, which would load minilstm for every peer.
SUNSPOTS = Path(__file__).parent.parent / "data" / "sunspots.csv"


def median_time(call: Callable[[], Any]) -> float:
    """The median duration of ``call()`` in milliseconds, over the calls of `SECONDS` after a warm-up."""
    for _ in range(WARM_UP):
        call()
    durations: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(durations) < LEAST or (time.perf_counter() < end and len(durations) < MOST):
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return float(np.median(durations) * 1e3)


def batches(shape: Shape, count: int = BATCHES) -> list[tuple[np.ndarray, np.ndarray]]:
    """The batches of every peer: inputs ``[batch, time, input]``, targets ``[batch, time, 1]``, float32."""
    steps, batch, inputs, _ = shape
    rng = np.random.default_rng(0)
    draw = lambda width: rng.standard_normal((batch, steps, width), np.float32)  # noqa: E731
    return [(draw(inputs), draw(1)) for _ in range(count)]


def products(shape: Shape) -> Callable[[], None]:
    """A function that makes the matrix products of a training step at their own shapes, and nothing else.

    These are the products of minilstm in NumPy. Each step has one product, forward and backward. A few inputs are part
    of it; more inputs are multiplied for all steps at once. The gradient of the kernel is one product. The gradient of
    the inputs is not needed.
    """
    from minilstm.fast.row_workspace import LARGE_KERNEL

    steps, batch, inputs, units = shape
    outputs, dense, d_outputs = _ones(steps * batch, units), _ones(units, 1), _ones(steps * batch, 1)
    large = (inputs + units) * 4 * units * np.dtype(np.float32).itemsize > LARGE_KERNEL  # bytes of the kernel
    of_layer = (_products_of_rows if large else _products_of_columns)(shape)

    def call() -> None:
        of_layer()
        outputs @ dense, outputs.T @ d_outputs, d_outputs @ dense.T

    return call


def _ones(*size: int) -> np.ndarray:
    return np.ones(size, np.float32)


def _products_of_columns(shape: Shape) -> Callable[[], None]:
    """The products of `minilstm.fast.workspace`."""
    from minilstm.fast.workspace import FOLD_INPUTS

    steps, batch, inputs, units = shape
    rows = units + 1 + (inputs if inputs <= FOLD_INPUTS else 0)  # of [x_t; h_{t-1}; 1], a column per sequence
    kernel, columns, z = _ones(4 * units, rows), _ones(steps, rows, batch), _ones(steps, 4 * units, batch)
    recurrent, dh = _ones(units, 4 * units), _ones(units, batch)
    all_columns, dz = _ones(inputs + units + 1, steps * batch), _ones(4 * units, steps * batch)
    from_inputs = None if inputs <= FOLD_INPUTS else (_ones(4 * units, inputs), all_columns[:inputs])
    if batch == 1:  # the products of a step are of a matrix and a vector
        columns, z, dh = columns[..., 0], z[..., 0], dh[..., 0]

    def call() -> None:
        if from_inputs is not None:
            np.matmul(*from_inputs, out=dz)
        for column, gates in zip(columns, z, strict=True):
            np.dot(kernel, column, gates)
        for gates in z[::-1]:
            np.dot(recurrent, gates, dh)
        all_columns @ dz.T

    return call


def _products_of_rows(shape: Shape) -> Callable[[], None]:
    """The products of `minilstm.fast.row_workspace`."""
    steps, batch, inputs, units = shape
    kernel, rows = _ones(inputs + units, 4 * units), _ones(steps, batch, inputs + units + 1)
    z, step_z, dh = _ones(steps, batch, 4 * units), _ones(batch, 4 * units), _ones(units, batch)
    all_rows, all_z = rows.reshape(steps * batch, -1), z.reshape(steps * batch, -1)

    def call() -> None:
        np.matmul(all_rows[:, :inputs], kernel[:inputs], out=all_z)
        for row in rows:
            np.matmul(row[:, inputs:-1], kernel[inputs:], out=step_z)
        for dz in z[::-1]:
            np.matmul(kernel[inputs:], dz.T, out=dh)
        all_rows.T @ all_z

    return call


def step_operations(shape: Shape) -> int:
    """Floating-point operations in the matrix products of a training step: forward, and twice as many backward.

    The gradient of the inputs is not needed, and not counted.
    """
    steps, batch, inputs, units = shape
    kernel = 2 * steps * batch * 4 * units
    return kernel * (2 * inputs + 3 * units) + 3 * 2 * steps * batch * units


def toy(peer: str) -> None:
    """Run the toy program: 500 steps of Adam on windows of yearly sunspots, then save the weights."""
    window, batch, inputs, units = TOY
    numbers = np.loadtxt(SUNSPOTS, delimiter=",", skiprows=1)[:, 1]
    series = ((numbers - numbers.mean()) / numbers.std()).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(series, window + 1)
    rng = np.random.default_rng(0)
    model = PEERS[peer](inputs, units)
    for _ in range(TOY_STEPS):
        chosen = windows[rng.integers(0, len(windows), batch)][..., None]
        model.step(np.ascontiguousarray(chosen[:, :-1]), np.ascontiguousarray(chosen[:, 1:]))
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)


def do(peer: str, task: str, shape: Shape) -> float:
    """Do one job; returns its milliseconds, or 0 if the parent measures time or memory of this process."""
    if task == "large product":
        large = _ones(LARGE, LARGE)
        return min(median_time(lambda: large @ large) for _ in range(2))
    if task == "products":
        return median_time(products(shape))
    if task == "toy":
        toy(peer)
        return 0.0
    if task == "breadth":
        from .breadth_cases import step_of

        return median_time(step_of(peer, str(shape[0])))
    if task in ("second", "gradient"):
        from .second import call_of

        return median_time(call_of(peer, task, shape))
    model = PEERS[peer](shape[2], shape[3])
    if task == "truncated":
        model.truncated(*batches(shape, 1)[0], WINDOW)
        return 0.0
    if task == "memory":
        (batch,) = batches(shape, 1)
        for _ in range(WARM_UP):
            model.step(*batch)
        return 0.0
    turn = itertools.cycle(batches(shape))
    if task == "step":
        return median_time(lambda: model.step(*next(turn)))
    run = getattr(model, task)  # forward or generate
    return median_time(lambda: run(next(turn)[0]))


def main() -> None:
    """Do the jobs on standard input, line by line, on `THREADS` cores, so that no library finds more cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    answers, sys.stdout = sys.stdout, sys.stderr  # so that the output of a library is not taken for an answer
    for line in sys.stdin:
        task, shape = json.loads(line)
        print(do(sys.argv[1], task, tuple(shape)), file=answers, flush=True)


if __name__ == "__main__":
    main()
