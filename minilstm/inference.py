"""Use a trained model: predict in batches, and generate by feeding each output back as the next input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .data import as_array
from .options import check_size
from .progress import ProgressBar

Array = Any


def predict(
    model: Any, params: Any, inputs: Array, batch_size: int | None = None, *, progress: bool | None = False
) -> np.ndarray:
    """Return the model's outputs for `inputs`, computed `batch_size` sequences at a time (default: all at once).

    `progress` says whether to show a bar; None means: if there is a terminal or a notebook. A model with
    ``time_major=True`` has its sequences on the second axis.

    Raises ValueError for inputs that are empty or not numbers, or a `batch_size` below 1.
    """
    inputs = as_array(inputs, "predict: inputs")
    axis = 1 if getattr(model, "is_time_major", False) else 0
    if inputs.ndim <= axis or inputs.size == 0:
        raise ValueError(f"predict: inputs must not be empty, got shape {inputs.shape}")
    count = inputs.shape[axis]
    size = count if batch_size is None else check_size(batch_size, "batch_size", "predict")
    pieces = [slice(start, start + size) for start in range(0, count, size)]
    parts = []
    with ProgressBar(len(pieces), show=progress) as bar:
        for piece in pieces:
            parts.append(model(params, inputs[:, piece] if axis else inputs[piece]))
            bar.advance(min(piece.stop, count) - piece.start, {})
    return np.concatenate(parts, axis=axis if parts[0].ndim > 2 else 0)


def generate(
    model: Any, params: Any, primer: Array, steps: int,
    *, next_input: Callable[..., Array] | None = None, state: Any = None, rng: Any = None,
) -> np.ndarray:  # fmt: skip
    """Generate outputs one at a time: each output becomes the next input.

    Parameters
    ----------
    model, params
        A `Sequential` whose recurrent layers return sequences and run forwards in time, and its parameters.
    primer : array [batch, time, features]
        The model reads this first. Its output at the primer's last step is the first that is returned.
    steps : int
        How many outputs to generate. Memory does not grow with it, apart from the result.
    next_input : callable, optional
        ``next_input(output)`` turns an output ``[batch, features]`` into the next input: as many features as the model
        reads, or whole numbers ``[batch]`` for an Embedding. With `rng` it is called as ``next_input(output, rng)``,
        for sampling. Default: the next input is the output itself.
    state : dict, optional
        The state before the primer. Default: the model's initial state.
    rng : optional
        Anything ``np.random.default_rng`` takes. Only `next_input` uses it: generation has no dropout.

    Returns
    -------
    array [batch, steps, features]

    Raises
    ------
    ValueError
        If `steps` is negative, or the model does not return sequences, runs backwards, or has ``time_major=True``.
    """
    if steps < 0:
        raise ValueError(f"generate: steps must be 0 or more, got {steps}")
    if hasattr(model, "check_stepwise"):
        model.check_stepwise("generate")
    draw: tuple[Any, ...] = () if rng is None else (np.random.default_rng(rng),)
    outputs, state = model.apply(params, primer, state=state)
    if outputs.ndim != 3:
        raise ValueError(f"generate: the model must return [batch, time, features], got shape {outputs.shape}")
    output = outputs[:, -1]
    generated = np.empty((len(output), steps, output.shape[-1]), output.dtype)
    for step in range(steps):
        if step > 0:
            x_t = output if next_input is None else next_input(output, *draw)
            outputs, state = model.apply(params, np.asarray(x_t)[:, None], state=state)
            output = outputs[:, -1]
        generated[:, step] = output
    return generated


def sampler(temperature: float = 1.0, top_k: int | None = None) -> Callable[[Array, np.random.Generator], Array]:
    """Return a `next_input` for `generate` that draws labels from logits.

        generate(model, params, primer, 200, next_input=sampler(temperature=0.7), rng=0)

    Parameters
    ----------
    temperature : float, default 1.0
        Logits are divided by it. Below 1, likely labels become likelier; 0 always picks the likeliest label.
    top_k : int, optional
        Sample only from the `top_k` likeliest labels.

    Returns
    -------
    callable
        ``(logits [batch, classes], generator) -> labels [batch]``, integers.

    Raises
    ------
    ValueError
        For a negative temperature or a `top_k` below 1.
    """
    if not temperature >= 0:
        raise ValueError(f"sampler: temperature must be 0 or more, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"sampler: top_k must be at least 1, got {top_k}")

    def next_input(logits: Array, rng: np.random.Generator) -> Array:
        logits = np.asarray(logits, np.float64)
        if temperature == 0:
            return logits.argmax(axis=-1)
        if top_k is not None and top_k < logits.shape[-1]:
            lowest = np.partition(logits, -top_k, axis=-1)[..., -top_k, None]
            logits = np.where(logits >= lowest, logits, -np.inf)
        noise = rng.gumbel(size=logits.shape)  # the largest of logits plus Gumbel noise is a draw from their softmax
        return (logits / temperature + noise).argmax(axis=-1)

    return next_input
