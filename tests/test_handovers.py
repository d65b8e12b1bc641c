"""What people hand over by mistake, or in another form: right, or refused by a message that names it."""

import re

import numpy as np
import pytest
from handovers import (
    CONSUMERS,
    MODEL,
    ONLY_ARRAYS,
    PARAMS,
    REFUSED,
    X,
    Y,
    forms_of,
    is_taken,
    messages,
    table,
    trained,
)
from helpers import assert_close, assert_trees_close, assert_trees_equal

from minilstm import (
    LSTM,
    RNN,
    SGD,
    Adam,
    Bidirectional,
    Dense,
    LSTMCell,
    Sequential,
    fit,
    generate,
    losses,
    predict,
    tbptt,
)
from minilstm.data import BucketedBatches, as_array, pad_sequences

RNG = np.random.default_rng(1)


def rows(refused):
    """Parameters of a test: (place, form, change) for each place and form."""
    found = []
    for group, consumers in CONSUMERS.items():
        for consumer in consumers:
            kind = consumer.array.dtype.kind
            for form, change in forms_of(consumer, refused).items():
                found.append(pytest.param(group, consumer, form, change, id=f"{group}: {consumer.where} {kind}-{form}"))
    return found


@pytest.mark.parametrize(("group", "consumer", "form", "change"), rows(refused=False))
def test_every_form_of_an_array_gives_the_same_numbers(group, consumer, form, change):
    taken = is_taken(consumer, form, change)
    assert taken or group in ONLY_ARRAYS


@pytest.mark.parametrize(("group", "consumer", "form", "change"), rows(refused=True))
def test_what_is_no_array_of_numbers_is_refused_by_name(group, consumer, form, change):
    word = REFUSED[form][1]
    with pytest.raises(ValueError, match=f"^{re.escape(consumer.where)}.*{'' if group in ONLY_ARRAYS else word}"):
        consumer.call(change)


def test_the_table_of_the_docs_is_made_of_it():
    shown = table()
    assert shown.count("taken") > 90
    assert "some" not in shown.replace("someone", "")
    assert len(list(messages())) == len(REFUSED)


LENGTHS_AND_MORE = {  # what is not a length, a weight or a reset
    "sequence_length": [([3.0] * 12, "whole numbers"), (np.ones(12, bool), "whole numbers"), ([[3]] * 12, "whole"),
                        ([-1] * 12, "from 0 to 5"), ([6] * 12, "from 0 to 5"), (3, "whole numbers")],
    "weights": [(-np.ones((12, 5)), "0 or more, got -1"), (np.where(np.arange(5) > 3, -1, [[1]] * 12), "got -1"),
                (np.full((12, 5), np.nan), "weights holds nan"), ([1] * 12, "weights must have shape")],
    "reset": [([0.5] * 12, "True or False"), ([[True]] * 12, "one a sequence"), (["no"] * 12, "text"),
              ([2] * 12, "True")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "word"), [(key, *case) for key, cases in LENGTHS_AND_MORE.items() for case in cases]
)
def test_what_is_no_length_weight_or_reset_is_refused(key, value, word):
    with pytest.raises(ValueError, match=f"{key}.*{word}|{word}"):
        trained({"inputs": X, "targets": Y, key: value})


def test_a_late_negative_weight_is_found_before_the_first_step():
    weights = np.ones((12, 5))
    weights[11, 4] = -0.5  # in the last batch, whose sum is positive
    steps = []
    with pytest.raises(ValueError, match=r"fit: data: weights must be 0 or more, got -0\.5"):
        trained((X, Y, weights), callbacks=[steps.append])
    assert not steps


def test_weights_and_lengths_may_be_lists():
    weights, lengths = (RNG.random((12, 5)) < 0.7).astype(np.float32), RNG.integers(1, 6, 12)
    batch = {"inputs": X, "targets": Y, "weights": weights, "sequence_length": lengths}
    listed = {**batch, "weights": weights.tolist(), "sequence_length": lengths.tolist()}
    assert_trees_equal(trained(listed).params, trained(batch).params)


def test_labels_may_be_a_list():
    model, labels = Sequential(LSTM(4, return_sequences=False), Dense(3)), RNG.integers(0, 3, 12)
    options = {"model": model, "loss": losses.softmax_cross_entropy}
    params = model.init(0, 2)
    results = [
        fit(model, params, options["loss"], (X, given), optimizer=SGD(0.1), epochs=1).params
        for given in (labels, labels.tolist())
    ]
    assert_trees_equal(*results)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("mask", "weights"),
        ("weight", "weights"),
        ("lengths", "sequence_length"),
        ("sequence_lengths", "sequence_length"),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_is_named(key, near):
    with pytest.raises(ValueError, match=f"fit: data: unknown key '{key}'.*did you mean '{near}'"):
        trained({"inputs": X, "targets": Y, key: np.ones((12, 5))})


# --- padding --------------------------------------------------------------------------------------------------


