"""Gradients of a scalar function of a parameter tree."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from autograd.core import VJPNode, add_outgrads, vspace
from autograd.tracer import getval, isbox, new_box, toposort, trace_stack

from .arguments import check_function, check_number
from .arrays import as_array
from .params import Tree, tree_leaves, tree_map, tree_unflatten


def value_and_grad(function: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
    """Return a function that computes `function` and its gradient with respect to the first argument.

    autograd can differentiate a nested dict by itself, but spends half a millisecond on building dicts of zeros.
    Here each leaf of the tree is its own variable in the trace, and one backward pass computes all gradients.

    Parameters
    ----------
    function : callable
        ``function(params, *args, **kwargs)`` returns a scalar, or with `has_aux` a pair ``(scalar, aux)``.
        `params` is any tree of floating arrays.
    has_aux : bool, default False
        Whether `function` returns something besides the loss, such as the final state.

    Returns
    -------
    callable
        ``(loss, grads)``, or ``((loss, aux), grads)``. `loss` is a float of the parameters' dtype; `grads` has the
        structure, shapes and dtypes of `params`, is C-contiguous, and is zero for a leaf that the loss does not use.

    Raises
    ------
    ValueError
        When the returned function is called: if a leaf of `params` is not floating, or the loss is not a scalar.

    Examples
    --------
    >>> params = {"w": np.array([3.0, 4.0]), "b": np.array(1.0)}
    >>> loss, grads = value_and_grad(lambda p: (p["w"] ** 2).sum() + p["b"])(params)
    >>> float(loss), grads["w"].tolist(), float(grads["b"])
    (26.0, [6.0, 8.0], 1.0)
    """
    check_function(function, "function", "value_and_grad")

    def value_and_gradient(params: Tree, *args: Any, **kwargs: Any) -> Any:
        leaves = tree_leaves(params)
        for leaf in leaves:
            is_array = isinstance(leaf, (np.ndarray, float, np.floating)) or isbox(leaf)
            if not is_array or np.result_type(leaf).kind != "f" or not _is_plain(leaf):
                raise ValueError(f"value_and_grad: params: every parameter must be a floating array, got {leaf!r:.80}")
        with trace_stack.new_trace() as trace:
            roots = [VJPNode.new_root() for _ in leaves]
            boxes = [new_box(leaf, trace, root) for leaf, root in zip(leaves, roots, strict=True)]
            result = function(tree_unflatten(params, iter(boxes)), *args, **kwargs)
            loss, aux = result if has_aux else (result, None)
            traced = isbox(loss) and loss._trace == trace
            value, end = (loss._value, loss._node) if traced else (loss, None)
            # Remove the boxes of this trace; the box of an outer trace stays.
            aux = tree_map(lambda leaf: leaf._value if isbox(leaf) and leaf._trace == trace else leaf, aux)
        plain = np.asarray(getval(value))
        if plain.ndim or plain.dtype.kind not in "fiu":
            what = f"shape {plain.shape}" if plain.ndim else repr(getval(value))
            raise ValueError(f"value_and_grad: the loss that function returns must be a scalar, got {what}")
        grads = tree_unflatten(params, iter(_sweep(end, value, roots, leaves)))
        return ((value, aux), grads) if has_aux else (value, grads)

    return value_and_gradient


def _is_plain(leaf: Any) -> bool:
    return not isinstance(leaf, np.ma.MaskedArray) and getattr(leaf, "dtype", np.dtype(float)).isnative


def _sweep(end: Any, value: Any, roots: list[Any], leaves: list[Any]) -> list[Any]:
    """Accumulate the gradients from the node `end` back to every root: autograd's backward pass for many variables."""
    found: dict[Any, Any] = {}
    if end is not None:
        root_set = set(roots)
        outgrads = {end: (vspace(value).ones(), False)}
        for node in toposort(end):
            outgrad = outgrads.pop(node)
            if node in root_set:
                found[node] = outgrad[0]
                continue
            for parent, ingrad in zip(node.parents, node.vjp(outgrad[0]), strict=True):
                outgrads[parent] = add_outgrads(outgrads.get(parent), ingrad)
    return [
        _like_leaf(found[root], leaf) if root in found else np.zeros(np.shape(leaf), np.asarray(leaf).dtype)
        for root, leaf in zip(roots, leaves, strict=True)
    ]


def _like_leaf(grad: Any, leaf: Any) -> Any:
    """Return the gradient C-contiguous in the parameter's dtype; a box of an outer trace is returned unchanged."""
    if isbox(grad):
        return grad
    return np.asarray(grad, getattr(leaf, "dtype", np.float64), order="C")


def global_norm(tree: Tree) -> float:
    """Return the Euclidean norm of all leaves as one vector; the squares of float32 leaves do not overflow.

    >>> global_norm({"w": np.array([3.0]), "b": np.array([4.0])})
    5.0
    """
    leaves = tree_leaves(_floating(tree, "global_norm: tree"))
    total = sum(float(np.vdot(leaf, leaf)) for leaf in leaves)  # BLAS, in the leaf's dtype: no copy
    if not math.isfinite(total):  # a square may overflow although the norm does not
        total = sum(float(np.sum(np.square(leaf, dtype=np.float64))) for leaf in leaves)
    return math.sqrt(total)


def _floating(tree: Tree, where: str) -> Tree:
    """Return a tree with every leaf a floating array; the tree itself, if it is one."""
    if all(type(leaf) is np.ndarray and leaf.dtype.kind == "f" for leaf in tree_leaves(tree)):
        return tree
    arrays = tree_map(lambda leaf: as_array(leaf, where), tree)
    return tree_map(lambda leaf: leaf if leaf.dtype.kind == "f" else leaf.astype(np.float64), arrays)


def clip_by_value(grads: Tree, clip_value: float) -> Tree:
    """Limit every entry to [-clip_value, clip_value], as ``tf.clip_by_value``.

    Raises ValueError if `clip_value` is not positive.
    """
    clip_value = check_number(clip_value, "clip_value", "clip_by_value", above=0, finite=False)
    return tree_map(lambda g: np.clip(g, -clip_value, clip_value), _floating(grads, "clip_by_value: grads"))


def clip_by_global_norm(grads: Tree, clip_norm: float) -> tuple[Tree, float]:
    """Scale all gradients by one factor so that their global norm is at most `clip_norm`.

    Parameters
    ----------
    grads : tree of arrays
    clip_norm : float
        Positive.

    Returns
    -------
    (grads, norm)
        The scaled tree (`grads` itself if its norm is within the bound) and the norm before clipping.

    Raises
    ------
    ValueError
        If `clip_norm` is not positive.

    References
    ----------
    Pascanu, Mikolov and Bengio 2013; ``tf.clip_by_global_norm``. If the norm is not finite, the gradients are returned
    unchanged, so that the caller sees them.
    """
    clip_norm = check_number(clip_norm, "clip_norm", "clip_by_global_norm", above=0, finite=False)
    grads = _floating(grads, "clip_by_global_norm: grads")
    norm = global_norm(grads)
    if not norm > clip_norm or not math.isfinite(norm):
        return grads, norm
    scale = clip_norm / norm
    return tree_map(lambda g: g * np.asarray(scale, g.dtype), grads), norm
