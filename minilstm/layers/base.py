"""The base class of layers, and the checks of what a layer is given."""

from __future__ import annotations

from typing import Any

import numpy as np
from autograd.extend import defjvp, defvjp
from autograd.tracer import getval

from ..options import Recipe
from ..params import get_path
from ..primitives import primitive

Array = Any
Params = dict[str, Any]


class Layer(Recipe):
    """A recipe: `init` makes parameters, `apply` uses them. A layer holds options and no arrays.

    Subclasses define ``default_name``, `init`, `apply` and `output_dim`, and declare their options as dataclass fields.
    """

    kind = "layer"
    default_name = "layer"
    recurrent = False  # whether the layer has a state to pass from one window to the next
    is_random = True  # whether `apply` may draw from its `rng`; a generator for nothing is 4 % of a small step

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "apply" in vars(cls) and "is_random" not in vars(cls):  # another `apply` than the parent class promised for
            cls.is_random = True

    def init(self, seed: Any, input_dim: int | None = None, dtype: Any = np.float32) -> dict[str, Any]:
        """Make new parameters; `seed` is anything ``np.random.default_rng`` takes."""
        raise NotImplementedError

    def apply(
        self, params: Params, inputs: Array, state: Any = None, sequence_length: Any = None, rng: Any = None
    ) -> tuple[Array, Any]:
        """``(outputs, state)``. `rng` given means training (dropout acts), None means inference."""
        raise NotImplementedError

    def __call__(self, params: dict[str, Any], inputs: Array, **options: Any) -> Array:
        """`apply`, the outputs alone."""
        return self.apply(params, inputs, **options)[0]

    def initial_state(self, params: dict[str, Any], batch: int) -> Any:
        """The state that a sequence starts from if none is given, or None for a layer without a state."""
        return None

    def output_dim(self, input_dim: int | None) -> int | None:
        """The number of output features for `input_dim` input features."""
        return input_dim


def required(params: Any, name: str, where: str) -> Any:
    """Return the subtree or array `name` of a layer's parameters; ValueError if it is missing."""
    value = get_path(params, name)
    if value is None:
        held = sorted(params) or "nothing" if isinstance(getval(params), dict) else type(params).__name__
        raise ValueError(f"{where}: params must hold {name!r}, got {held}")
    return value


def check_features(inputs: Array, features: int, where: str, layout: str) -> None:
    """Raise ValueError unless the last dimension of `inputs` is `features` and no dimension is empty."""
    if inputs.shape[-1:] != (features,):
        raise ValueError(f"{where}: inputs must have {features} features, got shape {inputs.shape} ({layout})")
    if 0 in inputs.shape:
        raise ValueError(f"{where}: inputs must not be empty, got shape {inputs.shape} ({layout})")


@primitive
def time_major(x: Array) -> Array:
    """Swap the first two axes of ``[batch, time, ...]``: a view, since its reader copies it into another layout."""
    return x.swapaxes(0, 1)


@primitive
def batch_major(x: Array) -> Array:
    """Make a C-contiguous ``[batch, time, ...]`` of ``[time, batch, ...]``; a copy only if it is stored otherwise."""
    return np.ascontiguousarray(x.swapaxes(0, 1))


@primitive
def reverse_time(x: Array, lengths: np.ndarray | None) -> Array:
    """Each sequence of ``[time, batch, ...]`` from its last valid step to its first; padding stays where it is.

    Its derivative is itself. Autograd's own, of an index, adds number by number.
    """
    if lengths is None:
        return x[::-1]
    t = np.arange(x.shape[0])[:, None]
    return x[np.where(t < lengths, lengths - 1 - t, t), np.arange(x.shape[1])]


@primitive
def pick_steps(x: Array, steps: np.ndarray) -> Array:
    """One step of each sequence: ``[time, batch, ...]`` to ``[batch, ...]``, where `steps` is ``[batch]``."""
    return x[steps, np.arange(x.shape[1])]


@primitive
def place_steps(g: Array, steps: np.ndarray, time: int) -> Array:
    """The transpose of `pick_steps`: one step of each sequence, and zeros in all others."""
    x = np.zeros((time, *g.shape), g.dtype)
    x[steps, np.arange(len(g))] = g
    return x


defvjp(reverse_time, lambda ans, x, lengths: lambda g: reverse_time(g, lengths), argnums=(0,))
defvjp(pick_steps, lambda ans, x, steps: lambda g: place_steps(g, steps, x.shape[0]), argnums=(0,))
defvjp(place_steps, lambda ans, g, steps, time: lambda d: pick_steps(d, steps), argnums=(0,))
defvjp(time_major, lambda ans, x: time_major)
defvjp(batch_major, lambda ans, x: time_major)
for rearranges in (reverse_time, pick_steps, place_steps):
    defjvp(rearranges, "same", argnums=(0,))
defjvp(time_major, "same")
defjvp(batch_major, "same")
