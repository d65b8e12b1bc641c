"""TensorFlow, imported once and only here. Where it is missing, the interop tests fail: they are asked for by name."""

import os
import sys
import warnings

import pytest
from export.worker import Worker

# In this folder alone: what TensorFlow says about its own cells and layers of old, which are what we compare with.
THEIR_WARNING = "ignore:`tf.(nn.rnn_cell|layers).* is deprecated and will be removed:UserWarning"


def pytest_collection_modifyitems(items):
    for item in items:
        if "interop" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings(THEIR_WARNING), append=False)


@pytest.fixture(scope="session")
def tf():
    """``tf.compat.v1`` with the legacy Keras that has TensorFlow 1's cells."""
    if "tensorflow" not in sys.modules:
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # while importing
        import tensorflow.compat.v1 as v1

        v1.disable_v2_behavior()
        v1.logging.set_verbosity(v1.logging.ERROR)
        assert v1.nn.rnn_cell.LSTMCell  # Keras is loaded lazily: now, not within a test
    return v1


@pytest.fixture(scope="module")
def keras3():
    """A process with Keras 3."""
    with Worker(TF_USE_LEGACY_KERAS="0") as worker:
        yield worker


@pytest.fixture(scope="module")
def legacy():
    """A process with the legacy Keras, which is ``tf_keras``."""
    with Worker(TF_USE_LEGACY_KERAS="1") as worker:
        yield worker
