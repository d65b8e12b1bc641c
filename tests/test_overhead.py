"""What fit adds to a step: next to nothing."""

import time

import numpy as np

from minilstm import LSTM, Adam, Dense, Sequential, fit, losses, value_and_grad

STEPS, BATCH, UNITS, TIME = 120, 32, 32, 50
RNG = np.random.default_rng(1)
INPUTS = RNG.normal(size=(STEPS * BATCH, TIME, 1)).astype(np.float32)
TARGETS = np.cumsum(INPUTS, axis=1) * np.float32(0.1)
MODEL = Sequential(LSTM(UNITS), Dense(1))
PARAMS = MODEL.init(0, 1)


class Alternating(Adam):
    """Adam that makes a step of the bare loop behind each of its updates: what disturbs one disturbs the other."""

    def __init__(self):
        super().__init__(1e-3)
        self.seconds = {"fit": [], "bare": []}
        self.params, self.state = PARAMS, self.init(PARAMS)
        self.step = value_and_grad(lambda params, x, y: losses.mse(MODEL(params, x), y))
        self.began = None

    def update(self, params, grads, state):
        result = super().update(params, grads, state)
        ended = time.perf_counter()
        if self.began is not None:
            self.seconds["fit"].append(ended - self.began)
        rows = slice(state.step % STEPS * BATCH, (state.step % STEPS + 1) * BATCH)
        start = time.perf_counter()
        _, own_grads = self.step(self.params, INPUTS[rows], TARGETS[rows])
        self.params, self.state = super().update(self.params, own_grads, self.state)
        self.began = time.perf_counter()
        self.seconds["bare"].append(self.began - start)
        return result


def overhead():
    """The median step of fit, from the end of one update to that of the next, over that of the bare loop."""
    optimizer = Alternating()
    fit(MODEL, PARAMS, losses.mse, (INPUTS, TARGETS), optimizer=optimizer, epochs=1, batch_size=BATCH, progress=False)
    assert [len(part) for part in optimizer.seconds.values()] == [STEPS - 1, STEPS]
    return np.median(optimizer.seconds["fit"]) / np.median(optimizer.seconds["bare"])


def test_a_step_of_fit_costs_at_most_a_tenth_more_than_the_bare_loop():
    found = []
    for _ in range(5):  # what disturbs a measurement makes it larger as a rule, and never makes fit cheaper
        found.append(overhead())
        if found[-1] <= 1.07:
            break
    print(f"a step of fit takes {min(found):.3f} times as long as the bare loop")
    assert min(found) <= 1.1, f"a step of fit takes {min(found):.3f} times as long as the bare loop"
