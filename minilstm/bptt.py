r"""A whole sequence of an LSTM and its backward pass, derived by hand: the readable pass.

`lstm_sequence` runs the equations (1) to (10) of `minilstm.cells` from t = 0 to time - 1. `lstm_backward` undoes them
from the last step to the first, and `step_back` is one step of it, the mirror of `LSTMCell.step`. Both passes are
registered with autograd (in `minilstm.second.tangents`, which has their second derivatives), so that it differentiates
any program around them. The loss may use every output h_t and both final states.

d<name> is the derivative of the loss with respect to <name>, an array of the shape of <name>. Two of them travel from
step t + 1 to step t: dc and dh, with respect to the state *after* step t. At the last step they are those of the final
state. At every step the loss's own derivative with respect to h_t is added to dh. Then `step_back` undoes each
equation, the last one first:

    dm = dh @ projection.T                          dprojection += m.T @ dh                     (10)
    do = dm * a                                     da = dm * o                                  (9)
    dc += da * activation'(c)                                                                    (8)
    dz_o = do * o * (1 - o)                         dw_o += sum(dz_o * c)    dc += dz_o * w_o    (7)
    di, dj, df = dc * j, dc * i, dc * c_prev        dc_prev = dc * f                             (6)
    dz_f = df * f * (1 - f)                         dw_f += sum(dz_f * c_prev)                   (5)
    dz_j = dj * activation'(z_j)                                                                 (4)
    dz_i = di * i * (1 - i)                         dw_i += sum(dz_i * c_prev)                   (3)
                                                    dc_prev += dz_f * w_f + dz_i * w_i       (3) (5)
    dz = dz_i, dz_j, dz_f, dz_o side by side                                                     (2)
    dkernel += [x_t, h_prev].T @ dz                 dbias += sum(dz)                             (1)
    dx_t, dh_prev = dz @ kernel.T, split after input_dim columns                                 (1)

sum() is over the batch. All steps share the weights, so their derivatives are sums over time. A clip passes the
derivative inside and on the bound; outside, the derivative is 0.

The loop around it does the rest. Past the end of a sequence (`sequence_length`) the state is carried, so dc and dh pass
unchanged and all other derivatives are 0. If the carried h is dropped out (`h_masks`), dh is multiplied by the same
mask on its way back.

Arrays are time-major: ``[time, batch, features]``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np

from .arrays import as_lengths
from .cells import ACTIVATIONS, LSTMCell, LSTMState, LSTMStep
from .gates import pack_gates
from .params import get_path, unflatten_names
from .primitives import primitive, result_of
from .shapes import checked_call

Array = Any

WEIGHTS = ("kernel", "bias", "w_i_diag", "w_f_diag", "w_o_diag", "projection/kernel")


class Tape:
    """What the forward pass leaves for the backward pass: for each step its values, and the state before it.

    `tangents` is what `minilstm.second.tangents` keeps for second derivatives, if these are asked for.
    """

    def __init__(self) -> None:
        self.steps: list[LSTMStep] = []
        self.before: list[LSTMState] = []
        self.tangents: Any = None


class StepGradients(NamedTuple):
    """What one step back computes: the derivatives with respect to x_t and the state before the step, dz ``[batch, 4 *
    units]``, dc with respect to c_t over all paths, and the step's share of each weight's derivative by name.
    """

    dx_t: Array
    dc_prev: Array
    dh_prev: Array
    dz: Array
    dc: Array
    weights: dict[str, Array]


class Sweep(NamedTuple):
    """All results of one backward pass.

    `inputs` is ``[time, batch, input_dim]``; `c`, `h` are the derivatives with respect to the initial state; `weights`
    has one array (or None) for each name in `WEIGHTS`; `dz` ``[time, batch, 4 * units]`` and `dc`, `dh`
    ``[time, batch, ...]`` are the derivatives with respect to z_t, c_t and h_t of every step, over all paths.
    """

    inputs: Array
    c: Array
    h: Array
    weights: list[Array]
    dz: Array
    dc: Array
    dh: Array


def has_derivation(cell: Any) -> bool:
    """Whether the hand-derived pass covers this cell: an LSTM cell whose activation has a known derivative."""
    return (
        isinstance(cell, LSTMCell)
        and type(cell).step is LSTMCell.step
        and type(cell).__call__ is LSTMCell.__call__
        and isinstance(cell.activation, str)
    )


def step_back(
    cell: LSTMCell, params: dict[str, Any], x_t: Array, before: LSTMState, step: LSTMStep, dc: Array, dh: Array
) -> StepGradients:
    """Undo one `LSTMCell.step`, equation by equation, the last one first.

    `params` and `x_t` ``[batch, input_dim]`` are what the step was given, `before` is the state before it, `step` what
    it computed; `dc`, `dh` are the derivatives of the loss with respect to the state after it.
    """
    derivative = ACTIVATIONS[cell.activation].derivative
    i, j, f, o, unclipped_c, c, a, m, unclipped_h, _ = step
    c_prev, h_prev = before
    weights = {}
    if cell.proj_clip is not None:
        dh = dh * (np.abs(unclipped_h) <= cell.proj_clip)
    dm = dh
    if cell.num_proj is not None:
        dm = dh @ params["projection"]["kernel"].T  # (10)
        weights["projection/kernel"] = m.T @ dh
    do, da = dm * a, dm * o  # (9)
    dc = dc + da * derivative(a)  # (8)
    dz_o = do * o * (1 - o)  # (7)
    if cell.use_peepholes:
        weights["w_o_diag"] = np.sum(dz_o * c, axis=0)
        dc = dc + dz_o * params["w_o_diag"]
    every_path = dc
    if cell.cell_clip is not None:
        dc = dc * (np.abs(unclipped_c) <= cell.cell_clip)
    di, dj, df = dc * j, dc * i, dc * c_prev  # (6)
    dc_prev = dc * f
    dz_f = df * f * (1 - f)  # (5)
    dz_j = dj * derivative(j)  # (4)
    dz_i = di * i * (1 - i)  # (3)
    if cell.use_peepholes:
        weights["w_f_diag"] = np.sum(dz_f * c_prev, axis=0)
        weights["w_i_diag"] = np.sum(dz_i * c_prev, axis=0)
        dc_prev = dc_prev + dz_f * params["w_f_diag"] + dz_i * params["w_i_diag"]
    dz = pack_gates(i=dz_i, j=dz_j, f=dz_f, o=dz_o)  # (2)
    weights["kernel"] = np.concatenate([x_t, h_prev], axis=1).T @ dz  # (1)
    weights["bias"] = np.sum(dz, axis=0)
    dx_t, dh_prev = np.split(dz @ params["kernel"].T, [x_t.shape[1]], axis=1)
    return StepGradients(dx_t, dc_prev, dh_prev, dz, every_path, weights)


def sequence(
    cell: LSTMCell, params: dict[str, Any], inputs: Array, state: LSTMState,
    sequence_length: Array | None = None, h_masks: Array | None = None,
) -> tuple[Array, LSTMState]:  # fmt: skip
    """Run `cell` over a sequence; autograd differentiates it by the hand-derived pass.

    Parameters
    ----------
    cell : LSTMCell
    params : dict
        The cell's weights, under the names in `WEIGHTS`.
    inputs : array [time, batch, input_dim]
    state : pair (c [batch, units], h [batch, output_size])
    sequence_length : integer array [batch], optional
        Later steps have outputs of 0 and carry the state.
    h_masks : array [time, batch, output_size], optional
        Factors for the h that is carried to the next step (not for the output, nor for c).

    Returns
    -------
    (outputs [time, batch, output_size], LSTMState)

    Raises
    ------
    ValueError
        If an argument does not fit the cell and the others.
    """
    inputs, state = checked_call(cell, params, inputs, state, "bptt.sequence", "inputs")
    sequence_length = as_lengths(sequence_length, inputs.shape[1], len(inputs), "bptt.sequence")
    wanted = (*inputs.shape[:2], cell.output_size)
    if h_masks is not None and np.shape(h_masks) != wanted:
        raise ValueError(f"bptt.sequence: h_masks must have shape {wanted}, got {np.shape(h_masks)}")
    weights = [get_path(params, name) for name in WEIGHTS]
    results = lstm_sequence(
        inputs, *state, *weights, cell=cell, sequence_length=sequence_length, h_masks=h_masks, tape=Tape()
    )
    return result_of(results, 0), LSTMState(result_of(results, 1), result_of(results, 2))


@primitive
def lstm_sequence(
    inputs: Array,
    c: Array,
    h: Array,
    *weights: Array,
    cell: LSTMCell,
    sequence_length: Array | None = None,
    h_masks: Array | None = None,
    tape: Tape,
) -> tuple[Array, Array, Array]:
    """The forward pass: outputs of every step, final c and final h. `weights` are in the order of `WEIGHTS`."""
    time, batch, _ = inputs.shape
    params = unflatten_names(dict(zip(WEIGHTS, weights, strict=True)))
    outputs = np.zeros((time, batch, cell.output_size), inputs.dtype)
    for t in range(time):
        tape.before.append(LSTMState(c, h))
        step = cell.step(params, live_inputs(inputs, t, sequence_length), c, h)
        tape.steps.append(step)
        carried_h = step.h if h_masks is None else step.h * h_masks[t]
        if sequence_length is None:
            outputs[t], c, h = step.h, step.c, carried_h
        else:
            live = live_rows(t, sequence_length)
            outputs[t] = np.where(live, step.h, 0)
            c, h = np.where(live, step.c, c), np.where(live, carried_h, h)
    return outputs, np.array(c), np.array(h)


def lstm_backward(
    d_outputs: Array,
    dc: Array,
    dh: Array,
    inputs: Array,
    *weights: Array,
    cell: LSTMCell,
    sequence_length: Array | None = None,
    h_masks: Array | None = None,
    tape: Tape,
) -> Sweep:
    """The backward pass. `d_outputs` ``[time, batch, output_size]``, `dc` and `dh` are the derivatives of the loss
    with respect to what `lstm_sequence` returned, which also filled the tape.
    """
    time, batch, _ = inputs.shape
    params = unflatten_names(dict(zip(WEIGHTS, weights, strict=True)))
    d_weights = {name: None if w is None else np.zeros_like(w) for name, w in zip(WEIGHTS, weights, strict=True)}
    d_inputs = np.zeros_like(inputs)
    every_dz = np.zeros((time, batch, 4 * cell.units), inputs.dtype)
    every_dc = np.zeros((time, *dc.shape), inputs.dtype)
    every_dh = np.zeros((time, *dh.shape), inputs.dtype)

    for t in reversed(range(time)):
        live = None if sequence_length is None else live_rows(t, sequence_length)
        dc_after, dh_after = dc, dh
        if h_masks is not None:
            dh = dh * h_masks[t]
        dh = dh + d_outputs[t]
        if live is not None:
            dc, dh = np.where(live, dc, 0), np.where(live, dh, 0)
        x_t = live_inputs(inputs, t, sequence_length)
        back = step_back(cell, params, x_t, tape.before[t], tape.steps[t], dc, dh)
        d_inputs[t], every_dz[t], every_dc[t], every_dh[t] = back.dx_t, back.dz, back.dc, dh
        for name, share in back.weights.items():
            d_weights[name] += share
        dc, dh = back.dc_prev, back.dh_prev
        if live is not None:
            dc, dh = np.where(live, dc, dc_after), np.where(live, dh, dh_after)
    return Sweep(d_inputs, dc, dh, list(d_weights.values()), every_dz, every_dc, every_dh)


@primitive
def lstm_gradients(
    d_outputs: Array, dc: Array, dh: Array, inputs: Array, c: Array, h: Array, *weights: Array, **options: Any
) -> tuple[Array, ...]:
    """`lstm_backward` as a function of all that it depends on, the initial state too. The derivatives of inputs, c, h
    and weights.
    """
    sweep = lstm_backward(d_outputs, dc, dh, inputs, *weights, **options)
    return sweep.inputs, sweep.c, sweep.h, *sweep.weights


def every_dz(
    cell: LSTMCell, params: dict[str, Any], inputs: Array, state: Any, sequence_length: Any, cotangents: Any
) -> Array:
    """The dz of every step ``[time, batch, 4 * units]``; `cotangents` gives the derivatives of the forward results."""
    weights = [get_path(params, name) for name in WEIGHTS]
    options = {"cell": cell, "sequence_length": sequence_length, "tape": Tape()}
    results = lstm_sequence(inputs, *state, *weights, **options)
    return lstm_backward(*cotangents(results), inputs, *weights, **options).dz


def live_rows(t: int, sequence_length: Array) -> Array:
    """``[batch, 1]``: whether each sequence is longer than t steps."""
    return (t < np.asarray(sequence_length))[:, None]


def live_inputs(inputs: Array, t: int, sequence_length: Array | None) -> Array:
    """x_t with zeros in the rows that have ended: padding has no effect, even if it is NaN."""
    x_t = inputs[t]
    if sequence_length is None:
        return x_t
    return anp.where(live_rows(t, sequence_length), x_t, np.zeros(x_t.shape, x_t.dtype))
