"""A short run of the fuzz of a run's folder; MINILSTM_FULL=1 makes it the long one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from test_door_fuzz import OUR_TESTS

ROOT = Path(__file__).resolve().parents[2]
COUNT = 20_000 if os.environ.get("MINILSTM_FULL") == "1" else 200


def test_a_damaged_folder_resumes_to_the_same_numbers_or_is_refused():
    code = f"{OUR_TESTS}\nfrom tests.fuzz import bundle_fuzz, folder_fuzz\nbundle_fuzz.main(folder_fuzz.fuzz, 'x')"
    command = [sys.executable, "-c", code, "--count", str(COUNT), "--seed", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    *lines, memory = done.stdout.splitlines()
    counts = {outcome: int(count) for count, outcome in (line.split(maxsplit=1) for line in lines)}
    assert sum(counts.values()) == COUNT
    assert counts["history read"] > COUNT / 5
    assert min(counts["arrays refused"], counts["record refused"], counts["state read"]) > COUNT / 10
    assert float(memory.split()[0]) < 100
