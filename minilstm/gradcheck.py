"""One table that shows whether gradients are right: hand-derived, autograd's trace and central differences.

    print(gradcheck.report(Sequential(LSTM(5), Dense(1)), input_dim=3))

`report` checks a model, `report_backward` a backward pass that you have written yourself.

All three are computed in float64 for the same random loss, which uses every output and every final state. Weights whose
columns are gates get a row a gate. Where the hand-derived gradient disagrees with the trace, the report names the gate
and the step at which the backward sweep first went wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np

from . import bptt, sequences
from .cells import GATES, LSTMCell, LSTMState
from .fast import lstm as fast_lstm
from .gradients import value_and_grad
from .layers import RNN, Bidirectional, Embedding, Sequential
from .layers.base import Layer
from .params import flatten_names, get_path, tree_leaves, tree_map

TRACE_TOLERANCE = 1e-10  # two ways to compute the same float64 numbers
CENTRAL_TOLERANCE = 1e-6  # central differences themselves are good to about 1e-9
CENTRAL_STEP = 1e-5  # near the cube root of float64's rounding, where rounding and curvature errors meet

Tree = Any


def error(a: Any, b: Any) -> float:
    """How far `a` is from the reference `b`: ``max|a - b| / max(1, max|b|)``; infinite where either is not finite."""
    a, b = np.asarray(a), np.asarray(b)
    if a.size == 0:
        return 0.0
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float(np.max(np.abs(a - b)) / max(1.0, float(np.max(np.abs(b)))))


class Row(NamedTuple):
    """One weight, or one gate of it: errors against the trace and against central differences."""

    name: str
    gate: str
    trace_error: float
    central_error: float
    largest: float
    entries: int

    @property
    def agrees(self) -> bool:
        """Whether both errors are within tolerance."""
        return self.trace_error <= TRACE_TOLERANCE and self.central_error <= CENTRAL_TOLERANCE


class Report(NamedTuple):
    """What `report` found; ``str(report)`` is the table.

    `worst` describes the entry with the largest difference; `first_wrong` the gate and the step at which a sweep first
    disagreed with the trace, and is empty where all agree.
    """

    rows: list[Row]
    worst: str
    first_wrong: list[str]

    @property
    def agrees(self) -> bool:
        """Whether every row does."""
        return all(row.agrees for row in self.rows)

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        head = f"{'gradient of':<{width}}  gate   vs trace   vs central   largest  checked  verdict"
        lines = [head, "-" * len(head)]
        for row in self.rows:
            lines.append(
                f"{row.name:<{width}}  {row.gate:<4}  {row.trace_error:9.1e}  {row.central_error:11.1e}  "
                f"{row.largest:8.1e}  {row.entries:7d}  {'ok' if row.agrees else 'WRONG'}"
            )
        lines += ["", f"worst entry: {self.worst}", *self.first_wrong]
        lines.append(
            f"{'all agree' if self.agrees else 'they disagree'} "
            f"(tolerances: {TRACE_TOLERANCE:g} against the trace, {CENTRAL_TOLERANCE:g} against central differences)"
        )
        return "\n".join(lines)


def report(
    model: Sequential | Layer,
    params: Tree = None,
    *,
    input_dim: int | None = None,
    batch: int = 3,
    time: int = 7,
    seed: Any = 0,
    sequence_length: Any = None,
    entries: int = 40,
) -> Report:
    """Check the gradients of a model.

    Parameters
    ----------
    model : Sequential or layer
    params : dict, optional
        Default: new ones. They are converted to float64, and those that are all 0 are drawn anew, since a gradient
        cannot be told from a wrong one where everything is 0.
    input_dim : int, optional
        Default: what `params` were made for, else 3.
    batch, time : int
        Size of the random inputs.
    seed
        For inputs, parameters and loss.
    sequence_length : integer array [batch], optional
    entries : int
        Central differences are taken for at most so many entries of each row, drawn at random.

    Returns
    -------
    Report

    Examples
    --------
    >>> from minilstm import LSTM, Dense
    >>> report(Sequential(LSTM(3, use_peepholes=True), Dense(1)), input_dim=2).agrees
    True
    """
    model = model if isinstance(model, Sequential) else Sequential(model)
    rng = np.random.default_rng(seed)
    if input_dim is None:
        input_dim = (model.input_dim(params) if params is not None else None) or 3
    params = model.init(rng, input_dim, np.float64) if params is None else params
    params = _in_float64(params, rng)

    variables: Tree = {"params": params}
    first = model.layers[0]
    if isinstance(first, Embedding):
        given = rng.integers(0, first.vocabulary, (batch, time))
    else:
        given = None
        variables["inputs"] = rng.normal(0, 1, (batch, time, input_dim))
    zeros = model.apply(params, variables.get("inputs", given))[1]
    variables["initial_state"] = tree_map(lambda s: rng.normal(0, 0.5, s.shape), zeros)
    loss = _RandomLoss(rng)

    def run(model: Sequential, tree: Tree) -> Any:
        inputs = tree.get("inputs", given)
        outputs, state = model.apply(
            tree["params"], inputs, state=tree["initial_state"], sequence_length=sequence_length
        )
        return loss([outputs, *tree_leaves(state)])

    traced = _with_trace(model)
    _, derived_grads = value_and_grad(lambda tree: run(model, tree))(variables)
    _, traced_grads = value_and_grad(lambda tree: run(traced, tree))(variables)
    rows, worst = _compare(
        lambda: run(model, variables), _flatten(variables), _flatten(derived_grads), _flatten(traced_grads),
        _gated_weights(model), entries, rng,
    )  # fmt: skip
    first_wrong = _first_wrong(model, params, variables.get("inputs", given), sequence_length, rng)
    return Report(rows, worst, first_wrong if not all(row.agrees for row in rows) else [])


def report_backward(
    cell: LSTMCell,
    backward: Callable[..., Any],
    *,
    input_dim: int = 3,
    batch: int = 3,
    time: int = 7,
    seed: Any = 0,
    entries: int = 40,
) -> Report:
    """Check a backward pass of your own for a sequence of an LSTM cell.

    Parameters
    ----------
    cell : LSTMCell
        Says what is differentiated; its own step is traced for comparison.
    backward : callable
        ``backward(params, inputs, state, d_outputs, d_state)`` returns ``(d_params, d_inputs, d_initial_state, dz)``.
        It is given weights named as the cell's, inputs ``[time, batch, input_dim]``, the initial state (c, h), and
        the derivatives of a loss with respect to the outputs ``[time, batch, output_size]`` and the final state
        (c, h). It returns those with respect to its first three arguments, and dz of every step
        ``[time, batch, 4 * units]``, from which the report tells where a sweep first goes wrong.
    input_dim, batch, time : int
        Size of the random inputs.
    seed
        For inputs, weights and loss.
    entries : int
        As in `report`.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        If a derivative has not the shape of what it is the derivative of.
    """
    rng = np.random.default_rng(seed)
    params = _in_float64(cell.init(rng, input_dim, np.float64), rng)
    inputs = rng.normal(0, 1, (time, batch, input_dim))
    state = tree_map(lambda s: rng.normal(0, 0.5, s.shape), cell.zero_state(batch))
    variables: Tree = {"params": params, "inputs": inputs, "initial_state": {"": state}}
    loss = _RandomLoss(rng)

    def run(tree: Tree) -> Any:
        outputs, last = sequences.traced(cell, tree["params"], tree["inputs"], tree["initial_state"][""])
        return loss([outputs, *last])

    _, traced = value_and_grad(run)(variables)
    outputs, last = sequences.traced(cell, params, inputs, state)
    d_outputs, dc, dh = loss.cotangents([outputs, *last])
    d_params, d_inputs, d_initial, dz = backward(params, inputs, state, d_outputs, LSTMState(dc, dh))
    derived = _flatten({"params": d_params, "inputs": d_inputs, "initial_state": {"": LSTMState(*d_initial)}})
    values = _flatten(variables)
    found = {**{name: np.shape(value) for name, value in derived.items()}, "z": np.shape(dz)}
    wanted = {**{name: value.shape for name, value in values.items()}, "z": (time, batch, 4 * cell.units)}
    for name, shape in wanted.items():
        if found.get(name) != shape:
            raise ValueError(f"report_backward: the derivative of {name} must be {shape}, got {found.get(name)}")
    gated = {"kernel": cell.units, "bias": cell.units}
    rows, worst = _compare(lambda: run(variables), values, derived, _flatten(traced), gated, entries, rng)
    if all(row.agrees for row in rows):
        return Report(rows, worst, [])
    traced_dz = _traced_dz(cell, params, inputs, state, None, loss)
    return Report(rows, worst, [_first_difference(dz, traced_dz, cell.units)])


def _in_float64(params: Tree, rng: np.random.Generator) -> Tree:
    """The weights in float64; those that are all 0 are drawn anew."""
    params = tree_map(lambda w: np.asarray(w, np.float64), params)
    return tree_map(lambda w: w if np.any(w) else rng.normal(0, 0.3, w.shape), params)


def _compare(
    function: Callable[[], Any],
    values: dict[str, np.ndarray],
    derived: dict[str, np.ndarray],
    trace: dict[str, np.ndarray],
    gated: dict[str, int],
    entries: int,
    rng: np.random.Generator,
) -> tuple[list[Row], str]:
    """The rows of the table, and what the entry with the largest difference is. `function` reads `values`."""
    rows, worst = [], (-1.0, "")
    for name, columns in _rows(values, gated):
        hand, reference = derived[name], trace[name]
        inside = np.zeros(hand.shape, bool)
        inside[..., columns] = True
        places = np.argwhere(inside)
        places = places[rng.permutation(len(places))[:entries]]
        central = np.array([_central(function, values[name], p) for p in places])
        at = tuple(places.T)
        for place, numeric in zip(places, central, strict=True):
            p = tuple(int(k) for k in place)
            difference = max(abs(hand[p] - reference[p]), abs(hand[p] - numeric))
            if not difference <= worst[0]:
                text = f"{name}{list(p)}: derived {hand[p]:.12g}, trace {reference[p]:.12g}, central {numeric:.12g}"
                worst = (difference, text)
        gate = GATES[columns.start // (columns.stop - columns.start)] if columns != slice(None) else ""
        part = (..., columns)
        rows.append(
            Row(name, gate, error(hand[part], reference[part]), error(hand[at], central),
                float(np.max(np.abs(reference[part]))), len(places))
        )  # fmt: skip
    return rows, worst[1]


class _RandomLoss:
    """sum(cotangent * x + curvature * x^2 / 2) over all arrays: every entry of every one of them matters."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.factors = rng, list[tuple[np.ndarray, np.ndarray]]()

    def __call__(self, arrays: list[Any]) -> Any:
        if not self.factors:
            self.factors = [(self.rng.normal(size=a.shape), self.rng.normal(size=a.shape)) for a in arrays]
        return sum(anp.sum(p * a + 0.5 * q * a * a) for a, (p, q) in zip(arrays, self.factors, strict=True))

    def cotangents(self, arrays: Any) -> list[np.ndarray]:
        """The derivatives of the loss with respect to each of the arrays; it has been called before."""
        return [p + q * a for a, (p, q) in zip(arrays, self.factors, strict=True)]


