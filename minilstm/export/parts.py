"""A model as a row of parts that other libraries have too: LSTMs and GRUs of one cell each, Dense, Embedding, Dropout.

A runner around a `MultiRNNCell` becomes one part a cell, named ``rnn/cell_0``, ``rnn/cell_1``, ...; a `DropoutWrapper`
becomes a Dropout before or after the cell it wraps. A `Bidirectional` is the part of its forward cell, which holds that
of its backward cell. What no library has is refused here; what one library lacks is refused by its own module. The
message always names the option.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from ..cells import BasicLSTMCell, LSTMCell, registered_name
from ..layers import RNN, Bidirectional, Dropout, Embedding, Sequential
from ..options import class_name
from ..params import get_path
from ..variants import GRUCell
from ..wrappers import DropoutWrapper, MultiRNNCell
from .shapes import Library, Sizes, check_cell

CELL_OPTIONS = {
    "LSTM": ("activation", "use_peepholes", "num_proj", "cell_clip", "proj_clip"),
    "GRU": ("activation", "reset_after"),
}


class Part(NamedTuple):
    """One layer as the other libraries see it.

    `layer` is an LSTMCell, GRUCell, Dense, Embedding or Dropout; `owner` is the layer of the model it comes from, and
    `path` the path of its weights in the parameter tree. The rest is for a cell: the runner it belongs to, the path of
    its learned initial state, if it has one, and of a `Bidirectional` the part that runs from end to start.
    """

    name: str
    layer: Any
    owner: str
    path: str = ""
    runner: RNN | None = None
    return_sequences: bool = True
    initial_state: str = ""
    backward: Any = None

    @property
    def is_cell(self) -> bool:
        """Whether the layer is a recurrent cell."""
        return isinstance(self.layer, (LSTMCell, GRUCell))

    @property
    def kind(self) -> str:
        """The class that Keras and PyTorch have for a cell, LSTM or GRU."""
        return "GRU" if isinstance(self.layer, GRUCell) else "LSTM"

    @property
    def directions(self) -> list[Any]:
        """The part itself, and after it the one that runs from end to start."""
        return [self] if self.backward is None else [self, self.backward]

    @property
    def sizes(self) -> Sizes:
        """The kind and sizes of a cell."""
        cell = self.layer
        return Sizes(cell.units, getattr(cell, "num_proj", None), self.kind, getattr(cell, "reset_after", True))

    def check(self, library: Library) -> Callable[[Any, Any, str], None] | None:
        """What compares the shapes of arrays in a file with the sizes of a cell; None for another layer."""
        return partial(check_cell, library, self.sizes) if self.is_cell else None

    def options(self) -> dict[str, Any]:
        """The options that some library may lack, with their values; for a cell also its runner's."""
        if not self.is_cell:
            return {}
        runner = ("reverse", "time_major", "learn_initial_state")
        own = {key: getattr(self.layer, key) for key in CELL_OPTIONS[self.kind]}
        return own | {key: getattr(self.runner, key) for key in runner}


def parts_of(model: Sequential, where: str, unsupported: Mapping[str, str] | None = None) -> list[Part]:
    """The parts of a model, in the order in which they act.

    Raises
    ------
    ValueError
        For a layer, cell or wrapper that has no counterpart, and for an option in `unsupported` (see `refuse`); `where`
        begins the message.
    """
    if not isinstance(model, Sequential) or class_name(model) != "Sequential":
        raise ValueError(f"{where}: model must be a Sequential, got {type(model).__name__}")
    parts: list[Part] = []
    for name, layer in zip(model.names, model.layers, strict=True):
        if isinstance(layer, RNN):
            parts += _runner_parts(name, layer, where, name)
        elif isinstance(layer, Bidirectional):
            parts.append(_bidirectional_part(name, layer, where))
        elif class_name(layer) in ("Dense", "Embedding", "Dropout"):
            parts.append(Part(name, layer, name, name))
        else:
            raise ValueError(f"{where}: {name!r} is a {type(layer).__name__}, which cannot be exported")
    check_distinct([part.name for part in parts], where)
    for part in parts:
        refuse(part, unsupported or {}, where)
    return parts


