"""``minilstm convert``: formats told by names, nothing guessed, everything said, the result run."""

import argparse

import numpy as np
import pytest
from export.cases import make, simple
from helpers import assert_trees_equal

from minilstm import (
    LSTM,
    RNN,
    Adam,
    Dense,
    Embedding,
    GRUCell,
    Sequential,
    load_checkpoint,
    save_checkpoint,
    tensorbundle,
)
from minilstm.export import convert, npz, tf2
from minilstm.export.format import Format
from minilstm.params import flatten_names, tree_map


def command(*arguments):
    """The exit code of the sub-command, as `minilstm.cli` runs it."""
    parser = argparse.ArgumentParser()
    convert.add_parser(parser.add_subparsers())
    options = parser.parse_args(["convert", *map(str, arguments)])
    return options.run(options)


@pytest.fixture
def case():
    return simple(forget_bias=0.5)


@pytest.fixture
def saved(tmp_path, case):
    """A training checkpoint that describes its model."""
    state = Adam().init(case.params)
    return save_checkpoint(
        tmp_path / "run/model.ckpt", case.params, model=case.model, opt_state=state, step=12, extra={"mean": 1.5}
    )


@pytest.fixture
def bare(tmp_path, case):
    """The same weights without a description, as TensorFlow writes them."""
    return save_checkpoint(tmp_path / "bare/model.ckpt", case.params)


@pytest.mark.parametrize(
    ("path", "to", "wanted"),
    [
        ("a/m.safetensors", None, "torch"),
        ("m.keras", None, "keras"),
        ("m.weights.h5", "keras", "keras"),
        ("m.onnx", None, "onnx"),
        ("m.npz", None, "npz"),
        ("m.ckpt", None, "tf"),
        ("m.ckpt-600", "tf2", "tf2"),
        ("anything", "tf1.0", "tf1.0"),
    ],
)
def test_the_target_is_told_by_its_name_or_by_to(path, to, wanted):
    assert convert.target_format(path, to) == wanted


def test_a_target_that_tells_nothing_or_two_things_is_refused():
    with pytest.raises(ValueError, match=r"DST must have .ckpt or one of .*, or --to, got 'out'"):
        convert.target_format("out", None)
    with pytest.raises(ValueError, match=r"'m.onnx' is a name for onnx, and --to says torch"):
        convert.target_format("m.onnx", "torch")


def test_every_format_has_the_same_names():
    wanted = {name for name in vars(Format) if not name.startswith("_")} | set(Format.__annotations__)
    assert {"SUFFIXES", "RUNTIME", "RUNS", "save", "load", "mapping", "opened"} <= wanted
    for module in convert.FORMATS.values():
        assert not [name for name in wanted if not hasattr(module, name)], module


def test_a_described_checkpoint_becomes_an_npz_and_comes_back(tmp_path, saved, case, capsys):
    assert command(saved, tmp_path / "m.npz") == 0
    printed = capsys.readouterr().out
    assert f"{saved}: tf, {3 * 4 * 5 + 12 + 4} weights" in printed
    assert "left out: the step and the optimizer's state" in printed
    assert "verified: a random batch (3, 7, 2) gives our outputs, to 0.0e+00 in float32" in printed
    loaded = npz.load(tmp_path / "m.npz")
    assert loaded.extra == {"mean": 1.5}
    assert command(tmp_path / "m.npz", tmp_path / "back.ckpt") == 0
    back = load_checkpoint(tmp_path / "back.ckpt")
    assert_trees_equal(back.params, case.params)
    assert (back.model.config(), back.extra) == (case.model.config(), {"mean": 1.5})


def test_the_moving_average_is_exported_if_it_is_asked_for(tmp_path, case, capsys):
    averaged = tree_map(lambda w: w + 1, case.params)
    state = Adam().init(case.params)
    with_average = save_checkpoint(
        tmp_path / "m.ckpt", case.params, model=case.model, opt_state=state, step=3, averaged=averaged
    )
    assert command(with_average, tmp_path / "a.npz", "--averaged") == 0
    assert_trees_equal(npz.load(tmp_path / "a.npz").params, averaged)
    assert command(with_average, tmp_path / "plain.npz") == 0
    assert_trees_equal(npz.load(tmp_path / "plain.npz").params, case.params)
    assert command(with_average, tmp_path / "a.ckpt", "--averaged") == 0
    loaded = load_checkpoint(tmp_path / "a.ckpt-3")
    assert_trees_equal(loaded.params, averaged)
    assert (loaded.opt_state, loaded.averaged, loaded.training) == (None, None, None)
    assert command(with_average, tmp_path / "again.ckpt") == 0
    assert_trees_equal(load_checkpoint(tmp_path / "again.ckpt-3").averaged, averaged)  # it is lost on no way


def test_without_a_moving_average_there_is_none_to_export(tmp_path, saved):
    assert command(saved, tmp_path / "m.npz") == 0
    for source in (saved, tmp_path / "m.npz"):
        with pytest.raises(ValueError, match=r"(model.ckpt-12|m.npz) holds no moving average of every parameter"):
            command(source, tmp_path / "b.npz", "--averaged")
    assert not (tmp_path / "b.npz").exists()


