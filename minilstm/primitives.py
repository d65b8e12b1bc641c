"""What is added to autograd: a quicker `primitive`, and primitives with several results.

- A small model spends a good part of a training step in the trace, and `autograd.extend.primitive` looks at every
  argument twice, because an argument of a function of NumPy may be of any library. A function here is called with
  arrays, boxes and plain objects alone: `primitive` takes half of the time. `defvjp` and its relatives do not see the
  difference.
- A primitive may return a tuple. If a program uses one of its results, autograd makes zeros for all of them and adds
  the one derivative to its place; for the outputs of a whole sequence that costs as much as some of the work on them.
  Here the derivatives are a tuple `Cotangents`, in which None means zeros.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import grad
from autograd.core import JVPNode, add_outgrads
from autograd.extend import VSpace, defjvp, defjvp_argnums, defvjp, defvjp_argnums
from autograd.tracer import box_types, getval, isbox, new_box, toposort

Array = Any


def primitive(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator: autograd does not trace the function, but takes the derivatives that are registered for it.

    A box of an array that is derived twice holds the box of the outer trace: a call of its own opens that one.
    """

    @functools.wraps(function)
    def traced(*args: Any, **options: Any) -> Any:
        boxed = [(n, arg) for n, arg in enumerate(args) if type(arg) in box_types]
        if not boxed:
            return function(*args, **options)
        trace = max([box._trace for _, box in boxed])  # the innermost
        argnums, parents, values = [], [], list(args)
        for n, box in boxed:
            if box._trace == trace:
                argnums.append(n)
                parents.append(box._node)
                values[n] = box._value
        nested = len(boxed) > len(parents) or not box_types.isdisjoint(type(values[n]) for n in argnums)
        answer = (traced if nested else function)(*values, **options)
        node = type(parents[0])(answer, traced, tuple(values), options, tuple(argnums), parents)
        return new_box(answer, trace, node)

    return traced


class Cotangents(tuple[Any, ...]):
    """One derivative for each result of a primitive; None if the loss has not used it."""


class _CotangentsSpace(VSpace):
    """Tells autograd how to add the cotangents of several uses."""

    def _add(self, x: Cotangents, y: Cotangents) -> Cotangents:
        return Cotangents(b if a is None else a if b is None else a + b for a, b in zip(x, y, strict=True))

    _mut_add = _add


VSpace.register(Cotangents, _CotangentsSpace)


@primitive
def result_of(results: tuple[Array, ...], index: int) -> Array:
    """One of a primitive's results."""
    return results[index]


defvjp(
    result_of,
    lambda ans, results, index: lambda g: Cotangents(g if n == index else None for n in range(len(results))),
    argnums=(0,),
)
defjvp(result_of, lambda g, ans, results, index: part_of(g, index), argnums=(0,))


@primitive
def stacked(*steps: Array) -> Array:
    """`np.stack` of the steps of a sequence. Autograd's own looks at all steps before n for the derivative of step n,
    which takes most of the time from a thousand steps on.
    """
    return np.stack(steps)


def _push_stacked(argnums: Any, pushed: Any, ans: Any, steps: Any, options: Any) -> Any:
    moved = dict(zip(argnums, pushed, strict=True))
    return stacked(*(moved.get(n, np.zeros(ans.shape[1:], ans.dtype)) for n in range(len(steps))))


defvjp_argnums(stacked, lambda argnums, ans, steps, options: lambda g: [g[n] for n in argnums])
defjvp_argnums(stacked, _push_stacked)


def filled(cotangents: tuple[Any, ...], results: tuple[Array, ...]) -> list[Array]:
    """The cotangents with zeros for None; only one zero of each array is stored. A result of None stays None."""
    return [
        _zeros_like(result) if cotangent is None and result is not None else cotangent
        for cotangent, result in zip(cotangents, getval(results), strict=True)
    ]


def _zeros_like(x: Array) -> Array:
    """Zeros as `np.broadcast_to` makes them of one zero, in a tenth of the time."""
    return np.ndarray(x.shape, x.dtype, np.zeros((), x.dtype), strides=(0,) * x.ndim)


def part_of(results: Any, index: int) -> Array:
    """`result_of`, without its cost if nothing is traced."""
    return result_of(results, index) if isbox(results) else results[index]


def is_derived_twice(*arrays: Any) -> bool:
    """Whether second derivatives, or tangents, may be asked for: an array is in two traces, or in a forward one."""
    return any(isbox(x) and (isbox(x._value) or isinstance(x._node, JVPNode)) for x in arrays)


def pulled_by_trace(
    function: Any, args: tuple[Array, ...], argnums: tuple[int, ...], cotangents: tuple[Any, ...]
) -> list[Array]:
    """The derivatives of ``function(*args)`` with respect to some arguments, such that they have derivatives, too.

    `cotangents` has one derivative, or None, for each of the function's results. Autograd traces the function again.
    """

    def product(*chosen: Array) -> Array:
        given = list(args)
        for argnum, value in zip(argnums, chosen, strict=True):
            given[argnum] = value
        pairs = zip(function(*given), cotangents, strict=True)
        return sum(anp.sum(result * cotangent) for result, cotangent in pairs if cotangent is not None)

    places = tuple(range(len(argnums)))
    return list(grad(product, places)(*(args[argnum] for argnum in argnums)))


def sweep(end: Any, cotangent: Any, roots: list[Any]) -> list[Any]:
    """Autograd's backward pass for many variables: what arrives at each root from the node `end`, or None."""
    found: dict[Any, Any] = {}
    root_set = set(roots)
    outgrads = {end: (cotangent, False)}
    for node in toposort(end):
        outgrad = outgrads.pop(node)
        if node in root_set:
            found[node] = outgrad[0]
            continue
        for parent, ingrad in zip(node.parents, node.vjp(outgrad[0]), strict=True):
            outgrads[parent] = add_outgrads(outgrads.get(parent), ingrad)
    return [found.get(root) for root in roots]
