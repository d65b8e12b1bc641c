"""Shapes that a file claims: whether an array could have them at all."""

from __future__ import annotations

import math

from minilstm.tensorbundle.dtypes import STRING, in_memory
from minilstm.tensorbundle.errors import CheckpointError

_MAX_RANK = 64  # NumPy's
LARGEST = (1 << 63) - 1  # bytes, and the highest offset in a file


def item_size(code: int) -> int:
    """The bytes of one element in a file; of a string, at least one; of an unknown dtype, 0."""
    return 1 if code == STRING else in_memory(code).itemsize


def check_shape(shape: tuple[int, ...], code: int) -> None:
    """Raise CheckpointError if no array of this dtype could have this shape."""
    if len(shape) > _MAX_RANK:
        raise CheckpointError(f"{len(shape)} dimensions, want at most {_MAX_RANK}")
    if any(size < 0 for size in shape):
        raise CheckpointError(f"shape {list(shape)} has a negative dimension")
    if math.prod(max(size, 1) for size in shape) * item_size(code) > LARGEST:  # also if another dimension is zero
        raise CheckpointError(f"shape {list(shape)} is larger than any memory")
