"""Truncated BPTT: which gradient an update is made of, what is carried from window to window, and how much memory."""

import gc
import tracemalloc

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.tracer import isbox
from helpers import assert_close, assert_trees_close, assert_trees_equal, largest
from hypothesis import given
from hypothesis import strategies as st

from minilstm import (
    LSTM,
    RNN,
    SGD,
    Adam,
    Bidirectional,
    Dense,
    Dropout,
    DropoutWrapper,
    Embedding,
    LSTMCell,
    LSTMState,
    MultiRNNCell,
    Sequential,
    fit,
    losses,
    tbptt,
    value_and_grad,
)
from minilstm.data import contiguous_batches
from minilstm.params import tree_leaves, tree_map
from minilstm.training.truncation import Truncation, Window, reset_rows, windows

TIME = 10
RNG = np.random.default_rng(5)
INPUTS = RNG.normal(size=(4, TIME, 2))
TARGETS = np.cumsum(INPUTS, axis=1)[..., :1] * 0.3
DATA = {"inputs": INPUTS, "targets": TARGETS}
MODEL = Sequential(LSTM(3), Dense(1))
TRACED = Sequential(LSTM(3, backprop="autograd"), Dense(1))
PARAMS = MODEL.init(0, 2, np.float64)
RATE = float(np.float32(0.1))


class Recorder(SGD):
    """Plain gradient descent that keeps every gradient it was given."""

    def __init__(self, rate=0.1):
        super().__init__(rate)
        self.grads = []

    def update(self, params, grads, state):
        self.grads.append(grads)
        return super().update(params, grads, state)


class Watched(Sequential):
    """A model that keeps every state it was started from."""

    def apply(self, params, inputs, state=None, **options):
        self.__dict__.setdefault("starts", []).append(state)
        return super().apply(params, inputs, state=state, **options)


def run(data=DATA, model=MODEL, params=PARAMS, loss=losses.mse, **options):
    options = {"optimizer": Recorder(), "epochs": 1, "batch_size": 4, **options}
    return fit(model, params, loss, data, **options)


