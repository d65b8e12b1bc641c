"""Where the batches of a run come from: arrays, a function of the step, or an iterable."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..data import as_batch, check_batch, shuffled_batches, to_dtype


class ArraySource:
    """Batches out of one tree of arrays, shuffled anew every epoch."""

    continues = False  # whether a batch goes on where the one before ended

    def __init__(self, data: Any, dtype: Any, batch_size: int, seed: int, where: str = "fit: data") -> None:
        if batch_size < 1:
            raise ValueError(f"fit: batch_size must be at least 1, got {batch_size}")
        self.data = to_dtype(data, dtype)
        self.size = check_batch(self.data, where)
        self.batch_size, self.seed = batch_size, seed
        self.batches_per_epoch = -(-self.size // batch_size)

    def first(self) -> Any:
        """All there is: what baselines are computed from."""
        return self.data

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch from its step `start` on."""
        return itertools.islice(shuffled_batches(self.data, self.batch_size, self.seed, epoch), start, None)


class CallableSource:
    """Batches from a function ``step -> batch``: any place can be gone to directly."""

    continues = True

    def __init__(self, data: Callable[[int], Any], dtype: Any, steps_per_epoch: int, prepare: Any) -> None:
        self.data, self.dtype, self.batches_per_epoch, self.prepare = data, dtype, steps_per_epoch, prepare

    def first(self) -> Any:
        """The first batch, for the checks before a run and for baselines."""
        return _checked(self.prepare(self.data(0)), self.dtype, 0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch from its step `start` on."""
        for step in range(epoch * self.batches_per_epoch + start, (epoch + 1) * self.batches_per_epoch):
            yield _checked(self.prepare(self.data(step)), self.dtype, step)


class IterableSource:
    """Batches from an iterable, which may be endless; a new iterator is taken from it when a run starts."""

    continues = True

    def __init__(self, data: Iterable[Any], dtype: Any, steps_per_epoch: int, prepare: Any) -> None:
        self.iterator = iter(data)
        self.dtype, self.batches_per_epoch, self.prepare = dtype, steps_per_epoch, prepare
        self.consumed = 0

    def first(self) -> Any:
        """The first batch, for the checks before a run and for baselines; it is not lost."""
        batch = next(self.iterator, None)
        if batch is None:
            raise ValueError("fit: data is an iterable without a batch")
        self.iterator = itertools.chain([batch], self.iterator)
        return _checked(self.prepare(batch), self.dtype, 0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """The batches of an epoch from its step `start` on; what lies before is consumed and thrown away."""
        for step in range(epoch * self.batches_per_epoch + start, (epoch + 1) * self.batches_per_epoch):
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
    data: Any,
    dtype: Any,
    *,
    batch_size: int,
    seed: int,
    steps_per_epoch: int | None,
    resume: bool,
    plain: bool,
    where: str = "fit: data",
) -> Any:
    """The source that `data` means: a tree of arrays, a callable ``step -> batch`` or an iterable of batches.

    With `plain`, batches are any trees; otherwise each is made a dict by `as_batch`.

    Raises ValueError for anything else, without the `steps_per_epoch` that the last two need (a callable that has a
    length needs none), and for a one-shot generator together with `resume`.
    """
    prepare = (lambda batch: batch) if plain else (lambda batch: as_batch(batch, where))
    of_arrays = isinstance(data, list) and not plain and not any(isinstance(part, (dict, tuple)) for part in data)
    is_tree = isinstance(data, (dict, tuple, np.ndarray)) or (of_arrays and steps_per_epoch is None)
    if is_tree:
        if steps_per_epoch is not None:
            raise ValueError("fit: steps_per_epoch is for a callable or an iterable; arrays have their own length")
        return ArraySource(prepare(data), dtype, batch_size, seed, where)
    if not callable(data) and not isinstance(data, Iterable):
        raise ValueError(f"{where} must be arrays, a callable or an iterable of batches, got {type(data).__name__}")
    if steps_per_epoch is None and callable(data) and hasattr(data, "__len__"):
        steps_per_epoch = len(data)
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
