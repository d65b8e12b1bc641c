"""Cells made of cells: MultiRNNCell, DropoutWrapper, ResidualWrapper.

    # Zaremba, Sutskever and Vinyals 2014 (arXiv 1409.2329): dropout on the non-recurrent connections alone
    MultiRNNCell([DropoutWrapper(BasicLSTMCell(200), output_keep_prob=0.5) for _ in range(2)])

`draw_masks` draws the dropout masks of a whole sequence before the time loop, and each step gets its own; so every way
to compute gradients uses the same masks. Without masks nothing is dropped.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np

from .arguments import as_generator, check_has, check_number
from .arrays import as_floating
from .cells import Array, Cell, LSTMState
from .options import describe_parts, flag, option
from .params import get_path, set_path, tree_map
from .shapes import checked_call, features_of

Masks = Any  # a tree of arrays [time, batch, width], or of their rows [batch, width] at one step; None drops nothing


def draw_masks(
    cell: Any, rng: np.random.Generator, batch: int, time: int, dtype: Any, input_dim: int | None
) -> Masks:
    """The masks of any cell, or None if it drops nothing; `input_dim` is passed to cells that have this argument."""
    draw = getattr(cell, "draw_masks", None)
    if draw is None:
        return None
    if "input_dim" in inspect.signature(draw).parameters:
        return draw(rng, batch, time, dtype, input_dim=input_dim)
    return draw(rng, batch, time, dtype)


def innermost(cell: Any) -> list[Any]:
    """The cells with weights, inside wrappers and stacks."""
    if isinstance(cell, MultiRNNCell):
        return [part for inner in cell.cells for part in innermost(inner)]
    return innermost(cell.cell) if isinstance(cell, _Wrapper) else [cell]


def check_cell(cell: Any, name: str, where: str) -> Any:
    """Return `cell` if it is an object with what a cell has; raise ValueError for anything else, a layer or a class."""
    check_has(cell, "zero_state", name, where, "a cell such as LSTMCell(8)")
    return cell


def check_distinct(cells: Sequence[Any], where: str) -> None:
    """Raise ValueError if one cell object is in two places."""
    found = [id(part) for cell in cells for part in innermost(cell)]
    if len(set(found)) != len(found):
        raise ValueError(
            f"{where}: one cell object is in two places among the cells; its weights would be shared, "
            "which a parameter tree cannot hold. Make a new cell for each: [LSTMCell(8) for _ in range(2)]"
        )


def step_of(cell: Any, params: dict[str, Any], x_t: Array, state: Any, masks: Masks) -> tuple[Array, Any]:
    """One step of any cell; a cell without masks need not have the argument."""
    return cell(params, x_t, state) if masks is None else cell(params, x_t, state, masks)


@dataclass(eq=False, repr=False)
class _Wrapper(Cell):
    """A cell around another, with the name, sizes and parameters of the inner cell."""

    cell: Any = field(metadata={"key": "inner", "describe": describe_parts})

    def __post_init__(self) -> None:
        check_cell(self.cell, "cell", type(self).__name__)
        self.name = self.cell.name
        super().__post_init__()

    @property
    def output_size(self) -> int:
        return int(self.cell.output_size)

    @property
    def state_size(self) -> Any:
        return self.cell.state_size

    def zero_state(self, batch: int, dtype: Any = np.float32) -> Any:
        return self.cell.zero_state(batch, dtype)

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        return dict(self.cell.init(seed, input_dim, dtype))

    def input_dim(self, params: dict[str, Any]) -> Any:
        return features_of(self.cell, params)


def _check_keep(keep: Any, name: str, where: str) -> float:
    return float(check_number(keep, name, where, above=0, most=1))


@dataclass(eq=False, repr=False)
class DropoutWrapper(_Wrapper):
    """Dropout on a cell's input, output and state, as ``tf.compat.v1.nn.rnn_cell.DropoutWrapper``.

    A kept entry is scaled by ``1 / keep_prob``. State dropout acts on the state that is carried to the next step, never
    on the output, and never on the c of an LSTM: it would destroy what the cell remembers.

    Parameters
    ----------
    cell
        Any cell.
    input_keep_prob, output_keep_prob, state_keep_prob : float, default 1.0
        In (0, 1]; 1 drops nothing.
    variational_recurrent : bool, default False
        Draw one mask for each sequence and use it at every step (Gal and Ghahramani 2016, arXiv 1512.05287).
        TensorFlow shares one mask between all sequences of a batch; here each has its own, as in the paper.

    Raises
    ------
    ValueError
        For a probability outside (0, 1].
    """

    _: KW_ONLY
    input_keep_prob: float = option(1.0, _check_keep)
    output_keep_prob: float = option(1.0, _check_keep)
    state_keep_prob: float = option(1.0, _check_keep)
    variational_recurrent: bool = flag(False)

    def draw_masks(
        self, rng: np.random.Generator, batch: int, time: int, dtype: Any = np.float32, input_dim: int | None = None
    ) -> dict[str, Masks]:
        """Masks for a whole sequence: ``input``, ``output``, ``state`` and, for the inner cell, ``cell``.

        Raises ValueError if the input is dropped out and `input_dim` is not given.
        """
        rng = as_generator(rng, "DropoutWrapper.draw_masks", "rng")

        def mask(keep: float, width: int | None) -> np.ndarray | None:
            if keep == 1:
                return None
            if width is None:
                raise ValueError("DropoutWrapper.draw_masks: input_keep_prob below 1 needs input_dim")
            steps = 1 if self.variational_recurrent else time
            kept = rng.random((steps, batch, width)) < keep
            return np.ascontiguousarray(np.broadcast_to((kept / keep).astype(dtype), (time, batch, width)))

        return {
            "input": mask(self.input_keep_prob, input_dim),
            "output": mask(self.output_keep_prob, self.output_size),
            "state": _map_state(lambda width: mask(self.state_keep_prob, width), self.state_size),
            "cell": draw_masks(self.cell, rng, batch, time, dtype, input_dim),
        }

    def __call__(self, params: dict[str, Any], x_t: Array, state: Any, masks: Masks = None) -> tuple[Array, Any]:
        """One step of the inner cell between the masks of this step."""
        if masks is None:
            return self.cell(params, x_t, state)
        output, state = step_of(self.cell, params, _times(x_t, masks["input"]), state, masks["cell"])
        return _times(output, masks["output"]), times_state(state, masks["state"])


@dataclass(eq=False, repr=False)
class ResidualWrapper(_Wrapper):
    """Adds the input of a cell to its output, as ``tf.compat.v1.nn.rnn_cell.ResidualWrapper``; widths must be equal."""

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """The weights of the inner cell. Raises ValueError if `input_dim` is not the width of the output."""
        if input_dim != self.output_size:
            raise ValueError(
                f"ResidualWrapper.init: input_dim must be the cell's output size {self.output_size}, got {input_dim}"
            )
        return super().init(seed, input_dim, dtype)

    def draw_masks(
        self, rng: np.random.Generator, batch: int, time: int, dtype: Any = np.float32, input_dim: int | None = None
    ) -> Masks:
        """The inner cell's masks."""
        return draw_masks(self.cell, rng, batch, time, dtype, input_dim)

    def __call__(self, params: dict[str, Any], x_t: Array, state: Any, masks: Masks = None) -> tuple[Array, Any]:
        """One step of the inner cell, and x_t added to its output."""
        output, state = step_of(self.cell, params, x_t, state, masks)
        x_t = as_floating(x_t, output.dtype, "ResidualWrapper: x_t")
        if x_t.shape != output.shape:
            raise ValueError(f"ResidualWrapper: x_t must have the shape of the output {output.shape}, got {x_t.shape}")
        return output + x_t, state


