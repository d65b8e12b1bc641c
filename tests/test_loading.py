"""What TensorFlow's programs of all years saved becomes parameters and an optimizer's state of today, or is named."""

import json
import warnings

import numpy as np
import pytest
from helpers import GOLDEN, assert_close, assert_trees_close, assert_trees_equal

from minilstm import (
    LSTM,
    RNN,
    Adam,
    BasicLSTMCell,
    Bidirectional,
    CheckpointError,
    Dense,
    GRUCell,
    LSTMCell,
    Momentum,
    MultiRNNCell,
    RMSProp,
    Sequential,
    load_checkpoint,
    save_checkpoint,
    tensorbundle,
    value_and_grad,
)
from minilstm.checkpoint.past_names import new_name, old_name, todays_names
from minilstm.params import flatten_names, tree_map

# --- names of the past ----------------------------------------------------------------------------------------

PAST = {
    "RNN/BasicLSTMCell/Linear/Matrix": "rnn/basic_lstm_cell/kernel",
    "RNN/BasicLSTMCell/Linear/Bias/Adam_1": "rnn/basic_lstm_cell/bias/Adam_1",
    "BasicLSTMCell/Linear/Matrix": "basic_lstm_cell/kernel",
    "model/RNN/MultiRNNCell/Cell10/BasicLSTMCell/Linear/Bias": "model/rnn/multi_rnn_cell/cell_10/basic_lstm_cell/bias",
    "RNN/LSTMCell/W_0": "rnn/lstm_cell/kernel",
    "RNN/LSTMCell/B": "rnn/lstm_cell/bias",
    "RNN/LSTMCell/W_P_0/RMSProp": "rnn/lstm_cell/projection/kernel/RMSProp",
    "RNN/LSTMCell/W_F_diag": "rnn/lstm_cell/w_f_diag",
    "enc/LSTMCell/W_I_diag": "enc/lstm_cell/w_i_diag",
    "RNN/LSTMBlockCell/W": "rnn/lstm_cell/kernel",
    "RNN/LSTMBlockCell/wco": "rnn/lstm_cell/w_o_diag",
    "RNN/GRUCell/Gates/Linear/Matrix": "rnn/gru_cell/gates/kernel",
    "RNN/GRUCell/Candidate/Linear/Bias": "rnn/gru_cell/candidate/bias",
    "RNN/BasicRNNCell/Linear/Matrix": "rnn/basic_rnn_cell/kernel",
    "BiRNN/FW/BasicLSTMCell/Linear/Matrix": "bidirectional_rnn/fw/basic_lstm_cell/kernel",
    "BiRNN_BW/LSTMCell/W_0": "bidirectional_rnn/bw/lstm_cell/kernel",
    "rnn/basic_lstm_cell/weights": "rnn/basic_lstm_cell/kernel",
    "rnn/gru_cell/gates/biases/Momentum": "rnn/gru_cell/gates/bias/Momentum",
    "rnn/lstm_cell/projection/weights:0": "rnn/lstm_cell/projection/kernel",
    "rnn/lstm_cell/kernel:0": "rnn/lstm_cell/kernel",
    "lstm_fused_cell/kernel": "lstm_cell/kernel",
    "c/rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell/bias": "c/rnn/multi_rnn_cell/cell_0/lstm_cell/bias",
    # nobody knows these
    "RNN/BasicLSTMCell/Matrix": "RNN/BasicLSTMCell/Matrix",
    "RNN/MyLSTMCell/W_0": "RNN/MyLSTMCell/W_0",
    "RNN/Cell0/Linear/Matrix": "RNN/Cell0/Linear/Matrix",
    "Linear/Matrix": "Linear/Matrix",
    "layer_1/weights": "layer_1/weights",
    "gates/weights": "gates/weights",
    "cudnn_compatible_gru_cell/kernel": "cudnn_compatible_gru_cell/kernel",
}


@pytest.mark.parametrize("name", PAST)
def test_a_name_of_the_past_is_todays(name):
    assert todays_names([name], [], set()) == {name: PAST[name]}


def test_what_is_written_as_in_1_0_is_read_as_today():
    for name in ("rnn/gru_cell/candidate/kernel", "rnn/lstm_cell/projection/kernel/Adam", "a/hidden2/bias", "x/w"):
        assert new_name(old_name(name, {"hidden2"}), {"hidden2"}) == name


