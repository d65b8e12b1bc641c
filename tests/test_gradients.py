"""value_and_grad over trees, derivatives of derivatives, and clipping by the global norm."""

from typing import NamedTuple

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from helpers import assert_close, assert_trees_close, assert_trees_equal, golden, largest

from minilstm import LSTM, Dense, LSTMState, Sequential, clip_by_global_norm, global_norm, losses, value_and_grad
from minilstm.params import tree_leaves, tree_map


class Pair(NamedTuple):
    left: object
    right: object


def test_every_kind_of_tree_comes_back_as_it_went_in():
    tree = {
        "z": [np.array([1.0, 2.0]), (np.array([[3.0]]), None)],
        "a": Pair(np.array(4.0), {"n": np.ones(2)}),
        "e": {},
    }
    loss, grads = value_and_grad(lambda t: sum(anp.sum(leaf**2) for leaf in tree_leaves(t)))(tree)
    assert loss == 1 + 4 + 9 + 16 + 2
    assert_trees_equal(grads, tree_map(lambda w: 2 * w, tree))
    assert list(grads) == ["z", "a", "e"]
    assert type(grads["a"]) is Pair
    assert type(grads["z"][1]) is tuple
    assert grads["z"][1][1] is None
    assert grads["e"] == {}


def test_an_array_alone_is_a_tree():
    loss, grad = value_and_grad(lambda w: anp.sum(w**3))(np.array([1.0, -2.0]))
    assert loss == -7
    assert grad.tolist() == [3, 12]


def test_the_gradient_equals_autograds_own():
    rng = np.random.default_rng(0)
    model = Sequential(LSTM(3), Dense(2))
    params, inputs = model.init(0, 2, np.float64), rng.normal(size=(4, 5, 2))
    loss = lambda p: anp.mean(model(p, inputs) ** 2)  # noqa: E731
    value, grads = value_and_grad(loss)(params)
    assert value == loss(params)
    assert_trees_close(grads, autograd.grad(loss)(params), 1e-15)


def test_other_arguments_are_passed_on():
    function = lambda w, x, *, scale: scale * anp.sum(w * x)  # noqa: E731
    _, grad = value_and_grad(function)(np.ones(2), np.array([1.0, 3.0]), scale=2.0)
    assert grad.tolist() == [2, 6]


def test_leaves_without_a_part_in_the_loss_get_zeros():
    tree = {"used": np.ones(2, np.float32), "unused": np.ones((2, 3), np.float32), "scalar": np.array(1.0)}
    loss, grads = value_and_grad(lambda t: anp.sum(t["used"]))(tree)
    assert loss == 2
    assert_trees_equal(grads, {**tree_map(np.zeros_like, tree), "used": np.ones(2, np.float32)})
    loss, grads = value_and_grad(lambda t: 5.0)(tree)
    assert loss == 5
    assert largest(grads) == 0


def test_a_leaf_that_is_the_loss_and_a_leaf_used_twice():
    assert value_and_grad(lambda w: w)(np.array(3.0))[1] == 1
    _, grads = value_and_grad(lambda t: t["w"] * t["w"] + t["w"])({"w": np.array(3.0)})
    assert grads["w"] == 7