@dataclass(eq=False, repr=False)
class MultiRNNCell(Cell):
    """Cells on top of each other, as ``tf.compat.v1.nn.rnn_cell.MultiRNNCell``.

    The output of each is the input of the next; the state is the tuple of their states. The names of parameters start
    with ``multi_rnn_cell/cell_0/<name>``, ``multi_rnn_cell/cell_1/<name>``, ...

    Raises
    ------
    ValueError
        Without cells, or with one cell object in two places: TensorFlow then shares its weights, which a parameter tree
        cannot express. Make a cell for each place.

    Examples
    --------
    >>> import numpy as np
    >>> from minilstm import LSTMCell
    >>> cell = MultiRNNCell([LSTMCell(4), LSTMCell(2)])
    >>> output, (first, second) = cell(cell.init(seed=0, input_dim=3), np.zeros((5, 3), np.float32), cell.zero_state(5))
    >>> first.c.shape, second.c.shape, output.shape
    ((5, 4), (5, 2), (5, 2))
    """

    default_name = "multi_rnn_cell"

    cells: Any = option(describe=describe_parts)
    _: KW_ONLY
    name: str | None = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.cells, (list, tuple)):
            raise ValueError(f"MultiRNNCell: cells must be a list of cells, got {self.cells!r:.80}")
        self.cells = [check_cell(cell, f"cells[{n}]", "MultiRNNCell") for n, cell in enumerate(self.cells)]
        if not self.cells:
            raise ValueError("MultiRNNCell: cells: at least one cell is wanted, got none")
        check_distinct(self.cells, "MultiRNNCell")

    @property
    def output_size(self) -> int:
        """The width of the last cell's output."""
        return int(self.cells[-1].output_size)

    @property
    def state_size(self) -> tuple[Any, ...]:
        """The tuple of the state sizes of the cells."""
        return tuple(cell.state_size for cell in self.cells)

    def zero_state(self, batch: int, dtype: Any = np.float32) -> tuple[Any, ...]:
        """The tuple of the zero states of the cells."""
        return tuple(cell.zero_state(batch, dtype) for cell in self.cells)

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """``cell_<n>/<name of cell n>/...`` for each cell."""
        rng = as_generator(seed, "MultiRNNCell.init")
        params: dict[str, Any] = {}
        for n, cell in enumerate(self.cells):
            set_path(params, f"cell_{n}/{cell.name}", cell.init(rng, input_dim, dtype))
            input_dim = cell.output_size
        return params

    def input_dim(self, params: dict[str, Any]) -> Any:
        """The input features of the first cell, or None if it cannot tell."""
        return features_of(self.cells[0], self.inner_params(params)[0])

    def inner_params(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """The parameters of each cell."""
        return [get_path(params[f"cell_{n}"], cell.name) for n, cell in enumerate(self.cells)]

    def draw_masks(
        self, rng: np.random.Generator, batch: int, time: int, dtype: Any = np.float32, input_dim: int | None = None
    ) -> list[Masks] | None:
        """The list of the masks of the cells, or None if no cell drops anything."""
        widths = [input_dim, *(cell.output_size for cell in self.cells)]
        masks = [
            draw_masks(cell, rng, batch, time, dtype, width)
            for cell, width in zip(self.cells, widths[:-1], strict=True)
        ]
        return None if all(mask is None for mask in masks) else masks

    def __call__(
        self, params: dict[str, Any], x_t: Array, state: Sequence[Any], masks: Masks = None
    ) -> tuple[Array, tuple[Any, ...]]:
        """One step of every cell, from the first to the last."""
        x_t, state = checked_call(self, params, x_t, state)
        masks = [None] * len(self.cells) if masks is None else masks
        states = []
        for cell, weights, cell_state, mask in zip(self.cells, self.inner_params(params), state, masks, strict=True):
            x_t, cell_state = step_of(cell, weights, x_t, cell_state, mask)
            states.append(cell_state)
        return x_t, tuple(states)


def masks_at(masks: Masks, t: int) -> Masks:
    """The rows of every mask for step t."""
    return None if masks is None else tree_map(lambda mask: mask[t], masks)


def times_state(state: Any, masks: Masks) -> Any:
    """A state times its masks; a mask of None drops nothing."""
    if masks is None:
        return state
    if isinstance(state, dict):
        return {name: times_state(part, masks[name]) for name, part in state.items()}
    if isinstance(state, (tuple, list)):
        parts = [times_state(part, mask) for part, mask in zip(state, masks, strict=True)]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    return _times(state, masks)


def _times(x: Array, mask: Array | None) -> Array:
    if mask is None:
        return x
    wanted, got = (part.shape if hasattr(part, "shape") else np.shape(part) for part in (x, mask))
    if wanted != got:
        raise ValueError(f"DropoutWrapper: masks must be those of one step, wanted shape {wanted}, got {got}")
    return x * mask


def _map_state(function: Any, sizes: Any) -> Any:
    """`function` of every width in a state, except the c of an LSTM, which gets None."""
    if isinstance(sizes, LSTMState):
        return LSTMState(None, function(sizes.h))
    if isinstance(sizes, dict):
        return {name: _map_state(function, size) for name, size in sizes.items()}
    if isinstance(sizes, (tuple, list)):
        return tuple(_map_state(function, size) for size in sizes)
    return function(sizes)
