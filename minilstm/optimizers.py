"""Optimizers with TensorFlow 1.x's update rules, as pure functions of trees.

    optimizer = Adam(learning_rate=1e-3)
    state = optimizer.init(params)
    params, state = optimizer.update(params, grads, state)

A state is a named tuple that begins with `step`, the number of updates done; its other trees are TensorFlow's slots.
`learning_rate` is a number or a function of the step (see `minilstm.schedules`).

Each class has its rule as a few lines on one array, the method `rule`; `Optimizer.update` applies it to every array of
a tree. Adam alone has a fast twin, `minilstm.fast.adam`; `AdamW` shrinks the parameters first, then takes its step.

TensorFlow rounds hyperparameters to float32 even for float64 variables. So does this module: without it ten steps of
Adam already differ by 4e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .arguments import check_flag, check_number
from .fast.adam import FastAdam
from .params import Tree, rows_like, tree_map, tree_unflatten

Array = Any
Rate = float | Callable[[int], float]


class SGDState(NamedTuple):
    """Plain gradient descent keeps the step alone."""

    step: int


class MomentumState(NamedTuple):
    """`momentum`, the accumulated gradient, starts at 0."""

    step: int
    momentum: Tree


class AdagradState(NamedTuple):
    """`accumulator`, the sum of squared gradients, starts at `initial_accumulator_value`."""

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
    """`m` and `v` start at 0. The powers of beta are float32 scalars, multiplied step by step as in TensorFlow: after t
    steps they are beta ** (t + 1).
    """

    step: int
    m: Tree
    v: Tree
    beta1_power: np.float32
    beta2_power: np.float32


@dataclass(eq=False, repr=False)
class Optimizer:
    """What all optimizers have in common: a learning rate that may depend on the step, and one rule for every array.

    A subclass defines `init` and `rule`, or `init` and `update`. Its state is a named tuple that begins with `step`.
    """

    state_class: ClassVar[Any] = None  # of the states of `init`; None if a subclass does not say
    learning_rate: Rate

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "init" in vars(cls) and "state_class" not in vars(cls):  # another state than the parent class has
            cls.state_class = None

    def __post_init__(self) -> None:
        if isinstance(self.learning_rate, type):
            raise ValueError(f"{type(self).__name__}: learning_rate must be a number or a function, got a class")
        if not callable(self.learning_rate):
            self._check("learning_rate", above=0, rounded=False)

    def init(self, params: Tree) -> Any:
        """The state before the first step, for `params`."""
        raise NotImplementedError

    def rule(self, rate: float, w: Array, g: Array, *slots: Array) -> tuple[Array, ...]:
        """One step for one array: the new w and the new slots, in the order of the state's fields."""
        raise NotImplementedError

    def update(self, params: Tree, grads: Tree, state: Any) -> tuple[Tree, Any]:
        """New parameters and new state after one step; the arguments are not changed.

        Parameters stay of their dtype. Raises ValueError if a tree, or an array of it, does not fit `params`, or if the
        state is another optimizer's.
        """
        given = self._rows(params, grads, state)
        rate = self.rate(state.step)
        rows = [self.rule(rate, *row) for row in given]
        new, *slots = (tree_unflatten(params, (row[k] for row in rows)) for k in range(len(state)))
        return new, type(state)(state.step + 1, *slots)

    def rate(self, step: int) -> float:
        """The learning rate of the update numbered `step` (from 0); ValueError if it is negative or not finite."""
        rate, name, kind = self.learning_rate, "learning_rate", type(self).__name__
        if callable(rate):
            rate, name = rate(step), f"learning_rate(step={step})"
        return check_number(_float32(check_number(rate, name, kind, least=0)), f"{name} in float32", kind)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def _rows(self, params: Tree, grads: Tree, state: Any, slots: Any = None) -> list[tuple[Array, ...]]:
        """Each array with its gradient and the slots of these names, by default all."""
        where = f"{type(self).__name__}.update"
        if self.state_class not in (None, type(state)):
            wanted = f"the {self.state_class.__name__} that init makes"
            raise ValueError(f"{where}: state must be {wanted}, got {type(state).__name__}")
        named = {f"state.{name}": getattr(state, name) for name in slots or state._fields[1:]}
        return rows_like(params, where, {"grads": grads, **named})

    def _check(self, *names: str, rounded: bool = True, **bounds: Any) -> None:
        """Raise ValueError for an option out of its range, which is 0 or more by default; round it to float32."""
        for name in names:
            kind, bounds = type(self).__name__, bounds or {"least": 0}
            value = check_number(getattr(self, name), name, kind, **bounds)
            narrower = {**bounds, **({"above": 0} if value > 0 else {})}
            in_float32 = check_number(_float32(value), f"{name} in float32", kind, **narrower)
            setattr(self, name, in_float32 if rounded else value)


