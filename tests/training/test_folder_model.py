"""A model of a run's folder: save, kill, delete, truncate, copy in, convert into, resume, two at once, in any order.

After each: nothing whole has been lost, nothing foreign has changed, and what resumes is the newest whole checkpoint
and ends with the bits of a run that nothing ever happened to.
"""

import functools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_trees_equal
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import minilstm
from minilstm import LSTM, Adam, CheckpointError, Dense, Sequential, files, fit, load_checkpoint, losses
from minilstm.export import convert, npz
from minilstm.training.lock import LOCK_FILE, RunLock

pytestmark = pytest.mark.timeout(3600)
RNG = np.random.default_rng(2)
INPUTS = RNG.normal(size=(6, 3, 1)).astype(np.float32)
TARGETS = np.cumsum(INPUTS, axis=1) * np.float32(0.3)
MODEL = Sequential(LSTM(2), Dense(1))
PARAMS = MODEL.init(0, 1)
OTHER = MODEL.init(9, 1)
STEPS = 2  # an epoch
LONGEST = 8
FULL = bool(os.environ.get("MINILSTM_FULL"))
CALLS = ("open_temporary", "fsync_file", "replace", "remove", "fsync_directory", "make_directory", "discard")


def run(directory, epochs, params=PARAMS, **options):
    options = {"optimizer": Adam(0.01), "batch_size": 3, "progress": False, **options}
    return fit(MODEL, params, losses.mse, (INPUTS, TARGETS), epochs=epochs, checkpoint_dir=directory, **options)


@functools.cache
def never_disturbed(epochs):
    return run(None, epochs)


@functools.cache
def ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


class Killed(BaseException):
    """The process ends here. What would tidy up on the way out does not run either, as after SIGKILL."""


class KilledAt:
    """A context in which the call number `n` of those that change the disk, and all after it, do not happen."""

    def __init__(self, n):
        self.n, self.count, self.originals = n, 0, {}

    def __enter__(self):
        for name in CALLS:
            self.originals[name] = getattr(files, name)
            setattr(files, name, functools.partial(self.call, name))
        return self

    def call(self, name, *arguments):
        self.count += 1
        if self.count > self.n:
            raise Killed
        return self.originals[name](*arguments)

    def __exit__(self, *exception):
        for name, function in self.originals.items():
            setattr(files, name, function)


