"""Arrays and recurrent states under ``minilstm/`` in a checkpoint, and how a state's structure is written as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..cells import LSTMState
from ..checkpoint import OWN, Checkpoint
from ..params import Tree, tree_leaves

KINDS: dict[str, Any] = {"LSTMState": LSTMState._make, "tuple": tuple, "list": list}  # what a state may be made of


def own_tensors(loaded: Checkpoint, folder: str) -> dict[str, Any]:
    """Return the tensors that a checkpoint holds under ``minilstm/<folder>/``, named without that prefix."""
    start = f"{OWN}{folder}/"
    return {name.removeprefix(start): value for name, value in loaded.others.items() if name.startswith(start)}


def state_tensors(folder: str, state: Tree) -> dict[str, Any]:
    """Return the arrays of a recurrent state, numbered: ``<folder>/0``, ``<folder>/1``, ..."""
    return {f"{folder}/{n}": leaf for n, leaf in enumerate(tree_leaves(state))}


def read_state(loaded: Checkpoint, folder: str, description: Any) -> Tree:
    """Return the recurrent state whose arrays `state_tensors` numbered and whose structure is `description`.

    Raises ValueError, KeyError, TypeError or StopIteration if the two do not go together.
    """
    tensors = own_tensors(loaded, folder)
    return build_structure(description, iter([tensors[str(n)] for n in range(len(tensors))]))


def describe_structure(tree: Tree) -> Any:
    """Describe the structure of a state as JSON: a dict as {key: ...}, a tuple as [kind, ...], an array as 0."""
    if isinstance(tree, dict):
        return {key: describe_structure(value) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        kind = type(tree).__name__
        if kind not in KINDS:
            raise ValueError(f"fit: a carried state may hold dicts, lists, tuples and LSTMState, got {kind}")
        return [kind, *map(describe_structure, tree)]
    return None if tree is None else 0


def build_structure(description: Any, leaves: Iterator[Any]) -> Tree:
    """Build the tree that `describe_structure` described; `leaves` yields its arrays."""
    if isinstance(description, dict):
        return {key: build_structure(value, leaves) for key, value in description.items()}
    if isinstance(description, list):
        kind, *parts = description
        return KINDS[kind]([build_structure(part, leaves) for part in parts])
    return None if description is None else next(leaves)
