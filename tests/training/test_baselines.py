"""What a forecast without a model scores: the formulas, and where fit shows them."""

import csv

import numpy as np
import pytest

from minilstm import LSTM, SGD, Dense, Embedding, Sequential, fit, losses
from minilstm.training.baselines import baselines

RNG = np.random.default_rng(3)
INPUTS, TARGETS = RNG.normal(size=(2, 5, 4, 3)) + 2
WEIGHTS = RNG.uniform(size=(5, 4)) * (RNG.uniform(size=(5, 4)) > 0.3)
LABELS = RNG.integers(0, 3, size=(5, 4))
BITS = (RNG.uniform(size=(5, 4, 3)) < [0.3, 0.5, 0.7]).astype(np.float64)


def found(loss, targets, weights=None, inputs=INPUTS):
    return baselines(loss, {"inputs": inputs, "targets": targets, "weights": weights})


def every_step(targets, weights):
    """(target, share) of every step that counts; shares sum to 1."""
    shares = np.ones((5, 4)) if weights is None else weights
    return [(targets[b, t], shares[b, t] / shares.sum()) for b in range(5) for t in range(4)]


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weights"])
def test_the_mean_and_persistence(weights):
    steps, inputs = every_step(TARGETS, weights), every_step(INPUTS, weights)
    mean = sum(share * target for target, share in steps)
    assert found(losses.mse, TARGETS, weights) == {
        "mean": pytest.approx(sum(share * np.mean((target - mean) ** 2) for target, share in steps), rel=1e-12),
        "persistence": pytest.approx(
            sum(share * np.mean((x - y) ** 2) for (x, _), (y, share) in zip(inputs, steps, strict=True)), rel=1e-12
        ),
    }


def test_the_mean_alone_where_inputs_are_no_forecast():
    assert set(found(losses.mse, TARGETS[..., :1])) == {"mean"}
    assert set(found(losses.mse, TARGETS, inputs=LABELS)) == {"mean"}
    assert found(losses.mse, TARGETS[:, 0], inputs=INPUTS)["mean"] == pytest.approx(TARGETS[:, 0].var(axis=0).mean())


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weights"])
def test_the_frequencies_of_labels(weights):
    steps = every_step(LABELS, weights)
    shares = [sum(share for label, share in steps if label == k) for k in range(3)]
    wanted = -sum(share * np.log(shares[label]) for label, share in steps)
    assert found(losses.softmax_cross_entropy, LABELS, weights) == {"unigram": pytest.approx(wanted, rel=1e-12)}


def test_labels_that_do_not_occur_cost_nothing():
    assert found(losses.softmax_cross_entropy, np.full((5, 4), 7)) == {"unigram": 0}
    assert found(losses.softmax_cross_entropy, np.array([[0, 5]] * 2))["unigram"] == pytest.approx(np.log(2))


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weights"])
def test_the_rates_of_bits(weights):
    steps = every_step(BITS, weights)
    rates = sum(share * bits for bits, share in steps)
    wanted = -sum(share * np.mean(bits * np.log(rates) + (1 - bits) * np.log(1 - rates)) for bits, share in steps)
    assert found(losses.sigmoid_cross_entropy, BITS, weights) == {"rates": pytest.approx(wanted, rel=1e-9)}


def test_bits_that_never_change_cost_nothing():
    assert found(losses.sigmoid_cross_entropy, np.ones((2, 2, 1)))["rates"] == pytest.approx(0, abs=1e-10)


def test_a_loss_of_ones_own_has_none():
    assert found(lambda outputs, targets, weights=None: 0.0, TARGETS) == {}


def test_float32_is_as_good():
    single = baselines(losses.mse, {"inputs": INPUTS.astype(np.float32), "targets": TARGETS.astype(np.float32)})
    assert single == pytest.approx(found(losses.mse, TARGETS), rel=1e-5)
    assert {type(value) for value in single.values()} == {float}


# --- beside every loss ----------------------------------------------------------------------------------------

MODEL = Sequential(LSTM(3), Dense(3))
OPTIONS = {"optimizer": SGD(0.1), "epochs": 2, "batch_size": 2}


def test_fit_returns_those_of_all_training_data_and_writes_them_beside_the_loss(run_dir):
    params, data = MODEL.init(0, 3, np.float64), (INPUTS, TARGETS, WEIGHTS)
    result = fit(MODEL, params, losses.mse, data, checkpoint_dir=run_dir, **OPTIONS)
    assert result.baselines == pytest.approx(found(losses.mse, TARGETS, WEIGHTS))
    with open(run_dir / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row in rows:
        assert float(row["baseline_mean"]) == result.baselines["mean"]
        assert float(row["baseline_persistence"]) == result.baselines["persistence"]


def test_callbacks_and_the_bar_see_them(capsys):
    model, seen = Sequential(Embedding(3, 2), LSTM(3), Dense(3)), []
    fit(model, model.init(0), losses.softmax_cross_entropy, (LABELS, LABELS), progress=True,
        callbacks=[lambda result: seen.append(result.baselines)], **OPTIONS)  # fmt: skip
    wanted = found(losses.softmax_cross_entropy, LABELS)
    assert seen == [pytest.approx(wanted)] * 2
    assert f"unigram {wanted['unigram']:.4g}" in capsys.readouterr().err


def test_they_are_what_an_untrained_forecast_of_that_kind_scores():
    """The model that is the baseline: an output bias at the mean, all else zero."""
    params = MODEL.init(0, 3, np.float64)
    params["dense"]["kernel"][:] = 0
    params["dense"]["bias"][:] = TARGETS.mean(axis=(0, 1))
    result = fit(MODEL, params, losses.mse, (INPUTS, TARGETS), **{**OPTIONS, "optimizer": SGD(1e-12)})
    assert result.history["loss"][0] == pytest.approx(result.baselines["mean"], rel=1e-9)


def test_a_loss_function_of_ones_own_goes_without():
    loss_fn = lambda params, batch, state, rng: (losses.mse(MODEL(params, batch[0]), batch[1]), state)  # noqa: E731
    result = fit(params=MODEL.init(0, 3), data=(INPUTS, TARGETS), loss_fn=loss_fn, **OPTIONS)
    assert result.baselines == {}
