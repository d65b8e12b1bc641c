"""Files and models that are not what they seem: refused by name, or read with a warning that says what was taken."""

import json
import re

import numpy as np
import pytest
from helpers import assert_trees_equal

from minilstm import LSTM, RNN, CheckpointError, Dense, LSTMCell, Sequential, fit, load_checkpoint, tensorbundle
from minilstm.export import keras, npz, onnx, tf2, torch
from minilstm.export.convert import convert
from minilstm.export.hdf5 import Content
from minilstm.export.infer import Options
from minilstm.export.keras_config import from_keras_config
from minilstm.export.keras_legacy import check_bare
from minilstm.export.safetensors import encode
from minilstm.params import flatten_names

MODEL = Sequential(LSTM(3), Dense(2))
PARAMS = MODEL.init(0, 5)
FORMATS = {"npz": npz, "torch": torch, "keras": keras, "tf2": tf2, "onnx": onnx}
ENDS = {"npz": "m.npz", "torch": "m.safetensors", "keras": "m.weights.h5", "tf2": "m.ckpt", "onnx": "m.onnx"}


@pytest.mark.parametrize("name", FORMATS)
def test_no_format_writes_what_is_under_a_mask(name, tmp_path):
    bias = np.ma.masked_array(PARAMS["dense"]["bias"], [True, False])
    masked = {**PARAMS, "dense": {**PARAMS["dense"], "bias": bias}}
    with pytest.raises(ValueError, match=rf"export.{name}.save: params: dense/bias: params must be nested dicts"):
        FORMATS[name].save(tmp_path / ENDS[name], MODEL, masked)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", FORMATS)
def test_a_layer_is_no_model(name, tmp_path):
    with pytest.raises(ValueError, match=rf"export.{name}.save: model must be a Sequential, got LSTM\("):
        FORMATS[name].save(tmp_path / ENDS[name], LSTM(3), PARAMS)
    npz.save(tmp_path / "m.npz", MODEL, PARAMS)
    for model in (LSTM(3), PARAMS, Options()):
        with pytest.raises(ValueError, match="load: model must be a Sequential, got"):
            npz.load(tmp_path / "m.npz", model)
    with pytest.raises(ValueError, match=r"load: options must be minilstm.export.infer.Options"):
        npz.load(tmp_path / "m.npz", options={"activation": "tanh"})


@pytest.mark.parametrize("name", ["torch", "keras", "tf2", "onnx"])
def test_no_format_takes_a_subclass_for_the_layer_it_changes(name, tmp_path):
    class Tenfold(LSTM):
        def apply(self, *args, **options):
            outputs, state = super().apply(*args, **options)
            return 10 * outputs, state

    class Shifted(Dense):
        def apply(self, *args, **options):
            outputs, state = super().apply(*args, **options)
            return 1 + outputs, state

    for layers in ((Tenfold(3), Dense(2)), (LSTM(3), Shifted(2))):
        with pytest.raises(ValueError, match=r"is a (Tenfold|Shifted), which cannot be exported"):
            FORMATS[name].save(tmp_path / ENDS[name], Sequential(*layers), PARAMS)


def test_options_do_not_contradict_a_description(tmp_path):
    npz.save(tmp_path / "m.npz", MODEL, PARAMS)
    npz.load(tmp_path / "m.npz", options=Options(forget_bias=1.0, activation="tanh"))
    with pytest.raises(ValueError, match=r"m.npz: the model has forget_bias=1.0, and the flag says 0.25"):
        npz.load(tmp_path / "m.npz", options=Options(forget_bias=0.25))


def test_what_is_taken_from_names_and_shapes_is_said(tmp_path):
    tensorbundle.write(tmp_path / "m.ckpt", flatten_names(PARAMS))
    options = Options(activation="tanh", dense_activation="linear", forget_bias=1.0)
    with pytest.warns(UserWarning, match=r"m.ckpt: taken from names and shapes: the layers rnn, dense in this order"):
        convert(tmp_path / "m.ckpt", tmp_path / "m.npz", options=options, report=lambda line: None)
    assert_trees_equal(npz.load(tmp_path / "m.npz").params, PARAMS)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x80\x02"])
def test_a_pickle_of_pytorch_is_called_one(start, tmp_path):
    (tmp_path / "m.pt").write_bytes(start + bytes(100))
    with pytest.raises(CheckpointError, match=r"m.pt: a pickle of PyTorch.* safetensors.torch.save_file"):
        torch.load(tmp_path / "m.pt", MODEL)


