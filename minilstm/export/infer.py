"""A model from the names and shapes in a file that does not describe it: as far as they tell, and no further.

Names and shapes tell which layers there are, their sizes, peepholes and projections. They do not tell the forget bias,
activations or clips; those are given, never assumed. The order of layers is taken from numbered names (``rnn``,
``rnn_1``) or from the one order in which their widths fit together; if there are two, there is no answer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..cells import BasicLSTMCell, LSTMCell
from ..layers import RNN, Dense, Embedding, Sequential
from ..wrappers import MultiRNNCell

Shapes = Mapping[str, tuple[int, ...]]
CELL_ARRAY = re.compile(
    r"(?P<layer>.+?)/(?:multi_rnn_cell/cell_(?P<depth>\d+)/)?(?P<cell>(?:basic_)?lstm_cell)"
    r"/(?P<array>kernel|bias|w_[ifo]_diag|projection/kernel)"
)
TORCH_ARRAY = re.compile(r"(?P<layer>.+)\.(?P<array>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(?P<depth>\d+)")
KERAS_ARRAY = re.compile(r"layers/(?P<layer>(?P<kind>lstm|dense|embedding)(?:_\d+)?)/(?:cell/)?vars/(?P<array>\d)")
MOST_ORDERS = 5040  # seven layers of one kind


class Options(NamedTuple):
    """What no file of weights tells; None where it is not known."""

    forget_bias: float | None = None
    activation: str | None = None
    dense_activation: str | None = None
    cell_clip: float | None = None
    proj_clip: float | None = None


class CellShape(NamedTuple):
    """An LSTM cell as its arrays show it."""

    name: str
    input_dim: int
    units: int
    num_proj: int | None = None
    peepholes: bool = False

    @property
    def output_size(self) -> int:
        """Width of the output."""
        return self.num_proj or self.units


class Found(NamedTuple):
    """A layer as its arrays show it; `cells` are an LSTM's, from below."""

    kind: str
    name: str
    width_in: int
    width_out: int
    cells: tuple[CellShape, ...] = ()


def model_from(found: list[Found], options: Options, where: str, *, ordered: bool = False) -> Sequential:
    """The model of these layers.

    Parameters
    ----------
    found : list of Found
    options : Options
    where : str
        Begins every message.
    ordered : bool
        Whether the layers are known to be in order.

    Raises
    ------
    ValueError
        If an option that the layers need is None, or their order cannot be told; it says what to give.
    """
    if not found:
        raise ValueError(f"{where}: the file holds no layer that is known here")
    needed = {"lstm": ("forget_bias", "activation"), "dense": ("dense_activation",), "embedding": ()}
    wanted = {option for layer in found for option in needed[layer.kind]}
    unknown = [option for option in Options._fields if option in wanted and getattr(options, option) is None]
    missing = [f"--{option.replace('_', '-')}" for option in unknown]
    if missing:
        raise ValueError(
            f"{where}: the file has no description of the model, and weights alone do not tell {', '.join(missing)}; "
            f"give {'them' if len(missing) > 1 else 'it'}"
        )
    return Sequential(*(_layer(layer, options) for layer in (found if ordered else _in_order(found, where))))


def _layer(found: Found, options: Options) -> Any:
    if found.kind == "embedding":
        return Embedding(found.width_in, found.width_out, name=found.name)
    if found.kind == "dense":
        activation = None if options.dense_activation == "linear" else options.dense_activation
        return Dense(found.width_out, activation=activation, name=found.name)
    cells = [_cell(shape, options) for shape in found.cells]
    return RNN(cells[0] if len(cells) == 1 else MultiRNNCell(cells), name=found.name)


def _cell(shape: CellShape, options: Options) -> LSTMCell:
    assert options.forget_bias is not None
    assert options.activation is not None
    plain = not shape.peepholes and shape.num_proj is None and options.cell_clip is None
    if shape.name == BasicLSTMCell.default_name and plain:
        return BasicLSTMCell(shape.units, forget_bias=options.forget_bias, activation=options.activation)
    return LSTMCell(
        shape.units, forget_bias=options.forget_bias, activation=options.activation, name=shape.name,
        use_peepholes=shape.peepholes, num_proj=shape.num_proj, cell_clip=options.cell_clip,
        proj_clip=options.proj_clip if shape.num_proj is not None else None,
    )  # fmt: skip


def _in_order(found: list[Found], where: str) -> list[Found]:
    """Embeddings, LSTMs and Dense layers, each kind in the order its names or widths tell."""
    groups = [[layer for layer in found if layer.kind == kind] for kind in ("embedding", "lstm", "dense")]
    orders: list[list[tuple[Found, ...]]] = []
    total = 1
    for group in groups:
        numbered = _numbered(group)
        choices = [numbered] if numbered else list(itertools.islice(itertools.permutations(group), MOST_ORDERS + 1))
        orders.append(choices)
        total *= len(choices)
    fitting = []
    if total <= MOST_ORDERS:
        chains = (list(itertools.chain(*choice)) for choice in itertools.product(*orders))
        fitting = [chain for chain in chains if all(a.width_out == b.width_in for a, b in itertools.pairwise(chain))]
    if len(fitting) != 1:
        layers = ", ".join(f"{layer.name} ({layer.width_in} to {layer.width_out})" for layer in found)
        raise ValueError(
            f"{where}: names and widths leave {len(fitting)} orders of the layers {layers}; read the file in Python, "
            f"where load takes the model"
        )
    return fitting[0]


