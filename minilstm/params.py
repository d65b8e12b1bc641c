"""Trees: nested dicts, lists, tuples and named tuples of arrays, and their names.

Parameters, gradients, optimizer slots, states and batches are all such trees. The path of an array in a
parameter tree, joined with ``/``, is its TensorFlow variable name:

>>> import numpy as np
>>> params = {"rnn": {"lstm_cell": {"kernel": np.zeros((3, 8)), "bias": np.zeros(8)}}}
>>> sorted(flatten_names(params))
['rnn/lstm_cell/bias', 'rnn/lstm_cell/kernel']

``None`` is a tree without leaves. Leaves are visited in the order the containers hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from autograd.tracer import getval

Tree = Any  # nested dict | list | tuple | NamedTuple | None | array


def tree_leaves(tree: Tree) -> list[Any]:
    """The leaves of a tree, in order."""
    leaves: list[Any] = []
    _collect(tree, leaves)
    return leaves


def _collect(tree: Tree, leaves: list[Any]) -> None:
    kind = getval(tree)  # autograd's own `grad` of a dict passes a box around the dict
    if isinstance(kind, dict):
        for subtree in tree.values():
            _collect(subtree, leaves)
    elif isinstance(kind, (list, tuple)):
        for index in range(len(kind)):
            _collect(tree[index], leaves)
    elif tree is not None:
        leaves.append(tree)


def tree_unflatten(like: Tree, leaves: Iterator[Any]) -> Tree:
    """A tree of the structure of `like` whose leaves are taken from the iterator `leaves`, in order."""
    if isinstance(like, dict):
        return {key: tree_unflatten(subtree, leaves) for key, subtree in like.items()}
    if isinstance(like, (list, tuple)):
        children = [tree_unflatten(subtree, leaves) for subtree in like]
        if hasattr(like, "_fields"):  # a named tuple is built from its fields, not from a list
            return type(like)(*children)
        return type(like)(children)
    if like is None:
        return None
    return next(leaves)


def tree_map(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """Apply `function` to the leaves of `tree` (and, side by side, to those of `others`).

    Raises
    ------
    ValueError
        If one of `others` has another structure than `tree`; the message names the first place.

    Examples
    --------
    >>> tree_map(lambda a, b: a + 10 * b, {"w": 1, "b": (2, 3)}, {"w": 4, "b": (5, 6)})
    {'w': 41, 'b': (52, 63)}
    """
    return tree_unflatten(tree, (function(*row) for row in tree_rows(tree, *others)))


def tree_rows(tree: Tree, *others: Tree) -> Iterator[tuple[Any, ...]]:
    """The leaves of `tree`, each with those of `others` at the same place; ValueError as `tree_map`."""
    return zip(tree_leaves(tree), *(_leaves_like(tree, other) for other in others), strict=True)


def _leaves_like(like: Tree, tree: Tree) -> list[Any]:
    """The leaves of `tree` in the order of `like`: two dicts may hold the same keys in another order."""
    leaves: list[Any] = []
    _collect_like(like, tree, "", leaves)
    return leaves


def check_same_structure(tree: Tree, other: Tree) -> None:
    """Raise ValueError, naming the first place, where `other` has not the structure of `tree`."""
    _collect_like(tree, other, "", [])


def _collect_like(tree: Tree, other: Tree, path: str, leaves: list[Any]) -> None:
    # Not a closure that calls itself: that is a cycle, which would keep all leaves until the collector comes round.
    if isinstance(tree, dict):
        if not isinstance(other, dict) or tree.keys() != other.keys():
            got = sorted(other) if isinstance(other, dict) else type(other).__name__
            raise ValueError(f"trees differ at {path or 'the tree'}: wanted keys {sorted(tree)}, got {got}")
        for key in tree:
            _collect_like(tree[key], other[key], f"{path}/{key}" if path else str(key), leaves)
    elif isinstance(tree, (list, tuple)):
        if not isinstance(other, (list, tuple)) or len(tree) != len(other):
            got = f"{len(other)} items" if isinstance(other, (list, tuple)) else type(other).__name__
            raise ValueError(f"trees differ at {path or 'the tree'}: wanted {len(tree)} items, got {got}")
        for index, (x, y) in enumerate(zip(tree, other, strict=True)):
            _collect_like(x, y, f"{path}/{index}" if path else str(index), leaves)
    elif (tree is None) != (other is None) or isinstance(other, (dict, list, tuple)):
        wanted = "nothing" if tree is None else "an array"
        raise ValueError(f"trees differ at {path or 'the tree'}: wanted {wanted}, got {type(other).__name__}")
    elif tree is not None:
        leaves.append(other)


def flatten_names(params: Tree, prefix: str = "") -> dict[str, Any]:
    """A parameter tree as a flat dict: TensorFlow variable name -> array."""
    if isinstance(params, dict):
        flat: dict[str, Any] = {}
        for key, subtree in params.items():
            flat.update(flatten_names(subtree, f"{prefix}/{key}" if prefix else str(key)))
        return flat
    return {} if params is None else {prefix: params}


def unflatten_names(flat: dict[str, Any]) -> dict[str, Any]:
    """The nested dict whose paths are the names in `flat`: every name is split at ``/``.

    Raises
    ------
    ValueError
        If one name is also the folder of another (``a`` and ``a/b``): a nested dict cannot hold both.

    Examples
    --------
    >>> unflatten_names({"rnn/lstm_cell/bias": 1, "dense/bias": 2})
    {'rnn': {'lstm_cell': {'bias': 1}}, 'dense': {'bias': 2}}
    """
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        set_path(tree, name, value)
    return tree


def check_name(name: str, where: str) -> None:
    """Raise ValueError for a name that cannot stand in a variable name."""
    parts = name.split("/") if isinstance(name, str) else [""]
    if not all(parts) or parts[0].startswith("minilstm"):
        raise ValueError(f"{where}: name must be a non-empty path that does not start with 'minilstm', got {name!r}")


def set_path(tree: dict[str, Any], path: str, value: Any) -> None:
    """Put `value` at `path` (parts joined with ``/``), merging dicts; a clash is a ValueError."""
    *folders, last = path.split("/")
    for folder in folders:
        tree = tree.setdefault(folder, {})
        if not isinstance(tree, dict):
            raise ValueError(f"names clash: {path!r} lies under {folder!r}, which is itself an array")
    if last in tree:
        old = tree[last]
        if not (isinstance(old, dict) and isinstance(value, dict)) or old.keys() & value.keys():
            raise ValueError(f"names clash: {path!r} is already taken")
        old.update(value)
    else:
        tree[last] = value


def get_path(tree: Tree, path: str) -> Any:
    """The subtree at `path`, or None where there is none."""
    if isinstance(tree, dict) and path in tree:  # no folders: nothing to take apart
        return tree[path]
    for part in path.split("/"):
        if not isinstance(getval(tree), dict) or part not in tree:
            return None
        tree = tree[part]
    return tree


def tree_size(tree: Tree) -> int:
    """The number of scalars in all leaves."""
    return sum(int(np.size(leaf)) for leaf in tree_leaves(tree))
