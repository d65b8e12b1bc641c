"""Layers that treat every time step alike: Dense, Embedding, Dropout."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from autograd.extend import defjvp, defvjp
from autograd.tracer import getval

from .. import initializers
from ..arguments import as_generator, check_init, check_number, check_whole
from ..arrays import as_array, as_floating
from ..cells import activation_function, activation_option
from ..fast.affine import affine
from ..options import option
from ..primitives import primitive
from ..shapes import check_params
from .base import Array, Layer, Params, check_features, required


@dataclass(eq=False, repr=False)
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
    is_random = False

    units: int = option(check=check_whole)
    _: KW_ONLY
    activation: Any = activation_option(None)
    initializer: Any = initializers.option()
    bias_initializer: Any = initializers.option("zeros")
    name: str | None = None

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """``kernel [input_dim, units]`` and ``bias [units]``."""
        rng, input_dim, dtype = check_init(seed, input_dim, dtype, "Dense.init")
        return {
            "kernel": self.initializer(rng, (input_dim, self.units), dtype),
            "bias": self.bias_initializer(rng, (self.units,), dtype),
        }

    def apply(
        self, params: Params, inputs: Array, state: Any = None, sequence_length: Any = None, rng: Any = None
    ) -> tuple[Array, None]:
        """Map inputs ``[..., features]`` to outputs ``[..., units]``; there is no state."""
        kernel = required(params, "kernel", "Dense.apply")
        inputs = as_floating(inputs, None, "Dense.apply: inputs")
        shape: tuple[int, ...] = getattr(getval(kernel), "shape", ())
        features = shape[0] if len(shape) == 2 else inputs.shape[-1]
        dtype = check_params(self, params, features, "Dense.apply")
        inputs = as_floating(inputs, dtype, "Dense.apply: inputs")
        check_features(inputs, features, "Dense.apply", "[..., features]")
        outputs = affine(inputs, kernel, required(params, "bias", "Dense.apply"))
        return (outputs if self.activation is None else activation_function(self.activation)(outputs)), None

    def output_dim(self, input_dim: int | None) -> int:
        """`units`."""
        return self.units


@dataclass(eq=False, repr=False)
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
    is_random = False

    vocabulary: int = option(check=check_whole)
    units: int = option(check=check_whole)
    _: KW_ONLY
    initializer: Any = initializers.option("uniform")
    name: str | None = None

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """``embeddings [vocabulary, units]``; `input_dim` is not needed."""
        rng, _, dtype = check_init(seed, 1, dtype, "Embedding.init")
        return {"embeddings": self.initializer(rng, (self.vocabulary, self.units), dtype)}

    def apply(
        self, params: Params, inputs: Array, state: Any = None, sequence_length: Any = None, rng: Any = None
    ) -> tuple[Array, None]:
        """Map integer inputs ``[...]`` to outputs ``[..., units]``; there is no state."""
        indices = as_array(getval(inputs), "Embedding.apply: inputs")
        if indices.dtype.kind not in "iu":
            raise ValueError(f"Embedding.apply: inputs must be whole numbers, got {indices.dtype}")
        if indices.size == 0:
            raise ValueError(f"Embedding.apply: inputs must not be empty, got shape {indices.shape}")
        table = required(params, "embeddings", "Embedding.apply")
        check_params(self, params, 1, "Embedding.apply")
        rows = table.shape[0]
        if indices.min() < 0 or indices.max() >= rows:
            raise ValueError(
                f"Embedding.apply: inputs must be from 0 to {rows - 1}, got {indices.min()} to {indices.max()}"
            )
        return lookup(table, indices), None

    def output_dim(self, input_dim: int | None) -> int:
        """`units`."""
        return self.units


@primitive
def lookup(table: Array, indices: np.ndarray) -> Array:
    """``table[indices]``."""
    return table[indices]


@primitive
def scatter_add(g: Array, indices: np.ndarray, rows: int) -> Array:
    """The transpose of `lookup`: add every row of `g` to the row of the table that it was taken from."""
    # Equal indices side by side, then one sum for each: np.add.at takes 3 times as long.
    order = np.argsort(indices, axis=None, kind="stable")
    present, starts = np.unique(indices.reshape(-1)[order], return_index=True)
    table = np.zeros((rows, g.shape[-1]), g.dtype)
    rows_of_g = g[np.unravel_index(order, indices.shape)] if indices.ndim else g[None]
    table[present] = np.add.reduceat(rows_of_g, starts, axis=0)
    return table


defvjp(lookup, lambda ans, table, indices: lambda g: scatter_add(g, indices, table.shape[0]), argnums=(0,))
defvjp(scatter_add, lambda ans, g, indices, rows: lambda gg: lookup(gg, indices), argnums=(0,))
defjvp(lookup, "same", argnums=(0,))
defjvp(scatter_add, "same", argnums=(0,))


def _check_rate(rate: Any, name: str, where: str) -> float:
    return float(check_number(rate, name, where, least=0, below=1))


@dataclass(eq=False, repr=False)
class Dropout(Layer):
    """Set a share `rate` of the inputs to 0 in training, and scale the others by ``1 / (1 - rate)``.

    Acts only if `apply` is given an `rng`. Numbers are drawn in float64 for every dtype, so that a float32 and a
    float64 model drop the same entries. Source: Srivastava et al. 2014.
    """

    default_name = "dropout"

    rate: float = option(check=_check_rate)
    _: KW_ONLY
    name: str | None = None

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """No parameters."""
        return {}

    def apply(
        self, params: Params, inputs: Array, state: Any = None, sequence_length: Any = None, rng: Any = None
    ) -> tuple[Array, None]:
        """Map inputs of any shape to outputs of the same shape; there is no state."""
        inputs = as_floating(inputs, None, "Dropout.apply: inputs")
        if rng is None or self.rate == 0:
            return inputs, None
        kept = as_generator(rng, "Dropout.apply", "rng").random(inputs.shape) >= self.rate
        return inputs * (kept / (1 - self.rate)).astype(inputs.dtype), None
