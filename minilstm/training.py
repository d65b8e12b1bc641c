"""fit: the training loop."""

from __future__ import annotations

import functools
import inspect
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from . import losses
from .baselines import baselines
from .checkpoint import check_describable, latest_checkpoint
from .data import as_batch
from .gradients import clip_by_global_norm, clip_by_value, global_norm, value_and_grad
from .history import HistoryFile
from .interruption import Interruption
from .layers.base import params_dtype
from .params import Tree, flatten_names, tree_leaves, tree_map
from .progress import ProgressBar
from .replay import dump_failure
from .runstate import Place, RunState
from .sources import as_source
from .truncation import Truncation, Window, check_model, counts, reset_rows, tbptt, windows

LossFunction = Callable[..., Any]
EXPLODING = 1000.0  # a gradient norm so many times the mean of its epoch is worth a warning


class FitResult(NamedTuple):
    """What `fit` returns.

    `history` maps a quantity to a list with one entry an epoch. `baselines` are the losses of trivial forecasts on the
    training data (see `minilstm.baselines`). `averaged` is the moving average of the parameters, with `ema_decay`.
    """

    params: Tree
    opt_state: Any
    step: int
    history: dict[str, list[float]]
    baselines: dict[str, float]
    averaged: Tree = None


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
    for name, value in (("epochs", epochs), ("checkpoint_every", checkpoint_every), ("early_stopping", early_stopping)):
        if value is not None and (value != int(value) or value < 1):
            raise ValueError(f"fit: {name} must be a whole number of at least 1, got {value!r}")
    if early_stopping is not None and validation_data is None:
        raise ValueError("fit: early_stopping needs validation_data")
    if ema_decay is not None and not 0 <= ema_decay < 1:
        raise ValueError(f"fit: ema_decay must lie in [0, 1), got {ema_decay!r}")
    for name, bound in (("clip_norm", clip_norm), ("clip_value", clip_value)):
        if bound is not None and not bound > 0:
            raise ValueError(f"fit: {name} must be positive, got {bound!r}")

    run_loss = model_loss(model, loss) if loss_fn is None else loss_fn
    plain, dtype = model is None, params_dtype(params, np.float32)
    if tbptt is None and hasattr(data, "num_steps"):
        tbptt = TBPTT(data.num_steps)
    if tbptt is not None and not isinstance(tbptt, TBPTT):
        raise ValueError(f"fit: tbptt must be minilstm.tbptt(stride, window), got {tbptt!r}")
    truncation = None if tbptt is None else tbptt.checked()
    if truncation is not None and model is not None:
        check_model(model)
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
    run = RunState(params, optimizer.init(params), 0, Place(), {"loss": [], "grad_norm": []})
    if validation is not None:
        run.history["val_loss"] = []
    if ema_decay is not None:
        run.averaged = params
    saved_at = -1
    if checkpoint_dir is not None and latest_checkpoint(checkpoint_dir) is not None:
        if not resume:
            raise ValueError(
                f"fit: checkpoint_dir {os.fspath(checkpoint_dir)!r} already holds a run; pass resume=True to go on "
                "with it, or choose another directory"
            )
        run.load(checkpoint_dir)
        saved_at = run.step

    def save() -> None:
        nonlocal saved_at
        if checkpoint_dir is not None and saved_at != run.step:
            run.save(checkpoint_dir, model, extra, max_to_keep)
            saved_at = run.step

    def result() -> FitResult:
        return FitResult(run.params, run.opt_state, run.step, run.history, compared, run.averaged)

    def keep_going() -> bool:
        return run.place.epoch < epochs and not (
            early_stopping is not None and _epochs_since_best(run.history["val_loss"]) >= early_stopping
        )

    def leave_if_asked() -> None:
        if interruption.wanted is not None:
            save()
            _leave(interruption.wanted, run, checkpoint_dir)

    derive = value_and_grad(run_loss, has_aux=True)
    donates = "donate" in inspect.signature(optimizer.update).parameters
    shown = True  # whether somebody else may hold the arrays of the optimizer's state: then they are not written to
    rows = HistoryFile(checkpoint_dir, run.place.epoch, compared)
    with (
        ProgressBar(epochs * source.batches_per_epoch, _batches_done(run.place, source), progress) as bar,
        Interruption(active=checkpoint_dir is not None) as interruption,
    ):
        while keep_going():
            started = time.perf_counter()
            for batch in source.epoch(run.place.epoch, run.place.batch):
                if source.continues and truncation is not None:
                    new_start = functools.partial(model.initial_state, run.params, len(batch["inputs"]))
                    run.carried = reset_rows(run.carried, batch.pop("reset", None), new_start)
                for window in _windows_of(batch, truncation, source.continues, run.place.window):
                    start, place_rng = run.carried if truncation else None, [seed, 0, run.step]
                    if not counts(window.batch):  # nothing to learn from, but the state goes through it
                        run.carried = _state_after(model, run.params, window, start, place_rng, truncation, source)
                        run.place = run.place.after_window(window.last)
                        continue
                    (value, state), grads = derive(run.params, window.batch, start, place_rng)
                    norm = global_norm(grads)
                    if not (math.isfinite(value) and math.isfinite(norm)):
                        _stop(run, value, grads, window.batch, seed, model, loss, checkpoint_dir)
                    bounded = clip_norm is not None or clip_value is not None
                    if not bounded and norm > EXPLODING * run.place.norm > 0:
                        warnings.warn(
                            f"fit: the gradient's norm at step {run.step} is {norm:.3g}, {norm / run.place.norm:.3g} "
                            "times the mean of its epoch; clip_norm would bound it",
                            RuntimeWarning,
                            stacklevel=2,
                        )
                    if clip_value is not None:
                        grads = clip_by_value(grads, clip_value)
                    if clip_norm is not None:
                        grads, _ = clip_by_global_norm(grads, clip_norm)
                    run.carried = _state_after(
                        model, run.params, window, start, place_rng, truncation, source, state
                    )
                    donate = {"donate": True} if donates and not shown else {}
                    run.params, run.opt_state = optimizer.update(run.params, grads, run.opt_state, **donate)
                    shown = False
                    if ema_decay is not None:
                        run.averaged = ema_update(run.averaged, run.params, ema_decay)
                    run.step += 1
                    run.place = run.place.after_update(float(value), norm, _entries(window.batch))
                    run.place = run.place.after_window(window.last)
                    leave_if_asked()
                    if checkpoint_every and run.step % checkpoint_every == 0:
                        save()
                numbers = {"loss": run.place.loss, "norm": run.place.norm, **_last(run.history), **compared}
                bar.advance(len(tree_leaves(batch)[0]), numbers)
            run.history["loss"].append(run.place.loss)
            run.history["grad_norm"].append(run.place.norm)
            if validation is not None:
                tested = run.params if run.averaged is None else run.averaged
                run.history["val_loss"].append(evaluate(run_loss, tested, validation, model if truncation else None))
                if early_stopping is not None and _epochs_since_best(run.history["val_loss"]) == 0:
                    run.best = tested
            run.place = Place(epoch=run.place.epoch + 1)
            run.carried = None
            rows.append(run.place.epoch, run.step, run.history, time.perf_counter() - started)
            saved_at = -1  # the same step may have been saved, but at another place: before the end of the epoch
            if not checkpoint_every or not keep_going():
                save()
            wishes = [callback(result()) for callback in callbacks]  # every callback is called, also after a True
            shown = shown or bool(wishes)
            leave_if_asked()
            if any(wishes):
                break
    save()
    if early_stopping is not None and run.best is not None:
        return result()._replace(params=run.best)
    return result()


