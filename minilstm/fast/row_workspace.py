"""NumPy's pass for a large kernel: sequences first, so that nothing is copied that does not stay in the cache.

`minilstm.fast.workspace` begins with a copy of the kernel, transposed and in part halved, and turns round what its products
over all steps read and write. For a kernel of many megabytes that takes longer than it saves in the loops. Here a
sequence is a row, as in inputs and outputs:

- **The kernel is read where it lies.** The inputs of all steps are multiplied with its first rows at once, h with the
  others; what makes a sigmoid of a tanh, and the bias, come to a step's z, which is in the cache. The kernel's gradient
  is one product of two arrays as the loops leave them.
- **One call sorts the gates.** The tanh of all gates reads z ``[batch, 4 * units]`` and writes each gate as a block of
  its own; from there on a step is that of `minilstm.fast.loops.LargeLoops`. On the way back dz is written as rows again,
  beside the gates.

The price is pieces of `units` entries in place of contiguous blocks, and products with as many rows as the batch, which
BLAS divides among its threads less well: a tenth and more of a step where the kernel is small.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .loops import SCALE, F, I, O, step_back
from .memory import aligned, recycled
from .workspace import unbuffered, whole_bias

Array = Any

LARGE = 6 << 20  # bytes of a kernel from which this pass is the faster one


class LargeKernelWorkspace:
    """The arrays of one pass, and the pass; it takes and gives what `minilstm.fast.workspace.Workspace` does.

    Parameters
    ----------
    time, batch, input_dim, units : int
    dtype : data type of all arrays
    """

    def __init__(self, time: int, batch: int, input_dim: int, units: int, dtype: Any) -> None:
        self.input_dim = input_dim
        self.rows = aligned((time + 1, batch, input_dim + units + 1), dtype)  # [x_t, h_{t-1}, 1]
        self.rows[..., -1] = 1
        self.h = self.rows[..., input_dim:-1]
        self.z = aligned((time, batch, 4 * units), dtype)  # what the inputs give; after a sweep dz
        self.loops = RowLoops(self.h, self.z)

    def forward(
        self, inputs: Array, c: Array, h: Array, kernel: Array, bias: Array, forget_bias: float, as_made: bool
    ) -> tuple[Array, Array, Array]:
        """As `minilstm.fast.workspace.Workspace.forward`; a sequence of outputs lies as a piece in any case."""
        time, batch, units = self.h[1:].shape
        np.copyto(self.rows[:time, :, : self.input_dim], inputs)
        np.copyto(self.h[0], h)
        rows, z = self._over_all_steps()
        np.matmul(rows[:, : self.input_dim], kernel[: self.input_dim], out=z)
        with unbuffered():
            c_end = self.loops.forward(c, kernel[self.input_dim :], whole_bias(bias, forget_bias))
        outputs = recycled((batch, time, units), inputs.dtype)
        np.copyto(outputs, self.h[1:].transpose(1, 0, 2))
        return outputs.transpose(1, 0, 2), c_end.copy(), self.h[time].copy()

    def backward(
        self, d_outputs: Array, dc: Array, dh: Array, c: Array, kernel: Array, wants_inputs: bool, wants_h: bool
    ) -> tuple[Array | None, Array, Array | None, Array]:
        """As `minilstm.fast.workspace.Workspace.backward`. The gates stay, so that a second sweep finds all it needs."""
        with unbuffered():
            dc, dh = self.loops.backward(d_outputs, dc, dh, kernel[self.input_dim :], wants_h)
        rows, dz = self._over_all_steps()
        d_kernel = np.matmul(rows.T, dz, out=recycled((rows.shape[1], dz.shape[1]), dz.dtype))
        d_inputs = None
        if wants_inputs:
            time, batch, _ = self.z.shape
            d_inputs = recycled((batch, time, self.input_dim), dz.dtype).transpose(1, 0, 2)
            np.copyto(d_inputs, (dz @ kernel[: self.input_dim].T).reshape(d_inputs.shape))
        return d_inputs, dc.copy(), dh.T.copy() if wants_h else None, d_kernel

    def _over_all_steps(self) -> tuple[Array, Array]:
        """The rows and z of all steps, ``[time * batch, ...]``."""
        return self.rows[:-1].reshape(-1, self.rows.shape[2]), self.z.reshape(-1, self.z.shape[2])

    def dz(self) -> Array:
        """As `minilstm.fast.workspace.Workspace.dz`."""
        return self.z.copy()


class RowLoops:
    """What a sequence stores, and both loops over it; the counterpart of `minilstm.fast.loops.LargeLoops`.

    Parameters
    ----------
    h : array [time + 1, batch, units]
        What the recurrent product reads; `forward` writes it.
    z : array [time, batch, 4 * units]
        What the inputs give, to be set before `forward`; dz, after `backward`.
    """

    def __init__(self, h: Array, z: Array) -> None:
        time, batch, units = h[1:].shape
        dtype = h.dtype
        blocks = aligned((time, 6, batch, units), dtype)  # i, j, f, o, c and tanh(c)
        self.c_start, self.dh, self.dc, self.dc_before, *self.spare = aligned((6, batch, units), dtype)
        self.next_dh = aligned((units, batch), dtype)  # BLAS likes it better so
        self.step_z = aligned((batch, 4 * units), dtype)
        self.scale, self.half = np.repeat(np.array(SCALE, dtype), units), np.array(0.5, dtype)
        self.forward_views, self.backward_views = [], []
        self.c_end = self.c_start
        for t, (*gates, c, tanh_c) in enumerate(blocks):
            c_before, self.c_end = self.c_end, c
            sigmoids = blocks[t, I], blocks[t, F : O + 1]
            views = (h[t], z[t], blocks[t, : O + 1], sigmoids, *gates, *self.spare, c_before, c, tanh_c, h[t + 1])
            self.forward_views.append(views)
            self.backward_views.append(((*gates, *by_gate(z[t]), c_before, tanh_c, h[t + 1]), z[t].T))

    def forward(self, c_start: Array, recurrent: Array, bias: Array) -> Array:
        """From h and c before the first step to gates and h of all; returns c after the last.

        `recurrent` ``[units, 4 * units]`` are the rows of the kernel that h is multiplied with.
        """
        product, multiply, add, tanh = np.matmul, np.multiply, np.add, np.tanh
        z, z_by_gate = self.step_z, by_gate(self.step_z)
        scale, half, scaled_bias = self.scale, self.half, bias * self.scale
        np.copyto(self.c_start, c_start)
        for h_before, of_inputs, gates, sigmoids, i, j, f, o, i_j, f_c, c_before, c, tanh_c, h in self.forward_views:
            product(h_before, recurrent, z)
            add(of_inputs, z, z)
            multiply(z, scale, z)
            add(z, scaled_bias, z)
            tanh(z_by_gate, gates)
            for part in sigmoids:
                multiply(part, half, part)
                add(part, half, part)
            multiply(i, j, i_j)
            multiply(f, c_before, f_c)
            add(i_j, f_c, c)
            tanh(c, tanh_c)
            multiply(o, tanh_c, h)
        return self.c_end

    def backward(self, d_outputs: Array, dc: Array, dh: Array, recurrent: Array, wants_h: bool) -> tuple[Array, Array]:
        """As `minilstm.fast.loops.Loops.backward`, but for dc, which comes back as ``[batch, units]``."""
        np.copyto(self.dc, dc)
        np.copyto(self.next_dh, dh.T)
        dc, dc_before = self.dc, self.dc_before
        for t in reversed(range(len(self.backward_views))):
            step, dz = self.backward_views[t]
            np.add(self.next_dh.T, d_outputs[t], self.dh)
            step_back(self.dh, dc, dc_before, *self.spare, *step)
            if t > 0 or wants_h:
                np.matmul(recurrent, dz, self.next_dh)
            dc, dc_before = dc_before, dc
        return dc, self.next_dh


def by_gate(z: Array) -> Array:
    """``z [batch, 4 * units]`` as ``[4, batch, units]``, a view."""
    return z.reshape(len(z), 4, -1).transpose(1, 0, 2)
