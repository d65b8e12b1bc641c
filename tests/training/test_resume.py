"""fit and its directory: what it writes, how it resumes, and what it never overwrites."""

import csv
from typing import NamedTuple

import numpy as np
import pytest
from helpers import assert_trees_equal

from minilstm import (
    LSTM,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    CheckpointError,
    Dense,
    Dropout,
    Momentum,
    RMSProp,
    Sequential,
    fit,
    latest_checkpoint,
    load_checkpoint,
    losses,
    tbptt,
)
from minilstm.optimizers import Optimizer
from minilstm.params import tree_leaves, tree_map

RNG = np.random.default_rng(2)
INPUTS = RNG.normal(size=(10, 6, 1)).astype(np.float32)
TARGETS = np.cumsum(INPUTS, axis=1) * np.float32(0.3)
MODEL = Sequential(LSTM(4), Dropout(0.5), Dense(1))
PARAMS = MODEL.init(0, 1)
OPTIMIZERS = [
    Adam(0.01), AdamW(0.01), SGD(0.1), Momentum(0.05, 0.9), Momentum(0.05, 0.9, use_nesterov=True), Adagrad(0.1),
    RMSProp(0.01, momentum=0.5), RMSProp(0.01, centered=True), SGD(lambda step: 0.1 / (1 + step)),
]  # fmt: skip


def run(directory=None, data=(INPUTS, TARGETS), **options):
    options = {"optimizer": Adam(0.01), "epochs": 4, "batch_size": 4, **options}  # three steps an epoch
    return fit(MODEL, PARAMS, losses.mse, data, checkpoint_dir=directory, **options)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


class Killed(Exception):
    pass


def killed_at(step):
    """A callable source of the batches above that dies before a step."""

    def data(s):
        if s == step:
            raise Killed
        return {"inputs": np.roll(INPUTS, s, axis=0)[:4], "targets": np.roll(TARGETS, s, axis=0)[:4]}

    return data


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_a_run_in_two_parts_is_the_run_in_one(optimizer, run_dir):
    whole = run(optimizer=optimizer)
    run(run_dir, optimizer=optimizer, epochs=2)
    rest = run(run_dir, optimizer=optimizer, resume=True)
    assert_trees_equal(rest.params, whole.params)
    assert_trees_equal(rest.opt_state, whole.opt_state)
    assert (rest.step, rest.history) == (whole.step, whole.history)


class OwnState(NamedTuple):
    step: int
    velocity: dict
    by_layer: dict
    total: np.ndarray
    count: int
    largest: float
    last: np.float32
    is_new: bool


class Own(Optimizer):
    """An optimizer as a caller may write it, with all kinds of things in its state."""

    def __init__(self):
        super().__init__(0.05)

    def init(self, params):
        zeros = {name: np.zeros(2) for name in ("second", "first")}
        return OwnState(0, tree_map(np.zeros_like, params), zeros, np.zeros((2, 1)), 3, 0.0, np.float32(0), True)

    def update(self, params, grads, state):
        velocity = tree_map(lambda v, g: np.float32(0.9) * v + g, state.velocity, grads)
        largest = max(float(np.abs(g).max()) for g in tree_leaves(grads))
        pace = np.float32(self.learning_rate / (1 + state.count + state.largest + state.total.sum() + state.last))
        by_layer = {name: value + state.count for name, value in state.by_layer.items()}
        new = tree_map(lambda w, v: w - pace * v, params, velocity)
        last, total = np.float32(by_layer["first"][0] / 7), state.total + largest
        return new, OwnState(state.step + 1, velocity, by_layer, total, state.count + 2, largest, last, False)


@pytest.mark.parametrize("early_stopping", [None, 2])
def test_an_optimizer_of_ones_own_goes_on_bit_for_bit(early_stopping, run_dir):
    """Also after the end of a run with early stopping, whose checkpoint has the best parameters under their names."""
    options = {"optimizer": Own(), "validation_data": (INPUTS, TARGETS), "early_stopping": early_stopping}
    whole = run(epochs=4, **options)
    run(run_dir, epochs=2, **options)
    rest = run(run_dir, epochs=4, resume=True, **options)
    assert_trees_equal(rest.params, whole.params)
    assert_trees_equal(rest.opt_state, whole.opt_state)
    assert [type(value) for value in rest.opt_state] == [type(value) for value in whole.opt_state]
    assert list(rest.opt_state.by_layer) == ["second", "first"]
    assert (rest.step, rest.history) == (whole.step, whole.history)


