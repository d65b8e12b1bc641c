"""The checks of the arguments of `fit` that need no data: what is missing, out of range, or does not go together."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arguments import check_flag, check_has, check_list, check_number, check_path, check_whole
from ..shapes import params_dtype
from .record import check_changes

# name -> the least value; None, where `fit` takes it, is left as it is
WHOLE = {
    "epochs": 1, "batch_size": 1, "seed": 0, "steps_per_epoch": 1, "early_stopping": 1, "checkpoint_every": 1,
    "max_to_keep": 0,
}  # fmt: skip
NUMBERS: dict[str, dict[str, Any]] = {  # name -> its bounds
    "ema_decay": {"least": 0, "below": 1}, "clip_norm": {"above": 0}, "clip_value": {"above": 0},
}  # fmt: skip


def check_options(options: Any, fit: Callable[..., Any]) -> None:
    """Raise ValueError for an argument of `fit` that is missing, out of range, or does not go with another.

    `options` has every argument as an attribute. Whole numbers in it become ints, callbacks and `resume_changes`
    tuples.
    """
    signature = inspect.signature(fit).parameters
    for name in ("params", "data", "optimizer"):
        if getattr(options, name) is None:
            raise ValueError(f"fit: {name} is missing")
    if isinstance(options.model, dict) or hasattr(options.params, "apply"):
        raise ValueError("fit: wanted fit(model, params, ...), got the parameters in place of the model")
    if options.model is not None:
        check_has(options.model, "apply", "model", "fit", "a model such as Sequential(LSTM(8), Dense(1))")
    if params_dtype(options.params, np.float32, "fit").itemsize < 4:
        raise ValueError("fit: params are float16, in which Adam's epsilon is 0; make them float32: init(dtype=...)")
    given = (options.model is not None, options.loss is not None)
    if options.loss_fn is not None and any(given):
        raise ValueError("fit: loss_fn replaces model and loss; wanted one or the other, got both")
    if options.loss_fn is None and not all(given):
        raise ValueError("fit: wanted model and loss, or loss_fn")
    if hasattr(options.model, "check_all_used"):
        options.model.check_all_used(options.params, "fit")
    for name, least in WHOLE.items():
        value, may_be_none = getattr(options, name), signature[name].default is None or name == "max_to_keep"
        if isinstance(value, (float, np.floating)) and float(value).is_integer():
            value = int(value)  # 1e3 epochs
        if value is not None or not may_be_none:
            setattr(options, name, check_whole(value, name, "fit", least=least))
    for name, bounds in NUMBERS.items():
        if getattr(options, name) is not None:
            setattr(options, name, check_number(getattr(options, name), name, "fit", **bounds))
    if options.early_stopping is not None and options.validation_data is None:
        raise ValueError("fit: early_stopping needs validation_data")
    if callable(options.callbacks):
        raise ValueError("fit: callbacks must be a list of functions, got one function; write callbacks=[...]")
    options.callbacks = tuple(check_list(options.callbacks, "callbacks", "fit"))
    for callback in options.callbacks:
        if not callable(callback):
            raise ValueError(f"fit: callbacks must be functions, got {callback!r}")
    options.resume = check_flag(options.resume, "resume", "fit")
    if options.progress is not None:
        options.progress = check_flag(options.progress, "progress", "fit")
    if options.checkpoint_dir is not None:
        options.checkpoint_dir = check_path(options.checkpoint_dir, "checkpoint_dir", "fit")
    options.resume_changes = check_changes(options.resume_changes, signature, options.optimizer)
