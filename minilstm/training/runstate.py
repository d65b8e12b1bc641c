"""Where a run resumes: all that changes while `fit` runs, written to a checkpoint and read back.

Parameters, optimizer slots and averages have TensorFlow's names. minilstm adds the place in the data, the history, the
carried state and the best parameters so far: JSON in ``minilstm/training``, arrays under ``minilstm/carried`` and
``minilstm/best``. Randomness is a function of seed and place, so no random generator is stored.

Once a run with early stopping has ended, its last checkpoint is what `fit` returned: the best parameters have the plain
names. The last ones and their optimizer's state are then under ``minilstm/last``, and from there the run can go on.
What an optimizer of your own remembers has no names in TensorFlow, and is under ``minilstm/slots``.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
from typing import Any, NamedTuple

import numpy as np

from ..checkpoint import Checkpoint, CheckpointError, has_slot_names, save_checkpoint
from ..checkpoint.names import arranged
from ..params import Tree, flatten_names, tree_leaves, tree_map, tree_rows, unflatten_names
from .carried import describe_structure, own_tensors, read_state, state_tensors
from .folder import NAME, RunFolder


class Place(NamedTuple):
    """The place of a run in its data (epoch, batch of the epoch, window of the batch), and the epoch's sums so far."""

    epoch: int = 0
    batch: int = 0
    window: int = 0
    updates: int = 0
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    entries: float = 0.0

    def after_window(self, last: bool) -> Place:
        """Return the place after a window; `last` says whether it was the last of its batch."""
        return self._replace(batch=self.batch + last, window=0 if last else self.window + 1)

    def after_update(self, loss: float, norm: float, entries: float) -> Place:
        """Return the place after one update, whose loss is the mean over `entries` (weighted) entries."""
        return self._replace(
            updates=self.updates + 1,
            loss_sum=self.loss_sum + loss * entries,
            norm_sum=self.norm_sum + norm,
            entries=self.entries + entries,
        )

    @property
    def loss(self) -> float:
        """The mean loss of the epoch so far."""
        return self.loss_sum / self.entries if self.entries else math.nan

    @property
    def norm(self) -> float:
        """The mean gradient norm of the epoch so far."""
        return self.norm_sum / max(self.updates, 1)


@dataclasses.dataclass
class RunState:
    """What changes while a run is training."""

    params: Tree
    opt_state: Any
    step: int
    place: Place
    history: dict[str, list[float]]
    carried: Tree = None  # the recurrent state that the next window starts from
    averaged: Tree = None  # the exponential moving average of the parameters
    best: Tree = None  # the parameters of the epoch with the lowest validation loss
    counted_from: int = 0  # early stopping looks at the epochs from here on: of those before, no best was kept
    steps: list[int] = dataclasses.field(default_factory=list)  # the step at the end of every epoch

    @property
    def best_is_apart(self) -> bool:
        """Whether the best parameters are others than the last."""
        pairs = zip(tree_leaves(self.best), tree_leaves(self.params), strict=False)
        return self.best is not None and not all(np.array_equal(best, last) for best, last in pairs)

    def save(
        self, folder: RunFolder, model: Any, extra: Any, max_to_keep: int | None, *,
        started: Any = None, as_best: bool = False,
    ) -> None:  # fmt: skip
        """Write a checkpoint into the run's folder; `started` is the record of `started_with`.

        With `as_best`, the plain names get the best parameters, and what the run goes on with is under
        ``minilstm/last``.
        """
        own, kind = state_tensors("carried", self.carried), type(self.opt_state).__name__
        own_slots = None if has_slot_names(self.opt_state) else tuple(self.opt_state[1:])  # the first is the step
        own.update(state_tensors("slots", own_slots))
        if as_best:
            own.update({f"last/params/{name}": value for name, value in flatten_names(self.params).items()})
            for field in self.opt_state._fields[1:] if own_slots is None else ():
                own.update(flatten_names(getattr(self.opt_state, field), f"last/{field}"))
        else:
            own.update({f"best/{name}": value for name, value in flatten_names(self.best or {}).items()})
        training = {
            "place": self.place._asdict(), "history": self.history, "carried": describe_structure(self.carried),
            "state": None if as_best else kind, "counted_from": self.counted_from, "steps": self.steps,
            **({} if started is None else {"started": started}), **({"last": kind} if as_best else {}),
            **({} if own_slots is None else {"slots": describe_structure(own_slots)}),
        }  # fmt: skip
        prefix = save_checkpoint(
            os.path.join(folder.directory, NAME), self.best if as_best else self.params,
            opt_state=self.opt_state if own_slots is None and not as_best else None, step=self.step, model=model,
            extra=extra, training=training, averaged=self.averaged, own=own, publish=False,
        )  # fmt: skip
        folder.publish(prefix, self.step, max_to_keep)

    def load(self, loaded: Checkpoint) -> None:
        """Replace everything by what `save` wrote.

        Raises ValueError or KeyError if it is damaged, or of another structure than what is here now.
        """
        training, like = loaded.training, self.params
        if loaded.step is None:
            raise ValueError("there is no global_step")
        place, history = _as_place(training["place"]), training["history"]
        counted_from = training.get("counted_from", 0)
        _check_history(history, place.epoch)
        if not _is_count(counted_from):
            raise ValueError(f"counted_from must be a whole number, got {counted_from!r}")
        steps = training.get("steps", [])
        if not isinstance(steps, list) or not all(map(_is_count, steps)):
            raise ValueError(f"steps must be a list of whole numbers, got {steps!r:.100}")
        params = _fitting(loaded.params, like)
        opt_state, best = loaded.opt_state, own_tensors(loaded, "best")
        if "last" in training:
            last, best = own_tensors(loaded, "last"), flatten_names(params)
            params = _fitting(_tree_like(last, "params", like), like)
        if not has_slot_names(self.opt_state):
            slots = read_state(loaded, "slots", training["slots"])
            self.opt_state = type(self.opt_state)(loaded.step, *slots)
        else:
            if "last" in training:
                fields = self.opt_state._fields[1:]
                opt_state = self.opt_state._replace(**{name: _tree_like(last, name, like) for name in fields})
            elif len(self.opt_state) == 1:  # no slots
                opt_state = self.opt_state
            self.opt_state = _checked_state(opt_state, self.opt_state, loaded.notes)._replace(step=loaded.step)
        self.averaged = None if loaded.averaged is None else _fitting(loaded.averaged, like)
        self.best = unflatten_names(arranged(best, like)) if best else None
        self.carried = read_state(loaded, "carried", training["carried"])
        # JSON has sorted the names.
        self.history = {name: history[name] for name in (*self.history, *history) if name in history}
        self.params, self.step, self.place = params, loaded.step, place
        self.counted_from, self.steps = counted_from, steps


