"""Our `primitive` is autograd's, in less time."""

import itertools

import autograd.extend
import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad, make_jvp

from minilstm.primitives import primitive


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
