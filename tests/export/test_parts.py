"""Models as rows of parts; what cannot be exported is refused by the name of its option; missing libraries."""

import sys

import numpy as np
import pytest
from export.cases import make, simple

from minilstm import (
    LSTM,
    RNN,
    BasicRNNCell,
    Bidirectional,
    CoupledLSTMCell,
    Dense,
    Dropout,
    DropoutWrapper,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    ResidualWrapper,
    Sequential,
)
from minilstm.export import keras, onnx, parts, tf2, torch

SAVES = {"torch": torch, "keras": keras, "tf2": tf2, "onnx": onnx}
FILES = {"torch": "m.safetensors", "keras": "m.keras", "tf2": "m.ckpt", "onnx": "m.onnx"}
PEEPHOLES = {"use_peepholes": True}


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("torch", PEEPHOLES, r"'rnn' has use_peepholes=True, and torch.nn.LSTM has no peepholes"),
        ("torch", {"cell_clip": 0.5}, r"cell_clip=0.5, and torch"),
        ("torch", {"num_proj": 2, "proj_clip": 0.5}, r"proj_clip=0.5, and torch"),
        ("torch", {"num_proj": 3}, r"num_proj=3 with 3 units"),
        ("torch", {"activation": "relu"}, r"activation='relu', and torch.nn.LSTM has tanh alone"),
        ("torch", {"learn_initial_state": True}, r"learn_initial_state=True, and torch"),
        ("torch", {"name": "a.b"}, r"'a.b' has a dot"),
        ("keras", PEEPHOLES, r"use_peepholes=True, and keras"),
        ("keras", {"cell_clip": 0.5}, r"cell_clip=0.5, and keras"),
        ("keras", {"num_proj": 2}, r"num_proj=2, and keras"),
        ("keras", {"time_major": True}, r"time_major=True, and keras"),
        ("keras", {"learn_initial_state": True}, r"learn_initial_state=True, and keras"),
        ("keras", {"reverse": True}, r"reverse=True, and Keras returns"),
        ("tf2", {"cell_clip": 0.5}, r"cell_clip=0.5, and keras"),
        ("onnx", {"cell_clip": 0.5}, r"cell_clip=0.5, and an ONNX LSTM's clip bounds the gates"),
        ("onnx", {"num_proj": 2}, r"num_proj=2, and an ONNX LSTM has no projection"),
        ("onnx", {"time_major": True}, r"time_major=True, and the exported model"),
    ],
)
def test_an_option_that_the_target_lacks_is_refused_by_name_and_nothing_is_written(tmp_path, target, options, message):
    case = simple(**options)
    with pytest.raises(ValueError, match=message):
        SAVES[target].save(tmp_path / FILES[target], case.model, case.params)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", SAVES)
@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (RNN(CoupledLSTMCell(3)), "'rnn' is a CoupledLSTMCell"),
        (RNN(ResidualWrapper(LSTMCell(2))), "'rnn' is a ResidualWrapper"),
        (RNN(MultiRNNCell([LSTMCell(2), BasicRNNCell(3)])), "'rnn/cell_1' is a BasicRNNCell"),
        (
            Bidirectional(MultiRNNCell([LSTMCell(3), LSTMCell(3)])),
            "'bidirectional_rnn' is a Bidirectional with a MultiRNNCell in it; only one bare cell in each direction",
        ),
        (
            Bidirectional(LSTMCell(3), DropoutWrapper(LSTMCell(3), output_keep_prob=0.5)),
            "a Bidirectional with a DropoutWrapper in it",
        ),
        (Bidirectional(LSTMCell(3), BasicRNNCell(3)), "'bidirectional_rnn' is a BasicRNNCell"),
        (Bidirectional(LSTMCell(3), GRUCell(3)), "has cell='LSTM' forward and cell='GRU' backward"),
        (Bidirectional(LSTMCell(3), LSTMCell(4)), "'bidirectional_rnn' has units=3 forward and units=4 backward; only"),
        (
            Bidirectional(GRUCell(3, reset_after=True), GRUCell(3)),
            "has reset_after=True forward and reset_after=False backward",
        ),
        (
            Bidirectional(LSTMCell(3), LSTMCell(3, activation="relu")),
            "has activation='tanh' forward and activation='relu' backward",
        ),
        (
            Bidirectional(LSTMCell(3), LSTMCell(3, use_peepholes=True)),
            "has use_peepholes=False forward and use_peepholes=True backward",
        ),
        (RNN(DropoutWrapper(LSTMCell(2), state_keep_prob=0.5)), r"DropoutWrapper with state_keep_prob=0.5"),
        (RNN(DropoutWrapper(LSTMCell(2), variational_recurrent=True)), r"with variational_recurrent=True"),
    ],
)
def test_a_layer_without_counterpart_is_refused(tmp_path, target, layer, message):
    case = make(Sequential(layer))
    with pytest.raises(ValueError, match=message):
        SAVES[target].save(tmp_path / FILES[target], case.model, case.params)


