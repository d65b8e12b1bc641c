"""The names of variables in files, which are the paths of a parameter tree (see `minilstm.params`): do they fit?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..arguments import nearest
from ..layers import Sequential
from ..params import flatten_names, unflatten_names

MOST_HELPED = 20  # missing names for which an error lists the nearest: a file may lack thousands


def arranged(flat: dict[str, Any], like: Any, other: Iterable[str] = (), *, strict: bool = True) -> dict[str, Any]:
    """Check that arrays fit a model or a parameter tree, and put them into its order.

    Parameters
    ----------
    flat : dict
        The arrays by name.
    like : Sequential or dict
        A model says names and shapes, a parameter tree dtypes too.
    other : list of str
        What else does not fit; it is listed as well.
    strict : bool, default True
        False: arrays that `like` does not have are left out.

    Raises
    ------
    ValueError
        That lists at once everything missing (with the nearest names that are there), extra, or of another shape or
        dtype.
    """
    wanted = wanted_like(like, flat)
    faults, helped = [], 0
    for name, array in wanted.items():
        if name not in flat:
            helped += 1
            near = nearest(name, flat) if helped <= MOST_HELPED else []
            faults.append(f"missing: {name} {array.shape}" + (f" (there is {', '.join(near)})" if near else ""))
        elif flat[name].shape != array.shape:
            faults.append(f"shape of {name}: wanted {array.shape}, got {flat[name].shape}")
        elif flat[name].dtype != array.dtype and not isinstance(like, Sequential):
            faults.append(f"dtype of {name}: wanted {array.dtype}, got {flat[name].dtype}")
    faults += [f"extra: {name} {array.shape}" for name, array in flat.items() if strict and name not in wanted]
    faults += other
    if faults:
        raise ValueError("the parameter tree does not fit:\n  " + "\n  ".join(faults))
    return {name: flat[name] for name in wanted}


def wanted_like(like: Any, flat: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a parameter tree, or what those of a model look like for as many inputs as `flat` has, by name."""
    return flatten_names(_shapes(like, flat) if isinstance(like, Sequential) else like)


def _shapes(model: Sequential, flat: dict[str, Any]) -> dict[str, Any]:
    """What the parameters of a model look like, for as many input features as `flat` has, if `flat` tells."""
    try:
        input_dim = model.input_dim(unflatten_names(flat))
    except (KeyError, TypeError, IndexError, AttributeError):  # not the parameters of this model
        input_dim = None
    return model.shapes(input_dim or 1)
