"""Arrays of another layer are never read as an LSTM of other sizes: every shape is compared with every other."""

import numpy as np
import pytest
from export.cases import make, simple

from minilstm import (
    LSTM,
    RNN,
    Bidirectional,
    Dense,
    DropoutWrapper,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    Sequential,
    load_checkpoint,
    save_checkpoint,
    tensorbundle,
)
from minilstm.checkpoint import prefix_of
from minilstm.cli import main
from minilstm.export import convert, keras, npz, onnx, tf2, torch
from minilstm.export.format import assembled
from minilstm.export.infer import Options, in_checkpoint
from minilstm.export.keras_layers import in_keras_layers
from minilstm.export.torch import in_state_dict

KINDS = {"GRU": 3, "plain RNN": 1}


def torch_arrays(blocks, units=8, features=5, name="rnn", depth=0):
    shapes = {"weight_ih": (blocks * units, features), "weight_hh": (blocks * units, units)}
    shapes |= {"bias_ih": (blocks * units,), "bias_hh": (blocks * units,)}
    return {f"{name}.{key}_l{depth}": np.ones(shape, np.float32) for key, shape in shapes.items()}


def keras_arrays(blocks, units=8, features=5):
    shapes = {"kernel": (features, blocks * units), "recurrent_kernel": (units, blocks * units)}
    return {key: np.ones(shape, np.float32) for key, shape in {**shapes, "bias": (blocks * units,)}.items()}


def onnx_arrays(blocks, units=8, features=5):
    shapes = {"W": (1, blocks * units, features), "R": (1, blocks * units, units), "B": (1, 2 * blocks * units)}
    return {f"rnn/{key}": np.ones(shape, np.float32) for key, shape in shapes.items()}


def shapes(arrays):
    return {name: array.shape for name, array in arrays.items()}


def test_without_a_model_the_units_are_the_width_of_the_recurrent_array():
    looks_like, blocks = "plain RNN", 1
    message = rf"a/f: rnn.weight_ih_l0 .* wants \(32, 5\): {blocks} x 8 rows: a {looks_like}"
    with pytest.raises(ValueError, match=message):
        in_state_dict(shapes(torch_arrays(blocks)), "a/f")
    with pytest.raises(ValueError, match=rf"a/f: l/kernel .* wants \(5, 32\): {blocks} x 8 columns: a {looks_like}"):
        in_keras_layers({"l": shapes(keras_arrays(blocks))}, "a/f")


