"""Bidirectional: one RNN from start to end, one from end to start, side by side."""

from __future__ import annotations

from typing import Any

import autograd.numpy as anp
import numpy as np

from ..wrappers import check_distinct
from .base import Array, Layer, required
from .recurrent import RNN


class Bidirectional(Layer):
    """Two RNNs over the same inputs, as TensorFlow's ``bidirectional_dynamic_rnn``.

    Outputs are those of the forward and of the backward RNN joined on the last dimension; each stands at the step it
    belongs to. The state is the pair (fw, bw).

    Parameters
    ----------
    forward, backward
        Cells, or `RNN` layers whose options are then kept (`reverse` is set here). `backward` defaults to another
        copy of `forward`: same options, weights of its own.
    name : str, optional
        Replaces ``bidirectional_rnn`` in variable names; below it lie ``fw/<cell>`` and ``bw/<cell>``.

    Raises
    ------
    ValueError
        If one RNN returns sequences and the other does not, or one is time-major and the other is not.
    """

    default_name = "bidirectional_rnn"
    recurrent = True

    def __init__(self, forward: Any, backward: Any = None, *, name: str | None = None) -> None:
        super().__init__(name)
        if backward is not None:
            both = [part.cell if isinstance(part, RNN) else part for part in (forward, backward)]
            check_distinct(both, "Bidirectional")
        self.forward = _directed(forward, reverse=False)
        self.backward = _directed(forward if backward is None else backward, reverse=True)
        for option in ("return_sequences", "time_major"):
            if getattr(self.forward, option) != getattr(self.backward, option):
                raise ValueError(f"Bidirectional: {option} must be the same in both directions")

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """``fw/<cell>/...`` and ``bw/<cell>/...``."""
        rng = np.random.default_rng(seed)
        return {"fw": self.forward.init(rng, input_dim, dtype), "bw": self.backward.init(rng, input_dim, dtype)}

    def apply(
        self,
        params: dict[str, Any],
        inputs: Array,
        state: Any = None,
        sequence_length: Array | None = None,
        rng: Any = None,
    ) -> tuple[Array, tuple[Any, Any]]:
        """Outputs ``[batch, time, 2 * output_size]`` (without time where sequences are not returned), (fw, bw)."""
        fw_state, bw_state = (None, None) if state is None else state
        rng = None if rng is None else np.random.default_rng(rng)
        fw = required(params, "fw", "Bidirectional.apply")
        bw = required(params, "bw", "Bidirectional.apply")
        fw_outputs, fw_state = self.forward.apply(fw, inputs, fw_state, sequence_length, rng)
        bw_outputs, bw_state = self.backward.apply(bw, inputs, bw_state, sequence_length, rng)
        return anp.concatenate([fw_outputs, bw_outputs], axis=-1), (fw_state, bw_state)

    def initial_state(self, params: dict[str, Any], batch: int) -> tuple[Any, Any]:
        """The pair of both directions' initial states."""
        return self.forward.initial_state(params["fw"], batch), self.backward.initial_state(params["bw"], batch)

    def output_dim(self, input_dim: int | None) -> int:
        """The sum of both output sizes."""
        return self.forward.output_dim(input_dim) + self.backward.output_dim(input_dim)

    def config(self) -> dict[str, Any]:
        """Every option as JSON-able values."""
        return {**super().config(), "forward": self.forward.config(), "backward": self.backward.config()}

    def __repr__(self) -> str:
        return f"Bidirectional({self.forward!r}, {self.backward!r})"


def _directed(cell_or_layer: Any, reverse: bool) -> RNN:
    """An RNN in the wanted direction with the options of the layer given, or around the cell given."""
    if not isinstance(cell_or_layer, RNN):
        return RNN(cell_or_layer, reverse=reverse)
    names = ("backprop", "return_sequences", "time_major", "learn_initial_state")
    options = {name: getattr(cell_or_layer, name) for name in names}
    return RNN(cell_or_layer.cell, reverse=reverse, **options)
