"""Early stopping, and averages of the parameters: what is returned, what is saved, how it resumes."""

import os
import signal

import numpy as np
import pytest
from helpers import assert_close, assert_trees_close, assert_trees_equal

from minilstm import (
    LSTM,
    SGD,
    Adam,
    CheckpointError,
    Dense,
    Dropout,
    RMSProp,
    Sequential,
    ema_update,
    fit,
    load_checkpoint,
    losses,
    tensorbundle,
)
from minilstm.params import flatten_names, tree_map

RNG = np.random.default_rng(6)
INPUTS = RNG.normal(size=(8, 5, 1))
TARGETS = np.cumsum(INPUTS, axis=1) * 0.3
VALIDATION = (INPUTS[:3] + 0.5, TARGETS[:3] * -1)  # what gets worse while training goes well
MODEL = Sequential(LSTM(4), Dropout(0.3), Dense(1))
PARAMS = MODEL.init(0, 1, np.float64)


def run(directory=None, **options):
    options = {"optimizer": Adam(0.03), "epochs": 12, "batch_size": 4, "validation_data": VALIDATION, **options}
    return fit(MODEL, PARAMS, losses.mse, (INPUTS, TARGETS), checkpoint_dir=directory, **options)


class Signed(SGD):
    """Its rate may be negative."""

    def rate(self, step):
        return self.learning_rate(step)


