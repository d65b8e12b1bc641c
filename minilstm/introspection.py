"""A look inside: the gates and states of every step, and the gradients that flow back through them."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import bptt
from .arrays import as_array, as_lengths
from .cells import LSTMCell
from .gates import GATES, split_gates
from .layers import RNN, Sequential
from .layers.base import check_features
from .params import get_path
from .shapes import check_params, checked_state, features_of

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
        If the layer is time_major, time comes first in all arrays.
    state : pair (c, h), optional
        Default: what the layer starts from.
    sequence_length : integer array [batch], optional
        Later values are NaN.

    Returns
    -------
    dict of arrays [batch, time, units]
        Keys ``i``, ``j``, ``f``, ``o`` (after their nonlinearities), ``c``, ``h``; h is ``[batch, time, output_size]``.
    """
    *_, lengths, tape, _, layout = _run("gate_activations", layer, params, inputs, state, sequence_length)
    steps = {name: np.stack([getattr(step, name) for step in tape.steps]) for name in (*GATES, "c", "h")}
    if lengths is not None:
        past = np.arange(len(tape.steps))[:, None] >= lengths
        for values in steps.values():
            values[past] = np.nan
    return {name: values.swapaxes(*layout) for name, values in steps.items()}


trace = gate_activations  # the old name, for one release


def gradient_flow(
    layer: Any, params: Any, inputs: Array, d_outputs: Array,
    d_state: Any = None, state: Any = None, sequence_length: Any = None,
) -> dict[str, Array]:  # fmt: skip
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
    cell, weights, x, lengths, tape, h, layout = _run("gradient_flow", layer, params, inputs, state, sequence_length)
    d_outputs = as_array(d_outputs, "gradient_flow: d_outputs").astype(x.dtype, copy=False)
    wanted = h.swapaxes(*layout).shape
    if d_outputs.shape != wanted:
        raise ValueError(f"gradient_flow: d_outputs must have shape {wanted}, got {d_outputs.shape}")
    cotangents = np.ascontiguousarray(d_outputs.swapaxes(*layout))
    dc, dh = cell.zero_state(x.shape[1], x.dtype)
    if d_state is not None:
        dc, dh = checked_state(cell, d_state, x.shape[1], x.dtype, "gradient_flow: d_state")
    sweep = bptt.lstm_backward(cotangents, dc, dh, x, *weights, cell=cell, sequence_length=lengths, tape=tape)
    flow = {"dc": sweep.dc, "dh": sweep.dh}
    for gate, dz in split_gates(sweep.dz).items():
        flow[f"dz_{gate}"] = flow[f"d{gate}"] = dz
    return {name: values.swapaxes(*layout) for name, values in flow.items()}


def _run(
    caller: str, layer: Any, params: Any, inputs: Array, state: Any, lengths: Any
) -> tuple[LSTMCell, list[Any], Array, Any, Any, Array, tuple[int, int]]:
    """The cell, its weights in the order of `bptt.WEIGHTS`, inputs, lengths, the tape, the outputs, and the two axes to
    exchange between the layer's layout and one with the time first.

    Errors name the `caller`.
    """
    if isinstance(layer, Sequential):
        params, layer = get_path(params, layer.names[0]), layer.layers[0]
    of_layer, cell, layout = params, layer, (0, 1)
    if isinstance(layer, RNN):
        params, cell, layout = get_path(params, layer.cell.name), layer.cell, (0, 0) if layer.time_major else (0, 1)
    if not bptt.has_derivation(cell):
        raise ValueError(f"{caller}: layer must be an LSTMCell without wrappers, or an RNN of one, got {layer!r:.80}")
    if getattr(layer, "reverse", False):
        raise ValueError(f"{caller}: the layer has reverse=True; give a forward layer and reversed inputs")
    wanted = "[batch, time, features]" if layout == (0, 1) else "[time, batch, features]"
    x = as_array(inputs, f"{caller}: inputs")
    if x.ndim != 3:
        raise ValueError(f"{caller}: inputs must be {wanted}, got shape {x.shape}")
    features = features_of(cell, params) or x.shape[-1]
    dtype = check_params(cell, params, features, caller)
    weights = [get_path(params, name) for name in bptt.WEIGHTS]
    check_features(x, features, caller, wanted)
    x = x.astype(dtype, copy=False).swapaxes(*layout)
    lengths = as_lengths(lengths, x.shape[1], x.shape[0], caller)
    if state is not None:
        c, h = checked_state(cell, state, x.shape[1], x.dtype, caller)
    elif isinstance(layer, RNN):
        c, h = layer.initial_state(of_layer, x.shape[1])
    else:
        c, h = cell.zero_state(x.shape[1], x.dtype)
    tape = bptt.Tape()
    outputs = bptt.lstm_sequence(x, c, h, *weights, cell=cell, sequence_length=lengths, tape=tape)[0]
    return cell, weights, x, lengths, tape, outputs, layout
