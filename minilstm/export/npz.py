"""NumPy's ``.npz``: every parameter under its variable name, and the model's description as a text.

``np.load("model.npz")["rnn/lstm_cell/kernel"]`` is all it takes to read one.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import files, reading
from ..checkpoint import EXTRA, MODEL
from ..layers import Sequential
from ..params import flatten_names, unflatten_names
from ..reading import LIMITS, Limits
from .arrays import from_npy, unzipped, zipped
from .format import DTYPES, Loaded, checked_params, described, model_and_extra, run_lines
from .infer import Options, in_checkpoint, model_from, shapes_of

SUFFIXES: tuple[str, ...] = (".npz",)
RUNTIME = "numpy"
RUNS = DTYPES


def save(path: str | os.PathLike[str], model: Sequential, params: dict[str, Any], *, extra: Any = None) -> str:
    """Write a ``.npz`` file of any model; returns the lines of Python that open it.

    Raises ValueError for parameters that do not fit, or a model that holds functions without a registered name.
    """
    arrays = flatten_names(checked_params(model, params, "export.npz.save"))
    arrays |= {name: np.asarray(text) for name, text in described(model, extra).items()}
    files.write_bytes(path, zipped({f"{name}.npy": _npy(array) for name, array in arrays.items()}))
    return f"import numpy as np\n\narrays = np.load({os.fspath(path)!r})\n"


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


@reading.reader
def load(
    path: str | os.PathLike[str], model: Sequential | None = None, *, options: Options | None = None,
    limits: Limits = LIMITS,
) -> Loaded:  # fmt: skip
    """Read such a file.

    If there is no description in it, `model` says what the arrays are, or `options` what their names and shapes do not
    tell of the model. Raises ValueError if there is none of these, or if the file does not fit, is damaged or beyond
    `limits`.
    """
    return _loaded(read(path, limits), model, options, os.fspath(path), limits)


def _loaded(
    arrays: dict[str, np.ndarray],
    model: Sequential | None,
    options: Options | None,
    where: str,
    limits: Limits = LIMITS,
) -> Loaded:
    texts = {name: str(arrays.pop(name)) for name in (MODEL, EXTRA) if name in arrays}

    def infer(given: Options) -> Sequential:
        return model_from(in_checkpoint(shapes_of(arrays), where), given, where)

    model, extra = model_and_extra(texts, model, where, infer, options, limits=limits)
    return Loaded(model, checked_params(model, unflatten_names(arrays), where), extra)


@reading.reader
def read(path: str | os.PathLike[str], limits: Limits = LIMITS) -> dict[str, np.ndarray]:
    """Every array of the file by name, not to be written to; ValueError for a file of another kind."""
    contents = unzipped(reading.content(path, limits), limits)
    arrays = {}
    for name, data in contents.items():
        try:
            arrays[name.removesuffix(".npy")] = from_npy(data)
        except ValueError as error:
            raise ValueError(f"{name!r} is no whole array: {error}") from error
    return arrays


def mapping(model: Sequential) -> dict[str, list[str]]:
    """An empty dict: the names in the file are ours."""
    return {}


def opened(code: str) -> Callable[[np.ndarray], np.ndarray]:
    """The described model with the arrays of the lines that `save` returned: NumPy has no layers of its own."""
    with run_lines(code, RUNTIME)["arrays"] as arrays:
        model, params, _ = _loaded(dict(arrays), None, None, "export.npz.opened")
    return partial(model, params)
