"""How other libraries store an LSTM's kernel and bias: every permutation of its gates, written once.

Our kernel ``[input_dim + output_size, 4 * units]`` has the rows of the input first, then those of the previous output;
its columns are the gates in the order `minilstm.gates.GATES`. Other libraries have two matrices and another order of
the gates, and store the forget bias: Keras in its only bias, PyTorch and ONNX as the second of two biases, added.

    library    order          matrices                        bias
    Keras      i, f, j, o     gates in columns                one: ours with the forget bias in it
    PyTorch    i, f, j, o     gates in rows                   two: ours, and the forget bias
    ONNX       i, o, f, j     gates in rows, leading [1]      two in one row: ours, then the forget bias

PyTorch calls j ``g``, Keras and ONNX call it ``c``. Only ONNX has peepholes, in the order i, o, f. The functions for
Keras and PyTorch take a GRU too, whose layouts are those of `minilstm.export.gru_layout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..cells import LSTMCell
from ..gates import pack_gates, split_gates
from ..variants import GRUCell
from . import gru_layout

KERAS_ORDER = TORCH_ORDER = ("i", "f", "j", "o")
ONNX_ORDER = ("i", "o", "f", "j")
ONNX_PEEPHOLES = tuple(gate for gate in ONNX_ORDER if gate != "j")  # the new input has none

Weights = dict[str, Any]


def to_order(columns: np.ndarray, order: tuple[str, ...]) -> np.ndarray:
    """Column blocks of gates ``[..., 4 * units]`` from our order to another."""
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


def to_blocks(cell: LSTMCell, weights: Weights, order: tuple[str, ...]) -> list[np.ndarray]:
    """What the other libraries store, with gates in columns in their order.

    These are the kernel's rows for the input ``[input_dim, 4 * units]``, its rows for the previous output
    ``[output_size, 4 * units]``, the bias ``[4 * units]`` and the forget bias ``[4 * units]``.
    """
    kernel, bias = weights["kernel"], weights["bias"]
    input_dim = kernel.shape[0] - cell.output_size
    blocks = (kernel[:input_dim], kernel[input_dim:], bias, forget_block(cell, bias.dtype))
    return [to_order(block, order) for block in blocks]


def from_blocks(cell: LSTMCell, order: tuple[str, ...], blocks: Sequence[np.ndarray]) -> Weights:
    """The inverse of `to_blocks`. What training has added to the forget bias goes into our one bias."""
    inputs, recurrent, bias, forget = (from_order(block, order) for block in blocks)
    learned = forget - forget_block(cell, bias.dtype)
    return {"kernel": np.concatenate([inputs, recurrent]), "bias": plus_where_not_zero(bias, learned)}


# --- Keras ----------------------------------------------------------------------------------------------------


def to_keras(cell: LSTMCell | GRUCell, weights: Weights) -> Weights:
    """``kernel``, ``recurrent_kernel`` and ``bias`` as ``keras.layers.LSTM`` or ``GRU`` holds them."""
    if isinstance(cell, GRUCell):
        return gru_layout.to_keras(cell, weights)
    inputs, recurrent, bias, forget = to_blocks(cell, weights, KERAS_ORDER)
    return {"kernel": inputs, "recurrent_kernel": recurrent, "bias": plus_where_not_zero(bias, forget)}


def from_keras(cell: LSTMCell | GRUCell, arrays: Weights) -> Weights:
    """The inverse of `to_keras`; the bias of f is off by one rounding if an LSTM's forget bias is not 0."""
    if isinstance(cell, GRUCell):
        return gru_layout.from_keras(cell, arrays)
    bias = arrays["bias"]
    return from_blocks(cell, KERAS_ORDER, [arrays["kernel"], arrays["recurrent_kernel"], bias, np.zeros_like(bias)])


# --- PyTorch --------------------------------------------------------------------------------------------------


def to_torch(cell: LSTMCell | GRUCell, weights: Weights) -> Weights:
    """``weight_ih``, ``weight_hh``, ``bias_ih``, ``bias_hh``, and ``weight_hr`` of a projection, as in ``nn.LSTM`` or
    ``nn.GRU``.
    """
    if isinstance(cell, GRUCell):
        return gru_layout.to_torch(cell, weights)
    inputs, recurrent, bias, forget = to_blocks(cell, weights, TORCH_ORDER)
    tensors = {"weight_ih": inputs.T, "weight_hh": recurrent.T, "bias_ih": bias, "bias_hh": forget}
    if cell.num_proj is not None:
        tensors["weight_hr"] = weights["projection"]["kernel"].T
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def from_torch(cell: LSTMCell | GRUCell, tensors: Weights) -> Weights:
    """The inverse of `to_torch`."""
    if isinstance(cell, GRUCell):
        return gru_layout.from_torch(cell, tensors)
    matrices = [tensors["weight_ih"].T, tensors["weight_hh"].T]
    weights = from_blocks(cell, TORCH_ORDER, [*matrices, tensors["bias_ih"], tensors["bias_hh"]])
    if "weight_hr" in tensors:
        weights["projection"] = {"kernel": np.ascontiguousarray(tensors["weight_hr"].T)}
    return weights


# --- ONNX -----------------------------------------------------------------------------------------------------


def to_onnx(cell: LSTMCell, weights: Weights) -> Weights:
    """``W [1, 4 * units, input_dim]``, ``R``, ``B [1, 8 * units]`` and, of peepholes, ``P [1, 3 * units]``."""
    inputs, recurrent, *biases = to_blocks(cell, weights, ONNX_ORDER)
    tensors = {"W": inputs.T, "R": recurrent.T, "B": np.concatenate(biases)}
    if cell.use_peepholes:
        tensors["P"] = np.concatenate([weights[f"w_{gate}_diag"] for gate in ONNX_PEEPHOLES])
    return {name: np.ascontiguousarray(tensor)[None] for name, tensor in tensors.items()}


def from_onnx(cell: LSTMCell, tensors: Weights) -> Weights:
    """The inverse of `to_onnx`."""
    w, r, b, *p = (tensors[name][0] for name in ("W", "R", "B", "P") if name in tensors)
    weights = from_blocks(cell, ONNX_ORDER, [w.T, r.T, *np.split(b, 2)])
    for peepholes in p:
        diagonals = np.split(peepholes, len(ONNX_PEEPHOLES))
        weights |= {f"w_{gate}_diag": part for gate, part in zip(ONNX_PEEPHOLES, diagonals, strict=True)}
    return weights
