"""`primitive` is autograd's, in less time; of several results all uses add up, and unused ones cost nothing."""

import cProfile
import itertools
import pstats

import autograd.extend
import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, make_jvp
from autograd.extend import defvjp, vspace
from helpers import RandomLoss, assert_close, assert_trees_close, assert_trees_equal, largest
from test_lstm import case

from minilstm import LSTM, RNN, GRUCell, hessian_vector_product, jvp, value_and_grad
from minilstm.fast import lstm as fast_lstm
from minilstm.primitives import Cotangents, filled, primitive, result_of, stacked

NAMES = ("outputs", "c", "h")
USES = [names for count in (1, 2, 3) for names in itertools.combinations(NAMES, count)]


@primitive
def double_and_square(x):
    return 2 * x, x**2


def pull_both(ans, x):
    def pull(g):
        d_double, d_square = filled(g, ans)
        return 2 * d_double + 2 * x * d_square

    return pull


defvjp(double_and_square, pull_both)


def derivative(function, x):
    return value_and_grad(lambda x: function(double_and_square(x)).sum())(x)[1]


X = np.array([1.0, -2.0, 0.5])


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda both: result_of(both, 0), np.full(3, 2.0)),
        (lambda both: result_of(both, 1), 2 * X),
        (lambda both: result_of(both, 0) + result_of(both, 1), 2 + 2 * X),
        (lambda both: result_of(both, 0) * result_of(both, 1), 6 * X**2),
        (lambda both: result_of(both, 1) + 3 * result_of(both, 1), 8 * X),
        (lambda both: result_of(both, 1) * result_of(both, 1) - result_of(both, 0), 4 * X**3 - 2),
    ],
    ids=["first", "second", "sum", "product", "one result twice", "one result twice beside the other"],
)
def test_derivatives_of_all_uses_add_up(function, wanted):
    assert_close(derivative(function, X), wanted, 1e-15)


def test_cotangents_add_by_place_and_none_is_zero():
    a, b = np.array([1.0, 2.0]), np.array([10.0, 20.0])
    space = vspace(Cotangents((a, None)))
    for add in (space.add, space.mut_add):
        for left, right, wanted in (
            ((a, None), (b, None), (a + b, None)),
            ((a, None), (None, b), (a, b)),
            ((None, None), (None, b), (None, b)),
            ((a, b), (b, b), (a + b, b + b)),
        ):
            total = add(Cotangents(left), Cotangents(right))
            assert type(total) is Cotangents
            assert [part is None for part in total] == [part is None for part in wanted]
            assert_trees_equal(tuple(total), wanted)
    assert [a.tolist(), b.tolist()] == [[1, 2], [10, 20]]  # a sum is a new array: others may hold the parts


def test_zeros_for_an_unused_result_take_one_number():
    results = np.ones((50, 3, 4), np.float32), np.ones((3, 4))
    zeros, kept = filled(Cotangents((None, results[1])), results)
    assert (zeros.shape, zeros.dtype, zeros.strides) == ((50, 3, 4), np.float32, (0, 0, 0))
    assert not zeros.any()
    assert kept is results[1]


@pytest.mark.parametrize("used", USES, ids="+".join)
@pytest.mark.parametrize("learned", [False, True], ids=["given state", "learned state"])
def test_a_loss_of_any_results_has_the_gradient_of_the_trace(used, learned):
    params, inputs, state = case(seed=7)
    params["initial_state"] = {"c": np.array([0.3, -0.2, 0.1, 0.6]), "h": np.array([-0.4, 0.2, 0.5, -0.1])}

    def gradients(backprop):
        layer = LSTM(4, backprop=backprop, learn_initial_state=True)

        def loss(tree):
            outputs, final = layer.apply(tree["params"], tree["inputs"], state=None if learned else tree["state"])
            results = {"outputs": outputs, "c": final.c, "h": final.h}
            return RandomLoss(5)([results[name] for name in used])

        return value_and_grad(loss)({"params": params, "inputs": inputs, "state": state})

    derived, traced = gradients("fast"), gradients("autograd")
    assert_trees_close(derived, traced, 1e-12)
    assert largest(traced[1]["inputs"]) > 1e-3


@pytest.mark.parametrize("used", USES, ids="+".join)
def test_only_what_the_loss_used_has_a_derivative(used, monkeypatch):
    seen = []
    monkeypatch.setattr(fast_lstm, "filled", lambda g, results: seen.append(g) or filled(g, results))
    params, inputs, state = case()

    def loss(params):
        outputs, final = LSTM(4).apply(params, inputs, state=state)
        results = {"outputs": outputs, "c": final.c, "h": final.h}
        return RandomLoss(1)([results[name] for name in used])

    value_and_grad(loss)(params)
    assert [[part is not None for part in g] for g in seen] == [[name in used for name in NAMES]]


