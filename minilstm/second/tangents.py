r"""The derivative of the derivative: a sequence and its backward pass along a direction, derived by hand.

Move all that a sequence is given, inputs, initial state and weights, along some direction: x becomes x + e rx. Then
everything that is computed from it moves too, and R{v} is the derivative of v with respect to e at e = 0 (Pearlmutter
1994, *Fast exact multiplication by the Hessian*). R obeys the rules of calculus, R{v w} = R{v} w + v R{w} first of all,
so it can be applied line by line: to the equations (1) to (10) of `minilstm.cells`, which is `step_tangent`, and to
their undoing in `minilstm.bptt.step_back`, which is `step_back_tangent`. r<name> is R{<name>}:

    R{sigmoid(z)} = s (1 - s) rz        R{s (1 - s)} = (1 - 2 s) rs           where s = sigmoid(z)
    R{activation(z)} = derivative(y) rz    R{derivative(y)} = second(y) ry    where y = activation(z)
    R{clip(v)} = rv inside and on the bound, 0 outside

If the loss is L, the derivatives of its gradient dw along the direction are R{dw}, a product of the Hessian of L with
it: d^2L/dw^2 rw. It costs about twice the gradient, and no matrix is ever made. Martens and Sutskever 2011 train
recurrent networks with it.

Both loops are registered with autograd by `minilstm.second.pairs.register_pair`, so that it derives any program twice,
in any order but forward over forward. Arrays are time-major: ``[time, batch, features]``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..bptt import (
    WEIGHTS,
    StepGradients,
    Tape,
    live_inputs,
    live_rows,
    lstm_gradients,
    lstm_sequence,
)  # fmt: skip
from ..cells import ACTIVATIONS, LSTMCell, LSTMState, LSTMStep
from ..gates import pack_gates, split_gates
from ..params import tree_leaves, unflatten_names
from ..primitives import filled, is_derived_twice, primitive
from .pairs import register_pair

Array = Any


def needs_trace(cell: LSTMCell, *trees: Any) -> bool:
    """Whether second derivatives may be asked for that are not known: those of an activation without a `second`."""
    return ACTIVATIONS[cell.activation].second is None and is_derived_twice(*tree_leaves(list(trees)))


def step_tangent(
    cell: LSTMCell, params: dict[str, Any], r_params: dict[str, Any], x_t: Array, rx_t: Array,
    before: LSTMState, r_before: LSTMState, step: LSTMStep,
) -> LSTMStep:  # fmt: skip
    """R{`LSTMCell.step`}: how everything that one step computes moves.

    `r_params`, `rx_t` and `r_before` are the directions of `params`, `x_t` and of the state before the step; `step` is
    what `LSTMCell.step` computed.
    """
    derivative = ACTIVATIONS[cell.activation].derivative
    i, j, f, o, unclipped_c, c, a, m, unclipped_h, _ = step
    (c_prev, h_prev), (rc_prev, rh_prev) = before, r_before
    row, r_row = np.concatenate([x_t, h_prev], axis=1), np.concatenate([rx_t, rh_prev], axis=1)
    rz = split_gates(r_row @ params["kernel"] + row @ r_params["kernel"] + r_params["bias"])  # (1)
    rz_i, rz_j, rz_f, rz_o = rz["i"], rz["j"], rz["f"], rz["o"]  # (2)
    if cell.use_peepholes:
        rz_i = rz_i + r_params["w_i_diag"] * c_prev + params["w_i_diag"] * rc_prev
        rz_f = rz_f + r_params["w_f_diag"] * c_prev + params["w_f_diag"] * rc_prev
    ri = i * (1 - i) * rz_i  # (3)
    rj = derivative(j) * rz_j  # (4)
    rf = f * (1 - f) * rz_f  # (5)
    r_unclipped_c = rf * c_prev + f * rc_prev + ri * j + i * rj  # (6)
    rc = r_unclipped_c
    if cell.cell_clip is not None:
        rc = rc * (np.abs(unclipped_c) <= cell.cell_clip)
    if cell.use_peepholes:
        rz_o = rz_o + r_params["w_o_diag"] * c + params["w_o_diag"] * rc
    ro = o * (1 - o) * rz_o  # (7)
    ra = derivative(a) * rc  # (8)
    rm = ro * a + o * ra  # (9)
    r_unclipped_h = rm
    if cell.num_proj is not None:
        r_unclipped_h = rm @ params["projection"]["kernel"] + m @ r_params["projection"]["kernel"]  # (10)
    rh = r_unclipped_h
    if cell.proj_clip is not None:
        rh = rh * (np.abs(unclipped_h) <= cell.proj_clip)
    return LSTMStep(ri, rj, rf, ro, r_unclipped_c, rc, ra, rm, r_unclipped_h, rh)


def step_back_tangent(
    cell: LSTMCell, params: dict[str, Any], r_params: dict[str, Any], x_t: Array, rx_t: Array,
    before: LSTMState, r_before: LSTMState, step: LSTMStep, r_step: LSTMStep,
    dc: Array, dh: Array, rdc: Array, rdh: Array,
) -> tuple[StepGradients, StepGradients]:  # fmt: skip
    """`minilstm.bptt.step_back`, and after each of its lines R{that line}. Return what it returns, and R{that}.

    `r_step` is what `step_tangent` computed; `rdc`, `rdh` are R{dc} and R{dh} with respect to the state after the step.
    """
    _, derivative, second = ACTIVATIONS[cell.activation]
    assert second is not None
    i, j, f, o, unclipped_c, c, a, m, unclipped_h, _ = step
    ri, rj, rf, ro, _, rc, ra, rm, _, _ = r_step
    (c_prev, h_prev), (rc_prev, rh_prev) = before, r_before
    shares: dict[str, Array] = {}
    r_shares: dict[str, Array] = {}
    if cell.proj_clip is not None:
        inside = np.abs(unclipped_h) <= cell.proj_clip
        dh, rdh = dh * inside, rdh * inside
    dm, rdm = dh, rdh
    if cell.num_proj is not None:
        projection, r_projection = params["projection"]["kernel"], r_params["projection"]["kernel"]
        dm = dh @ projection.T  # (10)
        rdm = rdh @ projection.T + dh @ r_projection.T
        shares["projection/kernel"] = m.T @ dh
        r_shares["projection/kernel"] = rm.T @ dh + m.T @ rdh
    do, da = dm * a, dm * o  # (9)
    rdo, rda = rdm * a + dm * ra, rdm * o + dm * ro
    dc = dc + da * derivative(a)  # (8)
    rdc = rdc + rda * derivative(a) + da * second(a) * ra
    dz_o = do * o * (1 - o)  # (7)
    rdz_o = rdo * o * (1 - o) + do * (1 - 2 * o) * ro
    if cell.use_peepholes:
        shares["w_o_diag"] = np.sum(dz_o * c, axis=0)
        r_shares["w_o_diag"] = np.sum(rdz_o * c + dz_o * rc, axis=0)
        dc = dc + dz_o * params["w_o_diag"]
        rdc = rdc + rdz_o * params["w_o_diag"] + dz_o * r_params["w_o_diag"]
    every_path, r_every_path = dc, rdc
    if cell.cell_clip is not None:
        inside = np.abs(unclipped_c) <= cell.cell_clip
        dc, rdc = dc * inside, rdc * inside
    di, dj, df = dc * j, dc * i, dc * c_prev  # (6)
    rdi, rdj, rdf = rdc * j + dc * rj, rdc * i + dc * ri, rdc * c_prev + dc * rc_prev
    dc_prev, rdc_prev = dc * f, rdc * f + dc * rf
    dz_f = df * f * (1 - f)  # (5)
    rdz_f = rdf * f * (1 - f) + df * (1 - 2 * f) * rf
    dz_j = dj * derivative(j)  # (4)
    rdz_j = rdj * derivative(j) + dj * second(j) * rj
    dz_i = di * i * (1 - i)  # (3)
    rdz_i = rdi * i * (1 - i) + di * (1 - 2 * i) * ri
    if cell.use_peepholes:
        for name, dz_k, rdz_k in (("w_f_diag", dz_f, rdz_f), ("w_i_diag", dz_i, rdz_i)):
            shares[name] = np.sum(dz_k * c_prev, axis=0)
            r_shares[name] = np.sum(rdz_k * c_prev + dz_k * rc_prev, axis=0)
            dc_prev = dc_prev + dz_k * params[name]
            rdc_prev = rdc_prev + rdz_k * params[name] + dz_k * r_params[name]
    dz = pack_gates(i=dz_i, j=dz_j, f=dz_f, o=dz_o)  # (2)
    rdz = pack_gates(i=rdz_i, j=rdz_j, f=rdz_f, o=rdz_o)
    row, r_row = np.concatenate([x_t, h_prev], axis=1), np.concatenate([rx_t, rh_prev], axis=1)
    shares["kernel"] = row.T @ dz  # (1)
    r_shares["kernel"] = r_row.T @ dz + row.T @ rdz
    shares["bias"], r_shares["bias"] = np.sum(dz, axis=0), np.sum(rdz, axis=0)
    d_row = dz @ params["kernel"].T
    rd_row = rdz @ params["kernel"].T + dz @ r_params["kernel"].T
    (dx_t, dh_prev), (rdx_t, rdh_prev) = (np.split(both, [x_t.shape[1]], axis=1) for both in (d_row, rd_row))
    return (
        StepGradients(dx_t, dc_prev, dh_prev, dz, every_path, shares),
        StepGradients(rdx_t, rdc_prev, rdh_prev, rdz, r_every_path, r_shares),
    )


@primitive
def lstm_tangents(
    *values: Array, cell: LSTMCell, sequence_length: Array | None = None, h_masks: Array | None = None, tape: Tape
) -> tuple[Array, Array, Array]:
    """R{`minilstm.bptt.lstm_sequence`}: how outputs, final c and final h move along the directions.

    `values` are the directions of inputs, c, h and weights (None is 0), then these themselves; `lstm_sequence` filled
    the tape. The tangents of every step are left on it.
    """
    directions, values = values[: len(values) // 2], values[len(values) // 2 :]
    inputs, *_, params, r_inputs, rc, rh, r_params = _named(values, filled(directions, values))
    time, batch, _ = inputs.shape
    r_outputs = np.zeros((time, batch, cell.output_size), inputs.dtype)
    r_steps, r_states = [], []
    for t in range(time):
        r_states.append(LSTMState(rc, rh))
        x_t, rx_t = (live_inputs(x, t, sequence_length) for x in (inputs, r_inputs))
        r_step = step_tangent(cell, params, r_params, x_t, rx_t, tape.before[t], r_states[t], tape.steps[t])
        r_steps.append(r_step)
        carried_rh = r_step.h if h_masks is None else r_step.h * h_masks[t]
        if sequence_length is None:
            r_outputs[t], rc, rh = r_step.h, r_step.c, carried_rh
        else:
            live = live_rows(t, sequence_length)
            r_outputs[t] = np.where(live, r_step.h, 0)
            rc, rh = np.where(live, r_step.c, rc), np.where(live, carried_rh, rh)
    tape.tangents = directions, r_steps, r_states
    return r_outputs, np.array(rc), np.array(rh)


@primitive
def lstm_gradient_tangents(
    *values: Array, cell: LSTMCell, sequence_length: Array | None = None, h_masks: Array | None = None, tape: Tape
) -> tuple[Array, ...]:
    """R{`minilstm.bptt.lstm_gradients`}: how the derivatives of inputs, c, h and weights move.

    `values` are the directions of d_outputs, dc and dh; those of inputs, c, h and weights (None is 0); then the former
    and the latter themselves.
    """
    half = len(values) // 2
    (d_outputs, dc, dh), given = values[half : half + 3], values[half + 3 :]
    rd_outputs, rdc, rdh = filled(values[:3], (d_outputs, dc, dh))
    directions = values[3:half]
    if tape.tangents is None or any(a is not b for a, b in zip(tape.tangents[0], directions, strict=True)):
        lstm_tangents(*directions, *given, cell=cell, sequence_length=sequence_length, h_masks=h_masks, tape=tape)
    _, r_steps, r_states = tape.tangents
    inputs, *_, params, r_inputs, _, _, r_params = _named(given, filled(directions, given))
    r_weights = {name: None if w is None else np.zeros_like(w) for name, w in zip(WEIGHTS, given[3:], strict=True)}
    rd_inputs = np.zeros_like(inputs)

    for t in reversed(range(len(inputs))):
        live = None if sequence_length is None else live_rows(t, sequence_length)
        after = dc, dh, rdc, rdh
        if h_masks is not None:
            dh, rdh = dh * h_masks[t], rdh * h_masks[t]
        dh, rdh = dh + d_outputs[t], rdh + rd_outputs[t]
        if live is not None:
            dc, dh, rdc, rdh = (np.where(live, x, 0) for x in (dc, dh, rdc, rdh))
        x_t, rx_t = (live_inputs(x, t, sequence_length) for x in (inputs, r_inputs))
        back, r_back = step_back_tangent(
            cell, params, r_params, x_t, rx_t, tape.before[t], r_states[t], tape.steps[t], r_steps[t], dc, dh, rdc, rdh
        )
        rd_inputs[t] = r_back.dx_t
        for name, share in r_back.weights.items():
            r_weights[name] += share
        dc, dh, rdc, rdh = back.dc_prev, back.dh_prev, r_back.dc_prev, r_back.dh_prev
        if live is not None:
            pairs = zip((dc, dh, rdc, rdh), after, strict=True)
            dc, dh, rdc, rdh = (np.where(live, new, old) for new, old in pairs)
    return rd_inputs, rdc, rdh, *r_weights.values()


def _named(values: Any, directions: Any) -> tuple[Any, ...]:
    """Inputs, c, h, and the weights as a tree; then the same of their directions."""
    params, r_params = (unflatten_names(dict(zip(WEIGHTS, of[3:], strict=True))) for of in (values, directions))
    return *values[:3], params, *directions[:3], r_params


register_pair(lstm_sequence, lstm_gradients, lstm_tangents, lstm_gradient_tangents)
