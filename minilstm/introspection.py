"""A look inside: the gates and states of every step, and the gradients that flow back through them."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import bptt
from .arrays import as_array, as_lengths
from .cells import LSTMCell
from .gates import GATES, split_gates
from .layers import RNN, Sequential
from .layers.base import check_features, required
from .params import get_path
from .shapes import checked_state

Array = Any


def gate_activations(
    layer: Any, params: Any, inputs: Array, state: Any = None, sequence_length: Any = None
) -> dict[str, Array]:
    """The gates i, j, f, o and the states c, h of every step.

    Parameters
    ----------
    layer : RNN, LSTM or LSTMCell
        Without wrappers. Of a `Sequential`, its first layer.
    params : dict
        The parameters of the layer, cell or model.
    inputs : array [batch, time, features]
    state : pair (c, h), optional
        Default zeros.
    sequence_length : integer array [batch], optional
        Later values are NaN.

    Returns
    -------
    dict of arrays [batch, time, units]
        Keys ``i``, ``j``, ``f``, ``o`` (after their nonlinearities), ``c``, ``h``.
    """
    _, _, _, lengths, tape, _ = _run("gate_activations", layer, params, inputs, state, sequence_length)
    steps = {name: np.stack([getattr(step, name) for step in tape.steps], axis=1) for name in (*GATES, "c", "h")}
    if lengths is not None:
        past = np.arange(len(tape.steps)) >= lengths[:, None]
        for values in steps.values():
            values[past] = np.nan
    return steps


trace = gate_activations  # the old name, for one release


def gradient_flow(
    layer: Any,
    params: Any,
    inputs: Array,
    d_outputs: Array,
    d_state: Any = None,
    state: Any = None,
    sequence_length: Any = None,
) -> dict[str, Array]:
    """The derivatives of a loss with respect to the states and the gates' pre-activations of every step.

    Parameters
    ----------
    layer, params, inputs, state, sequence_length
        As in `gate_activations`.
    d_outputs : array [batch, time, output_size]
        The derivative of the loss with respect to the outputs of the layer. A 1 at the last step alone shows how much
        of it reaches each earlier step.
    d_state : pair (dc, dh), optional
        The derivative with respect to the final state; default zeros.

    Returns
    -------
    dict of arrays [batch, time, ...]
        ``dc``, ``dh``: with respect to c_t and h_t, over all paths; ``dz_i``, ``dz_j``, ``dz_f``, ``dz_o``: with
        respect to the pre-activations of the gates. The keys ``di``, ``dj``, ``df``, ``do`` are old names of these, for
        one release.
    """
    cell, weights, x, lengths, tape, result = _run("gradient_flow", layer, params, inputs, state, sequence_length)
    d_outputs = as_array(d_outputs, "gradient_flow: d_outputs").astype(x.dtype, copy=False)
    wanted = (result[0].shape[1], result[0].shape[0], *result[0].shape[2:])
    if d_outputs.shape != wanted:
        raise ValueError(f"gradient_flow: d_outputs must have shape {wanted}, got {d_outputs.shape}")
    cotangents = np.ascontiguousarray(np.swapaxes(d_outputs, 0, 1))
    dc, dh = cell.zero_state(x.shape[1], x.dtype)
    if d_state is not None:
        dc, dh = checked_state(cell, d_state, x.shape[1], x.dtype, "gradient_flow: d_state")
    sweep = bptt.lstm_backward(
        cotangents, dc, dh, x, *weights, cell=cell, sequence_length=lengths, tape=tape
    )
    flow = {"dc": sweep.dc, "dh": sweep.dh}
    for gate, dz in split_gates(sweep.dz).items():
        flow[f"dz_{gate}"] = flow[f"d{gate}"] = dz
    return {name: np.swapaxes(values, 0, 1) for name, values in flow.items()}


def _run(
    caller: str, layer: Any, params: Any, inputs: Array, state: Any, lengths: Any
) -> tuple[LSTMCell, list[Any], Array, Any, Any, Any]:
    """The cell, its weights in the order of `bptt.WEIGHTS`, inputs, lengths, the tape, what the forward pass returned.

    Errors name the `caller`.
    """
    if isinstance(layer, Sequential):
        params, layer = get_path(params, layer.names[0]), layer.layers[0]
    cell, params = (layer.cell, get_path(params, layer.cell.name)) if isinstance(layer, RNN) else (layer, params)
    if not bptt.has_derivation(cell):
        raise ValueError(f"{caller}: layer must be an LSTMCell without wrappers, or an RNN of one, got {layer!r:.80}")
    if getattr(layer, "reverse", False):
        raise ValueError(f"{caller}: the layer has reverse=True; give a forward layer and reversed inputs")
    required(params, "kernel", caller)
    weights = [get_path(params, name) for name in bptt.WEIGHTS]
    x = as_array(inputs, f"{caller}: inputs").astype(weights[0].dtype, copy=False)
    if x.ndim != 3:
        raise ValueError(f"{caller}: inputs must be [batch, time, features], got shape {x.shape}")
    check_features(x, cell.input_dim(params), caller, "[batch, time, features]")
    x = np.swapaxes(x, 0, 1)
    lengths = as_lengths(lengths, x.shape[1], x.shape[0], caller)
    c, h = cell.zero_state(x.shape[1], x.dtype)
    if state is not None:
        c, h = checked_state(cell, state, x.shape[1], x.dtype, caller)
    tape = bptt.Tape()
    result = bptt.lstm_sequence(x, c, h, *weights, cell=cell, sequence_length=lengths, tape=tape)
    return cell, weights, x, lengths, tape, result
