"""The losses of trivial forecasts, such as the mean or the last value, to compare a model's loss with."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import losses

BLOCK = 16384


def baselines(loss: Any, batch: dict[str, Any]) -> dict[str, float]:
    """Return the losses of trivial forecasts on a batch, by name; empty unless `loss` is from `minilstm.losses`.

    For `mse`: ``mean`` (always forecasts the mean of each feature's targets) and, if inputs and targets have the same
    shape, ``persistence`` (forecasts the input itself). For `softmax_cross_entropy`: ``unigram`` (the labels'
    frequencies). For `sigmoid_cross_entropy`: ``rates`` (the mean of each feature). Weights count as in the loss.

    >>> series = np.array([0.0, 1.0, 0.0, 1.0])[None, :, None]
    >>> baselines(losses.mse, {"inputs": series[:, :-1], "targets": series[:, 1:]})["persistence"]
    1.0
    """
    targets, weights = np.asarray(batch["targets"]), batch.get("weights")
    if weights is not None and not np.any(weights):
        return {}
    if loss is losses.softmax_cross_entropy:
        shares = np.bincount(targets.reshape(-1), None if weights is None else np.asarray(weights).reshape(-1))
        shares = shares[shares > 0] / shares.sum()
        return {"unigram": float(-np.sum(shares * np.log(shares)))}
    if loss not in (losses.mse, losses.sigmoid_cross_entropy):
        return {}
    rows = targets.reshape(-1, targets.shape[-1])
    mean = _mean(rows, None, weights)
    if loss is losses.sigmoid_cross_entropy:
        rates = np.clip(mean, 1e-12, 1 - 1e-12)
        return {"rates": float(-np.mean(mean * np.log(rates) + (1 - mean) * np.log(1 - rates)))}
    found = {"mean": _mean(rows, np.broadcast_to(mean, rows.shape), weights)}
    inputs = np.asarray(batch["inputs"])
    if inputs.shape == targets.shape:
        found["persistence"] = _mean(rows, inputs.reshape(rows.shape), weights)
    return {name: float(np.mean(value)) for name, value in found.items()}


def _mean(rows: np.ndarray, forecast: np.ndarray | None, weights: np.ndarray | None) -> np.ndarray:
    """Return the (weighted) mean of every feature of `rows` ``[entries, features]``; with a forecast, of its errors
    squared.

    What is reported is summed in float64, in blocks that stay in the processor's cache.
    """
    size, features = rows.shape
    shares = np.ones(BLOCK) if weights is None else np.asarray(weights, np.float64).reshape(-1)
    total, blocks = np.zeros(features), np.empty((2, min(BLOCK, size), features))
    for start in range(0, size, BLOCK):
        stop = min(start + BLOCK, size)
        block, other = blocks[:, : stop - start]
        block[...] = rows[start:stop]
        if forecast is not None:
            other[...] = forecast[start:stop]
            block -= other
            block *= block
        total += (shares[: stop - start] if weights is None else shares[start:stop]) @ block
    return np.asarray(total / (size if weights is None else shares.sum()))
