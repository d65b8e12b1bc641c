"""Adam's update, piece by piece. The readable twin is `minilstm.optimizers.Adam.rule`; both have the same bits.

Its formulas as twelve NumPy calls on a large array read and write main memory twelve times. Here all calls of one piece
run while the piece is in the cache, and no call allocates memory. If a pass has been compiled, one loop replaces the
calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import compiled
from .memory import recycled

Array = Any

PIECE = 1 << 15  # entries of a piece: its five arrays fit in the second-level cache


class FastAdam:
    """One step of Adam for one array after the other: ``FastAdam(...)(w, g, m, v)`` returns the new w, m and v.

    Parameters
    ----------
    beta1, beta2, epsilon : float
    rate : float
        The corrected rate, rate_t.
    donate : bool
        Overwrite m and v.
    """

    def __init__(self, beta1: float, beta2: float, epsilon: float, rate: float, donate: bool) -> None:
        self.numbers = beta1, 1 - beta1, beta2, 1 - beta2, epsilon, rate
        self.donate = donate
        self.formulas: dict[Any, Callable[..., None]] = {}  # by dtype

    def __call__(self, w: Array, g: Array, m: Array, v: Array) -> tuple[Array, Array, Array]:
        """All arrays have the shape of w, which also decides the dtype."""
        shape, dtype = w.shape, w.dtype
        if dtype not in self.formulas:
            self.formulas[dtype] = _formulas(dtype, self.numbers)
        w, g, m, v = (_flat(x, dtype) for x in (w, g, m, v))
        new_w = recycled(w.shape, dtype)
        new_m, new_v = (m, v) if self.donate else (recycled(w.shape, dtype), recycled(w.shape, dtype))
        for start in range(0, w.size, PIECE):
            piece = slice(start, start + PIECE)
            if not self.donate:
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
