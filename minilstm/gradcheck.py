"""Check gradients: one table of the hand-derived ones, autograd's trace and central differences.

    print(gradcheck.report(Sequential(LSTM(5), Dense(1)), input_dim=3))

`report` checks a model, `report_backward` a backward pass that you have written yourself.

All are computed in float64 for the same random loss, which uses every output and every final state. A weight whose
columns are gates has one row for each gate. If the hand-derived gradient disagrees with the trace, the report names the
gate and the step at which the backward sweep first went wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import sequences
from .arguments import as_generator, check_function, check_has
from .arrays import as_array
from .cells import LSTMState
from .first_fault import TRACE_TOLERANCE, RandomLoss, error, first_difference, first_wrong, traced_dz
from .gradients import hessian_vector_product, value_and_grad
from .layers import RNN, Bidirectional, Embedding, Sequential
from .layers.base import Layer
from .params import Tree, flatten_names, tree_leaves, tree_map, tree_unflatten

CENTRAL_TOLERANCE = 1e-6  # central differences themselves are good to about 1e-9
CENTRAL_STEP = 1e-5  # near the cube root of float64's rounding, where rounding and curvature errors meet


class Row(NamedTuple):
    """One row of the table: the errors of one weight, or one gate of it, against the trace and central differences.

    `second_error` is that of a product of the Hessian with a random vector, against the trace's; None if a part of the
    model has no second derivatives, or a backward pass was checked that has none.
    """

    name: str
    gate: str
    trace_error: float
    central_error: float
    largest: float
    entries: int
    second_error: float | None = None

    @property
    def agrees(self) -> bool:
        """Whether all errors are within tolerance."""
        first = self.trace_error <= TRACE_TOLERANCE and self.central_error <= CENTRAL_TOLERANCE
        return first and (self.second_error is None or self.second_error <= TRACE_TOLERANCE)


class Report(NamedTuple):
    """What `report` found; ``str(report)`` is the table.

    `worst` describes the entry with the largest difference. `first_wrong` names the gate and the step at which a sweep
    first disagreed with the trace; it is empty if all rows agree.
    """

    rows: list[Row]
    worst: str
    first_wrong: list[str]

    @property
    def agrees(self) -> bool:
        """Whether every row agrees."""
        return all(row.agrees for row in self.rows)

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        head = f"{'gradient of':<{width}}  gate   vs trace   vs central     second   largest  checked  verdict"
        lines = [head, "-" * len(head)]
        for row in self.rows:
            second = "-" if row.second_error is None else f"{row.second_error:.1e}"
            lines.append(
                f"{row.name:<{width}}  {row.gate:<4}  {row.trace_error:9.1e}  {row.central_error:11.1e}  {second:>9}  "
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
    """Check the gradients of a model, and return the table.

    Parameters
    ----------
    model : Sequential or layer
    params : dict, optional
        Default: new ones. They are converted to float64. A parameter that is all 0 is replaced by random numbers,
        because its gradient may be 0 whether right or wrong.
    input_dim : int, optional
        Default: the one that `params` were made for, else 3.
    batch, time : int
        Size of the random inputs.
    seed
        For inputs, parameters and loss.
    sequence_length : integer array [batch], optional
    entries : int
        Central differences are taken for at most this many entries of each row, drawn at random.

    Examples
    --------
    >>> from minilstm import LSTM, Dense
    >>> report(Sequential(LSTM(3, use_peepholes=True), Dense(1)), input_dim=2).agrees
    True
    """
    check_has(model, "apply", "model", "report", "a Sequential or a layer")
    model = model if isinstance(model, Sequential) else Sequential(model)
    if input_dim is None:
        input_dim = (model.input_dim(params) if params is not None else None) or 3
    rng = as_generator(seed, "report", batch=batch, time=time, entries=entries, input_dim=input_dim)
    params = _in_float64(model.init(rng, input_dim, np.float64) if params is None else params, rng)
    variables: Tree = {"params": params}
    size = (time, batch) if model.is_time_major else (batch, time)
    first, labels = model.layers[0], None
    if isinstance(first, Embedding):
        labels = rng.integers(0, first.vocabulary, size)
    else:
        variables["inputs"] = rng.normal(0, 1, (*size, input_dim))
    inputs = variables.get("inputs", labels)
    zeros = _without_learned(model, model.apply(params, inputs)[1])
    variables["initial_state"] = tree_map(lambda s: rng.normal(0, 0.5, s.shape), zeros)
    loss = RandomLoss(rng)

    def run(model: Sequential, tree: Tree) -> Any:
        given = {"state": tree["initial_state"], "sequence_length": sequence_length}
        outputs, state = model.apply(tree["params"], tree.get("inputs", labels), **given)
        return loss([outputs, *tree_leaves(state)])

    traced_model = Sequential(*map(_with_trace, model.layers))
    _, derived = value_and_grad(lambda tree: run(model, tree))(variables)
    _, traced = value_and_grad(lambda tree: run(traced_model, tree))(variables)
    layers = {name: layer for name, layer in zip(model.names, model.layers, strict=True) if isinstance(layer, RNN)}
    gated = _gated_weights({f"{name}/{layer.cell.name}/": layer.cell for name, layer in layers.items()})
    table = _compare(lambda: run(model, variables), variables, derived, traced, gated, entries, rng)
    losses = (lambda tree: run(model, tree)), (lambda tree: run(traced_model, tree))
    table = table._replace(rows=_with_second(table.rows, *losses, variables, gated, rng))
    wrong = [] if table.agrees else first_wrong(model, params, inputs, sequence_length, rng)
    return table._replace(first_wrong=wrong)


def report_backward(
    cell: Any,
    backward: Callable[..., Any],
    *,
    input_dim: int = 3,
    batch: int = 3,
    time: int = 7,
    seed: Any = 0,
    entries: int = 40,
) -> Report:
    """Check a backward pass that you have written yourself, for a sequence of a cell, and return the table.

    Parameters
    ----------
    cell : LSTMCell, GRUCell or BasicRNNCell
        The cell that `backward` differentiates. Its own step is traced for comparison.
    backward : callable
        ``backward(params, inputs, state, d_outputs, d_state)`` returns ``(d_params, d_inputs, d_initial_state, dz)``.
        Its arguments are weights with the cell's names, inputs ``[time, batch, input_dim]``, the initial state (an
        LSTM's is (c, h), the others' is h), and the derivatives of a loss with respect to the outputs ``[time, batch,
        output_size]`` and the final state. It returns the derivatives with respect to its first three arguments, and dz
        of every step ``[time, batch, gates * units]``, in which the report finds where a sweep first goes wrong. The
        gates of a GRU are r, u and k.
    input_dim, batch, time, seed, entries
        As in `report`.

    Raises
    ------
    ValueError
        If a derivative has another shape than the array it belongs to, or a cell has no gates known here.
    """
    if not (gates := sequences.gates_of(cell)):
        raise ValueError(f"report_backward: cell must be an LSTMCell, a GRUCell or a BasicRNNCell, got {cell!r:.80}")
    check_function(backward, "backward", "report_backward")
    rng = as_generator(seed, "report_backward", batch=batch, time=time, entries=entries, input_dim=input_dim)
    params = _in_float64(cell.init(rng, input_dim, np.float64), rng)
    inputs = rng.normal(0, 1, (time, batch, input_dim))
    state = tree_map(lambda s: rng.normal(0, 0.5, s.shape), cell.zero_state(batch))
    variables: Tree = {"params": params, "inputs": inputs, "initial_state": {"": state}}
    loss = RandomLoss(rng)

    def run(tree: Tree) -> Any:
        outputs, last = sequences.traced(cell, tree["params"], tree["inputs"], tree["initial_state"][""])
        return loss([outputs, *tree_leaves(last)])

    _, traced = value_and_grad(run)(variables)
    outputs, last = sequences.traced(cell, params, inputs, state)
    d_outputs, *d_last = loss.cotangents([outputs, *tree_leaves(last)])
    returned = backward(params, inputs, state, d_outputs, tree_unflatten(last, iter(d_last)))
    if not isinstance(returned, (tuple, list)) or len(returned) != 4:
        raise ValueError(f"report_backward: backward must return four derivatives, got {returned!r:.80}")
    d_params, d_inputs, d_initial, dz = returned
    d_initial = {"": LSTMState(*d_initial) if isinstance(last, LSTMState) else d_initial}
    derived = {"params": d_params, "inputs": d_inputs, "initial_state": d_initial}
    found = {**{name: np.shape(value) for name, value in _flatten(derived).items()}, "z": np.shape(dz)}
    wanted = {name: value.shape for name, value in _flatten(variables).items()}
    wanted["z"] = (time, batch, cell.units * sum(map(len, gates.values())))
    for name, shape in wanted.items():
        if (got := found.get(name)) != shape:
            raise ValueError(f"report_backward: backward: the derivative of {name} must be {shape}, got {got}")
    table = _compare(lambda: run(variables), variables, derived, traced, _gated_weights({"": cell}), entries, rng)
    wrong = [] if table.agrees else [first_difference(cell, dz, traced_dz(cell, params, inputs, state, None, loss))]
    return table._replace(first_wrong=wrong)


def _in_float64(params: Tree, rng: np.random.Generator) -> Tree:
    """Return the weights in float64; those that are all 0 are replaced by random numbers."""
    params = tree_map(lambda w: as_array(w, "report: params").astype(np.float64), params)
    return tree_map(lambda w: w if np.any(w) else rng.normal(0, 0.3, w.shape), params)


def _without_learned(model: Sequential, state: dict[str, Any]) -> dict[str, Any]:
    """A state to start from; a layer that learns its own gets None."""

    def given(layer: Any, part: Any) -> Any:
        if isinstance(layer, Bidirectional):
            return tuple(map(given, (layer.forward, layer.backward), part))
        return None if getattr(layer, "learn_initial_state", False) else part

    layers = dict(zip(model.names, model.layers, strict=True))
    return {name: given(layers[name], part) for name, part in state.items()}


def _with_trace(layer: Any) -> Any:
    """Return a copy of a layer that autograd's trace differentiates."""
    twin = copy.copy(layer)
    if isinstance(twin, RNN):
        twin.backprop = "autograd"
    if isinstance(twin, Bidirectional):
        twin.forward, twin.backward = _with_trace(twin.forward), _with_trace(twin.backward)
    return twin


