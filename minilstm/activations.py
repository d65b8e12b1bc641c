"""Nonlinearities, with first and second derivatives.

Derivatives are functions of the *answer* y (s (1 - s) for a sigmoid, 1 - t^2 for tanh): it is known already, and a
saturated gate does not overflow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
from autograd.extend import defjvp, defvjp

from .options import option
from .primitives import primitive

Array = Any


@primitive
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), to full relative precision and without overflow for any x."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


@primitive
def tanh(x: Array) -> Array:
    """The hyperbolic tangent."""
    return np.tanh(x)


@primitive
def relu(x: Array) -> Array:
    """max(x, 0); the gradient at 0 is 0, as TensorFlow's."""
    return np.maximum(x, 0)


@primitive
def clip(x: Array, bound: float) -> Array:
    """`x` limited to [-bound, bound]; the gradient is 1 inside and on the bound and 0 outside, as TensorFlow's."""
    return np.clip(x, -bound, bound)


def _elementwise(function: Any, slope: Callable[..., Array]) -> None:
    """Register ``slope(y, x, ...)`` as the derivative of y = function(x, ...), backwards and forwards."""
    defvjp(function, lambda y, *args: lambda g: g * slope(y, *args), argnums=(0,))
    defjvp(function, lambda g, y, *args: g * slope(y, *args), argnums=(0,))


_elementwise(sigmoid, lambda y, x: y * (1 - y))
_elementwise(tanh, lambda y, x: 1 - y * y)
_elementwise(relu, lambda y, x: y > 0)
_elementwise(clip, lambda y, x, bound: anp.abs(x) <= bound)


class Activation(NamedTuple):
    """An activation and its derivative as a function of the *answer* y = function(x).

    `second` is the derivative of `derivative` with respect to y. It may be None: second derivatives of a cell are
    then traced.
    """

    function: Callable[[Array], Array]
    derivative: Callable[[Array], Array]
    second: Callable[[Array], Array] | None = None


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(tanh, lambda y: 1 - y * y, lambda y: -2 * y),
    "sigmoid": Activation(sigmoid, lambda y: y * (1 - y), lambda y: 1 - 2 * y),
    "relu": Activation(relu, lambda y: y > 0, np.zeros_like),
    "linear": Activation(lambda x: x, np.ones_like, np.zeros_like),
    "softsign": Activation(
        lambda x: x / (1 + anp.abs(x)), lambda y: (1 - abs(y)) ** 2, lambda y: -2 * (1 - abs(y)) * np.sign(y)
    ),
}


def activation_function(activation: str | Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The function that a name in `ACTIVATIONS` means, or the function itself."""
    return ACTIVATIONS[activation].function if isinstance(activation, str) else activation


def registered_name(activation: Any, where: str) -> str | None:
    """The name under which an activation is saved; a function without one is a ValueError."""
    if activation is None or isinstance(activation, str):
        return activation
    for name, registered in ACTIVATIONS.items():
        if registered.function is activation:
            return name
    raise ValueError(f"{where}: the activation {activation!r} has no registered name, so it cannot be saved")


def activation_option(default: str | None) -> Any:
    """A field for an activation: a name in `ACTIVATIONS`, a function, or None if that is the default."""

    def check(value: Any, name: str, where: str) -> Any:
        is_function = callable(value) and not isinstance(value, type)
        if not (value in ACTIVATIONS if isinstance(value, str) else is_function or value is default is None):
            raise ValueError(f"{where}: {name} must be a function or one of {sorted(ACTIVATIONS)}, got {value!r}")
        return value

    return option(default, check, registered_name)
