"""Batches of sequences: their form, their checks, their shuffled order, and how to cut them from a series."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .params import tree_leaves, tree_map

Batch = dict[str, Any]

KEYS = ("inputs", "targets", "weights", "sequence_length", "reset")
OTHER_WORDS = {  # what other libraries call them
    "x": "inputs", "y": "targets", "labels": "targets", "mask": "weights", "masks": "weights",
    "sample_weight": "weights", "length": "sequence_length", "lengths": "sequence_length", "seq_len": "sequence_length",
}  # fmt: skip
NOT_NUMBERS = {
    "O": "Python objects, perhaps with missing values",
    "U": "text; make labels whole numbers, for example with np.unique(labels, return_inverse=True)",
    "S": "bytes; make labels whole numbers, for example with np.unique(labels, return_inverse=True)",
    "M": "dates; give numbers, such as days since the first",
    "m": "durations; give numbers, such as seconds",
    "c": "complex numbers",
}


def as_array(value: Any, where: str) -> np.ndarray:
    """Return what a caller gives for one array as an array of numbers. All data come in here.

    Arrays of any library that NumPy can read, lists of numbers and lists of arrays of one shape, pandas objects and
    PyTorch tensors (also such that need gradients or are on another device) become arrays.

    Raises ValueError, which begins with `where`, for masked entries, for sequences of different shapes, and for what is
    not a number: text, dates, objects, complex numbers.
    """
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise ValueError(f"{where}: a masked array has entries without a value; fill them, and give them weight 0")
        value = value.data
    elif isinstance(value, (list, tuple)):
        value = [part if np.isscalar(part) else as_array(part, where) for part in value]
    elif hasattr(value, "detach") and hasattr(value, "cpu"):  # a PyTorch tensor
        value = value.detach().cpu()
    elif hasattr(value, "to_numpy"):  # pandas and its like
        value = value.to_numpy()
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{where}: the sequences have different shapes; make them one array with minilstm.data.pad_sequences"
        ) from None
    if array.dtype.kind not in "fiub":
        what = NOT_NUMBERS.get(array.dtype.kind, str(array.dtype))
        raise ValueError(f"{where}: wanted numbers, got dtype {array.dtype}: {what}")
    return array


def as_batch(data: Any, where: str = "data") -> Batch:
    """Return `data` as a dict with `inputs`, and `targets`, `weights`, `sequence_length` if it has them.

    A dict is returned unchanged. ``(inputs, targets)`` and ``(inputs, targets, weights)`` become one.

    Raises ValueError for anything else, and for an unknown key.
    """
    if isinstance(data, (tuple, list)) and len(data) in (2, 3):
        return dict(zip(("inputs", "targets", "weights"), data, strict=False))
    if isinstance(data, dict) and "inputs" in data:
        for key in data:
            if key not in KEYS:
                near = [OTHER_WORDS[key]] if key in OTHER_WORDS else difflib.get_close_matches(str(key), KEYS, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
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


def check_batch(batch: Any, where: str) -> None:
    """Raise ValueError if an array of a tree is empty or holds NaN or infinity, or if their lengths differ.

    The message names the array.
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


def prepared(batch: Any, dtype: Any, where: str, any_tree: bool = False) -> Any:
    """Return a batch as the training loop reads it: a dict (see `as_batch`) with floating arrays of `dtype`, checked.

    With `any_tree` the batch may be any tree of arrays, and keeps its structure.
    """
    if any_tree:
        batch = to_dtype(batch, dtype, where)
    else:
        named = as_batch(batch, where).items()
        given = {key: value for key, value in named if value is not None or key == "inputs"}  # inputs must be there
        batch = {key: _to_dtype(as_array(value, f"{where}: {key}"), dtype) for key, value in given.items()}
    check_batch(batch, where)
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
    if not 1 <= length <= len(series):
        raise ValueError(f"sliding_windows: length must be from 1 to {len(series)}, got {length}")
    if stride < 1:
        raise ValueError(f"sliding_windows: stride must be at least 1, got {stride}")
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
    arrays = [as_array(sequence, f"pad_sequences: sequence {n}") for n, sequence in enumerate(sequences)]
    for n, array in enumerate(arrays):
        if array.ndim == 0 or array.shape[1:] != arrays[0].shape[1:]:
            wanted = f"[time, {', '.join(map(str, arrays[0].shape[1:]))}]" if arrays[0].ndim > 1 else "[time]"
            raise ValueError(f"pad_sequences: sequence {n} must be {wanted} like the first, got shape {array.shape}")
    lengths = np.array([len(array) for array in arrays], np.int64)
    length = int(max(lengths, default=0)) if length is None else length
    if not arrays or lengths.max() > length:
        raise ValueError(f"pad_sequences: wanted sequences of at most {length} steps, got lengths {lengths.tolist()}")
    padded = np.zeros((len(arrays), length, *arrays[0].shape[1:]), np.result_type(*arrays))
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded, lengths


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
        """Return the batch of a step."""
        epoch, k = divmod(step, len(self))
        group = self.groups[np.random.default_rng([self.seed, 1, epoch]).permutation(len(self))[k]]
        inputs, lengths = pad_sequences([self.inputs[n] for n in group])
        targets, _ = pad_sequences([self.targets[n] for n in group])
        weights = (np.arange(inputs.shape[1]) < lengths[:, None]).astype(np.float64)
        return {"inputs": inputs, "targets": targets, "weights": weights, "sequence_length": lengths}