def test_stacked_steps_have_the_derivatives_of_a_stack():
    """One step is used twice and one is a constant; first, forward and second derivatives."""
    weights = np.random.default_rng(0).normal(size=(4, 3))

    def by(stack):
        return lambda x: (weights * stack([x, x**2, np.ones(3), x]) ** 2).sum()

    ours, wanted = by(lambda steps: stacked(*steps)), by(anp.stack)
    assert_close(value_and_grad(ours)(X)[1], value_and_grad(wanted)(X)[1], 1e-14)
    vector = np.array([0.5, 1.0, -1.0])
    assert_close(jvp(ours)(X, vector)[1], value_and_grad(wanted)(X)[1] @ vector, 1e-14)
    product = hessian_vector_product(wanted)(X, vector)[2]
    assert_close(hessian_vector_product(ours)(X, vector)[2], product, 1e-14)
    twice = value_and_grad(lambda x: (value_and_grad(ours)(x)[1] * vector).sum())(X)[1]
    assert_close(twice, product, 1e-14)


@pytest.mark.parametrize("layer", [LSTM(2, backprop="autograd"), RNN(GRUCell(2), backprop="autograd")])
def test_the_work_of_a_traced_layer_grows_with_the_steps_and_not_with_their_square(layer):
    params = layer.init(0, 1)

    def calls(time):
        profile = cProfile.Profile()
        with profile:
            value_and_grad(lambda params: (layer(params, np.ones((1, time, 1), np.float32))[0] ** 2).mean())(params)
        return pstats.Stats(profile).total_calls

    calls(2)
    one, two, four = (calls(time) for time in (100, 200, 400))
    assert (four - two) < 2.1 * (two - one)


def product_under(decorator):
    """``a b^2 + shift``, whose derivatives are products of the same kind."""

    @decorator
    def product(a, b, shift=0.0):
        assert not autograd.tracer.isbox(a)
        assert not autograd.tracer.isbox(b)
        return a * b**2 + shift

    autograd.extend.defvjp(
        product, lambda ans, a, b, shift=0.0: lambda g: g * b**2, lambda ans, a, b, shift=0.0: lambda g: g * 2 * a * b
    )
    autograd.extend.defjvp(
        product, lambda g, ans, a, b, shift=0.0: g * b**2, lambda g, ans, a, b, shift=0.0: g * 2 * a * b
    )
    return product


BOTH = [product_under(decorator) for decorator in (primitive, autograd.extend.primitive)]


def along(f):
    """The derivative of a scalar function in forward mode."""
    return lambda x: make_jvp(f)(x)(1.0)[1]


@pytest.mark.parametrize(("outer", "inner"), [*itertools.product((grad, along), repeat=2)])
def test_every_mixture_of_two_derivatives_agrees_with_autograds(outer, inner):
    """Arguments in one trace, in two, and each in another one."""
    uses = [
        lambda f: outer(inner(lambda x: f(3.0, x)))(2.0),
        lambda f: outer(inner(lambda x: f(x, x, shift=2.0)))(2.0),
        lambda f: outer(lambda y: inner(lambda x: f(x, y))(2.0))(3.0),
        lambda f: outer(lambda y: inner(lambda x: f(y, x) * f(x, y))(2.0))(3.0),
        lambda f: outer(lambda y: y * inner(lambda x: f(x, 1.0))(2.0))(3.0),
    ]
    for use in uses:
        ours, theirs = map(use, BOTH)
        assert ours == theirs
    assert uses[1](BOTH[0]) == 12.0  # the second derivative of x^3 + 2 is 6 x
    assert uses[2](BOTH[0]) == 6.0


def test_without_a_box_it_is_the_function_itself():
    ours, _ = BOTH
    assert ours(2.0, 3.0, shift=1.0) == 19.0
    assert ours.__name__ == "product"
    assert ours.__doc__ is None


def test_a_derivative_that_nobody_has_registered_is_refused_with_the_name():
    @primitive
    def lonely(x):
        return x

    with pytest.raises(NotImplementedError, match="lonely"):
        grad(lambda x: lonely(x) + anp.sum(x))(1.0)
    with pytest.raises(NotImplementedError, match="lonely"):
        make_jvp(lambda x: lonely(x))(np.ones(2))(np.ones(2))
