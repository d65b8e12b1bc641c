"""Run any cell over whole sequences; each part uses the best backward pass that it has.

Wrappers do not touch the recurrence: a stack of cells is a stack of sequences, a residual is added to a whole sequence
at once, input and output masks multiply whole sequences. So the hand-derived pass of a cell serves them all. A cell
without one (a user's own cell) is traced, alone or in a stack with others.
"""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np

from . import bptt, variants_bptt
from .fast import compiled
from .fast import lstm as fast_lstm
from .fast.activations import FAST_ACTIVATIONS
from .gates import GATES
from .params import tree_leaves, tree_map
from .primitives import is_derived_twice, stacked
from .second import tangents
from .wrappers import DropoutWrapper, Masks, MultiRNNCell, ResidualWrapper, masks_at, step_of, times_state

Array = Any


def run(
    cell: Any,
    params: dict[str, Any],
    inputs: Array,
    state: Any,
    lengths: np.ndarray | None = None,
    masks: Masks = None,
    state_masks: Any = None,
    fast: bool = True,
) -> tuple[Array, Any]:
    """Run `cell` over inputs ``[time, batch, features]``, with hand-derived passes for all parts that have one.

    Parameters
    ----------
    cell, params, inputs, state
        As in `minilstm.bptt.sequence`.
    lengths : integer array [batch], optional
        Past it, outputs are 0 and the state is carried.
    masks : optional
        What the cell's `draw_masks` returned.
    state_masks : optional
        Factors for the state that is carried from step to step, in the structure of the state with leaves
        ``[time, batch, width]`` or None: the state dropout of an outer wrapper.
    fast : bool, default True
        Whether `minilstm.fast.lstm` may be used, or only its readable twin, `minilstm.bptt`.

    Returns
    -------
    (outputs [time, batch, output_size], state)
    """
    if type(cell) is DropoutWrapper:
        if masks is None:
            return run(cell.cell, params, inputs, state, lengths, None, state_masks, fast)
        if masks["input"] is not None:
            inputs = _zero_past_end(inputs, lengths) * masks["input"]  # 0 times infinity is not 0
        inner_state_masks = _product(masks["state"], state_masks)
        outputs, state = run(cell.cell, params, inputs, state, lengths, masks["cell"], inner_state_masks, fast)
        return (outputs if masks["output"] is None else outputs * masks["output"]), state
    if type(cell) is ResidualWrapper:
        outputs, state = run(cell.cell, params, inputs, state, lengths, masks, state_masks, fast)
        return outputs + _zero_past_end(inputs, lengths), state
    if type(cell) is MultiRNNCell:
        states = []
        for n, (inner, weights) in enumerate(zip(cell.cells, cell.inner_params(params), strict=True)):
            inner_masks = None if masks is None else masks[n]
            inner_state_masks = None if state_masks is None else state_masks[n]
            inputs, new = run(inner, weights, inputs, state[n], lengths, inner_masks, inner_state_masks, fast)
            states.append(new)
        return inputs, tuple(states)
    if state_masks is not None and not tree_leaves(state_masks):  # all None: wrappers that leave the state alone
        state_masks = None
    derives = bptt.has_derivation(cell) and (state_masks is None or state_masks.c is None)
    if derives and not tangents.needs_trace(cell, inputs, state, params):
        derived: Any = fast_lstm if fast and fast_lstm.can_run(cell) else bptt
        return derived.sequence(cell, params, inputs, state, lengths, None if state_masks is None else state_masks.h)
    if variants_bptt.derivation_of(cell) is not None and not is_derived_twice(inputs, *tree_leaves([state, params])):
        again = lambda params, inputs, h: traced(cell, params, inputs, h, lengths, None, state_masks)  # noqa: E731
        return _variants(cell, fast).sequence(cell, params, inputs, state, lengths, state_masks, again)
    return traced(cell, params, inputs, state, lengths, masks, state_masks)


def every_dz(
    cell: Any, params: Any, inputs: Array, state: Any, lengths: np.ndarray | None, cotangents: Any, fast: bool = True
) -> Array:
    """The dz of every step ``[time, batch, 4 * units]``, by the hand-derived pass that `run` uses for an LSTM cell.

    `cotangents` maps the outputs and the final state to the derivatives of a loss.
    """
    derived: Any = fast_lstm if fast and fast_lstm.can_run(cell) else bptt
    if variants_bptt.derivation_of(cell) is not None:
        derived = _variants(cell, fast)
    return derived.every_dz(cell, params, inputs, state, lengths, cotangents)


def _variants(cell: Any, fast: bool) -> Any:
    """The module with the pass of a GRU or a plain RNN; most programs need none."""
    if not fast or cell.activation not in FAST_ACTIVATIONS:
        return variants_bptt
    from .fast import variants

    return variants


def gates_of(cell: Any) -> dict[str, tuple[str, ...]]:
    """The gates of a cell with a hand-derived pass, in the order of its dz, by the name of their bias; empty for any
    other cell.
    """
    if bptt.has_derivation(cell):
        return {"bias": GATES}
    derivation = variants_bptt.derivation_of(cell)
    return {} if derivation is None else derivation.gates


def fast_pass(dtype: Any) -> str:
    """Which of the two fast passes an LSTM uses in this dtype: "compiled" (by numba) or "numpy"."""
    return "compiled" if compiled.is_wanted(dtype) else "numpy"


def derived_parts(cell: Any) -> list[bool]:
    """For every innermost cell, whether `run` uses a hand-derived pass."""
    if type(cell) in (DropoutWrapper, ResidualWrapper):
        return derived_parts(cell.cell)
    if type(cell) is MultiRNNCell:
        return [part for inner in cell.cells for part in derived_parts(inner)]
    return [bool(gates_of(cell))]


def traced(
    cell: Any,
    params: dict[str, Any] | list[dict[str, Any]],
    inputs: Array,
    state: Any,
    lengths: np.ndarray | None = None,
    masks: Masks = None,
    state_masks: Any = None,
) -> tuple[Array, Any]:
    """The same as `run`, as plain calls of the cell, step by step; autograd's trace differentiates it.

    `params` may also be a list with one tree for each step: so `gradcheck` gets the share of every step.
    """
    outputs = []
    for t in range(inputs.shape[0]):
        weights = params[t] if isinstance(params, list) else params
        x_t = bptt.live_inputs(inputs, t, lengths)
        output, new_state = step_of(cell, weights, x_t, state, masks_at(masks, t))
        new_state = times_state(new_state, masks_at(state_masks, t))
        if lengths is None:
            state = new_state
        else:
            live = bptt.live_rows(t, lengths)
            output = anp.where(live, output, np.zeros(output.shape, output.dtype))
            state = tree_map(lambda new, old, live=live: anp.where(live, new, old), new_state, state)
        outputs.append(output)
    return stacked(*outputs), state


def _zero_past_end(inputs: Array, lengths: np.ndarray | None) -> Array:
    if lengths is None:
        return inputs
    live = np.arange(inputs.shape[0])[:, None, None] < lengths[:, None]
    return anp.where(live, inputs, np.zeros(inputs.shape, inputs.dtype))


def _product(a: Any, b: Any) -> Any:
    """The product of two trees of state masks in which None means 1."""
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, (tuple, list)):
        parts = [_product(x, y) for x, y in zip(a, b, strict=True)]
        return type(a)(*parts) if hasattr(a, "_fields") else tuple(parts)
    return a * b
