"""The console script: what it prints, and its exit codes (0 yes, 1 no, 2 could not be done)."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import GOLDEN

import minilstm
from minilstm import LSTM, Adam, Dense, Sequential, load_checkpoint, save_checkpoint
from minilstm.cli import main
from minilstm.fast import lstm as fast_lstm
from minilstm.tensorbundle import proto, table

MODEL = Sequential(LSTM(3, forget_bias=0.5), Dense(1))


@pytest.fixture
def saved(tmp_path):
    params = MODEL.init(0, 2)
    return save_checkpoint(tmp_path / "model.ckpt", params, opt_state=Adam().init(params), step=12, model=MODEL)


def damage(prefix):
    """Flip one bit of the first tensor's bytes."""
    path = f"{prefix}.data-00000-of-00001"
    with open(path, "r+b") as file:
        file.seek(40)
        byte = file.read(1)[0]
        file.seek(40)
        file.write(bytes([byte ^ 1]))


def test_inspect_lists_names_shapes_step_and_model(saved, capsys):
    assert main(["inspect", saved]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == f"{saved}: step 12"
    kernel = next(line for line in lines if line.split()[0] == "rnn/lstm_cell/kernel")
    assert "float32" in kernel
    assert "(5, 12)" in kernel or "[5, 12]" in kernel
    assert "240 bytes" in kernel
    assert any('"forget_bias": 0.5' in line for line in lines)
    assert "all checksums are right" in lines[-1]


def test_inspect_of_a_directory_takes_the_newest(saved, capsys):
    assert main(["inspect", str(saved).rpartition("/")[0]]) == 0
    assert capsys.readouterr().out.startswith(f"{saved}: step 12")


def test_inspect_json_is_one_object(saved, capsys):
    assert main(["inspect", saved, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["prefix"], found["ok"], found["step"]) == (saved, True, 12)
    assert {layer["layer"] for layer in found["model"]["layers"]} == {"RNN", "Dense"}
    tensors = {tensor["name"]: tensor for tensor in found["tensors"]}
    assert tensors["rnn/lstm_cell/kernel"]["shape"] == [5, 12]
    assert tensors["rnn/lstm_cell/kernel/Adam_1"]["bytes"] == 240
    assert {tensor["verdict"] for tensor in tensors.values()} == {"ok"}
    assert len(tensors) == 4 * 3 + 4  # weights and slots, two powers, the step, the model


def test_inspect_lists_arrays_of_our_own_too(tmp_path, capsys):
    """A checkpoint of fit may hold a carried state and the best parameters under ``minilstm/``."""
    own = {"best/dense/kernel": np.zeros((3, 1)), "carried/0": np.zeros((2, 3))}
    prefix = save_checkpoint(tmp_path / "model.ckpt", MODEL.init(0, 2), model=MODEL, own=own)
    assert main(["inspect", prefix]) == 0
    out = capsys.readouterr().out
    assert "minilstm/carried/0" in out
    assert '"forget_bias": 0.5' in out


def test_inspect_names_the_damaged_tensor_and_returns_1(saved, capsys):
    damage(saved)
    assert main(["inspect", saved]) == 1
    assert "DAMAGED" in capsys.readouterr().out
    assert main(["inspect", saved, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert len([tensor for tensor in found["tensors"] if tensor["verdict"] != "ok"]) == 1


@pytest.mark.parametrize("command", ["inspect", "gradcheck"])
def test_where_nothing_is_there_the_answer_is_2_and_says_so(command, tmp_path, capsys):
    for path in (tmp_path, tmp_path / "absent"):
        assert main([command, str(path)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"minilstm {command}: ")
        assert str(path) in err


def test_gradcheck_of_a_checkpoint_and_of_a_new_cell(saved, capsys):
    assert main(["gradcheck", saved]) == 0
    assert "rnn/lstm_cell/kernel" in capsys.readouterr().out
    flags = ["--use-peepholes", "--num-proj", "2", "--cell-clip", "1.5", "--forget-bias", "0", "--time", "4"]
    assert main(["gradcheck", "--cell", "LSTMCell", "--units", "3", *flags]) == 0
    out = capsys.readouterr().out
    for weight in ("w_f_diag", "projection/kernel", "dense/bias"):
        assert weight in out
    assert "all agree" in out
    assert main(["gradcheck", "--cell", "BasicLSTMCell", "--units", "2", "--time", "3"]) == 0
    assert "rnn/basic_lstm_cell/kernel" in capsys.readouterr().out


def test_gradcheck_returns_1_where_gradients_disagree(monkeypatch, capsys):
    original = fast_lstm.fast_backward

    def wrong(*args, **kwargs):
        d_inputs, *others = original(*args, **kwargs)
        return (None if d_inputs is None else d_inputs * 1.0005, *others)

    monkeypatch.setattr(fast_lstm, "fast_backward", wrong)
    assert main(["gradcheck", "--units", "2", "--time", "3", "--use-peepholes"]) == 1
    wrong_lines = [line for line in capsys.readouterr().out.splitlines() if "WRONG" in line]
    assert [line.split()[0] for line in wrong_lines] == ["inputs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gradcheck", "--units", "0"], "units must be a positive whole number, got 0"),
        (["gradcheck", "--cell", "BasicLSTMCell", "--use-peepholes"], "use_peepholes"),
        (["gradcheck", "--proj-clip", "1"], "proj_clip=1.0 needs num_proj"),
    ],
)
def test_options_that_make_no_sense_return_2(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["paint"], ["inspect"], ["gradcheck", "--cell", "Neuron"]])
def test_commands_that_do_not_exist_return_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: minilstm" in capsys.readouterr().err


def test_gradcheck_of_a_checkpoint_without_a_model_asks_for_a_cell(tmp_path, capsys):
    prefix = save_checkpoint(tmp_path / "m", {"w": np.zeros(2, np.float32)})
    assert main(["gradcheck", prefix]) == 2
    assert "--cell" in capsys.readouterr().err


def test_python_m_minilstm_is_the_console_script(saved):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "minilstm", *arguments], capture_output=True, text=True, timeout=60
        )

    version = run("--version")
    assert (version.returncode, version.stdout.strip()) == (0, f"minilstm {minilstm.__version__}")
    assert run("inspect", saved).returncode == 0
    assert run("inspect", saved + "0").returncode == 2
    damage(saved)
    assert run("inspect", saved).returncode == 1


