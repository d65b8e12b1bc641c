"""A caller's own changes of names: `rename`, of every name in a file, and `scope`, below which a model's names are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..arguments import MOST_COMPARED, nearest
from ..layers import Sequential
from ..tensorbundle import CheckpointError
from .names import MOST_HELPED, wanted_like
from .slots import slot_of

Rename = Mapping[str, str] | Callable[[str], str]


def renamed(names: Iterable[str], rename: Rename | None, where: str) -> dict[str, str]:
    """The new name of every name.

    Parameters
    ----------
    names : list of str
        The names in the file.
    rename : dict or function, optional
        A dict's entry for a variable counts for its slots, too.
    where : str
        The file; begins the message of a CheckpointError.

    Raises
    ------
    TypeError
        If `rename` is something else, or gives something else than a name.
    CheckpointError
        If a dict has a name that is not in the file, or two tensors would have one name.
    """
    names = list(names)
    if rename is None:
        return {name: name for name in names}
    if isinstance(rename, Mapping):
        absent = [name for name in rename if name not in names]
        if absent:
            near = nearest(str(absent[0]), names)
            there = f" (there is {', '.join(near)})" if near else ""
            raise CheckpointError(f"{where}: rename: the file has no tensor {absent[0]!r}{there}")
        new = {name: _by_dict(name, rename) for name in names}
    elif callable(rename):
        new = {name: rename(name) for name in names}
    else:
        raise TypeError(f"load_checkpoint: rename must be a dict of names or a function, got {rename!r}")
    taken: dict[str, str] = {}
    for name, other in new.items():
        if not isinstance(other, str) or not other:
            raise TypeError(f"load_checkpoint: rename must give a name for {name!r}, got {other!r}")
        if taken.setdefault(other, name) != name:
            raise CheckpointError(f"{where}: rename: {taken[other]!r} and {name!r} would both be {other!r}")
    return new


def _by_dict(name: str, rename: Mapping[str, str]) -> str:
    """A name, renamed as itself, or as a slot of a variable: in the variable's folder, or with a scope before it."""
    if name in rename:
        return rename[name]
    slot = slot_of(name)
    if slot is not None:
        before, variable = "", name.removesuffix(f"/{slot}")
        while variable:
            if variable in rename:
                return f"{before}{rename[variable]}/{slot}"
            first, _, variable = variable.partition("/")
            before += first + "/"
    return name


def checked_scope(scope: str | None) -> str:
    """A scope with a slash at its end, or nothing; TypeError or ValueError if it is no scope."""
    if scope is None:
        return ""
    if not isinstance(scope, str):
        raise TypeError(f"load_checkpoint: scope must be a str such as 'net', got {scope!r}")
    if not scope.rstrip("/"):
        raise ValueError(f"load_checkpoint: scope must be a name such as 'net', got {scope!r}")
    return scope.rstrip("/") + "/"


def suggestions(
    flat: dict[str, Any], like: Any, arrays: dict[str, Any], in_file: dict[str, str], scope: str
) -> list[str]:
    """What would make the arrays of a file fit, as lines for an error message; none if nothing is missing.

    Parameters
    ----------
    flat : dict
        The arrays that may be parameters, by their names below the scope.
    like : dict or Sequential
    arrays : dict
        All arrays of the file, by today's names.
    in_file : dict
        What the file calls each of `arrays`.
    scope : str
        With a slash at its end, or nothing.
    """
    import difflib  # only needed to help after a failure

    wanted = wanted_like(like, flat)
    missing = {name: array.shape for name, array in wanted.items() if name not in flat}
    if not missing:
        return []
    for other in _scopes(arrays, next(iter(missing))):
        if all(other + name in arrays for name in wanted):
            return [f"all of them are below a scope: try scope={other[:-1]!r}"]
    spare = [name for name in arrays if name.removeprefix(scope) not in wanted and slot_of(name) is None]
    fitting = {}
    for name, shape in list(missing.items())[:MOST_HELPED]:
        same = [other for other in spare if arrays[other].shape == shape]
        if not same and isinstance(like, Sequential) and len(shape) > 1:  # it may not know the number of its inputs
            same = [other for other in spare if arrays[other].shape[1:] == shape[1:]]
        same = same[:MOST_COMPARED]
        if same:
            best = max(same, key=lambda other: difflib.SequenceMatcher(None, name[-200:], other[-200:]).ratio())
            spare.remove(best)
            fitting[in_file[best]] = scope + name
    return [f"of such shapes, and perhaps the same: rename={fitting}"] if fitting else []


def _scopes(arrays: dict[str, Any], name: str) -> list[str]:
    """What comes before a name in the names of arrays, with the slash; no empty scope."""
    return sorted({other.removesuffix(name) for other in arrays if other.endswith("/" + name)}, key=len)
