"""Optimizers with TensorFlow 1.x's update rules, as pure functions of trees.

    optimizer = Adam(learning_rate=1e-3)
    state = optimizer.init(params)
    params, state = optimizer.update(params, grads, state)

A state is a named tuple that begins with `step`, the number of updates done; its other trees are TensorFlow's slots.
`learning_rate` is a number or a function of the step (see `minilstm.schedules`).

TensorFlow turns hyperparameters into float32 even for float64 variables; the same rounding is done here, because
without it ten steps of Adam already differ by 4e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .fast import compiled
from .fast.memory import recycled
from .params import Tree, tree_map, tree_rows, tree_unflatten

Array = Any
Rate = float | Callable[[int], float]


class SGDState(NamedTuple):
    """Plain gradient descent keeps nothing but the step."""

    step: int


class MomentumState(NamedTuple):
    """`momentum`: the accumulated gradient, starts at 0."""

    step: int
    momentum: Tree


class AdagradState(NamedTuple):
    """`accumulator`: the sum of squared gradients, starts at `initial_accumulator_value`."""

    step: int
    accumulator: Tree


class RMSPropState(NamedTuple):
    """`mean_square` starts at 1 as in TensorFlow, `momentum` at 0."""

    step: int
    mean_square: Tree
    momentum: Tree


class CenteredRMSPropState(NamedTuple):
    """As `RMSPropState`, with the running mean of the gradient, which starts at 0."""

    step: int
    mean_square: Tree
    mean_gradient: Tree
    momentum: Tree


class AdamState(NamedTuple):
    """`m` and `v` start at 0; the powers of beta are float32 scalars multiplied up step by step, as TensorFlow's:
    after t steps they hold beta ** (t + 1).
    """

    step: int
    m: Tree
    v: Tree
    beta1_power: np.float32
    beta2_power: np.float32


def _float32(value: float) -> float:
    """A hyperparameter as TensorFlow sees it."""
    return float(np.float32(value))


def _zeros(params: Tree) -> Tree:
    return tree_map(np.zeros_like, params)


class Optimizer:
    """What all have in common: a learning rate that may depend on the step, and the checks of arguments."""

    def __init__(self, learning_rate: Rate) -> None:
        if not callable(learning_rate):
            self._check("learning_rate", learning_rate, positive=True)
        self.learning_rate = learning_rate

    def init(self, params: Tree) -> Any:
        """The state before the first step, for `params`."""
        raise NotImplementedError

    def update(self, params: Tree, grads: Tree, state: Any) -> tuple[Tree, Any]:
        """New parameters and new state after one step; nothing that came in is changed.

        Raises ValueError where the trees differ.
        """
        raise NotImplementedError

    def rate(self, step: int) -> float:
        """The learning rate of the update numbered `step` (from 0)."""
        return _float32(self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate)

    def _check(self, name: str, value: float, *, positive: bool = False, below: float = math.inf) -> float:
        low_enough = value > 0 if positive else value >= 0
        if not (low_enough and value < below):
            bounds = f"{'above' if positive else 'at least'} 0" + (f" and below {below:g}" if below < math.inf else "")
            raise ValueError(f"{type(self).__name__}: {name} must be {bounds}, got {value!r}")
        return _float32(value)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


class SGD(Optimizer):
    """w -= learning_rate * g. TensorFlow's ``GradientDescentOptimizer``."""

    def __init__(self, learning_rate: Rate = 0.01) -> None:
        super().__init__(learning_rate)

    def init(self, params: Tree) -> SGDState:
        """Only the step."""
        return SGDState(0)

    def update(self, params: Tree, grads: Tree, state: SGDState) -> tuple[Tree, SGDState]:
        """One step."""
        rate = self.rate(state.step)
        return tree_map(lambda w, g: w - rate * g, params, grads), SGDState(state.step + 1)


class Momentum(Optimizer):
    """a = momentum * a + g; w -= learning_rate * a, or with Nesterov w -= learning_rate * (g + momentum * a).

    Sources: ``tf.compat.v1.train.MomentumOptimizer``; Sutskever et al. 2013.
    """

    def __init__(self, learning_rate: Rate, momentum: float, use_nesterov: bool = False) -> None:
        super().__init__(learning_rate)
        self.momentum = self._check("momentum", momentum)
        self.use_nesterov = bool(use_nesterov)

    def init(self, params: Tree) -> MomentumState:
        """Zeros."""
        return MomentumState(0, _zeros(params))

    def update(self, params: Tree, grads: Tree, state: MomentumState) -> tuple[Tree, MomentumState]:
        """One step."""
        rate, momentum = self.rate(state.step), self.momentum
        a = tree_map(lambda a, g: momentum * a + g, state.momentum, grads)
        step = tree_map(lambda a, g: g + momentum * a, a, grads) if self.use_nesterov else a
        return tree_map(lambda w, d: w - rate * d, params, step), MomentumState(state.step + 1, a)


