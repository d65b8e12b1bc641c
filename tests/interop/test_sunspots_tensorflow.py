"""TensorFlow restores the checkpoint of the sunspots experiment and makes the same forecasts."""

import sys
from pathlib import Path

import numpy as np
import pytest

from minilstm import load_checkpoint
from minilstm.data import sliding_windows

sys.path.insert(0, str(Path(__file__).parents[2]))
from experiments import sunspots

pytestmark = pytest.mark.interop


def test_tensorflow_forecasts_the_test_years_from_our_checkpoint(tf, tmp_path):
    sunspots.main(["--out", str(tmp_path), "--seeds", "1", "--ensemble", "1", "--quiet"])
    loaded = load_checkpoint(tmp_path)
    scaling = sunspots.Scaling(**loaded.extra["scaling"])
    years, numbers = sunspots.sunspots()
    windows = sliding_windows(scaling.inputs(numbers)[:-1], loaded.extra["window"])[..., None].astype(np.float32)
    windows = windows[years[loaded.extra["window"] :] > 1920]
    ours = loaded.model(loaded.params, windows)
    assert ours.shape == (88, loaded.extra["window"], 1)

    units = loaded.params["rnn"]["lstm_cell"]["bias"].size // 4
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, windows.shape)
        outputs, _ = tf.nn.static_rnn(tf.nn.rnn_cell.LSTMCell(units), tf.unstack(x, axis=1), dtype=tf.float32)
        forecasts = tf.layers.dense(tf.stack(outputs, axis=1), 1)
        tf.train.Saver().restore(session, loaded.prefix)
        theirs = session.run(forecasts, {x: windows})
    assert np.abs(theirs).max() > 0.3
    assert np.max(np.abs(ours - theirs)) / max(1, np.max(np.abs(theirs))) < 1e-6
