r"""A whole sequence and its backward pass, derived by hand.

`lstm_sequence` runs the equations (1) to (10) of `minilstm.cells` from t = 0 to time - 1 and is registered with
autograd, so that any program around it can be differentiated; `lstm_backward` is the sweep from the last step to
the first. The loss may use every output h_t and both final states.

Write d<name> for the derivative of the loss with respect to <name> (an array of the shape of <name>). Two of them
travel from step t + 1 to step t: dc and dh, the derivatives with respect to the state *after* step t. At the last
step they are those of the final state. At every step the loss's own share of h_t is added to dh, and then each
equation is undone, last one first; the number on each line of the sweep is the number of the equation it undoes:

    dm = dh @ projection.T                    dprojection += m.T @ dh                (10)
    do = dm * a                               da = dm * o                             (9)
    dc += da * activation'(c)                                                         (8)
    do = do * o * (1 - o)                     dw_o += sum(do * c)   dc += do * w_o    (7)
    di, dj, df = dc * j, dc * i, dc * c_prev  dc_prev = dc * f                        (6)
    df = df * f * (1 - f)                     dw_f += sum(df * c_prev)   dc_prev += df * w_f    (5)
    dj = dj * activation'(j)                                                          (4)
    di = di * i * (1 - i)                     dw_i += sum(di * c_prev)   dc_prev += di * w_i    (3)
    dz = di, dj, df, do side by side                                                  (2)
    dkernel += [x_t, h_prev].T @ dz           dbias += sum(dz)
    dx_t, dh_prev = dz @ kernel.T split after input_dim columns                       (1)

sum() is over the batch. Weights are shared by all steps, so their derivatives are sums over time. Through a clip
the derivative passes inside and on the bound and is 0 outside. Past the end of a sequence (`sequence_length`)
the state is carried, so dc and dh pass unchanged and nothing else does. Where the carried h is dropped out
(`h_masks`), dh is multiplied by the same mask on its way back.

This module is the readable reference; the shapes are time-major inside: ``[time, batch, features]``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp_argnums, primitive

from .cells import ACTIVATIONS, LSTMCell, LSTMState, LSTMStep
from .cotangents import filled, result_of
from .params import get_path

Array = Any

WEIGHTS = ("kernel", "bias", "w_i_diag", "w_f_diag", "w_o_diag", "projection/kernel")


class Tape:
    """What the forward pass leaves for the backward one: per step its values and the state before it."""

    def __init__(self) -> None:
        self.steps: list[LSTMStep] = []
        self.before: list[LSTMState] = []


class Sweep(NamedTuple):
    """All results of one backward pass; what the tutorial and `gradcheck` look into.

    `inputs` is ``[time, batch, input_dim]``; `c`, `h` are the derivatives with respect to the initial state; `weights`
    has one array (or None) for each name in `WEIGHTS`; `gates` ``[time, batch, 4 * units]`` is dz of every step;
    `dc`, `dh` ``[time, batch, ...]`` are the derivatives with respect to c_t and h_t of every step, all paths counted.
    """

    inputs: Array
    c: Array
    h: Array
    weights: list[Array]
    gates: Array
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


def sequence(
    cell: LSTMCell,
    params: dict[str, Any],
    inputs: Array,
    state: LSTMState,
    sequence_length: Array | None = None,
    h_masks: Array | None = None,
) -> tuple[Array, LSTMState]:
    """Run `cell` over a sequence, differentiable by the hand-derived pass.

    Parameters
    ----------
    cell : LSTMCell
    params : dict
        The cell's weights, under the names in `WEIGHTS`.
    inputs : array [time, batch, input_dim]
    state : pair (c [batch, units], h [batch, output_size])
    sequence_length : integer array [batch], optional
        Steps from there on give outputs of 0 and carry the state through.
    h_masks : array [time, batch, output_size], optional
        Factors for the h that is carried to the next step (not for the output, nor for c).

    Returns
    -------
    (outputs [time, batch, output_size], LSTMState)
    """
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
    params = _as_params(weights)
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


@primitive
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
    with respect to what `lstm_sequence` returned; the tape is what it left.
    """
    time, batch, input_dim = inputs.shape
    kernel, _, w_i, w_f, w_o, projection = weights
    d_kernel, d_bias, d_w_i, d_w_f, d_w_o, d_projection = (_zeros_like(weight) for weight in weights)
    d_inputs = np.zeros_like(inputs)
    d_gates = np.zeros((time, batch, kernel.shape[1]), inputs.dtype)
    every_dc = np.zeros((time, *dc.shape), inputs.dtype)
    every_dh = np.zeros((time, *dh.shape), inputs.dtype)
    derivative = ACTIVATIONS[cell.activation].derivative

    for t in reversed(range(time)):
        (i, j, f, o, unclipped_c, c, a, m, unclipped_h, _), (c_prev, h_prev) = tape.steps[t], tape.before[t]
        live = None if sequence_length is None else live_rows(t, sequence_length)
        dc_after, dh_after = dc, dh
        if h_masks is not None:
            dh = dh * h_masks[t]
        dh = dh + d_outputs[t]
        if live is not None:
            dc, dh = np.where(live, dc, 0), np.where(live, dh, 0)
        every_dh[t] = dh

        if cell.proj_clip is not None:
            dh = dh * (np.abs(unclipped_h) <= cell.proj_clip)
        dm = dh
        if projection is not None:
            dm = dh @ projection.T  # (10)
            d_projection += m.T @ dh
        do, da = dm * a, dm * o  # (9)
        dc = dc + da * derivative(a)  # (8)
        do = do * o * (1 - o)  # (7)
        if w_o is not None:
            d_w_o += np.sum(do * c, axis=0)
            dc = dc + do * w_o
        every_dc[t] = dc
        if cell.cell_clip is not None:
            dc = dc * (np.abs(unclipped_c) <= cell.cell_clip)
        di, dj, df = dc * j, dc * i, dc * c_prev  # (6)
        dc = dc * f
        df = df * f * (1 - f)  # (5)
        dj = dj * derivative(j)  # (4)
        di = di * i * (1 - i)  # (3)
        if w_f is not None:
            d_w_f += np.sum(df * c_prev, axis=0)
            d_w_i += np.sum(di * c_prev, axis=0)
            dc = dc + df * w_f + di * w_i
        dz = np.concatenate([di, dj, df, do], axis=1)  # (2)
        d_kernel += np.concatenate([live_inputs(inputs, t, sequence_length), h_prev], axis=1).T @ dz  # (1)
        d_bias += np.sum(dz, axis=0)
        dx_and_dh = dz @ kernel.T
        d_inputs[t], dh = dx_and_dh[:, :input_dim], dx_and_dh[:, input_dim:]
        d_gates[t] = dz

        if live is not None:
            dc, dh = np.where(live, dc, dc_after), np.where(live, dh, dh_after)
    d_weights = [d_kernel, d_bias, d_w_i, d_w_f, d_w_o, d_projection]
    return Sweep(d_inputs, dc, dh, d_weights, d_gates, every_dc, every_dh)