def by_hand(stride, window, batch_size=4, epochs=1):
    """BPTT(window; stride) of Williams and Peng, written plainly: (the gradient of every update, the parameters).

    The state that a window starts from is a number: the one that the window before went through there.
    """
    params, found = PARAMS, []
    for epoch in range(epochs):
        order = np.random.default_rng([0, 1, epoch]).permutation(len(INPUTS))
        for first in range(0, len(INPUTS), batch_size):
            rows = order[first : first + batch_size]
            inputs, targets, begin, state = INPUTS[rows], TARGETS[rows], 0, None
            for update in range(-(-TIME // stride)):
                end, counted = min((update + 1) * stride, TIME), update * stride
                back = max(0, (update + 1) * stride - window)
                if back > begin:
                    _, state = TRACED.apply(params, inputs[:, begin:back], state=state)
                    begin = back

                def loss(tree, begin=begin, end=end, counted=counted, state=state, inputs=inputs, targets=targets):
                    outputs, _ = TRACED.apply(tree, inputs[:, begin:end], state=state)
                    return losses.mse(outputs[:, counted - begin :], targets[:, counted:end])

                after = min(max(0, (update + 2) * stride - window), end)
                grads = value_and_grad(loss)(params)[1]
                if after > begin:  # with the parameters that this update was made with
                    _, state = TRACED.apply(params, inputs[:, begin:after], state=state)
                    begin = after
                found.append(grads)
                params = tree_map(lambda w, g: w - RATE * g, params, grads)
    return found, params


STRIDES = [(1, 1), (1, 4), (2, 7), (3, 3), (3, 4), (3, 5), (4, 4), (4, 9), (7, 7), (7, 10), (10, 10), (5, 20)]


@pytest.mark.parametrize(("stride", "window"), STRIDES)
def test_every_gradient_is_that_of_the_traced_window_with_the_state_held_constant(stride, window):
    optimizer = Recorder()
    result = run(optimizer=optimizer, tbptt=tbptt(stride, window))
    wanted, params = by_hand(stride, window)
    assert len(optimizer.grads) == len(wanted) == result.step == -(-TIME // stride)
    for n, (found, traced) in enumerate(zip(optimizer.grads, wanted, strict=True)):
        assert largest(traced) > 1e-3, n
        assert_trees_close(found, traced, 1e-12)
    assert_trees_close(result.params, params, 1e-12)


@pytest.mark.parametrize(("stride", "window"), [(4, 4), (3, 5)])
def test_every_batch_of_an_epoch_starts_anew(stride, window):
    result = run(tbptt=tbptt(stride, window), batch_size=3, epochs=2)  # batches of 3 and 1
    assert_trees_close(result.params, by_hand(stride, window, 3, 2)[1], 1e-12)


def test_the_window_is_the_stride_unless_it_is_given():
    assert_trees_equal(run(tbptt=tbptt(3)).params, run(tbptt=tbptt(3, 3)).params)
    assert_trees_equal(run(tbptt=tbptt(stride=3, window=5)).params, run(tbptt=tbptt(3, 5)).params)


@pytest.mark.parametrize(("stride", "window"), [(2, 2), (3, 5), (3, 6), (2, 10), (10, 10)])
def test_nothing_past_the_window_gets_a_gradient(stride, window):
    model = Sequential(LSTM(3, learn_initial_state=True), Dense(1))
    optimizer = Recorder()
    run(model=model, params=model.init(0, 2, np.float64), optimizer=optimizer, tbptt=tbptt(stride, window))
    for n, grads in enumerate(optimizer.grads):
        for part in grads["rnn"]["initial_state"].values():
            if (n + 1) * stride <= window:  # this window reaches back to the start
                assert np.abs(part).min() > 1e-6
            else:
                assert (part == 0).all()


@pytest.mark.parametrize(("stride", "window"), [(2, 2), (3, 5), (2, 7)])
def test_the_inputs_gradient_is_exactly_zero_outside_the_window_and_nowhere_in_it(stride, window):
    """Inputs reach an update through their window alone, and all of it counts, also what was counted before."""
    state = None
    for n in range(-(-TIME // stride)):

        def loss(inputs, n=n, state=state):
            window_ = next(windows({**DATA, "inputs": inputs}, Truncation(stride, window), n))
            outputs, _ = MODEL.apply(PARAMS, window_.batch["inputs"], state=state)
            return losses.mse(outputs, window_.batch["targets"], window_.batch.get("weights"))

        grad = value_and_grad(loss)(INPUTS)[1]
        begin, end = max(0, (n + 1) * stride - window), min((n + 1) * stride, TIME)
        assert (grad[:, :begin] == 0).all()
        assert (grad[:, end:] == 0).all()
        assert (np.abs(grad[:, begin:end]).max(axis=(0, 2)) > 0).all()


def test_the_carried_state_is_numbers_and_the_parameters_have_no_part_in_it():
    model = Watched(LSTM(3), Dense(1))
    run(model=model, tbptt=tbptt(3, 5))
    given_ = [state for state in model.starts if state is not None]
    assert given_
    assert not any(isbox(leaf) for state in given_ for leaf in tree_leaves(state))


# --- a window as long as the sequence -------------------------------------------------------------------------


def weighted():
    weights = np.ones((4, TIME))
    weights[1, 4:] = weights[2, 7:] = 0
    return {**DATA, "weights": weights * 0.5, "sequence_length": np.array([10, 4, 7, 10])}


@pytest.mark.parametrize("data", [DATA, weighted()], ids=["plain", "weights and sequence_length"])
@pytest.mark.parametrize("truncation", [tbptt(10), tbptt(10, 12), tbptt(12)])
def test_with_the_whole_sequence_as_the_window_it_is_full_bptt_bit_for_bit(data, truncation):
    model = Sequential(LSTM(3), Dropout(0.3), Dense(1))
    options = {"model": model, "optimizer": Adam(0.05), "epochs": 3, "batch_size": 3}
    full, truncated = run(data, **options), run(data, **options, tbptt=truncation)
    assert_trees_equal(truncated.params, full.params)
    assert_trees_equal(truncated.opt_state, full.opt_state)
    for name, values in full.history.items():  # sums of other factors: the last bit may differ
        assert truncated.history[name] == pytest.approx(values, rel=1e-14)


def test_the_weights_of_labels_keep_every_digit():
    model, labels = Sequential(Embedding(5, 3), LSTM(3), Dense(5)), RNG.integers(0, 5, size=(4, TIME))
    data = {"inputs": labels, "targets": labels, "weights": RNG.uniform(size=(4, TIME))}
    options = {"model": model, "params": model.init(0, dtype=np.float64), "loss": losses.softmax_cross_entropy}
    assert_trees_equal(run(data, **options, tbptt=tbptt(TIME)).params, run(data, **options).params)


def test_a_shorter_window_is_not_full_bptt():
    """The sum of the windows' gradients misses what reaches further back."""
    optimizer, model = Recorder(1e-12), Sequential(LSTM(3), Dense(1))
    run(optimizer=optimizer, tbptt=tbptt(5))
    truncated = tree_map(lambda a, b: (a + b) / 2, *optimizer.grads)
    full = value_and_grad(lambda p: losses.mse(model(p, INPUTS), TARGETS))(PARAMS)[1]
    assert_close(truncated["dense"]["bias"], full["dense"]["bias"], 1e-9)  # the output has no memory
    assert np.abs(truncated["rnn"]["lstm_cell"]["kernel"] - full["rnn"]["lstm_cell"]["kernel"]).max() > 1e-4


@pytest.mark.parametrize("features", [1, 2])
def test_the_history_counts_every_step_once(features):
    model = Sequential(LSTM(3), Dense(features))
    params, targets = model.init(0, 2, np.float64), INPUTS[..., :features]
    whole = losses.mse(model(params, INPUTS), targets)
    for stride, window in STRIDES:  # and parameters that stay
        result = run((INPUTS, targets), model, params, optimizer=SGD(1e-12), tbptt=tbptt(stride, window))
        assert result.history["loss"] == [pytest.approx(whole, rel=1e-9)], (stride, window)


# --- how windows are cut --------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 9), st.booleans())
def test_every_step_counts_in_one_window_and_windows_reach_as_far_back_as_they_may(time, stride, more, padded):
    truncation = Truncation(stride, stride + more)
    steps = np.arange(time)
    batch = {"inputs": np.broadcast_to(steps[None, :, None] * 1.0, (2, time, 1)), "targets": np.stack([steps] * 2)}
    if padded:
        batch["weights"] = np.where(steps < [[time], [time // 2]], 0.25, 0.0)
        batch["sequence_length"] = np.array([time, time // 2])
    cut = list(windows(batch, truncation))
    assert len(cut) == -(-time // stride)
    assert [window.last for window in cut] == [False] * (len(cut) - 1) + [True]
    weights, begin = np.zeros((2, time)), 0
    for n, window in enumerate(cut):
        seen = window.batch["inputs"][0, :, 0].astype(int)
        end = min((n + 1) * stride, time)
        assert seen.tolist() == list(range(begin, end))
        assert begin == max(0, (n + 1) * stride - truncation.window) if n < len(cut) - 1 else begin <= n * stride
        assert window.batch["targets"][1].tolist() == seen.tolist()
        part = window.batch.get("weights", np.ones((2, len(seen))))
        assert part.shape == (2, len(seen))
        assert np.count_nonzero(part[0]) == end - n * stride  # the steps whose loss counts in this window
        weights[:, begin:end] += part
        if padded:
            lengths = np.clip([time, time // 2] - seen[:1], 0, len(seen))
            assert window.batch["sequence_length"].tolist() == lengths.tolist()
        else:
            assert "sequence_length" not in window.batch
        begin += window.advance
    np.testing.assert_array_equal(weights, batch["weights"] if padded else np.ones((2, time)))


@given(st.integers(1, 20), st.integers(1, 5), st.integers(0, 5), st.integers(0, 19))
def test_windows_can_be_entered_anywhere(time, stride, more, first):
    batch = {"inputs": np.arange(2.0 * time).reshape(1, time, 2), "targets": np.zeros((1, time))}
    truncation = Truncation(stride, stride + more)
    whole, rest = list(windows(batch, truncation)), list(windows(batch, truncation, first))
    assert len(rest) == max(0, len(whole) - first)
    assert_trees_equal([w._asdict() for w in rest], [w._asdict() for w in whole[first:]])


def test_weights_of_windows_have_the_inputs_dtype_and_the_given_ones_stay():
    weights = np.ones((2, 6), np.float32)
    batch = {"inputs": np.zeros((2, 6, 1), np.float32), "targets": np.zeros((2, 6, 1), np.float32), "weights": weights}
    cut = list(windows(batch, Truncation(2, 4)))
    assert {window.batch["weights"].dtype for window in cut} == {np.dtype(np.float32)}
    assert (weights == 1).all()
    labels = {"inputs": np.zeros((2, 6), int), "targets": np.zeros((2, 6), int)}
    assert list(windows(labels, Truncation(2, 4)))[1].batch["weights"].dtype == np.float32
    assert isinstance(cut[0], Window)


def test_weights_and_lengths_within_windows_are_those_of_the_loss_over_their_steps():
    """Against windows by hand, in which padding has weight 0 and the state of an ended sequence is carried through."""
    data, optimizer = weighted(), Recorder(1e-12)
    run(data, optimizer=optimizer, tbptt=tbptt(4))
    state, order = None, np.random.default_rng([0, 1, 0]).permutation(4)
    for n, grads in enumerate(optimizer.grads):
        steps = slice(4 * n, min(4 * n + 4, TIME))

        def loss(params, steps=steps, state=state):
            lengths = np.clip(data["sequence_length"][order] - steps.start, 0, steps.stop - steps.start)
            outputs, new = TRACED.apply(params, INPUTS[order, steps], state=state, sequence_length=lengths)
            weights = data["weights"][order, steps]
            errors = anp.sum((outputs[..., 0] - TARGETS[order, steps, 0]) ** 2 * weights)
            return errors / np.sum(weights), new

        (_, state), wanted = value_and_grad(loss, has_aux=True)(PARAMS)
        assert_trees_close(grads, wanted, 1e-9)


@pytest.mark.parametrize("batch_size", [4, 2])
def test_windows_without_a_weight_make_no_update(batch_size):
    """All sequences of a batch have ended: nothing is left to learn. The next batch starts from the initial state."""
    padded = {**DATA, "weights": np.repeat([[1.0] * 4 + [0.0] * 6], 4, axis=0)}
    short = {"inputs": INPUTS[:, :4], "targets": TARGETS[:, :4]}
    options = {"tbptt": tbptt(4), "epochs": 2, "batch_size": batch_size}
    result, wanted = (run(data, **options) for data in (padded, short))
    assert result.step == wanted.step
    assert_trees_close(result.params, wanted.params, 1e-12)
    assert result.history["loss"] == pytest.approx(wanted.history["loss"], rel=1e-12)


@pytest.mark.parametrize("kind", ["arrays", "stream"])
def test_the_state_is_carried_through_windows_without_a_weight(kind):
    """Steps to warm up with: nothing is learnt from them, but what comes after them starts from where they lead."""
    weights = np.repeat([[0.0] * 5 + [1.0] * 5], 4, axis=0)
    batches = [{"inputs": INPUTS[:, s], "targets": TARGETS[:, s], "weights": weights[:, s]}
               for s in (slice(0, 5), slice(5, 10))]  # fmt: skip
    optimizer = Recorder(1e-12)
    if kind == "arrays":
        result = run({**DATA, "weights": weights}, optimizer=optimizer, tbptt=tbptt(5))
    else:
        options = {"steps_per_epoch": 2, "validation_data": contiguous([*batches]), "tbptt": tbptt(5)}
        result = run(batches, optimizer=optimizer, **options)
    _, state = TRACED.apply(PARAMS, INPUTS[:, :5])
    loss = lambda p: losses.mse(TRACED.apply(p, INPUTS[:, 5:], state=state)[0], TARGETS[:, 5:])  # noqa: E731
    value, wanted = value_and_grad(loss)(PARAMS)
    assert len(optimizer.grads) == 1
    assert_trees_close(optimizer.grads[0], wanted, 1e-9)
    for losses_ in (result.history[name] for name in ("loss", "val_loss") if name in result.history):
        assert losses_ == [pytest.approx(value, rel=1e-9)]


def contiguous(batches):
    """A callable with a length."""
    return type("Batches", (), {"__call__": lambda self, k: batches[k], "__len__": lambda self: len(batches)})()


@pytest.mark.parametrize("stride", [1, 3])
def test_the_state_between_overlapping_windows_is_of_the_windows_own_pass(stride):
    """Dropout too: the next window starts from a state that this window, with its masks, went through."""
    cell = DropoutWrapper(LSTMCell(3), output_keep_prob=0.5, state_keep_prob=0.5)
    model = Watched(RNN(cell), Dense(1))
    truncation = Truncation(stride, stride + 2)
    run(model=model, optimizer=SGD(1e-12), tbptt=tbptt(*truncation), seed=3)
    given_ = [state for state in model.starts if state is not None]
    state, order = None, np.random.default_rng([3, 1, 0]).permutation(4)
    batch = {"inputs": INPUTS[order], "targets": TARGETS[order]}
    for n, window in enumerate(windows(batch, truncation)):
        if state is not None:
            off = min(np.abs(state["rnn"].h - found["rnn"].h).max() for found in given_)
            assert off < 1e-9, f"window {n} starts from a state that is {off:.2g} off"
        if window.advance:
            lengths = np.full(4, window.advance)  # the state is carried through from there on
            options = {"state": state, "sequence_length": lengths, "rng": [3, 0, n]}
            _, state = Sequential.apply(model, PARAMS, window.batch["inputs"], **options)


# --- streams --------------------------------------------------------------------------------------------------


def stream(steps, seed=0):
    return np.cumsum(np.random.default_rng(seed).normal(size=(steps, 1)), axis=0) * 0.2


STREAM_PARAMS = MODEL.init(1, 1, np.float64)


def along_stream(batches, resets=(), epochs=1):
    """Parameters after one update a batch, with the state handed on, and zeros in rows of `resets`."""
    params = STREAM_PARAMS
    for _ in range(epochs):
        state = None
        for n, (inputs, targets) in enumerate(batches):
            if state is not None and n in dict(resets):
                rows = np.array(dict(resets)[n], bool)
                state = {"rnn": LSTMState(*(np.where(rows[:, None], 0.0, part) for part in state["rnn"]))}

            def loss(tree, inputs=inputs, targets=targets, state=state):
                outputs, new = TRACED.apply(tree, inputs, state=state)
                return losses.mse(outputs, targets), new

            (_, state), grads = value_and_grad(loss, has_aux=True)(params)
            params = tree_map(lambda w, g: w - RATE * g, params, grads)
    return params


def test_a_stream_carries_the_state_over_its_batches_and_starts_anew_with_the_epoch():
    series, columns = stream(41), [slice(0, 6), slice(6, 12), slice(12, 18), slice(18, 20)]
    rows, following = series[:40].reshape(2, 20, 1), series[1:].reshape(2, 20, 1)
    options = {"params": STREAM_PARAMS, "epochs": 3}
    result = run(contiguous_batches(series, 2, 6), **options)
    assert result.step == 12
    wanted = along_stream([(rows[:, s], following[:, s]) for s in columns], epochs=3)
    assert_trees_close(result.params, wanted, 1e-12)
    with pytest.raises(ValueError, match="fit: data: reset is for batches that continue each other"):  # no num_steps
        run(lambda step: contiguous_batches(series, 2, 6)(step), steps_per_epoch=4, **options)

    def without_reset(step):
        return {key: x for key, x in contiguous_batches(series, 2, 6)(step).items() if key != "reset"}

    same_batches = run(without_reset, steps_per_epoch=4, **options)
    assert np.abs(same_batches.params["dense"]["kernel"] - wanted["dense"]["kernel"]).max() > 1e-4  # without tbptt


def test_every_epoch_of_a_stream_starts_anew_also_where_no_batch_says_so():
    batches = [contiguous_batches(stream(41), 2, 5)(step) for step in range(4)]
    for batch in batches:
        del batch["reset"]
    options = {"params": STREAM_PARAMS, "steps_per_epoch": 4, "epochs": 2, "tbptt": tbptt(5)}
    wanted = along_stream([(batch["inputs"], batch["targets"]) for batch in batches], epochs=2)
    assert_trees_close(run(lambda step: batches[step % 4], **options).params, wanted, 1e-12)
    assert_trees_close(run(batches * 2, **options).params, wanted, 1e-12)


@pytest.mark.parametrize("kind", ["callable", "iterable"])
def test_rows_flagged_by_reset_start_anew_and_the_others_go_on(kind):
    series = stream(41)
    batches = [contiguous_batches(series, 2, 5)(step) for step in range(4)]
    for batch in batches:
        del batch["reset"]
    resets = {1: [True, False], 2: [True, True], 3: [False, False]}
    flagged = [{**batch, "reset": np.array(resets.get(n, [False, False]))} for n, batch in enumerate(batches)]
    data = (lambda step: flagged[step % 4]) if kind == "callable" else flagged
    result = run(data, params=STREAM_PARAMS, steps_per_epoch=4, tbptt=tbptt(5))
    pairs = [(batch["inputs"], batch["targets"]) for batch in batches]
    assert_trees_close(result.params, along_stream(pairs, resets.items()), 1e-12)
    assert np.abs(result.params["dense"]["kernel"] - along_stream(pairs)["dense"]["kernel"]).max() > 1e-6
    unflagged = run(batches, params=STREAM_PARAMS, steps_per_epoch=4, tbptt=tbptt(5))
    assert_trees_close(unflagged.params, along_stream(pairs), 1e-12)
    assert set(flagged[0]) == {"inputs", "targets", "reset"}  # what was handed in is left alone


@pytest.mark.parametrize("role", ["data", "validation_data"])
def test_reset_rows_start_from_the_learned_state(role):
    model = Watched(LSTM(3, learn_initial_state=True), Dense(1))
    params = model.init(0, 1, np.float64)
    params["rnn"]["initial_state"]["c"][:] = 0.7
    flags = [[True, True], [True, False]]
    flagged = [{**contiguous_batches(stream(21), 2, 5)(step), "reset": np.array(flags[step])} for step in range(2)]
    options = {"model": model, "params": params, "tbptt": tbptt(5), "optimizer": SGD(1e-12)}
    if role == "data":
        run(flagged, steps_per_epoch=2, **options)
    else:
        run(contiguous_batches(stream(21), 2, 5), validation_data=contiguous(flagged), **options)
    state = model.starts[-1]["rnn"]
    np.testing.assert_allclose(state.c[0], 0.7, rtol=1e-9)
    assert np.abs(state.c[1] - 0.7).min() > 1e-3


def test_reset_reaches_every_part_of_a_state():
    state = {"rnn": (LSTMState(np.ones((3, 2)), np.ones((3, 2))), LSTMState(np.ones((3, 4)), np.ones((3, 4))))}
    zeros = lambda: tree_map(np.zeros_like, state)  # noqa: E731
    found = reset_rows(state, np.array([False, True, False]), zeros)
    for part in tree_leaves(found):
        assert (part[1] == 0).all()
        assert (part[[0, 2]] == 1).all()
    assert reset_rows(state, [True] * 3, zeros) is None
    assert reset_rows(None, [False] * 3, zeros) is None
    assert reset_rows(state, None, zeros) is state
    assert reset_rows(state, [False] * 3, zeros) is state
    assert (tree_leaves(state)[0] == 1).all()


def test_validation_on_a_stream_carries_the_state_too():
    series = stream(41, seed=1)
    data = contiguous_batches(stream(21), 2, 5)
    result = run(data, params=STREAM_PARAMS, validation_data=contiguous_batches(series, 2, 6))
    rows, following = series[:40].reshape(2, 20, 1), series[1:].reshape(2, 20, 1)
    wanted = losses.mse(MODEL(result.params, rows), following)
    assert result.history["val_loss"] == [pytest.approx(wanted, rel=1e-12)]


def test_a_stack_of_cells_carries_all_its_states():
    cells = [LSTMCell(3), LSTMCell(2)]
    fast, traced = (Sequential(RNN(MultiRNNCell(cells), backprop=b), LSTM(3), Dense(1)) for b in ("fast", "autograd"))
    params = fast.init(0, 2, np.float64)
    results = [run(model=m, params=params, tbptt=tbptt(3, 4), epochs=2).params for m in (fast, traced)]
    assert_trees_close(*results, 1e-12)
    full = run(model=fast, params=params, epochs=2).params
    assert np.abs(results[0]["dense"]["kernel"] - full["dense"]["kernel"]).max() > 1e-4


# --- memory ---------------------------------------------------------------------------------------------------


@pytest.fixture
def traced_memory():
    """`tracemalloc` without the help of the cyclic garbage collector.

    That comes by the number of objects, not by their size: large arrays in a cycle of references may wait for it long.
    """
    gc.collect()
    gc.disable()
    yield tracemalloc
    tracemalloc.stop()
    gc.enable()


def test_memory_does_not_grow_with_the_length_of_a_stream(traced_memory):
    model = Sequential(LSTM(8), Dense(1))
    params = model.init(0, 1)
    arrays = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)

    def held(count):
        """The bytes of all arrays when the last of `count` batches is requested."""
        data, found = contiguous_batches(np.zeros((2 * 5 * count + 1, 1), np.float32), 2, 5), []

        def watched(step):
            if step == count - 1:
                found.append(traced_memory.take_snapshot().filter_traces([arrays]))
            return data(step)

        traced_memory.start()
        fit(model, params, losses.mse, watched, optimizer=SGD(0.1), epochs=1, steps_per_epoch=count, tbptt=tbptt(5))
        traced_memory.stop()
        return sum(statistic.size for statistic in found[0].statistics("filename"))

    held(10)  # what is made once
    short, long = held(10), held(1000)
    assert short > 1000
    assert long < short + 1000, f"{short} bytes after 10 windows, {long} after 1000"


def test_memory_does_not_grow_with_the_length_of_arrays(traced_memory):
    """Apart from the batch itself, which is a copy of its arrays."""
    model = Sequential(LSTM(16), Dense(1))
    params = model.init(0, 1)

    def train(count):
        series = np.zeros((2, 40 * count, 1), np.float32)
        traced_memory.start()
        fit(model, params, losses.mse, (series, series), optimizer=SGD(0.1), epochs=1, tbptt=tbptt(40))
        peak = traced_memory.get_traced_memory()[1]
        traced_memory.stop()
        return 2 * series.nbytes, peak  # inputs and targets

    train(3)
    (small, short), (large, long) = train(10), train(300)
    assert long - short < 5 * (large - small), f"{short} bytes over 10 windows, {long} over 300, arrays of {large}"


# --- what cannot be truncated ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [tbptt(0), tbptt(-1), tbptt(4, 3), tbptt(4, 0), tbptt(2.5), 5])
def test_tbptt_that_makes_no_sense_is_refused(wrong, run_dir):
    with pytest.raises(ValueError, match="tbptt"):
        run(tbptt=wrong, checkpoint_dir=run_dir)
    assert not run_dir.exists()


def test_the_error_names_both_numbers():
    with pytest.raises(ValueError, match=r"window must be at least stride, got stride=4, window=3"):
        run(tbptt=tbptt(4, 3))


@pytest.mark.parametrize(
    "layer",
    [LSTM(3, return_sequences=False), LSTM(3, reverse=True), Bidirectional(LSTM(3))],
    ids=["last output alone", "reversed", "bidirectional"],
)
def test_models_that_cannot_be_truncated_are_refused(layer, run_dir):
    """Without an output at each step there is nothing to cut; backwards, the state comes from the other side."""
    model = Sequential(layer, Dense(1))
    targets = TARGETS if getattr(layer, "return_sequences", True) else TARGETS[:, 0]
    with pytest.raises(ValueError, match="tbptt"):
        run((INPUTS, targets), model=model, params=model.init(0, 2, np.float64), tbptt=tbptt(4), checkpoint_dir=run_dir)
    assert not run_dir.exists()


def test_windows_longer_than_the_stride_need_arrays():
    with pytest.raises(ValueError, match=r"tbptt cannot be used with a callable or an iterable.*longer window"):
        run(contiguous_batches(stream(41), 2, 5), params=STREAM_PARAMS, tbptt=tbptt(5, 10))


def test_a_loss_function_of_ones_own_cannot_be_truncated():
    loss_fn = lambda params, batch, state, rng: (losses.mse(MODEL(params, INPUTS), TARGETS), state)  # noqa: E731
    with pytest.raises(ValueError, match="tbptt cannot be used with loss_fn"):
        fit(params=PARAMS, data=DATA, optimizer=SGD(0.1), epochs=1, tbptt=tbptt(5), loss_fn=loss_fn)