def test_a_directory_means_its_newest_checkpoint(tmp_path, saved):
    assert command(tmp_path / "run", tmp_path / "m.npz") == 0


def test_from_checkpoint_to_checkpoint_nothing_is_lost(tmp_path, saved, capsys):
    assert command(saved, tmp_path / "old.ckpt", "--to", "tf1.0") == 0
    printed = capsys.readouterr().out
    assert "left out" not in printed
    assert "old.ckpt-12: tf1.0" in printed
    names = {name for name, *_ in tensorbundle.list_variables(tmp_path / "old.ckpt-12")}
    assert {"rnn/lstm_cell/weights", "rnn/lstm_cell/biases", "rnn/lstm_cell/weights/Adam_1"} <= names
    assert command(tmp_path / "old.ckpt-12", tmp_path / "new.ckpt") == 0
    before, after = load_checkpoint(saved), load_checkpoint(tmp_path / "new.ckpt-12")
    assert_trees_equal(after.params, before.params)
    assert_trees_equal(after.opt_state, before.opt_state)
    assert (after.step, after.extra) == (before.step, before.extra)


def test_without_a_description_the_flags_are_asked_for_and_used(tmp_path, bare, case):
    with pytest.raises(ValueError, match=r"do not tell --forget-bias, --activation, --dense-activation; give them"):
        command(bare, tmp_path / "m.npz")
    assert not (tmp_path / "m.npz").exists()
    flags = ("--forget-bias", "0.5", "--activation", "tanh", "--dense-activation", "linear")
    assert command(bare, tmp_path / "m.npz", *flags) == 0
    loaded = npz.load(tmp_path / "m.npz")
    assert loaded.model.config() == case.model.config()
    assert_trees_equal(loaded.params, case.params)
    np.savez(tmp_path / "bare.npz", **flatten_names(case.params))
    with pytest.raises(ValueError, match="do not tell --forget-bias"):
        command(tmp_path / "bare.npz", tmp_path / "m.npz")
    assert command(tmp_path / "bare.npz", tmp_path / "m.npz", *flags) == 0


def test_a_flag_that_contradicts_the_description_is_refused(tmp_path, saved):
    with pytest.raises(ValueError, match=r"the model has forget_bias=0.5, and the flag says 1.0"):
        command(saved, tmp_path / "m.npz", "--forget-bias", "1")
    assert command(saved, tmp_path / "m.npz", "--forget-bias", "0.5", "--activation", "tanh") == 0


def test_every_weight_is_said_to_become_what(tmp_path, saved, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorflow", None)
    assert command(saved, tmp_path / "m.ckpt", "--to", "tf2") == 0
    printed = capsys.readouterr().out
    assert "dense: kernel, bias -> model/layer_with_weights-1/kernel/.ATTRIBUTES/VARIABLE_VALUE" in printed
    assert "rnn/lstm_cell: kernel, bias -> model/layer_with_weights-0/cell/kernel" in printed
    assert "not verified: running the exported model needs tensorflow: pip install tensorflow" in printed
    assert "assert_consumed()" in printed
    assert command(tmp_path / "m.ckpt", tmp_path / "back.npz") == 0
    assert "rnn/lstm_cell: kernel, bias <- model/layer_with_weights-0/cell/kernel" in capsys.readouterr().out


def test_a_result_that_differs_is_exit_code_1(tmp_path, saved, capsys, monkeypatch):
    monkeypatch.setattr(tf2, "opened", lambda code: lambda inputs: np.zeros((3, 7, 1)))
    assert command(saved, tmp_path / "m.ckpt", "--to", "tf2") == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_an_absent_library_is_a_valueerror_for_the_command_line(tmp_path, saved, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ValueError, match=r"needs h5py: pip install 'minilstm\[export\]'"):
        command(saved, tmp_path / "m.keras")


def test_tensors_that_are_no_parameters_are_said_to_be_left_out(tmp_path, case, capsys):
    tensors = {**flatten_names(case.params), "counter": np.asarray(3)}
    tensorbundle.write(tmp_path / "m.ckpt", tensors)
    flags = ("--forget-bias", "0.5", "--activation", "tanh", "--dense-activation", "linear")
    assert command(tmp_path / "m.ckpt", tmp_path / "m.npz", *flags) == 0
    assert "left out: counter" in capsys.readouterr().out


def test_a_source_that_is_not_there_or_nothing_known(tmp_path):
    with pytest.raises(FileNotFoundError):
        command(tmp_path / "no.ckpt", tmp_path / "m.npz")
    tmp_path.joinpath("empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no checkpoint in the directory"):
        command(tmp_path / "empty", tmp_path / "m.npz")
    tmp_path.joinpath("model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match="SRC must be a checkpoint's prefix or have one of"):
        command(tmp_path / "model.bin", tmp_path / "m.npz")


def test_every_model_goes_to_npz_whole_numbers_are_its_inputs_where_it_begins_with_an_embedding(tmp_path):
    for model in (Sequential(Embedding(4, 2), LSTM(2)), Sequential(RNN(GRUCell(3)), Dense(1))):
        case = make(model)
        prefix = save_checkpoint(tmp_path / "m.ckpt", case.params, model=model)
        assert command(prefix, tmp_path / "m.npz") == 0
        assert_trees_equal(npz.load(tmp_path / "m.npz").params, case.params)
