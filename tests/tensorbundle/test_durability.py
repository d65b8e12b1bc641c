"""Power cuts, failing disks and kill -9: whatever happens, the folder loads, and what it loads is old or new."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bundle_samples import FULL
from power_cut import CALLS, Disk, by_age, lay_out, original, replace_calls

from minilstm import files, tensorbundle
from minilstm.tensorbundle.state import read_state


class Failing(OSError):
    """What a call raises that is made to fail."""


def tensors(value):
    return {"big": np.full(1000, value, np.float32), "names": np.array([b"x" * int(value)], object), "step": value}


def save(prefix, value, **options):
    tensorbundle.write(prefix, tensors(value))
    tensorbundle.publish(prefix, **options)


def loaded(folder):
    """The value of the latest checkpoint, which must be whole and from one save."""
    prefix = tensorbundle.latest(folder)
    assert prefix is not None, f"nothing to load in {os.listdir(folder)}"
    return value_of(tensorbundle.read(prefix))


def value_of(read):
    value = float(read["step"])
    assert (read["big"] == value).all()
    assert read["names"].tolist() == [b"x" * int(value)]
    return value


@contextlib.contextmanager
def cut_short(function, time):
    """Make one call of a function of `files` fail, the given one counted from 1."""
    left, uncut = [time], getattr(files, function)

    def call(*args):
        left[0] -= 1
        if left[0] == 0:
            raise OSError("cut")
        return uncut(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, function, call)
        yield


# The name to save under, what was saved before (with "!": saved again, and cut short after the old index was taken
# away, once before and once after the data were renamed), and the options of the save.
SCENARIOS = {
    "a first checkpoint": ("m-1", [], {}),
    "a second one": ("m-2", ["m-1"], {}),
    "a second one, the first removed": ("m-2", ["m-1"], {"max_to_keep": 1}),
    "the same step again": ("m-2", ["m-1", "m-2"], {}),
    "the only one again": ("m", ["m"], {}),
    "the only one, which was cut short early, again": ("m", ["m", "m!1"], {}),
    "the only one, which was cut short late, again": ("m", ["m", "m!2"], {}),
    "the only one, which was cut short twice, again": ("m", ["m", "m!2", "m!1"], {}),
    "an older one again": ("m-1", ["m-1", "m-2"], {"max_to_keep": 2}),
    "without limit": ("m-2", ["m-1"], {"max_to_keep": None}),
}


@pytest.fixture(params=SCENARIOS)
def scenario(request, tmp_path):
    """A folder with its earlier checkpoints, the interrupted save as a function, and the values before and after."""
    name, earlier, options = SCENARIOS[request.param]
    folder = tmp_path / "run"
    folder.mkdir()
    for number, before in enumerate(earlier):
        before, _, time = before.partition("!")
        if time:
            with cut_short("replace", int(time)), pytest.raises(OSError, match="cut"):
                save(folder / before, number + 1.0)
        else:
            save(folder / before, number + 1.0)
    old, new = loaded(folder) if earlier else None, len(earlier) + 10.0
    return folder, lambda: save(folder / name, new, **options), old, new


def test_the_order_of_the_calls(tmp_path, monkeypatch):
    for step in (1, 2):
        save(tmp_path / f"m-{step}", step)
    calls = []

    def recording(name, unrecorded):
        def call(*args):
            target = args[-1] if name == "replace" else getattr(args[0], "name", args[0])
            calls.append((name, re.sub(r"minilstm-\w{8}", "*", os.path.basename(str(target)))))
            return unrecorded(*args)

        return call

    replace_calls(monkeypatch, {name: recording(name, original(name)) for name in CALLS})
    save(tmp_path / "m-2", 3.0, max_to_keep=1)
    assert [call for call in calls if call[0] != "write"] == [
        ("open_temporary", "m-2.data-00000-of-00001"),
        ("fsync_file", "m-2.data-00000-of-00001.*.tmp"),
        ("open_temporary", "m-2.index"),
        ("fsync_file", "m-2.index.*.tmp"),
        ("fsync_directory", tmp_path.name),
        ("remove", "m-2.index"),  # only because it is there already
        ("fsync_directory", tmp_path.name),
        ("replace", "m-2.data-00000-of-00001"),
        ("fsync_directory", tmp_path.name),
        ("replace", "m-2.index"),
        ("fsync_directory", tmp_path.name),
        ("open_temporary", "checkpoint"),
        ("fsync_file", "checkpoint.*.tmp"),
        ("replace", "checkpoint"),
        ("fsync_directory", tmp_path.name),
        ("remove", "m-1.index"),
        ("remove", "m-1.data-00000-of-00001"),
        ("fsync_directory", tmp_path.name),
    ]


def test_a_power_cut_at_any_moment_leaves_the_old_or_the_new(scenario, monkeypatch, tmp_path):
    folder, interrupted_save, old, new = scenario
    disk, cut_folder, moments, seen = Disk(folder), tmp_path / "cut", [], set()

    def cut(name, *_):
        moments.append(name)
        for outcome in disk.outcomes():
            key = tuple(sorted(outcome.items()))
            if key not in seen:  # many moments leave the same
                seen.add(key)
                lay_out(cut_folder, outcome)
                if "checkpoint" in outcome:
                    named = read_state(cut_folder).model_checkpoint_path
                    assert tensorbundle.latest(cut_folder) == str(cut_folder / named), "what it names is not whole"
                if old is not None or tensorbundle.latest(cut_folder):
                    assert loaded(cut_folder) in (old, new), f"after call {len(moments)}, {name}"

    replace_calls(monkeypatch, disk.calls(cut))
    interrupted_save()
    assert len(moments) > 10
    assert not disk.pending
    lay_out(cut_folder, next(disk.outcomes()))
    assert loaded(cut_folder) == loaded(folder) == new


@pytest.mark.parametrize("when", ["before", "after"])
def test_every_call_may_fail(scenario, when):
    # Each save is interrupted in another call, on top of what the one before it left.
    folder, interrupted_save, old, new = scenario
    originals = {name: original(name) for name in CALLS}
    countdown = [0]

    def failing(name):
        def call(*args):
            countdown[0] -= 1
            if countdown[0] == 0 and when == "before":
                raise Failing(f"{name} fails")
            result = originals[name](*args)
            if countdown[0] == 0:
                if name == "open_temporary":
                    result.close()
                raise Failing(f"{name} fails")
            return result

        return call

    snapshot = by_age(folder)
    for number in range(1, 100):
        lay_out(folder, snapshot)
        countdown[0] = number
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Failing):
            replace_calls(patch, {name: failing(name) for name in CALLS})
            interrupted_save()
            assert loaded(folder) == new
            break  # it takes fewer calls than that
        if old is not None or tensorbundle.latest(folder):
            assert loaded(folder) in (old, new), f"call {number} failed"
        interrupted_save()  # once the disk is well again
        assert loaded(folder) == new
        assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]
    assert number > 10


class TestAnInterruptedOverwriting:
    """A save over an existing checkpoint, cut between its steps."""

    @pytest.fixture
    def cut(self, tmp_path):
        """Save over a checkpoint, the given call failing the given time."""

        def interrupt(function, time):
            save(tmp_path / "m", 1.0)
            with cut_short(function, time), pytest.raises(OSError, match="cut"):
                save(tmp_path / "m", 2.0)
            return tmp_path / "m"

        return interrupt

    def test_before_the_old_index_is_taken_away_is_as_if_nothing_had_happened(self, cut):
        prefix = cut("remove", 1)
        assert value_of(tensorbundle.read(prefix)) == 1.0
        assert sorted(os.listdir(prefix.parent)) == ["checkpoint", "m.data-00000-of-00001", "m.index"]

    @pytest.mark.parametrize("time", [1, 2])
    def test_after_that_the_new_one_is_found_under_its_temporary_names(self, cut, time):
        prefix = cut("replace", time)
        assert not os.path.exists(f"{prefix}.index")
        assert value_of(tensorbundle.read(prefix)) == 2.0
        assert tensorbundle.open(prefix)["step"] == 2.0
        assert len(tensorbundle.list_variables(prefix)) == 3
        assert tensorbundle.latest(prefix.parent) == str(prefix)
        save(prefix, 3.0)
        assert value_of(tensorbundle.read(prefix)) == 3.0
        assert sorted(os.listdir(prefix.parent)) == ["checkpoint", "m.data-00000-of-00001", "m.index"]

    @pytest.mark.parametrize("time", [1, 2])
    def test_what_is_not_complete_there_is_not_taken(self, cut, time):
        prefix = cut("replace", time)
        (data,) = prefix.parent.glob("m.data-*.tmp" if time == 1 else "m.data-*")
        content = bytearray(data.read_bytes())
        content[5] ^= 1
        data.write_bytes(content)
        with pytest.raises(FileNotFoundError):
            tensorbundle.open(prefix)
        assert tensorbundle.latest(prefix.parent) is None

    def test_a_first_save_that_fails_leaves_nothing(self, tmp_path, monkeypatch):
        def fails(*args):
            raise OSError("cut")

        monkeypatch.setattr(files, "replace", fails)
        with pytest.raises(OSError, match="cut"):
            save(tmp_path / "m", 1.0)
        assert os.listdir(tmp_path) == []

    def test_temporaries_of_other_prefixes_are_left_alone(self, tmp_path):
        others = ["m-10.index.minilstm-01234567.tmp", "m-1.index.minilstm-0123.tmp", "m-1.index.tmp"]
        own = ["m-1.index.minilstm-01234567.tmp", "m-1.data-00000-of-00001.minilstm-89abcdef.tmp"]
        for name in others + own:
            (tmp_path / name).write_text("")
        tensorbundle.write(tmp_path / "m-1", tensors(1.0))
        assert set(os.listdir(tmp_path)) == {*others, "m-1.index", "m-1.data-00000-of-00001"}

    def test_an_interrupt_cleans_up_like_an_error(self, tmp_path, monkeypatch):
        def interrupted(*args):
            raise KeyboardInterrupt

        monkeypatch.setattr(files, "fsync_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tensorbundle.write(tmp_path / "m", tensors(1.0))
        assert os.listdir(tmp_path) == []


SAVING = """
import os
import sys
sys.path[:0] = sys.argv[3:]
from test_durability import save
folder, value = sys.argv[1], float(sys.argv[2])

