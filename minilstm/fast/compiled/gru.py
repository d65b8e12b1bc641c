"""A pass of a GRU, compiled: (1) to (6) of `minilstm.variants.GRUCell` and their undoing. The readable twin is
`minilstm.variants_bptt`.

Columns ``[time + 1, rows, width]`` hold ``[h_{t-1}, x_t, 1, q_t]``: the gates' product reads all before q, that of the
candidate all after h. Gates are r and u, ``[time, rows, 2 * units]``; k is ``[time, rows, units]``, and dz overwrites
both. The rest is as in `functions`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..memory import recycled
from .functions import (
    FAST,
    HALF,
    ONE,
    add_output,
    at_once,
    carry,
    compiled,
    kernel_gradient,
    pack,
    pack_transposed,
    product,
    take_apart,
    tanh,
)
from .tile import COLUMNS
from .workspace import panel_count, pieces_of, plain, run, summed, zeros

Array = Any


@compiled(FAST)
def step_gates(r, u, h, q):  # type: ignore[no-untyped-def]
    """One step of one sequence: r and u are halved z_r and z_u, and become the gates."""
    for e in range(h.shape[0]):
        r_e = HALF * tanh(r[e]) + HALF
        r[e], u[e], q[e] = r_e, HALF * tanh(u[e]) + HALF, r_e * h[e]


@compiled(FAST)
def step_candidate(k, u, h, output):  # type: ignore[no-untyped-def]
    """One step of one sequence: k is z_k and becomes the candidate; `output` is written."""
    for e in range(h.shape[0]):
        k_e, u_e = tanh(k[e]), u[e]
        k[e] = k_e
        output[e] = u_e * h[e] + (ONE - u_e) * k_e


@compiled(FAST)
def step_back_candidate(k, u, h, dh):  # type: ignore[no-untyped-def]
    """Overwrite k and u with dz_k and dz_u, and dh with its share that goes past the candidate."""
    for e in range(h.shape[0]):
        k_e, u_e, dh_e = k[e], u[e], dh[e]
        k[e] = dh_e * (ONE - u_e) * (ONE - k_e * k_e)
        u[e] = dh_e * (h[e] - k_e) * u_e * (ONE - u_e)
        dh[e] = dh_e * u_e


@compiled(FAST)
def step_back_reset(r, h, dh, dq):  # type: ignore[no-untyped-def]
    """Overwrite r with dz_r, and dq with dh so far."""
    for e in range(h.shape[0]):
        r_e, dq_e = r[e], dq[e]
        r[e] = dq_e * h[e] * r_e * (ONE - r_e)
        dq[e] = dh[e] + dq_e * r_e


@compiled(FAST)
def forward(gates_panels, k_panels, columns, gates, every_k, outputs, masks):  # type: ignore[no-untyped-def]
    """All steps of a part: outputs ``[rows, time, units]``, and h times its masks in the columns."""
    time, rows, _ = gates.shape
    units, width = outputs.shape[2], columns.shape[2]
    for t in range(time):
        product(columns[t], 0, width - units, gates_panels, gates[t], False)
        for row in range(rows):
            z, column = gates[t, row], columns[t, row]
            step_gates(z[:units], z[units : 2 * units], column[:units], column[width - units :])
        product(columns[t], units, width, k_panels, every_k[t], False)
        for row in range(rows):
            h, output = columns[t, row], outputs[row, t]
            step_candidate(every_k[t, row], gates[t, row, units : 2 * units], h[:units], output)
            carry(columns[t + 1, row], masks[t, row], output)


@compiled(FAST)
def backward(gates_panels, k_panels, columns, gates, every_k, d_outputs, dh, masks, d_columns, d_inputs, d_gates, d_k):  # type: ignore[no-untyped-def]
    """The backward pass of a part, with the arguments of `functions.backward`; `d_gates` and `d_k` are the kernels'
    gradients.
    """
    time, rows, gates_width = gates.shape
    units, inputs, steps, width = dh.shape[1], d_inputs.shape[2], max(1, at_once(d_gates) // rows), columns.shape[2]
    for stop in range(time, 0, -steps):
        start = max(0, stop - steps)
        for t in range(stop - 1, start - 1, -1):
            for row in range(rows):
                h = columns[t, row]
                add_output(dh[row], masks[t, row], d_outputs[row, t])
                step_back_candidate(every_k[t, row], gates[t, row, units : 2 * units], h[:units], dh[row])
            product(every_k[t], 0, units, k_panels, d_columns, False)
            for row in range(rows):
                h = columns[t, row]
                step_back_reset(gates[t, row], h[:units], dh[row], d_columns[row, inputs:])
            product(gates[t], 0, 2 * units, gates_panels, d_columns, True)
            for row in range(rows):
                take_apart(d_columns[row], d_inputs[row, t], dh[row])
        n = (stop - start) * rows
        some_columns = columns[start:stop].reshape(n, width)
        kernel_gradient(some_columns, 0, gates[start:stop].reshape(n, gates_width), stop < time, d_gates)
        kernel_gradient(some_columns, units, every_k[start:stop].reshape(n, every_k.shape[2]), stop < time, d_k)


class GRUPart:
    """The arrays of some sequences of a batch."""

    def __init__(self, rows: slice, time: int, input_dim: int, units: int, has_masks: bool) -> None:
        count, depth = rows.stop - rows.start, units + input_dim + 1
        self.rows = rows
        self.columns = zeros(time + 1, count, depth + units)
        self.columns[:, :, depth - 1] = 1
        self.gates = zeros(time, count, panel_count(2 * units) * COLUMNS)
        self.k = zeros(time, count, panel_count(units) * COLUMNS)
        self.masks = zeros(time, count, units * has_masks)
        self.dh, self.d_columns = zeros(count, units), zeros(count, panel_count(input_dim + units) * COLUMNS)
        self.d_gates, self.d_k = (zeros(panel_count(columns), depth, COLUMNS) for columns in (2 * units, units))


class CompiledGRU:
    """The arrays of one float32 pass, and the pass, with the methods of `minilstm.fast.variant_workspace`'s."""

    def __init__(self, time: int, batch: int, input_dim: int, units: int, has_masks: bool) -> None:
        depth = units + input_dim + 1
        self.input_dim, self.units = input_dim, units
        pieces = pieces_of(batch, time * batch * depth * 3 * units)
        self.parts = [GRUPart(rows, time, input_dim, units, has_masks) for rows in pieces]
        self.gates = zeros(panel_count(2 * units), depth, COLUMNS)
        self.k = zeros(panel_count(units), depth + units, COLUMNS)
        self.transposed = [zeros(panel_count(input_dim + units), columns, COLUMNS) for columns in (2 * units, units)]
        self.has_dz = False

    def set_masks(self, h_masks: Array) -> None:
        """As `GRUWorkspace.set_masks`."""
        for part in self.parts:
            np.copyto(part.masks, h_masks[:, part.rows])

    def forward(self, inputs: Array, h: Array, *weights: Array) -> tuple[Array, Array]:
        """As `GRUWorkspace.forward`."""
        first, units, time = self.input_dim, self.units, len(inputs)
        self.kernels = weights[::2]
        for panels, kernel, bias, at_h, half in (
            (self.gates, *weights[:2], 0, 0.5), (self.k, *weights[2:], units + first + 1, 1)
        ):  # fmt: skip
            scale = np.full(len(bias), half, np.float32)
            pack(plain(kernel[first:]), scale, panels, at_h)
            pack(plain(kernel[:first]), scale, panels, units)
            pack(plain(bias[None]), scale, panels, units + first)
        for part in self.parts:
            np.copyto(part.columns[0, :, :units], h[part.rows])
            np.copyto(part.columns[:time, :, units : units + first], inputs[:, part.rows])
        outputs = recycled((len(h), time, units), np.float32)
        self._forward(outputs)
        return outputs.transpose(1, 0, 2), np.concatenate([part.columns[time, :, :units] for part in self.parts])

    def _forward(self, outputs: Array) -> None:
        run(functools.partial(forward, self.gates, self.k, p.columns, p.gates, p.k, outputs[p.rows], p.masks)
            for p in self.parts)  # fmt: skip
        self.has_dz = False

    def backward(self, d_outputs: Array, dh: Array, wants_inputs: bool) -> list[Array | None]:
        """As `GRUWorkspace.backward`."""
        (time, batch, units), first = d_outputs.shape, self.input_dim
        if self.has_dz:  # a second backward pass after the same forward pass
            self._forward(recycled((batch, time, units), np.float32))
        self.has_dz = True
        wanted = first if wants_inputs else 0
        transposed = [panels[: panel_count(wanted + units)] for panels in self.transposed]
        for panels, kernel in zip(transposed, self.kernels, strict=True):
            pack_transposed(plain(kernel[first - wanted :]), panels)
        by_sequence, d_inputs = plain(d_outputs.transpose(1, 0, 2)), recycled((batch, time, wanted), np.float32)
        for part in self.parts:
            np.copyto(part.dh, dh[part.rows])
        run(
            functools.partial(
                backward, *transposed, p.columns, p.gates, p.k, by_sequence[p.rows], p.dh, p.masks,
                p.d_columns.reshape(-1)[: len(p.dh) * len(transposed[0]) * COLUMNS].reshape(len(p.dh), -1),
                d_inputs[p.rows], p.d_gates, p.d_k,
            )
            for p in self.parts
        )  # fmt: skip
        d_gates = summed([part.d_gates for part in self.parts], 2 * units)
        d_k = summed([part.d_k for part in self.parts], units)
        return [
            d_inputs.transpose(1, 0, 2) if wants_inputs else None,
            np.concatenate([part.dh for part in self.parts]),
            np.concatenate((d_gates[units:-1], d_gates[:units])), d_gates[-1],
            np.delete(d_k, first, axis=0), d_k[first],
        ]  # fmt: skip

    def dz(self) -> Array:
        """As `GRUWorkspace.dz`."""
        n = self.units
        return np.concatenate([np.dstack((p.gates[..., : 2 * n], p.k[..., :n])) for p in self.parts], axis=1)
