"""Where large arrays lie: at the start of a cache line, and in memory that has been used before.

NumPy multiplies two arrays that begin at multiples of 64 bytes up to twice as fast as two that do not, because each
vector of the processor then lies in one cache line; `np.empty` promises 16 bytes. And memory fresh from the operating
system costs a page fault for every 4 KB, up to a tenth of a training step. Both are spared here.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

Array = Any

LINE = 64  # bytes of a cache line, and of the widest vector
RECYCLED = 1 << 16  # bytes from which memory is kept; smaller arrays have no pages of their own
KEPT = 1 << 27  # bytes that are kept at most


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """As `np.empty`, from the start of a cache line."""
    dtype = np.dtype(dtype)
    return _block(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)


def recycled(shape: tuple[int, ...], dtype: Any) -> Array:
    """As `aligned`; the memory of a large array is used again as soon as nobody holds the array or a view of it."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    return np.asarray(_Lease(_pool, _pool.take(size), shape, dtype)) if size >= RECYCLED else np.empty(shape, dtype)


def features_first(x: Any) -> bool:
    """Whether ``x [batch, time, features]`` lies as ``[time, features, batch]``, as `minilstm.fast.loops` makes it.

    Between two layers that read it so, nothing is turned round, and its derivative lies like it; what a caller is given
    is C-contiguous.
    """
    return x.ndim == 3 and not x.flags.c_contiguous and x.transpose(1, 2, 0).flags.c_contiguous


def copy_rows(target: Array, source: Array) -> None:
    """As ``np.copyto(target, source)``, where in both each row, of the last axis, is one piece of memory.

    NumPy begins anew for each row, which takes longer than to copy 20 numbers. As one item of as many bytes a row is
    copied in half the time, and less.
    """
    if target.shape[-1] > 1:
        row = np.dtype((np.void, target.shape[-1] * target.itemsize))
        target, source = target.view(row), source.view(row)
    np.copyto(target, source)


def _block(size: int) -> Array:
    """Fresh memory: `size` bytes from the start of a cache line."""
    block = np.empty(size + LINE, np.uint8)
    start = -block.ctypes.data % LINE
    return block[start : start + size]


class Pool:
    """Blocks of memory that nobody uses, by size, and `limit` bytes of them at most."""

    def __init__(self, limit: int) -> None:
        self.limit, self.kept = limit, 0
        self.free: dict[int, list[Array]] = {}  # the size that was given back last comes last
        self.lock = threading.RLock()  # the collector may end an array, and call `give_back`, while `take` is at work

    def take(self, size: int) -> Array:
        """A block of `size` bytes."""
        with self.lock:
            return self._pop(size) if size in self.free else _block(size)

    def give_back(self, block: Array) -> None:
        """Keep a block that nobody uses any more, rather than those that were given back long ago."""
        with self.lock:
            self.free[block.size] = [*self.free.pop(block.size, []), block]
            self.kept += block.size
            while self.kept > self.limit:
                self._pop(next(iter(self.free)))

    def _pop(self, size: int) -> Array:
        blocks = self.free[size]
        if len(blocks) == 1:
            del self.free[size]
        self.kept -= size
        return blocks.pop()


class _Lease:
    """What an array's memory belongs to. NumPy holds it as long as the array or a view lives, and not longer."""

    def __init__(self, pool: Pool, block: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.pool, self.block = pool, block
        data = block.ctypes.data, False  # False: may be written to
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str, "data": data}

    def __del__(self) -> None:
        self.pool.give_back(self.block)


_pool = Pool(KEPT)
