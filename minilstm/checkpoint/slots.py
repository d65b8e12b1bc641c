"""The state of an optimizer in a file: which tensors are slots, of which variables, and whether they make up a state.

TensorFlow names a slot ``<variable>/<slot>``. If the optimizer was built inside a scope, the scope comes before that,
so that ``net/w`` has the slot ``net/net/w/Adam`` and the powers of beta are ``net/beta1_power``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from ..optimizers import AdamState
from ..params import unflatten_names
from .contents import AVERAGE, SCALARS, SLOTS

_OTHERS = ("Adadelta", "Ftrl")  # optimizers that minilstm does not have
_BASES = {slot.partition("_")[0] for fields in SLOTS.values() for slot in fields.values()} | {*_OTHERS, AVERAGE}
_SLOT = re.compile(rf"/((?:{'|'.join(sorted(_BASES))})(?:_[0-9]+)?)\Z")
_POWER = re.compile(r"(?P<scope>(?:.*/)?)(?P<name>beta[12]_power)(?P<number>(?:_[0-9]+)?)", re.DOTALL)
_NUMBERED = re.compile(r"(.+?)(?:_[0-9]+)?", re.DOTALL)

Arrays = dict[str, Any]  # by name


def slot_of(name: str) -> str | None:
    """The name of the slot at the end of a name, or None.

    >>> slot_of("rnn/lstm_cell/kernel/Adam_1"), slot_of("rnn/lstm_cell/kernel")
    ('Adam_1', None)
    """
    match = _SLOT.search(name)
    return None if match is None else match[1]


class Slots(NamedTuple):
    """The slots of a file.

    `by_variable` is variable -> slot -> name of the tensor; `ambiguous` are variables and slots, joined by a slash, for
    which there are tensors in several scopes; `names` are those of all tensors that are named as slots.
    """

    by_variable: dict[str, dict[str, str]]
    ambiguous: set[str]
    names: set[str]

    def average(self, variable: str) -> str | None:
        """The name of a variable's moving average, or None."""
        return self.by_variable.get(variable, {}).get(AVERAGE)

    def of_optimizers(self, variable: str) -> dict[str, str]:
        """A variable's slots, without its moving average."""
        return {slot: name for slot, name in self.by_variable.get(variable, {}).items() if slot != AVERAGE}


def find_slots(tensors: Arrays, wanted: Iterable[str] = ()) -> Slots:
    """The tensors that are named as slots of a variable which is there, with any scope before; not those `wanted`."""
    found: dict[str, dict[str, list[str]]] = {}
    named = {name: slot for name in tensors.keys() - set(wanted) if (slot := slot_of(name))}
    for name, slot in named.items():
        variable = _variable(name.removesuffix(f"/{slot}"), tensors)
        if variable is not None:
            found.setdefault(variable, {}).setdefault(slot, []).append(name)
    by_variable: dict[str, dict[str, str]] = {}
    ambiguous = set()
    for variable, slots in found.items():
        for slot, names in slots.items():
            own = f"{variable}/{slot}"
            if own in names or len(names) == 1:
                by_variable.setdefault(variable, {})[slot] = own if own in names else names[0]
            else:
                ambiguous.add(own)
    return Slots(by_variable, ambiguous, set(named))


def _variable(path: str, tensors: Arrays) -> str | None:
    """The longest name of a variable at the end of a path."""
    while path:
        if path in tensors and slot_of(path) is None:
            return path
        path = path.partition("/")[2]
    return None


def named_adam(variables: Arrays, nested: Arrays) -> dict[str, dict[str, str]]:
    """The slots of ``AdamOptimizer(name="opt")``, which are ``<variable>/opt`` and ``<variable>/opt_1``.

    Returns
    -------
    dict
        As `Slots.by_variable`, under the usual slots' names; empty unless all variables have just such two.
    """
    found: dict[str, dict[str, str]] = {}
    below: dict[str, list[str]] = {}
    for name in sorted(nested):
        below.setdefault(name.rpartition("/")[0], []).append(name)
    bases: set[str] = set()
    for variable, array in variables.items():
        mine = [name for name in below.get(variable, []) if nested[name].shape == array.shape]
        bases |= {_NUMBERED.fullmatch(name.removeprefix(variable))[1] for name in mine}  # type: ignore[index]
        if len(mine) != 2 or mine[1] != f"{mine[0]}_1" or len(bases) != 1:
            return {}
        found[variable] = {"Adam": mine[0], "Adam_1": mine[1]}
    return found


