"""What `minilstm.fast.workspace` repeats for every step, as calls of NumPy: both loops over a sequence, in three kinds.

- **Small footprint.** Each dz takes the place of its gate, because memory that is not touched need not be fetched. A
  second sweep over the same pass repeats the forward loop first.
- **Few calls: `Loops`.** In a small model the price of a step is that of its NumPy calls, 0.5 us each, and three times
  that for one that broadcasts or takes a Python number. So constants are arrays, and a call takes two blocks at once
  where their distances are equal: (i j, f c) times (i, f). All that the backward loop multiplies dh and dc with is
  known beforehand: these factors are formed for as many steps at once as stay in the cache, and only dh and dc
  themselves go through the loop.
- **Little memory: `LargeLoops`.** In a larger model the price is that of blocks that come to the cache and leave it. So
  i j and f c are formed a second time rather than stored, and all formulas of a step run one after the other, while its
  blocks are there: twice as many calls, a seventh less memory.
- **Few and small: `OneSequence`.** The sweep of a single sequence gives most of its work to one product.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from .memory import aligned

Array = Any

# The blocks of a step: the gates in TensorFlow's order, the two parts of c_t, and its tanh.
I, J, F, O, I_J, F_C, TANH_C = range(7)
C, TANH = 4, 5  # in a large step its c and its tanh, in place of these three
SCALE, SHIFT = (0.5, 1, 0.5, 0.5), (0.5, 0, 0.5, 0.5)  # from the tanh of each gate to the gate: j is its own tanh
SMALL = 1 << 13  # entries of four gates up to which a constant is an array of their shape
FEW_UNITS = 32  # up to so many a product with a vector is no dearer than a call that does nothing
CACHE_BYTES = 1 << 19  # of factors formed at once: they shall still be in the second-level cache when used
MANY = 1 << 13  # bytes of a block, above which it costs more to move it than to call NumPy


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

    stored = 7  # blocks of a step

    def __init__(self, columns: Array, first_h: int, units: int, adds: bool) -> None:
        time, batch, dtype = len(columns) - 1, columns.shape[2], columns.dtype
        entries, size = units * batch, min(4 * units * batch, SMALL)
        self.blocks = aligned((time, self.stored, entries), dtype)
        self.gates = self.blocks[:, :4].reshape(time, 4 * units, batch)
        self.h = columns[:, first_h : first_h + units].reshape(time + 1, entries)
        self.of_c = self.place_c()
        self.c_start, self.c_end = (c.reshape(units, batch) for c in (self.of_c[0][-2], self.of_c[-1][-1]))
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
            column, gates, h = matrix(columns[t]), matrix(self.gates[t]), self.h[t + 1]
            self.forward_views.append((column, gates, z, sigmoids, *block[: O + 1], *self.of_c[t], h))
        self.prepare_sweep(time, units, batch, dtype)

    def place_c(self) -> list[tuple[Array, ...]]:
        """For each step where its i j, f c and tanh(c) go, where c before it is, and where c after it goes."""
        c = aligned((2, *self.blocks[0, 0].shape), self.blocks.dtype)  # c_{t-1} and c_t take turns
        return [(*block[I_J:], c[t % 2], c[(t + 1) % 2]) for t, block in enumerate(self.blocks)]

    def prepare_sweep(self, time: int, units: int, batch: int, dtype: Any) -> None:
        """The arrays and views of `backward`."""
        entries = units * batch
        self.chunk = int(max(1, min(time, CACHE_BYTES // (5 * entries * dtype.itemsize))))
        self.factors = aligned((self.chunk, 5, entries), dtype)  # of dc, do, di, dj and df
        ends = ((start, min(start + self.chunk, time)) for start in range(0, time, self.chunk))
        self.pieces = [(start, stop, self.formulas(start, stop)) for start, stop in ends]
        self.d_outputs = aligned((self.chunk, units, batch), dtype)
        self.dh, self.dc, self.dc_before, self.into_dc = (aligned((units, batch), dtype) for _ in range(4))
        self.backward_views = [(*block[:4], matrix(z)) for block, z in zip(self.blocks, self.gates, strict=True)]
        self.factor_views = [tuple(factors) for factors in self.factors]

    def formulas(self, start: int, stop: int) -> tuple[tuple[Array, ...], ...]:
        """The views that `form` takes for the steps from `start` to before `stop`, of products that are there."""
        h = self.h[start + 1 : stop + 1]
        blocks, factors = self.blocks[start:stop], self.factors[: stop - start]
        parts_of_c = blocks[:, I_J : F_C + 1]
        return (
            (parts_of_c, parts_of_c, blocks[:, I : F + 1 : F - I], factors[:, 2:5:2]),  # i (1 - i) j = i j - (i j) i
            (blocks[:, I], blocks[:, I_J], blocks[:, J], factors[:, 3]),  # i (1 - j^2) = i - (i j) j
            (blocks[:, O], h, blocks[:, TANH_C], factors[:, 0]),  # o (1 - tanh(c)^2) = o - h tanh(c)
            (h, h, blocks[:, O], factors[:, 1]),  # o (1 - o) tanh(c) = h - h o
        )

    @staticmethod
    def form(formulas: tuple[tuple[Array, ...], ...]) -> None:
        """The factors of some steps: a number less its product with another, each time."""
        for minuend, product, factor, out in formulas:
            np.multiply(product, factor, out)
            np.subtract(minuend, out, out)

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

    def backward(self, d_outputs: Array, dc: Array, dh: Array, recurrent: Array, wants_h: bool) -> tuple[Array, Array]:
        """From the gates to dz; returns dc and dh ``[units, batch]`` before the first step.

        `d_outputs` ``[time, batch, units]``, `dc` and `dh` ``[batch, units]``; `recurrent` ``[units, 4 * units]`` are
        the rows of the kernel that h is multiplied with. Without `wants_h` dh is left as it is after the first step.
        """
        product, multiply, add = self.product, np.multiply, np.add
        np.copyto(self.dc, dc.T)
        np.copyto(self.dh, dh.T)
        dh, next_dh = self.dh.reshape(-1), matrix(self.dh)
        dc, dc_before, into_dc = self.dc.reshape(-1), self.dc_before.reshape(-1), self.into_dc.reshape(-1)
        for start, stop, formulas in reversed(self.pieces):
            self.form(formulas)
            from_above = d_outputs[start:stop].transpose(0, 2, 1)
            if not from_above.flags.c_contiguous:  # the layer above did not make it features first
                np.copyto(self.d_outputs[: stop - start], from_above)
                from_above = self.d_outputs
            from_above = from_above.reshape(len(from_above), -1)
            for t in reversed(range(start, stop)):
                i, j, f, o, dz = self.backward_views[t]
                for_dc, for_o, for_i, for_j, for_f = self.factor_views[t - start]
                add(dh, from_above[t - start], dh)
                multiply(for_dc, dh, into_dc)
                add(dc, into_dc, dc)
                multiply(dc, f, dc_before)
                multiply(for_i, dc, i)
                multiply(for_j, dc, j)
                multiply(for_f, dc, f)
                multiply(for_o, dh, o)
                if t > 0 or wants_h:
                    product(recurrent, dz, next_dh)
                dc, dc_before = dc_before, dc
        return dc.reshape(self.dc.shape), self.dh


class LargeLoops(Loops):
    """`Loops` of steps that are larger than `MANY`: little is stored, and a step is done while its blocks are near."""

    stored = 6

    def place_c(self) -> list[tuple[Array, ...]]:
        """As `Loops.place_c`; i j and f c of each step go to the same place."""
        self.parts_of_c = aligned((2, *self.blocks[0, 0].shape), self.blocks.dtype)
        every_c = [aligned(self.parts_of_c[0].shape, self.blocks.dtype), *self.blocks[:, C]]
        pairs = zip(self.blocks[:, TANH], itertools.pairwise(every_c), strict=True)
        return [(*self.parts_of_c, tanh_c, c_before, c) for tanh_c, (c_before, c) in pairs]

    def prepare_sweep(self, time: int, units: int, batch: int, dtype: Any) -> None:
        """As `Loops.prepare_sweep`."""
        self.dh, self.dc, self.dc_before, self.d_output = (aligned((units, batch), dtype) for _ in range(4))
        self.backward_views = []
        for block, z, of_c, h in zip(self.blocks, self.gates, self.of_c, self.h[1:], strict=True):
            gates = block[: O + 1]
            *_, tanh_c, c_before, _ = of_c
            self.backward_views.append(((*gates, *gates, c_before, tanh_c, h), matrix(z)))  # dz in the gates' places

    def backward(self, d_outputs: Array, dc: Array, dh: Array, recurrent: Array, wants_h: bool) -> tuple[Array, Array]:
        """As `Loops.backward`."""
        np.copyto(self.dc, dc.T)
        np.copyto(self.dh, dh.T)
        dh, next_dh = self.dh.reshape(-1), matrix(self.dh)
        dc, dc_before, (a, b) = self.dc.reshape(-1), self.dc_before.reshape(-1), self.parts_of_c
        from_above = d_outputs.transpose(0, 2, 1)
        as_made = from_above.flags.c_contiguous  # the layer above made it features first
        for t in reversed(range(len(self.blocks))):
            step, dz = self.backward_views[t]
            d_output = from_above[t]
            if not as_made:
                np.copyto(self.d_output, d_output)
                d_output = self.d_output
            np.add(dh, d_output.reshape(-1), dh)
            step_back(dh, dc, dc_before, a, b, *step)
            if t > 0 or wants_h:
                self.product(recurrent, dz, next_dh)
            dc, dc_before = dc_before, dc
        return dc.reshape(self.dc.shape), self.dh


def step_back(
    dh: Array, dc: Array, dc_before: Array, a: Array, b: Array,
    i: Array, j: Array, f: Array, o: Array, di: Array, dj: Array, df: Array, do: Array,
    c_before: Array, tanh_c: Array, h: Array,
) -> None:  # fmt: skip
    """A step of the sweep of `minilstm.bptt` in 18 calls: from dh and dc after it to its dz, and to dc before it.

    All are arrays of one shape. dc is changed; dc_before, di, dj, df and do are written, and may take the places of the
    gates. What `a` and `b` hold does not matter before and after.
    """
    multiply, add, subtract = np.multiply, np.add, np.subtract
    # dc += dh o (1 - tanh(c)^2), where o tanh(c) is h
    multiply(h, tanh_c, a)
    subtract(o, a, a)
    multiply(a, dh, a)
    add(dc, a, dc)
    # do = dh tanh(c) o (1 - o) = dh (h - h o)
    multiply(h, o, do)
    subtract(h, do, do)
    multiply(do, dh, do)
    # with a = dc i and b = a j:  di = dc j i (1 - i) = b - b i,  dj = dc i (1 - j^2) = a - b j
    multiply(dc, i, a)
    multiply(a, j, b)
    multiply(b, i, di)
    subtract(b, di, di)
    multiply(b, j, dj)
    subtract(a, dj, dj)
    # dc of the step before is dc f; with a = dc f c_before:  df = dc c_before f (1 - f) = a - a f
    multiply(dc, f, dc_before)
    multiply(dc_before, c_before, a)
    multiply(a, f, df)
    subtract(a, df, df)


class OneSequence(Loops):
    """`Loops` of one sequence of few units, where a step costs as many calls as it makes: its sweep makes 4, not 9.

    Its product, with a vector, is no dearer than any other call however much it does. So its matrix also adds the
    output's derivative, and stands there twice: with dh in two places, one call multiplies it with both of its factors.
    """

    def prepare_sweep(self, time: int, units: int, batch: int, dtype: Any) -> None:
        """As `Loops.prepare_sweep`."""
        self.factors = aligned((time, 6, units), dtype)  # of dc, do, di, dj, df, and of dc once more: f
        self.sweep = aligned((time, 7, units), dtype)  # what dh gives to dc; do, di, dj, df; dc and d_outputs before
        self.all_formulas = self.formulas(0, time)
        self.into_dh = aligned((2, units, 6, units), dtype)  # from all of these but the first
        self.into_dh[:, :, 4:] = np.stack([np.zeros((units, units), dtype), np.eye(units, dtype=dtype)], axis=1)
        self.dh_twice, self.dc = aligned((2, units), dtype), aligned((units, batch), dtype)
        self.sweep_views = [
            (factors[:2].reshape(-1), factors[2:], row[0], row[:2].reshape(-1), row[2:6], row[5], row[1:].reshape(-1))
            for factors, row in zip(self.factors, self.sweep, strict=True)
        ]

    def backward(self, d_outputs: Array, dc: Array, dh: Array, recurrent: Array, wants_h: bool) -> tuple[Array, Array]:
        """As `Loops.backward`."""
        units, order = len(recurrent), (O, I, J, F)
        self.form(self.all_formulas)
        np.copyto(self.factors[:, 5], self.blocks[:, F])
        np.copyto(self.into_dh[:, :, :4], recurrent.reshape(units, 4, units)[:, order])
        self.sweep[0, 6] = 0
        np.copyto(self.sweep[1:, 6], d_outputs[:-1, 0])
        np.add(dh, d_outputs[-1], self.dh_twice)
        np.copyto(self.dc, dc.T)

        product, multiply, add = self.product, np.multiply, np.add
        dc, dh_twice, into_dh = self.dc.reshape(-1), self.dh_twice.reshape(-1), self.into_dh.reshape(2 * units, -1)
        for for_dh, for_dc, into_dc, of_dh, of_dc, dc_before, vector in reversed(self.sweep_views):
            multiply(for_dh, dh_twice, of_dh)
            add(dc, into_dc, dc)
            multiply(for_dc, dc, of_dc)
            product(into_dh, vector, dh_twice)
            dc = dc_before
        for n, gate in enumerate(order, 1):
            np.copyto(self.blocks[:, gate], self.sweep[:, n])
        return dc.reshape(self.dc.shape), self.dh_twice[:1].T


def loops_class(batch: int, units: int, itemsize: int) -> type[Loops]:
    """The loops that are the fastest for steps of that size."""
    if batch == 1 and units <= FEW_UNITS:
        return OneSequence
    return LargeLoops if batch * units * itemsize > MANY else Loops


def matrix(x: Array) -> Array:
    """``[rows, batch]``, or ``[rows]`` where batch is 1: `np.dot` is then faster."""
    return x[:, 0] if x.shape[1] == 1 else x
