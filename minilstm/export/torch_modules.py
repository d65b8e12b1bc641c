"""The modules that a model becomes in PyTorch, and the names of their tensors in a state dict."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from ..layers import Dense, Embedding, Sequential
from .parts import Part, check_distinct, parts_of

UNSUPPORTED = {
    "activation": "torch.nn.{layer} has tanh alone",
    "use_peepholes": "torch.nn.{layer} has no peepholes (ONNX has)",
    "cell_clip": "torch.nn.{layer} clips nothing",
    "proj_clip": "torch.nn.{layer} clips nothing",
    "learn_initial_state": "torch.nn.{layer} keeps no initial state (ONNX does)",
}
IN_A_STACK = re.compile(r"(?P<stack>.+)/cell_(?P<depth>\d+)")


class Module(NamedTuple):
    """A module of the ``ModuleDict``: an ``nn.LSTM`` or ``nn.GRU`` with its layers, the first one first, or one other
    part.
    """

    name: str
    parts: list[Part]


def modules_of(model: Sequential, where: str) -> list[Module]:
    """The modules of a model. The cells of a runner are one module if one ``nn.LSTM`` or ``nn.GRU`` can hold them as
    its layers; so are `Bidirectional` layers in a row that are called ``<module>/cell_0``, ``<module>/cell_1``, ...

    Raises ValueError for what PyTorch cannot express, and if two modules would have one name.
    """
    parts = parts_of(model, where, UNSUPPORTED)
    for part in parts:
        _check(part, where)
    modules: list[Module] = []
    for (owner, _), group in itertools.groupby(parts, key=lambda part: (_stack(part), part.backward is None)):
        members = list(group)
        for held in [members] if _are_one(members) else [[part] for part in members]:
            modules.append(Module(owner if _is_whole(held) else held[0].name, held))
    check_distinct([module.name for module in modules], where)
    return modules


def _stack(part: Part) -> str:
    """What the parts of one module have in common."""
    match = IN_A_STACK.fullmatch(part.owner) if part.backward is not None else None
    return match["stack"] if match else part.owner


def _are_one(parts: list[Part]) -> bool:
    """Whether these parts can be the layers of one module."""
    shared = {(part.sizes, part.runner.time_major) if part.runner is not None else None for part in parts}
    names = [f"{_stack(part)}/cell_{n}" for n, part in enumerate(parts)]
    is_row = all(part.backward is None or part.name == name for part, name in zip(parts, names, strict=True))
    return len(shared) == 1 and (is_row or len(parts) == 1)


def _is_whole(parts: list[Part]) -> bool:
    """Whether these parts are all cells of their layer, so that the module has the layer's name."""
    first = parts[0]
    if first.backward is not None:
        return len(parts) > 1
    return first.runner is not None and len(getattr(first.runner.cell, "cells", [None])) == len(parts)


def _check(part: Part, where: str) -> None:
    if not part.is_cell:
        return
    units, num_proj, kind, reset_after = part.sizes
    if (num_proj or 0) >= units:
        sizes = f"num_proj={num_proj} with {units} units"
        raise ValueError(f"{where}: {part.name!r} has {sizes}, and the proj_size of torch.nn.LSTM must be smaller")
    if kind == "GRU" and not reset_after:
        raise ValueError(f"{where}: {part.name!r} has reset_after=False, and torch.nn.GRU has reset_after=True alone")


def tensor_names(modules: list[Module]) -> Iterator[tuple[Part, dict[str, str]]]:
    """Each part with weights, a direction at a time, and its tensors' names in the file by what `to_torch` or our own
    tree calls them.
    """
    for module in modules:
        for depth, part in enumerate(module.parts):
            if part.is_cell:
                keys = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
                keys += ["weight_hr"] if part.sizes.num_proj is not None else []
                for one, end in zip(part.directions, ("", "_reverse"), strict=False):
                    yield one, {key: f"{module.name}.{key}_l{depth}{end}" for key in keys}
            elif isinstance(part.layer, Dense):
                yield part, {"kernel": f"{module.name}.weight", "bias": f"{module.name}.bias"}
            elif isinstance(part.layer, Embedding):
                yield part, {"embeddings": f"{module.name}.weight"}
