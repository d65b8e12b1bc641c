"""Small LSTMs on a changed series, alone or on what an autoregression leaves over, trained by `fit`."""

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
FEWEST_STEPS, MOST_STEPS = 300, 1000
PARTS = 20  # entries of the history


class Settings(NamedTuple):
    """The settings of an LSTM."""

    units: int = 12
    layers: int = 1
    epochs: int | None = None  # passes over all windows; None: 64, but FEWEST_STEPS to MOST_STEPS batches
    learning_rate: float = 5e-3  # falls to 0 along half a cosine
    noise: float = 0.5  # standard deviation of noise on the inputs while training; the series has 1


class Member(NamedTuple):
    """A trained LSTM, the change of the series, its scale, and the autoregression to which it adds."""

    model: Sequential
    result: FitResult
    transform: Transform
    mean: float
    std: float
    window: int
    linear: Linear

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Return the changed series, standardised as in training."""
        return (self.transform.apply(values) - self.mean) / self.std


def train(
    values: np.ndarray, transform: Transform, residual: bool, seed: int, settings: Settings = Settings(),
    folder: Path | None = None, resume: bool = False,
) -> Member:  # fmt: skip
    """Train on all of `values`; checkpoints go to `folder`. With `residual` an autoregression takes the linear part."""
    series = transform.apply(values)
    mean, std = float(series.mean()), float(series.std()) or 1.0
    series = (series - mean) / std
    linear = fit_linear(series, transform.season) if residual else Linear(0.0, np.zeros(0), {})
    order = len(linear.coefficients)
    window = min(max(2 * transform.season, 24), max(len(series) // 3, 4))
    told = linear.constant + sum(c * series[order - k : len(series) - k] for k, c in enumerate(linear.coefficients, 1))
    left = np.concatenate([np.zeros(order), series[order:] - told])
    inputs, targets = sliding_windows(series[:-1], window)[..., None], sliding_windows(left[1:], window)[..., None]
    known = np.arange(len(inputs))[:, None] + 1 + np.arange(window) >= order
    counted = known & (np.arange(window) >= window // 4)  # the first steps of a window only warm the state up

    def batch(step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, 2, step])
        rows = rng.integers(0, len(inputs), BATCH_SIZE)
        noisy = inputs[rows] + settings.noise * rng.normal(size=(BATCH_SIZE, window, 1))
        return {"inputs": noisy, "targets": targets[rows], "weights": counted[rows]}

    batches = int(np.clip(2 * len(inputs), FEWEST_STEPS, MOST_STEPS))
    if settings.epochs is not None:
        batches = settings.epochs * -(-len(inputs) // BATCH_SIZE)
    epochs = min(PARTS, batches)
    steps = batches // epochs
    model = Sequential(common.lstm(settings.units, settings.layers), Dense(1))
    extra = {
        "log": transform.log, "differences": transform.lags, "mean": mean, "std": std, "window": window,
        "autoregression": [linear.constant, *linear.coefficients.tolist()] if residual else None,
    }  # fmt: skip
    result = fit(
        model, model.init(seed=seed, input_dim=1), losses.mse, batch, steps_per_epoch=steps, epochs=epochs, seed=seed,
        optimizer=Adam(schedules.cosine(settings.learning_rate, steps=epochs * steps)), clip_norm=1.0, progress=False,
        checkpoint_dir=folder, checkpoint_every=5 * steps, max_to_keep=1, resume=resume, extra=extra,
    )  # fmt: skip
    return Member(model, result, transform, mean, std, window, linear)


def free_run(member: Member, histories: Sequence[np.ndarray], horizon: int) -> np.ndarray:
    """Forecast after each of the histories; returns [histories, horizon], in the units of the series.

    The model reads its own forecasts; where an autoregression takes the linear part, the sum of both.
    """
    length = 2 * member.window
    scaled = [member.scaled(values)[-length:] for values in histories]
    known = np.stack([np.pad(series, (length - len(series), 0), mode="edge") for series in scaled])
    linear = member.linear

    def next_input(output: np.ndarray) -> np.ndarray:
        nonlocal known
        told = linear.constant + sum(c * known[:, -k] for k, c in enumerate(linear.coefficients, 1))
        known = np.column_stack([known, output[:, 0] + told])
        return known[:, -1:].astype(output.dtype)

    outputs = generate(member.model, member.result.params, known[..., None], horizon, next_input=next_input)
    next_input(outputs[:, -1])  # the last output is no input any more, but a forecast
    ahead = known[:, length:] * member.std + member.mean
    return np.stack([member.transform.undo(*pair) for pair in zip(histories, ahead, strict=True)])


def ensemble(members: Sequence[Member], histories: Sequence[np.ndarray], horizon: int) -> np.ndarray:
    """Return the median of the members' forecasts [histories, horizon]."""
    runs: list[Any] = [free_run(member, histories, horizon) for member in members]
    return np.median(runs, axis=0)