def test_an_array_in_pieces_keeps_its_names():
    names = {"RNN/LSTMCell/W_0", "RNN/LSTMCell/W_1", "RNN/LSTMCell/B"}
    found = todays_names(names, [], set())
    assert found == {
        "RNN/LSTMCell/W_0": "RNN/LSTMCell/W_0",
        "RNN/LSTMCell/W_1": "RNN/LSTMCell/W_1",
        "RNN/LSTMCell/B": "rnn/lstm_cell/bias",
    }


def test_two_names_for_one_variable_are_told():
    names = ["rnn/lstm_cell/kernel", "rnn/lstm_cell/weights"]
    with pytest.raises(ValueError, match=r"rnn/lstm_cell/kernel and .*weights are both called rnn/lstm_cell/kernel"):
        todays_names(names, [], set())


def cell_model(cell, name="rnn"):
    return Sequential(RNN(cell, name=name), Dense(2))


def weights_of(model, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return tree_map(lambda w: rng.normal(size=w.shape).astype(dtype), model.init(0, 3))


def written_as(tmp_path, rename, params, **more):
    """A checkpoint of these parameters under other names."""
    tensors = {rename(name): value for name, value in {**flatten_names(params), **more}.items()}
    tensorbundle.write(tmp_path / "theirs", tensors)
    return tmp_path / "theirs"


NAMED = {
    "0.x": (BasicLSTMCell(4), lambda n: n.replace("rnn/basic_lstm_cell/", "RNN/BasicLSTMCell/").replace(
        "Cell/kernel", "Cell/Linear/Matrix").replace("Cell/bias", "Cell/Linear/Bias")),
    "1.0": (LSTMCell(4, num_proj=2), lambda n: old_name(n, set())),
    "with :0": (LSTMCell(4, use_peepholes=True), lambda n: n + ":0"),
    "cudnn, for a BasicLSTMCell": (BasicLSTMCell(4, forget_bias=0.0), lambda n: n.replace(
        "basic_lstm_cell", "cudnn_compatible_lstm_cell")),
    "cudnn, for an LSTMCell": (LSTMCell(4, forget_bias=0.0), lambda n: n.replace(
        "lstm_cell", "cudnn_compatible_lstm_cell")),
    "a cell's own name": (LSTMCell(4, name="hidden2"), lambda n: old_name(n, {"hidden2"})),
    "a cell's own name in a stack": (
        MultiRNNCell([LSTMCell(4, name="hidden1"), BasicLSTMCell(3, name="hidden2")]),
        lambda n: old_name(n, {"hidden1", "hidden2"})),
    "a dense layer of contrib": (LSTMCell(4), lambda n: n.replace("dense/kernel", "dense/weights").replace(
        "dense/bias", "dense/biases")),
    "a GRU of 1.0": (GRUCell(4), lambda n: old_name(n, set())),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMED)
def test_two_lines_are_enough(case, tmp_path):
    cell, rename = NAMED[case]
    model = cell_model(cell)
    params = weights_of(model)
    slots = {f"{name}/Momentum": value + 1 for name, value in flatten_names(params).items()}
    path = written_as(tmp_path, rename, params, **slots)
    loaded = load_checkpoint(path, like=model)
    assert_trees_equal(loaded.params, params)
    assert_trees_equal(loaded.opt_state.momentum, tree_map(lambda w: w + 1, params))
    assert (loaded.others, loaded.notes) == ({}, ())


def test_both_directions_have_their_own_names(tmp_path):
    model = Sequential(Bidirectional(LSTMCell(2, name="a"), LSTMCell(2, name="b")))
    params = model.init(0, 3)
    path = written_as(tmp_path, lambda n: old_name(n, {"a", "b"}), params)
    assert "bidirectional_rnn/bw/b/weights" in dict.fromkeys(n for n, *_ in tensorbundle.list_variables(path))
    assert_trees_equal(load_checkpoint(path, like=model).params, params)


def test_a_cell_that_has_the_name_of_another_keeps_it(tmp_path):
    """The description in the file tells, and so does `like`."""
    model = cell_model(LSTMCell(4, name="lstm_fused_cell"))
    prefix = save_checkpoint(tmp_path / "m", weights_of(model), model=model)
    for like in (None, model, weights_of(model)):
        assert_trees_equal(load_checkpoint(prefix, like=like).params, weights_of(model))


def test_cudnn_weights_in_a_cell_that_adds_a_forget_bias_are_told(tmp_path):
    model = cell_model(BasicLSTMCell(4))
    path = written_as(tmp_path, lambda n: n.replace("basic_lstm", "cudnn_compatible_lstm"), weights_of(model))
    with pytest.warns(UserWarning, match="with forget_bias=0"):
        assert len(load_checkpoint(path, like=model).notes) == 1


def test_a_file_of_0x_in_the_first_format_trains_on():
    """Written by TensorFlow: see cell.json there."""
    folder = GOLDEN / "checkpoints" / "v1_adam"
    described = json.loads((folder / "cell.json").read_text())
    expected = np.load(folder / "expected.npz")
    cell = BasicLSTMCell(described["num_units"], forget_bias=described["forget_bias"])
    model = Sequential(RNN(cell, time_major=True))
    loaded = load_checkpoint(folder, like=model)
    assert (loaded.step, loaded.notes, loaded.others) == (5, (), {})
    assert_close(model(loaded.params, expected["inputs"]), expected["out"], 2e-6)
    adam, params, state = Adam(0.1), loaded.params, loaded.opt_state
    gradient = value_and_grad(lambda p: ((model(p, expected["inputs"]) - 0.3) ** 2).mean())
    for _ in range(5):
        params, state = adam.update(params, gradient(params)[1], state)
    after = params["rnn"]["basic_lstm_cell"]
    assert_close(after["kernel"], expected["after/Matrix"], 1e-5)
    assert_close(after["bias"], expected["after/Bias"], 1e-5)


# --- names that nobody knows ----------------------------------------------------------------------------------


def test_a_scope_that_would_fit_is_named(tmp_path):
    model = cell_model(LSTMCell(4))
    path = written_as(tmp_path, lambda n: f"tower/net/{n}", weights_of(model))
    with pytest.raises(CheckpointError, match=r"below a scope: try scope='tower/net'"):
        load_checkpoint(path, like=model)
    assert_trees_equal(load_checkpoint(path, like=model, scope="tower/net").params, weights_of(model))


def test_a_rename_that_would_fit_is_named_with_the_names_of_the_file(tmp_path):
    model = cell_model(LSTMCell(4))
    path = written_as(tmp_path, lambda n: n.replace("rnn/lstm_cell", "deep/cell_a") + ":0", weights_of(model))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, like=model)
    line = next(line for line in str(caught.value).splitlines() if "rename=" in line)
    rename = eval(line.partition("rename=")[2])
    assert rename == {"deep/cell_a/kernel:0": "rnn/lstm_cell/kernel", "deep/cell_a/bias:0": "rnn/lstm_cell/bias"}
    assert_trees_equal(load_checkpoint(path, like=model, rename=rename).params, weights_of(model))


