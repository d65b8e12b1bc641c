"""Parameter trees and training state as TensorFlow checkpoints, and back.

What has a name in TensorFlow is stored under that name: the variables, an optimizer's slots ``<variable>/<slot>``,
``beta1_power``, ``beta2_power`` and ``global_step``. The rest is stored under ``minilstm/`` as JSON in string tensors,
which ``tf.compat.v1.train.Saver`` ignores: ``minilstm/model`` (the model's description), ``minilstm/extra`` (the
caller's own, such as data scaling) and ``minilstm/training`` (where `fit` resumes).
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

import numpy as np

from . import tensorbundle
from .layers import Sequential, from_config
from .names import arranged, cell_folders, new_name, old_name
from .optimizers import AdagradState, AdamState, CenteredRMSPropState, MomentumState, RMSPropState
from .params import Tree, flatten_names, unflatten_names
from .reading import from_json, reader
from .tensorbundle import CheckpointError
from .tensorbundle.paths import as_prefix

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
NAMINGS = ("tf", "tf1.0")
OWN = "minilstm/"  # the folder of what TensorFlow has no name for
MODEL, EXTRA, TRAINING = OWN + "model", OWN + "extra", OWN + "training"


class Checkpoint(NamedTuple):
    """What `load_checkpoint` found; a field is None, or an empty dict, if the file has no such thing.

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


# --- saving ---------------------------------------------------------------------------------------------------


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
        Such as ``runs/demo/model.ckpt``; ``-<step>`` is added if there is a step.
    params : dict
        A parameter tree; the paths are the variables' names.
    opt_state : optional
        An optimizer's state; its slots are stored beside the variables.
    step : int, optional
        Default ``opt_state.step``. Stored as ``global_step`` (int64).
    model : Sequential, optional
        Its description is stored, so that the checkpoint opens without its script.
    extra, training : optional
        Anything JSON can hold; `training` is for `fit`.
    averaged : dict, optional
        Moving averages of the parameters, in their structure; stored as TensorFlow's ``ExponentialMovingAverage``.
    own : dict, optional
        Further arrays, stored under ``minilstm/<key>``; loading returns them in `others`.
    max_to_keep : int or None, default 5
        Older checkpoints that the ``checkpoint`` file lists are removed once this one is complete. 0 or None keeps all.
    names : {"tf", "tf1.0"}
        "tf1.0" writes a cell's ``kernel`` and ``bias`` as TensorFlow 1.0 and 1.1 named them: ``weights``, ``biases``.
    publish : bool, default True
        Whether to name the checkpoint as the newest in the folder's ``checkpoint`` file.

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
        folders = cell_folders(model)
        tensors = {old_name(name, folders): value for name, value in tensors.items()}
    if step is not None:
        tensors["global_step"] = np.asarray(step, np.int64)
    tensors.update({OWN + key: np.asarray(value) for key, value in (own or {}).items()})
    for name, value in ((MODEL, _description(model, variables)), (EXTRA, extra), (TRAINING, training)):
        if value is not None:
            text = as_json(value, f"save_checkpoint: {name.removeprefix(OWN)}")
            tensors[name] = np.asarray(text.encode(), object)
    path = os.fspath(prefix) if step is None else f"{os.fspath(prefix)}-{step}"
    tensorbundle.write(path, tensors)
    if publish:
        tensorbundle.publish(path, max_to_keep)
    return path


def check_describable(model: Sequential | None, extra: Any) -> None:
    """Raise the ValueError that `save_checkpoint` would raise for a model or an `extra` that cannot be stored."""
    _description(model, {})
    as_json(extra, "save_checkpoint: extra")


def as_json(value: Any, what: str) -> str:
    """A value as JSON, the same text for equal values; ValueError, which begins with `what`, if JSON cannot hold it."""
    try:
        text = json.dumps(value, sort_keys=True)
        from_json(text)  # what is written must be what is read
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} must be what JSON can hold: {error}") from error
    return text


def _description(model: Sequential | None, variables: dict[str, Any]) -> dict[str, Any] | None:
    """What `from_config` builds the model from again, and the parameters' dtype; ValueError for a user's own cell."""
    if model is None:
        return None
    config = model.config()
    try:
        from_config(config)
    except ValueError as error:
        raise ValueError(
            f"save_checkpoint: model must be made of minilstm's layers and cells to be opened again ({error}); save "
            "the parameters of others without model=, and train them with fit(loss_fn=...)"
        ) from error
    dtypes = {str(value.dtype) for value in variables.values()}
    return {**config, "dtype": dtypes.pop() if len(dtypes) == 1 else None}


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


# --- loading --------------------------------------------------------------------------------------------------


