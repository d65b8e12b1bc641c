"""Runs that are killed, in processes of their own, end with the bits of runs that never were. See kill_run.py."""

import csv
import functools
import json
import os
import random
import re
import signal
import time
from pathlib import Path

import kill_run
import numpy as np
import pytest
from helpers import assert_trees_equal

from minilstm import SGD, Adam, fit, load_checkpoint, losses, tbptt
from minilstm.training.history import HistoryFile

KILLS = 50 if os.environ.get("MINILSTM_FULL") else 10
STOPPED = [name for name in kill_run.SCENARIOS if name != "long"]


@functools.cache
def never_killed(name):
    """The result of a scenario without a directory: nothing is saved, nothing resumed."""
    return kill_run.run(None, name)


def finish(process):
    """Its output, once it has ended as it should."""
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return out


# --- another process resumes ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """One process leaves each scenario within its eighth step, and another finishes it."""
    folder = tmp_path_factory.mktemp("resumed")
    finish(kill_run.start(folder, *STOPPED, "--stop"))
    assert not list(folder.glob("*.json"))
    lines = finish(kill_run.start(folder, *STOPPED)).splitlines()
    return folder, dict(re.fullmatch(r"ready (\S+) from (\d+)", line).groups() for line in lines)


@pytest.mark.parametrize("name", STOPPED)
def test_a_new_process_ends_with_the_bits_of_a_run_never_stopped(name, resumed):
    folder, found = resumed
    every = kill_run.SCENARIOS[name].get("checkpoint_every", 3)
    assert int(found[name]) == 7 // every * every  # where it went on: at the end of an epoch, or within one
    ended, whole = json.loads((folder / f"{name}.json").read_text()), never_killed(name)
    assert ended["step"] == whole.step
    assert ended["digest"] == kill_run.digest(whole)


def test_the_scenarios_go_on_where_their_names_say():
    assert {name for name in STOPPED if name.startswith("boundary")} == {f"boundary-{o}" for o in kill_run.OPTIMIZERS}
    assert {name for name in STOPPED if name.startswith("middle")} == {f"middle-{o}" for o in kill_run.OPTIMIZERS}
    assert never_killed("boundary-Adam").step == 12  # in four epochs of three
    windows, stopping = never_killed("windows"), never_killed("stopping")
    assert windows.step == 2 * 9
    assert len(stopping.history["val_loss"]) < 9
    assert np.argmin(stopping.history["val_loss"]) in (1, 2)
    assert len(kill_run.SCENARIOS["stream"]["data"]) == 5


def test_a_digest_sees_the_last_bit_of_everything():
    whole = never_killed("stopping")
    digests = {kill_run.digest(whole)}
    for name in ("params", "averaged"):
        tree = {**getattr(whole, name), "dense": {k: v.copy() for k, v in getattr(whole, name)["dense"].items()}}
        tree["dense"]["bias"][0] = np.nextafter(tree["dense"]["bias"][0], np.float32(9))
        digests.add(kill_run.digest(whole._replace(**{name: tree})))
    digests.add(kill_run.digest(whole._replace(step=whole.step + 1)))
    history = {**whole.history, "loss": [*whole.history["loss"][:-1], np.nextafter(whole.history["loss"][-1], 9)]}
    digests.add(kill_run.digest(whole._replace(history=history)))
    adam = never_killed("middle-Adam")
    digests.add(kill_run.digest(adam))
    powers = adam.opt_state._replace(beta1_power=np.nextafter(adam.opt_state.beta1_power, np.float32(9)))
    digests.add(kill_run.digest(adam._replace(opt_state=powers)))
    assert len(digests) == 7


# --- kill -9 --------------------------------------------------------------------------------------------------


