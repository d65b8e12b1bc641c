"""What fit adds to a step: next to nothing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import minilstm
from minilstm import LSTM, SGD, Adam, Dense, Sequential, fit, losses, value_and_grad

STEPS, BATCH, UNITS, TIME = 120, 32, 32, 50
RNG = np.random.default_rng(1)
INPUTS = RNG.normal(size=(STEPS * BATCH, TIME, 1)).astype(np.float32)
TARGETS = np.cumsum(INPUTS, axis=1) * np.float32(0.1)
MODEL = Sequential(LSTM(UNITS), Dense(1))
PARAMS = MODEL.init(0, 1)


class Alternating(Adam):
    """Adam that makes a step of the bare loop after each of its updates, so that both are disturbed alike.

    Seconds are the CPU time of this thread, without other processes.
    """

    def __init__(self):
        super().__init__(1e-3)
        self.seconds = {"fit": [], "bare": []}
        self.params, self.state = PARAMS, self.init(PARAMS)
        self.step = value_and_grad(lambda params, x, y: losses.mse(MODEL(params, x), y))
        self.began = None

    def update(self, params, grads, state):
        result = super().update(params, grads, state)
        ended = time.thread_time()
        if self.began is not None:
            self.seconds["fit"].append(ended - self.began)
        rows = slice(state.step % STEPS * BATCH, (state.step % STEPS + 1) * BATCH)
        start = time.thread_time()
        _, own_grads = self.step(self.params, INPUTS[rows], TARGETS[rows])
        self.params, self.state = super().update(self.params, own_grads, self.state)
        self.began = time.thread_time()
        self.seconds["bare"].append(self.began - start)
        return result


def overhead():
    """A step of fit, from the end of one update to that of the next, over the bare step beside it: the median."""
    optimizer = Alternating()
    fit(MODEL, PARAMS, losses.mse, (INPUTS, TARGETS), optimizer=optimizer, epochs=1, batch_size=BATCH, progress=False)
    whole, bare = (np.array(part) for part in optimizer.seconds.values())
    assert (len(whole), len(bare)) == (STEPS - 1, STEPS)
    return np.median(whole / bare[:-1])


def measured(what):
    """Lines of numbers, with one thread of BLAS, in a process of its own: two threads wait for each other where a
    processor is busy.
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(minilstm.__file__).parents[1])}
    environment |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, __file__, what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_step_of_fit_costs_at_most_a_tenth_more_than_the_bare_loop():
    found = [float(line) for line in measured("steps")]
    print(f"a step of fit takes {min(found):.3f} times as long as the bare loop")
    assert 0.9 < min(found) <= 1.1, f"a step of fit takes {found} times as long as the bare loop"


def test_the_checks_before_the_first_step_take_less_than_the_time_of_eight_losses():
    """They and the baselines take that of about six for these 100,000 windows, on a busy machine, too."""
    found = [float(line) for line in measured("checks")]
    print(f"checks and baselines of 100,000 windows take the time of {min(found):.1f} losses")
    assert 1 < min(found) < 8


class Started(Exception):
    """The checks are over."""


class NeverStarts(SGD):
    """An optimizer that ends a run where it begins."""

    def init(self, params):
        raise Started


def losses_of_checks():
    """CPU time of `fit` from its call to the state of the optimizer, which comes after all checks, over that of a mean
    squared error of the same data by NumPy.
    """
    windows = np.random.default_rng(0).normal(size=(100_000, 24, 1)).astype(np.float32)
    data = windows, np.float32(0.5) * windows
    model = Sequential(LSTM(8), Dense(1))
    params = model.init(0, 1)
    passes = []
    for _ in range(5):
        start = time.thread_time()
        np.mean(np.square(data[0] - data[1]))
        passes.append(time.thread_time() - start)
    start = time.thread_time()
    try:
        fit(model, params, losses.mse, data, optimizer=NeverStarts(0.1), epochs=1)
    except Started:
        return (time.thread_time() - start) / np.median(passes)


if __name__ == "__main__":
    for _ in range(3):
        print(overhead() if sys.argv[1] == "steps" else losses_of_checks())
