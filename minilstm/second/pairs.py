"""A pass and the sweep that is its derivative, and the derivatives of both, as autograd must know them.

Let J be the Jacobian of a pass y = F(x), where x are all its arguments. Its sweep is
B(g, x) = J.T g, its tangents are R(u, x) = J u. Because ``<u, J.T g> = <J u, g>``, the derivatives of the sweep in the
direction of a cotangent u are R(u, x) with respect to g, and with respect to x the change of the sweep along u while g
stays, S(0, u, g, x). So two more functions, R and S, are all that any mixture of two derivatives needs, except for two
forward ones.
"""

from __future__ import annotations

from typing import Any

from autograd.extend import defjvp_argnums, defvjp_argnums
from autograd.tracer import getval

from ..primitives import filled, part_of


def register_pair(forward: Any, backward: Any, tangents: Any, backward_tangents: Any) -> None:
    """Register the derivatives of four primitives with autograd, given that they are these functions of each other.

    Parameters
    ----------
    forward : primitive
        ``forward(*x, **options)``, the pass F, returns a tuple of results y. A part of x may be None: it is not there.
    backward : primitive
        ``backward(*g, *x, **options)``, the sweep J.T g, returns a tuple with one derivative for each of x.
    tangents : primitive
        ``tangents(*u, *x, **options)``, J u, returns a tuple with one array for each result. A part of u may be None:
        it is 0.
    backward_tangents : primitive
        ``backward_tangents(*r_g, *u, *g, *x, **options)``: how the results of `backward` change if g changes along r_g
        and x along u. Parts of r_g and u may be None.
    """

    def pull_forward(argnums: Any, y: Any, x: Any, options: Any) -> Any:
        def by_sweep(g: Any) -> Any:
            grads = backward(*filled(g, y), *x, **options)  # one sweep for all arguments
            return [part_of(grads, n) for n in argnums]

        return by_sweep

    def push_forward(argnums: Any, pushed: Any, y: Any, x: Any, options: Any) -> Any:
        return tangents(*_spread(argnums, pushed, len(x)), *x, **options)

    def split(values: Any, x_count: int) -> Any:
        count = len(values) - x_count
        return count, values[:count], values[count:]

    def pull_backward(argnums: Any, grads: Any, values: Any, options: Any) -> Any:
        count, g, x = split(values, len(getval(grads)))

        def by_tangents(u: Any) -> Any:
            of_g = tangents(*u, *x, **options)
            of_x = None
            if argnums[-1] >= count:
                of_x = backward_tangents(*[None] * count, *u, *g, *x, **options)
            return [part_of(of_g, n) if n < count else part_of(of_x, n - count) for n in argnums]

        return by_tangents

    def push_backward(argnums: Any, pushed: Any, grads: Any, values: Any, options: Any) -> Any:
        return backward_tangents(*_spread(argnums, pushed, len(values)), *values, **options)

    def pull_tangents(argnums: Any, r_y: Any, values: Any, options: Any) -> Any:
        count, u, x = split(values, len(values) // 2)

        def by_sweep(g: Any) -> Any:
            g = filled(g, r_y)
            of_u = backward(*g, *x, **options) if argnums[0] < count else None
            of_x = None
            if argnums[-1] >= count:
                of_x = backward_tangents(*[None] * len(g), *u, *g, *x, **options)
            return [part_of(of_u, n) if n < count else part_of(of_x, n - count) for n in argnums]

        return by_sweep

    def push_tangents(argnums: Any, pushed: Any, r_y: Any, values: Any, options: Any) -> Any:
        count, _, x = split(values, len(values) // 2)
        if argnums[-1] >= count:
            raise NotImplementedError(UNDERIVED.format("tangents have no tangents of their own"))
        return tangents(*_spread(argnums, pushed, count), *x, **options)

    defvjp_argnums(forward, pull_forward)
    defjvp_argnums(forward, push_forward)
    defvjp_argnums(backward, pull_backward)
    defjvp_argnums(backward, push_backward)
    defvjp_argnums(tangents, pull_tangents)
    defjvp_argnums(tangents, push_tangents)
    defvjp_argnums(backward_tangents, lambda *_: no_third_derivative)
    defjvp_argnums(backward_tangents, no_third_derivative)


UNDERIVED = (
    'the hand-derived passes have first and second derivatives, but {}: build the layer with backprop="autograd", '
    "which traces every step"
)


def no_third_derivative(*_: Any) -> Any:
    """The derivative of a second derivative: an error that names the alternative."""
    raise NotImplementedError(UNDERIVED.format("no third ones"))


def _spread(argnums: Any, values: Any, count: int) -> list[Any]:
    """A list of `count` places: the values in those of `argnums`, elsewhere None."""
    places = [None] * count
    for n, value in zip(argnums, values, strict=True):
        places[n] = value
    return places