def _with_trace(model: Sequential) -> Sequential:
    """The same model, differentiated by autograd's trace throughout."""
    layers = []
    for name, layer in zip(model.names, model.layers, strict=True):
        twin = copy.copy(layer)
        twin.name = name
        if isinstance(twin, RNN):
            twin.backprop = "autograd"
        if isinstance(twin, Bidirectional):
            twin.forward, twin.backward = copy.copy(twin.forward), copy.copy(twin.backward)
            twin.forward.backprop = twin.backward.backprop = "autograd"
        layers.append(twin)
    return Sequential(*layers)


def _flatten(tree: Tree) -> dict[str, np.ndarray]:
    """Parameters under their own names, inputs and the initial state's parts behind them."""
    flat: dict[str, np.ndarray] = dict(flatten_names(tree["params"]))
    if "inputs" in tree:
        flat["inputs"] = tree["inputs"]
    for layer, state in tree["initial_state"].items():
        leaves = tree_leaves(state)
        labels = getattr(state, "_fields", range(len(leaves)))
        flat.update({f"{layer} initial {label}".strip(): leaf for label, leaf in zip(labels, leaves, strict=True)})
    return flat


def _gated_weights(model: Sequential) -> dict[str, int]:
    """The weights whose columns are gates, and how many columns each gate has."""
    gated = {}
    for name, layer in zip(model.names, model.layers, strict=True):
        if isinstance(layer, RNN) and bptt.has_derivation(layer.cell):
            for weight in ("kernel", "bias"):
                gated[f"{name}/{layer.cell.name}/{weight}"] = layer.cell.units
    return gated


