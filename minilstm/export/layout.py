"""How other libraries store what an LSTM's kernel and bias hold: every permutation of gates, written down once.

Our kernel ``[input_dim + output_size, 4 * units]`` has the rows of the input first, then the rows of the previous
output; its columns are the gates in the order `minilstm.gates.GATES`. Other libraries have two matrices and another
order of the gates, and none adds a forget bias at run time. They store it: Keras inside its only bias, PyTorch and ONNX
as the second of two biases that are added, where it stays apart from what was learned.

    library    order          matrices                        bias
    Keras      i, f, j, o     gates in columns                one: ours with the forget bias in it
    PyTorch    i, f, j, o     gates in rows                   two: ours, and the forget bias
    ONNX       i, o, f, j     gates in rows, leading [1]      two in one row: ours, then the forget bias

PyTorch calls j ``g``, Keras and ONNX call it ``c``. ONNX alone has peepholes, in the order i, o, f.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cells import LSTMCell, pack_gates, split_gates

KERAS_ORDER = TORCH_ORDER = ("i", "f", "j", "o")
ONNX_ORDER = ("i", "o", "f", "j")
ONNX_PEEPHOLES = tuple(gate for gate in ONNX_ORDER if gate != "j")  # the new input has none

Weights = dict[str, Any]


def to_order(columns: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    """The gates' column blocks ``[..., 4 * units]`` from our order to another."""
    gates = split_gates(columns)
    return np.concatenate([gates[gate] for gate in order], axis=-1)


def from_order(columns: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    """The inverse of `to_order`."""
    blocks = np.split(columns, len(order), axis=-1)
    return np.asarray(pack_gates(**dict(zip(order, blocks, strict=True))))


def forget_block(cell: LSTMCell, dtype: Any) -> np.ndarray:
    """A bias ``[4 * units]`` in our order that is the cell's forget bias for the gate f and 0 elsewhere."""
    zeros = np.zeros(cell.units, dtype)
    return np.asarray(pack_gates(i=zeros, j=zeros, f=np.full(cell.units, cell.forget_bias, dtype), o=zeros))


def plus_where_not_zero(bias: np.ndarray, addend: np.ndarray) -> np.ndarray:
    """``bias + addend``, except that adding 0 changes no bit, not even the sign of -0.0."""
    return np.where(addend == 0, bias, bias + addend)


def split_rows(cell: LSTMCell, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kernel's rows for the input ``[input_dim, 4 * units]`` and for the previous output ``[output_size, ...]``."""
    input_dim = kernel.shape[0] - cell.output_size
    return kernel[:input_dim], kernel[input_dim:]


def _rows(matrix: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    return np.ascontiguousarray(to_order(matrix, order).T)


def _columns(rows: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    return from_order(rows.T, order)


# --- Keras ----------------------------------------------------------------------------------------------------


def to_keras(cell: LSTMCell, weights: Weights) -> Weights:
    """``kernel``, ``recurrent_kernel`` and ``bias`` as ``keras.layers.LSTM`` holds them."""
    inputs, recurrent = split_rows(cell, weights["kernel"])
    bias = weights["bias"]
    return {
        "kernel": to_order(inputs, KERAS_ORDER),
        "recurrent_kernel": to_order(recurrent, KERAS_ORDER),
        "bias": to_order(plus_where_not_zero(bias, forget_block(cell, bias.dtype)), KERAS_ORDER),
    }


def from_keras(cell: LSTMCell, weights: Weights) -> Weights:
    """The inverse of `to_keras`; the bias of f is off by one rounding if the cell's forget bias is not 0."""
    matrices = [from_order(weights[name], KERAS_ORDER) for name in ("kernel", "recurrent_kernel")]
    bias = from_order(weights["bias"], KERAS_ORDER)
    return {
        "kernel": np.concatenate(matrices),
        "bias": plus_where_not_zero(bias, -forget_block(cell, bias.dtype)),
    }


# --- PyTorch --------------------------------------------------------------------------------------------------


def to_torch(cell: LSTMCell, weights: Weights) -> Weights:
    """``weight_ih``, ``weight_hh``, ``bias_ih``, ``bias_hh``, and ``weight_hr`` of a projection, as in ``nn.LSTM``."""
    inputs, recurrent = split_rows(cell, weights["kernel"])
    bias = weights["bias"]
    tensors = {
        "weight_ih": _rows(inputs, TORCH_ORDER),
        "weight_hh": _rows(recurrent, TORCH_ORDER),
        "bias_ih": to_order(bias, TORCH_ORDER),
        "bias_hh": to_order(forget_block(cell, bias.dtype), TORCH_ORDER),
    }
    if cell.num_proj is not None:
        tensors["weight_hr"] = np.ascontiguousarray(weights["projection"]["kernel"].T)
    return tensors


def from_torch(cell: LSTMCell, tensors: Weights) -> Weights:
    """The inverse of `to_torch`. What training has added to ``bias_hh`` goes into our one bias."""
    matrices = [_columns(tensors[name], TORCH_ORDER) for name in ("weight_ih", "weight_hh")]
    bias, second = (from_order(tensors[name], TORCH_ORDER) for name in ("bias_ih", "bias_hh"))
    weights: Weights = {
        "kernel": np.concatenate(matrices),
        "bias": plus_where_not_zero(bias, second - forget_block(cell, bias.dtype)),
    }
    if "weight_hr" in tensors:
        weights["projection"] = {"kernel": np.ascontiguousarray(tensors["weight_hr"].T)}
    return weights


# --- ONNX -----------------------------------------------------------------------------------------------------


def to_onnx(cell: LSTMCell, weights: Weights) -> Weights:
    """``W [1, 4 * units, input_dim]``, ``R``, ``B [1, 8 * units]`` and, of peepholes, ``P [1, 3 * units]``."""
    inputs, recurrent = split_rows(cell, weights["kernel"])
    bias = weights["bias"]
    biases = [to_order(part, ONNX_ORDER) for part in (bias, forget_block(cell, bias.dtype))]
    tensors = {
        "W": _rows(inputs, ONNX_ORDER)[None],
        "R": _rows(recurrent, ONNX_ORDER)[None],
        "B": np.concatenate(biases)[None],
    }
    if cell.use_peepholes:
        tensors["P"] = np.concatenate([weights[f"w_{gate}_diag"] for gate in ONNX_PEEPHOLES])[None]
    return tensors


def from_onnx(cell: LSTMCell, tensors: Weights) -> Weights:
    """The inverse of `to_onnx`."""
    bias, second = (from_order(part, ONNX_ORDER) for part in np.split(tensors["B"][0], 2))
    weights: Weights = {
        "kernel": np.concatenate([_columns(tensors[name][0], ONNX_ORDER) for name in ("W", "R")]),
        "bias": plus_where_not_zero(bias, second - forget_block(cell, bias.dtype)),
    }
    if "P" in tensors:
        diagonals = np.split(tensors["P"][0], len(ONNX_PEEPHOLES))
        weights |= {f"w_{gate}_diag": part for gate, part in zip(ONNX_PEEPHOLES, diagonals, strict=True)}
    return weights
