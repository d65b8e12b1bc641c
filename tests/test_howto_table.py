"""The table of docs/howto/load_tensorflow.md: every line runs here, on a file of the kind that its row names."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from export.cases import assert_one_rounding, exported, saved_by_tf_keras
from helpers import GOLDEN

import minilstm
from minilstm import Adam, save_checkpoint, tensorbundle
from minilstm.checkpoint.past_names import old_name
from minilstm.export import tf2
from minilstm.export.keras_layers import keras_parts, keras_weights
from minilstm.export.parts import weights_of
from minilstm.params import flatten_names

PAGE = Path(__file__).parent.parent / "docs" / "howto" / "load_tensorflow.md"
CODE = re.compile(r"`([^`]+)`")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| ") and "`" in line
]
ALL = [(row[0], CODE.findall(row[1]), row[2].strip("`")) for row in ROWS if CODE.fullmatch(row[2])]
RUN = [row for row in ALL if not row[2].startswith("keras.")]
NEED_H5PY = [row for row in ALL if row[2].startswith("keras.")]  # these run in tests/interop/test_legacy_h5_keras.py


def names_of_0x(name):
    name = name.replace("rnn/basic_lstm_cell", "RNN/BasicLSTMCell")
    return name.replace("Cell/kernel", "Cell/Linear/Matrix").replace("Cell/bias", "Cell/Linear/Bias")


# The folder in a row's line, and what its names are for those of the row's model.
WRITTEN = {
    "theirs": lambda name: name,
    "old": lambda name: old_name(name, set()),
    "older": names_of_0x,
    "colons": lambda name: f"{name}:0",
    "scoped": lambda name: f"net/net/{name}" if "/Adam" in name else f"net/{name}",
    "named": lambda name: old_name(name, {"hidden2"}),
    "cudnn": lambda name: f"cudnn_lstm/{name}".replace("lstm_cell", "cudnn_compatible_lstm_cell"),
    "ptb": lambda name: name.replace("dense/kernel", "softmax_w").replace("dense/bias", "softmax_b"),
    "ruled": lambda name: name.replace("rnn/lstm_cell/", "core/"),
    "more": lambda name: name,
    "saved": lambda name: name,
}


def write(folder, model):
    """A trained model in a folder; its parameters."""
    params = model.init(1, 3)
    adam = Adam(0.01)
    params, state = adam.update(params, model.init(2, 3), adam.init(params))
    params, state = adam.update(params, model.init(3, 3), state)
    ours = save_checkpoint("ours/m", params, opt_state=state)
    more = {"frozen/table": np.zeros((2, 2), np.float32)} if folder == "more" else {}
    tensors = {WRITTEN[folder](name): array for name, array in {**tensorbundle.read(ours), **more}.items()}
    if folder == "saved":
        tensorbundle.write("saved/variables/variables", tensors)
        Path("saved/saved_model.pb").write_bytes(b"")
    else:
        tensorbundle.write(f"{folder}/model.ckpt-2", tensors)
        tensorbundle.publish(f"{folder}/model.ckpt-2")
    return params


def write_keras(prefix, model):
    """The weights of a Keras model; its parameters."""
    params = model.init(1, 3)
    if prefix == "exported":
        found = {}
        for k, part in enumerate(keras_parts(model, "test")):
            folder = f"mine/layer_{k}" + "/lstm_cell" * part.is_cell
            arrays = keras_weights(part, weights_of(params, part))
            found |= {f"{folder}/{name}": array for name, array in arrays.items()}
        exported(Path(prefix), list(found), list(found.values()))
    elif prefix == "saved_keras":
        saved_by_tf_keras(Path(prefix), model, params)
    else:
        tf2.save(prefix, model, params)
    return params


@pytest.mark.parametrize("row", RUN, ids=lambda row: row[0])
def test_the_line_of_a_row_runs(row, tmp_path, monkeypatch):
    _, models, line = row
    monkeypatch.chdir(tmp_path)
    for folder in ("v1", "shards"):
        shutil.copytree(GOLDEN / "checkpoints" / {"v1": "v1_adam", "shards": "v1_sharded"}[folder], folder)
    names = {**vars(minilstm), "tf2": tf2}
    model = names["model"] = eval(models[0] if models else "Sequential(LSTM(4, forget_bias=0.0))", names)
    folder = re.search(r'"(\w+)', line)[1]
    if line.startswith("tf2"):
        params = write_keras(re.search(r'"([^"]+)', line)[1], model)
        assert_one_rounding(eval(line, names).params, params)
        return
    params = write(folder, model) if folder in WRITTEN else None
    found = eval(line, names)
    if isinstance(found, minilstm.checkpoint.Checkpoint):
        if params is not None:
            wanted, flat = flatten_names(params), flatten_names(found.params)
            assert {name: array.tobytes() for name, array in flat.items()} == {
                name: array.tobytes() for name, array in wanted.items()
            }
        assert type(found.opt_state).__name__ == "AdamState"
        assert (found.step, found.notes) == (5 if folder == "v1" else 2, ())
    else:
        assert found


def test_each_row_is_run():
    assert len(RUN) + len(NEED_H5PY) == len(ROWS) == 23
    assert len(NEED_H5PY) == 2
    assert {re.search(r'"(\w+)', line)[1] for _, _, line in RUN} == {
        *WRITTEN, "v1", "shards", "exported", "saved_keras", "keras"
    }  # fmt: skip
