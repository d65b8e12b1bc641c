r"""One time step of an LSTM, line for line the equations.

Shapes: x_t is ``[batch, input_dim]``, c is ``[batch, units]``, h is ``[batch, output_size]``, where
``output_size = num_proj or units``. TensorFlow keeps one kernel of shape ``[input_dim + output_size, 4 * units]``
whose rows multiply the input first and the previous output then, and whose columns are the four gates in the
order i, j, f, o (input gate, new input, forget gate, output gate):

    z_t = [x_t, h_{t-1}] @ kernel + bias                                              (1)
    i, j, f, o = the four column blocks of z_t                                        (2)
    i_t = sigmoid(i + w_i * c_{t-1})                                                  (3)
    j_t = activation(j)                                                               (4)
    f_t = sigmoid(f + forget_bias + w_f * c_{t-1})                                    (5)
    c_t = clip(f_t * c_{t-1} + i_t * j_t, cell_clip)                                  (6)
    o_t = sigmoid(o + w_o * c_t)                                                      (7)
    a_t = activation(c_t)                                                             (8)
    m_t = o_t * a_t                                                                   (9)
    h_t = clip(m_t @ projection, proj_clip)                                          (10)

The diagonal peepholes w, the projection and both clips are there only when asked for. ``forget_bias`` is added
here, at run time: it is never part of the stored bias.

Sources: Hochreiter and Schmidhuber 1997; Gers, Schmidhuber and Cummins 2000 (the forget gate); Sak, Senior and
Beaufays 2014 (arXiv 1402.1128; peepholes and projection); layout and clips as in TensorFlow 1.x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp, primitive

from . import initializers
from .gates import GATES as GATES  # their public place
from .gates import pack_gates as pack_gates
from .gates import split_gates as split_gates
from .params import check_name, tree_map

Array = Any  # a NumPy array, or autograd's box around one


class LSTMState(NamedTuple):
    """The state of an LSTM cell in TensorFlow's order: c ``[batch, units]``, h ``[batch, output_size]``."""

    c: Array
    h: Array


class LSTMStep(NamedTuple):
    """What one step computes, in the letters of the equations; `unclipped_c` and `unclipped_h` are (6), (10)
    before their clip.
    """

    i: Array
    j: Array
    f: Array
    o: Array
    unclipped_c: Array
    c: Array
    a: Array
    m: Array
    unclipped_h: Array
    h: Array


# --- nonlinearities -------------------------------------------------------------------------------------------
# Their derivatives use the answer (s(1-s), 1-t^2): it is at hand, and a saturated gate overflows nothing.


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


defvjp(sigmoid, lambda ans, x: lambda g: g * (ans * (1 - ans)))
defvjp(tanh, lambda ans, x: lambda g: g * (1 - ans * ans))
defvjp(relu, lambda ans, x: lambda g: g * (ans > 0))
defvjp(clip, lambda ans, x, bound: lambda g: g * (anp.abs(x) <= bound))


class Activation(NamedTuple):
    """An activation and its derivative as a function of the *answer* y = function(x)."""

    function: Callable[[Array], Array]
    derivative: Callable[[Array], Array]


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(tanh, lambda y: 1 - y * y),
    "sigmoid": Activation(sigmoid, lambda y: y * (1 - y)),
    "relu": Activation(relu, lambda y: y > 0),
    "linear": Activation(lambda x: x, np.ones_like),
    "softsign": Activation(lambda x: x / (1 + anp.abs(x)), lambda y: (1 - abs(y)) ** 2),
}


