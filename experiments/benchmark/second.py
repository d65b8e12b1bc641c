"""The product of a Hessian with a vector: in minilstm, in jitted JAX, and by double backward in PyTorch.

    python -m experiments.benchmark --second --rounds 7

The model is LSTM(units), Dense(1) in float32, the loss the mean squared error of all steps. All peers have the same
weights, the same vector and the same batches, and give loss, gradient and product. JAX pushes the vector through its
gradient (``jvp`` of ``value_and_grad``). PyTorch differentiates the gradient's product with the vector; its fused LSTM
has no second derivative, so it is switched off. The peers take turns as in the rest of the benchmark.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import common
from .peers import Jax, Minilstm, PyTorch
from .tables import SHAPE, cells, geometric_mean
from .work import Shape, batches

SHAPES: tuple[Shape, ...] = ((50, 32, 1, 32), (50, 32, 64, 128), (100, 16, 8, 64))
PRODUCT, GRADIENT = "second", "gradient"  # the jobs; the gradient alone is measured in minilstm
TABLES_FILE, TIMES_FILE = "second.md", "second.csv"

Weights = dict[str, np.ndarray]  # kernel [input + units, 4 * units] and bias, gates i, j, f, o; dense and dense_bias
Outcome = tuple[Any, Weights, Weights]  # loss, gradient, product
Times = dict[Shape, dict[tuple[str, str], list[float]]]  # shape; peer and job: milliseconds of each round


def weights_of(shape: Shape, seed: int) -> Weights:
    """Random weights, or a vector to multiply with."""
    _, _, inputs, units = shape
    rng = np.random.default_rng([seed, 5])
    sizes = {"kernel": (inputs + units, 4 * units), "bias": (4 * units,), "dense": (units, 1), "dense_bias": (1,)}
    limit = np.sqrt(6 / (inputs + 5 * units))
    return {name: rng.uniform(-limit, limit, size).astype(np.float32) for name, size in sizes.items()}


def call_of(peer: str, job: str, shape: Shape) -> Callable[[], Any]:
    """A function that does the job of a peer on the next of a few batches."""
    feed = itertools.cycle(batches(shape))
    if job == GRADIENT:
        from minilstm import value_and_grad

        loss, params, _ = _in_minilstm(shape)
        gradient = value_and_grad(loss)
        return lambda: gradient(params, *next(feed))
    run = product_of(peer, shape)
    return lambda: run(*next(feed))


def product_of(peer: str, shape: Shape) -> Callable[[np.ndarray, np.ndarray], Any]:
    """A function of a batch that computes loss, gradient and product in a peer's library, in its own arrays."""
    return {PyTorch.name: torch_product, Jax.name: jax_product}.get(peer, minilstm_product)(shape)


def outcome_of(peer: str, shape: Shape, x: np.ndarray, y: np.ndarray) -> Outcome:
    """The results of `product_of` on one batch, in the layout of `Weights`."""
    loss, grads, product = product_of(peer, shape)(x, y)
    if peer == PyTorch.name:
        return loss.item(), _from_torch(grads, shape), _from_torch(product, shape)
    if peer == Jax.name:
        in_numpy = [{name: np.asarray(array) for name, array in tree.items()} for tree in (grads, product)]
        return float(loss), in_numpy[0], in_numpy[1]
    return float(loss), _from_minilstm(grads), _from_minilstm(product)


def minilstm_product(shape: Shape) -> Callable[[np.ndarray, np.ndarray], Any]:
    """`product_of` for minilstm."""
    from minilstm import hessian_vector_product

    loss, params, vector = _in_minilstm(shape)
    product = hessian_vector_product(loss)
    return lambda x, y: product(params, vector, x, y)


def _in_minilstm(shape: Shape) -> tuple[Any, Any, Any]:
    """The loss, the weights and the vector as minilstm has them."""
    from minilstm import LSTM, Dense, Sequential, losses

    model = Sequential(LSTM(shape[3]), Dense(1))

    def tree(w: Weights) -> Any:
        layers = {"kernel": w["kernel"], "bias": w["bias"]}, {"kernel": w["dense"], "bias": w["dense_bias"]}
        return {"rnn": {"lstm_cell": layers[0]}, "dense": layers[1]}

    return lambda p, x, y: losses.mse(model(p, x), y), tree(weights_of(shape, 0)), tree(weights_of(shape, 1))


def _from_minilstm(tree: Any) -> Weights:
    cell, dense = tree["rnn"]["lstm_cell"], tree["dense"]
    return {**cell, "dense": dense["kernel"], "dense_bias": dense["bias"]}


def jax_product(shape: Shape) -> Callable[[np.ndarray, np.ndarray], Any]:
    """`product_of` for JAX, compiled as one function."""
    import jax
    import jax.numpy as jnp

    _, batch, inputs, units = shape

    def loss(w: Any, x: Any, y: Any) -> Any:
        gates_x = jnp.swapaxes(x, 0, 1) @ w["kernel"][:inputs] + w["bias"]  # of all steps at once

        def cell(carry: Any, gate_x: Any) -> tuple[Any, Any]:
            c, h = carry
            i, j, f, o = jnp.split(gate_x + h @ w["kernel"][inputs:], 4, axis=1)
            c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(j)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (c, h), h

        start = jnp.zeros((batch, units)), jnp.zeros((batch, units))
        outputs = jax.lax.scan(cell, start, gates_x)[1] @ w["dense"] + w["dense_bias"]
        return jnp.mean((jnp.swapaxes(outputs, 0, 1) - y) ** 2)

    def product(w: Any, vector: Any, x: Any, y: Any) -> Any:
        (value, grads), (_, pushed) = jax.jvp(lambda w: jax.value_and_grad(loss)(w, x, y), (w,), (vector,))
        return value, grads, pushed

    compiled = jax.jit(product)
    w, vector = (jax.device_put(weights_of(shape, seed)) for seed in (0, 1))
    return lambda x, y: jax.block_until_ready(compiled(w, vector, x, y))


