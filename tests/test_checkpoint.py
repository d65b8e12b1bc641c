"""Parameter trees and training state to TensorFlow's files and back. The file format itself is in tensorbundle/."""

from typing import NamedTuple

import numpy as np
import pytest
from helpers import assert_trees_equal

from minilstm import (
    LSTM,
    RNN,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    BasicLSTMCell,
    CheckpointError,
    Dense,
    Momentum,
    RMSProp,
    Sequential,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
    tensorbundle,
)
from minilstm.params import flatten_names, tree_map

MODEL = Sequential(LSTM(3, use_peepholes=True, num_proj=2, forget_bias=0.5), RNN(BasicLSTMCell(2)), Dense(1))
VARIABLES = {
    "rnn/lstm_cell/kernel", "rnn/lstm_cell/bias", "rnn/lstm_cell/w_i_diag", "rnn/lstm_cell/w_f_diag",
    "rnn/lstm_cell/w_o_diag", "rnn/lstm_cell/projection/kernel",
    "rnn_1/basic_lstm_cell/kernel", "rnn_1/basic_lstm_cell/bias", "dense/kernel", "dense/bias",
}  # fmt: skip
OPTIMIZERS = {
    Adam(0.01): ["Adam", "Adam_1"],
    AdamW(0.01): ["Adam", "Adam_1"],
    SGD(0.1): [],
    Momentum(0.1, 0.9): ["Momentum"],
    Adagrad(0.1): ["Adagrad"],
    RMSProp(0.1): ["RMSProp", "RMSProp_1"],
    RMSProp(0.1, centered=True): ["RMSProp", "RMSProp_1", "RMSProp_2"],
}


def trained(optimizer=None, dtype=np.float32, steps=3):
    """Parameters and optimizer state after a few steps on random gradients."""
    optimizer, rng = optimizer or Adam(0.01), np.random.default_rng(0)
    params = MODEL.init(0, 2, dtype)
    state = optimizer.init(params)
    for _ in range(steps):
        grads = tree_map(lambda w: rng.normal(size=w.shape).astype(dtype), params)
        params, state = optimizer.update(params, grads, state)
    return params, state


def turned(params):
    """Trees with the same names and other shapes."""
    return tree_map(np.transpose, params)


class OwnState(NamedTuple):
    step: int
    speed: float


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS), ids=lambda o: type(o).__name__)
def test_weights_slots_and_step_come_back_bit_for_bit(optimizer, dtype, tmp_path):
    params, state = trained(optimizer, dtype)
    prefix = save_checkpoint(tmp_path / "model.ckpt", params, opt_state=state)
    assert prefix == str(tmp_path / "model.ckpt-3")
    for place in (prefix, tmp_path):
        loaded = load_checkpoint(place, like=params)
        assert loaded.prefix == prefix
        assert_trees_equal(loaded.params, params)
        assert list(flatten_names(loaded.params)) == list(flatten_names(params))  # `like` decides the order too
        assert loaded.step == 3
        assert loaded.others == {}
        if isinstance(optimizer, SGD):
            assert loaded.opt_state is None  # it has no slots; the step is there
        else:
            assert type(loaded.opt_state) is type(state)
            assert_trees_equal(loaded.opt_state, state)


@pytest.mark.parametrize(("optimizer", "slots"), list(OPTIMIZERS.items()), ids=lambda x: type(x).__name__)
def test_the_tensors_have_tensorflows_names(optimizer, slots, tmp_path):
    params, state = trained(optimizer)
    prefix = save_checkpoint(tmp_path / "model.ckpt", params, opt_state=state)
    found = {name: (str(np.dtype(dtype)), tuple(shape)) for name, dtype, shape in tensorbundle.list_variables(prefix)}
    powers = {"beta1_power", "beta2_power"} if isinstance(optimizer, Adam) else set()
    assert found.keys() == VARIABLES | {f"{v}/{s}" for v in VARIABLES for s in slots} | powers | {"global_step"}
    assert found["global_step"] == ("int64", ())
    assert found["rnn/lstm_cell/kernel"] == ("float32", (4, 12))
    assert all(found[power] == ("float32", ()) for power in powers)
    for slot in slots:
        assert found[f"dense/kernel/{slot}"] == ("float32", (2, 1))


def test_the_powers_of_beta_are_one_step_ahead_as_tensorflows(tmp_path):
    params, state = trained()
    tensors = tensorbundle.read(save_checkpoint(tmp_path / "m", params, opt_state=state))
    assert tensors["beta1_power"] == pytest.approx(0.9**4, rel=1e-6)
    assert tensors["beta2_power"] == pytest.approx(0.999**4, rel=1e-6)


