"""What people give `fit` without meaning to: it is done right, or refused by name before work is lost."""

import os
import signal
from collections import namedtuple

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import assert_trees_equal

from minilstm import LSTM, SGD, Dense, Sequential, fit, load_checkpoint, save_checkpoint
from minilstm.data import pad_sequences
from minilstm.params import tree_leaves
from minilstm.training.interruption import Interruption
from minilstm.training.lock import RunLock

RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.normal(size=(6, 5, 2)), RNG.normal(size=(6, 5, 1))
MODEL = Sequential(LSTM(4), Dense(1))
PARAMS = MODEL.init(0, 2, np.float64)
DATA = {"inputs": INPUTS, "targets": TARGETS}


def run(data=DATA, **options):
    options = {"optimizer": "adam", "epochs": 1, "progress": False, **options}
    return fit(MODEL, PARAMS, "mse", data, **options)


# --- batches --------------------------------------------------------------------------------------------------


def test_a_callable_that_ends_does_not_end_an_epoch():
    batches = iter([DATA] * 7)
    with pytest.raises(ValueError, match="fit: data, batch of step 7: the callable has no batch for it"):
        run(lambda step: next(batches), epochs=4, steps_per_epoch=5)


def test_the_first_batch_is_read_once():
    batches = iter([DATA] * 7)
    assert run(lambda step: next(batches), steps_per_epoch=7).step == 7


class Lengths:
    """Batches of different lengths, with the keys in this order."""

    def __init__(self, *keys):
        self.keys = keys

    def __len__(self):
        return 2

    def __call__(self, step):
        time = 5 if step % 2 else 1
        batch = {"inputs": INPUTS[:, :time], "targets": TARGETS[:, :time] * (6 - time)}
        batch["sequence_length"] = np.full(6, time)
        return {key: batch[key] for key in self.keys}


def test_the_order_of_keys_does_not_weigh_batches():
    keys = ("inputs", "targets", "sequence_length")
    first, second = (run(data, validation_data=data).history for data in (Lengths(*keys), Lengths(*keys[::-1])))
    assert first == second


def test_a_named_tuple_is_read_by_its_names():
    model = Sequential(LSTM(4, return_sequences=False), Dense(1))
    lengths = np.array([5, 4, 3, 2, 1, 1])
    given = {"inputs": INPUTS, "targets": TARGETS[:, 0], "sequence_length": lengths}
    named = [namedtuple("Batch", given)(**given), namedtuple("Batch", "y lengths x")(TARGETS[:, 0], lengths, INPUTS)]
    results = [fit(model, PARAMS, "mse", data, optimizer="adam", epochs=2, seed=3) for data in (given, *named)]
    assert_trees_equal([result.params for result in results[1:]], [results[0].params] * 2)
    with pytest.raises(ValueError, match="fit: data: unknown key 'step'"):
        run(namedtuple("Batch", "inputs step")(INPUTS, TARGETS))


def test_the_arrays_of_a_file_are_data(tmp_path):
    np.savez(tmp_path / "data.npz", **DATA)
    with np.load(tmp_path / "data.npz") as data:
        assert_trees_equal(run(data).params, run().params)


@pytest.mark.parametrize("count", [2, 3])
def test_pairs_are_not_taken_for_inputs_and_targets(count):
    pairs = tuple((x, y) for x, y in zip(INPUTS[:count], TARGETS[:count], strict=True))
    with pytest.raises(ValueError, match=rf"fit: data: wanted \(inputs, targets\), got {count} tuples; if they"):
        run(pairs)


def test_an_attribute_of_data_does_not_carry_the_state():
    class Batches:
        num_steps = 1000

        def __len__(self):
            return 3

        def __call__(self, step):
            return INPUTS, TARGETS

    assert run(Batches()).history == run(lambda step: DATA, steps_per_epoch=3).history


def test_a_function_that_makes_a_generator_and_a_length_that_is_not_known_are_named():
    def batches():
        yield DATA

    class Endless:
        def __len__(self):
            raise TypeError("infinite")

        def __iter__(self):
            return batches()

    with pytest.raises(ValueError, match="fit: data: a callable must take the step and return its batch"):
        run(batches, steps_per_epoch=1)
    with pytest.raises(ValueError, match="fit: steps_per_epoch must be at least 1 for Endless data"):
        run(Endless())
    assert run(Endless(), steps_per_epoch=2).step == 2


def test_an_empty_list_does_not_make_labels_floats():
    padded, lengths = pad_sequences([[1, 2], [], [3]])
    assert padded.dtype.kind == "i"
    assert lengths.tolist() == [2, 0, 1]


