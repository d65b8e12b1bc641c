"""Where batches come from: arrays, callables, iterables."""

import numpy as np
import pytest
from helpers import assert_trees_equal

from minilstm.training.sources import as_source


def source(given_, **options):
    options = {"batch_size": 2, "seed": 0, "steps_per_epoch": None, "resume": False, "any_tree": False, **options}
    return as_source(given_, np.float64, **options)


def steps(found):
    return [float(batch["inputs"][0]) for batch in found]


def numbered(step):
    return {"inputs": np.array([float(step)]), "targets": np.zeros(1)}


@pytest.mark.parametrize("kind", ["callable", "list", "iterable"])
def test_sources_of_batches_start_within_an_epoch(kind):
    batches = [numbered(step) for step in range(6)]
    given_ = {"callable": numbered, "list": batches, "iterable": iter(batches)}[kind]
    first = source(given_, steps_per_epoch=3)
    assert first.batches_per_epoch == 3
    assert steps(first.epoch(1, 1)) == [4, 5]  # earlier batches are skipped


def test_an_iterable_goes_on_from_epoch_to_epoch():
    first = source(iter([numbered(step) for step in range(6)]), steps_per_epoch=3)
    assert steps(first.epoch(0)) + steps(first.epoch(1)) == list(range(6))
    with pytest.raises(ValueError, match="data ended after 6 batches, wanted one for step 6"):
        next(first.epoch(2))


def test_arrays_start_within_an_epoch_in_the_same_order():
    tree = {"inputs": np.arange(7.0), "targets": np.zeros(7)}
    whole = list(source(tree).epoch(3))
    assert source(tree).batches_per_epoch == len(whole) == 4
    assert_trees_equal(list(source(tree).epoch(3, 2)), whole[2:])


def test_a_checked_batch_names_its_step():
    bad = source(lambda step: (np.full(1, np.nan if step == 4 else 0.0), np.zeros(1)), steps_per_epoch=3)
    list(bad.epoch(0))
    with pytest.raises(ValueError, match="batch of step 4: inputs holds nan"):
        list(bad.epoch(1))


@pytest.mark.parametrize("kind", ["arrays", "callable", "iterable"])
def test_a_look_at_the_first_batch_loses_nothing(kind):
    data, steps_per_epoch = {
        "arrays": ({"inputs": np.arange(3.0), "targets": np.zeros(3)}, None),
        "callable": (numbered, 3),
        "iterable": (iter([numbered(step) for step in range(3)]), 3),
    }[kind]
    found = source(data, steps_per_epoch=steps_per_epoch, batch_size=1)
    assert found.first()["inputs"][0] == 0
    assert sorted(steps(found.epoch(0))) == [0, 1, 2]
