"""What once gave a wrong result without a word, or an error of another library, where a stranger would try it."""

import numpy as np
import pytest
from handovers import MODEL, PARAMS, WORD_PARAMS, WORDS, X, Y, trained
from helpers import assert_close, assert_trees_equal

from experiments.common import add_output_flags, program
from minilstm import (
    LSTM,
    SGD,
    Adam,
    Dense,
    Dropout,
    Embedding,
    RMSProp,
    Sequential,
    generate,
    hessian_vector_product,
    jvp,
    latest_checkpoint,
    load_checkpoint,
    losses,
    predict,
    sampler,
    save_checkpoint,
    tbptt,
    value_and_grad,
)
from minilstm.data import as_array, contiguous_batches
from minilstm.export.convert import convert

RNG = np.random.default_rng(7)


# --- callbacks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("returned", ["runs/a/best", 12, np.ones(2), float("nan"), {}], ids=repr)
def test_a_callback_that_returns_something_does_not_end_the_run_in_silence(returned):
    with pytest.raises(ValueError, match="fit: callbacks: each must return True to end the run, or False or None"):
        trained(epochs=4, callbacks=[lambda result: returned])


@pytest.mark.parametrize(("returned", "epochs"), [(True, 1), (np.True_, 1), (False, 4), (np.False_, 4), (None, 4)])
def test_a_callback_ends_the_run_with_true_alone(returned, epochs):
    assert len(trained(epochs=4, callbacks=[lambda result: returned]).history["loss"]) == epochs


# --- options that float32 cannot hold -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Adam(beta1=0.99999999), "Adam: beta1 in float32 .* got 1.0"),
        (lambda: Adam(beta2=0.99999999), "Adam: beta2 in float32 .* got 1.0"),
        (lambda: RMSProp(0.1, decay=0.99999999), "RMSProp: decay in float32 .* got 1.0"),
        (lambda: Adam(epsilon=1e-50), "Adam: epsilon in float32 must be positive, got 0.0"),
        (lambda: SGD(1e-50), "SGD: learning_rate in float32 must be positive, got 0.0"),
        (lambda: SGD(1e39), "SGD: learning_rate in float32 must be positive and finite, got inf"),
    ],
)
def test_an_option_that_rounds_to_0_or_1_or_infinity_is_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def test_an_option_of_0_is_0():
    assert (Adam(epsilon=0).epsilon, Adam(beta1=0).beta1) == (0, 0)


# --- parameters that are not finite ---------------------------------------------------------------------------


class TooFar(SGD):
    """From the third update on, the bias of the Dense layer is infinite."""

    def update(self, params, grads, state):
        params, state = super().update(params, grads, state)
        if state.step >= 3:
            params = {**params, "dense": {**params["dense"], "bias": np.full(1, np.inf, np.float32)}}
        return params, state


@pytest.mark.parametrize("every", [None, 1])
def test_parameters_that_are_not_finite_are_neither_returned_nor_saved(every, tmp_path):
    with pytest.raises(FloatingPointError, match=r"fit: the parameter dense/bias is not finite after step 3 \(epoch 1"):
        trained(optimizer=TooFar(0.1), epochs=1)  # three steps: no loss would have told
    options = {"checkpoint_dir": tmp_path / "run", "checkpoint_every": every, "max_to_keep": 1}
    with pytest.raises(FloatingPointError, match="dense/bias is not finite after step 3"):
        trained(optimizer=TooFar(0.1), epochs=1, **options)
    if every is not None:
        assert load_checkpoint(tmp_path / "run").step == 2


# --- batches --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"targets": np.repeat(Y, 2, axis=1)},
        {"targets": Y[:, :4]},
        {"targets": np.ones(12)},
        {"weights": np.ones((12, 7))},
        {"weights": np.ones(12)},
        {"inputs": X[:, 0, 0]},
    ],
    ids=["longer targets", "shorter targets", "targets [batch]", "longer weights", "weights [batch]", "inputs [batch]"],
)
def test_windows_are_cut_of_arrays_with_the_same_steps(change):
    with pytest.raises(ValueError, match="fit: tbptt needs data with inputs, targets and weights of every step"):
        trained({"inputs": X, "targets": Y, **change}, tbptt=tbptt(2))


def test_a_batch_is_no_longer_than_the_stride():
    """The windows of a callable are its batches; a smaller stride was ignored."""
    with pytest.raises(ValueError, match=r"fit: tbptt: .* stride is 2 and the first batch has 5 time steps"):
        trained(lambda step: (X, Y), steps_per_epoch=2, tbptt=tbptt(2))
    with pytest.raises(ValueError, match=r"fit: tbptt: .* stride is 2 and the first batch has 3 time steps"):
        trained(contiguous_batches(X[:, 0], 2, 3, Y[:, 0]), tbptt=tbptt(2))


