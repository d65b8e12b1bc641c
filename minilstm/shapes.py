"""Whether what a cell or a layer is given fits: its parameters, whose shapes are known without their memory; what a
cell is called with; and a state.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from autograd.tracer import getval, isbox

from . import initializers
from .arrays import as_floating
from .options import Recipe, declared
from .params import tree_leaves, tree_map

Array = Any
Params = dict[str, Any]


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
        vars(copied)[name] = shapes_alone(value)
    for field in declared(recipe):
        if field.metadata.get("describe") is initializers.describe:
            vars(copied)[field.name] = empty
    sizes = getattr(recipe, "state_size", None)
    if sizes is not None:  # a cell, whose zero state is what a learned initial state begins with
        vars(copied)["zero_state"] = lambda n, dtype: tree_map(lambda size: empty(None, (n, size), dtype), sizes)
    return copied


def check_params(
    recipe: Any, params: Params, input_dim: int | None, where: str, default: Any = np.float32
) -> np.dtype:
    """Return the dtype of the parameters of a layer or cell. NumPy would broadcast many a wrong shape, and give a wrong
    result.

    Raises ValueError unless they are floating arrays with the names and shapes that ``recipe.init`` makes for
    `input_dim` features. What a user's own layer or cell makes is not known before it is called, so there only the
    dtype is checked; it is `default` if there are none.
    """
    shapes = known_shapes(recipe, input_dim)
    if shapes is None:
        return params_dtype(params, default, where)
    dtype = _dtype_if_fit(shapes, params)
    if dtype is None:
        faults = list(_faults(shapes, params)) or ["all arrays must have one dtype, got several"]
        raise ValueError(f"{where}: params: {'; '.join(faults)}")
    return dtype


def known_shapes(recipe: Any, input_dim: int | None) -> dict[str, Any] | None:
    """The tree of the shapes of all parameters of a layer or cell, if it and the cells in it are minilstm's."""
    version, known = vars(recipe).get("_shapes", (None, {}))
    if version is not Recipe.version:  # an option may have been set since
        known = {}
        vars(recipe)["_shapes"] = Recipe.version, known
    if input_dim not in known:
        weights = shapes_alone(recipe).init(0, input_dim) if _is_ours(recipe) else None
        known[input_dim] = tree_map(lambda array: array.shape, weights)
    return known[input_dim]


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


def params_dtype(params: Any, default: Any, where: str = "") -> np.dtype:
    """The dtype of the parameters, which decides every other dtype; `default` if there are none."""
    dtype, waiting = np.dtype(default), [params]
    while waiting:  # in a small step this loop is 1 %: a box is looked into only if it must be
        part = waiting.pop()
        value = getval(part)
        if isinstance(value, dict):  # autograd's own `grad` of a dict passes a box around the dict
            waiting += [part[name] for name in value]
            continue
        is_array = type(value) is np.ndarray or (value is not part and isinstance(value, np.generic))
        if not is_array or value.dtype.kind != "f" or not value.dtype.isnative:
            raise ValueError(f"{where}: params must be nested dicts of floating arrays, got {part!r:.80}")
        dtype = value.dtype
    return dtype


def checked_call(
    cell: Any, params: dict[str, Any], x: Array, state: Any, where: str = "", name: str = "x_t"
) -> tuple[Array, Any]:
    """What a cell is called with: ``x_t [batch, features]``, or all `inputs` ``[time, batch, features]``, and a state;
    both in the dtype of its weights.

    Raises ValueError unless they, and the weights, fit the cell and each other: NumPy would broadcast a bias of another
    shape or a state of another batch, and drop a mask, and give a wrong result.
    """
    where = where or type(cell).__name__
    x = as_floating(x, None, f"{where}: {name}")
    axes, features = ("batch",) if name == "x_t" else ("time", "batch"), features_of(cell, params)
    if x.ndim != len(axes) + 1 or x.shape[-1] != (features or x.shape[-1]) or x.size == 0:
        wanted = f"{features} features" if features else "features"
        raise ValueError(f"{where}: {name} must be [{', '.join(axes)}, {wanted}], got shape {x.shape}")
    x = as_floating(x, check_params(cell, params, x.shape[-1], where, x.dtype), f"{where}: {name}")
    return x, checked_state(cell, state, x.shape[-2], x.dtype, where)


def own_copy(output: Array) -> Array:
    """A cell's output that is part of its state, too, as an array of its own: a change of one is not one of both."""
    return output if isbox(output) else output.copy()


def features_of(cell: Any, params: Any) -> int | None:
    """The number of input features that the parameters of any cell were made for, or None if they do not tell."""
    try:
        features: int | None = cell.input_dim(params)
    except (KeyError, TypeError, AttributeError, IndexError):
        return None
    return features if features is None or features > 0 else None


def checked_state(cell: Any, state: Any, batch: int, dtype: Any, where: str) -> Any:
    """Return a state that is given as one of the cell, with arrays ``[batch, width]`` of `dtype`; else ValueError."""
    sizes = cell.state_size
    if type(state) is type(sizes) and hasattr(sizes, "_fields"):  # as most are: no walk through a tree
        pairs = zip(state, sizes, strict=True)
        plain = all(type(x) is np.ndarray or isbox(x) for x in state)
        if plain and all(x.shape == (batch, size) and x.dtype == dtype for x, size in pairs):
            return state
    zeros = cell.zero_state(batch, dtype)
    state = _as_state(zeros, state, dtype, where)
    wanted, got = ([leaf.shape for leaf in tree_leaves(tree)] for tree in (zeros, state))
    if wanted != got:
        raise ValueError(f"{where}: state must have shapes {wanted} (c before h), got {got}")
    return state


def _as_state(zeros: Any, state: Any, dtype: Any, where: str) -> Any:
    """A state in the structure of `zeros`. A list where an array is wanted is that array."""
    if not isinstance(zeros, (dict, list, tuple)):
        return as_floating(state, dtype, f"{where}: state")
    names = getattr(zeros, "_fields", None)
    if names is not None and sorted(getattr(state, "_fields", ())) == sorted(names):
        state = [getattr(state, name) for name in names]  # a named tuple of another order
    keys: Any = list(zeros) if isinstance(zeros, dict) else range(len(zeros))
    given: Any = type(state).__name__
    if isinstance(state, (list, tuple)) and not isinstance(zeros, dict):
        given = range(len(state))
    elif isinstance(state, dict) and isinstance(zeros, dict):
        given = [*filter(state.__contains__, keys), *(key for key in state if key not in zeros)]
    if given != keys:
        wanted, got = (f"{len(part)} parts" if isinstance(part, range) else part for part in (keys, given))
        raise ValueError(f"{where}: state does not fit the cell: wanted {wanted}, got {got}")
    parts = [_as_state(zeros[key], state[key], dtype, where) for key in keys]
    if isinstance(zeros, dict):
        return dict(zip(keys, parts, strict=True))
    return type(zeros)(*parts) if hasattr(zeros, "_fields") else type(zeros)(parts)
