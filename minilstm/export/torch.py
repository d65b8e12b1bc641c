"""PyTorch: a ``.safetensors`` state dict for a ``torch.nn.ModuleDict``, and back.

Every layer is a module under its own name: ``rnn.weight_ih_l0``, ``dense.weight``, ``embedding.weight``. A stack of
bare cells of one size is one ``nn.LSTM`` with ``num_layers``; other stacks are a module a cell. Our bias is ``bias_ih``
and the forget bias stands in ``bias_hh``, so that both come back bit for bit; training in PyTorch moves both biases,
twice as far as ours would move, unless ``bias_hh`` is frozen.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import files
from ..layers import Dense, Dropout, Embedding, Sequential
from ..layers.base import params_dtype
from .layout import Weights, from_torch, to_torch
from .parts import (
    Loaded,
    Part,
    activation_name,
    assemble,
    checked_params,
    converted,
    described,
    features_in,
    forward_of,
    library,
    model_and_extra,
    parts_of,
    refuse,
    take,
    weights_of,
)

INSTALL = "pip install safetensors"
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
Stack = list[Part]  # parts that are one module: the layers of an nn.LSTM, or one other part


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
        Anything JSON can hold; it goes into the file's metadata, as does the model's description.

    Returns
    -------
    str
        The lines of Python that build the ``torch.nn.ModuleDict`` named ``model``, load the file into it and define
        ``forward(inputs)``.

    Raises
    ------
    ValueError
        For parameters that do not fit, and for an option that ``torch.nn.LSTM`` has not: the message names it.
    ImportError
        Without safetensors.
    """
    where = "export.torch.save"
    params = checked_params(model, params, where)
    stacks = _stacks(model, where)
    tensors: dict[str, np.ndarray] = {}
    for stack in stacks:
        for depth, part in enumerate(stack):
            weights = _module_weights(part, weights_of(params, part), depth)
            tensors.update({f"{_module_name(stack)}.{key}": value for key, value in weights.items()})
    safetensors = library("safetensors.numpy", where, INSTALL)
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    metadata = {"format": "pt", **described(model, extra)}
    files.write_bytes(path, safetensors.save(contiguous, metadata=metadata))
    return _code(os.fspath(path), stacks, params)


def load(path: str | os.PathLike[str], model: Sequential | None = None) -> Loaded:
    """Read a state dict back.

    Parameters
    ----------
    path : path
        A ``.safetensors`` file.
    model : Sequential, optional
        What the weights are for. Needed for a file that `save` did not write, whose module names must then be the
        model's layer names. A forget bias that the file holds as part of its biases is subtracted; with
        ``forget_bias=0`` nothing is.

    Returns
    -------
    Loaded
        ``(model, params, extra)``.

    Raises
    ------
    ValueError
        Without a model, or where the file does not fit it: everything that is missing or too much is listed.
    ImportError
        Without safetensors.
    """
    where = f"export.torch.load: {os.fspath(path)}"
    tensors, metadata = read(path)
    model, extra = model_and_extra(metadata, model, where, "give the model that the weights are for")
    weights: dict[str, Weights] = {}
    used: set[str] = set()
    for stack in _stacks(model, where):
        for depth, part in enumerate(stack):
            names = {key: f"{_module_name(stack)}.{name}" for key, name in _tensor_names(part, depth).items()}
            if names:
                weights[part.path] = converted(_own_weights, part, take(tensors, names, where), where)
                used.update(names.values())
    unused = sorted(set(tensors) - used)
    if unused:
        raise ValueError(f"{where}: the model has no place for {', '.join(unused)}")
    return Loaded(model, assemble(model, weights, where), extra)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a ``.safetensors`` file by name, and its metadata.

    Raises ValueError for a file that is not one, ImportError without safetensors.
    """
    safetensors = library("safetensors", "export.torch.read", INSTALL)
    try:
        with safetensors.safe_open(os.fspath(path), framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"export.torch: {os.fspath(path)} is no whole safetensors file: {error}") from error


def mapping(model: Sequential) -> dict[str, list[str]]:
    """Where each part's weights lie in our tree, and the names of the tensors they become."""
    return {
        part.path: [f"{_module_name(stack)}.{name}" for name in _tensor_names(part, depth).values()]
        for stack in _stacks(model, "export.torch")
        for depth, part in enumerate(stack)
        if _tensor_names(part, depth)
    }


