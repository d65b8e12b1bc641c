"""Resuming: the checkpoint of a run is compared with the call that wants to go on from it, and read."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..checkpoint import Checkpoint, CheckpointError
from ..checkpoint.names import arranged
from ..layers.differences import differences as model_differences
from ..params import flatten_names
from .record import PLACED, differences, shown
from .runstate import RunState


def resume(run: RunState, loaded: Checkpoint, options: Any, started: dict[str, Any]) -> bool:
    """Let `run`, which is new, go on from a checkpoint of fit. Returns whether that has the best parameters in front.

    `options` has the arguments of `fit`, and `started` is their record. What may always differ is adapted: validation
    data, early stopping, and if `resume_changes` names it, `ema_decay`.

    Raises
    ------
    CheckpointError
        If the file makes no sense, or if the run was started with something else than this call says: all differences
        at once.
    """
    faults: list[str] = []
    try:
        arranged(flatten_names(loaded.params), run.params)
    except ValueError as error:
        faults.append(str(error))
    prefix, training = loaded.prefix, loaded.training
    had, wanted = training.get("last", training["state"]), type(run.opt_state).__name__
    if had != wanted:
        faults.append(f"optimizer: the checkpoint holds {had}, but this optimizer wants {wanted}")
    try:
        faults += _differences(loaded, options, started)
        if faults:
            raise CheckpointError(
                f"fit: {prefix}: the run was started in another way:\n  " + "\n  ".join(faults) + "\n"
                "pass what it was started with, or name in resume_changes=(...) what is meant to differ; another "
                "structure cannot go on at all"
            )
        with_average = run.averaged is not None
        run.load(loaded)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, StopIteration, RecursionError) as error:
        what = f"{type(error).__name__} {error}" if isinstance(error, (KeyError, StopIteration)) else error
        raise CheckpointError(f"fit: {prefix}: tensor minilstm/training: {what}") from error
    _adapt(run, options, with_average)
    return "last" in training


def _differences(loaded: Checkpoint, options: Any, started: dict[str, Any]) -> list[str]:
    """A line for each difference that `resume_changes` does not name, or that cannot be at this place."""
    allowed, faults, training = set(options.resume_changes), [], loaded.training
    found = []
    if loaded.model is not None and options.model is not None:
        pairs = model_differences(loaded.model.config(), options.model.config())
        found += [("model", f"{place} is {then}", now) for place, then, now in pairs]
    elif (loaded.model is None) != (options.model is None):
        had, has = ("nothing" if model is None else "a model" for model in (loaded.model, options.model))
        found += [("model", had, has)]
    then, averages = training.get("started"), loaded.averaged is not None
    if then is not None and averages != (then["arguments"]["ema_decay"] is not None):
        raise ValueError("the moving averages do not belong to every parameter")
    if then is None:
        if averages != (options.ema_decay is not None):
            found.append(("ema_decay", "one" if averages else "None", shown(options.ema_decay)))
        _warn(f"{loaded.prefix} does not say what the run was started with, so that was not compared with this call")
    else:
        found += differences(then, started)
        if then["pass"] != started["pass"]:
            _warn(
                f"{loaded.prefix} was trained with the {shown(then['pass'])} pass, and this process uses the "
                f"{started['pass']} one: the run goes on with the same numbers to rounding, but not with the same bits"
            )
    place, options_of_optimizer = training["place"], set(started["optimizer"]["options"])
    if then is not None:
        options_of_optimizer |= set(then["optimizer"]["options"])
    for name, was, is_ in found:
        line = f"{name}: started with {was}, now {is_}"
        if name not in allowed and not ("optimizer" in allowed and name in options_of_optimizer):
            faults.append(line)
        elif name in PLACED and (place["batch"], place["window"]) != (0, 0):
            epoch = place["epoch"] + 1
            faults.append(f"{line}: that can change between two epochs, and this is within one; first run to its end "
                          f"with what it was started with (epochs={epoch})")  # fmt: skip
    return faults


def _adapt(run: RunState, options: Any, with_average: bool) -> None:
    """Bring the history and the best parameters in line with what this call asks for."""
    epochs = run.place.epoch
    if options.validation_data is not None:  # epochs without validation have the loss nan
        run.history.setdefault("val_loss", [np.nan] * epochs)
    if with_average != (run.averaged is not None):
        run.averaged = run.params if with_average else None
    if options.early_stopping is None or options.validation_data is None:
        run.best = None
    elif run.best is None:
        run.counted_from = epochs


def _warn(text: str) -> None:
    warnings.warn(f"fit: {text}", UserWarning, stacklevel=6)  # the caller of fit
