"""The plain LSTM cell again, laid out for speed; `minilstm.bptt` is its reference and its referee.

What is computed is (1) to (9) of `minilstm.cells` and the sweep of `minilstm.bptt`, for a cell with the activation
tanh and without peepholes, clips, projection, masks or lengths. What differs is where numbers lie and how often
NumPy is called:

- **Gate blocks.** The gates of a step lie in one array ``[5, batch, units]`` with the blocks o, i, f, j and c_{t-1}. It
  is contiguous, which halves the price of a small NumPy call; three sigmoids are one call, and i * j, f * c_{t-1} are
  one product, because their factors lie side by side.
- **One nonlinearity.** sigmoid(x) = (1 + tanh(x / 2)) / 2. The 1/2 is folded into the kernel's copy, so that one tanh
  serves all four gates; NumPy's tanh is vectorised and cheaper than exp and a division. The price: a closed gate is
  accurate to 1e-7 (float32) of 1, not of its own tiny value, as it is in the reference.
- **Few products.** Few inputs are read by the recurrent product itself, from rows [x_t, 1, h_{t-1}]; many are
  multiplied for all steps at once. The kernel's gradient is one product over all steps, straight into TensorFlow's
  layout, since dz is stored as rows ``[time, batch, gate, units]``.
- **Factors first.** All that the backward loop multiplies dh and dc with is known beforehand. It is formed for as many
  steps at once as stay in the cache, and only dh and dc themselves go through the loop.
- **Plain calls.** In a small model the price of a step is that of its NumPy calls, 0.5 us each, and three times that
  for one that broadcasts or takes a Python number: so constants are arrays, and five products of equal shapes are
  cheaper than two that broadcast. At batch 1, where gates side by side are the columns of one matrix, `np.dot` has half
  the overhead of `np.matmul`.
- **Workspaces.** Big temporaries cost page faults, views cost 0.2 us each. Both are kept for the next call of the same
  shape; a workspace belongs to one pass at a time, and nothing of it is handed out.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from autograd.extend import defvjp_argnums, primitive

from .bptt import no_second_derivative
from .cells import LSTMCell, LSTMState

Array = Any

O, I, F, J, C = range(5)  # the blocks of a workspace: sigmoids first, the factors of c_t side by side
FOLD_INPUTS = 16  # up to so many inputs the recurrent product reads them too: one call fewer a step
SMALL = 1 << 13  # entries of three gates up to which a constant is an array of their shape
CACHE_BYTES = 1 << 18  # of factors formed at once: they shall still be in the second-level cache when used
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
    result = lstm_sequence(inputs, c, h, params["kernel"], params["bias"], forget_bias=cell.forget_bias, tape=Tape())
    return result[0], LSTMState(result[1], result[2])


class Workspace:
    """The arrays of one pass, and the views of every step, made once."""

    def __init__(self, time: int, batch: int, input_dim: int, units: int, dtype: Any) -> None:
        folded = input_dim + 1 if input_dim <= FOLD_INPUTS else 0  # columns that the recurrent product reads besides h
        self.blocks = np.empty((time + 1, 5, batch, units), dtype)
        self.rows = np.empty((time + 1, batch, folded + units), dtype)  # [x_t, 1, h_{t-1}], or h_{t-1} alone
        self.h = self.rows[..., folded:]
        self.x = self.rows[:time, :, :folded] if folded else np.empty((time, batch, input_dim + 1), dtype)
        self.x[..., input_dim] = 1  # what the bias is multiplied with
        self.folded = bool(folded)
        if batch == 1:  # [rows, 4 * units], of which `recurrent` is the view by blocks o, i, f, j
            matrix = np.empty((folded + units, 4, units), dtype)
            self.recurrent, self.factor = matrix.transpose(1, 0, 2), matrix.reshape(folded + units, 4 * units)
        else:
            self.recurrent = self.factor = np.empty((4, folded + units, units), dtype)
        self.product = np.dot if batch == 1 else np.matmul
        small = 3 * batch * units <= SMALL
        self.half = np.full((3, batch, units), 0.5, dtype) if small else np.array(0.5, dtype)
        if not folded:  # what the inputs and the bias give to every step, as rows of blocks
            self.input_kernel = np.empty((input_dim + 1, 4, units), dtype)
            self.from_inputs = np.empty((time, batch, 4, units), dtype)
            self.by_step = list(self.from_inputs.transpose(0, 2, 1, 3))
        else:
            self.by_step = [None] * time
        self.tanh_c = np.empty((time, batch, units), dtype)
        self.products = np.empty((2, batch, units), dtype)
        self.forward_views = [
            (
                self.rows[t], self.blocks[t, :4].reshape(1, -1) if batch == 1 else self.blocks[t, :4],
                self.blocks[t, :4], self.by_step[t], self.blocks[t, :3], self.blocks[t, I : F + 1], self.blocks[t, J:],
                self.blocks[t + 1, C], self.blocks[t, O], self.tanh_c[t], self.h[t + 1],
            )
            for t in range(time)
        ]  # fmt: skip

        # The backward pass.
        self.dz = np.empty((time, batch, 4, units), dtype)
        self.transposed = np.empty((4 * units, units), dtype)
        self.chunk = int(max(1, min(time, CACHE_BYTES // (5 * batch * units * self.dz.itemsize))))
        self.factors = np.empty((self.chunk, 5, batch, units), dtype)  # of di, dj, df, do and of dc
        self.slopes = np.empty((self.chunk, 3, batch, units), dtype)
        self.dh, self.dc, self.into_dc = (np.empty((batch, units), dtype) for _ in range(3))
        gates = self.dz.reshape(time, batch, 4 * units)
        self.backward_views = [
            (*(self.dz[t, :, gate] for gate in range(4)), self.blocks[t, F], gates[t]) for t in range(time)
        ]
        self.factor_views = [tuple(self.factors[n]) for n in range(self.chunk)]


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


@primitive
def lstm_sequence(
    inputs: Array, c: Array, h: Array, kernel: Array, bias: Array, *, forget_bias: float, tape: Tape
) -> tuple[Array, Array, Array]:
    """The forward pass: outputs ``[time, batch, units]``, final c and final h."""
    time, batch, input_dim = inputs.shape
    units = bias.shape[0] // 4
    w = tape.take(time, batch, input_dim, units, inputs.dtype)
    w.x[..., :input_dim] = inputs
    w.h[0] = h
    w.blocks[0, C] = c
    _copy_kernel(w, kernel, bias, forget_bias, input_dim)
    if not w.folded:
        rows, columns = time * batch, 4 * units
        flat_kernel, flat_out = w.input_kernel.reshape(-1, columns), w.from_inputs.reshape(rows, columns)
        np.matmul(w.x.reshape(rows, input_dim + 1), flat_kernel, out=flat_out)
    product, multiply, add, tanh, half = w.product, np.multiply, np.add, np.tanh, w.half
    factor, products, i_j, f_c = w.factor, w.products, w.products[0], w.products[1]
    for row, into_gates, gates, from_inputs, sigmoids, i_and_f, j_and_c, c, o, tanh_c, h in w.forward_views:
        product(row, factor, into_gates)
        if from_inputs is not None:
            add(gates, from_inputs, gates)
        tanh(gates, gates)
        multiply(sigmoids, half, sigmoids)
        add(sigmoids, half, sigmoids)
        multiply(i_and_f, j_and_c, products)
        add(i_j, f_c, c)
        tanh(c, tanh_c)
        multiply(o, tanh_c, h)
    return w.h[1:].copy(), w.blocks[time, C].copy(), w.h[time].copy()


def _copy_kernel(w: Workspace, kernel: Array, bias: Array, forget_bias: float, input_dim: int) -> None:
    """The kernel by blocks o, i, f, j, with the bias as a row behind the input's, halved for the sigmoids."""
    units = w.recurrent.shape[2]
    for block, gate in ((O, 3), (I, 0), (F, 2), (J, 1)):
        columns = slice(gate * units, (gate + 1) * units)
        half = 1.0 if block == J else 0.5
        for_inputs = w.recurrent[block] if w.folded else w.input_kernel[:, block]
        np.multiply(kernel[:input_dim, columns], half, out=for_inputs[:input_dim])
        np.multiply(bias[columns] + (forget_bias if block == F else 0), half, out=for_inputs[input_dim])
        np.multiply(kernel[input_dim:, columns], half, out=w.recurrent[block, -units:])