TBPTT: Any = tbptt  # the name of the class, where the argument of `fit` hides it


def model_loss(model: Any, loss: LossFunction | None) -> LossFunction:
    """The ``loss_fn`` of a model and a loss on batches that are dicts."""
    assert loss is not None

    def loss_fn(params: Tree, batch: dict[str, Any], state: Any, rng: Any) -> tuple[Any, Any]:
        outputs, state = model.apply(
            params, batch["inputs"], state=state, sequence_length=batch.get("sequence_length"), rng=rng
        )
        return loss(outputs, batch["targets"], batch.get("weights")), state

    return loss_fn


def evaluate(loss_fn: LossFunction, params: Tree, source: Any, carry: Any = None) -> float:
    """The mean loss over a source, without dropout; with a model to `carry` its state goes from batch to batch."""
    total, entries, state = 0.0, 0.0, None
    for batch in source.epoch(0):
        reset = batch.pop("reset", None) if isinstance(batch, dict) else None
        if carry is not None and source.continues:
            state = reset_rows(state, reset, functools.partial(carry.initial_state, params, len(batch["inputs"])))
        else:
            state = None
        if not counts(batch):
            some = {**batch, "weights": None}  # the state goes through it all the same
            state = loss_fn(params, some, state, None)[1]
            continue
        value, state = loss_fn(params, batch, state, None)
        count = _entries(batch)
        total += float(value) * count
        entries += count
    return total / entries


