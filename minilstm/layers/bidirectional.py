"""Bidirectional: one RNN from start to end, one from end to start, side by side."""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np

from ..arguments import as_generator
from ..options import describe_parts, option
from ..wrappers import check_cell, check_distinct
from .base import Array, Layer, Params, required
from .recurrent import RNN


@dataclass(eq=False, repr=False)
class Bidirectional(Layer):
    """Two RNNs over the same inputs, as TensorFlow's ``bidirectional_dynamic_rnn``.

    The outputs of the forward and the backward RNN are joined on the last dimension, step by step. The state is the
    pair (fw, bw).

    Parameters
    ----------
    forward, backward
        Cells, or `RNN` layers, whose options are kept (`reverse` and `name` are set here). `backward` defaults to
        another copy of `forward`: the same options, its own weights.
    name : str, optional
        Replaces ``bidirectional_rnn`` in variable names, which continue with ``fw/<cell>`` and ``bw/<cell>``.

    Raises
    ------
    ValueError
        If one RNN returns sequences and the other does not, or one is time-major and the other is not.
    """

    default_name = "bidirectional_rnn"
    recurrent = True

    forward: Any = option(describe=describe_parts)
    backward: Any = option(None, describe=describe_parts)
    _: KW_ONLY
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("forward", "backward"):
            part = getattr(self, name)
            if not isinstance(part, RNN) and not (name == "backward" and part is None):
                check_cell(part, name, "Bidirectional")
        if self.backward is not None:
            both = [part.cell if isinstance(part, RNN) else part for part in (self.forward, self.backward)]
            check_distinct(both, "Bidirectional")
        self.backward = _directed(self.forward if self.backward is None else self.backward, reverse=True)
        self.forward = _directed(self.forward, reverse=False)
        for name in ("return_sequences", "time_major"):
            if getattr(self.forward, name) != getattr(self.backward, name):
                raise ValueError(f"Bidirectional: {name} must be the same in both directions, forward and backward")

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """``fw/<cell>/...`` and ``bw/<cell>/...``."""
        rng = as_generator(seed, "Bidirectional.init")
        return {"fw": self.forward.init(rng, input_dim, dtype), "bw": self.backward.init(rng, input_dim, dtype)}

    def apply(
        self, params: Params, inputs: Array, state: Any = None, sequence_length: Any = None, rng: Any = None
    ) -> tuple[Array, tuple[Any, Any]]:
        """Outputs ``[batch, time, 2 * output_size]`` (without time where sequences are not returned), (fw, bw)."""
        if state is not None and (not isinstance(state, (tuple, list)) or len(state) != 2):
            raise ValueError(f"Bidirectional.apply: state must be a pair (fw, bw), got {state!r:.80}")
        fw_state, bw_state = (None, None) if state is None else state
        rng = None if rng is None else as_generator(rng, "Bidirectional.apply", "rng")
        fw = required(params, "fw", "Bidirectional.apply")
        bw = required(params, "bw", "Bidirectional.apply")
        fw_outputs, fw_state = self.forward.apply(fw, inputs, fw_state, sequence_length, rng)
        bw_outputs, bw_state = self.backward.apply(bw, inputs, bw_state, sequence_length, rng)
        return anp.concatenate([fw_outputs, bw_outputs], axis=-1), (fw_state, bw_state)

    @property
    def is_random(self) -> bool:  # type: ignore[override]
        """Whether a cell of either direction drops out."""
        return self.forward.is_random or self.backward.is_random

    def initial_state(self, params: dict[str, Any], batch: int) -> tuple[Any, Any]:
        """The pair of both directions' initial states."""
        fw, bw = (required(params, name, "Bidirectional.initial_state") for name in ("fw", "bw"))
        return self.forward.initial_state(fw, batch), self.backward.initial_state(bw, batch)

    def output_dim(self, input_dim: int | None) -> int:
        """The sum of both output sizes."""
        return int(self.forward.output_dim(input_dim) + self.backward.output_dim(input_dim))


def _directed(cell_or_layer: Any, reverse: bool) -> RNN:
    """An RNN in the given direction: around a cell, or a copy of a layer."""
    layer = copy.copy(cell_or_layer) if isinstance(cell_or_layer, RNN) else RNN(cell_or_layer)
    layer.reverse, layer.name = reverse, None
    return layer
