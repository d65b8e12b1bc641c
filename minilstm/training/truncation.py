"""Truncated backpropagation through time: cut a long sequence into windows and carry the state between them.

After every `stride` steps, one update is made from the loss of those steps. Its gradient goes back through `window`
steps at most: the state that a window starts from is a number, not a function of the parameters. This is BPTT(h; h') of
Williams and Peng 1990, with h = window and h' = stride.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..arguments import check_whole
from ..data import ContiguousBatches
from ..params import Tree, tree_map


class tbptt(NamedTuple):  # lower case, because it reads as an option: fit(..., tbptt=tbptt(stride=20))
    """An option of `fit`: how far apart updates are, and how far back their gradients go, in time steps.

    Parameters
    ----------
    stride : int
        Time steps between two updates. Each update uses the loss of these steps.
    window : int, optional
        Time steps that its gradient goes back through. At least `stride`, which is the default.
    """

    stride: int
    window: int | None = None

    def checked(self) -> Truncation:
        """Return both numbers, with the default filled in; raise ValueError if one is out of range."""
        stride = check_whole(self.stride, "stride", "tbptt")
        window = stride if self.window is None else check_whole(self.window, "window", "tbptt")
        if window < stride:
            raise ValueError(f"tbptt: window must be at least stride, got stride={stride}, window={window}")
        return Truncation(stride, window)


class Truncation(NamedTuple):
    """A `tbptt` with its default filled in."""

    stride: int
    window: int


class Window(NamedTuple):
    """One window of a batch: what the model reads, and where the next window starts.

    `advance` is the number of steps from the start of this window to the start of the next, whose state is carried on.
    `last` says that this is the last window of the batch.
    """

    batch: dict[str, Any]
    advance: int
    last: bool


def as_truncation(option: tbptt | None, data: Any, model: Any) -> Truncation | None:
    """Check the option `tbptt` of `fit`. Its default for `ContiguousBatches`, which are windows, is their stride.

    Raises ValueError if it is not a `tbptt`, or if the state of `model` cannot be carried from window to window.
    """
    if option is None and isinstance(data, ContiguousBatches):
        option = tbptt(data.num_steps)
    if option is None:
        return None
    if not isinstance(option, tbptt):
        raise ValueError(f"fit: tbptt must be minilstm.tbptt(stride, window), got {option!r}")
    truncation = option.checked()
    if model is not None:
        model.check_stepwise("fit: tbptt")
    return truncation


def windows(batch: dict[str, Any], truncation: Truncation, first: int = 0) -> Iterator[Window]:
    """Cut a batch into windows along its second dimension, and yield them from number `first` on.

    A step whose loss was used by an earlier window has the weight 0.
    """
    stride, length = truncation
    time = batch["inputs"].shape[1]
    count = -(-time // stride)
    for number in range(first, count):
        new, end = number * stride, min((number + 1) * stride, time)  # the loss of steps new..end - 1 is used here
        begin, next_begin = (max(0, (n + 1) * stride - length) for n in (number, number + 1))
        part = {key: batch[key][:, begin:end] for key in ("inputs", "targets")}
        if batch.get("weights") is not None:
            part["weights"] = batch["weights"][:, begin:end].copy()
        elif begin < new:
            dtype = batch["inputs"].dtype if batch["inputs"].dtype.kind == "f" else np.float32
            part["weights"] = np.ones(part["inputs"].shape[:2], dtype)
        if "weights" in part:
            part["weights"][:, : new - begin] = 0
        if batch.get("sequence_length") is not None:
            part["sequence_length"] = np.clip(batch["sequence_length"] - begin, 0, end - begin)
        yield Window(part, min(next_begin, end) - begin, number == count - 1)


def reset_rows(state: Tree, reset: Any, initial: Callable[[], Tree]) -> Tree:
    """Return `state` with the initial state in the rows where `reset` ``[batch]`` is True.

    ``initial()`` returns the initial state of all rows. The result is None, which also means the initial state, if all
    rows are reset.
    """
    if state is None or reset is None:
        return state
    reset = np.asarray(reset, bool)
    if reset.all():
        return None
    if not reset.any():
        return state
    return tree_map(lambda part, start: np.where(reset[:, None], start, part), state, initial())


def has_weight(batch: dict[str, Any]) -> bool:
    """Whether any step of a batch has a weight other than 0: if none has, the batch has no loss to learn from."""
    return batch.get("weights") is None or bool(np.any(batch["weights"]))