def _entries(batch: Any) -> float:
    """Over how many entries a batch's loss is the mean, or over what sum of weights."""
    if isinstance(batch, dict) and batch.get("weights") is not None:
        return float(np.sum(batch["weights"], dtype=np.float64))
    first = tree_leaves(batch)[0]
    targets: tuple[int, ...] = np.shape(batch["targets"]) if isinstance(batch, dict) and "targets" in batch else ()
    every_step = len(targets) > 1 and targets[:2] == first.shape[:2]
    return float(len(first) * (targets[1] if every_step else 1))


def ema_update(averaged: Tree, params: Tree, decay: float) -> Tree:
    """``decay * averaged + (1 - decay) * params``: one step of an exponential moving average."""
    return tree_map(lambda a, w: a - (1 - decay) * (a - w), averaged, params)


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


def _windows_of(batch: Any, truncation: Truncation | None, continues: bool, first: int) -> Iterator[Window]:
    """The windows of a batch: itself, where there is no truncation or where batches are windows already."""
    if truncation is None or continues:
        time = batch["inputs"].shape[1] if truncation is not None else 1
        return iter([Window(batch, time, time, last=True)])
    return windows(batch, truncation, first)


def _state_after(
    model: Any, params: Tree, window: Window, start: Any, rng: Any, truncation: Any, source: Any, state: Any = None
) -> Any:
    """The state at the start of the next window: `state`, the one behind this window, or one in the midst of it.

    None where nothing is carried: without truncation, and from one batch of arrays to the next.
    """
    if truncation is None or (window.last and not source.continues):
        return None
    inputs = window.batch["inputs"]
    if window.advance == 0:
        return start
    if state is not None and window.advance == inputs.shape[1]:
        return state
    lengths = window.batch.get("sequence_length", np.full(len(inputs), inputs.shape[1]))
    # The whole window again, so that dropout draws the same masks, but no further than to where the next one starts.
    stop = np.minimum(lengths, window.advance)
    return model.apply(params, inputs, state=start, sequence_length=stop, rng=rng)[1]


def _batches_done(place: Place, source: Any) -> int:
    return int(place.epoch * source.batches_per_epoch + place.batch)


def _epochs_since_best(values: list[float]) -> int:
    return len(values) - 1 - int(np.argmin(np.nan_to_num(values, nan=np.inf))) if values else 0


def _last(history: dict[str, list[float]]) -> dict[str, float]:
    return {"val": history["val_loss"][-1]} if history.get("val_loss") else {}


def _leave(number: int, run: RunState, checkpoint_dir: Any) -> None:
    print(
        f"\nfit: stopped by signal {number} at step {run.step}; saved in {os.fspath(checkpoint_dir)!r}: "
        "the same call with resume=True (for an experiment: --resume) goes on",
        file=sys.stderr,
    )
    raise SystemExit(128 + number)


def _stop(
    run: RunState, value: Any, grads: Tree, batch: Any, seed: int, model: Any, loss: Any, checkpoint_dir: Any
) -> None:
    """Raise what tells where a loss or gradient was not finite, and leave the failing step behind to be replayed."""
    bad = [name for name, grad in flatten_names(grads).items() if not np.isfinite(grad).all()]
    what = f"the loss is {float(value)}" if not math.isfinite(value) else f"the gradient of {bad[0]} is not finite"
    message = f"fit: {what} at step {run.step} (epoch {run.place.epoch + 1}); try a smaller learning_rate or clip_norm"
    if checkpoint_dir is not None:
        dumped = dump_failure(checkpoint_dir, run, batch, seed, model, loss)
        message += f". Checkpoints already in {os.fspath(checkpoint_dir)!r} are untouched"
        message += f"; replay the step with: minilstm replay {dumped}" if dumped else ""
    raise FloatingPointError(message)