def activation_function(activation: str | Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The function that a name in `ACTIVATIONS` means, or the function itself."""
    if isinstance(activation, str):
        return ACTIVATIONS[activation].function
    return activation


def check_activation(activation: Any, where: str) -> Any:
    """Return `activation` if it is a known name or a function, else raise ValueError."""
    if callable(activation) or (isinstance(activation, str) and activation in ACTIVATIONS):
        return activation
    raise ValueError(f"{where}: activation must be a function or one of {sorted(ACTIVATIONS)}, got {activation!r}")


def registered_name(activation: Any, where: str) -> str | None:
    """The name under which an activation is saved; a function without one is a ValueError."""
    if activation is None or isinstance(activation, str):
        return activation
    for name, registered in ACTIVATIONS.items():
        if registered.function is activation:
            return name
    raise ValueError(f"{where}: the activation {activation!r} has no registered name, so it cannot be saved")


def check_size(value: Any, name: str, where: str) -> int:
    """Return `value` as an int if it is a positive whole number, else raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{where}: {name} must be a positive whole number, got {value!r}")
    return int(value)


def check_units(units: Any, num_units: Any, where: str) -> int:
    """Return `units`, checked; `num_units`, TensorFlow's word for it, is a TypeError that says so."""
    if num_units is not None:
        raise TypeError(f"{where}: num_units is called units here; write {where}({num_units})")
    return check_size(units, "units", where)


# --- cells ----------------------------------------------------------------------------------------------------


class Cell:
    """What every cell has: a name, sizes, a state of zeros, and the call ``output, state = cell(params, x_t, state)``.

    A cell of one's own needs no base class, only these: `name`, `output_size`, `state_size`, `zero_state`, `init` and
    the call; `input_dim` and `config` where inputs shall be checked and models saved. Examples: `minilstm.variants`.
    """

    default_name = "cell"

    def __init__(self, name: str | None = None) -> None:
        if name is not None:
            check_name(name, type(self).__name__)
        self.name = name or self.default_name

    @property
    def output_size(self) -> int:
        """Width of the output."""
        raise NotImplementedError

    @property
    def state_size(self) -> Any:
        """Widths of the state's parts, in the state's structure."""
        raise NotImplementedError

    def zero_state(self, batch: int, dtype: Any = np.float32) -> Any:
        """A state of zeros: each part ``[batch, width]``."""
        return tree_map(lambda size: np.zeros((batch, size), dtype), self.state_size)

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """New weights; `seed` is anything ``np.random.default_rng`` takes."""
        raise NotImplementedError

    def input_dim(self, params: dict[str, Any]) -> int | None:
        """The number of input features that `params` were made for; None where the cell cannot tell."""
        return None

    def __call__(self, params: dict[str, Any], x_t: Array, state: Any, masks: Any = None) -> tuple[Array, Any]:
        """One step: x_t ``[batch, input_dim]`` and a state to the output ``[batch, output_size]`` and the new state.

        `masks` is for cells that drop out (see `DropoutWrapper`); others have none.
        """
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """The options as JSON-able values.

        Raises ValueError for an activation or initializer without a registered name: it could not be read back.
        """
        return {"cell": type(self).__name__, "name": self.name}


class LSTMCell(Cell):
    """An LSTM cell with every option of ``tf.compat.v1.nn.rnn_cell.LSTMCell``.

    Parameters
    ----------
    units : int
        Size of the cell state (TensorFlow's ``num_units``).
    forget_bias : float, default 1.0
        Added to the forget gate's pre-activation at run time.
    use_peepholes : bool, default False
        Diagonal connections from the cell state to the gates i, f (from c_{t-1}) and o (from c_t).
    cell_clip, proj_clip : float, optional
        Bounds for (6) and (10). ``proj_clip`` needs ``num_proj``.
    num_proj : int, optional
        Size of the projected output.
    activation : str or callable, default "tanh"
        A name in `ACTIVATIONS` or a function of an array written with ``autograd.numpy``.
    initializer, bias_initializer
        For kernel, peepholes and projection, and for the bias; see `minilstm.initializers`.
    name : str, optional
        Replaces ``lstm_cell`` in variable names.
    num_units
        TensorFlow's word for `units`; giving it raises a TypeError that says so.

    Raises
    ------
    ValueError
        For sizes that are not positive whole numbers, clips that are not positive, or an unknown activation.

    Notes
    -----
    The same weights elsewhere. Keras: gate order i, f, c, o; two matrices, kernel and recurrent_kernel; the forget bias
    is part of the stored bias; no peepholes, projection or clips. PyTorch: gate order i, f, g, o in rows, not columns;
    two biases that are added; the forget bias is stored; ``proj_size`` is ``num_proj``; no peepholes or clips.
    ONNX: gate order i, o, f, c; two biases; peepholes in the order i, o, f. State order is (c, h) in TensorFlow and
    here, (h, c) in Keras and PyTorch.

    Examples
    --------
    >>> import numpy as np
    >>> cell = LSTMCell(3)
    >>> params = cell.init(seed=0, input_dim=2)
    >>> output, state = cell(params, np.zeros((5, 2), np.float32), cell.zero_state(5))
    >>> output.shape, state.c.shape
    ((5, 3), (5, 3))
    """

    default_name = "lstm_cell"

    def __init__(
        self,
        units: int | None = None,
        *,
        forget_bias: float = 1.0,
        use_peepholes: bool = False,
        cell_clip: float | None = None,
        num_proj: int | None = None,
        proj_clip: float | None = None,
        activation: str | Callable[[Array], Array] = "tanh",
        initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        name: str | None = None,
        num_units: Any = None,
    ) -> None:
        super().__init__(name)
        where = type(self).__name__
        self.units = check_units(units, num_units, where)
        self.num_proj = None if num_proj is None else check_size(num_proj, "num_proj", where)
        for option, bound in (("cell_clip", cell_clip), ("proj_clip", proj_clip)):
            if bound is not None and not bound > 0:
                raise ValueError(f"{where}: {option} must be positive, got {bound!r}")
        if proj_clip is not None and num_proj is None:
            raise ValueError(f"{where}: proj_clip={proj_clip} needs num_proj")
        if not np.isfinite(forget_bias):
            raise ValueError(f"{where}: forget_bias must be a finite number, got {forget_bias!r}")
        self.forget_bias = float(forget_bias)
        self.use_peepholes = bool(use_peepholes)
        self.cell_clip = cell_clip
        self.proj_clip = proj_clip
        self.activation = check_activation(activation, where)
        self.initializer = initializers.get(initializer)
        self.bias_initializer = initializers.get(bias_initializer, "bias_initializer")

    @property
    def output_size(self) -> int:
        """Width of the output h: ``num_proj or units``."""
        return self.num_proj or self.units

    @property
    def state_size(self) -> LSTMState:
        """Widths of c and h."""
        return LSTMState(self.units, self.output_size)

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """New weights: ``kernel``, ``bias``, and where asked for ``w_i_diag``, ``w_f_diag``, ``w_o_diag`` and
        ``projection/kernel``. `seed` is anything ``np.random.default_rng`` takes.
        """
        input_dim = check_size(input_dim, "input_dim", f"{type(self).__name__}.init")
        rng = np.random.default_rng(seed)
        params: dict[str, Any] = {
            "kernel": self.initializer(rng, (input_dim + self.output_size, 4 * self.units), dtype),
            "bias": self.bias_initializer(rng, (4 * self.units,), dtype),
        }
        if self.use_peepholes:
            for gate in "fio":
                params[f"w_{gate}_diag"] = self.initializer(rng, (self.units,), dtype)
        if self.num_proj is not None:
            params["projection"] = {"kernel": self.initializer(rng, (self.units, self.num_proj), dtype)}
        return params

    def input_dim(self, params: dict[str, Any]) -> int:
        """The number of input features that `params` were made for."""
        return int(params["kernel"].shape[0]) - self.output_size

    def step(self, params: dict[str, Any], x_t: Array, c: Array, h: Array) -> LSTMStep:
        """Everything that one step computes; `c` and `h` are those of the step before."""
        activation = activation_function(self.activation)
        z = anp.concatenate([x_t, h], axis=1) @ params["kernel"] + params["bias"]  # (1)
        i, j, f, o = (z[:, k * self.units : (k + 1) * self.units] for k in range(4))  # (2)
        f = f + self.forget_bias
        if self.use_peepholes:
            i = i + params["w_i_diag"] * c
            f = f + params["w_f_diag"] * c
        i = sigmoid(i)  # (3)
        j = activation(j)  # (4)
        f = sigmoid(f)  # (5)
        unclipped_c = f * c + i * j  # (6)
        c = unclipped_c if self.cell_clip is None else clip(unclipped_c, self.cell_clip)
        if self.use_peepholes:
            o = o + params["w_o_diag"] * c
        o = sigmoid(o)  # (7)
        a = activation(c)  # (8)
        m = o * a  # (9)
        unclipped_h = m if self.num_proj is None else m @ params["projection"]["kernel"]  # (10)
        h = unclipped_h if self.proj_clip is None else clip(unclipped_h, self.proj_clip)
        return LSTMStep(i, j, f, o, unclipped_c, c, a, m, unclipped_h, h)

    def __call__(
        self, params: dict[str, Any], x_t: Array, state: Sequence[Array], masks: Any = None
    ) -> tuple[Array, LSTMState]:
        """One step: x_t ``[batch, input_dim]`` and a pair (c, h) to the output ``[batch, output_size]`` and the
        new state. `masks` is for wrappers that drop out; a bare cell has none.
        """
        c, h = state
        step = self.step(params, x_t, c, h)
        return step.h, LSTMState(step.c, step.h)

    def config(self) -> dict[str, Any]:
        """The options as JSON-able values; ValueError for a function without a registered name."""
        where = f"{type(self).__name__}.config"
        return {
            **super().config(),
            "units": self.units,
            "forget_bias": self.forget_bias,
            "use_peepholes": self.use_peepholes,
            "cell_clip": self.cell_clip,
            "num_proj": self.num_proj,
            "proj_clip": self.proj_clip,
            "activation": registered_name(self.activation, where),
            "initializer": initializers.describe(self.initializer, where),
            "bias_initializer": initializers.describe(self.bias_initializer, where),
        }

    def __repr__(self) -> str:
        shown = [f"{key}={value!r}" for key, value in self._options_to_show()]
        return f"{type(self).__name__}({', '.join([str(self.units), *shown])})"

    def _options_to_show(self) -> list[tuple[str, Any]]:
        defaults = {
            "forget_bias": 1.0, "use_peepholes": False, "cell_clip": None, "num_proj": None, "proj_clip": None,
            "activation": "tanh", "name": self.default_name,
        }  # fmt: skip
        return [(key, getattr(self, key)) for key, default in defaults.items() if getattr(self, key) != default]


class BasicLSTMCell(LSTMCell):
    """TensorFlow's ``BasicLSTMCell``: the plain equations, under the variable name ``basic_lstm_cell``.

    Takes `units`, `forget_bias`, `activation`, `initializer`, `bias_initializer` and `name` as `LSTMCell` does.
    """

    default_name = "basic_lstm_cell"

    def __init__(
        self,
        units: int | None = None,
        *,
        forget_bias: float = 1.0,
        activation: str | Callable[[Array], Array] = "tanh",
        initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        name: str | None = None,
        num_units: Any = None,
    ) -> None:
        super().__init__(
            units,
            forget_bias=forget_bias,
            activation=activation,
            initializer=initializer,
            bias_initializer=bias_initializer,
            name=name,
            num_units=num_units,
        )

    def config(self) -> dict[str, Any]:
        """The options as JSON-able values."""
        keys = ("cell", "units", "forget_bias", "activation", "initializer", "bias_initializer", "name")
        config = super().config()
        return {key: config[key] for key in keys}
