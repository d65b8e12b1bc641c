"""Arrays that a caller gives, in whatever form they come: the one door for data."""

from __future__ import annotations

from typing import Any

import numpy as np
from autograd.tracer import getval, isbox

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
    value = _of_library(value, where)
    if is_masked_kind(value):
        if np.ma.is_masked(value):
            raise ValueError(f"{where}: a masked array has entries without a value; fill them, and give them weight 0")
        value = value.data
    elif isinstance(value, (list, tuple)):
        value = [part if np.isscalar(part) else as_array(part, where) for part in value]
    try:
        array = np.asarray(value)
    except Exception as error:  # whatever another library raises for what NumPy cannot hold
        if isinstance(value, (list, tuple)):
            raise ValueError(
                f"{where}: the sequences have different shapes; make them one array with minilstm.data.pad_sequences"
            ) from None
        raise _unreadable(value, where, error) from error
    if array.dtype.kind not in "fiub":
        what = NOT_NUMBERS.get(array.dtype.kind, str(array.dtype))
        raise ValueError(f"{where}: wanted numbers, got dtype {array.dtype}: {what}")
    return array


def is_masked_kind(value: Any) -> bool:
    """Whether a value is an array with a mask. NumPy loads its module for them, a megabyte, only if one asks for it."""
    is_subclass = isinstance(value, np.ndarray) and type(value) is not np.ndarray
    return is_subclass and isinstance(value, np.ma.MaskedArray)


def _of_library(value: Any, where: str) -> Any:
    """A PyTorch tensor on the CPU, without its gradient; the array of a pandas object and its like; else the value."""
    try:
        if hasattr(value, "detach") and hasattr(value, "cpu"):
            return value.detach().cpu()
        return value.to_numpy() if hasattr(value, "to_numpy") else value
    except Exception as error:
        raise _unreadable(value, where, error) from error


def _unreadable(value: Any, where: str, error: Exception) -> ValueError:
    return ValueError(f"{where}: wanted numbers, got {type(value).__name__}: {error}")


def as_floating(value: Any, dtype: Any, where: str) -> Any:
    """Return `value` as an array of `dtype` (None: of its own). This happens once, at the edge of a layer or
    of a cell that is called by itself.

    Raises ValueError for anything that is not floating: whole numbers are labels or indices.
    """
    if not isbox(value) and (type(value) is not np.ndarray or value.dtype.kind not in "fiub"):
        value = as_array(value, where)
    if value.dtype == dtype:
        return value
    if value.dtype.kind != "f":
        raise ValueError(f"{where} must be floating point, got {value.dtype}; whole numbers are for Embedding, labels")
    return value if dtype is None else value.astype(dtype)


def as_lengths(sequence_length: Any, batch: int, time: int, where: str) -> np.ndarray | None:
    """Return `sequence_length` as an integer array [batch] with values 0 .. time, or None; ValueError otherwise."""
    if sequence_length is None:
        return None
    lengths = as_array(getval(sequence_length), f"{where}: sequence_length")
    if lengths.shape != (batch,) or lengths.dtype.kind not in "iu":
        got = f"shape {lengths.shape} of {lengths.dtype}"
        raise ValueError(f"{where}: sequence_length must be {batch} whole numbers (one a sequence), got {got}")
    if lengths.min() < 0 or lengths.max() > time:
        got = f"{lengths.min()} to {lengths.max()}"
        raise ValueError(f"{where}: sequence_length must be from 0 to {time}, got {got}")
    return lengths.astype(np.int64, copy=False)  # small and unsigned dtypes would wrap around in a difference
