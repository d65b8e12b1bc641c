"""Runs of `fit` to be killed by test_kill.py: ``python kill_run.py DIR SCENARIO ... [--stop]``.

Every start passes ``resume=True``. If DIR holds no checkpoint, the run begins with weights of a fixed seed, otherwise
with weights that no other start has: then only what was saved can lead to the same end. At the end
``<DIR>/<scenario>.json`` holds a digest of all that a run must not lose: parameters, optimizer state, averages, history
(without timings).
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import minilstm
from minilstm import (
    RNN,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Dense,
    Dropout,
    DropoutWrapper,
    LSTMCell,
    Momentum,
    RMSProp,
    Sequential,
    fit,
    latest_checkpoint,
    load_checkpoint,
    losses,
    schedules,
    tbptt,
)
from minilstm.data import contiguous_batches
from minilstm.params import flatten_names, tree_leaves

RNG = np.random.default_rng(12)
INPUTS = RNG.normal(size=(10, 6, 1)).astype(np.float32)
TARGETS = np.cumsum(INPUTS, axis=1) * np.float32(0.3)
VALIDATION = (INPUTS[:4] + 1, TARGETS[:4])
STREAM = np.cumsum(RNG.normal(size=(121, 1)).astype(np.float32), axis=0) * np.float32(0.1)
CELL = DropoutWrapper(LSTMCell(4), input_keep_prob=0.9, output_keep_prob=0.8, state_keep_prob=0.9)
MODEL = Sequential(RNN(CELL), Dropout(0.3), Dense(1))

OPTIMIZERS = {
    "SGD": SGD(0.1),
    "SGD-schedule": SGD(schedules.exponential(0.2, 3, 0.9)),
    "Momentum": Momentum(0.05, 0.9),
    "Nesterov": Momentum(0.05, 0.9, use_nesterov=True),
    "Adagrad": Adagrad(0.1),
    "RMSProp": RMSProp(0.01, momentum=0.5),
    "centred": RMSProp(0.01, centered=True),
    "Adam": Adam(0.01),
    "AdamW": AdamW(0.01, weight_decay=0.1),
}
PLAIN = {"data": (INPUTS, TARGETS), "batch_size": 4, "epochs": 4}  # three steps an epoch: 12
# name -> the options of fit. "boundary" is saved at the ends of epochs alone, "middle" after every second step.
SCENARIOS = {f"boundary-{name}": {**PLAIN, "optimizer": optimizer} for name, optimizer in OPTIMIZERS.items()}
SCENARIOS |= {
    f"middle-{name}": {**PLAIN, "optimizer": optimizer, "checkpoint_every": 2} for name, optimizer in OPTIMIZERS.items()
}
SCENARIOS |= {
    "windows": {  # two windows a batch of three: the state is carried within a batch
        **PLAIN, "optimizer": Adam(0.01), "tbptt": tbptt(2, 3), "checkpoint_every": 1, "epochs": 2,
    },
    "stream": {
        "data": contiguous_batches(STREAM, 3, 8), "epochs": 3, "optimizer": RMSProp(0.01), "checkpoint_every": 2,
        "validation_data": contiguous_batches(STREAM[::-1].copy(), 3, 8),
    },
    "stopping": {
        **PLAIN, "optimizer": SGD(lambda step: 0.1 if step < 7 else 3.0), "validation_data": (INPUTS, TARGETS),
        "early_stopping": 2, "ema_decay": 0.5, "epochs": 9, "checkpoint_every": 2,
    },
    "clipped": {**PLAIN, "optimizer": Adam(0.01), "clip_norm": 0.1, "clip_value": 0.05, "checkpoint_every": 5},
    "long": {  # what the random kills are for: everything at once, saved after every step
        **PLAIN, "optimizer": Adam(0.01), "tbptt": tbptt(2, 3), "checkpoint_every": 1, "epochs": 10,
        "validation_data": VALIDATION, "early_stopping": 100, "ema_decay": 0.9,
    },
}  # fmt: skip


class Stopped(Exception):
    """A run ends within a step, as if it were killed."""


def stopping(optimizer, steps):
    """The optimizer, which raises `Stopped` at the update after `steps` of them."""

    class Stopping(type(optimizer)):
        def update(self, params, grads, state):
            if state.step >= steps:
                raise Stopped
            return super().update(params, grads, state)

    new = object.__new__(Stopping)
    new.__dict__.update(optimizer.__dict__)
    return new


def digest(result):
    """sha256 over everything in a FitResult that must not depend on interruptions."""
    found = hashlib.sha256()
    for name, leaf in flatten_names({"params": result.params, "averaged": result.averaged}).items():
        found.update(f"{name} {leaf.dtype} {leaf.shape}".encode() + np.ascontiguousarray(leaf).tobytes())
    for leaf in tree_leaves(tuple(result.opt_state)):
        found.update(np.asarray(leaf).tobytes())
    found.update(json.dumps([result.step, result.history], sort_keys=True).encode())
    return found.hexdigest()


def run(directory, name, stop=None, pause=0.0, resume=True):
    """One start of a scenario in a directory (None: never interrupted); its FitResult."""
    options = dict(SCENARIOS[name])
    data, optimizer = options.pop("data"), options.pop("optimizer")
    seed = 0
    if directory is not None and latest_checkpoint(directory) is not None:
        seed = [os.getpid(), time.time_ns()]  # never those of another start
    params = MODEL.init(seed, 1)
    if directory is not None:
        options |= {"checkpoint_dir": directory, "resume": resume, "max_to_keep": 3}
    if stop is not None:
        optimizer = stopping(optimizer, stop)
    if pause:
        options["callbacks"] = [lambda result: time.sleep(pause)]
    return fit(MODEL, params, losses.mse, data, optimizer=optimizer, **options)


def start(directory, *arguments):
    """`main` in a new process, with the same minilstm."""
    command = [sys.executable, __file__, str(directory), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(minilstm.__file__).parents[1])}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def main(directory, *arguments):
    """Run scenarios in folders of `directory`; with ``--stop`` leave each after 7 steps."""
    stop, pause = "--stop" in arguments, 0.01 if "--slow" in arguments else 0.0
    for name in (argument for argument in arguments if not argument.startswith("--")):
        folder = Path(directory, name)
        found = load_checkpoint(folder).step if folder.exists() and latest_checkpoint(folder) else 0
        print(f"ready {name} from {found}", flush=True)
        try:
            result = run(folder, name, stop=7 if stop else None, pause=pause)
        except Stopped:
            continue
        Path(directory, f"{name}.json").write_text(json.dumps({"digest": digest(result), "step": result.step}))


if __name__ == "__main__":
    main(*sys.argv[1:])