GRU = RNN(GRUCell(3, reset_after=True))


@pytest.mark.parametrize(
    ("targets", "layer", "message"),
    [
        ("torch", RNN(GRUCell(3)), "'rnn' has reset_after=False, and torch.nn.GRU has reset_after=True alone"),
        ("torch", RNN(GRUCell(3, reset_after=True, activation="relu")), "activation='relu', and torch.nn.GRU has tanh"),
        ("torch", Bidirectional(GRUCell(3)), "'bidirectional_rnn' has reset_after=False"),
        ("onnx", GRU, "'rnn' is a GRUCell, and only LSTMs are written for ONNX"),
        ("onnx", Bidirectional(LSTMCell(3)), "'bidirectional_rnn' is a Bidirectional, and only LSTMs of one direction"),
        ("torch keras tf2", RNN(GRU.cell, learn_initial_state=True), r"learn_initial_state=True, and \S+\.GRU keeps"),
        ("keras tf2", RNN(GRU.cell, time_major=True), "'rnn' has time_major=True, and keras.layers.GRU takes"),
        ("keras tf2", RNN(GRU.cell, reverse=True), "'rnn' has reverse=True, and Keras returns"),
        (
            "torch keras tf2",
            Bidirectional(RNN(LSTMCell(3)), RNN(LSTMCell(3), learn_initial_state=True)),
            r"'bidirectional_rnn' has learn_initial_state=True, and \S+\.LSTM keeps",
        ),
        (
            "torch keras tf2",
            Bidirectional(LSTMCell(3, use_peepholes=True)),
            "'bidirectional_rnn' has use_peepholes=True, and",
        ),
    ],
)
def test_a_gru_or_both_directions_are_refused_where_a_target_lacks_them(tmp_path, targets, layer, message):
    case = make(Sequential(layer))
    for target in targets.split():
        with pytest.raises(ValueError, match=message):
            SAVES[target].save(tmp_path / FILES[target], case.model, case.params)
    assert list(tmp_path.iterdir()) == []


def test_a_bidirectional_is_one_part_that_holds_the_other():
    layer = Bidirectional(RNN(LSTMCell(3), return_sequences=False), RNN(LSTMCell(3), return_sequences=False))
    (part,) = parts.parts_of(Sequential(layer), "here")
    assert [one.path for one in part.directions] == ["bidirectional_rnn/fw/lstm_cell", "bidirectional_rnn/bw/lstm_cell"]
    assert (part.name, part.return_sequences, part.kind) == ("bidirectional_rnn", False, "LSTM")


@pytest.mark.parametrize("target", SAVES)
def test_parameters_that_do_not_fit_are_all_listed(tmp_path, target):
    case = simple()
    params = {"rnn": {"lstm_cell": {"kernel": np.zeros((5, 12), np.float32)}}, "dens": case.params["dense"]}
    params["rnn"]["lstm_cell"]["w_i_diag"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="does not fit") as info:
        SAVES[target].save(tmp_path / FILES[target], case.model, params)
    faults = ("missing: rnn/lstm_cell/bias", "missing: dense/kernel", "there is dens/kernel", "extra: rnn/lstm_cell")
    assert all(fault in str(info.value) for fault in faults)
    case.params["dense"]["bias"] = np.zeros(1)
    with pytest.raises(ValueError, match=r"one dtype of .*, got \['float32', 'float64'\]"):
        SAVES[target].save(tmp_path / FILES[target], case.model, case.params)