@primitive
def lstm_backward(
    d_outputs: Array, dc: Array, dh: Array, inputs: Array, kernel: Array, *, tape: Tape, wants_inputs: bool
) -> tuple[Array | None, Array, Array, Array, Array]:
    """The sweep: derivatives with respect to inputs (where wanted), c, h, kernel and bias."""
    time, batch, input_dim = inputs.shape
    w = tape.workspace
    assert w is not None
    units = w.dh.shape[1]
    np.copyto(w.transposed, kernel[input_dim:].T)  # BLAS reads it faster this way round, and reads it every step
    np.copyto(w.dc, dc)
    np.add(dh, d_outputs[time - 1], out=w.dh)
    multiply, add, product, transposed = np.multiply, np.add, w.product, w.transposed
    dh, dc, into_dc = w.dh, w.dc, w.into_dc
    for start in reversed(range(0, time, w.chunk)):
        _form_factors(w, start, min(start + w.chunk, time))
        for t in reversed(range(start, min(start + w.chunk, time))):
            d_i, d_j, d_f, d_o, f, gates = w.backward_views[t]
            for_i, for_j, for_f, for_o, for_dc = w.factor_views[t - start]
            multiply(for_o, dh, d_o)
            multiply(for_dc, dh, into_dc)
            add(dc, into_dc, dc)
            multiply(for_i, dc, d_i)
            multiply(for_j, dc, d_j)
            multiply(for_f, dc, d_f)
            multiply(dc, f, dc)
            product(gates, transposed, dh)
            if t:
                add(dh, d_outputs[t - 1], dh)
    dz = w.dz.reshape(time * batch, 4 * units)
    d_kernel = np.empty_like(kernel)
    np.matmul(w.h[:time].reshape(time * batch, units).T, dz, out=d_kernel[input_dim:])
    d_x_and_bias = w.x.reshape(time * batch, input_dim + 1).T @ dz
    d_kernel[:input_dim] = d_x_and_bias[:input_dim]
    d_bias = d_x_and_bias[input_dim].copy()
    d_inputs = (dz @ kernel[:input_dim].T).reshape(inputs.shape) if wants_inputs else None
    return d_inputs, dc.copy(), dh.copy(), d_kernel, d_bias


