r"""One time step of an LSTM, line for line the equations.

Shapes: x_t is ``[batch, input_dim]``, c is ``[batch, units]``, h is ``[batch, output_size]``, where
``output_size = num_proj or units``. TensorFlow keeps one kernel of shape ``[input_dim + output_size, 4 * units]``
whose rows multiply the input first and the previous output then, and whose columns are the four gates in the
order i, j, f, o (input gate, new input, forget gate, output gate):

    z_t = [x_t, h_{t-1}] @ kernel + bias                                              (1)
    z_i, z_j, z_f, z_o = the four column blocks of z_t                                (2)
    i_t = sigmoid(z_i + w_i * c_{t-1})                                                (3)
    j_t = activation(z_j)                                                             (4)
    f_t = sigmoid(z_f + forget_bias + w_f * c_{t-1})                                  (5)
    c_t = clip(f_t * c_{t-1} + i_t * j_t, cell_clip)                                  (6)
    o_t = sigmoid(z_o + w_o * c_t)                                                    (7)
    a_t = activation(c_t)                                                             (8)
    m_t = o_t * a_t                                                                   (9)
    h_t = clip(m_t @ projection, proj_clip)                                          (10)

The diagonal peepholes w, the projection and both clips are optional. ``forget_bias`` is added at run time and is never
part of the stored bias. `minilstm.bptt.step_back` undoes these equations.

Sources: Hochreiter and Schmidhuber 1997; Gers, Schmidhuber and Cummins 2000 (the forget gate); Sak, Senior and
Beaufays 2014 (arXiv 1402.1128; peepholes and projection); layout and clips as in TensorFlow 1.x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, InitVar, dataclass
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np

from . import initializers
from .activations import ACTIVATIONS as ACTIVATIONS  # re-exported, as all names that are imported twice here
from .activations import Activation as Activation
from .activations import activation_function as activation_function
from .activations import activation_option as activation_option
from .activations import clip as clip
from .activations import registered_name as registered_name
from .activations import relu as relu
from .activations import sigmoid as sigmoid
from .activations import tanh as tanh
from .arguments import check_init, check_whole
from .gates import GATES as GATES
from .gates import pack_gates as pack_gates
from .gates import split_gates as split_gates
from .options import (
    Recipe,
    check_bound,
    check_finite,
    check_optional_size,
    fixed,
    flag,
    option,
    refuse_num_units,
)  # fmt: skip
from .params import tree_map
from .shapes import checked_call, own_copy

Array = Any  # a NumPy array, or autograd's box around one


class LSTMState(NamedTuple):
    """The state of an LSTM cell in TensorFlow's order: c ``[batch, units]``, h ``[batch, output_size]``."""

    c: Array
    h: Array


class LSTMStep(NamedTuple):
    """What one step computes, in the letters of the equations; `unclipped_...` are (6) and (10) before their clip."""

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


# --- cells ----------------------------------------------------------------------------------------------------


class Cell(Recipe):
    """The base class of cells: a name, sizes, a zero state, and the call ``output, state = cell(params, x_t, state)``.

    A user's own cell needs no base class, only these: `name`, `output_size`, `state_size`, `zero_state`, `init` and
    the call. If it has `input_dim`, inputs are checked. A checkpoint cannot describe it. Examples: `minilstm.variants`.
    """

    kind = "cell"
    default_name = "cell"

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.name: str = name or self.default_name

    def __post_init__(self) -> None:
        super().__post_init__()
        self.name = self.name or self.default_name

    @property
    def output_size(self) -> int:
        """Width of the output."""
        raise NotImplementedError

    @property
    def state_size(self) -> Any:
        """Widths of the parts of the state, in the structure of the state."""
        raise NotImplementedError

    def zero_state(self, batch: int, dtype: Any = np.float32) -> Any:
        """A state of zeros: each part ``[batch, width]``."""
        return tree_map(lambda size: np.zeros((batch, size), dtype), self.state_size)

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """Make new weights; `seed` is anything ``np.random.default_rng`` takes."""
        raise NotImplementedError

    def input_dim(self, params: dict[str, Any]) -> int | None:
        """The number of input features that `params` were made for, or None if the cell cannot tell."""
        return None

    def __call__(self, params: dict[str, Any], x_t: Array, state: Any, masks: Any = None) -> tuple[Array, Any]:
        """One step: x_t ``[batch, input_dim]`` and a state to the output ``[batch, output_size]`` and the new state.

        `masks` is for cells that drop out (see `DropoutWrapper`); other cells get None. x_t and the state are taken in
        the dtype of the weights. Raises ValueError if they do not fit the cell and each other.
        """
        raise NotImplementedError