@pytest.mark.parametrize(("looks_like", "blocks"), KINDS.items())
@pytest.mark.parametrize("library", ["torch", "keras", "onnx"])
def test_a_model_of_other_units_that_has_as_many_rows_is_no_excuse(library, looks_like, blocks):
    """A GRU of 8 units has 24 rows, as an LSTM of 6 has; the missing 2 columns would become input features."""
    model = Sequential(LSTM(8 * blocks // 4))
    if library == "keras":
        arrays = {f"layers/lstm/cell/vars/{k}": array for k, array in enumerate(keras_arrays(blocks).values())}
        places = keras._places(model, "a/f")
    else:
        module, arrays = (torch, torch_arrays(blocks)) if library == "torch" else (onnx, onnx_arrays(blocks))
        places = module._places(model, "a/f")
    with pytest.raises(ValueError, match=rf"a/f: (rnn[./]|layers/lstm).* has shape .*{blocks} x 8 .*: a {looks_like}"):
        assembled(model, places, arrays, "a/f")


def test_a_tf2_graph_of_a_gru_is_no_lstm(tmp_path):
    case = make(Sequential(LSTM(6)), width=3)
    tf2.save(tmp_path / "m.ckpt", case.model, case.params)
    tensors = tensorbundle.read(tmp_path / "m.ckpt")
    for array, value in keras_arrays(3).items():
        tensors[f"model/layer_with_weights-0/cell/{array}/{tf2.VALUE}"] = value
    tensorbundle.write(tmp_path / "gru.ckpt", tensors)
    with pytest.raises(ValueError, match=r"cell/recurrent_kernel.* wants \(6, 24\): 3 x 8 columns: a GRU"):
        tf2.load(tmp_path / "gru.ckpt")
    del tensors["minilstm/model"]
    tensorbundle.write(tmp_path / "bare.ckpt", tensors)
    found = tf2.load(tmp_path / "bare.ckpt", options=Options(activation="tanh"))
    assert found.model.config() == Sequential(RNN(GRUCell(8), name="layer_0")).config()


@pytest.mark.parametrize("array", ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"])
@pytest.mark.parametrize("damaged", [(), (32,), (31, 3), (32, 4), (8,), (3, 9)])
def test_every_array_of_a_pytorch_lstm_is_compared_and_named(array, damaged):
    right = shapes(torch_arrays(4)) | {"rnn.weight_hh_l0": (32, 3), "rnn.weight_hr_l0": (3, 8)}
    in_state_dict(right, "a/f")
    name = f"rnn.{array}_l0"
    if damaged == right[name] or (array == "weight_ih" and damaged == (32, 4)):
        return
    with pytest.raises(ValueError, match=r"a/f: rnn\.\w+_l0 has shape .*, and an LSTM of \d units wants"):
        in_state_dict(right | {name: damaged}, "a/f")


@pytest.mark.parametrize("array", ["kernel", "bias", "w_i_diag", "projection/kernel"])
@pytest.mark.parametrize("damaged", [(), (12,), (7, 33), (9, 2), (2, 32), (31,)])
def test_every_array_of_a_checkpoint_is_compared_and_named(array, damaged):
    cell = LSTMCell(8, num_proj=2, use_peepholes=True)
    params = Sequential(RNN(cell)).init(0, 5)["rnn"]["lstm_cell"]
    right = {f"rnn/lstm_cell/{name}": (8, 2) if name == "projection" else a.shape for name, a in params.items()}
    right["rnn/lstm_cell/projection/kernel"] = right.pop("rnn/lstm_cell/projection")
    in_checkpoint(right, "a/f")
    with pytest.raises(ValueError, match=r"a/f: rnn: lstm_cell/\S+ has (shape|\d rows)"):
        in_checkpoint(right | {f"rnn/lstm_cell/{array}": damaged}, "a/f")


def test_peepholes_are_all_there_or_none():
    right = {"rnn/lstm_cell/kernel": (5, 8), "rnn/lstm_cell/bias": (8,), "rnn/lstm_cell/w_i_diag": (2,)}
    with pytest.raises(ValueError, match=r"no peepholes or w_f_diag, w_i_diag, w_o_diag, got \['w_i_diag'\]"):
        in_checkpoint(right, "a/f")


def test_cells_that_do_not_fit_each_other_and_backward_weights_are_named():
    stack = torch_arrays(4) | torch_arrays(4, features=7, depth=1)
    with pytest.raises(ValueError, match="a/f: cell 0 of rnn gives 8 features, and cell 1 takes 7"):
        in_state_dict(shapes(stack), "a/f")
    both = torch_arrays(4) | {f"{name}_reverse": array for name, array in torch_arrays(3).items()}
    with pytest.raises(ValueError, match="a/f: the two directions of rnn differ"):
        in_state_dict(shapes(both), "a/f")


# --- names of files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_file_of_a_checkpoint_names_the_checkpoint(tmp_path, suffix, capsys):
    case = simple()
    prefix = save_checkpoint(tmp_path / "model.ckpt", case.params, model=case.model)
    path = prefix + suffix
    assert load_checkpoint(path).prefix == prefix
    assert tensorbundle.open(path).prefix == prefix
    assert tensorbundle.read(path).keys() == tensorbundle.read(prefix).keys()
    assert tensorbundle.list_variables(path) == tensorbundle.list_variables(prefix)
    assert main(["inspect", path]) == 0
    assert capsys.readouterr().out.startswith(f"{prefix}: step unknown")
    assert main(["convert", path, str(tmp_path / "m.npz")]) == 0
    assert npz.load(tmp_path / "m.npz").model.config() == case.model.config()


def test_a_prefix_that_looks_like_a_file_stays_a_prefix(tmp_path):
    params = simple().params
    for name in ("m", "m.index"):
        prefix = save_checkpoint(tmp_path / name, params)
        assert prefix_of(prefix) == str(tmp_path / "m") if name == "m" else str(tmp_path / "m.index")
    assert len(tensorbundle.read(tmp_path / "m.index")) == len(tensorbundle.read(tmp_path / "m"))
    assert prefix_of(tmp_path / "absent.index") == str(tmp_path / "absent.index")
    (tmp_path / ".index").write_bytes(b"")
    assert prefix_of(tmp_path / ".index") == str(tmp_path / ".index")


# --- flags ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        RNN(DropoutWrapper(LSTMCell(3, forget_bias=0.5))),
        RNN(MultiRNNCell([DropoutWrapper(LSTMCell(3, forget_bias=0.5))])),
        Bidirectional(LSTMCell(3, forget_bias=0.5)),
        Bidirectional(LSTMCell(3), DropoutWrapper(LSTMCell(3, forget_bias=0.5))),
    ],
    ids=["wrapper", "stack of wrappers", "bidirectional", "backwards"],
)
def test_a_flag_that_contradicts_a_cell_anywhere_is_refused(tmp_path, layer):
    case = make(Sequential(layer, Dense(1, activation="relu")))
    prefix = save_checkpoint(tmp_path / "m.ckpt", case.params, model=case.model)
    for options, message in (
        (Options(forget_bias=1.5), r"the model has forget_bias=\S+, and the flag says 1.5"),
        (Options(activation="relu"), "the model has activation='tanh', and the flag says 'relu'"),
        (Options(cell_clip=1.0), r"the model has cell_clip=None, and the flag says 1\.0"),
        (Options(dense_activation="linear"), "the model has dense_activation='relu', and the flag says 'linear'"),
    ):
        with pytest.raises(ValueError, match=message):
            convert.convert(prefix, tmp_path / "m.npz", options=options, report=lambda line: None)
    assert convert.convert(prefix, tmp_path / "m.npz", options=Options(activation="tanh"), report=lambda line: None)