class Wave:
    """A rate by the epoch (of two steps): its sign makes the validation loss fall, rise, fall and rise again."""

    def __init__(self, *signs):
        self.signs = signs

    def __call__(self, step):
        return 0.1 * self.signs[min(step // 2, len(self.signs) - 1)]


def wave(*signs, **options):
    """A run on the validation data itself, uphill where a sign is negative."""
    data = {"inputs": INPUTS, "targets": TARGETS}
    history = []
    model = Sequential(LSTM(4), Dense(1))
    options = {"optimizer": Signed(Wave(*signs)), "batch_size": 4, "validation_data": data, **options}
    keep = [lambda result: history.append(result.params)]
    return fit(model, PARAMS, losses.mse, data, epochs=len(signs), callbacks=keep, **options), history


# --- early stopping -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_a_run_ends_after_so_many_epochs_without_a_lower_loss(patience):
    result, seen = wave(1, 1, 1, -1, -1, -1, -1, -1, early_stopping=patience)
    values = result.history["val_loss"]
    assert len(values) == 3 + patience
    assert result.step == 2 * len(values)
    assert int(np.argmin(values)) == 2
    assert_trees_equal(result.params, seen[2])  # of the best epoch
    assert np.abs(seen[-1]["dense"]["kernel"] - result.params["dense"]["kernel"]).max() > 1e-3
    assert result.opt_state.step == result.step


def test_a_lower_loss_starts_the_count_anew():
    result, seen = wave(1, 1, -1, 1, 1, 1, -1, -1, -1, early_stopping=2)
    values = result.history["val_loss"]
    assert values[2] > values[1] > values[4]  # it got worse once, for one epoch
    assert len(values) == 8
    assert_trees_equal(result.params, seen[int(np.argmin(values))])


def test_without_it_the_run_goes_to_its_end_and_returns_the_last_parameters():
    result, seen = wave(1, -1, -1, -1)
    assert len(result.history["val_loss"]) == 4
    assert_trees_equal(result.params, seen[3])


def test_a_run_that_is_over_before_it_returns_the_best_parameters_too():
    result, seen = wave(1, 1, -1, early_stopping=5)
    assert_trees_equal(result.params, seen[1])
    assert np.abs(seen[2]["dense"]["kernel"] - seen[1]["dense"]["kernel"]).max() > 1e-4


def test_a_loss_that_is_not_a_number_is_never_the_best():
    model, seen, calls = Sequential(LSTM(4), Dense(1)), [], []

    def loss_fn(params, batch, state, rng):
        value = losses.mse(model(params, batch[0]), batch[1])
        if rng is None:  # validation
            calls.append(1)
            return value * (np.nan if len(calls) == 3 else 1.0), state
        return value, state

    result = fit(
        params=PARAMS, data=(INPUTS, TARGETS), loss_fn=loss_fn, optimizer=SGD(0.05), epochs=6, batch_size=8,
        validation_data=(INPUTS, TARGETS), early_stopping=2, callbacks=[lambda r: seen.append(r.params)],
    )  # fmt: skip
    assert np.isnan(result.history["val_loss"]).tolist() == [False, False, True, False, False, False]
    assert_trees_equal(result.params, seen[5])


STOPPING = {
    "early_stopping": 3, "epochs": 30, "ema_decay": 0.5, "validation_data": (INPUTS, TARGETS),
    "optimizer": Signed(Wave(1, 1, 1, -1)),
}  # fmt: skip


@pytest.mark.parametrize("epochs", [1, 3, 4, 5, 6])
def test_a_resumed_run_keeps_counting_and_keeps_the_best(epochs, run_dir):
    whole = run(**STOPPING)
    best = 1 + int(np.argmin(whole.history["val_loss"]))
    assert (best, len(whole.history["val_loss"])) == (3, 6)
    first = run(run_dir, **{**STOPPING, "epochs": epochs})
    rest = run(run_dir, resume=True, **STOPPING)
    assert_trees_equal(rest._replace(baselines={}), whole._replace(baselines={}))
    assert rest.history == whole.history
    if epochs >= best:  # the best parameters are of before the interruption: they come from the checkpoint
        assert_trees_equal(first.params, rest.params)
    again = run(run_dir, resume=True, **STOPPING)
    assert_trees_equal(again.params, whole.params)
    assert again.step == whole.step


@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_patience_that_makes_no_sense_is_refused(value):
    with pytest.raises(ValueError, match=f"fit: early_stopping must be a positive whole number, got {value}"):
        run(early_stopping=value)


def test_early_stopping_needs_validation_data():
    with pytest.raises(ValueError, match="fit: early_stopping needs validation_data"):
        run(early_stopping=2, validation_data=None)


# --- averages -------------------------------------------------------------------------------------------------


class Kept(SGD):
    """Plain gradient descent that keeps the parameters after every update."""

    def __init__(self, rate):
        super().__init__(rate)
        self.seen = []

    def update(self, params, grads, state):
        params, state = super().update(params, grads, state)
        self.seen.append(params)
        return params, state


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_the_average_is_the_recursion_over_all_updates(decay):
    optimizer = Kept(0.1)
    result = run(optimizer=optimizer, ema_decay=decay, epochs=3)
    wanted = PARAMS
    for params in optimizer.seen:
        wanted = tree_map(lambda a, w: decay * a + (1 - decay) * w, wanted, params)
    assert len(optimizer.seen) == result.step == 6
    assert_trees_close(result.averaged, wanted, 1e-14)
    assert_trees_equal(result.params, optimizer.seen[-1])
    if decay:
        assert np.abs(result.averaged["dense"]["kernel"] - result.params["dense"]["kernel"]).max() > 1e-3


def test_one_step_of_it():
    found = ema_update({"w": np.array([1.0, 2.0])}, {"w": np.array([3.0, -2.0])}, 0.75)
    assert_close(found["w"], [1.5, 1.0], 1e-15)
    with pytest.raises(ValueError, match=r"ema_update: averaged: w must have the shape .* \(2, 1\), got \(2,\)"):
        ema_update({"w": np.zeros(2)}, {"w": np.zeros((2, 1))}, 0.75)  # NumPy would make a matrix of them


def test_validation_is_of_the_average_and_the_best_too():
    result = run(ema_decay=0.8, early_stopping=50, epochs=3)
    for epochs in (1, 2, 3):
        tested = run(ema_decay=0.8, epochs=epochs).averaged
        wanted = losses.mse(MODEL(tested, VALIDATION[0]), VALIDATION[1])
        assert result.history["val_loss"][epochs - 1] == pytest.approx(wanted)
    best = int(np.argmin(result.history["val_loss"])) + 1
    assert_trees_equal(result.params, run(ema_decay=0.8, epochs=best).averaged)


def test_training_is_the_same_with_and_without_it():
    assert_trees_equal(run(ema_decay=0.9).params, run().params)
    assert run().averaged is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_stored_as_tensorflows_moving_average_and_comes_back(dtype, run_dir):
    params = MODEL.init(0, 1, dtype)
    result = fit(MODEL, params, losses.mse, (INPUTS, TARGETS), optimizer=Adam(0.03), epochs=2, ema_decay=0.9,
                 checkpoint_dir=run_dir)  # fmt: skip
    loaded = load_checkpoint(run_dir)
    assert_trees_equal(loaded.averaged, result.averaged)
    assert loaded.averaged["dense"]["bias"].dtype == dtype
    stored = tensorbundle.read(loaded.prefix)
    for name, value in flatten_names(result.averaged).items():
        assert_trees_equal(stored[f"{name}/ExponentialMovingAverage"], value)
    assert_trees_equal(loaded.params, result.params)
    assert not loaded.others.keys() - {name for name in loaded.others if name.startswith("minilstm/")}


@pytest.mark.parametrize("every", [None, 3])
def test_a_resumed_run_keeps_the_average(every, run_dir):
    whole = run(ema_decay=0.9, epochs=5)
    run(run_dir, ema_decay=0.9, epochs=2, checkpoint_every=every)
    rest = run(run_dir, ema_decay=0.9, epochs=5, checkpoint_every=every, resume=True)
    assert_trees_equal(rest.averaged, whole.averaged)
    assert rest.history == whole.history


@pytest.mark.parametrize("decay", [1.0, -0.1, 2, np.nan])
def test_a_decay_that_makes_no_sense_is_refused(decay, run_dir):
    with pytest.raises(ValueError, match=r"fit: ema_decay must be in \[0, 1\), got"):
        run(run_dir, ema_decay=decay)
    assert not run_dir.exists()


# --- another kind of run --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"ema_decay": 0.9}, "ema_decay: started with None, now 0.9"),
        ({"ema_decay": 0.9}, {}, "ema_decay: started with 0.9, now None"),
    ],
)
def test_a_run_resumes_only_with_the_average_it_was_started_with(first, second, message, run_dir):
    run(run_dir, epochs=1, **first)
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    with pytest.raises(CheckpointError, match=message):
        run(run_dir, epochs=2, resume=True, **second)
    assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == before


