"""Batches of sequences: their form, their checks, their shuffled order, and how to cut them from a series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .arguments import check_whole, did_you_mean
from .arrays import as_array
from .params import tree_leaves, tree_map

Batch = dict[str, Any]

KEYS = ("inputs", "targets", "weights", "sequence_length", "reset")
OTHER_WORDS = {  # what other libraries call them
    "x": "inputs", "y": "targets", "labels": "targets", "mask": "weights", "masks": "weights",
    "sample_weight": "weights", "length": "sequence_length", "lengths": "sequence_length", "seq_len": "sequence_length",
}  # fmt: skip


def as_batch(data: Any, where: str = "data") -> Batch:
    """Return `data` as a dict with `inputs`, and `targets`, `weights`, `sequence_length` if it has them.

    A dict is returned unchanged. ``(inputs, targets)`` and ``(inputs, targets, weights)`` become one. A named tuple
    becomes one by its names, if it has one of these, or another library's word for one.

    Raises ValueError for anything else, and for an unknown key.
    """
    names = [OTHER_WORDS.get(name, name) for name in getattr(data, "_fields", ())]
    if not set(names).isdisjoint(KEYS):
        data = dict(zip(names, data, strict=True))
    if isinstance(data, (tuple, list)) and len(data) in (2, 3):
        if all(isinstance(part, tuple) for part in data):
            got = f"{len(data)} tuples; if they are pairs, stack them"
            raise ValueError(f"{where}: wanted (inputs, targets), got {got}")
        return dict(zip(("inputs", "targets", "weights"), data, strict=False))
    if isinstance(data, Mapping) and not isinstance(data, dict):
        data = dict(data)
    if isinstance(data, dict) and "inputs" in data:
        for key in data:
            if key not in KEYS:
                hint = did_you_mean(OTHER_WORDS.get(key, str(key)), KEYS)
                raise ValueError(f"{where}: unknown key {key!r}, the known ones are {', '.join(KEYS)}{hint}")
        return data
    kind = f"a dict with keys {sorted(data)}" if isinstance(data, dict) else type(data).__name__
    wanted = "a dict with 'inputs', (inputs, targets) or (inputs, targets, weights)"
    raise ValueError(f"{where}: wanted {wanted}, got {kind}")


def to_dtype(batch: Any, dtype: Any, where: str = "data") -> Any:
    """Convert the floating arrays of a tree to `dtype`; integer arrays keep theirs. Errors begin with `where`."""
    return tree_map(lambda value: _to_dtype(as_array(value, where), dtype), batch)


def _to_dtype(array: np.ndarray, dtype: Any) -> np.ndarray:
    return array.astype(dtype, copy=False) if array.dtype.kind == "f" else array


def check_batch(batch: Any, where: str, time_major: bool = False) -> None:
    """Raise ValueError if an array of a tree is empty or holds NaN or infinity, or if their lengths differ.

    The message names the array. With `time_major`, inputs (and targets and weights of every step) are
    ``[time, batch, ...]``.
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
            every_step = time_major and leaf.ndim > 1 and leaf.shape[:2] == batch["inputs"].shape[:2]
            sizes[name] = leaf.shape[1] if every_step else len(leaf)
    if len(set(sizes.values())) != 1:
        raise ValueError(f"{where}: all arrays must hold the same number of sequences, got {sizes}")


def prepared(batch: Any, dtype: Any, where: str, any_tree: bool = False, time_major: bool = False) -> Any:
    """Return a batch as the training loop reads it: a dict (see `as_batch`) with floating arrays of `dtype`, checked.

    With `any_tree` the batch may be any tree of arrays, and keeps its structure. `time_major` as in `check_batch`.
    """
    if any_tree:
        batch = to_dtype(batch, dtype, where)
    else:
        named = as_batch(batch, where).items()
        given = {key: value for key, value in named if value is not None or key == "inputs"}  # inputs must be there
        batch = {key: _to_dtype(as_array(value, f"{where}: {key}"), dtype) for key, value in given.items()}
        batch = _with_plain_dtypes(batch, where)
    check_batch(batch, where, time_major and not any_tree)
    return batch


