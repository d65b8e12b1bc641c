"""A progress bar that shows itself only in a terminal or a notebook."""

from __future__ import annotations

import sys
import time
from typing import Any

REFRESH_SECONDS = 0.2  # between two updates of the numbers after the bar: formatting them costs more than a small step


class ProgressBar:
    """A tqdm bar over the batches of a run, followed by the newest numbers.

    `show` says whether it is visible. None means: if stderr is a terminal, or in a notebook.
    """

    def __init__(self, total: int, initial: int = 0, show: bool | None = None) -> None:
        self._bar: Any = None
        self._next_text = 0.0
        if show if show is not None else _is_watched():
            from tqdm.auto import tqdm  # imported here, so that `import minilstm` does not load tqdm

            self._bar = tqdm(total=total, initial=initial, unit="batch", dynamic_ncols=True)
        self._started, self._sequences = time.monotonic(), 0

    def advance(self, sequences: int, numbers: dict[str, float]) -> None:
        """Count one batch with this many sequences; show `numbers` by name, and the sequences per second."""
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


def _is_watched() -> bool:
    return sys.stderr is not None and (sys.stderr.isatty() or "ipykernel" in sys.modules)
