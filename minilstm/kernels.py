"""The plain LSTM cell again, laid out for speed; `minilstm.bptt` is its reference and its referee.

What is computed is (1) to (9) of `minilstm.cells` and the sweep of `minilstm.bptt`, for a cell with the activation
tanh and without peepholes, clips, projection, masks or lengths. What differs is where numbers lie and how often
NumPy is called:

- **Features first.** The gates of a step are ``[4 * units, batch]``, made from a column ``[x_t; h_{t-1}; 1]`` for each
  sequence. So every gate is one contiguous block, which halves the price of a small NumPy call, and BLAS divides the
  product among its threads, which it does badly for ``[batch, 4 * units]``. The price: inputs, outputs and their
  derivatives are transposed, once each.
- **One nonlinearity.** sigmoid(x) = (1 + tanh(x / 2)) / 2. The inner 1/2 is folded into the kernel's copy, so that one
  tanh serves all four gates; NumPy's tanh is vectorised and cheaper than exp and a division. The price: a closed gate
  is accurate to 1e-7 (float32) of 1, not of its own tiny value, as it is in the reference.
- **Few products.** Up to `FOLD_INPUTS` inputs are read by the recurrent product itself; more are multiplied for all
  steps at once. The bias is the kernel's last row. The kernel's gradient is one product over all steps.
- **Factors first.** All that the backward loop multiplies dh and dc with is known beforehand. It is formed for as many
  steps at once as stay in the cache, and only dh and dc themselves go through the loop.
- **Small footprint.** Each dz takes the place of its gate, because memory that is not touched need not be fetched. A
  second sweep over the same pass repeats the forward loop first.
- **Plain calls.** In a small model the price of a step is that of its NumPy calls, 0.5 us each, and three times that
  for one that broadcasts or takes a Python number: so constants are arrays, and a call takes two blocks at once where
  their distances are equal: (i j, f c) times (i, f).
- **Workspaces.** Big temporaries cost page faults, views cost 0.2 us each. Both are kept for the next call of the same
  shape; a workspace belongs to one pass at a time, and nothing of it is handed out.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
from autograd.extend import defvjp_argnums, primitive
from autograd.tracer import isbox

from . import compiled
from .bptt import no_second_derivative
from .cells import LSTMCell, LSTMState
from .compiled import CompiledLoops
from .loops import SCALE, SHIFT, F, Loops, O
from .memory import aligned, recycled
from .multiple import filled, result_of

Array = Any

FOLD_INPUTS = 128  # up to so many inputs the recurrent product reads them too: nothing to store and to add
BLOCK = 96  # rows of the kernel that are transposed at once: their columns stay in the cache
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


def sequence(cell: LSTMCell, params: dict[str, Any], inputs: Array, state: Any) -> tuple[Array, LSTMState]:
    """As `minilstm.bptt.sequence`, for cells that `applies` names: inputs ``[time, batch, input_dim]``."""
    c, h = state
    if len(inputs) == 1 and not any(map(isbox, (inputs, c, h, params["kernel"], params["bias"]))):
        return _one_step(inputs, c, h, params["kernel"], params["bias"], cell.forget_bias)
    results = lstm_sequence(inputs, c, h, params["kernel"], params["bias"], forget_bias=cell.forget_bias, tape=Tape())
    return result_of(results, 0), LSTMState(result_of(results, 1), result_of(results, 2))


class Workspace:
    """The arrays of one pass."""

    def __init__(self, time: int, batch: int, input_dim: int, units: int, dtype: Any, compiled: bool) -> None:
        rows, gates = input_dim + units + 1, 4 * units
        self.columns = aligned((time + 1, rows, batch), dtype)  # [x_t; h_{t-1}; 1]
        self.columns[:, -1] = 1
        self.h = self.columns[:, input_dim:-1]
        # For products over all steps at once: the columns, and by gate what the inputs give, or dz.
        self.all_columns = aligned((rows, time, batch), dtype)
        self.by_gate = aligned((gates, time, batch), dtype)

        self.folded = input_dim <= FOLD_INPUTS
        self.first = first = 0 if self.folded else input_dim  # of the columns that the recurrent product reads
        self.factor = aligned((gates, rows - first), dtype)  # their kernel, transposed; its last column is the bias
        self.from_inputs = aligned((first, gates), dtype)  # the kernel of the others
        self.halves = np.repeat(np.array(SCALE, dtype), units)
        make = CompiledLoops if compiled else Loops
        self.loops = make(self.columns[:, first:], input_dim - first, units, adds=not self.folded)
        self.has_dz = False  # whether a backward pass has put dz in the place of the gates


_free: dict[tuple[Any, ...], list[Workspace]] = {}
_lock = threading.RLock()  # a tape may be collected, and give its workspace back, while this thread is in here


def _take(key: tuple[Any, ...]) -> Workspace:
    with _lock:
        free = _free.get(key)
        if free:
            return free.pop()
    return Workspace(*key)


def _give_back(key: tuple[Any, ...], workspace: Workspace) -> None:
    with _lock:
        free = _free.pop(key, [])
        if len(free) < FREE_WORKSPACES:
            free.append(workspace)
        _free[key] = free  # the shape used last comes last
        while len(_free) > FREE_SHAPES:
            del _free[next(iter(_free))]


class Tape:
    """Holds the workspace of a forward pass for the backward one, and gives it back when nobody can ask any more."""

    def __init__(self) -> None:
        self.key: tuple[Any, ...] | None = None
        self.workspace: Workspace | None = None

    def take(self, *key: Any) -> Workspace:
        """A workspace for this shape."""
        self.key, self.workspace = key, _take(key)
        return self.workspace

    def __del__(self) -> None:
        if self.key is not None and self.workspace is not None:
            _give_back(self.key, self.workspace)


def _one_step(
    inputs: Array, c: Array, h: Array, kernel: Array, bias: Array, forget_bias: float
) -> tuple[Array, LSTMState]:
    """A single step that nobody differentiates, as `generate` takes them: a workspace would cost more than the step."""
    units = c.shape[1]
    forget, scale, shift = _step_constants(units, float(forget_bias), c.dtype)
    z = np.dot(np.concatenate((inputs[0], h), axis=1), kernel)
    z += bias
    z += forget
    z *= scale  # the 1/2 within a sigmoid
    np.tanh(z, out=z)
    z *= scale
    z += shift
    i, j, f, o = z[:, :units], z[:, units : 2 * units], z[:, 2 * units : 3 * units], z[:, 3 * units :]
    new_c = f * c
    new_c += i * j
    new_h = np.tanh(new_c)
    new_h *= o
    return new_h[None].copy(), LSTMState(new_c, new_h)  # a copy: outputs and state are two results, not one array


@functools.lru_cache(maxsize=16)
def _step_constants(units: int, forget_bias: float, dtype: np.dtype[Any]) -> tuple[Array, Array, Array]:
    """Rows ``[4 * units]``: the forget bias, and what leads from the tanh of each gate to the gate."""
    forget, scale, shift = (np.repeat(np.array(row, dtype), units) for row in ((0, 0, forget_bias, 0), SCALE, SHIFT))
    return forget, scale, shift


@primitive
def lstm_sequence(
    inputs: Array, c: Array, h: Array, kernel: Array, bias: Array, *, forget_bias: float, tape: Tape
) -> tuple[Array, Array, Array]:
    """The forward pass: outputs ``[time, batch, units]``, final c and final h."""
    time, batch, input_dim = inputs.shape
    units = bias.shape[0] // 4
    w = tape.take(time, batch, input_dim, units, inputs.dtype, compiled.applies(inputs.dtype))
    if w.folded:
        np.copyto(w.columns[:time, :input_dim], inputs.transpose(0, 2, 1))
    else:
        np.copyto(w.all_columns[:input_dim], inputs.transpose(2, 0, 1))
    np.copyto(w.h[0], h.T)
    np.multiply(kernel[: w.first], w.halves, out=w.from_inputs)
    read = kernel[w.first :]
    for start in range(0, len(read), BLOCK):
        np.copyto(w.factor[:, start : min(start + BLOCK, len(read))], read[start : start + BLOCK].T)
    np.copyto(w.factor[:, -1], bias)
    w.factor[F * units : O * units, -1] += forget_bias
    for sigmoids in (w.factor[:units], w.factor[F * units :]):
        sigmoids *= 0.5
    _run(w, c)
    # Outputs lie as the layer wants them, [batch, time, units]. Two transpositions that stay in the cache are faster
    # than one that does not; `by_gate`, free until the backward pass, holds what is between.
    by_step = w.by_gate.reshape(-1)[: time * batch * units].reshape(time, batch, units)
    np.copyto(by_step, w.h[1:].transpose(0, 2, 1))
    outputs = recycled((batch, time, units), inputs.dtype)
    np.copyto(outputs, by_step.transpose(1, 0, 2))
    return outputs.transpose(1, 0, 2), w.loops.c_end.T.copy(), w.h[time].T.copy()


def _run(w: Workspace, c: Array) -> None:
    """The forward loop, and before it the inputs' product where it is not part of the loop."""
    np.copyto(w.loops.c_start, c.T)
    if not w.folded:
        flat_inputs, flat_gates = (x.reshape(len(x), -1) for x in (w.all_columns[: w.first], w.by_gate))
        np.matmul(w.from_inputs.T, flat_inputs, out=flat_gates)
        np.copyto(w.loops.gates, w.by_gate.transpose(1, 0, 2))
    w.loops.forward(w.factor)
    w.has_dz = False


