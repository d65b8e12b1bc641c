"""The elementwise part of `minilstm.kernels`, compiled by numba where that is installed (the extra `fast`).

NumPy goes over the gates of a step nine times on the way forward and nine times on the way back. Compiled, all of it is
one pass each way: a number is fetched once, and the second core's BLAS has less to wait for. At batch 1, where even the
matrix products are small, whole sequences are compiled. Only float32 is: its tanh is a fraction of two polynomials,
which a compiler turns into vector instructions; for float64 NumPy's own is hard to beat.

What is computed is (3) to (9) of `minilstm.cells` and their derivatives, with the halved arguments of the kernel. numba
is loaded by the first pass that can use it, and keeps what it compiled for the next process. ``MINILSTM_COMPILED=0`` in
the environment leaves it out.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .loops import matrix

Array = Any

# tanh(x) = x P(x^2) / Q(x^2) for |x| <= 9, beyond which float32 has only 1: the fraction of these degrees whose largest
# error is smallest (2e-8, found by iterated least squares); evaluated in float32 it is off by at most 4e-7.
NUMERATOR = (0.99999991, 0.13373182, 0.0034865619, 2.0471464e-05, 1.3183668e-08)
DENOMINATOR = (1.0, 0.46706479, 0.025841906, 0.00032713509, 7.7024452e-07)
BOUND = 9.0


class Compiled(NamedTuple):
    """The compiled functions; all arrays are float32 and contiguous.

    ``forward_step(z, c_before, c, h)``: z ``[4 * entries]`` becomes the gates; c and h ``[entries]`` are written.
    ``backward_step(i, j, f, o, c_before, c, d_output, dh, dc)``: the gates become dz, dc that of the step before.
    ``forward_sequence(kernel, columns, gates, c, first_h)`` and ``backward_sequence(recurrent, gates, c, d_outputs, dh,
    dc)`` are the loops over them at batch 1, matrix products included: columns ``[time + 1, rows]`` with h from row
    `first_h` on, gates ``[time, 4 * units]``, c ``[time + 1, units]``.
    """

    forward_step: Callable[..., None]
    backward_step: Callable[..., None]
    forward_sequence: Callable[..., None]
    backward_sequence: Callable[..., None]


def applies(dtype: Any) -> bool:
    """Whether compiled loops can run: for float32, where numba is installed and the environment has nothing against."""
    wanted = os.environ.get("MINILSTM_COMPILED", "1") != "0"
    return wanted and dtype == np.float32 and _compiled() is not None


@functools.lru_cache(maxsize=1)
def _compiled() -> Compiled | None:
    if importlib.util.find_spec("numba") is None:
        return None
    try:
        import numba
    except ImportError as error:  # one that does not go with this NumPy
        warnings.warn(f"minilstm: numba is installed, but cannot be used: {error}", RuntimeWarning, stacklevel=2)
        return None
    try:
        return _compile(numba, cache=True)
    except RuntimeError:  # neither the package's folder nor the user's can be written to
        return _compile(numba, cache=False)


def _compile(numba: Any, cache: bool) -> Compiled:
    # Not `fastmath=True`: that lets a compiler assume that nothing is NaN, and a diverged run shall be seen.
    options = {"nogil": True, "cache": cache, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}
    p0, p1, p2, p3, p4 = (np.float32(value) for value in NUMERATOR)
    q0, q1, q2, q3, q4 = (np.float32(value) for value in DENOMINATOR)
    bound, half, one = np.float32(BOUND), np.float32(0.5), np.float32(1)

    @numba.njit(inline="always", **options)
    def tanh(x):  # type: ignore[no-untyped-def]
        x = bound if x > bound else x  # these comparisons leave a NaN alone; min and max would not
        x = -bound if x < -bound else x
        s = x * x
        return x * ((((p4 * s + p3) * s + p2) * s + p1) * s + p0) / ((((q4 * s + q3) * s + q2) * s + q1) * s + q0)

    @numba.njit(**options)
    def forward_step(z, c_before, c, h):  # type: ignore[no-untyped-def]
        n = c.shape[0]
        for e in range(n):
            i, j = half * tanh(z[e]) + half, tanh(z[n + e])
            f, o = half * tanh(z[2 * n + e]) + half, half * tanh(z[3 * n + e]) + half
            z[e], z[n + e], z[2 * n + e], z[3 * n + e] = i, j, f, o
            c_e = f * c_before[e] + i * j
            c[e] = c_e
            h[e] = o * tanh(c_e)

    # Three loops, because a compiler vectorises a loop only where it can check that its arrays do not overlap, and
    # gives up where there are many.
    @numba.njit(**options)
    def undo_output(o, c, d_output, dh, dc):  # type: ignore[no-untyped-def]
        for e in range(c.shape[0]):
            dh_e, a, o_e = dh[e] + d_output[e], tanh(c[e]), o[e]
            dc[e] += dh_e * o_e * (one - a * a)
            o[e] = dh_e * a * o_e * (one - o_e)

    @numba.njit(**options)
    def undo_input(i, j, dc):  # type: ignore[no-untyped-def]
        for e in range(dc.shape[0]):
            i_e, j_e, dc_e = i[e], j[e], dc[e]
            i[e] = dc_e * j_e * i_e * (one - i_e)
            j[e] = dc_e * i_e * (one - j_e * j_e)

    @numba.njit(**options)
    def undo_forget(f, c_before, dc):  # type: ignore[no-untyped-def]
        for e in range(dc.shape[0]):
            f_e, dc_e = f[e], dc[e]
            f[e] = dc_e * c_before[e] * f_e * (one - f_e)
            dc[e] = dc_e * f_e

    @numba.njit(**options)
    def backward_step(i, j, f, o, c_before, c, d_output, dh, dc):  # type: ignore[no-untyped-def]
        undo_output(o, c, d_output, dh, dc)
        undo_input(i, j, dc)
        undo_forget(f, c_before, dc)

    @numba.njit(**options)
    def multiply(matrix, vector, out):  # type: ignore[no-untyped-def]
        for row in range(matrix.shape[0]):
            total = np.float32(0)
            for k in range(matrix.shape[1]):
                total += matrix[row, k] * vector[k]
            out[row] = total

    @numba.njit(**options)
    def forward_sequence(kernel, columns, gates, c, first_h):  # type: ignore[no-untyped-def]
        for t in range(gates.shape[0]):
            multiply(kernel, columns[t], gates[t])
            forward_step(gates[t], c[t], c[t + 1], columns[t + 1, first_h : first_h + c.shape[1]])

    @numba.njit(**options)
    def backward_sequence(recurrent, gates, c, d_outputs, dh, dc):  # type: ignore[no-untyped-def]
        n = dh.shape[0]
        for t in range(gates.shape[0] - 1, -1, -1):
            dz = gates[t]
            backward_step(dz[:n], dz[n : 2 * n], dz[2 * n : 3 * n], dz[3 * n :], c[t], c[t + 1], d_outputs[t], dh, dc)
            multiply(recurrent, dz, dh)

    return Compiled(forward_step, backward_step, forward_sequence, backward_sequence)


class CompiledLoops:
    """As `minilstm.loops.Loops`, with the same parameters, attributes and methods, for float32."""

    def __init__(self, columns: Array, first_h: int, units: int, adds: bool) -> None:
        time, batch, dtype = len(columns) - 1, columns.shape[2], columns.dtype
        entries = units * batch
        functions = _compiled()
        assert functions is not None
        self.functions = functions
        self.gates = np.empty((time, 4 * units, batch), dtype)
        self.c = np.empty((time + 1, units, batch), dtype)
        self.c_start, self.c_end = self.c[0], self.c[time]
        self.d_outputs = np.empty((time, units, batch), dtype)
        self.dc, self.dh = np.empty((units, batch), dtype), np.empty((units, batch), dtype)
        self.from_h = matrix(np.empty((4 * units, batch), dtype)) if adds else None

        h, c = columns[:, first_h : first_h + units].reshape(time + 1, entries), self.c.reshape(time + 1, entries)
        flat, d_outputs = self.gates.reshape(time, -1), self.d_outputs.reshape(time, entries)
        self.columns, self.first_h, self.whole = columns, first_h, batch == 1 and not adds
        self.forward_views = [
            (matrix(columns[t]), matrix(self.gates[t]), flat[t], c[t], c[t + 1], h[t + 1]) for t in range(time)
        ]
        self.backward_views = [
            (matrix(self.gates[t]), *flat[t].reshape(4, entries), c[t], c[t + 1], d_outputs[t]) for t in range(time)
        ]

    def forward(self, factor: Array) -> None:
        """As `Loops.forward`."""
        if self.whole:
            self.functions.forward_sequence(
                factor, self.columns[..., 0], self.gates[..., 0], self.c[..., 0], self.first_h
            )
            return
        dot, add, from_h, step = np.dot, np.add, self.from_h, self.functions.forward_step
        for column, z, gates, c_before, c, h in self.forward_views:
            if from_h is None:
                dot(factor, column, z)
            else:
                add(z, dot(factor, column, from_h), z)
            step(gates, c_before, c, h)

    def backward(self, d_outputs: Array, dc: Array, dh: Array, recurrent: Array) -> tuple[Array, Array]:
        """As `Loops.backward`."""
        np.copyto(self.dc, dc.T)
        np.copyto(self.dh, dh.T)
        np.copyto(self.d_outputs, d_outputs.transpose(0, 2, 1))
        dc, dh, product = self.dc.reshape(-1), self.dh.reshape(-1), matrix(self.dh)
        if self.whole:
            self.functions.backward_sequence(
                recurrent, self.gates[..., 0], self.c[..., 0], self.d_outputs[..., 0], dh, dc
            )
            return self.dc, self.dh
        dot, step = np.dot, self.functions.backward_step
        for dz, i, j, f, o, c_before, c, d_output in reversed(self.backward_views):
            step(i, j, f, o, c_before, c, d_output, dh, dc)
            dot(recurrent, dz, product)
        return self.dc, self.dh