def report(what, name):
    os.write(1, f"{what} {name} {value}\\n".encode())  # in one call

while True:
    for name, prefix, options in (("steps", f"m-{value:.0f}", dict(max_to_keep=2)), ("same", "m", {})):
        report("begun", name)
        save(f"{folder}/{name}/{prefix}", value, **options)
        report("done", name)
    value = value % 100 + 1
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_process_leaves_the_newest_or_the_one_before(tmp_path):
    # One process after the other saves in a loop, in one folder step after step, in another the same prefix again and
    # again, and is killed at a random moment. What is found must be what was done last, or what was begun after that.
    draw = random.Random(0)
    value, found = 1.0, {"steps": None, "same": None}
    paths = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]
    for _ in range(200 if FULL else 20):
        command = [sys.executable, "-W", "ignore", "-c", SAVING, str(tmp_path), str(value), *paths]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            reported = [process.stdout.readline()]  # it is running now
            time.sleep(draw.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            reported += process.stdout.read().splitlines()
        assert reported[0], "the process came to an end on its own"
        done, begun = dict(found), dict(found)
        for line in reported:
            what, name, number = line.split()
            {"done": done, "begun": begun}[what][name] = float(number)
        for name in found:
            prefix = tensorbundle.latest(tmp_path / name)
            found[name] = prefix and loaded(tmp_path / name)
            assert found[name] in (done[name], begun[name]), f"{name}: found {found}, done {done}, begun {begun}"
        value = begun["steps"] % 100 + 1
    save(tmp_path / "same" / "m", 5.0)
    assert sorted(os.listdir(tmp_path / "same")) == ["checkpoint", "m.data-00000-of-00001", "m.index"]
