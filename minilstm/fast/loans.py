"""Workspaces on loan: the arrays of a pass over a sequence, kept for the next pass of the same shape.

Large temporary arrays cost page faults, and each view costs 0.2 us. A workspace holds both. It belongs to one pass at a
time, and no array of it leaves the module that borrowed it.
"""

from __future__ import annotations

import threading
from typing import Any

FREE_WORKSPACES = 2  # kept for each shape; more are needed only while more passes are unfinished
FREE_SHAPES = 8

_free: dict[tuple[Any, ...], list[Any]] = {}
_lock = threading.RLock()  # the collector may end a loan, and return its workspace, while this thread is in here


def _take(key: tuple[Any, ...]) -> Any:
    with _lock:
        free = _free.get(key)
        if free:
            return free.pop()
    *arguments, kind = key
    return kind(*arguments)


def _give_back(key: tuple[Any, ...], workspace: Any) -> None:
    with _lock:
        free = _free.pop(key, [])
        if len(free) < FREE_WORKSPACES:
            free.append(workspace)
        _free[key] = free  # the shape used last is at the end
        while len(_free) > FREE_SHAPES:
            del _free[next(iter(_free))]


class Loan:
    """Holds the workspace of a forward pass for its backward pass, and returns it when neither pass can run again."""

    def __init__(self) -> None:
        self.key: tuple[Any, ...] | None = None
        self.workspace: Any = None

    def take(self, kind: Any, *arguments: Any) -> Any:
        """Borrow a workspace: ``kind(*arguments)``, or one that was made like this before."""
        self.key = (*arguments, kind)
        self.workspace = _take(self.key)
        return self.workspace

    def __del__(self) -> None:
        if self.key is not None and self.workspace is not None:
            _give_back(self.key, self.workspace)