# --- what TensorFlow's programs left ----------------------------------------------------------------------------


def test_inspect_of_the_first_format_says_so(capsys):
    folder = GOLDEN / "checkpoints" / "v1_adam"
    assert main(["inspect", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{folder / 'model.ckpt-5'}: step 5, TensorFlow's first format (V1)"
    assert any(line.split()[:2] == ["RNN/BasicLSTMCell/Linear/Matrix", "float32"] for line in lines)
    assert main(["inspect", "--json", str(GOLDEN / "checkpoints" / "v1_dtypes")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == "V1"
    assert {tensor["name"]: tensor["bytes"] for tensor in found["tensors"]}["string/v"] is None


def test_inspect_says_once_that_a_data_file_is_missing(saved, capsys):
    Path(f"{saved}.data-00000-of-00001").unlink()
    assert main(["inspect", saved]) == 1
    out = capsys.readouterr().out
    assert out.count("data-00000-of-00001") == 1
    assert f"{saved}.data-00000-of-00001: not there" in out
    assert out.count("its file is not there") == 4 * 3 + 4


def test_inspect_lists_a_tensor_that_no_array_can_hold_with_its_verdict(tmp_path, capsys):
    entries = [(b"", proto.encode_header(proto.Header(1))), (b"v", proto.encode_entry(proto.Entry(21)))]
    (tmp_path / "m.index").write_bytes(table.encode_table(entries))
    (tmp_path / "m.data-00000-of-00001").write_bytes(b"")
    assert main(["inspect", str(tmp_path / "m")]) == 0
    out = capsys.readouterr().out
    assert "variant" in out
    assert "v' cannot be read: a variant is an object of TensorFlow's" in out
    assert out.splitlines()[-1] == "all checksums are right; 1 of 1 tensors cannot be read"


def test_an_older_checkpoint_is_opened_with_a_word(saved, capsys):
    newer = save_checkpoint(f"{saved.rpartition('-')[0]}", MODEL.init(0, 2), step=13)
    Path(f"{newer}.data-00000-of-00001").unlink()
    assert main(["inspect", saved.rpartition("/")[0]]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{saved}: step 12")
    warning = f"minilstm inspect: {saved}: this is an older checkpoint; a newer one is not complete: {newer}"
    assert err.startswith(warning)


def test_convert_takes_the_first_format(tmp_path, capsys):
    flags = ["--forget-bias", "0.5", "--activation", "tanh"]
    for source in ("v1_adam", "v1_adam/model.ckpt-5"):
        assert main(["convert", str(GOLDEN / "checkpoints" / source), str(tmp_path / "m.ckpt"), *flags]) == 0
        assert "verified" in capsys.readouterr().out
        loaded = load_checkpoint(tmp_path)
        assert loaded.step == 5
        assert type(loaded.opt_state).__name__ == "AdamState"
    (tmp_path / "notes.txt").write_text("hello")
    assert main(["convert", str(tmp_path / "notes.txt"), str(tmp_path / "n.ckpt"), *flags]) == 2
    assert "SRC must be a checkpoint's prefix" in capsys.readouterr().err