def latest_checkpoint(directory: str | os.PathLike[str]) -> str | None:
    """The prefix of the newest complete checkpoint in a directory, or None."""
    return tensorbundle.latest(directory)


def prefix_of(prefix_or_directory: str | os.PathLike[str]) -> str:
    """A prefix as it is, of one of its files the prefix, of a directory its newest checkpoint.

    Raises FileNotFoundError if the directory has none.
    """
    path = os.fspath(prefix_or_directory)
    prefix = latest_checkpoint(path) if os.path.isdir(path) else as_prefix(path)
    if prefix is None:
        raise FileNotFoundError(f"no checkpoint in the directory {path!r}")
    return prefix


@reader
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
    prefix = prefix_of(prefix_or_directory)
    tensors = tensorbundle.read(prefix)
    try:
        return _sorted_out(prefix, tensors, like)
    except ValueError as error:
        raise CheckpointError(f"{prefix}: {error}") from error


def _sorted_out(prefix: str, tensors: dict[str, Any], like: Any) -> Checkpoint:
    """Sort the tensors of a file into a `Checkpoint`; ValueError, without the file's name, if they make no sense."""
    own = {name: _from_json(tensors.pop(name, None), name) for name in (MODEL, EXTRA, TRAINING)}
    model = None if own[MODEL] is None else _described(own[MODEL])
    folders = cell_folders(model, like)
    tensors = {new_name(name, folders): value for name, value in tensors.items()}
    step = as_step(tensors.pop("global_step", None))
    scalars = {name: tensors.pop(name) for name in SCALARS if name in tensors}
    slots = {name: tensors.pop(name) for name in list(tensors) if _is_slot(name, tensors)}
    averages = {name: slots.pop(name) for name in list(slots) if name.endswith("/" + AVERAGE)}
    flat = {name: value for name, value in tensors.items() if value.dtype.kind == "f" and not name.startswith(OWN)}
    others = {name: value for name, value in tensors.items() if name not in flat}
    if like is not None:
        flat = arranged(flat, like)
    opt_state = _opt_state(flat, slots, scalars, step or 0)
    if opt_state is None:
        others.update(slots, **scalars)
    averaged = None
    if averages and averages.keys() == {f"{name}/{AVERAGE}" for name in flat}:
        averaged = _slot_tree(flat, averages, AVERAGE)
    else:
        others.update(averages)
    params = unflatten_names(flat)
    return Checkpoint(prefix, params, opt_state, step, model, own[EXTRA], own[TRAINING], others, averaged)


def _from_json(tensor: Any, name: str) -> Any:
    if tensor is None:
        return None
    try:
        return from_json(np.asarray(tensor, object).item())
    except (ValueError, TypeError) as error:
        raise ValueError(f"tensor {name} is not JSON: {error}") from error


def _described(config: Any) -> Sequential:
    try:
        return from_config(config)
    except ValueError as error:
        raise ValueError(f"tensor {MODEL}: {error}") from error


def as_step(tensor: Any) -> int | None:
    """The number in ``global_step``, or None without such a tensor; ValueError if it is no whole number above 0."""
    if tensor is None:
        return None
    if tensor.shape != () or tensor.dtype.kind not in "iu" or tensor < 0:
        raise ValueError(f"global_step must be a whole number of 0 or more, got {tensor.dtype} {tensor.shape}")
    return int(tensor)


def _is_slot(name: str, tensors: dict[str, Any]) -> bool:
    variable, _, slot = name.rpartition("/")
    return slot in KNOWN_SLOTS and variable in tensors


def _slot_tree(flat: dict[str, Any], slots: dict[str, Any], slot: str) -> dict[str, Any]:
    """The slot of every parameter, as a tree like the parameters'."""
    return unflatten_names({name: slots[f"{name}/{slot}"] for name in flat})


def _opt_state(flat: dict[str, Any], slots: dict[str, Any], scalars: dict[str, Any], step: int) -> Any:
    """The optimizer state whose slots these are, or None if they do not belong to every parameter."""
    for kind, fields in SLOTS.items():
        wanted = {f"{name}/{slot}" for name in flat for slot in fields.values()}
        needs_scalars = kind is AdamState
        if wanted and wanted == slots.keys() and needs_scalars == (scalars.keys() == set(SCALARS)):
            trees = [_slot_tree(flat, slots, slot) for slot in fields.values()]
            for name, power in scalars.items():
                if power.shape != () or power.dtype.kind != "f" or not 0 <= power < 1:
                    raise ValueError(f"{name} must be a number of at least 0 and below 1, got {power!r}")
            return kind(step, *trees, *(np.float32(scalars[name]) for name in SCALARS if needs_scalars))
    return None
