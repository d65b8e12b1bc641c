"""fit: the training loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from . import checkpoint
from .data import ArraySource, as_batch, as_source
from .gradients import clip_by_global_norm, global_norm, value_and_grad
from .history import HistoryFile
from .layers.base import params_dtype
from .params import Tree, check_same_structure, tree_leaves
from .progress import ProgressBar

LossFunction = Callable[..., Any]
CHECKPOINT_NAME = "model.ckpt"


class FitResult(NamedTuple):
    """What `fit` returns. `history` maps a quantity to a list with one entry an epoch."""

    params: Tree
    opt_state: Any
    step: int
    history: dict[str, list[float]]


class _Place(NamedTuple):
    """Where a run stands: the epoch, the step within it, and the sums of the epoch so far."""

    epoch: int = 0
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    sequences: int = 0

    def after(self, loss: float, norm: float, sequences: int) -> _Place:
        return self._replace(
            step_in_epoch=self.step_in_epoch + 1,
            loss_sum=self.loss_sum + loss * sequences,
            norm_sum=self.norm_sum + norm,
            sequences=self.sequences + sequences,
        )


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
    seed : int, default 0
        Randomness is a function of it and of the place: dropout of step s draws from ``default_rng([seed, 0, s])``,
        the order of epoch k from ``default_rng([seed, 1, k])``.
    loss_fn : callable, optional
        ``(params, batch, state, rng) -> (loss, state)`` in place of `model` and `loss`.
    steps_per_epoch : int, optional
        How many batches an epoch has; for a callable or an iterable alone, and needed there.
    validation_data : optional
        A tree of arrays as `data`; its loss, without dropout, is `val_loss` in the history.
    clip_norm : float, optional
        Bound on the global norm of the gradient.
    callbacks : functions
        Each is called with a `FitResult` after every epoch; one that returns True ends the run.
    progress : bool, optional
        Show a progress bar; default where there is a terminal or a notebook.
    checkpoint_dir : path, optional
        Save there at the end of every epoch, and write ``history.csv``. A directory that holds a run is refused unless
        `resume`.
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
        ``(params, opt_state, step, history)``; history holds `loss`, `grad_norm` (before clipping) and `val_loss`,
        each the mean over an epoch.

    Raises
    ------
    ValueError
        For arguments that do not fit, before anything is written.
    FloatingPointError
        Where the loss or a gradient is not finite; what was saved before stays untouched.
    """
    if loss_fn is None:
        if model is None or loss is None:
            raise ValueError("fit: wanted model and loss, or loss_fn")
        loss_fn = model_loss(model, loss)
    elif model is not None or loss is not None:
        raise ValueError("fit: loss_fn stands in place of model and loss; wanted one or the other, got both")
    plain = model is None
    if params is None or data is None:
        raise ValueError(f"fit: {'params' if params is None else 'data'} is missing")
    for name, value in (("epochs", epochs), ("checkpoint_every", checkpoint_every)):
        if value is not None and (value != int(value) or value < 1):
            raise ValueError(f"fit: {name} must be a whole number of at least 1, got {value!r}")
    dtype = params_dtype(params, np.float32)
    source = as_source(
        data, dtype, batch_size=batch_size, seed=seed, steps_per_epoch=steps_per_epoch, resume=resume, plain=plain
    )
    validation = None
    if validation_data is not None:
        tree = validation_data if plain else as_batch(validation_data, "fit: validation_data")
        validation = ArraySource(tree, dtype, batch_size, seed, "fit: validation_data")

    opt_state, place = optimizer.init(params), _Place()
    history: dict[str, list[float]] = {"loss": [], "grad_norm": [], **({"val_loss": []} if validation else {})}
    if checkpoint_dir is not None and checkpoint.latest_checkpoint(checkpoint_dir) is not None:
        if not resume:
            raise ValueError(
                f"fit: checkpoint_dir {os.fspath(checkpoint_dir)!r} already holds a run; pass resume=True to go on "
                "with it, or choose another directory"
            )
        params, opt_state, place, history = _resume(checkpoint_dir, params, opt_state)
    step = int(opt_state.step)
    saved_at = step if resume else -1

    def save() -> None:
        if checkpoint_dir is not None:
            checkpoint.save_checkpoint(
                os.path.join(checkpoint_dir, CHECKPOINT_NAME), params, opt_state=opt_state, step=step, model=model,
                extra=extra, training={"place": place._asdict(), "history": history}, max_to_keep=max_to_keep,
            )  # fmt: skip

    step_function = value_and_grad(loss_fn, has_aux=True)
    rows = HistoryFile(checkpoint_dir, place.epoch)
    total = epochs * source.steps_per_epoch
    with ProgressBar(total, step, progress) as bar:
        while place.epoch < epochs:
            started = time.perf_counter()
            for batch in source.epoch(place.epoch, place.step_in_epoch):
                (value, _), grads = step_function(params, batch, None, [seed, 0, step])
                norm = global_norm(grads)
                _check_finite(value, norm, grads, step, place.epoch, checkpoint_dir)
                if clip_norm is not None:
                    grads, _ = clip_by_global_norm(grads, clip_norm)
                params, opt_state = optimizer.update(params, grads, opt_state)
                step += 1
                place = place.after(float(value), norm, len(tree_leaves(batch)[0]))
                bar.advance(loss=place.loss_sum / place.sequences)
                if checkpoint_every and step % checkpoint_every == 0 and place.step_in_epoch < source.steps_per_epoch:
                    save()
                    saved_at = step
            history["loss"].append(place.loss_sum / place.sequences)
            history["grad_norm"].append(place.norm_sum / source.steps_per_epoch)
            if validation is not None:
                history["val_loss"].append(evaluate(loss_fn, params, validation))
            place = _Place(epoch=place.epoch + 1)
            if not checkpoint_every or step % checkpoint_every == 0 or place.epoch == epochs:
                save()
                saved_at = step
            rows.append(place.epoch, step, history, time.perf_counter() - started)
            result = FitResult(params, opt_state, step, history)
            wishes = [callback(result) for callback in callbacks]  # every callback is called, also after a True
            if any(wishes):
                break
        if saved_at != step:
            save()
    return FitResult(params, opt_state, step, history)


