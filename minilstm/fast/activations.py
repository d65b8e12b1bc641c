"""Activations and their slopes as a few NumPy calls each, in memory that is there. The readable twin is
`minilstm.cells.ACTIVATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = Any


class FastActivation(NamedTuple):
    """``function(x, y)`` writes the answer y, which may be x itself. ``times_slope(d, y, out, scratch)`` writes d times
    the slope at the answer y; `out` may be d.
    """

    function: Callable[[Array, Array], Any]
    times_slope: Callable[[Array, Array, Array, Array], Any]


def sigmoid(x: Array, y: Array) -> None:
    """1 / (1 + exp(-x))."""
    np.negative(x, y)
    sigmoid_of_negative(y)


@np.errstate(over="ignore")  # where exp overflows, the answer is 0
def sigmoid_of_negative(y: Array, one: Any = 1) -> None:
    """Overwrite -x with sigmoid(x). If `y` is small, an array of ones of its shape saves time."""
    np.exp(y, y)
    np.add(y, one, y)
    np.divide(one, y, y)


def _softsign(x: Array, y: Array) -> None:
    np.divide(x, 1 + np.abs(x), y)


def _tanh_slope(d: Array, y: Array, out: Array, scratch: Array) -> None:
    np.multiply(y, y, scratch)
    np.subtract(1, scratch, scratch)
    np.multiply(d, scratch, out)


def sigmoid_slope(d: Array, y: Array, out: Array, scratch: Array) -> None:
    """``d y (1 - y)``."""
    np.subtract(1, y, scratch)
    np.multiply(scratch, y, scratch)
    np.multiply(d, scratch, out)


def _softsign_slope(d: Array, y: Array, out: Array, scratch: Array) -> None:
    np.abs(y, scratch)
    np.subtract(1, scratch, scratch)
    np.multiply(scratch, scratch, scratch)
    np.multiply(d, scratch, out)


FAST_ACTIVATIONS = {
    "tanh": FastActivation(np.tanh, _tanh_slope),
    "sigmoid": FastActivation(sigmoid, sigmoid_slope),
    "relu": FastActivation(lambda x, y: np.maximum(x, 0, out=y), lambda d, y, out, scratch: np.multiply(d, y > 0, out)),
    "linear": FastActivation(lambda x, y: np.copyto(y, x), lambda d, y, out, scratch: np.copyto(out, d)),
    "softsign": FastActivation(_softsign, _softsign_slope),
}
