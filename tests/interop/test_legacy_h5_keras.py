"""The older HDF5 files of Keras, written by ``tf.keras`` and by Keras 3, and by h5py as Keras 2.2 wrote them."""

import json

import h5py
import numpy as np
import pytest
from export.cases import ACTIVATIONS, EXAMPLES, assert_one_rounding, cases, make, simple
from export.worker import TRAINED
from helpers import assert_close, assert_trees_equal
from hypothesis import given, settings
from test_howto_table import CODE, NEED_H5PY

import minilstm
from minilstm import LSTM, Dense, Sequential
from minilstm.cli import main
from minilstm.export import keras, npz, tf2
from minilstm.export.convert import convert
from minilstm.export.infer import Options
from minilstm.reading import Limits

pytestmark = pytest.mark.interop
KNOWN = Options(activation="tanh", dense_activation="linear")


SAVE = """
results["outputs"] = forward(inputs)
model.save({model!r}, save_format="h5")
model.save_weights({weights!r}, save_format="h5")
"""


@settings(max_examples=EXAMPLES)
@given(case=cases(activations=ACTIVATIONS, grus=(True, False), both_ways=True))
def test_random_networks_of_tf_keras_give_the_same_here(tmp_path_factory, legacy, case):
    folder = tmp_path_factory.mktemp("h5")
    path, weights = str(folder / "model.h5"), str(folder / "best-01-0.25.hdf5")
    code = tf2.save(folder / "m.ckpt", case.model, case.params)
    outputs = legacy.run(code + SAVE.format(model=path, weights=weights), inputs=case.inputs)["outputs"]
    assert_close(outputs, case.outputs, 2e-6)
    loaded = keras.load(path)
    assert_close(loaded.model(loaded.params, case.inputs), outputs, 2e-6)
    for name in (path, weights):
        assert_one_rounding(keras.load(name, case.model).params, case.params)


THEIRS = """
{imports}
K = {keras}
K.utils.set_random_seed(3)
x = K.Input((None,), dtype="int64")
layers = [
    K.layers.Embedding(7, 3), K.layers.LSTM(4, return_sequences=True, bias_initializer="uniform", name="lower"),
    K.layers.Dropout(0.3), K.layers.Bidirectional(K.layers.GRU(3, bias_initializer="uniform")), K.layers.Dense(2),
]
"""
KERASES = {"legacy": ("import tensorflow as tf", "tf.keras"), "keras3": ("import keras", "keras")}


@pytest.mark.parametrize("functional", [False, True], ids=["Sequential", "Model"])
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("which", KERASES)
def test_a_whole_model_needs_no_further_knowledge(tmp_path, request, which, suffix, functional):
    path, ours = str(tmp_path / f"theirs{suffix}"), str(tmp_path / "ours.npz")
    imports, module = KERASES[which]
    code = (THEIRS + TRAINED).format(imports=imports, keras=module, functional=functional, path=path)
    inputs = np.random.default_rng(0).integers(0, 7, (3, 6))
    wanted = request.getfixturevalue(which).run(code, inputs=inputs)["outputs"]
    model, params, _ = keras.load(path)
    assert_close(model(params, inputs), wanted, 2e-6)
    lines = []
    assert convert(path, ours, report=lines.append)
    stored = "model_weights/lower/" if suffix == ".h5" else "layers/lstm/"
    assert any(line.startswith("  lower/lstm_cell: kernel, bias <- ") and stored in line for line in lines)
    assert_trees_equal(npz.load(ours).params, params)


def test_weights_alone_are_told_by_content_and_not_by_name(tmp_path, legacy):
    case = simple(forget_bias=0.0)
    path, other = tmp_path / "theirs.h5", tmp_path / "theirs.weights.h5"
    code = tf2.save(tmp_path / "m.ckpt", case.model, case.params) + f"model.save_weights({str(path)!r})"
    legacy.run(code)
    other.write_bytes(path.read_bytes())
    bare = tmp_path / "theirs"
    bare.write_bytes(path.read_bytes())
    for name in (other, bare):
        assert convert(name, tmp_path / "ours.npz", options=KNOWN, report=lambda line: None)
        found = npz.load(tmp_path / "ours.npz")
        assert_close(found.model(found.params, case.inputs), case.outputs, 2e-6)
    with pytest.raises(ValueError, match="do not tell --activation"):
        convert(path, tmp_path / "ours.npz")


