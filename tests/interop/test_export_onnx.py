"""What `minilstm.export.onnx` writes passes the ONNX checker, and onnxruntime runs it."""

import numpy as np
import onnx
import onnxruntime
import pytest
from export.cases import ACTIVATIONS, EXAMPLES, cases, make, simple
from helpers import assert_close, assert_trees_equal
from hypothesis import given, settings
from hypothesis import strategies as st

from minilstm import LSTM, RNN, Dense, Embedding, LSTMCell, MultiRNNCell, Sequential
from minilstm.export import onnx as export

pytestmark = pytest.mark.interop


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options)


@settings(max_examples=EXAMPLES)
@given(case=cases(peepholes=True, activations=ACTIVATIONS, learned=True, reverse=True), data=st.data())
def test_outputs_are_ours_with_and_without_lengths_and_weights_come_back(tmp_path_factory, case, data):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    code = export.save(path, case.model, case.params, extra={"vocabulary": "abc"})
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert_close(export.opened(code)(case.inputs), case.outputs, 2e-6)
    batch, time = case.inputs.shape[:2]
    lengths = np.array(data.draw(st.lists(st.integers(0, time), min_size=batch, max_size=batch)), np.int32)
    wanted = case.model(case.params, case.inputs, sequence_length=lengths)
    assert_close(export.opened(code)(case.inputs, sequence_length=lengths), wanted, 2e-6)
    loaded = export.load(path)
    assert (loaded.model.config(), loaded.extra) == (case.model.config(), {"vocabulary": "abc"})
    assert_trees_equal(loaded.params, case.params)


def test_final_states_fed_back_continue_the_sequence(tmp_path):
    model = Sequential(RNN(MultiRNNCell([LSTMCell(3, use_peepholes=True), LSTMCell(2)])), Dense(1))
    case = make(model, batch=3, time=8)
    export.save(tmp_path / "model.onnx", model, case.params)
    runtime = session(tmp_path / "model.onnx")
    names = [output.name for output in runtime.get_outputs()]
    assert names[0] == "outputs"
    assert names[1:] == [f"rnn/cell_{n}/final_{key}" for n in (0, 1) for key in "hc"]
    assert runtime.get_inputs()[0].name == "inputs"
    first = dict(zip(names, runtime.run(None, {"inputs": case.inputs[:, :5]}), strict=True))
    states = {name.replace("final", "initial"): value for name, value in first.items() if name != "outputs"}
    second = runtime.run(None, {"inputs": case.inputs[:, 5:], **states})[0]
    assert_close(np.concatenate([first["outputs"], second], axis=1), case.outputs, 2e-6)
    _, (lower, upper) = case.model.layers[0].apply(case.params["rnn"], case.inputs[:, :5])
    assert_close(first["rnn/cell_0/final_c"][0], lower.c, 2e-6)
    assert_close(first["rnn/cell_1/final_h"][0], upper.h, 2e-6)


def test_an_empty_sequence_keeps_the_state_it_was_given(tmp_path):
    case = simple(forget_bias=0.5, return_sequences=False)
    export.save(tmp_path / "model.onnx", case.model, case.params)
    rng = np.random.default_rng(0)
    c, h = (rng.normal(size=(2, 3)).astype(np.float32) for _ in range(2))
    feeds = {"inputs": case.inputs, "sequence_length": np.array([0, 2], np.int32)}
    outputs, final_h, final_c = session(tmp_path / "model.onnx").run(
        None, {**feeds, "rnn/initial_h": h[None], "rnn/initial_c": c[None]}
    )
    wanted, state = case.model.apply(case.params, case.inputs, {"rnn": (c, h)}, sequence_length=np.array([0, 2]))
    assert_close(outputs, wanted, 2e-6)
    assert_close(final_h[0], state["rnn"].h, 2e-6)
    assert_close(final_c[0], state["rnn"].c, 2e-6)
    assert np.array_equal(final_c[0, 0], c[0])


def test_one_file_runs_every_batch_and_time(tmp_path):
    model = Sequential(Embedding(5, 2), LSTM(3), Dense(2))
    params = make(model).params
    export.save(tmp_path / "model.onnx", model, params)
    runtime = session(tmp_path / "model.onnx")
    for batch, time in ((1, 1), (4, 2), (2, 9)):
        inputs = np.random.default_rng(0).integers(0, 5, (batch, time))
        assert_close(runtime.run(["outputs"], {"inputs": inputs})[0], model(params, inputs), 2e-6)


def test_the_forget_bias_is_the_second_half_of_b_and_can_be_told_from_the_bias(tmp_path):
    case = simple(forget_bias=0.5)
    export.save(tmp_path / "model.onnx", case.model, case.params)
    proto = onnx.load(tmp_path / "model.onnx")
    b = next(onnx.numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == "rnn/B")
    assert b[0, 12:].tolist() == [0.0] * 6 + [0.5] * 3 + [0.0] * 3  # i, o, f, c


def test_the_same_model_gives_the_same_bytes(tmp_path):
    case = simple()
    for name in ("a.onnx", "b.onnx"):
        export.save(tmp_path / name, case.model, case.params)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_file_that_is_no_model_is_a_valueerror(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\xff\xff no model")
    with pytest.raises(ValueError, match="no whole ONNX model"):
        export.load(tmp_path / "model.onnx")
    onnx.save(onnx.ModelProto(), tmp_path / "empty.onnx")
    with pytest.raises(ValueError, match=r"only files that export\.onnx\.save wrote"):
        export.load(tmp_path / "empty.onnx")