def test_another_shape_is_no_candidate(tmp_path):
    path = written_as(tmp_path, lambda n: f"x/{n}", weights_of(cell_model(LSTMCell(5))))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, like=Sequential(LSTM(4)))
    assert "rename" not in str(caught.value)


# --- rename ---------------------------------------------------------------------------------------------------


def saved(tmp_path, optimizer, model=None, rename=lambda n: n, steps=3):
    """A trained model, saved with its optimizer, under other names."""
    model = model or cell_model(LSTMCell(4))
    params = weights_of(model)
    state = optimizer.init(params)
    for seed in range(steps):
        params, state = optimizer.update(params, weights_of(model, seed + 1), state)
    ours = save_checkpoint(tmp_path / "ours", params, opt_state=state)
    tensors = {rename(name): value for name, value in tensorbundle.read(ours).items()}
    tensorbundle.write(tmp_path / "theirs", tensors)
    return tmp_path / "theirs", model, params, state


OPTIMIZERS = {"Adam": Adam(0.01), "Momentum": Momentum(0.1, 0.9), "RMSProp": RMSProp(0.1),
              "centered": RMSProp(0.1, centered=True)}  # fmt: skip


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_dict_carries_slots_along(optimizer, tmp_path):
    theirs = {"deep/w": "rnn/lstm_cell/kernel", "deep/b": "rnn/lstm_cell/bias", "count": "global_step"}
    back = {today: name for name, today in theirs.items()}

    def rename(name):
        for today, other in back.items():
            name = name.replace(today, other)
        return name

    path, model, params, state = saved(tmp_path, OPTIMIZERS[optimizer], rename=rename)
    loaded = load_checkpoint(path, like=model, rename=theirs)
    assert_trees_equal(loaded.params, params)
    assert_trees_equal(loaded.opt_state, state)
    assert loaded.step == 3


