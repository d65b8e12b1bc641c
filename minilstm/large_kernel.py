"""NumPy's pass for a large kernel: sequences first, so that nothing is copied that does not stay in the cache.

`minilstm.loops` begins with a copy of the kernel, transposed and in part halved, and turns round what its products over
all steps read and write. For a kernel of many megabytes that takes longer than it saves in the loops. Here a sequence
is a row, as in inputs and outputs:

- **The kernel is read where it lies.** The inputs of all steps are multiplied with its first rows at once, h with the
  others; what makes a sigmoid of a tanh, and the bias, come to a step's z, which is in the cache. The kernel's gradient
  is one product of two arrays as the loops leave them.
- **One call sorts the gates.** The tanh of all gates reads z ``[batch, 4 * units]`` and writes each gate as a block of
  its own; from there on a step is that of `minilstm.loops`. On the way back dz is written as rows again, beside the
  gates, i, j and f by one call.

The price is pieces of `units` entries in place of contiguous blocks, and products with as many rows as the batch, which
BLAS divides among its threads less well: a tenth and more of a step where the kernel is small.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .loops import SCALE, F, Factors, O, unbuffered, whole_bias
from .memory import aligned, recycled

Array = Any

LARGE = 6 << 20  # bytes of a kernel from which this pass is the faster one


class LargeKernelWorkspace:
    """The arrays of one pass, and the pass; it takes and gives what `minilstm.loops.Workspace` does.

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
        """As `minilstm.loops.Workspace.forward`; a sequence of outputs lies as a piece in any case."""
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
        """As `minilstm.loops.Workspace.backward`. The gates stay, so that a second sweep finds all it needs."""
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
        """As `minilstm.loops.Workspace.dz`."""
        return self.z.copy()


class RowLoops(Factors):
    """What a sequence stores, and both loops over it; the counterpart of `minilstm.loops.Loops`.

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
        self.h, self.blocks = h, aligned((time, 7, batch * units), dtype)
        self.gates = self.blocks[:, :4].reshape(time, 4, batch, units)
        self.c = aligned((2, batch, units), dtype)  # c_{t-1} and c_t take turns
        self.step_z = aligned((batch, 4 * units), dtype)
        self.scale, self.half = np.repeat(np.array(SCALE, dtype), units), np.array(0.5, dtype)
        self.forward_views = []
        for t, block in enumerate(self.blocks):
            i, j, f, o, *rest = block.reshape(7, batch, units)
            sigmoids = (i, self.gates[t, F : O + 1])
            turn = self.c[t % 2], self.c[(t + 1) % 2]
            self.forward_views.append((h[t], z[t], self.gates[t], sigmoids, i, j, f, o, *rest, *turn, h[t + 1]))

        self.backward_views = [(row, by_gate(row), gates[F]) for row, gates in zip(z, self.gates, strict=True)]
        self.set_chunk(time, batch * units, dtype)
        of_step = self.factors.reshape(self.chunk, 5, batch, units)
        self.factor_views = [(factors[0], factors[1], factors[2:]) for factors in of_step]
        self.dh, self.dc, self.dc_before, self.into_dc = (aligned((batch, units), dtype) for _ in range(4))
        self.next_dh = aligned((units, batch), dtype)  # BLAS likes it better so

    def forward(self, c_start: Array, recurrent: Array, bias: Array) -> Array:
        """From h and c before the first step to gates and h of all; returns c after the last.

        `recurrent` ``[units, 4 * units]`` are the rows of the kernel that h is multiplied with.
        """
        product, multiply, add, tanh = np.matmul, np.multiply, np.add, np.tanh
        z, z_by_gate = self.step_z, by_gate(self.step_z)
        scale, half, scaled_bias = self.scale, self.half, bias * self.scale
        np.copyto(self.c[0], c_start)
        for h_before, of_inputs, gates, sigmoids, i, j, f, o, i_j, f_c, tanh_c, c_before, c, h in self.forward_views:
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
        return self.c[len(self.gates) % 2]

    def backward(self, d_outputs: Array, dc: Array, dh: Array, recurrent: Array, wants_h: bool) -> tuple[Array, Array]:
        """As `minilstm.loops.Loops.backward`, but for dc, which comes back as ``[batch, units]``."""
        product, multiply, add = np.matmul, np.multiply, np.add
        np.copyto(self.dc, dc)
        np.copyto(self.next_dh, dh.T)
        dh, next_dh, turned, into_dc = self.dh, self.next_dh, self.next_dh.T, self.into_dc
        dc, dc_before = self.dc, self.dc_before
        for start, stop, formulas in reversed(self.pieces):
            self.form(formulas)
            for t in reversed(range(start, stop)):
                dz, dz_by_gate, f = self.backward_views[t]
                for_dc, for_o, for_i_j_f = self.factor_views[t - start]
                add(turned, d_outputs[t], dh)
                multiply(for_dc, dh, into_dc)
                add(dc, into_dc, dc)
                multiply(dc, f, dc_before)
                multiply(for_i_j_f, dc, dz_by_gate[:O])
                multiply(for_o, dh, dz_by_gate[O])
                if t > 0 or wants_h:
                    product(recurrent, dz.T, next_dh)
                dc, dc_before = dc_before, dc
        return dc, next_dh


def by_gate(z: Array) -> Array:
    """``z [batch, 4 * units]`` as ``[4, batch, units]``, a view."""
    return z.reshape(len(z), 4, -1).transpose(1, 0, 2)
