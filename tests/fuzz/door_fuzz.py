"""Hostile files of every format, each read in a process of limited memory and time.

    python -m tests.fuzz.door_fuzz npz safetensors --count 20000 --seed 0

A case is a function of (format, seed, number), so one that fails can be run alone: ``--only NUMBER``; ``--keep`` leaves
its files in the current folder. What counts as a failure: any exception but ValueError and OSError; an error that does
not begin with the path, or that speaks of memory; more than ten seconds; more memory than the limit; a file that is
opened outside the case's own folder; bytes of a file outside in what was read; a traceback at the command line.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import autograd.numpy as anp
import numpy as np

from minilstm import cli, tensorbundle, value_and_grad
from minilstm.export import convert
from minilstm.params import flatten_names

from .bundle_fuzz import peak_megabytes
from .doors import DOORS, SECRET, model_of, params_of

SECONDS = 10
MEGABYTES = 1024  # of address space over what the process has at the start
OWN_CODE = (".py", ".pyc", ".so")  # what imports open
OWN_PLACES = (str(Path(cli.__file__).parent), "/proc/", os.devnull)  # numba keeps its compiled code in the first
FLAGS = ("--activation", "tanh", "--dense-activation", "linear")
CASE = Path("../case.txt")  # which case is being run, for the case that a process dies
opened: list[str] = []  # paths opened since the case began, and not within its folder


def watch(folder):
    """Note every file that Python opens outside `folder`; a hook cannot be removed, so there is one a process."""
    inside = os.path.realpath(folder) + os.sep

    def hook(event, arguments):
        if event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not (path + os.sep).startswith((inside, *OWN_PLACES)) and not path.endswith(OWN_CODE):
                opened.append(path)

    sys.addaudithook(hook)


def limit_memory(megabytes):
    """Allow this process `megabytes` more address space than it has now, if the system can."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        return
    most = pages * os.sysconf("SC_PAGE_SIZE") + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


class LateError(BaseException):
    """A case takes too long; no error that a reader may raise, or that anything on the way may catch."""


@contextlib.contextmanager
def no_longer_than(seconds, what):
    """Raise LateError after this time on the processor. If a library never comes back to Python, the process ends."""

    def late(*_):
        raise LateError(f"more than {seconds} seconds")

    most = 60 * seconds  # by the clock: other processes may have the processor
    CASE.write_text(what)
    opened.clear()
    faulthandler.dump_traceback_later(most, exit=True)
    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()


def clean():
    """Empty the current folder."""
    for left in os.listdir("."):
        shutil.rmtree(left) if os.path.isdir(left) else os.remove(left)


def write(files):
    """Write the files of a case; a dict of tensors becomes a checkpoint. False if no file can hold it."""
    for name, content in files.items():
        if isinstance(content, dict):
            try:
                tensorbundle.write(name, content)
            except (ValueError, TypeError):
                return False
        else:
            Path(name).write_bytes(content)
    return True


def check_result(result):
    """Assert that nothing that was read has bytes of the file outside."""
    result = getattr(result, "loaded", result)
    for array in flatten_names(getattr(result, "params", {})).values():
        assert SECRET[:16] not in np.ascontiguousarray(array).tobytes(), "bytes of another file were read"


def check(door, path):
    """Read a file in every way of its format; what came of it."""
    outcomes = []
    for read in door.readers:
        try:
            check_result(read(path))
            outcomes.append("read")
        except (ValueError, OSError) as error:
            outcomes.append(str(error))
            names_it = str(error).startswith(path) or isinstance(error, OSError)
            if not names_it or "too large for the memory" in str(error):
                raise AssertionError(f"a wrong message: {error}") from error
    kinds = {"read" if outcome == "read" else "refused" for outcome in outcomes}
    return " or ".join(sorted(kinds))


def check_command(*arguments):
    """Run the command line; its exit code must be one of those it states, and no fault of minilstm be spoken of."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = cli.main(arguments)
    assert code in (0, 1, 2), code
    assert "fault of minilstm" not in said.getvalue(), said.getvalue()[-500:]
    assert "memory" not in said.getvalue(), said.getvalue()[-500:]
    assert not [c for c in said.getvalue() if not c.isprintable() and c != "\n"], "control characters in a terminal"


def run(name, doors, count, seed, only=None, keep=False):
    """Run `count` cases of a format in the current folder; outcomes, and the slowest case as (seconds, number)."""
    door = doors[name]
    clean()
    bases = door.bases()
    outcomes, slowest = collections.Counter(), (0.0, -1)
    CASE.touch()
    there = sorted(os.listdir(".."))
    for number in range(count) if only is None else [only]:
        draw = random.Random(f"{name}:{seed}:{number}")
        clean()
        if not write(door.mutate(draw, draw.choice(bases))):
            outcomes["no file"] += 1
            continue
        files = sorted(os.listdir("."))
        started = time.process_time()
        try:
            with no_longer_than(SECONDS, f"case {number} of {name}, seed {seed}"):
                outcome = check(door, door.path)
                assert sorted(os.listdir(".")) == files, f"files were written: {os.listdir('.')}"
                if draw.random() < 0.25 and name not in ("sweep", "dump", "description"):
                    check_command("convert", door.path, "out.npz", *FLAGS)
                elif draw.random() < 0.25 and name in ("dump", "description", "tf2"):
                    check_command("inspect", door.path)
                    check_command("replay" if name == "dump" else "inspect", door.path)
            assert not opened, f"files outside were opened: {opened[:3]}"
            assert sorted(os.listdir("..")) == there, "a file was written outside"
        except BaseException as error:
            if keep:
                shutil.copytree(".", keep, dirs_exist_ok=True)
            raise AssertionError(f"case {number} of {name}, seed {seed}: {type(error).__name__}: {error}") from error
        outcomes[outcome] += 1
        slowest = max(slowest, (time.process_time() - started, number))
    return outcomes, slowest


def warm_up():
    """Run the models forwards and backwards once, so that everything is imported, and compiled if numba is there."""
    for kind in range(3):
        model, width = model_of(kind)
        params = params_of(model, width)
        inputs = convert.random_inputs(model, params)
        value_and_grad(lambda tree, model=model, inputs=inputs: anp.sum(model(tree, inputs)))(params)


def main(doors=DOORS):
    """Run from the command line; prints outcomes, peak memory and the slowest case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("formats", choices=doors, nargs="+")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this one case")
    parser.add_argument("--keep", help="a folder for the files of a case that fails")
    options = parser.parse_args()
    keep = options.keep and os.path.abspath(options.keep)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "outside").mkdir()
        Path(folder, "outside", "secret.bin").write_bytes(SECRET)
        Path(folder, "inside").mkdir()
        os.chdir(Path(folder, "inside"))
        try:
            warm_up()
            for name in options.formats:
                run(name, doors, 8, -1)
            watch(".")
            before = peak_megabytes()
            limit_memory(MEGABYTES)
            for name in options.formats:
                outcomes, (seconds, number) = run(name, doors, options.count, options.seed, options.only, keep)
                print(f"{name}: {', '.join(f'{times} {outcome}' for outcome, times in outcomes.most_common())}")
                print(f"  {seconds:.2f} seconds took the slowest, case {number}")
                print(f"  {peak_megabytes() - before:.1f} MB of memory over the start")
        finally:
            os.chdir("/")


if __name__ == "__main__":
    main()