def test_modules_inside_modules_are_read(tmp_path):
    model = Sequential(LSTM(3, name="encoder.lstm"), Dense(2, name="head"))
    params = {"encoder.lstm": PARAMS["rnn"], "head": PARAMS["dense"]}
    torch.save(tmp_path / "plain.safetensors", Sequential(LSTM(3, name="encoder"), Dense(2, name="head")),
               {"encoder": PARAMS["rnn"], "head": PARAMS["dense"]})  # fmt: skip
    tensors, _ = torch.read(tmp_path / "plain.safetensors")
    nested = {name.replace("encoder.", "encoder.lstm."): tensor for name, tensor in tensors.items()}
    (tmp_path / "m.safetensors").write_bytes(encode(nested, {"format": "pt"}))
    loaded = torch.load(tmp_path / "m.safetensors", model)
    assert_trees_equal(loaded.params, params)
    found = torch.load(tmp_path / "m.safetensors", options=Options(dense_activation="linear", forget_bias=1.0))
    assert found.model.names == ["encoder.lstm", "head"]
    assert_trees_equal(found.params, params)
    with pytest.raises(ValueError, match=r"the layer name 'encoder.lstm' has a dot, which no PyTorch module name"):
        torch.save(tmp_path / "again.safetensors", model, params)


def layer(kind, **options):
    config = {"name": kind.lower(), "units": 3, "return_sequences": True}
    return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None, **options}


@pytest.mark.parametrize("options", [
    {"module": None, "registered_name": "my>LSTM"}, {"module": "mine", "registered_name": "LSTM"},
    {"module": "kerasx.layers"},
], ids=str)  # fmt: skip
def test_a_class_that_is_named_like_keras_own_is_refused(options):
    config = {"class_name": "Sequential", "config": {"layers": [layer("LSTM", **options)]}}
    with pytest.raises(ValueError, match=r"test: layer 'lstm' is .*, a class of its own, wanted Keras's"):
        from_keras_config(config, "test")
    for known in ({}, {"module": "tf_keras.layers"}, {"module": None}, {"registered_name": "LSTM"}):
        config = {"class_name": "Sequential", "config": {"layers": [layer("LSTM", **known)]}}
        assert len(from_keras_config(json.loads(json.dumps(config)), "test").layers) == 1


def test_a_regularizer_is_left_out_and_said():
    one = layer("LSTM")
    one["config"] |= {"kernel_regularizer": {"class_name": "L2"}, "recurrent_constraint": {"class_name": "MaxNorm"}}
    with pytest.warns(UserWarning, match=r"left out, .*: kernel_regularizer=.* of 'lstm', recurrent_constraint="):
        from_keras_config({"class_name": "Sequential", "config": [one]}, "test")


def test_a_second_input_is_no_row():
    check_bare(Content({}, {}, None, ("input_1", "dropout")), "test")
    with pytest.raises(ValueError, match=r"test: there are 2 inputs, so the layers are not in a row"):
        check_bare(Content({}, {}, None, ("input_1", "input_2")), "test")


def test_averages_are_found_beside_an_adam_of_another_name(tmp_path):
    flat = flatten_names(Sequential(RNN(LSTMCell(2))).init(0, 3))
    tensors = {}
    for n, (name, value) in enumerate(flat.items()):
        ends = ("", "/opt", "/opt_1", "/ExponentialMovingAverage")
        tensors |= {f"net/{name}{end}": value + n + k for k, end in enumerate(ends)}
    tensors |= {"net/beta1_power": np.float32(0.9), "net/beta2_power": np.float32(0.99)}
    tensorbundle.write(tmp_path / "m", tensors)
    loaded = load_checkpoint(tmp_path / "m", like=Sequential(RNN(LSTMCell(2))), scope="net")
    assert loaded.opt_state is not None
    assert not [name for name in loaded.others if re.search("Average", name)]
    for n, (name, value) in enumerate(flatten_names(loaded.averaged).items()):
        assert_trees_equal(value, flat[name] + n + 3)


def test_a_run_of_fit_keeps_its_names_in_the_naming_of_tensorflow_1_0(tmp_path):
    inputs = np.ones((2, 3, 5), np.float32)
    fit(MODEL, PARAMS, "mse", (inputs, inputs[..., :2]), optimizer="adam", epochs=1, checkpoint_dir=tmp_path / "run")
    convert(tmp_path / "run", tmp_path / "old.ckpt", to="tf1.0", report=lambda line: None)
    assert_trees_equal(load_checkpoint(tmp_path / "old.ckpt-1").params, load_checkpoint(tmp_path / "run").params)


def test_an_unknown_format_is_named(tmp_path):
    npz.save(tmp_path / "m.npz", MODEL, PARAMS)
    with pytest.raises(ValueError, match=r"convert: to must be one of tf, tf1.0, tf2, .*, got 'tf3'"):
        convert(tmp_path / "m.npz", tmp_path / "n", to="tf3")