def _numbered(group: list[Found]) -> tuple[Found, ...]:
    """The layers in the order of their numbers, or nothing where names are not ``x``, ``x_1``, ``x_2``, ..."""
    by_name = {layer.name: layer for layer in group}
    base = min(by_name, key=len, default="")
    names = [base, *(f"{base}_{k}" for k in range(1, len(group)))]
    return tuple(by_name[name] for name in names) if set(names) == set(by_name) else ()


# --- what each kind of file shows -----------------------------------------------------------------------------


def in_checkpoint(shapes: Shapes, where: str) -> list[Found]:
    """The layers of a checkpoint with TensorFlow 1.x's names; ValueError for a name that belongs to none of them."""
    cells: dict[str, dict[int, dict[str, Any]]] = {}
    others: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        match = CELL_ARRAY.fullmatch(name)
        if match:
            cell = cells.setdefault(match["layer"], {}).setdefault(int(match["depth"] or 0), {"name": match["cell"]})
            cell[match["array"]] = shape
        else:
            layer, _, array = name.rpartition("/")
            others.setdefault(layer, {})[array] = shape
    found = []
    for layer, by_depth in cells.items():
        shown = [_checkpoint_cell(by_depth[depth], f"{where}: {layer}") for depth in sorted(by_depth)]
        found.append(Found("lstm", layer, shown[0].input_dim, shown[-1].output_size, tuple(shown)))
    return found + [_other(layer, arrays, where) for layer, arrays in others.items()]


def _checkpoint_cell(arrays: dict[str, Any], where: str) -> CellShape:
    if "kernel" not in arrays or "bias" not in arrays:
        raise ValueError(f"{where}: an LSTM cell needs kernel and bias, got {sorted(set(arrays) - {'name'})}")
    units = arrays["bias"][0] // 4
    num_proj = arrays["projection/kernel"][1] if "projection/kernel" in arrays else None
    return CellShape(arrays["name"], arrays["kernel"][0] - (num_proj or units), units, num_proj, "w_i_diag" in arrays)


def _other(layer: str, arrays: dict[str, tuple[int, ...]], where: str) -> Found:
    """A Dense or an Embedding."""
    in_a_cell = any(folder.endswith("_cell") for folder in layer.split("/"))  # one that is not known here
    if set(arrays) == {"kernel", "bias"} and len(arrays["kernel"]) == 2 and not in_a_cell:
        return Found("dense", layer, *arrays["kernel"])
    if set(arrays) == {"embeddings"} and len(arrays["embeddings"]) == 2:
        return Found("embedding", layer, *arrays["embeddings"])
    names = ", ".join(f"{layer}/{array} {shape}" for array, shape in arrays.items())
    raise ValueError(f"{where}: {names} is neither an LSTM cell, nor Dense, nor Embedding")


def in_state_dict(shapes: Shapes, where: str) -> list[Found]:
    """The modules of a PyTorch state dict: LSTM, Linear, Embedding; ValueError for a name that belongs to none."""
    stacks: dict[str, dict[int, dict[str, tuple[int, ...]]]] = {}
    others: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        match = TORCH_ARRAY.fullmatch(name)
        if match:
            stacks.setdefault(match["layer"], {}).setdefault(int(match["depth"]), {})[match["array"]] = shape
        else:
            layer, _, array = name.rpartition(".")
            others.setdefault(layer, {})[array] = shape
    found = []
    for layer, by_depth in stacks.items():
        cells = []
        for depth in sorted(by_depth):
            arrays = by_depth[depth]
            if not {"weight_ih", "weight_hh", "bias_ih", "bias_hh"} <= set(arrays):
                raise ValueError(f"{where}: {layer} has {sorted(arrays)}; an LSTM needs both weights and both biases")
            num_proj = arrays["weight_hr"][0] if "weight_hr" in arrays else None
            units = arrays["weight_ih"][0] // 4
            cells.append(CellShape("lstm_cell", arrays["weight_ih"][1], units, num_proj))
        found.append(Found("lstm", layer, cells[0].input_dim, cells[-1].output_size, tuple(cells)))
    for layer, arrays in others.items():
        if set(arrays) == {"weight", "bias"} and len(arrays["weight"]) == 2:
            found.append(Found("dense", layer, arrays["weight"][1], arrays["weight"][0]))
        elif set(arrays) == {"weight"} and len(arrays["weight"]) == 2 and "emb" in layer.lower():
            found.append(Found("embedding", layer, *arrays["weight"]))
        else:
            raise ValueError(
                f"{where}: {layer} has {sorted(arrays)}, which is no LSTM, no Linear with a bias and not "
                f"called an embedding"
            )
    return found


def in_keras_layers(layers: Mapping[str, Mapping[str, tuple[int, ...]]], where: str) -> list[Found]:
    """Keras layers, each with its arrays' shapes by their Keras names."""
    found = []
    for name, arrays in layers.items():
        if set(arrays) == {"kernel", "recurrent_kernel", "bias"}:
            cell = CellShape("lstm_cell", arrays["kernel"][0], arrays["recurrent_kernel"][0])
            found.append(Found("lstm", name, cell.input_dim, cell.units, (cell,)))
        else:
            found.append(_other(name, dict(arrays), where))
    return found


def in_weights_h5(shapes: Shapes, where: str) -> list[Found]:
    """The layers of a ``.weights.h5`` file; ValueError for a name that belongs to none."""
    names = {"lstm": ("kernel", "recurrent_kernel", "bias"), "dense": ("kernel", "bias"), "embedding": ("embeddings",)}
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        match = KERAS_ARRAY.fullmatch(name)
        if not match or int(match["array"]) >= len(names[match["kind"]]):
            raise ValueError(f"{where}: {name} {shape} belongs to no LSTM, Dense or Embedding")
        layers.setdefault(match["layer"], {})[names[match["kind"]][int(match["array"])]] = shape
    return in_keras_layers(layers, where)
