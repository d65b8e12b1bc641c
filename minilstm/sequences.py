"""Run any cell over whole sequences; each part uses the best backward pass that it has.

Wrappers do not touch the recurrence: a stack of cells is a stack of sequences, a residual is added to a whole sequence
at once, input and output masks multiply whole sequences. So the hand-derived pass of an LSTM serves them all. A cell
without one (a GRU, a user's own cell) is traced, alone or in a stack with others.
"""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np

from . import bptt, tangents
from .fast import lstm as fast_lstm
from .params import tree_leaves, tree_map
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
    if state_masks is None and _runs_fast(cell, lengths, fast):
        return fast_lstm.sequence(cell, params, inputs, state)
    derived = bptt.has_derivation(cell) and (state_masks is None or state_masks.c is None)
    if derived and not tangents.needs_trace(cell, inputs, state, params):
        return bptt.sequence(cell, params, inputs, state, lengths, None if state_masks is None else state_masks.h)
    return traced(cell, params, inputs, state, lengths, masks, state_masks)


def every_dz(
    cell: Any, params: Any, inputs: Array, state: Any, lengths: np.ndarray | None, cotangents: Any, fast: bool = True
) -> Array:
    """The dz of every step ``[time, batch, 4 * units]``, by the hand-derived pass that `run` uses for an LSTM cell.

    `cotangents` maps the outputs and the final state to the derivatives of a loss.
    """
    lstm = fast_lstm if _runs_fast(cell, lengths, fast) else bptt
    return lstm.every_dz(cell, params, inputs, state, lengths, cotangents)


def _runs_fast(cell: Any, lengths: np.ndarray | None, fast: bool) -> bool:
    return fast and lengths is None and fast_lstm.can_run(cell)


def derived_parts(cell: Any) -> list[bool]:
    """For every innermost cell, whether `run` uses a hand-derived pass."""
    if type(cell) in (DropoutWrapper, ResidualWrapper):
        return derived_parts(cell.cell)
    if type(cell) is MultiRNNCell:
        return [part for inner in cell.cells for part in derived_parts(inner)]
    return [bptt.has_derivation(cell)]


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
    return anp.stack(outputs), state


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
