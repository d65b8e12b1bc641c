"""All that a run of `fit` needs to go on as if it had never been stopped, in a checkpoint and back.

Parameters, optimizer slots and averages have TensorFlow's names. The place in the data, the history, the carried
state and the best parameters so far are minilstm's own: JSON in ``minilstm/training``, arrays under
``minilstm/carried`` and ``minilstm/best``. Randomness is a function of seed and place, so no generator is stored.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..cells import LSTMState
from ..checkpoint import OWN, CheckpointError, load_checkpoint, save_checkpoint
from ..params import Tree, check_same_structure, flatten_names, tree_leaves, unflatten_names

CHECKPOINT_NAME = "model.ckpt"


class Place(NamedTuple):
    """Where a run stands: the epoch, the batch in it, the window in that, and the sums of the epoch so far."""

    epoch: int = 0
    batch: int = 0
    window: int = 0
    updates: int = 0
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    entries: float = 0.0

    def after_window(self, last: bool) -> Place:
        """The place after a window; `last` of its batch or not."""
        return self._replace(batch=self.batch + last, window=0 if last else self.window + 1)

    def after_update(self, loss: float, norm: float, entries: float) -> Place:
        """The place after one update whose loss is the mean over so many (weighted) entries."""
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
    """What changes while a run goes on."""

    params: Tree
    opt_state: Any
    step: int
    place: Place
    history: dict[str, list[float]]
    carried: Tree = None  # the recurrent state that the next window starts from
    averaged: Tree = None  # the exponential moving average of the parameters
    best: Tree = None  # the parameters of the epoch with the lowest validation loss

    def save(self, directory: str | os.PathLike[str], model: Any, extra: Any, max_to_keep: int | None) -> str:
        """Write a checkpoint; returns its prefix."""
        own = {f"carried/{n}": leaf for n, leaf in enumerate(tree_leaves(self.carried))}
        own.update({f"best/{name}": value for name, value in flatten_names(self.best or {}).items()})
        training = {
            "place": self.place._asdict(), "history": self.history, "carried": describe_structure(self.carried),
            "state": type(self.opt_state).__name__,
        }  # fmt: skip
        return save_checkpoint(
            os.path.join(directory, CHECKPOINT_NAME), self.params, opt_state=self.opt_state, step=self.step,
            model=model, extra=extra, training=training, averaged=self.averaged, own=own, max_to_keep=max_to_keep,
        )  # fmt: skip

    def load(self, directory: str | os.PathLike[str]) -> None:
        """Take everything from the newest checkpoint; what is here now says what it has to fit.

        Raises
        ------
        CheckpointError
            If it was not written by `fit`, or belongs to another model or another optimizer.
        """
        loaded = load_checkpoint(directory, like=self.params)
        training, wanted = loaded.training, type(self.opt_state).__name__
        if not isinstance(training, dict) or not {"place", "history", "carried", "state"} <= training.keys():
            raise CheckpointError(f"fit: {loaded.prefix} was not written by fit: minilstm/training does not say so")
        if training["state"] != wanted:
            raise CheckpointError(
                f"fit: {loaded.prefix} holds {training['state']}, but the optimizer wants {wanted}"
            )
        found = loaded.opt_state if len(self.opt_state) > 1 else self.opt_state._replace(step=loaded.step)
        check_same_structure(self.opt_state, found)
        own = {name[len(OWN) :]: value for name, value in loaded.others.items() if name.startswith(OWN)}
        carried = [own[f"carried/{n}"] for n in range(sum(name.startswith("carried/") for name in own))]
        best = {name[len("best/") :]: value for name, value in own.items() if name.startswith("best/")}
        had_validation = "val_loss" in self.history
        try:
            self.place, self.history = Place(**training["place"]), training["history"]
            self.carried = build_structure(training["carried"], iter(carried))
        except (TypeError, KeyError, ValueError, StopIteration) as error:
            raise CheckpointError(f"fit: {loaded.prefix}: tensor minilstm/training: {error}") from error
        for name, was, wanted_now in (
            ("validation_data", "val_loss" in self.history, had_validation),
            ("ema_decay", loaded.averaged is not None, self.averaged is not None),
        ):
            if was != wanted_now:
                raise CheckpointError(
                    f"fit: {loaded.prefix} was written {'with' if was else 'without'} {name}, and resumes only so"
                )
        self.params, self.opt_state, self.step = loaded.params, found, loaded.step or 0
        self.averaged = loaded.averaged
        self.best = unflatten_names({name: best[name] for name in flatten_names(self.params)}) if best else None


def describe_structure(tree: Tree) -> Any:
    """The structure of a state as JSON: a dict as {key: ...}, a tuple as [kind, ...], an array as 0, None as null."""
    if isinstance(tree, dict):
        return {key: describe_structure(value) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        kind = "LSTMState" if isinstance(tree, LSTMState) else type(tree).__name__
        if kind not in ("LSTMState", "tuple", "list"):
            raise ValueError(f"fit: a carried state may hold dicts, lists, tuples and LSTMState, got {kind}")
        return [kind, *map(describe_structure, tree)]
    return None if tree is None else 0


def build_structure(description: Any, leaves: Iterator[Any]) -> Tree:
    """The tree that `describe_structure` described, with its arrays taken from `leaves`."""
    if isinstance(description, dict):
        return {key: build_structure(value, leaves) for key, value in description.items()}
    if isinstance(description, list):
        kind, *parts = description
        built = [build_structure(part, leaves) for part in parts]
        return LSTMState(*built) if kind == "LSTMState" else {"tuple": tuple, "list": list}[kind](built)
    return None if description is None else next(leaves)
