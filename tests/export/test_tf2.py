"""Object-based checkpoints without TensorFlow: what the graph holds, and what damage says."""

import numpy as np
import pytest
from export.cases import assert_one_rounding, cases, make
from hypothesis import given

from minilstm import LSTM, Dense, Dropout, Sequential, tensorbundle
from minilstm.export import tf2
from minilstm.export.object_graph import Node, decode, encode


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