def model_loss(model: Any, loss: LossFunction) -> LossFunction:
    """The ``loss_fn`` of a model and a loss on batches that are dicts."""

    def loss_fn(params: Tree, batch: dict[str, Any], state: Any, rng: Any) -> tuple[Any, Any]:
        outputs, state = model.apply(
            params, batch["inputs"], state=state, sequence_length=batch.get("sequence_length"), rng=rng
        )
        return loss(outputs, batch["targets"], batch.get("weights")), state

    return loss_fn


def evaluate(loss_fn: LossFunction, params: Tree, source: ArraySource) -> float:
    """The mean loss over all sequences of a source, without dropout."""
    total, sequences = 0.0, 0
    for batch in source.epoch(0):
        size = len(tree_leaves(batch)[0])
        total += float(loss_fn(params, batch, None, None)[0]) * size
        sequences += size
    return total / sequences


def _check_finite(value: Any, norm: float, grads: Tree, step: int, epoch: int, checkpoint_dir: Any) -> None:
    if np.isfinite(value) and np.isfinite(norm):
        return
    what = f"the loss is {float(value)}" if not np.isfinite(value) else "a gradient is not finite"
    kept = "" if checkpoint_dir is None else f"; checkpoints already in {os.fspath(checkpoint_dir)!r} are untouched"
    raise FloatingPointError(
        f"fit: {what} at step {step} (epoch {epoch + 1}); try a smaller learning_rate or clip_norm{kept}"
    )


def _resume(directory: Any, params: Tree, opt_state: Any) -> tuple[Tree, Any, _Place, dict[str, list[float]]]:
    """The parameters, optimizer state, place and history that the newest checkpoint holds."""
    loaded = checkpoint.load_checkpoint(directory, like=params)
    if loaded.training is None:
        raise checkpoint.CheckpointError(f"fit: {loaded.prefix} was not written by fit: it has no minilstm/training")
    stateless = loaded.opt_state is None and len(opt_state) == 1  # SGD has only a step, and no slots tell of it
    found = opt_state._replace(step=loaded.step) if stateless else loaded.opt_state
    if type(found) is not type(opt_state):
        raise checkpoint.CheckpointError(
            f"fit: {loaded.prefix} holds {type(found).__name__}, but the optimizer wants {type(opt_state).__name__}"
        )
    check_same_structure(opt_state, found)
    return loaded.params, found, _Place(**loaded.training["place"]), loaded.training["history"]
