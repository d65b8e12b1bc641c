"""What `minilstm.export.keras` and `minilstm.export.tf2` write, in real Keras; and what Keras writes, here.

Both Kerases run in workers of their own, because TensorFlow is switched to version 1 in this process.
"""

import warnings

import numpy as np
import pytest
from export.cases import ACTIVATIONS, EXAMPLES, assert_one_rounding, cases, make, simple
from helpers import assert_close, assert_trees_close, assert_trees_equal
from hypothesis import given, settings

from minilstm import LSTM, SGD, Adam, Dense, Dropout, Embedding, Sequential, losses, tensorbundle, value_and_grad
from minilstm.export import keras, tf2
from minilstm.export.convert import convert
from minilstm.export.convert import read as convert_source
from minilstm.export.infer import Options

pytestmark = pytest.mark.interop
FORWARD = "\nresults['outputs'] = forward(inputs)\n"


@settings(max_examples=EXAMPLES)
@given(case=cases(activations=ACTIVATIONS, grus=(True, False), both_ways=True))
def test_outputs_are_ours_and_weights_come_back(tmp_path_factory, keras3, case):
    folder = tmp_path_factory.mktemp("keras")
    for name in ("model.keras", "model.weights.h5"):
        code = keras.save(folder / name, case.model, case.params, extra=[1, 2])
        assert_close(keras3.run(code + FORWARD, inputs=case.inputs)["outputs"], case.outputs, 2e-6, name)
        loaded = keras.load(folder / name)
        assert (loaded.model.config(), loaded.extra) == (case.model.config(), [1, 2])
        assert_one_rounding(loaded.params, case.params)


@pytest.mark.parametrize("save", [keras.save, tf2.save], ids=["keras", "tf2"])
def test_without_a_forget_bias_every_bit_comes_back(tmp_path, save):
    case = simple(forget_bias=0.0)
    case.params["rnn"]["lstm_cell"]["bias"][:] = -0.0
    path = tmp_path / "model.keras"
    save(path, case.model, case.params)
    load = keras.load if save is keras.save else tf2.load
    assert_trees_equal(load(path).params, case.params)


def test_backwards_and_only_the_last_step(tmp_path, keras3):
    case = simple(reverse=True, return_sequences=False)
    code = keras.save(tmp_path / "model.keras", case.model, case.params)
    assert_close(keras3.run(code + FORWARD, inputs=case.inputs)["outputs"], case.outputs, 2e-6)


def test_float64_stays_float64(tmp_path, keras3):
    case = make(Sequential(LSTM(3), Dropout(0.5), Dense(2)), dtype=np.float64)
    for name in ("model.keras", "model.weights.h5"):
        code = keras.save(tmp_path / name, case.model, case.params)
        outputs = keras3.run(code + FORWARD, inputs=case.inputs)["outputs"]
        assert outputs.dtype == np.float64
        assert_close(outputs, case.outputs, 1e-14)


THEIR_MODEL = """
import keras
keras.utils.set_random_seed(0)
model = keras.Sequential([
    keras.Input((None,), dtype="int64"),
    keras.layers.Embedding(7, 3),
    keras.layers.LSTM(4, return_sequences=True, activation="softsign", bias_initializer="normal"),
    keras.layers.Dropout(0.3),
    keras.layers.LSTM(5),
    keras.layers.Dense(2, activation="sigmoid"),
])
results["outputs"] = model(inputs)
"""


def test_a_model_made_in_keras_reads_without_further_knowledge(tmp_path, keras3):
    inputs = np.random.default_rng(0).integers(0, 7, (3, 6))
    path = str(tmp_path / "theirs.keras")
    wanted = keras3.run(THEIR_MODEL + f"model.save({path!r})", inputs=inputs)["outputs"]
    model, params, extra = keras.load(path)
    assert extra is None
    assert [layer.cell.forget_bias for layer in model.layers if hasattr(layer, "cell")] == [0.0, 0.0]
    assert_close(model(params, inputs), wanted, 2e-6)
    assert convert(path, tmp_path / "ours.npz", report=lambda line: None)
    with pytest.raises(ValueError, match=r"forget_bias=0.0, and the flag says 1.0"):
        convert(path, tmp_path / "ours.npz", options=Options(forget_bias=1.0))


