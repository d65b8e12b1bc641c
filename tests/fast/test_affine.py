"""The product of Dense and its derivatives: equal to the formula, whose derivatives autograd traces."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.test_util import check_grads
from helpers import assert_trees_close

from minilstm import value_and_grad
from minilstm.fast import affine as fast_affine
from minilstm.fast.affine import FEW_UNITS, SMALL_PRODUCT, affine

DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def readable_affine(x, kernel, bias):
    return anp.dot(x, kernel) + bias


@DTYPES
@pytest.mark.parametrize("units", [1, 2, 7])
@pytest.mark.parametrize("features", [1, 4])
@pytest.mark.parametrize("leading", [(6,), (6, 5), (2, 3, 4), (40, 60)])
def test_values_and_derivatives_are_those_of_the_formula(leading, features, units, dtype):
    assert SMALL_PRODUCT < 40 * 60 * 4 * 1  # both kinds of products are here
    rng = np.random.default_rng(2)
    draw = lambda *shape: rng.normal(size=shape).astype(dtype)  # noqa: E731
    tree = {"x": draw(*leading, features), "kernel": draw(features, units), "bias": draw(units)}
    g = draw(*leading, units)
    found, wanted = (
        value_and_grad(lambda t, f=function: anp.sum(f(t["x"], t["kernel"], t["bias"]) * g))(tree)[1]
        for function in (affine, readable_affine)
    )
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    assert_trees_close(found, wanted, tolerance)
    outputs = affine(**tree)
    assert_trees_close(outputs, readable_affine(**tree), tolerance)  # number by number: a sum of many rounds too much
    assert outputs.flags.c_contiguous
    assert outputs.dtype == dtype


def test_inputs_stored_in_another_order_change_nothing():
    rng = np.random.default_rng(3)
    x, kernel, bias = rng.normal(size=(5, 6, 4)), rng.normal(size=(4, 3)), rng.normal(size=3)
    for order in ((1, 0, 2), (2, 0, 1), (1, 2, 0)):
        stored = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
        outputs = affine(stored, kernel, bias)
        assert outputs.flags.c_contiguous
        assert_trees_close(outputs, x @ kernel + bias, 1e-14)


@pytest.mark.parametrize("features", [4, FEW_UNITS + 9])
@pytest.mark.parametrize("units", [1, 2, FEW_UNITS, FEW_UNITS + 1])
def test_the_derivative_of_x_is_stored_as_the_pass_below_reads_it(units, features, monkeypatch):
    monkeypatch.setenv("MINILSTM_COMPILED", "0")
    rng = np.random.default_rng(4)
    g, kernel = rng.normal(size=(3, 5, units)), rng.normal(size=(features, units))
    d_x = fast_affine.input_gradient(g, kernel)
    assert_trees_close(d_x, g @ kernel.T, 1e-13)
    order = (1, 2, 0) if units <= FEW_UNITS else (1, 0, 2)
    assert d_x.transpose(order).flags.c_contiguous


@pytest.mark.parametrize("units", [1, 2, FEW_UNITS + 1])
@pytest.mark.parametrize("leading", [(3,), (3, 2), (3, 2, 2)])
def test_the_derivatives_have_derivatives(leading, units):
    rng = np.random.default_rng(3)
    x, g = rng.normal(size=(*leading, 4)), rng.normal(size=(*leading, units))
    kernel, bias = rng.normal(size=(4, units)), rng.normal(size=units)
    for function, arguments in (
        (affine, (x, kernel, bias)),
        (fast_affine.linear, (x, kernel)),
        (fast_affine.input_gradient, (g, kernel)),
        (fast_affine.kernel_gradient, (x, g)),
        (fast_affine.bias_gradient, (g,)),
    ):
        check_grads(function, tuple(range(len(arguments))), modes=["rev", "fwd"], order=2)(*arguments)
