"""How Keras and PyTorch store a GRU: two matrices, each with the blocks of both gates and the candidate.

    library    formulas             order      matrices             biases
    here       both                 r, u, k    see `GRUCell`        one, or two with `reset_after`
    Keras      both                 u, r, k    blocks in columns    one, or two in one array with `reset_after`
    PyTorch    `reset_after`        r, u, k    blocks in rows       two

Keras and PyTorch call u ``z``; the candidate k is ``h`` in Keras and ``n`` in PyTorch. No number is changed on the way,
only its place, so that all weights come back bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..variants import GRUCell

Weights = dict[str, Any]
TORCH_NAMES = {
    "weight_ih": "kernel", "weight_hh": "recurrent_kernel", "bias_ih": "bias", "bias_hh": "recurrent_bias",
}  # fmt: skip


def swapped(columns: np.ndarray) -> np.ndarray:
    """Column blocks ``[..., 3 * units]`` from the order r, u, k to u, r, k, or back."""
    first, second, candidate = np.split(columns, 3, axis=-1)
    return np.concatenate([second, first, candidate], axis=-1)


def to_keras(cell: GRUCell, weights: Weights) -> Weights:
    """``kernel``, ``recurrent_kernel`` and ``bias`` as ``keras.layers.GRU`` holds them."""
    if cell.reset_after:
        inputs, recurrent = weights["kernel"], weights["recurrent_kernel"]
        bias = np.stack([weights["bias"], weights["recurrent_bias"]])
    else:
        parts = weights["gates"], weights["candidate"]
        kernel, bias = (np.concatenate([part[name] for part in parts], axis=-1) for name in ("kernel", "bias"))
        inputs, recurrent = kernel[: -cell.units], kernel[-cell.units :]
    return {"kernel": swapped(inputs), "recurrent_kernel": swapped(recurrent), "bias": swapped(bias)}


def from_keras(cell: GRUCell, arrays: Weights) -> Weights:
    """The inverse of `to_keras`."""
    inputs, recurrent, bias = (swapped(arrays[name]) for name in ("kernel", "recurrent_kernel", "bias"))
    if cell.reset_after:
        return {"kernel": inputs, "recurrent_kernel": recurrent, "bias": bias[0], "recurrent_bias": bias[1]}
    kernels, biases = (np.split(x, [2 * cell.units], axis=-1) for x in (np.concatenate([inputs, recurrent]), bias))
    pairs = zip(("gates", "candidate"), kernels, biases, strict=True)
    return {part: {"kernel": kernel, "bias": bias} for part, kernel, bias in pairs}


def to_torch(cell: GRUCell, weights: Weights) -> Weights:
    """``weight_ih``, ``weight_hh``, ``bias_ih`` and ``bias_hh`` of ``torch.nn.GRU``; the cell has `reset_after`."""
    return {theirs: np.ascontiguousarray(weights[ours].T) for theirs, ours in TORCH_NAMES.items()}


def from_torch(cell: GRUCell, tensors: Weights) -> Weights:
    """The inverse of `to_torch`."""
    return {ours: np.ascontiguousarray(tensors[theirs].T) for theirs, ours in TORCH_NAMES.items()}