def test_weights_of_keras_alone_need_the_model(tmp_path, keras3):
    inputs = np.random.default_rng(0).integers(0, 7, (3, 6))
    path = str(tmp_path / "theirs.weights.h5")
    wanted = keras3.run(THEIR_MODEL + f"model.save_weights({path!r})", inputs=inputs)["outputs"]
    with pytest.raises(ValueError, match="no description of the model"):
        keras.load(path)
    with pytest.raises(ValueError, match=r"do not tell --activation, --dense-activation"):
        convert(path, tmp_path / "ours.npz")
    lower, upper = LSTM(4, activation="softsign", forget_bias=1.0), LSTM(5, return_sequences=False)
    model = Sequential(Embedding(7, 3), lower, Dropout(0.3), upper, Dense(2, activation="sigmoid"))
    assert_close(model(keras.load(path, model).params, inputs), wanted, 2e-6)


# --- GRUs, and both directions --------------------------------------------------------------------------------

THEIR_STACK = """
import keras
keras.utils.set_random_seed({layers})
model = keras.Sequential([keras.Input((None, 3))])
for n in range({layers}):
    sequences = {sequences} or n + 1 < {layers}
    layer = keras.layers.{cell}, return_sequences=sequences, bias_initializer="normal")
    model.add(keras.layers.Bidirectional(layer) if {both_ways} else layer)
model.add(keras.layers.Dense(2))
results["outputs"] = model(inputs)
for path in {paths}:
    (model.save_weights if path.endswith("h5") else model.save)(path)
"""
SAME_WEIGHTS = """
import keras
first, second = (keras.saving.load_model(path).get_weights() for path in {paths})
results["same"] = [a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True)]
"""


GRU_OF_CHO = "GRU(4, reset_after=False"
DEPTHS = [
    ("LSTM(4", True, 1), ("LSTM(4", True, 3), ("GRU(4", False, 1), ("GRU(4", False, 3), ("GRU(4", True, 2),
    (GRU_OF_CHO, False, 2), (GRU_OF_CHO, True, 1), (GRU_OF_CHO, True, 3), ("GRU(4, activation='softsign'", True, 2),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "both_ways", "layers"), DEPTHS)
def test_grus_and_both_directions_come_here_and_go_back_bit_for_bit(tmp_path, keras3, cell, both_ways, layers):
    inputs = np.random.default_rng(0).normal(size=(3, 6, 3)).astype(np.float32)
    path, weights, middle, back = (str(tmp_path / name) for name in ("t.keras", "t.weights.h5", "m.ckpt", "b.keras"))
    options = {"cell": cell, "both_ways": both_ways, "layers": layers, "sequences": layers != 2}
    theirs = THEIR_STACK.format(**options, paths=(path, weights))
    wanted = keras3.run(theirs, inputs=inputs)["outputs"]
    model, params, _ = keras.load(path)
    assert_close(model(params, inputs), wanted, 2e-6)
    assert_trees_equal(keras.load(weights, model).params, params)
    lines = []
    assert convert(path, middle, report=lines.append)
    keras.save(back, *keras.load(path)[:2])
    same = keras3.run(SAME_WEIGHTS.format(paths=(path, back)))["same"]
    assert same.all()
    assert len(same) == 3 * layers * (1 + both_ways) + 2
    if options["sequences"]:
        known = Options(activation="softsign" if "softsign" in cell else "tanh", dense_activation="linear")
        assert_close((found := convert_source(weights, known).loaded).model(found.params, inputs), wanted, 2e-6)


IDLE = """
import tensorflow as tf, {keras} as keras
keras.utils.set_random_seed(3)
L, rows = keras.layers, keras.layers.TimeDistributed
model = keras.Sequential([
    keras.Input((None, 3)), L.GaussianNoise(0.1),
    L.Bidirectional(L.LSTM(4, return_sequences=True, dropout=0.2, bias_initializer="uniform")),
    rows(L.Dense(5)), rows(L.Activation("relu")), L.SpatialDropout1D(0.2),
    L.GRU(3, return_sequences=True, recurrent_dropout=0.1),
    L.Dense(4), rows(L.Dense(2, bias_initializer="uniform", trainable=False)), rows(L.Activation("tanh")),
])
results["outputs"] = model(inputs)
model.save({path!r})
tf.train.Checkpoint(model=model).write({path!r} + ".ckpt")
"""


SAVED = [("legacy", ".h5"), ("legacy", ""), ("keras3", ".keras"), ("keras3", ".h5")]