def _gated_weights(cells: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the gates of the weights whose columns are gates; `cells` by the start of their weights' names."""
    biases = {start + name: gates for start, cell in cells.items() for name, gates in sequences.gates_of(cell).items()}
    return {**biases, **{name.removesuffix("bias") + "kernel": gates for name, gates in biases.items()}}


def _compare(
    function: Callable[[], Any], variables: Tree, derived: Tree, traced: Tree, gated: Tree, entries: int, rng: Any
) -> Report:
    """Return the table without `first_wrong`; the weights in `gated` have one row a gate.

    `function` computes the loss from `variables`, whose entries are changed for central differences and restored.
    """
    derived, traced = _flatten(derived), _flatten(traced)
    rows, worst = [], (-1.0, "")
    for name, array in _flatten(variables).items():
        gates = gated.get(name, ("",))
        split = (np.split(whole, len(gates), axis=-1) for whole in (derived[name], traced[name], array))
        for number, (gate, hand, reference, part) in enumerate(zip(gates, *split, strict=True)):
            places = [tuple(p) for p in rng.permutation(np.argwhere(np.ones(part.shape)))[:entries].tolist()]
            central = np.array([_central(function, part, p) for p in places])
            for p, numeric in zip(places, central, strict=True):
                difference = max(abs(hand[p] - reference[p]), abs(hand[p] - numeric))
                if not difference <= worst[0]:
                    column = p[-1] + number * part.shape[-1]
                    text = f"derived {hand[p]:.12g}, trace {reference[p]:.12g}, central {numeric:.12g}"
                    worst = (difference, f"{name}{[*p[:-1], column]}: {text}")
            errors = error(hand, reference), error([hand[p] for p in places], central)
            rows.append(Row(name, gate, *errors, float(np.max(np.abs(reference))), len(places)))
    return Report(rows, worst[1], [])


def _with_second(rows: list[Row], loss: Any, traced_loss: Any, variables: Tree, gated: Tree, rng: Any) -> list[Row]:
    """The rows with the errors of one product of the Hessian with a random vector of length 1."""
    vector = tree_map(lambda x: rng.normal(size=x.shape), variables)
    size = np.sqrt(sum(np.sum(v * v) for v in tree_leaves(vector)))
    vector = tree_map(lambda v: v / size, vector)

    def slope(tree: Tree) -> Any:
        grads = value_and_grad(traced_loss)(tree)[1]
        pairs = zip(tree_leaves(grads), tree_leaves(vector), strict=True)
        return sum((g * v).sum() for g, v in pairs)

    try:
        derived, traced = hessian_vector_product(loss)(variables, vector)[2], value_and_grad(slope)(variables)[1]
    except NotImplementedError:  # a primitive of a user's own layer or cell
        return rows
    errors = []
    for hand, reference in zip(_flatten(derived).items(), _flatten(traced).values(), strict=True):
        gates = gated.get(hand[0], ("",))
        parts = (np.split(whole, len(gates), axis=-1) for whole in (hand[1], reference))
        errors += [error(*pair) for pair in zip(*parts, strict=True)]
    return [row._replace(second_error=found) for row, found in zip(rows, errors, strict=True)]


def _flatten(tree: Tree) -> dict[str, np.ndarray]:
    """Return the parameters by name, then the inputs and the parts of the initial state."""
    flat: dict[str, np.ndarray] = dict(flatten_names(tree["params"]))
    if "inputs" in tree:
        flat["inputs"] = tree["inputs"]
    for layer, state in tree["initial_state"].items():
        leaves = tree_leaves(state)
        labels = getattr(state, "_fields", range(len(leaves)))
        flat.update({f"{layer} initial {label}".strip(): leaf for label, leaf in zip(labels, leaves, strict=True)})
    return flat


def _central(function: Callable[[], Any], array: np.ndarray, place: tuple[int, ...]) -> float:
    """Return (f(w + s) - f(w - s)) / 2s at one entry of `array`, which `function` reads; the entry is restored."""
    kept = array[place]
    step = CENTRAL_STEP * max(1.0, abs(kept))
    array[place] = kept + step
    above = function()
    array[place] = kept - step
    below = function()
    array[place] = kept
    return float((above - below) / (2 * step))