@pytest.mark.parametrize("row", NEED_H5PY, ids=lambda row: row[0])
def test_the_line_of_a_row_of_the_page_about_tensorflow_runs(tmp_path, monkeypatch, legacy, row):
    _, models, line = row
    monkeypatch.chdir(tmp_path)
    case = make(Sequential(LSTM(4), Dense(2)), width=3)
    code = tf2.save(tmp_path / "m.ckpt", case.model, case.params)
    legacy.run(f"import os\nos.chdir({str(tmp_path)!r})\n{code}{CODE.findall(row[0])[-1]}")
    names = {**vars(minilstm), "keras": keras}
    names["model"] = eval(models[0], names) if models else None
    found = eval(line, names)
    assert_close(found.model(found.params, case.inputs), case.outputs, 2e-6)


BRANCHES = {
    "a = K.Input((5, 2)); model = K.Model(a, K.layers.add([K.layers.LSTM(3)(a), K.layers.GRU(3)(a)]))":
        "(is called more than once, or with more than one input|both take the output of)",
    "a, b = K.Input((5, 2)), K.Input((5, 2)); model = K.Model([a, b], K.layers.LSTM(3)(a))": "are both inputs",
    "a = K.Input((5, 2)); h = K.layers.LSTM(3)(a); model = K.Model(a, [h, K.layers.Dense(2)(h)])":
        "the outputs are .*; wanted that of the last layer",
    "a = K.Input((5, 2)); l = K.layers.Dense(2); model = K.Model(a, l(l(a)))": "is called more than once",
    "a = K.Input((5, 2)); h = K.layers.Dropout(0.5)(a, training=True); model = K.Model(a, K.layers.LSTM(3)(h))":
        "or with options",
    "model = K.Sequential([K.Input((5, 2)), K.layers.LSTM(3), K.layers.RepeatVector(3)])": "is a RepeatVector, wanted",
    "model = K.Sequential([K.Input((5, 2)), K.layers.Masking(), K.layers.LSTM(3)])": "is a Masking, wanted",
    "model = K.Sequential([K.Input((5, 2)), K.layers.LSTM(3), K.layers.BatchNormalization()])":
        "is a BatchNormalization, wanted",
    "model = K.Sequential([K.Input((5,)), K.layers.Embedding(9, 2, mask_zero=True), K.layers.LSTM(3)])":
        "mask_zero=True, wanted False",
    "model = K.Sequential([K.Input((5, 2)), K.layers.LSTM(3, use_bias=False)])": "use_bias=False, wanted True",
    "model = K.Sequential([K.Input(batch_shape=(4, 5, 2)), K.layers.LSTM(3, stateful=True)])": "stateful=True, wanted",
    "model = K.Sequential([K.Input((5, 2)), K.layers.RNN([K.layers.LSTMCell(3), K.layers.LSTMCell(3)])])":
        "is a RNN, wanted",
    "model = K.Sequential([K.Input((5, 2)), K.layers.LSTM(3, recurrent_activation='hard_sigmoid')])":
        "recurrent_activation='hard_sigmoid', wanted 'sigmoid'",
    "model = K.Sequential([K.Input((5, 2)), K.layers.LSTM(3, go_backwards=True, return_sequences=True)])":
        "go_backwards=True and returns sequences",
    "a = K.Input((5, 2)); model = K.Model(a, K.Sequential([K.layers.LSTM(3), K.layers.Dense(2)])(a))":
        "is a Sequential",
}  # fmt: skip