def newest(folder):
    """The step of the newest checkpoint that the folder's state file names, 0 without one."""
    try:
        return load_checkpoint(folder).step
    except FileNotFoundError:
        return 0


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path):
    """SIGKILL at random moments of training and saving; a run that gets to its end before all kills starts over."""
    wanted = kill_run.digest(never_killed("long"))
    chance, kills, rounds, seen = random.Random(), 0, 0, []
    timed = kill_run.start(tmp_path / "timed", "long")
    timed.stdout.readline()
    began = time.monotonic()
    finish(timed)
    longest = 0.3 * (time.monotonic() - began)  # about ten kills to a run
    while kills < KILLS:
        folder, steps, ended = tmp_path / str(rounds), [], False
        rounds += 1
        while not ended:
            process = kill_run.start(folder, "long")
            steps.append(int(process.stdout.readline().split()[-1]))
            if kills < KILLS:
                time.sleep(chance.uniform(0, longest))
                process.kill()
            out, err = process.communicate(timeout=120)
            assert err == ""
            if process.returncode == -signal.SIGKILL:
                kills += 1
                assert newest(folder / "long") >= steps[-1]  # no kill takes anything away
            else:
                assert process.returncode == 0, out
                ended = True
        assert steps == sorted(steps), steps  # every start went on at least where the one before did
        seen += steps
        assert json.loads((folder / "long.json").read_text())["digest"] == wanted
        assert_history_file(folder / "long", never_killed("long").history)
    assert kills == KILLS
    assert len(set(seen)) > 3, seen  # they died at several places


def assert_history_file(directory, history):
    """history.csv has every epoch once and its numbers to the last digit."""
    with open(Path(directory, "history.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    epochs = len(history["loss"])
    assert [int(row["epoch"]) for row in rows] == list(range(1, epochs + 1))
    for name, values in history.items():
        assert [float(row[name]) for row in rows] == values


class Killed(Exception):
    pass


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_no_row_is_lost_between_the_checkpoint_and_the_file(epoch, moment, run_dir, monkeypatch):
    original = HistoryFile.append

    def append(self, number, *others):
        if number == epoch and moment == "before":
            raise Killed
        original(self, number, *others)
        if number == epoch:
            raise Killed

    name = "boundary-Adam"
    monkeypatch.setattr(HistoryFile, "append", append)
    with pytest.raises(Killed):
        kill_run.run(run_dir, name)
    monkeypatch.undo()
    result = kill_run.run(run_dir, name)
    assert_trees_equal(result.params, never_killed(name).params)
    assert_history_file(run_dir, result.history)


@pytest.mark.parametrize("every", [None, 2, 5])
def test_a_run_that_dies_in_any_save_goes_on_from_the_one_before(every, run_dir, monkeypatch):
    """A run dies before or after each of its saves in turn, and the next start ends with the same bits."""
    import minilstm.training.runstate as runstate

    original = runstate.save_checkpoint
    options = {**kill_run.PLAIN, "epochs": 2, "optimizer": Adam(0.01), "tbptt": tbptt(3), "checkpoint_every": every}
    data = options.pop("data")

    def run(directory, seed):
        return fit(kill_run.MODEL, kill_run.MODEL.init(seed, 1), losses.mse, data, checkpoint_dir=directory,
                   resume=directory is not None, **options)  # fmt: skip

    whole = run(None, 0)
    for after in (False, True):
        for fatal in range(30):
            saves, folder = [], run_dir / f"{after}-{fatal}"

            def save(*args, saves=saves, fatal=fatal, after=after, **kwargs):
                saves.append(1)
                if len(saves) == fatal + 1 and not after:
                    raise Killed
                written = original(*args, **kwargs)
                if len(saves) == fatal + 1:
                    raise Killed
                return written

            with monkeypatch.context() as patch:
                patch.setattr(runstate, "save_checkpoint", save)
                try:
                    run(folder, 0)
                    break  # there was no such save
                except Killed:
                    pass
            rest = run(folder, 99 if newest(folder) else 0)
            assert_trees_equal(rest._replace(baselines={}), whole._replace(baselines={}))
        assert fatal >= (2 if every is None else 12 // every)


def test_a_run_goes_on_for_longer_than_was_first_asked(run_dir):
    options = {"model": kill_run.MODEL, "loss": losses.mse, "data": (kill_run.INPUTS, kill_run.TARGETS)}
    options |= {"optimizer": SGD(0.1), "batch_size": 4}
    params = kill_run.MODEL.init(0, 1)
    for epochs in (1, 3, 2, 5):
        result = fit(params=params, epochs=epochs, checkpoint_dir=run_dir, resume=True, **options)
    assert_trees_equal(result.params, fit(params=params, epochs=5, **options).params)
    assert len(result.history["loss"]) == 5