def _vjps(argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    inputs, _, _, *weights = args

    def pull(g: tuple[Array, Array, Array]) -> list[Array]:
        sweep = lstm_backward(*filled(g, ans), inputs, *weights, **kwargs)  # one sweep serves every argument
        grads = [sweep.inputs, sweep.c, sweep.h, *sweep.weights]
        return [grads[argnum] for argnum in argnums]

    return pull


def every_dz(
    cell: LSTMCell, params: dict[str, Any], inputs: Array, state: Any, sequence_length: Any, cotangents: Any
) -> Array:
    """The dz of every step ``[time, batch, 4 * units]``; `cotangents` maps the forward pass's results to theirs."""
    weights = [get_path(params, name) for name in WEIGHTS]
    options = {"cell": cell, "sequence_length": sequence_length, "tape": Tape()}
    results = lstm_sequence(inputs, *state, *weights, **options)
    return lstm_backward(*cotangents(results), inputs, *weights, **options).gates


def no_second_derivative(*_: Any) -> Any:
    """What stands for the derivative of a backward pass: an error that says what to do."""
    raise NotImplementedError(
        "the hand-derived backward pass has no derivative of its own: for second derivatives build the layer with "
        'backprop="autograd", which traces every step'
    )


defvjp_argnums(lstm_sequence, _vjps)
defvjp_argnums(lstm_backward, no_second_derivative)


def _as_params(weights: tuple[Array, ...]) -> dict[str, Any]:
    kernel, bias, w_i, w_f, w_o, projection = weights
    return {
        "kernel": kernel, "bias": bias, "w_i_diag": w_i, "w_f_diag": w_f, "w_o_diag": w_o,
        "projection": {"kernel": projection},
    }  # fmt: skip


def live_rows(t: int, sequence_length: Array) -> Array:
    """``[batch, 1]``: whether each sequence goes on at step t."""
    return (t < np.asarray(sequence_length))[:, None]


def live_inputs(inputs: Array, t: int, sequence_length: Array | None) -> Array:
    """x_t, with zeros in the rows that have ended: what stands there, even NaN, must not matter."""
    x_t = inputs[t]
    if sequence_length is None:
        return x_t
    return anp.where(live_rows(t, sequence_length), x_t, np.zeros(x_t.shape, x_t.dtype))


def _zeros_like(weight: Array) -> Array:
    return None if weight is None else np.zeros_like(weight)
