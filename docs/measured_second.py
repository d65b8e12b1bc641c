"""What the chapters on second derivatives need and cannot compute when the site is built; `measure.py` runs it.

    python docs/measure.py second      products in JAX and PyTorch           -> docs/measured/second_products.json
    python docs/measure.py recompute   time and memory by the number of steps -> docs/measured/recompute.json

The second takes ``--steps 1000 3000 ...`` and measures each case in a new process. Times are those of one thread
on this machine: run it on a quiet one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
STEPS = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
BATCH, INPUTS, UNITS = 8, 1, 64
PASSES = {"plain": None, "auto": "auto"}


def problem() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights, their direction and the data of the chapter on curvature, which draws them in the same order."""
    steps, batch, features, units = 6, 3, 2, 4
    rng = np.random.default_rng(0)
    weights, direction = (
        {"kernel": rng.normal(0, 0.5, (features + units, 4 * units)), "bias": rng.normal(0, 0.5, 4 * units)}
        for _ in range(2)
    )
    data = {"inputs": rng.normal(size=(steps, batch, features)), "targets": rng.normal(size=(steps, batch, units))}
    return weights, direction, data


def loss_in(library: Any, sigmoid: Any, kernel: Any, bias: Any, data: dict[str, Any]) -> Any:
    """The chapter's loss, written with the functions of JAX or PyTorch."""
    c = h = library.zeros_like(data["targets"][0])
    total = 0.0
    for x_t, y_t in zip(data["inputs"], data["targets"], strict=True):
        z = library.concatenate([x_t, h], 1) @ kernel + bias
        units = c.shape[1]
        i, j, f, o = (z[:, n * units : (n + 1) * units] for n in range(4))
        c = sigmoid(f + 1) * c + sigmoid(i) * library.tanh(j)
        h = sigmoid(o) * library.tanh(c)
        total = total + 0.5 * ((h - y_t) ** 2).sum()
    return total


def products() -> dict[str, Any]:
    """The product of the Hessian with the direction in JAX and in PyTorch, float64."""
    import jax
    import torch

    jax.config.update("jax_enable_x64", True)
    weights, direction, data = problem()
    names = ("kernel", "bias")
    given, moved = (tuple(jax.numpy.asarray(tree[name]) for name in names) for tree in (weights, direction))
    gradient = jax.grad(lambda w, b: loss_in(jax.numpy, jax.nn.sigmoid, w, b, data), argnums=(0, 1))
    _, in_jax = jax.jvp(gradient, given, moved)

    leaves = [torch.tensor(weights[name], requires_grad=True) for name in names]
    tensors = {name: torch.tensor(array) for name, array in data.items()}
    loss = loss_in(torch, torch.sigmoid, leaves[0], leaves[1], tensors)
    grads = torch.autograd.grad(loss, leaves, create_graph=True)
    in_torch = torch.autograd.grad(grads, leaves, grad_outputs=[torch.tensor(direction[name]) for name in names])
    found = {"JAX, jvp of grad": in_jax, "PyTorch, double backward": in_torch}
    lists = {title: {name: np.asarray(array).tolist() for name, array in zip(names, arrays, strict=True)}
             for title, arrays in found.items()}  # fmt: skip
    return {"packages": ("numpy", "autograd", "jax", "torch"), "products": lists}


def growth(steps: list[int] | None) -> dict[str, Any]:
    """CPU time and peak memory of one gradient, by pass and number of steps."""
    rows = []
    for count in steps or STEPS:
        for name in PASSES:
            command = [sys.executable, str(Path(__file__)), name, str(count)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MINILSTM_COMPILED": "0"}
            options: dict[str, Any] = {"cwd": ROOT, "check": True, "stdout": subprocess.PIPE, "text": True}
            printed = subprocess.run(command, env=environment, **options).stdout
            rows.append({"pass": name, "steps": count, **json.loads(printed)})
            print(rows[-1], flush=True)
    shape = {"batch": BATCH, "inputs": INPUTS, "units": UNITS, "dtype": "float32"}
    return {"packages": ("numpy", "autograd"), "shape": shape, "rows": rows}


def one_gradient(recompute: Any, steps: int) -> dict[str, float]:
    """One process: the peak memory of a gradient above that of the start, MiB, and the least CPU time of five more."""
    import resource

    from minilstm import LSTM, Dense, Sequential, losses, value_and_grad

    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((BATCH, steps, width), np.float32) for width in (INPUTS, 1))

    def of(count: int, recompute: Any) -> Any:
        model = Sequential(LSTM(UNITS, recompute=recompute), Dense(1))
        gradient = value_and_grad(lambda params: losses.mse(model(params, x[:, :count]), y[:, :count]))
        params = model.init(0, input_dim=INPUTS)
        return lambda: gradient(params)

    def peak() -> float:
        unit = 1024**2 if sys.platform == "darwin" else 1024  # of ru_maxrss: bytes on a Mac, else kilobytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

    of(8, recompute)()  # whatever is loaded or allocated once
    start, run = peak(), of(steps, recompute)
    run()
    memory = peak() - start
    durations = []
    for _ in range(5):
        begin = time.process_time()  # of this process's one thread: other programs of the machine count less
        run()
        durations.append(time.process_time() - begin)
    return {"cpu_milliseconds": round(min(durations) * 1e3, 1), "mebibytes": round(memory, 1)}


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    print(json.dumps(one_gradient(PASSES[sys.argv[1]], int(sys.argv[2]))))
