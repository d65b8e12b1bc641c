"""Gradients of a scalar function of a parameter tree, and derivatives along a direction."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from autograd.core import JVPNode, VJPNode, vspace
from autograd.tracer import getval, isbox, new_box, trace_stack

from .arguments import check_flag, check_function, check_number
from .arrays import as_array, is_masked_kind
from .params import Tree, tree_leaves, tree_map, tree_rows, tree_unflatten
from .primitives import sweep


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
        ``(loss, grads)``, or ``((loss, aux), grads)``. `loss` is the number that `function` returned, and `aux` its
        tree; `grads` has the structure, shapes and dtypes of `params`, each leaf a C-contiguous array of its own that
        is zero if the loss does not use it.

    Raises
    ------
    ValueError
        When the returned function is called: if a leaf of `params` is not floating, or the loss is not a scalar.

    Notes
    -----
    autograd has one stack of traces for all threads. Nested derivatives, such as a `grad` inside a `grad`, can be
    wrong if another thread takes derivatives meanwhile; use processes then.

    Examples
    --------
    >>> params = {"w": np.array([3.0, 4.0]), "b": np.array(1.0)}
    >>> loss, grads = value_and_grad(lambda p: (p["w"] ** 2).sum() + p["b"])(params)
    >>> float(loss), grads["w"].tolist(), float(grads["b"])
    (26.0, [6.0, 8.0], 1.0)
    """
    check_function(function, "function", "value_and_grad")
    has_aux = check_flag(has_aux, "has_aux", "value_and_grad")

    def value_and_gradient(params: Tree, *args: Any, **kwargs: Any) -> Any:
        leaves = _floating_leaves(params, "value_and_grad: params: every parameter")
        with trace_stack.new_trace() as trace:
            roots = [VJPNode.new_root() for _ in leaves]
            boxes = [new_box(leaf, trace, root) for leaf, root in zip(leaves, roots, strict=True)]
            result = function(tree_unflatten(params, iter(boxes)), *args, **kwargs)
            loss, aux = _loss_and_aux(result, has_aux)
            traced = isbox(loss) and loss._trace == trace
            value, end = (loss._value, loss._node) if traced else (loss, None)
            # Remove the boxes of this trace; the box of an outer trace stays.
            aux = tree_map(lambda leaf: leaf._value if isbox(leaf) and leaf._trace == trace else leaf, aux)
        plain = np.asarray(getval(value))
        if plain.ndim or plain.dtype.kind not in "fiu":
            what = f"shape {plain.shape}" if plain.ndim else repr(getval(value))
            raise ValueError(f"value_and_grad: the loss that function returns must be a scalar, got {what}")
        grads = tree_unflatten(params, iter(_grads(end, value, roots, leaves)))
        return ((value, aux), grads) if has_aux else (value, grads)

    return value_and_gradient


def _loss_and_aux(result: Any, has_aux: bool) -> tuple[Any, Any]:
    """What a function returned, as a loss and what is besides it."""
    is_pair = isinstance(result, (tuple, list)) and len(result) == 2
    if has_aux and not is_pair:
        got = f"{len(result)} items" if isinstance(result, (tuple, list)) else type(getval(result)).__name__
        raise ValueError(f"value_and_grad: function must return (loss, aux), because has_aux is True, got {got}")
    if not has_aux and isinstance(result, (tuple, list, dict)):
        hint = "; has_aux=True is for (loss, aux)" if is_pair else ""
        raise ValueError(
            "value_and_grad: the loss that function returns must be a scalar, got a "
            f"{type(result).__name__} of {len(result)} items{hint}"
        )
    return (result[0], result[1]) if has_aux else (result, None)


