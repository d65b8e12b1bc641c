"""A model from the names and shapes in a file that does not describe it: as far as they tell, and no further.

Names and shapes tell which layers there are, their sizes, peepholes and projections. They do not tell the forget bias,
activations or clips; those must be given. The order of layers is taken from numbered names (``rnn``, ``rnn_1``) or from
the one order of embeddings, then recurrent, then Dense layers in which their widths fit together; if two orders fit,
the model cannot be inferred. A UserWarning says the order that was taken, and what else is taken as it usually is.

The names of TensorFlow 1.x are known here. The other formats know their own names and pass a `Found` for each layer.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..cells import BasicLSTMCell, LSTMCell
from ..layers import RNN, Bidirectional, Dense, Embedding, Sequential
from ..layers.sequential import cells_of
from ..variants import GRUCell
from ..wrappers import MultiRNNCell, innermost
from .shapes import Shape, Sizes, check_cell, tensorflow_shapes

CELL_ARRAY = re.compile(
    r"(?P<layer>.+?)/(?:multi_rnn_cell/cell_(?P<depth>\d+)/)?(?P<cell>(?:basic_)?lstm_cell)"
    r"/(?P<array>kernel|bias|w_[a-z]_diag|projection/kernel)"
)
PEEPHOLES = ("w_f_diag", "w_i_diag", "w_o_diag")
OF_CELLS = ("forget_bias", "activation", "cell_clip", "proj_clip")  # the options of cells
MOST_ORDERS = 5040  # seven layers of one kind


class Options(NamedTuple):
    """What no file of weights tells; None if it is not known."""

    forget_bias: float | None = None
    activation: str | None = None
    dense_activation: str | None = None
    cell_clip: float | None = None
    proj_clip: float | None = None

    def without_forget_bias(self) -> Options:
        """The options for the file of a library that adds no forget bias at run time: 0 unless it is given."""
        return self._replace(forget_bias=self.forget_bias or 0.0)


class CellShape(NamedTuple):
    """A cell as its arrays show it; `reset_after` is None for an LSTM, and tells the two formulas of a GRU apart."""

    name: str
    input_dim: int
    units: int
    num_proj: int | None = None
    has_peepholes: bool = False
    reset_after: bool | None = None

    @property
    def output_size(self) -> int:
        """Width of the output."""
        return self.num_proj or self.units


class Found(NamedTuple):
    """A layer as its arrays show it; `cells` are the cells of a recurrent one, the first one first, each of which is
    there in both directions if `is_bidirectional`.
    """

    kind: str
    name: str
    width_in: int
    width_out: int
    cells: tuple[CellShape, ...] = ()
    is_bidirectional: bool = False


def cell_found(sizes: Sizes, input_dim: int) -> CellShape:
    """A cell of another library's file, which gives it no name."""
    if sizes.kind == "GRU":
        return CellShape(GRUCell.default_name, input_dim, sizes.units, reset_after=sizes.reset_after)
    return CellShape(LSTMCell.default_name, input_dim, sizes.units, sizes.num_proj)


def recurrent_found(
    name: str, cells: list[CellShape], where: str, backward: list[CellShape] | None = None
) -> Found:
    """A recurrent layer of these cells, in both directions if there are `backward` ones too.

    Raises ValueError if the output of one does not fit the input of the next, or the directions are of other sizes.
    """
    if backward and backward != cells:
        sizes = " and ".join(str([cell[1:] for cell in direction]) for direction in (cells, backward))
        raise ValueError(f"{where}: the two directions of {name} differ: {sizes}")
    copies = 2 if backward else 1
    for n, (below, above) in enumerate(itertools.pairwise(cells)):
        if copies * below.output_size != above.input_dim:
            widths = f"gives {copies * below.output_size} features, and cell {n + 1} takes {above.input_dim}"
            raise ValueError(f"{where}: cell {n} of {name} {widths}")
    return Found("recurrent", name, cells[0].input_dim, copies * cells[-1].output_size, tuple(cells), bool(backward))


def shapes_of(arrays: Mapping[str, Any]) -> dict[str, Shape]:
    """The shapes of arrays, by name."""
    return {name: np.shape(array) for name, array in arrays.items()}


