"""The layers of the HDF5 files of Keras before version 3, which name their weights such as ``lstm_1/kernel:0``.

Keras 1 had other equations and twelve arrays an LSTM; its files are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..layers import Sequential
from .hdf5 import Content
from .infer import Options
from .keras_layers import CELL_ARRAYS, DIRECTIONS
from .keras_rows import Row, inferred

ARRAY = re.compile(r"(?P<folder>.*/)?(?P<array>kernel|recurrent_kernel|bias|embeddings)(?:_\d+)?(?::0)?")
OF_KERAS_1 = re.compile(r".+_([WUb]|[WUb]_[a-z])(:0)?")
WITHOUT_WEIGHTS = re.compile(r"(dropout|input)(_layer)?(_\d+)?")  # what Keras calls such layers
HINT = "weights alone do not tell; read the file in Python, and give load the model"
SIGMOID = (2, 3)  # the version of Keras whose recurrent layers have it by default


def check_version(content: Content, where: str) -> None:
    """Raise ValueError for a file of Keras 1."""
    version = content.texts.get("keras_version", "1")
    is_old = any(OF_KERAS_1.fullmatch(name) for names in (content.layers or {}).values() for name in names)
    if version.startswith(("0.", "1.")) or (version == "1" and is_old):
        raise ValueError(f"{where}: a file of Keras {version}, wanted 2 or 3; Keras 2 opens it and can save it again")


def check_bare(content: Content, where: str) -> None:
    """Raise ValueError if a layer without weights is no Dropout and no input by its name, or for a second input."""
    inputs = [layer for layer in content.bare if layer.startswith("input")]
    if len(inputs) > 1:
        raise ValueError(f"{where}: there are {len(inputs)} inputs, so the layers are not in a row")
    for layer in content.bare:
        if not WITHOUT_WEIGHTS.fullmatch(layer):
            raise ValueError(f"{where}: {layer!r} is a layer without weights; what it does, {HINT}")


def rows_of(layers: Mapping[str, list[str]], where: str) -> dict[str, Row]:
    """The rows of the layers that have weights; ValueError for weights that no known layer has."""
    return {layer: _row(layer, names, where) for layer, names in layers.items() if names}


def _row(layer: str, names: list[str], where: str) -> Row:
    """Keras's names of the arrays of a layer. Those of a Bidirectional have the folder ``forward_...`` in their names,
    and the same number of arrays follows in ``backward_...``.
    """
    row, is_both = {}, len(names) == len(DIRECTIONS) * len(CELL_ARRAYS)
    for number, name in enumerate(names):
        match = ARRAY.fullmatch(name)
        direction = DIRECTIONS[number // len(CELL_ARRAYS)] if is_both else ""
        if match is None or (is_both and f"/{direction.partition('_')[0]}_" not in f"/{match['folder']}"):
            raise ValueError(f"{where}: layer {layer!r} has {name}, which is of no LSTM, GRU, Dense or Embedding")
        row[direction + match["array"]] = name
    if len(row) != len(names):
        raise ValueError(f"{where}: layer {layer!r} has the arrays {names}, some of which are the same twice")
    return row


def inferred_legacy(content: Content, rows: Mapping[str, Row], options: Options, where: str) -> Sequential:
    """The model of a file of weights alone.

    Raises ValueError for versions of Keras whose recurrent layers had another gate activation unless told otherwise.
    """
    version = content.texts.get("keras_version", "")
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < SIGMOID:
        default = "recurrent_activation='hard_sigmoid', wanted 'sigmoid'"
        raise ValueError(f"{where}: Keras {version or 'of unknown version'} may have {default}, {HINT}")
    return inferred(rows, content.arrays, options, where)
