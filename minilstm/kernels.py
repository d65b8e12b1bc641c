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
  their distances are equal: (i, f) times (j, c).
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

from .bptt import no_second_derivative
from .cells import LSTMCell, LSTMState
from .multiple import filled, result_of

Array = Any

# The blocks of a step: the gates in TensorFlow's order, the two parts of c_t, and its tanh.
I, J, F, O, I_J, F_C, TANH_C = range(7)
SCALE, SHIFT = (0.5, 1, 0.5, 0.5), (0.5, 0, 0.5, 0.5)  # from the tanh of each gate to the gate: j is its own tanh
FOLD_INPUTS = 128  # up to so many inputs the recurrent product reads them too: nothing to store and to add
SMALL = 1 << 13  # entries of four gates up to which a constant is an array of their shape
CACHE_BYTES = 1 << 19  # of factors formed at once: they shall still be in the second-level cache when used
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
    """The arrays of one pass, and the views of every step, made once."""

    def __init__(self, time: int, batch: int, input_dim: int, units: int, dtype: Any) -> None:
        rows, gates, entries = input_dim + units + 1, 4 * units, units * batch
        self.columns = np.empty((time + 1, rows, batch), dtype)  # [x_t; h_{t-1}; 1]
        self.columns[:, -1] = 1
        self.h = self.columns[:, input_dim:-1]
        self.blocks = np.empty((time, 7, entries), dtype)
        self.gates = self.blocks[:, :4].reshape(time, gates, batch)  # or dz, once a backward pass has been here:
        self.has_dz = False
        self.c = np.empty((2, entries), dtype)  # c_{t-1} and c_t take turns
        self.kernel = np.empty((gates, rows), dtype)  # transposed; its last column is the bias
        self.halves = np.repeat(np.array(SCALE, dtype), units)[:, None]
        # For products over all steps at once: the columns, and by gate what the inputs give, or dz.
        self.all_columns = np.empty((rows, time, batch), dtype)
        self.by_gate = np.empty((gates, time, batch), dtype)

        self.folded = input_dim <= FOLD_INPUTS
        first = 0 if self.folded else input_dim
        self.factor = self.kernel if self.folded else np.empty((gates, units + 1), dtype)
        self.from_h = _matrix(np.empty((gates, batch), dtype))
        half = np.array(0.5, dtype)
        scale, shift = (np.repeat(np.array(v, dtype), entries) for v in (SCALE, SHIFT))
        self.forward_views = []
        for t in range(time):
            block, z = self.blocks[t], self.gates[t].reshape(-1)
            if 4 * entries <= SMALL:  # few calls matter
                sigmoids: tuple[Any, ...] = ((z, scale, shift),)
            else:  # few entries matter
                sigmoids = ((block[I], half, half), (block[F : O + 1].reshape(-1), half, half))
            self.forward_views.append((
                _matrix(self.columns[t, first:]), _matrix(self.gates[t]), z, sigmoids, *block,
                self.c[t % 2], self.c[(t + 1) % 2], self.h[t + 1].reshape(entries),
            ))  # fmt: skip

        # The backward pass.
        self.chunk = int(max(1, min(time, CACHE_BYTES // (5 * entries * self.blocks.itemsize))))
        self.factors = np.empty((self.chunk, 5, entries), dtype)  # of di, df, dj, dc and do
        self.d_outputs = np.empty((self.chunk, units, batch), dtype)
        self.dh, self.dc, self.dc_before, self.into_dc = (np.empty((units, batch), dtype) for _ in range(4))
        self.backward_views = [(*self.blocks[t, :4], _matrix(self.gates[t])) for t in range(time)]
        self.factor_views = [(*self.factors[n], self.d_outputs[n].reshape(entries)) for n in range(self.chunk)]


def _matrix(x: Array) -> Array:
    """``[rows, batch]``, or ``[rows]`` where batch is 1: `np.dot` is then faster."""
    return x[:, 0] if x.shape[1] == 1 else x


_free: dict[tuple[Any, ...], list[Workspace]] = {}
_lock = threading.Lock()


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
    w = tape.take(time, batch, input_dim, units, inputs.dtype)
    if w.folded:
        np.copyto(w.columns[:time, :input_dim], inputs.transpose(0, 2, 1))
    else:
        np.copyto(w.all_columns[:input_dim], inputs.transpose(2, 0, 1))
    np.copyto(w.h[0], h.T)
    np.copyto(w.c[0].reshape(units, batch), c.T)
    np.multiply(kernel.T, w.halves, out=w.kernel[:, :-1])
    np.multiply(bias, w.halves[:, 0], out=w.kernel[:, -1])
    w.kernel[F * units : O * units, -1] += 0.5 * forget_bias
    _run(w, input_dim)
    # Outputs lie as the layer wants them, [batch, time, units]. Two transpositions that stay in the cache are faster
    # than one that does not; `by_gate`, free until the backward pass, holds what is between.
    by_step = w.by_gate.reshape(-1)[: time * batch * units].reshape(time, batch, units)
    np.copyto(by_step, w.h[1:].transpose(0, 2, 1))
    outputs = by_step.transpose(1, 0, 2).copy()
    return outputs.transpose(1, 0, 2), w.c[time % 2].reshape(units, batch).T.copy(), w.h[time].T.copy()


def _run(w: Workspace, input_dim: int) -> None:
    """The forward loop, from the columns of the workspace to its blocks."""
    if not w.folded:
        flat = w.by_gate.reshape(len(w.by_gate), -1)
        np.matmul(w.kernel[:, :input_dim], w.all_columns[:input_dim].reshape(input_dim, -1), out=flat)
        np.copyto(w.gates, w.by_gate.transpose(1, 0, 2))
        np.copyto(w.factor, w.kernel[:, input_dim:])
    dot, multiply, add, tanh = np.dot, np.multiply, np.add, np.tanh
    factor, folded, from_h = w.factor, w.folded, w.from_h
    for column, z, gates, sigmoids, i, j, f, o, i_j, f_c, tanh_c, c_before, c, h in w.forward_views:
        if folded:
            dot(factor, column, z)
        else:
            dot(factor, column, from_h)
            add(z, from_h, z)
        tanh(gates, gates)
        for part, scale, shift in sigmoids:
            multiply(part, scale, part)
            add(part, shift, part)
        multiply(i, j, i_j)
        multiply(f, c_before, f_c)
        add(i_j, f_c, c)
        tanh(c, tanh_c)
        multiply(o, tanh_c, h)
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
        np.copyto(w.c[0].reshape(-1, batch), c.T)
        _run(w, input_dim)
    dc, dh = _sweep(w, d_outputs, dc, dh, np.ascontiguousarray(kernel[input_dim:]))
    first = 0 if w.folded else input_dim  # where not folded, all_columns has held the inputs since the forward pass
    np.copyto(w.all_columns[first:], w.columns[:time, first:].transpose(1, 0, 2))
    all_columns, dz = w.all_columns.reshape(-1, time * batch), w.by_gate.reshape(-1, time * batch)
    d_kernel = all_columns @ dz.T
    d_inputs = None
    if wants_inputs:
        d_inputs = np.empty((batch, time, input_dim), inputs.dtype).transpose(1, 0, 2)
        np.copyto(d_inputs.transpose(2, 0, 1), (kernel[:input_dim] @ dz).reshape(input_dim, time, batch))
    return d_inputs, dc.T.copy(), dh.T.copy(), d_kernel[:-1], d_kernel[-1]


def _sweep(w: Workspace, d_outputs: Array, dc: Array, dh: Array, recurrent: Array) -> tuple[Array, Array]:
    """The backward loop: dz in the place of the gates and in `by_gate`; returns dc and dh ``[units, batch]``."""
    time, batch, units = d_outputs.shape
    dot, multiply, add = np.dot, np.multiply, np.add
    np.copyto(w.dc, dc.T)
    np.copyto(w.dh, dh.T)
    dh, product = w.dh.reshape(-1), _matrix(w.dh)
    dc, dc_before, into_dc = w.dc.reshape(-1), w.dc_before.reshape(-1), w.into_dc.reshape(-1)
    for start in reversed(range(0, time, w.chunk)):
        stop = min(start + w.chunk, time)
        _form_factors(w, start, stop)
        np.copyto(w.d_outputs[: stop - start], d_outputs[start:stop].transpose(0, 2, 1))
        for t in reversed(range(start, stop)):
            i, j, f, o, dz = w.backward_views[t]
            for_i, for_f, for_j, for_dc, for_o, d_output = w.factor_views[t - start]
            add(dh, d_output, dh)
            multiply(for_dc, dh, into_dc)
            add(dc, into_dc, dc)
            multiply(dc, f, dc_before)
            multiply(for_i, dc, i)
            multiply(for_j, dc, j)
            multiply(for_f, dc, f)
            multiply(for_o, dh, o)
            dot(recurrent, dz, product)
            dc, dc_before = dc_before, dc
    np.copyto(w.by_gate, w.gates.transpose(1, 0, 2))
    w.has_dz = True
    return dc.reshape(units, batch), w.dh


def _form_factors(w: Workspace, start: int, stop: int) -> None:
    """What dh and dc are multiplied with at the steps from `start` to before `stop`, of products that are there."""
    blocks, factors = w.blocks[start:stop], w.factors[: stop - start]
    h = w.h[start + 1 : stop + 1].reshape(stop - start, -1)
    for minuend, product, factor, out in (
        (blocks[:, I_J : F_C + 1], blocks[:, I_J : F_C + 1], blocks[:, I : F + 1 : F - I], factors[:, 0:2]),
        (blocks[:, I], blocks[:, I_J], blocks[:, J], factors[:, 2]),  # i (1 - j^2) = i - (i j) j
        (blocks[:, O], h, blocks[:, TANH_C], factors[:, 3]),  # o (1 - tanh(c)^2) = o - h tanh(c)
        (h, h, blocks[:, O], factors[:, 4]),  # o (1 - o) tanh(c) = h - h o
    ):
        np.multiply(product, factor, out=out)
        np.subtract(minuend, out, out=out)


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
