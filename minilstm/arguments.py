"""Single values that a caller gives: numbers, sizes, switches, seeds, dtypes. The one door for arguments.

Where a number of Python is wanted, a NumPy scalar or an array without dimensions is one too. Every function here
returns what to keep, or raises a ValueError that begins with `where` and names the argument.
"""

from __future__ import annotations

import heapq
import inspect
import math
import numbers
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

MOST_COMPARED, LONGEST_COMPARED = 100, 200  # comparing two names takes 20 microseconds; a file may hold thousands


def check_number(
    value: Any,
    name: str,
    where: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    finite: bool = True,
) -> Any:
    """Return `value` as a number of Python, an int or a float, if it is within its bounds, which may be open or closed.

    >>> check_number(np.float64(0.5), "rate", "Dropout", least=0, below=1)
    0.5
    """
    number = _python_number(value)
    low = number is not None and least <= number and (number > above or above == -math.inf)
    if low and number <= most and (number < below or below == math.inf) and not (finite and _is_infinite(number)):
        return number
    raise ValueError(f"{where}: {name} must be {_bounds(least, above, most, below, number)}, got {_short(value)}")


def check_whole(value: Any, name: str, where: str, *, least: int = 1) -> int:
    """Return `value` as an int if it is a whole number (not 2.0) of at least `least`."""
    number = _python_number(value)
    if not isinstance(number, int) or number < least:
        wanted = {0: "a whole number of 0 or more", 1: "a positive whole number"}
        raise ValueError(
            f"{where}: {name} must be {wanted.get(least, f'a whole number of at least {least}')}, got {_short(value)}"
        )
    return number


def check_flag(value: Any, name: str, where: str) -> bool:
    """Return `value` as a bool if it is True or False, or 1 or 0."""
    plain = value.item() if isinstance(value, (np.generic, np.ndarray)) and np.ndim(value) == 0 else value
    if not isinstance(plain, int) or plain not in (0, 1):
        raise ValueError(f"{where}: {name} must be True or False, got {_short(value)}")
    return bool(plain)


def check_function(value: Any, name: str, where: str) -> Any:
    """Return `value` if it can be called and is not a class."""
    if not callable(value) or isinstance(value, type):
        raise ValueError(f"{where}: {name} must be a function, got {_short(value)}")
    return value


def can_take(function: Any, count: int) -> bool:
    """Whether a function can be called with `count` arguments; also True if it does not tell."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        pass
    return True


def check_path(path: Any, name: str, where: str) -> str:
    """Return a path as text; ``~`` at its start is the home folder, as in a shell, and not a new folder of that name.

    An empty one would mean the current folder, and is refused.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
    if not isinstance(text, str) or not text or "\0" in text:
        raise ValueError(f"{where}: {name} must be a path as text and not empty, got {_short(path)}")
    return os.path.expanduser(text)


def check_list(values: Any, name: str, where: str) -> list[Any]:
    """Return what a list, a tuple or another collection holds, in its order; text and dicts are refused."""
    if isinstance(values, (str, bytes, dict)) or getattr(values, "ndim", 1) != 1 or isinstance(values, type):
        raise ValueError(f"{where}: {name} must be a list, got {_short(values)}")
    try:
        return list(values)
    except TypeError:
        raise ValueError(f"{where}: {name} must be a list, got {_short(values)}") from None


def check_dtype(dtype: Any, where: str) -> np.dtype:
    """Return a floating dtype."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise ValueError(f"{where}: dtype must be floating, got {_short(dtype)}") from None
    if found.kind != "f":
        raise ValueError(f"{where}: dtype must be floating, got {found}")
    return found.newbyteorder("=")


def as_generator(seed: Any, where: str, name: str = "seed", **sizes: Any) -> np.random.Generator:
    """Return ``np.random.default_rng(seed)``; `sizes`, by name, must be positive whole numbers."""
    for size in sizes:
        check_whole(sizes[size], size, where)
    try:
        if isinstance(seed, (bool, np.bool_)):  # NumPy takes False for 0; a `training=False` drops nothing as None
            raise TypeError
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        wanted = "what np.random.default_rng takes, such as a whole number of 0 or more"
        raise ValueError(f"{where}: {name} must be {wanted}, got {_short(seed)}") from None


def check_init(seed: Any, input_dim: Any, dtype: Any, where: str) -> tuple[np.random.Generator, int, np.dtype]:
    """Return the arguments of `init` of a cell or layer: a generator, the number of input features, the dtype."""
    return as_generator(seed, where), check_whole(input_dim, "input_dim", where), check_dtype(dtype, where)


def check_has(value: Any, method: str, name: str, where: str, wanted: str) -> None:
    """Raise ValueError unless `value` is an object (not a class) with a method of this name."""
    if isinstance(value, type) or not callable(getattr(value, method, None)):
        raise ValueError(f"{where}: {name} must be {wanted}, got {_short(value)}")


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """At most `n` known names that are spelled like `name`, of the `MOST_COMPARED` that begin or end most like it."""
    import difflib  # only needed to help after a failure

    def alike(other: str) -> int:
        return _shared(name, other) + _shared(name[::-1], other[::-1])

    short = [other for other in known if len(other) <= LONGEST_COMPARED]
    close = heapq.nlargest(MOST_COMPARED, short, alike)
    return difflib.get_close_matches(name[:LONGEST_COMPARED], close, n)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known one that is spelled most like it, or nothing.

    >>> did_you_mean("learningrate", ["learning_rate", "seed"])
    "; did you mean 'learning_rate'?"
    """
    near = nearest(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _shared(a: str, b: str) -> int:
    """The number of characters with which both begin."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _python_number(value: Any) -> Any:
    """A real number as an int or a float; None for anything else, a bool too."""
    if type(value) in (int, float):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        return None
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _is_infinite(number: Any) -> bool:
    try:
        return math.isinf(number)
    except OverflowError:  # a whole number that no float can hold
        return True


def _bounds(least: float, above: float, most: float, below: float, got: Any) -> str:
    low, high = max(least, above), min(most, below)
    if high < math.inf:
        return f"in {'(' if above >= least else '['}{low:g}, {high:g}{']' if most < below else ')'}"
    if low == -math.inf:
        return "a finite number"
    bound = "positive" if above == 0 else f"above {low:g}" if above >= least else f"{low:g} or more"
    return bound if got is None or not _is_infinite(got) else f"{bound} and finite"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
