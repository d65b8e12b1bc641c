"""The shapes that each library gives to the arrays of one LSTM, and the check that a file has them.

A file of another kind of layer can have the same names: a GRU in PyTorch has ``weight_ih_l0`` too, with three blocks of
rows instead of four. So the number of units is taken from the width of the recurrent array, and every array is then
compared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

Shape = tuple[int, ...]
RECURRENT = ("weight_hh", "recurrent_kernel", "R")  # the array whose sides are the gates and the output
LOOKS_LIKE = {3: "a GRU", 1: "a plain RNN"}  # number of blocks


class Sizes(NamedTuple):
    """The sizes of an LSTM cell, without the number of its input features."""

    units: int
    num_proj: int | None = None


def torch_shapes(sizes: Sizes, found: Mapping[str, Shape]) -> dict[str, Shape]:
    """What ``torch.nn.LSTM`` has; the number of input features is that of `found`."""
    rows = 4 * sizes.units
    shapes: dict[str, Shape] = {"weight_ih": (rows, _width(found["weight_ih"]))}
    shapes |= {"weight_hh": (rows, sizes.num_proj or sizes.units), "bias_ih": (rows,), "bias_hh": (rows,)}
    return shapes | ({"weight_hr": (sizes.num_proj, sizes.units)} if sizes.num_proj is not None else {})


def keras_shapes(sizes: Sizes, found: Mapping[str, Shape]) -> dict[str, Shape]:
    """What ``keras.layers.LSTM`` has."""
    columns, features = 4 * sizes.units, found["kernel"][0] if found["kernel"] else 0
    return {"kernel": (features, columns), "recurrent_kernel": (sizes.units, columns), "bias": (columns,)}


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


def check_lstm(
    library: Library, sizes: Sizes, found: Mapping[str, Shape], names: Mapping[str, str], where: str
) -> None:
    """Raise ValueError unless all arrays of an LSTM have the shapes that a library gives them.

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
            told = f"{where}: {names[key]} has shape {found[key]}, and an LSTM of {sizes.units} units wants {wanted}"
            raise ValueError(told + looks_like(found))


def looks_like(found: Mapping[str, Shape]) -> str:
    """What other layer has such a recurrent array: ``": 3 x 8 rows: a GRU"``, or nothing."""
    recurrent = next((found[key][-2:] for key in RECURRENT if key in found), ())
    if len(recurrent) == 2 and min(recurrent) > 0:
        blocks, rest = divmod(max(recurrent), min(recurrent))
        if not rest and blocks in LOOKS_LIKE:
            side = "rows" if "recurrent_kernel" not in found else "columns"
            return f": {blocks} x {min(recurrent)} {side}: {LOOKS_LIKE[blocks]}"
    return ""


def _width(shape: Shape) -> int:
    return shape[-1] if shape else 0