def check_can_be_saved(opt_state: Any) -> None:
    """Raise ValueError for an optimizer's first state that `RunState.load` could not make again from what was saved."""
    wanted = "fit: optimizer: to be saved in checkpoint_dir, its state must be a named tuple that begins with step"
    if getattr(opt_state, "_fields", ("",))[0] != "step":
        raise ValueError(f"{wanted}, got {opt_state!r:.80}")
    for field, slots in [*opt_state._asdict().items()][1:]:
        for name, value in flatten_names(slots, field).items():
            is_number = isinstance(value, (np.ndarray, np.generic, bool, int, float))
            if not is_number or np.asarray(value).dtype.kind not in "fiub":
                raise ValueError(f"{wanted}, of numbers, arrays and nested dicts of them, got {value!r:.80} as {name}")


def rehearse(params: Tree, optimizer: Any, with_names: bool) -> None:
    """Save a run of small arrays, and load it again: what cannot be saved, or comes back under other names, is refused
    before the first step.

    Raises ValueError. Without `with_names`, a model says what the names mean, and only saving is tried.
    """
    small = tree_map(lambda w: np.ones((1,) * np.ndim(w), np.asarray(w).dtype), params)
    run = RunState(small, optimizer.init(small), 0, Place(), {"loss": [], "grad_norm": []})
    with tempfile.TemporaryDirectory() as directory:
        try:
            run.save(RunFolder(directory), None, None, None)
            loaded = RunFolder(directory).newest() if with_names else None
            if loaded is not None:
                run.load(loaded)
                tree_rows(params, run.params)  # a ValueError if they are nested in another way
        except (CheckpointError, ValueError, TypeError, KeyError) as error:
            fault = str(error).removeprefix("save_checkpoint: ").replace(directory, "")
            raise ValueError(f"fit: params: a checkpoint cannot hold their names or dtypes: {fault}") from error


# --- checks of what is read -----------------------------------------------------------------------------------


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _as_place(stored: Any) -> Place:
    place = Place(**stored)
    for name, default in Place._field_defaults.items():
        value = getattr(place, name)
        is_number = isinstance(value, float) or _is_count(value)
        if not (_is_count(value) if isinstance(default, int) else is_number):
            raise ValueError(f"place: {name} must be a number, got {value!r:.80}")
    return place


def _check_history(history: Any, epochs: int) -> None:
    if not isinstance(history, dict) or not {"loss", "grad_norm"} <= history.keys():
        raise ValueError(f"history must hold loss and grad_norm, got {history!r:.100}")
    for name, values in history.items():
        if not name.isprintable() or name in ("epoch", "step", "seconds"):  # it is a column of history.csv
            raise ValueError(f"history: {name!r:.80} is not the name of a loss or a metric")
        if not isinstance(values, list) or not all(isinstance(value, (int, float)) for value in values):
            raise ValueError(f"history: {name} must be a list of numbers, got {values!r:.100}")
        if len(values) != epochs:
            raise ValueError(f"history: {name} has {len(values)} entries after {epochs} epochs")


def _fitting(tree: Tree, like: Tree) -> Tree:
    """A tree in the order of another; ValueError if names, shapes or dtypes differ."""
    return unflatten_names(arranged(flatten_names(tree), like))


def _tree_like(tensors: dict[str, Any], folder: str, like: Tree) -> Any:
    """The scalar `folder`, or the tree of the arrays in that folder, in the order of the parameters `like`."""
    if folder in tensors:
        return tensors[folder]
    return unflatten_names({name: tensors[f"{folder}/{name}"] for name in flatten_names(like)})


def _checked_state(opt_state: Any, like: Any, notes: tuple[str, ...]) -> Any:
    """The state of an optimizer in the order and with the dtypes of a new one; ValueError if it is of another kind."""
    if type(opt_state) is not type(like):
        raise ValueError(f"there is no whole {type(like).__name__}{''.join(f'; {note}' for note in notes)}")
    for field in like._fields[1:]:
        value, wanted = getattr(opt_state, field), getattr(like, field)
        if isinstance(wanted, dict):
            try:
                opt_state = opt_state._replace(**{field: _fitting(value, wanted)})
            except ValueError as error:
                raise ValueError(f"{field} of the optimizer: {error}") from error
        elif np.shape(value) != () or np.asarray(value).dtype.kind != "f" or not 0 <= value < 1:  # a power of beta
            raise ValueError(f"{field} must be a number in [0, 1), got {value}")
        else:
            opt_state = opt_state._replace(**{field: type(wanted)(value)})
    return opt_state
