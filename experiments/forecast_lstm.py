"""Small LSTMs that read a changed series and learn what an autoregression of it leaves over, trained by `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minilstm import Adam, Dense, FitResult, Sequential, fit, generate, losses, schedules
from minilstm.data import sliding_windows

from . import common
from .forecast_methods import Linear, Transform, fit_linear

BATCH_SIZE = 32
# Without `epochs` there are 64 passes over all windows, but 300 to 600 batches. The rate falls along half a cosine.
OPTIONS: dict[str, Any] = {"units": 12, "layers": 1, "epochs": None, "learning_rate": 5e-3}


class Member(NamedTuple):
    """A trained LSTM, the change of the series, its scale, and the autoregression to which it adds."""

    model: Sequential
    result: FitResult
    transform: Transform
    mean: float
    std: float
    window: int
    linear: Linear
    alone: float  # the loss of the autoregression without the LSTM


def train(
    values: np.ndarray, transform: Transform, noise: float, seed: int, folder: Path | None = None, resume: bool = False,
    **options: Any,
) -> Member:  # fmt: skip
    """Train on all of `values`; checkpoints go to `folder`, with all that it takes to forecast in their `extra`.

    `noise` is the standard deviation of noise on the inputs while training; that of the scaled series is 1. The options
    are those of `OPTIONS`.
    """
    series = transform.stages(values)[-1]
    mean, std = float(series.mean()), float(series.std()) or 1.0
    series = (series - mean) / std
    linear = fit_linear(series, transform.cycle)
    order, window = len(linear.coefficients), min(max(2 * transform.season, 24), max(len(series) // 3, 4))
    told = [linear.next(series[:step]) for step in range(order, len(series))]
    left = np.concatenate([np.zeros(order), series[order:] - told])
    inputs, targets = sliding_windows(series[:-1], window)[..., None], sliding_windows(left[1:], window)[..., None]
    steps = np.arange(window)  # the first steps of a window only warm up the state
    counted = (np.arange(len(inputs))[:, None] + 1 + steps >= order) & (steps >= window // 4)

    def batch(step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, 2, step])
        rows = rng.integers(0, len(inputs), BATCH_SIZE)
        noisy = inputs[rows] + noise * rng.normal(size=(BATCH_SIZE, window, 1))
        return {"inputs": noisy, "targets": targets[rows], "weights": counted[rows]}

    units, layers, passes, rate = (OPTIONS | options).values()
    batches = passes * -(-len(inputs) // BATCH_SIZE) if passes else int(np.clip(2 * len(inputs), 300, 600))
    epochs = min(20, batches)  # as `fit` counts them
    each = batches // epochs
    model = Sequential(common.lstm(units, layers), Dense(1))
    extra = {**transform._asdict(), "mean": mean, "std": std, "window": window,
             "autoregression": [linear.constant, *linear.coefficients.tolist()]}  # fmt: skip
    result = fit(
        model, model.init(seed=seed, input_dim=1), losses.mse, batch, steps_per_epoch=each, epochs=epochs, seed=seed,
        optimizer=Adam(schedules.cosine(rate, steps=epochs * each)), clip_norm=1.0, progress=False,
        checkpoint_dir=folder, checkpoint_every=5 * each, max_to_keep=1, resume=resume, extra=extra,
    )  # fmt: skip
    return Member(model, result, transform, mean, std, window, linear, float(np.mean(left[order:] ** 2)))


def ensemble(members: Sequence[Member], histories: Sequence[np.ndarray], horizon: int) -> np.ndarray:
    """Return the median of the members' forecasts after each history, [histories, horizon]."""
    return np.median([free_run(member, histories, horizon) for member in members], axis=0)


def free_run(member: Member, histories: Sequence[np.ndarray], horizon: int) -> np.ndarray:
    """Forecast after each history; returns [histories, horizon]. The model reads its own forecasts."""
    length = 2 * member.window
    scaled = [(member.transform.stages(one)[-1][-length:] - member.mean) / member.std for one in histories]
    known = np.stack([np.pad(series, (length - len(series), 0), mode="edge") for series in scaled])

    def next_input(output: np.ndarray) -> np.ndarray:
        nonlocal known
        known = np.column_stack([known, output[:, 0] + member.linear.next(known)])
        return known[:, -1:].astype(output.dtype)

    outputs = generate(member.model, member.result.params, known[..., None], horizon, next_input=next_input)
    next_input(outputs[:, -1])  # `generate` reads all outputs but the last
    ahead = known[:, length:] * member.std + member.mean
    return np.stack([member.transform.undo(*pair) for pair in zip(histories, ahead, strict=True)])
