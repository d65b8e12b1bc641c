"""Variable names: the paths of a parameter tree are TensorFlow's names, and what a tree cannot hold is refused."""

import difflib
import json

import numpy as np
import pytest

from minilstm import (
    LSTM,
    RNN,
    BasicLSTMCell,
    BasicRNNCell,
    Bidirectional,
    CoupledLSTMCell,
    Dense,
    Dropout,
    DropoutWrapper,
    Embedding,
    GRUCell,
    LSTMCell,
    MultiRNNCell,
    ResidualWrapper,
    Sequential,
    from_config,
    load_checkpoint,
    save_checkpoint,
    tensorbundle,
)
from minilstm.arguments import nearest
from minilstm.checkpoint.names import arranged
from minilstm.params import flatten_names, unflatten_names

# D = 3 input features and H = 4 units everywhere, so a kernel of an LSTM is [7, 16].


def lstm(path, rows=7, units=4):
    return {f"{path}/kernel": (rows, 4 * units), f"{path}/bias": (4 * units,)}


def gru(path, rows=7):
    return {f"{path}/gates/kernel": (rows, 8), f"{path}/gates/bias": (8,),
            f"{path}/candidate/kernel": (rows, 4), f"{path}/candidate/bias": (4,)}  # fmt: skip


def peepholes(path):
    return {f"{path}/w_{gate}_diag": (4,) for gate in "fio"}


def dense(path, rows, columns):
    return {f"{path}/kernel": (rows, columns), f"{path}/bias": (columns,)}


def multi(*cells, **options):
    return MultiRNNCell(list(cells), **options)