def test_padding_takes_the_dtype_that_holds_all_sequences():
    padded, _ = pad_sequences([[1, 2, 3], [0.5, 0.25]])
    assert padded.tolist() == [[1, 2, 3], [0.5, 0.25, 0]]
    padded, _ = pad_sequences([np.array([1, 2], np.int16), np.array([70000])])
    assert padded.tolist() == [[1, 2], [70000, 0]]
    batches = BucketedBatches([[1, 2], [0.5]], [[1, 2], [0.5]], batch_size=2)
    assert batches(0)["inputs"].tolist() == [[0.5, 0], [1, 2]]


def test_padding_refuses_other_features():
    with pytest.raises(ValueError, match=r"pad_sequences: .*sequence 1 must be \[time, 3\] .*got shape \(4, 1\)"):
        pad_sequences([np.ones((2, 3)), np.ones((4, 1))])


# --- models that read time in another way ---------------------------------------------------------------------


def test_a_time_major_model_predicts_along_its_own_axis():
    model = Sequential(LSTM(4, time_major=True), Dense(1))
    found = predict(model, PARAMS, X.swapaxes(0, 1), batch_size=5)
    assert_close(found, predict(MODEL, PARAMS, X).swapaxes(0, 1), 1e-6)
    last = Sequential(LSTM(4, time_major=True, return_sequences=False), Dense(1))
    assert predict(last, PARAMS, X.swapaxes(0, 1), batch_size=5).shape == (12, 1)


def test_arrays_for_a_time_major_model_are_refused_by_fit():
    model = Sequential(LSTM(4, time_major=True), Dense(1))
    with pytest.raises(ValueError, match="fit: the model has time_major=True"):
        trained((X.swapaxes(0, 1), Y.swapaxes(0, 1)), model=model)
    batches = lambda step: (X.swapaxes(0, 1)[:, :5], Y.swapaxes(0, 1)[:, :5])  # noqa: E731
    found = trained(batches, model=model, steps_per_epoch=2).params
    wanted = trained(lambda step: (X[:5], Y[:5]), steps_per_epoch=2).params
    assert_trees_close(found, wanted, 1e-5)


@pytest.mark.parametrize("last_only", [False, True], ids=["every step", "last step"])
def test_batches_for_a_time_major_model_have_their_sequences_on_the_second_axis(last_only):
    """Lengths, and targets of the last step alone; the history counts sequences, not time steps."""
    lengths, targets = np.array([5, 1, 3, 2, 5, 4, 5]), Y[:7, 0] if last_only else Y[:7]
    parts = [slice(0, 5), slice(5, 7)]

    def run(time_major):
        swap = (lambda a: a.swapaxes(0, 1)) if time_major else (lambda a: a)
        model = Sequential(LSTM(4, time_major=time_major, return_sequences=not last_only), Dense(1))
        data = lambda step: {  # noqa: E731
            "inputs": swap(X[parts[step % 2]]),
            "targets": targets[parts[step % 2]] if last_only else swap(targets[parts[step % 2]]),
            "sequence_length": lengths[parts[step % 2]],
        }
        return trained(data, model=model, steps_per_epoch=2)

    found, wanted = run(True), run(False)
    assert_trees_close(found.params, wanted.params, 1e-6)
    assert_close(found.history["loss"], wanted.history["loss"], 1e-6)


def test_layers_do_not_disagree_about_the_first_axis():
    with pytest.raises(ValueError, match="Sequential: either all recurrent layers must have time_major=True, or none"):
        Sequential(LSTM(4, time_major=True), LSTM(4))


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (LSTM(4, reverse=True), "runs backwards"),
        (Bidirectional(LSTMCell(2)), "runs backwards"),
        (LSTM(4, time_major=True), "time_major=True"),
        (LSTM(4, return_sequences=False), "return_sequences=False"),
    ],
    ids=["reverse", "both ways", "time-major", "last step"],
)
def test_generation_and_truncation_refuse_a_model_that_cannot_be_read_in_pieces(layer, word):
    model = Sequential(layer, Dense(2))
    params = model.init(0, 2)
    with pytest.raises(ValueError, match=f"generate .*{word}"):
        generate(model, params, X, 3)
    with pytest.raises(ValueError, match=f"fit: tbptt .*{word}"):
        fit(model, params, losses.mse, (X, X), optimizer=SGD(0.1), epochs=1, tbptt=tbptt(2))


# --- other sources --------------------------------------------------------------------------------------------


class Loader:
    """As a DataLoader: each iterator starts again."""

    def __len__(self):
        return 2

    def __iter__(self):
        yield X[:6], Y[:6]
        yield X[6:], Y[6:]


def test_what_can_be_iterated_again_is():
    wanted = trained(lambda step: (X[:6], Y[:6]) if step % 2 == 0 else (X[6:], Y[6:]), steps_per_epoch=2)
    assert_trees_equal(trained(Loader()).params, wanted.params)
    history = trained(Loader(), validation_data=Loader()).history["val_loss"]
    assert_close(history, trained(Loader(), validation_data=(X, Y)).history["val_loss"], 1e-6)


