"""Train on copy memory: repeat ten symbols after a delay.

    python -m experiments.copying
    python -m experiments.copying --forget-bias chrono 1

The model reads ten symbols, each one of eight, then ``length - 1`` blanks, a marker and ten blanks. It must answer with
blanks for ``length + 10`` steps and then with the ten symbols. Without memory the best answer is a blank up to the
marker, and after it each symbol with probability 1/8: a cross-entropy of 10 ln 8 / (length + 20), the mean over all
steps.

Source: Arjovsky, Shah and Bengio 2016 (arXiv 1511.06464), after Hochreiter and Schmidhuber 1997. The default here is
the chrono initialisation of Tallec and Ollivier 2018 (arXiv 1804.11188), who tried it on this task. The learning rate
was chosen on seed 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minilstm import losses

from . import common, tasks_memory
from .tasks_memory import CHRONO, Batch, Task

SYMBOLS, COPIED = 8, 10
BLANK, MARKER = 0, SYMBOLS + 1  # the symbols are 1 to 8
DEFAULTS: dict[str, Any] = {"length": 100, "forget_bias": CHRONO, "epochs": 40, "units": 64, "learning_rate": 5e-3}


def batch(rng: np.random.Generator, sequences: int, length: int) -> Batch:
    """Inputs ``[sequences, length + 20, 10]``, one-hot in float32, and labels ``[sequences, length + 20]``."""
    symbols = rng.integers(1, SYMBOLS + 1, (sequences, COPIED))
    read = np.full((sequences, length + 2 * COPIED), BLANK)
    labels = np.full_like(read, BLANK)
    read[:, :COPIED] = symbols
    read[:, COPIED + length - 1] = MARKER
    labels[:, -COPIED:] = symbols
    return np.eye(SYMBOLS + 2, dtype=np.float32)[read], labels


def scores(outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The mean cross-entropy over all steps, in nats, and the share of the symbols that are answered correctly."""
    right = outputs[:, -COPIED:].argmax(axis=-1) == labels[:, -COPIED:]
    return {
        "test_cross_entropy": float(losses.softmax_cross_entropy(outputs, labels)),
        "test_recall": float(np.mean(right)),
    }


TASK = Task(
    title="Copy memory",
    batch=batch,
    loss=losses.softmax_cross_entropy,
    loss_name="cross-entropy (nats)",
    scale="linear",
    scores=scores,
    headline="test_cross_entropy",
    baseline_name="memoryless",
    baseline=lambda length: COPIED * float(np.log(SYMBOLS)) / (length + 2 * COPIED),
    outputs=SYMBOLS + 1,
    every_step=True,
)


def main(argv: Sequence[str] | None = None, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the experiment; returns what results.json holds."""
    flags = tasks_memory.parser("experiments.copying", "Train on copy memory.", **DEFAULTS)
    return tasks_memory.main(TASK, common.parse(flags, argv), report)


if __name__ == "__main__":
    main()
