"""The two loops of an LSTM with options: peepholes, clips, a projection, other activations, masks of h.

The readable twins are `LSTMCell.step` and `minilstm.bptt.step_back`. As in `minilstm.fast.loops.LargeLoops` little is
stored, a step is done while its blocks are in the cache, and dz overwrites the gates. At 50 steps, batch 32, 64 inputs
and 128 units a training step takes half of the time of the readable pass. A clip costs its mask only in steps in which
something is clipped.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .activations import EXP_SCALE, FAST_ACTIVATIONS, F, I, sigmoid_of_negative, sigmoid_slope
from .loops import C, Options, matrix, steps
from .memory import aligned

Array = Any
A = C + 1  # the block after c: activation(c)


class OptionLoops:
    """What a sequence stores, and both loops over it, with the methods of `minilstm.fast.loops.Loops`.

    Parameters
    ----------
    columns : array [time + 1, rows, batch]
    first_h, units : int
    adds, keeps : bool
        As for `Loops`.
    options : Options
    """

    scale = EXP_SCALE

    def __init__(self, columns: Array, first_h: int, units: int, adds: bool, keeps: bool, options: Options) -> None:
        time, batch, dtype = len(columns) - 1, columns.shape[2], columns.dtype
        width = options.output_size
        self.options, self.activation = options, FAST_ACTIVATIONS[options.activation]
        self.blocks: Any = steps(time, (6, units, batch), dtype, keeps)  # i, j, f, o, c and activation(c)
        blocks = self.blocks
        self.gates = blocks[:, :4].reshape(time, 4 * units, batch)
        self.columns = [matrix(column) for column in columns]
        self.h = columns[:, first_h : first_h + width]
        self.m: Any = steps(time, (units, batch), dtype, keeps) if options.projects else None
        self.outputs = aligned((time, width, batch), dtype) if options.has_masks else self.h[1:]
        self.c_start = aligned((units, batch), dtype)
        self.c_end = blocks[-1, C]
        self.from_h = matrix(aligned((4 * units, batch), dtype)) if adds else None
        self.two, self.dc, self.dc_before, self.dm, self.x = (
            aligned(shape, dtype) for shape in ((2, units, batch), *((units, batch),) * 4)
        )
        self.dh = aligned((width, batch), dtype)
        self.every_dh: Any = aligned((time, width, batch), dtype) if options.projects else None
        self.c_inside: list[Array | None] = [None] * time  # where a clip lets a derivative pass; None: everywhere
        self.h_inside: list[Array | None] = [None] * time

    def set_weights(self, w_i: Array, w_f: Array, w_o: Array, projection: Array, h_masks: Array | None) -> None:
        """What `forward` and `backward` use besides the kernel; each may be None without the option it belongs to.

        `h_masks` is ``[time, batch, output_size]``.
        """
        shape = self.c_start.shape
        if self.options.use_peepholes:
            of_batch = [np.broadcast_to(w[:, None], shape) for w in (w_i, w_f, w_o)]
            self.peepholes_if, self.peephole_o = np.stack(of_batch[:2]), np.ascontiguousarray(of_batch[2])
        if self.options.projects:
            self.projection, self.projection_t = projection, np.ascontiguousarray(projection.T)
        if h_masks is not None:
            self.h_masks = np.ascontiguousarray(h_masks.transpose(0, 2, 1))

    def forward(self, factor: Array) -> None:
        """As `Loops.forward`; what peepholes add is subtracted from negative pre-activations."""
        options, act, x = self.options, self.activation.function, self.x
        c_before: Any = self.c_start
        for t, block in enumerate(self.blocks):
            i, j, f, o, c, a = block
            z = matrix(self.gates[t])
            i_and_f = block[I : F + 1 : F - I]
            if self.from_h is None:
                np.matmul(factor, self.columns[t], out=z)
            else:
                np.add(z, np.matmul(factor, self.columns[t], out=self.from_h), z)
            if options.use_peepholes:
                np.multiply(self.peepholes_if, c_before, self.two)
                np.subtract(i_and_f, self.two, i_and_f)
            sigmoid_of_negative(i_and_f)
            act(j, j)
            np.multiply(i, j, x)
            np.multiply(f, c_before, c)
            np.add(c, x, c)
            if options.cell_clip is not None:
                self.c_inside[t] = _clip(c, options.cell_clip, x)
            if options.use_peepholes:
                np.multiply(self.peephole_o, c, x)
                np.subtract(o, x, o)
            sigmoid_of_negative(o)
            act(c, a)
            output = self.outputs[t]
            if self.m is None:
                np.multiply(o, a, output)
            else:
                np.matmul(self.projection_t, np.multiply(o, a, self.m[t]), out=output)
            if options.proj_clip is not None:
                self.h_inside[t] = _clip(output, options.proj_clip, np.empty_like(output))
            if options.has_masks:
                np.multiply(output, self.h_masks[t], self.h[t + 1])
            c_before = c

    def backward(self, d_outputs: Array, dc: Array, dh: Array, recurrent: Array, wants_h: bool) -> tuple[Array, Array]:
        """As `Loops.backward`; afterwards `d_weights` gives the derivatives of the weights of `set_weights`."""
        options, slope, x, two = self.options, self.activation.times_slope, self.x, self.two
        if options.use_peepholes:
            self.d_if, self.d_o = np.zeros_like(two), np.zeros_like(x)
        np.copyto(self.dc, dc.T)
        np.copyto(self.dh, dh.T)
        dh, dc, dc_before = self.dh, self.dc, self.dc_before
        next_dh = matrix(dh)
        for t in reversed(range(len(self.blocks))):
            i, j, f, o, c, a = self.blocks[t]
            before = self.blocks[t - 1, C] if t else self.c_start
            if options.has_masks:
                np.multiply(dh, self.h_masks[t], dh)
            np.add(dh, d_outputs[t].T, dh)
            _limit(dh, self.h_inside[t])
            dm = dh
            if self.every_dh is not None:
                np.copyto(self.every_dh[t], dh)
                dm = np.matmul(self.projection, dh, out=self.dm)
            np.multiply(dm, o, x)
            slope(x, a, x, two[0])
            np.add(dc, x, dc)
            np.multiply(dm, a, x)
            sigmoid_slope(x, o, o, two[0])
            if options.use_peepholes:
                np.add(self.d_o, np.multiply(o, c, x), self.d_o)
                np.add(dc, np.multiply(o, self.peephole_o, x), dc)
            _limit(dc, self.c_inside[t])
            np.multiply(dc, f, dc_before)
            np.multiply(dc_before, before, x)
            np.multiply(x, f, f)
            np.subtract(x, f, f)
            np.multiply(dc, i, dc)
            np.multiply(dc, j, x)
            slope(dc, j, j, two[0])
            np.multiply(x, i, i)
            np.subtract(x, i, i)
            if options.use_peepholes:
                i_and_f = self.blocks[t, I : F + 1 : F - I]
                np.add(self.d_if, np.multiply(i_and_f, before, two), self.d_if)
                np.multiply(i_and_f, self.peepholes_if, two)
                np.add(dc_before, two[0], dc_before)
                np.add(dc_before, two[1], dc_before)
            if t > 0 or wants_h:
                np.matmul(recurrent, matrix(self.gates[t]), out=next_dh)
            dc, dc_before = dc_before, dc
        return dc, dh

    def d_weights(self) -> tuple[Array | None, ...]:
        """The derivatives of w_i, w_f, w_o and the projection; None without the option."""
        peepholes: tuple[Array | None, ...] = (None, None, None)
        if self.options.use_peepholes:
            peepholes = tuple(d.sum(axis=1) for d in (*self.d_if, self.d_o))
        if self.m is None:
            return (*peepholes, None)
        return (*peepholes, np.tensordot(self.m, self.every_dh, axes=((0, 2), (0, 2))))


def _clip(x: Array, bound: float, scratch: Array) -> Array | None:
    """Clip x in place; return where it was within the bound, or None if it was so everywhere."""
    np.abs(x, scratch)
    if scratch.max() <= bound:
        return None
    inside = scratch <= bound
    np.minimum(x, bound, out=x)
    np.maximum(x, -bound, out=x)
    return inside


def _limit(derivative: Array, inside: Array | None) -> None:
    if inside is not None:
        np.multiply(derivative, inside, derivative)
