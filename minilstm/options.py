"""Options of cells and layers, each declared once, as a field of a dataclass.

A field defines an argument with its default and check, the attribute, the entry in `config` and the part of `repr`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from .arguments import check_flag, check_number, check_whole
from .params import check_name


def option(
    default: Any = dataclasses.MISSING,
    check: Callable[[Any, str, str], Any] | None = None,
    describe: Callable[[Any, str], Any] | None = None,
    show: bool = True,
) -> Any:
    """A field. ``check(value, name, where)`` returns what to keep, ``describe(value, where)`` makes it JSON-able."""
    return dataclasses.field(default=default, repr=show, metadata={"check": check, "describe": describe})


def flag(default: bool) -> Any:
    """A field that is True or False."""
    return option(default, check_flag)


def fixed(value: Any) -> Any:
    """A field of the base class that this class does not offer as an option."""
    return dataclasses.field(default=value, init=False)


class Recipe:
    """The base of cells and layers: options, and no arrays."""

    kind: ClassVar[str]  # "cell" or "layer", the key of the class name in `config`
    default_name: ClassVar[str]
    name: str | None
    version: ClassVar[object] = object()  # another one after each change of any recipe, for what is kept about them

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        Recipe.version = object()

    def __init__(self, name: str | None = None) -> None:
        if name is not None:
            check_name(name, type(self).__name__)
        self.name = name

    def __post_init__(self) -> None:
        Recipe.__init__(self, self.name)
        for field in declared(self):
            if field.metadata.get("check"):
                value = field.metadata["check"](getattr(self, field.name), field.name, type(self).__name__)
                setattr(self, field.name, value)

    def config(self) -> dict[str, Any]:
        """Return every option as JSON-able values. A class of a user's own is named with its module.

        Raises ValueError for an activation or initializer without a registered name: it could not be read back.
        """
        where, options = f"{type(self).__name__}.config", {}
        for field in declared(self):
            value, describe = getattr(self, field.name), field.metadata.get("describe")
            options[field.metadata.get("key", field.name)] = describe(value, where) if describe else value
        return {self.kind: class_name(self), **(options or {"name": self.name})}

    def __repr__(self) -> str:
        shown = []
        for field in declared(self):
            value, default = getattr(self, field.name), self.default_name if field.name == "name" else field.default
            if not field.kw_only:
                shown.append(repr(value))
            elif field.repr and value not in (field.default, default):
                shown.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def declared(recipe: Recipe) -> list[dataclasses.Field[Any]]:
    """The options of a recipe; none for a user's own class that is not a dataclass."""
    return [field for field in dataclasses.fields(recipe) if field.init] if dataclasses.is_dataclass(recipe) else []


def class_name(part: Any) -> str:
    """The name of the class of minilstm that a model, layer or cell behaves as; for a user's own class, also a subclass
    that changes more than how it is made, its name with its module, which is none of minilstm's.
    """
    kind, known = type(part), next(kind for kind in type(part).__mro__ if kind.__module__.startswith("minilstm."))
    own = {name for own in kind.__mro__[: kind.__mro__.index(known)] for name in vars(own) if hasattr(known, name)}
    changed = any(name == "__call__" or not name.startswith("__") for name in own)
    options = [[field.name for field in dataclasses.fields(k)] for k in (kind, known) if dataclasses.is_dataclass(k)]
    if changed or options[1:] != options[:-1]:
        return f"{kind.__module__}.{kind.__qualname__}"
    return known.__name__


def describe_parts(value: Any, where: str) -> Any:
    """Describe a cell or layer inside another, or a list of them; ValueError for one without `config`."""
    if isinstance(value, list):
        return [describe_parts(part, where) for part in value]
    if not hasattr(value, "config"):
        raise ValueError(f"{where}: {type(value).__name__} has no config, so this cell or layer cannot be described")
    return value.config()


# --- checks ---------------------------------------------------------------------------------------------------


def check_optional_size(value: Any, name: str, where: str) -> int | None:
    """As `check_whole`, or None."""
    return None if value is None else check_whole(value, name, where)


def check_bound(value: Any, name: str, where: str) -> Any:
    """Return `value` if it is a positive finite number or None, else raise ValueError."""
    return None if value is None else check_number(value, name, where, above=0)


def check_finite(value: Any, name: str, where: str) -> float:
    """Return `value` as a float if it is a finite number, else raise ValueError."""
    return float(check_number(value, name, where))


def refuse_num_units(num_units: Any, where: str) -> None:
    """Raise a TypeError that names `units` if TensorFlow's word for it is given."""
    if num_units is not None:
        raise TypeError(f"{where}: num_units is called units here; write {where}({num_units})")
