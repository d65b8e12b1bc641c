"""Run pieces of a computation in parallel threads. They must release the interpreter lock, as compiled functions do."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor


def count() -> int:
    """The number of threads to use: the number BLAS is told to use, otherwise one for each core of this process."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "").partition(",")[0].strip()
        if value.isdecimal() and int(value) > 0:
            return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(pieces: Iterable[Callable[[], None]], threads: int) -> None:
    """Run all pieces: this thread and ``threads - 1`` helpers take the next one until none is left.

    A helper that starts late, or is busy with another call, takes fewer of them. Returns when all are done.
    """
    left = iter(list(pieces))

    def work() -> None:
        while (piece := next(left, None)) is not None:
            piece()

    helpers = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        for helper in helpers:
            if not helper.cancel():  # it has begun
                helper.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="minilstm")


if hasattr(os, "register_at_fork"):  # a fork has no threads but the one that forked
    os.register_at_fork(after_in_child=_pool.cache_clear)
