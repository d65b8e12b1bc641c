"""The TensorBoard callback: what it writes, and what it says where tensorboardX is missing."""

import sys
import types

import numpy as np
import pytest

from minilstm import LSTM, SGD, Dense, Sequential, fit, losses
from minilstm.training.tensorboard import tensorboard


class Recorder:
    """A replacement for tensorboardX's SummaryWriter."""

    def __init__(self, logdir):
        self.logdir, self.scalars, self.flushed = logdir, [], 0
        Recorder.last = self

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def flush(self):
        self.flushed += 1


def run(callback):
    inputs = np.random.default_rng(0).normal(size=(8, 5, 1))
    model = Sequential(LSTM(2), Dense(1))
    return fit(model, model.init(0, 1), losses.mse, (inputs, inputs), optimizer=SGD(0.1), epochs=3, batch_size=4,
               callbacks=[callback])  # fmt: skip


def test_every_epoch_writes_the_newest_numbers(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=Recorder))
    result = run(tensorboard(tmp_path))
    written = Recorder.last
    assert written.logdir == str(tmp_path)
    assert written.flushed == 3
    assert [(v, s) for n, v, s in written.scalars if n == "loss"] == list(
        zip(result.history["loss"], (2, 4, 6), strict=True)
    )
    for name, value in result.baselines.items():
        assert [v for n, v, _ in written.scalars if n == f"baseline/{name}"] == [value] * 3


def test_without_tensorboardx_the_error_has_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"pip install 'minilstm\[tensorboard\]'"):
        tensorboard(tmp_path)
