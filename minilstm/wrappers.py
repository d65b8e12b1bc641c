"""Cells made of cells: MultiRNNCell, DropoutWrapper, ResidualWrapper.

    # Zaremba, Sutskever and Vinyals 2014 (arXiv 1409.2329): dropout on the non-recurrent connections alone
    MultiRNNCell([DropoutWrapper(BasicLSTMCell(200), output_keep_prob=0.5) for _ in range(2)])

Dropout masks are drawn once before the time loop, by `draw_masks`, and handed to each step; so every way of computing
gradients sees the same ones. Without masks nothing is dropped.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from .cells import Array, Cell, LSTMState
from .params import get_path, set_path, tree_map

Masks = Any  # a tree of arrays [time, batch, width], or of their rows [batch, width] at one step; None drops nothing


def draw_masks(cell: Any, rng: np.random.Generator, batch: int, time: int, dtype: Any, input_dim: int) -> Masks:
    """The masks of any cell, None for one that drops nothing; `input_dim` is passed to cells that ask for it."""
    draw = getattr(cell, "draw_masks", None)
    if draw is None:
        return None
    if "input_dim" in inspect.signature(draw).parameters:
        return draw(rng, batch, time, dtype, input_dim=input_dim)
    return draw(rng, batch, time, dtype)


def input_dim_of(cell: Any, params: dict[str, Any]) -> int | None:
    """The number of input features that a cell's parameters were made for; None where the cell cannot tell."""
    tell = getattr(cell, "input_dim", None)
    return None if tell is None else tell(params)


def innermost(cell: Any) -> list[Any]:
    """The cells that have weights: what is inside of wrappers and stacks."""
    if isinstance(cell, MultiRNNCell):
        return [part for inner in cell.cells for part in innermost(inner)]
    return innermost(cell.cell) if isinstance(cell, _Wrapper) else [cell]


def check_distinct(cells: Sequence[Any], where: str) -> None:
    """Raise ValueError where one cell object stands in two places."""
    found = [id(part) for cell in cells for part in innermost(cell)]
    if len(set(found)) != len(found):
        raise ValueError(
            f"{where}: one cell object stands in two places; its weights would be shared, which a parameter tree "
            "cannot hold. Make a new cell for each: [LSTMCell(8) for _ in range(2)]"
        )


def step_of(cell: Any, params: dict[str, Any], x_t: Array, state: Any, masks: Masks) -> tuple[Array, Any]:
    """One step of any cell; one without masks is not asked to take them."""
    return cell(params, x_t, state) if masks is None else cell(params, x_t, state, masks)


class _Wrapper(Cell):
    """A cell around another; its name, sizes and parameters are those of the inner cell."""

    def __init__(self, cell: Any) -> None:
        super().__init__(cell.name)
        self.cell = cell

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
        return input_dim_of(self.cell, params)

    def config(self) -> dict[str, Any]:
        return {"cell": type(self).__name__, "inner": self.cell.config()}


class DropoutWrapper(_Wrapper):
    """Dropout on a cell's input, output and state, as ``tf.compat.v1.nn.rnn_cell.DropoutWrapper``.

    A kept entry is scaled by ``1 / keep_prob``. State dropout acts on what is carried to the next step, never on the
    output, and never on the c of an LSTM: it would destroy what the cell remembers.

    Parameters
    ----------
    cell
        Any cell.
    input_keep_prob, output_keep_prob, state_keep_prob : float, default 1.0
        In (0, 1]; 1 drops nothing.
    variational_recurrent : bool, default False
        Draw one mask a sequence and use it at every step (Gal and Ghahramani 2016, arXiv 1512.05287). TensorFlow
        shares that mask between the sequences of a batch too; here each has its own, as in the paper.

    Raises
    ------
    ValueError
        For a probability outside (0, 1].
    """

    def __init__(
        self,
        cell: Any,
        *,
        input_keep_prob: float = 1.0,
        output_keep_prob: float = 1.0,
        state_keep_prob: float = 1.0,
        variational_recurrent: bool = False,
    ) -> None:
        super().__init__(cell)
        self.input_keep_prob = _check_keep("input_keep_prob", input_keep_prob)
        self.output_keep_prob = _check_keep("output_keep_prob", output_keep_prob)
        self.state_keep_prob = _check_keep("state_keep_prob", state_keep_prob)
        self.variational_recurrent = bool(variational_recurrent)

    def draw_masks(
        self, rng: np.random.Generator, batch: int, time: int, dtype: Any = np.float32, input_dim: int | None = None
    ) -> dict[str, Masks]:
        """Masks for a whole sequence: ``input``, ``output``, ``state`` and, for the inner cell, ``cell``.

        Raises ValueError if the input is dropped out and `input_dim` is not given.
        """

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
            "cell": draw_masks(self.cell, rng, batch, time, dtype, input_dim or 0),
        }

    def __call__(self, params: dict[str, Any], x_t: Array, state: Any, masks: Masks = None) -> tuple[Array, Any]:
        """One step of the inner cell between the masks of this step."""
        if masks is None:
            return self.cell(params, x_t, state)
        output, state = step_of(self.cell, params, _times(x_t, masks["input"]), state, masks["cell"])
        return _times(output, masks["output"]), times_state(state, masks["state"])

    def config(self) -> dict[str, Any]:
        """The options as JSON-able values, the inner cell's under "inner"."""
        names = ("input_keep_prob", "output_keep_prob", "state_keep_prob", "variational_recurrent")
        return {**super().config(), **{name: getattr(self, name) for name in names}}

    def __repr__(self) -> str:
        names = ("input_keep_prob", "output_keep_prob", "state_keep_prob")
        shown = [f"{name}={getattr(self, name)}" for name in names if getattr(self, name) != 1]
        shown += ["variational_recurrent=True"] if self.variational_recurrent else []
        return f"DropoutWrapper({', '.join([repr(self.cell), *shown])})"


