"""Losses: ``loss(outputs, targets, weights=None) -> scalar``, the mean over (weighted) entries.

`outputs` is ``[batch, time, features]`` or ``[batch, features]``; `weights`, where given, has the shape of `outputs`
without the features and says how much each step counts: 0 for padding. The mean is over the entries that count:
``sum(weights * loss) / sum(weights)``, and over the features where the loss has one value a feature.

Each loss is one autograd primitive with its derivative written out, which is shorter than the trace through its
parts and does not overflow.
"""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd.extend import defvjp, primitive
from autograd.tracer import isbox

from .cells import sigmoid

Array = Any


def mse(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """Mean squared error, over all entries and features.

    Raises ValueError where `targets` has not the shape of `outputs`, or `weights` does not fit.

    >>> outputs, targets = np.array([[[1.0], [2.0], [9.0]]]), np.array([[[0.0], [4.0], [0.0]]])
    >>> float(mse(outputs, targets, weights=np.array([[1, 1, 0]])))
    2.5
    """
    targets = _check_targets("mse", outputs, targets)
    return _mean_square(outputs, targets, _entry_weights("mse", outputs, weights))


def softmax_cross_entropy(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """Cross-entropy of logits `outputs` ``[..., classes]`` and integer labels `targets` ``[...]``, in nats.

    Raises ValueError where a label is not an integer of 0 .. classes - 1, or shapes do not fit.
    """
    labels = np.asarray(targets)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"softmax_cross_entropy: targets must be integer labels, got dtype {labels.dtype}")
    if labels.shape != outputs.shape[:-1]:
        raise ValueError(
            f"softmax_cross_entropy: targets must have shape {outputs.shape[:-1]} to go with outputs "
            f"{outputs.shape}, got {labels.shape}"
        )
    check_range(softmax_cross_entropy, labels, outputs.shape[-1])
    return _softmax_cross_entropy(outputs, labels, _entry_weights("softmax_cross_entropy", outputs, weights))


def sigmoid_cross_entropy(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """Cross-entropy of logits `outputs` and probabilities `targets` of the same shape, in nats, over all features.

    Raises ValueError where shapes do not fit or a target is outside [0, 1].
    """
    targets = _check_targets("sigmoid_cross_entropy", outputs, targets)
    check_range(sigmoid_cross_entropy, targets, outputs.shape[-1])
    return _sigmoid_cross_entropy(outputs, targets, _entry_weights("sigmoid_cross_entropy", outputs, weights))


def check_range(loss: Any, targets: Array, features: int) -> None:
    """Raise ValueError where `loss` cannot take these targets for outputs with so many features.

    The losses do this themselves; `fit` does it beforehand for all data at once, before anything is written.
    """
    if loss is softmax_cross_entropy:
        low, high, wanted = 0, features - 1, f"be labels from 0 to {features - 1}"
    elif loss is sigmoid_cross_entropy:
        low, high, wanted = 0, 1, "lie in [0, 1]"
    else:
        return
    if np.size(targets) and not (np.min(targets) >= low and np.max(targets) <= high):
        raise ValueError(f"{loss.__name__}: targets must {wanted}, got {np.min(targets)} to {np.max(targets)}")


def _check_targets(loss: str, outputs: Array, targets: Array) -> Array:
    """The targets in the outputs' dtype, or a ValueError where the shapes differ."""
    if np.shape(targets) != outputs.shape:
        raise ValueError(f"{loss}: targets must have the shape of outputs {outputs.shape}, got {np.shape(targets)}")
    return targets if isbox(targets) else np.asarray(targets, outputs.dtype)


def _entry_weights(loss: str, outputs: Array, weights: Array | None) -> Array | None:
    """The weights divided by their sum (None means 1 / entries each), in the outputs' dtype."""
    if weights is None:
        return None
    weights = np.asarray(weights)
    if weights.shape != outputs.shape[:-1]:
        raise ValueError(
            f"{loss}: weights must have shape {outputs.shape[:-1]} to go with outputs {outputs.shape}, "
            f"got {weights.shape}"
        )
    total = weights.sum(dtype=np.float64)
    if not (total > 0 and weights.min() >= 0):
        raise ValueError(f"{loss}: weights must be 0 or more and not all 0, got a sum of {total}")
    return (weights / total).astype(outputs.dtype)


def _mean(values: Array, weights: Array | None) -> Array:
    """The weighted mean of `values`, whose shape is that of the weights."""
    return np.mean(values) if weights is None else np.sum(values * weights)


@primitive
def _mean_square(outputs: Array, targets: Array, weights: Array | None) -> Array:
    error = outputs - targets
    return np.mean(error * error) if weights is None else np.sum(np.mean(error * error, axis=-1) * weights)


def _mean_square_vjp(ans: Array, outputs: Array, targets: Array, weights: Array | None) -> Any:
    scale = 2.0 / outputs.size if weights is None else weights[..., None] * (2.0 / outputs.shape[-1])
    return lambda g: (outputs - targets) * (g * scale)


@primitive
def _softmax_cross_entropy(logits: Array, labels: Array, weights: Array | None) -> Array:
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    log_sum = np.log(np.sum(np.exp(shifted), axis=-1))
    return _mean(log_sum - np.take_along_axis(shifted, labels[..., None], axis=-1)[..., 0], weights)


def _softmax_cross_entropy_vjp(ans: Array, logits: Array, labels: Array, weights: Array | None) -> Any:
    def pull(g: Array) -> Array:
        e = anp.exp(logits - anp.max(logits, axis=-1, keepdims=True))
        one_hot = (labels[..., None] == np.arange(logits.shape[-1])).astype(logits.dtype)
        scale = 1.0 / labels.size if weights is None else weights[..., None]
        return (e / anp.sum(e, axis=-1, keepdims=True) - one_hot) * (g * scale)

    return pull


@primitive
def _sigmoid_cross_entropy(logits: Array, targets: Array, weights: Array | None) -> Array:
    values = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
    return _mean(np.mean(values, axis=-1), weights)


def _sigmoid_cross_entropy_vjp(ans: Array, logits: Array, targets: Array, weights: Array | None) -> Any:
    scale = 1.0 / targets.size if weights is None else weights[..., None] / targets.shape[-1]
    return lambda g: (sigmoid(logits) - targets) * (g * scale)


defvjp(_mean_square, _mean_square_vjp, lambda *args: lambda g: -_mean_square_vjp(*args)(g), argnums=(0, 1))
defvjp(_softmax_cross_entropy, _softmax_cross_entropy_vjp, argnums=(0,))
defvjp(_sigmoid_cross_entropy, _sigmoid_cross_entropy_vjp, argnums=(0,))
