r"""A whole sequence of a GRU or a plain RNN and its backward pass, derived by hand: the readable pass.

The letters and the rules are those of `minilstm.bptt`; the numbers are those of `GRUCell` and `BasicRNNCell` in
`minilstm.variants`. The state is h alone, so one derivative, dh, travels from step t + 1 to step t.

`gru_step_back` undoes one step of a GRU, the last equation first:

    du = dh * (h_prev - k)      dk = dh * (1 - u)              dh_prev = dh * u                  (6)
    dz_k = dk * activation'(z_k)                                                                 (5)
    dcandidate/kernel += [x_t, q].T @ dz_k                     dcandidate/bias += sum(dz_k)      (4)
    dx_t, dq = dz_k @ candidate/kernel.T, split after input_dim columns                          (4)
    dr = dq * h_prev                                           dh_prev += dq * r                 (3)
    dz_r = dr * r * (1 - r)     dz_u = du * u * (1 - u)                                          (2)
    dgates/kernel += [x_t, h_prev].T @ [dz_r, dz_u]            dgates/bias += sum([dz_r, dz_u])  (1)
    dx_t, dh_prev += [dz_r, dz_u] @ gates/kernel.T, split after input_dim columns                (1)

`reset_after_step_back` undoes one step of a GRU with `reset_after`:

    du = dh * (h_prev - k)      dk = dh * (1 - u)              dh_prev = dh * u                  (5)
    da_k = dk * activation'(a_k + r q)
    dr = da_k * q               dq = da_k * r                                                    (4)
    da_r = db_r = dr * r * (1 - r)     da_u = db_u = du * u * (1 - u)                            (3)
    drecurrent_kernel += h_prev.T @ [db_r, db_u, dq]     drecurrent_bias += sum([db_r, db_u, dq])
    dh_prev += [db_r, db_u, dq] @ recurrent_kernel.T                                             (2)
    dkernel += x_t.T @ [da_r, da_u, da_k]                dbias += sum([da_r, da_u, da_k])
    dx_t = [da_r, da_u, da_k] @ kernel.T                                                         (1)

`rnn_step_back` undoes one step of a plain RNN:

    dz = dh * activation'(z)                                                                     (2)
    dkernel += [x_t, h_prev].T @ dz                            dbias += sum(dz)                  (1)
    dx_t, dh_prev = dz @ kernel.T, split after input_dim columns                                 (1)

A second derivative is that of autograd's trace: `minilstm.primitives.pulled_by_trace`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from autograd.extend import defvjp_argnums
from autograd.tracer import isbox

from .bptt import live_inputs, live_rows
from .cells import ACTIVATIONS
from .params import get_path, unflatten_names
from .primitives import filled, primitive, pulled_by_trace, result_of
from .variants import BasicRNNCell, GRUCell, GRUStep, RNNStep

Array = Any


class StepGradients(NamedTuple):
    """What one step back computes: the derivatives with respect to x_t and the h before the step, dz with respect to
    all pre-activations side by side, and the step's share of each weight's derivative by name.
    """

    dx_t: Array
    dh_prev: Array
    dz: Array
    weights: dict[str, Array]


class Sweep(NamedTuple):
    """All results of one backward pass: derivatives of inputs, of the initial h and of each weight; and every dz."""

    inputs: Array
    h: Array
    weights: list[Array]
    dz: Array


def gru_step_back(
    cell: GRUCell, params: dict[str, Any], x_t: Array, h_prev: Array, step: GRUStep, dh: Array
) -> StepGradients:
    """Undo one `GRUCell.step`, equation by equation, the last one first.

    `params` and `x_t` ``[batch, input_dim]`` are what the step was given, `h_prev` is the state before it, `step` what
    it computed; `dh` is the derivative of the loss with respect to the state after it. dz is dz_r, dz_u, dz_k.
    """
    gates, candidate, input_dim = params["gates"]["kernel"], params["candidate"]["kernel"], x_t.shape[1]
    r, u, q, k, _ = step
    du, dk = dh * (h_prev - k), dh * (1 - u)  # (6)
    dh_prev = dh * u
    dz_k = dk * ACTIVATIONS[cell.activation].derivative(k)  # (5)
    dx_t, dq = np.split(dz_k @ candidate.T, [input_dim], axis=1)  # (4)
    dr = dq * h_prev  # (3)
    dh_prev = dh_prev + dq * r
    dz_r, dz_u = dr * r * (1 - r), du * u * (1 - u)  # (2)
    dz_gates = np.concatenate([dz_r, dz_u], axis=1)
    by_x, by_h = np.split(dz_gates @ gates.T, [input_dim], axis=1)  # (1)
    weights = {
        "gates/kernel": np.concatenate([x_t, h_prev], axis=1).T @ dz_gates,
        "gates/bias": np.sum(dz_gates, axis=0),
        "candidate/kernel": np.concatenate([x_t, q], axis=1).T @ dz_k,
        "candidate/bias": np.sum(dz_k, axis=0),
    }
    return StepGradients(dx_t + by_x, dh_prev + by_h, np.concatenate([dz_gates, dz_k], axis=1), weights)


def reset_after_step_back(
    cell: GRUCell, params: dict[str, Any], x_t: Array, h_prev: Array, step: GRUStep, dh: Array
) -> StepGradients:
    """Undo one `GRUCell.step` with `reset_after`; the arguments are those of `gru_step_back`, and dz is da."""
    r, u, q, k, _ = step
    du, dk = dh * (h_prev - k), dh * (1 - u)  # (5)
    dh_prev = dh * u
    da_k = dk * ACTIVATIONS[cell.activation].derivative(k)  # (4)
    dr, dq = da_k * q, da_k * r
    da_r, da_u = dr * r * (1 - r), du * u * (1 - u)  # (3)
    db = np.concatenate([da_r, da_u, dq], axis=1)  # (2)
    dh_prev = dh_prev + db @ params["recurrent_kernel"].T
    da = np.concatenate([da_r, da_u, da_k], axis=1)  # (1)
    weights = {
        "kernel": x_t.T @ da,
        "recurrent_kernel": h_prev.T @ db,
        "bias": np.sum(da, axis=0),
        "recurrent_bias": np.sum(db, axis=0),
    }
    return StepGradients(da @ params["kernel"].T, dh_prev, da, weights)


def rnn_step_back(
    cell: BasicRNNCell, params: dict[str, Any], x_t: Array, h_prev: Array, step: RNNStep, dh: Array
) -> StepGradients:
    """Undo one `BasicRNNCell.step`; the arguments are those of `gru_step_back`."""
    dz = dh * ACTIVATIONS[cell.activation].derivative(step.h)  # (2)
    dx_t, dh_prev = np.split(dz @ params["kernel"].T, [x_t.shape[1]], axis=1)  # (1)
    weights = {"kernel": np.concatenate([x_t, h_prev], axis=1).T @ dz, "bias": np.sum(dz, axis=0)}
    return StepGradients(dx_t, dh_prev, dz, weights)


class Derivation(NamedTuple):
    """How a kind of cell is undone: by which function, and with which weights; `gates` are the blocks of its dz, by
    the name of their bias.
    """

    step_back: Callable[..., StepGradients]
    weights: tuple[str, ...]
    gates: dict[str, tuple[str, ...]]


DERIVATIONS: dict[Any, Derivation] = {
    GRUCell: Derivation(
        gru_step_back,
        ("gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias"),
        {"gates/bias": ("r", "u"), "candidate/bias": ("k",)},
    ),
    BasicRNNCell: Derivation(rnn_step_back, ("kernel", "bias"), {"bias": ("z",)}),
}
RESET_AFTER = Derivation(
    reset_after_step_back, ("kernel", "recurrent_kernel", "bias", "recurrent_bias"), {"bias": ("r", "u", "k")}
)


def derivation_of(cell: Any) -> Derivation | None:
    """How a cell is undone, or None: for another kind of cell, an activation without a known derivative, or a subclass
    with other equations.
    """
    for kind in DERIVATIONS:
        if isinstance(cell, kind):
            same = all(getattr(type(cell), name) is getattr(kind, name) for name in ("step", "__call__"))
            return _derivation(cell) if same and isinstance(cell.activation, str) else None
    return None


def _derivation(cell: Any) -> Derivation:
    if getattr(cell, "reset_after", False):
        return RESET_AFTER
    return next(derivation for kind, derivation in DERIVATIONS.items() if isinstance(cell, kind))


def sequence(
    cell: Any, params: dict[str, Any], inputs: Array, h: Array,
    sequence_length: Array | None, h_masks: Array | None, traced: Callable[..., Any],
) -> tuple[Array, Array]:  # fmt: skip
    """Run `cell` over a sequence; autograd differentiates it by the hand-derived pass.

    The arguments are those of `minilstm.bptt.sequence`, with h ``[batch, units]`` as the state.
    ``traced(params, inputs, h)`` is the same as plain calls of the cell, for second derivatives.

    Returns
    -------
    (outputs [time, batch, units], h)
    """
    derivation = derivation_of(cell)
    assert derivation is not None, cell
    weights = [get_path(params, name) for name in derivation.weights]
    options = {"cell": cell, "sequence_length": sequence_length, "h_masks": h_masks, "tape": Tape(), "traced": traced}
    results = h_sequence(inputs, h, *weights, **options)
    return result_of(results, 0), result_of(results, 1)


class Tape:
    """What the forward pass leaves for the backward pass: for each step its values, and the h before it."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.before: list[Array] = []


