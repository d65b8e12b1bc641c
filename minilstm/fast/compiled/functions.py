"""The functions that numba compiles: (1) to (10) of `minilstm.cells` and their undoing, for one part of a batch.

All arrays are float32 and contiguous, and a sequence is a row: columns ``[time + 1, rows, k]`` hold ``[x_t, h_{t-1},
1]``, next to gates ``[time, rows, 4 * units]`` and c ``[time + 1, rows, units]``. The right operand of a product is
stored in panels ``[_, depth, COLUMNS]``. Results, gates too, are as wide as whole panels; the entries beyond are not
used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from .tile import COLUMNS, ROWS, tile

Array = Any

# tanh(x) = x P(x^2) / Q(x^2) for |x| <= 9; beyond, float32 has only 1. Of all fractions of these degrees this one has
# the smallest largest error (2e-8, found by iterated least squares); evaluated in float32 it is off by at most 4e-7.
NUMERATOR = (0.99999991, 0.13373182, 0.0034865619, 2.0471464e-05, 1.3183668e-08)
DENOMINATOR = (1.0, 0.46706479, 0.025841906, 0.00032713509, 7.7024452e-07)
BOUND = 9.0

# The length of sums before they are added up: what is read repeatedly in the meantime stays in the cache.
DEPTH = 256  # in a product of a step
CHUNK = 64  # in the kernel's gradient
LONG_CHUNK = 256  # in that of a kernel with more than LARGE entries: no cache of a core holds it until the next chunk
LARGE = 1 << 19
BLOCK = 64  # rows that are transposed together

_P0, _P1, _P2, _P3, _P4 = (np.float32(value) for value in NUMERATOR)
_Q0, _Q1, _Q2, _Q3, _Q4 = (np.float32(value) for value in DENOMINATOR)
_BOUND, HALF, ONE, ZERO = np.float32(BOUND), np.float32(0.5), np.float32(1), np.float32(0)
_SHUT = np.float32(1000)  # gates past the end of a sequence are beyond it, those of no trained network

# Not `fastmath=True`: with it the compiler assumes that no number is NaN, but a diverged run must be seen.
EXACT = {"nogil": True, "error_model": "numpy"}
FAST = {**EXACT, "fastmath": {"contract", "reassoc", "nsz"}}


def compiled(options: dict[str, Any]) -> Callable[[Any], Any]:
    """A decorator: numba compiles the function, for this process alone if no cache folder can be written."""

    def compile_it(function: Any) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            return numba.njit(**options)(function)

    return compile_it


@numba.njit(inline="always", **FAST)
def tanh(x):  # type: ignore[no-untyped-def]
    """The fraction above; far beyond its bound exactly 1, so that a gate that is shut lets nothing through.

    These comparisons pass a NaN on; min and max would not.
    """
    t = _BOUND if x > _BOUND else x
    t = -_BOUND if t < -_BOUND else t
    s = t * t
    y = t * ((((_P4 * s + _P3) * s + _P2) * s + _P1) * s + _P0) / ((((_Q4 * s + _Q3) * s + _Q2) * s + _Q1) * s + _Q0)
    y = ONE if x > _SHUT else y
    return -ONE if x < -_SHUT else y


@compiled(FAST)
def step_cell(z, c_before, c):  # type: ignore[no-untyped-def]
    """One step of one sequence up to c: the first three blocks of z, halved for the sigmoids, become i, j, f."""
    n = c.shape[0]
    for e in range(n):
        i, j, f = HALF * tanh(z[e]) + HALF, tanh(z[n + e]), HALF * tanh(z[2 * n + e]) + HALF
        z[e], z[n + e], z[2 * n + e] = i, j, f
        c[e] = f * c_before[e] + i * j


@compiled(FAST)
def step_output(z_o, c, h):  # type: ignore[no-untyped-def]
    """The rest of the step: z_o, halved, becomes o."""
    for e in range(c.shape[0]):
        o = HALF * tanh(z_o[e]) + HALF
        z_o[e] = o
        h[e] = o * tanh(c[e])


# A step is two loops and a step back three, with what options add between them: a compiler vectorises a loop only if it
# can check that the arrays do not overlap, and it gives up if there are many.


@compiled(FAST)
def step_back_output(o, c, dh, dc):  # type: ignore[no-untyped-def]
    """Add the share of dh to dc, and overwrite o with dz_o."""
    for e in range(c.shape[0]):
        dh_e, a, o_e = dh[e], tanh(c[e]), o[e]
        dc[e] += dh_e * o_e * (ONE - a * a)
        o[e] = dh_e * a * o_e * (ONE - o_e)


@compiled(FAST)
def step_back_input(i, j, dc):  # type: ignore[no-untyped-def]
    """Overwrite i and j with dz_i and dz_j."""
    for e in range(dc.shape[0]):
        i_e, j_e, dc_e = i[e], j[e], dc[e]
        i[e] = dc_e * j_e * i_e * (ONE - i_e)
        j[e] = dc_e * i_e * (ONE - j_e * j_e)


@compiled(FAST)
def step_back_forget(f, c_before, dc):  # type: ignore[no-untyped-def]
    """Overwrite f with dz_f, and dc with dc before the step."""
    for e in range(dc.shape[0]):
        f_e, dc_e = f[e], dc[e]
        f[e] = dc_e * c_before[e] * f_e * (ONE - f_e)
        dc[e] = dc_e * f_e


@compiled(FAST)
def add_product(out, a, b, factor):  # type: ignore[no-untyped-def]
    """``out += factor * a * b``."""
    for e in range(b.shape[0]):
        out[e] += factor * a[e] * b[e]


@compiled(FAST)
def add_output(dh, masks, d_output):  # type: ignore[no-untyped-def]
    """From dh with respect to the carried h to dh with respect to h, of one sequence; `masks` may be empty."""
    for e in range(masks.shape[0]):
        dh[e] *= masks[e]
    for e in range(d_output.shape[0]):
        dh[e] += d_output[e]


@compiled(FAST)
def carry(h, masks, output):  # type: ignore[no-untyped-def]
    """The h of the next step from the output of this one."""
    for e in range(output.shape[0]):
        h[e] = output[e]
    for e in range(masks.shape[0]):
        h[e] *= masks[e]


@compiled(FAST)
def take_apart(d_column, d_inputs, dh):  # type: ignore[no-untyped-def]
    """From the derivative of ``[x_t, h_{t-1}]`` to those of both."""
    inputs = d_inputs.shape[0]
    for e in range(inputs):
        d_inputs[e] = d_column[e]
    for e in range(dh.shape[0]):
        dh[e] = d_column[inputs + e]


@compiled(FAST)
def clip(x, bound, unclipped):  # type: ignore[no-untyped-def]
    """Keep x as it was, and clip it."""
    for e in range(x.shape[0]):
        y = x[e]
        unclipped[e] = y
        y = bound if y > bound else y
        x[e] = -bound if y < -bound else y


@compiled(FAST)
def stop_at_bound(derivative, bound, unclipped):  # type: ignore[no-untyped-def]
    """The derivative before a clip: 0 where something was clipped."""
    for e in range(unclipped.shape[0]):
        derivative[e] = derivative[e] if abs(unclipped[e]) <= bound else ZERO * derivative[e]


@compiled(FAST)
def product(a, first, last, panels, out, adds):  # type: ignore[no-untyped-def]
    """``out [rows, columns] = a @ b``, or ``+=``, for the columns of `a` and rows of `b` from `first` to before `last`.

    ``b [depth, columns]`` is given as panels.
    """
    rows, width, depth, out_width = a.shape[0], a.shape[1], panels.shape[1], out.shape[1]
    blocks, sums = (rows + ROWS - 1) // ROWS, (last - first + DEPTH - 1) // DEPTH
    flat_a, flat_panels, flat_out = a.reshape(-1), panels.reshape(-1), out.reshape(-1)
    for panel in range(panels.shape[0]):
        for part in range(sums):
            k = first + (last - first) * part // sums
            k_stop = first + (last - first) * (part + 1) // sums
            for block in range(blocks):
                row, row_stop = rows * block // blocks, rows * (block + 1) // blocks
                tile(
                    row_stop - row, flat_a, row * width + k, width, 1,
                    flat_panels, (panel * depth + k) * COLUMNS,
                    flat_out, row * out_width + panel * COLUMNS, out_width, k_stop - k, adds or part > 0,
                )  # fmt: skip


@compiled(FAST)
def at_once(d_kernel):  # type: ignore[no-untyped-def]
    """The length of the sums in this gradient."""
    return LONG_CHUNK if d_kernel.size > LARGE else CHUNK


@compiled(FAST)
def kernel_gradient(columns, first, dz, adds, out):  # type: ignore[no-untyped-def]
    """``columns[:, first : first + k]^T @ dz [n, width]``; `adds` adds it to `out`.

    `out` is ``[panels, k, COLUMNS]``, so that the entries a tile adds to are neighbours, too.
    """
    columns_width, k = columns.shape[1], out.shape[1]
    blocks, longest = (k + ROWS - 1) // ROWS, at_once(out)
    some_dz = np.empty(longest * COLUMNS, np.float32)  # some rows of one panel of dz
    flat_columns, flat_out = columns.reshape(-1), out.reshape(-1)
    for chunk in range(0, columns.shape[0], longest):
        depth = min(longest, columns.shape[0] - chunk)
        for panel in range(out.shape[0]):
            for n in range(depth):
                for column in range(COLUMNS):
                    some_dz[n * COLUMNS + column] = dz[chunk + n, panel * COLUMNS + column]
            for block in range(blocks):
                start, stop = k * block // blocks, k * (block + 1) // blocks
                tile(
                    stop - start, flat_columns, chunk * columns_width + first + start, 1, columns_width,
                    some_dz, 0,
                    flat_out, (panel * k + start) * COLUMNS, COLUMNS, depth, adds or chunk > 0,
                )  # fmt: skip


@compiled(FAST)
def forward(panels, columns, gates, c, outputs, inputs, folded, peepholes, c_clip, m, projection, h_clip, masks):  # type: ignore[no-untyped-def]
    """All steps of a part: outputs ``[rows, time, width]``, and h after the `inputs` entries of x in the columns.

    Inputs that are not `folded` into the products of the steps are multiplied for all steps at once. What a cell does
    not have is empty: `peepholes` ``[3, 1, units]``; `masks` of h, `m` before a projection and what was clipped,
    ``[time, rows, _]``. A clip is a pair, its bound first; a `projection` is given as panels.
    """
    time, rows, width = gates.shape
    units, depth, size = c.shape[2], columns.shape[2], outputs.shape[2]
    projected = np.empty((rows, projection.shape[0] * COLUMNS), np.float32)
    if not folded:
        x = columns[:time].reshape(time * rows, depth)
        product(x, 0, inputs, panels, gates.reshape(time * rows, width), False)
    for t in range(time):
        product(columns[t], 0 if folded else inputs, depth, panels, gates[t], not folded)
        for row in range(rows):
            z, before, after = gates[t, row], c[t, row], c[t + 1, row]
            z_o = z[3 * units : 4 * units]
            if peepholes.shape[0]:
                add_product(z, peepholes[0, 0], before, HALF)
                add_product(z[2 * units :], peepholes[1, 0], before, HALF)
            step_cell(z, before, after)
            if c_clip[1].shape[0]:
                clip(after, c_clip[0], c_clip[1][t, row])
            if peepholes.shape[0]:
                add_product(z_o, peepholes[2, 0], after, HALF)
            step_output(z_o, after, m[t, row] if m.shape[0] else outputs[row, t])
        if m.shape[0]:
            product(m[t], 0, units, projection, projected, False)
        for row in range(rows):
            output = outputs[row, t]
            if m.shape[0]:
                for e in range(size):
                    output[e] = projected[row, e]
            if h_clip[1].shape[0]:
                clip(output, h_clip[0], h_clip[1][t, row])
            carry(columns[t + 1, row, inputs:], masks[t, row], output)


@compiled(FAST)
def backward(  # type: ignore[no-untyped-def]
    panels, columns, gates, c, d_outputs, dc, dh, d_columns, d_inputs, d_kernel,
    peepholes, d_peepholes, c_clip, m, projection, every_dh, dm, d_projection, h_clip, masks,
):  # fmt: skip
    """The backward pass of a part: dz overwrites the gates; dc and dh ``[rows, _]`` become those before step 0.

    `panels` hold the transposed kernel, and `d_columns` has room for a product with it, whose first columns are
    d_inputs ``[rows, time, inputs]``. If d_inputs are not wanted, `inputs` is 0 and `panels` start at h. The kernel's
    gradient is summed every few steps, while their dz is still in the cache. `projection` is transposed here; `dm` is
    room for a product with it, and without it dh itself.
    """
    time, rows, width = gates.shape
    units, size, steps = c.shape[2], dh.shape[1], max(1, at_once(d_kernel) // rows)
    d_peepholes[:] = 0
    for stop in range(time, 0, -steps):
        start = max(0, stop - steps)
        for t in range(stop - 1, start - 1, -1):
            for row in range(rows):
                add_output(dh[row], masks[t, row], d_outputs[row, t])
                if h_clip[1].shape[0]:
                    stop_at_bound(dh[row], h_clip[0], h_clip[1][t, row])
            if m.shape[0]:
                for row in range(rows):
                    for e in range(size):
                        every_dh[t, row, e] = dh[row, e]
                product(every_dh[t], 0, size, projection, dm, False)
            for row in range(rows):
                dz, dc_row, before, after = gates[t, row], dc[row], c[t, row], c[t + 1, row]
                dz_f, dz_o = dz[2 * units : 3 * units], dz[3 * units : 4 * units]
                step_back_output(dz_o, after, dm[row], dc_row)
                if peepholes.shape[0]:
                    add_product(d_peepholes[2, 0], dz_o, after, ONE)
                    add_product(dc_row, dz_o, peepholes[2, 0], ONE)
                if c_clip[1].shape[0]:
                    stop_at_bound(dc_row, c_clip[0], c_clip[1][t, row])
                step_back_input(dz[:units], dz[units : 2 * units], dc_row)
                step_back_forget(dz_f, before, dc_row)
                if peepholes.shape[0]:
                    for gate, dz_gate in enumerate((dz[:units], dz_f)):
                        add_product(d_peepholes[gate, 0], dz_gate, before, ONE)
                        add_product(dc_row, dz_gate, peepholes[gate, 0], ONE)
            product(gates[t], 0, 4 * units, panels, d_columns, False)
            for row in range(rows):
                take_apart(d_columns[row], d_inputs[row, t], dh[row])
        n, adds = (stop - start) * rows, stop < time
        some_columns, some_dz = columns[start:stop].reshape(n, columns.shape[2]), gates[start:stop].reshape(n, width)
        kernel_gradient(some_columns, 0, some_dz, adds, d_kernel)
        if m.shape[0]:
            some_m, some_dh = m[start:stop].reshape(n, units), every_dh[start:stop].reshape(n, every_dh.shape[2])
            kernel_gradient(some_m, 0, some_dh, adds, d_projection)


@compiled(FAST)
def pack(matrix, scale, panels, start):  # type: ignore[no-untyped-def]
    """Store ``matrix [depth, columns]`` times `scale` ``[columns]`` in panels ``[_, _, COLUMNS]``, from row `start`."""
    for panel in range(panels.shape[0]):
        first = panel * COLUMNS
        for k in range(matrix.shape[0]):
            for lane in range(min(COLUMNS, matrix.shape[1] - first)):
                panels[panel, start + k, lane] = matrix[k, first + lane] * scale[first + lane]


@compiled(FAST)
def pack_transposed(matrix, panels):  # type: ignore[no-untyped-def]
    """Store the transpose of ``matrix [columns, depth]`` in panels, in blocks that stay in the cache."""
    columns, depth = matrix.shape
    for panel in range(panels.shape[0]):
        first = panel * COLUMNS
        for start in range(0, depth, BLOCK):
            for lane in range(min(COLUMNS, columns - first)):
                for k in range(start, min(start + BLOCK, depth)):
                    panels[panel, k, lane] = matrix[first + lane, k]


@compiled(FAST)
def unpack(panels, matrix, adds):  # type: ignore[no-untyped-def]
    """Copy panels to ``matrix [depth, columns]``, or add them to it."""
    for panel in range(panels.shape[0]):
        first = panel * COLUMNS
        for k in range(matrix.shape[0]):
            for lane in range(min(COLUMNS, matrix.shape[1] - first)):
                before = matrix[k, first + lane] if adds else np.float32(0)
                matrix[k, first + lane] = before + panels[panel, k, lane]