def _rows(values: dict[str, np.ndarray], gated: dict[str, int]) -> list[tuple[str, slice]]:
    """(name, columns) of every row of the table: four for a weight whose columns are gates, else one."""
    rows: list[tuple[str, slice]] = []
    for name in values:
        units = gated.get(name)
        rows += [(name, slice(k * units, (k + 1) * units)) for k in range(4)] if units else [(name, slice(None))]
    return rows


def _central(function: Callable[[], Any], array: np.ndarray, place: np.ndarray) -> float:
    """(f(w + s) - f(w - s)) / 2s at one entry; `array` is what `function` reads, and is put back."""
    p = tuple(place)
    kept = array[p]
    step = CENTRAL_STEP * max(1.0, abs(kept))
    array[p] = kept + step
    above = function()
    array[p] = kept - step
    below = function()
    array[p] = kept
    return float((above - below) / (2 * step))


def _first_wrong(model: Sequential, params: Tree, inputs: Any, lengths: Any, rng: np.random.Generator) -> list[str]:
    """For every layer around a bare LSTM cell: where its sweep first departs from the trace, as sentences."""
    sentences = []
    for name, layer in zip(model.names, model.layers, strict=True):
        weights = get_path(params, name) or {}
        if isinstance(layer, RNN) and layer.uses_derivation and bptt.has_derivation(layer.cell):
            x = inputs if layer.time_major else np.ascontiguousarray(np.swapaxes(inputs, 0, 1))
            compared = _compare_sweeps(layer, get_path(weights, layer.cell.name), x, lengths, rng)
            sentences.append(f"{name}: {compared}")
        inputs = layer.apply(weights, inputs, None, lengths)[0]
    return sentences


