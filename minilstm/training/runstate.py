"""Where a run resumes: all that changes while `fit` runs, written to a checkpoint and read back.

Parameters, optimizer slots and averages have TensorFlow's names. minilstm adds the place in the data, the history, the
carried state and the best parameters so far: JSON in ``minilstm/training``, arrays under ``minilstm/carried`` and
``minilstm/best``. Randomness is a function of seed and place, so no random generator is stored.
"""

from __future__ import annotations

import dataclasses
import math
import os
import reprlib
from collections.abc import Iterator, Set
from typing import Any, NamedTuple

from ..cells import LSTMState
from ..checkpoint import OWN, Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from ..params import Tree, check_same_structure, flatten_names, tree_leaves, unflatten_names

KINDS: dict[str, Any] = {"LSTMState": LSTMState._make, "tuple": tuple, "list": list}  # what a state may be made of


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


def as_place(facts: dict[str, Any]) -> Place:
    """The place that a checkpoint states; ValueError unless its counts are whole numbers of 0 or more."""
    place = Place(**facts)
    counts = place[:4]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"epoch, batch, window and updates must be whole numbers of 0 or more, got {counts}")
    if not all(isinstance(number, (int, float)) for number in place[4:]):
        raise ValueError(f"loss_sum, norm_sum and entries must be numbers, got {place[4:]}")
    return place


def check_history(history: Any, names: Set[str]) -> None:
    """Raise ValueError unless the history that a checkpoint states is lists of numbers by name, these among them."""
    columns = history.values() if isinstance(history, dict) and names <= history.keys() else [None]
    if not all(isinstance(column, list) and all(isinstance(x, (int, float)) for x in column) for column in columns):
        found = reprlib.repr(history)
        raise ValueError(f"history must be lists of numbers under {sorted(names)} at least, got {found}")


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

    def save(self, directory: str | os.PathLike[str], model: Any, extra: Any, max_to_keep: int | None) -> None:
        """Write a checkpoint."""
        own = state_tensors("carried", self.carried)
        own.update({f"best/{name}": value for name, value in flatten_names(self.best or {}).items()})
        training = {
            "place": self.place._asdict(), "history": self.history, "carried": describe_structure(self.carried),
            "state": type(self.opt_state).__name__,
        }  # fmt: skip
        save_checkpoint(
            os.path.join(directory, "model.ckpt"), self.params, opt_state=self.opt_state, step=self.step,
            model=model, extra=extra, training=training, averaged=self.averaged, own=own, max_to_keep=max_to_keep,
        )  # fmt: skip

    def load(self, directory: str | os.PathLike[str]) -> None:
        """Replace everything by the newest checkpoint in `directory`, which must fit what is here now.

        Raises
        ------
        CheckpointError
            If `fit` did not write it, or it belongs to another model or another optimizer.
        """
        loaded = load_checkpoint(directory, like=self.params)
        training, wanted = loaded.training, type(self.opt_state).__name__
        if not isinstance(training, dict) or not {"place", "history", "carried", "state"} <= training.keys():
            raise CheckpointError(f"fit: {loaded.prefix} was not written by fit: minilstm/training does not say so")
        if training["state"] != wanted:
            raise CheckpointError(f"fit: {loaded.prefix} holds {training['state']}, but the optimizer wants {wanted}")
        opt_state = loaded.opt_state if len(self.opt_state) > 1 else self.opt_state._replace(step=loaded.step)
        check_same_structure(self.opt_state, opt_state)
        try:
            place, history = as_place(training["place"]), training["history"]
            check_history(history, self.history.keys() - {"val_loss"})
            carried = read_state(loaded, "carried", training["carried"])
        except (TypeError, KeyError, ValueError, StopIteration, AttributeError, IndexError) as error:
            raise CheckpointError(f"fit: {loaded.prefix}: tensor minilstm/training: {error}") from error
        for name, has, had in (
            ("validation_data", "val_loss" in self.history, "val_loss" in history),
            ("ema_decay", self.averaged is not None, loaded.averaged is not None),
        ):
            if has != had:
                raise CheckpointError(
                    f"fit: {loaded.prefix} was written {'with' if had else 'without'} {name}, and resumes only so"
                )
        best = own_tensors(loaded, "best")
        self.params, self.opt_state, self.step = loaded.params, opt_state, loaded.step or 0
        self.place, self.history, self.carried, self.averaged = place, history, carried, loaded.averaged
        self.best = unflatten_names({name: best[name] for name in flatten_names(self.params)}) if best else None


def own_tensors(loaded: Checkpoint, folder: str) -> dict[str, Any]:
    """Return the tensors that a checkpoint holds under ``minilstm/<folder>/``, named without that prefix."""
    start = f"{OWN}{folder}/"
    return {name.removeprefix(start): value for name, value in loaded.others.items() if name.startswith(start)}


def state_tensors(folder: str, state: Tree) -> dict[str, Any]:
    """Return the arrays of a recurrent state, numbered: ``<folder>/0``, ``<folder>/1``, ..."""
    return {f"{folder}/{n}": leaf for n, leaf in enumerate(tree_leaves(state))}


def read_state(loaded: Checkpoint, folder: str, description: Any) -> Tree:
    """Return the recurrent state whose arrays `state_tensors` numbered and whose structure is `description`."""
    tensors = own_tensors(loaded, folder)
    return build_structure(description, iter([tensors[str(n)] for n in range(len(tensors))]))


def describe_structure(tree: Tree) -> Any:
    """Describe the structure of a state as JSON: a dict as {key: ...}, a tuple as [kind, ...], an array as 0."""
    if isinstance(tree, dict):
        return {key: describe_structure(value) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        kind = type(tree).__name__
        if kind not in KINDS:
            raise ValueError(f"fit: a carried state may hold dicts, lists, tuples and LSTMState, got {kind}")
        return [kind, *map(describe_structure, tree)]
    return None if tree is None else 0


def build_structure(description: Any, leaves: Iterator[Any]) -> Tree:
    """Build the tree that `describe_structure` described; `leaves` yields its arrays."""
    if isinstance(description, dict):
        return {key: build_structure(value, leaves) for key, value in description.items()}
    if isinstance(description, list):
        kind, *parts = description
        return KINDS[kind]([build_structure(part, leaves) for part in parts])
    return None if description is None else next(leaves)
