"""Object-based checkpoints without TensorFlow: what the graph holds, and what damage says."""

import re

import numpy as np
import pytest
from export.cases import assert_one_rounding, cases, exported, make, saved_by_tf_keras
from helpers import assert_close
from hypothesis import given

from minilstm import LSTM, RNN, Bidirectional, Dense, Dropout, GRUCell, Sequential, tensorbundle
from minilstm.cli import main
from minilstm.export import npz, tf2
from minilstm.export.infer import Options
from minilstm.export.keras_config import from_keras_config
from minilstm.export.object_graph import Node, decode, encode
from minilstm.tensorbundle.wire import message


@given(cases(activations=("tanh", "relu")))
def test_models_come_back(tmp_path_factory, case):
    path = tmp_path_factory.mktemp("tf2") / "model.ckpt"
    tf2.save(path, case.model, case.params, extra=[1.5])
    loaded = tf2.load(path)
    assert (loaded.model.config(), loaded.extra) == (case.model.config(), [1.5])
    assert_one_rounding(loaded.params, case.params)


def test_both_ways_of_walking_lead_to_the_same_variables(tmp_path):
    case = make(Sequential(Dropout(0.5), LSTM(3), Dense(1)))
    tf2.save(tmp_path / "model.ckpt", case.model, case.params)
    tensors = tensorbundle.read(tmp_path / "model.ckpt")
    nodes = decode(np.asarray(tensors[tf2.GRAPH], object).item())

    def walk(path):
        number = 0
        for name in path.split("/"):
            number = nodes[number].children[name]
        return nodes[number].variable

    kernel = walk("model/layer_with_weights-0/cell/kernel")
    assert kernel == walk("model/layer-1/cell/kernel") == walk("model/_functional/_operations/2/cell/kernel")
    assert tensors[kernel[1]].shape == (2, 12)
    assert walk("model/layer_with_weights-1/kernel") == walk("model/_functional/_operations/3/_kernel")
    assert walk("save_counter") == ("save_counter", "save_counter/.ATTRIBUTES/VARIABLE_VALUE")


def test_a_graph_reads_as_it_was_written():
    nodes = [Node({"a": 1, "b": 300}), *(Node({}, (f"name {k}", f"key {k}")) for k in range(300))]
    assert decode(encode(nodes)) == nodes


@pytest.mark.parametrize("damage", [b"\x0a\x05\x0a", b"\x0a\x06\x0a\x04\x08\x07\x12\x00", b"\x0a\x04\x0a\x02\x08\x01"])
def test_a_damaged_graph_is_a_checkpoint_error(damage):
    with pytest.raises(tensorbundle.CheckpointError):
        decode(damage)


def test_a_checkpoint_of_tensorflow_1_is_refused(tmp_path):
    tensorbundle.write(tmp_path / "m.ckpt", {"dense/kernel": np.zeros((1, 1)), "dense/bias": np.zeros(1)})
    with pytest.raises(ValueError, match="not an object-based checkpoint"):
        tf2.load(tmp_path / "m.ckpt", Sequential(Dense(1)))


def test_a_checkpoint_must_hold_one_model(tmp_path):
    graph = np.asarray(encode([Node({"w": 1}), Node({}, ("w", "w"))]), object)
    tensorbundle.write(tmp_path / "m.ckpt", {tf2.GRAPH: graph, "w": np.zeros(2)})
    with pytest.raises(ValueError, match="must hold one Keras model with weights, got 0"):
        tf2.load(tmp_path / "m.ckpt", Sequential(LSTM(1)))
    with pytest.raises(ValueError, match="no description of the model"):
        tf2.load(tmp_path / "m.ckpt")


# --- the folder of a SavedModel ---------------------------------------------------------------------------------


def keras_arrays(units=4, blocks=4):
    rng = np.random.default_rng(0)
    columns = blocks * units
    shapes = [(3, columns), (units, columns), (columns,), (2,), (units, 2), (2,)]
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


KERAS_NAMES = ["s/a/lstm_cell/kernel", "s/a/lstm_cell/recurrent_kernel", "s/a/lstm_cell/bias",
               "seed_generator/seed_generator_state", "s/b/kernel", "s/b/bias"]  # fmt: skip


UNLISTED = r"variables: left out: any layer without weights, which such a file does not describe: right for an input"