def _as_params(cell: Any, weights: tuple[Array, ...]) -> dict[str, Any]:
    return unflatten_names(dict(zip(_derivation(cell).weights, weights, strict=True)))


@primitive
def h_sequence(
    inputs: Array, h: Array, *weights: Array,
    cell: Any, sequence_length: Array | None, h_masks: Array | None, tape: Tape, traced: Any = None,
) -> tuple[Array, Array]:  # fmt: skip
    """The forward pass: outputs of every step and final h. `weights` are in the order of the cell's `Derivation`."""
    time, batch, _ = inputs.shape
    params = _as_params(cell, weights)
    outputs = np.zeros((time, batch, cell.units), inputs.dtype)
    for t in range(time):
        tape.before.append(h)
        step = cell.step(params, live_inputs(inputs, t, sequence_length), h)
        tape.steps.append(step)
        carried = step.h if h_masks is None else step.h * h_masks[t]
        if sequence_length is None:
            outputs[t], h = step.h, carried
        else:
            live = live_rows(t, sequence_length)
            outputs[t], h = np.where(live, step.h, 0), np.where(live, carried, h)
    return outputs, np.array(h)


def h_backward(
    d_outputs: Array, dh: Array, inputs: Array, *weights: Array,
    cell: Any, sequence_length: Array | None, h_masks: Array | None, tape: Tape,
) -> Sweep:  # fmt: skip
    """The backward pass. `d_outputs` and `dh` are the derivatives of the loss with respect to what `h_sequence`
    returned, which also filled the tape.
    """
    derivation, params = _derivation(cell), _as_params(cell, weights)
    d_weights = {name: np.zeros_like(w) for name, w in zip(derivation.weights, weights, strict=True)}
    d_inputs, every_dz = np.zeros_like(inputs), []
    for t in reversed(range(len(inputs))):
        live = None if sequence_length is None else live_rows(t, sequence_length)
        after = dh
        if h_masks is not None:
            dh = dh * h_masks[t]
        dh = dh + d_outputs[t]
        if live is not None:
            dh = np.where(live, dh, 0)
        x_t = live_inputs(inputs, t, sequence_length)
        d_inputs[t], dh, dz, shares = derivation.step_back(cell, params, x_t, tape.before[t], tape.steps[t], dh)
        every_dz.append(dz)
        for name, share in shares.items():
            d_weights[name] += share
        if live is not None:
            dh = np.where(live, dh, after)
    return Sweep(d_inputs, dh, list(d_weights.values()), np.stack(every_dz[::-1]))


