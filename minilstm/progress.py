"""A progress bar that is quiet where nobody watches."""

from __future__ import annotations

import sys
import time
from typing import Any

REFRESH_SECONDS = 0.2  # how often the numbers behind the bar are made into text: it costs more than a small step


class ProgressBar:
    """tqdm over the batches of a run, with the newest numbers behind it.

    `show` None means: where stderr is a terminal, or in a notebook.
    """

    def __init__(self, total: int, initial: int = 0, show: bool | None = None) -> None:
        self._bar: Any = None
        self._next_text = 0.0
        if show if show is not None else _somebody_watches():
            from tqdm.auto import tqdm  # imported here: minilstm itself imports without tqdm

            self._bar = tqdm(total=total, initial=initial, unit="batch", dynamic_ncols=True)
        self._started, self._sequences = time.monotonic(), 0

    def advance(self, sequences: int, numbers: dict[str, float]) -> None:
        """One batch of so many sequences further; `numbers` are shown by name, and sequences a second."""
        if self._bar is None:
            return
        self._bar.update()
        self._sequences += sequences
        now = time.monotonic()
        if now >= self._next_text or self._bar.n == self._bar.total:
            self._next_text = now + REFRESH_SECONDS
            shown = [f"{name} {value:.4g}" for name, value in numbers.items()]
            shown.append(f"{self._sequences / max(now - self._started, 1e-9):.0f} sequences/s")
            self._bar.set_postfix_str(", ".join(shown))

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _somebody_watches() -> bool:
    return sys.stderr is not None and (sys.stderr.isatty() or "ipykernel" in sys.modules)
