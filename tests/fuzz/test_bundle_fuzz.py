"""A short run of the fuzz harnesses; MINILSTM_FULL=1 makes it the long one."""

from __future__ import annotations

import os

import bundle_fuzz
import pytest
import slice_fuzz
from test_door_fuzz import run

FULL = os.environ.get("MINILSTM_FULL") == "1"


def test_mutated_checkpoints_are_refused_or_what_their_index_says():
    outcomes = bundle_fuzz.run(count=400, seed=0)
    assert outcomes["index refused"] > 100
    assert outcomes["tensor refused"] > 20
    assert outcomes["read"] > 20


def test_mutated_files_of_the_first_format_are_refused_or_what_they_say():
    outcomes = slice_fuzz.run(count=400, seed=0)
    assert outcomes["index refused"] > 100
    assert outcomes["tensor refused"] > 50
    assert outcomes["read"] > 20


@pytest.mark.parametrize("harness", ["bundle_fuzz", "slice_fuzz"])
def test_memory_stays_within_bounds(harness):
    if not bundle_fuzz.peak_megabytes():
        pytest.skip("the peak of memory is not known here")
    printed = run(f"tests.fuzz.{harness}", "--count", "20000" if FULL else "300", "--seed", "1")
    megabytes = float(printed.splitlines()[-1].split()[0])
    assert megabytes < 100


def test_a_case_can_be_run_alone():
    assert sum(bundle_fuzz.run(count=0, seed=0, only=7).values()) >= 1
    assert sum(slice_fuzz.run(count=0, seed=0, only=7).values()) == 1
