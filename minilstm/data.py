"""Batches and windows of sequences."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from .params import tree_leaves, tree_map

Batch = dict[str, Any]
KEYS = ("inputs", "targets", "weights", "sequence_length")


def as_batch(data: Any, where: str = "data") -> Batch:
    """`data` as a dict with `inputs`, `targets` and perhaps `weights`, `sequence_length`.

    A dict stays what it is; ``(inputs, targets)`` and ``(inputs, targets, weights)`` are short for one.

    Raises ValueError for anything else.
    """
    if isinstance(data, (tuple, list)) and len(data) in (2, 3):
        return dict(zip(KEYS, data, strict=False))
    if isinstance(data, dict) and "inputs" in data:
        return data
    kind = f"a dict with keys {sorted(data)}" if isinstance(data, dict) else type(data).__name__
    wanted = "a dict with 'inputs', (inputs, targets) or (inputs, targets, weights)"
    raise ValueError(f"{where}: wanted {wanted}, got {kind}")


def to_dtype(batch: Any, dtype: Any) -> Any:
    """A tree with its floating arrays converted to `dtype`; whole numbers stay whole."""

    def convert(value: Any) -> np.ndarray:
        array = np.asarray(value)
        return array.astype(dtype, copy=False) if array.dtype.kind == "f" else array

    return tree_map(convert, batch)


def check_batch(batch: Any, where: str) -> int:
    """The number of sequences in a tree of arrays.

    Raises ValueError, naming the array, where it is empty, where lengths differ, or where it holds NaN or infinity.
    """
    sizes = {}
    named = batch.items() if isinstance(batch, dict) else enumerate(tree_leaves(batch))
    for name, subtree in named:
        for leaf in tree_leaves(subtree):
            if np.ndim(leaf) == 0 or 0 in leaf.shape:
                raise ValueError(f"{where}: {name} must not be empty, got shape {np.shape(leaf)}")
            if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
                place = tuple(int(k) for k in np.argwhere(~np.isfinite(leaf))[0])
                raise ValueError(f"{where}: {name} holds {leaf[place]} at {place}; every number must be finite")
            sizes[name] = len(leaf)
    if len(set(sizes.values())) != 1:
        raise ValueError(f"{where}: all arrays must hold the same number of sequences, got {sizes}")
    return int(next(iter(sizes.values())))


def shuffled_batches(data: Any, batch_size: int, seed: int, epoch: int) -> Iterator[Any]:
    """The batches of one epoch, in an order that is a function of (seed, epoch) alone.

    The last batch is smaller where `batch_size` does not divide the number of sequences.
    """
    size = len(tree_leaves(data)[0])
    order = np.random.default_rng([seed, 1, epoch]).permutation(size)
    for start in range(0, size, batch_size):
        chosen = order[start : start + batch_size]
        yield tree_map(lambda array, chosen=chosen: array[chosen], data)


def sliding_windows(series: np.ndarray, length: int, stride: int = 1) -> np.ndarray:
    """Every stretch of `length` consecutive steps of a series ``[time, ...]``: ``[windows, length, ...]``, a copy.

    Raises ValueError where the series is shorter than one window.

    >>> sliding_windows(np.arange(5.0), 3).tolist()
    [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]
    """
    series = np.asarray(series)
    if not 1 <= length <= len(series):
        raise ValueError(f"sliding_windows: length must lie from 1 to {len(series)}, got {length}")
    if stride < 1:
        raise ValueError(f"sliding_windows: stride must be at least 1, got {stride}")
    starts = np.arange(0, len(series) - length + 1, stride)
    return series[starts[:, None] + np.arange(length)]


# --- where the batches of a run come from ---------------------------------------------------------------------


class ArraySource:
    """Batches out of one tree of arrays, shuffled anew every epoch."""

    def __init__(self, data: Any, dtype: Any, batch_size: int, seed: int, where: str = "fit: data") -> None:
        if batch_size < 1:
            raise ValueError(f"fit: batch_size must be at least 1, got {batch_size}")
        self.data = to_dtype(data, dtype)
        self.size = check_batch(self.data, where)
        self.batch_size, self.seed = batch_size, seed
        self.steps_per_epoch = -(-self.size // batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch from its step `start` on."""
        return itertools.islice(shuffled_batches(self.data, self.batch_size, self.seed, epoch), start, None)


