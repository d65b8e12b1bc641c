"""The names of variables in files: what older TensorFlow versions called them, and whether they fit a model.

Current names are the paths of a parameter tree (see `minilstm.params`). TensorFlow 1.2 renamed the weights of
every RNN cell: ``kernel`` and ``bias`` were ``weights`` and ``biases`` before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .layers import Sequential
from .params import flatten_names, unflatten_names

NEW_TO_OLD = {"kernel": "weights", "bias": "biases"}
OLD_TO_NEW = {old: new for new, old in NEW_TO_OLD.items()}


def cell_folders(*models: Any) -> set[str]:
    """The names of folders with a cell's weights, beyond those that `old_name` knows; only a `Sequential` has cells."""
    layers = [layer for model in models for layer in getattr(model, "layers", ())]
    return {layer.cell.name for layer in layers if hasattr(layer, "cell")}


def old_name(name: str, folders: set[str]) -> str:
    """What TensorFlow 1.0 and 1.1 called a variable.

    An array has an old name if it is in the folder of a cell: ``<...>_cell``, ``projection`` or one of `folders`.

    >>> old_name("rnn/lstm_cell/kernel/Adam", set()), old_name("dense/kernel", set())
    ('rnn/lstm_cell/weights/Adam', 'dense/kernel')
    """
    return _renamed(name, NEW_TO_OLD, folders)


def new_name(name: str, folders: set[str]) -> str:
    """Undo `old_name`; a current name stays."""
    return _renamed(name, OLD_TO_NEW, folders)


def _renamed(name: str, mapping: dict[str, str], folders: set[str]) -> str:
    parts = name.split("/")
    for k, folder in enumerate(parts[:-1]):
        if folder.endswith("_cell") or folder == "projection" or folder in folders:
            parts[k + 1] = mapping.get(parts[k + 1], parts[k + 1])
    return "/".join(parts)


def arranged(flat: dict[str, Any], like: Any, other: Iterable[str] = ()) -> dict[str, Any]:
    """Check that arrays fit a model or a parameter tree, and put them into its order.

    Parameters
    ----------
    flat : dict
        The arrays by name.
    like : Sequential or dict
        A model says names and shapes, a parameter tree dtypes too.
    other : list of str
        What else does not fit; it is listed as well.

    Raises
    ------
    ValueError
        That lists at once everything missing (with the nearest names that are there), extra, or of another shape or
        dtype.
    """
    wanted = flatten_names(_initialised(like, flat) if isinstance(like, Sequential) else like)
    faults = []
    for name, array in wanted.items():
        if name not in flat:
            near = nearest(name, flat)
            faults.append(f"missing: {name} {array.shape}" + (f" (there is {', '.join(near)})" if near else ""))
        elif flat[name].shape != array.shape:
            faults.append(f"shape of {name}: wanted {array.shape}, got {flat[name].shape}")
        elif flat[name].dtype != array.dtype and not isinstance(like, Sequential):
            faults.append(f"dtype of {name}: wanted {array.dtype}, got {flat[name].dtype}")
    faults += [f"extra: {name} {array.shape}" for name, array in flat.items() if name not in wanted]
    faults += other
    if faults:
        raise ValueError("the parameter tree does not fit:\n  " + "\n  ".join(faults))
    return {name: flat[name] for name in wanted}


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """At most `n` known names that are spelled like `name`."""
    import difflib  # only needed to help after a failure

    return difflib.get_close_matches(name, list(known), n)


def _initialised(model: Sequential, flat: dict[str, Any]) -> dict[str, Any]:
    """New parameters of a model, for as many input features as `flat` has, if `flat` tells."""
    try:
        input_dim = model.input_dim(unflatten_names(flat))
    except (KeyError, TypeError, IndexError, AttributeError):  # not the parameters of this model
        input_dim = None
    return model.init(0, input_dim or 1)