def test_a_function_sees_every_name_of_the_file(tmp_path):
    path, model, params, state = saved(tmp_path, Adam(0.01), rename=lambda n: f"p:{n}")
    seen = []

    def rename(name):
        seen.append(name)
        return name.removeprefix("p:")

    loaded = load_checkpoint(path, like=model, rename=rename)
    assert_trees_equal([loaded.params, loaded.opt_state], [params, state])
    assert {"p:global_step", "p:beta1_power", "p:dense/bias/Adam_1"} <= set(seen)
    assert sorted(seen) == [name for name, *_ in tensorbundle.list_variables(path)]


def test_minilstms_own_tensors_are_not_renamed(tmp_path):
    model = cell_model(LSTMCell(4))
    prefix = save_checkpoint(tmp_path / "m", weights_of(model), model=model, own={"carried": np.zeros(3)})
    loaded = load_checkpoint(prefix, rename=lambda name: f"x/{name}")
    assert loaded.model.config() == model.config()
    assert list(loaded.others) == ["minilstm/carried"]
    assert list(loaded.params) == ["x"]


@pytest.mark.parametrize(
    ("rename", "error", "message"),
    [
        ({"dense/kernels": "a"}, CheckpointError, r"no tensor 'dense/kernels' \(there is dense/kernel"),
        ({"dense/kernel": "dense/bias"}, CheckpointError, "'dense/bias' and 'dense/kernel' would both be 'dense/bias'"),
        ({"dense/kernel": 7}, TypeError, "must give a name for 'dense/kernel', got 7"),
        ({"dense/kernel": ""}, TypeError, "must give a name"),
        (lambda name: None, TypeError, "must give a name"),
        ("net", TypeError, "rename must be a dict of names or a function, got 'net'"),
    ],
)
def test_a_rename_that_is_none_is_refused(rename, error, message, tmp_path):
    path = save_checkpoint(tmp_path / "m", weights_of(cell_model(LSTMCell(4))))
    with pytest.raises(error, match=message):
        load_checkpoint(path, rename=rename)


# --- scope ----------------------------------------------------------------------------------------------------


def scoped_twice(name):
    """As TensorFlow names what an optimizer built inside ``variable_scope("net")`` makes."""
    is_slot = name.rpartition("/")[2].startswith(("Adam", "Momentum", "RMSProp"))
    return f"net/net/{name}" if is_slot else f"net/{name}"


