"""A pass over a sequence, compiled: a sequence is a row, as in inputs and outputs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..activations import SCALE
from ..large_loops import Options
from ..memory import aligned, recycled
from ..padding import column_past_end
from ..workspace import FOLD_INPUTS, PAST_END, whole_bias
from . import workers
from .functions import backward, forward, pack, pack_transposed, unpack
from .tile import COLUMNS

Array = Any

SHARED = 1 << 24  # multiplications of a pass, from which a second thread is worth its call: about 0.2 ms
LEAST_ROWS = 4  # in a part; with fewer, two cores that wait for the kernel's numbers are no faster than one


NONE = np.zeros((0, 0, 0), np.float32)  # of an option that a pass does not have: numba compiles once for all
PLAIN = Options(0)


class Part:
    """The arrays of some sequences of a batch."""

    def __init__(
        self, rows: slice, time: int, input_dim: int, units: int, padded: bool, options: Options, size: int
    ) -> None:
        def kept(wanted: Any, *shape: int) -> Array:
            return zeros(*shape) if wanted else NONE

        count = rows.stop - rows.start
        self.rows = rows
        width = input_dim + size + padded + 1
        self.columns = zeros(time + 1, count, width)  # [x_t, h_{t-1}, (past the end), 1]
        self.columns[:, :, -1] = 1
        self.gates = zeros(time, count, panel_count(4 * units) * COLUMNS)
        self.c = zeros(time + 1, count, units)
        self.dc, self.dh = zeros(count, units), zeros(count, size)
        self.d_columns = zeros(count, panel_count(input_dim + size) * COLUMNS)
        self.d_kernel = zeros(panel_count(4 * units), width, COLUMNS)
        self.masks = zeros(time, count, size * options.has_masks)
        self.c_clip, self.h_clip = (
            (np.float32(bound or 0), kept(bound is not None, time, count, entries))
            for bound, entries in ((options.cell_clip, units), (options.proj_clip, size))
        )
        self.d_peepholes = kept(options.use_peepholes, 3, 1, units)
        self.m = kept(options.projects, time, count, units)
        self.every_dh = kept(options.projects, time, count, panel_count(size) * COLUMNS)
        self.dm = zeros(count, panel_count(units) * COLUMNS) if options.projects else self.dh
        self.d_projection = kept(options.projects, panel_count(size), units, COLUMNS)


class CompiledWorkspace:
    """The arrays of one float32 pass, and the pass, with the methods of `minilstm.fast.workspace.ColumnWorkspace`."""

    def __init__(
        self, time: int, batch: int, input_dim: int, units: int, dtype: Any,
        padded: bool = False, options: Options | None = None,
    ) -> None:  # fmt: skip
        size = units if options is None else options.output_size
        self.past = np.zeros((time, batch), np.float32) if padded else None
        self.past_end = column_past_end(PAST_END, units, np.float32)[None]
        self.input_dim, self.units, self.size, self.folded = input_dim, units, size, input_dim <= FOLD_INPUTS
        rows = input_dim + size + padded + 1
        pieces = pieces_of(batch, time * batch * rows * 4 * units)
        self.parts = [Part(piece, time, input_dim, units, padded, options or PLAIN, size) for piece in pieces]
        self.kernel = zeros(panel_count(4 * units), rows, COLUMNS)
        self.transposed = zeros(panel_count(input_dim + size), 4 * units, COLUMNS)
        self.peepholes = self.projection = self.projection_t = NONE
        self.scale = np.repeat(np.array(SCALE, dtype), units)
        self.has_dz = False  # whether a backward pass has overwritten the gates with dz

    def set_weights(self, w_i: Array, w_f: Array, w_o: Array, projection: Array, h_masks: Array | None) -> None:
        """As `minilstm.fast.large_loops.LargeLoops.set_weights`."""
        if w_i is not None:
            self.peepholes = np.stack([w_i, w_f, w_o])[:, None]
        if projection is not None:
            self.projection = zeros(panel_count(self.size), self.units, COLUMNS)
            pack(plain(projection), np.ones(self.size, np.float32), self.projection, 0)
            self.projection_t = zeros(panel_count(self.units), self.size, COLUMNS)
            pack_transposed(plain(projection), self.projection_t)
        if h_masks is not None:
            for part in self.parts:
                np.copyto(part.masks, h_masks[:, part.rows])

    def d_weights(self) -> tuple[Array | None, ...]:
        """As `minilstm.fast.large_loops.LargeLoops.d_weights`."""
        peepholes: Any = (None, None, None)
        if len(self.peepholes):
            peepholes = np.sum([part.d_peepholes[:, 0] for part in self.parts], axis=0)
        d_projection = None
        if len(self.projection):
            d_projection = summed([part.d_projection for part in self.parts], self.size)
        return (*peepholes, d_projection)

    def forward(
        self, inputs: Array, c: Array, h: Array, kernel: Array, bias: Array, forget_bias: float
    ) -> tuple[Array, Array, Array]:
        """As `ColumnWorkspace.forward`."""
        time, batch, first_h = len(inputs), len(c), self.input_dim
        last = whole_bias(bias, forget_bias)[None]
        pack(plain(kernel), self.scale, self.kernel, 0)
        pack(last, self.scale, self.kernel, self.kernel.shape[1] - 1)
        if self.past is not None:
            pack(self.past_end, self.scale, self.kernel, len(kernel))
        for part in self.parts:
            np.copyto(part.columns[:time, :, :first_h], inputs[:, part.rows])
            np.copyto(part.columns[0, :, first_h : first_h + self.size], h[part.rows])
            if self.past is not None:
                np.copyto(part.columns[:time, :, -2], self.past[:, part.rows])
            np.copyto(part.c[0], c[part.rows])
        outputs = recycled((batch, time, self.size), np.float32)
        self._forward(outputs)
        c_end = np.concatenate([part.c[time] for part in self.parts])
        h_end = np.concatenate([part.columns[time, :, first_h : first_h + self.size] for part in self.parts])
        return outputs.transpose(1, 0, 2), c_end, h_end

    def _forward(self, outputs: Array) -> None:
        """Take all parts through all steps; the kernel and the columns are set."""
        run(
            functools.partial(
                forward, self.kernel, p.columns, p.gates, p.c, outputs[p.rows], self.input_dim, self.folded,
                self.peepholes, p.c_clip, p.m, self.projection, p.h_clip, p.masks,
            )
            for p in self.parts
        )
        self.has_dz = False

    def backward(
        self, d_outputs: Array, dc: Array, dh: Array, c: Array, kernel: Array, wants_inputs: bool, wants_h: bool
    ) -> tuple[Array | None, Array, Array | None, Array]:
        """As `ColumnWorkspace.backward`."""
        batch, time, size = len(dc), len(d_outputs), self.size
        if self.has_dz:  # a second backward pass after the same forward pass
            self._forward(recycled((batch, time, size), np.float32))
        self.has_dz = True
        wanted = self.input_dim if wants_inputs else 0
        transposed = self.transposed[: panel_count(wanted + size)]
        pack_transposed(plain(kernel[self.input_dim - wanted :]), transposed)
        by_sequence = plain(d_outputs.transpose(1, 0, 2))
        d_inputs = recycled((batch, time, wanted), np.float32)
        for part in self.parts:
            np.copyto(part.dc, dc[part.rows])
            np.copyto(part.dh, dh[part.rows])
        run(
            functools.partial(
                backward, transposed, p.columns, p.gates, p.c, by_sequence[p.rows], p.dc, p.dh,
                p.d_columns.reshape(-1)[: len(p.dc) * len(transposed) * COLUMNS].reshape(len(p.dc), -1),
                d_inputs[p.rows], p.d_kernel, self.peepholes, p.d_peepholes, p.c_clip, p.m, self.projection_t,
                p.every_dh, p.dm, p.d_projection, p.h_clip, p.masks,
            )
            for p in self.parts
        )  # fmt: skip
        return (
            d_inputs.transpose(1, 0, 2) if wants_inputs else None,
            np.concatenate([part.dc for part in self.parts]),
            np.concatenate([part.dh for part in self.parts]) if wants_h else None,
            summed([part.d_kernel for part in self.parts], 4 * self.units),
        )

    def dz(self) -> Array:
        """As `ColumnWorkspace.dz`."""
        return np.concatenate([part.gates[:, :, : 4 * self.units] for part in self.parts], axis=1)


def pieces_of(batch: int, multiplications: int) -> list[slice]:
    """The sequences of each part of a batch; a pass with few `multiplications` has one part."""
    parts = min(workers.count(), batch // LEAST_ROWS) if multiplications >= SHARED else 1
    return [slice(*ends) for ends in borders(batch, max(1, parts))]


def run(parts: Iterable[Callable[[], None]]) -> None:
    """Run all parts, each in a thread."""
    parts = list(parts)
    workers.share(parts, len(parts))


def summed(every_panels: list[Array], columns: int) -> Array:
    """The sum of what the parts left in panels, ``[depth, columns]``."""
    total = recycled((every_panels[0].shape[1], columns), np.float32)
    for number, panels in enumerate(every_panels):  # in a fixed order: the same bits whichever thread was first
        unpack(panels, total, number > 0)
    return total


def zeros(*shape: int) -> Array:
    """Memory of this shape; the entries that only fill a panel must not be NaN, which is slow."""
    array = aligned(shape, np.float32)
    array[...] = 0
    return array


def borders(count: int, pieces: int) -> Iterator[tuple[int, int]]:
    """The ends of `pieces` pieces of nearly equal length."""
    return itertools.pairwise(count * piece // pieces for piece in range(pieces + 1))


def panel_count(columns: int) -> int:
    """The number of panels that hold `columns` columns."""
    return -(-columns // COLUMNS)


def plain(x: Array) -> Array:
    """The array, or a copy if it is not contiguous or is read-only: numba would compile again for such an array."""
    return np.require(x, np.float32, ("C", "W"))
