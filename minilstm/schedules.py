"""Learning rates as plain functions of the step, which counts from 0.

    Adam(learning_rate=cosine(1e-3, steps=5000))

Every function here returns such a function. An optimizer accepts any other ``step -> rate`` as well.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .arguments import check_flag, check_function, check_list, check_number, check_whole

Schedule = Callable[[int], float]


def constant(rate: float) -> Schedule:
    """Return `rate` at every step."""
    return partial(_constant, rate=_check_rate(rate, "constant"))


def exponential(rate: float, decay_steps: int, decay_rate: float, staircase: bool = False) -> Schedule:
    """Exponential decay: ``rate * decay_rate ** (step / decay_steps)``; `staircase` rounds the exponent down.

    Source: ``tf.compat.v1.train.exponential_decay``.

    >>> [exponential(0.1, 10, 0.5)(step) for step in (0, 10, 20)]
    [0.1, 0.05, 0.025]
    """
    rate, staircase = _check_rate(rate, "exponential"), check_flag(staircase, "staircase", "exponential")
    decay_steps = check_number(decay_steps, "decay_steps", "exponential", above=0)
    decay_rate = check_number(decay_rate, "decay_rate", "exponential", above=0)
    return partial(_exponential, rate=rate, decay_steps=decay_steps, decay_rate=decay_rate, staircase=staircase)


def piecewise(boundaries: Sequence[int], rates: Sequence[float]) -> Schedule:
    """One constant rate after another: ``rates[0]`` up to and including step ``boundaries[0]``, then ``rates[1]``, ...

    Raises ValueError unless the boundaries increase, and there is one rate more than boundaries.

    Source: ``tf.compat.v1.train.piecewise_constant``.

    >>> [piecewise([100], [0.1, 0.01])(step) for step in (0, 100, 101)]
    [0.1, 0.1, 0.01]
    """
    boundaries, rates = check_list(boundaries, "boundaries", "piecewise"), check_list(rates, "rates", "piecewise")
    boundaries = [check_number(value, "boundaries", "piecewise") for value in boundaries]
    rates = [_check_rate(value, "piecewise", "rates") for value in rates]
    if any(after <= before for before, after in itertools.pairwise(boundaries)):
        raise ValueError(f"piecewise: boundaries must increase, got {boundaries}")
    if len(rates) != len(boundaries) + 1:
        raise ValueError(f"piecewise: {len(boundaries)} boundaries need {len(boundaries) + 1} rates, got {len(rates)}")
    return partial(_piecewise, boundaries=boundaries, rates=rates)


def cosine(rate: float, steps: int, final: float = 0.0) -> Schedule:
    """Fall from `rate` to ``final * rate`` along half a cosine of `steps` steps, then stay constant.

    Source: Loshchilov and Hutter 2017 (arXiv 1608.03983), without restarts.

    >>> [round(cosine(0.2, 100)(step), 3) for step in (0, 50, 100, 200)]
    [0.2, 0.1, 0.0, 0.0]
    """
    rate, steps = _check_rate(rate, "cosine"), check_number(steps, "steps", "cosine", above=0)
    return partial(_cosine, rate=rate, steps=steps, final=check_number(final, "final", "cosine", least=0))


def warm_up(schedule: Schedule, steps: int) -> Schedule:
    """Scale `schedule` up linearly over the first `steps`: at step s its rate is multiplied by ``(s + 1) / steps``.

    >>> [warm_up(constant(0.5), 4)(step) for step in (0, 1, 3, 9)]
    [0.125, 0.25, 0.5, 0.5]
    """
    check_function(schedule, "schedule", "warm_up")
    return partial(_warm_up, schedule=schedule, steps=check_number(steps, "steps", "warm_up", above=0))


def halving(rate: float, full_epochs: int, steps_per_epoch: int, decay: float = 0.5) -> Schedule:
    """Return `rate` for `full_epochs`, then multiply it by `decay` at the start of every further epoch.

    Source: Zaremba, Sutskever and Vinyals 2014 (arXiv 1409.2329), whose small model halves after epoch 4.
    """
    rate, decay = _check_rate(rate, "halving"), check_number(decay, "decay", "halving", above=0)
    full_epochs = check_whole(full_epochs, "full_epochs", "halving", least=0)
    steps_per_epoch = check_whole(steps_per_epoch, "steps_per_epoch", "halving")
    return partial(_halving, rate=rate, full_epochs=full_epochs, steps_per_epoch=steps_per_epoch, decay=decay)


# The schedules at a step. They are no closures, so that an optimizer can be sent to another process.


def _constant(step: int, rate: float) -> float:
    return rate


def _exponential(step: int, rate: float, decay_steps: float, decay_rate: float, staircase: bool) -> float:
    return rate * decay_rate ** (step // decay_steps if staircase else step / decay_steps)


def _piecewise(step: int, boundaries: Sequence[float], rates: Sequence[float]) -> float:
    return rates[sum(step > boundary for boundary in boundaries)]


def _cosine(step: int, rate: float, steps: float, final: float) -> float:
    share = (1 + math.cos(math.pi * min(step, steps) / steps)) / 2
    return rate * (final + (1 - final) * share)


def _warm_up(step: int, schedule: Schedule, steps: float) -> float:
    return schedule(step) * min(1.0, (step + 1) / steps)


def _halving(step: int, rate: float, full_epochs: int, steps_per_epoch: int, decay: float) -> float:
    return rate * decay ** max(0, step // steps_per_epoch + 1 - full_epochs)


def _check_rate(rate: Any, where: str, name: str = "rate") -> Any:
    return check_number(rate, name, where, least=0)
