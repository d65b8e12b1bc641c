"""RNN and LSTM: the layers that run a cell over time."""

from __future__ import annotations

import inspect
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from .. import cells, sequences
from ..arguments import as_generator
from ..arrays import as_floating, as_lengths
from ..options import class_name, describe_parts, flag, option
from ..params import set_path
from ..shapes import check_params, checked_state, features_of, params_dtype
from ..wrappers import check_cell, draw_masks
from . import recompute
from .base import (
    Array,
    Layer,
    Params,
    batch_major,
    check_features,
    pick_steps,
    required,
    reverse_time,
    time_major,
)  # fmt: skip
from .recompute import recompute_option

BACKPROPS = ("fast", "readable", "autograd")
OLD_WORDS = {"bptt": "fast", "reference": "readable"}  # accepted, and written by `config` for older versions


def _check_backprop(backprop: Any, name: str, where: str) -> str:
    word = OLD_WORDS.get(backprop, backprop) if isinstance(backprop, str) else backprop
    if not isinstance(word, str) or word not in BACKPROPS:
        raise ValueError(f"{where}: backprop must be one of {BACKPROPS}, got {backprop!r}")
    return word


def _old_word(backprop: str, where: str) -> str:
    return next((old for old, new in OLD_WORDS.items() if new == backprop), backprop)


@dataclass(eq=False, repr=False)
class RNN(Layer):
    """Run a cell over a sequence: TensorFlow's ``static_rnn`` and ``dynamic_rnn``.

    Parameters
    ----------
    cell : LSTMCell or any cell
    name : str, optional
        Replaces ``rnn`` in variable names.
    backprop : {"fast", "readable", "autograd"}, default "fast"
        "fast" uses the fastest hand-derived backward pass that the cell has, "readable" the one in `minilstm.bptt`,
        and both use autograd's trace for a cell without one; "autograd" always uses the trace. ``repr(layer)`` says
        which it is. The older words "bptt" for "fast" and "reference" for "readable" are accepted too.
    return_sequences : bool, default True
        Return the outputs of every step, or only that of each sequence's last step.
    reverse : bool, default False
        Run from the end of each sequence to its start; the output of step t is still at index t.
    time_major : bool, default False
        Inputs and outputs are ``[time, batch, features]``.
    learn_initial_state : bool, default False
        Add the parameters ``initial_state/c`` and ``initial_state/h``, used if no state is given; they start at 0.
    recompute : {None, "auto"} or int, default None
        For sequences whose steps do not fit in memory: keep only the states between segments of this many steps, and
        compute each segment again in the backward pass (`minilstm.layers.recompute`). "auto" is about the square root
        of the number of steps. The price is a second forward pass.

    Raises
    ------
    ValueError
        For an unknown `backprop` or a bad name.
    """

    default_name = "rnn"
    recurrent = True

    cell: Any = option(describe=describe_parts)
    _: KW_ONLY
    name: str | None = None
    backprop: str = option("fast", _check_backprop, _old_word)
    return_sequences: bool = flag(True)
    reverse: bool = flag(False)
    time_major: bool = flag(False)
    learn_initial_state: bool = flag(False)
    recompute: Any = recompute_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_cell(self.cell, "cell", type(self).__name__)
        if self.cell.name.split("/")[0] == "initial_state":
            raise ValueError(f"{type(self).__name__}: a cell may not be named initial_state, got {self.cell.name!r}")

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """Make the cell's parameters under the cell's name, and ``initial_state`` if it is learned."""
        params: dict[str, Any] = {}
        set_path(params, self.cell.name, self.cell.init(seed, input_dim, dtype))
        if self.learn_initial_state:
            params["initial_state"] = _state_as_params(self.cell.zero_state(1, dtype))
        return params

    def apply(
        self, params: Params, inputs: Array, state: Any = None, sequence_length: Any = None, rng: Any = None
    ) -> tuple[Array, Any]:
        """Run over a sequence.

        Parameters
        ----------
        params : dict
            What `init` made.
        inputs : array [batch, time, features] (``[time, batch, features]`` if time_major)
            Floating; converted to the parameters' dtype.
        state : pair (c, h), optional
            The state to start from. Default: the learned one, or zeros.
        sequence_length : integer array [batch], optional
            Past it outputs are 0 and the state stays as it is.
        rng : optional
            Given in training: a `DropoutWrapper` then drops out. Anything ``np.random.default_rng`` takes.

        Returns
        -------
        (outputs, state)
            outputs ``[batch, time, output_size]``, or ``[batch, output_size]`` without return_sequences.

        Raises
        ------
        ValueError
            If the shape or dtype of an argument does not fit; the message names the argument.
        """
        where = f"{type(self).__name__}.apply"
        layout = "[time, batch, features]" if self.time_major else "[batch, time, features]"
        cell_params = required(params, self.cell.name, where)
        inputs = as_floating(inputs, None, f"{where}: inputs")
        if inputs.ndim != 3:
            raise ValueError(f"{where}: inputs must be {layout}, got shape {inputs.shape}")
        features = features_of(self.cell, cell_params) or inputs.shape[-1]
        dtype = check_params(self, params, features, where)
        inputs = as_floating(inputs, dtype, f"{where}: inputs")
        check_features(inputs, features, where, layout)
        if not self.time_major:
            inputs = time_major(inputs)
        time, batch = inputs.shape[:2]
        lengths = as_lengths(sequence_length, batch, time, where)
        if state is None:
            state = self.initial_state(params, batch)
        else:
            state = checked_state(self.cell, state, batch, dtype, where)

        if self.reverse:
            inputs = reverse_time(inputs, lengths)
        masks = None
        if rng is not None and self.is_random:
            masks = draw_masks(self.cell, as_generator(rng, where, "rng"), batch, time, dtype, features)
        last = None
        if not self.return_sequences:
            last = np.full(batch, time - 1) if lengths is None else np.maximum(lengths, 1) - 1
        if self.recompute is not None:
            outputs, state = recompute.sequence(
                self._run, self.recompute, cell_params, inputs, state, lengths, masks, last
            )
        else:
            outputs, state = self._run(cell_params, inputs, state, lengths, masks)
        if last is not None:
            return (outputs if self.recompute is not None else pick_steps(outputs, last)), state
        if self.reverse:
            outputs = reverse_time(outputs, lengths)
        return (outputs if self.time_major else batch_major(outputs)), state

    def _run(self, cell_params: Params, inputs: Array, state: Any, lengths: Any, masks: Any) -> tuple[Array, Any]:
        """Run the cell over inputs ``[time, batch, features]``, with the pass that `backprop` names."""
        if self.backprop == "autograd":
            return sequences.traced(self.cell, cell_params, inputs, state, lengths, masks)
        return sequences.run(self.cell, cell_params, inputs, state, lengths, masks, fast=self.is_fast)

    @property
    def is_random(self) -> bool:  # type: ignore[override]
        """Whether the cell drops out: one that does has `draw_masks`."""
        return hasattr(self.cell, "draw_masks")

    @property
    def is_fast(self) -> bool:
        """Whether the fast pass may be used; also if `backprop` was set to its old word afterwards."""
        return OLD_WORDS.get(self.backprop, self.backprop) == "fast"

    @property
    def uses_derivation(self) -> bool:
        """Whether all gradients come from hand-derived passes."""
        return self.backprop != "autograd" and all(sequences.derived_parts(self.cell))

    def initial_state(self, params: dict[str, Any], batch: int) -> Any:
        """The state that a sequence starts from if none is given: the learned one, or zeros."""
        zeros = self.cell.zero_state(batch, params_dtype(params, np.float32, f"{type(self).__name__}.initial_state"))
        return _state_from_params(params["initial_state"], zeros) if self.learn_initial_state else zeros

    def output_dim(self, input_dim: int | None) -> int:
        """The cell's output size."""
        return int(self.cell.output_size)

    def config(self) -> dict[str, Any]:
        """Return every option as JSON-able values, the cell's under "cell"; an `LSTM` is described as its RNN."""
        config = {**super().config(), "layer": "RNN" if class_name(self) == "LSTM" else class_name(self)}
        if self.recompute is None:  # versions that do not know the option read all other models
            del config["recompute"]
        return config

    def __repr__(self) -> str:
        derived = [False] if self.backprop == "autograd" else sequences.derived_parts(self.cell)
        path = "hand-derived backpropagation" if all(derived) else "autograd's trace"
        if any(derived) and not all(derived):
            path = "hand-derived backpropagation for some cells, autograd's trace for the others"
        return f"{super().__repr__()} [{path}]"