def get(optimizer: Any) -> Any:
    """The optimizer that a name means, with its defaults, or the optimizer itself.

    Raises ValueError for a name without defaults or unknown, and for a class instead of an object.
    """
    named: dict[str, Any] = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
    if isinstance(optimizer, str) and optimizer.lower() in named:
        return named[optimizer.lower()]()
    if isinstance(optimizer, (str, type)) or not callable(getattr(optimizer, "init", None)):
        wanted = f"an object such as Adam(1e-3), or one of the names {', '.join(named)}"
        raise ValueError(f"fit: optimizer: wanted {wanted}, got {optimizer!r}")
    return optimizer


def _float32(value: float) -> float:
    """A hyperparameter as TensorFlow sees it."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _filled(params: Tree, value: float) -> Tree:
    return tree_map(lambda w: np.full_like(w, value), params)


@dataclass(eq=False, repr=False)
class SGD(Optimizer):
    """w -= learning_rate * g. TensorFlow's ``GradientDescentOptimizer``."""

    state_class = SGDState
    learning_rate: Rate = 0.01

    def init(self, params: Tree) -> SGDState:
        """The step alone."""
        return SGDState(0)

    def rule(self, rate: float, w: Array, g: Array) -> tuple[Array, ...]:
        """One step for one array."""
        return (w - rate * g,)


@dataclass(eq=False, repr=False)
class Momentum(Optimizer):
    """a = momentum * a + g; w -= learning_rate * a, or with Nesterov w -= learning_rate * (g + momentum * a).

    Sources: ``tf.compat.v1.train.MomentumOptimizer``; Sutskever et al. 2013.
    """

    state_class = MomentumState
    momentum: float
    use_nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("momentum", least=0, most=1)
        self.use_nesterov = check_flag(self.use_nesterov, "use_nesterov", "Momentum")

    def init(self, params: Tree) -> MomentumState:
        """Zeros."""
        return MomentumState(0, _filled(params, 0))

    def rule(self, rate: float, w: Array, g: Array, a: Array) -> tuple[Array, ...]:
        """One step for one array."""
        a = self.momentum * a + g
        return w - rate * (g + self.momentum * a if self.use_nesterov else a), a


@dataclass(eq=False, repr=False)
class Adagrad(Optimizer):
    """a += g^2; w -= learning_rate * g / sqrt(a), without an epsilon.

    Sources: ``tf.compat.v1.train.AdagradOptimizer``; Duchi, Hazan and Singer 2011.
    """

    state_class = AdagradState
    initial_accumulator_value: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("initial_accumulator_value", above=0, rounded=False)  # TensorFlow does not round this one
        self.initial_accumulator_value = float(self.initial_accumulator_value)

    def init(self, params: Tree) -> AdagradState:
        """Accumulators at their initial value."""
        return AdagradState(0, _filled(params, self.initial_accumulator_value))

    def rule(self, rate: float, w: Array, g: Array, a: Array) -> tuple[Array, ...]:
        """One step for one array."""
        a = a + g * g
        return w - rate * g / np.sqrt(a), a


