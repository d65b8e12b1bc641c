"""Use a trained model: predict in batches, and generate by feeding each output back as the next input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .arguments import as_generator, can_take, check_flag, check_function, check_has, check_number, check_whole
from .arrays import as_array
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
    if not callable(model) or isinstance(model, type):
        raise ValueError(f"predict: model must be a model such as Sequential(LSTM(8), Dense(1)), got {model!r:.80}")
    _check_all_used(model, params, "predict")
    progress = None if progress is None else check_flag(progress, "progress", "predict")
    axis = 1 if getattr(model, "is_time_major", False) else 0
    if inputs.ndim <= axis or inputs.size == 0:
        raise ValueError(f"predict: inputs must not be empty, got shape {inputs.shape}")
    count = inputs.shape[axis]
    size = count if batch_size is None else check_whole(batch_size, "batch_size", "predict")
    pieces = [slice(start, start + size) for start in range(0, count, size)]
    with ProgressBar(len(pieces), show=progress) as bar:
        for piece in pieces:
            outputs = model(params, inputs[:, piece] if axis else inputs[piece])
            outputs = as_array(outputs, "predict: what model returned")
            rows = min(piece.stop, count) - piece.start
            if piece.start == 0:
                along = axis if outputs.ndim > 2 else 0
                before, after = outputs.shape[:along], outputs.shape[along + 1 :]
                found = np.empty((*before, count, *after), outputs.dtype)
            wanted = (*before, rows, *after)
            if outputs.shape != wanted:
                raise ValueError(f"predict: model must return outputs of shape {wanted}, got {outputs.shape}")
            found[(slice(None),) * along + (piece,)] = outputs
            bar.advance(rows, {})
    return found


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
    steps = check_whole(steps, "steps", "generate", least=0)
    check_has(model, "apply", "model", "generate", "a model such as Sequential(LSTM(8), Dense(1))")
    _check_all_used(model, params, "generate")
    if next_input is not None:
        check_function(next_input, "next_input", "generate")
        if not can_take(next_input, 1 if rng is None else 2):
            given = "(output), because rng is not given" if rng is None else "(output, rng), because rng is given"
            raise ValueError(f"generate: next_input must take {given}; got {next_input!r:.80}")
    primer = as_array(primer, "generate: primer")
    if primer.ndim < 2 or primer.size == 0:
        raise ValueError(f"generate: primer must be [batch, time, ...] and not empty, got shape {primer.shape}")
    if hasattr(model, "check_stepwise"):
        model.check_stepwise("generate")
    draw: tuple[Any, ...] = () if rng is None else (as_generator(rng, "generate", "rng"),)
    outputs, state = model.apply(params, primer, state=state)
    if outputs.ndim != 3:
        raise ValueError(f"generate: the model must return [batch, time, features], got shape {outputs.shape}")
    output = outputs[:, -1]
    generated = np.empty((len(output), steps, output.shape[-1]), output.dtype)
    for step in range(steps):
        if step > 0:
            x_t = output if next_input is None else next_input(output, *draw)
            x_t = as_array(x_t, "generate: next_input's result")
            if x_t.ndim == 0 or len(x_t) != len(output):
                raise ValueError(f"generate: next_input must return {len(output)} inputs, got shape {x_t.shape}")
            outputs, state = model.apply(params, x_t[:, None], state=state)
            output = outputs[:, -1]
        generated[:, step] = output
    return generated


def _check_all_used(model: Any, params: Any, where: str) -> None:
    if hasattr(model, "check_all_used"):
        model.check_all_used(params, where)


def sampler(temperature: float = 1.0, top_k: int | None = None) -> Callable[[Array, np.random.Generator], Array]:
    """Return a `next_input` for `generate` that draws labels from logits.

        generate(model, params, primer, 200, next_input=sampler(temperature=0.7), rng=0)

    Parameters
    ----------
    temperature : float, default 1.0
        Logits are divided by it. Below 1, likely labels become likelier; 0 always picks the likeliest label.
    top_k : int, optional
        Sample only from the `top_k` likeliest labels; which of two equally likely ones is left out is not defined.

    Returns
    -------
    callable
        ``(logits [batch, classes], generator) -> labels [batch]``, integers.

    Raises
    ------
    ValueError
        For a negative temperature or a `top_k` below 1.
    """
    temperature = check_number(temperature, "temperature", "sampler", least=0)
    top_k = None if top_k is None else check_whole(top_k, "top_k", "sampler")

    def next_input(logits: Array, rng: np.random.Generator) -> Array:
        logits = as_array(logits, "sampler: logits").astype(np.float64)
        if logits.ndim == 0 or logits.size == 0 or not np.isfinite(logits.max(axis=-1)).all():  # -inf bans a label
            raise ValueError("sampler: logits must be [..., classes], not NaN and not infinite, got "
                             f"shape {logits.shape}: {logits!r:.80}")  # fmt: skip
        logits -= logits.max(axis=-1, keepdims=True)  # so that the largest does not overflow
        if temperature == 0:
            return logits.argmax(axis=-1)
        if top_k is not None and top_k < logits.shape[-1]:
            np.put_along_axis(logits, np.argpartition(logits, -top_k, axis=-1)[..., :-top_k], -np.inf, axis=-1)
        # The largest of logits plus Gumbel noise is a draw from their softmax.
        noise = as_generator(rng, "sampler", "rng").gumbel(size=logits.shape)
        with np.errstate(over="ignore"):  # to -infinity, at a low temperature
            return (logits / temperature + noise).argmax(axis=-1)

    return next_input
