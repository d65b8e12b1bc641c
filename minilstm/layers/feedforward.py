"""Layers that treat every time step alike: Dense, Embedding, Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
from autograd.extend import defvjp, primitive
from autograd.tracer import getval

from .. import initializers
from ..cells import activation_function, check_activation, check_size, registered_name
from ..fast import compiled
from ..fast.memory import features_first, recycled
from .base import Array, Layer, as_floating, check_features, required

FEW_OUTPUTS = 16  # of a Dense up to so many inputs that lie features first are multiplied where they lie
FEW = 1 << 13  # multiplications: a smaller product wakes none of BLAS's threads, nor is its result worth any care


class Dense(Layer):
    """``activation(inputs @ kernel + bias)`` on the last dimension, as ``tf.compat.v1.layers.dense``.

    Inputs ``[..., features]`` give outputs ``[..., units]``; parameters ``kernel [features, units]``, ``bias [units]``.

    Parameters
    ----------
    units : int
        Number of output features.
    activation : str or callable, optional
        As for `LSTMCell`; none by default.
    initializer, bias_initializer
        Default glorot_uniform and zeros, as TensorFlow's.
    name : str, optional
        Replaces ``dense`` in variable names.
    """

    default_name = "dense"

    def __init__(
        self,
        units: int,
        *,
        activation: Any = None,
        initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.units = check_size(units, "units", "Dense")
        self.activation = None if activation is None else check_activation(activation, "Dense")
        self.initializer = initializers.get(initializer)
        self.bias_initializer = initializers.get(bias_initializer, "bias_initializer")

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """``kernel [input_dim, units]`` and ``bias [units]``."""
        input_dim = check_size(input_dim, "input_dim", "Dense.init")
        rng = np.random.default_rng(seed)
        return {
            "kernel": self.initializer(rng, (input_dim, self.units), dtype),
            "bias": self.bias_initializer(rng, (self.units,), dtype),
        }

    def apply(
        self,
        params: dict[str, Any],
        inputs: Array,
        state: Any = None,
        sequence_length: Array | None = None,
        rng: Any = None,
    ) -> tuple[Array, None]:
        """Inputs ``[..., features]`` to outputs ``[..., units]``; there is no state."""
        kernel = required(params, "kernel", "Dense.apply")
        inputs = as_floating(inputs, kernel.dtype, "Dense.apply: inputs")
        check_features(inputs, kernel.shape[0], "Dense.apply", "[..., features]")
        outputs = affine(inputs, kernel, required(params, "bias", "Dense.apply"))
        return (outputs if self.activation is None else activation_function(self.activation)(outputs)), None

    @property
    def reads_features_first(self) -> bool:  # type: ignore[override]
        """Whether its products for one step at a time are about as fast as one for all."""
        return self.units <= FEW_OUTPUTS and type(self).apply is Dense.apply  # not a subclass of somebody's own

    def output_dim(self, input_dim: int | None) -> int:
        """`units`."""
        return self.units

    def config(self) -> dict[str, Any]:
        """Every option as JSON-able values."""
        return {
            **super().config(),
            "units": self.units,
            "activation": registered_name(self.activation, "Dense.config"),
            "initializer": initializers.describe(self.initializer, "Dense.config"),
            "bias_initializer": initializers.describe(self.bias_initializer, "Dense.config"),
        }

    def __repr__(self) -> str:
        return f"Dense({self.units}" + (f", activation={self.activation!r})" if self.activation else ")")


@primitive
def affine(x: Array, kernel: Array, bias: Array) -> Array:
    """``x @ kernel + bias`` on the last dimension, as one matrix product over all leading dimensions."""
    outputs = _product(x, kernel)
    outputs += bias
    return outputs


def _product(x: Array, kernel: Array) -> Array:
    """``x @ kernel`` on the last dimension."""
    if features_first(x):
        return np.ascontiguousarray(np.matmul(kernel.T, x.transpose(1, 2, 0)).transpose(2, 0, 1))
    rows = _rows(x)
    if rows.size * kernel.shape[1] < FEW:
        return np.dot(rows, kernel).reshape(*x.shape[:-1], kernel.shape[1])
    outputs = recycled((*x.shape[:-1], kernel.shape[1]), np.result_type(x, kernel))
    out = outputs.reshape(-1, kernel.shape[1])
    if kernel.shape[1] == 1 and _spares_blas(outputs.dtype):
        np.einsum("nk,k->n", rows, kernel[:, 0], out=out[:, 0])
    elif len(kernel) == 1 and _spares_blas(outputs.dtype):
        np.multiply(rows, kernel, out=out)
    else:
        np.dot(rows, kernel, out)
    return outputs


def _spares_blas(dtype: Any) -> bool:
    """Whether products with a vector are made without BLAS: its threads, once woken, keep a core each for a tenth of a
    second, and the threads of the compiled pass would miss that more than BLAS saves.
    """
    return compiled.wanted(dtype)


linear = primitive(_product)  # without the bias; also the derivative of either with respect to x


@primitive
def linear_features_first(x: Array, kernel: Array) -> Array:
    """The same, with a result that lies features first."""
    batch, time, features = x.shape
    columns = x.transpose(1, 2, 0)
    if features == 1:  # NumPy hands no product over a single number to BLAS; over two it is far faster
        columns = np.concatenate((columns, np.zeros_like(columns)), axis=1)
        kernel = np.concatenate((kernel, np.zeros_like(kernel)))
    outputs = recycled((time, kernel.shape[1], batch), np.result_type(x, kernel))
    return np.matmul(kernel.T, columns, out=outputs).transpose(2, 0, 1)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


@primitive
def kernel_gradient(x: Array, g: Array) -> Array:
    """The derivative of both with respect to the kernel: ``x.T @ g``, rows being all leading dimensions."""
    if features_first(x):
        return np.matmul(x.transpose(1, 2, 0), g.transpose(1, 0, 2)).sum(axis=0)
    rows, g_rows = _rows(x), _rows(g)
    if g_rows.shape[1] == 1 and rows.size >= FEW and _spares_blas(g.dtype):
        return np.einsum("nk,n->k", rows, g_rows[:, 0])[:, None]
    return np.dot(rows.T, g_rows)


@primitive
def bias_gradient(g: Array) -> Array:
    """The derivative with respect to the bias: the sum over all leading dimensions."""
    return np.add.reduce(_rows(g), axis=0)


def _d_x(ans: Array, x: Array, kernel: Array, *bias: Array) -> Any:
    along = linear_features_first if features_first(getval(x)) else linear
    return lambda g: along(g, kernel.T)


def _d_kernel(ans: Array, x: Array, kernel: Array, *bias: Array) -> Any:
    return lambda g: kernel_gradient(x, g)


defvjp(affine, _d_x, _d_kernel, lambda ans, x, kernel, bias: bias_gradient)
defvjp(linear, _d_x, _d_kernel)
defvjp(linear_features_first, _d_x, _d_kernel)
defvjp(kernel_gradient, lambda ans, x, g: lambda d: linear(g, d.T), lambda ans, x, g: lambda d: linear(x, d))
defvjp(bias_gradient, lambda ans, g: lambda d: d + np.zeros(g.shape, g.dtype))


class Embedding(Layer):
    """Rows of a table for integer inputs: ``[batch, time]`` to ``[batch, time, units]``.

    Parameters
    ----------
    vocabulary : int
        Number of rows; inputs are whole numbers from 0 to ``vocabulary - 1``, anything else is a ValueError.
    units : int
        Size of a row.
    initializer
        Default uniform in [-0.05, 0.05), as Keras has it.
    name : str, optional
        Replaces ``embedding`` in variable names.
    """

    default_name = "embedding"

    def __init__(
        self, vocabulary: int, units: int, *, initializer: Any = "uniform", name: str | None = None
    ) -> None:
        super().__init__(name)
        self.vocabulary = check_size(vocabulary, "vocabulary", "Embedding")
        self.units = check_size(units, "units", "Embedding")
        self.initializer = initializers.get(initializer)

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """``embeddings [vocabulary, units]``; `input_dim` is not needed."""
        return {"embeddings": self.initializer(np.random.default_rng(seed), (self.vocabulary, self.units), dtype)}

    def apply(
        self,
        params: dict[str, Any],
        inputs: Array,
        state: Any = None,
        sequence_length: Array | None = None,
        rng: Any = None,
    ) -> tuple[Array, None]:
        """Integer inputs ``[...]`` to outputs ``[..., units]``; there is no state."""
        indices = np.asarray(getval(inputs))
        if indices.dtype.kind not in "iu":
            raise ValueError(f"Embedding.apply: inputs must be whole numbers, got {indices.dtype}")
        if indices.size == 0:
            raise ValueError(f"Embedding.apply: inputs must not be empty, got shape {indices.shape}")
        table = required(params, "embeddings", "Embedding.apply")
        rows = table.shape[0]
        if indices.min() < 0 or indices.max() >= rows:
            raise ValueError(
                f"Embedding.apply: inputs must lie from 0 to {rows - 1}, got {indices.min()} to {indices.max()}"
            )
        return lookup(table, indices), None

    def output_dim(self, input_dim: int | None) -> int:
        """`units`."""
        return self.units

    def config(self) -> dict[str, Any]:
        """Every option as JSON-able values."""
        return {
            **super().config(),
            "vocabulary": self.vocabulary,
            "units": self.units,
            "initializer": initializers.describe(self.initializer, "Embedding.config"),
        }

    def __repr__(self) -> str:
        return f"Embedding({self.vocabulary}, {self.units})"


@primitive
def lookup(table: Array, indices: np.ndarray) -> Array:
    """``table[indices]``."""
    return table[indices]


@primitive
def scatter_add(g: Array, indices: np.ndarray, rows: int) -> Array:
    """The transpose of `lookup`: every row of `g` added into the row of the table it was taken from."""
    order = np.argsort(indices, axis=None, kind="stable")  # equal indices side by side: np.add.at takes 3 times as long
    present, starts = np.unique(indices.reshape(-1)[order], return_index=True)
    table = np.zeros((rows, g.shape[-1]), g.dtype)
    table[present] = np.add.reduceat(g.reshape(-1, g.shape[-1])[order], starts, axis=0)
    return table


defvjp(lookup, lambda ans, table, indices: lambda g: scatter_add(g, indices, table.shape[0]), argnums=(0,))
defvjp(scatter_add, lambda ans, g, indices, rows: lambda gg: lookup(gg, indices), argnums=(0,))


class Dropout(Layer):
    """Set a share `rate` of the inputs to 0 while training and scale the rest by ``1 / (1 - rate)``.

    Acts only where `apply` is given an `rng`. The draw is in float64 whatever the dtype, so that a float32 and a
    float64 model drop the same entries. Source: Srivastava et al. 2014.
    """

    default_name = "dropout"

    def __init__(self, rate: float, *, name: str | None = None) -> None:
        super().__init__(name)
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout: rate must lie in [0, 1), got {rate!r}")
        self.rate = float(rate)

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """No parameters."""
        return {}

    def apply(
        self,
        params: dict[str, Any],
        inputs: Array,
        state: Any = None,
        sequence_length: Array | None = None,
        rng: Any = None,
    ) -> tuple[Array, None]:
        """Inputs of any shape to outputs of the same; there is no state."""
        inputs = as_floating(inputs, getattr(inputs, "dtype", np.dtype(np.float64)), "Dropout.apply: inputs")
        if rng is None or self.rate == 0:
            return inputs, None
        kept = np.random.default_rng(rng).random(inputs.shape) >= self.rate
        return inputs * (kept / (1 - self.rate)).astype(inputs.dtype), None

    def config(self) -> dict[str, Any]:
        """Every option as JSON-able values."""
        return {**super().config(), "rate": self.rate}

    def __repr__(self) -> str:
        return f"Dropout({self.rate})"