class Adagrad(Optimizer):
    """a += g^2; w -= learning_rate * g / sqrt(a), without an epsilon.

    Sources: ``tf.compat.v1.train.AdagradOptimizer``; Duchi, Hazan and Singer 2011.
    """

    def __init__(self, learning_rate: Rate, initial_accumulator_value: float = 0.1) -> None:
        super().__init__(learning_rate)
        self._check("initial_accumulator_value", initial_accumulator_value, positive=True)
        self.initial_accumulator_value = float(initial_accumulator_value)  # the one option TensorFlow does not round

    def init(self, params: Tree) -> AdagradState:
        """Accumulators at their initial value."""
        return AdagradState(0, tree_map(lambda w: np.full_like(w, self.initial_accumulator_value), params))

    def update(self, params: Tree, grads: Tree, state: AdagradState) -> tuple[Tree, AdagradState]:
        """One step."""
        rate = self.rate(state.step)
        a = tree_map(lambda a, g: a + g * g, state.accumulator, grads)
        new = tree_map(lambda w, g, a: w - rate * g / np.sqrt(a), params, grads, a)
        return new, AdagradState(state.step + 1, a)


class RMSProp(Optimizer):
    """ms = decay * ms + (1 - decay) * g^2; mom = momentum * mom + rate * g / sqrt(ms + epsilon); w -= mom.

    With `centered`, the square of the running mean gradient is taken off ms under the root. In TensorFlow ms starts
    at 1, not at 0 as in Keras and PyTorch, and epsilon stands inside the root.

    Sources: ``tf.compat.v1.train.RMSPropOptimizer``; Tieleman and Hinton 2012; Graves 2013 (arXiv 1308.0850).
    """

    def __init__(
        self,
        learning_rate: Rate,
        decay: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-10,
        centered: bool = False,
    ) -> None:
        super().__init__(learning_rate)
        self.decay = self._check("decay", decay, below=1)
        self.momentum = self._check("momentum", momentum)
        self.epsilon = self._check("epsilon", epsilon)
        self.centered = bool(centered)

    def init(self, params: Tree) -> RMSPropState | CenteredRMSPropState:
        """The mean square at 1, the rest at 0."""
        ones = tree_map(np.ones_like, params)
        if self.centered:
            return CenteredRMSPropState(0, ones, _zeros(params), _zeros(params))
        return RMSPropState(0, ones, _zeros(params))

    def update(self, params: Tree, grads: Tree, state: Any) -> tuple[Tree, Any]:
        """One step."""
        rate, decay, momentum, epsilon = self.rate(state.step), self.decay, self.momentum, self.epsilon
        ms = tree_map(lambda ms, g: decay * ms + (1 - decay) * (g * g), state.mean_square, grads)
        if self.centered:
            mg = tree_map(lambda mg, g: decay * mg + (1 - decay) * g, state.mean_gradient, grads)
            denominator = tree_map(lambda ms, mg: np.sqrt(ms - mg * mg + epsilon), ms, mg)
        else:
            denominator = tree_map(lambda ms: np.sqrt(ms + epsilon), ms)
        mom = tree_map(lambda mom, g, d: momentum * mom + rate * g / d, state.momentum, grads, denominator)
        new = tree_map(lambda w, mom: w - mom, params, mom)
        if self.centered:
            return new, CenteredRMSPropState(state.step + 1, ms, mg, mom)
        return new, RMSPropState(state.step + 1, ms, mom)