def is_power(name: str, array: Any) -> bool:
    """Whether a tensor is a power of beta, by its name: no model has a parameter of that name."""
    return _POWER.fullmatch(name) is not None and array.dtype.kind == "f"


def find_powers(tensors: Arrays) -> dict[tuple[str, str], Arrays]:
    """The names of the powers of beta in pairs, by scope and number."""
    pairs: dict[tuple[str, str], Arrays] = {}
    for name, array in tensors.items():
        match = _POWER.fullmatch(name)
        if match and is_power(name, array) and array.shape == ():
            pairs.setdefault((match["scope"], match["number"]), {})[match["name"]] = name
    return {key: names for key, names in pairs.items() if names.keys() == set(SCALARS)}


def chosen_powers(pairs: dict[tuple[str, str], Arrays], tensors: Arrays, scope: str) -> Arrays | str:
    """The pair of powers that counts, or a sentence that says why it cannot be told."""
    values = {tuple(float(tensors[names[power]]) for power in SCALARS) for names in pairs.values()}
    if len(values) == 1:
        return next(iter(pairs.values()))
    below = [names for (where, _), names in pairs.items() if scope and where.startswith(scope)]
    if len(below) == 1:
        return below[0]
    if not pairs:
        return "beta1_power and beta2_power are not in the file, or are no numbers"
    names = sorted(pair["beta1_power"] for pair in pairs.values())
    return (
        f"there are several powers of beta with different values ({', '.join(names)}); give the right ones the names "
        "beta1_power and beta2_power with rename=, and the others other names"
    )


def optimizer_state(
    variables: dict[str, str], slots: Slots, tensors: Arrays, scope: str, step: int
) -> tuple[Any, set[str], str]:
    """The state of an optimizer.

    Parameters
    ----------
    variables : dict
        The names of all parameters, and what each one is called in `tensors`.
    slots : Slots
    tensors : dict
        The arrays of the file.
    scope : str
        The scope that the caller named, with a slash at its end, or nothing.
    step : int

    Returns
    -------
    tuple
        The state or None; the names of the tensors that it is made of; and why there is none, if there are slots.
    """
    mine = {name: slots.of_optimizers(variable) for name, variable in variables.items()}
    present = {slot for found in mine.values() for slot in found}
    lost = sorted({own.rpartition("/")[2] for own in slots.ambiguous if own.rpartition("/")[0] in variables.values()})
    if lost:
        return None, set(), f"there is more than one {lost[0]} for a variable, in several scopes; choose with rename="
    if not present:
        return None, set(), ""
    kind = next((kind for kind, fields in SLOTS.items() if set(fields.values()) == present), None)
    if kind is None:
        return None, set(), f"no optimizer of minilstm has the slots {', '.join(sorted(present))}"
    fields = SLOTS[kind]
    faults = [
        f"{name}/{slot}"
        for name, variable in variables.items()
        for slot in fields.values()
        if slot not in mine[name] or tensors[mine[name][slot]].shape != tensors[variable].shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        return None, set(), f"these slots are missing or of another shape: {', '.join(faults[:3])}{more}"
    used = {mine[name][slot] for name in variables for slot in fields.values()}
    trees = [unflatten_names({name: tensors[mine[name][slot]] for name in variables}) for slot in fields.values()]
    if kind is not AdamState:
        return kind(step, *trees), used, ""
    powers = chosen_powers(find_powers(tensors), tensors, scope)
    if isinstance(powers, str):
        return None, set(), powers
    scalars = [np.float32(tensors[powers[power]]) for power in SCALARS]
    return AdamState(step, trees[0], trees[1], *scalars), used | set(powers.values()), ""