def test_the_older_names_are_written_and_read(tmp_path):
    params, state = trained()
    prefix = save_checkpoint(tmp_path / "old", params, opt_state=state, names="tf1.0", model=MODEL)
    names = {name for name, *_ in tensorbundle.list_variables(prefix)}
    assert {"rnn/lstm_cell/weights", "rnn/lstm_cell/biases", "rnn/lstm_cell/projection/weights",
            "rnn_1/basic_lstm_cell/weights/Adam_1", "rnn/lstm_cell/w_f_diag", "dense/kernel"} <= names  # fmt: skip
    assert not {name for name in names if "cell" in name and "kernel" in name}
    loaded = load_checkpoint(prefix, like=params)
    assert_trees_equal(loaded.params, params)
    assert_trees_equal(loaded.opt_state, state)


def test_a_cells_own_name_is_renamed_too(tmp_path):
    model = Sequential(LSTM(2), RNN(BasicLSTMCell(2, name="mine"), name="enc/inner"))
    params = model.init(0, 1)
    prefix = save_checkpoint(tmp_path / "m", params, names="tf1.0", model=model)
    assert "enc/inner/mine/weights" in {name for name, *_ in tensorbundle.list_variables(prefix)}
    assert_trees_equal(load_checkpoint(prefix).params, params)


# --- what is stored beside the weights --------------------------------------------------------------------------


def test_a_checkpoint_opens_without_its_script(tmp_path):
    params, _ = trained()
    extra = {"mean": 48.6, "words": ["a", "ü"], "none": None, "deep": {"x": [1, 2.5, True]}}
    prefix = save_checkpoint(tmp_path / "model.ckpt", params, model=MODEL, extra=extra, step=7)
    loaded = load_checkpoint(tmp_path)
    assert loaded.model.config() == MODEL.config()
    assert loaded.extra == extra
    assert (loaded.step, loaded.prefix) == (7, prefix)
    inputs = np.random.default_rng(0).normal(size=(2, 4, 2))
    assert_trees_equal(loaded.model(loaded.params, inputs), MODEL(params, inputs))
    names = {name for name, *_ in tensorbundle.list_variables(prefix)}
    assert names == VARIABLES | {"global_step", "minilstm/model", "minilstm/extra"}


def test_what_was_not_saved_is_none(tmp_path):
    prefix = save_checkpoint(tmp_path / "plain", trained()[0])
    assert prefix == str(tmp_path / "plain")
    loaded = load_checkpoint(prefix)
    assert (loaded.opt_state, loaded.step, loaded.model, loaded.extra, loaded.training) == (None,) * 5
    assert loaded.others == {}


def test_tensors_of_others_are_kept_apart(tmp_path):
    params = {"dense": {"kernel": np.ones((2, 1), np.float32)}}
    tensors = {"dense/kernel": params["dense"]["kernel"], "table": np.arange(3), "word": np.array(b"x", object)}
    tensorbundle.write(str(tmp_path / "m"), tensors)
    loaded = load_checkpoint(tmp_path / "m")
    assert_trees_equal(loaded.params, params)
    assert loaded.others.keys() == {"table", "word"}


def test_slots_that_are_not_all_there_are_no_state(tmp_path):
    params, state = trained()
    tensors = tensorbundle.read(save_checkpoint(tmp_path / "m", params, opt_state=state))
    del tensors["dense/bias/Adam"]
    tensorbundle.write(str(tmp_path / "half"), tensors)
    why = "opt_state is None: these slots are missing or of another shape: dense/bias/Adam"
    with pytest.warns(UserWarning, match=f"half: {why}"):
        loaded = load_checkpoint(tmp_path / "half", like=params)
    assert loaded.opt_state is None
    assert loaded.notes == (why,)
    assert_trees_equal(loaded.params, params)
    assert {"dense/bias/Adam_1", "beta1_power"} <= loaded.others.keys()


# --- directories ----------------------------------------------------------------------------------------------


def test_a_directory_means_its_newest_checkpoint(tmp_path):
    params, _ = trained()
    assert latest_checkpoint(tmp_path) is None
    for step in (1, 10, 9):
        save_checkpoint(tmp_path / "run" / "model.ckpt", params, step=step)
    assert latest_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "model.ckpt-9")
    assert load_checkpoint(tmp_path / "run").step == 9


def test_only_max_to_keep_stay(tmp_path):
    params, _ = trained()
    for step in range(8):
        save_checkpoint(tmp_path / "model.ckpt", params, step=step, max_to_keep=3)
    assert sorted(path.name for path in tmp_path.glob("*.index")) == [f"model.ckpt-{k}.index" for k in (5, 6, 7)]
    assert len(list(tmp_path.glob("*.data-*"))) == 3


# --- what does not fit ----------------------------------------------------------------------------------------


