"""fit: what it learns, what it is fed with, its seeds, and how it stops. Saving is in test_resume.py."""

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import assert_trees_close, assert_trees_equal

from minilstm import LSTM, SGD, Adam, Dense, Dropout, Embedding, Sequential, fit, losses, value_and_grad
from minilstm.params import tree_leaves, tree_map

RNG = np.random.default_rng(2)
INPUTS = RNG.normal(size=(10, 6, 1))
TARGETS = np.cumsum(INPUTS, axis=1) * 0.3
MODEL = Sequential(LSTM(4), Dense(1))
PARAMS = MODEL.init(0, 1, np.float64)


def run(data=(INPUTS, TARGETS), params=PARAMS, model=MODEL, loss=losses.mse, **options):
    options = {"optimizer": Adam(0.01), "epochs": 3, "batch_size": 4, **options}
    return fit(model, params, loss, data, **options)


def test_the_loss_goes_down_by_far():
    result = run(epochs=60)
    assert result.history["loss"][-1] < 0.1 * result.history["loss"][0]
    assert result.step == 60 * 3
    assert len(result.history["loss"]) == len(result.history["grad_norm"]) == 60
    assert result.opt_state.step == result.step


def test_one_full_batch_step_is_the_optimizers():
    result = run(optimizer=SGD(0.1), epochs=1, batch_size=10)
    loss, grads = value_and_grad(lambda p: losses.mse(MODEL(p, INPUTS), TARGETS))(PARAMS)
    assert_trees_close(result.params, tree_map(lambda w, g: w - np.float64(np.float32(0.1)) * g, PARAMS, grads), 1e-14)
    assert result.history["loss"] == [pytest.approx(loss, rel=1e-14)]
    norm = np.sqrt(sum(np.sum(g**2) for g in tree_leaves(grads)))
    assert result.history["grad_norm"] == [pytest.approx(norm, rel=1e-14)]


def test_the_params_passed_in_are_not_changed():
    kept = tree_map(np.copy, PARAMS)
    run()
    assert_trees_equal(PARAMS, kept)


def test_what_a_callback_is_shown_stays_as_it_was():
    """fit lets the optimizer write into its own state, but not into one that a callback has seen."""
    shown = []

    def callback(result):
        trees = (result.params, result.opt_state)
        shown.append((trees, tree_map(np.copy, trees)))

    run(epochs=4, callbacks=[callback])
    assert len(shown) == 4
    for found, kept in shown:
        assert_trees_equal(found, kept)


def test_the_optimizer_may_write_over_its_own_state():
    donated = []

    class Watched(Adam):
        def update(self, params, grads, state, donate=False):
            donated.append(donate)
            return super().update(params, grads, state, donate)

    result = run(optimizer=Watched(0.01), epochs=2, callbacks=[lambda result: None])
    assert donated == [False, True, True, False, True, True]  # three steps an epoch; others may hold the first
    assert_trees_equal(result.params, run(epochs=2).params)


def test_an_optimizer_need_not_know_of_donating():
    class Plain(Adam):
        def update(self, params, grads, state):
            return super().update(params, grads, state)

    assert_trees_equal(run(optimizer=Plain(0.01)).params, run().params)


def test_every_sequence_is_seen_once_an_epoch_in_an_order_that_changes():
    seen = []

    def loss_fn(params, batch, state, rng):
        seen.append(batch["inputs"][:, 0, 0].copy())
        return losses.mse(MODEL(params, batch["inputs"]), batch["targets"]), state

    data = {"inputs": INPUTS, "targets": TARGETS}
    fit(params=PARAMS, data=data, loss_fn=loss_fn, optimizer=SGD(0.1), epochs=2, batch_size=4)
    assert [len(batch) for batch in seen] == [4, 4, 2] * 2
    first, second = np.concatenate(seen[:3]), np.concatenate(seen[3:])
    assert sorted(first) == sorted(second) == sorted(INPUTS[:, 0, 0])
    assert (first != second).any()
    assert (first != INPUTS[:, 0, 0]).any()
    np.testing.assert_array_equal(first, INPUTS[np.random.default_rng([0, 1, 0]).permutation(10), 0, 0])
    np.testing.assert_array_equal(second, INPUTS[np.random.default_rng([0, 1, 1]).permutation(10), 0, 0])