class LSTM(RNN):
    """``RNN(LSTMCell(units, ...))`` in one. The options of `RNN`, `name` too, go to the layer, all others to the cell.

    Examples
    --------
    >>> import numpy as np
    >>> layer = LSTM(4, forget_bias=0.5, return_sequences=False)
    >>> params = layer.init(seed=0, input_dim=3)
    >>> layer(params, np.zeros((2, 7, 3), np.float32)).shape
    (2, 4)
    """

    def __init__(self, units: int | None = None, **options: Any) -> None:
        of_layer = {name: options.pop(name) for name in _parameters(RNN) if name in options}
        super().__init__(cells.LSTMCell(units, **options), **of_layer)


def _parameters(recipe: type) -> dict[str, inspect.Parameter]:
    """What a cell or layer takes by name."""
    found = inspect.signature(recipe).parameters
    return {name: parameter for name, parameter in found.items() if parameter.kind is parameter.KEYWORD_ONLY}


# What `help` shows for LSTM: all options, each still declared once.
LSTM.__init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD),
        inspect.Parameter("units", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None),
        *{**_parameters(cells.LSTMCell), **_parameters(RNN)}.values(),
    ]
)


def _state_as_params(state: Any) -> dict[str, Any]:
    """A state of batch 1 as parameters: ``c``, ``h`` for an LSTM, ``h`` for a plain state, ``cell_<n>`` for several."""
    if isinstance(state, cells.LSTMState):
        return {"c": state.c[0], "h": state.h[0]}
    if isinstance(state, (tuple, list)):
        return {f"cell_{n}": _state_as_params(part) for n, part in enumerate(state)}
    if isinstance(state, dict):
        return {name: _state_as_params(part) for name, part in state.items()}
    return {"h": state[0]}


def _state_from_params(params: dict[str, Any], zeros: Any) -> Any:
    """The learned state for every sequence of a batch, in the structure of `zeros`."""
    if isinstance(zeros, cells.LSTMState):
        return cells.LSTMState(zeros.c + params["c"], zeros.h + params["h"])
    if isinstance(zeros, (tuple, list)):
        return tuple(_state_from_params(params[f"cell_{n}"], part) for n, part in enumerate(zeros))
    if isinstance(zeros, dict):
        return {name: _state_from_params(params[name], part) for name, part in zeros.items()}
    return zeros + params["h"]