def test_aux_comes_back_unboxed():
    def function(params, x):
        h = anp.tanh(params["w"] * x)
        return anp.sum(h), {"h": h, "state": LSTMState(h, x), "label": np.array(3), "none": None}

    (loss, aux), grads = value_and_grad(function, has_aux=True)({"w": np.ones(2)}, np.array([0.5, 1.0]))
    assert type(loss) is np.float64
    assert type(aux["h"]) is np.ndarray
    assert type(aux["state"]) is LSTMState
    assert aux["none"] is None
    np.testing.assert_array_equal(aux["h"], np.tanh([0.5, 1.0]))
    np.testing.assert_allclose(grads["w"], np.array([0.5, 1.0]) * (1 - np.tanh([0.5, 1.0]) ** 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_have_the_parameters_dtype_and_are_contiguous(dtype):
    tree = {"m": np.ones((3, 4), dtype), "s": np.array(2, dtype)}
    loss, grads = value_and_grad(lambda t: anp.sum(t["m"].T * np.arange(3.0, dtype=dtype)) * t["s"])(tree)
    assert loss.dtype == dtype
    for name, grad in grads.items():
        assert (grad.dtype, grad.shape) == (dtype, tree[name].shape), name
        assert grad.flags.c_contiguous, name
    assert grads["m"].tolist() == [[0] * 4, [2] * 4, [4] * 4]


def test_a_gradient_can_be_differentiated_again():
    cubic = lambda w: anp.sum(w["x"] ** 3) + w["x"][0] * w["y"]  # noqa: E731

    def squared_gradient(w):
        return sum(anp.sum(g**2) for g in tree_leaves(value_and_grad(cubic)(w)[1]))

    x, y = np.array([1.0, -2.0]), np.array(0.5)
    _, second = value_and_grad(squared_gradient)({"x": x, "y": y})
    inner = 3 * x**2 + np.array([0.5, 0])
    np.testing.assert_allclose(second["x"], 2 * inner * 6 * x + np.array([2 * x[0], 0]))
    np.testing.assert_allclose(second["y"], 2 * inner[0])


def test_the_value_of_an_inner_gradient_is_differentiable_too():
    def outer(w):
        (loss, aux), _ = value_and_grad(lambda v: (anp.sum(v * w), (v * w, w)), has_aux=True)(np.ones(2))
        return loss + anp.sum(aux[0] ** 2) + anp.sum(aux[1] ** 3)

    _, grad = value_and_grad(outer)(np.array([2.0, 3.0]))
    assert grad.tolist() == [1 + 4 + 12, 1 + 6 + 27]


@pytest.mark.parametrize("loss", [losses.mse, losses.sigmoid_cross_entropy, losses.softmax_cross_entropy])
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_have_second_derivatives(loss, weighted):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 4))
    targets = rng.integers(0, 4, (2, 3)) if loss is losses.softmax_cross_entropy else rng.random((2, 3, 4))
    weights = np.array([[1.0, 2.0, 0.0], [0.5, 0.0, 1.0]]) if weighted else None
    direction = rng.normal(size=logits.shape)
    slope = lambda z: anp.sum(value_and_grad(loss)(z, targets, weights)[1] * direction)  # noqa: E731
    _, second = value_and_grad(slope)(logits)
    numeric = sum(
        sign * value_and_grad(loss)(logits + sign * 1e-5 * direction, targets, weights)[1] for sign in (1, -1)
    )
    assert_close(second, numeric / 2e-5, 1e-9, "second derivative")
    assert largest(second) > 1e-2


@pytest.mark.parametrize("leaf", [np.array([1, 2]), np.array([True]), np.array([1j]), 3, "w"])
def test_parameters_that_are_not_floating_are_refused(leaf):
    with pytest.raises(ValueError, match="every parameter must be a floating array, got"):
        value_and_grad(lambda t: 0.0)({"w": leaf})


def test_a_loss_that_is_no_scalar_is_refused():
    with pytest.raises(ValueError, match=r"must be a scalar, got shape \(2,\)"):
        value_and_grad(lambda w: w * 2)(np.ones(2))


# --- the global norm ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["small", "large"])
def test_clipping_by_global_norm_is_tensorflows(size):
    _, arrays = golden("k_clip")
    grads = [arrays[f"in/{k}"] for k in range(3)]
    clipped, norm = clip_by_global_norm(grads, float(arrays[f"{size}/clip_norm"]))
    assert_close(norm, arrays[f"{size}/global_norm"], 1e-14, "norm")
    assert_close(global_norm(grads), arrays[f"{size}/global_norm"], 1e-14, "global_norm")
    for k in range(3):
        assert_close(clipped[k], arrays[f"{size}/clip_by_global_norm/{k}"], 1e-14, f"gradient {k}")


def test_the_golden_clip_cases_lie_on_both_sides():
    _, arrays = golden("k_clip")
    assert arrays["small/clip_norm"] < arrays["small/global_norm"] != arrays["large/clip_norm"]
    assert arrays["large/clip_norm"] > arrays["large/global_norm"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipping_scales_all_by_one_factor_and_keeps_the_dtype(dtype):
    grads = {"a": np.array([3.0], dtype), "b": {"c": np.array([[0.0, 4.0]], dtype)}}
    clipped, norm = clip_by_global_norm(grads, 1.0)
    assert norm == 5
    assert_trees_close(clipped, {"a": [np.array(0.6)][0].reshape(1), "b": {"c": np.array([[0, 0.8]])}}, 1e-7)
    assert clipped["a"].dtype == clipped["b"]["c"].dtype == dtype
    assert grads["a"] == 3
    same, norm = clip_by_global_norm(grads, 5.0)
    assert same is grads
    assert norm == 5


def test_the_norm_is_summed_in_float64():
    grads = [np.full(4, 1e25, np.float32)]
    assert global_norm(grads) == pytest.approx(2e25)
    clipped, norm = clip_by_global_norm(grads, 1.0)
    assert norm == pytest.approx(2e25)
    np.testing.assert_allclose(clipped[0], 0.5, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite_scales_nothing(bad):
    grads = [np.array([1.0, bad]), np.array([2.0])]
    same, norm = clip_by_global_norm(grads, 1.0)
    assert same is grads
    assert not np.isfinite(norm)


@pytest.mark.parametrize("clip_norm", [0, -1.0, np.nan])
def test_a_bound_that_is_not_positive_is_refused(clip_norm):
    with pytest.raises(ValueError, match="clip_norm must be positive"):
        clip_by_global_norm([np.ones(2)], clip_norm)
