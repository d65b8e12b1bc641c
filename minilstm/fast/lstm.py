"""An LSTM over a whole sequence, fast. The readable twin is `minilstm.bptt`.

Both compute (1) to (10) of `minilstm.cells` and undo them. This module registers the pass with autograd. The pass
itself is a workspace, of which there are four:

- `workspace.ColumnWorkspace`, in NumPy;
- `row_workspace.RowWorkspace`, in NumPy, for plain cells with kernels of many megabytes;
- `compiled.workspace.CompiledWorkspace`, if numba is installed, in float32 and with tanh;
- `second.SecondWorkspace`, if second derivatives of a plain cell may be asked for. Those of a cell with options or of
  sequences with lengths are `minilstm.second.tangents`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from autograd.extend import defvjp_argnums
from autograd.tracer import isbox

from .. import bptt
from ..bptt import WEIGHTS, has_derivation
from ..cells import LSTMCell, LSTMState
from ..gates import GATES
from ..params import get_path
from ..primitives import filled, is_derived_twice, part_of, primitive, result_of
from ..second.pairs import register_pair
from ..second.tangents import lstm_gradient_tangents, lstm_tangents
from . import compiled, loans
from .activations import FAST_ACTIVATIONS, SCALE, SHIFT
from .large_loops import Options
from .padding import Padding, padding_for
from .row_workspace import LARGE_KERNEL, RowWorkspace
from .workspace import ColumnWorkspace

Array = Any


def can_run(cell: Any) -> bool:
    """Whether this module can run the cell: an LSTM cell with an activation that `minilstm.fast.activations` has."""
    return has_derivation(cell) and cell.activation in FAST_ACTIVATIONS


def sequence(
    cell: LSTMCell, params: dict[str, Any], inputs: Array, state: Any,
    sequence_length: Array | None = None, h_masks: Array | None = None,
) -> tuple[Array, LSTMState]:  # fmt: skip
    """The fast twin of `minilstm.bptt.sequence`, with its arguments and results."""
    c, h = state
    arguments = inputs, c, h, params["kernel"], params["bias"]
    loan = Loan(cell, sequence_length, h_masks)
    if loan.is_plain and len(inputs) == 1 and not any(map(isbox, arguments)):
        return _one_step(*arguments, cell.forget_bias)
    more = [] if loan.options is None else [get_path(params, name) for name in WEIGHTS[2:]]
    loan.keeps, loan.moves_inputs = any(map(isbox, (*arguments, *more))), isbox(inputs)
    if loan.keeps and is_derived_twice(*arguments, *more):
        if not loan.is_plain:
            return bptt.sequence(cell, params, inputs, state, sequence_length, h_masks)
        loan.twice = True
    results = fast_sequence(*arguments, *more, forget_bias=cell.forget_bias, loan=loan)
    return result_of(results, 0), LSTMState(result_of(results, 1), result_of(results, 2))


def workspace_class(kernel: Array, options: Options | None = None) -> Any:
    """The class of workspaces for this kernel; all have the methods of `ColumnWorkspace`."""
    if (options is None or options.activation == "tanh") and compiled.can_compile(kernel.dtype, kernel.size):
        return compiled.workspace_class()
    if options is not None:
        return ColumnWorkspace
    return RowWorkspace if kernel.nbytes > LARGE_KERNEL else ColumnWorkspace


def options_of(cell: LSTMCell, h_masks: Array | None) -> Options | None:
    """What a workspace must know about the cell, or None if it is plain."""
    options = Options(
        cell.output_size, cell.activation, cell.use_peepholes, cell.cell_clip,
        cell.num_proj is not None, cell.proj_clip, h_masks is not None,
    )  # fmt: skip
    return None if options == Options(cell.units) else options


class Loan(loans.Loan):
    """The loan of one pass of an LSTM, and what the pass is given besides arrays with derivatives.

    Parameters
    ----------
    cell : LSTMCell, optional
        Needed only for a cell with options.
    sequence_length, h_masks
        As in `minilstm.bptt.sequence`.
    """

    def __init__(self, cell: LSTMCell | None = None, sequence_length: Any = None, h_masks: Array | None = None) -> None:
        super().__init__()
        self.options = None if cell is None else options_of(cell, h_masks)
        self.lengths, self.h_masks = sequence_length, h_masks
        self.padding: Padding | None = None
        self.keeps = True  # for a backward pass
        self.cell, self.twice, self.moves_inputs = cell, False, True  # whether second derivatives are expected, of what
        self.again: Any = None  # what else a second derivative needs that was not expected

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but a plain cell."""
        return self.options is None and self.lengths is None

    def workspace_for(self, inputs: Array, kernel: Array) -> Any:
        """Borrow a workspace for a pass over inputs ``[time, batch, input_dim]``."""
        if self.twice:
            from .second import SecondWorkspace  # most programs need none

            return self.take(SecondWorkspace, *inputs.shape, kernel.shape[1] // 4, inputs.dtype)
        self.padding = padding_for(self.lengths, len(inputs))
        shape = *inputs.shape, kernel.shape[1] // 4, inputs.dtype
        padded = self.padding is not None
        kind = workspace_class(kernel, self.options)
        if kind is ColumnWorkspace:
            return self.take(kind, *shape, padded, self.options, self.keeps)
        return self.take(kind, *shape, padded, *([] if self.options is None else [self.options]))

    def for_tangents(self, values: Any, forget_bias: float) -> Any:
        """The workspace of a plain cell, if second derivatives were expected; else another one, after the same pass."""
        if self.twice:
            return self.workspace
        if self.again is None:
            self.again = Loan()
            self.again.twice = True
            self.again.workspace_for(values[0], values[3]).forward(*values, forget_bias)
        return self.again.workspace

    def readable(self, values: Any) -> dict[str, Any]:
        """The options of `minilstm.second.tangents`, after the same pass by `minilstm.bptt`, for any other cell."""
        if self.again is None:
            self.again = {
                "cell": self.cell, "sequence_length": self.lengths, "h_masks": self.h_masks, "tape": bptt.Tape(),
            }  # fmt: skip
            bptt.lstm_sequence(*_with_all_weights(values), **self.again)
        return dict(self.again)


def _with_all_weights(values: Any) -> list[Any]:
    """`values` with None for each weight that is not there."""
    return [*values, *[None] * (3 + len(WEIGHTS) - len(values))]


def _one_step(
    inputs: Array, c: Array, h: Array, kernel: Array, bias: Array, forget_bias: float
) -> tuple[Array, LSTMState]:
    """A single step without derivatives, as `generate` takes it: a workspace would cost more than the step."""
    batch, units = c.shape
    forget, scale, shift = _step_constants(units, float(forget_bias), c.dtype)
    x_t = inputs[0]
    if batch == 1:  # vectors need no broadcasting, which costs as much again as a small call
        x_t, c, h = x_t[0], c[0], h[0]
    z = np.dot(np.concatenate((x_t, h), axis=-1), kernel)
    z += bias
    z += forget
    z *= scale  # the 1/2 inside a sigmoid
    np.tanh(z, out=z)
    z *= scale
    z += shift
    i, j, f, o = z[..., :units], z[..., units : 2 * units], z[..., 2 * units : 3 * units], z[..., 3 * units :]
    new_c = f * c
    new_c += i * j
    new_h = np.tanh(new_c)
    new_h *= o
    state = LSTMState(new_c.reshape(batch, units), new_h.reshape(batch, units))
    return new_h.reshape(1, batch, units).copy(), state  # a copy: outputs and state are two results, not one array


@functools.lru_cache(maxsize=16)
def _step_constants(units: int, forget_bias: float, dtype: np.dtype[Any]) -> tuple[Array, Array, Array]:
    """Rows ``[4 * units]``: the forget bias, and the factor and summand that make a gate of its tanh."""
    forgets = [forget_bias if gate == "f" else 0 for gate in GATES]
    forget, scale, shift = (np.repeat(np.array(row, dtype), units) for row in (forgets, SCALE, SHIFT))
    return forget, scale, shift


@primitive
def fast_sequence(
    inputs: Array, c: Array, h: Array, kernel: Array, bias: Array, *more: Array | None, forget_bias: float, loan: Loan
) -> tuple[Array, Array, Array]:
    """The forward pass: outputs ``[time, batch, output_size]``, final c and final h.

    `more` are the other weights in the order of `minilstm.bptt.WEIGHTS`, if the cell has options.
    """
    workspace, padding = loan.workspace_for(inputs, kernel), loan.padding
    if padding is not None:
        inputs = padding.without(inputs)
        np.copyto(workspace.past, padding.past)
    if loan.options is not None:
        workspace.set_weights(*more, loan.h_masks)
    outputs, c_end, h_end = workspace.forward(inputs, c, h, kernel, bias, forget_bias)
    if padding is not None:
        outputs[padding.past] = 0  # they are, but some are -0
        c_end, h_end = padding.final_c(c_end, c), padding.final_h(outputs, h, loan.h_masks)
    return outputs, c_end, h_end


@primitive
def fast_backward(
    d_outputs: Array, dc: Array, dh: Array, inputs: Array, c: Array, h: Array, kernel: Array, bias: Array,
    *more: Array | None, forget_bias: float, loan: Loan, wants_inputs: bool = True, wants_h: bool = True,
) -> tuple[Array | None, ...]:  # fmt: skip
    """The backward pass: derivatives of inputs, c and h before the first step, kernel and bias, and of all other
    weights if the cell has options.

    Those of inputs and h are None unless wanted.
    """
    padding, d_c_end, d_h_end = loan.padding, dc, dh
    if padding is not None:
        d_outputs, dh = padding.d_outputs(d_outputs, dh, loan.h_masks), np.zeros_like(dh)
    d_inputs, dc, dh, d_kernel = loan.workspace.backward(d_outputs, dc, dh, c, kernel, wants_inputs, wants_h)
    if padding is not None:
        dc = np.where(padding.empty, d_c_end, dc)
        dh = dh if dh is None else np.where(padding.empty, d_h_end, dh)
    d_more = () if loan.options is None else loan.workspace.d_weights()
    return (d_inputs, dc, dh, d_kernel[: len(kernel)], d_kernel[-1], *d_more)


@primitive
def fast_tangents(*values: Array, forget_bias: float, loan: Loan, **_: bool) -> tuple[Array, Array, Array]:
    """The fast twin of `minilstm.second.tangents.lstm_tangents`."""
    directions, values = values[: len(values) // 2], values[len(values) // 2 :]
    if loan.is_plain:
        return loan.for_tangents(values, forget_bias).tangents(directions, values)
    return lstm_tangents(*_with_all_weights(directions), *_with_all_weights(values), **loan.readable(values))


@primitive
def fast_gradient_tangents(*values: Array, forget_bias: float, loan: Loan, **_: bool) -> tuple[Array, ...]:
    """The fast twin of `minilstm.second.tangents.lstm_gradient_tangents`."""
    half = len(values) // 2
    r_given, directions, given, values = values[:3], values[3:half], values[half : half + 3], values[half + 3 :]
    if loan.is_plain:
        second = loan.for_tangents(values, forget_bias)
        return tuple(second.backward_tangents(r_given, directions, given, values, loan.moves_inputs))
    all_directions, all_values = map(_with_all_weights, (directions, values))
    moved = lstm_gradient_tangents(*r_given, *all_directions, *given, *all_values, **loan.readable(values))
    return moved[: len(values)]


def every_dz(
    cell: LSTMCell, params: dict[str, Any], inputs: Array, state: Any, sequence_length: Any, cotangents: Any
) -> Array:
    """The fast twin of `minilstm.bptt.every_dz`."""
    loan, arguments = Loan(cell, sequence_length), [inputs, *state, params["kernel"], params["bias"]]
    arguments += [] if loan.options is None else [get_path(params, name) for name in WEIGHTS[2:]]
    options: dict[str, Any] = {"forget_bias": cell.forget_bias, "loan": loan}
    given = cotangents(fast_sequence(*arguments, **options))
    fast_backward(*given, *arguments, **options, wants_inputs=False)
    return loan.workspace.dz()


register_pair(fast_sequence, fast_backward, fast_tangents, fast_gradient_tangents)


def _vjps(argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    def pull(g: tuple[Array, Array, Array]) -> list[Array]:
        wanted = {"wants_inputs": 0 in argnums, "wants_h": 2 in argnums}
        grads = fast_backward(*filled(g, ans), *args, **options, **wanted)
        return [part_of(grads, argnum) for argnum in argnums]

    return pull


defvjp_argnums(fast_sequence, _vjps)  # in place of the general one, which does not say what is wanted
