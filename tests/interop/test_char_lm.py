"""The character model and PyTorch's nn.LSTM: the same weights give the same outputs, and both learn equally well."""

import os
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from helpers import assert_close

sys.path.insert(0, str(Path(__file__).parents[2]))
from experiments import char_lm, char_lm_text
from experiments.char_lm_torch import SETTINGS, TorchModel, Turns, compare

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def corpus():
    return char_lm_text.read_corpus()


def test_with_our_weights_pytorch_computes_the_same(corpus):
    settings = SETTINGS._replace(units=16, layers=3)
    model = char_lm.build(len(corpus.vocabulary), settings)
    params = model.init(1)
    peer = TorchModel(len(corpus.vocabulary), settings, seed=0)
    peer.copy_weights(model, params)
    first, second = np.split(corpus.training[:120].reshape(2, 60), 2, axis=1)
    ours, state = model.apply(params, first)
    theirs, their_state = peer.forward(first, None)
    assert_close(theirs.detach().numpy(), ours, 2e-6)
    assert_close(peer.forward(second, their_state)[0].detach().numpy(), model(params, second, state=state), 2e-6)


def test_both_get_the_same_batches_in_turn():
    """Each trains on every window once, and no time is counted twice."""

    class Batches:
        def __call__(self, step):
            return step

    class Peer:
        trained: ClassVar = []
        train_on = trained.append

    turns = Turns(Batches(), Peer, block=3)
    assert [turns(step) for step in range(6)] == [0, 1, 2, 3, 4, 5]
    assert Peer.trained == [0, 1, 2]
    turns.turn()
    assert Peer.trained == [0, 1, 2, 3, 4, 5]
    assert len(turns.ours) == len(turns.theirs) == 2
    assert min(turns.ours + turns.theirs) >= 0


def check(found, corpus):
    """Both have learned something, and their scores differ by at most one percent."""
    ours, theirs = found["bits_per_character"].values()
    assert ours < char_lm_text.bits(char_lm_text.simple_forecasts(corpus, scored=1000)["unigram"])
    assert ours == pytest.approx(theirs, rel=0.01)


def test_from_our_weights_both_learn_alike():
    corpus = char_lm_text.read_corpus(limit=30_000)
    settings = SETTINGS._replace(units=32, batch_size=10, num_steps=20, learning_rate=5e-3)
    found = compare(corpus, settings, windows=300, block=60, seed=0, same_weights=True, progress=False)
    check(found, corpus)
    assert found["initial_weights"] == "ours in both"
    assert len(found["seconds_by_block"]["torch"]) == 5


if os.environ.get("MINILSTM_FULL"):  # not a skip: the interop runner allows none

    def test_from_its_own_weights_each_scores_the_same(corpus):
        check(compare(corpus, SETTINGS, 2000, 100, seed=0, same_weights=False, progress=False), corpus)
