"""The shapes that a layer's parameters must have, without the memory that parameters take."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from autograd.tracer import getval

from .. import initializers
from ..options import Recipe, declared
from ..params import tree_map
from .base import Layer, Params, params_dtype


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


def check_params(layer: Layer, params: Params, input_dim: int | None, where: str) -> np.dtype:
    """Return the dtype of a layer's parameters. NumPy would broadcast many a wrong shape, and give a wrong result.

    Raises ValueError unless they are floating arrays with the names and shapes that ``layer.init`` makes for
    `input_dim` features. What a user's own layer or cell makes is not known before it is called, so there only the
    dtype is checked.
    """
    known = vars(layer).setdefault("_shapes", {})  # by input_dim
    if input_dim not in known:
        known[input_dim] = _shapes(layer, input_dim)
    if known[input_dim] is None:
        return params_dtype(params, np.float32, where)
    dtype = _dtype_if_fit(known[input_dim], params)
    if dtype is None:
        known.clear()  # an option of the layer may have been set since
        known[input_dim] = _shapes(layer, input_dim)
        dtype = _dtype_if_fit(known[input_dim], params)
    if dtype is None:
        faults = list(_faults(known[input_dim], params)) or ["the arrays of one layer must have one dtype, got several"]
        raise ValueError(f"{where}: params: {'; '.join(faults)}")
    return dtype


def _shapes(layer: Layer, input_dim: int | None) -> dict[str, Any] | None:
    """The tree of the shapes of all parameters, if the layer and the cells in it are minilstm's."""
    if not _is_ours(layer):
        return None
    return tree_map(lambda array: array.shape, shapes_alone(layer).init(0, input_dim))


def _is_ours(part: Any) -> bool:
    if isinstance(part, (list, tuple)):
        return all(map(_is_ours, part))
    if not isinstance(part, Recipe) and not callable(getattr(part, "step", None)):
        return True  # an option, and no cell
    return type(part).__module__.startswith("minilstm.") and all(map(_is_ours, vars(part).values()))


def _dtype_if_fit(shapes: Any, params: Any, inside: bool = False) -> np.dtype | None:
    """The dtype of the parameters if they fit, else None. The folder of a layer may also hold that of another layer."""
    value = getval(params)
    if type(shapes) is dict:
        if not isinstance(value, dict) or (len(value) != len(shapes) if inside else len(value) < len(shapes)):
            return None
        dtype = None
        for name, part in shapes.items():
            found = _dtype_if_fit(part, params[name], True) if name in value else None
            if found is None or (dtype is not None and found != dtype):
                return None
            dtype = found
        return dtype
    return value.dtype if _is_weight(value) and value.shape == shapes else None


def _is_weight(value: Any) -> bool:
    return type(value) is np.ndarray and value.dtype.kind == "f" and value.dtype.isnative


def _faults(shapes: Any, params: Any, path: str = "", inside: bool = False) -> Iterator[str]:
    """What does not fit, place by place."""
    value = getval(params)
    if type(shapes) is dict:
        if not isinstance(value, dict):
            yield f"{path or 'they'} must be a dict of arrays, got {type(value).__name__}"
            return
        for name, part in shapes.items():
            place = f"{path}/{name}" if path else name
            if name in value:
                yield from _faults(part, params[name], place, True)
            else:
                yield f"{place} is missing"
        yield from (f"{path}/{name} is not expected" for name in value if inside and name not in shapes)
    elif not _is_weight(value):
        got = value.dtype if type(value) is np.ndarray else type(value).__name__
        yield f"{path} must be a floating array, got {got}"
    elif value.shape != shapes:
        yield f"{path} must have shape {shapes}, got {value.shape}"