def _form_factors(w: Workspace, start: int, stop: int) -> None:
    """What dh and dc are multiplied with at the steps from `start` to before `stop`."""
    blocks, tanh_c = w.blocks[start:stop], w.tanh_c[start:stop]
    slopes, factors = w.slopes[: stop - start], w.factors[: stop - start]
    np.multiply(blocks[:, :3], blocks[:, :3], out=slopes)
    np.subtract(blocks[:, :3], slopes, out=slopes)  # s (1 - s) of o, i, f
    np.multiply(slopes[:, I : F + 1], blocks[:, J:], out=factors[:, 0:3:2])  # i (1 - i) j and f (1 - f) c_prev
    np.multiply(slopes[:, O], tanh_c, out=factors[:, 3])  # o (1 - o) tanh(c)
    for answer, gate, factor in ((blocks[:, J], blocks[:, I], factors[:, 1]), (tanh_c, blocks[:, O], factors[:, 4])):
        np.multiply(answer, answer, out=factor)
        np.subtract(1, factor, out=factor)
        np.multiply(factor, gate, out=factor)  # i (1 - j^2) and o (1 - tanh(c)^2)


def every_dz(
    cell: LSTMCell, params: dict[str, Any], inputs: Array, state: Any, sequence_length: None, cotangents: Any
) -> Array:
    """As `minilstm.bptt.every_dz`."""
    tape, kernel = Tape(), params["kernel"]
    results = lstm_sequence(inputs, *state, kernel, params["bias"], forget_bias=cell.forget_bias, tape=tape)
    lstm_backward(*cotangents(results), inputs, kernel, tape=tape, wants_inputs=False)
    assert tape.workspace is not None
    return tape.workspace.dz.reshape(*inputs.shape[:2], 4 * cell.units).copy()


def _vjps(argnums: tuple[int, ...], ans: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    inputs, _, _, kernel, _ = args

    def pull(g: tuple[Array, Array, Array]) -> list[Array]:
        grads = lstm_backward(*g, inputs, kernel, tape=kwargs["tape"], wants_inputs=0 in argnums)
        return [grads[argnum] for argnum in argnums]

    return pull


defvjp_argnums(lstm_sequence, _vjps)
defvjp_argnums(lstm_backward, no_second_derivative)
