"""sampler: how labels are drawn from logits, and text with it. test_inference.py has predict and generate."""

import tracemalloc

import numpy as np
import pytest
from helpers import assert_close, assert_trees_equal
from hypothesis import given
from hypothesis import strategies as st

from minilstm import LSTM, Adam, Dense, Embedding, Sequential, fit, generate, losses, predict, sampler

LOGITS = np.log(np.array([0.5, 0.25, 0.15, 0.07, 0.03]))


def draws(count=20_000, seed=0, logits=LOGITS, **options):
    """How often each label comes, as shares."""
    labels = sampler(**options)(np.broadcast_to(logits, (count, 5)), np.random.default_rng(seed))
    assert labels.shape == (count,)
    assert labels.dtype.kind == "i"
    return np.bincount(labels, minlength=5) / count


@pytest.mark.parametrize("temperature", [0.25, 0.7, 1.0, 2.0, 10.0])
@pytest.mark.parametrize("top_k", [None, 1, 2, 3, 5, 9])
def test_labels_come_as_often_as_the_softmax_says(temperature, top_k):
    wanted = np.exp(LOGITS / temperature)
    wanted[top_k or 5 :] = 0
    wanted /= wanted.sum()
    found = draws(temperature=temperature, top_k=top_k)
    assert (found[wanted == 0] == 0).all()
    assert np.abs(found - wanted).max() < 4 * np.sqrt(0.25 / 20_000)  # four standard deviations


def test_the_defaults_are_the_softmax_itself():
    np.testing.assert_allclose(draws(), np.exp(LOGITS), atol=0.015)


def test_a_temperature_of_0_takes_the_likeliest():
    assert draws(temperature=0).tolist() == [1, 0, 0, 0, 0]
    assert draws(temperature=0, top_k=3).tolist() == [1, 0, 0, 0, 0]
    assert draws(temperature=1e-3).tolist() == [1, 0, 0, 0, 0]
    logits = np.array([[0.0, 3, 1], [2, 1, 0]])
    assert sampler(0)(logits, np.random.default_rng(0)).tolist() == [1, 0]


@given(st.integers(0, 99), st.integers(1, 6), st.integers(1, 8))
def test_only_the_likeliest_k_can_come(seed, top_k, classes):
    logits = np.random.default_rng(seed).normal(size=(30, classes))
    labels = sampler(temperature=5.0, top_k=top_k)(logits, np.random.default_rng(seed))
    ranks = (logits > np.take_along_axis(logits, labels[:, None], axis=1)).sum(axis=1)
    assert (ranks < top_k).all()


def test_rows_are_drawn_apart_and_large_logits_do_no_harm():
    logits = np.array([[1e5, 0, -1e5], [-1e5, 1e5, 0]], np.float32)
    assert sampler()(logits, np.random.default_rng(0)).tolist() == [0, 1]
    same = sampler()(np.zeros((1000, 4)), np.random.default_rng(1))
    assert np.bincount(same).min() > 180  # as likely, and not all rows alike


