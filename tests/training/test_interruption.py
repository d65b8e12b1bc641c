"""Ctrl-C and SIGTERM: the run is saved, one line says how to resume, and the previous handlers are restored."""

import os
import signal
import threading
from pathlib import Path

import kill_run
import numpy as np
import pytest
from helpers import assert_trees_equal

from minilstm import LSTM, Adam, Dense, Dropout, Sequential, fit, load_checkpoint, losses, tbptt
from minilstm.training.interruption import SIGNALS, Interruption

RNG = np.random.default_rng(11)
INPUTS = RNG.normal(size=(8, 6, 1))
TARGETS = np.cumsum(INPUTS, axis=1) * 0.3
MODEL = Sequential(LSTM(3), Dropout(0.3), Dense(1))
PARAMS = MODEL.init(0, 1, np.float64)


class Signalling(Adam):
    """Adam during whose update number `at` this process gets a signal."""

    def __init__(self, number, at):
        super().__init__(0.01)
        self.number, self.at = number, at

    def update(self, params, grads, state):
        if state.step == self.at:
            os.kill(os.getpid(), self.number)
        return super().update(params, grads, state)


def run(directory=None, params=PARAMS, **options):
    options = {"optimizer": Adam(0.01), "epochs": 3, "batch_size": 3, "tbptt": tbptt(2, 3), **options}
    return fit(MODEL, params, losses.mse, (INPUTS, TARGETS), checkpoint_dir=directory, **options)


def assert_same_end(directory, **options):
    """The run in the directory resumes from other weights and ends with the bits of one that was never stopped."""
    whole = run(**options)
    rest = run(directory, MODEL.init(99, 1, np.float64), resume=True, **options)
    assert_trees_equal(rest.params, whole.params)
    assert_trees_equal(rest.opt_state, whole.opt_state)
    assert (rest.step, rest.history) == (whole.step, whole.history)


@pytest.fixture(autouse=True)
def handlers():
    """Restore the handlers after a test, and check that its runs have restored them too."""
    outside = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background without it
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield before
    after = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in outside.items():
        signal.signal(number, handler)
    assert after == before


# --- within a run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
@pytest.mark.parametrize("at", [0, 1, 4, 8, 9, 25])  # three windows a batch, nine updates an epoch, 27 in all
def test_a_signal_ends_the_run_after_its_update_and_it_resumes_bit_for_bit(number, at, run_dir, capsys):
    with pytest.raises(SystemExit) as caught:
        run(run_dir, optimizer=Signalling(number, at))
    assert caught.value.code == 128 + number
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.strip().splitlines()
    assert f"stopped by signal {int(number)} at step {at + 1}; saved in {str(run_dir)!r}" in line
    assert "resume=True" in line
    assert "--resume" in line
    assert load_checkpoint(run_dir).step == at + 1
    assert_same_end(run_dir)


def test_a_run_can_be_stopped_again_and_again(run_dir):
    for at in (0, 1, 5, 11, 26):
        params = MODEL.init([7, at], 1, np.float64) if at else PARAMS
        with pytest.raises(SystemExit):
            run(run_dir, params, optimizer=Signalling(signal.SIGINT, at), resume=True)
    assert_same_end(run_dir)


class Sequenced:
    """Validation data that sends a signal when it is asked for the n-th time in training (first before it)."""

    def __init__(self, n):
        self.n, self.calls = n, 0

    def __len__(self):
        return 1

    def __call__(self, step):
        if self.calls == self.n:
            os.kill(os.getpid(), signal.SIGTERM)
        self.calls += 1
        return INPUTS[:2], TARGETS[:2]


