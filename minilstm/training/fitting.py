"""fit: its arguments, and what is checked before training begins."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import losses, optimizers
from ..arguments import check_has
from ..checkpoint import check_describable, latest_checkpoint
from ..layers.base import params_dtype
from ..params import Tree
from .baselines import baselines
from .evaluation import LossFunction, model_loss
from .loop import FitResult, Trainer
from .sources import ArraySource, Source, as_source
from .truncation import Truncation, as_truncation, has_weight, tbptt


def fit(
    model: Any = None,
    params: Tree = None,
    loss: LossFunction | None = None,
    data: Any = None,
    *,
    optimizer: Any,
    epochs: int,
    batch_size: int = 32,
    seed: int = 0,
    loss_fn: LossFunction | None = None,
    steps_per_epoch: int | None = None,
    validation_data: Any = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    tbptt: tbptt | None = None,
    early_stopping: int | None = None,
    ema_decay: float | None = None,
    callbacks: Iterable[Callable[[FitResult], Any]] = (),
    progress: bool | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    max_to_keep: int | None = 5,
    resume: bool = False,
    extra: Any = None,
) -> FitResult:
    """Train a model by minibatch gradient descent.

    Parameters
    ----------
    model, params, loss
        A model with ``apply``, its parameters, and a loss of `minilstm.losses` or its name. Or give `params` and
        `loss_fn`.
    data
        One tree of arrays, which is shuffled every epoch: ``(inputs, targets)``, or ``(inputs, targets, weights)``, or
        a dict with `inputs`, `targets` and optionally `weights` ``[batch, time]`` and `sequence_length` ``[batch]``.
        Or a callable ``step -> batch``, or an iterable of batches; these two need `steps_per_epoch`.
    optimizer
        From `minilstm.optimizers`, or the name of one that needs no argument: ``"adam"``, ``"adamw"``, ``"sgd"``.
    epochs : int
        The total number of epochs, over all resumes.
    batch_size : int, default 32
        Sequences in a batch, if `data` are arrays.
    seed : int, default 0
        All randomness is a function of it and of the place in the run: the dropout of step s draws from
        ``default_rng([seed, 0, s])``, the order of epoch k from ``default_rng([seed, 1, k])``.
    loss_fn : callable, optional
        ``(params, batch, state, rng) -> (loss, state)``, in place of `model` and `loss`.
    steps_per_epoch : int, optional
        Batches in an epoch, if `data` is a callable or an iterable. A callable with a length needs none.
    validation_data : optional
        Like `data`: arrays, or a callable with a length. Its loss, without dropout, is `val_loss` in the history.
    clip_norm, clip_value : float, optional
        Upper bounds on the global norm of the gradient, and on the absolute value of each of its entries.
    tbptt : tbptt, optional
        Truncated backpropagation through time; see `minilstm.tbptt`. Each batch of arrays is cut into windows along
        time, and the state is carried from one window to the next. A batch of a callable or an iterable is already one
        window: the state is carried from batch to batch. It starts again from the initial state at every epoch, and in
        the rows where the batch's ``reset`` ``[batch]`` is True. Default: off, except for data from
        `minilstm.data.contiguous_batches`.
    early_stopping : int, optional
        End the run after this many epochs without a lower `val_loss`, and return the parameters of the best epoch.
    ema_decay : float, optional
        Keep a moving average of the parameters: after every step, ``a = decay * a + (1 - decay) * w``. `val_loss` is
        then the loss of the average.
    callbacks : functions
        Each is called with a `FitResult` after every epoch. If one returns True, the run ends.
    progress : bool, optional
        Whether to show a progress bar. Default: if there is a terminal or a notebook.
    checkpoint_dir : path, optional
        Save a checkpoint there at the end of every epoch, and write ``history.csv``. SIGINT and SIGTERM then save and
        end the program, with one line that says how to resume. A directory that holds a run is refused unless `resume`.
    checkpoint_every : int, optional
        Save every `checkpoint_every` steps instead of every epoch. The end of the run is always saved.
    max_to_keep : int or None, default 5
        How many checkpoints to keep; None keeps all.
    resume : bool, default False
        Resume from the newest checkpoint in `checkpoint_dir`, and ignore `params`. Without one, start a new run.
    extra : optional
        Anything that JSON can hold; saved in every checkpoint (data scaling, a vocabulary).

    Returns
    -------
    FitResult
        ``(params, opt_state, step, history, baselines, averaged)``. The history holds `loss`, `grad_norm` (before
        clipping) and `val_loss`, each the mean over an epoch.

    Raises
    ------
    ValueError
        For arguments that do not fit together, before anything is written.
    FloatingPointError
        If the loss or a gradient is not finite; the message names the step and the parameter. Earlier checkpoints stay
        untouched. ``failed-<step>`` in `checkpoint_dir` keeps the step for ``minilstm replay``.
    SystemExit
        After SIGINT or SIGTERM, if there is a `checkpoint_dir`: the code is 128 plus the signal's number.
    """
    loss, optimizer = losses.get(loss), optimizers.get(optimizer)
    options = SimpleNamespace(**locals())  # every argument, for the functions below and the trainer
    _check_options(options)
    if loss_fn is None:
        loss_fn = model_loss(model, loss)
    any_tree, dtype = options.loss_fn is not None, params_dtype(params, np.float32, "fit")
    truncation = as_truncation(tbptt, data, model)
    read = functools.partial(as_source, dtype=dtype, batch_size=batch_size, seed=seed, resume=resume, any_tree=any_tree)
    source, validation = read(data, steps_per_epoch=steps_per_epoch), None
    if validation_data is not None:
        validation = read(validation_data, steps_per_epoch=None, where="fit: validation_data")
    arrays = [one for one in (source, validation) if isinstance(one, ArraySource)]
    if arrays and getattr(model, "is_time_major", False):
        raise ValueError(
            "fit: the model has time_major=True, but arrays are batched along their first axis; build it with "
            "time_major=False, or give batches as a callable or an iterable"
        )
    if truncation is not None and (any_tree or (source.continues and truncation.window != truncation.stride)):
        why = "loss_fn" if any_tree else "a callable or an iterable (its batches are windows) and a longer window"
        raise ValueError(f"fit: tbptt cannot be used with {why}")
    compared = {}
    if not any_tree:
        compared = baselines(loss, _check_batches(options, "data", source, truncation))
        if validation is not None:
            _check_batches(options, "validation_data", validation, truncation)
    if checkpoint_dir is not None:
        check_describable(model, extra)
    trainer = Trainer(options, loss_fn, source, validation, truncation, compared)
    if checkpoint_dir is not None and latest_checkpoint(checkpoint_dir) is not None:
        if not resume:
            raise ValueError(
                f"fit: checkpoint_dir {os.fspath(checkpoint_dir)!r} already holds a run; pass resume=True to continue "
                "it, or choose another directory"
            )
        trainer.load()
    return trainer.train()


def _check_options(options: Any) -> None:
    """Raise ValueError for an argument of `fit` that is missing, out of range, or does not go with another."""
    for name in ("params", "data"):
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
    for name in ("epochs", "checkpoint_every", "early_stopping"):
        value = getattr(options, name)
        if value is not None and (value != int(value) or value < 1):
            raise ValueError(f"fit: {name} must be a whole number of at least 1, got {value!r}")
    if options.ema_decay is not None and not 0 <= options.ema_decay < 1:
        raise ValueError(f"fit: ema_decay must be in [0, 1), got {options.ema_decay!r}")
    for name in ("clip_norm", "clip_value"):
        bound = getattr(options, name)
        if bound is not None and not bound > 0:
            raise ValueError(f"fit: {name} must be positive, got {bound!r}")
    if options.early_stopping is not None and options.validation_data is None:
        raise ValueError("fit: early_stopping needs validation_data")


def _check_batches(options: Any, name: str, source: Source, truncation: Truncation | None) -> dict[str, Any]:
    """Find wrong shapes and labels before the first step: try model and loss on a batch, and check all labels.

    Returns what was checked: all data if they are arrays, else the first batch.
    """
    model, loss, batch = options.model, options.loss, source.first()
    if "targets" not in batch:
        raise ValueError(f"fit: {name} must hold targets, got {sorted(batch)}")
    if isinstance(source, ArraySource) and not has_weight(batch):
        raise ValueError(f"fit: {name}: all weights are 0, so there is nothing to learn from")
    rows = source.batch_size if isinstance(source, ArraySource) else None
    some = {key: value[:rows] for key, value in batch.items() if key != "reset" and value is not None}
    if truncation is not None:  # one window of a long sequence is enough
        some = {key: x if key == "sequence_length" else x[:, : truncation.window] for key, x in some.items()}
        if "sequence_length" in some:
            some["sequence_length"] = np.minimum(some["sequence_length"], truncation.window)
    outputs, _ = model.apply(options.params, some["inputs"], sequence_length=some.get("sequence_length"))
    losses.check_range(loss, batch["targets"], outputs.shape[-1])
    loss(outputs, some["targets"], some.get("weights") if has_weight(some) else None)
    return batch
