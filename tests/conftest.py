"""Hypothesis profiles: `quick` always the same examples, `full` (MINILSTM_FULL=1) ten times as many and new ones."""

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
    """The interop tests import other frameworks: without ``-m interop`` they are not even looked at."""
    if "interop" in collection_path.parts and config.getoption("markexpr") == "not interop":
        return True
    return None


@pytest.fixture
def run_dir(tmp_path):
    """A path for a run that nobody has made yet."""
    return tmp_path / "run"
