"""A pass over a sequence in NumPy: its arrays, and all that is done once and not at every step.

`minilstm.fast.loops` is what is done at every step. What makes it fast:

- **Features first.** The gates of a step are ``[4 * units, batch]``, computed from a column ``[x_t; h_{t-1}; 1]`` for
  each sequence. So every gate is one contiguous block, which halves the cost of a small NumPy call, and BLAS splits the
  product among its threads, which it does badly for ``[batch, 4 * units]``. The price: inputs, outputs and their
  derivatives are transposed, once each.
- **Few calls, or cheap ones.** sigmoid(x) = (1 + tanh(x / 2)) / 2, so in a small step one tanh serves all four gates;
  in a larger one sigmoid(x) = 1 / (1 + exp(-x)) is best, since NumPy's exp costs 0.6 of its tanh (`Nonlinearity` in
  `minilstm.fast.activations`). The 1/2 or the sign is multiplied into a copy of the kernel. The price: a closed gate of
  a small step is accurate to 1e-7 (float32) of 1, not of its own tiny value as in the readable pass.
- **Few products.** Up to `FOLD_INPUTS` inputs are part of the recurrent product; more are multiplied for all steps at
  once. The bias is the last row of the kernel's copy. The kernel's gradient is one product over all steps.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..gates import GATES
from .activations import F
from .large_loops import LargeLoops, Options
from .loops import loops_class
from .memory import aligned, copy_rows, recycled
from .padding import CLOSED, OPEN, column_past_end

Array = Any

FOLD_INPUTS = 128  # inputs, at most, that the recurrent product includes: nothing to store and to add for them
PAST_END = tuple({"i": CLOSED, "j": 0.0, "f": OPEN, "o": CLOSED}[gate] for gate in GATES)  # keeps c; h is 0
BLOCK = 96  # rows of the kernel that are transposed together: their columns stay in the cache


class ColumnWorkspace:
    """The arrays of one pass, and the pass.

    Parameters
    ----------
    time, batch, input_dim, units : int
    dtype : data type of all arrays
    padded : bool
        Whether sequences have different lengths. `past` ``[time, batch]`` must then be set before `forward`: 1 past the
        end, else 0.
    options : Options, optional
        Of a cell that is not plain.
    keeps : bool
        Whether there will be a backward pass.
    """

    def __init__(
        self, time: int, batch: int, input_dim: int, units: int, dtype: Any,
        padded: bool = False, options: Options | None = None, keeps: bool = True,
    ) -> None:  # fmt: skip
        self.input_dim, end = input_dim, input_dim + (units if options is None else options.output_size)
        rows, gates = end + padded + 1, 4 * units
        self.columns = aligned((time + 1, rows, batch), dtype)  # [x_t; h_{t-1}; (past the end); 1]
        self.columns[:, end:] = 1
        self.h, self.past = self.columns[:, input_dim:end], self.columns[:time, end]
        # For products over all steps at once: the columns, and gate by gate the products of the inputs, or dz.
        self.all_columns = aligned((rows, time, batch), dtype)
        self.by_gate = aligned((gates, time, batch), dtype)

        self.folded = input_dim <= FOLD_INPUTS
        self.first = first = 0 if self.folded else input_dim  # of the columns that the recurrent product reads
        # Their rows of the kernel, transposed; then the bias. With a vector BLAS is faster if it is stored by columns.
        self.factor = aligned((rows - first, gates), dtype).T if batch == 1 else aligned((gates, rows - first), dtype)
        self.from_inputs = aligned((first, gates), dtype)  # the other rows of the kernel
        self.scaled = aligned((BLOCK, gates), dtype)  # some rows of the kernel, times the scale of each column
        # Inputs that are not folded are multiplied for all steps first, which needs the memory of all.
        arguments = self.columns[:, first:], input_dim - first, units, not self.folded, keeps or not self.folded
        self.loops: Any
        if options is None:
            self.loops = loops_class(batch, units, np.dtype(dtype).itemsize)(*arguments)
        else:
            self.loops = LargeLoops(*arguments, options)
            self.set_weights, self.d_weights = self.loops.set_weights, self.loops.d_weights
        self.scale = np.repeat(np.array(self.loops.scale, dtype), units)
        if padded:
            self.factor[:, -2] = column_past_end(PAST_END, units, dtype) * self.scale
        self.outputs = self.h[1:] if options is None else self.loops.outputs
        self.has_dz = False  # whether a backward pass has overwritten the gates with dz

    def forward(
        self, inputs: Array, c: Array, h: Array, kernel: Array, bias: Array, forget_bias: float
    ) -> tuple[Array, Array, Array]:
        """Outputs ``[time, batch, units]``, final c and final h, from ``inputs [time, batch, input_dim]``.

        The memory of the outputs is in the order ``[batch, time, units]``.
        """
        time, input_dim = len(inputs), self.input_dim
        if self.folded:
            np.copyto(self.columns[:time, :input_dim], inputs.transpose(0, 2, 1))
        else:
            np.copyto(self.all_columns[:input_dim], inputs.transpose(2, 0, 1))
            with unbuffered():
                np.multiply(kernel[: self.first], self.scale, out=self.from_inputs)
        np.copyto(self.h[0], h.T)
        for start in range(self.first, len(kernel), BLOCK):
            rows = kernel[start : start + BLOCK]
            rows = np.multiply(rows, self.scale, out=self.scaled[: len(rows)])
            np.copyto(self.factor[:, start - self.first :][:, : len(rows)], rows.T)
        np.multiply(whole_bias(bias, forget_bias), self.scale, out=self.factor[:, -1])
        self._forward(c)
        return self._outputs(), self.loops.c_end.T.copy(), self.h[time].T.copy()

    def _outputs(self) -> Array:
        """A copy of the outputs of every step, ``[time, batch, units]``."""
        h = self.outputs
        time, units, batch = h.shape
        # Two transpositions that stay in the cache are faster than one that does not.
        by_step = self._room(time, batch, units)
        np.copyto(by_step, h.transpose(0, 2, 1))
        outputs = recycled((batch, time, units), h.dtype)
        copy_rows(outputs, by_step.transpose(1, 0, 2))
        return outputs.transpose(1, 0, 2)

    def _room(self, *shape: int) -> Array:
        """`by_gate`, while it is free, as an array of another shape; a projection may need more."""
        size = math.prod(shape)
        room = self.by_gate.reshape(-1)[:size] if size <= self.by_gate.size else np.empty(size, self.by_gate.dtype)
        return room.reshape(shape)

    def _forward(self, c: Array) -> None:
        """The product of the inputs, if they are not folded, and the forward loop."""
        np.copyto(self.loops.c_start, c.T)
        if not self.folded:
            flat_inputs, flat_gates = (x.reshape(len(x), -1) for x in (self.all_columns[: self.first], self.by_gate))
            np.matmul(self.from_inputs.T, flat_inputs, out=flat_gates)
            copy_rows(self.loops.gates, self.by_gate.transpose(1, 0, 2))
        self.loops.forward(self.factor)
        self.has_dz = False

    def backward(
        self, d_outputs: Array, dc: Array, dh: Array, c: Array, kernel: Array, wants_inputs: bool, wants_h: bool
    ) -> tuple[Array | None, Array, Array | None, Array]:
        """Derivatives of inputs and h (if wanted), of c, and of the kernel with the bias as the last row.

        `c` is the state that `forward` started from.
        """
        time, _, batch = self.columns[:-1].shape
        input_dim = self.input_dim
        if self.has_dz:  # a second backward pass after the same forward pass
            self._forward(c)
        with unbuffered():
            recurrent = np.ascontiguousarray(kernel[input_dim:])
            dc, dh = self.loops.backward(d_outputs, dc, dh, recurrent, wants_h)
        self.has_dz = True
        if batch == 1 and self.folded:  # steps are rows already: BLAS takes them as they are
            all_columns, dz = self.columns[:time, :, 0].T, self.loops.gates[..., 0].T
        else:
            copy_rows(self.by_gate, self.loops.gates.transpose(1, 0, 2))
            # If inputs are not folded, all_columns holds them since the forward pass.
            copy_rows(self.all_columns[self.first :], self.columns[:time, self.first :].transpose(1, 0, 2))
            all_columns, dz = (x.reshape(len(x), -1) for x in (self.all_columns, self.by_gate))
        d_kernel = np.matmul(all_columns, dz.T, out=recycled((len(all_columns), len(dz)), dz.dtype))
        d_inputs = None
        if wants_inputs:
            by_step = recycled((time, input_dim, batch), dz.dtype)
            copy_rows(by_step, (kernel[:input_dim] @ dz).reshape(input_dim, time, batch).transpose(1, 0, 2))
            d_inputs = by_step.transpose(0, 2, 1)
        return d_inputs, dc.T.copy(), dh.T.copy() if wants_h else None, d_kernel

    def dz(self) -> Array:
        """The dz of the last backward pass, ``[time, batch, 4 * units]``."""
        return self.loops.gates.transpose(0, 2, 1).copy()


def whole_bias(bias: Array, forget_bias: float) -> Array:
    """A copy of `bias` ``[4 * units]`` with the forget bias added."""
    whole, units = bias.copy(), len(bias) // 4
    whole[F * units : (F + 1) * units] += forget_bias
    return whole


@contextlib.contextmanager
def unbuffered() -> Iterator[None]:
    """Make NumPy process non-contiguous blocks in place, without buffering.

    NumPy otherwise copies rows shorter than its buffer of 8,192 entries there first, which triples the time of a call.
    The size of the buffer is a setting of this thread.
    """
    before = np.setbufsize(16)
    try:
        yield
    finally:
        np.setbufsize(before)
