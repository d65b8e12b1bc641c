"""Options of cells, layers and optimizers, each declared once: as the field of a dataclass.

The field gives the argument with its default, the attribute, the entry in `config` and the part of `repr`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np


def described_by(describe: Callable[[Any, str], Any], default: Any, show: bool = True) -> Any:
    """A field that ``describe(value, where)`` makes JSON-able; `show` says whether `repr` may show it."""
    return dataclasses.field(default=default, repr=show, metadata={"describe": describe})


def fixed(value: Any) -> Any:
    """A field of the base class that this class does not offer as an option."""
    return dataclasses.field(default=value, init=False)


class Recipe:
    """The base of cells and layers: options, and no arrays."""

    kind: ClassVar[str]  # "cell" or "layer", the key of the class name in `config`
    default_name: ClassVar[str]
    name: str | None

    def config(self) -> dict[str, Any]:
        """Return every option as JSON-able values.

        Raises ValueError for an activation or initializer without a registered name: it could not be read back.
        """
        where = f"{type(self).__name__}.config"
        fields = {field.metadata.get("key", field.name): field for field in _fields(self)}
        options = {key: _as_json(getattr(self, field.name), field, where) for key, field in fields.items()}
        return {self.kind: type(self).__name__, **(options or {"name": self.name})}

    def __repr__(self) -> str:
        shown = []
        for field in _fields(self):
            value, default = getattr(self, field.name), self.default_name if field.name == "name" else field.default
            if not field.kw_only:
                shown.append(repr(value))
            elif field.repr and value not in (field.default, default):
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def options_of(recipe: Recipe) -> dict[str, Any]:
    """The arguments that make the same recipe again."""
    return {field.name: getattr(recipe, field.name) for field in _fields(recipe)}


def _fields(recipe: Recipe) -> list[dataclasses.Field[Any]]:
    """The options of a recipe; none for a user's own class that is no dataclass."""
    return [field for field in dataclasses.fields(recipe) if field.init] if dataclasses.is_dataclass(recipe) else []


def _as_json(value: Any, field: Any, where: str) -> Any:
    if "describe" in field.metadata:
        return field.metadata["describe"](value, where)
    if isinstance(value, list):
        return [part.config() for part in value]
    return value.config() if hasattr(value, "config") else value


# --- checks ---------------------------------------------------------------------------------------------------


def check_size(value: Any, name: str, where: str) -> int:
    """Return `value` as an int if it is a positive whole number, else raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{where}: {name} must be a positive whole number, got {value!r}")
    return int(value)


def check_units(units: Any, num_units: Any, where: str) -> int:
    """Return `units`, checked; `num_units`, TensorFlow's word for it, is a TypeError that says so."""
    if num_units is not None:
        raise TypeError(f"{where}: num_units is called units here; write {where}({num_units})")
    return check_size(units, "units", where)


def check_finite(value: Any, name: str, where: str) -> float:
    """Return `value` as a float if it is a finite number, else raise ValueError."""
    if not np.isfinite(value):
        raise ValueError(f"{where}: {name} must be a finite number, got {value!r}")
    return float(value)
