"""Adam piece by piece: the bits of the readable rule."""

import numpy as np
import pytest
from helpers import assert_trees_equal
from hypothesis import given
from hypothesis import strategies as st

from minilstm import Adam
from minilstm.fast.adam import JOINED, PIECE, FastAdam


@given(
    st.sampled_from([(), (1,), (7,), (3, 4), (PIECE,), (PIECE + 3,), (2, PIECE // 2 + 1)]),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
    st.integers(0, 999),
)
def test_the_fast_rule_has_the_bits_of_the_readable_one(shape, dtype, donate, seed):
    rng = np.random.default_rng(seed)
    w, g, m, v = (np.asarray(rng.normal(size=shape), dtype) for _ in range(4))
    v = v * v
    adam, rate = Adam(1e-2, beta1=0.8, beta2=0.95, epsilon=1e-3), 0.0123
    wanted = [np.asarray(x) for x in adam.rule(rate, w, g, m, v)]
    given_state = m.copy(), v.copy()
    found = FastAdam(adam.beta1, adam.beta2, adam.epsilon, rate, donate)([(w, g, *given_state)])[0]
    assert_trees_equal(list(found), wanted)
    assert all(new.shape == shape and new.dtype == dtype for new in found)
    if shape and not donate:
        assert_trees_equal(list(given_state), [m, v])


@pytest.mark.parametrize("donate", [False, True])
def test_arrays_that_are_not_contiguous_or_read_only_are_copied(donate):
    rng = np.random.default_rng(0)
    w, g, m, v = (rng.uniform(size=(4, 6)) for _ in range(4))
    adam = Adam(1e-2)
    wanted = adam.rule(0.01, w, g, m, v)
    turned = [np.asfortranarray(x) for x in (w, g, m, v)]
    for x in turned:
        x.flags.writeable = False
    assert_trees_equal(FastAdam(adam.beta1, adam.beta2, adam.epsilon, 0.01, donate)([turned])[0], wanted)


def test_small_arrays_are_joined_and_come_back_in_their_places():
    rng = np.random.default_rng(0)
    kinds = [((3,), "f4"), ((JOINED + 1,), "f4"), ((2, 5), "f8"), ((), "f4"), ((0, 4), "f4"), ((7, 2), "f4")]
    rows = [[np.asarray(rng.uniform(size=shape), dtype) for _ in range(4)] for shape, dtype in kinds]
    adam = Adam(1e-2)
    for (shape, dtype), row, found in zip(
        kinds, rows, FastAdam(adam.beta1, adam.beta2, adam.epsilon, 0.01, False)(rows), strict=True
    ):
        assert all(new.shape == shape and new.dtype == dtype for new in found)
        assert_trees_equal(list(found), [np.asarray(x) for x in adam.rule(0.01, *row)])
