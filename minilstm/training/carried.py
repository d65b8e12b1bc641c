"""Arrays and states under ``minilstm/`` in a checkpoint, and how a state's structure is written as JSON.

A state is what recurrent layers carry on, or what an optimizer of your own remembers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..cells import LSTMState
from ..checkpoint import OWN, Checkpoint
from ..params import Tree, tree_leaves

# What a state may be made of, besides dicts and arrays.
KINDS: dict[str, Any] = {"LSTMState": LSTMState._make, "tuple": tuple, "list": list}
NUMBERS: dict[str, Any] = {"int": int, "float": float, "bool": bool, "scalar": lambda x: x[()]}


def own_tensors(loaded: Checkpoint, folder: str) -> dict[str, Any]:
    """Return the tensors that a checkpoint holds under ``minilstm/<folder>/``, named without that prefix."""
    start = f"{OWN}{folder}/"
    return {name.removeprefix(start): value for name, value in loaded.others.items() if name.startswith(start)}


def state_tensors(folder: str, state: Tree) -> dict[str, Any]:
    """Return the arrays of a state, numbered: ``<folder>/0``, ``<folder>/1``, ..."""
    return {f"{folder}/{n}": leaf for n, leaf in enumerate(tree_leaves(state))}


def read_state(loaded: Checkpoint, folder: str, description: Any) -> Tree:
    """Return the state whose arrays `state_tensors` numbered and whose structure is `description`.

    Raises ValueError, KeyError, TypeError or StopIteration if the two do not go together.
    """
    tensors = own_tensors(loaded, folder)
    return build_structure(description, iter([tensors[str(n)] for n in range(len(tensors))]))


def describe_structure(tree: Tree) -> Any:
    """Describe the structure of a state as JSON: a dict as ["dict", [key, ...], ...], a tuple as [kind, ...], an array
    as 0, a number as its kind. JSON would sort an object, and the arrays are numbered in the order of the dict.
    """
    if isinstance(tree, dict):
        return ["dict", *([key, describe_structure(value)] for key, value in tree.items())]
    if isinstance(tree, (tuple, list)):
        kind = type(tree).__name__
        if kind not in KINDS:
            raise ValueError(f"fit: a carried state may hold dicts, lists, tuples and LSTMState, got {kind}")
        return [kind, *map(describe_structure, tree)]
    if isinstance(tree, np.generic):
        return "scalar"
    return None if tree is None else type(tree).__name__ if type(tree).__name__ in NUMBERS else 0


def build_structure(description: Any, leaves: Iterator[Any]) -> Tree:
    """Build the tree that `describe_structure` described; `leaves` yields its arrays."""
    if isinstance(description, dict):  # as older files have it
        description = ["dict", *description.items()]
    if isinstance(description, list):
        kind, *parts = description
        if kind == "dict":
            return {key: build_structure(part, leaves) for key, part in parts}
        return KINDS[kind]([build_structure(part, leaves) for part in parts])
    if isinstance(description, str):
        return NUMBERS[description](next(leaves))
    return None if description is None else next(leaves)