@pytest.mark.parametrize("which", KERASES)
def test_what_we_lack_is_refused_by_name(tmp_path, request, which):
    imports, module = KERASES[which]
    paths = [str(tmp_path / f"{k}.h5") for k in range(len(BRANCHES))]
    lines = [f"{line}\nmodel.save({path!r})" for line, path in zip(BRANCHES, paths, strict=True)]
    request.getfixturevalue(which).run("\n".join([imports, f"K = {module}", *lines]))
    for path, (line, message) in zip(paths, BRANCHES.items(), strict=True):
        with pytest.raises(ValueError, match=rf"^{path}: .*{message}") as raised:
            keras.load(path)
        assert raised.value.__class__.__name__ in ("CheckpointError", "ValueError"), line


def test_a_softmax_at_the_end_is_left_out_and_said_also_as_a_layer_of_its_own(tmp_path, legacy):
    code = """
import tensorflow as tf
K = tf.keras
model = K.Sequential([K.Input((5, 2)), K.layers.LSTM(4), K.layers.Dense(6), K.layers.Activation("relu"), {}])
results["outputs"] = model(inputs)
model.save({!r})
"""
    x = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
    path = str(tmp_path / "theirs.h5")
    for end in ("K.layers.Dense(3, activation='softmax')", "K.layers.Dense(3), K.layers.Activation('softmax')"):
        wanted = legacy.run(code.format(end, path), inputs=x)["outputs"]
        with pytest.warns(
            UserWarning, match=r"theirs.h5: .*the last layer, 'dense.*', has activation='softmax', which"
        ):
            model, params, _ = keras.load(path)
        likely = np.exp(model(params, x))
        assert_close(likely / likely.sum(axis=-1, keepdims=True), wanted, 2e-6)


# --- files as older versions wrote them -----------------------------------------------------------------------


def write(path, rows, config=None, version="2.2.4", folder="model_weights"):
    """A file with rows ``(layer, {name: array})``, as Keras 2.2 wrote it: its texts have fixed lengths."""
    with h5py.File(path, "w") as file:
        top = file.create_group(folder) if config is not None else file
        file.attrs["keras_version"] = np.bytes_(version)
        if config is not None:
            file.attrs["model_config"] = np.bytes_(json.dumps(config))
        top.attrs["layer_names"] = np.array([name.encode() for name, _ in rows])
        for layer, arrays in rows:
            group = top.create_group(layer)
            group.attrs["weight_names"] = np.array([name.encode() for name in arrays], "S" if arrays else np.float64)
            for name, array in arrays.items():
                group[name] = array


def old_rows(case):
    """The rows of a `simple` case, as Keras 2.2 named them."""
    found = keras.keras_weights(keras.keras_parts(case.model, "test")[0], case.params["rnn"]["lstm_cell"])
    dense = {f"dense_1/{name}:0": array for name, array in case.params["dense"].items()}
    return [("lstm_1", {f"lstm_1/{name}:0": array for name, array in found.items()}), ("dense_1", dense)]


def old_config(**options):
    lstm = {"name": "lstm_1", "units": 3, "activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True}
    lstm |= {"return_sequences": True, "implementation": 1, "batch_input_shape": [None, None, 2], **options}
    dense = {"name": "dense_1", "units": 1, "activation": "linear", "use_bias": True}
    layers = [{"class_name": "LSTM", "config": lstm}, {"class_name": "Dense", "config": dense}]
    return {"class_name": "Sequential", "config": layers}  # a list, before Keras 2.2.3


def test_the_files_of_keras_2_2(tmp_path):
    case, path = simple(forget_bias=0.0), tmp_path / "old.h5"
    write(path, old_rows(case), old_config())
    model, params, _ = keras.load(path)
    assert_close(model(params, case.inputs), case.outputs, 2e-6)
    write(path, old_rows(case), old_config(time_major=True))
    with pytest.raises(ValueError, match=r"old.h5: layer 'lstm_1' has time_major=True, wanted False"):
        keras.load(path)
    write(path, old_rows(case))
    assert_one_rounding(keras.load(path, case.model).params, case.params)
    with pytest.raises(ValueError, match=r"Keras 2.2.4 may have recurrent_activation='hard_sigmoid'"):
        convert(path, tmp_path / "ours.npz", options=KNOWN)
    write(path, [*old_rows(case)[:1], ("masking_1", {}), *old_rows(case)[1:]], version="2.4.0")
    with pytest.raises(ValueError, match="'masking_1' is a layer without weights"):
        convert(path, tmp_path / "ours.npz", options=KNOWN)


def test_names_that_are_too_long_for_one_attribute_are_in_several(tmp_path):
    case, path = simple(forget_bias=0.0), tmp_path / "old.h5"
    write(path, old_rows(case), version="2.4.0")
    with h5py.File(path, "r+") as file:
        names = file.attrs["layer_names"]
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:1], names[1:]
    assert_one_rounding(keras.load(path, case.model).params, case.params)


