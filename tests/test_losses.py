"""Losses against their formulas, their gradients against central differences, and masks that mask exactly."""

import warnings

import numpy as np
import pytest
from autograd.test_util import check_grads
from helpers import assert_close, assert_trees_equal

from minilstm import losses, value_and_grad

RNG = np.random.default_rng(5)
LOGITS = RNG.normal(size=(2, 3, 4))
TARGETS = {
    losses.mse: RNG.normal(size=(2, 3, 4)),
    losses.sigmoid_cross_entropy: RNG.random((2, 3, 4)),
    losses.softmax_cross_entropy: RNG.integers(0, 4, (2, 3)),
}
WEIGHTS = np.array([[1.0, 0.25, 0.0], [2.0, 0.0, 0.5]])
ALL = pytest.mark.parametrize("loss", list(TARGETS), ids=lambda loss: loss.__name__)


def entries(loss, outputs, targets):
    """The loss of every step, [batch, time], by the textbook."""
    if loss is losses.mse:
        return np.mean((outputs - targets) ** 2, axis=-1)
    if loss is losses.sigmoid_cross_entropy:
        p = 1 / (1 + np.exp(-outputs))
        return -np.mean(targets * np.log(p) + (1 - targets) * np.log(1 - p), axis=-1)
    p = np.exp(outputs) / np.exp(outputs).sum(axis=-1, keepdims=True)
    return -np.log(np.take_along_axis(p, targets[..., None], axis=-1)[..., 0])


@ALL
def test_without_weights_it_is_the_mean_over_all_steps(loss):
    assert_close(loss(LOGITS, TARGETS[loss]), entries(loss, LOGITS, TARGETS[loss]).mean(), 1e-14)


@ALL
def test_with_weights_it_is_the_weighted_mean(loss):
    wanted = (WEIGHTS * entries(loss, LOGITS, TARGETS[loss])).sum() / WEIGHTS.sum()
    assert_close(loss(LOGITS, TARGETS[loss], WEIGHTS), wanted, 1e-14)
    assert_close(loss(LOGITS, TARGETS[loss], 7 * WEIGHTS), wanted, 1e-14)
    assert_close(loss(LOGITS, TARGETS[loss], np.ones((2, 3))), loss(LOGITS, TARGETS[loss]), 1e-14)


@ALL
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_the_gradient_equals_central_differences(loss, weights):
    _, grad = value_and_grad(loss)(LOGITS, TARGETS[loss], weights)
    numeric = np.zeros_like(LOGITS)
    for place in np.ndindex(LOGITS.shape):
        step = np.zeros_like(LOGITS)
        step[place] = 1e-5
        numeric[place] = (
            loss(LOGITS + step, TARGETS[loss], weights) - loss(LOGITS - step, TARGETS[loss], weights)
        ) / 2e-5
    assert_close(grad, numeric, 1e-9, "gradient")
    assert np.abs(grad).max() > 0.01


@ALL
def test_what_a_zero_weight_masks_changes_no_bit(loss):
    wild = LOGITS.copy()
    wild[WEIGHTS == 0] = 1e6
    targets = TARGETS[loss].copy()
    targets[WEIGHTS == 0] = 0
    clean = value_and_grad(loss)(LOGITS, TARGETS[loss], WEIGHTS)
    value, grad = value_and_grad(loss)(wild, targets, WEIGHTS)
    assert value == clean[0]
    assert not grad[WEIGHTS == 0].any()
    assert_trees_equal(grad[WEIGHTS != 0], clean[1][WEIGHTS != 0])


@ALL
def test_padding_with_zero_weights_is_the_same_as_no_padding(loss):
    short = value_and_grad(loss)(LOGITS[:, :2], TARGETS[loss][:, :2])
    mask = np.array([[1.0, 1.0, 0.0]] * 2)
    value, grad = value_and_grad(loss)(LOGITS, TARGETS[loss], mask)
    assert_close(value, short[0], 1e-15)
    assert_close(grad[:, :2], short[1], 1e-15)


@ALL
def test_outputs_of_one_step_work_too(loss):
    value = loss(LOGITS[0], TARGETS[loss][0], WEIGHTS[0])
    wanted = (WEIGHTS[0] * entries(loss, LOGITS[0], TARGETS[loss][0])).sum() / WEIGHTS[0].sum()
    assert_close(value, wanted, 1e-14)


@ALL
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_value_and_gradient_have_the_outputs_dtype(loss, dtype, weights):
    outputs = LOGITS.astype(dtype)
    value, grad = value_and_grad(loss)(outputs, TARGETS[loss], weights)
    assert value.dtype == grad.dtype == dtype
    assert loss(outputs, TARGETS[loss], weights).dtype == dtype


