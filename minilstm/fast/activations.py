"""Activations and their slopes as a few NumPy calls each, in memory that is there, and what makes gates of z. The
readable twin is `minilstm.activations`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..gates import GATES

Array = Any

I, J, F, O = (GATES.index(gate) for gate in "ijfo")
# What makes a gate of its tanh: sigmoid(z) = 0.5 tanh(0.5 z) + 0.5, while j is its own tanh.
SCALE, SHIFT = (tuple(of_j if gate == "j" else 0.5 for gate in GATES) for of_j in (1, 0))
EXP_SCALE = tuple(1 if gate == "j" else -1 for gate in GATES)  # sigmoid(z) = 1 / (1 + exp(-z))
SMALL = 1 << 13  # entries of four gates, at most, for which a constant is an array of their shape
# Entries of four gates, at most, for which one tanh costs less than a tanh, two exp and two divisions; in float64 fewer
ONE_TANH, ONE_TANH_OF_DOUBLES = 1 << 13, 1 << 9


class FastActivation(NamedTuple):
    """``function(x, y)`` writes the answer y, which may be x itself. ``times_slope(d, dy, y, out)`` writes d times the
    slope at the answer y; `dy` is d times y, which others need, too. `out` may be y.
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


def _tanh_slope(d: Array, dy: Array, y: Array, out: Array) -> None:
    np.multiply(dy, y, out)
    np.subtract(d, out, out)


def _sigmoid_slope(d: Array, dy: Array, y: Array, out: Array) -> None:
    np.multiply(dy, y, out)
    np.subtract(dy, out, out)


def _softsign_slope(d: Array, dy: Array, y: Array, out: Array) -> None:
    np.abs(y, out)
    np.subtract(1, out, out)
    np.multiply(out, out, out)
    np.multiply(d, out, out)


FAST_ACTIVATIONS = {
    "tanh": FastActivation(np.tanh, _tanh_slope),
    "sigmoid": FastActivation(sigmoid, _sigmoid_slope),
    "relu": FastActivation(lambda x, y: np.maximum(x, 0, out=y), lambda d, dy, y, out: np.multiply(d, y > 0, out)),
    "linear": FastActivation(lambda x, y: np.copyto(y, x), lambda d, dy, y, out: np.copyto(out, d)),
    "softsign": FastActivation(_softsign, _softsign_slope),
}


class Nonlinearity:
    """What makes gates of z: a sigmoid by exp costs less than one by tanh, but three calls more for the step.

    Attributes
    ----------
    scale : tuple of 4 numbers
        What the z of each gate must have been multiplied by.
    """

    def __init__(self, entries: int, dtype: Any) -> None:
        self.by_tanh = 4 * entries <= (ONE_TANH if np.dtype(dtype).itemsize <= 4 else ONE_TANH_OF_DOUBLES)
        self.scale = SCALE if self.by_tanh else EXP_SCALE
        few = 4 * entries <= SMALL  # a constant is then an array of their shape
        self.ones = [np.ones((count * entries,) if few else (), dtype) for count in (1, 2)]
        self.constants = [np.repeat(np.array(row, dtype), entries) for row in (SCALE, SHIFT) if self.by_tanh]

    def views(self, gates: Array) -> tuple[Array, tuple[Any, ...], tuple[Any, ...]]:
        """Of gates ``[4, entries]`` what goes through tanh; what is scaled and shifted then; what goes through exp."""
        if self.by_tanh:
            z = gates.reshape(-1)
            return z, ((z, *self.constants),), ()
        return gates[J], (), tuple(zip((gates[I], gates[F:].reshape(-1)), self.ones, strict=True))
