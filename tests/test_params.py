"""Trees, their names, and the messages about trees that do not match."""

from typing import NamedTuple

import numpy as np
import pytest
from helpers import assert_trees_equal
from hypothesis import given
from hypothesis import strategies as st

from minilstm import LSTMState
from minilstm.params import (
    flatten_names,
    get_path,
    set_path,
    tree_leaves,
    tree_map,
    tree_rows,
    tree_size,
    tree_unflatten,
    unflatten_names,
)

WORDS = st.text("abc_1", min_size=1, max_size=4)
NESTED = st.recursive(st.integers(0, 99), lambda sub: st.dictionaries(WORDS, sub, min_size=1, max_size=3), max_leaves=8)
TREES = st.recursive(
    st.one_of(st.integers(0, 99), st.none()),
    lambda sub: st.one_of(
        st.dictionaries(WORDS, sub, max_size=3),
        st.lists(sub, max_size=3),
        st.lists(sub, max_size=3).map(tuple),
        st.tuples(sub, sub).map(lambda pair: LSTMState(*pair)),
    ),
    max_leaves=10,
)


def same(a, b):
    """Equal in values and in the types of all containers."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@given(TREES)
def test_a_tree_is_its_leaves_and_its_structure(tree):
    leaves = tree_leaves(tree)
    assert None not in leaves
    assert same(tree_unflatten(tree, iter(leaves)), tree)
    doubled = tree_map(lambda leaf: 2 * leaf, tree)
    assert tree_leaves(doubled) == [2 * leaf for leaf in leaves]
    assert same(tree_map(lambda a, b: b - a, tree, doubled), tree)
    assert len(list(tree_rows(tree, doubled))) == len(tree_leaves(tree))


@given(st.dictionaries(WORDS, NESTED, min_size=1, max_size=3))
def test_names_are_the_paths_and_lead_back(tree):
    flat = flatten_names(tree)
    assert list(flat.values()) == tree_leaves(tree)
    assert same(unflatten_names(flat), tree)
    for name, leaf in flat.items():
        assert get_path(tree, name) == leaf


def test_leaves_come_in_the_order_of_the_first_tree():
    a, b = {"x": 1, "y": {"p": 2, "q": 3}}, {"y": {"q": 30, "p": 20}, "x": 10}
    assert tree_map(lambda m, n: (m, n), a, b) == {"x": (1, 10), "y": {"p": (2, 20), "q": (3, 30)}}


def test_the_worked_example_of_the_names():
    params = {"rnn": {"lstm_cell": {"kernel": 1, "bias": 2}}, "dense": {"kernel": 3}}
    flat = {"rnn/lstm_cell/kernel": 1, "rnn/lstm_cell/bias": 2, "dense/kernel": 3}
    assert flatten_names(params) == flat
    assert unflatten_names(flat) == params
    assert get_path(params, "rnn/gru_cell") is None
    assert get_path(params, "dense/kernel/deeper") is None
    assert flatten_names({}) == {}


class Other(NamedTuple):
    c: object


@pytest.mark.parametrize(
    ("tree", "other", "message"),
    [
        ({"a": {"b": 1}}, {"a": {"c": 1}}, r"differ at a: wanted keys \['b'\], got \['c'\]"),
        ({"a": 1}, [1], r"at the tree: wanted keys \['a'\], got list"),
        ({"a": [1, 2]}, {"a": [1]}, "at a: wanted 2 items, got 1 items"),
        ({"a": [1, {"x": 2}]}, {"a": [1, {"y": 2}]}, r"at a/1: wanted keys \['x'\]"),
        ([1, 2], 3, "wanted 2 items, got int"),
        ({"a": 1}, {"a": {}}, "at a: wanted an array, got dict"),
        ({"a": 1}, {"a": None}, "at a: wanted an array, got NoneType"),
        ({"a": None}, {"a": 1}, "at a: wanted nothing, got int"),
        (LSTMState(1, 2), Other(1), "wanted 2 items, got 1 items"),
    ],
)
def test_trees_that_differ_are_refused_at_the_first_difference(tree, other, message):
    for call in (lambda: list(tree_rows(tree, other)), lambda: tree_map(lambda a, b: a, tree, other)):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_state_may_be_any_pair():
    assert list(tree_rows(LSTMState(1, 2), (3, 4))) == [(1, 3), (2, 4)]
    assert same(tree_map(lambda a, b: a + b, LSTMState(1, 2), (3, 4)), LSTMState(4, 6))


@pytest.mark.parametrize("flat", [{"a": 1, "a/b": 2}, {"a/b": 2, "a": 1}, {"a/b/c": 1, "a/b": 2}])
def test_a_name_that_is_also_a_folder_is_refused(flat):
    with pytest.raises(ValueError, match="names clash: 'a"):
        unflatten_names(flat)


def test_dicts_merge_under_a_path_and_arrays_do_not():
    tree = {}
    set_path(tree, "enc/a", {"kernel": 1})
    set_path(tree, "enc/a", {"bias": 2})
    set_path(tree, "enc/b", {"kernel": 3})
    assert tree == {"enc": {"a": {"kernel": 1, "bias": 2}, "b": {"kernel": 3}}}
    with pytest.raises(ValueError, match="'enc/a' is already taken"):
        set_path(tree, "enc/a", {"kernel": 9})


def test_the_size_counts_scalars():
    assert tree_size({"a": np.zeros((2, 3)), "b": [np.zeros(()), None, np.zeros((0, 4))]}) == 7


def test_mapping_leaves_the_tree_as_it_was():
    tree = {"a": np.ones(2)}
    tree_map(lambda leaf: leaf * 2, tree)
    assert_trees_equal(tree, {"a": np.ones(2)})