class Adam(Optimizer):
    """m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; w -= rate_t m / (sqrt(v) + epsilon),
    where rate_t = learning_rate * sqrt(1 - beta2^t) / (1 - beta1^t).

    This is the form of the last paragraph of section 2 of Kingma and Ba 2015 (arXiv 1412.6980), which TensorFlow and
    Keras use: epsilon ("epsilon hat") is added to the root of the *uncorrected* v. PyTorch and the paper's Algorithm 1
    add it after the correction; the two differ where the gradient is as small as epsilon.
    """

    def __init__(
        self, learning_rate: Rate = 1e-3, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        super().__init__(learning_rate)
        self.beta1 = self._check("beta1", beta1, below=1)
        self.beta2 = self._check("beta2", beta2, below=1)
        self.epsilon = self._check("epsilon", epsilon)

    def init(self, params: Tree) -> AdamState:
        """Zeros, and the betas themselves as their first powers."""
        return AdamState(0, _zeros(params), _zeros(params), np.float32(self.beta1), np.float32(self.beta2))

    def update(
        self, params: Tree, grads: Tree, state: AdamState, donate: bool = False
    ) -> tuple[Tree, AdamState]:
        """One step.

        With `donate` the state's own arrays become those of the new one, and the old one must not be used any more:
        a step of a large model is shorter by some hundredths. `fit` does so.
        """
        correction = math.sqrt(1 - float(state.beta2_power)) / (1 - float(state.beta1_power))
        rate = self.rate(state.step) * correction
        numbers = (self.beta1, 1 - self.beta1, self.beta2, 1 - self.beta2, self.epsilon, rate)
        formulas: dict[Any, Any] = {}  # for each dtype
        updated = []
        for w, g, m, v in tree_rows(self._decayed(params, state), grads, state.m, state.v):
            if w.dtype not in formulas:
                formulas[w.dtype] = _formulas(w.dtype, numbers)
            updated.append(_updated(formulas[w.dtype], donate, w, g, m, v))
        new, m, v = (tree_unflatten(params, (arrays[k] for arrays in updated)) for k in range(3))
        powers = state.beta1_power * np.float32(self.beta1), state.beta2_power * np.float32(self.beta2)
        return new, AdamState(state.step + 1, m, v, *powers)

    def _decayed(self, params: Tree, state: AdamState) -> Tree:
        """The parameters from which the step is taken; `AdamW` shrinks them first."""
        return params


PIECE = 1 << 15  # entries: what Adam reads and writes of so many stays in the second-level cache


def _updated(formulas: Any, donate: bool, w: Array, g: Array, m: Array, v: Array) -> tuple[Array, ...]:
    """The new w, m and v of one array."""
    shape, dtype = w.shape, w.dtype
    w, g, m, v = (_flat(x, dtype) for x in (w, g, m, v))
    new_w = recycled(w.shape, dtype)
    new_m, new_v = (m, v) if donate else (recycled(w.shape, dtype), recycled(w.shape, dtype))
    # Twelve calls for a large array are twelve ways to the memory and back. Piece by piece they are one.
    for start in range(0, w.size, PIECE):
        piece = slice(start, start + PIECE)
        if not donate:
            new_m[piece], new_v[piece] = m[piece], v[piece]
        formulas(w[piece], g[piece], new_m[piece], new_v[piece], new_w[piece])
    return new_w.reshape(shape), new_m.reshape(shape), new_v.reshape(shape)


def _flat(x: Array, dtype: Any) -> Array:
    """The array as ``[entries]``, or a copy where it cannot be seen so or must not be written to."""
    flat = np.ascontiguousarray(x, dtype).reshape(-1)
    return flat if flat.flags.writeable else flat.copy()


def _formulas(dtype: Any, numbers: tuple[float, ...]) -> Callable[..., None]:
    """`adam` with these numbers, compiled where passes are."""
    compiled_adam = compiled.adam_loop(dtype)
    if compiled_adam is not None:
        return lambda *arrays: compiled_adam(*arrays, *numbers)
    constants = [np.array(number, dtype) for number in numbers]  # NumPy would make these of Python numbers in each call
    root = recycled((PIECE,), dtype)

    def with_constants(w: Array, g: Array, m: Array, v: Array, new_w: Array) -> None:
        adam(w, g, m, v, new_w, root[: len(w)], *constants)

    return with_constants


def adam(
    w: Array, g: Array, m: Array, v: Array, new_w: Array, root: Array,
    beta1: Array, rest1: Array, beta2: Array, rest2: Array, epsilon: Array, rate: Array,
) -> None:  # fmt: skip
    """The formulas of `Adam` for arrays ``[entries]``: into `new_w`, and m and v in their places.

    `root` is room for the square root of v. `rest1` is ``1 - beta1``, `rest2` is ``1 - beta2``.
    """
    np.multiply(m, beta1, m)
    np.multiply(g, rest1, new_w)
    np.add(m, new_w, m)
    np.multiply(v, beta2, v)
    np.multiply(g, g, new_w)
    np.multiply(new_w, rest2, new_w)
    np.add(v, new_w, v)
    np.sqrt(v, root)
    np.add(root, epsilon, root)
    np.multiply(m, rate, new_w)
    np.divide(new_w, root, new_w)
    np.subtract(w, new_w, new_w)


class AdamW(Adam):
    """Adam with decoupled weight decay: w -= learning_rate * weight_decay * w, then the step of `Adam`.

    Source: Loshchilov and Hutter 2019 (arXiv 1711.05101), as in Keras and PyTorch. Every parameter decays, the biases
    too, as there.
    """

    def __init__(
        self,
        learning_rate: Rate = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.004,
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, epsilon)
        self.weight_decay = self._check("weight_decay", weight_decay)

    def _decayed(self, params: Tree, state: AdamState) -> Tree:
        factor = 1 - self.rate(state.step) * self.weight_decay
        return tree_map(lambda w: w * np.asarray(factor, w.dtype), params)