class Folder(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.directory = self.root / "run"
        self.foreign = {}  # path -> bytes

    def teardown(self):
        shutil.rmtree(self.root)

    # --- what is there ---

    def contents(self):
        return {path.name: path.read_bytes() for path in self.directory.iterdir()} if self.directory.exists() else {}

    def steps(self, every_file=False):
        """The steps of which there is any file; only those in its place, unless `every_file` is true."""
        found = {re.match(r"model\.ckpt-(\d+)(?!.*tmp$)" if not every_file else r"model\.ckpt-(\d+)", name)
                 for name in self.contents()}  # fmt: skip
        return {int(match[1]) for match in found if match}

    def whole(self):
        """The steps of fit's own that can be read."""
        found = set()
        for step in self.steps(every_file=True):
            try:
                loaded = load_checkpoint(self.directory / f"model.ckpt-{step}")
            except (CheckpointError, FileNotFoundError):
                continue
            if isinstance(loaded.training, dict):
                found.add(step)
        return found

    # --- what happens ---

    def train(self, epochs, keep, every, killed_at=None):
        """Resume; with `killed_at`, only up to that change of the disk."""
        before, whole, steps = self.contents(), self.whole(), self.steps()
        params = OTHER if whole else PARAMS  # a run that goes on ignores them
        place = load_checkpoint(self.directory / f"model.ckpt-{max(whole)}").training["place"] if whole else {}
        epoch, batch = place.get("epoch", 0), place.get("batch", 0)  # a save within an epoch may be at its last step
        epochs = min(LONGEST, epoch + max(epochs, min(batch, 1)))
        options = {"max_to_keep": keep, "checkpoint_every": every, "resume": True}
        if not whole and (steps or "checkpoint" in before):  # there is no run to go on with, or nothing of it is left
            with pytest.raises(CheckpointError, match=r"nothing was changed|not written by fit|/checkpoint: "):
                run(self.directory, epochs, params, **options)
            before.pop(LOCK_FILE, None)  # of a killed process: it was taken over
            assert self.contents() == before
            return
        seen = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                with KilledAt(10**9 if killed_at is None else killed_at):
                    options["callbacks"] = [lambda result: seen.append(result.step)]
                    result = run(self.directory, epochs, params, **options)
            except Killed:
                now, lock = self.whole(), self.directory / LOCK_FILE
                if lock.exists():
                    lock.write_text(json.dumps({"pid": ended_process(), "host": platform.node(), "started": None}))
                assert max(now, default=0) >= max(whole, default=0)
                assert len(now) >= min(len(whole), keep or len(whole))
                return
        if seen:  # it went on from the newest that was whole: not from an earlier one, and not from the start
            assert seen[0] == (epoch + 1) * STEPS
        wanted = never_disturbed(epochs)
        assert_trees_equal(result.params, wanted.params)
        assert_trees_equal(result.opt_state, wanted.opt_state)
        assert result.history == wanted.history
        if keep and seen:
            assert len(self.whole()) <= keep
            rest = self.steps() - self.whole()  # whose index is damaged, so nobody knows whose they are
            assert all((self.directory / f"model.ckpt-{step}.index").exists() for step in rest)
        assert max(self.whole()) == epochs * STEPS
        lines = (self.directory / "history.csv").read_text().splitlines()
        assert [line.split(",")[0] for line in lines] == ["epoch", *map(str, range(1, epochs + 1))]

    @rule(epochs=st.integers(0, 3), keep=st.sampled_from([1, 2, 3, None]), every=st.sampled_from([None, 1, 3]))
    def resume(self, epochs, keep, every):
        self.train(max(epochs, 0 if self.whole() else 1), keep, every)

    @rule(
        n=st.integers(0, 80),
        epochs=st.integers(1, 3),
        keep=st.sampled_from([1, 2, 3]),
        every=st.sampled_from([None, 1]),
    )
    def kill(self, n, epochs, keep, every):
        self.train(epochs, keep, every, killed_at=n)

    @precondition(lambda self: self.contents())
    @rule(data=st.data())
    def delete(self, data):
        name = data.draw(st.sampled_from(sorted(self.contents().keys() - {LOCK_FILE} - set(self.foreign)) or [None]))
        if name is not None:
            os.remove(self.directory / name)

    @precondition(lambda self: self.contents())
    @rule(data=st.data(), share=st.floats(0, 0.99))
    def truncate(self, data, share):
        name = data.draw(st.sampled_from(sorted(self.contents().keys() - {LOCK_FILE} - set(self.foreign)) or [None]))
        if name is not None:
            os.truncate(self.directory / name, int(share * os.path.getsize(self.directory / name)))

    @precondition(lambda self: self.whole())
    @rule(name=st.sampled_from(["best", "mine-7"]))
    def save_another(self, name):
        minilstm.save_checkpoint(self.directory / name, OTHER, model=MODEL, max_to_keep=None)
        self.note_foreign(name)

    @precondition(lambda self: self.whole())
    @rule()
    def convert_into(self):
        npz.save(self.root / "e.npz", MODEL, OTHER)
        convert.convert(self.root / "e.npz", self.directory / "model.ckpt", report=lambda line: None)
        self.note_foreign("model.ckpt")

    def note_foreign(self, name):
        self.foreign |= {file: text for file, text in self.contents().items() if file.startswith(f"{name}.")}

    @precondition(lambda self: self.whole())
    @rule()
    def copy_in(self):
        """An older checkpoint of the same run comes back from a backup."""
        step = min(self.whole())
        for name, text in self.contents().items():
            if name.startswith(f"model.ckpt-{step}."):
                (self.root / name).write_bytes(text)
                shutil.copy(self.root / name, self.directory / name)

    @precondition(lambda self: self.steps())
    @rule()
    def start_anew(self):
        before = self.contents()
        with pytest.raises(ValueError, match="already holds a run"):
            run(self.directory, 1, OTHER)
        before.pop(LOCK_FILE, None)
        assert self.contents() == before

    @precondition(lambda self: self.whole())
    @rule()
    def two_at_once(self):
        with RunLock(str(self.directory)):
            before = self.contents()
            for resume in (True, False):
                with pytest.raises(ValueError, match="in use"):
                    run(self.directory, LONGEST, OTHER, resume=resume)
            assert self.contents() == before

    @invariant()
    def nothing_foreign_has_changed(self):
        now = self.contents()
        assert {name: now.get(name) for name in self.foreign} == self.foreign


TestFolder = Folder.TestCase
TestFolder.settings = settings(max_examples=150 if FULL else 12, stateful_step_count=20, deadline=None)
