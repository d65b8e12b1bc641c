"""The shapes that each library gives to the arrays of one LSTM or GRU, and the check that a file has them.

Layers of different kinds can have the same names: a GRU in PyTorch has ``weight_ih_l0`` too, with three blocks of rows
instead of four. So the number of units is taken from the width of the recurrent array, and every array is then compared
with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

Shape = tuple[int, ...]
RECURRENT = ("weight_hh", "recurrent_kernel", "R")  # the array whose sides are the gates and the output
BLOCKS = {"LSTM": 4, "GRU": 3}  # of rows or columns: the gates, and what is new
LOOKS_LIKE = {4: "an LSTM", 3: "a GRU", 1: "a plain RNN"}  # number of blocks


class Sizes(NamedTuple):
    """The kind and the sizes of a cell, without the number of its input features."""

    units: int
    num_proj: int | None = None
    kind: str = "LSTM"
    reset_after: bool = True  # of a GRU

    @property
    def columns(self) -> int:
        """How many columns, or rows in PyTorch, all blocks have together."""
        return BLOCKS[self.kind] * self.units


def kind_by(recurrent: Shape) -> str:
    """GRU if a recurrent array without a projection is three times as long as it is wide, else LSTM."""
    return "GRU" if len(recurrent) == 2 and max(recurrent) == BLOCKS["GRU"] * min(recurrent) > 0 else "LSTM"


def torch_shapes(sizes: Sizes, found: Mapping[str, Shape]) -> dict[str, Shape]:
    """What ``torch.nn.LSTM`` or ``GRU`` has; the number of input features is that of `found`."""
    rows = sizes.columns
    shapes: dict[str, Shape] = {"weight_ih": (rows, _width(found["weight_ih"]))}
    shapes |= {"weight_hh": (rows, sizes.num_proj or sizes.units), "bias_ih": (rows,), "bias_hh": (rows,)}
    return shapes | ({"weight_hr": (sizes.num_proj, sizes.units)} if sizes.num_proj is not None else {})


def keras_shapes(sizes: Sizes, found: Mapping[str, Shape]) -> dict[str, Shape]:
    """What ``keras.layers.LSTM`` or ``GRU`` has; a GRU with `reset_after` has two biases in one array."""
    columns, features = sizes.columns, found["kernel"][0] if found["kernel"] else 0
    bias = (2, columns) if sizes.kind == "GRU" and sizes.reset_after else (columns,)
    return {"kernel": (features, columns), "recurrent_kernel": (sizes.units, columns), "bias": bias}


def onnx_shapes(sizes: Sizes, found: Mapping[str, Shape]) -> dict[str, Shape]:
    """What an ONNX LSTM of one direction has."""
    rows = 4 * sizes.units
    shapes = {"W": (1, rows, _width(found["W"])), "R": (1, rows, sizes.units), "B": (1, 2 * rows)}
    return shapes | ({"P": (1, 3 * sizes.units)} if "P" in found else {})


def tensorflow_shapes(sizes: Sizes, found: Mapping[str, Shape]) -> dict[str, Shape]:
    """What TensorFlow 1.x and minilstm have: one kernel for input and previous output."""
    rows = found["kernel"][0] if found["kernel"] else 0
    shapes: dict[str, Shape] = {"kernel": (rows, 4 * sizes.units), "bias": (4 * sizes.units,)}
    shapes |= {name: (sizes.units,) for name in found if name.startswith("w_")}
    return shapes | ({"projection/kernel": (sizes.units, sizes.num_proj)} if sizes.num_proj is not None else {})


Library = Callable[[Sizes, Mapping[str, Shape]], dict[str, Shape]]


def check_cell(
    library: Library, sizes: Sizes, found: Mapping[str, Shape], names: Mapping[str, str], where: str
) -> None:
    """Raise ValueError unless all arrays of a cell have the shapes that a library gives them.

    Parameters
    ----------
    library : callable
        One of the functions above.
    sizes : Sizes
    found : dict
        The shapes by what the library calls the arrays.
    names : dict
        The arrays' names in the file, for the message, which also says what other layer they look like.
    where : str
        Begins the message.
    """
    for key, wanted in library(sizes, found).items():
        if found[key] != wanted:
            kind = LOOKS_LIKE[BLOCKS[sizes.kind]]
            told = f"{where}: {names[key]} has shape {found[key]}, and {kind} of {sizes.units} units wants {wanted}"
            raise ValueError(told + looks_like(found, sizes.kind))


def looks_like(found: Mapping[str, Shape], kind: str = "LSTM") -> str:
    """What layer of another kind has such a recurrent array: ``": 3 x 8 rows: a GRU"``, or nothing."""
    recurrent = next((found[key][-2:] for key in RECURRENT if key in found), ())
    if len(recurrent) == 2 and min(recurrent) > 0:
        blocks, rest = divmod(max(recurrent), min(recurrent))
        if not rest and blocks in LOOKS_LIKE and blocks != BLOCKS[kind]:
            side = "rows" if "recurrent_kernel" not in found else "columns"
            return f": {blocks} x {min(recurrent)} {side}: {LOOKS_LIKE[blocks]}"
    return ""


def _width(shape: Shape) -> int:
    return shape[-1] if shape else 0
