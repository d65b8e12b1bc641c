"""What a checkpoint holds, and TensorFlow's names for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..layers import Sequential
from ..optimizers import AdagradState, AdamState, CenteredRMSPropState, MomentumState, RMSPropState

# TensorFlow's slot names for the trees of each optimizer's state.
SLOTS: dict[type, dict[str, str]] = {
    AdamState: {"m": "Adam", "v": "Adam_1"},
    MomentumState: {"momentum": "Momentum"},
    AdagradState: {"accumulator": "Adagrad"},
    CenteredRMSPropState: {"mean_square": "RMSProp", "mean_gradient": "RMSProp_1", "momentum": "RMSProp_2"},
    RMSPropState: {"mean_square": "RMSProp", "momentum": "RMSProp_1"},
}
SCALARS = ("beta1_power", "beta2_power")
STEP = "global_step"
AVERAGE = "ExponentialMovingAverage"
OWN = "minilstm/"  # the folder of what TensorFlow has no name for
MODEL, EXTRA, TRAINING = OWN + "model", OWN + "extra", OWN + "training"


def has_slot_names(opt_state: Any) -> bool:
    """Whether all of an optimizer's state has names in TensorFlow: it is of a class of minilstm's, or a step alone."""
    return type(opt_state) in SLOTS or getattr(opt_state, "_fields", None) == ("step",)


class Checkpoint(NamedTuple):
    """What `load_checkpoint` found; a field is None, or an empty dict, if the file has no such thing.

    `averaged` is the tree of TensorFlow's ``ExponentialMovingAverage`` of every parameter. `others` holds tensors that
    are neither parameters nor known training state, by name. `notes` are sentences about what could not be restored or
    compared.
    """

    prefix: str
    params: dict[str, Any]
    opt_state: Any
    step: int | None
    model: Sequential | None
    extra: Any
    training: Any
    others: dict[str, np.ndarray]
    averaged: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
