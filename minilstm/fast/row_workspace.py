"""A pass over a sequence in NumPy, for kernels of many megabytes: the kernel is not copied.

`minilstm.fast.workspace` starts with a transposed and scaled copy of the kernel, and transposes what its products over
all steps read and write. For a large kernel that takes longer than it saves in the loops. Here a sequence is a row, as
in inputs and outputs:

- **The kernel is read in place.** Its first rows multiply the inputs of all steps at once, the others multiply h. The
  scale that makes a sigmoid of a tanh, and the bias, are applied to the z of a step, which is in the cache. The
  kernel's gradient is one product of two arrays as the loops leave them.
- **The nonlinearities sort the gates.** They read z ``[batch, 4 * units]`` and write each gate as a contiguous block;
  from then on a step is that of `minilstm.fast.loops.LargeLoops`. The backward pass writes dz as rows
  again.

The price is pieces of `units` entries instead of contiguous blocks, and products with `batch` rows, which BLAS splits
among its threads less well: a tenth and more of a step if the kernel is small.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .activations import EXP_SCALE, F, I, J, O
from .loops import fast_step_back
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

    def forward(
        self, inputs: Array, c: Array, h: Array, kernel: Array, bias: Array, forget_bias: float
    ) -> tuple[Array, Array, Array]:
        """As `ColumnWorkspace.forward`."""
        time, batch, units = self.h[1:].shape
        np.copyto(self.rows[:time, :, : self.input_dim], inputs)
        np.copyto(self.h[0], h)
        rows, z = self._over_all_steps()
        np.matmul(rows[:, : self.input_dim], kernel[: self.input_dim], out=z)
        if self.past is not None:
            self.z[self.past] = self.past_end
        with unbuffered():
            c_end = self.loops.forward(c, kernel[self.input_dim :], whole_bias(bias, forget_bias))
        outputs = recycled((batch, time, units), inputs.dtype)
        np.copyto(outputs, self.h[1:].transpose(1, 0, 2))
        return outputs.transpose(1, 0, 2), c_end.copy(), self.h[time].copy()

    def backward(
        self, d_outputs: Array, dc: Array, dh: Array, c: Array, kernel: Array, wants_inputs: bool, wants_h: bool
    ) -> tuple[Array | None, Array, Array | None, Array]:
        """As `ColumnWorkspace.backward`. The gates are kept: a second backward pass finds all that it needs."""
        with unbuffered():
            dc, dh = self.loops.backward(d_outputs, dc, dh, kernel[self.input_dim :], wants_h)
        rows, dz = self._over_all_steps()
        d_kernel = np.matmul(rows.T, dz, out=recycled((rows.shape[1], dz.shape[1]), dz.dtype))
        d_inputs = None
        if wants_inputs:
            d_inputs = recycled((*self.z.shape[:2], self.input_dim), dz.dtype)
            np.matmul(dz, kernel[: self.input_dim].T, out=d_inputs.reshape(len(dz), -1))
        return d_inputs, dc.copy(), dh.T.copy() if wants_h else None, d_kernel

    def _over_all_steps(self) -> tuple[Array, Array]:
        """The rows and z of all steps, ``[time * batch, ...]``."""
        return self.rows[:-1].reshape(-1, self.rows.shape[2]), self.z.reshape(-1, self.z.shape[2])

    def dz(self) -> Array:
        """As `ColumnWorkspace.dz`."""
        return self.z.copy()


class RowLoops:
    """What a sequence stores, and both loops over it; `minilstm.fast.loops.LargeLoops` with sequences as rows.

    Parameters
    ----------
    h : array [time + 1, batch, units]
        What the recurrent product reads; `forward` writes it.
    z : array [time, batch, 4 * units]
        The product of the inputs, which the caller sets before `forward`; after `backward` dz.
    """

    def __init__(self, h: Array, z: Array) -> None:
        time, batch, units = h[1:].shape
        dtype = h.dtype
        blocks = aligned((time, 6, batch, units), dtype)  # i, j, f, o, c and tanh(c)
        self.c_start, self.dh, self.dc, self.dc_before, *self.spare = aligned((6, batch, units), dtype)
        self.next_dh = aligned((units, batch), dtype)  # BLAS is faster with this layout
        self.step_z = aligned((batch, 4 * units), dtype)
        self.scale, self.one = np.repeat(np.array(EXP_SCALE, dtype), units), np.array(1, dtype)
        self.forward_views, self.backward_views = [], []
        self.c_end = self.c_start
        for t, (*gates, c, tanh_c) in enumerate(blocks):
            c_before, self.c_end = self.c_end, c
            sigmoids = blocks[t, I], blocks[t, F : O + 1]
            views = (h[t], z[t], sigmoids, *gates, *self.spare, c_before, c, tanh_c, h[t + 1])
            self.forward_views.append(views)
            self.backward_views.append(((*gates, *by_gate(z[t]), c_before, tanh_c, h[t + 1]), z[t].T))

    @np.errstate(over="ignore")  # in a sigmoid
    def forward(self, c_start: Array, recurrent: Array, bias: Array) -> Array:
        """Compute the gates and h of all steps from h and c before the first; return c after the last.

        `recurrent` ``[units, 4 * units]`` holds the rows of the kernel that multiply h.
        """
        product, multiply, add, tanh = np.matmul, np.multiply, np.add, np.tanh
        z, z_by_gate = self.step_z, by_gate(self.step_z)
        of_sigmoids = z_by_gate[I], z_by_gate[F:]
        scale, one, scaled_bias = self.scale, self.one, bias * self.scale
        np.copyto(self.c_start, c_start)
        for h_before, of_inputs, sigmoids, i, j, f, o, i_j, f_c, c_before, c, tanh_c, h in self.forward_views:
            product(h_before, recurrent, z)
            add(of_inputs, z, z)
            multiply(z, scale, z)
            add(z, scaled_bias, z)
            tanh(z_by_gate[J], j)
            for part, of_part in zip(sigmoids, of_sigmoids, strict=True):
                np.exp(of_part, part)
                add(part, one, part)
                np.divide(one, part, part)
            multiply(i, j, i_j)
            multiply(f, c_before, f_c)
            add(i_j, f_c, c)
            tanh(c, tanh_c)
            multiply(o, tanh_c, h)
        return self.c_end

    def backward(self, d_outputs: Array, dc: Array, dh: Array, recurrent: Array, wants_h: bool) -> tuple[Array, Array]:
        """As `minilstm.fast.loops.Loops.backward`, except that dc returned is ``[batch, units]``."""
        np.copyto(self.dc, dc)
        np.copyto(self.next_dh, dh.T)
        dc, dc_before = self.dc, self.dc_before
        for t in reversed(range(len(self.backward_views))):
            step, dz = self.backward_views[t]
            np.add(self.next_dh.T, d_outputs[t], self.dh)
            fast_step_back(self.dh, dc, dc_before, *self.spare, *step)
            if t > 0 or wants_h:
                np.matmul(recurrent, dz, self.next_dh)
            dc, dc_before = dc_before, dc
        return dc, self.next_dh


def by_gate(z: Array) -> Array:
    """``z [batch, 4 * units]`` as ``[4, batch, units]``, a view."""
    return z.reshape(len(z), 4, -1).transpose(1, 0, 2)
