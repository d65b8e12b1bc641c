"""PyTorch: a ``.safetensors`` state dict for a ``torch.nn.ModuleDict``, and back.

Every layer is a module under its own name: ``rnn.weight_ih_l0``, ``dense.weight``, ``embedding.weight``. A stack of
bare cells of one size is one ``nn.LSTM`` or ``nn.GRU`` with ``num_layers``; of another stack every cell is a module. A
`Bidirectional` is one with ``bidirectional=True``, and a stack of these is a row of `Bidirectional` layers with the
names ``<module>/cell_0``, ``<module>/cell_1``, ... An LSTM's bias is ``bias_ih`` and the forget bias is ``bias_hh``, so
that both are read back bit for bit. Training in PyTorch moves both biases, together twice as far as ours would move,
unless ``bias_hh`` is frozen. A GRU has two biases here too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from .. import files, reading
from ..layers import Dense, Sequential
from ..optional import library
from ..reading import LIMITS, Limits
from . import safetensors
from .format import DTYPES, Loaded, Place, assembled, checked_params, described, model_and_extra, names_of, run_lines
from .infer import CellShape, Found, Options, Shape, cell_found, model_from, recurrent_found, shapes_of, sorted_out
from .layout import Weights, from_torch, to_torch
from .parts import Part, weights_of
from .shapes import Sizes, check_cell, kind_by, torch_shapes
from .torch_code import code_of
from .torch_modules import modules_of, tensor_names

SUFFIXES: tuple[str, ...] = (".safetensors",)
RUNTIME = "torch"
RUNS = DTYPES
PICKLES = (b"PK\x03\x04", b"\x80\x02")  # what torch.save writes, and wrote before version 1.6
INSTALL = "pip install torch safetensors"
CELL_ARRAY = re.compile(
    r"(?P<layer>.+)\.(?P<array>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(?P<depth>\d+)(?P<cell>_reverse)?"
)


def save(path: str | os.PathLike[str], model: Sequential, params: dict[str, Any], *, extra: Any = None) -> str:
    """Write a state dict.

    Parameters
    ----------
    path : path
        Such as ``model.safetensors``.
    model : Sequential
    params : dict
        Its parameters, of one dtype.
    extra : optional
        Anything JSON can hold; it is stored in the file's metadata, as is the model's description.

    Returns
    -------
    str
        The lines of Python that build the ``torch.nn.ModuleDict`` named ``model``, load the file into it and define
        ``forward(inputs)``.

    Raises
    ------
    ValueError
        For parameters that do not fit, and for an option that PyTorch's layers lack: the message names it.
    """
    where = "export.torch.save"
    params = checked_params(model, params, where)
    modules = modules_of(model, where)
    for module in modules:
        if "." in module.name:
            wanted = "has a dot, which no PyTorch module name can have"
            raise ValueError(f"{where}: the layer name {module.name!r} {wanted}")
    tensors: dict[str, np.ndarray] = {}
    for part, names in tensor_names(modules):
        weights = _their_weights(part, weights_of(params, part))
        tensors |= {name: weights[key] for key, name in names.items()}
    files.write_bytes(path, safetensors.encode(tensors, {"format": "pt", **described(model, extra)}))
    return code_of(os.fspath(path), modules, params)


@reading.reader
def load(
    path: str | os.PathLike[str], model: Sequential | None = None, *, options: Options | None = None,
    limits: Limits = LIMITS,
) -> Loaded:  # fmt: skip
    """Read a state dict.

    Parameters
    ----------
    path : path
        A ``.safetensors`` file.
    model : Sequential, optional
        What the weights are for. Needed for a file that `save` did not write, whose module names must then be the
        model's layer names. A forget bias that the file holds as part of its biases is subtracted; with
        ``forget_bias=0`` nothing is.
    options : Options, optional
        In place of a model that the file does not describe: what names and shapes do not tell of it.
    limits : Limits, optional
        What the file may claim.

    Returns
    -------
    Loaded
        ``(model, params, extra)``. A bfloat16 becomes the float32 of the same value.

    Raises
    ------
    ValueError
        Without a model, or if the file does not fit it: everything missing or superfluous is listed.
    """
    where = os.fspath(path)
    tensors, metadata = read(path, limits)
    tensors = {name: tensor.astype(np.float32) if _is_bfloat16(tensor) else tensor for name, tensor in tensors.items()}

    def infer(given: Options) -> Sequential:
        tanh = given.without_forget_bias()._replace(activation="tanh")  # torch.nn.LSTM has no other
        return model_from(in_state_dict(shapes_of(tensors), where), tanh, where)

    model, extra = model_and_extra(metadata, model, where, infer, options, limits=limits)
    return Loaded(model, assembled(model, _places(model, where), tensors, where), extra)


@reading.reader
def read(
    path: str | os.PathLike[str], limits: Limits = LIMITS
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a ``.safetensors`` file by name, not to be written to, and its metadata.

    bfloat16 is ``ml_dtypes.bfloat16`` if that package is installed, else float32. Raises ValueError for a file of
    another kind, and for a dtype that NumPy does not have, such as float8.
    """
    data = reading.content(path, limits)
    if data.startswith(PICKLES):
        raise ValueError("a pickle of PyTorch, which may run code when it is opened; open it in PyTorch, and save its "
                         "state_dict with safetensors.torch.save_file")  # fmt: skip
    try:
        return safetensors.decode(data, limits)
    except ValueError as error:
        raise ValueError(f"no whole safetensors file: {error}") from error


