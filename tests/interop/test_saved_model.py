"""The folder of a SavedModel as a source of `inspect` and `convert`: what TensorFlow, tf.keras and Keras 3 write."""

import functools
import os

os.environ["TF_USE_LEGACY_KERAS"] = "0"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf
from export.worker import TRAINED
from helpers import assert_close

from minilstm import load_checkpoint
from minilstm.cli import main
from minilstm.export import npz, tf2

pytestmark = pytest.mark.interop
INPUTS = np.random.default_rng(0).normal(size=(4, 7, 3)).astype(np.float32)
FLAGS = ["--activation", "tanh", "--dense-activation", "linear"]


def stack(first=keras.layers.LSTM):
    layers = keras.layers
    return keras.Sequential(
        [layers.Input((7, 3)), first(4, return_sequences=True, name="mine"), layers.Dropout(0.3), layers.LSTM(5),
         layers.Dense(6), layers.Dense(2)]
    )  # fmt: skip


def both_directions(units, *, name, **options):
    return keras.layers.Bidirectional(keras.layers.LSTM(units, **options), name=name)


@pytest.mark.parametrize("first", [keras.layers.LSTM, keras.layers.GRU, both_directions])
def test_what_keras_3_exports(first, tmp_path, capsys):
    model = stack(first)
    for weights in model.trainable_variables:
        weights.assign(np.random.default_rng(1).normal(0, 0.5, weights.shape))
    model.export(str(tmp_path / "theirs"), verbose=False)
    assert main(["inspect", str(tmp_path / "theirs")]) == 0
    last = [f"variables/{len(model.variables) - k}/.ATTRIBUTES/VARIABLE_VALUE" for k in (2, 1)]
    assert last[1] in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "m.npz"), *FLAGS]) == 0
    printed = capsys.readouterr()
    assert "verified" in printed.out
    assert f"layer_3: kernel, bias <- {', '.join(last)}\n" in printed.out  # the keys in the file, of the last Dense
    assert "left out: any layer without weights, which such a file does not describe" in printed.err
    ours = npz.load(tmp_path / "m.npz")
    found = ours.model(ours.params, INPUTS)
    assert_close(found[:, -1] if found.ndim == 3 else found, model(INPUTS, training=False).numpy(), 2e-6)


THEIRS = """
import tensorflow as tf
K = tf.keras
K.utils.set_random_seed(3)
x = K.Input((None,), dtype="int64")
layers = [
    K.layers.Embedding(7, 3), K.layers.LSTM(4, activation="relu", return_sequences=True), K.layers.Dropout(0.3),
    K.layers.Bidirectional(K.layers.GRU(3, bias_initializer="uniform", return_sequences=True)), {last},
    K.layers.GRU(3, reset_after=False, go_backwards=True, bias_initializer="uniform"), K.layers.Dense(2, "tanh"),
]
"""


@pytest.mark.parametrize("functional", [False, True], ids=["Sequential", "Model"])
def test_what_tf_keras_saves_describes_its_layers(tmp_path, legacy, capsys, functional):
    path, words = str(tmp_path / "theirs"), np.random.default_rng(0).integers(0, 7, (3, 6))
    code = functools.partial((THEIRS + TRAINED).format, functional=functional, path=path)
    wanted = legacy.run(code(last="K.layers.Dropout(0.1)"), inputs=words)["outputs"]
    found = tf2.load(path)
    assert_close(found.model(found.params, words), wanted, 2e-6)
    assert main(["convert", path, str(tmp_path / "m.npz")]) == 0
    printed = capsys.readouterr()
    assert "verified" in printed.out
    assert not printed.err
    legacy.run(code(last="K.layers.LayerNormalization()"), inputs=words)
    with pytest.raises(ValueError, match=r"layer 'layer_normalization.*' is a LayerNormalization, wanted one of"):
        tf2.load(path)


def test_what_is_not_known_is_refused(tmp_path, capsys):
    stack(keras.layers.SimpleRNN).export(str(tmp_path / "theirs"), verbose=False)
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "m.npz"), *FLAGS]) == 2
    assert "is of no LSTM, GRU, Dense or Embedding" in capsys.readouterr().err


def test_what_a_program_of_tensorflow_1_exports(tmp_path, capsys):
    v1 = tf.compat.v1
    values = {"rnn/basic_lstm_cell/kernel": (7, 16), "rnn/basic_lstm_cell/bias": (16,), "dense/kernel": (4, 2),
              "dense/bias": (2,)}  # fmt: skip
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3])
        for name, shape in values.items():
            v1.get_variable(name, shape, use_resource=False)
        session.run(v1.global_variables_initializer())
        wanted = session.run({v.op.name: v for v in v1.global_variables()})
        v1.saved_model.simple_save(session, str(tmp_path / "theirs"), {"x": x}, {"y": x + 1})
    assert main(["inspect", str(tmp_path / "theirs")]) == 0
    assert "rnn/basic_lstm_cell/kernel" in capsys.readouterr().out
    loaded = load_checkpoint(tmp_path / "theirs")
    assert np.array_equal(loaded.params["rnn"]["basic_lstm_cell"]["kernel"], wanted["rnn/basic_lstm_cell/kernel"])
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "m.npz"), *FLAGS, "--forget-bias", "1"]) == 0
