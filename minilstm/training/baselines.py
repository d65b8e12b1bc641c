"""The losses of trivial forecasts, such as the mean or the last value, to compare a model's loss with."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import losses


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
    exact = targets.astype(np.float64)  # what is reported is summed in float64
    if weights is not None and not np.any(weights):
        return {}
    count = None if weights is None else np.asarray(weights, np.float64)
    if loss is losses.mse:
        found = {"mean": losses.mse(np.broadcast_to(_mean(exact, count), targets.shape), exact, weights)}
        if np.shape(batch["inputs"]) == targets.shape:
            found["persistence"] = losses.mse(np.asarray(batch["inputs"], np.float64), exact, weights)
        return {name: float(value) for name, value in found.items()}
    if loss is losses.softmax_cross_entropy:
        shares = np.bincount(targets.reshape(-1), None if count is None else count.reshape(-1))
        shares = shares[shares > 0] / shares.sum()
        return {"unigram": float(-np.sum(shares * np.log(shares)))}
    if loss is losses.sigmoid_cross_entropy:
        rates = np.clip(_mean(exact, count), 1e-12, 1 - 1e-12)
        logits = np.broadcast_to(np.log(rates / (1 - rates)), targets.shape)
        return {"rates": float(losses.sigmoid_cross_entropy(logits, targets, weights))}
    return {}


def _mean(targets: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Return the mean of every feature over all (weighted) entries."""
    rows = targets.reshape(-1, targets.shape[-1])
    return np.average(rows, axis=0, weights=None if weights is None else weights.reshape(-1))