def test_it_is_a_function_of_logits_and_generator():
    labels = [sampler(0.9)(np.zeros((20, 5)), np.random.default_rng(seed)).tolist() for seed in (0, 0, 1)]
    assert labels[0] == labels[1] != labels[2]
    logits = np.broadcast_to(LOGITS, (3, 5))
    sampler(0.5, 2)(logits, np.random.default_rng(0))
    assert_trees_equal(logits[0], LOGITS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "sampler: temperature must be 0 or more, got -0.1"),
        ({"temperature": np.nan}, "sampler: temperature must be 0 or more, got nan"),
        ({"top_k": 0}, "sampler: top_k must be a positive whole number, got 0"),
        ({"top_k": -3}, "sampler: top_k must be a positive whole number, got -3"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sampler(**options)


# --- text -----------------------------------------------------------------------------------------------------

TEXT = np.tile([0, 1, 2, 3, 4, 5], 30)
MODEL = Sequential(Embedding(6, 4), LSTM(8), Dense(6))


@pytest.fixture(scope="module")
def trained():
    """A model that knows how to count to five."""
    rows = TEXT[:-1].reshape(1, -1), TEXT[1:].reshape(1, -1)
    data = tuple(np.concatenate([part[:, k : k + 20] for k in range(0, 150, 7)]) for part in rows)
    result = fit(MODEL, MODEL.init(0), losses.softmax_cross_entropy, data, optimizer=Adam(0.05), epochs=40)
    assert result.history["loss"][-1] < 0.1
    return result.params


def text(params, steps=12, model=MODEL, primer=((0, 1, 2), (4, 5, 0)), rng=0, **options):
    """What `generate` makes with `sampler`: (labels fed back [batch, steps - 1], logits)."""
    seen, draw = [], sampler(**options)

    def next_input(logits, generator):
        seen.append(draw(logits, generator))
        return seen[-1]

    logits = generate(model, params, np.array(primer), steps, next_input=next_input, rng=rng)
    return np.stack(seen, axis=1), logits


def test_what_was_learnt_is_generated_greedily(trained):
    labels, _ = text(trained, temperature=0)
    assert labels.tolist() == [[(3 + k) % 6 for k in range(11)], [(1 + k) % 6 for k in range(11)]]


def test_the_same_seed_writes_the_same_text_and_another_one_another():
    params = MODEL.init(1)
    runs = [text(params, 30, rng=seed)[0].tolist() for seed in (3, 3, 4, [3, 1])]
    assert runs[0] == runs[1]
    assert len({str(run) for run in runs}) == 3
    assert {label for row in runs[0] for label in row} == set(range(6))


def test_every_label_is_drawn_from_the_output_before_it_and_fed_back(trained):
    labels, logits = text(trained, temperature=2.0, top_k=2)
    for batch in range(2):
        sequence = [list(row) for row in ((0, 1, 2), (4, 5, 0))][batch]
        for step in range(11):
            output = MODEL(trained, np.array([sequence]))[0, -1]
            assert_close(logits[batch, step], output, 1e-5)
            assert labels[batch, step] in np.argsort(output)[-2:]
            sequence.append(int(labels[batch, step]))
    assert (labels[0] != np.argmax(logits[0, :-1], axis=-1)).any()


# --- a step at a time -----------------------------------------------------------------------------------------


class Watched(Sequential):
    """A model that notes the shapes of its inputs."""

    def apply(self, params, inputs, **options):
        self.__dict__.setdefault("shapes", []).append(inputs.shape)
        return super().apply(params, inputs, **options)


def test_after_the_primer_a_model_sees_one_step_at_a_time():
    model = Watched(Embedding(6, 4), LSTM(8), Dense(6))
    text(MODEL.init(0), 9, model=model)
    assert model.shapes == [(2, 3)] + [(2, 1)] * 8
    model.shapes.clear()
    generate(model, MODEL.init(0), np.zeros((2, 5), int), 1, next_input=sampler(), rng=0)
    assert model.shapes == [(2, 5)]


def test_memory_does_not_grow_but_for_what_is_generated():
    model = Sequential(LSTM(32), Dense(1))
    params = model.init(0, 1)

    def peak(steps):
        tracemalloc.start()
        generated = generate(model, params, np.zeros((1, 2, 1), np.float32), steps)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found - generated.nbytes

    peak(5)
    short, long = peak(20), peak(1000)
    assert long < short + 60_000, f"{short} bytes for 20 steps, {long} for 1000"


# --- predict --------------------------------------------------------------------------------------------------


def test_predict_shows_its_batches_where_it_is_asked_to(capsys):
    inputs = np.zeros((7, 3, 1), np.float32)
    model = Sequential(LSTM(2), Dense(1))
    params = model.init(0, 1)
    quiet = predict(model, params, inputs, 2)
    assert capsys.readouterr() == ("", "")
    shown = predict(model, params, inputs, 2, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "4/4" in err
    assert "sequences/s" in err
    assert_trees_equal(shown, quiet)


def test_predict_holds_one_batch_of_activations_at_a_time(monkeypatch):
    monkeypatch.setattr("minilstm.fast.memory.RECYCLED", 1 << 40)  # what is used again would not be counted
    model = Sequential(LSTM(32, return_sequences=False), Dense(1))
    params = model.init(0, 1)
    inputs = np.zeros((256, 20, 1), np.float32)

    def peak(batch_size):
        predict(model, params, inputs, batch_size)  # workspaces are kept from call to call
        tracemalloc.start()
        predict(model, params, inputs, batch_size)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(8) < peak(None) / 5
