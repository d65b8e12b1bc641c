"""Truncated backpropagation through time: how a long sequence becomes windows with the state carried between them.

At every `stride` steps one update is made from the loss of those steps, and its gradient goes back through `window`
steps, no further: the state that a window starts from is a number, not a function of the parameters. This is
BPTT(h; h') of Williams and Peng 1990, with h = window and h' = stride.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..params import Tree, tree_map


class tbptt(NamedTuple):  # in small letters, since it reads as an option: fit(..., tbptt=tbptt(stride=20))
    """How far apart updates are and how far back their gradients go, in time steps.

    Parameters
    ----------
    stride : int
        Steps whose loss one update is made from.
    window : int, optional
        Steps that its gradient goes back through; at least `stride`, which is the default.
    """

    stride: int
    window: int | None = None

    def checked(self) -> Truncation:
        """Both numbers with the default filled in; ValueError where one is out of range."""
        window = self.stride if self.window is None else self.window
        for name, value in (("stride", self.stride), ("window", window)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise ValueError(f"tbptt: {name} must be a whole number of steps, got {value!r}")
        if self.stride < 1 or window < self.stride:
            raise ValueError(
                "tbptt: stride must be at least 1 and window at least stride, "
                f"got stride={self.stride}, window={window}"
            )
        return Truncation(self.stride, window)


class Truncation(NamedTuple):
    """A `tbptt` with its default filled in."""

    stride: int
    window: int


class Window(NamedTuple):
    """One window of a batch: what the model reads, how many steps count, and where the next window starts.

    `advance` is the number of steps from this window's start to the next one's; the state there is carried on. `last`
    says that the batch has no further window.
    """

    batch: dict[str, Any]
    counted: int
    advance: int
    last: bool


def count_windows(time: int, truncation: Truncation) -> int:
    """How many updates a sequence of `time` steps makes."""
    return -(-time // truncation.stride)


def windows(batch: dict[str, Any], truncation: Truncation, first: int = 0) -> Iterator[Window]:
    """The windows of a batch, from number `first` on.

    Inputs and targets are cut along their second dimension. Steps that an earlier window counted get the weight 0.
    """
    stride, length = truncation
    time = batch["inputs"].shape[1]
    count = count_windows(time, truncation)
    for number in range(first, count):
        begin_counted, end = number * stride, min((number + 1) * stride, time)
        begin, next_begin = (max(0, (n + 1) * stride - length) for n in (number, number + 1))
        part = {key: batch[key][:, begin:end] for key in ("inputs", "targets")}
        weights = batch.get("weights")
        if weights is not None or begin < begin_counted:
            if weights is None:
                dtype = batch["inputs"].dtype if batch["inputs"].dtype.kind == "f" else np.float32
                part["weights"] = np.ones((len(part["inputs"]), end - begin), dtype)
            else:
                part["weights"] = weights[:, begin:end].copy()
            part["weights"][:, : begin_counted - begin] = 0
        if batch.get("sequence_length") is not None:
            part["sequence_length"] = np.clip(batch["sequence_length"] - begin, 0, end - begin)
        yield Window(part, end - begin_counted, min(next_begin, end) - begin, number == count - 1)


def reset_rows(state: Tree, reset: Any, initial: Callable[[], Tree] | None = None) -> Tree:
    """`state` with that of a new start in the rows where `reset` ``[batch]`` is True.

    ``initial()`` gives the new start's state, without it zeros; None, which means a new start too, comes back where all
    rows are reset.
    """
    if state is None or reset is None:
        return state
    reset = np.asarray(reset, bool)
    if reset.all():
        return None
    if not reset.any():
        return state
    new = tree_map(np.zeros_like, state) if initial is None else initial()
    return tree_map(lambda part, start: np.where(reset[:, None], start, part), state, new)


def counts(batch: Any) -> bool:
    """Whether any step of a window has a weight: without one there is nothing to learn from it."""
    return not (isinstance(batch, dict) and batch.get("weights") is not None and not np.any(batch["weights"]))


def check_model(model: Any) -> None:
    """Raise ValueError for a model whose state cannot be carried from window to window."""
    for name, layer in zip(model.names, model.layers, strict=True):
        if layer.recurrent and getattr(layer, "return_sequences", True) is False:
            raise ValueError(f"fit: tbptt needs outputs of every step, but layer {name!r} has return_sequences=False")
        if layer.recurrent and getattr(layer, "reverse", True):  # a Bidirectional has no such option: it runs both ways
            raise ValueError(f"fit: tbptt carries the state forwards in time, but layer {name!r} runs backwards")
