"""PyTorch: a ``.safetensors`` state dict for a ``torch.nn.ModuleDict``, and back.

Every layer is a module under its own name: ``rnn.weight_ih_l0``, ``dense.weight``, ``embedding.weight``. A stack of
bare cells of one size is one ``nn.LSTM`` with ``num_layers``; of another stack every cell is a module. Our bias is
``bias_ih`` and the forget bias is ``bias_hh``, so that both are read back bit for bit. Training in PyTorch moves both
biases, together twice as far as ours would move, unless ``bias_hh`` is frozen.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import files, reading
from ..layers import Dense, Dropout, Embedding, Sequential
from ..layers.base import params_dtype
from ..optional import library
from ..reading import LIMITS, Limits
from . import safetensors
from .format import DTYPES, Loaded, Place, assembled, checked_params, described, model_and_extra, names_of, run_lines
from .infer import CellShape, Found, Options, Shape, lstm_found, model_from, shapes_of, sorted_out
from .layout import Weights, from_torch, to_torch
from .parts import Part, activation_name, features_in, parts_of, weights_of
from .shapes import Sizes, check_lstm, torch_shapes

SUFFIXES: tuple[str, ...] = (".safetensors",)
RUNTIME = "torch"
RUNS = DTYPES
INSTALL = "pip install torch safetensors"
UNSUPPORTED = {
    "activation": "torch.nn.LSTM has tanh alone",
    "use_peepholes": "torch.nn.LSTM has no peepholes (ONNX has)",
    "cell_clip": "torch.nn.LSTM clips nothing",
    "proj_clip": "torch.nn.LSTM clips nothing",
    "learn_initial_state": "torch.nn.LSTM keeps no initial state (ONNX does)",
}
ACTIVATIONS = {
    "tanh": "torch.tanh",
    "sigmoid": "torch.sigmoid",
    "relu": "torch.relu",
    "softsign": "torch.nn.functional.softsign",
}
CELL_ARRAY = re.compile(r"(?P<layer>.+)\.(?P<array>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(?P<depth>\d+)")


class Module(NamedTuple):
    """A module of the ``ModuleDict``: an ``nn.LSTM`` with its layers, the first one first, or one other part."""

    name: str
    parts: list[Part]


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
        For parameters that do not fit, and for an option that ``torch.nn.LSTM`` lacks: the message names it.
    """
    where = "export.torch.save"
    params = checked_params(model, params, where)
    modules = _modules(model, where)
    tensors: dict[str, np.ndarray] = {}
    for part, names in _tensor_names(modules):
        weights = _their_weights(part, weights_of(params, part))
        tensors |= {name: weights[key] for key, name in names.items()}
    files.write_bytes(path, safetensors.encode(tensors, {"format": "pt", **described(model, extra)}))
    return _code(os.fspath(path), modules, params)


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
    try:
        return safetensors.decode(reading.content(path, limits), limits)
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
    """The modules of a PyTorch state dict: LSTM, Linear, Embedding; ValueError for a name that belongs to none."""
    backwards = next((name for name in shapes if name.endswith("_reverse")), None)
    if backwards is not None:
        raise ValueError(f"{where}: {backwards} belongs to a bidirectional layer, which cannot be read from a file")
    cells, others = sorted_out(shapes, CELL_ARRAY, ".")
    found = []
    for layer, by_depth in cells.items():
        shown = []
        for (depth, cell), arrays in sorted(by_depth.items()):
            if not {"weight_ih", "weight_hh", "bias_ih", "bias_hh"} <= set(arrays):
                raise ValueError(f"{where}: {layer} has {sorted(arrays)}; an LSTM needs both weights and both biases")
            num_proj = sum(arrays["weight_hr"][:1]) if "weight_hr" in arrays else None
            units = sum(arrays["weight_hh" if num_proj is None else "weight_hr"][1:])
            names = {key: f"{layer}.{key}_l{depth}" for key in arrays}
            check_lstm(torch_shapes, Sizes(units, num_proj), arrays, names, where)
            shown.append(CellShape(cell, arrays["weight_ih"][1], units, num_proj))
        found.append(lstm_found(layer, shown, where))
    for layer, arrays in others.items():
        if set(arrays) == {"weight", "bias"} and len(arrays["weight"]) == 2:
            found.append(Found("dense", layer, arrays["weight"][1], arrays["weight"][0]))
        elif set(arrays) == {"weight"} and len(arrays["weight"]) == 2 and "emb" in layer.lower():
            found.append(Found("embedding", layer, *arrays["weight"]))
        else:
            wanted = "no LSTM, no Linear with a bias, and not called an embedding"
            raise ValueError(f"{where}: {layer} has {sorted(arrays)}: {wanted}")
    return found


# --- modules --------------------------------------------------------------------------------------------------


