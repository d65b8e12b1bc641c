"""What every format offers, and what the modules of the formats share.

A format is a module that has the names of `Format`. A file that can hold more than weights also holds the model's
description, under the names that checkpoints use, so that it can be read without further knowledge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..arguments import nearest
from ..checkpoint import EXTRA, MODEL, as_json, as_weight
from ..checkpoint.names import MOST_HELPED, arranged
from ..layers import Sequential, from_config
from ..optional import library
from ..params import flatten_names, set_path, unflatten_names
from ..reading import LIMITS, Limits, from_json
from .infer import Options, check_agrees, shapes_of
from .layout import Weights
from .shapes import Shape

DTYPES: tuple[str, ...] = ("float32", "float64", "float16")


class Loaded(NamedTuple):
    """What reading an exported file gives: the model, its parameters, and the `extra` that was saved with it."""

    model: Sequential
    params: dict[str, Any]
    extra: Any = None


class Format(Protocol):
    """The names that every format's module has; `minilstm.export.convert` uses no others.

    `SUFFIXES` are the ends of file names (none for a checkpoint, which is known by what is in it), `RUNTIME` is the
    library that runs what was saved, and `RUNS` are the dtypes in which it runs an LSTM.
    """

    SUFFIXES: tuple[str, ...]
    RUNTIME: str
    RUNS: tuple[str, ...]

    def save(self, path: str, model: Sequential, params: dict[str, Any], *, extra: Any = None) -> str:
        """Write a file; returns the lines of Python that open it."""

    def load(
        self, path: str, model: Sequential | None = None, *, options: Options | None = None, limits: Limits = LIMITS
    ) -> Loaded:
        """Read a file; `options` are what a file without a description does not tell of its model."""

    def mapping(self, model: Sequential) -> dict[str, list[str]]:
        """The paths of the weights in our tree, each with their names in the file, if those differ."""

    def opened(self, code: str) -> Callable[..., np.ndarray]:
        """The function that lines from `save` define, from array to array; ImportError without `RUNTIME`."""


# --- parameters -----------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A subtree of the parameters, and the arrays of a file that hold it.

    `path` is the subtree's path; `names` maps what the library calls an array to its name in the file; `own` converts
    the library's arrays to ours. `check` raises ValueError unless the arrays' shapes fit each other and the model.
    """

    path: str
    names: dict[str, str]
    own: Callable[[Weights], Weights]
    check: Callable[[dict[str, Shape], dict[str, str], str], None] | None = None


def names_of(places: list[Place]) -> dict[str, list[str]]:
    """What `Format.mapping` returns."""
    return {place.path: list(place.names.values()) for place in places}


def assembled(model: Sequential, places: list[Place], tensors: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The parameters of a model from the tensors of a file.

    Raises
    ------
    ValueError
        If a tensor is missing or has no place, or if shapes do not fit.
    """
    params: dict[str, Any] = {}
    for path, names, own, check in places:
        arrays = _taken(tensors, names, where)
        if check is not None:
            check(shapes_of(arrays), names, where)
        try:
            set_path(params, path, own(arrays))
        except (ValueError, IndexError) as error:
            shapes = {name: array.shape for name, array in arrays.items()}
            raise ValueError(f"{where}: {path!r} cannot have arrays of the shapes {shapes}: {error}") from error
    unused = tensors.keys() - {name for place in places for name in place.names.values()}
    if unused:
        raise ValueError(f"{where}: the model has no place for {', '.join(sorted(map(str, unused)))}")
    return checked_params(model, params, where)


def _taken(tensors: Mapping[str, Any], names: Mapping[str, str], where: str) -> dict[str, np.ndarray]:
    """``{key: tensors[name]}`` for every ``key: name``; ValueError naming all that is missing and what is near."""
    missing = [name for name in names.values() if name not in tensors]
    if missing:
        near = {close for name in missing[:MOST_HELPED] for close in nearest(name, tensors, n=2)}
        hint = f" (the file has {', '.join(sorted(near))})" if near else ""
        raise ValueError(f"{where}: the file has no {', '.join(missing)}{hint}")
    return {key: np.asarray(tensors[name]) for key, name in names.items()}


def checked_params(model: Sequential, params: dict[str, Any], where: str) -> dict[str, Any]:
    """`params` as C-contiguous NumPy arrays in the model's own order, of one floating dtype.

    Raises
    ------
    ValueError
        That lists everything missing, extra or of another shape, or more than one dtype.
    """
    check_model(model, where)
    flat = {name: as_weight(value, f"{where}: params: {name}") for name, value in flatten_names(params).items()}
    dtypes = sorted({str(value.dtype) for value in flat.values()})
    if len(dtypes) != 1 or dtypes[0] not in DTYPES:
        raise ValueError(f"{where}: all parameters must have one dtype of {DTYPES}, got {dtypes or 'no parameters'}")
    try:
        fitting = arranged(flat, model)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return unflatten_names({name: np.array(value, order="C") for name, value in fitting.items()})


# --- descriptions ---------------------------------------------------------------------------------------------


def described(model: Sequential, extra: Any) -> dict[str, str]:
    """The model's description and the caller's `extra` as JSON texts, under the names that checkpoints use."""
    texts = {MODEL: as_json(model.config(), "export: model")}
    return texts if extra is None else texts | {EXTRA: as_json(extra, "export: extra")}


def model_and_extra(
    texts: Mapping[str, Any],
    model: Sequential | None,
    where: str,
    infer: Callable[[Options], Sequential] | None = None,
    options: Options | None = None,
    hint: str = "give the model that the weights are for",
    limits: Limits = LIMITS,
) -> tuple[Sequential, Any]:
    """The model of a file and its `extra`.

    The model is the caller's, or else the one that the file describes, or else, with `options`, the one that `infer`
    finds.

    Raises
    ------
    ValueError
        If there is none of these, and `hint` says what to do; or if `options` contradict the model.
    """
    if model is not None:
        check_model(model, "load")
    if options is not None and not isinstance(options, Options):
        raise ValueError(f"load: options must be minilstm.export.infer.Options(...), got {options!r:.80}")
    if model is None and MODEL not in texts:
        if infer is None or options is None:
            raise ValueError(f"{where}: the file has no description of the model ({MODEL}); {hint}")
        model = infer(options)
    try:
        extra = from_json(texts[EXTRA], limits) if EXTRA in texts else None
        model = model or from_config(from_json(texts[MODEL], limits))
    except ValueError as error:
        raise ValueError(f"{where}: the file's description of the model is damaged: {error}") from error
    check_agrees(model, options or Options(), where)
    return model, extra


def check_model(model: Any, where: str) -> None:
    """Raise ValueError unless `model` is a Sequential."""
    if not isinstance(model, Sequential):
        raise ValueError(f"{where}: model must be a Sequential, got {model!r:.80}")


# --- lines ----------------------------------------------------------------------------------------------------


def run_lines(code: str, runtime: str) -> dict[str, Any]:
    """The variables that lines from `save` define, by running them; ImportError without the library that they need."""
    library(runtime, "running the exported model", f"pip install {runtime}")
    variables: dict[str, Any] = {}
    exec(compile(code, "<the exported model>", "exec"), variables)
    return variables
