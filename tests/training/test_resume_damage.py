"""A training record that is not as fit writes it is refused, with the checkpoint's path, before anything is done."""

import json

import numpy as np
import pytest

from minilstm import LSTM, Adam, CheckpointError, Dense, Sequential, fit, latest_checkpoint, losses, tensorbundle

INPUTS = np.random.default_rng(2).normal(size=(10, 6, 1)).astype(np.float32)
MODEL = Sequential(LSTM(4), Dense(1))


def run(directory, **options):
    options = {"optimizer": Adam(0.01), "epochs": 2, "batch_size": 4, **options}
    return fit(MODEL, MODEL.init(0, 1), losses.mse, (INPUTS, INPUTS), checkpoint_dir=directory, **options)


def at(*path, value):
    """A change of one place of the record."""

    def change(training):
        for key in path[:-1]:
            training = training[key]
        training[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at("place", "epoch", value="1"), "epoch must be a number, got '1'"),
        (at("place", "epoch", value=True), "epoch must be a number, got True"),
        (at("place", "batch", value=-1), "batch must be a number, got -1"),
        (at("place", "loss_sum", value=None), "loss_sum must be a number, got None"),
        (at("place", value=[1]), "mapping"),
        (at("place", "more", value=1), "more"),
        (at("history", value=None), "history must hold loss and grad_norm"),
        (at("history", value={}), "history must hold loss and grad_norm"),
        (at("history", "loss", value=3), "history: loss must be a list of numbers"),
        (at("history", "loss", value=["a"]), "history: loss must be a list of numbers"),
        (at("carried", value=[]), "not enough values"),
        (at("carried", value=["Popen", 0]), "Popen"),
    ],
)
def test_a_record_that_fit_does_not_write_is_refused(run_dir, change, message):
    run(run_dir)
    prefix = latest_checkpoint(run_dir)
    tensors = tensorbundle.read(prefix)
    training = json.loads(tensors["minilstm/training"].item())
    change(training)
    tensors["minilstm/training"] = np.asarray(json.dumps(training).encode(), object)
    tensorbundle.write(prefix, tensors)
    files = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    with pytest.raises(CheckpointError, match=f"{prefix}: tensor minilstm/training: .*{message}"):
        run(run_dir, epochs=3, resume=True)
    assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == files


@pytest.mark.parametrize(
    "power", [np.float32(1), np.float32(-0.5), np.float32(np.nan), np.ones(1, np.float32), np.int64(0)], ids=repr
)
def test_a_power_of_beta_that_adam_cannot_have_is_refused(run_dir, power):
    run(run_dir)
    prefix = latest_checkpoint(run_dir)
    tensorbundle.write(prefix, {**tensorbundle.read(prefix), "beta1_power": power})
    with pytest.raises(CheckpointError, match=f"{prefix}: .*beta1_power"):
        run(run_dir, epochs=3, resume=True)
