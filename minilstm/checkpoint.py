"""Parameter trees and training state as TensorFlow checkpoints, and back.

What has a name in TensorFlow is stored under that name: the variables, an optimizer's slots ``<variable>/<slot>``,
``beta1_power``, ``beta2_power`` and ``global_step``. What TensorFlow has no name for lies under ``minilstm/`` as JSON
in string tensors, which ``tf.compat.v1.train.Saver`` ignores: ``minilstm/model`` (the model's description),
``minilstm/extra`` (the caller's own, such as data scaling) and ``minilstm/training`` (where `fit` goes on).
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, NamedTuple

import numpy as np

from . import tensorbundle
from .layers import Sequential, from_config
from .optimizers import AdagradState, AdamState, CenteredRMSPropState, MomentumState, RMSPropState
from .params import Tree, flatten_names, unflatten_names
from .tensorbundle import CheckpointError

# TensorFlow's slot names for the trees of each optimizer's state.
SLOTS: dict[type, dict[str, str]] = {
    AdamState: {"m": "Adam", "v": "Adam_1"},
    MomentumState: {"momentum": "Momentum"},
    AdagradState: {"accumulator": "Adagrad"},
    CenteredRMSPropState: {"mean_square": "RMSProp", "mean_gradient": "RMSProp_1", "momentum": "RMSProp_2"},
    RMSPropState: {"mean_square": "RMSProp", "momentum": "RMSProp_1"},
}
SCALARS = ("beta1_power", "beta2_power")
AVERAGE = "ExponentialMovingAverage"
OTHER_SLOTS = {"Adadelta", "Adadelta_1", "Ftrl", "Ftrl_1", AVERAGE}
KNOWN_SLOTS = {slot for slots in SLOTS.values() for slot in slots.values()} | OTHER_SLOTS
OWN = "minilstm/"
NAMINGS = ("tf", "tf1.0")
NEW_TO_OLD = {"kernel": "weights", "bias": "biases"}  # renamed by TensorFlow 1.2 in every RNN cell
OLD_TO_NEW = {old: new for new, old in NEW_TO_OLD.items()}


class Checkpoint(NamedTuple):
    """What `load_checkpoint` found; None, or an empty dict, where the file has no such thing.

    `averaged` is the tree of TensorFlow's ``ExponentialMovingAverage`` of every parameter. `others` holds tensors that
    are neither parameters nor known training state, by name.
    """

    prefix: str
    params: dict[str, Any]
    opt_state: Any
    step: int | None
    model: Sequential | None
    extra: Any
    training: Any
    others: dict[str, np.ndarray]
    averaged: dict[str, Any] | None = None


def save_checkpoint(
    prefix: str | os.PathLike[str],
    params: Tree,
    *,
    opt_state: Any = None,
    step: int | None = None,
    model: Sequential | None = None,
    extra: Any = None,
    training: Any = None,
    averaged: Tree = None,
    own: dict[str, Any] | None = None,
    max_to_keep: int | None = 5,
    names: str = "tf",
    publish: bool = True,
) -> str:
    """Write a checkpoint that TensorFlow's Saver restores.

    Parameters
    ----------
    prefix : path
        Such as ``runs/demo/model.ckpt``; ``-<step>`` is added where there is a step.
    params : dict
        A parameter tree; the paths are the variables' names.
    opt_state : optional
        An optimizer's state; its slots go beside the variables.
    step : int, optional
        Default ``opt_state.step``. Stored as ``global_step`` (int64).
    model : Sequential, optional
        Its description is stored, so that the checkpoint opens without its script.
    extra, training : optional
        Anything JSON can hold; `training` is for `fit`.
    averaged : dict, optional
        Moving averages of the parameters, in their structure; stored as TensorFlow's ``ExponentialMovingAverage``.
    own : dict, optional
        Further arrays, stored under ``minilstm/<key>``; they come back in `others`.
    max_to_keep : int or None, default 5
        Older checkpoints that the ``checkpoint`` file lists are removed once this one is complete. 0 or None keeps all.
    names : {"tf", "tf1.0"}
        "tf1.0" writes a cell's ``kernel`` and ``bias`` as TensorFlow 1.0 and 1.1 named them: ``weights``, ``biases``.
    publish : bool, default True
        Whether the folder's ``checkpoint`` file shall name it as the newest.

    Returns
    -------
    str
        The prefix of the files written.

    Raises
    ------
    ValueError
        For names that clash, an unknown naming, or a model that holds functions without a registered name.

    Examples
    --------
    >>> import tempfile
    >>> from minilstm import LSTM, Dense, Sequential
    >>> model = Sequential(LSTM(8), Dense(1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     prefix = save_checkpoint(f"{folder}/m", model.init(seed=0, input_dim=1), step=600, model=model)
    ...     loaded = load_checkpoint(folder)
    >>> os.path.basename(prefix), loaded.step, loaded.model.names
    ('m-600', 600, ['rnn', 'dense'])
    """
    if names not in NAMINGS:
        raise ValueError(f"save_checkpoint: names must be one of {NAMINGS}, got {names!r}")
    if opt_state is not None and step is None:
        step = opt_state.step
    if step is not None and step < 0:
        raise ValueError(f"save_checkpoint: step must be 0 or more, got {step}")
    variables = flatten_names(params)
    reserved = [name for name in variables if name.startswith(OWN) or name in ("global_step", *SCALARS)]
    if reserved:
        raise ValueError(f"save_checkpoint: these names are taken by training state: {reserved}")
    tensors = {name: np.asarray(value) for name, value in variables.items()}
    if opt_state is not None:
        tensors.update(_slot_tensors(opt_state, variables))
    if averaged is not None:
        tensors.update({f"{name}/{AVERAGE}": np.asarray(value) for name, value in flatten_names(averaged).items()})
    if names == "tf1.0":
        tensors = {_old_name(name, _cell_names(model)): value for name, value in tensors.items()}
    if step is not None:
        tensors["global_step"] = np.asarray(step, np.int64)
    tensors.update({OWN + key: np.asarray(value) for key, value in (own or {}).items()})
    described = {"model": _described(model, params), "extra": extra, "training": training}
    for key, value in described.items():
        if value is not None:
            tensors[OWN + key] = np.asarray(_to_json(value, key), object)
    path = os.fspath(prefix) if step is None else f"{os.fspath(prefix)}-{step}"
    tensorbundle.write(path, tensors)
    if publish:
        tensorbundle.publish(path, max_to_keep)
    return path


def check_describable(model: Sequential | None, extra: Any) -> None:
    """Raise the ValueError that `save_checkpoint` would raise for a model or an `extra` that cannot be stored."""
    if model is not None:
        _checked_config(model)
    _to_json(extra, "extra")


def _checked_config(model: Sequential) -> dict[str, Any]:
    """The model's description, from which it can be built again; ValueError where it cannot: a cell of one's own."""
    config = model.config()
    try:
        from_config(config)
    except ValueError as error:
        raise ValueError(
            f"save_checkpoint: model must be made of minilstm's layers and cells to be opened again ({error}); save "
            "the parameters of others without model=, and train them with fit(loss_fn=...)"
        ) from error
    return config


def latest_checkpoint(directory: str | os.PathLike[str]) -> str | None:
    """The prefix of the newest complete checkpoint in a directory, or None."""
    return tensorbundle.latest(directory)


def load_checkpoint(prefix_or_directory: str | os.PathLike[str], like: Any = None) -> Checkpoint:
    """Read a checkpoint, written here or by TensorFlow.

    Parameters
    ----------
    prefix_or_directory : path
        A prefix such as ``runs/demo/model.ckpt-600``, or a directory, which means its newest checkpoint.
    like : dict or Sequential, optional
        What the parameters have to fit: a parameter tree (names, shapes, dtypes) or a model (names, shapes).

    Raises
    ------
    FileNotFoundError
        If there is no checkpoint there at all.
    CheckpointError
        If a file is damaged, or does not fit `like`: everything missing, extra or of another shape or dtype is
        listed at once.
    """
    prefix = _resolve(prefix_or_directory)
    tensors = tensorbundle.read(prefix)
    own = {key: _from_json(tensors.pop(OWN + key, None), prefix, key) for key in ("model", "extra", "training")}
    model = None
    if own["model"] is not None:
        try:
            model = from_config(own["model"])
        except ValueError as error:
            raise CheckpointError(f"{prefix}: tensor {OWN}model: {error}") from error
    cell_names = _cell_names(model) | _cell_names(like)
    tensors = {_new_name(name, cell_names): value for name, value in tensors.items()}
    step_tensor = tensors.pop("global_step", None)
    step = None if step_tensor is None else _as_step(step_tensor, prefix)
    scalars = {name: tensors.pop(name) for name in SCALARS if name in tensors}
    slots = {name: tensors.pop(name) for name in list(tensors) if _is_slot(name, tensors)}
    averages = {name: slots.pop(name) for name in list(slots) if name.endswith("/" + AVERAGE)}
    flat = {name: value for name, value in tensors.items() if _is_parameter(name, value)}
    others = {name: value for name, value in tensors.items() if name not in flat}
    if like is not None:
        flat = _fit(flat, like, prefix)
    opt_state = _opt_state(flat, slots, scalars, step or 0)
    if opt_state is None:
        others.update(slots, **scalars)
    try:
        params = unflatten_names(flat)
        averaged = None
        if averages and {f"{name}/{AVERAGE}" for name in flat} == averages.keys():
            averaged = unflatten_names({name: averages[f"{name}/{AVERAGE}"] for name in flat})
        else:
            others.update(averages)
    except ValueError as error:
        raise CheckpointError(f"{prefix}: {error}") from error
    return Checkpoint(prefix, params, opt_state, step, model, own["extra"], own["training"], others, averaged)


def _resolve(prefix_or_directory: str | os.PathLike[str]) -> str:
    path = os.fspath(prefix_or_directory)
    if not os.path.isdir(path):
        return path
    latest = tensorbundle.latest(path)
    if latest is None:
        raise FileNotFoundError(f"load_checkpoint: no checkpoint in the directory {path!r}")
    return latest


# --- what minilstm alone stores -------------------------------------------------------------------------------


def _described(model: Sequential | None, params: Tree) -> dict[str, Any] | None:
    if model is None:
        return None
    dtypes = {str(value.dtype) for value in flatten_names(params).values()}
    return {**_checked_config(model), "dtype": dtypes.pop() if len(dtypes) == 1 else None}


def _to_json(value: Any, key: str) -> bytes:
    try:
        return json.dumps(value, sort_keys=True).encode()
    except TypeError as error:
        raise ValueError(f"save_checkpoint: {key} must be what JSON can hold: {error}") from error


def _from_json(tensor: Any, prefix: str, key: str) -> Any:
    if tensor is None:
        return None
    try:
        return json.loads(np.asarray(tensor, object).item())
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{prefix}: tensor {OWN}{key} is not JSON: {error}") from error


def _as_step(tensor: np.ndarray, prefix: str) -> int:
    if tensor.shape != () or tensor.dtype.kind not in "iu" or tensor < 0:
        raise CheckpointError(
            f"{prefix}: global_step must be a whole number of 0 or more, got {tensor.dtype} {tensor.shape}"
        )
    return int(tensor)


# --- optimizer state ------------------------------------------------------------------------------------------


def _slot_tensors(opt_state: Any, variables: dict[str, Any]) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for field, slot in SLOTS.get(type(opt_state), {}).items():
        values = flatten_names(getattr(opt_state, field))
        if values.keys() != variables.keys():
            raise ValueError("save_checkpoint: opt_state must belong to params, but its names differ")
        tensors.update({f"{name}/{slot}": np.asarray(value) for name, value in values.items()})
    for scalar in SCALARS:
        if hasattr(opt_state, scalar):
            tensors[scalar] = np.asarray(getattr(opt_state, scalar), np.float32)
    return tensors


def _is_slot(name: str, tensors: dict[str, Any]) -> bool:
    variable, _, slot = name.rpartition("/")
    return slot in KNOWN_SLOTS and variable in tensors


def _opt_state(flat: dict[str, Any], slots: dict[str, Any], scalars: dict[str, Any], step: int) -> Any:
    """The optimizer state that the slots are, or None where they are not those of every parameter."""
    for kind, fields in SLOTS.items():
        wanted = {f"{name}/{slot}" for name in flat for slot in fields.values()}
        needs_scalars = kind is AdamState
        if not wanted or wanted != slots.keys() or needs_scalars != (scalars.keys() == set(SCALARS)):
            continue
        trees = [unflatten_names({name: slots[f"{name}/{slot}"] for name in flat}) for slot in fields.values()]
        return kind(step, *trees, *(np.float32(scalars[name]) for name in SCALARS if needs_scalars))
    return None


# --- names ----------------------------------------------------------------------------------------------------


def _is_parameter(name: str, value: np.ndarray) -> bool:
    return value.dtype.kind == "f" and not name.startswith(OWN)


def _cell_names(model: Any) -> set[str]:
    layers = getattr(model, "layers", ())
    return {layer.cell.name for layer in layers if hasattr(layer, "cell")}


def _rename(name: str, mapping: dict[str, str], cell_names: set[str]) -> str:
    """`name` with the part behind a cell's folder (``..._cell``, ``projection`` or a cell's own name) mapped."""
    parts = name.split("/")
    for k in range(1, len(parts)):
        folder = parts[k - 1]
        if parts[k] in mapping and (re.search(r"_cell$|^projection$", folder) or folder in cell_names):
            parts[k] = mapping[parts[k]]
    return "/".join(parts)


def _old_name(name: str, cell_names: set[str]) -> str:
    return _rename(name, NEW_TO_OLD, cell_names)


def _new_name(name: str, cell_names: set[str]) -> str:
    return _rename(name, OLD_TO_NEW, cell_names)


def _fit(flat: dict[str, Any], like: Any, prefix: str) -> dict[str, Any]:
    """The parameters in the order of `like`, or one CheckpointError with all that does not fit."""
    if isinstance(like, Sequential):
        wanted = flatten_names(like.init(0, like.input_dim(unflatten_names(flat)) or 1))
        check_dtype = False
    else:
        wanted, check_dtype = flatten_names(like), True
    import difflib  # only needed to help after a failure

    faults = []
    for name, array in wanted.items():
        if name not in flat:
            near = difflib.get_close_matches(name, flat, n=3)
            faults.append(f"missing: {name} {array.shape}" + (f" (the file has {', '.join(near)})" if near else ""))
        elif flat[name].shape != array.shape:
            faults.append(f"shape of {name}: wanted {array.shape}, got {flat[name].shape}")
        elif check_dtype and flat[name].dtype != array.dtype:
            faults.append(f"dtype of {name}: wanted {array.dtype}, got {flat[name].dtype}")
    faults += [f"extra: {name} {array.shape}" for name, array in flat.items() if name not in wanted]
    if faults:
        raise CheckpointError(f"{prefix} does not fit:\n  " + "\n  ".join(faults))
    return {name: flat[name] for name in wanted}
