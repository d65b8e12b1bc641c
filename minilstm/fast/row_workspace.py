"""A pass over a sequence in NumPy, for kernels of many megabytes: the kernel is not copied.

`minilstm.fast.workspace` starts with a transposed and scaled copy of the kernel, and transposes what its products over
all steps read and write. For a large kernel that takes longer than it saves in the loops. Here a sequence is a row, as
in inputs and outputs:

- **The kernel is read in place.** Its first rows multiply the inputs of all steps at once, the others multiply h. The
  sign that a sigmoid by exp needs, and the bias, are applied to the z of a step, which is in the cache. The kernel's
  gradient is one product of two arrays as the loops leave them.
- **A copy sorts the gates.** It reads z ``[batch, 4 * units]`` and writes each gate as a contiguous block; from then on
  a step is that of `minilstm.fast.large_loops.LargeLoops`. Another copy makes rows of dz.

The price is these copies, and products with `batch` rows, which BLAS splits among its threads less well: a tenth and
more of a step if the kernel is small.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .activations import O
from .large_loops import LargeLoops, Options
from .memory import aligned, recycled
from .padding import column_past_end
from .workspace import PAST_END, unbuffered, whole_bias

Array = Any

LARGE_KERNEL = 6 << 20  # bytes of a kernel, above which this pass is faster


class RowWorkspace:
    """The arrays of one pass, and the pass, with the methods of `minilstm.fast.workspace.ColumnWorkspace`.

    Parameters
    ----------
    time, batch, input_dim, units : int
    dtype : data type of all arrays
    padded : bool
        As for `ColumnWorkspace`.
    """

    def __init__(self, time: int, batch: int, input_dim: int, units: int, dtype: Any, padded: bool = False) -> None:
        self.past = np.zeros((time, batch), bool) if padded else None
        self.past_end = column_past_end(PAST_END, units, dtype)
        self.input_dim = input_dim
        self.rows = aligned((time + 1, batch, input_dim + units + 1), dtype)  # [x_t, h_{t-1}, 1]
        self.rows[..., -1] = 1
        self.h = self.rows[..., input_dim:-1]
        self.z = aligned((time, batch, 4 * units), dtype)  # the product of the inputs; after `backward` dz
        self.loops = RowLoops(self.h, self.z)
        self.has_dz = False  # whether a backward pass has overwritten z and the gates with dz

    def forward(
        self, inputs: Array, c: Array, h: Array, kernel: Array, bias: Array, forget_bias: float
    ) -> tuple[Array, Array, Array]:
        """As `ColumnWorkspace.forward`."""
        time, batch, units = self.h[1:].shape
        np.copyto(self.rows[:time, :, : self.input_dim], inputs)
        np.copyto(self.h[0], h)
        self.loops.set_bias(whole_bias(bias, forget_bias))
        self._forward(c, kernel)
        outputs = recycled((batch, time, units), inputs.dtype)
        np.copyto(outputs, self.h[1:].transpose(1, 0, 2))
        return outputs.transpose(1, 0, 2), self.loops.c_end.copy(), self.h[time].copy()

    def _forward(self, c: Array, kernel: Array) -> None:
        """The product of the inputs, and the forward loop."""
        np.copyto(self.loops.c_start, c)
        rows, z = self._over_all_steps()
        np.matmul(rows[:, : self.input_dim], kernel[: self.input_dim], out=z)
        if self.past is not None:
            self.z[self.past] = self.past_end
        with unbuffered():
            self.loops.forward(kernel[self.input_dim :])
        self.has_dz = False

    def backward(
        self, d_outputs: Array, dc: Array, dh: Array, c: Array, kernel: Array, wants_inputs: bool, wants_h: bool
    ) -> tuple[Array | None, Array, Array | None, Array]:
        """As `ColumnWorkspace.backward`."""
        if self.has_dz:  # a second backward pass after the same forward pass
            self._forward(c, kernel)
        with unbuffered():
            dc, dh = self.loops.backward(d_outputs, dc, dh, kernel[self.input_dim :], wants_h)
        self.has_dz = True
        rows, dz = self._over_all_steps()
        d_kernel = np.matmul(rows.T, dz, out=recycled((rows.shape[1], dz.shape[1]), dz.dtype))
        d_inputs = None
        if wants_inputs:
            d_inputs = recycled((*self.z.shape[:2], self.input_dim), dz.dtype)
            np.matmul(dz, kernel[: self.input_dim].T, out=d_inputs.reshape(len(dz), -1))
        return d_inputs, dc.copy(), dh.copy() if wants_h else None, d_kernel

    def _over_all_steps(self) -> tuple[Array, Array]:
        """The rows and z of all steps, ``[time * batch, ...]``."""
        return self.rows[:-1].reshape(-1, self.rows.shape[2]), self.z.reshape(-1, self.z.shape[2])

    def dz(self) -> Array:
        """As `ColumnWorkspace.dz`."""
        return self.z.copy()


class RowLoops(LargeLoops):
    """`LargeLoops` of a plain cell with sequences as rows: a block is ``[batch, units]``.

    Parameters
    ----------
    h : array [time + 1, batch, units]
        What the recurrent product reads; `forward` writes it.
    z : array [time, batch, 4 * units]
        The product of the inputs, which the caller sets before `forward`; after `backward` dz.
    """

    def __init__(self, h: Array, z: Array) -> None:
        batch, units = h.shape[1:]
        self.make_blocks(h, (batch, units), True, Options(units))
        self.z = z
        self.next_dh = aligned((units, batch), h.dtype)  # BLAS is faster with this layout
        self.step_z = aligned((batch, 4 * units), h.dtype)
        self.of_gates = np.repeat(np.array(self.scale, h.dtype), units)

    def set_bias(self, bias: Array) -> None:
        """The bias with the forget bias, ``[4 * units]``."""
        self.bias = bias * self.of_gates

    def compute_z(self, t: int, recurrent: Array) -> None:
        """As `LargeLoops.compute_z`; `recurrent` ``[units, 4 * units]`` are the rows of the kernel that multiply h."""
        z = np.matmul(self.h[t], recurrent, out=self.step_z)
        np.add(z, self.z[t], z)
        np.multiply(z, self.of_gates, z)
        np.add(z, self.bias, z)
        np.copyto(self.blocks[t, : O + 1], by_gate(z))

    def as_block(self, x: Array) -> Array:
        """As `LargeLoops.as_block`."""
        return x

    def pull_z(self, t: int, recurrent: Array, wanted: bool) -> Array:
        """As `LargeLoops.pull_z`."""
        np.copyto(by_gate(self.z[t]), self.blocks[t, : O + 1])
        return np.matmul(recurrent, self.z[t].T, out=self.next_dh).T if wanted else self.dh


def by_gate(z: Array) -> Array:
    """``z [batch, 4 * units]`` as ``[4, batch, units]``, a view."""
    return z.reshape(len(z), 4, -1).transpose(1, 0, 2)
