"""The loss of a model on a batch, and its mean over validation data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..params import Tree, tree_leaves
from .sources import Source
from .truncation import has_weight, reset_rows

LossFunction = Callable[..., Any]


def model_loss(model: Any, loss: LossFunction) -> LossFunction:
    """Return the ``loss_fn(params, batch, state, rng) -> (loss, state)`` of a model and a loss; a batch is a dict."""

    def loss_fn(params: Tree, batch: dict[str, Any], state: Any, rng: Any) -> tuple[Any, Any]:
        outputs, state = model.apply(
            params, batch["inputs"], state=state, sequence_length=batch.get("sequence_length"), rng=rng
        )
        return loss(outputs, batch["targets"], batch.get("weights")), state

    return loss_fn


def evaluate(
    loss_fn: LossFunction, params: Tree, source: Source, carry: Any = None, any_tree: bool = False
) -> float:
    """Return the mean loss over a source, without dropout.

    With `carry`, the model, its state is carried from batch to batch if the source's batches continue each other. With
    `any_tree` the batches are a user's own, and no key of them means anything here.
    """
    total, entries, state = 0.0, 0.0, None
    for batch in source.epoch(0):
        reset = None if any_tree else batch.pop("reset", None)
        if carry is None or not source.continues:
            state = None
        else:
            state = reset_rows(state, reset, functools.partial(carry.initial_state, params, len(batch["inputs"])))
        # A batch without a weight has no loss, but the state runs through it.
        counts = any_tree or has_weight(batch)
        value, state = loss_fn(params, batch if counts else {**batch, "weights": None}, state, None)
        count = entries_of(batch, any_tree)
        total += float(value) * count if count else 0.0
        entries += count
    if not entries:
        raise ValueError("fit: validation_data: all weights are 0")
    return total / entries


def entries_of(batch: Any, any_tree: bool = False) -> float:
    """Return the number of entries that a batch's loss is the mean over; with weights, their sum. Of any tree it is the
    number of sequences.
    """
    if any_tree:
        return float(len(tree_leaves(batch)[0]))
    if batch.get("weights") is not None:
        return float(np.sum(batch["weights"], dtype=np.float64))
    inputs, targets = batch["inputs"], batch.get("targets")
    if targets is None:
        return float(len(inputs))
    # One target a step, or one a sequence, which may have as many features as the batch has steps.
    every_step = targets.shape[1:] and targets.shape[:2] == inputs.shape[:2]
    every_step = every_step and (targets.ndim > 2 or targets.dtype.kind in "iub")
    return float(len(targets) * (targets.shape[1] if every_step else 1))