class OneSlot(NamedTuple):
    step: int
    slot: object


class Odd(Optimizer):
    """One whose state is `state`, at the start and after every update."""

    def __init__(self, state, answer=None):
        super().__init__(0.1)
        self.state, self.answer = state, answer

    def init(self, params):
        return self.state

    def update(self, params, grads, state):
        return (params, state) if self.answer is None else self.answer


ODD_STATES = [None, (0,), {"step": 0}, OneSlot(0, [1.0]), OneSlot(0, "no"), OneSlot(0, {"a": {1}})]


@pytest.mark.parametrize("state", ODD_STATES)
def test_a_state_that_cannot_be_saved_is_refused_before_the_first_step(state, run_dir):
    with pytest.raises(ValueError, match="fit: optimizer: to be saved in checkpoint_dir, its state must be"):
        run(run_dir, optimizer=Odd(state))
    assert not run_dir.exists() or contents(run_dir) == {}
    assert run(optimizer=Odd(state)).step == 12  # without a folder it may be anything


def test_a_slot_that_is_not_there_is_not_there_after_a_resume(run_dir):
    run(run_dir, optimizer=Odd(OneSlot(0, None)), epochs=1)
    assert run(run_dir, optimizer=Odd(OneSlot(0, None)), resume=True).opt_state.slot is None


class Lazy(Optimizer):
    """Momentum whose slots are made in the first update, as some write it."""

    def __init__(self, first):
        super().__init__(0.05)
        self.first = first

    def init(self, params):
        return OneSlot(0, self.first)

    def update(self, params, grads, state):
        velocity = grads if state.step == 0 else tree_map(lambda v, g: np.float32(0.9) * v + g, state.slot, grads)
        return tree_map(lambda w, v: w - np.float32(0.05) * v, params, velocity), OneSlot(state.step + 1, velocity)


@pytest.mark.parametrize("first", [None, 0, {}])
def test_slots_that_are_made_later_are_kept_too(first, run_dir):
    whole = run(optimizer=Lazy(first))
    run(run_dir, optimizer=Lazy(first), epochs=2)
    rest = run(run_dir, optimizer=Lazy(first), resume=True)
    assert_trees_equal(rest.params, whole.params)
    assert_trees_equal(rest.opt_state, whole.opt_state)


class DiesAfterThree(SGD):
    def update(self, params, grads, state):
        if state.step == 3:
            raise Killed
        return super().update(params, grads, state)


@pytest.mark.parametrize("names", [["c", "a", "b"], [None] * 12], ids=["names", "counted"])
def test_every_layer_gets_its_own_carried_state_back(names, run_dir):
    """JSON sorts the keys of an object: a comes before c, and rnn_10 before rnn_2."""
    model = Sequential(*(LSTM(2, name=name) for name in names), Dense(1))

    def train(optimizer, **options):
        options = {"epochs": 1, "batch_size": 10, "tbptt": tbptt(1), **options}  # six windows
        return fit(model, model.init(0, 1), losses.mse, (INPUTS, TARGETS), optimizer=optimizer, **options)

    whole, saved = train(SGD(0.5)), {"checkpoint_dir": run_dir, "checkpoint_every": 1}
    with pytest.raises(Killed):
        train(DiesAfterThree(0.5), **saved)
    rest = train(SGD(0.5), resume=True, **saved)
    assert_trees_equal(rest.params, whole.params)
    assert rest.history == whole.history


@pytest.mark.parametrize("answer", [{"rnn": 1, "dense": 2}, (1, 2, 3), [1, 2]])
def test_an_update_that_does_not_return_a_pair_is_refused(answer):
    with pytest.raises(ValueError, match=r"fit: optimizer: update must return \(params, state\), got"):
        run(optimizer=Odd(None, answer))