def opened(code: str) -> Callable[[np.ndarray], np.ndarray]:
    """The ``forward`` of the lines that `save` returned, from array to array; ImportError without PyTorch."""
    torch = library("torch", "running the exported model", "pip install torch")
    forward = forward_of(code)

    def run(inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(forward(inputs))

    return run


# --- modules --------------------------------------------------------------------------------------------------


def _stacks(model: Sequential, where: str) -> list[Stack]:
    """The parts of a model, all the cells of a runner together where one ``nn.LSTM`` can hold them as its layers."""
    parts = parts_of(model, where)
    for part in parts:
        _check(part, where)
    stacks: list[Stack] = []
    for _, group in itertools.groupby(parts, key=lambda part: part.owner):
        members = list(group)
        sizes = {(part.layer.units, part.layer.num_proj) for part in members if part.is_lstm}
        together = len(sizes) == 1 and all(part.is_lstm for part in members)
        stacks += [members] if together else [[part] for part in members]
    return stacks


def _check(part: Part, where: str) -> None:
    refuse(part, UNSUPPORTED, where)
    if "." in part.name:
        raise ValueError(f"{where}: the layer name {part.name!r} has a dot, which no PyTorch module name can have")
    if part.is_lstm and part.layer.num_proj is not None and part.layer.num_proj >= part.layer.units:
        raise ValueError(
            f"{where}: {part.name!r} has num_proj={part.layer.num_proj} with {part.layer.units} units, "
            f"and torch.nn.LSTM takes only a proj_size below its hidden_size"
        )


def _module_name(stack: Stack) -> str:
    """The name of a module: the part's own, or that of the layer of which it is the only LSTM or holds them all."""
    first = stack[0]
    bare = first.runner is not None and len(getattr(first.runner.cell, "cells", [None])) == len(stack)
    return first.owner if bare else first.name


def _tensor_names(part: Part, depth: int) -> dict[str, str]:
    """What the tensors of a part are called inside its module."""
    if part.is_lstm:
        keys = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
        keys += ["weight_hr"] if part.layer.num_proj is not None else []
        return {key: f"{key}_l{depth}" for key in keys}
    if isinstance(part.layer, Dense):
        return {"kernel": "weight", "bias": "bias"}
    return {"embeddings": "weight"} if isinstance(part.layer, Embedding) else {}


def _module_weights(part: Part, weights: Weights, depth: int) -> Weights:
    names = _tensor_names(part, depth)
    if part.is_lstm:
        weights = to_torch(part.layer, weights)
    elif isinstance(part.layer, Dense):
        weights = {**weights, "kernel": weights["kernel"].T}
    return {name: weights[key] for key, name in names.items()}


def _own_weights(part: Part, tensors: Weights) -> Weights:
    if part.is_lstm:
        return from_torch(part.layer, tensors)
    if isinstance(part.layer, Dense):
        return {**tensors, "kernel": tensors["kernel"].T}
    return tensors


# --- the lines ------------------------------------------------------------------------------------------------


def _code(path: str, stacks: list[Stack], params: dict[str, Any]) -> str:
    dtype = params_dtype(params, np.float32)
    modules = [f"    {_module_name(stack)!r}: torch.nn.{_module(stack, params)}," for stack in stacks]
    steps = [line for stack in stacks for line in _steps(stack)]
    embedded = isinstance(stacks[0][0].layer, Embedding)
    return "\n".join(
        [
            "import torch",
            "from safetensors.torch import load_file",
            "",
            "model = torch.nn.ModuleDict({",
            *modules,
            "})" if dtype == np.float32 else f"}}).to(torch.{dtype})",
            f"model.load_state_dict(load_file({path!r}))",
            "model.eval()  # train() to train: then Dropout acts",
            "",
            "def forward(inputs):  # " + ("[batch, time]" if embedded else "[batch, time, features]"),
            f"    x = torch.as_tensor(inputs{'' if embedded else f', dtype=torch.{dtype}'})",
            *(f"    {line}" for line in steps),
            "    return x",
            "",
        ]
    )


def _module(stack: Stack, params: dict[str, Any]) -> str:
    first = stack[0]
    if isinstance(first.layer, Dropout):
        return f"Dropout({first.layer.rate!r})"
    width = features_in(first, weights_of(params, first))
    if not first.is_lstm:
        return f"{'Linear' if isinstance(first.layer, Dense) else 'Embedding'}({width}, {first.layer.units})"
    assert first.runner is not None
    options = {"num_layers": len(stack)} if len(stack) > 1 else {}
    options |= {"batch_first": not first.runner.time_major}
    options |= {"proj_size": first.layer.num_proj} if first.layer.num_proj is not None else {}
    return f"LSTM({width}, {first.layer.units}, {', '.join(f'{key}={value!r}' for key, value in options.items())})"


def _steps(stack: Stack) -> list[str]:
    first, last, module = stack[0], stack[-1], f"model[{_module_name(stack)!r}]"
    if not first.is_lstm:
        name = activation_name(getattr(first.layer, "activation", None), "export.torch.save")
        call = f"{module}(x)"
        return [f"x = {ACTIVATIONS[name]}({call})" if name in ACTIVATIONS else f"x = {call}"]
    runner = first.runner
    assert runner is not None
    time = 0 if runner.time_major else 1
    flip = [f"x = x.flip({time})"] if runner.reverse else []
    step = f"x = x[{'-1' if runner.time_major else ':, -1'}]"
    return [*flip, f"x, _ = {module}(x)", *(flip if last.return_sequences else [step])]
