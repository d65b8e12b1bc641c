"""Train on the adding problem: remember two marked numbers over a long sequence and return their sum.

    python -m experiments.adding
    python -m experiments.adding --length 50 100 200 400 --forget-bias 1 0

At every step the model reads a number and a mark. Two steps are marked, one in each half. The target, after the last
step, is the sum of the two marked numbers. Numbers are uniform in [0, 1], with ``--symmetric`` in [-1, 1]. Without
memory the best answer is the mean. Its mean squared error is the variance of the sum: 1/6, or 2/3 if symmetric.

The learning rate was chosen on the seeds 10 and 11, at the lengths 100 and 200. Other seeds are reported.

Sources: Hochreiter and Schmidhuber 1997, experiment 4; in this form Le, Jaitly and Hinton 2015 (arXiv 1504.00941).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minilstm import losses

from . import common, tasks_memory
from .tasks_memory import Batch, Task

DEFAULTS: dict[str, Any] = {"length": 100, "forget_bias": 1.0, "epochs": 80, "units": 8, "learning_rate": 1e-2}


def batch(rng: np.random.Generator, sequences: int, length: int, low: float = 0.0) -> Batch:
    """Inputs ``[sequences, length, 2]`` of numbers in [low, 1) and marks, and targets ``[sequences, 1]``, float32."""
    if length < 2:
        raise ValueError(f"adding: length must be at least 2, got {length}")
    numbers = rng.uniform(low, 1, (sequences, length))
    marks = np.zeros_like(numbers)
    each = np.arange(sequences)
    marks[each, rng.integers(0, length // 2, sequences)] = 1
    marks[each, rng.integers(length // 2, length, sequences)] = 1
    targets = np.sum(numbers * marks, axis=1, keepdims=True)
    return np.stack([numbers, marks], axis=-1).astype(np.float32), targets.astype(np.float32)


def task(symmetric: bool = False) -> Task:
    """The task with numbers in [0, 1], or in [-1, 1] if `symmetric`."""
    low = -1.0 if symmetric else 0.0
    return Task(
        title=f"Adding problem, numbers in [{low:g}, 1]",
        batch=functools.partial(batch, low=low),
        loss=losses.mse,
        loss_name="MSE",
        scale="log",
        scores=lambda outputs, targets: {"test_mse": float(losses.mse(outputs, targets))},
        headline="test_mse",
        baseline_name="baseline_mse",
        baseline=lambda length: 2 * (1 - low) ** 2 / 12,  # a uniform number's variance is its width squared over 12
        outputs=1,
        every_step=False,
    )


def main(argv: Sequence[str] | None = None, report: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the experiment; returns what results.json holds."""
    flags = tasks_memory.parser("experiments.adding", "Train on the adding problem.", **DEFAULTS)
    flags.add_argument("--symmetric", action="store_true", help="numbers in [-1, 1] instead of [0, 1]")
    args = common.parse(flags, argv)
    return tasks_memory.main(task(args.symmetric), args, report)


if __name__ == "__main__":
    main()