@pytest.mark.parametrize("dies", [4, 5, 7, 8])
def test_a_run_killed_within_an_epoch_goes_on_bit_for_bit(dies, run_dir):
    options = {"steps_per_epoch": 3, "validation_data": (INPUTS, TARGETS)}
    whole = run(data=killed_at(None), **options)
    with pytest.raises(Killed):
        run(run_dir, data=killed_at(dies), checkpoint_every=2, **options)
    assert load_checkpoint(run_dir).step == dies // 2 * 2
    rest = run(run_dir, data=killed_at(None), checkpoint_every=2, resume=True, **options)
    assert_trees_equal(rest.params, whole.params)
    assert_trees_equal(rest.opt_state, whole.opt_state)
    assert (rest.step, rest.history) == (whole.step, whole.history)


@pytest.mark.parametrize("dies", [2, 5, 7])
def test_arrays_are_shuffled_alike_when_a_run_goes_on_within_an_epoch(dies, run_dir):
    whole, steps = run(), []

    class Counting(Adam):
        def update(self, params, grads, state):
            if len(steps) == dies:
                raise Killed
            steps.append(1)
            return super().update(params, grads, state)

    with pytest.raises(Killed):
        run(run_dir, optimizer=Counting(0.01), checkpoint_every=1)
    rest = run(run_dir, checkpoint_every=1, resume=True)
    assert_trees_equal(rest.params, whole.params)
    assert rest.history == whole.history


def test_an_iterable_is_consumed_again_up_to_the_place(run_dir):
    batches = [killed_at(None)(step) for step in range(12)]

    class Again:
        def __iter__(self):
            return iter(batches)

    whole = run(data=Again(), steps_per_epoch=3)
    run(run_dir, data=Again(), steps_per_epoch=3, epochs=2)
    rest = run(run_dir, data=Again(), steps_per_epoch=3, resume=True)
    assert_trees_equal(rest.params, whole.params)


def test_a_one_shot_generator_cannot_be_resumed(run_dir):
    with pytest.raises(ValueError, match="one-shot"):
        run(run_dir, data=iter([killed_at(None)(0)] * 12), steps_per_epoch=3, resume=True)
    assert not run_dir.exists()


def test_resuming_ignores_the_params_passed_in(run_dir):
    run(run_dir, epochs=2)
    rest = fit(MODEL, MODEL.init(99, 1), losses.mse, (INPUTS, TARGETS), optimizer=Adam(0.01), epochs=4, batch_size=4,
               checkpoint_dir=run_dir, resume=True)  # fmt: skip
    assert_trees_equal(rest.params, run().params)


def test_resuming_where_nothing_is_starts_from_the_beginning(run_dir):
    assert_trees_equal(run(run_dir, resume=True).params, run().params)


def test_resuming_a_finished_run_changes_nothing(run_dir):
    result = run(run_dir)
    before = contents(run_dir)
    again = run(run_dir, resume=True)
    assert_trees_equal(again, result)
    assert contents(run_dir) == before


def test_resuming_after_a_callback_stopped_the_run_goes_on(run_dir):
    run(run_dir, callbacks=[lambda r: r.step == 6])
    assert load_checkpoint(run_dir).step == 6
    assert_trees_equal(run(run_dir, resume=True).params, run().params)


def test_a_directory_that_holds_a_run_is_refused(run_dir):
    run(run_dir, epochs=1)
    before = contents(run_dir)
    with pytest.raises(ValueError, match=r"fit: checkpoint_dir .*already holds a run; pass resume=True"):
        run(run_dir)
    assert contents(run_dir) == before


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (Adam(0.01), SGD(0.1), "AdamState"),
        (Adam(0.01), Momentum(0.1, 0.9), "AdamState.*MomentumState"),
        (SGD(0.1), Adam(0.01), "AdamState"),
        (RMSProp(0.1), RMSProp(0.1, centered=True), "RMSPropState.*CenteredRMSPropState"),
    ],
)
def test_resuming_with_another_optimizer_is_refused(first, second, message, run_dir):
    run(run_dir, epochs=1, optimizer=first)
    before = contents(run_dir)
    with pytest.raises(CheckpointError, match=message):
        run(run_dir, resume=True, optimizer=second)
    assert contents(run_dir) == before


