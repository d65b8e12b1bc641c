"""A training step that failed, kept and run again."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .. import losses
from ..checkpoint import OWN, load_checkpoint, save_checkpoint
from ..gradients import value_and_grad
from ..params import Tree, flatten_names, tree_leaves
from .runstate import RunState, build_structure, describe_structure

REPLAYABLE = {"mse": losses.mse, "softmax_cross_entropy": losses.softmax_cross_entropy,
              "sigmoid_cross_entropy": losses.sigmoid_cross_entropy}  # fmt: skip


def dump_failure(directory: Any, run: RunState, batch: Any, seed: int, model: Any, loss: Any) -> str | None:
    """Write ``failed-<step>`` beside the checkpoints: parameters, batch, state, seed; None where that cannot be.

    It is no checkpoint of the run: the ``checkpoint`` file does not name it. Only a model and a loss of
    `minilstm.losses` can be replayed.
    """
    names = [name for name, function in REPLAYABLE.items() if function is loss]
    if model is None or not names:
        return None
    own = {f"failed/batch/{key}": value for key, value in batch.items() if value is not None}
    own.update({f"failed/state/{n}": leaf for n, leaf in enumerate(tree_leaves(run.carried))})
    facts = {"failed": {"loss": names[0], "seed": seed, "step": run.step, "state": describe_structure(run.carried)}}
    try:
        return save_checkpoint(
            os.path.join(directory, "failed"), run.params, step=run.step, model=model, training=facts, own=own,
            publish=False,
        )  # fmt: skip
    except ValueError:  # a model with functions of one's own has no description
        return None


def replay(prefix: str) -> str:
    """Run a step that `dump_failure` kept; returns a report of its loss and of every gradient, as text.

    Raises ValueError where the file holds no failed step.
    """
    loaded = load_checkpoint(prefix)
    facts = loaded.training.get("failed") if isinstance(loaded.training, dict) else None
    if facts is None or loaded.model is None:
        raise ValueError(f"{prefix} holds no failed step of fit")
    own = {name[len(OWN) + len("failed/") :]: value for name, value in loaded.others.items() if name.startswith(OWN)}
    batch = {name[len("batch/") :]: value for name, value in own.items() if name.startswith("batch/")}
    leaves = [own[f"state/{n}"] for n in range(sum(name.startswith("state/") for name in own))]
    state = build_structure(facts["state"], iter(leaves))
    loss = REPLAYABLE[facts["loss"]]
    model = loaded.model

    def step(params: Tree) -> Any:
        outputs, _ = model.apply(
            params, batch["inputs"], state=state, sequence_length=batch.get("sequence_length"),
            rng=[facts["seed"], 0, facts["step"]],
        )  # fmt: skip
        return loss(outputs, batch["targets"], batch.get("weights"))

    value, grads = value_and_grad(step)(loaded.params)
    lines = [f"step {facts['step']}: loss {float(value)}"]
    arrays = [("inputs", batch["inputs"]), ("targets", batch["targets"])]
    arrays += [(f"parameter {name}", array) for name, array in flatten_names(loaded.params).items()]
    arrays += [(f"gradient of {name}", array) for name, array in flatten_names(grads).items()]
    for name, array in arrays:
        wrong = int(np.size(array) - np.isfinite(array).sum())
        with np.errstate(all="ignore"):
            largest = float(np.max(np.abs(np.where(np.isfinite(array), array, 0))))
        verdict = f", {wrong} of {np.size(array)} NOT FINITE" if wrong else ""
        lines.append(f"  {name}: largest {largest:.3g}{verdict}")
    return "\n".join(lines)
