"""The passes of `minilstm.kernels` as calls of NumPy.

A `Workspace` owns what a pass stores for every step, and does the pass; its `Loops` are what is repeated for every
step. `minilstm.compiled` has a workspace with the same methods.

- **Features first.** The gates of a step are ``[4 * units, batch]``, made from a column ``[x_t; h_{t-1}; 1]`` for each
  sequence. So every gate is one contiguous block, which halves the price of a small NumPy call, and BLAS divides the
  product among its threads, which it does badly for ``[batch, 4 * units]``. The price: inputs, outputs and their
  derivatives are transposed, once each, where the layer before or after does not take them as they lie.
- **One nonlinearity.** sigmoid(x) = (1 + tanh(x / 2)) / 2. The inner 1/2 is folded into the kernel's copy, so that one
  tanh serves all four gates; NumPy's tanh is vectorised and cheaper than exp and a division. The price: a closed gate
  is accurate to 1e-7 (float32) of 1, not of its own tiny value, as it is in the reference.
- **Few products.** Up to `FOLD_INPUTS` inputs are read by the recurrent product itself; more are multiplied for all
  steps at once. The bias is the kernel's last row. The kernel's gradient is one product over all steps.
- **Factors first.** All that the backward loop multiplies dh and dc with is known beforehand. It is formed for as many
  steps at once as stay in the cache, and only dh and dc themselves go through the loop.
- **Small footprint.** Each dz takes the place of its gate, because memory that is not touched need not be fetched. A
  second sweep over the same pass repeats the forward loop first.
- **Plain calls.** In a small model the price of a step is that of its NumPy calls, 0.5 us each, and three times that
  for one that broadcasts or takes a Python number: so constants are arrays, and a call takes two blocks at once where
  their distances are equal: (i j, f c) times (i, f).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .memory import LINE, aligned, copy_rows, features_first, recycled

Array = Any

# The blocks of a step: the gates in TensorFlow's order, the two parts of c_t, and its tanh.
I, J, F, O, I_J, F_C, TANH_C = range(7)
SCALE, SHIFT = (0.5, 1, 0.5, 0.5), (0.5, 0, 0.5, 0.5)  # from the tanh of each gate to the gate: j is its own tanh
SMALL = 1 << 13  # entries of four gates up to which a constant is an array of their shape
FEW_UNITS = 32  # up to so many a product with a vector is no dearer than a call that does nothing
FOLD_INPUTS = 128  # up to so many inputs the recurrent product reads them too: nothing to store and to add
BLOCK = 96  # rows of the kernel that are transposed at once: their columns stay in the cache
PAGE, CROWD = 4096, 16  # addresses so many bytes apart share 8 lines of the first-level cache; with 16 it becomes slow
CACHE_BYTES = 1 << 19  # of factors formed at once: they shall still be in the second-level cache when used


class Workspace:
    """The arrays of one pass, and the pass; `minilstm.compiled` has another with the same methods.

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
        kind = OneSequence if batch == 1 and units <= FEW_UNITS else Loops
        self.loops = kind(self.columns[:, first:], input_dim - first, units, adds=not self.folded)
        self.has_dz = False  # whether a backward pass has put dz in the place of the gates
        self.inputs_features_first = False

    def forward(
        self, inputs: Array, c: Array, h: Array, kernel: Array, bias: Array, forget_bias: float, as_made: bool
    ) -> tuple[Array, Array, Array]:
        """Outputs ``[time, batch, units]``, final c and final h, from ``inputs [time, batch, input_dim]``.

        Outputs lie as ``[batch, time, units]``, or as they are made, `minilstm.memory.features_first`.
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


class Factors:
    """What dh and dc are multiplied with on the way back, for some steps at once.

    It is made of what the steps have stored: `blocks` ``[time, 7, entries]``, and as many entries of h in every step.
    """

    blocks: Array
    h: Array

    def set_chunk(self, time: int, entries: int, dtype: Any) -> None:
        """Room for the factors of as many steps as stay in the cache."""
        self.chunk = int(max(1, min(time, CACHE_BYTES // (5 * entries * dtype.itemsize))))
        self.factors = aligned((self.chunk, 5, entries), dtype)  # of dc, do, di, dj and df
        ends = ((start, min(start + self.chunk, time)) for start in range(0, time, self.chunk))
        self.pieces = [(start, stop, self._formulas(start, stop)) for start, stop in ends]

    def _formulas(self, start: int, stop: int) -> tuple[tuple[Array, ...], ...]:
        """The views that `form` takes for the steps from `start` to before `stop`, of products that are there."""
        h = self.h[start + 1 : stop + 1]
        blocks, factors = self.blocks[start:stop], self.factors[: stop - start]
        o, tanh_c, for_dc, for_o = (
            x.reshape(h.shape) for x in (blocks[:, O], blocks[:, TANH_C], factors[:, 0], factors[:, 1])
        )
        parts_of_c = blocks[:, I_J : F_C + 1]
        return (
            (parts_of_c, parts_of_c, blocks[:, I : F + 1 : F - I], factors[:, 2:5:2]),  # i (1 - i) j = i j - (i j) i
            (blocks[:, I], blocks[:, I_J], blocks[:, J], factors[:, 3]),  # i (1 - j^2) = i - (i j) j
            (o, h, tanh_c, for_dc),  # o (1 - tanh(c)^2) = o - h tanh(c)
            (h, h, o, for_o),  # o (1 - o) tanh(c) = h - h o
        )

    @staticmethod
    def form(formulas: tuple[tuple[Array, ...], ...]) -> None:
        """The factors of some steps: a number less its product with another, each time."""
        for minuend, product, factor, out in formulas:
            np.multiply(product, factor, out)
            np.subtract(minuend, out, out)


class Loops(Factors):
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
        self.prepare_sweep(time, units, batch, dtype)

    def prepare_sweep(self, time: int, units: int, batch: int, dtype: Any) -> None:
        """The arrays and views of `backward`."""
        entries = units * batch
        self.set_chunk(time, entries, dtype)
        self.d_outputs = aligned((self.chunk, units, batch), dtype)
        self.dh, self.dc, self.dc_before, self.into_dc = (aligned((units, batch), dtype) for _ in range(4))
        self.backward_views = [(*block[:4], matrix(z)) for block, z in zip(self.blocks, self.gates, strict=True)]
        self.factor_views = [tuple(factors) for factors in self.factors]

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


class OneSequence(Loops):
    """`Loops` of one sequence of few units, where a step costs as many calls as it makes: its sweep makes 4, not 9.

    Its product, with a vector, is no dearer than any other call however much it does. So its matrix also adds the
    output's derivative, and stands there twice: with dh in two places, one call multiplies it with both of its factors.
    """

    def prepare_sweep(self, time: int, units: int, batch: int, dtype: Any) -> None:
        """As `Loops.prepare_sweep`."""
        self.factors = aligned((time, 6, units), dtype)  # of dc, do, di, dj, df, and of dc once more: f
        self.sweep = aligned((time, 7, units), dtype)  # what dh gives to dc; do, di, dj, df; dc and d_outputs before
        self.formulas = self._formulas(0, time)
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
        self.form(self.formulas)
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


def matrix(x: Array) -> Array:
    """``[rows, batch]``, or ``[rows]`` where batch is 1: `np.dot` is then faster."""
    return x[:, 0] if x.shape[1] == 1 else x
