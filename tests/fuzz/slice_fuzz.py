"""Mutated checkpoints of TensorFlow's first format: as `bundle_fuzz`, whose mutations and judgement these are.

    python -m tests.fuzz.slice_fuzz --count 20000 --seed 0
"""

from __future__ import annotations

import collections
import os
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bundle_fuzz

from minilstm import tensorbundle
from minilstm.tensorbundle import table

GOLDEN = {
    "v1_adam": "model.ckpt-5",
    "v1_dtypes": "model.ckpt-7",
    "v1_partitioned": "model.ckpt",
    "v1_sharded": "model.ckpt",
}


class BaseFiles:
    """A sound checkpoint to start from."""

    def __init__(self, prefix):
        named = [prefix] if prefix.exists() else sorted(prefix.parent.glob(f"{prefix.name}-*-of-*"))
        self.files = {path.name[len(prefix.name) :]: path.read_bytes() for path in named}
        self.tensors = tensorbundle.read(prefix)


class Victim:
    """One of the files, in the form in which `bundle_fuzz` mutates an index."""

    def __init__(self, data):
        self.index = data
        self.items = list(table.read_table(bundle_fuzz.Bytes(data)))


def mutated(draw, base):
    """The files with one of them mutated, and whether that must be noticed or harmless."""
    suffix = draw.choice(sorted(base.files))
    victim, kind = Victim(base.files[suffix]), draw.randrange(10)
    if kind < 3:
        changed = bundle_fuzz.mutate_bytes(draw, victim.index)
    elif kind < 8:
        changed = bundle_fuzz.mutate_items(draw, victim.items)
    else:
        changed = bundle_fuzz.mutate_blocks(draw, victim)
    return {**base.files, suffix: changed}, kind < 3


def run(count, seed, only=None):
    """Run `count` cases; returns how often each outcome occurred."""
    outcomes = collections.Counter()
    golden = Path(__file__).resolve().parents[1] / "golden" / "checkpoints"
    starts = [BaseFiles(golden / folder / prefix) for folder, prefix in GOLDEN.items()]
    with tempfile.TemporaryDirectory() as folder:
        prefix = os.path.join(folder, "fuzzed")
        for number in range(count) if only is None else [only]:
            draw = random.Random(f"{seed}:{number}")
            base = draw.choice(starts)
            files, must_be_harmless = mutated(draw, base)
            for suffix, content in files.items():
                Path(prefix + suffix).write_bytes(content)
            try:
                with bundle_fuzz.time_limit(bundle_fuzz.SECONDS):
                    outcomes[bundle_fuzz.check(prefix, base.tensors, must_be_harmless)] += 1
            except Exception as error:
                raise AssertionError(f"case {number} of seed {seed}: {type(error).__name__}: {error}") from error
            for suffix in files:
                os.remove(prefix + suffix)
    return outcomes


if __name__ == "__main__":
    bundle_fuzz.main(run, __doc__)