def _with_plain_dtypes(batch: Batch, where: str) -> Batch:
    """Return a batch with lengths as int64, which does not wrap around, and resets as bool; check the weights."""
    lengths, reset, weights = (batch.get(key) for key in ("sequence_length", "reset", "weights"))
    if lengths is not None:
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
            got = f"shape {lengths.shape} of {lengths.dtype}"
            raise ValueError(f"{where}: sequence_length must be whole numbers, one a sequence, got {got}")
        batch["sequence_length"] = lengths.astype(np.int64, copy=False)
    if reset is not None:
        if reset.ndim != 1 or not np.isin(reset, (0, 1)).all():
            raise ValueError(f"{where}: reset must be True or False, one a sequence, got {reset!r:.80}")
        batch["reset"] = reset.astype(bool, copy=False)
    if weights is not None and weights.size and weights.min() < 0:
        raise ValueError(f"{where}: weights must be 0 or more, got {weights.min()}")
    return batch


def shuffled_batches(data: Any, batch_size: int, seed: int, epoch: int) -> Iterator[Any]:
    """Shuffle the sequences of a tree of arrays and yield the batches of one epoch.

    The order depends on (seed, epoch) alone. The last batch is smaller if `batch_size` does not divide the number of
    sequences.
    """
    size = len(tree_leaves(data)[0])
    order = np.random.default_rng([seed, 1, epoch]).permutation(size)
    for start in range(0, size, batch_size):
        chosen = order[start : start + batch_size]
        yield tree_map(lambda array, chosen=chosen: array[chosen], data)


def sliding_windows(series: np.ndarray, length: int, stride: int = 1) -> np.ndarray:
    """Cut a series ``[time, ...]`` into all windows of `length` steps: ``[windows, length, ...]``, a copy.

    Each window starts `stride` steps after the one before. Raises ValueError if the series is shorter than one window.

    >>> sliding_windows(np.arange(5.0), 3).tolist()
    [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]
    """
    series = as_array(series, "sliding_windows: series")
    length, stride = check_whole(length, "length", "sliding_windows"), check_whole(stride, "stride", "sliding_windows")
    if series.ndim == 0 or length > len(series):
        steps = len(series) if series.ndim else 0
        raise ValueError(f"sliding_windows: length must be from 1 to {steps}, got {length}; series is {series.shape}")
    starts = np.arange(0, len(series) - length + 1, stride)
    return series[starts[:, None] + np.arange(length)]


class ContiguousBatches:
    """Batches of one long stream. Each row continues where it ended in the batch before.

    The stream is cut into `batch_size` rows of equal length, and each batch is the next `num_steps` columns of them.
    Targets are the inputs one step later. Call the object with a step to get that step's batch; ``len()`` is the number
    of batches in an epoch. `fit` carries the state from one batch to the next, and starts from the initial state where
    the batch's ``reset`` is True: at the start of an epoch.

    Source: Zaremba, Sutskever and Vinyals 2014 (arXiv 1409.2329).

    Parameters
    ----------
    stream : array [time] or [time, features]
        Labels or numbers.
    batch_size, num_steps : int
        Rows and time steps of a batch.
    targets : array [time, ...], optional
        Target t belongs to input t - 1. Default: the stream itself.

    Raises
    ------
    ValueError
        If the stream is too short for one batch.
    """

    def __init__(self, stream: np.ndarray, batch_size: int, num_steps: int, targets: np.ndarray | None = None) -> None:
        stream = as_array(stream, "contiguous_batches: stream")
        targets = stream if targets is None else as_array(targets, "contiguous_batches: targets")
        batch_size = check_whole(batch_size, "batch_size", "contiguous_batches")
        num_steps = check_whole(num_steps, "num_steps", "contiguous_batches")
        if stream.ndim == 0 or targets.ndim == 0:
            raise ValueError("contiguous_batches: stream and targets must be [time, ...], got a single number")
        columns = (len(stream) - 1) // batch_size
        if columns < 1 or len(targets) != len(stream):
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
        """Return the batch of a step; the last batch of an epoch may have fewer columns."""
        k = step % len(self)
        columns = slice(k * self.num_steps, (k + 1) * self.num_steps)
        reset = np.full(len(self.inputs), k == 0)
        return {"inputs": self.inputs[:, columns], "targets": self.targets[:, columns], "reset": reset}


contiguous_batches = ContiguousBatches  # used like a function, so it has a function's name too


