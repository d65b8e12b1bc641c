"""Memory for large arrays: aligned to cache lines, and reused.

NumPy multiplies two arrays up to twice as fast if both begin at a multiple of 64 bytes, because each vector of the
processor is then in one cache line; `np.empty` promises 16 bytes. And fresh memory from the operating system costs a
page fault for every 4 KB, up to a tenth of a training step. The readable twin of all this is `np.empty`.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

Array = Any

LINE = 64  # bytes of a cache line, and of the widest vector
RECYCLED = 1 << 16  # bytes; the memory of smaller arrays is not kept, since they do not have their own pages
SMALL = 1 << 11  # entries; to view fewer as rows costs more than it saves
KEPT = 1 << 27  # bytes that are kept at most


class _Counter(threading.local):
    """How many bytes `aligned` has given to a thread."""

    given = 0


counter = _Counter()


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Like `np.empty`, starting at a cache line."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    counter.given += size
    return _block(size).view(dtype).reshape(shape)


def recycled(shape: tuple[int, ...], dtype: Any) -> Array:
    """Like `aligned`; the memory of a large array is reused once the array and all its views are gone."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < RECYCLED:
        return np.empty(shape, dtype)
    block = _pool.take(size)
    return np.asarray(_Loan(_pool, _block(size) if block is None else block, shape, dtype))


def copy_rows(target: Array, source: Array) -> None:
    """Like ``np.copyto(target, source)``, for arrays whose last axis is contiguous.

    NumPy has a fixed cost for each row, which is more than copying 20 numbers costs. Here a whole row is one item of
    NumPy's void type; that takes at most half the time.
    """
    if target.shape[-1] > 1 and target.size > SMALL:
        row = np.dtype((np.void, target.shape[-1] * target.itemsize))
        target, source = target.view(row), source.view(row)
    np.copyto(target, source)


def steps(time: int, shape: tuple[int, ...], dtype: Any, keeps: bool) -> Array:
    """Memory ``[time, *shape]`` for what the steps compute; the same for all steps unless it is to be kept."""
    if keeps:
        return aligned((time, *shape), dtype)
    one = aligned(shape, dtype)
    return np.lib.stride_tricks.as_strided(one, (time, *shape), (0, *one.strides))


def matrix(x: Array) -> Array:
    """``[rows, batch]``, or ``[rows]`` if batch is 1: `np.dot` is then faster."""
    return x[:, 0] if x.shape[1] == 1 else x


def _block(size: int) -> Array:
    """`size` bytes of fresh memory, starting at a cache line."""
    block = np.empty(size + LINE, np.uint8)
    start = -block.ctypes.data % LINE
    return block[start : start + size]


class Pool:
    """What is used again, by a key of its kind: at most `limit` bytes that wait for it."""

    def __init__(self, limit: int) -> None:
        self.limit, self.kept = limit, 0
        self.free: dict[Any, list[tuple[Any, int]]] = {}  # the key that was returned last is at the end
        self.lock = threading.RLock()  # the collector may end an array, and call `give_back`, in the middle of `take`

    def take(self, key: Any) -> Any:
        """Something of this kind, or None."""
        with self.lock:
            return self._pop(key) if key in self.free else None

    def give_back(self, key: Any, item: Any, size: int) -> None:
        """Keep an item of `size` bytes; drop those that were returned longest ago if they are too many bytes."""
        with self.lock:
            self.free[key] = [*self.free.pop(key, []), (item, size)]
            self.kept += size
            while self.kept > self.limit:
                self._pop(next(iter(self.free)))

    def _pop(self, key: Any) -> Any:
        items = self.free[key]
        if len(items) == 1:
            del self.free[key]
        item, size = items.pop()
        self.kept -= size
        return item


class _Loan:
    """The owner of an array's memory. NumPy holds it exactly as long as the array or a view of it lives."""

    def __init__(self, pool: Pool, block: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.pool, self.block = pool, block
        data = block.ctypes.data, False  # False: may be written to
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str, "data": data}

    def __del__(self) -> None:
        self.pool.give_back(self.block.size, self.block, self.block.size)


_pool = Pool(KEPT)