PLACES = {
    "all inside": scoped_twice,
    "the optimizer outside": lambda name: name if "power" in name or name == "global_step" else f"net/{name}",
    "the powers in another scope": lambda name: f"train/{name}" if "power" in name else f"net/{name}",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_below_a_scope_with_slots_and_powers_wherever_they_are(optimizer, place, tmp_path):
    path, model, params, state = saved(tmp_path, OPTIMIZERS[optimizer], rename=PLACES[place])
    for like in (model, None):
        loaded = load_checkpoint(path, like=like, scope="net")
        assert_trees_equal(loaded.params, params)
        assert_trees_equal(loaded.opt_state, state)
        assert (loaded.step, loaded.others, loaded.notes) == (3, {}, ())
    inside = load_checkpoint(path)  # the scope is a folder then
    assert_trees_equal(inside.params, {"net": params})
    assert_trees_equal(inside.opt_state, state._replace(**{
        field: {"net": tree} for field, tree in state._asdict().items() if isinstance(tree, dict)
    }))  # fmt: skip


def test_what_is_outside_of_the_scope_is_not_the_models(tmp_path):
    model = cell_model(LSTMCell(4))
    path = written_as(tmp_path, lambda n: f"gen/{n}", weights_of(model))
    tensors = {**tensorbundle.read(path), "disc/w": np.zeros(3, np.float32)}
    tensorbundle.write(tmp_path / "both", tensors)
    loaded = load_checkpoint(tmp_path / "both", like=model, scope="gen/")
    assert_trees_equal(loaded.params, weights_of(model))
    assert list(loaded.others) == ["disc/w"]


@pytest.mark.parametrize(
    ("scope", "error", "message"),
    [
        ("nett", CheckpointError, r"no variable is below 'nett'; there is .*dense/bias"),
        ("", ValueError, "scope must be a name"),
        ("/", ValueError, "scope must be a name"),
        (7, TypeError, "scope must be a str such as 'net', got 7"),
    ],
)
def test_a_scope_that_is_none_is_refused(scope, error, message, tmp_path):
    path = save_checkpoint(tmp_path / "m", weights_of(cell_model(LSTMCell(4))))
    with pytest.raises(error, match=message):
        load_checkpoint(path, scope=scope)


# --- strict, and what is no parameter -------------------------------------------------------------------------


def test_what_the_model_has_no_use_for_goes_to_others_if_that_is_wanted(tmp_path):
    path, _, params, state = saved(tmp_path, Adam(0.01), Sequential(LSTM(4), Dense(3), Dense(2)))
    part = Sequential(LSTM(4), Dense(3))
    with pytest.raises(CheckpointError, match="extra: dense_1/kernel"):
        load_checkpoint(path, like=part)
    loaded = load_checkpoint(path, like=part, strict=False)
    assert_trees_equal(loaded.params, {name: params[name] for name in ("rnn", "dense")})
    assert_trees_equal(loaded.opt_state.m, {name: state.m[name] for name in ("rnn", "dense")})
    assert {"dense_1/kernel", "dense_1/bias/Adam"} <= set(loaded.others)


def test_what_the_model_has_and_the_file_lacks_is_an_error_all_the_same(tmp_path):
    path, *_ = saved(tmp_path, Adam(0.01))
    with pytest.raises(CheckpointError, match="missing: dense_1/kernel"):
        load_checkpoint(path, like=Sequential(LSTM(4), Dense(2), Dense(1)), strict=False)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_scalar_without_slots_beside_whole_ones_is_no_parameter(optimizer, tmp_path):
    path, model, params, state = saved(tmp_path, OPTIMIZERS[optimizer])
    tensors = {**tensorbundle.read(path), "learning_rate": np.float32(0.1), "epoch/seen": np.float64(3)}
    tensorbundle.write(tmp_path / "m", tensors)
    for like in (None, model):
        loaded = load_checkpoint(tmp_path / "m", like=like)
        assert_trees_equal([loaded.params, loaded.opt_state], [params, state])
        assert set(loaded.others) == {"learning_rate", "epoch/seen"}


def test_a_name_that_is_an_array_and_a_folder_at_once(tmp_path):
    model = cell_model(LSTMCell(4))
    more = {"dense/kernel/part_0/Ftrl": np.zeros(3, np.float32), "dense/kernel/deep/er": np.zeros(2, np.float32)}
    path = written_as(tmp_path, lambda n: n, weights_of(model), **more)
    for like in (None, model):
        loaded = load_checkpoint(path, like=like)
        assert_trees_equal(loaded.params, weights_of(model))
        assert_trees_equal(loaded.others, more)


def test_a_name_that_begins_with_a_slash_keeps_it(tmp_path):
    path = written_as(tmp_path, lambda n: f"/{n}", weights_of(cell_model(LSTMCell(4))))
    again = save_checkpoint(tmp_path / "again", load_checkpoint(path).params)
    assert tensorbundle.list_variables(again) == tensorbundle.list_variables(path)


# --- an optimizer's state that cannot be rebuilt --------------------------------------------------------------


def without_state(path, why, **options):
    with pytest.warns(UserWarning, match=why):
        loaded = load_checkpoint(path, **options)
    assert loaded.opt_state is None
    assert any(why in note for note in loaded.notes), loaded.notes
    return loaded


def changed(path, *lost, **more):
    tensors = {name: array for name, array in {**tensorbundle.read(path), **more}.items() if name not in lost}
    tensorbundle.write(path.parent / "changed", tensors)
    return path.parent / "changed"


def test_why_there_is_no_state_is_said(tmp_path):
    path, model, params, _ = saved(tmp_path, Adam(0.01))
    scalar = np.float32(0.5)
    for lost, more, why in [
        (["beta2_power"], {}, "beta1_power and beta2_power are not in the file"),
        (["dense/bias/Adam"], {}, "these slots are missing or of another shape: dense/bias/Adam"),
        ([], {"dense/bias/Adam": np.zeros(3, np.float32)}, "another shape: dense/bias/Adam"),
        ([], {"dense/bias/Ftrl": np.zeros(2, np.float32)}, "no optimizer of minilstm has the slots Adam, Adam_1, Ftrl"),
        ([], {"beta1_power_1": scalar, "beta2_power_1": scalar}, "several powers of beta with different values"),
    ]:
        loaded = without_state(changed(path, *lost, **more), why, like=model)
        assert_trees_equal(loaded.params, params)
        assert "dense/kernel/Adam" in loaded.others
    frozen = changed(path, **{"frozen/table": np.zeros((2, 2), np.float32)})
    without_state(frozen, "missing or of another shape: frozen/table/Adam, frozen/table/Adam_1")
    lost = ["dense/bias/Adam"]
    twice = {"a/dense/bias/Adam": np.zeros(2, np.float32), "b/dense/bias/Adam": np.ones(2, np.float32)}
    without_state(changed(path, *lost, **twice), "more than one Adam", like=model)


def test_powers_that_are_the_same_need_no_choice(tmp_path):
    path, model, _, state = saved(tmp_path, Adam(0.01))
    tensors = tensorbundle.read(path)
    again = changed(path, beta1_power_1=tensors["beta1_power"], beta2_power_1=tensors["beta2_power"])
    assert_trees_equal(load_checkpoint(again, like=model).opt_state, state)


def test_an_adam_with_a_name_of_its_own_is_found(tmp_path):
    path, model, _, state = saved(tmp_path, Adam(0.01), rename=lambda n: n.replace("/Adam", "/opt"))
    for like in (model, None):
        loaded = load_checkpoint(path, like=like)
        assert_trees_equal(loaded.opt_state, state)
        assert loaded.others == {}


def test_a_file_without_slots_needs_no_note(tmp_path):
    path = save_checkpoint(tmp_path / "m", weights_of(cell_model(LSTMCell(4))), step=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_checkpoint(path)
    assert (loaded.opt_state, loaded.notes, loaded.step) == (None, (), 3)


def test_an_average_below_a_scope(tmp_path):
    model = cell_model(LSTMCell(4))
    params = weights_of(model)
    averages = {f"{name}/ExponentialMovingAverage": value + 2 for name, value in flatten_names(params).items()}
    path = written_as(tmp_path, lambda n: f"net/net/{n}" if "Exp" in n else f"net/{n}", params, **averages)
    loaded = load_checkpoint(path, like=model, scope="net")
    assert_trees_close(loaded.averaged, tree_map(lambda w: w + 2, params), 0)
    assert loaded.others == {}


# --- a tensor that cannot be read -----------------------------------------------------------------------------


def test_a_tensor_no_array_can_hold_is_named(tmp_path):
    from minilstm.tensorbundle.proto import Entry, decode_entry, encode_entry
    from minilstm.tensorbundle.table import encode_table, read_table

    model = cell_model(LSTMCell(4))
    path = written_as(tmp_path, lambda n: n, weights_of(model), **{"z/beads": np.zeros(3, np.float32)})
    index = tmp_path / "theirs.index"
    data = index.read_bytes()

    class Source:
        size = len(data)

        def read_at(self, offset, size):
            return data[offset : offset + size]

    def as_variant(name):
        items = dict(read_table(Source()))
        items[name] = encode_entry(Entry(*decode_entry(items[name])._replace(dtype=21)))
        index.write_bytes(encode_table(sorted(items.items())))

    as_variant(b"z/beads")
    with pytest.warns(UserWarning, match=r"theirs: the tensor 'z/beads' cannot be read: a variant is"):
        loaded = load_checkpoint(path, like=model)
    assert_trees_equal(loaded.params, weights_of(model))
    assert len(loaded.notes) == 1
    as_variant(b"dense/kernel")
    with pytest.raises(CheckpointError, match=r"(?s)missing: dense/kernel.*'dense/kernel' cannot be read: a variant"):
        load_checkpoint(path, like=model)


# --- a folder whose newest checkpoint is not complete ---------------------------------------------------------


def test_an_older_checkpoint_is_opened_with_a_word(tmp_path):
    params = weights_of(cell_model(LSTMCell(4)))
    for step in (1, 2):
        save_checkpoint(tmp_path / "m", params, step=step)
    (tmp_path / "m-2.data-00000-of-00001").unlink()
    message = r"m-1: this is an older checkpoint; a newer one is not complete: .*m-2\.data-00000-of-00001: not there"
    with pytest.warns(UserWarning, match=message):
        loaded = load_checkpoint(tmp_path)
    assert loaded.step == 1
    assert len(loaded.notes) == 1
    (tmp_path / "m-1.index").unlink()
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in the directory .*m-2\.data-00000-of-00001: not "):
        load_checkpoint(tmp_path)
