"""fit: the training loop, and what is checked before it begins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .. import losses
from ..checkpoint import check_describable, latest_checkpoint
from ..data import as_batch
from ..layers.base import params_dtype
from ..params import Tree
from .baselines import baselines
from .loop import FitResult, LossFunction, Trainer
from .runstate import Place, RunState
from .sources import as_source
from .truncation import Truncation, check_model, counts, tbptt


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
        A model with ``apply``, its parameters, and a loss of `minilstm.losses`; or `params` and `loss_fn`.
    data
        One tree of arrays, which is shuffled every epoch: a dict with `inputs`, `targets` and perhaps `weights`
        ``[batch, time]``, `sequence_length` ``[batch]``, or ``(inputs, targets)``, or ``(inputs, targets, weights)``;
        or a callable ``step -> batch``; or an iterable of batches. The last two need `steps_per_epoch`.
    optimizer
        From `minilstm.optimizers`.
    epochs : int
        The total over all resumes.
    batch_size : int, default 32
        For arrays.
    seed : int, default 0
        Randomness is a function of it and of the place: dropout of step s draws from ``default_rng([seed, 0, s])``,
        the order of epoch k from ``default_rng([seed, 1, k])``.
    loss_fn : callable, optional
        ``(params, batch, state, rng) -> (loss, state)`` in place of `model` and `loss`.
    steps_per_epoch : int, optional
        How many batches an epoch has; for a callable or an iterable, unless it is a callable with a length.
    validation_data : optional
        As `data`, arrays or a callable with a length; its loss, without dropout, is `val_loss` in the history.
    clip_norm, clip_value : float, optional
        Bounds on the global norm of the gradient, and on each of its entries.
    tbptt : tbptt, optional
        Truncated backpropagation: see `minilstm.tbptt`. Each batch of arrays is cut into windows along time, with the
        state carried from one to the next. Batches of a callable or an iterable are such windows themselves: the state
        is carried from batch to batch, and starts anew in the rows where the batch's ``reset`` ``[batch]`` is True.
        It is the default for `minilstm.data.contiguous_batches`.
    early_stopping : int, optional
        End after so many epochs without a lower `val_loss`, and return the parameters of the best epoch.
    ema_decay : float, optional
        Keep a moving average of the parameters, ``a = decay * a + (1 - decay) * w`` after every step; `val_loss` is
        then the average's.
    callbacks : functions
        Each is called with a `FitResult` after every epoch; one that returns True ends the run.
    progress : bool, optional
        Show a progress bar; default where there is a terminal or a notebook.
    checkpoint_dir : path, optional
        Save there at the end of every epoch, and write ``history.csv``. SIGINT and SIGTERM then save and end the
        program with one line that says how to go on. A directory that holds a run is refused unless `resume`.
    checkpoint_every : int, optional
        Save every so many steps in place of every epoch; the end of the run is always saved.
    max_to_keep : int or None, default 5
        How many checkpoints to keep.
    resume : bool, default False
        Go on from the newest checkpoint in `checkpoint_dir`, or start where there is none. The params passed in are
        then ignored.
    extra : optional
        Anything JSON can hold, saved in every checkpoint (data scaling, a vocabulary).

    Returns
    -------
    FitResult
        ``(params, opt_state, step, history, baselines, averaged)``; history holds `loss`, `grad_norm` (before clipping)
        and `val_loss`, each the mean over an epoch.

    Raises
    ------
    ValueError
        For arguments that do not fit, before anything is written.
    FloatingPointError
        Where the loss or a gradient is not finite, with the step and the parameter; what was saved before stays
        untouched, and ``failed-<step>`` in `checkpoint_dir` replays the step: ``minilstm replay``.
    SystemExit
        After SIGINT or SIGTERM, where there is a `checkpoint_dir`: 128 plus the signal's number.
    """
    if params is None or data is None:
        raise ValueError(f"fit: {'params' if params is None else 'data'} is missing")
    if loss_fn is not None and (model is not None or loss is not None):
        raise ValueError("fit: loss_fn stands in place of model and loss; wanted one or the other, got both")
    if loss_fn is None and (model is None or loss is None):
        raise ValueError("fit: wanted model and loss, or loss_fn")
    _check_numbers(
        epochs=epochs, checkpoint_every=checkpoint_every, early_stopping=early_stopping, ema_decay=ema_decay,
        clip_norm=clip_norm, clip_value=clip_value,
    )  # fmt: skip
    if early_stopping is not None and validation_data is None:
        raise ValueError("fit: early_stopping needs validation_data")

    plain, dtype = loss_fn is not None, params_dtype(params, np.float32)
    truncation = _truncation(tbptt, data, model)
    source_options: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "plain": plain, "resume": resume}
    source = as_source(data, dtype, steps_per_epoch=steps_per_epoch, **source_options)
    validation = None
    if validation_data is not None:
        validation = as_source(
            validation_data, dtype, steps_per_epoch=None, where="fit: validation_data", **source_options
        )
    if truncation is not None and (plain or (source.continues and truncation.window != truncation.stride)):
        why = "loss_fn" if plain else "a callable or an iterable, whose batches are the windows, with a longer window"
        raise ValueError(f"fit: tbptt cannot be used with {why}")
    checked = {"data": source, "validation_data": validation}
    compared = {} if plain else _check_before(model, loss, params, checked, truncation)
    if checkpoint_dir is not None:
        check_describable(model, extra)

    history: dict[str, list[float]] = {"loss": [], "grad_norm": []}
    if validation is not None:
        history["val_loss"] = []
    averaged = None if ema_decay is None else params
    trainer = Trainer(
        run=RunState(params, optimizer.init(params), 0, Place(), history, averaged=averaged),
        loss_fn=model_loss(model, loss) if loss_fn is None else loss_fn,
        model=model,
        loss=loss,
        optimizer=optimizer,
        source=source,
        validation=validation,
        truncation=truncation,
        epochs=epochs,
        seed=seed,
        clip_norm=clip_norm,
        clip_value=clip_value,
        early_stopping=early_stopping,
        ema_decay=ema_decay,
        callbacks=tuple(callbacks),
        baselines=compared,
        checkpoint_dir=checkpoint_dir,
        checkpoint_every=checkpoint_every,
        max_to_keep=max_to_keep,
        extra=extra,
    )
    if checkpoint_dir is not None and latest_checkpoint(checkpoint_dir) is not None:
        if not resume:
            raise ValueError(
                f"fit: checkpoint_dir {os.fspath(checkpoint_dir)!r} already holds a run; pass resume=True to go on "
                "with it, or choose another directory"
            )
        trainer.load()
    return trainer.train(progress)


