"""An LSTM over a whole sequence, fast. The readable twin is `minilstm.bptt`.

Both compute (1) to (10) of `minilstm.cells` and undo them. This module registers the pass with autograd. The pass
itself is a workspace, of which there are three:

- `workspace.ColumnWorkspace`, in NumPy, the only one for cells with options and for masks of h;
- `row_workspace.RowWorkspace`, in NumPy, for kernels of many megabytes;
- `compiled.workspace.CompiledWorkspace`, if numba is installed.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from autograd.extend import defvjp_argnums, primitive
from autograd.tracer import isbox

from ..bptt import WEIGHTS, has_derivation, no_second_derivative
from ..cells import LSTMCell, LSTMState
from ..cotangents import filled, result_of
from ..gates import GATES
from ..params import get_path
from . import compiled, loans
from .loops import SCALE, SHIFT, Options
from .padding import Padding
from .row_workspace import LARGE_KERNEL, RowWorkspace
from .workspace import ColumnWorkspace

Array = Any


def can_run(cell: Any) -> bool:
    """Whether this module can run the cell: an LSTM cell whose derivatives are known."""
    return has_derivation(cell)


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
    loan.keeps = any(map(isbox, (*arguments, *more)))
    results = fast_sequence(*arguments, *more, forget_bias=cell.forget_bias, loan=loan)
    return result_of(results, 0), LSTMState(result_of(results, 1), result_of(results, 2))


def workspace_class(kernel: Array) -> Any:
    """The class of workspaces for this kernel; all have the methods of `ColumnWorkspace`."""
    if compiled.can_compile(kernel.dtype, kernel.size):
        return compiled.workspace_class()
    return RowWorkspace if kernel.nbytes > LARGE_KERNEL else ColumnWorkspace


def options_of(cell: LSTMCell, h_masks: Array | None) -> Options | None:
    """What a workspace must know about the cell, or None if it is plain."""
    options = Options(
        cell.output_size, cell.activation, cell.use_peepholes, cell.cell_clip,
        cell.num_proj is not None, cell.proj_clip, h_masks is not None,
    )  # fmt: skip
    return None if options == Options(cell.units, "tanh", False, None, False, None, False) else options


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

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but a plain cell."""
        return self.options is None and self.lengths is None

    def workspace_for(self, inputs: Array, kernel: Array) -> Any:
        """Borrow a workspace for a pass over inputs ``[time, batch, input_dim]``."""
        if self.lengths is not None and np.min(self.lengths) < len(inputs):
            self.padding = Padding(np.asarray(self.lengths), len(inputs))
        shape = *inputs.shape, kernel.shape[1] // 4, inputs.dtype
        padded = self.padding is not None
        kind = workspace_class(kernel)
        if self.options is not None or (kind is ColumnWorkspace and not self.keeps):
            return self.take(ColumnWorkspace, *shape, padded, self.options, self.keeps)
        return self.take(kind, *shape, *([True] if padded else []))


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
        workspace.loops.set_weights(*more, loan.h_masks)
    outputs, c_end, h_end = workspace.forward(inputs, c, h, kernel, bias, forget_bias)
    if padding is not None:
        outputs[padding.past] = 0  # they are, but some are -0
        c_end, h_end = padding.final_c(c_end, c), padding.final_h(outputs, h, loan.h_masks)
    return outputs, c_end, h_end


@primitive
def fast_backward(
    d_outputs: Array, dc: Array, dh: Array, c: Array, kernel: Array,
    *, loan: Loan, wants_inputs: bool, wants_h: bool = True,
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
    more = () if loan.options is None else loan.workspace.loops.d_weights()
    return (d_inputs, dc, dh, d_kernel[: len(kernel)], d_kernel[-1], *more)


def every_dz(
    cell: LSTMCell, params: dict[str, Any], inputs: Array, state: Any, sequence_length: Any, cotangents: Any
) -> Array:
    """The fast twin of `minilstm.bptt.every_dz`."""
    loan, kernel = Loan(cell, sequence_length), params["kernel"]
    more = [] if loan.options is None else [get_path(params, name) for name in WEIGHTS[2:]]
    results = fast_sequence(inputs, *state, kernel, params["bias"], *more, forget_bias=cell.forget_bias, loan=loan)
    fast_backward(*cotangents(results), state[0], kernel, loan=loan, wants_inputs=False)
    return loan.workspace.dz()


def _vjps(argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _, c, _, kernel, *_ = args

    def pull(g: tuple[Array, Array, Array]) -> list[Array]:
        wanted = {"wants_inputs": 0 in argnums, "wants_h": 2 in argnums}
        grads = fast_backward(*filled(g, ans), c, kernel, loan=kwargs["loan"], **wanted)
        return [grads[argnum] for argnum in argnums]

    return pull


defvjp_argnums(fast_sequence, _vjps)
defvjp_argnums(fast_backward, no_second_derivative)
