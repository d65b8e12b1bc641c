"""The plain LSTM cell again, laid out for speed; `minilstm.bptt` is its reference and its referee.

What is computed is (1) to (9) of `minilstm.cells` and the sweep of `minilstm.bptt`, for a cell with the activation
tanh and without peepholes, clips, projection, masks or lengths. What differs is where numbers lie and how often NumPy
is called (`minilstm.fast.workspace`, and for kernels of many megabytes `minilstm.fast.row_workspace`), and, where numba is
installed, that it is not (`minilstm.fast.compiled`). Here is what they have in common: a pass as two primitives for
autograd, and the memory of passes.

Big temporaries cost page faults, views cost 0.2 us each. Both are kept in workspaces for the next call of the same
shape; a workspace belongs to one pass at a time, and nothing of it is handed out.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
from autograd.extend import defvjp_argnums, primitive
from autograd.tracer import isbox

from ..bptt import no_second_derivative
from ..cells import LSTMCell, LSTMState
from ..cotangents import filled, result_of
from . import compiled
from .loops import SCALE, SHIFT
from .row_workspace import LARGE, LargeKernelWorkspace
from .workspace import Workspace

Array = Any

FREE_WORKSPACES = 2  # kept for each shape; more are only needed while more passes are unfinished
FREE_SHAPES = 8


def applies(cell: Any) -> bool:
    """Whether this module can run the cell: an LSTM cell with tanh and no further option."""
    return (
        isinstance(cell, LSTMCell)
        and type(cell).step is LSTMCell.step
        and type(cell).__call__ is LSTMCell.__call__
        and cell.activation == "tanh"
        and not cell.use_peepholes
        and cell.cell_clip is None
        and cell.num_proj is None
    )


def sequence(
    cell: LSTMCell, params: dict[str, Any], inputs: Array, state: Any, as_made: bool = False
) -> tuple[Array, LSTMState]:
    """As `minilstm.bptt.sequence`, for cells that `applies` names: inputs ``[time, batch, input_dim]``.

    With `as_made` outputs may lie in memory as the pass makes them, which `minilstm.fast.memory.features_first` tells.
    """
    c, h = state
    arguments = inputs, c, h, params["kernel"], params["bias"]
    if len(inputs) == 1 and not any(map(isbox, arguments)):
        return _one_step(*arguments, cell.forget_bias)
    results = lstm_sequence(*arguments, forget_bias=cell.forget_bias, tape=Tape(), as_made=as_made)
    return result_of(results, 0), LSTMState(result_of(results, 1), result_of(results, 2))


_free: dict[tuple[Any, ...], list[Any]] = {}
_lock = threading.RLock()  # a tape may be collected, and give its workspace back, while this thread is in here


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
        _free[key] = free  # the shape used last comes last
        while len(_free) > FREE_SHAPES:
            del _free[next(iter(_free))]


def workspace_class(kernel: Array) -> Any:
    """What makes a pass with such a kernel; all have the methods of `minilstm.fast.workspace.Workspace`."""
    if compiled.applies(kernel.dtype, kernel.size):
        return compiled.workspace_class()
    return LargeKernelWorkspace if kernel.nbytes > LARGE else Workspace


class Tape:
    """Holds the workspace of a forward pass for the backward one, and gives it back when nobody can ask any more."""

    def __init__(self) -> None:
        self.key: tuple[Any, ...] | None = None
        self.workspace: Any = None  # of the class that `workspace_class` names

    def take(self, inputs: Array, kernel: Array) -> Any:
        """A workspace for a pass over inputs ``[time, batch, input_dim]``."""
        self.key = (*inputs.shape, kernel.shape[1] // 4, inputs.dtype, workspace_class(kernel))
        self.workspace = _take(self.key)
        return self.workspace

    def __del__(self) -> None:
        if self.key is not None and self.workspace is not None:
            _give_back(self.key, self.workspace)


def _one_step(
    inputs: Array, c: Array, h: Array, kernel: Array, bias: Array, forget_bias: float
) -> tuple[Array, LSTMState]:
    """A single step that nobody differentiates, as `generate` takes them: a workspace would cost more than the step."""
    batch, units = c.shape
    forget, scale, shift = _step_constants(units, float(forget_bias), c.dtype)
    x_t = inputs[0]
    if batch == 1:  # without that axis nothing has to be broadcast, which costs as much again as a small call
        x_t, c, h = x_t[0], c[0], h[0]
    z = np.dot(np.concatenate((x_t, h), axis=-1), kernel)
    z += bias
    z += forget
    z *= scale  # the 1/2 within a sigmoid
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
    """Rows ``[4 * units]``: the forget bias, and what leads from the tanh of each gate to the gate."""
    forget, scale, shift = (np.repeat(np.array(row, dtype), units) for row in ((0, 0, forget_bias, 0), SCALE, SHIFT))
    return forget, scale, shift


@primitive
def lstm_sequence(
    inputs: Array,
    c: Array,
    h: Array,
    kernel: Array,
    bias: Array,
    *,
    forget_bias: float,
    tape: Tape,
    as_made: bool = False,
) -> tuple[Array, Array, Array]:
    """The forward pass: outputs ``[time, batch, units]``, final c and final h; `as_made` as in `sequence`."""
    return tape.take(inputs, kernel).forward(inputs, c, h, kernel, bias, forget_bias, as_made)


@primitive
def lstm_backward(
    d_outputs: Array,
    dc: Array,
    dh: Array,
    c: Array,
    kernel: Array,
    *,
    tape: Tape,
    wants_inputs: bool,
    wants_h: bool = True,
) -> tuple[Array | None, Array, Array | None, Array, Array]:
    """The sweep: derivatives with respect to inputs and h before the first step (where wanted), c, kernel and bias."""
    assert tape.workspace is not None
    *before, d_kernel = tape.workspace.backward(d_outputs, dc, dh, c, kernel, wants_inputs, wants_h)
    return (*before, d_kernel[:-1], d_kernel[-1])


def every_dz(
    cell: LSTMCell, params: dict[str, Any], inputs: Array, state: Any, sequence_length: None, cotangents: Any
) -> Array:
    """As `minilstm.bptt.every_dz`."""
    tape, kernel = Tape(), params["kernel"]
    results = lstm_sequence(inputs, *state, kernel, params["bias"], forget_bias=cell.forget_bias, tape=tape)
    lstm_backward(*cotangents(results), state[0], kernel, tape=tape, wants_inputs=False)
    assert tape.workspace is not None
    return tape.workspace.dz()


def _vjps(argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _, c, _, kernel, _ = args

    def pull(g: tuple[Array, Array, Array]) -> list[Array]:
        wanted = {"wants_inputs": 0 in argnums, "wants_h": 2 in argnums}
        grads = lstm_backward(*filled(g, ans), c, kernel, tape=kwargs["tape"], **wanted)
        return [grads[argnum] for argnum in argnums]

    return pull


defvjp_argnums(lstm_sequence, _vjps)
defvjp_argnums(lstm_backward, no_second_derivative)