def model_loss(model: Any, loss: LossFunction | None) -> LossFunction:
    """The ``loss_fn`` of a model and a loss on batches that are dicts."""
    assert loss is not None

    def loss_fn(params: Tree, batch: dict[str, Any], state: Any, rng: Any) -> tuple[Any, Any]:
        outputs, state = model.apply(
            params, batch["inputs"], state=state, sequence_length=batch.get("sequence_length"), rng=rng
        )
        return loss(outputs, batch["targets"], batch.get("weights")), state

    return loss_fn


def _check_numbers(*, ema_decay: Any, clip_norm: Any, clip_value: Any, **whole: Any) -> None:
    """Raise ValueError for a number out of its range; `whole` are to be whole numbers of at least 1, or None."""
    for name, value in whole.items():
        if value is not None and (value != int(value) or value < 1):
            raise ValueError(f"fit: {name} must be a whole number of at least 1, got {value!r}")
    if ema_decay is not None and not 0 <= ema_decay < 1:
        raise ValueError(f"fit: ema_decay must lie in [0, 1), got {ema_decay!r}")
    for name, bound in (("clip_norm", clip_norm), ("clip_value", clip_value)):
        if bound is not None and not bound > 0:
            raise ValueError(f"fit: {name} must be positive, got {bound!r}")


def _truncation(option: tbptt | None, data: Any, model: Any) -> Truncation | None:
    """What the option `tbptt` of `fit` means; data that are cut into windows of `num_steps` ask for it themselves."""
    if option is None and hasattr(data, "num_steps"):
        option = tbptt(data.num_steps)
    if option is None:
        return None
    if not isinstance(option, tbptt):
        raise ValueError(f"fit: tbptt must be minilstm.tbptt(stride, window), got {option!r}")
    truncation = option.checked()
    if model is not None:
        check_model(model)
    return truncation


def _check_before(
    model: Any, loss: Any, params: Tree, sources: dict[str, Any], truncation: Truncation | None
) -> dict[str, float]:
    """Try out whatever can be wrong with shapes and labels before the first step; returns the baselines of the data."""
    compared: dict[str, float] = {}
    for name, source in sources.items():
        if source is None:
            continue
        batch = as_batch(source.first(), f"fit: {name}")
        if "targets" not in batch:
            raise ValueError(f"fit: {name} must hold targets, got {sorted(batch)}")
        rows = getattr(source, "batch_size", None)  # of arrays, as many as the first step will take
        some = {key: value[:rows] for key, value in batch.items() if key != "reset" and value is not None}
        if truncation is not None:  # of a long sequence, as much as one window
            some = {key: x if key == "sequence_length" else x[:, : truncation.window] for key, x in some.items()}
            if "sequence_length" in some:
                some["sequence_length"] = np.minimum(some["sequence_length"], truncation.window)
        outputs, _ = model.apply(params, some["inputs"], sequence_length=some.get("sequence_length"))
        losses.check_range(loss, batch["targets"], outputs.shape[-1])
        loss(outputs, some["targets"], some.get("weights") if counts(some) else None)
        if name == "data":
            compared = baselines(loss, batch)
    return compared
