"""Batches, windows, and the three kinds of sources."""

import numpy as np
import pytest
from helpers import assert_trees_equal
from hypothesis import given
from hypothesis import strategies as st

from minilstm import data


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.booleans())
def test_windows_are_every_stretch_of_the_series(size, length, stride, features):
    series = np.arange(2.0 * size).reshape(size, 2) if features else np.arange(float(size))
    if length > size:
        with pytest.raises(ValueError, match=f"length must be from 1 to {size}, got {length}"):
            data.sliding_windows(series, length, stride)
        return
    wanted = [series[k : k + length] for k in range(0, size - length + 1, stride)]
    found = data.sliding_windows(series, length, stride)
    assert_trees_equal(found, np.array(wanted))
    found[...] = -1
    assert (series >= 0).all()  # a copy


@pytest.mark.parametrize(("length", "stride", "name"), [(0, 1, "length"), (-1, 1, "length"), (2, 0, "stride")])
def test_windows_that_make_no_sense_are_refused(length, stride, name):
    with pytest.raises(ValueError, match=f"sliding_windows: {name} must"):
        data.sliding_windows(np.arange(5.0), length, stride)


@given(st.integers(1, 20), st.integers(1, 25), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_holds_every_sequence_once(size, batch_size, seed, epoch):
    tree = {"x": np.arange(size), "y": [np.arange(size) * 2.0]}
    batches = list(data.shuffled_batches(tree, batch_size, seed, epoch))
    assert [len(batch["x"]) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    order = np.concatenate([batch["x"] for batch in batches])
    assert sorted(order) == list(range(size))
    assert_trees_equal(np.concatenate([batch["y"][0] for batch in batches]), order * 2.0)
    again = list(data.shuffled_batches(tree, batch_size, seed, epoch))
    assert_trees_equal(again, batches)


def test_another_seed_or_epoch_is_another_order():
    orders = {tuple(next(data.shuffled_batches(np.arange(30), 30, seed, epoch))) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_as_batch_takes_the_three_ways_to_write_one():
    x, y, w = np.zeros(2), np.ones(2), np.full(2, 0.5)
    for given_, wanted in [
        ((x, y), {"inputs": x, "targets": y}),
        ([x, y, w], {"inputs": x, "targets": y, "weights": w}),
        ({"inputs": x, "targets": y, "weights": w}, {"inputs": x, "targets": y, "weights": w}),
    ]:
        assert_trees_equal(data.as_batch(given_), wanted)


@pytest.mark.parametrize("wrong", [np.zeros(3), (np.zeros(2),), (1, 2, 3, 4), {"x": np.zeros(2)}, None, "batch"])
def test_as_batch_refuses_everything_else(wrong):
    with pytest.raises(ValueError, match=r"fit: data: wanted a dict with 'inputs', \(inputs, targets\) or"):
        data.as_batch(wrong, "fit: data")


def test_only_floating_arrays_are_converted():
    tree = {
        "a": np.zeros(2, np.float64),
        "b": np.zeros(2, np.int64),
        "c": [np.zeros(2, np.float32), [1.5, 2.5]],
        "d": None,
    }
    converted = data.to_dtype(tree, np.float32)
    assert [converted["a"].dtype, converted["b"].dtype] == [np.float32, np.int64]
    assert converted["c"][0] is tree["c"][0]
    assert converted["d"] is None


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"inputs": np.zeros((0, 2))}, r"here: inputs must not be empty, got shape \(0, 2\)"),
        ({"inputs": np.zeros(())}, r"inputs must not be empty, got shape \(\)"),
        ({"inputs": np.array([[1, np.nan]])}, r"inputs holds nan at \(0, 1\); every number must be finite"),
        ({"inputs": np.zeros(2), "weights": np.array([1.0, np.inf])}, r"weights holds inf at \(1,\)"),
        ({"inputs": np.zeros(2), "targets": np.zeros(3)}, "same number of sequences, got .*2.*3"),
        ((np.zeros(2), np.array([np.nan, 0])), r"1 holds nan at \(0,\)"),
    ],
)
def test_a_batch_that_is_empty_uneven_or_not_finite_is_refused(batch, message):
    with pytest.raises(ValueError, match=message):
        data.check_batch(batch, "here")


def test_a_batch_may_be_any_tree_of_arrays():
    data.check_batch({"inputs": np.zeros((4, 2)), "deep": [np.zeros(4, int), None]}, "here")  # nothing is wrong