@pytest.mark.parametrize(("which", "suffix"), SAVED)
def test_what_acts_in_training_alone_is_left_out_and_said(tmp_path, request, which, suffix):
    """And a Dense in a TimeDistributed does what it does without."""
    path = str(tmp_path / f"theirs{suffix}")
    inputs = np.random.default_rng(0).normal(size=(3, 6, 3)).astype(np.float32)
    name = "keras" if which == "keras3" else "tf_keras"
    wanted = request.getfixturevalue(which).run(IDLE.format(keras=name, path=path), inputs=inputs)["outputs"]
    told = r"left out, as in training alone it does something: the GaussianNoise 'gaussian_noise.*', dropout=0.2 of "
    told += r"'bidirectional.*', the SpatialDropout1D 'spatial_dropout1d.*', recurrent_dropout=0.1 of 'gru.*'"
    with pytest.warns(UserWarning, match=told):
        model, params, _ = (keras if suffix else tf2).load(path)
    assert_close(model(params, inputs), wanted, 2e-6)
    lines: list[str] = []
    with pytest.warns(UserWarning, match=told):
        assert convert(path, tmp_path / "ours.npz", report=lines.append)
    if suffix == ".keras":
        assert any(line.endswith("<- layers/time_distributed_2/layer/vars/0, layers/time_distributed_2/layer/vars/1")
                   for line in lines)  # fmt: skip
    again = tf2.load(f"{path}.ckpt", model)
    assert_close(again.model(again.params, inputs), wanted, 2e-6)


def test_a_backward_layer_of_its_own_options_keeps_them(tmp_path, keras3):
    code = """
import keras
backward = keras.layers.LSTM(4, return_sequences=True, go_backwards=True, name="other")
model = keras.Sequential([
    keras.Input((None, 3)),
    keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True), backward_layer=backward),
])
results["outputs"] = model(inputs)
model.save({path!r})
"""
    inputs = np.random.default_rng(0).normal(size=(3, 6, 3)).astype(np.float32)
    path = str(tmp_path / "theirs.keras")
    wanted = keras3.run(code.format(path=path), inputs=inputs)["outputs"]
    model, params, _ = keras.load(path)
    assert_close(model(params, inputs), wanted, 2e-6)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("LSTM(2, recurrent_activation='hard_sigmoid')", "recurrent_activation='hard_sigmoid', wanted 'sigmoid'"),
        ("LSTM(2, use_bias=False)", "use_bias=False, wanted True"),
        ("LSTM(2, go_backwards=True, return_sequences=True)", "go_backwards=True and returns sequences"),
        ("LSTM(2, activation='gelu')", "activation='gelu', wanted one of"),
        ("SimpleRNN(2)", "is a SimpleRNN, wanted one of"),
        ("GRU(2, recurrent_activation='hard_sigmoid')", "recurrent_activation='hard_sigmoid', wanted 'sigmoid'"),
        ("GRU(2, use_bias=False)", "use_bias=False, wanted True"),
        ("GRU(2, go_backwards=True, return_sequences=True)", "go_backwards=True and returns sequences"),
        ("Bidirectional(keras.layers.LSTM(2), merge_mode='sum')", "merge_mode='sum', wanted 'concat'"),
        ("Bidirectional(keras.layers.SimpleRNN(2))", r"is a SimpleRNN, wanted one of \('LSTM', 'GRU'\)"),
        ("TimeDistributed(keras.layers.LayerNormalization())", "is a TimeDistributed, wanted one of"),
        (
            "Bidirectional(keras.layers.LSTM(2), backward_layer=keras.layers.LSTM(3, go_backwards=True))",
            "'bidirectional.*' has units=2 forward and units=3 backward",
        ),
        (
            "Bidirectional(keras.layers.LSTM(2), backward_layer=keras.layers.GRU(2, go_backwards=True))",
            "'bidirectional.*' has cell='LSTM' forward and cell='GRU' backward",
        ),
    ],
)
def test_what_we_lack_is_refused_by_name(tmp_path, keras3, layer, message):
    path = str(tmp_path / "theirs.keras")
    keras3.run(f"import keras\nkeras.Sequential([keras.Input((None, 1)), keras.layers.{layer}]).save({path!r})")
    with pytest.raises(ValueError, match=message):
        keras.load(path)