def test_keras_1_is_refused(tmp_path):
    path = tmp_path / "old.h5"
    names = [f"lstm_1_{array}_{gate}:0" for gate in "icfo" for array in "WUb"]
    rows = [("lstm_1", {name: np.zeros((3, 3), np.float32) for name in names})]
    write(path, rows, old_config(), version="1.2.2")
    with pytest.raises(ValueError, match=r"old.h5: a file of Keras 1.2.2, wanted 2 or 3"):
        keras.load(path)
    write(path, rows, version="1")
    with pytest.raises(ValueError, match=r"old.h5: a file of Keras 1, wanted 2 or 3"):
        keras.load(path, Sequential(LSTM(3), Dense(1)))


def change_names(attribute, change):
    def damage(file):
        group = file if attribute == "layer_names" else file["lstm_1"]
        group.attrs[attribute] = np.array(change(list(group.attrs[attribute])))

    return damage


def external_link(file):
    del file["lstm_1/lstm_1"]
    file["lstm_1/lstm_1"] = h5py.ExternalLink("other.h5", "/")


def a_number(file):
    file.attrs["layer_names"] = np.arange(3)


FAULTS = {
    "twice": (change_names("layer_names", lambda names: [names[0], *names]), "layer_names are not distinct"),
    "no such layer": (change_names("layer_names", lambda names: [b"x", *names]), "KeyError"),
    "no such weight": (change_names("weight_names", lambda names: [b"x", *names]), "has no lstm_1/x, which"),
    "elsewhere": (change_names("weight_names", lambda names: [b"../dense_1/x", *names]), "has no lstm_1/../dense_1/x"),
    "another order": (change_names("layer_names", lambda names: names[::-1]), "'rnn' wants .*, got"),
    "fewer": (change_names("layer_names", lambda names: names[:1]), "the model has 2 layers with weights, the file 1"),
    "the same twice": (change_names("weight_names", lambda names: [*names, names[0]]), "the same twice"),
    "a link": (external_link, "is a link to another place or file"),
    "numbers": (a_number, "'layer_names' has shape .* wanted texts"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, fault, capsys):
    case, path = simple(forget_bias=0.0), tmp_path / "old.h5"
    damage, message = FAULTS[fault]
    write(path, old_rows(case), version="2.4.0")
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(ValueError, match=rf"^{path}: .*{message}"):
        keras.load(path, case.model)
    code = main(["convert", str(path), str(tmp_path / "x.npz"), "--activation=tanh", "--dense-activation=tanh"])
    assert code == (0 if fault == "fewer" else 2)  # without a model nothing says how many there are
    assert "Traceback" not in capsys.readouterr().err


def test_limits_hold_for_names_too(tmp_path):
    path = tmp_path / "old.h5"
    write(path, old_rows(simple()), version="2.4.0")
    with pytest.raises(ValueError, match=r"old.h5: \d+ names"):
        keras.load(path, limits=Limits(objects=4))


def test_no_older_file_is_written(tmp_path):
    case = simple()
    npz.save(tmp_path / "m.npz", case.model, case.params)
    with pytest.raises(ValueError, match=r"DST must have .ckpt or one of .*\.weights\.h5"):
        convert(tmp_path / "m.npz", tmp_path / "m.h5")
    with pytest.raises(ValueError, match=r"path must end in .keras or .weights.h5"):
        keras.save(tmp_path / "m.h5", case.model, case.params)