@pytest.mark.parametrize("windowed", [None, tbptt(5)])
def test_a_reset_that_nobody_reads_is_refused(windowed):
    batch = {"inputs": X, "targets": Y, "reset": np.zeros(12, bool)}
    with pytest.raises(ValueError, match="fit: data: reset is for batches that continue each other"):
        trained(batch, tbptt=windowed)
    if windowed is None:
        with pytest.raises(ValueError, match="fit: data: reset is for batches that continue each other"):
            trained(lambda step: batch, steps_per_epoch=2)


def test_entries_under_a_mask_do_not_come_in_through_another_library():
    class Frame:
        def to_numpy(self):
            return np.ma.masked_array([1.0, 2.0], [True, False])

    with pytest.raises(ValueError, match="here: a masked array"):
        as_array(Frame(), "here")


# --- layers and parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [Dense(2), Embedding(2, 2)], ids=repr)
def test_one_layer_object_is_in_one_place(layer):
    with pytest.raises(ValueError, match="Sequential: one layer object is in two places"):
        Sequential(layer, LSTM(2), layer)


def test_one_dropout_may_be_in_two_places():
    drop = Dropout(0.5)
    assert Sequential(drop, LSTM(2), drop).init(0, 2).keys() == {"rnn"}


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_the_arrays_of_a_layer_have_one_dtype(dtype):
    cell = PARAMS["rnn"]["lstm_cell"]
    mixed = {**PARAMS, "rnn": {"lstm_cell": {**cell, "kernel": cell["kernel"].astype(dtype)}}}
    with pytest.raises(ValueError, match=r"LSTM.apply: params: .* must have one dtype"):
        predict(MODEL, mixed, X)


# --- derivatives ----------------------------------------------------------------------------------------------

W = {"w": np.arange(1.0, 4.0)}


@pytest.mark.parametrize("derive", [value_and_grad, hessian_vector_product])
def test_a_forgotten_or_a_missing_aux_is_named(derive):
    vector = () if derive is value_and_grad else (W,)
    with pytest.raises(ValueError, match=r"a scalar, got a tuple of 2 items; has_aux=True is for \(loss, aux\)"):
        derive(lambda p: (p["w"].sum(), np.ones(3)))(W, *vector)
    for returned in (lambda p: p["w"].sum(), lambda p: p["w"][:2], lambda p: (p["w"].sum(), 1, 2)):
        with pytest.raises(ValueError, match=r"function must return \(loss, aux\), because has_aux is True"):
            derive(returned, has_aux=True)(W, *vector)


def test_a_function_that_returns_nothing_has_a_value_and_a_tangent():
    assert jvp(lambda p: None)(W, W) == (None, None)
    assert jvp(lambda p: {})(W, W) == ({}, {})


def test_weights_that_depend_on_parameters_are_refused():
    params = {"outputs": np.ones((2, 3, 1)), "weights": np.ones((2, 3))}
    for loss in (losses.mse, losses.sigmoid_cross_entropy):
        with pytest.raises(ValueError, match=rf"{loss.__name__}: weights must not depend on the parameters"):
            value_and_grad(lambda p, loss=loss: loss(p["outputs"], np.zeros((2, 3, 1)), p["weights"]))(params)


@pytest.mark.parametrize("weights", [None, np.array([[1.0, 0.5, 0.0], [2.0, 1.0, 1.0]])])
def test_targets_of_the_cross_entropy_may_depend_on_parameters(weights):
    """The loss is linear in the targets: its derivative is a difference of two values."""
    logits, targets = RNG.normal(size=(2, 3, 4)), RNG.uniform(0.2, 0.8, (2, 3, 4))
    direction = RNG.uniform(-0.1, 0.1, (2, 3, 4))
    loss = lambda p: losses.sigmoid_cross_entropy(logits, p["t"], weights)  # noqa: E731
    wanted = loss({"t": targets + direction}) - loss({"t": targets})
    _, grads = value_and_grad(loss)({"t": targets})
    assert abs(wanted) > 1e-4
    assert_close(np.sum(grads["t"] * direction), wanted, 1e-12)
    assert_close(jvp(loss)({"t": targets}, {"t": direction})[1], wanted, 1e-12)


# --- predictions ----------------------------------------------------------------------------------------------


def test_a_low_temperature_is_the_likeliest_label():
    logits = np.array([[1.0, 3.0, 2.0, 3.0 - 1e-9]])
    for seed in range(5):
        assert sampler(1e-320)(logits, np.random.default_rng(seed)).tolist() == [1]


@pytest.mark.parametrize("logits", [[[np.nan, 1.0]], [[np.inf, 1.0]], [[-np.inf, -np.inf]], 1.0, np.ones((1, 0))])
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_not_finite_give_no_label(logits, temperature):
    with pytest.raises(ValueError, match="sampler: logits must be"):
        sampler(temperature)(np.asarray(logits), np.random.default_rng(0))