def test_validation_data_that_end_after_one_epoch_are_refused():
    with pytest.raises(ValueError, match="fit: validation_data is a one-shot iterator"):
        trained(validation_data=WithLength(iter(Loader())))
    with pytest.raises(ValueError, match="fit: validation_data must be arrays, or have a length"):
        trained(validation_data=lambda step: (X, Y))


class WithLength:
    """An iterator with a length."""

    def __init__(self, iterator):
        self.iterator = iterator

    def __len__(self):
        return 2

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.iterator)


def test_weights_of_0_everywhere_are_refused_before_training():
    nothing = {"inputs": X, "targets": Y, "weights": np.zeros((12, 5))}
    with pytest.raises(ValueError, match="fit: data: all weights are 0"):
        trained(nothing)
    with pytest.raises(ValueError, match="fit: validation_data: all weights are 0"):
        trained(validation_data=nothing)


# --- numbers that are reported --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool, np.float32, np.float64])
def test_baselines_are_computed_in_float64_whatever_the_targets_are(dtype):
    targets = (RNG.random((12, 5, 1)) < 0.4).astype(dtype)
    found = trained((X, targets)).baselines["mean"]
    assert found == pytest.approx(np.var(targets.astype(np.float64)), rel=1e-12)


def test_what_is_reported_is_summed_in_float64():
    """One loss of 1e8 and 199 of 1: a float32 sum loses the ones, and the mean is off by 1e-6 of it."""
    model = Sequential(Dense(1, initializer="zeros"))
    inputs = np.zeros((200, 1, 1), np.float32)
    targets = np.ones((200, 1, 1), np.float32)
    targets[17] = 1e4
    wanted = (1e8 + 199) / 200
    result = fit(
        model, model.init(0, 1), losses.mse, (inputs, targets), validation_data=(inputs, targets), batch_size=1,
        optimizer=SGD(1e-30), clip_norm=1.0, epochs=1,
    )  # fmt: skip
    assert result.history["loss"] == [pytest.approx(wanted, rel=1e-12)]
    assert result.history["val_loss"] == [pytest.approx(wanted, rel=1e-12)]
    assert result.baselines["persistence"] == pytest.approx(wanted, rel=1e-12)
    assert float(np.float32(1e8) + np.float32(1)) == 1e8  # what would be lost


def test_a_loss_of_whole_numbers_is_refused():
    with pytest.raises(ValueError, match="mse: outputs must be floating, got int64"):
        losses.mse(np.ones((2, 3, 1), np.int64), np.zeros((2, 3, 1)))


# --- arguments in another place or form -----------------------------------------------------------------------


def test_losses_and_optimizers_have_names():
    by_name = trained(loss="mse", optimizer="adam").params
    assert_trees_equal(by_name, trained(loss=losses.mse, optimizer=Adam()).params)
    with pytest.raises(ValueError, match="loss: unknown name 'binary_crossentropy'"):
        trained(loss="binary_crossentropy")
    with pytest.raises(ValueError, match="optimizer: wanted an object such as Adam"):
        trained(optimizer="rmsprop")
    with pytest.raises(ValueError, match="optimizer: wanted an object such as Adam"):
        trained(optimizer=Adam)


def test_arguments_in_the_wrong_place_are_named():
    with pytest.raises(ValueError, match=r"fit: wanted fit\(model, params, ...\), got the parameters"):
        fit(PARAMS, MODEL, losses.mse, (X, Y), optimizer=SGD(0.1), epochs=1)
    with pytest.raises(ValueError, match="RNN: cell must be a cell such as LSTMCell"):
        RNN(LSTM(4))
    with pytest.raises(ValueError, match="RNN: cell must be a cell such as LSTMCell"):
        RNN(LSTMCell)


def test_float16_is_refused_before_it_gives_nan():
    with pytest.raises(ValueError, match="fit: params are float16"):
        fit(MODEL, MODEL.init(0, 2, np.float16), losses.mse, (X, Y), optimizer=Adam(), epochs=1)


def test_as_array_names_where_it_is_called_from():
    with pytest.raises(ValueError, match=r"^here: wanted numbers, got dtype <U1: text"):
        as_array(["a", "b"], "here")


def test_inputs_of_none_and_a_backprop_of_another_type_are_named():
    with pytest.raises(ValueError, match=r"^fit: data: inputs: wanted numbers"):
        trained((None, Y))
    with pytest.raises(ValueError, match=r"LSTM: backprop must be one of"):
        LSTM(4, backprop=["fast"])


def test_an_old_word_set_afterwards_means_the_fast_pass(monkeypatch):
    from minilstm.fast import lstm as fast_lstm

    calls, original = [], fast_lstm.fast_sequence
    monkeypatch.setattr(fast_lstm, "fast_sequence", lambda *a, **k: calls.append(1) or original(*a, **k))
    layer = LSTM(4)
    layer.backprop = "bptt"
    layer.apply(PARAMS["rnn"], X)
    assert calls