def test_everything_that_does_not_fit_is_listed_at_once(tmp_path):
    params, state = trained()
    prefix = save_checkpoint(tmp_path / "m", params, opt_state=state)
    wanted = Sequential(LSTM(4, use_peepholes=True, num_proj=2), Dense(1, name="head")).init(0, 2)
    wanted["rnn"]["lstm_cell"]["projection"]["kernel"] = np.zeros((3, 2), np.float64)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(prefix, like=wanted)
    lines = str(caught.value)
    for part in (
        "shape of rnn/lstm_cell/kernel: wanted (4, 16), got (4, 12)",
        "shape of rnn/lstm_cell/w_f_diag: wanted (4,), got (3,)",
        "dtype of rnn/lstm_cell/projection/kernel: wanted float64, got float32",
        "missing: head/kernel (2, 1)",
        "missing: head/bias (1,)",
        "extra: dense/kernel (2, 1)",
        "extra: rnn_1/basic_lstm_cell/bias (8,)",
    ):
        assert part in lines, lines
    assert "Adam" not in lines
    assert prefix in lines
    assert isinstance(caught.value, ValueError)


def test_a_model_is_something_to_fit_too(tmp_path):
    params, _ = trained(dtype=np.float64)
    prefix = save_checkpoint(tmp_path / "m", params)
    assert_trees_equal(load_checkpoint(prefix, like=MODEL).params, params)
    with pytest.raises(CheckpointError, match="missing: dense_1/kernel"):
        load_checkpoint(prefix, like=Sequential(*MODEL.layers, Dense(1)))


def test_weights_that_no_model_could_have_do_not_fit(tmp_path):
    tensorbundle.write(tmp_path / "m", {"dense/kernel": np.float32(1), "dense/bias": np.zeros(1, np.float32)})
    with pytest.raises(CheckpointError, match=r"shape of dense/kernel: wanted \(1, 1\), got \(\)"):
        load_checkpoint(tmp_path / "m", like=Sequential(Dense(1)))


@pytest.mark.parametrize("path", ["nothing", "empty", "absent/model.ckpt-3"])
def test_where_nothing_is_there_the_error_is_file_not_found(path, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=path):
        load_checkpoint(tmp_path / path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": "tf2"}, r"names must be one of \('tf', 'tf1.0'\), got 'tf2'"),
        ({"step": -1}, "step must be a whole number of 0 or more, got -1"),
        ({"extra": {"a": np.zeros(2)}}, "extra must be what JSON can hold"),
        ({"extra": {"a": {1, 2}}}, "extra must be what JSON can hold"),
        ({"extra": object()}, "extra must be what JSON can hold"),
        ({"model": Sequential(LSTM(2, activation=lambda x: x))}, "no registered name"),
        ({"opt_state": Adam().init({"other": np.zeros(2)})}, r"opt_state\.m must belong to params"),
        ({"averaged": {"other": np.zeros(2)}}, "averaged must belong to params"),
        ({"opt_state": Adam().init(turned(trained()[0]))}, r"opt_state\.m: rnn/lstm_cell/kernel must have the shape"),
        ({"averaged": turned(trained()[0])}, "averaged: rnn/lstm_cell/kernel must have the shape of its parameter"),
        ({"opt_state": OwnState(3, 1.5)}, "opt_state: TensorFlow has no names for what a OwnState holds"),
        ({"opt_state": 5}, "opt_state must be the state of an optimizer, got 5"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_written(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_checkpoint(tmp_path / "run" / "m", trained()[0], **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "params",
    [
        {"global_step": np.zeros(2)},
        {"minilstm": {"x": np.zeros(2)}},
        {"beta1_power": np.zeros(())},
        {"a": np.zeros(2, "U3")},
    ],
)
def test_names_and_values_that_are_taken_or_unknown_are_refused(params, tmp_path):
    if "a" in params:
        prefix = save_checkpoint(tmp_path / "m", params)
        assert load_checkpoint(prefix).others.keys() == {"a"}
        return
    with pytest.raises(ValueError, match="names are taken"):
        save_checkpoint(tmp_path / "m", params)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("minilstm/model", np.array(b"{", object), "minilstm/model is not JSON"),
        ("minilstm/model", np.array(b"{}", object), "minilstm/model: .*not a model description"),
        ("minilstm/extra", np.array(b"\xff", object), "minilstm/extra is not JSON"),
        ("global_step", np.array([1, 2]), "global_step must be a whole number"),
        ("global_step", np.array(-1), "global_step must be a whole number"),
    ],
)
def test_tensors_that_make_no_sense_are_named(name, value, message, tmp_path):
    tensorbundle.write(str(tmp_path / "m"), {"w/kernel": np.zeros(2, np.float32), name: value})
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "m")


def test_a_model_that_no_description_can_name_is_refused_before_anything_is_written(tmp_path):
    class OwnCell(BasicLSTMCell):
        def step(self, params, x_t, c, h):
            return super().step(params, x_t, 2 * c, h)

    model = Sequential(RNN(OwnCell(2)), Dense(1))
    params = model.init(seed=0, input_dim=1)
    with pytest.raises(ValueError, match=r"model must be made of minilstm's layers and cells.*OwnCell"):
        save_checkpoint(tmp_path / "model.ckpt", params, model=model)
    assert not list(tmp_path.iterdir())
    save_checkpoint(tmp_path / "model.ckpt", params)
    assert_trees_equal(load_checkpoint(tmp_path, like=model).params, params)