def test_the_folder_of_a_saved_model_is_a_source(tmp_path, capsys):
    exported(tmp_path, KERAS_NAMES, keras_arrays())
    flags = ["--activation", "tanh", "--dense-activation", "linear"]
    assert main(["convert", str(tmp_path), str(tmp_path / "m.npz"), *flags]) == 0
    printed = capsys.readouterr()
    assert "verified" in printed.out
    assert re.search(UNLISTED, printed.err)
    found = npz.load(tmp_path / "m.npz").params
    arrays = keras_arrays()
    assert np.array_equal(found["layer_1"]["kernel"], arrays[4])
    assert found["layer_0"]["lstm_cell"]["kernel"].shape == (7, 16)
    assert main(["inspect", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'variables' / 'variables'}: step unknown")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lstm_cell", "other_cell"), ("b/kernel", "b/gamma"), ("a/lstm_cell", "a"),
    ],
)  # fmt: skip
def test_what_a_saved_model_holds_besides_is_refused(tmp_path, old, new):
    exported(tmp_path, [name.replace(old, new) for name in KERAS_NAMES], keras_arrays())
    options = Options(activation="tanh", dense_activation="linear")
    with pytest.raises(ValueError, match=r"variables: s/.* is of no LSTM, GRU, Dense or Embedding"):
        tf2.load(tmp_path / "variables" / "variables", options=options)


def both_names(both, first="forward_a", second="backward_a"):
    cells = [f"{both}/{layer}/lstm_cell/{array}" for layer in (first, second)
             for array in ("kernel", "recurrent_kernel", "bias")]  # fmt: skip
    return [*cells, "s/b/kernel", "s/b/bias"]


def both_arrays(inputs=3, units=4):
    cell = [(inputs, 4 * units), (units, 4 * units), (4 * units,)]
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in [*cell, *cell, (2 * units, 2), (2,)]]


@pytest.mark.parametrize(("both", "inputs"), [("s/two", 3), ("s/bidirectional", 3), ("s/bidirectional_1", 4)])
def test_a_bidirectional_of_a_saved_model(tmp_path, capsys, both, inputs):
    exported(tmp_path, both_names(both), both_arrays(inputs))
    flags = ["--activation", "tanh", "--dense-activation", "linear"]
    assert main(["convert", str(tmp_path), str(tmp_path / "m.npz"), *flags]) == 0
    printed = capsys.readouterr().out
    assert "verified" in printed
    assert "bw/lstm_cell: kernel, bias <- variables/3/.ATTRIBUTES/VARIABLE_VALUE, variables/4/" in printed
    found = npz.load(tmp_path / "m.npz")
    assert isinstance(found.model.layers[0], Bidirectional)
    i, f, j, o = np.split(np.concatenate(both_arrays(inputs)[3:5]), 4, axis=1)
    assert np.array_equal(found.params["layer_0"]["bw"]["lstm_cell"]["kernel"], np.concatenate([i, j, f, o], axis=1))


@pytest.mark.parametrize(
    ("names", "inputs"),
    [
        (both_names("s/two"), 4),  # a model "two" of two layers would have these shapes, too
        (both_names("s/bidirectional", second="a"), 3),
        (both_names("s/bidirectional", first="backward_a", second="forward_a"), 3),
    ],
)  # fmt: skip
def test_what_may_be_two_layers_or_a_bidirectional_is_refused(tmp_path, names, inputs):
    exported(tmp_path, names, both_arrays(inputs))
    options = Options(activation="tanh", dense_activation="linear")
    with pytest.raises(ValueError, match=r"ward_a may be a layer of its own or a direction of a"):
        tf2.load(tmp_path / "variables" / "variables", options=options)


@pytest.mark.parametrize(("name", "blocks", "wrong"), [("gru_cell", 3, 4), ("lstm_cell", 4, 3)])
def test_a_saved_model_names_the_kind_of_its_cells(tmp_path, name, blocks, wrong):
    names = [text.replace("lstm_cell", name) for text in KERAS_NAMES]
    options = Options(forget_bias=0.0, activation="tanh", dense_activation="linear")
    exported(tmp_path, names, keras_arrays(blocks=blocks))
    with pytest.warns(UserWarning, match=UNLISTED):
        assert tf2.load(tmp_path / "variables" / "variables", options=options).model.layers[0].cell.name == name
    exported(tmp_path, names, keras_arrays(blocks=wrong))
    with pytest.raises(ValueError, match=rf"s/a/{name}/recurrent_kernel has shape \(4, {4 * wrong}\), which no {name}"):
        tf2.load(tmp_path / "variables" / "variables", options=options)


