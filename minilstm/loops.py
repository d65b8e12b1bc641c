"""The loops of `minilstm.kernels` over the steps of a sequence, as calls of NumPy.

A `Loops` owns what a pass stores for every step, and the views of it, made once. `forward` fills it, `backward` leaves
dz in the place of the gates; `minilstm.compiled` has the same two methods for where numba is installed. What the
tricks are and what they buy is said in `minilstm.kernels`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .memory import aligned

Array = Any

# The blocks of a step: the gates in TensorFlow's order, the two parts of c_t, and its tanh.
I, J, F, O, I_J, F_C, TANH_C = range(7)
SCALE, SHIFT = (0.5, 1, 0.5, 0.5), (0.5, 0, 0.5, 0.5)  # from the tanh of each gate to the gate: j is its own tanh
SMALL = 1 << 13  # entries of four gates up to which a constant is an array of their shape
CACHE_BYTES = 1 << 19  # of factors formed at once: they shall still be in the second-level cache when used


class Loops:
    """What a sequence stores, and both loops over it.

    Parameters
    ----------
    columns : array [time + 1, rows, batch]
        Row by row what the recurrent product reads. The `units` rows from `first_h` on are h; `forward` writes them.
    first_h, units : int
    adds : bool
        Whether the gates hold, before `forward`, what the inputs give, and the product is added to it.

    Attributes
    ----------
    gates : array [time, 4 * units, batch]
        After `forward` i, j, f, o of each step; after `backward` dz.
    c_start, c_end : array [units, batch]
        c before the first step, to be set before `forward`, and c after the last.
    """

    def __init__(self, columns: Array, first_h: int, units: int, adds: bool) -> None:
        time, batch, dtype = len(columns) - 1, columns.shape[2], columns.dtype
        entries, size = units * batch, min(4 * units * batch, SMALL)
        self.blocks = aligned((time, 7, entries), dtype)
        self.gates = self.blocks[:, :4].reshape(time, 4 * units, batch)
        self.h = columns[:, first_h : first_h + units].reshape(time + 1, entries)
        c = aligned((2, units, batch), dtype)  # c_{t-1} and c_t take turns
        self.c_start, self.c_end = c[0], c[time % 2]
        self.from_h = matrix(aligned((4 * units, batch), dtype)) if adds else None

        # np.dot fills its result with zeros first, which costs a large product a tenth; np.matmul costs 0.3 us more.
        self.product = np.dot if 4 * entries <= SMALL else np.matmul
        half = np.array(0.5, dtype)
        scale, shift = (np.repeat(np.array(row, dtype), entries) for row in (SCALE, SHIFT))
        self.forward_views = []
        for t, block in enumerate(self.blocks):
            z = self.gates[t].reshape(-1)
            if z.size <= size:  # few calls matter: one for all gates, with constants of their shape
                sigmoids: tuple[Any, ...] = ((z, scale, shift),)
            else:  # few entries matter: j is left out
                sigmoids = ((block[I], half, half), (block[F : O + 1].reshape(-1), half, half))
            self.forward_views.append((
                matrix(columns[t]), matrix(self.gates[t]), z, sigmoids, *block,
                c[t % 2].reshape(-1), c[(t + 1) % 2].reshape(-1), self.h[t + 1],
            ))  # fmt: skip

        self.chunk = int(max(1, min(time, CACHE_BYTES // (5 * entries * dtype.itemsize))))
        self.factors = aligned((self.chunk, 5, entries), dtype)  # of di, df, dj, dc and do
        self.d_outputs = aligned((self.chunk, units, batch), dtype)
        self.dh, self.dc, self.dc_before, self.into_dc = (aligned((units, batch), dtype) for _ in range(4))
        self.backward_views = [(*block[:4], matrix(z)) for block, z in zip(self.blocks, self.gates, strict=True)]
        self.factor_views = [(*self.factors[n], self.d_outputs[n].reshape(-1)) for n in range(self.chunk)]

    def forward(self, factor: Array) -> None:
        """From the columns to gates, c and h; `factor` ``[4 * units, rows]`` is the kernel's copy."""
        product, multiply, add, tanh, from_h = self.product, np.multiply, np.add, np.tanh, self.from_h
        for column, z, gates, sigmoids, i, j, f, o, i_j, f_c, tanh_c, c_before, c, h in self.forward_views:
            if from_h is None:
                product(factor, column, z)
            else:
                add(z, product(factor, column, from_h), z)
            tanh(gates, gates)
            for part, scale, shift in sigmoids:
                multiply(part, scale, part)
                add(part, shift, part)
            multiply(i, j, i_j)
            multiply(f, c_before, f_c)
            add(i_j, f_c, c)
            tanh(c, tanh_c)
            multiply(o, tanh_c, h)

    def backward(self, d_outputs: Array, dc: Array, dh: Array, recurrent: Array) -> tuple[Array, Array]:
        """From the gates to dz; returns dc and dh ``[units, batch]`` before the first step.

        `d_outputs` ``[time, batch, units]``, `dc` and `dh` ``[batch, units]``; `recurrent` ``[units, 4 * units]`` are
        the rows of the kernel that h is multiplied with.
        """
        product, multiply, add = self.product, np.multiply, np.add
        np.copyto(self.dc, dc.T)
        np.copyto(self.dh, dh.T)
        dh, next_dh = self.dh.reshape(-1), matrix(self.dh)
        dc, dc_before, into_dc = self.dc.reshape(-1), self.dc_before.reshape(-1), self.into_dc.reshape(-1)
        for start in reversed(range(0, len(self.gates), self.chunk)):
            stop = min(start + self.chunk, len(self.gates))
            self._form_factors(start, stop)
            np.copyto(self.d_outputs[: stop - start], d_outputs[start:stop].transpose(0, 2, 1))
            for t in reversed(range(start, stop)):
                i, j, f, o, dz = self.backward_views[t]
                for_i, for_f, for_j, for_dc, for_o, d_output = self.factor_views[t - start]
                add(dh, d_output, dh)
                multiply(for_dc, dh, into_dc)
                add(dc, into_dc, dc)
                multiply(dc, f, dc_before)
                multiply(for_i, dc, i)
                multiply(for_j, dc, j)
                multiply(for_f, dc, f)
                multiply(for_o, dh, o)
                product(recurrent, dz, next_dh)
                dc, dc_before = dc_before, dc
        return dc.reshape(self.dc.shape), self.dh

    def _form_factors(self, start: int, stop: int) -> None:
        """What dh and dc are multiplied with at the steps from `start` to before `stop`, of products that are there."""
        blocks, factors, h = self.blocks[start:stop], self.factors[: stop - start], self.h[start + 1 : stop + 1]
        parts_of_c = blocks[:, I_J : F_C + 1]
        for minuend, product, factor, out in (
            (parts_of_c, parts_of_c, blocks[:, I : F + 1 : F - I], factors[:, :2]),  # i (1 - i) j = i j - (i j) i, ...
            (blocks[:, I], blocks[:, I_J], blocks[:, J], factors[:, 2]),  # i (1 - j^2) = i - (i j) j
            (blocks[:, O], h, blocks[:, TANH_C], factors[:, 3]),  # o (1 - tanh(c)^2) = o - h tanh(c)
            (h, h, blocks[:, O], factors[:, 4]),  # o (1 - o) tanh(c) = h - h o
        ):
            np.multiply(product, factor, out=out)
            np.subtract(minuend, out, out=out)


def matrix(x: Array) -> Array:
    """``[rows, batch]``, or ``[rows]`` where batch is 1: `np.dot` is then faster."""
    return x[:, 0] if x.shape[1] == 1 else x