def test_a_softmax_at_the_end_is_left_out_and_said(tmp_path, keras3):
    path, x = str(tmp_path / "theirs.keras"), np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
    layers = "keras.layers.LSTM(4), keras.layers.Dense({}), keras.layers.Dense(3, activation='softmax')"
    code = "import keras\nmodel = keras.Sequential([keras.Input((5, 2)), {}])\nmodel.save({!r})\n"
    code = code.format(layers.format("6"), path) + "results['outputs'] = model(inputs).numpy()\n"
    probabilities = keras3.run(code, inputs=x)["outputs"]
    with pytest.warns(UserWarning, match=r"theirs.keras: .*the last layer, 'dense.*', has activation='softmax', which"):
        loaded = keras.load(path)
    logits = loaded.model(loaded.params, x)
    logits = logits[:, -1] if logits.ndim == 3 else logits
    likely = np.exp(logits - logits.max(axis=-1, keepdims=True))
    assert_close(likely / likely.sum(axis=-1, keepdims=True), probabilities, 2e-6)
    between = layers.format("6, activation='softmax'")
    keras3.run(f"import keras\nkeras.Sequential([keras.Input((5, 2)), {between}]).save({path!r})")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(ValueError, match="activation='softmax', wanted"):
        keras.load(path)


TRAIN = """
optimizer = keras.optimizers.{optimizer}
model.compile(optimizer=optimizer, loss="mse")
results["loss"] = model.train_on_batch(inputs, targets)
model.save_weights({path!r})
"""


@pytest.mark.parametrize(
    ("optimizer", "theirs"),
    [
        (SGD(0.1), "SGD(learning_rate=0.1)"),
        (Adam(0.01, epsilon=1e-4), "Adam(learning_rate=0.01, epsilon=1e-4)"),
    ],
    ids=["SGD", "Adam"],
)
def test_a_training_step_moves_the_same_weights_to_the_same_place(tmp_path, keras3, optimizer, theirs):
    case = simple(forget_bias=0.5)
    targets = np.random.default_rng(1).normal(size=case.outputs.shape).astype(np.float32)
    loss, grads = value_and_grad(lambda p: losses.mse(case.model(p, case.inputs), targets))(case.params)
    wanted, _ = optimizer.update(case.params, grads, optimizer.init(case.params))
    code = keras.save(tmp_path / "model.keras", case.model, case.params)
    path = str(tmp_path / "trained.weights.h5")
    train = TRAIN.format(optimizer=theirs, path=path)
    assert_close(keras3.run(code + train, inputs=case.inputs, targets=targets)["loss"], loss, 2e-7)
    trained = keras.load(path, case.model).params
    assert_trees_close(trained, wanted, 3e-7)
    assert np.abs(trained["rnn"]["lstm_cell"]["bias"] - case.params["rnn"]["lstm_cell"]["bias"]).min() > 1e-6


# --- the object-based checkpoint ------------------------------------------------------------------------------


@settings(max_examples=EXAMPLES)
@given(case=cases(activations=ACTIVATIONS, grus=(True, False), both_ways=True))
def test_both_kerases_consume_the_whole_checkpoint(tmp_path_factory, keras3, legacy, case):
    path = tmp_path_factory.mktemp("tf2") / "model.ckpt"
    code = tf2.save(path, case.model, case.params)
    for worker in (keras3, legacy):
        assert "assert_consumed()" in code
        assert_close(worker.run(code + FORWARD, inputs=case.inputs)["outputs"], case.outputs, 2e-6)
    loaded = tf2.load(path)
    assert loaded.model.config() == case.model.config()
    assert_one_rounding(loaded.params, case.params)


@pytest.mark.parametrize("fault", ["another", "more", "fewer"])
def test_consuming_can_fail(tmp_path, keras3, legacy, fault):
    """The assertion in the lines above notices a model of other layers: it is not there for show."""
    model = Sequential(LSTM(3), LSTM(3), Dense(1))
    case = make(model)
    code = tf2.save(tmp_path / "model.ckpt", model, case.params)
    dense = next(line for line in code.splitlines() if "Dense" in line)
    changed = {"another": code.replace("units=3", "units=4"), "more": code.replace(dense, f"{dense}\n{dense}")}
    changed["more"] = changed["more"].replace("name='dense'", "name='extra'", 1)
    changed["fewer"] = code.replace(dense, "")
    for worker in (keras3, legacy):
        with pytest.raises(AssertionError, match=r"Traceback"):
            worker.run(changed[fault])