def test_the_history_is_the_mean_over_sequences():
    result = run(optimizer=SGD(1e-12), epochs=1)  # three batches of 4, 4 and 2, and parameters that stay
    assert result.history["loss"] == [pytest.approx(losses.mse(MODEL(PARAMS, INPUTS), TARGETS), rel=1e-9)]


# --- what it is fed with --------------------------------------------------------------------------------------


def test_the_three_ways_to_write_a_batch_are_one():
    weights = np.ones((10, 6))
    result = run((INPUTS, TARGETS, weights))
    assert_trees_equal(run({"inputs": INPUTS, "targets": TARGETS, "weights": weights}).params, result.params)
    assert_trees_close(run((INPUTS, TARGETS)).params, result.params, 1e-12)
    assert_trees_close(run([INPUTS, TARGETS]).params, result.params, 1e-12)


def test_weights_mask_padding_exactly():
    padded = {"inputs": INPUTS.copy(), "targets": TARGETS.copy(), "weights": np.ones((10, 6))}
    padded["weights"][:, 4:] = 0
    wild = {**padded, "inputs": INPUTS.copy(), "targets": TARGETS.copy()}
    wild["inputs"][:, 4:] = 1e3
    wild["targets"][:, 4:] = -1e3
    result = run(padded)
    assert_trees_close(run(wild).params, result.params, 0)
    assert_trees_close(run((INPUTS[:, :4], TARGETS[:, :4])).params, result.params, 1e-12)


def test_sequence_length_reaches_the_layers():
    lengths = np.array([6, 3, 1, 2, 4, 5, 6, 2, 3, 1])
    model = Sequential(LSTM(4, return_sequences=False), Dense(1))
    data = {"inputs": INPUTS, "targets": TARGETS[:, 0], "sequence_length": lengths}
    wild = {**data, "inputs": INPUTS.copy()}
    for row, length in enumerate(lengths):
        wild["inputs"][row, length:] = 99
    result = run(data, model=model)
    assert_trees_equal(run(wild, model=model).params, result.params)
    full = run((INPUTS, TARGETS[:, 0]), model=model)
    assert np.abs(full.params["dense"]["kernel"] - result.params["dense"]["kernel"]).max() > 1e-4


def test_labels_and_an_embedding_train_on_whole_numbers():
    model = Sequential(Embedding(4, 3), LSTM(6), Dense(4))
    tokens = np.tile(np.arange(9) % 4, (8, 1))
    result = run((tokens[:, :-1], tokens[:, 1:]), model.init(0), model, losses.softmax_cross_entropy, epochs=60)
    assert result.history["loss"][0] > 1.2
    assert result.history["loss"][-1] < 0.3


def test_a_loss_function_of_ones_own_gets_batch_state_and_seed():
    seeds = []

    def loss_fn(params, batch, state, rng):
        seeds.append((state, rng))
        x, y = batch
        return losses.mse(MODEL(params, x), y) + losses.mse(MODEL(params, x[:, ::-1]), y), "state"

    result = fit(
        params=PARAMS, data=(INPUTS, TARGETS), loss_fn=loss_fn, optimizer=Adam(0.01), epochs=2, batch_size=10, seed=5
    )
    assert seeds == [(None, [5, 0, 0]), (None, [5, 0, 1])]
    assert result.history["loss"][1] < result.history["loss"][0]


def batches():
    return [{"inputs": INPUTS[k : k + 5], "targets": TARGETS[k : k + 5]} for k in (0, 5, 0, 5)]


class Again:
    """An iterable that starts from the beginning each time."""

    def __iter__(self):
        return iter(batches())


def test_a_callable_and_an_iterable_of_the_same_batches_train_the_same():
    options = {"epochs": 2, "steps_per_epoch": 2}
    result = run(lambda step: batches()[step], **options)
    assert result.step == 4
    assert_trees_equal(run(iter(batches()), **options).params, result.params)
    assert_trees_equal(run(Again(), **options).params, result.params)
    pairs = ((batch["inputs"], batch["targets"]) for batch in batches())
    assert_trees_equal(run(pairs, **options).params, result.params)


def test_a_list_of_batches_is_an_iterable():
    result = run(lambda step: batches()[step], epochs=2, steps_per_epoch=2)
    assert_trees_equal(run(batches(), epochs=2, steps_per_epoch=2).params, result.params)