class ResidualWrapper(_Wrapper):
    """Adds a cell's input to its output, as ``tf.compat.v1.nn.rnn_cell.ResidualWrapper``; widths must be equal."""

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """The inner cell's weights. Raises ValueError where `input_dim` is not the output's width."""
        if input_dim != self.output_size:
            raise ValueError(
                f"ResidualWrapper.init: input_dim must be the cell's output size {self.output_size}, got {input_dim}"
            )
        return super().init(seed, input_dim, dtype)

    def draw_masks(
        self, rng: np.random.Generator, batch: int, time: int, dtype: Any = np.float32, input_dim: int | None = None
    ) -> Masks:
        """The inner cell's masks."""
        return draw_masks(self.cell, rng, batch, time, dtype, input_dim or 0)

    def __call__(self, params: dict[str, Any], x_t: Array, state: Any, masks: Masks = None) -> tuple[Array, Any]:
        """One step of the inner cell, and x_t added to its output."""
        output, state = step_of(self.cell, params, x_t, state, masks)
        return output + x_t, state

    def __repr__(self) -> str:
        return f"ResidualWrapper({self.cell!r})"


class MultiRNNCell(Cell):
    """Cells on top of each other, as ``tf.compat.v1.nn.rnn_cell.MultiRNNCell``.

    The output of each is the input of the next; the state is the tuple of their states. Parameters lie under
    ``multi_rnn_cell/cell_0/<name>``, ``cell_1/<name>``, ...

    Raises
    ------
    ValueError
        Without cells, or with one cell object in two places: TensorFlow shares its weights then, which a parameter tree
        cannot say. Make a cell for each place.

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

    def __init__(self, cells: Sequence[Any], *, name: str | None = None) -> None:
        super().__init__(name)
        self.cells = list(cells)
        if not self.cells:
            raise ValueError("MultiRNNCell: at least one cell is wanted, got none")
        check_distinct(self.cells, "MultiRNNCell")

    @property
    def output_size(self) -> int:
        """That of the last cell."""
        return int(self.cells[-1].output_size)

    @property
    def state_size(self) -> tuple[Any, ...]:
        """The tuple of the cells' sizes."""
        return tuple(cell.state_size for cell in self.cells)

    def zero_state(self, batch: int, dtype: Any = np.float32) -> tuple[Any, ...]:
        """The tuple of the cells' states of zeros."""
        return tuple(cell.zero_state(batch, dtype) for cell in self.cells)

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """``cell_<n>/<name of cell n>/...`` for each cell."""
        rng = np.random.default_rng(seed)
        params: dict[str, Any] = {}
        for n, cell in enumerate(self.cells):
            set_path(params, f"cell_{n}/{cell.name}", cell.init(rng, input_dim, dtype))
            input_dim = cell.output_size
        return params

    def input_dim(self, params: dict[str, Any]) -> Any:
        """That of the first cell; None where it cannot tell."""
        return input_dim_of(self.cells[0], self.inner_params(params)[0])

    def inner_params(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Each cell's own part of the parameters."""
        return [get_path(params[f"cell_{n}"], cell.name) for n, cell in enumerate(self.cells)]

    def draw_masks(
        self, rng: np.random.Generator, batch: int, time: int, dtype: Any = np.float32, input_dim: int | None = None
    ) -> list[Masks] | None:
        """The list of the cells' masks, None where no cell drops anything."""
        widths = [input_dim or 0, *(cell.output_size for cell in self.cells)]
        masks = [
            draw_masks(cell, rng, batch, time, dtype, width)
            for cell, width in zip(self.cells, widths[:-1], strict=True)
        ]
        return None if all(mask is None for mask in masks) else masks

    def __call__(
        self, params: dict[str, Any], x_t: Array, state: Sequence[Any], masks: Masks = None
    ) -> tuple[Array, tuple[Any, ...]]:
        """One step of every cell, from the first to the last."""
        masks = [None] * len(self.cells) if masks is None else masks
        states = []
        for cell, weights, cell_state, mask in zip(self.cells, self.inner_params(params), state, masks, strict=True):
            x_t, cell_state = step_of(cell, weights, x_t, cell_state, mask)
            states.append(cell_state)
        return x_t, tuple(states)

    def config(self) -> dict[str, Any]:
        """The options as JSON-able values, those of the cells under "cells"."""
        return {**super().config(), "cells": [cell.config() for cell in self.cells]}

    def __repr__(self) -> str:
        return f"MultiRNNCell({self.cells!r})"


def masks_at(masks: Masks, t: int) -> Masks:
    """The rows of step t of every mask."""
    return None if masks is None else tree_map(lambda mask: mask[t], masks)


def times_state(state: Any, masks: Masks) -> Any:
    """A state times its masks, which are None where nothing is dropped."""
    if masks is None:
        return state
    if isinstance(state, (tuple, list)):
        parts = [times_state(part, mask) for part, mask in zip(state, masks, strict=True)]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    return _times(state, masks)


def _times(x: Array, mask: Array | None) -> Array:
    return x if mask is None else x * mask


def _map_state(function: Any, sizes: Any) -> Any:
    """`function` of every width in a state, but None for the c of an LSTM."""
    if isinstance(sizes, LSTMState):
        return LSTMState(None, function(sizes.h))
    if isinstance(sizes, (tuple, list)):
        return tuple(_map_state(function, size) for size in sizes)
    return function(sizes)


def _check_keep(name: str, keep: float) -> float:
    if not 0 < keep <= 1:
        raise ValueError(f"DropoutWrapper: {name} must lie in (0, 1], got {keep!r}")
    return float(keep)