@dataclass(eq=False, repr=False)
class RMSProp(Optimizer):
    """ms = decay * ms + (1 - decay) * g^2; mom = momentum * mom + rate * g / sqrt(ms + epsilon); w -= mom.

    With `centered`, mg = decay * mg + (1 - decay) * g, and the root is of ms - mg^2 + epsilon. In TensorFlow ms starts
    at 1, not at 0 as in Keras and PyTorch, and epsilon is inside the root.

    Sources: ``tf.compat.v1.train.RMSPropOptimizer``; Tieleman and Hinton 2012; Graves 2013 (arXiv 1308.0850).
    """

    decay: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-10
    centered: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("decay", least=0, below=1)
        self._check("momentum", least=0, most=1)
        self._check("epsilon")
        self.centered = check_flag(self.centered, "centered", "RMSProp")

    @property
    def state_class(self) -> Any:
        """The class of the states of `init`."""
        return CenteredRMSPropState if self.centered else RMSPropState

    def init(self, params: Tree) -> RMSPropState | CenteredRMSPropState:
        """The mean square at 1, the rest at 0."""
        return self.state_class(0, _filled(params, 1), *(_filled(params, 0) for _ in range(1 + self.centered)))

    def rule(self, rate: float, w: Array, g: Array, ms: Array, *others: Array) -> tuple[Array, ...]:
        """One step for one array; `others` are mg, if centered, and mom."""
        *mg, mom = others
        ms = self.decay * ms + (1 - self.decay) * (g * g)
        variance = ms
        if self.centered:
            mg = [self.decay * mg[0] + (1 - self.decay) * g]
            variance = ms - mg[0] * mg[0]
        mom = self.momentum * mom + rate * g / np.sqrt(variance + self.epsilon)
        return w - mom, ms, *mg, mom


@dataclass(eq=False, repr=False)
class Adam(Optimizer):
    """m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2; w -= rate_t m / (sqrt(v) + epsilon),
    where rate_t = learning_rate * sqrt(1 - beta2^t) / (1 - beta1^t).

    This is the form at the end of section 2 of Kingma and Ba 2015 (arXiv 1412.6980), which TensorFlow and Keras use:
    epsilon ("epsilon hat") is added to the root of the *uncorrected* v. PyTorch and Algorithm 1 of the paper add it
    after the correction; the two differ if the gradient is as small as epsilon.
    """

    state_class = AdamState
    learning_rate: Rate = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("beta1", "beta2", least=0, below=1)
        self._check("epsilon")

    def init(self, params: Tree) -> AdamState:
        """Zeros, and the betas themselves as their first powers."""
        return AdamState(0, _filled(params, 0), _filled(params, 0), np.float32(self.beta1), np.float32(self.beta2))

    def rule(self, rate: float, w: Array, g: Array, m: Array, v: Array) -> tuple[Array, ...]:
        """One step for one array; `rate` is rate_t. `update` runs the fast twin of this rule, with the same bits."""
        m = self.beta1 * m + (1 - self.beta1) * g
        v = self.beta2 * v + (1 - self.beta2) * (g * g)
        return w - rate * m / (np.sqrt(v) + self.epsilon), m, v

    def update(self, params: Tree, grads: Tree, state: AdamState, donate: bool = False) -> tuple[Tree, AdamState]:
        """One step.

        With `donate`, large arrays of `state` are overwritten with those of the new state, and `state` must not be used
        any more: that saves a few percent of a step of a large model. `fit` does so.
        """
        given = self._rows(params, grads, state, ("m", "v"))
        rate = self.rate(state.step) * (math.sqrt(1 - float(state.beta2_power)) / (1 - float(state.beta1_power)))
        fast = FastAdam(self.beta1, self.beta2, self.epsilon, rate, donate)
        rows = fast(given) if type(self).rule is Adam.rule else [self.rule(rate, *row) for row in given]
        new, m, v = (tree_unflatten(params, (row[k] for row in rows)) for k in range(3))
        powers = state.beta1_power * np.float32(self.beta1), state.beta2_power * np.float32(self.beta2)
        return new, AdamState(state.step + 1, m, v, *powers)


@dataclass(eq=False, repr=False)
class AdamW(Adam):
    """Adam with decoupled weight decay: w -= learning_rate * weight_decay * w, then the step of `Adam`.

    Source: Loshchilov and Hutter 2019 (arXiv 1711.05101), as in Keras and PyTorch. Every parameter decays, the biases
    too, as there.
    """

    weight_decay: float = 0.004

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("weight_decay")

    def _rows(self, params: Tree, grads: Tree, state: Any, slots: Any = None) -> list[tuple[Array, ...]]:
        rows = super()._rows(params, grads, state, slots)
        factor = 1 - self.rate(state.step) * self.weight_decay
        return [(w * np.asarray(factor, w.dtype), *others) for w, *others in rows]