def test_a_checkpoint_made_by_either_keras_reads(tmp_path, keras3, legacy):
    case = make(Sequential(Embedding(5, 3), LSTM(3, forget_bias=0.0), Dropout(0.1), Dense(1)))
    code = tf2.save(tmp_path / "ours.ckpt", case.model, case.params)
    for worker in (keras3, legacy):
        prefix = str(tmp_path / "theirs.ckpt")
        train = f"""
model.compile(optimizer="adam", loss="mse")
model.fit(inputs, forward(inputs).numpy() + 1, verbose=0)
results["outputs"] = forward(inputs)
tf.train.Checkpoint(model=model, step=tf.Variable(3)).write({prefix!r})
"""
        wanted = worker.run(code + train, inputs=case.inputs)["outputs"]
        params = tf2.load(prefix, case.model).params
        assert_close(case.model(params, case.inputs), wanted, 2e-6)
        with pytest.raises(ValueError, match=r"wants \('kernel', 'bias'\), got .*'recurrent_kernel'"):
            tf2.load(prefix, Sequential(Embedding(5, 3), Dense(3), Dense(1)))
        options = Options(activation="tanh", dense_activation="linear")
        with pytest.warns(UserWarning, match=r"left out: layers \[2\], without weights"):  # the Dropout
            assert convert(prefix, tmp_path / "back.npz", options=options, report=lambda line: None)


def test_the_object_graph_is_what_protocol_buffers_read(tmp_path, legacy):
    case = make(Sequential(LSTM(3), Dense(1)))
    path = tmp_path / "model.ckpt"
    code = tf2.save(path, case.model, case.params)
    read = f"""
from tensorflow.core.protobuf import trackable_object_graph_pb2 as pb
graph = pb.TrackableObjectGraph()
graph.ParseFromString(tf.train.load_checkpoint({str(path)!r}).get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
results["keys"] = np.array([a.checkpoint_key for node in graph.nodes for a in node.attributes])
results["bytes"] = np.frombuffer(graph.SerializeToString(deterministic=True), np.uint8)
"""
    found = legacy.run(code + read)
    tensors = tensorbundle.read(path)
    graph = np.asarray(tensors[tf2.GRAPH], object).item()
    assert found["bytes"].tobytes() == graph
    assert set(found["keys"]) == {name for name in tensors if name.endswith("VARIABLE_VALUE")}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            "Bidirectional(tf.keras.layers.SimpleRNN(3)), tf.keras.layers.Dense(1)",
            r"forward_layer/kernel has shape .* 1 x 3 columns: a plain RNN",
        ),
        ("Bidirectional(tf.keras.layers.LSTM(3))", "ends with a Bidirectional, .* merge_mode"),
        ("Bidirectional(tf.keras.layers.LSTM(3), merge_mode='sum'), tf.keras.layers.Dense(1)", "does not fit"),
        (
            "RNN([tf.keras.layers.LSTMCell(3), tf.keras.layers.LSTMCell(3)]), tf.keras.layers.Dense(1)",
            "a layer (holds .*, which is of no LSTM|has a cell without weights)",  # Keras 3 saves none of these
        ),
        ("SimpleRNN(4), tf.keras.layers.Dense(1)", r"wants \(5, 16\): 1 x 4 columns: a plain RNN"),
    ],
)
def test_other_layers_in_a_checkpoint_are_never_read_as_something_else(tmp_path, keras3, legacy, layers, message):
    """A Bidirectional has no weights of its own, so a model of it and a Dense was once read as the Dense alone."""
    prefix = str(tmp_path / "theirs.ckpt")
    code = f"""
import tensorflow as tf
model = tf.keras.Sequential([tf.keras.Input((None, 5)), tf.keras.layers.{layers}])
tf.train.Checkpoint(model=model).write({prefix!r})
"""
    for worker in (keras3, legacy):
        worker.run(code)
        with pytest.raises(ValueError, match=message):
            convert(prefix, tmp_path / "ours.npz", options=Options(activation="tanh", dense_activation="linear"))
    assert not (tmp_path / "ours.npz").exists()