class CallableSource:
    """Batches from a function ``step -> batch``: any place can be gone to directly."""

    def __init__(self, data: Callable[[int], Any], dtype: Any, steps_per_epoch: int, prepare: Any) -> None:
        self.data, self.dtype, self.steps_per_epoch, self.prepare = data, dtype, steps_per_epoch, prepare

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch from its step `start` on."""
        for step in range(epoch * self.steps_per_epoch + start, (epoch + 1) * self.steps_per_epoch):
            yield _checked(self.prepare(self.data(step)), self.dtype, step)


class IterableSource:
    """Batches from an iterable, which may be endless; a new iterator is taken from it when a run starts."""

    def __init__(self, data: Iterable[Any], dtype: Any, steps_per_epoch: int, prepare: Any) -> None:
        self.iterator = iter(data)
        self.dtype, self.steps_per_epoch, self.prepare = dtype, steps_per_epoch, prepare
        self.consumed = 0

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch from its step `start` on; what lies before is consumed and thrown away."""
        for step in range(epoch * self.steps_per_epoch + start, (epoch + 1) * self.steps_per_epoch):
            while True:
                try:
                    batch = next(self.iterator)
                except StopIteration:
                    raise ValueError(
                        f"fit: data ended after {self.consumed} batches, wanted one for step {step}"
                    ) from None
                self.consumed += 1
                if self.consumed > step:
                    break
            yield _checked(self.prepare(batch), self.dtype, step)


def _checked(batch: Any, dtype: Any, step: int) -> Any:
    batch = to_dtype(batch, dtype)
    check_batch(batch, f"fit: data, batch of step {step}")
    return batch


def as_source(
    data: Any, dtype: Any, *, batch_size: int, seed: int, steps_per_epoch: int | None, resume: bool, plain: bool
) -> Any:
    """The source that `data` means: a tree of arrays, a callable ``step -> batch`` or an iterable of batches.

    With `plain`, batches are any trees; otherwise each is made a dict by `as_batch`.

    Raises ValueError for anything else, without the `steps_per_epoch` that the last two need, and for a one-shot
    generator together with `resume`.
    """
    prepare = (lambda batch: batch) if plain else (lambda batch: as_batch(batch, "fit: data"))
    of_arrays = isinstance(data, list) and not plain and not any(isinstance(part, (dict, tuple)) for part in data)
    is_tree = isinstance(data, (dict, tuple, np.ndarray)) or (of_arrays and steps_per_epoch is None)
    if is_tree:
        if steps_per_epoch is not None:
            raise ValueError("fit: steps_per_epoch is for a callable or an iterable; arrays have their own length")
        return ArraySource(prepare(data), dtype, batch_size, seed)
    if not callable(data) and not isinstance(data, Iterable):
        raise ValueError(f"fit: data must be arrays, a callable or an iterable of batches, got {type(data).__name__}")
    if steps_per_epoch is None or steps_per_epoch < 1:
        raise ValueError(
            f"fit: steps_per_epoch must be at least 1 for {type(data).__name__} data, got {steps_per_epoch}"
        )
    if callable(data):
        return CallableSource(data, dtype, steps_per_epoch, prepare)
    if resume and isinstance(data, Iterator):
        raise ValueError(
            "fit: data is a one-shot iterator, which cannot be consumed again on resume; pass a list, an object with "
            "__iter__, or a callable step -> batch"
        )
    return IterableSource(data, dtype, steps_per_epoch, prepare)
