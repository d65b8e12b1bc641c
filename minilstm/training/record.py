"""What a run was started with: saved in each checkpoint of `fit`, and compared with the call that resumes it.

Numbers and names are compared by value, the optimizer's options among them, and a schedule of `minilstm.schedules` by
its name and its numbers. Python cannot compare two functions. So a function of your own, a loss or a learning rate, is
compared by its qualified name, a lambda too; and your own optimizer by its name, the name of its `rule`, and the
options that are fields of a dataclass. A subclass that replaces nothing but `update` may be left out on resume: it may
only watch. Data are compared by keys, shapes and dtypes, not by what they hold.

The model is not in this record, because every checkpoint has its description.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .. import optimizers, schedules
from ..arguments import check_list, did_you_mean
from ..optimizers import Optimizer
from ..params import Tree
from ..sequences import fast_pass
from ..shapes import params_dtype
from .sources import ArraySource, Source
from .truncation import Truncation

PLACED = ("batch_size", "data", "seed", "steps_per_epoch", "tbptt")  # what decides which batch comes next
PLAIN = (bool, int, float, str)


def started_with(options: Any, source: Source, first: Any, truncation: Truncation | None) -> dict[str, Any]:
    """Describe a call of `fit` as a JSON-able dict.

    `options` has the arguments of `fit` as attributes; `source` and `truncation` are what `fit` made of data and tbptt,
    and `first` is ``source.first()``.
    """
    arrays = isinstance(source, ArraySource)
    arguments = {name: plain(getattr(options, name)) for name in ("clip_norm", "clip_value", "ema_decay", "seed")}
    arguments |= {
        "loss": name_of(options.loss),
        "loss_fn": name_of(options.loss_fn),
        "batch_size": source.batch_size if isinstance(source, ArraySource) else None,
        "steps_per_epoch": None if arrays else source.batches_per_epoch,
        "tbptt": None if truncation is None else truncation._asdict(),
        "data": {"kind": "arrays" if arrays else type(options.data).__name__, "holds": shapes(first)},
    }
    dtype = params_dtype(options.params, np.float32)
    return {"arguments": arguments, "optimizer": describe_optimizer(options.optimizer), "pass": fast_pass(dtype)}


def differences(then: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (name, in the first record, in the second) for everything in which two records differ, except the pass."""
    for name, value in now["arguments"].items():
        if then["arguments"].get(name, value) != value:
            yield name, shown(then["arguments"][name]), shown(value)
    was, is_ = then["optimizer"], now["optimizer"]
    # A subclass that only watches or wraps `update` may come and go; one that is new may do anything.
    is_new = is_["own"] is not None and is_["own"] != was["own"]
    if (was["class"], was["rule"]) != (is_["class"], is_["rule"]) or is_new:
        yield "optimizer", was["own"] or was["class"], is_["own"] or is_["class"]
    for name in {**was["options"], **is_["options"]}:
        pair = was["options"].get(name, "nothing"), is_["options"].get(name, "nothing")
        if pair[0] != pair[1]:
            yield name, *map(shown, pair)


def check_changes(changes: Any, arguments: Iterable[str], optimizer: Any) -> tuple[str, ...]:
    """Return `resume_changes` as a tuple; ValueError for a name that is neither an argument nor an optimizer's option.

    `arguments` are the names of fit's own.
    """
    changes = (changes,) if isinstance(changes, str) else tuple(check_list(changes, "resume_changes", "fit"))
    kinds = [kind for kind in vars(optimizers).values() if dataclasses.is_dataclass(kind)]
    options = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    known = sorted({*arguments, *options, *describe_optimizer(optimizer)["options"]})
    for name in changes:
        if name not in known:
            raise ValueError(
                f"fit: resume_changes must name arguments of fit or options of the optimizer, got {name!r}"
                f"{did_you_mean(str(name), known)}"
            )
    return changes


# --- descriptions ---------------------------------------------------------------------------------------------


def describe_optimizer(optimizer: Any) -> dict[str, Any]:
    """The class of `minilstm.optimizers` that an optimizer is or extends, its rule, and its options by name.

    `own` is the name of a user's class, or None.
    """
    kind = type(optimizer)
    known = [base for base in kind.__mro__ if base.__module__ == optimizers.__name__ and base is not Optimizer]
    fields = dataclasses.fields(optimizer) if dataclasses.is_dataclass(optimizer) else ()
    return {
        "class": known[0].__name__ if known else name_of(kind),
        "own": None if kind in known else name_of(kind),
        "rule": name_of(getattr(kind, "rule", None)),
        "options": {field.name: plain(getattr(optimizer, field.name)) for field in fields},
    }


def plain(value: Any) -> Any:
    """A value as JSON: numbers as they are, a schedule by its name and numbers, another function by its name."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if value is None or isinstance(value, PLAIN):
        return value
    if isinstance(value, functools.partial) and value.func.__module__ == schedules.__name__:
        numbers = {name: plain(number) for name, number in sorted(value.keywords.items())}
        return {"schedule": value.func.__name__.removeprefix("_"), "numbers": numbers}
    return {"function": name_of(value)}


def name_of(function: Any) -> str | None:
    """The module and qualified name of a function, or of an object's class; None for None."""
    if function is None:
        return None
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{_module(named)}.{named.__qualname__}"


def _module(named: Any) -> str:
    """The name of a module; of the script that runs, the name it has if another module imports it."""
    module = getattr(named, "__module__", None) or "builtins"
    main = sys.modules.get("__main__")
    if module != "__main__" or main is None:
        return module
    spec = getattr(main, "__spec__", None)
    file = os.path.basename(getattr(main, "__file__", None) or module)
    return spec.name if spec is not None else os.path.splitext(file)[0]


def shapes(tree: Tree, place: str = "") -> dict[str, str]:
    """The dtype and shape of every array in a tree of data, by its path."""
    if isinstance(tree, (dict, list, tuple)):
        found: dict[str, str] = {}
        for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
            found |= shapes(part, f"{place}/{key}" if place else str(key))
        return found
    if tree is None:
        return {}
    array = tree if hasattr(tree, "dtype") else np.asarray(tree)
    return {place: f"{array.dtype} {list(array.shape)}"}


def shown(value: Any) -> str:
    """A part of a record for an error message."""
    if isinstance(value, float):
        return repr(float(f"{value:.7g}"))  # a float32, as it was given
    if not isinstance(value, dict):
        return value if isinstance(value, str) else repr(value)
    if "schedule" in value:
        numbers = ", ".join(f"{name}={shown(number)}" for name, number in value["numbers"].items())
        return f"{value['schedule']}({numbers})"
    if "function" in value:
        return f"the function {value['function']}"
    if "holds" in value:
        return f"{value['kind']} of " + ", ".join(f"{name} {text}" for name, text in value["holds"].items())
    return ", ".join(f"{name}={number}" for name, number in value.items())