STACK = "rnn/multi_rnn_cell"
NAMES = {
    "BasicLSTMCell": ([RNN(BasicLSTMCell(4))], lstm("rnn/basic_lstm_cell")),
    "LSTMCell": ([RNN(LSTMCell(4))], lstm("rnn/lstm_cell")),
    "LSTM": ([LSTM(4)], lstm("rnn/lstm_cell")),
    "peepholes": ([LSTM(4, use_peepholes=True)], lstm("rnn/lstm_cell") | peepholes("rnn/lstm_cell")),
    "projection": (
        [LSTM(4, num_proj=2)], lstm("rnn/lstm_cell", 5) | {"rnn/lstm_cell/projection/kernel": (4, 2)},
    ),
    "peepholes and projection": (
        [LSTM(4, use_peepholes=True, num_proj=6)],
        lstm("rnn/lstm_cell", 9) | peepholes("rnn/lstm_cell") | {"rnn/lstm_cell/projection/kernel": (4, 6)},
    ),
    "MultiRNNCell": (
        [RNN(multi(BasicLSTMCell(4), LSTMCell(4, use_peepholes=True)))],
        lstm(f"{STACK}/cell_0/basic_lstm_cell") | lstm(f"{STACK}/cell_1/lstm_cell", 8)
        | peepholes(f"{STACK}/cell_1/lstm_cell"),
    ),
    "eleven cells": (
        [RNN(multi(*(BasicLSTMCell(4) for _ in range(11))))],
        lstm(f"{STACK}/cell_0/basic_lstm_cell")
        | {k: v for n in range(1, 11) for k, v in lstm(f"{STACK}/cell_{n}/basic_lstm_cell", 8).items()},
    ),
    "projection below a stack": (
        [RNN(multi(LSTMCell(4, num_proj=2), GRUCell(4)))],
        lstm(f"{STACK}/cell_0/lstm_cell", 5) | {f"{STACK}/cell_0/lstm_cell/projection/kernel": (4, 2)}
        | gru(f"{STACK}/cell_1/gru_cell", 6),
    ),
    "a stack in a stack": (
        [RNN(multi(GRUCell(4), multi(LSTMCell(4))))],
        gru(f"{STACK}/cell_0/gru_cell") | lstm(f"{STACK}/cell_1/multi_rnn_cell/cell_0/lstm_cell", 8),
    ),
    "wrappers": (
        [RNN(DropoutWrapper(ResidualWrapper(LSTMCell(4, num_proj=3)), output_keep_prob=0.5))],
        lstm("rnn/lstm_cell", 6) | {"rnn/lstm_cell/projection/kernel": (4, 3)},
    ),
    "wrappers in a stack": (
        [RNN(multi(DropoutWrapper(BasicLSTMCell(4)), ResidualWrapper(DropoutWrapper(LSTMCell(4)))))],
        lstm(f"{STACK}/cell_0/basic_lstm_cell") | lstm(f"{STACK}/cell_1/lstm_cell", 8),
    ),
    "a wrapped stack": (
        [RNN(DropoutWrapper(multi(LSTMCell(4)), state_keep_prob=0.5))], lstm(f"{STACK}/cell_0/lstm_cell"),
    ),
    "a named cell": ([RNN(LSTMCell(4, name="my_cell"))], lstm("rnn/my_cell")),
    "named cells in a named stack": (
        [RNN(multi(DropoutWrapper(LSTMCell(4, name="low")), GRUCell(4, name="high"), name="stack"))],
        lstm("rnn/stack/cell_0/low") | gru("rnn/stack/cell_1/high", 8),
    ),
    "a named layer": ([RNN(BasicLSTMCell(4), name="enc")], lstm("enc/basic_lstm_cell")),
    "a path as name": ([LSTM(4, name="enc/inner")], lstm("enc/inner/lstm_cell")),
    "within a scope": ([LSTM(4, name="net/rnn"), Dense(2, name="net/out")], lstm("net/rnn/lstm_cell")
                       | dense("net/out", 4, 2)),
    "a layer below another": ([LSTM(4, name="enc"), LSTM(4, name="enc/b")], lstm("enc/lstm_cell")
                              | lstm("enc/b/lstm_cell", 8)),
    "GRUCell": ([RNN(GRUCell(4))], gru("rnn/gru_cell")),
    "BasicRNNCell": ([RNN(BasicRNNCell(4))], dense("rnn/basic_rnn_cell", 7, 4)),
    "CoupledLSTMCell": (
        [RNN(CoupledLSTMCell(4))], dense("rnn/coupled_input_forget_gate_lstm_cell", 7, 12),
    ),
    "Bidirectional": (
        [Bidirectional(BasicLSTMCell(4))],
        lstm("bidirectional_rnn/fw/basic_lstm_cell") | lstm("bidirectional_rnn/bw/basic_lstm_cell"),
    ),
    "two directions of two kinds": (
        [Bidirectional(LSTM(4), multi(GRUCell(4), LSTMCell(4)), name="both"), Dense(1)],
        lstm("both/fw/lstm_cell") | gru("both/bw/multi_rnn_cell/cell_0/gru_cell")
        | lstm("both/bw/multi_rnn_cell/cell_1/lstm_cell", 8) | dense("dense", 8, 1),
    ),
    "dense layers": (
        [Dense(2), Dense(3, name="out"), Dense(4), Dense(5)],
        dense("dense", 3, 2) | dense("out", 2, 3) | dense("dense_1", 3, 4) | dense("dense_2", 4, 5),
    ),
    "every kind is counted by itself": (
        [LSTM(4), Dropout(0.5), Dense(3), RNN(GRUCell(4)), Bidirectional(LSTMCell(4)), LSTM(4), Dropout(0.5), Dense(1),
         Bidirectional(GRUCell(4))],
        lstm("rnn/lstm_cell") | dense("dense", 4, 3) | gru("rnn_1/gru_cell")
        | lstm("bidirectional_rnn/fw/lstm_cell", 8) | lstm("bidirectional_rnn/bw/lstm_cell", 8)
        | lstm("rnn_2/lstm_cell", 12) | dense("dense_1", 4, 1)
        | gru("bidirectional_rnn_1/fw/gru_cell", 5) | gru("bidirectional_rnn_1/bw/gru_cell", 5),
    ),
    "Embedding": (
        [Embedding(9, 3), LSTM(4), Dense(9)],
        {"embedding/embeddings": (9, 3)} | lstm("rnn/lstm_cell") | dense("dense", 4, 9),
    ),
    "a learned initial state": (
        [LSTM(4, num_proj=2, learn_initial_state=True)],
        lstm("rnn/lstm_cell", 5) | {"rnn/lstm_cell/projection/kernel": (4, 2)}
        | {"rnn/initial_state/c": (4,), "rnn/initial_state/h": (2,)},
    ),
    "a learned initial state of a stack": (
        [RNN(multi(LSTMCell(4), DropoutWrapper(GRUCell(4)), multi(BasicLSTMCell(4))), learn_initial_state=True)],
        lstm(f"{STACK}/cell_0/lstm_cell") | gru(f"{STACK}/cell_1/gru_cell", 8)
        | lstm(f"{STACK}/cell_2/multi_rnn_cell/cell_0/basic_lstm_cell", 8)
        | {"rnn/initial_state/cell_0/c": (4,), "rnn/initial_state/cell_0/h": (4,), "rnn/initial_state/cell_1/h": (4,),
           "rnn/initial_state/cell_2/cell_0/c": (4,), "rnn/initial_state/cell_2/cell_0/h": (4,)},
    ),
    "a learned initial state in both directions": (
        [Bidirectional(RNN(GRUCell(4), learn_initial_state=True), LSTM(4, learn_initial_state=True))],
        gru("bidirectional_rnn/fw/gru_cell") | lstm("bidirectional_rnn/bw/lstm_cell")
        | {"bidirectional_rnn/fw/initial_state/h": (4,), "bidirectional_rnn/bw/initial_state/c": (4,),
           "bidirectional_rnn/bw/initial_state/h": (4,)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMES)
def test_parameters_have_tensorflows_names_and_shapes(case):
    layers, wanted = NAMES[case]
    params = Sequential(*layers).init(0, 3)
    flat = flatten_names(params)
    assert {name: array.shape for name, array in flat.items()} == wanted
    assert unflatten_names(flat).keys() == params.keys()
    assert {array.dtype for array in flat.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("case", NAMES)
def test_the_same_names_are_in_the_checkpoint_and_lead_back(case, tmp_path):
    layers, wanted = NAMES[case]
    model = Sequential(*layers)
    params = model.init(0, 3)
    prefix = save_checkpoint(tmp_path / "model", params, model=model)
    stored = {name: tuple(shape) for name, _, shape in tensorbundle.list_variables(prefix)}
    assert {name: shape for name, shape in stored.items() if not name.startswith("minilstm/")} == wanted
    again = load_checkpoint(prefix, like=model)
    inputs = np.array([[1, 8, 4]]) if isinstance(layers[0], Embedding) else np.ones((2, 3, 3), np.float32)
    assert np.array_equal(model(again.params, inputs), model(params, inputs))
    assert from_config(json.loads(json.dumps(model.config()))).names == model.names


def test_a_cell_called_without_a_runner_has_its_own_part_of_the_name():
    layer = RNN(BasicLSTMCell(4))
    assert flatten_names(layer.init(0, 3)).keys() == lstm("basic_lstm_cell").keys()
    assert layer.cell.init(0, 3).keys() == {"kernel", "bias"}


# --- what a tree cannot hold ----------------------------------------------------------------------------------

SHARED = LSTMCell(3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MultiRNNCell([SHARED] * 2),
        lambda: MultiRNNCell([DropoutWrapper(SHARED), DropoutWrapper(SHARED)]),
        lambda: MultiRNNCell([SHARED, ResidualWrapper(SHARED)]),
        lambda: MultiRNNCell([SHARED, MultiRNNCell([LSTMCell(3), SHARED])]),
        lambda: Sequential(RNN(SHARED), RNN(SHARED)),
        lambda: Sequential(RNN(SHARED, name="a"), RNN(DropoutWrapper(SHARED), name="b")),
        lambda: Bidirectional(SHARED, SHARED),
    ],
    ids=["stack", "wrapped twice", "wrapped once", "nested", "two layers", "two scopes", "two directions"],
)
def test_one_cell_in_two_places_is_refused(make):
    """TensorFlow shares the weights; two sets in their place would quietly be another model."""
    with pytest.raises(ValueError, match=r"one cell object .*two places.*shared|shared.*one cell object"):
        make()


@pytest.mark.parametrize("name", ["minilstm", "minilstm/rnn", "minilstm_2"])
def test_a_name_that_the_package_keeps_for_itself_is_refused(name):
    for make in (LSTM, Dense, lambda *a, **k: RNN(GRUCell(2), **k), lambda *a, **k: Bidirectional(GRUCell(2), **k),
                 lambda *a, **k: Embedding(3, 2, **k)):  # fmt: skip
        with pytest.raises(ValueError, match=f"does not start with 'minilstm', got '{name}'"):
            make(3, name=name)


@pytest.mark.parametrize("name", ["", "/", "a/", "/a", "a//b", 3])
def test_a_name_that_is_no_path_is_refused(name):
    for make in (LSTM, lambda *a, **k: RNN(GRUCell(2), **k), lambda *a, **k: Bidirectional(GRUCell(2), **k)):
        with pytest.raises(ValueError, match=f"non-empty path .*got {name!r}"):
            make(3, name=name)


@pytest.mark.parametrize(
    "layers",
    [
        [LSTM(3), RNN(GRUCell(3), name="rnn")],  # TensorFlow lets different classes share a scope
        [LSTM(3, name="a"), LSTM(3, name="a")],
        [Dense(3, name="dense_1"), Dense(3), Dense(3)],
        [LSTM(3, name="dense"), Dense(3)],
        [Bidirectional(LSTMCell(3)), Dense(3, name="bidirectional_rnn")],
        [LSTM(3), Dense(3, name="rnn/lstm_cell")],
        [LSTM(3), Dense(3, name="rnn/lstm_cell/kernel")],
        [Dense(3, name="rnn/lstm_cell"), LSTM(3)],
        [Dense(3), Dense(3, name="dense/kernel/Adam")],  # a slot's name in a checkpoint
        [LSTM(3, learn_initial_state=True), Dense(2, name="rnn/initial_state/c")],
    ],
    ids=lambda layers: "-".join(f"{type(layer).__name__}:{layer.name}" for layer in layers),
)
def test_names_that_clash_are_refused(layers):
    with pytest.raises(ValueError, match=r"two layers have the name|names clash"):
        Sequential(*layers).init(0, 3)


def test_a_cell_may_not_take_the_name_of_the_learned_state():
    with pytest.raises(ValueError, match="initial_state"):
        RNN(LSTMCell(3, name="initial_state"), learn_initial_state=True).init(0, 3)


def test_a_cells_name_is_split_like_any_other():
    """A slash in a key would be a folder in the file, and the weights would not be found again."""
    layer = RNN(LSTMCell(4, name="a/b"))
    params = Sequential(layer).init(0, 3)
    assert {k: v.shape for k, v in flatten_names(params).items()} == lstm("rnn/a/b")
    assert params["rnn"].keys() == {"a"}
    assert Sequential(layer)(params, np.ones((1, 2, 3))).shape == (1, 2, 4)
    stack = RNN(MultiRNNCell([DropoutWrapper(LSTMCell(4, name="a/b")), GRUCell(4, name="c/d")]))
    params = stack.init(0, 3)
    assert flatten_names(params).keys() == (
        lstm("multi_rnn_cell/cell_0/a/b") | gru("multi_rnn_cell/cell_1/c/d")
    ).keys()  # fmt: skip
    assert "a" in params["multi_rnn_cell"]["cell_0"]
    assert stack(params, np.ones((1, 2, 3))).shape == (1, 2, 4)


@pytest.mark.parametrize("name", ["/", "a/", "/a", "a//b", 3])
@pytest.mark.parametrize("cell", [LSTMCell, BasicLSTMCell, GRUCell])
def test_a_cells_name_that_is_no_path_is_refused(cell, name):
    with pytest.raises(ValueError, match=f"name must be .*got {name!r}"):
        RNN(cell(4, name=name)).init(0, 3)


def test_deprecated_shards_are_refused_by_name():
    for option in ("num_unit_shards", "num_proj_shards"):
        for make in (LSTMCell, LSTM):
            with pytest.raises(TypeError, match=option):
                make(4, **{option: 2})


@pytest.mark.parametrize(
    "cell", [LSTMCell, BasicLSTMCell, GRUCell, BasicRNNCell, CoupledLSTMCell, LSTM], ids=lambda cell: cell.__name__
)
def test_num_units_says_units(cell):
    name = "LSTMCell" if cell is LSTM else cell.__name__
    with pytest.raises(TypeError, match=rf"{name}: num_units is called units here; write {name}\(5\)"):
        cell(num_units=5)
    with pytest.raises(ValueError, match=f"{name}: units must be a positive whole number, got None"):
        cell()


def test_a_thousand_names_that_are_missing_are_listed_and_few_are_compared(monkeypatch):
    """Each with each would be a million comparisons: 17 seconds."""
    compared = []

    def close_matches(name, known, n):
        compared.append(len(known))
        return known[:n]

    monkeypatch.setattr(difflib, "get_close_matches", close_matches)
    flat = {f"layer_{k}/weights": np.zeros(3) for k in range(1000)}
    like = {f"layer_{k}": {"kernel": np.zeros(3)} for k in range(1000)}
    with pytest.raises(ValueError, match=r"missing: layer_7/kernel \(3,\) \(there is layer_7/weights") as error:
        arranged(flat, like)
    assert str(error.value).count("missing: ") == str(error.value).count("extra: ") == 1000
    assert sum(compared) <= 2000


def test_a_name_is_not_compared_with_a_long_one():
    assert nearest("a" * 10**6, ["a" * 10**6, "a" * 150]) == ["a" * 150]
