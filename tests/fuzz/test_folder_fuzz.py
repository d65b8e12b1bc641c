"""A short run of the fuzz of a run's folder; MINILSTM_FULL=1 makes it the long one."""

from __future__ import annotations

import os

from test_door_fuzz import run

COUNT = 20_000 if os.environ.get("MINILSTM_FULL") == "1" else 200


def test_a_damaged_folder_resumes_to_the_same_numbers_or_is_refused():
    *lines, memory = run("tests.fuzz.folder_fuzz", "--count", str(COUNT), "--seed", "0").splitlines()
    counts = {outcome: int(count) for count, outcome in (line.split(maxsplit=1) for line in lines)}
    assert sum(counts.values()) == COUNT
    assert counts["history read"] > COUNT / 5
    assert min(counts["arrays refused"], counts["record refused"], counts["state read"]) > COUNT / 10
    assert float(memory.split()[0]) < 100
