"""The points of a sweep: a grid or random draws of an experiment's flags, combined with seeds.

A point depends on the command alone. The k-th draw comes from ``default_rng([seed, k])``, so a longer sweep begins with
the points of a shorter one.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

OWN_FLAGS = ("out", "quiet", "resume", "seed")  # which the sweep itself sets
DRAWS = "uniform:LOW:HIGH, log:LOW:HIGH, int:LOW:HIGH or choice:A:B:..."
READABLE_LENGTH = 80  # characters of a folder's name, before the digest
Draw = Callable[[np.random.Generator], str]  # draws a value as it is written on the command line


class Point(NamedTuple):
    """One run of an experiment."""

    experiment: str  # its module, such as experiments.sunspots
    flags: dict[str, str]  # flag without dashes -> value, for the flags that the sweep sets; the seed is last
    arguments: tuple[str, ...]  # all arguments of the experiment, except --out and --quiet

    @property
    def command(self) -> str:
        """The command that runs this point alone, without --out; it identifies the point."""
        return shlex.join(["python", "-m", self.experiment, *self.arguments])

    @property
    def setting(self) -> dict[str, str]:
        """The flags without the seed."""
        return {flag: value for flag, value in self.flags.items() if flag != "seed"}

    @property
    def name(self) -> str:
        """The name of the point's folder: its flags in readable form, and a digest of the whole command."""
        readable = re.sub(r"[^\w.,=+-]", "_", ",".join(f"{flag}={value}" for flag, value in self.flags.items()))
        return f"{readable[:READABLE_LENGTH]}-{hashlib.sha256(self.command.encode()).hexdigest()[:8]}"


def parse_grid(text: str) -> tuple[str, list[str]]:
    """Split ``units=8,16`` into the flag's name and its values. Raises ValueError, like `parse_draw`."""
    flag, values = _split(text, "--grid", "FLAG=VALUE,VALUE,...")
    found = values.split(",")
    if "" in found or len(set(found)) < len(found):
        raise ValueError(f"--grid {text}: wanted values that differ and are not empty, got {values!r}")
    return flag, found


def parse_draw(text: str) -> tuple[str, Draw]:
    """Split ``learning-rate=log:1e-4:1e-2`` into the flag's name and a function that draws; reals have four digits."""
    flag, rest = _split(text, "--draw", f"FLAG=DRAW, where DRAW is {DRAWS}")
    kind, *bounds = rest.split(":")
    if kind == "choice" and bounds and "" not in bounds:
        return flag, lambda rng: bounds[rng.integers(len(bounds))]
    if kind not in ("uniform", "log", "int") or len(bounds) != 2:
        raise ValueError(f"--draw {text}: wanted {DRAWS}, got {rest!r}")
    try:
        low, high = map(int if kind == "int" else float, bounds)
    except ValueError:
        raise ValueError(f"--draw {text}: wanted two numbers as bounds, whole ones for int, got {bounds}") from None
    if not (low <= high < np.inf) or (kind == "log" and low <= 0):
        raise ValueError(f"--draw {text}: wanted LOW <= HIGH, both finite, for log above 0, got {low:g} and {high:g}")
    draws: dict[str, Draw] = {
        "uniform": lambda rng: _short(rng.uniform(low, high), low, high),
        "log": lambda rng: _short(np.exp(rng.uniform(np.log(low), np.log(high))), low, high),
        "int": lambda rng: str(rng.integers(int(low), int(high) + 1)),
    }
    return flag, draws[kind]


def _short(value: float, low: float, high: float) -> str:
    """A number with four digits, or with all where four would leave its bounds."""
    value = min(max(float(value), low), high)
    return f"{value:.4g}" if low <= float(f"{value:.4g}") <= high else repr(value)


def parse_all(option: str, parse: Callable[[str], tuple[str, Any]], texts: Sequence[str]) -> dict[str, Any]:
    """The flags of all texts of one option, parsed. Raises ValueError if a flag is there twice."""
    found: dict[str, Any] = {}
    for text in texts:
        flag, value = parse(text)
        if flag in found:
            raise ValueError(f"{option} {text}: --{flag} is there twice")
        found[flag] = value
    return found


def points(
    experiment: str, fixed: Sequence[str], grid: Mapping[str, Sequence[str]], draws: Mapping[str, Draw], random: int,
    seed: int, seeds: int,
) -> list[Point]:  # fmt: skip
    """Every combination of the grid with each of `random` draws (if there are `draws`) and each of `seeds` seeds.

    Every point has the arguments `fixed`. Points are in the order of the flags; the seed, which counts up from `seed`,
    changes fastest.
    """
    both = sorted(set(grid) & set(draws))
    if both:
        raise ValueError(f"sweep: a flag is either in --grid or in --draw, got {', '.join(both)} in both")
    if bool(random) != bool(draws):
        raise ValueError("sweep: --random N and --draw FLAG=... need each other")
    taken = {word[2:].partition("=")[0] for word in fixed if word.startswith("--")} & {*grid, *draws, *OWN_FLAGS}
    if taken:
        raise ValueError(f"sweep: --{min(taken)} is set by the sweep itself, got it among the arguments after --, too")
    rngs = [np.random.default_rng([seed, k]) for k in range(max(random, 1))]
    drawn = [{flag: draw(rng) for flag, draw in draws.items()} for rng in rngs]
    found = []
    for values in itertools.product(*grid.values()):
        for others, one_seed in itertools.product(drawn, range(seed, seed + seeds)):
            flags = {**dict(zip(grid, values, strict=True)), **others, "seed": str(one_seed)}
            arguments = [*fixed, *(word for flag, value in flags.items() for word in _words(flag, value))]
            found.append(Point(experiment, flags, tuple(arguments)))
    return list({point.command: point for point in found}.values())  # draws from few values can repeat


def varying(all_points: Sequence[Point]) -> list[str]:
    """The flags with more than one value, except the seed."""
    return [flag for flag in all_points[0].setting if len({point.flags[flag] for point in all_points}) > 1]


def _words(flag: str, value: str) -> list[str]:
    """The arguments for a flag and its value; with ``true`` the flag is a switch, with ``false`` it is left out."""
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
