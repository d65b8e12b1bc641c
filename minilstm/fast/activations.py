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
    """(1 + tanh(x / 2)) / 2."""
    np.multiply(x, 0.5, y)
    np.tanh(y, y)
    sigmoid_of_tanh(y)


def sigmoid_of_tanh(y: Array) -> None:
    """Overwrite tanh(x / 2) with sigmoid(x)."""
    np.multiply(y, 0.5, y)
    np.add(y, 0.5, y)


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
