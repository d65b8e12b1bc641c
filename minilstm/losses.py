"""Losses: ``loss(outputs, targets, weights=None) -> scalar``, the mean over (weighted) entries.

`outputs` is ``[batch, time, features]`` or ``[batch, features]``. `weights` is optional and has the shape of `outputs`
without the features. A weight says how much its step counts, and is 0 for padding. The mean is
``sum(weights * loss) / sum(weights)``. A loss with one value a feature is also averaged over the features.

Each loss is one autograd primitive with its derivative written by hand. This is shorter than autograd's trace of its
parts, and does not overflow.
"""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.extend import defjvp, defvjp
from autograd.numpy.numpy_vjps import unbroadcast_f
from autograd.tracer import getval, isbox

from .arrays import as_array
from .cells import sigmoid
from .primitives import primitive

Array = Any

PIECE_BYTES = 1 << 19  # of logits that are processed together


def mse(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """Mean squared error, over all entries and features.

    Raises ValueError if `targets` or `weights` has the wrong shape.

    >>> outputs, targets = np.array([[[1.0], [2.0], [9.0]]]), np.array([[[0.0], [4.0], [0.0]]])
    >>> float(mse(outputs, targets, weights=np.array([[1, 1, 0]])))
    2.5
    """
    outputs, targets = _check_targets("mse", outputs, targets)
    return _mean_square(outputs, targets, _entry_weights("mse", outputs, weights))


def softmax_cross_entropy(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """Cross-entropy of logits `outputs` ``[..., classes]`` and integer labels `targets` ``[...]``, in nats.

    Raises ValueError if a label is not an integer from 0 to classes - 1, or a shape is wrong.
    """
    outputs = _as_outputs("softmax_cross_entropy", outputs)
    labels = as_array(getval(targets), "softmax_cross_entropy: targets")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"softmax_cross_entropy: targets must be integer labels, got dtype {labels.dtype}")
    _check_steps("softmax_cross_entropy: targets", labels, outputs)
    check_range(softmax_cross_entropy, labels, outputs.shape[-1])
    weights = _entry_weights("softmax_cross_entropy", outputs, weights)
    return _softmax_cross_entropy(outputs, labels, weights, [] if isbox(outputs) else None)


def sigmoid_cross_entropy(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """Cross-entropy of logits `outputs` and probabilities `targets` of the same shape, in nats, over all features.

    Raises ValueError if a shape is wrong or a target is outside [0, 1].
    """
    outputs, targets = _check_targets("sigmoid_cross_entropy", outputs, targets)
    check_range(sigmoid_cross_entropy, targets, outputs.shape[-1])
    return _sigmoid_cross_entropy(outputs, targets, _entry_weights("sigmoid_cross_entropy", outputs, weights))


def get(loss: Any) -> Any:
    """The loss that a name means (Keras's ``mean_squared_error`` too), or the function itself.

    Raises ValueError for an unknown name. Names of Keras's cross-entropies are not accepted: they take probabilities.
    """
    if loss is None or (callable(loss) and not isinstance(loss, type)):
        return loss
    known = {found.__name__: found for found in (mse, softmax_cross_entropy, sigmoid_cross_entropy)}
    found = {**known, "mean_squared_error": mse}.get(loss) if isinstance(loss, str) else None
    if found is None:
        raise ValueError(f"fit: loss: unknown name {loss!r}; wanted a function or one of {', '.join(known)}")
    return found


def check_range(loss: Any, targets: Array, features: int) -> None:
    """Raise ValueError if a target is outside the range that `loss` accepts for outputs with this many features.

    The losses call this for their own targets. `fit` calls it for all data at once, before it writes anything.
    """
    if loss is softmax_cross_entropy:
        low, high, wanted = 0, features - 1, f"be labels from 0 to {features - 1}"
    elif loss is sigmoid_cross_entropy:
        low, high, wanted = 0, 1, "be in [0, 1]"
    else:
        return
    if np.size(targets) and not (np.min(targets) >= low and np.max(targets) <= high):
        raise ValueError(f"{loss.__name__}: targets must {wanted}, got {np.min(targets)} to {np.max(targets)}")


def _check_steps(what: str, array: Array, outputs: Array) -> None:
    """Raise ValueError unless `array` has one number a step: the shape of `outputs` without the features."""
    wanted = outputs.shape[:-1]
    if array.shape != wanted:
        raise ValueError(f"{what} must have shape {wanted} to go with outputs {outputs.shape}, got {array.shape}")


def _as_outputs(loss: str, outputs: Array) -> Array:
    """Return the outputs as an array; raise ValueError if they are not floating, or have no features or no entries."""
    if not isbox(outputs):
        outputs = as_array(outputs, f"{loss}: outputs")
    if outputs.dtype.kind != "f":
        raise ValueError(f"{loss}: outputs must be floating, got {outputs.dtype}")
    if outputs.ndim == 0 or outputs.size == 0:
        raise ValueError(f"{loss}: outputs must be [..., features] and not empty, got shape {outputs.shape}")
    return outputs


def _check_targets(loss: str, outputs: Array, targets: Array) -> tuple[Array, Array]:
    """Return both as arrays of the outputs' dtype; raise ValueError if the shapes differ."""
    outputs = _as_outputs(loss, outputs)
    if not isbox(targets):
        targets = as_array(targets, f"{loss}: targets").astype(outputs.dtype, copy=False)
    if targets.shape != outputs.shape:
        raise ValueError(f"{loss}: targets must have the shape of outputs {outputs.shape}, got {targets.shape}")
    return outputs, targets


def _entry_weights(loss: str, outputs: Array, weights: Array | None) -> Array | None:
    """Return the weights divided by their sum, in the outputs' dtype; None (all entries count alike) stays None."""
    if weights is None:
        return None
    if isbox(weights):
        raise ValueError(f"{loss}: weights must not depend on the parameters; their gradient would be lost")
    weights = as_array(weights, f"{loss}: weights")
    _check_steps(f"{loss}: weights", weights, outputs)
    total = weights.sum(dtype=np.float64)
    if not (0 < total < np.inf and weights.min() >= 0):
        raise ValueError(f"{loss}: weights must be 0 or more and not all 0, and finite, got a sum of {total}")
    return (weights / total).astype(outputs.dtype)


def _mean(values: Array, weights: Array | None) -> Array:
    """Return the weighted mean of `values`, which have the shape of `weights`."""
    return _mean_of_all(values) if weights is None else np.sum(values * weights)


def _mean_of_all(x: Array) -> Array:
    """`np.mean`, bit for bit, without what it costs for a small array: 2 % of a small training step."""
    if x.dtype.itemsize < 4:  # np.mean sums float16 in float32
        return np.mean(x)
    return x.dtype.type(np.add.reduce(x, axis=None) / np.intp(x.size))


@primitive
def _mean_square(outputs: Array, targets: Array, weights: Array | None) -> Array:
    error = outputs - targets
    return _mean(error * error if weights is None else np.mean(error * error, axis=-1), weights)


def _mean_square_vjp(ans: Array, outputs: Array, targets: Array, weights: Array | None) -> Any:
    scale = 2.0 / outputs.size if weights is None else weights[..., None] * (2.0 / outputs.shape[-1])
    return lambda g: _scaled_error(outputs, targets, g * scale)


@primitive
def _scaled_error(outputs: Array, targets: Array, scale: Array) -> Array:
    return (outputs - targets) * scale


@primitive
def _softmax_cross_entropy(logits: Array, labels: Array, weights: Array | None, kept: list[Array] | None) -> Array:
    """`kept`, if it is a list, gets the exponentials and their sums, for the gradient.

    Logits are read once, some rows at a time: all formulas of these run while they are in the cache.
    """
    rows, steps = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    exponentials = np.empty_like(rows) if kept is not None else None
    sums, values = np.empty((2, len(rows)), logits.dtype)
    size = max(1, PIECE_BYTES // (rows.shape[1] * rows.itemsize))
    for start in range(0, len(rows), size):
        piece = slice(start, start + size)
        e = np.subtract(rows[piece], np.max(rows[piece], axis=1, keepdims=True), out=_part(exponentials, piece))
        shifted = e[np.arange(len(e)), steps[piece]]
        np.sum(np.exp(e, out=e), axis=1, out=sums[piece])
        values[piece] = np.log(sums[piece]) - shifted
    if kept is not None:
        kept += [exponentials, sums]
    return _mean(values.reshape(labels.shape), weights)


def _part(x: Array | None, piece: slice) -> Array | None:
    return None if x is None else x[piece]


def _softmax_cross_entropy_vjp(
    ans: Array, logits: Array, labels: Array, weights: Array | None, kept: list[Array]
) -> Any:
    scale = 1.0 / labels.size if weights is None else weights[..., None]

    def pull(g: Array) -> Array:
        if isbox(g) or isbox(logits) or not kept:  # to be differentiated again, or not for the first time
            one_hot = (labels[..., None] == np.arange(logits.shape[-1])).astype(logits.dtype)
            return (_softmax(logits) - one_hot) * (g * scale)
        exponentials, sums = kept
        kept.clear()
        factors = np.broadcast_to(np.asarray(g * scale, logits.dtype).reshape(-1), sums.shape)
        exponentials *= (factors / sums)[:, None]
        exponentials[np.arange(len(sums)), labels.reshape(-1)] -= factors
        return exponentials.reshape(logits.shape)

    return pull


def _softmax(logits: Array) -> Array:
    e = anp.exp(logits - anp.max(logits, axis=-1, keepdims=True))
    return e / anp.sum(e, axis=-1, keepdims=True)


@primitive
def _sigmoid_cross_entropy(logits: Array, targets: Array, weights: Array | None) -> Array:
    values = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
    return _mean(np.mean(values, axis=-1), weights)


def _sigmoid_cross_entropy_vjp(ans: Array, logits: Array, targets: Array, weights: Array | None) -> Any:
    scale = 1.0 / targets.size if weights is None else weights[..., None] / targets.shape[-1]
    return lambda g: (sigmoid(logits) - targets) * (g * scale)


def _sigmoid_targets_vjp(ans: Array, logits: Array, targets: Array, weights: Array | None) -> Any:
    scale = 1.0 / targets.size if weights is None else weights[..., None] / targets.shape[-1]
    return lambda g: -logits * (g * scale)


def _pushed(pull: Any) -> Any:
    """The derivative of a loss along a direction of its first argument, from its gradient."""
    return lambda direction, *args: anp.sum(pull(*args)(1.0) * direction)


defvjp(
    _scaled_error,
    lambda ans, outputs, targets, scale: lambda d: d * scale,
    lambda ans, outputs, targets, scale: lambda d: -d * scale,
    lambda ans, outputs, targets, scale: unbroadcast_f(scale, lambda d: d * (outputs - targets)),
)
defjvp(
    _scaled_error,
    lambda r, ans, outputs, targets, scale: r * scale,
    lambda r, ans, outputs, targets, scale: -r * scale,
    lambda r, ans, outputs, targets, scale: _scaled_error(outputs, targets, r),
)
defvjp(_mean_square, _mean_square_vjp, lambda *args: lambda g: -_mean_square_vjp(*args)(g), argnums=(0, 1))
defvjp(_softmax_cross_entropy, _softmax_cross_entropy_vjp, argnums=(0,))
defvjp(_sigmoid_cross_entropy, _sigmoid_cross_entropy_vjp, _sigmoid_targets_vjp, argnums=(0, 1))
_of_outputs = _pushed(_mean_square_vjp)
defjvp(_mean_square, _of_outputs, lambda direction, *args: -_of_outputs(direction, *args), argnums=(0, 1))
defjvp(_softmax_cross_entropy, _pushed(_softmax_cross_entropy_vjp), argnums=(0,))
_of_both = _pushed(_sigmoid_cross_entropy_vjp), _pushed(_sigmoid_targets_vjp)
defjvp(_sigmoid_cross_entropy, *_of_both, argnums=(0, 1))
