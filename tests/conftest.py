"""Hypothesis profiles: `quick` has the same examples every time, `full` (MINILSTM_FULL=1) ten times more, new ones."""

import os

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "quick",
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "full",
    max_examples=300,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("full" if os.environ.get("MINILSTM_FULL") else "quick")


def pytest_ignore_collect(collection_path, config):
    """Ignore the interop tests without ``-m interop``: they import other frameworks."""
    if "interop" in collection_path.parts and config.getoption("markexpr") == "not interop":
        return True
    return None


@pytest.fixture
def run_dir(tmp_path):
    """A path for a run; the folder does not exist yet."""
    return tmp_path / "run"
