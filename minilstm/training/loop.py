"""The loop of `fit`: one window after another, what follows an epoch, and when something is saved."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..gradients import clip_by_global_norm, clip_by_value, global_norm, value_and_grad
from ..params import Tree, flatten_names, tree_leaves, tree_map
from ..progress import ProgressBar
from .history import HistoryFile
from .interruption import Interruption
from .replay import dump_failure
from .runstate import Place, RunState
from .truncation import Truncation, Window, counts, reset_rows, windows

LossFunction = Callable[..., Any]
EXPLODING = 1000.0  # a gradient norm so many times the mean of its epoch is worth a warning


class FitResult(NamedTuple):
    """What `fit` returns.

    `history` maps a quantity to a list with one entry an epoch. `baselines` are the losses of trivial forecasts on the
    training data (see `minilstm.training.baselines`). `averaged` is the moving average of the parameters, with
    `ema_decay`.
    """

    params: Tree
    opt_state: Any
    step: int
    history: dict[str, list[float]]
    baselines: dict[str, float]
    averaged: Tree = None


@dataclasses.dataclass(kw_only=True)
class Trainer:
    """A run of `fit`, which checks its arguments first and documents them.

    `run` is all that changes from step to step and is saved; the rest stays as it is. `model` and `loss` are None where
    `loss_fn` is the caller's own. `baselines` are the losses of trivial forecasts.
    """

    run: RunState
    loss_fn: LossFunction
    model: Any
    loss: Any
    optimizer: Any
    source: Any
    validation: Any
    truncation: Truncation | None
    epochs: int
    seed: int
    clip_norm: float | None
    clip_value: float | None
    early_stopping: int | None
    ema_decay: float | None
    callbacks: tuple[Callable[[FitResult], Any], ...]
    baselines: dict[str, float]
    checkpoint_dir: str | os.PathLike[str] | None
    checkpoint_every: int | None
    max_to_keep: int | None
    extra: Any

    def __post_init__(self) -> None:
        self._derive = value_and_grad(self.loss_fn, has_aux=True)
        self._donates = "donate" in inspect.signature(self.optimizer.update).parameters
        self._shown = True  # whether somebody else may hold the optimizer's state: then it is not written to
        self._saved: tuple[int, Place] | None = None  # where the run stood when it was last saved

    def load(self) -> None:
        """Go to where the newest checkpoint stands."""
        assert self.checkpoint_dir is not None
        self.run.load(self.checkpoint_dir)
        self._saved = self.run.step, self.run.place

    def train(self, progress: bool | None = None) -> FitResult:
        """Epoch after epoch, from where `run` stands to the last one, or to where something ends the run earlier."""
        run, batches = self.run, self.source.batches_per_epoch
        rows = HistoryFile(self.checkpoint_dir, run.place.epoch, self.baselines)
        done = run.place.epoch * batches + run.place.batch
        with (
            ProgressBar(self.epochs * batches, done, progress) as bar,
            Interruption(active=self.checkpoint_dir is not None) as interruption,
        ):
            while self._goes_on():
                started = time.perf_counter()
                self._train_epoch(bar, interruption)
                self._end_epoch()
                rows.append(run.place.epoch, run.step, run.history, time.perf_counter() - started)
                if not self.checkpoint_every or not self._goes_on():
                    self._save()
                wishes = [callback(self._result()) for callback in self.callbacks]  # all are called, also after a True
                self._shown = self._shown or bool(wishes)
                self._leave_if_asked(interruption)
                if any(wishes):
                    break
        self._save()
        if self.early_stopping is not None and run.best is not None:
            return self._result()._replace(params=run.best)
        return self._result()

    def _goes_on(self) -> bool:
        patience = math.inf if self.early_stopping is None else self.early_stopping
        return self.run.place.epoch < self.epochs and self._epochs_since_best() < patience

    def _epochs_since_best(self) -> int:
        values = self.run.history.get("val_loss")
        return len(values) - 1 - int(np.argmin(np.nan_to_num(values, nan=np.inf))) if values else 0

    def _train_epoch(self, bar: ProgressBar, interruption: Interruption) -> None:
        """The windows of an epoch, or what is left of them."""
        run = self.run
        for batch in self.source.epoch(run.place.epoch, run.place.batch):
            if self.source.continues and self.truncation is not None:
                new_start = functools.partial(self.model.initial_state, run.params, len(batch["inputs"]))
                run.carried = reset_rows(run.carried, batch.pop("reset", None), new_start)
            for window in self._windows_of(batch):
                if self._train_window(window):
                    self._leave_if_asked(interruption)
                    if self.checkpoint_every and run.step % self.checkpoint_every == 0:
                        self._save()
            latest = {"val": run.history["val_loss"][-1]} if run.history.get("val_loss") else {}
            numbers = {"loss": run.place.loss, "norm": run.place.norm, **latest, **self.baselines}
            bar.advance(len(tree_leaves(batch)[0]), numbers)

    def _windows_of(self, batch: Any) -> Iterator[Window]:
        """The windows of a batch: itself, where there is no truncation or where batches are windows already."""
        if self.truncation is not None and not self.source.continues:
            return windows(batch, self.truncation, self.run.place.window)
        time = 1 if self.truncation is None else batch["inputs"].shape[1]
        return iter([Window(batch, time, time, last=True)])

    def _train_window(self, window: Window) -> bool:
        """One update, or none where no step of the window has a weight: then the state goes through it all the same."""
        run, rng = self.run, [self.seed, 0, self.run.step]
        start = None if self.truncation is None else run.carried
        learns, state = counts(window.batch), None
        if learns:
            (value, state), grads = self._derive(run.params, window.batch, start, rng)
            norm = global_norm(grads)
            grads = self._checked_and_clipped(grads, norm, value, window.batch)
        run.carried = self._state_after(window, start, rng, state)
        if learns:
            donate = {"donate": True} if self._donates and not self._shown else {}
            run.params, run.opt_state = self.optimizer.update(run.params, grads, run.opt_state, **donate)
            self._shown = False
            if self.ema_decay is not None:
                run.averaged = ema_update(run.averaged, run.params, self.ema_decay)
            run.step += 1
            run.place = run.place.after_update(float(value), norm, entries_of(window.batch))
        run.place = run.place.after_window(window.last)
        return learns

    def _checked_and_clipped(self, grads: Tree, norm: float, value: Any, batch: Any) -> Tree:
        """The gradients within their bounds; FloatingPointError where they, or the loss, are not finite."""
        run = self.run
        if not (math.isfinite(value) and math.isfinite(norm)):
            self._stop(value, grads, batch)
        bounded = self.clip_norm is not None or self.clip_value is not None
        if not bounded and norm > EXPLODING * run.place.norm > 0:
            warnings.warn(
                f"fit: the gradient's norm at step {run.step} is {norm:.3g}, {norm / run.place.norm:.3g} "
                "times the mean of its epoch; clip_norm would bound it",
                RuntimeWarning,
                stacklevel=6,  # who called fit
            )
        if self.clip_value is not None:
            grads = clip_by_value(grads, self.clip_value)
        if self.clip_norm is not None:
            grads, _ = clip_by_global_norm(grads, self.clip_norm)
        return grads

    def _stop(self, value: Any, grads: Tree, batch: Any) -> None:
        """Raise what tells where a loss or gradient was not finite; the failing step is left behind to be replayed."""
        run, directory = self.run, self.checkpoint_dir
        bad = [name for name, grad in flatten_names(grads).items() if not np.isfinite(grad).all()]
        what = f"the loss is {float(value)}" if not math.isfinite(value) else f"the gradient of {bad[0]} is not finite"
        message = f"fit: {what} at step {run.step} (epoch {run.place.epoch + 1}); "
        message += "try a smaller learning_rate or clip_norm"
        if directory is not None:
            dumped = dump_failure(directory, run, batch, self.seed, self.model, self.loss)
            message += f". Checkpoints already in {os.fspath(directory)!r} are untouched"
            message += f"; replay the step with: minilstm replay {dumped}" if dumped else ""
        raise FloatingPointError(message)

    def _state_after(self, window: Window, start: Any, rng: Any, state: Any) -> Any:
        """The state at the start of the next window: `state`, the one behind this window, or one in the midst of it.

        None where nothing is carried: without truncation, and from one batch of arrays to the next.
        """
        if self.truncation is None or (window.last and not self.source.continues):
            return None
        inputs = window.batch["inputs"]
        if window.advance == 0:
            return start
        if state is not None and window.advance == inputs.shape[1]:
            return state
        lengths = window.batch.get("sequence_length", np.full(len(inputs), inputs.shape[1]))
        # The whole window again, so that dropout draws the same masks, but no further than where the next one starts.
        stop = np.minimum(lengths, window.advance)
        return self.model.apply(self.run.params, inputs, state=start, sequence_length=stop, rng=rng)[1]

    def _end_epoch(self) -> None:
        """The epoch's numbers into the history, and on to the next one."""
        run = self.run
        run.history["loss"].append(run.place.loss)
        run.history["grad_norm"].append(run.place.norm)
        if self.validation is not None:
            tested = run.params if run.averaged is None else run.averaged
            carry = None if self.truncation is None else self.model
            run.history["val_loss"].append(evaluate(self.loss_fn, tested, self.validation, carry))
            if self.early_stopping is not None and self._epochs_since_best() == 0:
                run.best = tested
        run.place = Place(epoch=run.place.epoch + 1)
        run.carried = None

    def _save(self) -> None:
        """Save, unless the run stands where it was last saved."""
        here = self.run.step, self.run.place
        if self.checkpoint_dir is not None and self._saved != here:
            self.run.save(self.checkpoint_dir, self.model, self.extra, self.max_to_keep)
            self._saved = here

    def _leave_if_asked(self, interruption: Interruption) -> None:
        """After a signal, save and end the program with one line that says how to go on."""
        if interruption.wanted is None:
            return
        assert self.checkpoint_dir is not None
        self._save()
        print(
            f"\nfit: stopped by signal {interruption.wanted} at step {self.run.step}; saved in "
            f"{os.fspath(self.checkpoint_dir)!r}: the same call with resume=True (for an experiment: --resume) goes on",
            file=sys.stderr,
        )
        raise SystemExit(128 + interruption.wanted)

    def _result(self) -> FitResult:
        run = self.run
        return FitResult(run.params, run.opt_state, run.step, run.history, self.baselines, run.averaged)


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
        count = entries_of(batch)
        total += float(value) * count
        entries += count
    return total / entries


def entries_of(batch: Any) -> float:
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
