"""autograd's `primitive`, for functions that are no ufuncs, in half of its time.

A small model spends a good part of a training step in the trace. `autograd.extend.primitive` looks at every argument
twice, because an argument of a function of NumPy may be of any library; here a function is called with arrays, boxes
and plain objects alone. `defvjp` and its relatives take what is returned as they take autograd's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from autograd.tracer import box_types, new_box


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