def test_a_label_may_be_banned():
    assert sampler()(np.array([[-np.inf, 1.0]]), 3).tolist() == [1]


def test_next_input_takes_a_generator_if_there_is_one():
    with pytest.raises(ValueError, match=r"generate: next_input must take \(output\), because rng is not given"):
        generate(WORDS, WORD_PARAMS, [[0, 1]], 3, next_input=sampler())
    with pytest.raises(ValueError, match=r"generate: next_input must take \(output, rng\), because rng is given"):
        generate(WORDS, WORD_PARAMS, [[0, 1]], 3, next_input=lambda output: output.argmax(-1), rng=0)
    assert generate(WORDS, WORD_PARAMS, [[0, 1]], 3, next_input=sampler(), rng=0).shape == (1, 3, 3)


@pytest.mark.parametrize(
    "model",
    [lambda p, x: x[:1], lambda p, x: np.float32(3), lambda p, x: np.ones((len(x), len(x)))],
    ids=["rows", "a number", "features"],
)
def test_a_prediction_has_a_row_a_sequence(model):
    with pytest.raises(ValueError, match="predict: model must return outputs of shape"):
        predict(model, PARAMS, X, batch_size=5)


# --- files ----------------------------------------------------------------------------------------------------


def test_what_would_come_back_otherwise_is_not_saved(tmp_path):
    for extra in ({1: "a"}, {"characters": {0: "a"}}, [{None: 1}]):
        with pytest.raises(ValueError, match=r"save_checkpoint: extra .* is not text, and would come back as text"):
            save_checkpoint(tmp_path / "m", PARAMS, extra=extra)
    for params in ({"a": [1.0, 2.0]}, {"a": [np.ones(2), np.ones(2)]}, {"a": np.ma.masked_array([1.0, 2], [1, 0])}):
        with pytest.raises(ValueError, match="save_checkpoint: params: a: params must be nested dicts of arrays"):
            save_checkpoint(tmp_path / "m", params)
    for clash in ({"a/b": np.ones(1), "a": {"b": np.zeros(1)}}, {1: np.ones(1), "1": np.zeros(1)}):
        with pytest.raises(ValueError, match="names clash"):
            save_checkpoint(tmp_path / "m", clash)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_not_the_name_of_a_checkpoint(tmp_path, monkeypatch):
    """A checkpoint beside a folder of its name could not be read: a folder means the newest one in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for prefix in (tmp_path / "run", ".", "run/.."):
        with pytest.raises(ValueError, match=r"save_checkpoint: prefix .* is a folder"):
            save_checkpoint(prefix, PARAMS)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert save_checkpoint("run", PARAMS, step=3) == "run-3"


def test_a_path_in_the_home_folder_is_there(tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    trained(epochs=1, checkpoint_dir="~/run")
    prefix = save_checkpoint("~/models/m", PARAMS, model=MODEL)
    assert convert("~/models/m", "~/other/m.npz", report=lambda line: None)
    assert prefix == str(home / "models" / "m")
    assert latest_checkpoint("~/run").startswith(str(home))
    assert load_checkpoint("~/run").step == load_checkpoint(home / "run").step
    flags = program("x", "Runs a thing.")
    add_output_flags(flags)
    assert flags.parse_args(["--out=~/out"]).out == home / "out"
    assert sorted(path.name for path in home.iterdir()) == ["models", "other", "run"]
    assert not list(here.iterdir())


def test_a_model_is_saved_with_parameters_of_its_own(tmp_path):
    """Nobody could use the file, and what was trained would be lost."""
    own = {"temperature": {"t": np.ones(1, np.float32)}}  # of a loss function
    assert load_checkpoint(save_checkpoint(tmp_path / "m", {**PARAMS, **own}, model=MODEL)).params.keys() > own.keys()
    for model, fault in ((Sequential(LSTM(9), Dense(1)), "shape of rnn/lstm_cell/kernel"), (MODEL, "missing: dense/")):
        params = PARAMS if model is not MODEL else {name: PARAMS[name] for name in ("rnn",)}
        with pytest.raises(ValueError, match=f"save_checkpoint: params are not those of model: (.|\n)*{fault}"):
            save_checkpoint(tmp_path / "other", params, model=model)
    assert not list(tmp_path.glob("other*"))
    below = load_checkpoint(save_checkpoint(tmp_path / "m", {"net": PARAMS}, model=MODEL))  # they are one level down
    assert_trees_equal(below.model(below.params["net"], X), MODEL(PARAMS, X))


def test_like_is_a_model_or_a_tree(tmp_path):
    prefix = save_checkpoint(tmp_path / "m", PARAMS, model=MODEL)
    for like in (3, Sequential, LSTM(4), [1]):
        with pytest.raises(ValueError, match="load_checkpoint: like must be a Sequential or a tree of arrays"):
            load_checkpoint(prefix, like=like)
