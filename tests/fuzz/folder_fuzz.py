"""Run folders in which one file was damaged: `history.csv`, the state file, the record and the arrays of a checkpoint.

    python -m tests.fuzz.folder_fuzz --count 20000 --seed 0

`fit(resume=True)` then goes on, or refuses. What counts as a failure: any exception but ValueError and OSError; a
refusal that has changed a file, or does not say which function or file it is about; and, where the damage is not in the
newest checkpoint, other numbers than those of a run that nothing happened to. The checkpoint is the source of
`history.csv`, so damage there stops nothing, and the file has the right rows again.
"""

from __future__ import annotations

import collections
import csv
import functools
import json
import os
import random
import tempfile
import warnings
from pathlib import Path

import numpy as np

from minilstm import LSTM, Adam, Dense, Sequential, fit, losses, tensorbundle
from minilstm.params import flatten_names
from minilstm.training.lock import LOCK_FILE

from . import bundle_fuzz
from .doors import json_text, mutate_arrays

RNG = np.random.default_rng(5)
DATA = RNG.normal(size=(6, 3, 1)).astype(np.float32), RNG.normal(size=(6, 3, 1)).astype(np.float32)
MODEL = Sequential(LSTM(2), Dense(1))
RECORD = "minilstm/training"
KINDS = ("history", "state", "record", "arrays")


def run(directory, epochs):
    """Train, or train on."""
    options = {"optimizer": Adam(0.01), "batch_size": 3, "ema_decay": 0.9, "progress": False, "max_to_keep": 2}
    stopping = {"early_stopping": 5, "validation_data": DATA}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(MODEL, MODEL.init(0, 1), losses.mse, DATA, epochs=epochs, checkpoint_dir=directory, resume=True,
                   **options, **stopping)  # fmt: skip


@functools.cache
def sound():
    """The files of a run of two epochs, and what it gives after a third."""
    with tempfile.TemporaryDirectory() as folder:
        run(folder, 2)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}, run(folder, 3)


def mutate_table(draw, data):
    """Another text of history.csv."""
    rows = [line.split(",") for line in data.decode().split("\n")]
    for _ in range(draw.choice([1, 1, 3])):
        row = draw.choice(rows)
        words = ["", '"', "nan", "inf", "1e999", "epoch", "loss", "0", "-1", "\0", '"a\n', "x" * 200_000, "1,2"]
        row[draw.randrange(len(row))] = draw.choice(words)
        kind = draw.randrange(6)
        if kind == 0:
            rows.insert(draw.randrange(len(rows)), list(row))
        elif kind == 1 and len(rows) > 1:
            del rows[draw.randrange(len(rows))]
        elif kind == 2:
            row.pop()
    separator, start, end = draw.choice([",", ",", ";", "\t"]), draw.choice(["", "", "\ufeff", "# a comment\n"]), "\n"
    return (start + draw.choice([end, end, "\r\n", "\r"]).join(map(separator.join, rows))).encode()


def damage(draw, kind, folder):
    """Damage one file of a folder."""
    path = Path(folder, {"history": "history.csv", "state": "checkpoint"}.get(kind, "model.ckpt-4.index"))
    if kind == "history":
        data = mutate_table(draw, path.read_bytes()) if draw.random() < 0.6 else path.read_bytes()
        path.write_bytes(bundle_fuzz.mutate_bytes(draw, data) if draw.random() < 0.5 else data)
    elif kind == "state":
        path.write_bytes(bundle_fuzz.mutate_bytes(draw, path.read_bytes()))
    else:
        prefix = str(path.with_suffix(""))
        tensors = tensorbundle.read(prefix)
        if kind == "record":
            tensors[RECORD] = np.asarray(json_text(draw, json.loads(tensors[RECORD].item())), object)
        else:
            texts = {name: tensors.pop(name) for name in [name for name in tensors if tensors[name].dtype == object]}
            tensors = {**mutate_arrays(draw, tensors), **texts}
        tensorbundle.write(prefix, tensors)


def content(folder):
    """Every file of a folder; the lock, which an ended run leaves free, apart."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != LOCK_FILE}


def judge(kind, folder):
    """Resume the run in a folder; what came of it, or AssertionError."""
    before, wanted = content(folder), sound()[1]
    try:
        result, refusal = run(folder, 3), None
    except (ValueError, OSError) as error:
        result, refusal = None, str(error)
    except FloatingPointError:  # what fit says of numbers that are not finite, after it has tried the step
        assert kind == "arrays"
        return "arrays with numbers that are not finite"
    if refusal is not None:
        assert kind != "history", f"damage to history.csv stopped a run: {refusal}"
        assert refusal.startswith(("fit: ", folder)), f"no place is named: {refusal}"
        assert content(folder) == before, "a refusal has changed files"
        return f"{kind} refused"
    if kind in ("history", "state"):
        same = zip(flatten_names(result.params).values(), flatten_names(wanted.params).values(), strict=True)
        assert all(np.array_equal(x, y) for x, y in same), "other numbers"
        assert result.history == wanted.history
        rows = list(csv.DictReader(Path(folder, "history.csv").read_text().splitlines()))
        assert [float(row["loss"]) for row in rows] == wanted.history["loss"]
        assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    return f"{kind} read"


def fuzz(count, seed, only=None):
    """Run `count` cases, each in a folder of its own; return how many ended in which way."""
    outcomes = collections.Counter()
    for number in range(count) if only is None else [only]:
        draw = random.Random(f"{seed}:{number}")
        kind = KINDS[number % len(KINDS)]
        with tempfile.TemporaryDirectory() as folder:
            for name, data in sound()[0].items():
                Path(folder, name).write_bytes(data)
            try:
                try:
                    damage(draw, kind, folder)
                except (ValueError, TypeError):
                    outcomes["no file can hold it"] += 1
                    continue
                outcomes[judge(kind, os.path.realpath(folder))] += 1
            except Exception as error:
                raise AssertionError(f"case {number}, seed {seed}, {kind}: {type(error).__name__}: {error}") from error
    return outcomes


if __name__ == "__main__":
    bundle_fuzz.main(fuzz, __doc__)
