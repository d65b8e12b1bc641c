"""fit: its arguments, and what is checked before training begins."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import losses, optimizers
from ..checkpoint import check_describable
from ..params import Tree
from ..shapes import params_dtype
from .arguments import check_options
from .baselines import baselines
from .evaluation import LossFunction, model_loss
from .folder import RunFolder
from .lock import RunLock
from .loop import FitResult, Trainer
from .record import started_with
from .runstate import check_can_be_saved, rehearse
from .sources import ArraySource, Source, as_source
from .truncation import Truncation, as_truncation, has_weight, tbptt

TRIED = 2  # sequences of arrays, on which model and loss are tried: a whole batch would need memory of its own


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
    resume_changes: Iterable[str] = (),
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
        Each is called after every epoch with a `FitResult` whose arrays cannot be written to. If one returns True, the
        run ends; all others must return False or None.
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
        Resume from the newest whole checkpoint of fit in `checkpoint_dir`, and ignore `params`. Without a run there,
        start one. The call must say what the run was started with; only epochs, validation data, early stopping,
        callbacks, progress, `extra`, and how often to save and how many to keep may differ.
    resume_changes : names, default ()
        What else may differ on resume: arguments of `fit`, options of the optimizer, ``"model"``, ``"data"``. The
        checkpoints from then on say what the run goes on with.
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
        For arguments that do not fit together, before anything is written; and if another process, or this one, trains
        in `checkpoint_dir`.
    CheckpointError
        On resume, if the run was started with something else: every difference is listed. Also if none of the
        checkpoints is whole. Nothing is written in both cases.
    FloatingPointError
        If the loss, a gradient or an updated parameter is not finite; the message names the step and the parameter.
        Earlier checkpoints stay untouched. ``failed-<step>`` in `checkpoint_dir` keeps a step whose loss or gradient
        was not finite for ``minilstm replay``.
    SystemExit
        After SIGINT or SIGTERM, if there is a `checkpoint_dir`: the code is 128 plus the signal's number.
    """
    loss, optimizer = losses.get(loss), optimizers.get(optimizer)
    options = SimpleNamespace(**locals())  # every argument, for the functions below and the trainer
    check_options(options, fit)
    batch_size, seed, steps_per_epoch = options.batch_size, options.seed, options.steps_per_epoch
    if loss_fn is None:
        loss_fn = model_loss(model, loss)
    any_tree, dtype = options.loss_fn is not None, params_dtype(params, np.float32, "fit")
    truncation = as_truncation(tbptt, data, model)
    is_time_major = getattr(model, "is_time_major", False)
    read = functools.partial(
        as_source, dtype=dtype, batch_size=batch_size, seed=seed, resume=resume, any_tree=any_tree,
        time_major=is_time_major,
    )  # fmt: skip
    source, validation = read(data, steps_per_epoch=steps_per_epoch), None
    if validation_data is not None:
        validation = read(validation_data, steps_per_epoch=None, where="fit: validation_data")
    arrays = [one for one in (source, validation) if isinstance(one, ArraySource)]
    if arrays and is_time_major:
        raise ValueError(
            "fit: the model has time_major=True, but arrays are batched along their first axis; build it with "
            "time_major=False, or give batches as a callable or an iterable"
        )
    if truncation is not None and (any_tree or (source.continues and truncation.window != truncation.stride)):
        why = "loss_fn" if any_tree else "a callable or an iterable (its batches are windows) and a longer window"
        raise ValueError(f"fit: tbptt cannot be used with {why}")
    compared, started = {}, None
    first: Any = None if any_tree and checkpoint_dir is None else source.first()
    if not any_tree:
        _check_batches(options, "data", source, first, truncation)
        compared = baselines(loss, first)
        if validation is not None:
            _check_batches(options, "validation_data", validation, validation.first(), truncation)
    if checkpoint_dir is not None:
        check_describable(model, extra)
        started = started_with(options, source, first, truncation)
    trainer = Trainer(options, loss_fn, source, validation, truncation, compared, started)
    if checkpoint_dir is None:
        return trainer.train()
    check_can_be_saved(trainer.run.opt_state)
    rehearse(params, optimizer, with_names=model is None)
    directory = os.path.abspath(options.checkpoint_dir)  # a callback may change the working directory
    with RunLock(directory):
        trainer.folder = folder = RunFolder(directory)
        if not resume and folder.holds_a_run():
            raise ValueError(
                f"fit: checkpoint_dir {os.fspath(checkpoint_dir)!r} already holds a run; pass resume=True to continue "
                "it, or choose another directory"
            )
        newest = folder.newest() if resume else None
        if newest is not None:
            trainer.load(newest)
        folder.take_stock(options.max_to_keep)
        return trainer.train()


def _check_batches(
    options: Any, name: str, source: Source, batch: dict[str, Any], truncation: Truncation | None
) -> None:
    """Find wrong shapes and labels before the first step: try model and loss on a batch, and check all labels.

    `batch` is ``source.first()``: all data if they are arrays, else the first batch.
    """
    model, loss = options.model, options.loss
    if "targets" not in batch:
        raise ValueError(f"fit: {name} must hold targets, got {sorted(batch)}")
    if isinstance(source, ArraySource) and not has_weight(batch):
        raise ValueError(f"fit: {name}: all weights are 0, so there is nothing to learn from")
    if "reset" in batch and (truncation is None or not source.continues):
        raise ValueError(
            f"fit: {name}: reset is for batches that continue each other: a callable or an iterable, with tbptt"
        )
    inputs = batch["inputs"]
    if truncation is not None and (inputs.ndim < 2 or any(
        key in batch and batch[key].shape[:2] != inputs.shape[:2] for key in ("targets", "weights")
    )):  # fmt: skip
        got = {key: batch[key].shape for key in ("inputs", "targets", "weights") if key in batch}
        raise ValueError(f"fit: tbptt needs {name} with inputs, targets and weights of every step, got shapes {got}")
    if truncation is not None and source.continues and name == "data" and inputs.shape[1] > truncation.stride:
        raise ValueError(
            f"fit: tbptt: a batch of a callable or an iterable is one window, but stride is {truncation.stride} and "
            f"the first batch has {inputs.shape[1]} time steps"
        )
    some = {key: value for key, value in batch.items() if key != "reset" and value is not None}
    if truncation is not None:  # one window of a long sequence is enough
        some = {key: x if key == "sequence_length" else x[:, : truncation.window] for key, x in some.items()}
        if "sequence_length" in some:
            some["sequence_length"] = np.minimum(some["sequence_length"], truncation.window)

    def try_on(rows: int | None) -> None:
        tried = {key: value[:rows] for key, value in some.items()}
        outputs, _ = model.apply(options.params, tried["inputs"], sequence_length=tried.get("sequence_length"))
        losses.check_range(loss, batch["targets"], outputs.shape[-1])
        loss(outputs, tried["targets"], tried.get("weights") if has_weight(tried) else None)

    rows = source.batch_size if isinstance(source, ArraySource) else None
    with contextlib.suppress(Exception):
        return try_on(rows and min(rows, TRIED))
    return try_on(rows)  # what is wrong with a batch, it says with the shapes of a batch