def test_data_in_float64_trains_a_float32_model_in_float32():
    result = run(params=MODEL.init(0, 1))
    assert {leaf.dtype for leaf in tree_leaves(result.params)} == {np.dtype(np.float32)}
    assert {leaf.dtype for leaf in tree_leaves(result.opt_state.m)} == {np.dtype(np.float32)}


# --- seeds, validation, clipping, callbacks -------------------------------------------------------------------

DROPPING = Sequential(LSTM(4), Dropout(0.5), Dense(1))


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    first = run(model=DROPPING, seed=3)
    again = run(model=DROPPING, seed=3)
    assert_trees_equal(again.params, first.params)
    assert again.history == first.history
    assert run(model=DROPPING, seed=4).history != first.history


def test_the_seed_decides_dropout_and_order_alone_and_apart():
    whole = {"batch_size": 10, "epochs": 1}
    order_only = [run(seed=seed, optimizer=SGD(0.1), **whole).params for seed in (1, 2)]
    assert_trees_close(*order_only, 1e-14)  # one batch of all: another order, the same step
    dropped = [run(seed=seed, model=DROPPING, optimizer=SGD(0.1), **whole).params for seed in (1, 2)]
    assert np.abs(dropped[0]["dense"]["kernel"] - dropped[1]["dense"]["kernel"]).max() > 1e-4


def test_validation_is_the_loss_without_dropout_at_the_end_of_the_epoch():
    validation = {"inputs": INPUTS[:7] + 1, "targets": TARGETS[:7]}
    result = run(model=DROPPING, validation_data=validation)
    wanted = losses.mse(DROPPING(result.params, validation["inputs"]), validation["targets"])
    assert result.history["val_loss"][-1] == pytest.approx(wanted, rel=1e-12)
    assert len(result.history["val_loss"]) == 3
    assert_trees_equal(run(model=DROPPING).params, result.params)


def test_clipping_bounds_the_step_and_the_history_has_the_norm_before():
    free, bound = (run(optimizer=SGD(1.0), epochs=1, batch_size=10, clip_norm=clip) for clip in (None, 1e-3))
    assert bound.history["grad_norm"] == free.history["grad_norm"]
    steps = [
        np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(tree_leaves(r.params), tree_leaves(PARAMS), strict=True)))
        for r in (free, bound)
    ]
    assert steps[0] == pytest.approx(free.history["grad_norm"][0], rel=1e-9)
    assert steps[1] == pytest.approx(1e-3, rel=1e-9)


def test_callbacks_see_every_epoch_and_can_stop():
    seen = []
    result = run(epochs=9, callbacks=[lambda r: seen.append(r.step), lambda r: len(r.history["loss"]) == 2])
    assert seen == [3, 6]
    assert result.step == 6
    assert len(result.history["loss"]) == 2


def test_all_callbacks_are_called_also_in_the_epoch_that_ends_the_run():
    seen = []
    run(epochs=2, callbacks=[lambda r: True, lambda r: seen.append(r.step)])
    assert seen == [3]


# --- not finite -----------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run():
    with pytest.raises(FloatingPointError, match=r"fit: the loss is nan at step 0 \(epoch 1\).*learning_rate"):
        fit(params=PARAMS, data=(INPUTS, TARGETS), optimizer=SGD(0.1), epochs=1,
            loss_fn=lambda p, batch, state, rng: (losses.mse(MODEL(p, batch[0]), batch[1]) * np.nan, None))  # fmt: skip


def test_a_gradient_that_is_not_finite_stops_the_run():
    loss_fn = lambda params, batch, state, rng: (anp.sqrt(anp.sum(params["w"] ** 2)), None)  # noqa: E731
    message = "fit: the gradient of w is not finite at step 0"
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=message):
        fit(params={"w": np.zeros(2)}, data=(INPUTS,) * 2, optimizer=SGD(0.1), epochs=1, loss_fn=loss_fn)


# --- the bar --------------------------------------------------------------------------------------------------


def test_the_bar_shows_loss_and_speed_on_stderr(capsys):
    run(progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "9/9" in captured.err
    assert "loss" in captured.err
    assert "sequences/s" in captured.err


@pytest.mark.parametrize("progress", [False, None])
def test_nothing_is_printed_where_nobody_watches(progress, capsys):
    run(progress=progress)
    assert capsys.readouterr() == ("", "")
