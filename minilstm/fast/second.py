"""A pass over a sequence in NumPy that may be derived twice. The readable twin is `minilstm.second.tangents`.

It has the layout of `minilstm.fast.workspace` (features first, its nonlinearities) and the factors of
`minilstm.fast.loops`, and keeps all that those overwrite. Along a direction everything is linear:

- **The factors of the backward pass serve both.** With D_k the derivative of c with respect to z_k for k = i, j, f, and
  D_o, D_c those of h with respect to z_o and c, the backward loop computes dz_k = D_k dc, dz_o = D_o dh and adds D_c dh
  to dc; the tangents are rc = D_i rz_i + D_j rz_j + D_f rz_f + f rc_before and rh = D_o rz_o + D_c rc. So the loop of
  the tangents is shorter than the forward loop, and has no tanh.
- **The loop of the second derivatives is the backward loop with a source.** R{dz_k} = D_k R{dc} + R{D_k} dc, and the
  second term is known before the loop: it is computed for as many steps at once as fit in the cache, from rz, rc and
  rh alone. More is not stored, since at these sizes a block that must be fetched costs what it takes to compute two.
- **A step has one product.** Column [rx_t; x_t; h; 1; rh] and matrix [K_x, rK, K_h] give rz; [dz; R{dz}] and
  [rK_h, K_h] give R{dh}.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..gates import GATES
from ..primitives import filled
from .activations import SMALL, F, I, J, Nonlinearity, O
from .loops import CACHE_BYTES, forward_steps
from .memory import aligned, copy_rows, recycled
from .workspace import unbuffered, whole_bias

Array = Any

D_C = A = 4  # the places of D_c and of a = tanh(c), after those of the gates
RC = 8  # the place of rc, after dz and rz
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
        self.recurrent = aligned((units, 8 * units), dtype)  # [rK_h, K_h]

        self.gates = aligned((time, 5, size), dtype)  # i, j, f, o and a = tanh(c)
        self.c = aligned((time + 1, size), dtype)
        self.factors = aligned((time, 5, size), dtype)
        self.moves = aligned((time + 1, 9, size), dtype)  # dz; rz, which R{dz} overwrites; rc. Step t is in row t + 1
        self.dc, self.dh = aligned((time, size), dtype), aligned((time, size), dtype)
        self.all_columns = aligned((self.columns.shape[1], time, batch), dtype)
        self.all_dz = aligned((8 * units, time, batch), dtype)

        self.nonlinearity = Nonlinearity(size, dtype)
        self.kernel_scale = np.repeat(np.array(self.nonlinearity.scale, dtype), units)
        self.chunk = max(1, min(time, CACHE_BYTES // (8 * size * np.dtype(dtype).itemsize)))
        self.pieces = [(start, min(start + self.chunk, time)) for start in range(0, time, self.chunk)]
        self.moved = aligned((self.chunk, 6, size), dtype)  # R{D_k} of some steps, and R{f}; then times dc or dh
        self.spare = aligned((self.chunk, 8, size), dtype)
        self.step_spare = aligned((6, size), dtype)
        # np.dot clears its result first, which costs a large product a tenth; np.matmul costs 0.3 us more.
        self.product = np.dot if 4 * size <= SMALL else np.matmul
        self._make_views(size, dtype)
        self.given: Any = None  # what the last backward pass, and the last tangents, were given
        self.directions: Any = None

    def _make_views(self, size: int, dtype: Any) -> None:
        """The views of each step, which cost 0.2 us each, for the four loops."""
        time, batch, _, units = self.shape
        new_h, new_rh = (h[1:].reshape(time, size) for h in (self.h, self.rh))
        parts = self.step_spare  # D_i rz_i, D_j rz_j, D_f rz_f, f rc_before, D_o rz_o, D_c rc
        p_ijf, p_ij, p_f_before, p_oc = (parts[s].reshape(-1) for s in (slice(3), slice(2), slice(2, 4), slice(4, 6)))
        self.forward_views, self.tangent_views, self.backward_views, self.second_views = [], [], [], []
        for t, (gates, factors, moves) in enumerate(zip(self.gates, self.factors, self.moves[1:], strict=True)):
            dz, rz, rc, z = moves[:4], moves[4:8], moves[RC], gates[:4].reshape(4 * units, batch)
            of_c_and_h = *parts[:2], gates[A], self.c[t], self.c[t + 1], new_h[t]  # i j and f c first
            of_gates = *self.nonlinearity.views(gates[:4]), *gates[:4]
            self.forward_views.append((self.columns[t, self.x_h], z, *of_gates, *of_c_and_h))
            of_z = rz.reshape(4 * units, batch), factors[:3].reshape(-1), rz[:3].reshape(-1), p_ijf
            of_c = gates[F], self.moves[t, RC], parts[3], p_ij, p_f_before, *parts[:2], rc
            of_h = factors[3:].reshape(-1), moves[7:].reshape(-1), p_oc, *parts[4:], new_rh[t]
            self.tangent_views.append((*of_z, *of_c, *of_h))
            as_matrix = dz.reshape(4 * units, batch)
            self.backward_views.append((self.dh[t], self.dc[t], *factors, *dz, gates[F], as_matrix))
            both = moves[:8].reshape(8 * units, batch)
            self.second_views.append((*factors, *rz, rz.reshape(-1), gates[F], both))
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
        for start, stop in self.pieces:
            forward_steps(self.product, self.factor, self.forward_views[start:stop])
            self._compute_factors(start, stop)
        outputs = recycled((batch, time, units), inputs.dtype)
        np.copyto(outputs, self.h[1:].transpose(2, 0, 1))
        return outputs.transpose(1, 0, 2), self.c[time].reshape(units, batch).T.copy(), self.h[time].T.copy()

    def _compute_factors(self, start: int, stop: int) -> None:
        """D_i = p - p i and D_j = i - p j with p = i j; D_f = q - q f with q = f c; D_o = h - h o; D_c = o - h a."""
        multiply, subtract, steps = np.multiply, np.subtract, slice(start, stop)
        i, j, f, o, a = self.gates[steps].swapaxes(0, 1)
        d_i, d_j, d_f, d_o, d_c = self.factors[steps].swapaxes(0, 1)
        p, q = self.spare[: len(i), :2].swapaxes(0, 1)
        h = self.h[start + 1 : stop + 1].reshape(len(i), -1)
        multiply(i, j, p)
        multiply(f, self.c[steps], q)
        for minuend, value, by, out in ((p, p, i, d_i), (i, p, j, d_j), (q, q, f, d_f), (h, h, o, d_o), (o, h, a, d_c)):
            multiply(value, by, out)
            subtract(minuend, out, out)

    @unbuffered()
    def backward(
        self, d_outputs: Array, dc: Array, dh: Array, c: Array, kernel: Array, wants_inputs: bool, wants_h: bool
    ) -> tuple[Array | None, Array, Array | None, Array]:
        """As `ColumnWorkspace.backward`."""
        time, batch, input_dim, units = self.shape
        self.given = d_outputs, dc, dh
        recurrent = self.recurrent[:, 4 * units :]
        np.copyto(recurrent, kernel[input_dim:])
        product, multiply, add = self.product, np.multiply, np.add
        next_dc, next_dh, spare = self.step_spare[:3]
        as_matrix = next_dh.reshape(units, batch)
        np.copyto(next_dc.reshape(units, batch), dc.T)
        np.copyto(as_matrix, dh.T)
        from_above = np.ascontiguousarray(d_outputs.transpose(0, 2, 1)).reshape(time, -1)
        for t in reversed(range(time)):
            dh_t, dc_t, d_i, d_j, d_f, d_o, d_c, dz_i, dz_j, dz_f, dz_o, f, dz = self.backward_views[t]
            add(next_dh, from_above[t], dh_t)
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
        copy_rows(self.all_dz[: 4 * units], self.moves[1:, :4].reshape(time, 4 * units, batch).transpose(1, 0, 2))
        all_columns, dz = self.all_columns[self.x_h].reshape(-1, time * batch), self._flat_dz()[: 4 * units]
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
        np.copyto(self.moves[0, RC].reshape(units, batch), rc.T)
        first = 0 if moves else input_dim
        factor, columns = self.r_factor[:, first:], self.columns[:, first:]
        if moves:
            np.copyto(factor[:, :input_dim], kernel[:input_dim].T)
        np.copyto(self.r_factor[:, self.x_h][:, :-1], r_kernel.T)
        np.copyto(self.r_factor[:, self.x_h][:, -1], r_bias)
        np.copyto(self.r_factor[:, self.x_h.stop :], kernel[input_dim:].T)
        product, multiply, add = self.product, np.multiply, np.add
        for column, views in zip(columns, self.tangent_views, strict=False):
            rz, d_ijf, rz_ijf, p_ijf, f, before, p_before, p_ij, p_f_before, a, b, rc, *of_h = views
            d_oc, rz_o_rc, p_oc, p_o, p_c, new_rh = of_h
            product(factor, column, rz)
            multiply(d_ijf, rz_ijf, p_ijf)
            multiply(f, before, p_before)
            add(p_ij, p_f_before, p_ij)
            add(a, b, rc)
            multiply(d_oc, rz_o_rc, p_oc)
            add(p_o, p_c, new_rh)
        r_outputs = np.ascontiguousarray(self.rh[1:].transpose(0, 2, 1))
        return r_outputs, rc.reshape(units, batch).T.copy(), self.rh[time].T.copy()

    def _compute_sources(self, start: int, stop: int) -> None:
        """R{D_k} dc, R{D_o} dh, R{D_c} dh and R{f} dc of some steps, in `moved`."""
        multiply, add, subtract = np.multiply, np.add, np.subtract
        before, after = slice(start, stop), slice(start + 1, stop + 1)
        moved, spare = self.moved[: stop - start], self.spare[: stop - start]
        gates, factors, rz_rc = self.gates[before], self.factors[before], self.moves[after, 4:]
        (i, _, f, o, _), (rz_i, _, rz_f, rz_o, _) = gates.swapaxes(0, 1), rz_rc.swapaxes(0, 1)
        p_i, p_j, p_f, p_o, p_c, of_f_c, of_i_j, ri = spare.swapaxes(0, 1)
        r_i, r_j, r_f, r_o, r_c, rf = moved.swapaxes(0, 1)
        rh, dc, dh = self.rh[after].reshape(stop - start, -1), self.dc[before], self.dh[before]
        multiply(factors, rz_rc, spare[:, :5])
        multiply(f, self.moves[before, RC], of_f_c)
        add(p_f, of_f_c, of_f_c)
        add(p_i, p_j, of_i_j)
        # R{p i} = R{p} i + p R{i} = i (R{p} + p_i) if D_i is p - p i with p = i j, and so on
        totals = of_i_j, of_i_j, of_f_c, rh, rh
        for total, p, out in zip(totals, (p_i, p_j, p_f, p_o, p_c), (r_i, r_j, r_f, r_o, r_c), strict=True):
            add(total, p, out)
        multiply(moved[:, :5], gates, moved[:, :5])
        ro = p_o  # no longer needed
        for gate, rz, slope in ((i, rz_i, ri), (f, rz_f, rf), (o, rz_o, ro)):  # g (1 - g) rz
            multiply(gate, rz, p_i)
            multiply(gate, p_i, slope)
            subtract(p_i, slope, slope)
        for total, out, factor in ((of_i_j, r_i, dc), (ri, r_j, dc), (of_f_c, r_f, dc), (rh, r_o, dh), (ro, r_c, dh)):
            subtract(total, out, out)
            multiply(out, factor, out)
        multiply(rf, dc, rf)

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
        np.copyto(self.recurrent[:, : 4 * units], r_kernel[input_dim:])
        np.copyto(self.recurrent[:, 4 * units :], kernel[input_dim:])
        product, multiply, add = self.product, np.multiply, np.add
        next_rdc, next_rdh, spare = self.step_spare[:3]
        as_matrix = next_rdh.reshape(units, batch)
        np.copyto(next_rdc.reshape(units, batch), rdc.T)
        np.copyto(as_matrix, rdh.T)
        source_views = self.source_views
        from_above = np.ascontiguousarray(rd_outputs.transpose(0, 2, 1)).reshape(time, -1)
        for start, stop in reversed(self.pieces):
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
        copy_rows(self.all_dz[4 * units :], self.moves[1:, 4:RC].reshape(time, 4 * units, batch).transpose(1, 0, 2))
        all_columns, (dz, rdz) = self.all_columns.reshape(-1, time * batch), np.split(self._flat_dz(), 2)
        rd_kernel = all_columns[self.x_h] @ rdz.T
        if self.directions[0] is not None:
            rd_kernel[:input_dim] += all_columns[:input_dim] @ dz.T
        rd_kernel[input_dim:-1] += all_columns[self.x_h.stop :] @ dz.T
        self.directions = None  # R{dz} has overwritten rz
        rd_inputs = None
        if wants_inputs:
            rd_inputs = self._of_inputs(kernel[:input_dim] @ rdz + r_kernel[:input_dim] @ dz)
        return rd_inputs, *ends, rd_kernel[:-1], rd_kernel[-1]
