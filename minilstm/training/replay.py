"""Keep the batch, parameters and state of a training step that failed, and run that step again."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .. import losses
from ..checkpoint import load_checkpoint, save_checkpoint
from ..checkpoint.names import arranged
from ..gradients import value_and_grad
from ..params import flatten_names
from ..reading import reader
from .carried import describe_structure, own_tensors, read_state, state_tensors
from .evaluation import model_loss
from .runstate import RunState

REPLAYABLE = {loss.__name__: loss for loss in (losses.mse, losses.softmax_cross_entropy, losses.sigmoid_cross_entropy)}


def dump_failure(directory: Any, run: RunState, batch: Any, seed: int, model: Any, loss: Any) -> str | None:
    """Write ``failed-<step>`` into `directory`: parameters, batch, state and seed. Return its prefix.

    The ``checkpoint`` file does not name it, so a run never resumes from it. Returns None if the step cannot be
    replayed: that needs a model that can be described, a loss of `minilstm.losses`, and room on the disk.
    """
    name = getattr(loss, "__name__", "")
    if model is None or REPLAYABLE.get(name) is not loss:
        return None
    own = {f"failed/batch/{key}": value for key, value in batch.items() if value is not None}
    own.update(state_tensors("failed/state", run.carried))
    facts = {"failed": {"loss": name, "seed": seed, "step": run.step, "state": describe_structure(run.carried)}}
    try:
        return save_checkpoint(
            os.path.join(directory, "failed"), run.params, step=run.step, model=model, training=facts, own=own,
            publish=False,
        )  # fmt: skip
    except (ValueError, OSError):  # a model with a user's own functions has no description; a disk may be full
        return None


@reader
def replay(prefix: str) -> str:
    """Run a step that `dump_failure` kept. Return a report of its loss and of every gradient, as text.

    Raises ValueError if the file holds no failed step, or one that is damaged.
    """
    loaded = load_checkpoint(prefix)
    facts = loaded.training.get("failed") if isinstance(loaded.training, dict) else None
    if facts is None or loaded.model is None:
        raise ValueError(f"{prefix} holds no failed step of fit")
    arranged(flatten_names(loaded.params), loaded.model)  # before anything of the described sizes is made
    batch = own_tensors(loaded, "failed/batch")
    state = read_state(loaded, "failed/state", facts["state"])
    loss_fn, rng = model_loss(loaded.model, REPLAYABLE[facts["loss"]]), [facts["seed"], 0, facts["step"]]
    value, grads = value_and_grad(lambda params: loss_fn(params, batch, state, rng)[0])(loaded.params)
    lines = [f"step {facts['step']}: loss {float(value)}"]
    arrays = {"inputs": batch["inputs"], "targets": batch["targets"]}
    arrays |= {f"parameter {name}": array for name, array in flatten_names(loaded.params).items()}
    arrays |= {f"gradient of {name}": array for name, array in flatten_names(grads).items()}
    for name, array in arrays.items():
        wrong = int(np.size(array) - np.isfinite(array).sum())
        with np.errstate(all="ignore"):
            largest = float(np.max(np.abs(np.where(np.isfinite(array), array, 0))))
        verdict = f", {wrong} of {np.size(array)} NOT FINITE" if wrong else ""
        lines.append(f"  {name}: largest {largest:.3g}{verdict}")
    return "\n".join(lines)