def model_from(found: list[Found], options: Options, where: str, *, ordered: bool = False) -> Sequential:
    """The model of these layers.

    Parameters
    ----------
    found : list of Found
    options : Options
    where : str
        Begins every message.
    ordered : bool
        True if `found` is already in the order of the model.

    Raises
    ------
    ValueError
        If an option that the layers need is None, or their order cannot be told. The message says what to give.
    """
    if not found:
        raise ValueError(f"{where}: the file holds no layer that is known here")
    wanted = {"activation" for layer in found if layer.cells} | {"dense_activation" for x in found if x.kind == "dense"}
    wanted |= {"forget_bias" for layer in found for cell in layer.cells if cell.reset_after is None}
    unknown = [option for option in Options._fields if option in wanted and getattr(options, option) is None]
    missing = [f"--{option.replace('_', '-')}" for option in unknown]
    if missing:
        raise ValueError(
            f"{where}: the file has no description of the model, and weights alone do not tell {', '.join(missing)}; "
            f"give {'them' if len(missing) > 1 else 'it'}"
        )
    in_order = found if ordered else _in_order(found, where)
    names = ", ".join(layer.name for layer in in_order)
    warnings.warn(
        f"{where}: taken from names and shapes: the layers {names} in this order, every recurrent one from the first "
        "step to the last with all outputs, no masks; if the model is another, give load the model",
        UserWarning,
        stacklevel=4,
    )
    return Sequential(*(layer for one in in_order for layer in _layers(one, options)))


def check_agrees(model: Sequential, options: Options, where: str) -> None:
    """Raise ValueError if a flag contradicts the model that is used."""
    cells = [cell for layer in model.layers for outer in cells_of(layer) for cell in innermost(outer)]
    held = [(option, cell, option) for option in OF_CELLS for cell in cells]
    held += [("dense_activation", layer, "activation") for layer in model.layers if isinstance(layer, Dense)]
    for flag, holder, option in held:
        wanted = getattr(options, flag)
        actual = getattr(holder, option, wanted)
        if wanted is not None and (actual or "linear" if "activation" in option else actual) != wanted:
            raise ValueError(f"{where}: the model has {flag}={actual!r}, and the flag says {wanted!r}")


def _layers(found: Found, options: Options) -> list[Any]:
    """The layer of this description; of a stack in both directions one layer for each of its cells."""
    if found.kind == "embedding":
        return [Embedding(found.width_in, found.width_out, name=found.name)]
    if found.kind == "dense":
        activation = None if options.dense_activation == "linear" else options.dense_activation
        return [Dense(found.width_out, activation=activation, name=found.name)]
    cells = [_cell(shape, options) for shape in found.cells]
    if not found.is_bidirectional:
        return [RNN(cells[0] if len(cells) == 1 else MultiRNNCell(cells), name=found.name)]
    names = [found.name] if len(cells) == 1 else [f"{found.name}/cell_{n}" for n in range(len(cells))]
    return [Bidirectional(cell, name=name) for cell, name in zip(cells, names, strict=True)]


def _cell(shape: CellShape, options: Options) -> LSTMCell | GRUCell:
    if shape.reset_after is not None:
        return GRUCell(shape.units, activation=options.activation, reset_after=shape.reset_after, name=shape.name)
    known: dict[str, Any] = {"forget_bias": options.forget_bias, "activation": options.activation}
    is_plain = not shape.has_peepholes and shape.num_proj is None and options.cell_clip is None
    if shape.name == BasicLSTMCell.default_name and is_plain:
        return BasicLSTMCell(shape.units, **known)
    return LSTMCell(
        shape.units, **known, name=shape.name, use_peepholes=shape.has_peepholes, num_proj=shape.num_proj,
        cell_clip=options.cell_clip, proj_clip=options.proj_clip if shape.num_proj is not None else None,
    )  # fmt: skip


def _in_order(found: list[Found], where: str) -> list[Found]:
    """Embeddings, recurrent and Dense layers, each kind in the order that its names or widths tell."""
    kinds = ("embedding", "recurrent", "dense")
    orders = [_orders([layer for layer in found if layer.kind == kind]) for kind in kinds]
    fitting = []
    if math.prod(map(len, orders)) <= MOST_ORDERS:
        chains = (list(itertools.chain(*choice)) for choice in itertools.product(*orders))
        fitting = [chain for chain in chains if all(a.width_out == b.width_in for a, b in itertools.pairwise(chain))]
    if len(fitting) != 1:
        layers = ", ".join(f"{layer.name} ({layer.width_in} to {layer.width_out})" for layer in found)
        raise ValueError(
            f"{where}: names and widths leave {len(fitting)} orders of the layers {layers}; read the file in Python, "
            f"and give load the model"
        )
    return fitting[0]