@dataclass(eq=False, repr=False)
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
    is stored in the bias; no peepholes, projection or clips. PyTorch: gate order i, f, g, o in rows; two biases, added;
    the forget bias is stored; ``proj_size`` is ``num_proj``; no peepholes or clips. ONNX: gate order i, o, f, c; two
    biases; peepholes in the order i, o, f. The state is (c, h) in TensorFlow and here, (h, c) in Keras and PyTorch.

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

    units: Any = option(None, check_whole)
    _: KW_ONLY
    forget_bias: float = option(1.0, check_finite)
    use_peepholes: bool = flag(False)
    cell_clip: float | None = option(None, check_bound)
    num_proj: int | None = option(None, check_optional_size)
    proj_clip: float | None = option(None, check_bound)
    activation: Any = activation_option("tanh")
    initializer: Any = initializers.option()
    bias_initializer: Any = initializers.option("zeros", of_lstm_gates=True)
    name: str | None = None  # type: ignore[assignment]
    num_units: InitVar[Any] = None

    def __post_init__(self, num_units: Any) -> None:
        refuse_num_units(num_units, type(self).__name__)
        super().__post_init__()
        if self.proj_clip is not None and self.num_proj is None:
            raise ValueError(f"{type(self).__name__}: proj_clip={self.proj_clip} needs num_proj")

    @property
    def output_size(self) -> int:
        """Width of the output h: ``num_proj or units``."""
        return self.num_proj or int(self.units)

    @property
    def state_size(self) -> LSTMState:
        """Widths of c and h."""
        return LSTMState(self.units, self.output_size)

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """Make new weights: ``kernel``, ``bias``, with peepholes ``w_i_diag``, ``w_f_diag``, ``w_o_diag``, and with a
        projection ``projection/kernel``. `seed` is anything ``np.random.default_rng`` takes.
        """
        rng, input_dim, dtype = check_init(seed, input_dim, dtype, f"{type(self).__name__}.init")
        params: dict[str, Any] = {
            "kernel": self.initializer(rng, (input_dim + self.output_size, 4 * self.units), dtype),
            "bias": self.bias_initializer(rng, (4 * self.units,), dtype),
        }
        if self.use_peepholes:
            for gate in ("f", "i", "o"):  # in this order, so that a seed gives the weights it always gave
                params[f"w_{gate}_diag"] = self.initializer(rng, (self.units,), dtype)
        if self.num_proj is not None:
            params["projection"] = {"kernel": self.initializer(rng, (self.units, self.num_proj), dtype)}
        return params

    def input_dim(self, params: dict[str, Any]) -> int:
        """The number of input features that `params` were made for."""
        return int(params["kernel"].shape[0]) - self.output_size

    def step(self, params: dict[str, Any], x_t: Array, c: Array, h: Array) -> LSTMStep:
        """Everything that one step computes; `c` and `h` are from the step before. `bptt.step_back` undoes it."""
        activation = activation_function(self.activation)
        z = split_gates(anp.concatenate([x_t, h], axis=1) @ params["kernel"] + params["bias"])  # (1)
        z_i, z_j, z_f, z_o = z["i"], z["j"], z["f"], z["o"]  # (2)
        z_f = z_f + self.forget_bias
        if self.use_peepholes:
            z_i = z_i + params["w_i_diag"] * c
            z_f = z_f + params["w_f_diag"] * c
        i = sigmoid(z_i)  # (3)
        j = activation(z_j)  # (4)
        f = sigmoid(z_f)  # (5)
        unclipped_c = f * c + i * j  # (6)
        c = unclipped_c if self.cell_clip is None else clip(unclipped_c, self.cell_clip)
        if self.use_peepholes:
            z_o = z_o + params["w_o_diag"] * c
        o = sigmoid(z_o)  # (7)
        a = activation(c)  # (8)
        m = o * a  # (9)
        unclipped_h = m if self.num_proj is None else m @ params["projection"]["kernel"]  # (10)
        h = unclipped_h if self.proj_clip is None else clip(unclipped_h, self.proj_clip)
        return LSTMStep(i, j, f, o, unclipped_c, c, a, m, unclipped_h, h)

    def __call__(
        self, params: dict[str, Any], x_t: Array, state: Sequence[Array], masks: Any = None
    ) -> tuple[Array, LSTMState]:
        """One step: x_t and a pair (c, h) to the output and the new state. `masks` is for wrappers that drop out."""
        x_t, (c, h) = checked_call(self, params, x_t, state)
        step = self.step(params, x_t, c, h)
        return own_copy(step.h), LSTMState(step.c, step.h)


@dataclass(eq=False, repr=False)
class BasicLSTMCell(LSTMCell):
    """TensorFlow's ``BasicLSTMCell``: the plain equations, under the variable name ``basic_lstm_cell``.

    Takes `units`, `forget_bias`, `activation`, `initializer`, `bias_initializer` and `name` as `LSTMCell` does.
    """

    default_name = "basic_lstm_cell"

    use_peepholes: bool = fixed(False)
    cell_clip: float | None = fixed(None)
    num_proj: int | None = fixed(None)
    proj_clip: float | None = fixed(None)