LAYERS = {
    "plain": "S([L.Input((5, 3)), L.LSTM(4), L.Dense(1)])",
    "masking": "S([L.Input((5, 3)), L.Masking(), L.LSTM(4), L.Dense(1)])",
    "pooling": "S([L.LSTM(4, return_sequences=True, input_shape=(5, 3)), L.GlobalMaxPooling1D(), L.Dense(1)])",
}


@pytest.mark.parametrize("library", ["keras3", "legacy"])
def test_layers_without_weights_in_a_checkpoint_are_named(tmp_path, library, request):
    """Such a file does not say what they do; to leave a Masking out would be wrong without a word."""
    name = "keras" if library == "keras3" else "tf_keras"
    lines = [f"import tensorflow as tf, {name} as keras", "L = keras.layers", "S = keras.Sequential"]
    for kind, code in LAYERS.items():
        path = str(tmp_path / kind)
        lines += [f"model = {code}", f"tf.train.Checkpoint(model=model).write({path!r})"]
        lines += [f"model.save_weights({path + '.weights.h5'!r})"]
    request.getfixturevalue(library).run("\n".join(lines))
    options = Options(activation="tanh", dense_activation="linear")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*left out")
        assert [type(layer).__name__ for layer in tf2.load(tmp_path / "plain", options=options).model.layers] == [
            "RNN", "Dense"
        ]  # fmt: skip
    for kind, places in (("masking", r"\[0\]"), ("pooling", r"\[1\]")):
        with pytest.warns(UserWarning, match=rf"{kind}: left out: layers {places}, without weights"):
            tf2.load(tmp_path / kind, options=options)
        with pytest.raises(ValueError, match=r"'(masking|global_max_pooling1d)' is a layer without weights; what it"):
            keras.load(tmp_path / f"{kind}.weights.h5", options=options)
    assert len(keras.load(tmp_path / "plain.weights.h5", options=options).model.layers) == 2


AROUND = """
class Held(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = row()
    def call(self, inputs, training=None):
        return 50 * self.inner(inputs) + 7

def row():
    return S([keras.Input((None, 5)), L.LSTM(4, return_sequences=True), L.Dense(2)])

def scaled():
    return S([row(), L.Rescaling(100.0)])

def functional():
    inputs = keras.Input((None, 5))
    return keras.Model(inputs, row()(inputs) * 100)

def beside():
    model = row()
    model.more = tf.Variable([1.0, 2.0])
    return model
"""


@pytest.mark.parametrize("library", ["keras3", "legacy"])
def test_a_model_that_something_is_done_with_is_not_taken_for_the_whole(tmp_path, library, request):
    """Its layers alone give other outputs, and no file of weights says so."""
    name = "keras" if library == "keras3" else "tf_keras"
    lines = [f"import tensorflow as tf, {name} as keras", "L = keras.layers", "S = keras.Sequential", AROUND]
    for kind in ("Held", "scaled", "functional", "beside", "row"):
        lines += [f"model = {kind}()", "model(tf.zeros((1, 6, 5)))"]
        lines += [f"tf.train.Checkpoint(model=model, step=tf.Variable(3)).write({str(tmp_path / kind)!r})"]
    request.getfixturevalue(library).run("\n".join(lines))
    options = Options(activation="tanh", dense_activation="linear")
    for kind in ("Held", "scaled", "functional", "beside"):
        with pytest.raises(ValueError, match=rf"{kind}: the layers are not all .*: there is (an object|model)"):
            tf2.load(tmp_path / kind, options=options)
    assert len(tf2.load(tmp_path / "row", options=options).model.layers) == 2


def test_a_subclassed_model_of_keras_3_is_no_row(tmp_path, keras3):
    lines = ["import tensorflow as tf, keras", "L = keras.layers", "S = keras.Sequential", AROUND.split("def row")[0]]
    lines = [line.replace("self.inner = row()", "self.lstm, self.head = L.LSTM(4), L.Dense(2)") for line in lines]
    lines = [line.replace("50 * self.inner(inputs) + 7", "self.head(self.lstm(inputs))") for line in lines]
    path = tmp_path / "m.weights.h5"
    lines += ["model = Held()", "model(tf.zeros((1, 6, 5)))", f"model.save_weights({str(path)!r})"]
    keras3.run("\n".join(lines))
    with pytest.raises(ValueError, match=r"the model holds 'head/vars/0' besides its layers, so it is no row"):
        keras.load(path, options=Options(activation="tanh", dense_activation="linear"))