def _is_bfloat16(tensor: np.ndarray) -> bool:
    return tensor.dtype.name == "bfloat16"


def mapping(model: Sequential) -> dict[str, list[str]]:
    """The path of each part's weights in our tree, with the names of the tensors they become."""
    return names_of(_places(model, "export.torch"))


def opened(code: str) -> Callable[[np.ndarray], np.ndarray]:
    """The ``forward`` of the lines that `save` returned, from array to array; ImportError without PyTorch."""
    library(RUNTIME, "running the exported model", INSTALL)
    library("safetensors", "running the exported model", INSTALL)
    variables = run_lines(code, RUNTIME)

    def run(inputs: np.ndarray) -> np.ndarray:
        with variables["torch"].no_grad():
            return np.asarray(variables["forward"](inputs))

    return run


def in_state_dict(shapes: Mapping[str, Shape], where: str) -> list[Found]:
    """The modules of a PyTorch state dict: LSTM, GRU, Linear, Embedding; ValueError for a name that belongs to none."""
    cells, others = sorted_out(shapes, CELL_ARRAY, ".")
    found = []
    for layer, by_depth in cells.items():
        shown: dict[str, list[CellShape]] = {"": [], "_reverse": []}
        for (depth, direction), arrays in sorted(by_depth.items()):
            if not {"weight_ih", "weight_hh", "bias_ih", "bias_hh"} <= set(arrays):
                wanted = "an LSTM or a GRU needs both weights and both biases"
                raise ValueError(f"{where}: {layer} has {sorted(arrays)}; {wanted}")
            has_projection = "weight_hr" in arrays
            num_proj = sum(arrays["weight_hr"][:1]) if has_projection else None
            units = sum(arrays["weight_hr" if has_projection else "weight_hh"][1:])
            sizes = Sizes(units, num_proj, "LSTM" if has_projection else kind_by(arrays["weight_hh"]))
            names = {key: f"{layer}.{key}_l{depth}{direction}" for key in arrays}
            check_cell(torch_shapes, sizes, arrays, names, where)
            shown[direction].append(cell_found(sizes, arrays["weight_ih"][1]))
        if not shown[""]:
            raise ValueError(f"{where}: {layer} has the backward direction of a layer, and not the forward one")
        found.append(recurrent_found(layer, shown[""], where, shown["_reverse"]))
    for layer, arrays in others.items():
        if set(arrays) == {"weight", "bias"} and len(arrays["weight"]) == 2:
            found.append(Found("dense", layer, arrays["weight"][1], arrays["weight"][0]))
        elif set(arrays) == {"weight"} and len(arrays["weight"]) == 2 and "emb" in layer.lower():
            found.append(Found("embedding", layer, *arrays["weight"]))
        else:
            wanted = "no LSTM or GRU, no Linear with a bias, and not called an embedding"
            raise ValueError(f"{where}: {layer} has {sorted(arrays)}: {wanted}")
    return found


def _places(model: Sequential, where: str) -> list[Place]:
    named = tensor_names(modules_of(model, where))
    return [Place(part.path, names, partial(_own_weights, part), part.check(torch_shapes)) for part, names in named]


def _their_weights(part: Part, weights: Weights) -> Weights:
    if isinstance(part.layer, Dense):
        return {**weights, "kernel": weights["kernel"].T}
    return to_torch(part.layer, weights) if part.is_cell else weights


def _own_weights(part: Part, tensors: Weights) -> Weights:
    if isinstance(part.layer, Dense):
        return {**tensors, "kernel": tensors["kernel"].T}
    return from_torch(part.layer, tensors) if part.is_cell else tensors