def pad_sequences(sequences: Sequence[np.ndarray], length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Pad sequences of different lengths with zeros at the end, and return one array and the lengths.

    Parameters
    ----------
    sequences : list of arrays [time, ...]
        Their shapes may differ in time only. The result has the dtype that can hold them all.
    length : int, optional
        Time steps of the result. Default: the length of the longest sequence.

    Returns
    -------
    (padded [batch, length, ...], lengths [batch])

    Raises
    ------
    ValueError
        If there is no sequence, one is longer than `length`, or their shapes differ beyond time.

    Examples
    --------
    >>> padded, lengths = pad_sequences([np.array([1, 2, 3]), np.array([4])])
    >>> padded.tolist(), lengths.tolist()
    ([[1, 2, 3], [4, 0, 0]], [3, 1])
    """
    length = None if length is None else check_whole(length, "length", "pad_sequences", least=0)
    arrays = as_sequences(sequences, "pad_sequences: sequences")
    lengths = np.array([len(array) for array in arrays], np.int64)
    longest = int(lengths.max())
    if length is not None and longest > length:
        raise ValueError(f"pad_sequences: length is {length}, but the longest of the sequences has {longest} steps")
    of_numbers = [array.dtype for array in arrays if array.size]  # NumPy makes an empty list float64
    dtype = np.result_type(*(of_numbers or [arrays[0].dtype]))
    padded = np.zeros((len(arrays), longest if length is None else length, *arrays[0].shape[1:]), dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded, lengths


def as_sequences(sequences: Any, where: str) -> list[np.ndarray]:
    """Return sequences ``[time, ...]`` of any lengths as arrays; errors begin with `where` and name the sequence."""
    if hasattr(sequences, "to_numpy"):  # a column of pandas
        sequences = sequences.to_numpy()
    if isinstance(sequences, (str, bytes, dict)) or not _is_iterable(sequences):
        raise ValueError(f"{where} must be a list of arrays [time, ...], got {type(sequences).__name__}")
    arrays = [as_array(sequence, f"{where}: sequence {n}") for n, sequence in enumerate(sequences)]
    if not arrays:
        raise ValueError(f"{where} must hold at least one sequence, got none")
    for n, array in enumerate(arrays):
        if array.ndim == 0 or array.shape[1:] != arrays[0].shape[1:]:
            wanted = f"[time, {', '.join(map(str, arrays[0].shape[1:]))}]" if arrays[0].ndim > 1 else "[time]"
            raise ValueError(f"{where}: sequence {n} must be {wanted} like the first, got shape {array.shape}")
    return arrays


def _is_iterable(value: Any) -> bool:
    return hasattr(value, "__iter__") and getattr(value, "ndim", 1) > 0


class BucketedBatches:
    """Batches of sequences of similar length, which need little padding.

    Call the object with a step to get that step's batch, padded, with `sequence_length` and `weights`; ``len()`` is the
    number of batches in an epoch. Sequences are sorted by length and cut into batches once. The order of the batches
    depends on (seed, epoch).

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
        batch_size = check_whole(batch_size, "batch_size", "BucketedBatches")
        seed = check_whole(seed, "seed", "BucketedBatches", least=0)
        inputs = as_sequences(inputs, "BucketedBatches: inputs")
        targets = as_sequences(targets, "BucketedBatches: targets")
        lengths = [len(sequence) for sequence in inputs]
        if min(lengths) < 1 or lengths != [len(sequence) for sequence in targets]:
            raise ValueError(
                "BucketedBatches: inputs and targets must have equal lengths, each at least 1, got "
                f"{len(inputs)} inputs and {len(targets)} targets"
            )
        self.inputs, self.targets, self.seed = inputs, targets, seed
        order = np.argsort(lengths, kind="stable")
        self.groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def __len__(self) -> int:
        return len(self.groups)

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step."""
        epoch, k = divmod(step, len(self))
        group = self.groups[np.random.default_rng([self.seed, 1, epoch]).permutation(len(self))[k]]
        inputs, lengths = pad_sequences([self.inputs[n] for n in group])
        targets, _ = pad_sequences([self.targets[n] for n in group])
        weights = (np.arange(inputs.shape[1]) < lengths[:, None]).astype(np.float64)
        return {"inputs": inputs, "targets": targets, "weights": weights, "sequence_length": lengths}
