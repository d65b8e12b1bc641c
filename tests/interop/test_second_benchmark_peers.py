"""The peers of the benchmark of second derivatives compute the same loss, gradient and product."""

import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_close, assert_trees_close

sys.path.insert(0, str(Path(__file__).parents[2]))
from experiments.benchmark import second, work

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("shape", [(6, 3, 2, 5), *second.SHAPES])
@pytest.mark.parametrize("peer", ["torch", "jax"])
def test_a_peer_agrees_with_minilstm(peer, shape, monkeypatch):
    monkeypatch.setenv("MINILSTM_COMPILED", "0")
    x, y = work.batches(shape)[1]
    loss, grads, product = second.outcome_of("minilstm", shape, x, y)
    its_loss, its_grads, its_product = second.outcome_of(peer, shape, x, y)
    assert_close(its_loss, loss, 1e-5)
    assert_trees_close(its_grads, grads, 1e-6)  # the numbers are small
    assert_trees_close(its_product, product, 1e-6)
    assert np.abs(product["kernel"]).max() > 1e-3