def test_an_average_that_is_named_begins_or_ends_on_resume(run_dir):
    run(run_dir / "begins", epochs=1)
    begun = run(run_dir / "begins", epochs=2, resume=True, ema_decay=0.9, resume_changes=["ema_decay"])
    assert_trees_equal(begun.params, run(epochs=2).params)
    run(run_dir / "ends", epochs=1, ema_decay=0.9)
    ended = run(run_dir / "ends", epochs=2, resume=True, resume_changes=["ema_decay"])
    assert ended.averaged is None
    assert_trees_equal(ended.params, run(epochs=2).params)


def test_validation_data_may_come_and_go(run_dir):
    """An epoch without validation has the loss nan, and is never the best."""
    whole = run(epochs=6)
    for epochs, validation in ((2, None), (4, VALIDATION), (5, None), (6, VALIDATION)):
        result = run(run_dir, epochs=epochs, resume=True, validation_data=validation)
    wanted = np.array(whole.history["val_loss"])
    wanted[[0, 1, 4]] = np.nan
    np.testing.assert_array_equal(result.history["val_loss"], wanted)
    assert result.history["loss"] == whole.history["loss"]
    assert_trees_equal(result.params, whole.params)


def test_early_stopping_that_begins_on_resume_counts_from_there(run_dir):
    """The parameters of earlier epochs were not kept, so none of them can be the best."""
    options = {"optimizer": Signed(Wave(1, 1, 1, -1, -1, 1, -1)), "validation_data": (INPUTS, TARGETS)}
    run(run_dir, epochs=5, **options)
    result = run(run_dir, epochs=30, resume=True, early_stopping=2, **options)
    values = result.history["val_loss"]
    assert len(values) == 8
    assert int(np.argmin(values)) == 2
    assert int(np.argmin(values[5:])) == 0
    assert_trees_equal(result.params, run(epochs=6, **options).params)
    again = run(run_dir, epochs=30, resume=True, early_stopping=3, **options)
    assert len(again.history["val_loss"]) == 9
    assert_trees_equal(again.params, result.params)


