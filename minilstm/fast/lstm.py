"""The plain LSTM cell over a whole sequence, fast. The readable twin is `minilstm.bptt`.

Both compute (1) to (9) of `minilstm.cells` and undo them, here for a cell with tanh and without peepholes, clips,
projection, masks or lengths. This module registers the pass with autograd and keeps its memory. The pass itself is a
workspace, of which there are four:

- `workspace.ColumnWorkspace`, in NumPy;
- `row_workspace.RowWorkspace`, in NumPy, for kernels of many megabytes;
- `compiled.workspace.CompiledWorkspace`, if numba is installed;
- `second.SecondWorkspace`, if second derivatives may be asked for.

Large temporary arrays cost page faults, and each view costs 0.2 us. A workspace holds both, and is kept for the next
pass of the same shape. It belongs to one pass at a time, and no array of it leaves this module.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
from autograd.extend import defvjp_argnums, primitive
from autograd.tracer import isbox

from ..bptt import has_derivation
from ..cells import LSTMCell, LSTMState
from ..cotangents import filled, is_derived_twice, part_of, result_of
from ..gates import GATES
from ..pairs import register_pair
from . import compiled
from .loops import SCALE, SHIFT
from .row_workspace import LARGE_KERNEL, RowWorkspace
from .second import SecondWorkspace
from .workspace import ColumnWorkspace

Array = Any

FREE_WORKSPACES = 2  # kept for each shape; more are needed only while more passes are unfinished
FREE_SHAPES = 8


def can_run(cell: Any) -> bool:
    """Whether this module can run the cell: an LSTM cell with tanh and without further options."""
    return (
        has_derivation(cell)
        and cell.activation == "tanh"
        and not cell.use_peepholes
        and cell.cell_clip is None
        and cell.num_proj is None
    )


def sequence(cell: LSTMCell, params: dict[str, Any], inputs: Array, state: Any) -> tuple[Array, LSTMState]:
    """The fast twin of `minilstm.bptt.sequence`, for cells that it `can_run`: inputs ``[time, batch, input_dim]``."""
    c, h = state
    arguments = inputs, c, h, params["kernel"], params["bias"]
    if len(inputs) == 1 and not any(map(isbox, arguments)):
        return _one_step(*arguments, cell.forget_bias)
    loan = Loan(is_derived_twice(*arguments), isbox(inputs))
    results = fast_sequence(*arguments, forget_bias=cell.forget_bias, loan=loan)
    return result_of(results, 0), LSTMState(result_of(results, 1), result_of(results, 2))


_free: dict[tuple[Any, ...], list[Any]] = {}
_lock = threading.RLock()  # the collector may end a loan, and return its workspace, while this thread is in here


def _take(key: tuple[Any, ...]) -> Any:
    with _lock:
        free = _free.get(key)
        if free:
            return free.pop()
    *arguments, kind = key
    return kind(*arguments)


def _give_back(key: tuple[Any, ...], workspace: Any) -> None:
    with _lock:
        free = _free.pop(key, [])
        if len(free) < FREE_WORKSPACES:
            free.append(workspace)
        _free[key] = free  # the shape used last is at the end
        while len(_free) > FREE_SHAPES:
            del _free[next(iter(_free))]


def workspace_class(kernel: Array) -> Any:
    """The class of workspaces for this kernel; all have the methods of `ColumnWorkspace`."""
    if compiled.can_compile(kernel.dtype, kernel.size):
        return compiled.workspace_class()
    return RowWorkspace if kernel.nbytes > LARGE_KERNEL else ColumnWorkspace


class Loan:
    """Holds the workspace of a forward pass for its backward pass, and returns it when neither pass can run again.

    `twice` says whether second derivatives are expected, `moves_inputs` whether any of them concern the inputs.
    """

    def __init__(self, twice: bool = False, moves_inputs: bool = True) -> None:
        self.twice, self.moves_inputs = twice, moves_inputs
        self.second: Loan | None = None
        self.key: tuple[Any, ...] | None = None
        self.workspace: Any = None

    def take(self, inputs: Array, kernel: Array) -> Any:
        """Borrow a workspace for a pass over inputs ``[time, batch, input_dim]``."""
        kind = SecondWorkspace if self.twice else workspace_class(kernel)
        self.key = (*inputs.shape, kernel.shape[1] // 4, inputs.dtype, kind)
        self.workspace = _take(self.key)
        return self.workspace

    def for_tangents(self, values: Any, forget_bias: float) -> Any:
        """The workspace, if second derivatives were expected; else another one, after the same forward pass."""
        if self.twice:
            return self.workspace
        if self.second is None:
            self.second = Loan(twice=True)
            self.second.take(values[0], values[3]).forward(*values, forget_bias)
        return self.second.workspace

    def __del__(self) -> None:
        if self.key is not None and self.workspace is not None:
            _give_back(self.key, self.workspace)


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
    inputs: Array, c: Array, h: Array, kernel: Array, bias: Array, *, forget_bias: float, loan: Loan
) -> tuple[Array, Array, Array]:
    """The forward pass: outputs ``[time, batch, units]``, final c and final h."""
    return loan.take(inputs, kernel).forward(inputs, c, h, kernel, bias, forget_bias)


@primitive
def fast_backward(
    d_outputs: Array, dc: Array, dh: Array, inputs: Array, c: Array, h: Array, kernel: Array, bias: Array,
    *, forget_bias: float, loan: Loan, wants_inputs: bool = True, wants_h: bool = True,
) -> tuple[Array | None, Array, Array | None, Array, Array]:  # fmt: skip
    """The backward pass: derivatives of inputs, c and h before the first step, kernel and bias.

    Those of inputs and h are None unless wanted.
    """
    *before, d_kernel = loan.workspace.backward(d_outputs, dc, dh, c, kernel, wants_inputs, wants_h)
    return (*before, d_kernel[:-1], d_kernel[-1])


@primitive
def fast_tangents(*values: Array, forget_bias: float, loan: Loan, **_: bool) -> tuple[Array, Array, Array]:
    """The fast twin of `minilstm.tangents.lstm_tangents`."""
    directions, values = values[:5], values[5:]
    return loan.for_tangents(values, forget_bias).tangents(directions, values)


@primitive
def fast_gradient_tangents(*values: Array, forget_bias: float, loan: Loan, **_: bool) -> tuple[Array, ...]:
    """The fast twin of `minilstm.tangents.lstm_gradient_tangents`."""
    r_given, directions, given, values = values[:3], values[3:8], values[8:11], values[11:]
    second = loan.for_tangents(values, forget_bias)
    return tuple(second.backward_tangents(r_given, directions, given, values, loan.moves_inputs))


def every_dz(
    cell: LSTMCell, params: dict[str, Any], inputs: Array, state: Any, sequence_length: None, cotangents: Any
) -> Array:
    """The fast twin of `minilstm.bptt.every_dz`."""
    loan, arguments = Loan(), (inputs, *state, params["kernel"], params["bias"])
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