@pytest.mark.parametrize("loss", [losses.sigmoid_cross_entropy, losses.softmax_cross_entropy])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits_overflow_nothing(loss, dtype):
    outputs = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype)
    targets = np.array([[1.0, 0], [1, 0]]) if loss is losses.sigmoid_cross_entropy else np.array([0, 0])
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        value, grad = value_and_grad(loss)(outputs, targets)
    assert value == (5000 if loss is losses.sigmoid_cross_entropy else 10000)
    assert np.isfinite(grad).all()


def test_even_odds_cost_a_log_of_the_number_of_classes():
    zeros = np.zeros((2, 3, 5))
    assert losses.softmax_cross_entropy(zeros, np.zeros((2, 3), int)) == pytest.approx(np.log(5))
    assert losses.sigmoid_cross_entropy(zeros, np.ones((2, 3, 5))) == pytest.approx(np.log(2))


def test_mse_is_differentiable_in_its_targets_too():
    targets = TARGETS[losses.mse]
    _, grad = value_and_grad(lambda t: losses.mse(LOGITS, t))(targets)
    assert_close(grad, 2 * (targets - LOGITS) / LOGITS.size, 1e-15)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_mse_has_all_second_derivatives(weights):
    scaled = lambda outputs, targets, factor: factor**2 * losses.mse(outputs, targets, weights)  # noqa: E731
    check_grads(scaled, (0, 1, 2), modes=["rev", "fwd"], order=2)(LOGITS, TARGETS[losses.mse], 1.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: losses.mse(LOGITS, LOGITS[..., 0]),
            r"mse: targets must have the shape of outputs \(2, 3, 4\), got \(2, 3\)",
        ),
        (lambda: losses.mse(LOGITS, LOGITS, WEIGHTS.T), r"mse: weights must have shape \(2, 3\).* got \(3, 2\)"),
        (lambda: losses.mse(LOGITS, LOGITS, 0 * WEIGHTS), "mse: weights must be 0 or more and not all 0"),
        (lambda: losses.mse(LOGITS, LOGITS, WEIGHTS - 0.1), "mse: weights must be 0 or more"),
        (lambda: losses.mse(LOGITS, LOGITS, WEIGHTS * np.nan), "mse: weights"),
        (
            lambda: losses.softmax_cross_entropy(LOGITS, np.full((2, 3), 4)),
            "targets must be labels from 0 to 3, got 4 to 4",
        ),
        (lambda: losses.softmax_cross_entropy(LOGITS, np.full((2, 3), -1)), "got -1 to -1"),
        (lambda: losses.softmax_cross_entropy(LOGITS, np.zeros((2, 3))), "integer labels, got dtype float64"),
        (lambda: losses.softmax_cross_entropy(LOGITS, np.zeros((2, 4), int)), r"targets must have shape \(2, 3\)"),
        (
            lambda: losses.sigmoid_cross_entropy(LOGITS, np.full((2, 3, 4), 1.5)),
            r"targets must be in \[0, 1\], got 1.5",
        ),
        (lambda: losses.sigmoid_cross_entropy(LOGITS, np.full((2, 3, 4), np.nan)), r"targets must be in \[0, 1\]"),
        (
            lambda: losses.sigmoid_cross_entropy(LOGITS, np.zeros((2, 3))),
            "sigmoid_cross_entropy: targets must have the shape",
        ),
    ],
)
def test_targets_and_weights_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("classes", [4, 50])
def test_many_classes_are_worked_off_in_pieces(classes, weights, monkeypatch):
    logits, labels = RNG.normal(size=(2, 3, classes)), RNG.integers(0, classes, (2, 3))
    whole = value_and_grad(losses.softmax_cross_entropy)(logits, labels, weights)
    monkeypatch.setattr(losses, "PIECE_BYTES", 2 * 8 * classes)
    assert_trees_equal(value_and_grad(losses.softmax_cross_entropy)(logits, labels, weights), whole)
    assert losses.softmax_cross_entropy(logits, labels, weights) == whole[0]
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    share = np.full((2, 3), 1 / 6) if weights is None else weights / weights.sum()
    assert_close(whole[1], (p - np.eye(classes)[labels]) * share[..., None], 1e-15)


@ALL
def test_a_gradient_may_be_taken_twice_and_has_a_gradient(loss):
    from autograd.core import make_vjp

    pull, _ = make_vjp(lambda x: loss(x, TARGETS[loss], WEIGHTS), LOGITS)
    first = pull(1.0).copy()
    assert_close(pull(2.0), 2 * first, 1e-15)
    norm = lambda x: (value_and_grad(lambda y: loss(y, TARGETS[loss], WEIGHTS))(x)[1] ** 2).sum()  # noqa: E731
    _, second = value_and_grad(norm)(LOGITS)
    step = np.zeros_like(LOGITS)
    step[0, 0, 1] = 1e-5
    assert_close(second[0, 0, 1], (norm(LOGITS + step) - norm(LOGITS - step)) / 2e-5, 1e-8)
    assert np.abs(second).max() > 1e-3
