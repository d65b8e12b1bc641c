"""The checkpoints in a run's folder: which are of `fit`, which is the newest that is whole, and which are removed.

What is in the folder decides, not what its state file ``checkpoint`` says. That file can be lost, and another program,
or a second save by the user, may have named something else in it.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from typing import Any

from .. import tensorbundle
from ..checkpoint import TRAINING, Checkpoint, CheckpointError, load_silently
from ..reading import from_json

NAME = "model.ckpt"
NEEDED = {"place", "history", "carried", "state"}  # in the record `minilstm/training` of every checkpoint of fit
_FILE = re.compile(
    r"model\.ckpt-(?P<step>0|[1-9][0-9]*)(\.index|\.data-[0-9]{5,}-of-[0-9]{5,})(?P<torn>\.minilstm-[0-9a-f]{8}\.tmp)?"
)


class RunFolder:
    """The checkpoints ``model.ckpt-<step>`` of one run.

    `directory` is an absolute path, which need not exist. `own` are the steps whose checkpoints `fit` wrote, and
    `leftovers` those of which only useless files are there: pieces of a save or of a removal that was cut short.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.own: set[int] = set()
        self.leftovers: set[int] = set()
        # step -> whether there is a file of it that is more than a temporary one of a save that was cut short
        self.found: dict[int, bool] = {}
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            match = _FILE.fullmatch(name)
            if match:
                step = int(match["step"])
                self.found[step] = self.found.get(step, False) or match["torn"] is None
        self.listed: set[str] | None = None  # the names in the state file; None if it is damaged
        with contextlib.suppress(CheckpointError):
            self.listed = {os.path.relpath(prefix, directory) for prefix in tensorbundle.listed(directory)}

    def prefix(self, step: int) -> str:
        """The prefix of a checkpoint."""
        return os.path.join(self.directory, f"{NAME}-{step}")

    def holds_a_run(self) -> bool:
        """Whether a new run would lose or mix up something: a checkpoint, whole or not, or a damaged state file."""
        if self.listed is None or any(self.found.values()):
            return True
        # Temporary files may hold a whole checkpoint, whose save was cut short at its very end.
        others = [os.path.join(self.directory, name) for name in self.listed]
        return any(map(_opens, [*others, *map(self.prefix, self.found)]))

    def newest(self) -> Checkpoint | None:
        """Read the newest whole checkpoint that `fit` wrote; None if there is no run here.

        A UserWarning says if it is not the one that the folder seems to name.

        Raises CheckpointError if there are checkpoints, but none of them is whole, or none is of fit.
        """
        skipped: list[str] = []
        foreign: list[str] = []
        for step in sorted(self.found, reverse=True):
            try:
                loaded = load_silently(self.prefix(step))
            except (CheckpointError, FileNotFoundError) as error:
                skipped += [f"model.ckpt-{step} ({error})"] if self.found[step] else []
                continue
            if is_of_fit(loaded.training):
                self._say(step, skipped, foreign)
                return loaded
            foreign.append(loaded.prefix)
        if skipped:
            raise CheckpointError(
                f"fit: {self.directory}: there is a run, but none of its checkpoints is whole, so nothing was changed; "
                f"move the folder away to start again: {'; '.join(skipped)}"
            )
        if not foreign:
            self._refuse_lost()
            return None
        raise CheckpointError(f"fit: {foreign[0]} was not written by fit: minilstm/training does not say so")

    def _refuse_lost(self) -> None:
        """Raise CheckpointError if the state file is damaged, or names checkpoints that are gone or not of fit."""
        if self.listed is None:
            tensorbundle.listed(self.directory)
        for name in sorted(self.listed or ()):
            if _FILE.fullmatch(f"{name}.index"):
                raise CheckpointError(
                    f"fit: {self.directory}: its state file {tensorbundle.STATE_FILE!r} names {name}, which is not "
                    "there, so nothing was changed; move the folder away to start again"
                )
            prefix = os.path.join(self.directory, name)
            raise CheckpointError(f"fit: {prefix} was not written by fit: minilstm/training does not say so")

    def _say(self, step: int, skipped: list[str], foreign: list[str]) -> None:
        """Warn if the checkpoint of this step was not to be expected."""
        why = None
        named = {int(name.rpartition("-")[2]) for name in self.listed or () if _FILE.fullmatch(f"{name}.index")}
        lost = [other for other in named - self.found.keys() if other > step]
        if skipped:
            why = f"not whole: {'; '.join(skipped)}"
        elif foreign:
            why = f"not written by fit: {', '.join(map(os.path.basename, foreign))}"
        elif self.listed is None:
            why = f"its state file {tensorbundle.STATE_FILE!r} is damaged"
        elif not self.listed and len(self.found) > 1:
            why = f"its state file {tensorbundle.STATE_FILE!r} is missing"
        elif lost:
            why = f"its state file names model.ckpt-{max(lost)}, which is not there"
        if why is not None:
            text = f"fit: {self.directory}: the run goes on from model.ckpt-{step}, the newest whole checkpoint ({why})"
            warnings.warn(text, UserWarning, stacklevel=4)  # the caller of fit

    def take_stock(self, max_to_keep: int | None) -> None:
        """Find out what may be removed later, before the run adds to it: `own` and `leftovers`."""
        for step in self.found:
            if not max_to_keep and os.path.exists(f"{self.prefix(step)}.index"):
                continue  # it will not be removed, so it need not be read
            try:
                bundle = tensorbundle.open(self.prefix(step))
            except FileNotFoundError:
                self.leftovers.add(step)
                continue
            except CheckpointError:  # what the index says is lost: then the state file knows whose it was
                is_own = f"{NAME}-{step}" in (self.listed or ())
            else:
                is_own = _is_own(bundle)
            if is_own:
                self.own.add(step)

    def publish(self, prefix: str, step: int, max_to_keep: int | None) -> None:
        """Make a new checkpoint the latest, and remove what is of this run and too old, or a leftover."""
        self.own.add(step)
        # A later step than this was not whole when the run resumed, so it goes first.
        ordered = sorted(self.own - {step}, key=lambda other: (other < step, other))
        tensorbundle.publish(prefix, max_to_keep, own=[f"{NAME}-{other}" for other in ordered])
        if max_to_keep:
            self.own = {*ordered[max(0, len(ordered) + 1 - max_to_keep) :], step}
        for other in self.leftovers - {step}:
            tensorbundle.remove(self.prefix(other))
        self.leftovers.clear()


def is_of_fit(training: Any) -> bool:
    """Whether the record ``minilstm/training`` of a checkpoint is one of fit's."""
    return isinstance(training, dict) and training.keys() >= NEEDED


def _is_own(bundle: tensorbundle.Bundle) -> bool:
    """Whether fit wrote a checkpoint; also True if it has a record that cannot be read."""
    if TRAINING not in bundle:
        return False
    try:
        return is_of_fit(from_json(bundle[TRAINING].item()))
    except (ValueError, TypeError, AttributeError):
        return True


def _opens(prefix: str) -> bool:
    """Whether there is a checkpoint, whole as far as its index tells, or damaged."""
    try:
        tensorbundle.open(prefix)
    except FileNotFoundError:
        return False
    except CheckpointError:
        pass
    return True
