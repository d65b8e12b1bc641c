"""The two loops of an LSTM for large steps, and for cells with options: peepholes, clips, a projection, other
activations, masks of h.

The readable twins are `LSTMCell.step` and `minilstm.bptt.step_back`. In a larger model a step costs what its blocks
cost that enter the cache. So nothing is stored that can be computed again from what is there, i j and f c first of all;
all formulas of a step run while its blocks are in the cache; and dz overwrites the gates. At 50 steps, batch 32, 64
inputs and 128 units a training step of a cell with peepholes takes half of the time of the readable pass. A clip costs
its mask only in steps in which something is clipped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .activations import EXP_SCALE, FAST_ACTIVATIONS, F, I, O, sigmoid_of_negative
from .memory import aligned, matrix, steps

Array = Any

C = 4  # the block of c, after those of the gates; then activation(c)


class Options(NamedTuple):
    """What decides on the arrays and calls of a pass; `output_size` is the width of h, and the rest is plain."""

    output_size: int
    activation: str = "tanh"
    use_peepholes: bool = False
    cell_clip: float | None = None
    projects: bool = False
    proj_clip: float | None = None
    has_masks: bool = False


class LargeLoops:
    """What a sequence stores, and both loops over it, with the methods of `minilstm.fast.loops.Loops`.

    Parameters
    ----------
    columns : array [time + 1, rows, batch]
    first_h, units : int
    adds, keeps : bool
        As for `Loops`.
    options : Options, optional
        Of a cell that is not plain.
    """

    scale = EXP_SCALE

    def __init__(
        self, columns: Array, first_h: int, units: int, adds: bool, keeps: bool = True, options: Options | None = None
    ) -> None:
        options = options or Options(units)
        batch = columns.shape[2]
        self.columns = [matrix(column) for column in columns]
        self.from_h = matrix(aligned((4 * units, batch), columns.dtype)) if adds else None
        self.make_blocks(columns[:, first_h : first_h + options.output_size], (units, batch), keeps, options)
        self.gates = self.blocks[:, : O + 1].reshape(-1, 4 * units, batch)
        self.z = [matrix(z) for z in self.gates]

    def make_blocks(self, h: Array, shape: tuple[int, int], keeps: bool, options: Options) -> None:
        """What has the shape of a block, and the views of every step; h has this shape, too, unless it is projected."""
        self.options, self.activation = options, FAST_ACTIVATIONS[options.activation]
        self.h, time, dtype = h, len(h) - 1, h.dtype
        self.blocks: Any = steps(time, (6, *shape), dtype, keeps)  # i, j, f, o, c and activation(c)
        self.outputs = aligned(h[1:].shape, dtype) if options.has_masks else h[1:]
        self.m: Any = steps(time, shape, dtype, keeps) if options.projects else self.outputs
        self.c_start, self.c_end = aligned(shape, dtype), self.blocks[-1, C]
        self.dc, self.dc_before, self.dm, self.x, self.d, self.dy = aligned((6, *shape), dtype)
        self.dh, self.d_output = aligned((2, *h.shape[1:]), dtype)
        self.every_dh: Any = aligned(h[1:].shape, dtype) if options.projects else None
        self.c_inside: list[Array | None] = [None] * time  # where a clip lets a derivative pass; None: everywhere
        self.h_inside: list[Array | None] = [None] * time
        self.one = np.array(1, dtype)
        every_c = [self.c_start, *self.blocks[:-1, C]]
        self.views = [(*block, c, m) for block, c, m in zip(self.blocks, every_c, self.m, strict=True)]
        # Gates that are sigmoids; o must wait for c if there are peepholes.
        first = slice(F, O) if options.use_peepholes else slice(F, O + 1)
        self.first = [(block[I], block[first]) for block in self.blocks]

    def set_weights(self, w_i: Array, w_f: Array, w_o: Array, projection: Array, h_masks: Array | None) -> None:
        """What `forward` and `backward` use besides the kernel; each may be None without the option it belongs to.

        `h_masks` is ``[time, batch, output_size]``.
        """
        if self.options.use_peepholes:
            shape = self.c_start.shape
            self.peepholes = [np.ascontiguousarray(np.broadcast_to(w[:, None], shape)) for w in (w_i, w_f, w_o)]
        if self.options.projects:
            self.projection, self.projection_t = projection, np.ascontiguousarray(projection.T)
        if h_masks is not None:
            self.h_masks = np.ascontiguousarray(h_masks.transpose(0, 2, 1))

    def forward(self, factor: Array) -> None:
        """As `Loops.forward`; what peepholes add is subtracted from negative pre-activations."""
        _, _, use_peepholes, cell_clip, projects, proj_clip, has_masks = self.options
        act, x, one = self.activation.function, self.x, self.one
        multiply, add, subtract = np.multiply, np.add, np.subtract
        if use_peepholes:
            w_i, w_f, w_o = self.peepholes
        for t, (i, j, f, o, c, a, c_before, m) in enumerate(self.views):
            self.compute_z(t, factor)
            if use_peepholes:
                subtract(i, multiply(w_i, c_before, x), i)
                subtract(f, multiply(w_f, c_before, x), f)
            for gate in self.first[t]:
                sigmoid_of_negative(gate, one)
            act(j, j)
            multiply(i, j, x)
            multiply(f, c_before, c)
            add(c, x, c)
            if cell_clip is not None:
                self.c_inside[t] = _clip(c, cell_clip, x)
            if use_peepholes:
                subtract(o, multiply(w_o, c, x), o)
                sigmoid_of_negative(o, one)
            act(c, a)
            multiply(o, a, m)
            output = self.outputs[t]
            if projects:
                np.matmul(self.projection_t, m, out=output)
            if proj_clip is not None:
                self.h_inside[t] = _clip(output, proj_clip, np.empty_like(output))
            if has_masks:
                multiply(output, self.h_masks[t], self.h[t + 1])

    def compute_z(self, t: int, factor: Array) -> None:
        """Compute z of step t, which its gates then overwrite."""
        if self.from_h is None:
            np.matmul(factor, self.columns[t], out=self.z[t])
        else:
            np.add(self.z[t], np.matmul(factor, self.columns[t], out=self.from_h), self.z[t])

    def backward(self, d_outputs: Array, dc: Array, dh: Array, recurrent: Array, wants_h: bool) -> tuple[Array, Array]:
        """As `Loops.backward`; afterwards `d_weights` gives the derivatives of the weights of `set_weights`."""
        _, _, use_peepholes, cell_clip, projects, proj_clip, has_masks = self.options
        slope, x, d, dy = self.activation.times_slope, self.x, self.d, self.dy
        multiply, add, subtract = np.multiply, np.add, np.subtract
        if use_peepholes:
            w_i, w_f, w_o = self.peepholes
            self.d_peepholes = d_i, d_f, d_o = [np.zeros_like(w) for w in self.peepholes]
        np.copyto(self.dc, self.as_block(dc))
        np.copyto(self.dh, self.as_block(dh))
        dh, dc, dc_before = self.dh, self.dc, self.dc_before
        for t in reversed(range(len(self.views))):
            i, j, f, o, c, a, c_before, m = self.views[t]
            if has_masks:
                multiply(dh, self.h_masks[t], dh)
            d_output = self.as_block(d_outputs[t])
            if not d_output.flags.c_contiguous:
                np.copyto(self.d_output, d_output)
                d_output = self.d_output
            dm = dh = add(dh, d_output, self.dh)
            if proj_clip is not None:
                _limit(dh, self.h_inside[t])
            if projects:
                np.copyto(self.every_dh[t], dh)
                dm = np.matmul(self.projection, dh, out=self.dm)
            multiply(dm, o, d)  # m = o a
            multiply(dm, m, dy)  # d a
            slope(d, dy, a, x)
            add(dc, x, dc)
            multiply(dy, o, o)  # dm a o (1 - o)
            subtract(dy, o, o)
            if use_peepholes:
                add(d_o, multiply(o, c, x), d_o)
                add(dc, multiply(o, w_o, x), dc)
            if cell_clip is not None:
                _limit(dc, self.c_inside[t])
            multiply(dc, i, d)  # c = i j + f c_before
            multiply(d, j, dy)
            multiply(dy, i, i)  # dc j i (1 - i)
            subtract(dy, i, i)
            slope(d, dy, j, j)
            multiply(dc, f, dc_before)
            multiply(dc_before, c_before, d)
            multiply(d, f, f)  # dc c_before f (1 - f)
            subtract(d, f, f)
            if use_peepholes:
                add(d_i, multiply(i, c_before, x), d_i)
                add(d_f, multiply(f, c_before, x), d_f)
                add(dc_before, multiply(i, w_i, x), dc_before)
                add(dc_before, multiply(f, w_f, x), dc_before)
            dh = self.pull_z(t, recurrent, t > 0 or wants_h)
            dc, dc_before = dc_before, dc
        return dc, dh

    def as_block(self, x: Array) -> Array:
        """An array ``[batch, ...]`` in the order of a block."""
        return x.T

    def pull_z(self, t: int, recurrent: Array, wanted: bool) -> Array:
        """Return dh before step t, if wanted, from dz of step t, which has overwritten its gates."""
        if wanted:
            np.matmul(recurrent, self.z[t], out=matrix(self.dh))
        return self.dh

    def d_weights(self) -> tuple[Array | None, ...]:
        """The derivatives of w_i, w_f, w_o and the projection; None without the option."""
        peepholes: tuple[Array | None, ...] = (None, None, None)
        if self.options.use_peepholes:
            peepholes = tuple(d.sum(axis=1) for d in self.d_peepholes)
        if not self.options.projects:
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
