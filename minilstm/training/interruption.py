"""Turn Ctrl-C and SIGTERM into a wish to stop, which the training loop reads after each step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """A context in which SIGINT and SIGTERM only set `wanted`; a second signal has its usual effect at once.

    Handlers are set only in the main thread, and the previous ones are restored. A signal that is ignored stays so, as
    in a background job of a shell; so does a handler that is not Python's, which Python could not restore. If `active`
    is false, does nothing.
    """

    def __init__(self, active: bool = True) -> None:
        self.active = active and threading.current_thread() is threading.main_thread()
        self.wanted: int | None = None
        self._previous: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.wanted = number
        self._restore()  # a user who presses Ctrl-C twice does not want to wait

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def __enter__(self) -> Interruption:
        if self.active:
            ours = [number for number in SIGNALS if signal.getsignal(number) not in (None, signal.SIG_IGN)]
            self._previous = {number: signal.signal(number, self._note) for number in ours}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()