def _vjps(argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    cell, traced = kwargs["cell"], kwargs["traced"]
    options = {name: value for name, value in kwargs.items() if name != "traced"}

    def pull(g: tuple[Array, Array]) -> list[Array]:
        if any(map(isbox, (*g, *args))):  # a derivative of this derivative is wanted
            return pulled_by_trace(lambda x, h, *weights: traced(_as_params(cell, weights), x, h), args, argnums, g)
        inputs, _, *weights = args
        sweep = h_backward(*filled(g, ans), inputs, *weights, **options)  # one pass for all arguments
        grads = [sweep.inputs, sweep.h, *sweep.weights]
        return [grads[argnum] for argnum in argnums]

    return pull


defvjp_argnums(h_sequence, _vjps)


def every_dz(cell: Any, params: dict[str, Any], inputs: Array, h: Any, sequence_length: Any, cotangents: Any) -> Array:
    """The dz of every step ``[time, batch, gates * units]``; the arguments are those of `minilstm.bptt.every_dz`."""
    weights = [get_path(params, name) for name in _derivation(cell).weights]
    options = {"cell": cell, "sequence_length": sequence_length, "h_masks": None, "tape": Tape()}
    results = h_sequence(inputs, h, *weights, **options)
    return h_backward(*cotangents(results), inputs, *weights, **options).dz
