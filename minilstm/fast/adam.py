"""Adam's update, piece by piece. The readable twin is `minilstm.optimizers.Adam.rule`; both have the same bits.

Its formulas as twelve NumPy calls on a large array read and write main memory twelve times. Here all calls of one piece
run while the piece is in the cache, and no call allocates memory. Of small arrays the calls themselves are the cost:
they are joined to one array, which takes half of the time for the four of a toy model. If a pass has been compiled, one
loop replaces the calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from . import compiled
from .memory import recycled

Array = Any

PIECE = 1 << 15  # entries of a piece: its five arrays fit in the second-level cache
JOINED = 1 << 12  # entries of an array, at most, that is joined to others: the calls it saves cost more than its copies


class FastAdam:
    """One step of Adam: ``FastAdam(...)(rows)`` takes each array with its gradient and slots, ``(w, g, m, v)``, and
    returns the new w, m and v of each.

    Parameters
    ----------
    beta1, beta2, epsilon : float
    rate : float
        The corrected rate, rate_t.
    donate : bool
        Whether m and v may be overwritten.
    """

    def __init__(self, beta1: float, beta2: float, epsilon: float, rate: float, donate: bool) -> None:
        self.numbers = beta1, 1 - beta1, beta2, 1 - beta2, epsilon, rate
        self.donate = donate
        self.formulas: dict[Any, Callable[..., None]] = {}  # by dtype

    def __call__(self, rows: Iterable[tuple[Array, ...]]) -> list[tuple[Array, ...]]:
        """The arrays of a row have the shape of w, which also decides the dtype."""
        rows = list(rows)
        found: list[Any] = [None] * len(rows)
        small: dict[Any, list[int]] = {}
        for n, (w, g, m, v) in enumerate(rows):
            if w.size > JOINED:
                found[n] = self.update(w, g, m, v, self.donate)
            else:
                small.setdefault(w.dtype, []).append(n)
        for numbers in small.values():
            w, g, m, v = (np.concatenate([rows[n][k].reshape(-1) for n in numbers]) for k in range(4))
            together, start = self.update(w, g, m, v, donate=True), 0
            for n in numbers:
                shape, stop = rows[n][0].shape, start + rows[n][0].size
                found[n], start = tuple([x[start:stop].reshape(shape) for x in together]), stop
        return found

    def update(self, w: Array, g: Array, m: Array, v: Array, donate: bool) -> tuple[Array, ...]:
        """The new w, m and v of one array."""
        shape, dtype = w.shape, w.dtype
        if dtype not in self.formulas:
            self.formulas[dtype] = _formulas(dtype, self.numbers)
        w, g, m, v = (_flat(x, dtype) for x in (w, g, m, v))
        new_w = recycled(w.shape, dtype)
        new_m, new_v = (m, v) if donate else (recycled(w.shape, dtype), recycled(w.shape, dtype))
        for start in range(0, w.size, PIECE):
            piece = slice(start, start + PIECE)
            if not donate:
                new_m[piece], new_v[piece] = m[piece], v[piece]
            self.formulas[dtype](w[piece], g[piece], new_m[piece], new_v[piece], new_w[piece])
        return new_w.reshape(shape), new_m.reshape(shape), new_v.reshape(shape)


def _flat(x: Array, dtype: Any) -> Array:
    """The array as ``[entries]``; a copy if it is not contiguous or is read-only."""
    flat = np.ascontiguousarray(x, dtype).reshape(-1)
    return flat if flat.flags.writeable else flat.copy()


def _formulas(dtype: Any, numbers: tuple[float, ...]) -> Callable[..., None]:
    """`numpy_adam` with these numbers, or its compiled twin."""
    compiled_adam = compiled.adam_loop(dtype)
    if compiled_adam is not None:
        return lambda *arrays: compiled_adam(*arrays, *numbers)
    constants = [np.array(number, dtype) for number in numbers]  # NumPy would convert Python numbers in each call
    root = recycled((PIECE,), dtype)

    def with_constants(w: Array, g: Array, m: Array, v: Array, new_w: Array) -> None:
        numpy_adam(w, g, m, v, new_w, root[: len(w)], *constants)

    return with_constants


def numpy_adam(
    w: Array, g: Array, m: Array, v: Array, new_w: Array, root: Array,
    beta1: Array, rest1: Array, beta2: Array, rest2: Array, epsilon: Array, rate: Array,
) -> None:  # fmt: skip
    """Adam for arrays ``[entries]``: writes `new_w`, and overwrites m and v.

    `root` is scratch. `rest1` is ``1 - beta1``, `rest2` is ``1 - beta2``.
    """
    np.multiply(m, beta1, m)
    np.multiply(g, rest1, new_w)
    np.add(m, new_w, m)
    np.multiply(v, beta2, v)
    np.multiply(g, g, new_w)
    np.multiply(new_w, rest2, new_w)
    np.add(v, new_w, v)
    np.sqrt(v, root)
    np.add(root, epsilon, root)
    np.multiply(m, rate, new_w)
    np.divide(new_w, root, new_w)
    np.subtract(w, new_w, new_w)
