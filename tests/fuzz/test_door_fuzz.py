"""Short runs of the fuzz of every format; MINILSTM_FULL=1 makes them the long ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FULL = os.environ.get("MINILSTM_FULL") == "1"
COUNT = 20_000 if FULL else 100
FORMATS = ("npz", "safetensors", "tf2", "saved_model", "description", "dump", "sweep")  # others: tests/interop
MEGABYTES = 400


# Some libraries install a package named tests, which would win over this folder, since it has no __init__.py.
OUR_TESTS = f"""
import runpy, sys, types
sys.modules["tests"] = types.ModuleType("tests")
sys.modules["tests"].__path__ = [{str(ROOT / "tests")!r}]
"""


def python(code, *arguments):
    """Run code in a process of its own, which has its own limits and may die; `tests` is this folder there."""
    command = [sys.executable, "-c", OUR_TESTS + code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=14_000)


def run(module, *arguments):
    """What a module prints that runs as ``python -m``."""
    found = python(f"runpy.run_module({module!r}, run_name='__main__')", *arguments)
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout


def fuzz(module, formats, seed=0):
    """Run the fuzz; assert that it finds nothing wrong, sees files of both kinds and stays within its memory."""
    printed = run(module, *formats, "--count", str(COUNT), "--seed", str(seed))
    for name in formats:
        line = re.search(rf"^{name}: (.*)$", printed, re.MULTILINE)[1]
        counts = {outcome: int(count) for count, outcome in (part.split(" ", 1) for part in line.split(", "))}
        assert sum(counts.values()) == COUNT
        assert counts["refused"] > COUNT / 5, printed
        assert sum(count for outcome, count in counts.items() if "read" in outcome) > 0, printed
    assert max(float(number) for number in re.findall(r"(\S+) MB of memory", printed)) < MEGABYTES


@pytest.mark.parametrize("formats", [(name,) for name in FORMATS] if FULL else [FORMATS], ids="-".join)
def test_hostile_files_are_read_or_refused_with_one_kind_of_error(formats):
    fuzz("tests.fuzz.door_fuzz", formats)


FAULTS = {
    "raise KeyError('x')": "KeyError: 'x'",
    "raise ValueError('bad')": "AssertionError: a wrong message: bad",
    "bytearray(4 << 30)": "MemoryError: ",
    "while True: pass": "LateError: more than 1 seconds",
    "open('../outside/secret.bin').close()": "AssertionError: files outside were opened: ",
    "open('new', 'w').close()": "AssertionError: files were written: ",
    "open('../new', 'w').close()": "AssertionError: files outside were opened: ",
}
PLANTED = """
import sys
from tests.fuzz import door_fuzz
from tests.fuzz.doors import DOORS

def run(name, doors, count, seed, only, keep):
    for fault in {faults}:
        def read(path):
            exec(fault)
            raise OSError("the disk")
        try:
            original("sweep", {{"sweep": DOORS["sweep"]._replace(readers=(read,))}}, 1, 0)
            print("not found")
        except AssertionError as error:
            print(str(error).partition("seed 0: ")[2])
    sys.exit()

door_fuzz.SECONDS, original = 1, door_fuzz.run
door_fuzz.run = lambda *a: run(*a) if len(a) == 6 else original(*a)
sys.argv = ["door_fuzz", "sweep"]
door_fuzz.main()
"""


def test_planted_faults_are_found():
    found = python(PLANTED.format(faults=list(FAULTS))).stdout.splitlines()
    assert len(found) == len(FAULTS)
    for line, message in zip(found, FAULTS.values(), strict=True):
        assert line.startswith(message)
