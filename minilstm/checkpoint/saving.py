"""Parameter trees and training state as TensorFlow checkpoints.

What has a name in TensorFlow is stored under that name: the variables, an optimizer's slots ``<variable>/<slot>``,
``beta1_power``, ``beta2_power`` and ``global_step``. The rest is stored under ``minilstm/`` as JSON in string tensors,
which ``tf.compat.v1.train.Saver`` ignores: ``minilstm/model`` (the model's description), ``minilstm/extra`` (the
caller's own, such as data scaling) and ``minilstm/training`` (where `fit` resumes).
"""

from __future__ import annotations

import functools
import json
import os
from typing import Any

import numpy as np

from .. import tensorbundle
from ..arguments import check_has, check_number, check_path, check_whole
from ..arrays import is_masked_kind
from ..layers import Sequential, from_config
from ..params import Tree, flatten_names
from ..reading import from_json
from ..shapes import empty
from .contents import AVERAGE, EXTRA, MODEL, OWN, SCALARS, SLOTS, STEP, TRAINING, has_slot_names
from .names import arranged
from .past_names import cell_folders, old_name

NAMINGS = ("tf", "tf1.0")


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
        For names that clash, an unknown naming, a model that holds functions without a registered name or that the
        parameters do not fit, slots or averages that do not fit the parameters, a state of an optimizer of your own
        that has more than its step, or a `step` or `max_to_keep` that is no whole number. Nothing is written then.

    Examples
    --------
    >>> import tempfile
    >>> from minilstm import LSTM, Dense, Sequential, load_checkpoint
    >>> model = Sequential(LSTM(8), Dense(1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     prefix = save_checkpoint(f"{folder}/m", model.init(seed=0, input_dim=1), step=600, model=model)
    ...     loaded = load_checkpoint(folder)
    >>> os.path.basename(prefix), loaded.step, loaded.model.names
    ('m-600', 600, ['rnn', 'dense'])
    """
    if not isinstance(names, str) or names not in NAMINGS:
        raise ValueError(f"save_checkpoint: names must be one of {NAMINGS}, got {names!r}")
    prefix = check_path(prefix, "prefix", "save_checkpoint")
    if opt_state is not None and not hasattr(opt_state, "step"):
        raise ValueError(f"save_checkpoint: opt_state must be the state of an optimizer, got {opt_state!r:.80}")
    if opt_state is not None and step is None:
        step = opt_state.step
    if step is not None:
        step = check_whole(step, "step", "save_checkpoint", least=0)
        check_number(step, "step", "save_checkpoint", least=0, below=2**63)
    path = prefix if step is None else f"{prefix}-{step}"
    if os.path.isdir(path):
        raise ValueError(f"save_checkpoint: prefix {path!r} is a folder; name a file in it, such as {path}/model.ckpt")
    if max_to_keep is not None:
        max_to_keep = check_whole(max_to_keep, "max_to_keep", "save_checkpoint", least=0)
    variables = flatten_names(params)
    reserved = [name for name in variables if name.startswith(OWN) or name in (STEP, *SCALARS)]
    if reserved:
        raise ValueError(f"save_checkpoint: these names are taken by training state: {reserved}")
    tensors = {name: as_weight(value, f"save_checkpoint: params: {name}") for name, value in variables.items()}
    if opt_state is not None:
        tensors.update(_slot_tensors(opt_state, variables))
    if averaged is not None:
        tensors.update(_beside(averaged, variables, AVERAGE, "averaged"))
    if names == "tf1.0":
        folders = cell_folders(model)
        tensors = {old_name(name, folders): value for name, value in tensors.items()}
    if step is not None:
        tensors[STEP] = np.asarray(step, np.int64)
    for key, value in (own or {}).items():
        if OWN + key in (MODEL, EXTRA, TRAINING):
            raise ValueError(f"save_checkpoint: own: the name {key!r} is taken, own={{...}} needs another")
        tensors[OWN + key] = np.asarray(value)
    for name, value in ((MODEL, _description(model, variables)), (EXTRA, extra), (TRAINING, training)):
        if value is not None:
            text = as_json(value, f"save_checkpoint: {name.removeprefix(OWN)}")
            tensors[name] = np.asarray(text.encode(), object)
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
        _check_keys(value)
        text = json.dumps(value, sort_keys=True)
        from_json(text)  # what is written must be what is read
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} must be what JSON can hold: {error}") from error
    return text


def _check_keys(value: Any) -> None:
    """Raise ValueError for a key of a dict that is not text: JSON would make it text, and so it would come back."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r:.80} of a dict is not text, and would come back as text")
    if isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            _check_keys(part)


def as_weight(value: Any, where: str) -> np.ndarray:
    """An array of parameters; ValueError for a list, which is a tree, and for entries under a mask, which are none."""
    if isinstance(value, (list, tuple)) or (is_masked_kind(value) and np.ma.is_masked(value)):
        raise ValueError(f"{where}: params must be nested dicts of arrays, got {value!r:.80}")
    return np.asarray(value)


def _description(model: Sequential | None, variables: dict[str, Any]) -> dict[str, Any] | None:
    """What `from_config` builds the model from again, and the parameters' dtype; ValueError for a user's own cell."""
    if model is None:
        return None
    check_has(model, "config", "model", "save_checkpoint", "a model such as Sequential(LSTM(8), Dense(1))")
    config = model.config()
    shapes = tuple((name, np.shape(value)) for name, value in variables.items())
    fault = _fault_of(json.dumps(config, default=repr), shapes)
    if fault is not None:
        raise ValueError(f"save_checkpoint: {fault}")
    dtypes = {str(value.dtype) for value in variables.values()}
    return {**config, "dtype": dtypes.pop() if len(dtypes) == 1 else None}


@functools.lru_cache(maxsize=8)  # a run saves the same model often, and building it takes a tenth of a small save
def _fault_of(description: str, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> str | None:
    """Why `from_config` cannot build a model from this text, or why arrays of these shapes do not fit it; else None.

    Arrays beside those of the model are right: a loss function may have some. If there are none of the model's, they
    are elsewhere, such as one level down.
    """
    try:
        model = from_config(from_json(description))
    except ValueError as error:
        return (
            f"model must be made of minilstm's layers and cells to be opened again ({error}); save the parameters of "
            "others without model=, and train them with fit(loss_fn=...)"
        )
    layers, folders = ({name.split("/")[0] for name in names} for names in (model.names, dict(shapes)))
    if layers.isdisjoint(folders):
        return None
    try:
        arranged({name: empty(None, shape, np.float32) for name, shape in shapes}, model, strict=False)
    except ValueError as error:
        return f"params are not those of model: {error}"
    return None


def _slot_tensors(opt_state: Any, variables: dict[str, Any]) -> dict[str, np.ndarray]:
    if not has_slot_names(opt_state):
        raise ValueError(
            f"save_checkpoint: opt_state: TensorFlow has no names for what a {type(opt_state).__name__} holds; give "
            "its arrays as own={...}"
        )
    tensors: dict[str, np.ndarray] = {}
    for field, slot in SLOTS.get(type(opt_state), {}).items():
        tensors.update(_beside(getattr(opt_state, field), variables, slot, f"opt_state.{field}"))
    for scalar in SCALARS:
        if hasattr(opt_state, scalar):
            tensors[scalar] = np.asarray(getattr(opt_state, scalar), np.float32)
    return tensors


def _beside(tree: Tree, variables: dict[str, Any], slot: str, what: str) -> dict[str, np.ndarray]:
    """One slot of every variable; ValueError unless it has the names and shapes of the variables."""
    values = flatten_names(tree)
    if values.keys() != variables.keys():
        raise ValueError(f"save_checkpoint: {what} must belong to params, but its names differ")
    for name, value in values.items():
        if np.shape(value) != np.shape(variables[name]):
            shapes = f"{np.shape(variables[name])}, got {np.shape(value)}"
            raise ValueError(f"save_checkpoint: {what}: {name} must have the shape of its parameter {shapes}")
    return {f"{name}/{slot}": np.asarray(value) for name, value in values.items()}
