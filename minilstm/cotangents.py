"""Primitives with several results: what autograd's own tuples do, without arrays of zeros for unused results.

A primitive may return a tuple. Where a program takes one of its results, autograd makes zeros for all of them and adds
the one derivative to its place; for outputs of a whole sequence that costs as much as some of the passes over them.
Here a derivative travels as `Cotangents`, in which None stands for zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from autograd.extend import VSpace, defvjp, primitive

Array = Any


class Cotangents(tuple[Any, ...]):
    """One derivative for each result of a primitive; None where the loss has not used it."""


class _CotangentsSpace(VSpace):
    """How autograd adds up the cotangents of several uses."""

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


def filled(cotangents: tuple[Any, ...], results: tuple[Array, ...]) -> list[Array]:
    """The cotangents with zeros for None; of the zeros only one is stored."""
    return [
        _zeros_like(result) if cotangent is None else cotangent
        for cotangent, result in zip(cotangents, results, strict=True)
    ]


def _zeros_like(x: Array) -> Array:
    """As `np.broadcast_to` would make them of one zero, in a tenth of the time."""
    return np.ndarray(x.shape, x.dtype, np.zeros((), x.dtype), strides=(0,) * x.ndim)
