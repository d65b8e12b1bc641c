"""Whole sequences of any cell, each part by the best way to differentiate it that it has.

Wrappers do not touch the recurrence: a stack of cells is a stack of sequences, a residual is added to a whole sequence
at once, input and output masks multiply whole sequences. So the hand-derived pass of an LSTM serves them all, and a
cell that has none (a GRU, a cell of one's own) is traced, alone or in the midst of others.
"""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np

from . import bptt
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
    as_made: bool = False,
) -> tuple[Array, Any]:
    """Run `cell` over inputs ``[time, batch, features]``, by hand-derived passes wherever there are any.

    Parameters
    ----------
    cell, params, inputs, state
        As in `minilstm.bptt.sequence`.
    lengths : integer array [batch], optional
        Outputs are 0 and the state is carried from there on.
    masks : optional
        What the cell's `draw_masks` drew.
    state_masks : optional
        Factors for the state that is carried from step to step, in the state's structure with leaves
        ``[time, batch, width]`` or None: an outer wrapper's state dropout.
    fast : bool, default True
        Whether `minilstm.fast.lstm` may be used, or only its reference, `minilstm.bptt`.
    as_made : bool, default False
        Whether the outputs of `minilstm.fast.lstm` may lie in memory as they are made.

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
            between = fast_lstm.applies(cell.cells[n + 1]) if n + 1 < len(cell.cells) else as_made
            inputs, new = run(inner, weights, inputs, state[n], lengths, inner_masks, inner_state_masks, fast, between)
            states.append(new)
        return inputs, tuple(states)
    if state_masks is not None and not tree_leaves(state_masks):  # all None: wrappers that leave the state alone
        state_masks = None
    if fast and lengths is None and state_masks is None and fast_lstm.applies(cell):
        return fast_lstm.sequence(cell, params, inputs, state, as_made)
    if bptt.has_derivation(cell) and (state_masks is None or state_masks.c is None):
        return bptt.sequence(cell, params, inputs, state, lengths, None if state_masks is None else state_masks.h)
    return traced(cell, params, inputs, state, lengths, masks, state_masks)


def derived_parts(cell: Any) -> list[bool]:
    """For every innermost cell whether `run` uses a hand-derived pass."""
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
    """The same as `run`, as plain calls of the cell step by step: autograd's trace differentiates it.

    `params` may also be a list with one tree a step, which is how `gradcheck` sees every step's share.
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
