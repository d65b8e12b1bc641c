"""The arrays of a pass of `minilstm.fast.lstm` in NumPy, and all of the pass that is done once and not at every step.

A `Workspace` owns what a pass stores; its `minilstm.fast.loops` are what is repeated for every step. `minilstm.fast.row_workspace`
and `minilstm.fast.compiled` have workspaces with the same methods.

- **Features first.** The gates of a step are ``[4 * units, batch]``, made from a column ``[x_t; h_{t-1}; 1]`` for each
  sequence. So every gate is one contiguous block, which halves the price of a small NumPy call, and BLAS divides the
  product among its threads, which it does badly for ``[batch, 4 * units]``. The price: inputs, outputs and their
  derivatives are transposed, once each, where the layer before or after does not take them as they lie.
- **One nonlinearity.** sigmoid(x) = (1 + tanh(x / 2)) / 2. The inner 1/2 is folded into the kernel's copy, so that one
  tanh serves all four gates; NumPy's tanh is vectorised and cheaper than exp and a division. The price: a closed gate
  is accurate to 1e-7 (float32) of 1, not of its own tiny value, as it is in the reference.
- **Few products.** Up to `FOLD_INPUTS` inputs are read by the recurrent product itself; more are multiplied for all
  steps at once. The bias is the kernel's last row. The kernel's gradient is one product over all steps.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .loops import SCALE, F, O, loops_class
from .memory import LINE, aligned, copy_rows, features_first, recycled

Array = Any

FOLD_INPUTS = 128  # up to so many inputs the recurrent product reads them too: nothing to store and to add
BLOCK = 96  # rows of the kernel that are transposed at once: their columns stay in the cache
PAGE, CROWD = 4096, 16  # addresses so many bytes apart share 8 lines of the first-level cache; with 16 it becomes slow


class Workspace:
    """The arrays of one pass, and the pass; `minilstm.fast.compiled` has another with the same methods.

    Parameters
    ----------
    time, batch, input_dim, units : int
    dtype : data type of all arrays
    """

    def __init__(self, time: int, batch: int, input_dim: int, units: int, dtype: Any) -> None:
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
        itemsize = np.dtype(dtype).itemsize
        # Some of the kernel's rows with their halves taken, at a distance at which their beginnings do not collide.
        distance = gates + LINE // itemsize if crowded(BLOCK, gates * itemsize) else gates
        self.halved = aligned((BLOCK, distance), dtype)[:, :gates]
        self.halves = np.repeat(np.array(SCALE, dtype), units)
        columns, kind = self.columns[:, first:], loops_class(batch, units, itemsize)
        self.loops = kind(columns, input_dim - first, units, adds=not self.folded)
        self.has_dz = False  # whether a backward pass has put dz in the place of the gates
        self.inputs_features_first = False

    def forward(
        self, inputs: Array, c: Array, h: Array, kernel: Array, bias: Array, forget_bias: float, as_made: bool
    ) -> tuple[Array, Array, Array]:
        """Outputs ``[time, batch, units]``, final c and final h, from ``inputs [time, batch, input_dim]``.

        Outputs lie as ``[batch, time, units]``, or as they are made, `minilstm.fast.memory.features_first`.
        """
        time, _, input_dim = inputs.shape
        self.inputs_features_first = features_first(inputs.transpose(1, 0, 2))
        inputs = self._by_step(inputs)
        if self.folded:
            np.copyto(self.columns[:time, :input_dim], inputs.transpose(0, 2, 1))
        else:
            np.copyto(self.all_columns[:input_dim], inputs.transpose(2, 0, 1))
            with unbuffered():
                np.multiply(kernel[: self.first], self.halves, out=self.from_inputs)
        np.copyto(self.h[0], h.T)
        for start in range(self.first, len(kernel), BLOCK):
            rows = kernel[start : start + BLOCK]
            rows = np.multiply(rows, self.halves, out=self.halved[: len(rows)])
            np.copyto(self.factor[:, start - self.first :][:, : len(rows)], rows.T)
        np.multiply(whole_bias(bias, forget_bias), self.halves, out=self.factor[:, -1])
        self._forward(c)
        return self._outputs(as_made), self.loops.c_end.T.copy(), self.h[time].T.copy()

    def _outputs(self, as_made: bool) -> Array:
        """A copy of h after every step, ``[time, batch, units]``."""
        h = self.h[1:]
        time, units, batch = h.shape
        if as_made:
            outputs = recycled(h.shape, h.dtype)
            np.copyto(outputs, h)
            return outputs.transpose(0, 2, 1)
        # Two transpositions that stay in the cache are faster than one that does not; `by_gate`, free until the
        # backward pass, holds what is between.
        by_step = self._room(time, batch, units)
        np.copyto(by_step, h.transpose(0, 2, 1))
        outputs = recycled((batch, time, units), h.dtype)
        copy_rows(outputs, by_step.transpose(1, 0, 2))
        return outputs.transpose(1, 0, 2)

    def _by_step(self, x: Array) -> Array:
        """`x` ``[time, batch, features]``, from where it is transposed fast.

        Sequences whose beginnings are crowded in the cache drive each other out while the numbers of a step are
        gathered from them. Then `by_gate`, free until there are products to put in it, holds a copy in which these
        numbers lie side by side: two copies take half as long as one.
        """
        lies_by_step = x.strides[0] >= x.strides[1]
        if lies_by_step or not crowded(x.shape[1], x.strides[1]) or x.shape[2] > len(self.by_gate):
            return x
        by_step = self._room(*x.shape)
        np.copyto(by_step, x)
        return by_step

    def _room(self, *shape: int) -> Array:
        """`by_gate`, where it is free, as an array of another shape."""
        return self.by_gate.reshape(-1)[: math.prod(shape)].reshape(shape)

    def _forward(self, c: Array) -> None:
        """The forward loop, and before it the inputs' product where it is not part of the loop."""
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
        """Derivatives with respect to inputs and h (where wanted), c, and the kernel with the bias as its last row.

        `c` is the one that `forward` began with.
        """
        time, rows, batch = self.columns[:-1].shape
        input_dim = rows - self.h.shape[1] - 1
        if self.has_dz:  # a second sweep over the same pass
            self._forward(c)
        with unbuffered():
            recurrent = np.ascontiguousarray(kernel[input_dim:])
            dc, dh = self.loops.backward(self._by_step(d_outputs), dc, dh, recurrent, wants_h)
        self.has_dz = True
        copy_rows(self.by_gate, self.loops.gates.transpose(1, 0, 2))
        # Where inputs are not folded, all_columns has held them since the forward pass.
        copy_rows(self.all_columns[self.first :], self.columns[:time, self.first :].transpose(1, 0, 2))
        all_columns, dz = (x.reshape(len(x), -1) for x in (self.all_columns, self.by_gate))
        d_kernel = np.matmul(all_columns, dz.T, out=recycled((len(all_columns), len(dz)), dz.dtype))
        d_inputs = None
        if wants_inputs:
            by_feature = (kernel[:input_dim] @ dz).reshape(input_dim, time, batch)
            if self.inputs_features_first:
                made = recycled((time, input_dim, batch), dz.dtype)
                copy_rows(made, by_feature.transpose(1, 0, 2))
                d_inputs = made.transpose(0, 2, 1)
            else:
                d_inputs = recycled((batch, time, input_dim), dz.dtype).transpose(1, 0, 2)
                np.copyto(d_inputs.transpose(2, 0, 1), by_feature)
        return d_inputs, dc.T.copy(), dh.T.copy() if wants_h else None, d_kernel

    def dz(self) -> Array:
        """What `backward` has left in the place of the gates: dz ``[time, batch, 4 * units]``."""
        return self.by_gate.transpose(1, 2, 0).copy()


def whole_bias(bias: Array, forget_bias: float) -> Array:
    """A copy of `bias` ``[4 * units]`` with the forget bias in it."""
    whole, units = bias.copy(), len(bias) // 4
    whole[F * units : O * units] += forget_bias
    return whole


@contextlib.contextmanager
def unbuffered() -> Iterator[None]:
    """NumPy goes through blocks that are no one piece of memory where they lie.

    Otherwise it gathers rows shorter than its buffer of 8,192 entries there first, and the call takes three times as
    long. The size of the buffer is a setting of this thread.
    """
    before = np.setbufsize(16)
    try:
        yield
    finally:
        np.setbufsize(before)


def crowded(count: int, distance: int) -> bool:
    """Whether `count` places, `distance` bytes apart, are too many for the lines of the first-level cache they share.

    A distance of whole pages leaves them 8 lines, one of half pages 16, and so on. Read in turn, more of them than
    that drive each other out, and each number costs a line from the second-level cache.
    """
    return count * math.gcd(distance, PAGE) > CROWD * PAGE
