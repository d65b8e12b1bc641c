"""predict in batches, generate step by step."""

import numpy as np
import pytest
from helpers import assert_close, assert_trees_equal

from minilstm import LSTM, Dense, Dropout, Embedding, Sequential, generate, predict

MODEL = Sequential(LSTM(4), Dropout(0.5), Dense(2))
PARAMS = MODEL.init(0, 2, np.float64)
PRIMER = np.random.default_rng(1).normal(size=(3, 5, 2))


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 7])
def test_predict_is_the_model_in_batches_of_any_size(batch_size):
    inputs = np.random.default_rng(0).normal(size=(7, 4, 2))
    outputs = predict(MODEL, PARAMS, inputs, batch_size)
    assert outputs.shape == (7, 4, 2)
    assert_close(outputs, MODEL(PARAMS, inputs), 1e-15)


def test_predict_never_asks_for_more_than_a_batch():
    sizes = []
    predict(lambda params, x: sizes.append(len(x)) or x, None, np.zeros((7, 1)), 3)
    assert sizes == [3, 3, 1]


def test_generate_feeds_every_output_back():
    generated = generate(MODEL, PARAMS, PRIMER, 6)
    assert generated.shape == (3, 6, 2)
    sequence = PRIMER
    for step in range(6):  # the long way: everything again for each step
        output = MODEL(PARAMS, sequence)[:, -1]
        assert_close(generated[:, step], output, 1e-13, f"step {step}")
        sequence = np.concatenate([sequence, output[:, None]], axis=1)


def test_generate_goes_on_from_a_state():
    _, state = MODEL.apply(PARAMS, PRIMER[:, :3])
    assert_close(generate(MODEL, PARAMS, PRIMER[:, 3:], 4, state=state), generate(MODEL, PARAMS, PRIMER, 4), 1e-14)
    assert np.abs(generate(MODEL, PARAMS, PRIMER[:, 3:], 4) - generate(MODEL, PARAMS, PRIMER, 4)).max() > 1e-3


def test_generate_maps_outputs_to_inputs():
    model = Sequential(LSTM(3), Dense(1))
    params = model.init(0, 2, np.float64)
    seen = []

    def next_input(output):
        seen.append(output)
        return np.concatenate([output, np.ones_like(output)], axis=1)

    generated = generate(model, params, PRIMER, 3, next_input=next_input)
    assert_trees_equal(np.stack(seen, axis=1), generated[:, :2])
    sequence = PRIMER
    for step in range(3):
        output = model(params, sequence)[:, -1]
        assert_close(generated[:, step], output, 1e-14)
        sequence = np.concatenate([sequence, next_input(output)[:, None]], axis=1)


def test_generate_samples_whole_numbers_from_a_seed():
    model = Sequential(Embedding(5, 3), LSTM(4), Dense(5))
    params = model.init(0)
    params["dense"]["bias"] += np.arange(5, dtype=np.float32)
    draws = []

    def sample(logits, rng):
        draws.append(np.argmax(logits + rng.gumbel(size=logits.shape), axis=1))
        return draws[-1]

    primer = np.array([[0, 1], [2, 3]])
    first = generate(model, params, primer, 6, next_input=sample, rng=3)
    assert_trees_equal(generate(model, params, primer, 6, next_input=sample, rng=3), first)
    assert np.abs(generate(model, params, primer, 6, next_input=sample, rng=4) - first).max() > 0
    assert {int(i) for draw in draws for i in draw} <= set(range(5))


def test_nothing_generated_is_an_empty_array_of_the_right_shape():
    assert generate(MODEL, PARAMS, PRIMER, 0).shape == (3, 0, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: predict(MODEL, PARAMS, np.zeros((0, 4, 2))),
            r"predict: inputs must not be empty, got shape \(0, 4, 2\)",
        ),
        (lambda: predict(MODEL, PARAMS, PRIMER, 0), "predict: batch_size must be a positive whole number, got 0"),
        (lambda: generate(MODEL, PARAMS, PRIMER, -1), "generate: steps must be a whole number of 0 or more, got -1"),
        (
            lambda: generate(MODEL, PARAMS, PRIMER[0], 2),
            r"inputs must be \[batch, time, features\], got shape \(5, 2\)",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_generate_wants_a_model_that_returns_sequences():
    model = Sequential(LSTM(3, return_sequences=False), Dense(2))
    with pytest.raises(ValueError, match="generate needs outputs of every step, but layer 'rnn' has return_seq"):
        generate(model, model.init(0, 2), PRIMER, 2)
