"""Where a backward sweep first goes wrong: the gate and the step at which it leaves autograd's trace."""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np

from . import sequences
from .gradients import value_and_grad
from .layers import RNN, Sequential
from .params import Tree, flatten_names, get_path, tree_leaves, tree_map, unflatten_names

TRACE_TOLERANCE = 1e-10  # two ways to compute the same float64 numbers


def error(a: Any, b: Any) -> float:
    """The error of `a` against the reference `b`: ``max|a - b| / max(1, max|b|)``; infinite if either is not finite."""
    a, b = np.asarray(a), np.asarray(b)
    if a.size == 0:
        return 0.0
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float(np.max(np.abs(a - b)) / max(1.0, float(np.max(np.abs(b)))))


class RandomLoss:
    """sum(cotangent * x + curvature * x^2 / 2) over all arrays, with random factors: every entry matters."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.factors = rng, list[tuple[np.ndarray, np.ndarray]]()

    def __call__(self, arrays: list[Any]) -> Any:
        if not self.factors:
            self.factors = [(self.rng.normal(size=a.shape), self.rng.normal(size=a.shape)) for a in arrays]
        return sum(anp.sum(p * a + 0.5 * q * a * a) for a, (p, q) in zip(arrays, self.factors, strict=True))

    def cotangents(self, arrays: Any) -> list[np.ndarray]:
        """Return the derivatives of the loss with respect to the arrays; call the loss itself first."""
        return [p + q * a for a, (p, q) in zip(arrays, self.factors, strict=True)]


def first_wrong(model: Sequential, params: Tree, inputs: Any, lengths: Any, rng: np.random.Generator) -> list[str]:
    """For every layer around a bare cell with gates, say where its sweep first differs from the trace."""
    sentences = []
    for name, layer in zip(model.names, model.layers, strict=True):
        weights = get_path(params, name) or {}
        if isinstance(layer, RNN) and layer.uses_derivation and sequences.gates_of(layer.cell):
            cell, loss = layer.cell, RandomLoss(rng)
            x = inputs if layer.time_major else np.ascontiguousarray(np.swapaxes(inputs, 0, 1))
            sweep = (cell, get_path(weights, cell.name), x, cell.zero_state(x.shape[1], np.float64), lengths)
            traced = traced_dz(*sweep, loss)  # first, because this calls the loss
            derived = sequences.every_dz(*sweep, loss.cotangents, fast=layer.is_fast)
            sentences.append(f"{name}: {first_difference(cell, derived, traced)}")
        inputs = layer.apply(weights, inputs, None, lengths)[0]
    return sentences


def traced_dz(
    cell: Any, params: Tree, inputs: np.ndarray, state: Any, lengths: Any, loss: RandomLoss
) -> list[np.ndarray]:
    """Return dz of every step by the trace: each step of each sequence has its own bias, whose gradient is dz."""
    (time, batch, _), flat = inputs.shape, flatten_names(params)
    biases = {name: flat[name] for name in sequences.gates_of(cell)}

    def alone(own: list[Any], n: int) -> list[Any]:
        steps = [unflatten_names({**flat, **biases}) for biases in own]
        row = slice(n, n + 1)
        start, length = tree_map(lambda leaf: leaf[row], state), None if lengths is None else lengths[row]
        outputs, last = sequences.traced(cell, steps, inputs[:, row], start, length)
        return [outputs, *(leaf[None] for leaf in tree_leaves(last))]

    def run(own: list[Any]) -> Any:
        runs = [alone(steps, n) for n, steps in enumerate(own)]
        outputs, *last = (anp.concatenate(parts, axis=1) for parts in zip(*runs, strict=True))
        return loss([outputs, *(leaf[0] for leaf in last)])

    traced = value_and_grad(run)([[biases for _ in range(time)] for _ in range(batch)])[1]
    rows = [[np.concatenate(list(step.values())) for step in steps] for steps in traced]
    return list(np.array(rows).swapaxes(0, 1))


def first_difference(cell: Any, derived: Any, traced: list[np.ndarray]) -> str:
    """Say where a sweep first differs from the trace; it begins at the last step."""
    time, gates = len(traced), [gate for block in sequences.gates_of(cell).values() for gate in block]
    for t in reversed(range(time)):
        blocks = (np.split(x[t], len(gates), axis=1) for x in (derived, traced))
        for gate, dz, wanted in zip(gates, *blocks, strict=True):
            if error(dz, wanted) > TRACE_TOLERANCE:
                return f"the sweep first goes wrong at step {t} of 0..{time - 1}, gate {gate}"
    return "every step's gates agree with the trace; the fault is in what follows: the sums over time, or dx"