def test_resuming_with_another_model_is_refused_with_everything_that_differs(run_dir):
    run(run_dir, epochs=1)
    before = contents(run_dir)
    other = Sequential(LSTM(5), Dense(1))
    with pytest.raises(CheckpointError) as caught:
        fit(other, other.init(0, 1), losses.mse, (INPUTS, TARGETS), optimizer=Adam(0.01), epochs=2,
            checkpoint_dir=run_dir, resume=True)  # fmt: skip
    for part in ("rnn/lstm_cell/kernel: wanted (6, 20), got (5, 16)", "dense/kernel: wanted (5, 1), got (4, 1)"):
        assert part in str(caught.value)
    assert contents(run_dir) == before


# --- what is written ------------------------------------------------------------------------------------------


def steps_saved(directory):
    return sorted(int(path.suffixes[0].partition("-")[2]) for path in directory.glob("model.ckpt-*.index"))


def test_a_checkpoint_is_saved_at_the_end_of_every_epoch(run_dir):
    result = run(run_dir, extra={"mean": 0.5})
    assert steps_saved(run_dir) == [3, 6, 9, 12]
    loaded = load_checkpoint(run_dir)
    assert_trees_equal(loaded.params, result.params)
    assert_trees_equal(loaded.opt_state, result.opt_state)
    assert loaded.extra == {"mean": 0.5}
    assert loaded.model.config() == MODEL.config()
    assert latest_checkpoint(run_dir) == str(run_dir / "model.ckpt-12")


def test_checkpoint_every_saves_every_so_many_steps_and_at_the_end(run_dir):
    run(run_dir, checkpoint_every=5, max_to_keep=None)
    assert steps_saved(run_dir) == [5, 10, 12]


def test_only_max_to_keep_checkpoints_stay(run_dir):
    run(run_dir, max_to_keep=2)
    assert steps_saved(run_dir) == [9, 12]


def test_history_csv_has_a_row_an_epoch_and_leads_on_after_a_resume(run_dir):
    run(run_dir, epochs=2, validation_data=(INPUTS, TARGETS))
    result = run(run_dir, validation_data=(INPUTS, TARGETS), resume=True)
    with open(run_dir / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "3"), ("2", "6"), ("3", "9"), ("4", "12")]
    for name, values in result.history.items():
        assert [float(row[name]) for row in rows] == values
    assert all(float(row["seconds"]) >= 0 for row in rows)


def test_rows_beyond_the_checkpoint_are_dropped_on_resume(run_dir):
    run(run_dir, epochs=2)
    with open(run_dir / "history.csv", "a") as file:
        file.write("3,9,0.5,0.5,0.001\n4,12,0.5")  # rows of epochs whose checkpoint never came, one of them torn
    run(run_dir, resume=True)
    with open(run_dir / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [float(row["loss"]) for row in rows] == run().history["loss"]


def test_timings_are_in_no_checkpoint(run_dir):
    run(run_dir / "a")
    run(run_dir / "b")
    a, b = contents(run_dir / "a"), contents(run_dir / "b")
    assert a.keys() == b.keys()
    differ = {name for name in a if a[name] != b[name] and name != "checkpoint"}
    assert differ <= {"history.csv"}


def test_a_loss_that_is_not_finite_leaves_what_is_saved_byte_for_byte(run_dir):
    def data(step):
        scale = np.float32(1e30) if step >= 4 else 1
        return {"inputs": INPUTS[:4], "targets": TARGETS[:4] * scale}

    with np.errstate(over="ignore"):
        run(run_dir, data=data, steps_per_epoch=3, epochs=1)
        before = contents(run_dir)
        with pytest.raises(FloatingPointError, match=r"loss is inf at step 4 \(epoch 2\).*are untouched"):
            run(run_dir, data=data, steps_per_epoch=3, resume=True)
    after = contents(run_dir)
    failed = {name for name in after if name.startswith("failed-4.")}  # what `minilstm replay` reads
    assert failed
    assert {name: after[name] for name in after.keys() - failed} == before
