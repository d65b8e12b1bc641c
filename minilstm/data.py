"""Batches and windows of sequences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


class ContiguousBatches:
    """Batches of a long stream whose rows go on where those of the batch before ended.

    The arrangement of Zaremba, Sutskever and Vinyals 2014 (arXiv 1409.2329): the stream is cut into `batch_size` rows
    of equal length, and each batch is the next `num_steps` columns of them; targets are the inputs one step later.
    Called with a step it returns a batch; ``len()`` is the number of batches an epoch. `fit` carries the state from one
    batch to the next and starts anew where ``reset`` says so: at the start of an epoch.

    Parameters
    ----------
    stream : array [time] or [time, features]
        Labels or numbers.
    batch_size, num_steps : int
    targets : array [time, ...], optional
        Default: the stream itself; target t belongs to input t - 1.

    Raises
    ------
    ValueError
        Where the stream is too short for one batch.
    """

    def __init__(
        self, stream: np.ndarray, batch_size: int, num_steps: int, targets: np.ndarray | None = None
    ) -> None:
        stream = np.asarray(stream)
        targets = stream if targets is None else np.asarray(targets)
        columns = (len(stream) - 1) // batch_size if batch_size > 0 else 0
        if batch_size < 1 or num_steps < 1 or columns < 1 or len(targets) != len(stream):
            raise ValueError(
                f"contiguous_batches: a stream of {len(stream)} steps (targets: {len(targets)}) does not make batches "
                f"of {batch_size} x {num_steps}"
            )
        rows = batch_size * columns
        self.inputs = stream[:rows].reshape(batch_size, columns, *stream.shape[1:])
        self.targets = targets[1 : rows + 1].reshape(batch_size, columns, *targets.shape[1:])
        self.num_steps = num_steps

    def __len__(self) -> int:
        return -(-self.inputs.shape[1] // self.num_steps)

    def __call__(self, step: int) -> Batch:
        """The batch of a step; the last of an epoch may have fewer columns."""
        k = step % len(self)
        columns = slice(k * self.num_steps, (k + 1) * self.num_steps)
        reset = np.full(len(self.inputs), k == 0)
        return {"inputs": self.inputs[:, columns], "targets": self.targets[:, columns], "reset": reset}


contiguous_batches = ContiguousBatches  # the name that reads as a function, as it is used


def pad_sequences(sequences: Sequence[np.ndarray], length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of different lengths as one array, with zeros behind their ends, and their lengths.

    Parameters
    ----------
    sequences : list of arrays [time, ...]
        Alike but for the time.
    length : int, optional
        Default that of the longest.

    Returns
    -------
    (padded [batch, length, ...], lengths [batch])

    Raises
    ------
    ValueError
        If there are none, or one is longer than `length`.

    Examples
    --------
    >>> padded, lengths = pad_sequences([np.array([1, 2, 3]), np.array([4])])
    >>> padded.tolist(), lengths.tolist()
    ([[1, 2, 3], [4, 0, 0]], [3, 1])
    """
    arrays = [np.asarray(sequence) for sequence in sequences]
    lengths = np.array([len(array) for array in arrays], np.int64)
    length = int(max(lengths, default=0)) if length is None else length
    if not arrays or lengths.max() > length:
        raise ValueError(f"pad_sequences: wanted sequences of at most {length} steps, got lengths {lengths.tolist()}")
    padded = np.zeros((len(arrays), length, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded, lengths


class BucketedBatches:
    """Batches of sequences of similar length, so that little of a batch is padding.

    Called with a step it returns a padded batch with `sequence_length` and `weights`; ``len()`` is the number of
    batches an epoch. Sequences are sorted by length and cut into batches once; the batches' order is a function of
    (seed, epoch).

    Parameters
    ----------
    inputs, targets : lists of arrays [time, ...]
        ``targets[k]`` has the length of ``inputs[k]``.
    batch_size : int
    seed : int, default 0
    """

    def __init__(
        self, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray], batch_size: int, seed: int = 0
    ) -> None:
        lengths = [len(sequence) for sequence in inputs]
        if not lengths or min(lengths) < 1 or lengths != [len(sequence) for sequence in targets] or batch_size < 1:
            raise ValueError(
                "BucketedBatches: wanted inputs and targets of equal lengths, each at least 1, and a batch_size of at "
                f"least 1, got {len(inputs)} inputs, {len(targets)} targets, batch_size {batch_size}"
            )
        self.inputs, self.targets, self.seed = inputs, targets, seed
        order = np.argsort(lengths, kind="stable")
        self.groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def __len__(self) -> int:
        return len(self.groups)

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        epoch, k = divmod(step, len(self))
        group = self.groups[np.random.default_rng([self.seed, 1, epoch]).permutation(len(self))[k]]
        inputs, lengths = pad_sequences([self.inputs[n] for n in group])
        targets, _ = pad_sequences([self.targets[n] for n in group])
        weights = (np.arange(inputs.shape[1]) < lengths[:, None]).astype(np.float64)
        return {"inputs": inputs, "targets": targets, "weights": weights, "sequence_length": lengths}
