"""The fuzz of the formats whose files need h5py or onnx to be made."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fuzz"))
from test_door_fuzz import fuzz

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("name", ["keras", "h5", "legacy", "onnx"])
@pytest.mark.timeout(14_400)
def test_hostile_files_are_read_or_refused_with_one_kind_of_error(name):
    fuzz("tests.interop.library_doors", [name])
