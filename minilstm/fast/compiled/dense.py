"""The products of a Dense layer, compiled: no thread of BLAS wakes between two compiled passes.

After a product of its own, BLAS keeps its threads awake for a tenth of a second. They take half of the second core from
the compiled pass of the next layer, which costs more than BLAS saves. Rows are shared among threads as in a pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..memory import recycled
from . import functions, workers
from .tile import COLUMNS
from .workspace import borders, panel_count, plain, zeros

Array = Any

SHARED = 1 << 21  # multiplications, from which a second thread is worth its call


def rows_times(rows: Array, kernel: Array) -> Array:
    """``rows [n, k] @ kernel [k, m]``; the kernel may be stored by columns."""
    depth, columns = kernel.shape
    panels = zeros(panel_count(columns), depth, COLUMNS)
    if kernel.flags.f_contiguous:
        functions.pack_transposed(plain(kernel.T), panels)
    else:
        functions.pack(plain(kernel), np.ones(columns, np.float32), panels, 0)
    rows = plain(rows)
    out = recycled((len(rows), len(panels) * COLUMNS), np.float32)

    def piece(start: int, stop: int) -> None:
        functions.product(rows[start:stop], 0, depth, panels, out[start:stop], False)

    _share(piece, len(rows), rows.size * columns)
    if columns == out.shape[1]:
        return out
    found = recycled((len(rows), columns), np.float32)
    np.copyto(found, out[:, :columns])
    return found


def transposed_times(rows: Array, g: Array) -> Array:
    """``rows [n, k].T @ g [n, m]``: the kernel's gradient."""
    columns, rows = g.shape[1], plain(rows)
    if columns % COLUMNS:
        padded = zeros(len(g), panel_count(columns) * COLUMNS)
        padded[:, :columns] = g
        g = padded
    g = plain(g)
    parts: dict[int, Array] = {}

    def piece(start: int, stop: int) -> None:
        parts[start] = np.empty((panel_count(columns), rows.shape[1], COLUMNS), np.float32)
        functions.kernel_gradient(rows[start:stop], 0, g[start:stop], False, parts[start])

    _share(piece, len(rows), rows.size * columns)
    found = recycled((rows.shape[1], columns), np.float32)
    for number, start in enumerate(sorted(parts)):  # in a fixed order: the same bits whichever thread was first
        functions.unpack(parts[start], found, number > 0)
    return found


def _share(piece: Callable[[int, int], None], rows: int, multiplications: int) -> None:
    count = min(workers.count(), rows) if multiplications >= SHARED else 1
    workers.share([functools.partial(piece, *ends) for ends in borders(rows, count)], count)