# --- SavedModels of tf.keras, which describe their layers ------------------------------------------------------


def test_a_saved_model_of_tf_keras_needs_no_further_knowledge(tmp_path, capsys):
    cells = RNN(GRUCell(3, activation="relu", reset_after=True)), LSTM(2, activation="sigmoid", forget_bias=0.0)
    case = make(Sequential(*cells, Dropout(0.25), Dense(2, activation="softsign")))
    saved_by_tf_keras(tmp_path, case.model, case.params)
    found = tf2.load(tmp_path)
    assert_close(found.model(found.params, case.inputs), case.outputs, 2e-6)
    assert found.model.config() == case.model.config()
    assert main(["convert", str(tmp_path), str(tmp_path / "m.npz")]) == 0
    assert "verified" in capsys.readouterr().out
    assert main(["convert", str(tmp_path), str(tmp_path / "m.npz"), "--activation", "tanh"]) == 2
    assert "the model has activation='relu', and the flag says 'tanh'" in capsys.readouterr().err


def test_a_layer_that_a_saved_model_describes_and_we_lack_is_refused(tmp_path):
    case = make(Sequential(LSTM(3), Dense(1)))
    saved_by_tf_keras(tmp_path, case.model, case.params, {"class_name": "Masking", "config": {"name": "hole"}})
    with pytest.raises(ValueError, match="variables: layer 'hole' is a Masking, wanted one of"):
        tf2.load(tmp_path)
    found = tf2.load(tmp_path, case.model)  # who gives the model answers for it
    assert_close(found.model(found.params, case.inputs), case.outputs, 2e-6)


def test_what_one_direction_alone_does_in_training_is_said_too():
    lstm = {"class_name": "LSTM", "config": {"units": 3, "return_sequences": True}}
    back = {"class_name": "LSTM", "config": {**lstm["config"], "go_backwards": True, "recurrent_dropout": 0.5}}
    both = {"class_name": "Bidirectional", "config": {"name": "both", "layer": lstm, "backward_layer": back}}
    with pytest.warns(UserWarning, match=r"m: left out, as in training .*: recurrent_dropout=0.5 of 'both'"):
        model = from_keras_config({"class_name": "Sequential", "config": [both]}, "m")
    assert isinstance(model.layers[0], Bidirectional)


def test_a_model_in_another_object_is_described_too_and_others_are_as_before(tmp_path):
    case = make(Sequential(LSTM(3), Dense(1)))
    saved_by_tf_keras(tmp_path, case.model, case.params)
    path = tmp_path / "keras_metadata.pb"
    whole = path.read_bytes()
    path.write_bytes(message(1, message(4, b"_tf_keras_layer") + message(5, b"{")) + whole)
    found = tf2.load(tmp_path)
    assert_close(found.model(found.params, case.inputs), case.outputs, 2e-6)
    path.write_bytes(whole.replace(b"_tf_keras_sequential", b"_tf_keras_model_____"))  # of a class of one's own
    for options in (None, Options(activation="tanh", dense_activation="linear")):
        with pytest.raises(ValueError, match=r"what was saved is _tf_keras_model_____, wanted a keras.Sequential or"):
            tf2.load(tmp_path, options=options)


def test_damaged_metadata_of_a_saved_model_is_a_checkpoint_error(tmp_path):
    case = make(Sequential(LSTM(2), Dense(1)), width=1)
    saved_by_tf_keras(tmp_path, case.model, case.params)
    path, errors = tmp_path / "keras_metadata.pb", 0
    whole = path.read_bytes()
    damaged = [whole[:n] for n in range(0, len(whole), 7)]
    damaged += [whole[:n] + bytes([whole[n] ^ 1 << n % 8]) + whole[n + 1 :] for n in range(len(whole))]
    texts = b"[]", b"3", b'"x"', b"{}", b'{"class_name": "Sequential", "config": 7}', b"[" * 10**6
    start = message(3, b"root") + message(4, b"_tf_keras_sequential")
    damaged += [message(1, start + message(5, text)) for text in texts]
    for data in damaged:
        path.write_bytes(data)
        error = None
        try:
            tf2.load(tmp_path)
        except ValueError as raised:
            error = str(raised)
        assert error is None or error.startswith(str(tmp_path)), error
        errors += error is not None
    assert errors > len(damaged) / 2
