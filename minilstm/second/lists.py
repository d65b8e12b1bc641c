"""Functions from lists of arrays to lists of arrays, pulled back or pushed along a direction, each in its own trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from autograd.core import JVPNode, VJPNode
from autograd.extend import defjvp_argnums, defvjp_argnums
from autograd.tracer import isbox, new_box, trace_stack

from ..primitives import primitive, sweep

Array = Any
Lists = Callable[[list[Array]], list[Array]]


@primitive
def together(*results: Array) -> tuple[Array, ...]:
    """Some results as one, so that a trace has one end."""
    return results


defvjp_argnums(together, lambda argnums, ans, args, _: lambda g: [g[n] for n in argnums])
defjvp_argnums(
    together,
    lambda argnums, pushed, ans, args, _: tuple(
        pushed[argnums.index(n)] if n in argnums else np.zeros(arg.shape, arg.dtype) for n, arg in enumerate(args)
    ),
)


def pull_back(function: Lists, values: list[Array], wanted: list[bool]) -> Callable[[list[Array]], list[Array]]:
    """Run `function` on `values`; return what maps the derivatives of its results to those of its values.

    The derivative of a value that is not `wanted` is None.
    """
    with trace_stack.new_trace() as trace:
        roots = [VJPNode.new_root() if wants else None for wants in wanted]
        boxes = [x if root is None else new_box(x, trace, root) for x, root in zip(values, roots, strict=True)]
        end = together(*function(boxes))
    reached = isbox(end) and end._trace == trace

    def pull(cotangents: list[Array]) -> list[Array]:
        starts = [root for root in roots if root is not None]
        found = iter(sweep(end._node, tuple(cotangents), starts) if reached else ())
        pulled = (next(found, None) if wants else None for wants in wanted)
        return [_zeros(x) if g is None and wants else g for g, x, wants in zip(pulled, values, wanted, strict=True)]

    return pull


def push_along(function: Lists, values: list[Array], directions: list[Array]) -> tuple[list[Array], list[Array]]:
    """The results of `function`, and how they move if `values` move along `directions` (None is 0)."""
    with trace_stack.new_trace() as trace:
        starts = (None if direction is None else JVPNode.new_root(direction) for direction in directions)
        boxes = [x if start is None else new_box(x, trace, start) for x, start in zip(values, starts, strict=True)]
        results = function(boxes)
    moving = [isbox(x) and x._trace == trace for x in results]
    still = [x._value if moves else x for x, moves in zip(results, moving, strict=True)]
    moved = [x._node.g if moves else _zeros(x) for x, moves in zip(results, moving, strict=True)]
    return still, moved


def _zeros(x: Array) -> Array:
    return None if x is None else np.zeros(np.shape(x), x.dtype)


