"""Other recurrent cells, to compare an LSTM with: a plain RNN, a GRU, an LSTM with coupled gates.

Their equations are written once, forwards; gradients are autograd's trace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import autograd.numpy as anp
import numpy as np

from . import initializers
from .cells import (
    Array,
    Cell,
    LSTMState,
    activation_function,
    check_activation,
    check_size,
    check_units,
    registered_name,
    sigmoid,
)


class _PlainCell(Cell):
    """What the cells here share: units, an activation, initializers; the state is h ``[batch, units]``."""

    def __init__(
        self,
        units: int | None = None,
        *,
        activation: str | Callable[[Array], Array] = "tanh",
        initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        name: str | None = None,
        num_units: Any = None,
    ) -> None:
        super().__init__(name)
        where = type(self).__name__
        self.units = check_units(units, num_units, where)
        self.activation = check_activation(activation, where)
        self.initializer = initializers.get(initializer)
        self.bias_initializer = initializers.get(bias_initializer, "bias_initializer")

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
        input_dim = check_size(input_dim, "input_dim", f"{type(self).__name__}.init")
        rng = np.random.default_rng(seed)
        columns = self.columns * self.units
        return {
            "kernel": self.initializer(rng, (input_dim + self.units, columns), dtype),
            "bias": self.bias_initializer(rng, (columns,), dtype),
        }

    columns = 1  # blocks of `units` columns in the kernel

    def input_dim(self, params: dict[str, Any]) -> int:
        """The number of input features that `params` were made for."""
        return int(params["kernel"].shape[0]) - self.units

    def config(self) -> dict[str, Any]:
        """The options as JSON-able values."""
        where = f"{type(self).__name__}.config"
        return {
            **super().config(),
            "units": self.units,
            "activation": registered_name(self.activation, where),
            "initializer": initializers.describe(self.initializer, where),
            "bias_initializer": initializers.describe(self.bias_initializer, where),
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.units})"


class BasicRNNCell(_PlainCell):
    """h_t = activation([x_t, h_{t-1}] @ kernel + bias). TensorFlow's ``BasicRNNCell``; Elman 1990."""

    default_name = "basic_rnn_cell"

    def __call__(self, params: dict[str, Any], x_t: Array, state: Array, masks: Any = None) -> tuple[Array, Array]:
        """One step; the state is h."""
        z = anp.concatenate([x_t, state], axis=1) @ params["kernel"] + params["bias"]
        h = activation_function(self.activation)(z)
        return h, h


class GRUCell(_PlainCell):
    """A gated recurrent unit in TensorFlow's layout (``gates/kernel``, ``candidate/kernel``):

        r, u = sigmoid([x_t, h_{t-1}] @ gates/kernel + gates/bias)     reset, update
        candidate = activation([x_t, r * h_{t-1}] @ candidate/kernel + candidate/bias)
        h_t = u * h_{t-1} + (1 - u) * candidate

    Without a `bias_initializer` the gates' bias starts at 1 and the candidate's at 0, as in TensorFlow. PyTorch and
    Keras 3 apply r after the product with the recurrent matrix (``reset_after``), so their weights do not fit here.

    Source: Cho et al. 2014 (arXiv 1406.1078).
    """

    default_name = "gru_cell"

    def __init__(self, units: int | None = None, *, bias_initializer: Any = None, **options: Any) -> None:
        super().__init__(units, bias_initializer=bias_initializer or "zeros", **options)
        self.gates_initializer = initializers.get(bias_initializer or {"name": "constant", "value": 1.0})
        self.bias_given = bias_initializer is not None

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """``gates/kernel``, ``gates/bias``, ``candidate/kernel``, ``candidate/bias``."""
        input_dim = check_size(input_dim, "input_dim", "GRUCell.init")
        rng = np.random.default_rng(seed)
        rows, units = input_dim + self.units, self.units
        return {
            "gates": {
                "kernel": self.initializer(rng, (rows, 2 * units), dtype),
                "bias": self.gates_initializer(rng, (2 * units,), dtype),
            },
            "candidate": {
                "kernel": self.initializer(rng, (rows, units), dtype),
                "bias": self.bias_initializer(rng, (units,), dtype),
            },
        }

    def input_dim(self, params: dict[str, Any]) -> int:
        """The number of input features that `params` were made for."""
        return int(params["gates"]["kernel"].shape[0]) - self.units

    def __call__(self, params: dict[str, Any], x_t: Array, state: Array, masks: Any = None) -> tuple[Array, Array]:
        """One step; the state is h."""
        gates, candidate = params["gates"], params["candidate"]
        r_u = sigmoid(anp.concatenate([x_t, state], axis=1) @ gates["kernel"] + gates["bias"])
        r, u = r_u[:, : self.units], r_u[:, self.units :]
        z = anp.concatenate([x_t, r * state], axis=1) @ candidate["kernel"] + candidate["bias"]
        h = u * state + (1 - u) * activation_function(self.activation)(z)
        return h, h

    def config(self) -> dict[str, Any]:
        """The options as JSON-able values."""
        config = super().config()
        return config if self.bias_given else {**config, "bias_initializer": None}


class CoupledLSTMCell(_PlainCell):
    """An LSTM whose input gate is what the forget gate leaves, i = 1 - f, so that three gates j, f, o remain:

        c_t = f * c_{t-1} + (1 - f) * activation(j)    f = sigmoid(f + forget_bias)
        h_t = sigmoid(o) * activation(c_t)

    Source: Greff et al. 2017 (arXiv 1503.04069), who call it CIFG; the column order j, f, o is that of
    ``tf.contrib.rnn.CoupledInputForgetGateLSTMCell``.
    """

    default_name = "coupled_input_forget_gate_lstm_cell"
    columns = 3

    def __init__(self, units: int | None = None, *, forget_bias: float = 1.0, **options: Any) -> None:
        super().__init__(units, **options)
        if not np.isfinite(forget_bias):
            raise ValueError(f"CoupledLSTMCell: forget_bias must be a finite number, got {forget_bias!r}")
        self.forget_bias = float(forget_bias)

    @property
    def state_size(self) -> LSTMState:
        """Widths of c and h."""
        return LSTMState(self.units, self.units)

    def __call__(
        self, params: dict[str, Any], x_t: Array, state: LSTMState, masks: Any = None
    ) -> tuple[Array, LSTMState]:
        """One step; the state is (c, h)."""
        c, h = state
        activation = activation_function(self.activation)
        z = anp.concatenate([x_t, h], axis=1) @ params["kernel"] + params["bias"]
        j, f, o = (z[:, k * self.units : (k + 1) * self.units] for k in range(3))
        f = sigmoid(f + self.forget_bias)
        c = f * c + (1 - f) * activation(j)
        h = sigmoid(o) * activation(c)
        return h, LSTMState(c, h)

    def config(self) -> dict[str, Any]:
        """The options as JSON-able values."""
        return {**super().config(), "forget_bias": self.forget_bias}