@pytest.mark.parametrize("epoch", [2, 3])
def test_a_signal_in_a_validation_is_not_swallowed(epoch, run_dir):
    with pytest.raises(SystemExit) as caught:
        run(run_dir, validation_data=Sequenced(epoch - 1))  # what was read before the training serves the first
    assert caught.value.code == 128 + signal.SIGTERM
    assert load_checkpoint(run_dir).step in (9 * epoch, 9 * epoch + 1)
    assert_same_end(run_dir, validation_data=(INPUTS[:2], TARGETS[:2]))


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_signal_in_a_callback_is_not_swallowed(epoch, run_dir):
    def callback(result):
        if len(result.history["loss"]) == epoch:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit) as caught:
        run(run_dir, callbacks=[callback])
    assert caught.value.code == 128 + signal.SIGINT
    assert load_checkpoint(run_dir).step in (9 * epoch, 9 * epoch + 1)
    assert_same_end(run_dir)


# --- handlers -------------------------------------------------------------------------------------------------


def test_handlers_are_set_while_a_run_saves_and_put_back_behind_it(handlers, run_dir):
    seen = []
    run(run_dir, callbacks=[lambda result: seen.append({n: signal.getsignal(n) for n in SIGNALS})])
    assert len(seen) == 3
    assert all(during[number] != handlers[number] for during in seen for number in SIGNALS)
    assert {number: signal.getsignal(number) for number in SIGNALS} == handlers


def test_the_handlers_of_the_caller_are_put_back_also_when_a_run_fails(run_dir):
    mine = {number: (lambda *_: None) for number in SIGNALS}
    for number, handler in mine.items():
        signal.signal(number, handler)
    try:
        for optimizer, error in ((Signalling(signal.SIGTERM, 3), SystemExit), (Failing(0.1), ZeroDivisionError)):
            with pytest.raises(error):
                run(run_dir, optimizer=optimizer, resume=True, resume_changes=["optimizer"])
            assert {number: signal.getsignal(number) for number in SIGNALS} == mine
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Failing(Adam):
    def update(self, params, grads, state):
        raise ZeroDivisionError


def test_without_a_directory_ctrl_c_is_what_it_always_was(handlers):
    seen = []
    run(callbacks=[lambda result: seen.append({n: signal.getsignal(n) for n in SIGNALS})])
    assert seen == [handlers] * 3
    with pytest.raises(KeyboardInterrupt):
        run(optimizer=Signalling(signal.SIGINT, 2))


def test_a_second_signal_acts_at_once(run_dir):
    """A user who presses Ctrl-C twice does not want to wait for the end of a step."""

    class Twice(Adam):
        def update(self, params, grads, state):
            if state.step == 4:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                raise AssertionError("the second one was not noticed")
            return super().update(params, grads, state)

    with pytest.raises(KeyboardInterrupt):
        run(run_dir, optimizer=Twice(0.01), checkpoint_every=1)
    assert load_checkpoint(run_dir).step == 4
    assert_same_end(run_dir, checkpoint_every=1)


def test_no_handler_is_set_outside_the_main_thread(handlers, run_dir):
    seen, results = [], []

    def train():
        results.append(run(run_dir, callbacks=[lambda result: seen.append({n: signal.getsignal(n) for n in SIGNALS})]))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [handlers] * 3
    assert_trees_equal(results[0].params, run().params)


def test_an_interruption_notes_the_first_signal_and_nothing_while_inactive(handlers):
    with Interruption() as interruption:
        assert interruption.wanted is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.wanted == signal.SIGTERM
        assert {number: signal.getsignal(number) for number in SIGNALS} == handlers  # the next one acts at once
    with Interruption(active=False) as interruption, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert interruption.wanted is None


# --- a process of its own -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_a_process_exits_with_128_and_the_signal_and_says_how_to_go_on(number, tmp_path):
    process = kill_run.start(tmp_path, "long", "--slow")
    process.stdout.readline()
    while not (tmp_path / "long" / "checkpoint").exists():
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert f"fit: stopped by signal {int(number)} at step " in err
    assert "resume=True" in err
    out, err = kill_run.start(tmp_path, "long").communicate(timeout=60)
    assert err == ""
    assert int(out.split()[-1]) > 0
    whole = kill_run.digest(kill_run.run(None, "long"))
    assert f'"{whole}"' in Path(tmp_path, "long.json").read_text()