@pytest.mark.parametrize("weights", [np.zeros((6, 5)), np.full((6, 5), -1.0), {"deep": np.ones((6, 2))}])
def test_the_keys_of_a_users_own_batches_mean_nothing(weights):
    seen = []

    def loss_fn(params, batch, state, rng):
        seen.append(set(batch))
        return anp.mean((MODEL(params, batch["inputs"]) - batch["targets"]) ** 2), state

    data = {**DATA, "weights": weights, "reset": np.ones(6, bool)}
    options = {"params": PARAMS, "optimizer": "adam", "epochs": 2, "progress": False}
    result = fit(data=data, validation_data=data, loss_fn=loss_fn, **options)
    assert result.step == 2
    assert np.isfinite([*result.history["loss"], *result.history["val_loss"]]).all()
    assert all(keys == {"inputs", "targets", "weights", "reset"} for keys in seen)


# --- callbacks and signals ------------------------------------------------------------------------------------


def test_a_callback_cannot_change_what_it_is_shown():
    def callback(result):
        result.params["dense"]["kernel"][:] = 0

    with pytest.raises(ValueError, match="read-only"):
        run(callbacks=[callback])
    assert all(leaf.flags.writeable for leaf in tree_leaves(run(callbacks=[lambda result: None]).params))


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) == interruption._note
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_that_is_not_pythons_stays(monkeypatch):
    handlers = {signal.SIGINT: None, signal.SIGTERM: signal.SIG_DFL}
    monkeypatch.setattr(signal, "getsignal", handlers.get)
    monkeypatch.setattr(signal, "signal", lambda number, handler: handlers.__setitem__(number, handler))
    with Interruption():
        assert handlers[signal.SIGINT] is None


def test_a_child_does_not_remove_the_lock_of_its_parent(tmp_path):
    lock = RunLock(str(tmp_path))
    with lock:
        child = os.fork()
        if child == 0:
            lock.__exit__()
            os._exit(0)
        os.waitpid(child, 0)
        assert os.path.exists(lock.path)
    assert not os.path.exists(lock.path)


# --- checkpoints ----------------------------------------------------------------------------------------------

W = np.ones((2, 1))


def fit_tree(params, run_dir, **options):
    options = {"data": (INPUTS, TARGETS), "optimizer": "adam", "progress": False, **options}
    loss_fn = lambda p, batch, state, rng: (sum(anp.sum(leaf**2) for leaf in tree_leaves(p)), state)  # noqa: E731
    return fit(params=params, loss_fn=loss_fn, checkpoint_dir=run_dir, **options)


@pytest.mark.parametrize("params", [
    {"projection": {"weights": W, "biases": W[0]}}, {"w:0": W}, {"my_cell": {"weights": W}},
    {"RNN": {"BasicLSTMCell": {"Linear": {"Matrix": W}}}}, {"a": {"b": {"c": W}}},
], ids=str)  # fmt: skip
def test_a_run_goes_on_whatever_its_parameters_are_called(params, tmp_path):
    fit_tree(params, tmp_path / "run", epochs=1)
    assert fit_tree(params, tmp_path / "run", epochs=3, resume=True).step == 3


@pytest.mark.parametrize("params", [
    {"net": {"Momentum": W, "w": W}, "Adam": W}, {"net/w": W}, {0: W}, {"global_step": W}, {"minilstm": {"w": W}},
    {"": W}, {"w\udce9": W}, {"w": W.astype(np.longdouble)},
], ids=str)  # fmt: skip
def test_names_that_a_checkpoint_does_not_give_back_are_refused_before_the_first_step(params, tmp_path):
    with pytest.raises(ValueError, match="fit: params: a checkpoint cannot hold their names or dtypes: "):
        fit_tree(params, tmp_path / "run", epochs=1)
    assert not (tmp_path / "run").exists()


def test_an_array_is_not_saved_under_a_name_that_is_taken(tmp_path):
    for name in ("extra", "model", "training"):
        with pytest.raises(ValueError, match=rf"save_checkpoint: own: the name '{name}' is taken"):
            save_checkpoint(tmp_path / "m", PARAMS, own={name: np.zeros(3)})
    assert not list(tmp_path.iterdir())


def test_a_run_gets_on_though_its_history_cannot_be_written(tmp_path, monkeypatch):
    run(checkpoint_dir=tmp_path)

    def refuse(*_):
        raise PermissionError("history.csv")

    monkeypatch.setattr("minilstm.training.history.HistoryFile.append", refuse)
    for step in (2, 3):
        with pytest.raises(PermissionError):
            run(checkpoint_dir=tmp_path, epochs=5, resume=True)
        assert load_checkpoint(tmp_path).step == step


@pytest.mark.parametrize("changed", [False, True])
def test_early_stopping_does_not_compare_losses_of_different_data(tmp_path, changed):
    easy, options = (INPUTS * 0, TARGETS * 0), {"early_stopping": 2, "checkpoint_dir": tmp_path, "optimizer": SGD(0.01)}
    run(epochs=2, validation_data=easy if changed else DATA, **options)
    if changed:
        with pytest.warns(UserWarning, match="fit: on these validation data the best parameters so far have the loss"):
            result = run(epochs=7, validation_data=DATA, resume=True, **options)
    else:
        result = run(epochs=7, validation_data=DATA, resume=True, **options)
    assert len(result.history["val_loss"]) == 7
