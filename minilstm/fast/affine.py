"""``x @ kernel + bias`` and its derivatives, in fewer and better products.

The readable twin is the formula itself, which autograd could trace; `tests/fast/test_affine.py` compares both.

- All leading dimensions together are the rows of one matrix product. NumPy would make a product for each.
- If passes are compiled, products avoid BLAS: its threads stay awake for a tenth of a second and slow the threads of
  the passes more than BLAS saves. Products with a vector are sums; others are compiled, up to a size.
- The derivative of x is stored in the order in which the backward pass of an LSTM below reads it.
"""

from __future__ import annotations

import math
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.extend import def_linear, defjvp, defjvp_argnums, defvjp

from ..primitives import primitive
from . import compiled
from .memory import recycled

Array = Any

FEW_UNITS = 16  # a Dense with at most this many units: a product per step costs about as much as one for all
LARGEST = 3 << 19  # entries of a kernel, 6 MB; a product with a larger one lasts longer than what BLAS's threads cost
SMALL_PRODUCT = 1 << 13  # multiplications; a smaller product wakes no BLAS thread and is not worth reused memory


@primitive
def affine(x: Array, kernel: Array, bias: Array) -> Array:
    """``x @ kernel + bias`` over the last dimension: ``[..., features]`` to C-contiguous ``[..., units]``."""
    outputs = _product(x, kernel)
    outputs += bias
    return outputs


def _product(x: Array, kernel: Array) -> Array:
    rows, units = _rows(x), kernel.shape[1]
    if rows.size * units < SMALL_PRODUCT:
        return np.dot(rows, kernel).reshape(*x.shape[:-1], units)
    if _is_compiled(rows, kernel, kernel.shape):
        from .compiled.dense import rows_times

        return rows_times(rows, kernel).reshape(*x.shape[:-1], units)
    outputs = recycled((*x.shape[:-1], units), np.result_type(x, kernel))
    out = outputs.reshape(-1, units)
    if units == 1 and _avoids_blas(outputs.dtype):
        np.einsum("nk,k->n", rows, kernel[:, 0], out=out[:, 0])
    elif len(kernel) == 1 and _avoids_blas(outputs.dtype):
        np.multiply(rows, kernel, out=out)
    else:
        np.dot(rows, kernel, out)
    return outputs


def _avoids_blas(dtype: Any) -> bool:
    return compiled.is_wanted(dtype)


def _is_compiled(a: Array, b: Array, shape: tuple[int, ...]) -> bool:
    """Whether the product of both is compiled, where the kernel or its gradient has this shape."""
    return min(shape) > 1 and math.prod(shape) <= LARGEST and a.dtype == b.dtype and compiled.can_compile(a.dtype)


@primitive
def linear(x: Array, kernel: Array) -> Array:
    """`affine` without its bias."""
    return _product(x, kernel)


@primitive
def input_gradient(g: Array, kernel: Array) -> Array:
    """``g @ kernel.T``. For ``g [batch, time, units]`` the result ``[batch, time, features]`` is stored in the order
    ``[time, features, batch]`` if units are few, else ``[time, batch, features]``; next to compiled passes as it is.
    """
    if g.ndim != 3 or _avoids_blas(g.dtype):
        return _product(g, kernel.T)
    if g.shape[2] > max(FEW_UNITS, len(kernel)):  # the result is smaller than g: it is the one to reorder
        return np.ascontiguousarray(_product(g, kernel.T).swapaxes(0, 1)).swapaxes(0, 1)
    if g.shape[2] > FEW_UNITS:
        return _product(np.ascontiguousarray(g.swapaxes(0, 1)), kernel.T).swapaxes(0, 1)
    columns = g.transpose(1, 2, 0)
    if g.shape[2] == 1 and g.size * len(kernel) >= SMALL_PRODUCT:
        # NumPy does not use BLAS for sums of one product; with a second one, 0, it does.
        columns, kernel = (np.concatenate((x, np.zeros_like(x)), axis=1) for x in (columns, kernel))
    outputs = recycled((len(columns), len(kernel), len(g)), np.result_type(g, kernel))
    return np.matmul(kernel, columns, out=outputs).transpose(2, 0, 1)


@primitive
def kernel_gradient(x: Array, g: Array) -> Array:
    """``x.T @ g``, summed over all leading dimensions."""
    rows, g_rows = _rows(x), _rows(g)
    if g_rows.shape[1] == 1 and rows.size >= SMALL_PRODUCT and _avoids_blas(g.dtype):
        return np.einsum("nk,n->k", rows, g_rows[:, 0])[:, None]
    shape = rows.shape[1], g_rows.shape[1]
    if rows.size * shape[1] >= SMALL_PRODUCT and _is_compiled(rows, g_rows, shape):
        from .compiled.dense import transposed_times

        return transposed_times(rows, g_rows)
    return np.dot(rows.T, g_rows)


@primitive
def bias_gradient(g: Array) -> Array:
    """The sum of `g` over all leading dimensions."""
    return np.add.reduce(_rows(g), axis=0)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _pull_x(ans: Array, x: Array, kernel: Array, *bias: Array) -> Any:
    return lambda g: input_gradient(g, kernel)


def _pull_kernel(ans: Array, x: Array, kernel: Array, *bias: Array) -> Any:
    return lambda g: kernel_gradient(x, g)


defvjp(affine, _pull_x, _pull_kernel, lambda ans, x, kernel, bias: bias_gradient)
defvjp(linear, _pull_x, _pull_kernel)
defvjp(
    input_gradient,
    lambda ans, g, kernel: lambda d: linear(d, kernel),
    lambda ans, g, kernel: lambda d: kernel_gradient(d, g),
)
defvjp(
    kernel_gradient,
    lambda ans, x, g: lambda d: input_gradient(g, d),
    lambda ans, x, g: lambda d: linear(x, d),
)
defvjp(bias_gradient, lambda ans, g: lambda d: d + np.zeros(g.shape, g.dtype))
defjvp(
    affine,
    lambda r, ans, x, kernel, bias: linear(r, kernel),
    lambda r, ans, x, kernel, bias: linear(x, r),
    lambda r, ans, x, kernel, bias: r + np.zeros(ans.shape, ans.dtype),
)
for product in (linear, kernel_gradient, bias_gradient):  # linear in each argument
    def_linear(product)


def _push_input_gradient(argnums: Any, pushed: Any, ans: Array, args: Any, options: Any) -> Array:
    g, kernel = args
    moves = dict(zip(argnums, pushed, strict=True))
    if len(moves) == 2 and kernel.shape[1] <= FEW_UNITS:  # one product, and no sum of two
        return input_gradient(anp.concatenate((moves[0], g), axis=-1), anp.concatenate((kernel, moves[1]), axis=1))
    return sum(input_gradient(moves[0], kernel) if n == 0 else input_gradient(g, moves[1]) for n in moves)


defjvp_argnums(input_gradient, _push_input_gradient)
