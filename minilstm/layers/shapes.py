"""The shapes of a model's parameters without the memory that parameters take."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from .. import initializers
from ..options import Recipe, declared
from ..params import tree_map


def empty(rng: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An initializer whose array takes no memory: one 0, seen at every place of the shape; for `shapes_alone`."""
    try:
        return np.broadcast_to(np.zeros((), dtype), shape)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"no array can have the shape {shape}") from error


def shapes_alone(recipe: Any) -> Any:
    """A copy of a cell or layer whose `init` makes arrays of the right shapes and takes no memory, whatever their size.

    A user's own cell, whose options are not declared, stays as it is.
    """
    if isinstance(recipe, (list, tuple)):
        return [shapes_alone(part) for part in recipe]
    if not isinstance(recipe, Recipe):
        return recipe
    copied = copy.copy(recipe)
    for name, value in vars(recipe).items():
        setattr(copied, name, shapes_alone(value))
    for field in declared(recipe):
        if field.metadata.get("describe") is initializers.describe:
            setattr(copied, field.name, empty)
    sizes = getattr(recipe, "state_size", None)
    if sizes is not None:  # a cell, whose zero state is what a learned initial state begins with
        vars(copied)["zero_state"] = lambda n, dtype: tree_map(lambda size: empty(None, (n, size), dtype), sizes)
    return copied
