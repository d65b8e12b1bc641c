"""Batches of streams and of sequences of different lengths: which batch has which step. test_data.py has the rest."""

import numpy as np
import pytest
from helpers import assert_close, assert_trees_close, assert_trees_equal
from hypothesis import given
from hypothesis import strategies as st

from minilstm import LSTM, SGD, Adam, Dense, Embedding, Sequential, fit, losses, value_and_grad
from minilstm.data import BucketedBatches, ContiguousBatches, contiguous_batches, pad_sequences

# --- a long stream --------------------------------------------------------------------------------------------


@given(st.integers(2, 60), st.integers(1, 5), st.integers(1, 12))
def test_the_rows_of_a_stream_go_on_where_the_batch_before_ended(size, batch_size, num_steps):
    columns = (size - 1) // batch_size
    if columns < 1:
        with pytest.raises(ValueError, match="contiguous_batches: a stream of"):
            contiguous_batches(np.arange(size), batch_size, num_steps)
        return
    data = contiguous_batches(np.arange(size), batch_size, num_steps)
    batches = [data(step) for step in range(len(data))]
    assert len(data) == -(-columns // num_steps)
    assert [batch["inputs"].shape[1] for batch in batches[:-1]] == [num_steps] * (len(data) - 1)
    inputs = np.concatenate([batch["inputs"] for batch in batches], axis=1)
    assert_trees_equal(inputs, np.arange(batch_size * columns).reshape(batch_size, columns))
    for batch in batches:
        assert_trees_equal(batch["targets"], batch["inputs"] + 1)
        assert set(batch) == {"inputs", "targets", "reset"}


def test_every_epoch_is_the_same_and_says_that_it_starts():
    data = contiguous_batches(np.arange(25), 2, 5)  # 12 columns: batches of 5, 5 and 2
    for step in range(9):
        assert_trees_equal(data(step), data(step % 3))
        assert data(step)["reset"].tolist() == [step % 3 == 0] * 2


def test_a_stream_of_numbers_keeps_its_features_and_may_have_other_targets():
    series, following = np.arange(22.0).reshape(11, 2), np.arange(11.0)[:, None] * 100
    batch = ContiguousBatches(series, 2, 3, targets=following)(1)
    assert_trees_equal(batch["inputs"], np.stack([series[3:5], series[8:10]]))
    assert_trees_equal(batch["targets"], np.stack([following[4:6], following[9:11]]))  # target t is of input t - 1


@pytest.mark.parametrize(
    ("size", "batch_size", "num_steps", "targets"),
    [(3, 3, 5, 3), (9, 0, 5, 9), (9, 2, 0, 9), (9, 2, 2, 8), (0, 1, 1, 0)],
)
def test_a_stream_that_makes_no_batches_is_refused(size, batch_size, num_steps, targets):
    message = rf"a stream of {size} steps \(targets: {targets}\) does not make batches of {batch_size} x {num_steps}"
    if not (batch_size and num_steps):
        message = f"contiguous_batches: {'num_steps' if batch_size else 'batch_size'} must be a positive whole number"
    with pytest.raises(ValueError, match=message):
        contiguous_batches(np.zeros(size), batch_size, num_steps, targets=np.zeros(targets))


def test_a_language_model_learns_a_stream():
    text = np.tile([0, 1, 2, 1, 0, 3], 40)  # what follows 1 and 0 depends on what came before
    model, data = Sequential(Embedding(4, 4), LSTM(8), Dense(4)), contiguous_batches(text, 4, 10)
    result = fit(model, model.init(0), losses.softmax_cross_entropy, data, optimizer=Adam(0.03), epochs=15)
    assert result.history["loss"][0] > 1
    assert result.history["loss"][-1] < 0.1


# --- sequences of different lengths ---------------------------------------------------------------------------


@given(st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(0, 3), st.booleans())
def test_padding_is_zeros_behind_the_end(lengths, more, features):
    sequences = [np.arange(1, n + 1) if not features else np.arange(1.0, 2 * n + 1).reshape(n, 2) for n in lengths]
    width = max(lengths) + more
    padded, found = pad_sequences(sequences, width if more else None)
    assert_trees_equal(found, np.array(lengths, np.int64))
    assert padded.shape == (len(lengths), width, *([2] if features else []))
    assert padded.dtype == sequences[0].dtype
    for row, sequence in zip(padded, sequences, strict=True):
        assert_trees_equal(row[: len(sequence)], sequence)
        assert (row[len(sequence) :] == 0).all()


def test_sequences_may_be_lists():
    padded, lengths = pad_sequences([[1, 2, 3], [4]])
    assert (padded.tolist(), lengths.tolist()) == ([[1, 2, 3], [4, 0, 0]], [3, 1])


def test_what_cannot_be_padded_is_refused():
    with pytest.raises(ValueError, match=r"pad_sequences: length is 4, but the longest of the sequences has 5 steps"):
        pad_sequences([np.zeros(3), np.zeros(5)], 4)
    with pytest.raises(ValueError, match="pad_sequences: sequences must hold at least one sequence, got none"):
        pad_sequences([])


RNG = np.random.default_rng(8)
LENGTHS = [3, 9, 1, 4, 9, 2, 6, 6, 5, 3, 8]
SEQUENCES = [RNG.normal(size=(n, 2)) for n in LENGTHS]
FOLLOWING = [np.cumsum(sequence, axis=0)[:, :1] for sequence in SEQUENCES]


def test_buckets_hold_sequences_of_similar_length_each_once_an_epoch():
    data = BucketedBatches(SEQUENCES, FOLLOWING, 3, seed=4)
    assert len(data) == 4
    for epoch in range(3):
        seen = []
        for step in range(4 * epoch, 4 * epoch + 4):
            batch = data(step)
            lengths, width = batch["sequence_length"], batch["inputs"].shape[1]
            assert width == lengths.max()
            assert_trees_equal(batch["weights"], (np.arange(width) < lengths[:, None]).astype(np.float64))
            for row, target, n in zip(batch["inputs"], batch["targets"], lengths, strict=True):
                k = next(k for k, sequence in enumerate(SEQUENCES) if sequence[0, 0] == row[0, 0])
                assert_trees_equal((row[:n], target[:n]), (SEQUENCES[k], FOLLOWING[k]))
                assert (row[n:] == 0).all()
                assert (target[n:] == 0).all()
                seen.append(k)
        assert sorted(seen) == list(range(11))
    groups = sorted(sorted(data(step)["sequence_length"].tolist()) for step in range(4))
    assert groups == [[1, 2, 3], [3, 4, 5], [6, 6, 8], [9, 9]]  # sorted lengths, three at a time


def test_the_order_of_buckets_is_a_function_of_seed_and_epoch():
    def order(data, epoch):
        return [data(4 * epoch + k)["inputs"][0, 0, 0] for k in range(4)]

    first, again, other = (BucketedBatches(SEQUENCES, FOLLOWING, 3, seed=seed) for seed in (4, 4, 5))
    assert order(first, 0) == order(again, 0)
    assert len({tuple(order(data, epoch)) for data in (first, other) for epoch in range(4)}) > 4


@pytest.mark.parametrize(
    ("inputs", "targets", "batch_size", "message"),
    [
        ([], [], 2, "inputs must hold at least one sequence"),
        (SEQUENCES, FOLLOWING, 0, "batch_size must be a positive whole number"),
        (SEQUENCES, FOLLOWING[1:], 2, "inputs and targets must have equal lengths"),
        ([np.zeros(0)], [np.zeros(0)], 2, "inputs and targets must have equal lengths"),
    ],
)
def test_what_cannot_be_bucketed_is_refused(inputs, targets, batch_size, message):
    with pytest.raises(ValueError, match=f"BucketedBatches: {message}"):
        BucketedBatches(inputs, targets, batch_size)


MODEL = Sequential(LSTM(3), Dense(1))
PARAMS = MODEL.init(0, 2, np.float64)


def one_by_one(params):
    """The mean loss over all steps of all sequences, without any padding."""
    total = sum(losses.mse(MODEL(params, x[None]), y[None]) * len(x) for x, y in zip(SEQUENCES, FOLLOWING, strict=True))
    return total / sum(LENGTHS)


def test_full_bptt_over_padded_sequences_is_that_over_each_alone():
    """Outputs, state and loss know nothing of the padding."""
    optimizer = SGD(0.1)
    data = BucketedBatches(SEQUENCES, FOLLOWING, 11)
    result = fit(MODEL, PARAMS, losses.mse, data, optimizer=optimizer, epochs=2)
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(2):
        params, state = optimizer.update(params, value_and_grad(one_by_one)(params)[1], state)
    assert_trees_close(result.params, params, 1e-12)
    assert_close(result.history["loss"][0], one_by_one(PARAMS), 1e-12)


def test_val_loss_of_buckets_is_the_loss_on_all_steps():
    """Whatever the batches are: a long sequence counts for more than a short one, padding for nothing."""
    result = fit(
        MODEL, PARAMS, losses.mse, BucketedBatches(SEQUENCES, FOLLOWING, 3), optimizer=SGD(1e-12), epochs=1,
        validation_data=BucketedBatches(SEQUENCES, FOLLOWING, 4),
    )  # fmt: skip
    assert result.history["val_loss"] == [pytest.approx(one_by_one(result.params), rel=1e-9)]
    assert result.history["loss"] == [pytest.approx(one_by_one(result.params), rel=1e-9)]


def test_weighted_arrays_have_the_loss_of_all_their_steps_too():
    inputs, lengths = pad_sequences(SEQUENCES)
    targets, _ = pad_sequences(FOLLOWING)
    weights = (np.arange(inputs.shape[1]) < lengths[:, None]) * 1.0
    data = {"inputs": inputs, "targets": targets, "weights": weights, "sequence_length": lengths}
    result = fit(
        MODEL, PARAMS, losses.mse, data, optimizer=SGD(1e-12), epochs=1, batch_size=4, validation_data=data
    )
    assert result.history["loss"] == [pytest.approx(one_by_one(result.params), rel=1e-9)]
    assert result.history["val_loss"] == [pytest.approx(one_by_one(result.params), rel=1e-9)]