def _modules(model: Sequential, where: str) -> list[Module]:
    """The modules of a model. The cells of a runner are one module if one ``nn.LSTM`` can hold them as its layers."""
    parts = parts_of(model, where, UNSUPPORTED)
    for part in parts:
        _check(part, where)
    modules: list[Module] = []
    for owner, group in itertools.groupby(parts, key=lambda part: part.owner):
        members = list(group)
        sizes = {(part.layer.units, part.layer.num_proj) for part in members if part.is_lstm}
        are_one = len(sizes) == 1 and all(part.is_lstm for part in members)
        for held in [members] if are_one else [[part] for part in members]:
            runner = held[0].runner
            is_whole_layer = runner is not None and len(getattr(runner.cell, "cells", [None])) == len(held)
            modules.append(Module(owner if is_whole_layer else held[0].name, held))
    return modules


def _check(part: Part, where: str) -> None:
    if "." in part.name:
        raise ValueError(f"{where}: the layer name {part.name!r} has a dot, which no PyTorch module name can have")
    if part.is_lstm and (part.layer.num_proj or 0) >= part.layer.units:
        sizes = f"num_proj={part.layer.num_proj} with {part.layer.units} units"
        raise ValueError(f"{where}: {part.name!r} has {sizes}, and the proj_size of torch.nn.LSTM must be smaller")


def _tensor_names(modules: list[Module]) -> Iterator[tuple[Part, dict[str, str]]]:
    """Each part with weights, and its tensors' names in the file by what `to_torch` or our own tree calls them."""
    for module in modules:
        for depth, part in enumerate(module.parts):
            if part.is_lstm:
                keys = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
                keys += ["weight_hr"] if part.layer.num_proj is not None else []
                yield part, {key: f"{module.name}.{key}_l{depth}" for key in keys}
            elif isinstance(part.layer, Dense):
                yield part, {"kernel": f"{module.name}.weight", "bias": f"{module.name}.bias"}
            elif isinstance(part.layer, Embedding):
                yield part, {"embeddings": f"{module.name}.weight"}


def _places(model: Sequential, where: str) -> list[Place]:
    named = _tensor_names(_modules(model, where))
    return [Place(part.path, names, partial(_own_weights, part), part.check(torch_shapes)) for part, names in named]


def _their_weights(part: Part, weights: Weights) -> Weights:
    if isinstance(part.layer, Dense):
        return {**weights, "kernel": weights["kernel"].T}
    return to_torch(part.layer, weights) if part.is_lstm else weights


def _own_weights(part: Part, tensors: Weights) -> Weights:
    if isinstance(part.layer, Dense):
        return {**tensors, "kernel": tensors["kernel"].T}
    return from_torch(part.layer, tensors) if part.is_lstm else tensors


# --- the lines ------------------------------------------------------------------------------------------------


def _code(path: str, modules: list[Module], params: dict[str, Any]) -> str:
    dtype = params_dtype(params, np.float32)
    shape, inputs = "[batch, time, features]", f"inputs, dtype=torch.{dtype}"
    if isinstance(modules[0].parts[0].layer, Embedding):
        shape, inputs = "[batch, time]", "inputs"
    return "\n".join(
        [
            "import torch",
            "from safetensors.torch import load_file",
            "",
            "model = torch.nn.ModuleDict({",
            *(f"    {module.name!r}: torch.nn.{_constructor(module, params)}," for module in modules),
            "})" if dtype == np.float32 else f"}}).to(torch.{dtype})",
            f"model.load_state_dict(load_file({path!r}))",
            "model.eval()  # train() to train: then Dropout acts",
            "",
            f"def forward(inputs):  # {shape}",
            f"    x = torch.as_tensor({inputs})",
            *(f"    {line}" for module in modules for line in _steps(module)),
            "    return x",
            "",
        ]
    )


def _constructor(module: Module, params: dict[str, Any]) -> str:
    first = module.parts[0]
    if isinstance(first.layer, Dropout):
        return f"Dropout({first.layer.rate!r})"
    width = features_in(first, weights_of(params, first))
    if first.runner is None:
        return f"{'Linear' if isinstance(first.layer, Dense) else 'Embedding'}({width}, {first.layer.units})"
    options = {"num_layers": len(module.parts)} if len(module.parts) > 1 else {}
    options |= {"batch_first": not first.runner.time_major}
    options |= {"proj_size": first.layer.num_proj} if first.layer.num_proj is not None else {}
    return f"LSTM({width}, {first.layer.units}, {', '.join(f'{key}={value!r}' for key, value in options.items())})"


def _steps(module: Module) -> list[str]:
    first, last, call = module.parts[0], module.parts[-1], f"model[{module.name!r}](x)"
    runner = first.runner
    if runner is None:
        name = activation_name(getattr(first.layer, "activation", None), "export.torch.save")
        return [f"x = {ACTIVATIONS[name]}({call})" if name in ACTIVATIONS else f"x = {call}"]
    time = 0 if runner.time_major else 1
    flip = [f"x = x.flip({time})"] if runner.reverse else []
    step = f"x = x[{'-1' if runner.time_major else ':, -1'}]"
    return [*flip, f"x, _ = {call}", *(flip if last.return_sequences else [step])]