def jvp(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that computes `function` and its derivative along a direction: a Jacobian-vector product.

    Both come from one forward pass (forward mode). There is no backward pass and nothing is kept for one.

    Parameters
    ----------
    function : callable
        ``function(params, *args, **kwargs)`` returns a tree of arrays. `params` is a tree of floating arrays.

    Returns
    -------
    callable
        ``product(params, vector, *args, **kwargs)`` returns ``(value, tangent)``. `vector` has the structure and the
        shapes of `params`. `tangent` has those of `value`: the derivative of each leaf with respect to e at e = 0 if
        the parameters are ``params + e * vector``. It is None for a leaf that is not floating.

    Raises
    ------
    ValueError
        When the returned function is called: if a leaf of `params` or `vector` is not floating, or `vector` has another
        structure or shape.
    NotImplementedError
        For a function whose forward derivative autograd does not know, such as a primitive of your own; the message
        names it.

    Examples
    --------
    >>> square = lambda p: {"y": p["w"] ** 2}
    >>> value, tangent = jvp(square)({"w": np.array([3.0, 4.0])}, {"w": np.array([1.0, 0.5])})
    >>> value["y"].tolist(), tangent["y"].tolist()
    ([9.0, 16.0], [6.0, 4.0])
    """

    def value_and_tangent(params: Tree, vector: Tree, *args: Any, **kwargs: Any) -> Any:
        result, *pairs = _push(function, params, vector, args, kwargs, "jvp")
        value, tangent = (tree_unflatten(result, (pair[side] for pair in pairs)) for side in (0, 1))
        return value, tangent

    check_function(function, "function", "jvp")
    return value_and_tangent


def hessian_vector_product(function: Callable[..., Any], has_aux: bool = False) -> Callable[..., Any]:
    """Return a function that computes a loss, its gradient, and the product of its Hessian with a vector.

    The product is the derivative of the gradient along the vector. One forward and one backward pass compute the loss
    and the gradient, and at every step their derivatives along the vector (`minilstm.second.tangents`); the Hessian
    itself, which has one row for each number in `params`, is never made.

    Parameters
    ----------
    function : callable
        As for `value_and_grad`. It is called once, so that whatever it draws at random is the same for all three.
    has_aux : bool, default False
        Whether `function` returns a pair ``(loss, aux)``.

    Returns
    -------
    callable
        ``product(params, vector, *args, **kwargs)`` returns ``(loss, grads, product)``, or ``((loss, aux), grads,
        product)``. `vector`, `grads` and `product` have the structure and the shapes of `params`; the last two have its
        dtypes too. In a clip and in relu the derivative of the side is used on which a number is.

    Raises
    ------
    ValueError
        As `value_and_grad`, and if `vector` has another structure or shape than `params` or is not floating.
    NotImplementedError
        As `jvp`.

    References
    ----------
    Pearlmutter 1994, *Fast exact multiplication by the Hessian*.

    Examples
    --------
    >>> loss = lambda p: p["w"][0] ** 2 * p["w"][1]
    >>> value, grads, product = hessian_vector_product(loss)({"w": np.array([3.0, 4.0])}, {"w": np.array([1.0, 0.0])})
    >>> float(value), grads["w"].tolist(), product["w"].tolist()
    (36.0, [24.0, 9.0], [8.0, 6.0])
    """
    check_function(function, "function", "hessian_vector_product")
    gradient = value_and_grad(function, has_aux)

    def products(params: Tree, vector: Tree, *args: Any, **kwargs: Any) -> Any:
        result, *pairs = _push(gradient, params, vector, args, kwargs, "hessian_vector_product")
        leaves = tree_leaves(params)
        of_loss = len(pairs) - len(leaves)  # of the loss and of aux; the others are those of the gradient
        value = tree_unflatten(result[0], (value for value, _ in pairs[:of_loss]))
        sides = ([pair[side] for pair in pairs[of_loss:]] for side in (0, 1))
        return value, *(tree_unflatten(params, map(_like_leaf, side, leaves)) for side in sides)

    return products


def _push(function: Any, params: Tree, vector: Tree, args: Any, kwargs: Any, where: str) -> list[Any]:
    """What `function` returns, then for each leaf of it the value and the derivative along `vector`."""
    leaves = _floating_leaves(params, f"{where}: params: every parameter")
    try:
        rows = tree_rows(params, vector)
    except ValueError as error:
        raise ValueError(f"{where}: vector does not fit params: {error}") from None
    _floating_leaves(vector, f"{where}: vector: every leaf")
    directions = []
    for leaf, direction in rows:
        if np.shape(direction) != np.shape(leaf):
            raise ValueError(f"{where}: vector has a leaf {np.shape(direction)} where params has {np.shape(leaf)}")
        directions.append(_like_leaf(direction, leaf))
    with trace_stack.new_trace() as trace:
        starts = zip(leaves, map(JVPNode.new_root, directions), strict=True)
        boxes = [new_box(leaf, trace, start) for leaf, start in starts]
        result = function(tree_unflatten(params, iter(boxes)), *args, **kwargs)

    def split(leaf: Any) -> tuple[Any, Any]:
        if isbox(leaf) and leaf._trace == trace:
            return leaf._value, leaf._node.g
        still = getattr(getattr(leaf, "dtype", None), "kind", None) == "f" or isinstance(leaf, float)
        return leaf, np.zeros(np.shape(leaf), getattr(leaf, "dtype", np.float64)) if still else None

    return [result, *map(split, tree_leaves(result))]


def _floating_leaves(tree: Tree, what: str) -> list[Any]:
    """The leaves of a tree; ValueError if one is not floating."""
    leaves = tree_leaves(tree)
    for leaf in leaves:
        value = getval(leaf)
        if type(value) is np.ndarray and value.dtype.kind == "f" and value.dtype.isnative:  # as nearly all are
            continue
        is_array = isinstance(leaf, (np.ndarray, float, np.floating)) or isbox(leaf)
        if not is_array or np.result_type(leaf).kind != "f" or not _is_plain(leaf):
            raise ValueError(f"{what} must be a floating array, got {leaf!r:.80}")
    return leaves


def _is_plain(leaf: Any) -> bool:
    return not is_masked_kind(leaf) and getattr(leaf, "dtype", np.dtype(float)).isnative


def _grads(end: Any, value: Any, roots: list[Any], leaves: list[Any]) -> list[Any]:
    """The gradients from the node `end` back to every root; 0 where nothing arrives."""
    found = [None] * len(roots) if end is None else sweep(end, vspace(value).ones(), roots)
    grads = [
        np.zeros(np.shape(leaf), np.asarray(getval(leaf)).dtype) if grad is None else _like_leaf(grad, leaf)
        for grad, leaf in zip(found, leaves, strict=True)
    ]
    return grads if len(set(map(_start, grads))) == len(grads) else [copy.copy(grad) for grad in grads]


def _start(grad: Any) -> int:
    """Where an array begins in memory: of ``w + b`` both gradients are one array."""
    return id(grad) if isbox(grad) else grad.__array_interface__["data"][0]


def _like_leaf(grad: Any, leaf: Any) -> Any:
    """Return the gradient C-contiguous in the parameter's dtype; a box of an outer trace is returned unchanged."""
    if isbox(grad):
        return grad
    return np.asarray(grad, getattr(leaf, "dtype", np.float64), order="C")


def global_norm(tree: Tree) -> float:
    """Return the Euclidean norm of all leaves as one vector. The squares of large numbers do not overflow, those of
    small ones do not vanish.

    >>> global_norm({"w": np.array([3.0]), "b": np.array([4.0])})
    5.0
    """
    leaves = tree_leaves(_floating(tree, "global_norm: tree"))
    if all(leaf.dtype.itemsize > 2 for leaf in leaves):
        total = sum(float(np.vdot(leaf, leaf)) for leaf in leaves)  # BLAS, in the leaf's dtype: no copy
        if 1e-30 < total < math.inf:
            return math.sqrt(total)
    # A square may overflow, or vanish, although the norm does not.
    largest = max((float(np.max(np.abs(leaf), initial=0)) for leaf in leaves), default=0.0)
    if not 0 < largest < math.inf:
        return largest
    return largest * math.sqrt(sum(float(np.sum(np.square(leaf / largest, dtype=np.float64))) for leaf in leaves))


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