def torch_product(shape: Shape) -> Callable[[np.ndarray, np.ndarray], Any]:
    """`product_of` for PyTorch: the backward pass is traced, and goes backward once more."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of processors that are not there
        torch.backends.mkldnn.set_flags(False)  # the fused LSTM
    _, _, inputs, units = shape
    order = _torch_order(units)
    lstm, dense = torch.nn.LSTM(inputs, units, batch_first=True), torch.nn.Linear(units, 1)
    leaves = [*lstm.parameters(), *dense.parameters()]

    def as_torch(w: Weights, forget_bias: float) -> list[Any]:
        bias = w["bias"] + np.repeat(np.array([0, 0, forget_bias, 0], np.float32), units)
        kernel = w["kernel"][:inputs].T[order], w["kernel"][inputs:].T[order]
        parts = *kernel, bias[order], np.zeros_like(bias), w["dense"].T, w["dense_bias"]
        return [torch.from_numpy(np.ascontiguousarray(part)) for part in parts]

    with torch.no_grad():
        for leaf, value in zip(leaves, as_torch(weights_of(shape, 0), 1.0), strict=True):
            leaf.copy_(value)
    vector = as_torch(weights_of(shape, 1), 0.0)

    def product(x: np.ndarray, y: np.ndarray) -> Any:
        outputs = dense(lstm(torch.from_numpy(x))[0])
        loss = torch.nn.functional.mse_loss(outputs, torch.from_numpy(y))
        grads = torch.autograd.grad(loss, leaves, create_graph=True)
        return loss, grads, torch.autograd.grad(grads, leaves, grad_outputs=vector)

    return product


def _torch_order(units: int) -> np.ndarray:
    """The rows of minilstm's i, j, f, o in PyTorch's order i, f, g, o; the same order leads back."""
    return np.concatenate([np.arange(units) + units * n for n in (0, 2, 1, 3)])


def _from_torch(parts: Any, shape: Shape) -> Weights:
    """The derivatives of PyTorch's tensors; those of its two biases are equal, and either is that of our one."""
    w_x, w_h, bias, _, dense, dense_bias = (part.detach().numpy() for part in parts)
    order = _torch_order(shape[3])
    kernel = np.concatenate([w_x[order].T, w_h[order].T])
    return {"kernel": kernel, "bias": bias[order], "dense": dense.T, "dense_bias": dense_bias}


def measure(worker: Callable[[str], Any], present: Sequence[str], rounds: int, shapes: Sequence[Shape]) -> Times:
    """The times of the peers that are present. ``worker(peer)`` is a process that does jobs of a peer."""
    times: Times = {}
    jobs = [(Minilstm.name, GRADIENT), *((peer, PRODUCT) for peer in peers_of_second() if peer in present)]
    for turn in range(rounds):
        for shape in shapes:
            print(f"second: round {turn + 1} of {rounds}, {shape}", flush=True)
            for peer, job in jobs:
                with worker(peer) as process:
                    times.setdefault(shape, {}).setdefault((peer, job), []).append(process.do((job, shape)))
    return times


def table(times: Times) -> str:
    """The median time of every peer, and the medians over rounds of the ratios; their geometric means at the bottom."""
    product, gradient = (Minilstm.name, PRODUCT), (Minilstm.name, GRADIENT)
    peers = [peer for peer in peers_of_second() if any((peer, PRODUCT) in found for found in times.values())]
    rows, ratios = [], []
    for shape, found in times.items():
        others = [key for key in found if key not in (product, gradient)]
        fastest = min(others, key=lambda key: float(np.median(found[key])), default=None)
        bases = [found[key] if key else [np.nan] for key in (fastest, gradient)]
        over = [float(np.median(np.divide(found[product], base))) for base in bases]
        ratios.append(over)
        medians = [float(np.median(found[peer, PRODUCT])) for peer in peers]
        rows.append((str(shape), *cells(*medians, float(np.median(found[gradient])), *over)))
    rows.append((f"geometric mean of {len(rows)}", *[""] * (len(peers) + 1), *cells(*geometric_mean(ratios))))
    head = (SHAPE, *peers, "minilstm's gradient", "minilstm over fastest", "product over gradient")
    return common.table(head, rows)


def report(out: Path, times: Times, headline: str) -> None:
    """Print the table; write it and all numbers to `out`."""
    title = (
        "The product of the Hessian with a vector, with loss and gradient, milliseconds, medians of all rounds; "
        '"fastest" is the faster of the other libraries'
    )
    text = "\n\n".join([headline, title, table(times)])
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    common.files.write_text(str(out / TABLES_FILE), text + "\n")
    rows = [(peer, job, *shape, turn, value) for shape, found in times.items()
            for (peer, job), values in found.items() for turn, value in enumerate(values, 1)]  # fmt: skip
    common.write_csv(
        out / TIMES_FILE, ("peer", "job", "time", "batch", "input", "units", "round", "milliseconds"), rows
    )


def peers_of_second() -> dict[str, tuple[str, ...]]:
    """Every peer, and the modules that it needs."""
    return {peer.name: peer.modules for peer in (Minilstm, PyTorch, Jax)}
