"""Trees of arrays (nested dicts, lists, tuples, named tuples) and the names of their leaves.

Parameters, gradients, optimizer slots, states and batches are such trees. The path of an array in a parameter tree,
joined with ``/``, is its TensorFlow variable name:

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
from autograd.tracer import getval, isbox

from .arrays import as_array

Tree = Any  # nested dict | list | tuple | NamedTuple | None | array


def tree_leaves(tree: Tree) -> list[Any]:
    """Return the leaves of a tree, in order."""
    if type(tree) is np.ndarray:  # as nearly all are
        return [tree]
    kind = getval(tree)  # autograd's own `grad` of a dict passes a box around the dict
    if not isinstance(kind, (dict, list, tuple)):
        return [] if tree is None else [tree]
    leaves: list[Any] = []
    for key in kind if isinstance(kind, dict) else range(len(kind)):
        leaves += tree_leaves(tree[key])
    return leaves


def tree_unflatten(like: Tree, leaves: Iterator[Any]) -> Tree:
    """Build a tree with the structure of `like` from the iterator `leaves`, in order."""
    if isinstance(like, dict):
        return {key: tree_unflatten(subtree, leaves) for key, subtree in like.items()}
    if isinstance(like, (list, tuple)):
        children = [tree_unflatten(subtree, leaves) for subtree in like]
        # A named tuple is built from its fields, not from a list.
        return type(like)(*children) if hasattr(like, "_fields") else type(like)(children)
    return None if like is None else next(leaves)


def tree_map(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """Apply `function` to each leaf of `tree`, together with the leaves of `others` at the same place.

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
    """Yield each leaf of `tree` with the leaves of `others` at the same place; ValueError as `tree_map`."""
    return zip(tree_leaves(tree), *(_leaves_like(tree, other, "") for other in others), strict=True)


def rows_like(params: Tree, where: str, trees: dict[str, Tree]) -> list[tuple[Any, ...]]:
    """Each parameter with the leaves of `trees` at its place, as arrays of its shape and dtype: NumPy would broadcast
    another shape, and give a wrong result.

    Raises ValueError, which begins with `where` and names the tree, if a tree has another structure or shape, or if a
    parameter is not a floating array.
    """
    columns = [tree_leaves(params)]
    for name, tree in trees.items():
        try:
            columns.append(_leaves_like(params, tree, ""))
        except ValueError as error:
            raise ValueError(f"{where}: {name} must be like params: {error}") from None
    rows = [*zip(*columns, strict=True)]
    if all(map(_are_alike, rows)):
        return rows
    paths = [*flatten_names(params)]
    places = [f": {path}" for path in paths] if len(paths) == len(rows) else [""] * len(rows)  # lists have no names
    return [_made_alike(row, where, place, [*trees]) for row, place in zip(rows, places, strict=True)]


def _are_alike(row: tuple[Any, ...]) -> bool:
    first = row[0]
    return (
        all(type(x) is np.ndarray and x.shape == first.shape and x.dtype == first.dtype for x in row)
        and first.dtype.kind == "f"
    )


def _made_alike(row: tuple[Any, ...], where: str, place: str, names: list[str]) -> tuple[Any, ...]:
    """A row of `rows_like`, checked in full; `place` is that of the parameter, as the messages have it."""
    if any(map(isbox, row)):  # a derivative of the update itself
        return row
    w = np.float64(row[0]) if type(row[0]) is float else row[0]
    if not isinstance(w, (np.ndarray, np.floating)) or w.dtype.kind != "f":
        raise ValueError(f"{where}: params{place} must be a floating array, got {w!r:.80}")
    arrays = [w]
    for name, value in zip(names, row[1:], strict=True):
        x = as_array(value, f"{where}: {name}{place}")
        if x.shape != w.shape:
            raise ValueError(f"{where}: {name}{place} must have the shape of its parameter {w.shape}, got {x.shape}")
        arrays.append(x.astype(w.dtype, copy=False))
    return tuple(arrays)


def _leaves_like(tree: Tree, other: Tree, path: str) -> list[Any]:
    """Return the leaves of `other` in the order of `tree`: two dicts may hold the same keys in another order."""
    if isinstance(tree, dict):
        if not isinstance(other, dict) or tree.keys() != other.keys():
            got = sorted(other, key=str) if isinstance(other, dict) else type(other).__name__
            keys = sorted(tree, key=str)
            raise ValueError(f"trees differ at {path[1:] or 'the tree'}: wanted keys {keys}, got {got}")
    elif isinstance(tree, (list, tuple)):
        if not isinstance(other, (list, tuple)) or len(tree) != len(other):
            got = f"{len(other)} items" if isinstance(other, (list, tuple)) else type(other).__name__
            raise ValueError(f"trees differ at {path[1:] or 'the tree'}: wanted {len(tree)} items, got {got}")
    elif (tree is None) != (other is None) or isinstance(other, (dict, list, tuple)):
        wanted = "nothing" if tree is None else "an array"
        raise ValueError(f"trees differ at {path[1:] or 'the tree'}: wanted {wanted}, got {type(other).__name__}")
    else:
        return [] if tree is None else [other]
    leaves: list[Any] = []
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        leaves += _leaves_like(tree[key], other[key], f"{path}/{key}")
    return leaves


def flatten_names(params: Tree, prefix: str | None = None) -> dict[str, Any]:
    """Return a parameter tree as a flat dict: TensorFlow variable name -> array.

    Raises ValueError if two arrays have one name, as in ``{"a/b": ..., "a": {"b": ...}}``.
    """
    if not isinstance(params, dict):
        return {} if params is None else {prefix or "": params}
    flat: dict[str, Any] = {}
    for key, subtree in params.items():
        named = flatten_names(subtree, str(key) if prefix is None else f"{prefix}/{key}")
        if not flat.keys().isdisjoint(named):
            twice = min(flat.keys() & named.keys())
            raise ValueError(f"flatten_names: params: names clash: two arrays have the name {twice!r}")
        flat.update(named)
    return flat


def unflatten_names(flat: dict[str, Any]) -> dict[str, Any]:
    """Build the nested dict whose paths are the names in `flat`: every name is split at ``/``.

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
    """Raise ValueError for a name that cannot be part of a variable name."""
    parts = name.split("/") if isinstance(name, str) else [""]
    if not all(parts) or parts[0].startswith("minilstm"):
        raise ValueError(f"{where}: name must be a non-empty path that does not start with 'minilstm', got {name!r}")


def set_path(tree: dict[str, Any], path: str, value: Any) -> None:
    """Put `value` at `path` (parts joined with ``/``) and merge dicts; raise ValueError if two names clash."""
    *folders, last = path.split("/")
    for folder in folders:
        tree = tree.setdefault(folder, {})
        if not isinstance(tree, dict):
            raise ValueError(f"names clash: {path!r} is under {folder!r}, which is itself an array")
    if last in tree:
        old = tree[last]
        if not (isinstance(old, dict) and isinstance(value, dict)) or old.keys() & value.keys():
            raise ValueError(f"names clash: {path!r} is already taken")
        old.update(value)
    else:
        tree[last] = value


def get_path(tree: Tree, path: str) -> Any:
    """Return the subtree at `path`, or None if the tree has no such path."""
    if isinstance(tree, dict) and path in tree:  # a path without folders needs no split
        return tree[path]
    for part in path.split("/"):
        if not isinstance(getval(tree), dict) or part not in tree:
            return None
        tree = tree[part]
    return tree


def tree_size(tree: Tree) -> int:
    """Return the number of scalars in all leaves."""
    return sum(int(np.size(leaf)) for leaf in tree_leaves(tree))
