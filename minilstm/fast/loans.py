"""Workspaces on loan: the arrays of a pass over a sequence, kept for the next pass of the same shape.

Large temporary arrays cost page faults, and each view costs 0.2 us. A workspace holds both. It belongs to one pass at a
time, and no array of it leaves the module that borrowed it.
"""

from __future__ import annotations

from typing import Any

from .memory import Pool, counter

KEPT = 256 << 20  # bytes that the workspaces of all shapes have at most while no pass uses them
VIEWS = 4 << 10  # bytes of the views of a step, about

_pool = Pool(KEPT)


class Loan:
    """Holds the workspace of a forward pass for its backward pass, and returns it when neither pass can run again."""

    def __init__(self) -> None:
        self.key: tuple[Any, ...] | None = None
        self.workspace: Any = None

    def take(self, kind: Any, *arguments: Any) -> Any:
        """Borrow a workspace: ``kind(*arguments)``, or one that was made like this before."""
        self.key = (*arguments, kind)
        self.workspace = _pool.take(self.key)
        if self.workspace is None:
            before, time = counter.given, arguments[0]
            self.workspace = kind(*arguments)
            self.workspace.nbytes = counter.given - before + VIEWS * time
        return self.workspace

    def __del__(self) -> None:
        if self.key is not None and self.workspace is not None:
            _pool.give_back(self.key, self.workspace, self.workspace.nbytes)