def test_only_sequential_models_have_parts():
    with pytest.raises(ValueError, match="model must be a Sequential, got LSTM"):
        parts.parts_of(LSTM(2), "here")


def test_wrappers_that_drop_out_become_dropout_beside_the_cell():
    wrapped = DropoutWrapper(LSTMCell(3), input_keep_prob=0.75, output_keep_prob=0.5)
    twice = DropoutWrapper(DropoutWrapper(LSTMCell(2), output_keep_prob=0.5), output_keep_prob=0.9)
    model = Sequential(Dropout(0.1), RNN(MultiRNNCell([wrapped, twice]), return_sequences=False), Dense(1))
    row = parts.parts_of(model, "here")
    assert [part.name for part in row] == [
        "dropout", "rnn/cell_0/input_dropout", "rnn/cell_0", "rnn/cell_0/output_dropout",
        "rnn/cell_1", "rnn/cell_1/output_dropout", "rnn/cell_1/output_dropout_1", "dense",
    ]  # fmt: skip
    assert [round(part.layer.rate, 9) for part in row if isinstance(part.layer, Dropout)] == [0.1, 0.25, 0.5, 0.5, 0.1]
    assert [part.return_sequences for part in row if part.is_cell] == [True, False]
    assert row[2].path == "rnn/multi_rnn_cell/cell_0/lstm_cell"


@pytest.mark.parametrize(
    ("target", "library", "line"),
    [
        ("keras", "h5py", r"h5py: pip install 'minilstm\[export\]'"),
        ("onnx", "onnx", r"onnx: pip install 'minilstm\[export\]'"),
    ],
)
def test_an_absent_library_is_an_import_error_with_the_line_that_installs_it(
    tmp_path, monkeypatch, target, library, line
):
    case = simple()
    path = tmp_path / FILES[target]
    for name in [library, f"{library}.numpy"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=line):
        SAVES[target].save(path, case.model, case.params)
    assert not path.exists()
    path.write_bytes(b"")
    with pytest.raises(ImportError, match=line):
        SAVES[target].load(path)


@pytest.mark.parametrize(
    ("target", "library"), [("torch", "torch"), ("keras", "keras"), ("tf2", "tensorflow"), ("onnx", "onnxruntime")]
)
def test_running_needs_the_library_itself(monkeypatch, target, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=f"needs {library}: pip install {library}"):
        SAVES[target].opened("")


def test_a_keras_file_is_told_by_its_suffix(tmp_path):
    case = simple()
    with pytest.raises(ValueError, match=r"must end in .keras or .weights.h5, got .*model.h5"):
        keras.save(tmp_path / "model.h5", case.model, case.params)


def test_two_names_that_keras_could_not_tell_apart_are_refused(tmp_path):
    case = make(Sequential(LSTM(2, name="a/b"), LSTM(2, name="a_b")))
    with pytest.raises(ValueError, match="would both be called 'a_b'"):
        tf2.save(tmp_path / "m.ckpt", case.model, case.params)


def test_a_layer_with_the_name_of_a_cell_in_another_is_refused():
    model = Sequential(RNN(MultiRNNCell([LSTMCell(2)])), LSTM(2, name="rnn/cell_0"))
    with pytest.raises(ValueError, match="would both be called 'rnn/cell_0'"):
        parts.parts_of(model, "here")


def test_extra_that_json_cannot_hold_is_a_valueerror(tmp_path):
    case = simple()
    with pytest.raises(ValueError, match="extra must be what JSON can hold"):
        tf2.save(tmp_path / "m.ckpt", case.model, case.params, extra={1, 2})
