"""What a sweep runs: a grid or random draws of an experiment's flags, times seeds, as a list of points.

A point is a function of what the command says alone: the k-th draw comes from ``default_rng([seed, k])``, so that a
longer sweep begins with the points of a shorter one.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

OWN_FLAGS = ("out", "quiet", "resume", "seed")  # the sweep's to give
DRAWS = "uniform:LOW:HIGH, log:LOW:HIGH, int:LOW:HIGH or choice:A:B:..."
READABLE_LENGTH = 80  # of a folder's name


class Point(NamedTuple):
    """One run of an experiment."""

    experiment: str  # its module, such as experiments.sunspots
    flags: dict[str, str]  # what varies, the seed at the end: flag without dashes -> value
    arguments: tuple[str, ...]  # all that the experiment is given, except --out and --quiet

    @property
    def command(self) -> str:
        """The line that runs it alone, up to --out; the point's identity."""
        return shlex.join(["python", "-m", self.experiment, *self.arguments])

    @property
    def name(self) -> str:
        """The name of its folder: what varies, readable, and a digest of the whole command."""
        readable = re.sub(r"[^\w.,=+-]", "_", ",".join(f"{flag}={value}" for flag, value in self.flags.items()))
        return f"{readable[:READABLE_LENGTH]}-{hashlib.sha256(self.command.encode()).hexdigest()[:8]}"


class Draw(NamedTuple):
    """A distribution of one flag's values."""

    kind: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()

    def sample(self, rng: np.random.Generator) -> str:
        """A value as it is written on the command line, real numbers with four digits."""
        if self.kind == "choice":
            return self.choices[rng.integers(len(self.choices))]
        if self.kind == "int":
            return str(rng.integers(int(self.low), int(self.high) + 1))
        if self.kind == "log":
            return f"{np.exp(rng.uniform(np.log(self.low), np.log(self.high))):.4g}"
        return f"{rng.uniform(self.low, self.high):.4g}"


def parse_grid(text: str) -> tuple[str, list[str]]:
    """``units=8,16`` to the flag's name and its values. Raises ValueError, as `parse_draw` does."""
    flag, values = _split(text, "--grid", "FLAG=VALUE,VALUE,...")
    found = values.split(",")
    if "" in found or len(set(found)) < len(found):
        raise ValueError(f"--grid {text}: wanted values that differ and are not empty, got {values!r}")
    return flag, found


def parse_draw(text: str) -> tuple[str, Draw]:
    """``learning-rate=log:1e-4:1e-2`` to the flag's name and its distribution."""
    flag, rest = _split(text, "--draw", f"FLAG=DRAW, where DRAW is {DRAWS}")
    kind, *bounds = rest.split(":")
    if kind == "choice" and bounds and "" not in bounds:
        return flag, Draw(kind, choices=tuple(bounds))
    if kind not in ("uniform", "log", "int") or len(bounds) != 2:
        raise ValueError(f"--draw {text}: wanted {DRAWS}, got {rest!r}")
    try:
        low, high = [float(int(bound)) if kind == "int" else float(bound) for bound in bounds]
    except ValueError:
        raise ValueError(f"--draw {text}: wanted two numbers as bounds, whole ones for int, got {bounds}") from None
    if not (low <= high < np.inf) or (kind == "log" and low <= 0):
        raise ValueError(f"--draw {text}: wanted LOW <= HIGH, both finite, for log above 0, got {low:g} and {high:g}")
    return flag, Draw(kind, low, high)


def points(
    experiment: str,
    fixed: Sequence[str],
    grid: Mapping[str, Sequence[str]],
    draws: Mapping[str, Draw],
    random: int,
    seed: int,
    seeds: int,
) -> list[Point]:
    """Every combination of the grid, times `random` draws where there are `draws`, times seeds from `seed` on.

    `fixed` are arguments that every point has. The order is that of the flags, seeds fastest.
    """
    both = sorted(set(grid) & set(draws))
    if both:
        raise ValueError(f"sweep: a flag is either in --grid or in --draw, got {', '.join(both)} in both")
    if bool(random) != bool(draws):
        raise ValueError("sweep: --random N and --draw FLAG=... need each other")
    drawn = [
        {flag: draw.sample(rng) for flag, draw in draws.items()}
        for rng in (np.random.default_rng([seed, k]) for k in range(max(random, 1)))
    ]
    found = []
    for values in itertools.product(*grid.values()):
        for others, one_seed in itertools.product(drawn, range(seed, seed + seeds)):
            flags = {**dict(zip(grid, values, strict=True)), **others, "seed": str(one_seed)}
            arguments = [*fixed, *(word for flag, value in flags.items() for word in _words(flag, value))]
            found.append(Point(experiment, flags, tuple(arguments)))
    return list({point.command: point for point in found}.values())  # draws from few values can repeat


def varying(all_points: Sequence[Point]) -> list[str]:
    """The flags that have more than one value, without the seed."""
    flags = all_points[0].flags
    return [flag for flag in flags if flag != "seed" and len({point.flags[flag] for point in all_points}) > 1]


def _words(flag: str, value: str) -> list[str]:
    """A flag and its value; ``true`` and ``false`` stand for a switch that is given or not."""
    if value in ("true", "false"):
        return [f"--{flag}"] if value == "true" else []
    return [f"--{flag}={value}"]


def _split(text: str, where: str, wanted: str) -> tuple[str, str]:
    flag, equals, rest = text.partition("=")
    flag = flag.lstrip("-")
    if not flag or not equals:
        raise ValueError(f"{where}: wanted {wanted}, got {text!r}")
    if flag in OWN_FLAGS:
        raise ValueError(f"{where} {text}: --{flag} is given by the sweep (seeds: --seed, --seeds)")
    return flag, rest
