"""The training loop: one update after another, what happens at the end of an epoch, and when a checkpoint is saved."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..arguments import check_number
from ..checkpoint import Checkpoint
from ..gradients import clip_by_global_norm, clip_by_value, global_norm, value_and_grad
from ..params import Tree, flatten_names, rows_like, tree_leaves, tree_map, tree_unflatten
from ..progress import ProgressBar
from .evaluation import LossFunction, entries_of, evaluate
from .folder import RunFolder
from .history import HistoryFile
from .interruption import Interruption
from .replay import dump_failure
from .resume import resume
from .runstate import Place, RunState
from .sources import Source
from .truncation import Truncation, Window, has_weight, reset_rows, windows

EXPLODING = 1000.0  # warn if a gradient norm is this many times the mean of its epoch


class FitResult(NamedTuple):
    """What `fit` returns.

    `history` maps each quantity to a list with one entry an epoch. `baselines` are the losses of trivial forecasts on
    the training data, or on their first batch if data are not arrays (see `minilstm.training.baselines`). `averaged` is
    the moving average of the parameters, if `ema_decay` was given.
    """

    params: Tree
    opt_state: Any
    step: int
    history: dict[str, list[float]]
    baselines: dict[str, float]
    averaged: Tree = None


@dataclasses.dataclass
class Trainer:
    """One run of `fit`.

    `options` has every argument of `fit`, checked, as an attribute. `run` holds all that changes from step to step and
    is saved; the rest is constant. `baselines` are the losses of trivial forecasts, `started` is the record that every
    checkpoint gets. `folder` is where they go, or None.
    """

    options: Any
    loss_fn: LossFunction
    source: Source
    validation: Source | None
    truncation: Truncation | None
    baselines: dict[str, float]
    started: dict[str, Any] | None = None
    folder: RunFolder | None = None

    def __post_init__(self) -> None:
        params, optimizer = self.options.params, self.options.optimizer
        names = ["loss", "grad_norm"] if self.validation is None else ["loss", "grad_norm", "val_loss"]
        history: dict[str, list[float]] = {name: [] for name in names}
        averaged = None if self.options.ema_decay is None else params
        self.run = RunState(params, optimizer.init(params), 0, Place(), history, averaged=averaged)
        self._any_tree = self.options.loss_fn is not None
        self._derive = value_and_grad(self.loss_fn, has_aux=True)
        self._can_donate = "donate" in inspect.signature(optimizer.update).parameters
        self._state_is_shared = True  # if others may hold the optimizer's state, the optimizer must not write into it
        self._saved: Any = None  # of the last checkpoint: step, place, whether it has the best parameters in front

    def load(self, loaded: Checkpoint) -> None:
        """Take everything from a checkpoint, so that `train` resumes from it."""
        as_best = resume(self.run, loaded, self.options, self.started or {})
        self._saved = self.run.step, self.run.place, as_best
        self._check_best()

    def _check_best(self) -> None:
        """Let early stopping count from here if the best parameters so far have another loss on today's validation
        data.
        """
        run = self.run
        if run.best is not None and self.validation is not None:
            then, now = min(run.history["val_loss"][run.counted_from :]), self._validated(run.best)
            if not math.isclose(then, now, rel_tol=1e-3):
                run.best, run.counted_from = None, run.place.epoch
                warnings.warn(
                    f"fit: on these validation data the best parameters so far have the loss {now:.4g}, not {then:.4g} "
                    "as before: they are other data, so early stopping counts from here",
                    UserWarning,
                    stacklevel=4,  # the caller of fit
                )

    def _validated(self, params: Tree) -> float:
        """The loss on the validation data."""
        carry = None if self.truncation is None else self.options.model
        return evaluate(self.loss_fn, params, self.validation, carry, self._any_tree)  # type: ignore[arg-type]

    def train(self) -> FitResult:
        """Train from the current place to the last epoch; early stopping, a callback or a signal may end it earlier."""
        run, options, batches = self.run, self.options, self.source.batches_per_epoch
        directory = None if self.folder is None else self.folder.directory
        rows = HistoryFile(directory, run.history, run.steps, self.baselines)
        done = run.place.epoch * batches + run.place.batch
        with (
            ProgressBar(options.epochs * batches, done, options.progress) as bar,
            Interruption(active=self.folder is not None) as interruption,
        ):
            while not self._is_over():
                started = time.perf_counter()
                self._train_epoch(bar, interruption)
                self._end_epoch()
                seconds = time.perf_counter() - started
                if not options.checkpoint_every or self._is_over():
                    self._save(ended=self._is_over())
                rows.append(run.place.epoch, run.step, run.history, seconds)
                shown = _read_only(self._result())
                wishes = [_wish(callback, shown) for callback in options.callbacks]  # all, even after a True
                self._state_is_shared = self._state_is_shared or bool(wishes)
                self._exit_if_signalled(interruption)
                if any(wishes):
                    break
        self._save(ended=True)
        return self._result()._replace(params=run.params if run.best is None else run.best)

    def _is_over(self) -> bool:
        """Whether all epochs are done, or early stopping ends the run."""
        patience = math.inf if self.options.early_stopping is None else self.options.early_stopping
        return self.run.place.epoch >= self.options.epochs or self._epochs_since_best() >= patience

    def _epochs_since_best(self) -> int:
        values = self.run.history.get("val_loss", [])[self.run.counted_from :]
        return len(values) - 1 - int(np.argmin(np.nan_to_num(values, nan=np.inf))) if values else 0

    def _train_epoch(self, bar: ProgressBar, interruption: Interruption) -> None:
        """Train on the batches of the epoch that are left."""
        run, every = self.run, self.options.checkpoint_every
        for batch in self.source.epoch(run.place.epoch, run.place.batch):
            if self.source.continues and self.truncation is not None:
                initial = functools.partial(self.options.model.initial_state, run.params, len(batch["inputs"]))
                run.carried = reset_rows(run.carried, batch.pop("reset", None), initial)
            for window in self._windows_of(batch):
                step = run.step
                self._train_window(window)
                if run.step > step:
                    self._exit_if_signalled(interruption)
                    if every and run.step % every == 0:
                        self._save()
            latest = {"val": run.history["val_loss"][-1]} if run.history.get("val_loss") else {}
            numbers = {"loss": run.place.loss, "norm": run.place.norm, **latest, **self.baselines}
            bar.advance(len(tree_leaves(batch)[0]), numbers)

    def _windows_of(self, batch: Any) -> Iterator[Window]:
        """Cut a batch into windows; without truncation, or if batches are windows already, it is one window."""
        if self.truncation is not None and not self.source.continues:
            return windows(batch, self.truncation, self.run.place.window)
        return iter([Window(batch, 1 if self.truncation is None else batch["inputs"].shape[1], last=True)])

    def _train_window(self, window: Window) -> None:
        """Make one update, or none if no step of the window has a weight; the state runs through it in both cases."""
        run, rng = self.run, [self.options.seed, 0, self.run.step]
        start = None if self.truncation is None else run.carried
        if self._any_tree or has_weight(window.batch):
            (value, state), grads = self._derive(run.params, window.batch, start, rng)
            norm = global_norm(grads)
            grads = self._checked_and_clipped(grads, norm, value, window.batch)
            run.carried = self._state_after(window, start, rng, state)
            self._update(grads)
            run.place = run.place.after_update(float(value), norm, entries_of(window.batch, self._any_tree))
        else:
            run.carried = self._state_after(window, start, rng, None)
        run.place = run.place.after_window(window.last)

    def _checked_and_clipped(self, grads: Tree, norm: float, value: Any, batch: Any) -> Tree:
        """Return the gradients within their bounds; raise FloatingPointError if they or the loss are not finite."""
        run, options = self.run, self.options
        if not (math.isfinite(value) and math.isfinite(norm)):
            self._fail(value, grads, batch)
        if options.clip_norm is None and options.clip_value is None and norm > EXPLODING * run.place.norm > 0:
            warnings.warn(
                f"fit: the gradient's norm at step {run.step} is {norm:.3g}, {norm / run.place.norm:.3g} "
                "times the mean of its epoch; clip_norm would bound it",
                RuntimeWarning,
                stacklevel=6,  # the caller of fit
            )
        if options.clip_value is not None:
            grads = clip_by_value(grads, options.clip_value)
        if options.clip_norm is not None:
            grads, _ = clip_by_global_norm(grads, options.clip_norm)
        return grads

    def _fail(self, value: Any, grads: Tree, batch: Any) -> None:
        """Raise FloatingPointError for a loss or gradient that is not finite, and keep the step for `replay`."""
        run, options = self.run, self.options
        bad = [name for name, grad in flatten_names(grads).items() if not np.isfinite(grad).all()]
        what = f"the loss is {float(value)}" if not math.isfinite(value) else f"the gradient of {bad[0]} is not finite"
        message = f"fit: {what} at step {run.step} (epoch {run.place.epoch + 1}); "
        message += "try a smaller learning_rate or clip_norm"
        if self.folder is not None:
            dumped = dump_failure(self.folder.directory, run, batch, options.seed, options.model, options.loss)
            message += f". Checkpoints already in {os.fspath(options.checkpoint_dir)!r} are untouched"
            message += f"; replay the step with: minilstm replay {dumped}" if dumped else ""
        raise FloatingPointError(message)

    def _check_params(self) -> None:
        """Raise FloatingPointError, before anything is saved, if an update made a parameter that is not finite."""
        params = self.run.params
        if not all(np.isfinite(leaf).all() for leaf in tree_leaves(params)):
            bad = next(name for name, array in flatten_names(params).items() if not np.isfinite(array).all())
            raise FloatingPointError(
                f"fit: the parameter {bad} is not finite after step {self.run.step} (epoch "
                f"{self.run.place.epoch + 1}); try a smaller learning_rate or clip_norm"
            )

    def _state_after(self, window: Window, start: Any, rng: Any, state: Any) -> Any:
        """Return the state that the next window starts from; `state` is the one at the end of this window, if known.

        None if nothing is carried: without truncation, and from one batch of arrays to the next.
        """
        if self.truncation is None or (window.last and not self.source.continues):
            return None
        inputs = window.batch["inputs"]
        if window.advance == 0:
            return start
        if state is not None and window.advance == inputs.shape[1]:
            return state
        lengths = window.batch.get("sequence_length", np.full(len(inputs), inputs.shape[1]))
        # Run the whole window again, so that dropout draws the same masks, but stop where the next window starts.
        stop = np.minimum(lengths, window.advance)
        return self.options.model.apply(self.run.params, inputs, state=start, sequence_length=stop, rng=rng)[1]

    def _update(self, grads: Tree) -> None:
        """Let the optimizer change the parameters, and average them."""
        run, decay = self.run, self.options.ema_decay
        donate = {"donate": True} if self._can_donate and not self._state_is_shared else {}
        updated = self.options.optimizer.update(run.params, grads, run.opt_state, **donate)
        if not isinstance(updated, tuple) or len(updated) != 2:
            raise ValueError(f"fit: optimizer: update must return (params, state), got {updated!r:.80}")
        run.params, run.opt_state = updated
        self._state_is_shared = False
        if decay is not None:
            run.averaged = ema_update(run.averaged, run.params, decay)
        run.step += 1

    def _end_epoch(self) -> None:
        """Add the epoch's numbers to the history, and go to the start of the next epoch."""
        run = self.run
        self._check_params()
        run.history["loss"].append(run.place.loss)
        run.history["grad_norm"].append(run.place.norm)
        if self.validation is not None:
            tested = run.params if run.averaged is None else run.averaged
            run.history["val_loss"].append(self._validated(tested))
            if self.options.early_stopping is not None and self._epochs_since_best() == 0:
                run.best = tested
        elif "val_loss" in run.history:  # of a run that had validation data when it began
            run.history["val_loss"].append(math.nan)
        run.steps.append(run.step)
        run.place = Place(epoch=run.place.epoch + 1)
        run.carried = None

    def _save(self, ended: bool = False) -> None:
        """Save a checkpoint, unless the last one is of this place; once the run has ended, what `fit` returns."""
        run, options = self.run, self.options
        here = run.step, run.place, ended and run.best_is_apart
        if self.folder is not None and self._saved != here:
            self._check_params()
            run.save(
                self.folder, options.model, options.extra, options.max_to_keep, started=self.started,
                as_best=here[-1],
            )  # fmt: skip
            self._saved = here

    def _exit_if_signalled(self, interruption: Interruption) -> None:
        """After a signal, save and end the program with one line that says how to resume."""
        if interruption.wanted is None:
            return
        self._save()
        print(
            f"\nfit: stopped by signal {interruption.wanted} at step {self.run.step}; saved in "
            f"{os.fspath(self.options.checkpoint_dir)!r}: the same call with resume=True (for an experiment: --resume) "
            "continues the run",
            file=sys.stderr,
        )
        raise SystemExit(128 + interruption.wanted)

    def _result(self) -> FitResult:
        run = self.run
        history = {name: [*values] for name, values in run.history.items()}
        return FitResult(run.params, run.opt_state, run.step, history, {**self.baselines}, run.averaged)


def _read_only(tree: Tree) -> Tree:
    """A tree whose arrays cannot be written to: what a callback changes would be neither saved nor resumed."""

    def shown(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            leaf = leaf.view()
            leaf.flags.writeable = False
        return leaf

    return tree_map(shown, tree)


def _wish(callback: Any, result: FitResult) -> bool:
    """Whether a callback wants the run to end. Many functions return something, such as a path or a count."""
    wish = callback(result)
    if wish is not None and not isinstance(wish, (bool, np.bool_)):
        raise ValueError(
            f"fit: callbacks: each must return True to end the run, or False or None; {callback!r:.80} returned "
            f"{wish!r:.80}"
        )
    return bool(wish)


def ema_update(averaged: Tree, params: Tree, decay: float) -> Tree:
    """Return ``decay * averaged + (1 - decay) * params``: one step of an exponential moving average.

    Raises ValueError if the trees or the shapes of their arrays differ, or `decay` is not from 0 to 1.
    """
    decay = check_number(decay, "decay", "ema_update", least=0, most=1)
    rows = rows_like(params, "ema_update", {"averaged": averaged})
    return tree_unflatten(params, iter([a - (1 - decay) * (a - w) for w, a in rows]))