def _compare_sweeps(layer: RNN, params: Tree, inputs: np.ndarray, lengths: Any, rng: np.random.Generator) -> str:
    cell = layer.cell
    state = cell.zero_state(inputs.shape[1], np.float64)
    loss = _RandomLoss(rng)
    traced = _traced_dz(cell, params, inputs, state, lengths, loss)
    fast = layer.backprop == "fast" and lengths is None and fast_lstm.can_run(cell)
    every_dz = fast_lstm.every_dz if fast else bptt.every_dz
    derived = every_dz(cell, params, inputs, state, lengths, loss.cotangents)
    return _first_difference(derived, traced, cell.units)


def _traced_dz(
    cell: Any, params: Tree, inputs: np.ndarray, state: Any, lengths: Any, loss: _RandomLoss
) -> list[np.ndarray]:
    """By the trace, dz of every step: every step of every sequence has a bias of its own, and its gradient is dz."""
    time, batch, _ = inputs.shape

    def run(biases: list[Any]) -> Any:
        steps = [{**params, "bias": bias} for bias in biases]
        outputs, last = sequences.traced(cell, steps, inputs, state, lengths)
        return loss([outputs, *last])

    _, traced = value_and_grad(run)([np.tile(params["bias"], (batch, 1)) for _ in range(time)])
    return traced


def _first_difference(derived: Any, traced: list[np.ndarray], units: int) -> str:
    """Where a sweep, which begins at the last step, first departs from the trace, as a sentence."""
    time = len(traced)
    for t in reversed(range(time)):
        for k, gate in enumerate(GATES):
            part = np.s_[:, k * units : (k + 1) * units]
            if error(derived[t][part], traced[t][part]) > TRACE_TOLERANCE:
                return f"the sweep first goes wrong at step {t} of 0..{time - 1}, gate {gate}"
    return "every step's gates agree with the trace; a fault lies behind them, in the sums over time or in dx"
