"""Hypothesis profiles: `quick` has the same examples every time, `full` (MINILSTM_FULL=1) ten times more, new ones."""

import os

import hypothesis
import pytest
from messages import fault_of

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
if os.environ.get("MINILSTM_FULL"):
    os.environ.setdefault("PYTEST_TIMEOUT", "14400")  # seconds; without it the limit in setup.cfg ends the long counts


def pytest_ignore_collect(collection_path, config):
    """Ignore the interop tests without ``-m interop``: they import other frameworks."""
    if "interop" in collection_path.parts and config.getoption("markexpr") == "not interop":
        return True
    return None


class _Read:
    """What `pytest.raises` returns; the message of what it catches is read."""

    def __init__(self, inner):
        self.inner = inner

    def __enter__(self):
        self.caught = self.inner.__enter__()
        return self.caught

    def __exit__(self, *error):
        result = self.inner.__exit__(*error)
        if result:
            fault = fault_of(error[1])
            assert fault is None, f"the message {fault}"
        return result


_raises = pytest.raises


def _raises_and_reads(*args, **kwargs):
    result = _raises(*args, **kwargs)
    return _Read(result) if hasattr(result, "__enter__") else result


pytest.raises = _raises_and_reads


@pytest.fixture
def run_dir(tmp_path):
    """A path for a run; the folder does not exist yet."""
    return tmp_path / "run"
