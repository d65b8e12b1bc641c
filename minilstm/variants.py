"""Other recurrent cells, to compare an LSTM with: a plain RNN, a GRU, an LSTM with coupled gates.

Each has its forward equations here. `minilstm.variants_bptt` undoes the steps of the plain RNN and the GRU by hand;
autograd's trace differentiates the LSTM with coupled gates.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, InitVar, dataclass
from typing import Any, NamedTuple

import autograd.numpy as anp
import numpy as np

from . import initializers
from .arguments import check_init, check_whole
from .cells import Array, Cell, LSTMState, activation_function, activation_option, sigmoid
from .options import check_finite, flag, option, refuse_num_units
from .shapes import checked_call, own_copy


@dataclass(eq=False, repr=False)
class _PlainCell(Cell):
    """What the cells here share: units, an activation, initializers; the state is h ``[batch, units]``."""

    columns = 1  # blocks of `units` columns in the kernel

    units: Any = option(None, check_whole)
    _: KW_ONLY
    activation: Any = activation_option("tanh")
    initializer: Any = initializers.option()
    bias_initializer: Any = initializers.option("zeros")
    name: str | None = None  # type: ignore[assignment]
    num_units: InitVar[Any] = None

    def __post_init__(self, num_units: Any) -> None:
        refuse_num_units(num_units, type(self).__name__)
        super().__post_init__()

    @property
    def output_size(self) -> int:
        """`units`."""
        return self.units

    @property
    def state_size(self) -> Any:
        """`units`."""
        return self.units

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """``kernel [input_dim + units, columns]`` and ``bias [columns]``."""
        rng, input_dim, dtype = check_init(seed, input_dim, dtype, f"{type(self).__name__}.init")
        columns = self.columns * self.units
        return {
            "kernel": self.initializer(rng, (input_dim + self.units, columns), dtype),
            "bias": self.bias_initializer(rng, (columns,), dtype),
        }

    def input_dim(self, params: dict[str, Any]) -> int:
        """The number of input features that `params` were made for."""
        return int(params["kernel"].shape[0]) - self.units


class RNNStep(NamedTuple):
    """What one step of a plain RNN computes."""

    h: Array


class GRUStep(NamedTuple):
    """What one step of a GRU computes, in the letters of its equations."""

    r: Array
    u: Array
    q: Array
    k: Array
    h: Array


@dataclass(eq=False, repr=False)
class BasicRNNCell(_PlainCell):
    """A plain RNN, TensorFlow's ``BasicRNNCell``:

        z_t = [x_t, h_{t-1}] @ kernel + bias                                          (1)
        h_t = activation(z_t)                                                         (2)

    Source: Elman 1990.
    """

    default_name = "basic_rnn_cell"

    def step(self, params: dict[str, Any], x_t: Array, h: Array) -> RNNStep:
        """Everything that one step computes; `variants_bptt.rnn_step_back` undoes it."""
        z = anp.concatenate([x_t, h], axis=1) @ params["kernel"] + params["bias"]  # (1)
        return RNNStep(activation_function(self.activation)(z))  # (2)

    def __call__(self, params: dict[str, Any], x_t: Array, state: Array, masks: Any = None) -> tuple[Array, Array]:
        """One step; the state is h."""
        h = self.step(params, *checked_call(self, params, x_t, state)).h
        return own_copy(h), h


@dataclass(eq=False, repr=False)
class GRUCell(_PlainCell):
    """A gated recurrent unit in TensorFlow's layout (``gates/kernel``, ``candidate/kernel``):

        z_r, z_u = [x_t, h_{t-1}] @ gates/kernel + gates/bias, two column blocks      (1)
        r_t, u_t = sigmoid(z_r), sigmoid(z_u)                                         (2)
        q_t = r_t * h_{t-1}                                                           (3)
        z_k = [x_t, q_t] @ candidate/kernel + candidate/bias                          (4)
        k_t = activation(z_k)                                                         (5)
        h_t = u_t * h_{t-1} + (1 - u_t) * k_t                                         (6)

    r is the reset gate, u the update gate, k the candidate. Without a `bias_initializer` the gates' bias starts at 1
    and the candidate's at 0, as in TensorFlow.

    With `reset_after` it is the GRU of PyTorch, and of Keras by default. r multiplies after the product with the
    recurrent matrix, which has a bias of its own, and every matrix has the columns of r, u and k:

        a_r, a_u, a_k = x_t @ kernel + bias                                           (1)
        b_r, b_u, q_t = h_{t-1} @ recurrent_kernel + recurrent_bias                   (2)
        r_t, u_t = sigmoid(a_r + b_r), sigmoid(a_u + b_u)                             (3)
        k_t = activation(a_k + r_t * q_t)                                             (4)
        h_t = u_t * h_{t-1} + (1 - u_t) * k_t                                         (5)

    Without a `bias_initializer` the `recurrent_bias` starts at 0. The weights of one formula do not fit the other.

    Sources: Cho et al. 2014 (arXiv 1406.1078); `reset_after` from its first version, and from cuDNN.
    """

    default_name = "gru_cell"

    _: KW_ONLY
    bias_initializer: Any = initializers.option(None)
    reset_after: bool = flag(False)

    def config(self) -> dict[str, Any]:
        """As `Recipe.config`. `reset_after` is there only if it is True: other descriptions keep their bytes."""
        described = super().config()
        if not self.reset_after:
            del described["reset_after"]
        return described

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """``gates/kernel``, ``gates/bias``, ``candidate/kernel``, ``candidate/bias``; with `reset_after` ``kernel``,
        ``recurrent_kernel``, ``bias`` and ``recurrent_bias``.
        """
        rng, input_dim, dtype = check_init(seed, input_dim, dtype, "GRUCell.init")
        rows, units = input_dim + self.units, self.units
        ones, zeros = (self.bias_initializer or start for start in (initializers.Constant(1.0), initializers.Zeros()))
        if self.reset_after:
            return {
                "kernel": self.initializer(rng, (input_dim, 3 * units), dtype),
                "recurrent_kernel": self.initializer(rng, (units, 3 * units), dtype),
                "bias": np.concatenate([ones(rng, (2 * units,), dtype), zeros(rng, (units,), dtype)]),
                "recurrent_bias": zeros(rng, (3 * units,), dtype),
            }
        return {
            "gates": {
                "kernel": self.initializer(rng, (rows, 2 * units), dtype),
                "bias": ones(rng, (2 * units,), dtype),
            },
            "candidate": {
                "kernel": self.initializer(rng, (rows, units), dtype),
                "bias": zeros(rng, (units,), dtype),
            },
        }

    def input_dim(self, params: dict[str, Any]) -> int:
        """The number of input features that `params` were made for."""
        if self.reset_after:
            return int(params["kernel"].shape[0])
        return int(params["gates"]["kernel"].shape[0]) - self.units

    def step(self, params: dict[str, Any], x_t: Array, h: Array) -> GRUStep:
        """Everything that one step computes; `h` is from the step before. `variants_bptt.gru_step_back` undoes it, and
        with `reset_after` `variants_bptt.reset_after_step_back`.
        """
        if self.reset_after:
            return self._step_reset_after(params, x_t, h)
        gates, candidate = params["gates"], params["candidate"]
        z = anp.concatenate([x_t, h], axis=1) @ gates["kernel"] + gates["bias"]  # (1)
        r, u = sigmoid(z[:, : self.units]), sigmoid(z[:, self.units :])  # (2)
        q = r * h  # (3)
        z_k = anp.concatenate([x_t, q], axis=1) @ candidate["kernel"] + candidate["bias"]  # (4)
        k = activation_function(self.activation)(z_k)  # (5)
        return GRUStep(r, u, q, k, u * h + (1 - u) * k)  # (6)

    def _step_reset_after(self, params: dict[str, Any], x_t: Array, h: Array) -> GRUStep:
        n = self.units
        a = x_t @ params["kernel"] + params["bias"]  # (1)
        b = h @ params["recurrent_kernel"] + params["recurrent_bias"]  # (2)
        r, u = sigmoid(a[:, :n] + b[:, :n]), sigmoid(a[:, n : 2 * n] + b[:, n : 2 * n])  # (3)
        q = b[:, 2 * n :]
        k = activation_function(self.activation)(a[:, 2 * n :] + r * q)  # (4)
        return GRUStep(r, u, q, k, u * h + (1 - u) * k)  # (5)

    def __call__(self, params: dict[str, Any], x_t: Array, state: Array, masks: Any = None) -> tuple[Array, Array]:
        """One step; the state is h."""
        h = self.step(params, *checked_call(self, params, x_t, state)).h
        return own_copy(h), h


@dataclass(eq=False, repr=False)
class CoupledLSTMCell(_PlainCell):
    """An LSTM with the coupled input gate i = 1 - f, so that three gates j, f, o remain:

        c_t = f * c_{t-1} + (1 - f) * activation(z_j)    f = sigmoid(z_f + forget_bias)
        h_t = sigmoid(z_o) * activation(c_t)

    Source: Greff et al. 2017 (arXiv 1503.04069), who call it CIFG; the column order j, f, o is that of
    ``tf.contrib.rnn.CoupledInputForgetGateLSTMCell``.
    """

    default_name = "coupled_input_forget_gate_lstm_cell"
    columns = 3

    _: KW_ONLY
    forget_bias: float = option(1.0, check_finite)

    @property
    def state_size(self) -> LSTMState:
        """Widths of c and h."""
        return LSTMState(self.units, self.units)

    def __call__(
        self, params: dict[str, Any], x_t: Array, state: LSTMState, masks: Any = None
    ) -> tuple[Array, LSTMState]:
        """One step; the state is (c, h)."""
        x_t, (c, h) = checked_call(self, params, x_t, state)
        activation = activation_function(self.activation)
        z = anp.concatenate([x_t, h], axis=1) @ params["kernel"] + params["bias"]
        z_j, z_f, z_o = (z[:, k * self.units : (k + 1) * self.units] for k in range(self.columns))
        f = sigmoid(z_f + self.forget_bias)
        c = f * c + (1 - f) * activation(z_j)
        h = sigmoid(z_o) * activation(c)
        return own_copy(h), LSTMState(c, h)
