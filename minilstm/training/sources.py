"""Where batches come from: arrays that are shuffled every epoch, a function of the step, or an iterable."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..arguments import can_take
from ..data import prepared, shuffled_batches
from ..params import tree_leaves


class ArraySource:
    """Batches from one tree of arrays, shuffled again every epoch."""

    continues = False  # whether a batch continues the sequences of the batch before it

    def __init__(self, data: Any, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ValueError(f"fit: batch_size must be at least 1, got {batch_size}")
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.batches_per_epoch = -(-len(tree_leaves(data)[0]) // batch_size)

    def first(self) -> Any:
        """Return all data, for the checks before a run and for baselines."""
        return self.data

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Yield the batches of an epoch, from its batch number `start` on."""
        return itertools.islice(shuffled_batches(self.data, self.batch_size, self.seed, epoch), start, None)


class StepSource:
    """Batches from a function ``step -> batch``, which can start at any step.

    ``prepare(batch, place)`` returns a checked batch; its errors name the place.
    """

    continues = True

    def __init__(
        self, data: Callable[[int], Any], batches_per_epoch: int, prepare: Callable[[Any, str], Any], where: str
    ) -> None:
        self.data, self.batches_per_epoch, self.prepare, self.where = data, batches_per_epoch, prepare, where
        self._first: Any = None

    def _batch(self, step: int) -> Any:
        if step == 0 and self._first is not None:
            batch, self._first = self._first, None
            return batch
        place = f", batch of step {step}"
        try:
            batch = self.data(step)
        except StopIteration:  # in a loop it would be the end of the epoch
            batch = None
        if batch is None:
            raise ValueError(f"{self.where}{place}: the callable has no batch for it")
        return self.prepare(batch, place)

    def first(self) -> Any:
        """Return the first batch, for the checks before a run and for baselines; it is read once, and trained on."""
        if self._first is None:
            self._first = self._batch(0)
        return self._first

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Yield the batches of an epoch, from its batch number `start` on."""
        return map(self._batch, range(epoch * self.batches_per_epoch + start, (epoch + 1) * self.batches_per_epoch))


class NumberedBatches:
    """An iterable of batches as a function of the step. Batches between two steps are skipped.

    An iterable starts again if it is exhausted, or for an earlier step; an iterator cannot.
    """

    def __init__(self, batches: Iterable[Any], where: str) -> None:
        self.batches, self.where = batches, where
        self.iterator, self.consumed, self.latest = iter(batches), 0, None

    def __call__(self, step: int) -> Any:
        """Return the batch of a step."""
        if step < self.consumed - 1:  # validation data are read again after every epoch
            self.iterator, self.consumed = iter(self.batches), 0
        while self.consumed <= step:
            self.latest = next(self.iterator, None)
            if self.latest is None and self.iterator is not self.batches:
                self.iterator = iter(self.batches)
                self.latest = next(self.iterator, None)
            if self.latest is None:
                raise ValueError(f"{self.where} ended after {self.consumed} batches, wanted one for step {step}")
            self.consumed += 1
        return self.latest


Source = ArraySource | StepSource


def as_source(
    data: Any,
    dtype: Any,
    *,
    batch_size: int,
    seed: int,
    steps_per_epoch: int | None,
    resume: bool,
    any_tree: bool,
    time_major: bool = False,
    where: str = "fit: data",
) -> Source:
    """Return the source for `data`: a tree of arrays, a callable ``step -> batch`` or an iterable of batches.

    With `any_tree` a batch may be any tree; otherwise it is a dict, see `prepared`.

    Raises ValueError for other data; for a callable or an iterable that has no length, without `steps_per_epoch`; and
    for a one-shot iterator with `resume`.
    """

    def prepare(batch: Any, place: str = "") -> Any:
        return prepared(batch, dtype, where + place, any_tree, time_major)

    if isinstance(data, Mapping) and not any_tree:  # the arrays of an .npz or HDF5 file
        data = dict(data)
    of_arrays = isinstance(data, list) and not any_tree and not any(isinstance(part, (dict, tuple)) for part in data)
    if isinstance(data, (dict, tuple, np.ndarray)) or (of_arrays and steps_per_epoch is None):
        if steps_per_epoch is not None:
            raise ValueError("fit: steps_per_epoch is for a callable or an iterable; arrays have their own length")
        return ArraySource(prepare(data), batch_size, seed)
    kind = type(data).__name__
    if isinstance(data, (str, bytes, type)) or not (callable(data) or isinstance(data, Iterable)):
        raise ValueError(f"{where} must be arrays, a callable or an iterable of batches, got {kind}")
    if steps_per_epoch is None and hasattr(data, "__len__"):
        with contextlib.suppress(TypeError):  # a DataLoader or a Dataset whose length is not known
            steps_per_epoch = len(data)
    if callable(data) and not can_take(data, 1):
        wanted = "a callable must take the step and return its batch; call a function that makes a generator first"
        raise ValueError(f"{where}: {wanted}: got {data!r:.80}")
    if not steps_per_epoch and where != "fit: data":
        raise ValueError(f"{where} must be arrays, or have a length of at least 1: {kind} has {steps_per_epoch}")
    if steps_per_epoch is None or steps_per_epoch < 1:
        raise ValueError(f"fit: steps_per_epoch must be at least 1 for {kind} data, got {steps_per_epoch}")
    if not callable(data):
        if isinstance(data, Iterator) and (resume or where != "fit: data"):
            raise ValueError(
                f"{where} is a one-shot iterator, which cannot be read again{' on resume' if resume else ''}; pass a "
                "list, an object with __iter__, or a callable step -> batch"
            )
        data = NumberedBatches(data, where)
    return StepSource(data, steps_per_epoch, prepare, where)
