"""The two loops of a pass over a sequence, forward and back, as NumPy calls on features-first arrays.

There are three kinds, each the fastest for steps of some size; `loops_class` chooses.

- **All of them** overwrite each gate with its dz: memory that is not touched need not be fetched. A second backward
  pass repeats the forward loop first.
- **`Loops` make few calls.** In a small model a step costs what its NumPy calls cost, 0.5 us each, and three times that
  for a call that broadcasts or takes a Python number. So constants are arrays, and one call processes two blocks at
  equal distances: (i j, f c) times (i, f). All factors of dh and dc are known before the backward loop: they are
  computed for as many steps at once as fit in the cache, and only dh and dc themselves are left to the loop.
- **`OneSequence`** gives most of the work of a single sequence of few units to one product.
- **`minilstm.fast.large_loops.LargeLoops`** use little memory, for large steps and for all options.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .activations import F, I, J, Nonlinearity, O
from .large_loops import LargeLoops
from .memory import aligned, matrix, steps

Array = Any

# The blocks of a step: the gates, then the two parts of c_t and its tanh.
I_J, F_C, TANH_C = 4, 5, 6
FEW_UNITS = 32  # units, at most, for which a matrix-vector product costs one call, whatever its size
CACHE_BYTES = 1 << 19  # of factors computed at once: they must still be in the second-level cache when used
LARGE_BLOCK = 1 << 14  # bytes of a block, above which moving it costs more than calling NumPy


class Loops:
    """What a sequence stores, and both loops over it.

    Parameters
    ----------
    columns : array [time + 1, rows, batch]
        What the recurrent product reads. `units` rows from `first_h` on are h, which `forward` writes.
    first_h, units : int
    adds : bool
        Whether the gates hold the product of the inputs before `forward`, to which the recurrent product is added.
    keeps : bool
        Whether there will be a backward pass. Without it all steps share the memory of one, which stays in the cache.

    Attributes
    ----------
    gates : array [time, 4 * units, batch]
        After `forward` i, j, f, o of each step; after `backward` dz.
    c_start, c_end : array [units, batch]
        c before the first step, which the caller sets before `forward`, and c after the last.
    """

    def __init__(self, columns: Array, first_h: int, units: int, adds: bool, keeps: bool = True) -> None:
        time, batch, dtype = len(columns) - 1, columns.shape[2], columns.dtype
        entries = units * batch
        self.blocks = steps(time, (7, entries), dtype, keeps)  # i, j, f, o, i j, f c, tanh(c)
        self.gates = self.blocks[:, :4].reshape(time, 4 * units, batch)
        self.h = columns[:, first_h : first_h + units].reshape(time + 1, entries)
        every_c = aligned((2, entries), dtype)  # c_{t-1} and c_t alternate
        self.c_start, self.c_end = (c.reshape(units, batch) for c in (every_c[0], every_c[time % 2]))
        self.from_h = matrix(aligned((4 * units, batch), dtype)) if adds else None
        nonlinearity = Nonlinearity(entries, dtype)
        self.scale = nonlinearity.scale
        self.forward_views = []
        for t, block in enumerate(self.blocks):
            column, z, gates = matrix(columns[t]), matrix(self.gates[t]), nonlinearity.views(block[: O + 1])
            c_before, c = every_c[t % 2], every_c[(t + 1) % 2]
            self.forward_views.append((column, z, *gates, *block, c_before, c, self.h[t + 1]))
        if keeps:
            self.prepare_sweep(time, units, batch, dtype)

    def prepare_sweep(self, time: int, units: int, batch: int, dtype: Any) -> None:
        """The arrays and views of `backward`."""
        entries = units * batch
        self.chunk = int(max(1, min(time, CACHE_BYTES // (5 * entries * dtype.itemsize))))
        self.factors = aligned((self.chunk, 5, entries), dtype)  # of dc, dz_o, dz_i, dz_j and dz_f
        ends = ((start, min(start + self.chunk, time)) for start in range(0, time, self.chunk))
        self.pieces = [(start, stop, self.formulas(start, stop)) for start, stop in ends]
        self.d_outputs = aligned((self.chunk, units, batch), dtype)
        self.dh, self.dc, self.dc_before, self.into_dc = (aligned((units, batch), dtype) for _ in range(4))
        self.backward_views = [(*block[:4], matrix(z)) for block, z in zip(self.blocks, self.gates, strict=True)]
        self.factor_views = [tuple(factors) for factors in self.factors]

    def formulas(self, start: int, stop: int) -> tuple[tuple[Array, ...], ...]:
        """The views that `compute` takes for the steps from `start` to before `stop`; the forward loop left them."""
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
    def compute(formulas: tuple[tuple[Array, ...], ...]) -> None:
        """The factors of some steps. Each is ``minuend - product * factor``."""
        for minuend, product, factor, out in formulas:
            np.multiply(product, factor, out)
            np.subtract(minuend, out, out)

    def forward(self, factor: Array) -> None:
        """Compute gates, c and h from the columns; `factor` ``[4 * units, rows]`` is the copy of the kernel."""
        forward_steps(np.dot, factor, self.forward_views, self.from_h)

    def backward(self, d_outputs: Array, dc: Array, dh: Array, recurrent: Array, wants_h: bool) -> tuple[Array, Array]:
        """Compute dz from the gates; return dc and dh ``[units, batch]`` before the first step.

        `d_outputs` is ``[time, batch, units]``, `dc` and `dh` are ``[batch, units]``; `recurrent` ``[units, 4 *
        units]`` holds the rows of the kernel that multiply h. Without `wants_h`, dh stays at its value after the first
        step.
        """
        product, multiply, add = np.dot, np.multiply, np.add
        np.copyto(self.dc, dc.T)
        np.copyto(self.dh, dh.T)
        dh, next_dh = self.dh.reshape(-1), matrix(self.dh)
        dc, dc_before, into_dc = self.dc.reshape(-1), self.dc_before.reshape(-1), self.into_dc.reshape(-1)
        for start, stop, formulas in reversed(self.pieces):
            self.compute(formulas)
            from_above = d_outputs[start:stop].transpose(0, 2, 1)
            if not from_above.flags.c_contiguous:
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


@np.errstate(over="ignore")  # 1 / (1 + exp(-z)) is 0 then
def forward_steps(product: Any, factor: Array, views: list[tuple[Any, ...]], from_h: Array | None = None) -> None:
    """Run the forward loop over the views of all steps, as `Loops` makes them.

    With `from_h`, room for a product, z holds the share of the inputs already, and that of h is added.
    """
    multiply, add, tanh, exp, divide = np.multiply, np.add, np.tanh, np.exp, np.divide
    for column, z, of_tanh, scaled, of_exp, i, j, f, o, i_j, f_c, tanh_c, c_before, c, h in views:
        if from_h is None:
            product(factor, column, z)
        else:
            add(z, product(factor, column, from_h), z)
        tanh(of_tanh, of_tanh)
        for part, scale, shift in scaled:
            multiply(part, scale, part)
            add(part, shift, part)
        for part, one in of_exp:
            exp(part, part)
            add(part, one, part)
            divide(one, part, part)
        multiply(i, j, i_j)
        multiply(f, c_before, f_c)
        add(i_j, f_c, c)
        tanh(c, tanh_c)
        multiply(o, tanh_c, h)


class OneSequence(Loops):
    """`Loops` for one sequence of few units, where each call costs the same: a step back makes 4 calls, not 9.

    At this size a matrix-vector product costs one call, whatever its size. So its matrix also adds the derivative of
    the output, and is stored twice: with dh in two places, one call multiplies it by both of its factors.
    """

    def prepare_sweep(self, time: int, units: int, batch: int, dtype: Any) -> None:
        """As `Loops.prepare_sweep`."""
        self.factors = aligned((time, 6, units), dtype)  # of dc, dz_o, dz_i, dz_j, dz_f, and of dc again: f
        # What dh adds to dc; dz_o, dz_i, dz_j, dz_f; dc and d_outputs before.
        self.sweep = aligned((time, 7, units), dtype)
        self.all_formulas = self.formulas(0, time)
        self.into_dh = aligned((2, units, 6, units), dtype)  # from all of these except the first
        self.into_dh[:, :, 4:] = np.stack([np.zeros((units, units), dtype), np.eye(units, dtype=dtype)], axis=1)
        self.dh_twice, self.dc = aligned((2, units), dtype), aligned((units, batch), dtype)
        self.sweep_views = [
            (factors[:2].reshape(-1), factors[2:], row[0], row[:2].reshape(-1), row[2:6], row[5], row[1:].reshape(-1))
            for factors, row in zip(self.factors, self.sweep, strict=True)
        ]

    def backward(self, d_outputs: Array, dc: Array, dh: Array, recurrent: Array, wants_h: bool) -> tuple[Array, Array]:
        """As `Loops.backward`."""
        units, order = len(recurrent), (O, I, J, F)
        self.compute(self.all_formulas)
        np.copyto(self.factors[:, 5], self.blocks[:, F])
        np.copyto(self.into_dh[:, :, :4], recurrent.reshape(units, 4, units)[:, order])
        self.sweep[0, 6] = 0
        np.copyto(self.sweep[1:, 6], d_outputs[:-1, 0])
        np.add(dh, d_outputs[-1], self.dh_twice)
        np.copyto(self.dc, dc.T)

        product, multiply, add = np.dot, np.multiply, np.add
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


def loops_class(batch: int, units: int, itemsize: int) -> Any:
    """The fastest loops for steps of this size."""
    if batch == 1 and units <= FEW_UNITS:
        return OneSequence
    return LargeLoops if batch * units * itemsize > LARGE_BLOCK else Loops
