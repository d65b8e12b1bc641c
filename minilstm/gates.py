"""The order of an LSTM's gates, and four matrices to TensorFlow's kernel and back."""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.tracer import isbox

from .arrays import as_array

Array = Any

GATES = ("i", "j", "f", "o")  # TensorFlow 1.x order: every split, permutation and export reads this line


def pack_gates(*, i: Array, j: Array, f: Array, o: Array) -> Array:
    """Four matrices ``[rows, units]`` (or biases ``[units]``), one a gate, as one kernel ``[rows, 4 * units]``.

    >>> import numpy as np
    >>> pack_gates(i=np.array([1, 2]), j=np.array([3, 4]), f=np.array([5, 6]), o=np.array([7, 8])).tolist()
    [1, 2, 3, 4, 5, 6, 7, 8]
    """
    gates = {"i": i, "j": j, "f": f, "o": o}
    gates = {name: gate if isbox(gate) else as_array(gate, f"pack_gates: {name}") for name, gate in gates.items()}
    if len({gate.shape for gate in gates.values()}) != 1 or not gates["i"].shape:
        shapes = ", ".join(f"{name} {gate.shape}" for name, gate in gates.items())
        raise ValueError(f"pack_gates: all gates must be [rows, units] or [units] of the same sizes, got {shapes}")
    return anp.concatenate([gates[gate] for gate in GATES], axis=-1)


def split_gates(kernel: Array) -> dict[str, Array]:
    """The columns of a kernel ``[rows, 4 * units]`` or bias ``[4 * units]`` by gate: the inverse of `pack_gates`.

    Raises
    ------
    ValueError
        If the last dimension is not a multiple of 4.

    Examples
    --------
    >>> import numpy as np
    >>> {gate: block.tolist() for gate, block in split_gates(np.arange(8)).items()}
    {'i': [0, 1], 'j': [2, 3], 'f': [4, 5], 'o': [6, 7]}
    """
    if not isinstance(kernel, np.ndarray) and not isbox(kernel):
        kernel = as_array(kernel, "split_gates: kernel")
    columns = kernel.shape[-1] if kernel.ndim else 0
    if columns % 4 or not columns:
        raise ValueError(f"split_gates: the last dimension of kernel must be a multiple of 4, got shape {kernel.shape}")
    units = columns // 4
    return {gate: kernel[..., k * units : (k + 1) * units] for k, gate in enumerate(GATES)}