@primitive
def lstm_backward(
    d_outputs: Array, dc: Array, dh: Array, inputs: Array, c: Array, kernel: Array, *, tape: Tape, wants_inputs: bool
) -> tuple[Array | None, Array, Array, Array, Array]:
    """The sweep: derivatives with respect to inputs (where wanted), c, h, kernel and bias."""
    time, batch, input_dim = inputs.shape
    w = tape.workspace
    assert w is not None
    if w.has_dz:  # a second sweep over the same pass
        _run(w, c)
    dc, dh = w.loops.backward(d_outputs, dc, dh, np.ascontiguousarray(kernel[input_dim:]))
    w.has_dz = True
    np.copyto(w.by_gate, w.loops.gates.transpose(1, 0, 2))
    # Where inputs are not folded, all_columns has held them since the forward pass.
    np.copyto(w.all_columns[w.first :], w.columns[:time, w.first :].transpose(1, 0, 2))
    all_columns, dz = (x.reshape(len(x), -1) for x in (w.all_columns, w.by_gate))
    d_kernel = np.matmul(all_columns, dz.T, out=recycled((len(all_columns), len(dz)), dz.dtype))
    d_inputs = None
    if wants_inputs:
        d_inputs = recycled((batch, time, input_dim), inputs.dtype).transpose(1, 0, 2)
        np.copyto(d_inputs.transpose(2, 0, 1), (kernel[:input_dim] @ dz).reshape(input_dim, time, batch))
    return d_inputs, dc.T.copy(), dh.T.copy(), d_kernel[:-1], d_kernel[-1]


def every_dz(
    cell: LSTMCell, params: dict[str, Any], inputs: Array, state: Any, sequence_length: None, cotangents: Any
) -> Array:
    """As `minilstm.bptt.every_dz`."""
    tape, kernel = Tape(), params["kernel"]
    results = lstm_sequence(inputs, *state, kernel, params["bias"], forget_bias=cell.forget_bias, tape=tape)
    lstm_backward(*cotangents(results), inputs, state[0], kernel, tape=tape, wants_inputs=False)
    assert tape.workspace is not None
    return tape.workspace.by_gate.transpose(1, 2, 0).copy()


def _vjps(argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    inputs, c, _, kernel, _ = args

    def pull(g: tuple[Array, Array, Array]) -> list[Array]:
        grads = lstm_backward(*filled(g, ans), inputs, c, kernel, tape=kwargs["tape"], wants_inputs=0 in argnums)
        return [grads[argnum] for argnum in argnums]

    return pull


defvjp_argnums(lstm_sequence, _vjps)
defvjp_argnums(lstm_backward, no_second_derivative)
