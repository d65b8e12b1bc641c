"""A pass over a sequence in NumPy that may be derived twice. The readable twin is `minilstm.second.tangents`.

It has the layout of `minilstm.fast.workspace` (features first, one nonlinearity) and the factors of
`minilstm.fast.loops`, and keeps all that those overwrite. Along a direction everything is linear:

- **The factors of the backward pass serve both.** With D_k the derivative of c with respect to z_k for k = i, j, f, and
  D_o, D_c those of h with respect to z_o and c, the backward loop computes dz_k = D_k dc, dz_o = D_o dh and adds D_c dh
  to dc; the tangents are rc = D_i rz_i + D_j rz_j + D_f rz_f + f rc_before and rh = D_o rz_o + D_c rc. So the loop of
  the tangents is shorter than the forward loop, and has no tanh.
- **The loop of the second derivatives is the backward loop with a source.** R{dz_k} = D_k R{dc} + R{D_k} dc, and the
  second term is known before the loop: it is computed for as many steps at once as fit in the cache.
- **A step has one product.** Column [rx_t; x_t; h; 1; rh] and matrix [K_x, rK, K_h] give rz; [R{dz}; dz] and
  [K_h, rK_h] give R{dh}.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..gates import GATES
from ..primitives import filled
from .loops import CACHE_BYTES, SCALE, SHIFT, SMALL, F, I, J, O, forward_steps
from .memory import aligned, copy_rows, recycled
from .workspace import unbuffered, whole_bias

Array = Any

D_C = 4  # the place of D_c, after those of D_i, D_j, D_f and D_o
assert (I, J, F, O) == tuple(map(GATES.index, "ijfo")) == (0, 1, 2, 3)


class SecondWorkspace:
    """The arrays of one pass and of its derivatives along one direction, and both.

    It has the methods of `minilstm.fast.workspace.ColumnWorkspace`, and two for tangents.

    Parameters
    ----------
    time, batch, input_dim, units : int
    dtype : data type of all arrays
    """

    def __init__(self, time: int, batch: int, input_dim: int, units: int, dtype: Any) -> None:
        rows, size = input_dim + units + 1, units * batch
        self.shape = time, batch, input_dim, units
        self.x_h = slice(input_dim, input_dim + rows)  # of a column [rx; x; h; 1; rh]
        self.columns = aligned((time + 1, rows + input_dim + units, batch), dtype)
        self.columns[:, self.x_h][:, -1] = 1
        self.h = self.columns[:, self.x_h][:, input_dim:-1]
        self.rx, self.rh = self.columns[:, :input_dim], self.columns[:, self.x_h.stop :]
        self.factor = aligned((4 * units, rows), dtype)
        self.r_factor = aligned((4 * units, self.columns.shape[1]), dtype)
        self.recurrent = aligned((units, 8 * units), dtype)  # [K_h, rK_h]

        self.gates, self.tanh_c = aligned((time, 4, size), dtype), aligned((time, size), dtype)
        self.c = aligned((time + 1, size), dtype)
        self.factors = aligned((time, 5, size), dtype)
        self.rz_rc = aligned((time, 5, size), dtype)
        self.rc_start = aligned((size,), dtype)
        self.parts = aligned((time, 6, size), dtype)  # D_i rz_i, D_j rz_j, D_f rz_f, f rc_before, D_o rz_o, D_c rc
        self.r_i_j_f_c = aligned((time, 2, size), dtype)  # R{i j}, R{f c_before}
        self.dz = aligned((time, 8, size), dtype)  # R{dz}, dz
        self.dc, self.dh = aligned((time, size), dtype), aligned((time, size), dtype)
        self.all_columns = aligned((self.columns.shape[1], time, batch), dtype)
        self.all_dz = aligned((8 * units, time, batch), dtype)

        self.kernel_scale = np.repeat(np.array(SCALE, dtype), units)
        self.chunk = max(1, min(time, CACHE_BYTES // (6 * size * np.dtype(dtype).itemsize)))
        self.moved = aligned((self.chunk, 6, size), dtype)  # R{D_k} of some steps, and R{f}; then times dc or dh
        self.spare = aligned((self.chunk, 3, size), dtype)
        self.step_spare = aligned((3, size), dtype)
        self.product = np.dot if 4 * size <= SMALL else np.matmul
        self._make_views(size, dtype)
        self.given: Any = None  # what the last backward pass, and the last tangents, were given
        self.directions: Any = None

    def _make_views(self, size: int, dtype: Any) -> None:
        """The views of each step, which cost 0.2 us each, for the four loops."""
        time, batch, _, units = self.shape
        half = np.array(0.5, dtype)
        scale, shift = (np.repeat(np.array(row, dtype), size) for row in (SCALE, SHIFT))
        new_h, new_rh = (h[1:].reshape(time, size) for h in (self.h, self.rh))
        self.forward_views, self.tangent_views, self.backward_views, self.second_views = [], [], [], []
        before = self.rc_start
        for t, (gates, factors, parts) in enumerate(zip(self.gates, self.factors, self.parts, strict=True)):
            z, rz_rc, of_c = gates.reshape(-1), self.rz_rc[t], self.r_i_j_f_c[t]
            sigmoids: tuple[Any, ...] = ((z, scale, shift),)  # as in `minilstm.fast.loops`
            if z.size > SMALL:
                sigmoids = ((gates[I], half, half), (gates[F : O + 1].reshape(-1), half, half))
            of_c_and_h = *self.step_spare[:2], self.tanh_c[t], self.c[t], self.c[t + 1], new_h[t]  # i j and f c first
            column = self.columns[t, self.x_h]
            self.forward_views.append((column, gates.reshape(4 * units, batch), z, sigmoids, *gates, *of_c_and_h))
            of_z = rz_rc[:4].reshape(4 * units, batch), factors[:3].reshape(-1), rz_rc[:3].reshape(-1)
            of_c_h = parts[:3].reshape(-1), gates[F], before, *parts[:4]
            of_h = rz_rc[4], factors[3:].reshape(-1), rz_rc[3:].reshape(-1), parts[4:].reshape(-1), *parts[4:]
            self.tangent_views.append((*of_z, *of_c_h, *of_c, *of_h, new_rh[t]))
            before = rz_rc[4]
            dz, rdz = self.dz[t, 4:], self.dz[t, :4]
            self.backward_views.append(
                (self.dh[t], self.dc[t], *factors, *dz, gates[F], dz.reshape(4 * units, batch))
            )  # fmt: skip
            both = self.dz[t].reshape(8 * units, batch)
            self.second_views.append((*factors, *rdz, rdz.reshape(-1), gates[F], both))
        self.source_views = [(moved[:4].reshape(-1), moved[D_C], moved[D_C + 1]) for moved in self.moved]

    @unbuffered()
    def forward(
        self, inputs: Array, c: Array, h: Array, kernel: Array, bias: Array, forget_bias: float
    ) -> tuple[Array, Array, Array]:
        """As `ColumnWorkspace.forward`."""
        time, batch, input_dim, units = self.shape
        self.given = self.directions = None
        np.copyto(self.columns[:time, self.x_h][:, :input_dim], inputs.transpose(0, 2, 1))
        np.copyto(self.h[0], h.T)
        np.copyto(self.c[0].reshape(units, batch), c.T)
        np.multiply(kernel.T, self.kernel_scale[:, None], out=self.factor[:, :-1])
        np.multiply(whole_bias(bias, forget_bias), self.kernel_scale, out=self.factor[:, -1])
        forward_steps(self.product, self.factor, self.forward_views)
        self._compute_factors()
        outputs = recycled((batch, time, units), inputs.dtype)
        np.copyto(outputs, self.h[1:].transpose(2, 0, 1))
        return outputs.transpose(1, 0, 2), self.c[time].reshape(units, batch).T.copy(), self.h[time].T.copy()

    def _compute_factors(self) -> None:
        """D_i = p - p i and D_j = i - p j with p = i j; D_f = q - q f with q = f c; D_o = h - h o; D_c = o - h a."""
        multiply, subtract, factors = np.multiply, np.subtract, self.factors
        new_h = self.h[1:].reshape(len(factors), -1)
        for start in range(0, len(factors), self.chunk):
            steps = slice(start, start + self.chunk)
            i, j, f, o = self.gates[steps].swapaxes(0, 1)
            product, _, _ = self.spare[: len(i)].swapaxes(0, 1)
            d_i, d_j, d_f, d_o, d_c = factors[steps].swapaxes(0, 1)
            multiply(i, j, product)
            for value, minuend, by, out in (
                (product, product, i, d_i), (product, i, j, d_j),
                (new_h[steps], new_h[steps], o, d_o), (new_h[steps], o, self.tanh_c[steps], d_c),
            ):  # fmt: skip
                multiply(value, by, out)
                subtract(minuend, out, out)
            multiply(f, self.c[steps.start : steps.start + len(f)], product)
            multiply(product, f, d_f)
            subtract(product, d_f, d_f)

    @unbuffered()
    def backward(
        self, d_outputs: Array, dc: Array, dh: Array, c: Array, kernel: Array, wants_inputs: bool, wants_h: bool
    ) -> tuple[Array | None, Array, Array | None, Array]:
        """As `ColumnWorkspace.backward`."""
        time, batch, input_dim, units = self.shape
        self.given = d_outputs, dc, dh
        recurrent = self.recurrent[:, : 4 * units]
        np.copyto(recurrent, kernel[input_dim:])
        product, multiply, add = self.product, np.multiply, np.add
        next_dc, next_dh, spare = self.step_spare
        as_matrix = next_dh.reshape(units, batch)
        np.copyto(next_dc.reshape(units, batch), dc.T)
        np.copyto(as_matrix, dh.T)
        np.copyto(self.dh.reshape(time, units, batch), d_outputs.transpose(0, 2, 1))
        for dh_t, dc_t, d_i, d_j, d_f, d_o, d_c, dz_i, dz_j, dz_f, dz_o, f, dz in reversed(self.backward_views):
            add(next_dh, dh_t, dh_t)
            multiply(d_c, dh_t, spare)
            add(next_dc, spare, dc_t)
            multiply(d_i, dc_t, dz_i)
            multiply(d_j, dc_t, dz_j)
            multiply(d_f, dc_t, dz_f)
            multiply(d_o, dh_t, dz_o)
            multiply(f, dc_t, next_dc)
            product(recurrent, dz, as_matrix)
        ends = next_dc.reshape(units, batch).T.copy(), as_matrix.T.copy()
        copy_rows(self.all_columns[self.x_h], self.columns[:time, self.x_h].transpose(1, 0, 2))
        copy_rows(self.all_dz[4 * units :], self.dz[:, 4:].reshape(time, 4 * units, batch).transpose(1, 0, 2))
        all_columns, dz = self.all_columns[self.x_h].reshape(-1, time * batch), self._flat_dz()[4 * units :]
        d_inputs = self._of_inputs(kernel[:input_dim] @ dz) if wants_inputs else None
        return d_inputs, ends[0], ends[1], all_columns @ dz.T

    def _flat_dz(self) -> Array:
        return self.all_dz.reshape(len(self.all_dz), -1)

    def _of_inputs(self, columns: Array) -> Array:
        """``[input_dim, time * batch]`` as ``[time, batch, input_dim]``."""
        time, batch, input_dim, _ = self.shape
        return np.ascontiguousarray(columns.reshape(input_dim, time, batch).transpose(1, 2, 0))

    @unbuffered()
    def tangents(self, directions: Any, values: Any) -> tuple[Array, Array, Array]:
        """How outputs, final c and final h move if inputs, c, h, kernel and bias, the `values`, move along
        `directions` (None is 0).
        """
        time, batch, input_dim, units = self.shape
        self.directions = directions
        kernel = values[3]
        _, rc, rh, r_kernel, r_bias = filled(directions, values)
        moves = directions[0] is not None
        if moves:
            np.copyto(self.rx[:time], directions[0].transpose(0, 2, 1))
        else:
            self.rx[:time] = 0
        np.copyto(self.rh[0], rh.T)
        np.copyto(self.rc_start.reshape(units, batch), rc.T)
        first = 0 if moves else input_dim
        factor, columns = self.r_factor[:, first:], self.columns[:, first:]
        if moves:
            np.copyto(factor[:, :input_dim], kernel[:input_dim].T)
        np.copyto(self.r_factor[:, self.x_h][:, :-1], r_kernel.T)
        np.copyto(self.r_factor[:, self.x_h][:, -1], r_bias)
        np.copyto(self.r_factor[:, self.x_h.stop :], kernel[input_dim:].T)
        product, multiply, add = self.product, np.multiply, np.add
        for column, views in zip(columns, self.tangent_views, strict=False):
            rz, d_ijf, rz_ijf, p_ijf, f, before, p_i, p_j, p_f, p_before, r_i_j, r_f_c, rc, *of_h = views
            d_o_c, rz_o_rc, p_o_c, p_o, p_c, new_rh = of_h
            product(factor, column, rz)
            multiply(d_ijf, rz_ijf, p_ijf)
            multiply(f, before, p_before)
            add(p_i, p_j, r_i_j)
            add(p_f, p_before, r_f_c)
            add(r_i_j, r_f_c, rc)
            multiply(d_o_c, rz_o_rc, p_o_c)
            add(p_o, p_c, new_rh)
        r_outputs = np.ascontiguousarray(self.rh[1:].transpose(0, 2, 1))
        return r_outputs, rc.reshape(units, batch).T.copy(), self.rh[time].T.copy()

    def _compute_sources(self, start: int, stop: int) -> None:
        """R{D_k} dc, R{D_o} dh, R{D_c} dh and R{f} dc of some steps, in `moved`."""
        steps, multiply, add, subtract = slice(start, stop), np.multiply, np.add, np.subtract
        i, j, f, o = self.gates[steps].swapaxes(0, 1)
        p_i, p_j, p_f, _, p_o, p_c = self.parts[steps].swapaxes(0, 1)
        of_i_j, of_f_c = self.r_i_j_f_c[steps].swapaxes(0, 1)
        rh = self.rh[start + 1 : stop + 1].reshape(stop - start, -1)
        moved = self.moved[: stop - start]
        ri, rf, ro = slopes = self.spare[: stop - start].swapaxes(0, 1)
        for gate, rz, slope in zip((i, f, o), self.rz_rc[steps, (I, F, O)].swapaxes(0, 1), slopes, strict=True):
            multiply(gate, gate, slope)
            subtract(gate, slope, slope)
            multiply(slope, rz, slope)
        r_i, r_j, r_f, r_o, r_c, of_f = moved.swapaxes(0, 1)
        for minuend, value, part, by, out in (
            (of_i_j, of_i_j, p_i, i, r_i),  # D_i = p - p i, p = i j; and R{p} i + p R{i} = i (R{p} + p_i)
            (ri, of_i_j, p_j, j, r_j),  # D_j = i - p j
            (of_f_c, of_f_c, p_f, f, r_f),  # D_f = q - q f, q = f c_before
            (rh, rh, p_o, o, r_o),  # D_o = h - h o
            (ro, rh, p_c, self.tanh_c[steps], r_c),  # D_c = o - h a
        ):
            add(value, part, out)
            multiply(out, by, out)
            subtract(minuend, out, out)
        dc, dh = self.dc[steps], self.dh[steps]
        for out, factor in ((r_i, dc), (r_j, dc), (r_f, dc), (r_o, dh), (r_c, dh)):
            multiply(out, factor, out)
        multiply(rf, dc, of_f)

    @unbuffered()
    def backward_tangents(self, r_given: Any, directions: Any, given: Any, values: Any, wants_inputs: bool) -> Any:
        """How the derivatives of inputs (None unless wanted), c, h, kernel and bias move.

        `r_given` are the directions of `given`, which are d_outputs, dc and dh.
        """
        time, batch, input_dim, units = self.shape
        kernel, r_kernel = values[3], directions[3]
        if self.given is None or any(a is not b for a, b in zip(self.given, given, strict=True)):
            d_outputs, dc, dh = given
            self.backward(d_outputs, dc, dh, values[1], kernel, False, True)
        if self.directions is None or any(a is not b for a, b in zip(self.directions, directions, strict=True)):
            self.tangents(directions, values)
        if r_kernel is None:
            r_kernel = np.zeros_like(kernel)
        rd_outputs, rdc, rdh = filled(r_given, given)
        np.copyto(self.recurrent[:, : 4 * units], kernel[input_dim:])
        np.copyto(self.recurrent[:, 4 * units :], r_kernel[input_dim:])
        product, multiply, add = self.product, np.multiply, np.add
        next_rdc, next_rdh, spare = self.step_spare
        as_matrix = next_rdh.reshape(units, batch)
        np.copyto(next_rdc.reshape(units, batch), rdc.T)
        np.copyto(as_matrix, rdh.T)
        source_views = self.source_views
        from_above = np.ascontiguousarray(rd_outputs.transpose(0, 2, 1)).reshape(time, -1)
        for start in reversed(range(0, time, self.chunk)):
            stop = min(start + self.chunk, time)
            self._compute_sources(start, stop)
            for t in reversed(range(start, stop)):
                d_i, d_j, d_f, d_o, d_c, rdz_i, rdz_j, rdz_f, rdz_o, rdz, f, both = self.second_views[t]
                of_z, of_c, of_f = source_views[t - start]
                add(next_rdh, from_above[t], next_rdh)
                multiply(d_c, next_rdh, spare)
                add(next_rdc, spare, next_rdc)
                add(next_rdc, of_c, next_rdc)
                multiply(d_i, next_rdc, rdz_i)
                multiply(d_j, next_rdc, rdz_j)
                multiply(d_f, next_rdc, rdz_f)
                multiply(d_o, next_rdh, rdz_o)
                add(rdz, of_z, rdz)
                multiply(f, next_rdc, next_rdc)
                add(next_rdc, of_f, next_rdc)
                product(self.recurrent, both, as_matrix)
        ends = next_rdc.reshape(units, batch).T.copy(), as_matrix.T.copy()
        return self._over_all_steps(kernel, r_kernel, ends, wants_inputs)

    def _over_all_steps(self, kernel: Array, r_kernel: Array, ends: Any, wants_inputs: bool) -> Any:
        """The products over all steps at once, after the loop of the second derivatives."""
        time, batch, input_dim, units = self.shape
        for rows in (slice(0, input_dim), slice(self.x_h.stop, None)):
            copy_rows(self.all_columns[rows], self.columns[:time, rows].transpose(1, 0, 2))
        copy_rows(self.all_dz[: 4 * units], self.dz[:, :4].reshape(time, 4 * units, batch).transpose(1, 0, 2))
        all_columns, (rdz, dz) = self.all_columns.reshape(-1, time * batch), np.split(self._flat_dz(), 2)
        rd_kernel = all_columns[self.x_h] @ rdz.T
        if self.directions[0] is not None:
            rd_kernel[:input_dim] += all_columns[:input_dim] @ dz.T
        rd_kernel[input_dim:-1] += all_columns[self.x_h.stop :] @ dz.T
        rd_inputs = None
        if wants_inputs:
            rd_inputs = self._of_inputs(kernel[:input_dim] @ rdz + r_kernel[:input_dim] @ dz)
        return rd_inputs, *ends, rd_kernel[:-1], rd_kernel[-1]