# --- what is in the file once a run has ended -----------------------------------------------------------------

ENDS = {
    "by early stopping": {},
    "by its epochs": {"epochs": 5},
    "by a callback": {"callbacks": [lambda result: result.step == 10]},
    "by a callback, saved by steps": {"callbacks": [lambda result: result.step == 10], "checkpoint_every": 4},
}


@pytest.mark.parametrize("optimizer", [Adam(0.03), SGD(0.1), RMSProp(0.01, centered=True)], ids=["Adam", "SGD", "RMS"])
@pytest.mark.parametrize("averaged", [None, 0.5])
@pytest.mark.parametrize("end", ENDS)
def test_a_run_that_has_ended_opens_with_what_fit_returned_and_can_go_on(end, averaged, optimizer, run_dir):
    options = {**STOPPING, "optimizer": optimizer, "validation_data": VALIDATION, "ema_decay": averaged}
    result = run(run_dir, **{**options, **ENDS[end]})
    loaded = load_checkpoint(run_dir)
    assert_trees_equal(loaded.params, result.params)
    assert loaded.step == result.step
    last = run(**{**options, **ENDS[end], "early_stopping": None, "epochs": len(result.history["loss"])})
    assert np.abs(result.params["dense"]["kernel"] - last.params["dense"]["kernel"]).max() > 1e-6
    assert loaded.opt_state is None
    assert "params are the best that early stopping found" in loaded.notes[0]
    if averaged:
        assert_trees_equal(loaded.averaged, result.averaged)
    longer = {**options, "early_stopping": 9, "epochs": 14}
    rest = run(run_dir, resume=True, **longer)
    whole = run(**longer)
    assert_trees_equal(rest._replace(baselines={}), whole._replace(baselines={}))


def test_what_is_in_the_file_follows_the_call(run_dir):
    """A run that has ended has nothing to train, but with other patience fit returns other parameters."""
    options = {**STOPPING, "ema_decay": None, "validation_data": VALIDATION, "epochs": 5}
    run(run_dir, **options)
    last = run(run_dir, resume=True, **{**options, "early_stopping": None})
    assert_trees_equal(load_checkpoint(run_dir).params, last.params)
    assert load_checkpoint(run_dir).notes == ()


@pytest.mark.parametrize("end", ["killed", "signalled"])
def test_a_run_that_was_stopped_opens_at_its_last_step(end, run_dir):
    class Stop(Exception):
        pass

    def callback(result):
        if result.step == 10:
            if end == "killed":
                raise Stop
            os.kill(os.getpid(), signal.SIGTERM)

    seen = []
    options = {**STOPPING, "ema_decay": None, "validation_data": VALIDATION, "early_stopping": 9}
    options["optimizer"] = Adam(0.03)
    with pytest.raises(Stop if end == "killed" else SystemExit):
        run(run_dir, callbacks=[lambda result: seen.append(result.params), callback], **options)
    loaded = load_checkpoint(run_dir)
    assert_trees_equal(loaded.params, seen[-1])
    assert loaded.opt_state.step == 10
    assert_trees_equal(run(run_dir, resume=True, **options), run(**options))


def test_what_a_callback_does_with_the_history_does_not_reach_the_run():
    def spoil(result):
        result.history.clear()
        result.baselines.clear()

    options = {"optimizer": Adam(0.01), "epochs": 3, "batch_size": 4}
    plain, spoiled = (
        fit(MODEL, PARAMS, losses.mse, (INPUTS, TARGETS), callbacks=callbacks, **options) for callbacks in ([], [spoil])
    )
    assert spoiled.history == plain.history
    assert spoiled.baselines == plain.baselines
