"""NumPy's ``.npz``: every parameter under its variable name, and the model's description as a text.

``np.load("model.npz")["rnn/lstm_cell/kernel"]`` is all it takes to read one.
"""

from __future__ import annotations

import io
import os
import zipfile
from typing import Any

import numpy as np

from .. import files
from ..layers import Sequential
from ..params import flatten_names, unflatten_names
from .parts import EXTRA, MODEL, ZIP_FAULTS, Loaded, checked_params, described, model_and_extra

EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of every file in the zip: the same model gives the same bytes


def save(path: str | os.PathLike[str], model: Sequential, params: dict[str, Any], *, extra: Any = None) -> str:
    """Write a ``.npz`` file of any model; returns the lines of Python that open it.

    Raises ValueError for parameters that do not fit, or a model that holds functions without a registered name.
    """
    params = checked_params(model, params, "export.npz.save")
    texts = {name: np.asarray(text) for name, text in described(model, extra).items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in {**flatten_names(params), **texts}.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", EPOCH), content.getvalue())
    files.write_bytes(path, buffer.getvalue())
    return f"import numpy as np\n\narrays = np.load({os.fspath(path)!r})\n"


def load(path: str | os.PathLike[str], model: Sequential | None = None) -> Loaded:
    """Read such a file; without a description in it, `model` says what the arrays are.

    Raises ValueError without a model, or where the file does not fit it.
    """
    where = f"export.npz.load: {os.fspath(path)}"
    arrays = read(path)
    texts = {name: str(arrays.pop(name)) for name in (MODEL, EXTRA) if name in arrays}
    model, extra = model_and_extra(texts, model, where, "give the model that the weights are for")
    return Loaded(model, checked_params(model, unflatten_names(arrays), where), extra)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Every array of the file by name; ValueError for a file that is not one."""
    with open(path, "rb") as file:  # read whole: a damaged offset is then no error of the operating system
        content = io.BytesIO(file.read())
    try:
        with np.load(content, allow_pickle=False) as arrays:
            return dict(arrays)
    except (*ZIP_FAULTS, ValueError, TypeError) as error:
        raise ValueError(f"export.npz: {os.fspath(path)} is no whole .npz file: {error}") from error