def _orders(group: list[Found]) -> list[tuple[Found, ...]]:
    """The one order of names such as ``x``, ``x_1``, ``x_2``; of other names every order, up to one too many."""
    by_name = {layer.name: layer for layer in group}
    base = min(by_name, key=len, default="")
    names = [base, *(f"{base}_{k}" for k in range(1, len(group)))]
    if set(names) == set(by_name):
        return [tuple(by_name[name] for name in names)]
    if math.perm(len(group)) > MOST_ORDERS:  # not made: of 10,000 layers they would fill the memory
        return [tuple(group)] * (MOST_ORDERS + 1)
    return list(itertools.permutations(group))


# --- names and shapes -----------------------------------------------------------------------------------------


CellArrays = dict[tuple[int, str], dict[str, Shape]]  # depth and name of the cell -> array -> shape


def sorted_out(
    shapes: Mapping[str, Shape], cell_array: re.Pattern[str], separator: str
) -> tuple[dict[str, CellArrays], dict[str, dict[str, Shape]]]:
    """The arrays of a file's cells by layer and cell, and the arrays of its other layers by layer.

    `cell_array` matches the full name of an array of a cell. Its groups are ``layer``, ``depth``, ``array`` and
    ``cell``: the cell's name, or what else tells cells of one depth apart. Every other name is a layer, `separator` and
    an array.
    """
    cells: dict[str, CellArrays] = {}
    others: dict[str, dict[str, Shape]] = {}
    for name, shape in shapes.items():
        match = cell_array.fullmatch(name)
        if match:
            key = int(match["depth"] or 0), match["cell"] or ""
            cells.setdefault(match["layer"], {}).setdefault(key, {})[match["array"]] = shape
        else:
            layer, _, array = name.rpartition(separator)
            others.setdefault(layer, {})[array] = shape
    return cells, others


def in_checkpoint(shapes: Mapping[str, Shape], where: str) -> list[Found]:
    """The layers of a checkpoint with TensorFlow 1.x's names; ValueError for a name that belongs to no layer."""
    cells, others = sorted_out(shapes, CELL_ARRAY, "/")
    found = []
    for layer, arrays in cells.items():
        shown = [_cell_shape(name, arrays[depth, name], f"{where}: {layer}") for depth, name in sorted(arrays)]
        found.append(recurrent_found(layer, shown, where))
    return found + [dense_or_embedding(layer, arrays, where) for layer, arrays in others.items()]


def _cell_shape(name: str, arrays: dict[str, Shape], where: str) -> CellShape:
    if "kernel" not in arrays or "bias" not in arrays:
        raise ValueError(f"{where}: an LSTM cell needs kernel and bias, got {sorted(arrays)}")
    peepholes = {array for array in arrays if array.startswith("w_")}
    if peepholes and peepholes != set(PEEPHOLES):
        raise ValueError(f"{where}: an LSTM cell has no peepholes or {', '.join(PEEPHOLES)}, got {sorted(peepholes)}")
    num_proj = sum(arrays["projection/kernel"][1:]) if "projection/kernel" in arrays else None
    sizes = Sizes(sum(arrays["bias"]) // 4, num_proj)
    check_cell(tensorflow_shapes, sizes, arrays, {key: f"{name}/{key}" for key in arrays}, where)
    input_dim = arrays["kernel"][0] - (num_proj or sizes.units)
    if input_dim < 1:
        raise ValueError(f"{where}: {name}/kernel has {arrays['kernel'][0]} rows, too few for {sizes.units} units")
    return CellShape(name, input_dim, sizes.units, num_proj, bool(peepholes))


def dense_or_embedding(layer: str, arrays: Mapping[str, Shape], where: str) -> Found:
    """A layer with the array names of TensorFlow and Keras that is no LSTM."""
    in_a_cell = any(folder.endswith("_cell") for folder in layer.split("/"))  # one that is not known here
    if set(arrays) == {"kernel", "bias"} and len(arrays["kernel"]) == 2 and not in_a_cell:
        return Found("dense", layer, *arrays["kernel"])
    if set(arrays) == {"embeddings"} and len(arrays["embeddings"]) == 2:
        return Found("embedding", layer, *arrays["embeddings"])
    names = ", ".join(f"{layer}/{array} {shape}" for array, shape in arrays.items())
    raise ValueError(f"{where}: {names} is neither an LSTM cell, nor Dense, nor Embedding")
