"""Using what was trained: predictions in batches and free-running generation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any


def predict(model: Any, params: Any, inputs: Array, batch_size: int | None = None) -> np.ndarray:
    """The model's outputs for `inputs`, `batch_size` sequences at a time (default: all at once).

    Raises ValueError for an empty batch or a `batch_size` below 1.
    """
    inputs = np.asarray(inputs)
    if len(inputs) == 0:
        raise ValueError(f"predict: inputs must not be empty, got shape {inputs.shape}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"predict: batch_size must be at least 1, got {batch_size}")
    size = batch_size or len(inputs)
    parts = [model(params, inputs[start : start + size]) for start in range(0, len(inputs), size)]
    return np.concatenate(parts)


def generate(
    model: Any,
    params: Any,
    primer: Array,
    steps: int,
    *,
    next_input: Callable[..., Array] | None = None,
    state: Any = None,
    rng: Any = None,
) -> np.ndarray:
    """Let a model run on by itself: each output becomes the next input.

    Parameters
    ----------
    model : Sequential
        Its recurrent layers return sequences.
    params : dict
    primer : array [batch, time, features]
        What the model reads before it starts; the first generated output is the one after the primer's last step.
    steps : int
        How many outputs to make, one at a time, with constant memory.
    next_input : callable, optional
        ``next_input(output)`` maps an output ``[batch, features]`` to the next input (features as the model's inputs,
        or whole numbers ``[batch]`` for an Embedding). With `rng` it is called ``next_input(output, rng)``, for
        sampling. Default: the output itself.
    state : dict, optional
        The state before the primer.
    rng : optional
        Anything ``np.random.default_rng`` takes. It is for `next_input` alone: dropout never acts here.

    Returns
    -------
    array [batch, steps, features]

    Raises
    ------
    ValueError
        If `steps` is negative, or the model does not return sequences.
    """
    if steps < 0:
        raise ValueError(f"generate: steps must be 0 or more, got {steps}")
    generator = None if rng is None else np.random.default_rng(rng)
    outputs, state = model.apply(params, primer, state=state)
    if outputs.ndim != 3:
        raise ValueError(f"generate: the model must return [batch, time, features], got shape {outputs.shape}")
    output = outputs[:, -1]
    generated = np.empty((len(output), steps, output.shape[-1]), output.dtype)
    for step in range(steps):
        generated[:, step] = output
        if step + 1 < steps:
            if next_input is None:
                x_t = output
            else:
                x_t = next_input(output) if generator is None else next_input(output, generator)
            outputs, state = model.apply(params, np.asarray(x_t)[:, None], state=state)
            output = outputs[:, -1]
    return generated