def check_distinct(names: list[str], where: str) -> None:
    """Raise ValueError if two layers would have the same name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{where}: two layers would both be called {twice[0]!r}; give one of them another name")


def _bidirectional_part(name: str, layer: Bidirectional, where: str) -> Part:
    """The part of the forward cell, which holds that of the backward cell; both must be bare cells of one kind."""
    both = []
    for folder, runner in (("fw", layer.forward), ("bw", layer.backward)):
        undirected = copy.copy(runner)
        undirected.reverse = False  # what runs backwards alone may be refused
        parts = _runner_parts(name, undirected, where, f"{name}/{folder}")
        if len(parts) != 1:
            used = f"a Bidirectional with a {type(runner.cell).__name__} in it"
            raise ValueError(f"{where}: {name!r} is {used}; only one bare cell in each direction can be exported")
        both.append(parts[0]._replace(name=name))
    forward, backward = both
    pairs: dict[str, list[Any]] = {"cell": [part.kind for part in both]}
    if forward.kind == backward.kind:
        kept = ("units", *CELL_OPTIONS[forward.kind])
        pairs = {key: [getattr(part.layer, key) for part in both] for key in kept}
    for option, (ours, other) in pairs.items():
        if ours != other:
            told = f"has {option}={ours!r} forward and {option}={other!r} backward"
            raise ValueError(f"{where}: {name!r} {told}; only one for both directions can be exported")
    return forward._replace(backward=backward)


def _runner_parts(name: str, runner: RNN, where: str, folder: str) -> list[Part]:
    """The parts of a runner whose weights are in `folder`."""
    if class_name(runner) not in ("RNN", "LSTM"):
        raise ValueError(f"{where}: {name!r} is a {type(runner).__name__}, which cannot be exported")
    learned = f"{folder}/initial_state" if runner.learn_initial_state else ""
    path = f"{folder}/{runner.cell.name}"
    if not isinstance(runner.cell, MultiRNNCell):
        return _cell_parts(Part(name, runner.cell, name, path, runner, runner.return_sequences, learned), where)
    parts = []
    for n, cell in enumerate(runner.cell.cells):
        last = n + 1 == len(runner.cell.cells)
        part = Part(
            f"{name}/cell_{n}", cell, name, f"{path}/cell_{n}/{cell.name}", runner,
            runner.return_sequences or not last, learned and f"{learned}/cell_{n}",
        )  # fmt: skip
        parts += _cell_parts(part, where)
    return parts


def _cell_parts(part: Part, where: str) -> list[Part]:
    """The innermost cell of `part`, between the Dropouts of its wrappers."""
    cell = part.layer
    if type(cell) in (LSTMCell, BasicLSTMCell, GRUCell):
        return [part]
    if type(cell) is not DropoutWrapper:
        raise ValueError(f"{where}: {part.name!r} is a {type(cell).__name__}, which cannot be exported")
    if cell.variational_recurrent or cell.state_keep_prob != 1:
        option = "variational_recurrent" if cell.variational_recurrent else "state_keep_prob"
        used = f"a DropoutWrapper with {option}={getattr(cell, option)}"
        raise ValueError(f"{where}: {part.name!r} has {used}; only input and output dropout can be exported")
    inner = _cell_parts(part._replace(layer=cell.cell), where)
    for side, keep in (("input", cell.input_keep_prob), ("output", cell.output_keep_prob)):
        if keep != 1:
            dropout = Part(_numbered(f"{part.name}/{side}_dropout", inner), Dropout(1 - keep), part.owner)
            inner.insert(0 if side == "input" else len(inner), dropout)
    return inner


def _numbered(name: str, parts: list[Part]) -> str:
    """`name`, with a number if a wrapper inside another has already taken it."""
    count = sum(part.name.startswith(name) for part in parts)
    return f"{name}_{count}" if count else name


def refuse(part: Part, unsupported: Mapping[str, str], where: str) -> None:
    """Raise ValueError if `part` uses an option that is a key of `unsupported`; the value says why it cannot.

    The key ``activation`` means any activation of a cell other than tanh; the keys ``GRUCell`` and ``Bidirectional``
    mean the part itself. In a reason, ``{layer}`` becomes LSTM or GRU.
    """
    used = {"GRUCell": part.is_cell and part.kind == "GRU", "Bidirectional": part.backward is not None}
    for name in (name for name, is_used in used.items() if is_used and name in unsupported):
        raise ValueError(f"{where}: {part.name!r} is a {name}, and {unsupported[name]}")
    for direction in part.directions:
        for option, value in direction.options().items():
            is_used = value != "tanh" if option == "activation" else value not in (None, False)
            if option in unsupported and is_used:
                reason = unsupported[option].format(layer=part.kind)
                raise ValueError(f"{where}: {part.name!r} has {option}={value!r}, and {reason}")


def activation_name(activation: Any, where: str) -> str:
    """The registered name of an activation, ``linear`` for None; ValueError for a function without a name."""
    return registered_name(activation, where) or "linear"


def weights_of(params: dict[str, Any], part: Part) -> dict[str, Any]:
    """The weights of a part, an empty dict if it has none."""
    return (get_path(params, part.path) or {}) if part.path else {}


def features_in(part: Part, weights: dict[str, Any]) -> int:
    """The number of features that go into a part with these weights; for an Embedding the number of rows."""
    if part.is_cell:
        return int(part.layer.input_dim(weights))
    return int(weights["embeddings" if isinstance(part.layer, Embedding) else "kernel"].shape[0])
